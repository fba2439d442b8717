package trace

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// PageSize is the unit of touches, in bytes.
const PageSize = 4096

// A Point is where in the kernel touches are noticed. The numbers are part of the format; do not change them.
type Point uint8

// The points, the best one first.
const (
	PointFentry         Point = iota + 1 // fentry on handle_mm_fault
	PointKprobe                          // kprobe on handle_mm_fault
	PointTracepoints                     // exceptions:page_fault_user and page_fault_kernel
	PointUserTracepoint                  // exceptions:page_fault_user alone
	lastPoint           = PointUserTracepoint
)

var pointNames = [...]string{
	PointFentry:         "fentry on handle_mm_fault",
	PointKprobe:         "kprobe on handle_mm_fault",
	PointTracepoints:    "tracepoints exceptions:page_fault_user and page_fault_kernel",
	PointUserTracepoint: "tracepoint exceptions:page_fault_user",
}

func (p Point) String() string {
	if p.valid() {
		return pointNames[p]
	}
	return fmt.Sprintf("point %d", uint8(p))
}

// MarshalText makes JSON say the name.
func (p Point) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

func (p Point) valid() bool { return p >= PointFentry && p <= lastPoint }

// Blind returns what cannot be seen from the point.
func (p Point) Blind() Blind {
	const always = BlindPresent | BlindAround | BlindHuge
	switch p {
	case PointFentry:
		return always
	case PointKprobe:
		return always | BlindForeign
	case PointUserTracepoint:
		return always | BlindForeign | BlindPinned | BlindKernel
	}
	return always | BlindForeign | BlindPinned
}

// Blind is a set of kinds of touches that a recording could not see. The numbers are part of the format; do not change
// them.
type Blind uint16

const (
	// BlindPresent: touches of pages that were in memory and in the page table already do not fault.
	BlindPresent Blind = 1 << iota
	// BlindAround: with a fault on a file the kernel maps cached pages around it, up to 16, which do not fault later.
	BlindAround
	// BlindHuge: where the kernel maps huge pages, the first touch stands for 2 MiB.
	BlindHuge
	// BlindPinned: the kernel brought pages in without an exception, to pin them or to write to them: get_user_pages, for
	// direct I/O, io_uring's buffers, devices.
	BlindPinned
	// BlindForeign: other processes touched the memory: process_vm_readv, ptrace, /proc/PID/mem.
	BlindForeign
	// BlindKernel: the kernel touched the memory, inside of system calls.
	BlindKernel

	knownBlind = BlindPresent | BlindAround | BlindHuge | BlindPinned | BlindForeign | BlindKernel
)

var blindTexts = []struct {
	kind Blind
	text string
}{
	{BlindPresent, "pages that were in place already"},
	{BlindAround, "pages of files that the kernel mapped around a fault"},
	{BlindHuge, "pages behind the first one of a huge page"},
	{BlindPinned, "pages that the kernel pinned for I/O"},
	{BlindForeign, "touches by other processes"},
	{BlindKernel, "touches by the kernel in system calls"},
}

// Texts says for people what each kind is.
func (b Blind) Texts() []string {
	var all []string
	for _, t := range blindTexts {
		if b&t.kind != 0 {
			all = append(all, t.text)
		}
	}
	return all
}

func (b Blind) String() string { return strings.Join(b.Texts(), "; ") }

// An Origin is how a space came into being. The numbers are part of the format; do not change them.
type Origin uint8

const (
	OriginUnknown Origin = iota // the event that would say so was lost
	OriginChosen                // its process was named
	OriginJoined                // its process was found in the cgroup
	OriginFork                  // its process was forked by a traced one
	OriginExec                  // its process had another space before
	lastOrigin    = OriginExec
)

var originNames = [...]string{"unknown", "chosen", "joined", "fork", "exec"}

func (o Origin) String() string {
	if o <= lastOrigin {
		return originNames[o]
	}
	return fmt.Sprintf("origin %d", uint8(o))
}

// MarshalText makes JSON say the name.
func (o Origin) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// An End is why a recording ended. The numbers are part of the format; do not change them.
type End uint8

const (
	EndBroken  End = iota + 1 // the recorder failed: what came after is missing
	EndStopped                // it was asked to
	EndExited                 // no chosen process was left
	lastEnd    = EndExited
)

var endNames = [...]string{EndBroken: "the recorder failed", EndStopped: "stopped", EndExited: "the processes had ended"}

func (e End) String() string {
	if e.valid() {
		return endNames[e]
	}
	return fmt.Sprintf("end %d", uint8(e))
}

func (e End) valid() bool { return e >= EndBroken && e <= lastEnd }

// Alive is the end of a space that outlived the recording, or whose end was lost.
const Alive time.Duration = -1

// A Trace is what a recording found.
type Trace struct {
	Point   Point
	Blind   Blind
	Started time.Time // to the nanosecond, in UTC after Decode
	// Length is how long the recording took. All times of touches and spaces count from its start.
	Length time.Duration
	Cgroup string // path of the cgroup that was recorded, empty if processes were named
	End    End
	// LostRing are events for which there was no room in the ring buffer, LostSpace touches of pages beyond the number that
	// the recording could tell apart.
	LostRing, LostSpace uint64

	Spaces  []Space  // ascending by ID
	Regions []Region // ascending by space and start; those of a space do not overlap
	Touches []Touch  // ascending by time
}

// A Space is an address space.
type Space struct {
	ID     uint32 // unique in the trace, from 1
	PID    uint32 // in the initial pid namespace
	Parent uint32 // the space that forked it or was there before the exec; 0 if there is none. Less than ID
	Origin Origin
	Began  time.Duration
	Ended  time.Duration // of its process, or by an exec; or Alive
}

// A Region is a mapping of a space. Start and End are addresses, multiples of PageSize.
type Region struct {
	Space      uint32
	Start, End uint64
	Access     Access
	Name       string // a path, or the kernel's name such as "[heap]"; empty for nameless anonymous memory
}

// Access is what may be done with a region.
type Access uint8

const (
	Readable Access = 1 << iota
	Writable
	Executable
	Shared // not private

	knownAccess = Readable | Writable | Executable | Shared
)

// String is as in /proc/PID/maps, "rw-p".
func (a Access) String() string {
	b := []byte("---p")
	for i, bit := range []Access{Readable, Writable, Executable, Shared} {
		if a&bit != 0 {
			b[i] = "rwxs"[i]
		}
	}
	return string(b)
}

// A Touch is the first access to a page that faulted, or the first write to it after that was a read.
type Touch struct {
	Time   time.Duration
	Addr   uint64 // of the page
	Space  uint32
	TID    uint32 // the thread, in the initial pid namespace; 0: somebody outside of the process
	Write  bool
	Kernel bool // the kernel touched it, not the program itself
}

// Complete reports whether the trace has all touches that can be seen from its point.
func (t *Trace) Complete() bool { return t.End != EndBroken && t.Lost() == 0 }

// Lost returns how many events are missing.
func (t *Trace) Lost() uint64 { return t.LostRing + t.LostSpace }

// Chosen returns the pids that were named for the recording, ascending.
func (t *Trace) Chosen() []uint32 {
	var pids []uint32
	for _, s := range t.Spaces {
		if s.Origin == OriginChosen {
			pids = append(pids, s.PID)
		}
	}
	slices.Sort(pids)
	return pids
}
