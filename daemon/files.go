package daemon

import (
	"context"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"thaw/control"
	"thaw/restore"
	"thaw/restore/criu"
)

// fileReaders is how many files are asked for at a time. The runtime opens one after the other, and waits for each; a disk is
// fast only when it has much to do.
const fileReaders = 8

// headPages is how much of each file is read in any case: the runtime looks into the head of each library.
const headPages = 4

// readFiles has the kernel read the files that the runtime and the processes are about to use, libraries for the most part: what
// was touched after earlier restores, or, as long as nothing is known of that, as much of each as the kernel reads when the runtime
// looks at its first page. It returns when all have been asked for, or ctx ends.
func (o *origin) readFiles(ctx context.Context, binds []control.Bind, known *touched) {
	names, err := criu.FileNames(o.skeleton)
	if err != nil || len(binds) == 0 {
		return // the runtime will say it better
	}
	runs := known.fileRuns(o.digest)
	read := make(chan string)
	var g sync.WaitGroup
	for range fileReaders {
		g.Go(func() {
			for name := range read {
				if path, ok := foundAt(name, binds); ok {
					readFile(path, runs[name], runs != nil)
				}
			}
		})
	}
	for _, name := range names {
		if ctx.Err() == nil {
			read <- name
		}
	}
	close(read)
	g.Wait()
}

// foundAt returns where a file is here that processes with the binds see as name.
func foundAt(name string, binds []control.Bind) (path string, ok bool) {
	longest := -1
	for _, b := range binds {
		rel, err := filepath.Rel(b.Target, name)
		if err == nil && filepath.IsLocal(rel) && len(b.Target) > longest {
			path, longest = filepath.Join(b.Source, rel), len(b.Target)
		}
	}
	return path, longest >= 0
}

// readFile has the kernel read runs of a file, or, if nothing is known, its first page and what the kernel reads along with that.
// What goes wrong is for those to notice who need the file.
func readFile(path string, runs []pageRun, known bool) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
		return
	}
	if !known {
		touchFirstPage(f)
		return
	}
	for _, r := range append([]pageRun{{0, headPages}}, runs...) {
		_ = unix.Fadvise(int(f.Fd()), int64(r.first)*restore.PageSize, int64(r.n)*restore.PageSize, unix.FADV_WILLNEED)
	}
}

func touchFirstPage(f *os.File) {
	page, err := unix.Mmap(int(f.Fd()), 0, unix.Getpagesize(), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return
	}
	_ = unix.Madvise(page, unix.MADV_POPULATE_READ)
	_ = unix.Munmap(page)
}
