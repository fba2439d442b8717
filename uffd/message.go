package uffd

import (
	"encoding/binary"
	"fmt"
)

// messageSize is the size of struct uffd_msg in include/uapi/linux/userfaultfd.h.
const messageSize = 32

// Message is one message of the kernel, as it was read. Its layout is that of struct uffd_msg:
//
//	0        1          8                16            24             32
//	| event  | reserved | flags          | address     | thread id    |  page fault
//	                    | descriptor     |                            |  fork
//	                    | from           | to          | length       |  remap
//	                    | start          | end         |              |  remove, unmap
//
// The accessor that does not match Kind returns numbers without meaning, but does not fail.
type Message struct{ raw [messageSize]byte }

// EventKind is the kind of a message.
type EventKind uint8

// The kinds of messages. The numbers are part of the kernel's ABI.
const (
	// EventPagefault: a thread of the target sleeps in a fault. Always sent.
	EventPagefault EventKind = 0x12
	// EventFork: the target forks, and sleeps until the message is read. See FeatureEventFork.
	EventFork EventKind = 0x13
	// EventRemap: the target has moved a mapping, and perhaps grown it. One that grows in place is registered
	// in its new length without a message; one that shrinks sends EventUnmap only. See FeatureEventRemap.
	EventRemap EventKind = 0x14
	// EventRemove: the target is about to drop the content of pages. See FeatureEventRemove.
	EventRemove EventKind = 0x15
	// EventUnmap: the target has unmapped a range. See FeatureEventUnmap.
	EventUnmap EventKind = 0x16
)

// String returns the kind in lower case.
func (k EventKind) String() string {
	switch k {
	case EventPagefault:
		return "pagefault"
	case EventFork:
		return "fork"
	case EventRemap:
		return "remap"
	case EventRemove:
		return "remove"
	case EventUnmap:
		return "unmap"
	}
	return fmt.Sprintf("event %#x", uint8(k))
}

// PagefaultFlags say what kind of access faulted. None set: a read of a missing page.
type PagefaultFlags uint64

const (
	// PagefaultWrite: it was a write.
	PagefaultWrite PagefaultFlags = 1 << iota
	// PagefaultWP: the page is there, but write-protected.
	PagefaultWP
	// PagefaultMinor: the page is in the page cache, but not mapped.
	PagefaultMinor
)

var pagefaultNames = []string{"write", "wp", "minor"}

// String returns the flags joined with "|".
func (f PagefaultFlags) String() string { return flagString(uint64(f), pagefaultNames) }

// Kind returns the kind of the message. A kernel newer than this package may send kinds without a name.
func (m *Message) Kind() EventKind { return EventKind(m.raw[0]) }

// PageFault returns what an EventPagefault says: the address, rounded down to the page unless
// FeatureExactAddress was negotiated; the flags; and the thread, numbered as in the target's own pid namespace,
// 0 without FeatureThreadID.
func (m *Message) PageFault() (addr uint64, flags PagefaultFlags, tid uint32) {
	return m.word(16), PagefaultFlags(m.word(8)), uint32(m.word(24))
}

// Fork returns the descriptor for the child that an EventFork carries. It is open in this process since the
// message was read, and belongs to whoever read it: give it to FromFD, or close it.
func (m *Message) Fork() (fd int) { return int(int32(uint32(m.word(8)))) }

// Remap returns what an EventRemap says: length bytes have moved. It is the old length; if the mapping grew,
// what lies beyond is missing. Unless the target used MREMAP_DONTUNMAP, an EventUnmap of the old range follows.
func (m *Message) Remap() (from, to, length uint64) { return m.word(8), m.word(16), m.word(24) }

// Removed returns the range of an EventRemove or EventUnmap. That of an EventUnmap is what the target
// unmapped, which may reach beyond what was ever registered.
func (m *Message) Removed() Range { return Range{Start: m.word(8), End: m.word(16)} }

// String formats the message for logs.
func (m *Message) String() string {
	switch kind := m.Kind(); kind {
	case EventPagefault:
		addr, flags, tid := m.PageFault()
		return fmt.Sprintf("%v %#x flags %v tid %d", kind, addr, flags, tid)
	case EventFork:
		return fmt.Sprintf("%v fd %d", kind, m.Fork())
	case EventRemap:
		from, to, length := m.Remap()
		return fmt.Sprintf("%v %#x to %#x length %#x", kind, from, to, length)
	case EventRemove, EventUnmap:
		return fmt.Sprintf("%v %v", kind, m.Removed())
	default:
		return kind.String()
	}
}

func (m *Message) word(offset int) uint64 { return binary.NativeEndian.Uint64(m.raw[offset:]) }
