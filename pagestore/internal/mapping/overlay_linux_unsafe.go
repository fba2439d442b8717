package mapping

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// MemoryFile returns a file of size bytes that lies in memory and has no name. Its memory is taken when it is written to, and given back
// when it is closed and not mapped.
func MemoryFile(size int64) (*os.File, error) {
	fd, err := unix.MemfdCreate("thaw-pages", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "thaw-pages")
	if err := f.Truncate(size); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Overlay puts what f has at off in the place of data, which is whole pages of a mapping, and stays as readable as it was all the while.
// Unmap of the mapping ends it. Overlays of one file that lie side by side in both are one mapping for the kernel, which bounds
// how many a process may have (vm.max_map_count, by default 65530); a Go program does not survive that bound.
func Overlay(data []byte, f *os.File, off int64) error {
	if len(data) == 0 {
		return fmt.Errorf("overlay of no bytes")
	}
	// It replaces what was there in one step: no reader sees anything in between.
	at := unsafe.Pointer(unsafe.SliceData(data))
	_, err := unix.MmapPtr(int(f.Fd()), off, at, uintptr(len(data)), unix.PROT_READ, unix.MAP_SHARED|unix.MAP_FIXED)
	return os.NewSyscallError("mmap", err)
}
