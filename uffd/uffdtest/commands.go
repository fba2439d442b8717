//go:build linux

package uffdtest

import (
	"encoding/binary"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
	"thaw/uffd"
)

// CRIUFeatures are the features that CRIU negotiates before it sends a descriptor to its lazy-pages server.
const CRIUFeatures = uffd.FeatureEventFork | uffd.FeatureEventRemap | uffd.FeatureEventRemove | uffd.FeatureEventUnmap

// Handle names a connection of the target.
type Handle uint64

// Map maps private anonymous memory, readable and writable, at r, where nothing may be mapped yet.
func (t *Target) Map(r uffd.Range) *Call[uint64] {
	return t.MapFlags(r, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED_NOREPLACE)
}

// MapFlags is mmap(2) without a file, at r or near it, and returns the address.
func (t *Target) MapFlags(r uffd.Range, prot, flags int) *Call[uint64] {
	return call(t, request{op: opMap, fd: -1, args: [6]uint64{r.Start, r.Len(), uint64(prot), uint64(flags)}}, number)
}

// MapMemfd maps a new file in memory at r, readable and writable, and returns the file, which the caller owns.
// flags are unix.MAP_SHARED or unix.MAP_PRIVATE.
func (t *Target) MapMemfd(r uffd.Range, flags int) *Call[*os.File] {
	args := [6]uint64{r.Start, r.Len(), unix.PROT_READ | unix.PROT_WRITE, uint64(flags | unix.MAP_FIXED_NOREPLACE)}
	return call(t, request{op: opMapMemfd, fd: -1, args: args}, func(r *reply) (*os.File, error) {
		return os.NewFile(uintptr(r.fd), "memfd of target"), nil
	})
}

// Munmap is munmap(2).
func (t *Target) Munmap(r uffd.Range) *Call[Nothing] {
	return call(t, request{op: opMunmap, fd: -1, args: [6]uint64{r.Start, r.Len()}}, nothing)
}

// Mremap is mremap(2) with flags of unix.MREMAP_*, and returns the new address. dst counts with
// unix.MREMAP_FIXED and unix.MREMAP_DONTUNMAP only.
func (t *Target) Mremap(old uffd.Range, size uint64, flags int, dst uint64) *Call[uint64] {
	return call(t, request{op: opMremap, fd: -1, args: [6]uint64{old.Start, old.Len(), size, uint64(flags), dst}}, number)
}

// Madvise is madvise(2) with advice of unix.MADV_*.
func (t *Target) Madvise(r uffd.Range, advice int) *Call[Nothing] {
	return call(t, request{op: opMadvise, fd: -1, args: [6]uint64{r.Start, r.Len(), uint64(advice)}}, nothing)
}

// Mprotect is mprotect(2).
func (t *Target) Mprotect(r uffd.Range, prot int) *Call[Nothing] {
	return call(t, request{op: opMprotect, fd: -1, args: [6]uint64{r.Start, r.Len(), uint64(prot)}}, nothing)
}

// Open makes a userfaultfd for the target's memory, negotiates the features, and returns a descriptor that the
// caller owns. The target keeps another one, for Register, until Drop; a forked child has none. A second Open
// replaces the first.
func (t *Target) Open(features uffd.Features) *Call[*uffd.FD] {
	return call(t, request{op: opOpen, fd: -1, args: [6]uint64{uint64(features), 0, 1}}, func(r *reply) (*uffd.FD, error) {
		return uffd.FromFD(r.fd)
	})
}

// OpenRaw is Open, but returns the bare descriptor.
func (t *Target) OpenRaw(features uffd.Features) *Call[int] {
	return call(t, request{op: opOpen, fd: -1, args: [6]uint64{uint64(features), 0, 1}}, bareDescriptor)
}

// OpenUnnegotiated makes a userfaultfd, but does not negotiate its API.
func (t *Target) OpenUnnegotiated() *Call[int] {
	return call(t, request{op: opOpen, fd: -1}, bareDescriptor)
}

func bareDescriptor(r *reply) (int, error) { return r.fd, nil }

// Drop closes the target's own copy of the userfaultfd, as CRIU does before the process runs.
func (t *Target) Drop() *Call[Nothing] {
	return call(t, request{op: opDrop, fd: -1}, nothing)
}

// Register registers r from inside the target, as CRIU's restorer does.
func (t *Target) Register(r uffd.Range, mode uffd.Mode) *Call[uffd.Ioctls] {
	args := [6]uint64{r.Start, r.Len(), uint64(mode)}
	return call(t, request{op: opRegister, fd: -1, args: args}, func(r *reply) (uffd.Ioctls, error) {
		return uffd.Ioctls(r.values[0]), nil
	})
}

// Unregister unregisters r from inside the target.
func (t *Target) Unregister(r uffd.Range) *Call[Nothing] {
	return call(t, request{op: opUnregister, fd: -1, args: [6]uint64{r.Start, r.Len()}}, nothing)
}

// Read returns the bytes of r.
func (t *Target) Read(r uffd.Range) *Call[[]byte] {
	return call(t, request{op: opRead, fd: -1, args: [6]uint64{r.Start, r.Len()}}, func(r *reply) ([]byte, error) {
		return r.payload, nil
	})
}

// Write writes data at addr.
func (t *Target) Write(addr uint64, data []byte) *Call[Nothing] {
	return call(t, request{op: opWrite, fd: -1, args: [6]uint64{addr}, payload: data}, nothing)
}

// Sums returns the Sum of each page of r. It is Read for ranges whose bytes are too many to send.
func (t *Target) Sums(r uffd.Range) *Call[[]uint64] {
	args := [6]uint64{r.Start, r.Pages()}
	return call(t, request{op: opSums, fd: -1, args: args}, func(r *reply) ([]uint64, error) {
		sums := make([]uint64, len(r.payload)/8)
		for i := range sums {
			sums[i] = binary.NativeEndian.Uint64(r.payload[8*i:])
		}
		return sums, nil
	})
}

// Sum returns the FNV-1a hash of a page, taken over its 64-bit words.
func Sum(page []byte) uint64 {
	h := uint64(0xcbf29ce484222325)
	for ; len(page) >= 8; page = page[8:] {
		h = (h ^ binary.NativeEndian.Uint64(page)) * 0x100000001b3
	}
	return h
}

// ReadByKernel has the kernel read the byte at addr for the target, and returns it: the fault happens in kernel
// mode, inside of a system call.
func (t *Target) ReadByKernel(addr uint64) *Call[byte] {
	return call(t, request{op: opPipe, fd: -1, args: [6]uint64{addr}}, func(r *reply) (byte, error) {
		return byte(r.values[0]), nil
	})
}

// Access is what one access of Touch saw.
type Access struct {
	Page    uint64 // from the start of the range, counted in strides
	Latency time.Duration
	Word    uint64 // the first eight bytes, as the access found or left them
	Faulted bool   // the kernel counted a page fault
}

// Touch reads a word of each page of r once, in a random order that all threads share out among themselves. It
// returns one call for each thread.
func (t *Target) Touch(r uffd.Range, threads int, seed uint64) []*Call[[]Access] {
	return t.Walk(Walk{Range: r, Threads: threads, Seed: seed})
}

// TouchWrite is Touch, but writes: the first word of page i becomes i+seed.
func (t *Target) TouchWrite(r uffd.Range, threads int, seed uint64) []*Call[[]Access] {
	return t.Walk(Walk{Range: r, Threads: threads, Seed: seed, Write: true})
}

// A Walk is an order in which threads touch the pages of a range, each page once.
type Walk struct {
	Range uffd.Range
	// Stride is how far apart the pages that are touched lie, in bytes. Default: a page, so that all are.
	Stride uint64
	// Threads share out the steps among themselves. Default: 1.
	Threads int
	// Seed is that of the random order.
	Seed uint64
	// Write writes, as TouchWrite does. Default: read.
	Write bool
	// Ascending goes by address instead.
	Ascending bool
	// Start is when the walk begins, in nanoseconds of CLOCK_MONOTONIC, so that many targets can begin together.
	// Default: at once.
	Start uint64
}

// Walk touches pages, and returns one call for each thread.
func (t *Target) Walk(w Walk) []*Call[[]Access] {
	if w.Stride == 0 {
		w.Stride = uffd.PageSize
	}
	var flags uint64
	if w.Write {
		flags |= 1
	}
	if w.Ascending {
		flags |= 2
	}
	calls := make([]*Call[[]Access], max(w.Threads, 1))
	for part := range calls {
		var payload []byte // struct walk of target/target.c
		for _, v := range []uint64{
			w.Range.Start, (w.Range.Len() + w.Stride - 1) / w.Stride, w.Stride, uint64(part), uint64(len(calls)), w.Seed, flags, w.Start,
		} {
			payload = binary.NativeEndian.AppendUint64(payload, v)
		}
		calls[part] = call(t, request{op: opTouch, fd: -1, payload: payload}, accesses)
	}
	return calls
}

func accesses(r *reply) ([]Access, error) {
	const size = 32 // struct touched of target/target.c
	list := make([]Access, len(r.payload)/size)
	for i := range list {
		b := r.payload[size*i:]
		list[i] = Access{
			Page:    binary.NativeEndian.Uint64(b),
			Latency: time.Duration(binary.NativeEndian.Uint64(b[8:])),
			Word:    binary.NativeEndian.Uint64(b[16:]),
			Faulted: binary.NativeEndian.Uint64(b[24:]) != 0,
		}
	}
	return list, nil
}

// MapEach is Map for n mappings of length bytes each, the first at start, each stride bytes behind the one before it.
func (t *Target) MapEach(start, length, stride, n uint64) *Call[Nothing] {
	return call(t, request{op: opMapEach, fd: -1, args: [6]uint64{start, length, stride, n}}, nothing)
}

// StormKind is what a storm does again and again.
type StormKind uint64

// The kinds of storms. The numbers are those of the enum in target/target.c.
const (
	StormFork     StormKind = iota // fork a child that exits at once
	StormMremap                    // move a part elsewhere, and back
	StormMunmap                    // unmap a part
	StormDontneed                  // MADV_DONTNEED of a part
)

func (k StormKind) String() string {
	return [...]string{"fork", "mremap", "munmap", "dontneed"}[k]
}

// A Storm is a system call about memory that is made again and again, as fast as it goes.
type Storm struct {
	Kind  StormKind
	Range uffd.Range
	// Part is the length of what one call is about, in bytes. The calls go through the range part by part, and begin
	// anew at its end.
	Part uint64
	// Calls is how many there are at most.
	Calls uint64
	// Elsewhere is the address to which StormMremap moves parts.
	Elsewhere uint64
}

// Storm storms until all calls are made, one fails, or Calm. It returns how long each took.
func (t *Target) Storm(s Storm) *Call[[]time.Duration] {
	args := [6]uint64{uint64(s.Kind), s.Range.Start, s.Part, max(s.Range.Len()/max(s.Part, 1), 1), s.Calls, s.Elsewhere}
	return call(t, request{op: opStorm, fd: -1, args: args}, func(r *reply) ([]time.Duration, error) {
		took := make([]time.Duration, len(r.payload)/8)
		for i := range took {
			took[i] = time.Duration(binary.NativeEndian.Uint64(r.payload[8*i:]))
		}
		return took, nil
	})
}

// Calm ends all storms of the target, and lets none begin again.
func (t *Target) Calm() *Call[Nothing] {
	return call(t, request{op: opCalm, fd: -1}, nothing)
}

// Fork forks the target; the child is a Target of its own. With FeatureEventFork the call is answered once the
// event was read.
func (t *Target) Fork() *Call[*Target] {
	t.tb.Helper()
	c := newCall[*Target](t, opFork)
	conn, theirs, err := channel()
	if err != nil {
		c.finish(nil, err)
		return c
	}
	defer theirs.Close()
	t.start(request{op: opFork, fd: int(theirs.Fd())}, func(r *reply, err error) {
		if err != nil {
			// A child that was forked nevertheless sees the end of its channel, and exits.
			conn.Close()
			c.finish(nil, err)
			return
		}
		child := newTarget(t.tb, conn, int(r.values[0]), r.fd)
		t.tb.Cleanup(child.Close)
		c.finish(child, nil)
	})
	return c
}

// Exec has the target execute itself anew: its memory is gone, calls under way are answered with ErrTargetGone
// only when it ends, and it goes on to obey.
func (t *Target) Exec() *Call[Nothing] {
	return call(t, request{op: opExec, fd: -1}, nothing)
}

// Exit has the target call _exit(2). The call ends when the target is gone.
func (t *Target) Exit(code int) *Call[Nothing] {
	c := newCall[Nothing](t, opExit)
	t.start(request{op: opExit, fd: -1, args: [6]uint64{uint64(code)}}, func(_ *reply, err error) {
		if errors.Is(err, ErrTargetGone) {
			err = nil
		}
		c.finish(Nothing{}, err)
	})
	return c
}

// Dial connects the target to a stream socket.
func (t *Target) Dial(path string) *Call[Handle] {
	return call(t, request{op: opDial, fd: -1, payload: []byte(path)}, func(r *reply) (Handle, error) {
		return Handle(r.values[0]), nil
	})
}

// Send has the target send data, with its own credentials, and with as many copies of its userfaultfd (8 at
// most) in one control message.
func (t *Target) Send(h Handle, data []byte, descriptors int) *Call[Nothing] {
	return call(t, request{op: opSend, fd: -1, args: [6]uint64{uint64(h), uint64(descriptors)}, payload: data}, nothing)
}

// Hangup closes the connection.
func (t *Target) Hangup(h Handle) *Call[Nothing] {
	return call(t, request{op: opHangup, fd: -1, args: [6]uint64{uint64(h)}}, nothing)
}
