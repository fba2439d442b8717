//go:build linux

package uffd_test

import (
	"unsafe"

	"thaw/uffd"
)

// rangeOf returns where a mapping of this process lies.
func rangeOf(memory []byte) uffd.Range {
	start := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(memory))))
	return uffd.Range{Start: start, End: start + uint64(len(memory))}
}
