package pagestore

import (
	"errors"
	"io/fs"
	"math/bits"
	"os"
	"path/filepath"
	"strings"

	"thaw/pagestore/internal/manifest"
	"thaw/pagestore/internal/mapping"
)

// Entry is one line of a listing.
type Entry struct {
	Name Name
	// Info is nil if Err says why it cannot be read.
	Info *Info
	Err  error
	// BeingRemoved: the snapshot was removed, but somebody leases it or GC has not been by.
	BeingRemoved bool
}

// List returns the snapshots of all namespaces, sorted by namespace and name, removed ones after the others of their
// namespace. A snapshot whose info cannot be read is listed with its error.
func (s *Store) List() ([]Entry, error) {
	names, err := s.Namespaces()
	if err != nil {
		return nil, err
	}
	var all []Entry
	for _, name := range names {
		entries, err := s.namespace(name).list()
		if err != nil {
			return nil, err
		}
		all = append(all, entries...)
	}
	return all, nil
}

func (n namespace) list() ([]Entry, error) {
	folders, err := n.listSnapshots()
	if err != nil {
		return nil, err
	}
	removed, err := n.listRemoved()
	if err != nil {
		return nil, err
	}
	var entries []Entry
	for _, f := range append(folders, removed...) {
		info, err := readInfo(f.dir)
		if _, gone := os.Stat(f.dir); errors.Is(gone, fs.ErrNotExist) {
			continue // while we looked
		}
		entries = append(entries, Entry{
			Name:         Name{Namespace: n.name, Snapshot: f.snapshot},
			Info:         info,
			Err:          err,
			BeingRemoved: f.removed,
		})
	}
	return entries, nil
}

// folder is the folder of a snapshot.
type folder struct {
	snapshot string
	dir      string
	removed  bool
}

func (n namespace) listSnapshots() ([]folder, error) {
	entries, err := readDir(n.snapshots())
	if err != nil {
		return nil, err
	}
	var folders []folder
	for _, e := range entries {
		if e.IsDir() && validatePart(e.Name()) == nil {
			folders = append(folders, folder{snapshot: e.Name(), dir: n.snapshot(e.Name())})
		}
	}
	return folders, nil
}

// listRemoved returns the folders of removed snapshots, whose names are NAME@UNIQUE.
func (n namespace) listRemoved() ([]folder, error) {
	entries, err := readDir(n.removed())
	if err != nil {
		return nil, err
	}
	var folders []folder
	for _, e := range entries {
		if name, _, ok := strings.Cut(e.Name(), "@"); ok {
			folders = append(folders, folder{snapshot: name, dir: filepath.Join(n.removed(), e.Name()), removed: true})
		}
	}
	return folders, nil
}

// readManifest maps the manifest in the folder dir and hands it to fn, which may keep nothing of it. A fault of the
// storage inside fn is an error.
func readManifest(dir string, fn func(m *manifest.Manifest) error) (err error) {
	f, err := os.Open(filepath.Join(dir, manifestFile))
	if err != nil {
		return err
	}
	defer f.Close()
	stat, err := f.Stat()
	if err != nil {
		return err
	}
	if stat.Size() > manifest.MaxSize {
		return corruptf("manifest has %d bytes, want at most %d", stat.Size(), uint64(manifest.MaxSize))
	}
	data, err := mapping.Map(f, stat.Size())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, mapping.Unmap(data)) }()
	defer mapping.Recover(mapping.Guard(), &err)
	m, err := manifest.Parse(data)
	if err != nil {
		return classify(err)
	}
	return fn(m)
}

// bitmap is a set of the pages of one pack.
type bitmap []uint64

func newBitmap(pages uint32) bitmap { return make(bitmap, (pages+63)/64) }

func (b bitmap) add(page, n uint32) {
	for p := page; p < page+n; p++ {
		b[p/64] |= 1 << (p % 64)
	}
}

// count counts the pages in the set.
func (b bitmap) count() (n uint64) {
	for _, w := range b {
		n += uint64(bits.OnesCount64(w))
	}
	return n
}

// common counts the pages in both sets.
func (b bitmap) common(other bitmap) (n uint64) {
	for i := range min(len(b), len(other)) {
		n += uint64(bits.OnesCount64(b[i] & other[i]))
	}
	return n
}

// packUse is who uses which pages of a pack.
type packUse struct {
	pages     uint32
	used      bitmap
	snapshots []string
}

// usage is the packs that snapshots name: 8 KiB for a full pack.
type usage map[PackID]*packUse

// add notes what the manifest of a snapshot uses. Packs of which two manifests give different sizes are an error: one of
// the manifests lies.
func (u usage) add(snapshot string, m *manifest.Manifest) error {
	uses := make([]*packUse, m.Packs())
	for i := range uses {
		p := m.Pack(i)
		use := u[p.ID]
		if use == nil {
			use = &packUse{pages: p.Pages, used: newBitmap(p.Pages)}
			u[p.ID] = use
		}
		if use.pages != p.Pages {
			return corruptf("pack %s has %d pages here and %d in another manifest", p.ID, p.Pages, use.pages)
		}
		if n := len(use.snapshots); n == 0 || use.snapshots[n-1] != snapshot {
			use.snapshots = append(use.snapshots, snapshot)
		}
		uses[i] = use
	}
	for i := range m.Extents() {
		e := m.Extent(i)
		uses[e.Pack].used.add(e.Page, e.Pages)
	}
	return nil
}

// of returns the used pages of a pack, none if nobody uses it.
func (u usage) of(id PackID) bitmap {
	if use := u[id]; use != nil {
		return use.used
	}
	return nil
}
