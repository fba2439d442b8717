package pack

import (
	"encoding/binary"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"thaw/pagestore/internal/mapping"
)

// marks are what is written beside each page that is admitted: digest and sum into the pack's tables, its state into the map. Hot pages come
// scattered, and three system calls for each would cost more than the page itself. So they are written through mappings, where the
// disk has blocks for them; what lies in the map has, since it was made.
type marks struct {
	tables []byte // the pack from its digests on, mapped; nil where no blocks could be reserved: then it is written to as files are
	states []byte // the whole map, mapped
}

// openMarks maps what marks are written to.
func (p *Partial) openMarks() (err error) {
	if p.marks.states, err = mapping.MapForWriting(p.state, 0, mapSize(p.pages)); err != nil {
		return err
	}
	off, end := Offset(p.pages), FileSize(int(p.pages))
	// Not every file system can, and not every disk has room: the slow way is as good.
	if unix.Fallocate(int(p.write.Fd()), 0, off, end-off) == nil {
		p.marks.tables, err = mapping.MapForWriting(p.write, off, end-off)
	}
	return err
}

func (m *marks) close() error {
	err := mapping.Unmap(m.tables)
	if other := mapping.Unmap(m.states); err == nil {
		err = other
	}
	m.tables, m.states = nil, nil
	return err
}

// enter puts digests and sums of pages from page on into the tables.
func (p *Partial) enter(page uint32, digests, sums []byte) (err error) {
	if p.marks.tables == nil {
		if _, err := p.write.WriteAt(digests, p.digestOff(page)); err != nil {
			return err
		}
		_, err := p.write.WriteAt(sums, p.sumOff(page))
		return err
	}
	defer mapping.Recover(mapping.Guard(), &err)
	copy(p.marks.tables[p.digestOff(page)-Offset(p.pages):], digests)
	copy(p.marks.tables[p.sumOff(page)-Offset(p.pages):], sums)
	return nil
}

// mark says that n pages from page on are here. What was written before is seen by whoever sees a mark.
func (p *Partial) mark(page, n uint32) (err error) {
	defer mapping.Recover(mapping.Guard(), &err)
	for i := range int64(n) {
		setByte(p.marks.states, statesOff(p.pages)+int64(page)+i, present)
	}
	return nil
}

// markDoubtful says what became of a page, if it is doubtful still.
func (p *Partial) markDoubtful(page uint32, state byte) (err error) {
	defer mapping.Recover(mapping.Guard(), &err)
	replaceByte(p.marks.states, statesOff(p.pages)+int64(page), state, func(old byte) bool { return old == doubtful })
	return nil
}

// setByte is an atomic store of one byte; see replaceByte.
func setByte(b []byte, at int64, value byte) {
	replaceByte(b, at, value, func(byte) bool { return true })
}

// replaceByte atomically replaces one byte, if may says that its value may be replaced. Others, other processes too, may be replacing it and its
// neighbors. The slice begins at a page border.
func replaceByte(b []byte, at int64, value byte, may func(old byte) bool) {
	word := (*uint32)(unsafe.Pointer(&b[at&^3]))
	for {
		old := atomic.LoadUint32(word)
		var bytes [4]byte
		binary.NativeEndian.PutUint32(bytes[:], old)
		if !may(bytes[at&3]) {
			return
		}
		bytes[at&3] = value
		if atomic.CompareAndSwapUint32(word, old, binary.NativeEndian.Uint32(bytes[:])) {
			return
		}
	}
}
