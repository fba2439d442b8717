package uffd

import (
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// message makes what the kernel would send.
func message(kind EventKind, words ...uint64) *Message {
	m := &Message{}
	m.raw[0] = byte(kind)
	for i, w := range words {
		binary.NativeEndian.PutUint64(m.raw[8+8*i:], w)
	}
	return m
}

func TestMessagesAreReadable(t *testing.T) {
	for _, tt := range []struct {
		m    *Message
		want string
	}{
		{message(EventPagefault, 3, 0x7000, 42), "pagefault 0x7000 flags write|wp tid 42"},
		{message(EventPagefault, 0, 0x7000), "pagefault 0x7000 flags none tid 0"},
		{message(EventFork, 7), "fork fd 7"},
		{message(EventRemap, 0x1000, 0x2000, 0x3000), "remap 0x1000 to 0x2000 length 0x3000"},
		{message(EventRemove, 0x1000, 0x2000), "remove 1000-2000"},
		{message(EventUnmap, 0x1000, 0x2000), "unmap 1000-2000"},
		{message(0x17), "event 0x17"},
	} {
		if got := tt.m.String(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

// FuzzMessage checks the accessors against a second decoder, on bytes that no kernel need have sent.
func FuzzMessage(f *testing.F) {
	for _, m := range []*Message{
		message(EventPagefault, 1, 0x7fff_ffff_f000, 1), message(EventFork, 3), message(EventFork, 1<<32-1),
		message(EventRemap, 1<<12, 1<<13, 1<<63), message(EventRemove, 1, 0), message(EventUnmap, 0, 1<<64-1), message(0xff),
	} {
		f.Add(m.raw[:])
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var m Message
		copy(m.raw[:], raw)
		var w [3]uint64
		for i := range w {
			for j := range 8 {
				w[i] |= uint64(m.raw[8+8*i+j]) << (8 * j)
			}
		}
		addr, flags, tid := m.PageFault()
		from, to, length := m.Remap()
		type all struct {
			Kind                       byte
			Addr, Flags                uint64
			TID                        uint32
			Fork                       int32
			From, To, Len, Start, End_ uint64
		}
		want := all{m.raw[0], w[1], w[0], uint32(w[2]), int32(w[0]), w[0], w[1], w[2], w[0], w[1]}
		got := all{
			byte(m.Kind()), addr, uint64(flags), tid, int32(m.Fork()),
			from, to, length, m.Removed().Start, m.Removed().End,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("fields (-want +got):\n%s", diff)
		}
		if m.String() == "" {
			t.Error("no text")
		}
		if r := m.Removed(); r.Len() > r.End {
			t.Errorf("range %v has length %#x", r, r.Len())
		}
	})
}
