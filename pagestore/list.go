package pagestore

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

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
	// Stub: pages of it may have to come from afar; see [Store.Adopt].
	Stub bool
	// Used is when a stub was used last, as Evict counts it; zero for other snapshots, of which that is not kept.
	Used time.Time
	// HintBytes and HotBytes are the sizes of what SetWorkingSet has kept, the hint and the packed copy; 0 for none.
	HintBytes, HotBytes int64
	// Learned is when either of them was replaced last; zero if there is none.
	Learned time.Time
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
	folders, err := n.folders()
	if err != nil {
		return nil, err
	}
	var entries []Entry
	for _, f := range folders {
		info, err := readInfo(f.dir)
		if _, gone := os.Stat(f.dir); errors.Is(gone, fs.ErrNotExist) {
			continue // while we looked
		}
		e := Entry{
			Name:         Name{Namespace: n.name, Snapshot: f.snapshot},
			Info:         info,
			Err:          err,
			BeingRemoved: f.removed,
		}
		if stub, err := os.Lstat(filepath.Join(f.dir, remoteFile)); err == nil {
			e.Stub, e.Used = true, stub.ModTime()
		}
		e.HintBytes, e.HotBytes, e.Learned = workingSetFiles(f.dir)
		entries = append(entries, e)
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

// folders returns the folders of all snapshots, those that are removed and not deleted behind the others.
func (n namespace) folders() ([]folder, error) {
	folders, err := n.listSnapshots()
	if err != nil {
		return nil, err
	}
	removed, err := n.listRemoved()
	return append(folders, removed...), err
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
