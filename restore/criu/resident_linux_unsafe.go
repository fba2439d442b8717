package criu

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// resident returns a bit for each page of data, a part of a mapped file, of which it looks at the first 64: the page is in memory, and read.
// Where the kernel must not tell, because the file is another user's, it says so of all pages.
func resident(data []byte) (pages uint64, errno syscall.Errno) {
	var in [64]byte
	data = data[:min(len(data), len(in)*unix.Getpagesize())]
	_, _, errno = unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(unsafe.SliceData(data))), uintptr(len(data)), uintptr(unsafe.Pointer(&in[0])))
	for i, b := range in {
		pages |= uint64(b&1) << i
	}
	return pages, errno
}
