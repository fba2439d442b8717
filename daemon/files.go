package daemon

import (
	"context"
	"fmt"
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
func (o *origin) readFiles(ctx context.Context, binds []control.Bind, known *needs) {
	names, err := criu.FileNames(o.skeleton)
	if err != nil || len(binds) == 0 {
		return // the runtime will say it better
	}
	runs := known.fileRuns()
	read := make(chan string)
	var g sync.WaitGroup
	for range fileReaders {
		g.Go(func() {
			for name := range read {
				if f := openSeen(name, binds); f != nil {
					readFile(f, runs[name], runs != nil)
					f.Close()
				}
			}
		})
	}
	for _, name := range names {
		select {
		case read <- name:
		case <-ctx.Done():
		}
	}
	close(read)
	g.Wait()
}

// seenThrough returns the bind through which processes see name, the last of the innermost ones, and what the name is below it.
func seenThrough(name string, binds []control.Bind) (through *control.Bind, rel string) {
	longest := -1
	for i := range binds {
		below, err := filepath.Rel(binds[i].Target, name)
		if err == nil && filepath.IsLocal(below) && len(binds[i].Target) >= longest {
			through, rel, longest = &binds[i], below, len(binds[i].Target)
		}
	}
	return through, rel
}

// foundAt returns where a file is here that processes with the binds see as name.
func foundAt(name string, binds []control.Bind) (path string, ok bool) {
	b, rel := seenThrough(name, binds)
	if b == nil {
		return "", false
	}
	return filepath.Join(b.Source, rel), true
}

// openSeen opens the regular file that processes with the binds see as name; nil if there is none. Links lead where they lead for the
// processes: what is in a container's folders is the container's choice, and nothing else than a regular file is ever opened.
func openSeen(name string, binds []control.Bind) *os.File {
	b, rel := seenThrough(name, binds)
	if b == nil {
		return nil
	}
	root, err := unix.Open(b.Source, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(root)
	fd, err := unix.Openat2(root, rel, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size == 0 {
		return nil
	}
	f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return nil
	}
	return f
}

// readFile has the kernel read runs of a file, or, if nothing is known, its first page and what the kernel reads along with that.
// What goes wrong is for those to notice who need the file.
func readFile(f *os.File, runs []pageRun, known bool) {
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
