package pagestore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"thaw/pagestore/internal/mapping"
	"thaw/pagestore/internal/pack"
)

// PackReader reads a pack as the file that it is, as far as that is pages, and checks each page before it gives it away. It
// is safe for concurrent use.
type PackReader struct {
	store *Store
	name  string
	pack  *openPack
}

var _ io.ReaderAt = (*PackReader)(nil)

// PackFile opens the pack of a namespace whose file has the name of path, wherever path leads; nil if packs are not called so. The
// error wraps [ErrMissingPack] if the namespace has no such pack.
func (s *Store) PackFile(namespace, path string) (*PackReader, error) {
	name := filepath.Base(path)
	hex, ok := strings.CutSuffix(name, packExt)
	if !ok {
		return nil, nil
	}
	id, err := pack.ParseID(hex)
	if err != nil {
		return nil, nil
	}
	if err := (Name{Namespace: namespace, Snapshot: "any"}).Validate(); err != nil {
		return nil, err
	}
	ns := s.namespace(namespace)
	if p := s.sharePack(packKey{namespace: ns.name, id: id}); p != nil {
		if p.partial() { // nobody can have mapped it
			s.releasePack(p)
			return nil, fmt.Errorf("%w: %s in namespace %s is not all here", ErrMissingPack, id, namespace)
		}
		return &PackReader{store: s, name: name, pack: p}, nil // it may have lost its name since it was opened
	}
	footer, err := readFooter(ns.pack(id), id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s in namespace %s", ErrMissingPack, id, namespace)
	} else if err != nil {
		return nil, fmt.Errorf("open pack %s: %w", id, classify(err))
	}
	p, err := s.acquirePack(ns, id, uint32(footer.Pages()), nil)
	if err != nil {
		return nil, err
	}
	return &PackReader{store: s, name: name, pack: p}, nil
}

// ReadAt reads pages: off and the length of b are multiples of the page size, and off is where a page begins. Errors wrap
// [ErrCorrupt] or [ErrRange].
func (r *PackReader) ReadAt(b []byte, off int64) (int, error) {
	page, n := (off-pack.Offset(0))/PageSize, len(b)/PageSize
	if off < pack.Offset(0) || off%PageSize != 0 || len(b)%PageSize != 0 || page+int64(n) > int64(r.pack.mapped.Pages()) {
		return 0, fmt.Errorf("%w: %d bytes at %d of %s", ErrRange, len(b), off, r.name)
	}
	done, err := r.pack.mapped.Verify(uint32(page), n)
	if err != nil {
		err = fmt.Errorf("page %d of %s: %w", page+int64(done), r.name, classify(err))
	}
	if copyErr := copyPages(b[:done*PageSize], r.pack.mapped.Bytes(uint32(page), done)); copyErr != nil {
		return 0, fmt.Errorf("read %s: %w", r.name, copyErr)
	}
	return done * PageSize, err
}

// copyPages copies mapped bytes.
func copyPages(to, from []byte) (err error) {
	defer mapping.Recover(mapping.Guard(), &err)
	copy(to, from)
	return nil
}

// Close gives the pack back.
func (r *PackReader) Close() error {
	r.store.releasePack(r.pack)
	return nil
}
