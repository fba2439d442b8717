package tier

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"

	"thaw/pagestore"
	"thaw/pagestore/internal/hot"
)

// The files of a meta object, in this order; the first two are always there. Names, order and limits are part of the format.
const (
	metaInfo     = "info.json"
	metaManifest = "manifest"
	metaHint     = "workingset"
	metaHotOrder = "hotorder"
	metaSkeleton = "skeleton/"

	maxInfo = 16 << 20
	maxHint = 256 << 20
)

// writeMeta writes the meta object of a snapshot. It is the same on every machine that has the same snapshot and compresses in the same way.
func writeMeta(w io.Writer, files *pagestore.Files, skeletonDir string) error {
	// One goroutine, so that the bytes do not hang on who was faster.
	z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	t := tar.NewWriter(z)
	for _, f := range []struct {
		name string
		data []byte
	}{{metaInfo, files.Info}, {metaManifest, files.Manifest}, {metaHint, files.Hint}, {metaHotOrder, files.HotOrder}} {
		if len(f.data) == 0 {
			continue
		}
		if err := writeEntry(t, f.name, int64(len(f.data)), func() error { _, err := t.Write(f.data); return err }); err != nil {
			return err
		}
	}
	skeleton := slices.Clone(files.Skeleton)
	slices.SortFunc(skeleton, func(a, b pagestore.SkeletonFile) int { return strings.Compare(a.Path, b.Path) })
	for _, s := range skeleton {
		if err := writeEntry(t, metaSkeleton+s.Path, s.Bytes, func() error { return copyFile(t, filepath.Join(skeletonDir, filepath.FromSlash(s.Path)), s.Bytes) }); err != nil {
			return err
		}
	}
	if err := t.Close(); err != nil {
		return err
	}
	return z.Close()
}

func writeEntry(t *tar.Writer, name string, size int64, fill func() error) error {
	// Nothing but the name and the size: no times, no owners.
	if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o600}); err != nil {
		return fmt.Errorf("meta object: %s: %w", name, err)
	}
	if err := fill(); err != nil {
		return fmt.Errorf("meta object: %s: %w", name, err)
	}
	return nil
}

func copyFile(w io.Writer, path string, size int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyN(w, f, size)
	return err
}

// meta is a meta object that is being read: its files but for the skeleton, which follows when it is asked for.
type meta struct {
	pagestore.Files

	zstd *zstd.Decoder
	tar  *tar.Reader
	next *tar.Header // the entry at which tar is; nil at the end
}

// openMeta reads the beginning of a meta object whose bytes are known to be those of its digest. Errors wrap [pagestore.ErrCorrupt] for what is not a meta
// object, or that of another manifest. The caller closes it.
func openMeta(r io.Reader, manifest Part) (*meta, error) {
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20), zstd.WithDecoderMaxWindow(64<<20))
	if err != nil {
		return nil, corruptf("meta object: %w", err)
	}
	m := &meta{zstd: z, tar: tar.NewReader(z)}
	if err := m.readHead(manifest); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

func (m *meta) Close() { m.zstd.Close() }

// advance goes to the next entry.
func (m *meta) advance() error {
	h, err := m.tar.Next()
	if err == io.EOF {
		m.next = nil
		return nil
	}
	if err != nil {
		return corruptf("meta object: %w", err)
	}
	if h.Typeflag != tar.TypeReg {
		return corruptf("meta object: %q is no file", h.Name)
	}
	m.next = h
	return nil
}

// take returns the content of the next entry if it has that name, at most limit bytes; nil if it has not.
func (m *meta) take(name string, limit int64) ([]byte, error) {
	if m.next == nil || m.next.Name != name {
		return nil, nil
	}
	if m.next.Size < 1 || m.next.Size > limit {
		return nil, corruptf("meta object: %s has %d bytes, want 1 to %d", name, m.next.Size, limit)
	}
	b := make([]byte, m.next.Size)
	if _, err := io.ReadFull(m.tar, b); err != nil {
		return nil, corruptf("meta object: %s: %w", name, err)
	}
	return b, m.advance()
}

func (m *meta) readHead(manifest Part) error {
	if err := m.advance(); err != nil {
		return err
	}
	for _, f := range []struct {
		to    *[]byte
		name  string
		limit int64
	}{
		{&m.Info, metaInfo, maxInfo}, {&m.Manifest, metaManifest, manifest.Bytes}, {&m.Hint, metaHint, maxHint}, {&m.HotOrder, metaHotOrder, hot.MaxHeadSize},
	} {
		var err error
		if *f.to, err = m.take(f.name, f.limit); err != nil {
			return err
		}
	}
	if m.Info == nil || m.Manifest == nil {
		return corruptf("meta object: it does not begin with %s and %s", metaInfo, metaManifest)
	}
	var envelope struct {
		Info pagestore.Info `json:"info"`
	}
	if err := json.Unmarshal(m.Info, &envelope); err != nil { // the store looks at all of it
		return corruptf("meta object: %s: %w", metaInfo, err)
	}
	if info := &envelope.Info; info.Digest != manifest.Digest || info.ManifestBytes != manifest.Bytes {
		return corruptf("meta object: it has manifest %s, want %s", info.Digest, manifest.Digest)
	}
	m.Skeleton = envelope.Info.Skeleton
	return nil
}

// extract writes the files of the skeleton below the folder dir: those that the info lists, and no other.
func (m *meta) extract(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	want := make(map[string]int64, len(m.Skeleton))
	for _, f := range m.Skeleton {
		want[f.Path] = f.Bytes
	}
	for m.next != nil {
		name, ok := strings.CutPrefix(m.next.Name, metaSkeleton)
		size, listed := want[name]
		if !ok || !listed || size != m.next.Size {
			return corruptf("meta object: %q of %d bytes is not in the list of files", m.next.Name, m.next.Size)
		}
		delete(want, name)
		if err := m.extractFile(root, name); err != nil {
			return err
		}
		if err := m.advance(); err != nil {
			return err
		}
	}
	for name := range want {
		return corruptf("meta object: skeleton file %s is missing", name)
	}
	return nil
}

func (m *meta) extractFile(root *os.Root, name string) error {
	if dir := path.Dir(name); dir != "." {
		if err := root.MkdirAll(filepath.FromSlash(dir), 0o700); err != nil {
			return err
		}
	}
	f, err := root.OpenFile(filepath.FromSlash(name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, fs.FileMode(0o600))
	if err != nil {
		return err
	}
	_, err = io.Copy(f, m.tar)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("write skeleton file %s: %w", name, err)
	}
	return nil
}
