package tracer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"thaw/restore/tracer/trace"
)

// version changes with the protocol: the helper may be another build than its client.
const version = 2

type kind uint8

const (
	kindHello   kind = iota + 1
	kindStart        // startBody
	kindCgroup       // follows a start that says so: the descriptor of the cgroup's folder
	kindRefused      // a reason, then text
	kindStarted      // startedBody
	kindChoose       // pids
	kindChosen       // chosenBody
	kindEvents       // events of 32 bytes
	kindStop
	kindEnded // endedBody
)

// A packet is version, kind, 0, 0, then a body that its kind determines. Numbers are in the machine's byte order: both
// ends run on it.
const (
	headerSize = 4
	maxEvents  = 1024
	maxText    = 4096
	maxMessage = headerSize + maxEvents*eventSize
)

// errMalformed is wrapped by what becomes of messages, and of the kernel's records, that make no sense.
var errMalformed = errors.New("malformed message")

// packet returns the beginning of a packet, to which the body is appended.
func packet(k kind) []byte { return []byte{version, byte(k), 0, 0} }

// parse returns the body of a packet.
func parse(b []byte) (k kind, body []byte, err error) {
	if len(b) < headerSize || len(b) > maxMessage || b[0] != version || b[2]|b[3] != 0 {
		return 0, nil, fmt.Errorf("%w: %d bytes that begin with %x", errMalformed, len(b), b[:min(len(b), headerSize)])
	}
	k, body = kind(b[1]), b[headerSize:]
	if k < kindHello || k > kindEnded || (k == kindHello || k == kindCgroup || k == kindStop) && len(body) > 0 {
		return 0, nil, fmt.Errorf("%w: kind %d with %d bytes", errMalformed, k, len(body))
	}
	return k, body, nil
}

// startBody asks for a recording.
type startBody struct {
	ringBytes, maxPages uint32
	cgroup              bool     // one is recorded, and there are no pids
	pids                []uint32 // ascending, each once
}

func (s startBody) append(b []byte) []byte {
	var cgroup uint32
	if s.cgroup {
		cgroup = 1
	}
	for _, v := range []uint32{s.ringBytes, s.maxPages, cgroup} {
		b = binary.NativeEndian.AppendUint32(b, v)
	}
	return appendPIDs(b, s.pids)
}

func parseStart(body []byte) (s startBody, err error) {
	if len(body) < 12 {
		return s, fmt.Errorf("%w: start of %d bytes", errMalformed, len(body))
	}
	at := func(i int) uint32 { return binary.NativeEndian.Uint32(body[i:]) }
	s = startBody{ringBytes: at(0), maxPages: at(4), cgroup: at(8) == 1}
	if s.pids, err = parsePIDs(body[12:]); err != nil {
		return startBody{}, err
	}
	if s.ringBytes > maxRing || s.maxPages > maxPages || at(8) > 1 || s.cgroup && len(s.pids) > 0 {
		return startBody{}, fmt.Errorf("%w: start with %d and %d, cgroups %d, processes %d", errMalformed, s.ringBytes, s.maxPages, at(8), s.pids)
	}
	return s, nil
}

func appendPIDs(b []byte, pids []uint32) []byte {
	for _, pid := range pids {
		b = binary.NativeEndian.AppendUint32(b, pid)
	}
	return b
}

// parsePIDs returns numbers of processes, ascending, each once.
func parsePIDs(b []byte) ([]uint32, error) {
	if len(b)%4 != 0 || len(b) > 4*maxPIDs {
		return nil, fmt.Errorf("%w: processes in %d bytes", errMalformed, len(b))
	}
	var pids []uint32
	last := uint32(0)
	for ; len(b) > 0; b = b[4:] {
		pid := binary.NativeEndian.Uint32(b)
		if pid <= last || pid > math.MaxInt32 {
			return nil, fmt.Errorf("%w: process %d after %d", errMalformed, pid, last)
		}
		pids, last = append(pids, pid), pid
	}
	return pids, nil
}

// startedBody answers a start: the point, the time, the processes with their spaces.
func appendStarted(b []byte, i Info) []byte {
	b = append(b, byte(i.Point), 0, 0, 0)
	b = binary.NativeEndian.AppendUint64(b, uint64(i.Started.UnixNano()))
	for _, c := range i.Chosen {
		b = binary.NativeEndian.AppendUint32(b, c.Space)
		b = binary.NativeEndian.AppendUint32(b, c.PID)
	}
	return b
}

func parseStarted(body []byte) (Info, error) {
	if len(body) < 12 || (len(body)-12)%8 != 0 || len(body) > 12+8*maxPIDs {
		return Info{}, fmt.Errorf("%w: started of %d bytes", errMalformed, len(body))
	}
	i := Info{Point: trace.Point(body[0]), Started: time.Unix(0, int64(binary.NativeEndian.Uint64(body[4:])))}
	if i.Point < trace.PointFentry || i.Point > trace.PointUserTracepoint || body[1]|body[2]|body[3] != 0 {
		return Info{}, fmt.Errorf("%w: started at %x", errMalformed, body[:4])
	}
	for b := body[12:]; len(b) > 0; b = b[8:] {
		c := Chosen{Space: binary.NativeEndian.Uint32(b), PID: binary.NativeEndian.Uint32(b[4:])}
		if c.Space == 0 {
			return Info{}, fmt.Errorf("%w: process %d in no space", errMalformed, c.PID)
		}
		i.Chosen = append(i.Chosen, c)
	}
	return i, nil
}

// chosenBody answers a choose: the time since the start.
func appendChosen(b []byte, at time.Duration) []byte {
	return binary.NativeEndian.AppendUint64(b, uint64(at))
}

func parseChosen(body []byte) (time.Duration, error) {
	if len(body) != 8 {
		return 0, fmt.Errorf("%w: chosen of %d bytes", errMalformed, len(body))
	}
	at := time.Duration(binary.NativeEndian.Uint64(body))
	if at < 0 {
		return 0, fmt.Errorf("%w: chosen %d ns after the start", errMalformed, at)
	}
	return at, nil
}

// endedBody says how a recording ended.
func appendEnded(b []byte, e trace.Ending) []byte {
	b = append(b, byte(e.End), 0, 0, 0)
	for _, v := range []uint64{uint64(e.Length), e.LostRing, e.LostSpace} {
		b = binary.NativeEndian.AppendUint64(b, v)
	}
	return b
}

func parseEnded(body []byte) (trace.Ending, error) {
	if len(body) != 28 {
		return trace.Ending{}, fmt.Errorf("%w: ended of %d bytes", errMalformed, len(body))
	}
	at := func(i int) uint64 { return binary.NativeEndian.Uint64(body[i:]) }
	e := trace.Ending{End: trace.End(body[0]), Length: time.Duration(at(4)), LostRing: at(12), LostSpace: at(20)}
	if body[1]|body[2]|body[3] != 0 || e.End < trace.EndBroken || e.End > trace.EndExited || e.Length < 0 || e.LostRing > math.MaxInt64 || e.LostSpace > math.MaxInt64 {
		return trace.Ending{}, fmt.Errorf("%w: ended %+v", errMalformed, e)
	}
	return e, nil
}

// reasons are the errors that the client can tell apart, by their number on the socket; 0 is any other.
var reasons = []error{1: ErrNotPermitted, 2: ErrNotSupported, 3: ErrNoProcess, 4: ErrTarget, 5: ErrEnded}

func appendRefused(b []byte, cause error) []byte {
	var reason byte
	for i, known := range reasons {
		if known != nil && errors.Is(cause, known) {
			reason = byte(i)
			break
		}
	}
	text := cause.Error()
	return append(append(b, reason), text[:min(len(text), maxText)]...)
}

// parseRefused returns the error that the helper told.
func parseRefused(body []byte) error {
	if len(body) == 0 || len(body) > 1+maxText || int(body[0]) >= len(reasons) {
		return fmt.Errorf("%w: refusal of %d bytes", errMalformed, len(body))
	}
	return &refusedError{string(body[1:]), reasons[body[0]]}
}

// A refusedError is an error of the helper's: its text, and the sentinel that it wraps, if any.
type refusedError struct {
	text   string
	reason error
}

func (e *refusedError) Error() string { return e.text }

func (e *refusedError) Unwrap() error { return e.reason }
