package tracer

import (
	"encoding/binary"
	"fmt"
	"time"

	"thaw/restore/tracer/trace"
)

// eventSize is the size of struct event of bpf/tracer.c, which events have on the socket as well.
const eventSize = 32

const (
	flagWrite  = 1 << 0
	flagKernel = 1 << 1
)

// parseEvent decodes struct event. start is subtracted from its time, which counts like the kernel's monotonic clock.
func parseEvent(b []byte, start time.Duration) (trace.Event, error) {
	ne := binary.NativeEndian
	if len(b) != eventSize {
		return trace.Event{}, fmt.Errorf("%w: event of %d bytes", errMalformed, len(b))
	}
	e := trace.Event{
		Time:  max(time.Duration(ne.Uint64(b))-start, 0), // another processor's clock may be a little behind
		Addr:  ne.Uint64(b[8:]),
		Space: ne.Uint32(b[16:]),
		PID:   ne.Uint32(b[20:]),
		TID:   ne.Uint32(b[24:]),
		Kind:  trace.Kind(b[28]),
	}
	flags := b[29]
	if !e.Kind.Valid() || flags&^(flagWrite|flagKernel) != 0 || e.Space == 0 || ne.Uint16(b[30:]) != 0 {
		return trace.Event{}, fmt.Errorf("%w: event of kind %d with flags %#x in space %d", errMalformed, e.Kind, flags, e.Space)
	}
	e.Write, e.Kernel = flags&flagWrite != 0, flags&flagKernel != 0
	if e.Kind != trace.KindTouch {
		e.Parent, e.Addr = uint32(e.Addr), 0
	}
	return e, nil
}

// appendEvent is the inverse of parseEvent with a start of 0.
func appendEvent(b []byte, e trace.Event) []byte {
	ne := binary.NativeEndian
	var flags uint8
	if e.Write {
		flags |= flagWrite
	}
	if e.Kernel {
		flags |= flagKernel
	}
	b = ne.AppendUint64(b, uint64(e.Time))
	b = ne.AppendUint64(b, e.Addr|uint64(e.Parent))
	for _, v := range []uint32{e.Space, e.PID, e.TID} {
		b = ne.AppendUint32(b, v)
	}
	b = append(b, byte(e.Kind), flags)
	return ne.AppendUint16(b, 0)
}
