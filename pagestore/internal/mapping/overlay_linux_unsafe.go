package mapping

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Overlay puts a copy of content, in memory of its own, in the place of data, which is as long, is whole pages of a mapping, and stays
// as readable as it was all the while. Forget of it would leave zeros. Unmap of the mapping ends it.
func Overlay(data, content []byte) error {
	if len(data) == 0 || len(data) != len(content) {
		return fmt.Errorf("overlay of %d bytes with %d", len(data), len(content))
	}
	size := uintptr(len(data))
	at, err := unix.MmapPtr(-1, 0, nil, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	copy(unsafe.Slice((*byte)(at), len(content)), content)
	// Moving it there replaces what was there in one step: no reader sees anything in between.
	_, err = unix.MremapPtr(at, size, unsafe.Pointer(unsafe.SliceData(data)), size, unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED)
	if err != nil {
		_ = unix.MunmapPtr(at, size)
		return os.NewSyscallError("mremap", err)
	}
	return nil
}
