package uffdtest_test

import (
	"bytes"
	"testing"

	"thaw/uffd"
	"thaw/uffd/uffdtest"
)

// A test has the target read a page that is missing, serves the fault, and compares.
func Example() {
	_ = func(t *testing.T) {
		r := uffd.Range{Start: 0x10_0000_0000, End: 0x10_0000_1000}
		target := uffdtest.Start(t)
		target.Map(r).Must()
		fd := target.Open(uffdtest.CRIUFeatures).Must()
		defer fd.Close()
		target.Register(r, uffd.ModeMissing).Must()

		read := target.Read(r) // sleeps in the fault
		for _, m := range uffdtest.Await(t, fd) {
			addr, _, _ := m.PageFault()
			fd.Copy(addr, bytes.Repeat([]byte{1}, uffd.PageSize), 0)
		}
		if got := read.Must(); got[0] != 1 {
			t.Errorf("read %d", got[0])
		}
	}
}
