package uffd

import (
	"errors"
	"fmt"
	"os"
	"strconv"
)

// PageSize is the size in bytes of the pages that this package deals in. Hosts with larger base pages are
// not supported.
const PageSize = 4096

var (
	// ErrClosed is returned by operations on a closed FD.
	ErrClosed = os.ErrClosed

	// ErrNotUserfaultfd is returned by FromFD if the descriptor is something else.
	ErrNotUserfaultfd = errors.New("descriptor is not a userfaultfd")

	// ErrNotNegotiated is returned by FromFD if nobody has negotiated the API on the descriptor, so that no
	// range can have been registered with it.
	ErrNotNegotiated = errors.New("userfaultfd was handed over before its API was negotiated")

	// ErrNotSupported is returned if the kernel, or this operating system, lacks what was asked for.
	// It matches errors.ErrUnsupported.
	ErrNotSupported error = notSupported{}
)

type notSupported struct{}

func (notSupported) Error() string        { return "not supported" }
func (notSupported) Is(target error) bool { return target == errors.ErrUnsupported }

// Range is a half-open range of addresses of the target, in bytes. The kernel wants both ends page-aligned.
type Range struct{ Start, End uint64 }

// Len returns the length in bytes, 0 if the range is empty or inverted.
func (r Range) Len() uint64 {
	if r.End <= r.Start {
		return 0
	}
	return r.End - r.Start
}

// Pages returns the number of whole pages in r.
func (r Range) Pages() uint64 { return r.Len() / PageSize }

// Contains reports whether addr lies in r.
func (r Range) Contains(addr uint64) bool { return r.Start <= addr && addr < r.End }

// String formats r as in /proc/pid/maps.
func (r Range) String() string {
	return strconv.FormatUint(r.Start, 16) + "-" + strconv.FormatUint(r.End, 16)
}

// Options are the options of Open. The zero value asks for no feature.
type Options struct {
	// Features must all be available, else Open fails with ErrNotSupported. FeatureEventFork also needs
	// CAP_SYS_PTRACE.
	Features Features

	// UserModeOnly gives up faults that the kernel takes on behalf of the target, such as read(2) into
	// a missing page, which then fails with EFAULT. It lets an unprivileged process open the descriptor.
	// Since Linux 5.11.
	UserModeOnly bool
}

// Mode says which faults a registered range reports. Modes can be combined.
type Mode uint64

const (
	// ModeMissing reports the first access to a page without content. Since Linux 4.3.
	ModeMissing Mode = 1 << iota
	// ModeWP reports writes to write-protected pages. Since Linux 5.7.
	ModeWP
	// ModeMinor reports accesses to pages that the page cache holds but the target has not mapped. Since
	// Linux 5.13.
	ModeMinor
)

var modeNames = []string{"missing", "wp", "minor"}

// String returns the modes joined with "|".
func (m Mode) String() string { return flagString(uint64(m), modeNames) }

// CopyFlags alter Copy.
type CopyFlags uint64

const (
	// CopyDontWake leaves the threads that wait for the pages asleep, until Wake.
	CopyDontWake CopyFlags = 1 << iota
	// CopyWP maps the pages write-protected.
	CopyWP
)

// ZeropageFlags alter Zeropage.
type ZeropageFlags uint64

// ZeropageDontWake leaves the threads that wait for the pages asleep, until Wake.
const ZeropageDontWake ZeropageFlags = 1

// ContinueFlags alter Continue.
type ContinueFlags uint64

const (
	// ContinueDontWake leaves the threads that wait for the pages asleep, until Wake.
	ContinueDontWake ContinueFlags = 1 << iota
	// ContinueWP maps the pages write-protected. Since Linux 6.4.
	ContinueWP
)

// MoveFlags alter Move.
type MoveFlags uint64

const (
	// MoveDontWake leaves the threads that wait for the pages asleep, until Wake.
	MoveDontWake MoveFlags = 1 << iota
	// MoveAllowHoles counts source pages without content as moved, instead of ending with NotRegistered.
	MoveAllowHoles
)

// PoisonFlags alter Poison.
type PoisonFlags uint64

// PoisonDontWake leaves the threads that wait for the pages asleep, until Wake.
const PoisonDontWake PoisonFlags = 1

// WriteProtectFlags alter WriteProtect.
type WriteProtectFlags uint64

// WriteProtectDontWake leaves the threads that wait for the protection to be lifted asleep, until Wake.
const WriteProtectDontWake WriteProtectFlags = 2

// Ioctls is a set of operations that the kernel offers, on a descriptor or on a registered range.
type Ioctls uint64

// The operations, as bits of Ioctls.
const (
	IoctlRegister     Ioctls = 1 << nrRegister
	IoctlUnregister   Ioctls = 1 << nrUnregister
	IoctlWake         Ioctls = 1 << nrWake
	IoctlCopy         Ioctls = 1 << nrCopy
	IoctlZeropage     Ioctls = 1 << nrZeropage
	IoctlMove         Ioctls = 1 << nrMove
	IoctlWriteProtect Ioctls = 1 << nrWriteProtect
	IoctlContinue     Ioctls = 1 << nrContinue
	IoctlPoison       Ioctls = 1 << nrPoison
	IoctlAPI          Ioctls = 1 << nrAPI
)

// The numbers of the ioctls, from include/uapi/linux/userfaultfd.h.
const (
	nrRegister     = 0x00
	nrUnregister   = 0x01
	nrWake         = 0x02
	nrCopy         = 0x03
	nrZeropage     = 0x04
	nrMove         = 0x05
	nrWriteProtect = 0x06
	nrContinue     = 0x07
	nrPoison       = 0x08
	nrAPI          = 0x3f
)

var ioctlNames = []string{
	nrRegister: "register", nrUnregister: "unregister", nrWake: "wake", nrCopy: "copy",
	nrZeropage: "zeropage", nrMove: "move", nrWriteProtect: "writeprotect", nrContinue: "continue",
	nrPoison: "poison", nrAPI: "api",
}

// Has reports whether all of want are offered.
func (i Ioctls) Has(want Ioctls) bool { return i&want == want }

// String returns the names of the operations joined with "|".
func (i Ioctls) String() string { return flagString(uint64(i), ioctlNames) }

// Info is what this kernel offers, and to this process. Probe fills it.
type Info struct {
	// Features and Ioctls are what the kernel knows, whether or not this process may use it.
	Features Features
	Ioctls   Ioctls

	// RangeIoctls are the operations on private anonymous memory registered with ModeMissing.
	RangeIoctls Ioctls

	// SyscallErr says why userfaultfd(2) with faults in kernel mode is refused, nil if it is not.
	// It needs CAP_SYS_PTRACE or the sysctl vm.unprivileged_userfaultfd.
	SyscallErr error

	// DeviceErr says why /dev/userfaultfd (since Linux 6.1) cannot be used, nil if it can.
	DeviceErr error

	// ForkErr says why FeatureEventFork is refused, nil if it is not. It needs CAP_SYS_PTRACE.
	ForkErr error
}

// flagString joins the names of the bits of v; bits without a name are given as one hexadecimal number.
func flagString(v uint64, names []string) string {
	if v == 0 {
		return "none"
	}
	var s string
	for bit, name := range names {
		if name == "" || v&(1<<bit) == 0 {
			continue
		}
		v &^= 1 << bit
		if s != "" {
			s += "|"
		}
		s += name
	}
	if v == 0 {
		return s
	}
	if s != "" {
		s += "|"
	}
	return s + fmt.Sprintf("%#x", v)
}
