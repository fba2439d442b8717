package daemon

import (
	"errors"
	"os"
	"reflect"
	"slices"
	"sync"

	"thaw/pagestore"
	"thaw/restore/criu"
)

// maxMappedImages bounds the folders that are kept without a session: each is some hundred KiB of page maps beside hard links, and saves the
// next restore of its snapshot 2 to 3 ms.
const maxMappedImages = 64

// mappedImages keeps folders of images that map memory from packs: the next restore of the same snapshot, with the same to map, takes the
// same one. It is safe for concurrent use.
type mappedImages struct {
	dir   string                                                // where the folders are made
	write func(skeleton, dir string, plan *criu.FilePlan) error // criu.MapFiles

	mu     sync.Mutex
	closed bool            // protected by mu; none is kept any more
	known  []*mappedFolder // protected by mu; the one that was asked for last at the end
}

// A mappedFolder is a folder of images. It must not change as long as anybody uses it.
type mappedFolder struct {
	path     string // set by written, for those to whom it has returned; empty before
	skeleton string
	digest   pagestore.Digest
	plan     criu.FilePlan
	written  func() error // writes it, once

	users int // protected by mappedImages.mu
}

// use returns images like those of a skeleton, that of the snapshot digest, with memory mapped as the plan says. The caller gives the folder
// back with release. The plan must not change any more.
func (m *mappedImages) use(skeleton string, digest pagestore.Digest, plan *criu.FilePlan) (*mappedFolder, error) {
	f := m.find(skeleton, digest, plan)
	if err := f.written(); err != nil {
		m.forget(f)
		return nil, errors.Join(err, m.release(f))
	}
	return f, nil
}

func (m *mappedImages) find(skeleton string, digest pagestore.Digest, plan *criu.FilePlan) *mappedFolder {
	m.mu.Lock()
	defer m.mu.Unlock()
	same := func(f *mappedFolder) bool {
		return f.digest == digest && f.skeleton == skeleton && reflect.DeepEqual(&f.plan, plan)
	}
	var f *mappedFolder
	if i := slices.IndexFunc(m.known, same); i >= 0 {
		f = m.known[i]
		m.known = slices.Delete(m.known, i, i+1)
	} else {
		f = &mappedFolder{skeleton: skeleton, digest: digest, plan: *plan}
		f.written = sync.OnceValue(func() error { return m.make(f) })
	}
	f.users++
	m.known = append(m.known, f)
	return f
}

func (m *mappedImages) make(f *mappedFolder) error {
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return err
	}
	// Another thawd may have the same folder for its work.
	path, err := os.MkdirTemp(m.dir, "images-")
	if err != nil {
		return err
	}
	f.path = path
	return m.write(f.skeleton, f.path, &f.plan)
}

// forget has no other session get the folder.
func (m *mappedImages) forget(f *mappedFolder) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known = slices.DeleteFunc(m.known, func(k *mappedFolder) bool { return k == f })
}

// release says that a session does not use the folder any more. What is not kept is removed.
func (m *mappedImages) release(f *mappedFolder) error {
	m.mu.Lock()
	f.users--
	idle := func(k *mappedFolder) bool { return k.users == 0 }
	var gone []string
	if !slices.Contains(m.known, f) && idle(f) {
		gone = append(gone, f.path)
	}
	for m.closed || len(m.known) > maxMappedImages {
		i := slices.IndexFunc(m.known, idle)
		if i < 0 {
			break
		}
		gone = append(gone, m.known[i].path)
		m.known = slices.Delete(m.known, i, i+1)
	}
	m.mu.Unlock()
	return removeAll(gone)
}

// close removes the folders that no session uses. Those of others go with their sessions.
func (m *mappedImages) close() error {
	m.mu.Lock()
	m.closed = true
	var gone []string
	m.known = slices.DeleteFunc(m.known, func(f *mappedFolder) bool {
		if f.users == 0 {
			gone = append(gone, f.path)
		}
		return f.users == 0
	})
	m.mu.Unlock()
	return removeAll(gone)
}

// removeAll removes folders of links and small files, in which nothing is mounted.
func removeAll(dirs []string) (err error) {
	for _, dir := range dirs {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}
