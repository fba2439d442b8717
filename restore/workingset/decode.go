package workingset

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/cespare/xxhash/v2"
)

// A decoder reads from the front of rest. Every count in the file is checked against what is left before anything is allocated
// for it.
type decoder struct {
	rest []byte
}

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrCorrupt}, args...)...)
}

func (d *decoder) set(data []byte) (*Set, error) {
	s := &Set{}
	objects, hidden, err := d.header(s, data)
	if err != nil {
		return nil, err
	}
	for range objects {
		o, err := d.object()
		if err != nil {
			return nil, err
		}
		s.Objects = append(s.Objects, o)
	}
	if err := d.hidden(s, hidden); err != nil {
		return nil, err
	}
	if len(d.rest) > 0 {
		return nil, corrupt("%d bytes behind the end", len(d.rest))
	}
	if err := s.check(); err != nil {
		return nil, corrupt("%w", err)
	}
	return s, nil
}

// header checks what can be told of the file as a whole, and leaves in rest what lies between header and checksum.
func (d *decoder) header(s *Set, data []byte) (objects, hidden int, err error) {
	le := binary.LittleEndian
	if len(data) < headerSize+sumSize || len(data) > MaxSize || string(data[:8]) != Magic {
		return 0, 0, corrupt("no working set: %d bytes that begin with %q", len(data), data[:min(len(data), 8)])
	}
	if v := le.Uint32(data[8:]); v != Version {
		return 0, 0, fmt.Errorf("%w: %d, this program reads %d", ErrVersion, v, Version)
	}
	if size := le.Uint64(data[16:]); size != uint64(len(data)) {
		return 0, 0, corrupt("%d bytes, and the header says %d", len(data), size)
	}
	body := data[:len(data)-sumSize]
	if got, want := xxhash.Sum64(body), le.Uint64(data[len(body):]); got != want {
		return 0, 0, corrupt("checksum is %016x, not %016x", got, want)
	}
	d.rest = body[headerSize:]
	copy(s.Digest[:], data[24:])
	s.ImagePages = le.Uint64(data[56:])
	s.Recordings, s.Partial = le.Uint32(data[64:]), le.Uint32(data[68:])
	objects, hidden = int(le.Uint32(data[72:])), int(le.Uint32(data[76:]))
	switch {
	case le.Uint32(data[12:]) != PageSize || le.Uint64(data[80:]) != 0:
		return 0, 0, corrupt("page size or reserved fields are not those of this version")
	case objects > maxObjects || objects*minObjectSize+hidden*minHiddenSize > len(d.rest):
		return 0, 0, corrupt("%d objects and %d hidden ranges do not fit", objects, hidden)
	}
	return objects, hidden, nil
}

func (d *decoder) object() (Object, error) {
	var o Object
	length, err := d.uvarint()
	if err != nil {
		return o, err
	}
	if length > maxPath || length > uint64(len(d.rest)) {
		return o, corrupt("a path of %d bytes", length)
	}
	o.Path, d.rest = string(d.rest[:length]), d.rest[length:]
	n, err := d.uvarint()
	if err != nil {
		return o, err
	}
	if n > uint64(len(d.rest)/minEntrySize) {
		return o, corrupt("%d entries do not fit", n)
	}
	if n > 0 {
		o.Entries = make([]Entry, 0, n)
	}
	var next uint64
	for range n {
		e, err := d.entry(next)
		if err != nil {
			return o, err
		}
		next = e.Page + 1
		o.Entries = append(o.Entries, e)
	}
	return o, nil
}

// entry reads one whose page is not less than next.
func (d *decoder) entry(next uint64) (Entry, error) {
	gap, err := d.uvarint()
	if err != nil {
		return Entry{}, err
	}
	if gap >= maxFilePages || next >= maxFilePages {
		return Entry{}, corrupt("page %d pages behind page %d", gap, next)
	}
	if len(d.rest) < 2 {
		return Entry{}, corrupt("the entries end early")
	}
	head := d.rest[0]
	e := Entry{Page: next + gap, Bucket: Bucket(head & headBucket), Write: head&headWrite != 0, Known: d.rest[1]}
	d.rest = d.rest[2:]
	for _, m := range e.masks() {
		if head&m.head == 0 {
			continue
		}
		v, err := d.uvarint()
		if err != nil {
			return Entry{}, err
		}
		if v == 0 || v > math.MaxUint32 {
			return Entry{}, corrupt("page %d has the history %#x", e.Page, v)
		}
		*m.bits = uint32(v)
	}
	return e, nil
}

func (d *decoder) hidden(s *Set, n int) error {
	if n > len(d.rest)/minHiddenSize {
		return corrupt("%d hidden ranges do not fit", n)
	}
	if n > 0 {
		s.Hidden = make([]Hidden, 0, n)
	}
	var end uint64
	for range n {
		gap, err := d.uvarint()
		if err != nil {
			return err
		}
		pages, err := d.uvarint()
		if err != nil {
			return err
		}
		if gap > MaxImagePages || pages > MaxImagePages || end > MaxImagePages || len(d.rest) == 0 {
			return corrupt("%d hidden pages, %d behind page %d", pages, gap, end)
		}
		s.Hidden = append(s.Hidden, Hidden{Page: end + gap, Pages: pages, Known: d.rest[0]})
		d.rest = d.rest[1:]
		end += gap + pages
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
