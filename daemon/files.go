package daemon

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"thaw/control"
	"thaw/restore/criu"
)

// fileReaders is how many files are asked for at a time. The runtime opens one after the other, and waits for each; a disk is
// fast only when it has much to do.
const fileReaders = 8

// readFiles has the kernel read the beginnings of the files that the runtime is about to open, libraries for the most part: as much
// of each as it would read when the runtime looks at the first page. It returns when all have been asked for, or ctx ends.
func (o *origin) readFiles(ctx context.Context, binds []control.Bind) {
	names, err := criu.FileNames(o.images)
	if err != nil || len(binds) == 0 {
		return // the runtime will say it better
	}
	paths := make(chan string)
	var g sync.WaitGroup
	for range fileReaders {
		g.Go(func() {
			for path := range paths {
				touch(path)
			}
		})
	}
	for _, name := range names {
		if path, ok := foundAt(name, binds); ok && ctx.Err() == nil {
			paths <- path
		}
	}
	close(paths)
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
	return path, longest >= 0 && !strings.Contains(name, " (deleted)")
}

// touch has the kernel read the first page of a file and what it reads along with it. What goes wrong is for those to notice who need
// the file.
func touch(path string) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
		return
	}
	page, err := unix.Mmap(int(f.Fd()), 0, unix.Getpagesize(), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return
	}
	_ = unix.Madvise(page, unix.MADV_POPULATE_READ)
	_ = unix.Munmap(page)
}
