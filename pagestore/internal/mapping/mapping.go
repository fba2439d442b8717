package mapping

import (
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"sync"

	"golang.org/x/sys/unix"
)

// Map maps the first size bytes of f read-only. The mapping outlives f; Unmap ends it. An empty file has no mapping:
// the slice is nil.
func Map(f *os.File, size int64) ([]byte, error) {
	if size == 0 {
		return nil, nil
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, &fs.PathError{Op: "mmap", Path: f.Name(), Err: err}
	}
	return data, nil
}

// MapForWriting maps size bytes of f from off on, a page border, shared with the file. Blocks of the disk must be reserved for them: a write to
// a hole of a disk that is full is a fault; see [Guard]. Unmap ends it.
func MapForWriting(f *os.File, off, size int64) ([]byte, error) {
	data, err := unix.Mmap(int(f.Fd()), off, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, &fs.PathError{Op: "mmap", Path: f.Name(), Err: err}
	}
	return data, nil
}

// MapRandom is Map for a file of which the caller asks for what it needs, with WillNeed: a fault reads one page from the
// disk, and nothing around it.
func MapRandom(f *os.File, size int64) ([]byte, error) {
	data, err := Map(f, size)
	if len(data) > 0 {
		_ = unix.Madvise(data, unix.MADV_RANDOM) // a hint
	}
	return data, err
}

// Unmap ends a mapping that Map made. No slice of it may be in use.
func Unmap(data []byte) error {
	if data == nil {
		return nil
	}
	return os.NewSyscallError("munmap", unix.Munmap(data))
}

// Populate waits until data, which starts at a page border of a mapping, is in memory and mapped. The wait for the disk
// then happens in a system call, where the Go scheduler sees it: a fault would block the processor with the thread.
// It is a hint: what goes wrong (an old kernel, a bad block) shows when the data is read.
func Populate(data []byte) {
	if len(data) > 0 {
		_ = unix.Madvise(data, unix.MADV_POPULATE_READ) // since Linux 5.14
	}
}

// WillNeed starts to read data, which starts at a page border of a mapping, from the disk. It waits for no data, but
// may wait for room in the disk's queue. A hint, as Populate.
func WillNeed(data []byte) {
	if len(data) > 0 {
		_ = unix.Madvise(data, unix.MADV_WILLNEED)
	}
}

// null is where Fill sends what it reads. It stays open.
var null = sync.OnceValue(func() *os.File {
	f, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return nil
	}
	return f
})

// Fill waits until n bytes of f at off are in memory, as WillNeed and Populate do, but for large ranges read in order. It
// sends them to /dev/null: that copies nothing, and it reads ahead in large folios, which WillNeed does not. Measured for
// 256 MiB in steps of 1 MiB, kernel 6.18, ext4: from the disk 155 to 276 ms against 278 to 299; from memory 7 ms; and to map
// the pages afterwards takes 2 ms against 39 to 61. A hint, as Populate.
func Fill(f *os.File, off, n int64) {
	out := null()
	for out != nil && n > 0 {
		done, err := unix.Sendfile(int(out.Fd()), int(f.Fd()), &off, int(n))
		if err == unix.EINTR {
			continue
		}
		if err != nil || done <= 0 {
			return
		}
		n -= int64(done)
	}
}

// Forget takes the pages of a mapping out of the page tables. They stay in the page cache, but nothing holds them there.
func Forget(data []byte) {
	if len(data) > 0 {
		_ = unix.Madvise(data, unix.MADV_DONTNEED)
	}
}

// Guard makes faults on mapped memory panic in the calling goroutine, for [Recover] to catch. It returns what Recover
// needs to restore. Use them as a pair, with err a named result:
//
//	defer mapping.Recover(mapping.Guard(), &err)
func Guard() (old bool) { return debug.SetPanicOnFault(true) }

// Recover ends what Guard began; it must be deferred itself. A fault on mapped memory becomes *err; other panics go on.
func Recover(old bool, err *error) {
	r := recover()
	debug.SetPanicOnFault(old)
	switch r := r.(type) {
	case nil:
	case interface{ Addr() uintptr }: // what the runtime panics with; see debug.SetPanicOnFault
		*err = fmt.Errorf("storage did not deliver the mapped file: %w", unix.EIO)
	default:
		panic(r)
	}
}
