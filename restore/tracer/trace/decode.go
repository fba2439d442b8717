package trace

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/cespare/xxhash/v2"
)

// A decoder reads from the front of rest. Every length in the file is checked against what is left before anything is
// allocated for it.
type decoder struct {
	rest []byte
}

// counts are the numbers of entries that the header tells.
type counts struct{ cgroup, spaces, regions, threads, touches int }

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrCorrupt}, args...)...)
}

func (d *decoder) trace(data []byte) (*Trace, error) {
	t := &Trace{}
	n, err := d.header(t, data)
	if err != nil {
		return nil, err
	}
	t.Cgroup = string(d.take(n.cgroup))
	if err := d.spaces(t, n.spaces); err != nil {
		return nil, err
	}
	if err := d.regions(t, n.regions); err != nil {
		return nil, err
	}
	threads, err := d.threads(t, n.threads)
	if err != nil {
		return nil, err
	}
	if err := d.touches(t, n.touches, threads); err != nil {
		return nil, err
	}
	if len(d.rest) > 0 {
		return nil, corrupt("%d bytes behind the last touch", len(d.rest))
	}
	return t, nil
}

// header checks what can be told of the file as a whole, and leaves in rest what lies between header and checksum.
func (d *decoder) header(t *Trace, data []byte) (counts, error) {
	le := binary.LittleEndian
	if len(data) < headerSize+sumSize || len(data) > MaxSize || string(data[:8]) != magic {
		return counts{}, corrupt("no trace: %d bytes that begin with %q", len(data), data[:min(len(data), 8)])
	}
	if v := le.Uint32(data[8:]); v != Version {
		return counts{}, fmt.Errorf("%w: %d, this program reads %d", ErrVersion, v, Version)
	}
	if size := le.Uint64(data[16:]); size != uint64(len(data)) {
		return counts{}, corrupt("%d bytes, and the header says %d", len(data), size)
	}
	body := data[:len(data)-sumSize]
	if got, want := xxhash.Sum64(body), le.Uint64(data[len(body):]); got != want {
		return counts{}, corrupt("checksum is %016x, not %016x", got, want)
	}
	d.rest = body[headerSize:]
	t.Point, t.End, t.Blind = Point(data[24]), End(data[25]), Blind(le.Uint16(data[26:]))
	t.Started = time.Unix(0, int64(le.Uint64(data[32:]))).UTC()
	length := le.Uint64(data[40:])
	t.Length = time.Duration(length)
	t.LostRing, t.LostSpace = le.Uint64(data[48:]), le.Uint64(data[56:])
	flags := le.Uint32(data[80:])
	switch {
	case le.Uint32(data[12:]) != PageSize || le.Uint16(data[30:]) != 0 || le.Uint32(data[84:]) != 0 || flags&^flagComplete != 0:
		return counts{}, corrupt("page size or reserved fields are not those of this version")
	case !t.Point.valid() || !t.End.valid() || t.Blind&^knownBlind != 0 || length > math.MaxInt64:
		return counts{}, corrupt("point %d, end %d, blind %#x, length %d", t.Point, t.End, uint16(t.Blind), length)
	case t.LostRing > math.MaxInt64 || t.LostSpace > math.MaxInt64 || t.Complete() != (flags&flagComplete != 0):
		return counts{}, corrupt("lost %d and %d, flags %#x", t.LostRing, t.LostSpace, flags)
	}
	return d.counts(data)
}

func (d *decoder) counts(header []byte) (counts, error) {
	at := func(off int) int { return int(binary.LittleEndian.Uint32(header[off:])) }
	n := counts{cgroup: int(binary.LittleEndian.Uint16(header[28:])), spaces: at(64), regions: at(68), threads: at(72), touches: at(76)}
	if n.spaces > maxSpaces || n.regions > maxRegions || n.threads > maxThreads || n.touches > maxTouches ||
		len(d.rest) < n.cgroup+n.spaces*spaceSize+n.regions*regionSize+n.threads*threadSize+n.touches*minTouchSize {
		return counts{}, corrupt("%+v entries do not fit", n)
	}
	return n, nil
}

// take returns the next n bytes, or fewer if there are no more.
func (d *decoder) take(n int) []byte {
	n = min(n, len(d.rest))
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) spaces(t *Trace, n int) error {
	le := binary.LittleEndian
	t.Spaces = make([]Space, 0, n)
	var last uint32
	for range n {
		b := d.take(spaceSize)
		s := Space{ID: le.Uint32(b), PID: le.Uint32(b[4:]), Parent: le.Uint32(b[8:]), Origin: Origin(b[12])}
		began, ended := le.Uint64(b[16:]), le.Uint64(b[24:])
		s.Began, s.Ended = time.Duration(began), time.Duration(ended)
		switch {
		case s.ID <= last || s.Parent >= s.ID || s.Origin > lastOrigin || b[13]|b[14]|b[15] != 0:
			return corrupt("space %d with parent %d, origin %d after space %d", s.ID, s.Parent, s.Origin, last)
		case began > uint64(t.Length), ended != aliveMark && ended > uint64(t.Length):
			return corrupt("space %d lasts from %d to %d ns in a recording of %d", s.ID, began, ended, t.Length)
		}
		last = s.ID
		t.Spaces = append(t.Spaces, s)
	}
	return nil
}

// has reports whether there is such a space. The spaces ascend, so i, where the last one was found, only grows.
func (t *Trace) has(id uint32, i *int) bool {
	for *i < len(t.Spaces) && t.Spaces[*i].ID < id {
		*i++
	}
	return *i < len(t.Spaces) && t.Spaces[*i].ID == id
}

func (d *decoder) regions(t *Trace, n int) error {
	le := binary.LittleEndian
	t.Regions = make([]Region, 0, n)
	var last Region
	var space int
	for range n {
		b := d.take(regionSize)
		if len(b) < regionSize {
			return corrupt("the regions end early")
		}
		r := Region{Space: le.Uint32(b), Access: Access(b[4]), Start: le.Uint64(b[8:]), End: le.Uint64(b[16:])}
		length := int(b[5])
		name := d.take(length)
		r.Name = string(name)
		switch {
		case len(name) < length || r.Access&^knownAccess != 0 || b[6]|b[7] != 0 || !t.has(r.Space, &space):
			return corrupt("region of space %d with access %#x and a name of %d bytes", r.Space, uint8(r.Access), length)
		case r.Start >= r.End || r.End > addressLimit || (r.Start|r.End)%PageSize != 0,
			r.Space < last.Space, r.Space == last.Space && r.Start < last.End:
			return corrupt("region %#x-%#x of space %d after %#x-%#x of space %d", r.Start, r.End, r.Space, last.Start, last.End, last.Space)
		}
		last = r
		t.Regions = append(t.Regions, r)
	}
	return nil
}

func (d *decoder) threads(t *Trace, n int) ([]threadKey, error) {
	le := binary.LittleEndian
	if len(d.rest) < n*threadSize {
		return nil, corrupt("the threads end early")
	}
	all := make([]threadKey, 0, n)
	var space int
	for i := range n {
		b := d.take(threadSize)
		k := threadKey{le.Uint32(b), le.Uint32(b[4:])}
		if !t.has(k.space, &space) || i > 0 && compareThreads(all[i-1], k) >= 0 {
			return nil, corrupt("thread %d of space %d is out of order", k.tid, k.space)
		}
		all = append(all, k)
	}
	return all, nil
}

func (d *decoder) touches(t *Trace, n int, threads []threadKey) error {
	if len(d.rest) < n*minTouchSize {
		return corrupt("the touches end early")
	}
	t.Touches = make([]Touch, 0, n)
	used := make([]bool, len(threads))
	var at, page uint64
	for range n {
		dt, err := d.uvarint()
		if err != nil {
			return err
		}
		who, err := d.uvarint()
		if err != nil {
			return err
		}
		zigzag, err := d.uvarint()
		if err != nil {
			return err
		}
		step := zigzag>>1 ^ -(zigzag & 1) // in two's complement
		at, page = at+dt, page+step
		thread := who >> threadShift
		if dt > uint64(t.Length) || at > uint64(t.Length) || page >= addressLimit/PageSize || thread >= uint64(len(threads)) {
			return corrupt("touch of page %#x by thread %d after %d ns", page, thread, at)
		}
		used[thread] = true
		t.Touches = append(t.Touches, Touch{
			Time: time.Duration(at), Addr: page * PageSize, Space: threads[thread].space, TID: threads[thread].tid,
			Write: who&touchWrite != 0, Kernel: who&touchKernel != 0,
		})
	}
	for i, u := range used {
		if !u {
			return corrupt("thread %d of space %d touches nothing", threads[i].tid, threads[i].space)
		}
	}
	return nil
}

// uvarint reads a number, which has to be written in as few bytes as it needs.
func (d *decoder) uvarint() (uint64, error) {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 || n > 1 && d.rest[n-1] == 0 {
		return 0, corrupt("a number is cut off or too long")
	}
	d.rest = d.rest[n:]
	return v, nil
}
