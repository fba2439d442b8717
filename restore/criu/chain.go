package criu

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"thaw/restore"
)

// maxChain bounds the number of folders in a chain of incremental dumps.
const maxChain = 256

// A chain is a folder of images and those of its parents: the dumps that an incremental dump builds on, each named by
// the link "parent" in the one before. It resolves pages to the file that holds their newest bytes.
type chain struct {
	dirs   []chainDir
	files  []*os.File     // the pages files in use, owned
	fileAt map[string]int // index in files by path
}

type chainDir struct {
	path     string
	prefix   string // of its files' names in messages
	pagemaps map[string]*loadedMap
}

// A loadedMap is a pagemap and where its pages are.
type loadedMap struct {
	*pageMap
	file int // index in chain.files, or Remote if there is none
}

// openChain finds the folders of the chain that begins at dir. No file is opened yet.
func openChain(dir string) (*chain, error) {
	c := &chain{fileAt: make(map[string]int)}
	var seen []os.FileInfo
	prefix := ""
	for {
		st, err := os.Stat(dir)
		if prefix != "" && errors.Is(err, fs.ErrNotExist) {
			// No parent, or a link that leads nowhere: fine unless a page is there, and resolve says so.
			return c, nil
		}
		if err != nil {
			return nil, fileError(filepath.Join(prefix, "."), err)
		}
		if !st.IsDir() {
			return nil, badFile(filepath.Join(prefix, "."), "is not a folder")
		}
		for _, s := range seen {
			if os.SameFile(s, st) {
				return nil, badFile(prefix, "the chain of parents returns to itself")
			}
		}
		if len(seen) == maxChain {
			return nil, unsupported(prefix, -1, "a chain of more than %d dumps", maxChain)
		}
		seen = append(seen, st)
		c.dirs = append(c.dirs, chainDir{path: dir, prefix: prefix, pagemaps: make(map[string]*loadedMap)})
		dir = filepath.Join(dir, "parent")
		prefix += "parent/"
	}
}

func (c *chain) close() error {
	var errs []error
	for _, f := range c.files {
		errs = append(errs, f.Close())
	}
	c.files = nil
	return errors.Join(errs...)
}

// runs returns all pages of the pagemap image called base, in address order, wherever in the chain their bytes are.
func (c *chain) runs(base string) ([]Run, error) {
	lm, err := c.load(0, base)
	if err != nil {
		return nil, err
	}
	var out []Run
	for i, e := range lm.entries {
		if out, err = c.resolve(out, 0, lm, i, Run{Addr: e.addr, Pages: e.pages, lazyFlag: e.flags&flagLazy != 0}); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// remoteRuns returns the pages of the pagemap image called base that a lazy restore leaves to the page server.
func (c *chain) remoteRuns(base string) ([]Run, error) {
	d := &c.dirs[0]
	pm, err := readImage(filepath.Join(d.path, base), d.prefix+base, magicPagemap, parsePagemap)
	if err != nil {
		return nil, err
	}
	var out []Run
	for _, e := range pm.entries {
		if e.flags&flagLazy != 0 {
			out = append(out, Run{Addr: e.addr, Pages: e.pages, File: Remote, lazyFlag: true})
		}
	}
	return out, nil
}

// resolve appends to out the pages of want, which lie inside entry i of lm, a pagemap of the chain's folder level.
func (c *chain) resolve(out []Run, level int, lm *loadedMap, i int, want Run) ([]Run, error) {
	e := &lm.entries[i]
	switch {
	case e.flags&flagPresent != 0:
		want.File = lm.file
		want.Offset = e.offset + int64(want.Addr-e.addr)
		return appendRun(out, want, 0), nil
	case e.flags&flagParent == 0:
		return nil, &ImageError{File: lm.name, Entry: i, Err: ErrRemotePages, Reason: "the dump was made with --lazy-pages, or this is " +
			"a skeleton: dump without --lazy-pages to keep the pages"}
	case level+1 == len(c.dirs):
		return nil, badEntry(lm.name, i, "its pages are in a parent dump: the link \"parent\" is missing or leads nowhere")
	}
	parent, err := c.load(level+1, filepath.Base(lm.name))
	if err != nil {
		return nil, fmt.Errorf("resolve the pages at %#x: %w", want.Addr, err)
	}
	for j := parent.at(want.Addr); want.Pages > 0; j++ {
		if j == len(parent.entries) || parent.entries[j].addr > want.Addr {
			return nil, badEntry(lm.name, i, "the page at %#x is in the parent dump, but %s lacks it", want.Addr, parent.name)
		}
		part := want
		part.Pages = min(want.Pages, (parent.entries[j].end()-want.Addr)/restore.PageSize)
		if out, err = c.resolve(out, level+1, parent, j, part); err != nil {
			return nil, err
		}
		want = want.skip(part.Pages)
	}
	return out, nil
}

// load reads the pagemap called base of the chain's folder level, and opens its pages file.
func (c *chain) load(level int, base string) (*loadedMap, error) {
	d := &c.dirs[level]
	if lm := d.pagemaps[base]; lm != nil {
		return lm, nil
	}
	pm, err := readImage(filepath.Join(d.path, base), d.prefix+base, magicPagemap, parsePagemap)
	if err != nil {
		return nil, err
	}
	lm := &loadedMap{pageMap: pm}
	if lm.file, err = c.openPages(d, pm); err != nil {
		return nil, err
	}
	d.pagemaps[base] = lm
	return lm, nil
}

// openPages opens the pages file of pm and returns its index; without any pages there need not be one. The file must
// have exactly the pages that the pagemap lists: a shorter one lacks some, and a longer one shows that the pagemap lost
// entries, whose pages would be zero.
func (c *chain) openPages(d *chainDir, pm *pageMap) (int, error) {
	base := fmt.Sprintf("pages-%d.img", pm.pagesID)
	name, path := d.prefix+base, filepath.Join(d.path, base)
	i, ok := c.fileAt[path]
	if !ok {
		f, err := os.Open(path)
		if pm.bytes == 0 && errors.Is(err, fs.ErrNotExist) {
			return Remote, nil
		}
		if err != nil {
			return 0, fileError(name, err)
		}
		i = len(c.files)
		c.files = append(c.files, f)
		c.fileAt[path] = i
	}
	st, err := c.files[i].Stat()
	switch {
	case err != nil:
		return 0, fileError(name, err)
	case !st.Mode().IsRegular():
		return 0, badFile(name, "is not a regular file")
	case st.Size() < pm.bytes:
		return 0, badFile(name, "has %d bytes, but %s lists pages up to byte %d: the file is truncated, or of another dump",
			st.Size(), pm.name, pm.bytes)
	case st.Size() > pm.bytes:
		return 0, badFile(name, "has %d bytes, but %s lists pages only up to byte %d: the pagemap is truncated, or of another dump",
			st.Size(), pm.name, pm.bytes)
	}
	return i, nil
}
