//go:build linux

package uffd_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"thaw/uffd"
	"thaw/uffd/uffdtest"
)

// base is where the tests map memory: far from where the kernel puts what has no fixed address.
const base = 0x10_0000_0000

// pages returns the range of n pages, skip pages behind the base.
func pages(skip, n uint64) uffd.Range {
	return uffd.Range{Start: base + skip*uffd.PageSize, End: base + (skip+n)*uffd.PageSize}
}

func page(n uint64) uint64 { return base + n*uffd.PageSize }

// content returns n pages, each different from all others and from zeros.
func content(n uint64) []byte {
	b := bytes.Repeat([]byte{0xa5}, int(n*uffd.PageSize))
	for i := range n {
		binary.NativeEndian.PutUint64(b[i*uffd.PageSize:], i+1)
	}
	return b
}

// startMissing starts a target with n pages mapped and registered.
func startMissing(tb testing.TB, n uint64) (*uffdtest.Target, *uffd.FD) {
	tb.Helper()
	return startRegistered(tb, n, uffdtest.CRIUFeatures, uffd.ModeMissing)
}

func startRegistered(tb testing.TB, n uint64, features uffd.Features, mode uffd.Mode) (*uffdtest.Target, *uffd.FD) {
	tb.Helper()
	target := uffdtest.Start(tb)
	target.Map(pages(0, n)).Must()
	fd := open(tb, target, features)
	register(tb, fd, pages(0, n), mode)
	return target, fd
}

// open opens a userfaultfd of the target, and closes it when the test ends.
func open(tb testing.TB, target *uffdtest.Target, features uffd.Features) *uffd.FD {
	tb.Helper()
	fd := target.Open(features).Must()
	closeAtEnd(tb, fd)
	return fd
}

func closeAtEnd(tb testing.TB, fd *uffd.FD) {
	tb.Helper()
	tb.Cleanup(func() {
		if err := fd.Close(); err != nil {
			tb.Error(err)
		}
	})
}

func register(tb testing.TB, fd *uffd.FD, r uffd.Range, mode uffd.Mode) {
	tb.Helper()
	if _, err := fd.Register(r, mode); err != nil {
		tb.Fatal(err)
	}
}

// awaitAll returns the next messages, and fails the test unless they are of these kinds, in this order.
func awaitAll(tb testing.TB, fd *uffd.FD, kinds ...uffd.EventKind) []uffd.Message {
	tb.Helper()
	var messages []uffd.Message
	var got []uffd.EventKind
	for len(messages) < len(kinds) {
		for _, m := range uffdtest.Await(tb, fd) {
			messages = append(messages, m)
			got = append(got, m.Kind())
		}
	}
	if diff := cmp.Diff(kinds, got); diff != "" {
		tb.Fatalf("messages (-want +got):\n%s", diff)
	}
	return messages
}

// await is awaitAll for a single message.
func await(tb testing.TB, fd *uffd.FD, kind uffd.EventKind) uffd.Message {
	tb.Helper()
	return awaitAll(tb, fd, kind)[0]
}

// awaitFault is await for a page fault at addr.
func awaitFault(tb testing.TB, fd *uffd.FD, addr uint64, want uffd.PagefaultFlags) {
	tb.Helper()
	m := await(tb, fd, uffd.EventPagefault)
	if got, flags, _ := m.PageFault(); got != addr || flags != want {
		tb.Fatalf("got a fault at %#x with flags %v, want %#x with %v", got, flags, addr, want)
	}
}

// expect fails the test unless the operation came to that.
func expect(tb testing.TB, got uffd.Result, outcome uffd.Outcome, bytes uint64) {
	tb.Helper()
	if got.Outcome != outcome || got.Bytes != bytes {
		tb.Fatalf("got %v (%v) after %d bytes, want %v after %d", got.Outcome, got.Errno, got.Bytes, outcome, bytes)
	}
}

// mapOwn maps memory of this very process, for operations that the kernel allows to the owner only. Nobody may
// touch what is registered and missing.
func mapOwn(tb testing.TB, n int) []byte {
	tb.Helper()
	b, err := unix.Mmap(-1, 0, n*uffd.PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := unix.Munmap(b); err != nil {
			tb.Error(err)
		}
	})
	return b
}

func waitReadable(tb testing.TB, fd *uffd.FD) {
	tb.Helper()
	events := []unix.PollFd{{Fd: int32(fd.Fd()), Events: unix.POLLIN}}
	if n, err := unix.Poll(events, 60_000); n == 0 || err != nil && err != unix.EINTR {
		tb.Fatalf("userfaultfd does not become readable: %v", err)
	}
}
