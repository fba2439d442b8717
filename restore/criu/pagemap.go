package criu

import (
	"errors"
	"io"
	"sort"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/pagemap"

	"thaw/restore"
)

// Flags of a pagemap entry. They are part of CRIU's format.
const (
	flagParent  = 1 << 0 // the bytes are those of the parent dump
	flagLazy    = 1 << 1 // left out by restore --lazy-pages
	flagPresent = 1 << 2 // the bytes are in the pages file
)

// A pageEntry is one entry of a pagemap.
type pageEntry struct {
	addr, pages uint64
	flags       uint32
	offset      int64 // of its bytes in the pages file; where they would be if it is not present
}

func (e *pageEntry) end() uint64 { return e.addr + e.pages*restore.PageSize }

// A pageMap is one pagemap image: the pages of one task, or of one shared memory segment (its addresses are offsets
// then), in one folder of a chain of dumps.
type pageMap struct {
	name    string
	pagesID uint32
	entries []pageEntry // sorted by address, not overlapping
	bytes   int64       // that its pages file must have
}

// parsePagemap reads pagemap-*.img.
func parsePagemap(er *entryReader) (*pageMap, error) {
	var head pagemap.PagemapHead
	if err := er.strict(&head); errors.Is(err, io.EOF) {
		return nil, badFile(er.name, "holds no head: it is truncated")
	} else if err != nil {
		return nil, err
	}
	pm := &pageMap{name: er.name, pagesID: head.GetPagesId()}
	var msg pagemap.PagemapEntry
	prev := uint64(0)
	for {
		if err := er.strict(&msg); errors.Is(err, io.EOF) {
			return pm, nil
		} else if err != nil {
			return nil, err
		}
		e, err := newPageEntry(&msg, er)
		if err != nil {
			return nil, err
		}
		if e.addr < prev {
			return nil, badEntry(er.name, er.index, "the pages at %#x overlap or precede those of the entry before", e.addr)
		}
		prev = e.end()
		e.offset = pm.bytes
		if e.flags&flagPresent != 0 {
			if int64(e.pages) > (1<<62-pm.bytes)/restore.PageSize {
				return nil, badEntry(er.name, er.index, "%d pages do not fit into any file", e.pages)
			}
			pm.bytes += int64(e.pages) * restore.PageSize
		}
		pm.entries = append(pm.entries, e)
	}
}

func newPageEntry(msg *pagemap.PagemapEntry, er *entryReader) (pageEntry, error) {
	e := pageEntry{addr: msg.GetVaddr(), pages: msg.GetNrPages()}
	if msg.NrPages == nil { // before CRIU 4.2 the number was a uint32 in another field
		e.pages = uint64(msg.GetCompatNrPages())
	}
	switch {
	case e.addr%restore.PageSize != 0:
		return e, badEntry(er.name, er.index, "address %#x is not page aligned", e.addr)
	case e.pages == 0:
		return e, badEntry(er.name, er.index, "holds no pages")
	case e.addr >= addressLimit || e.pages > (addressLimit-e.addr)/restore.PageSize:
		return e, badEntry(er.name, er.index, "%d pages at %#x leave the address space", e.pages, e.addr)
	}
	switch {
	case msg.Flags == nil && msg.GetInParent(): // images of CRIU 2 and before have no flags
		e.flags = flagParent
	case msg.Flags == nil:
		e.flags = flagPresent
	default:
		e.flags = msg.GetFlags()
	}
	switch e.flags {
	case flagParent, flagPresent, flagLazy, flagLazy | flagPresent:
	default:
		return e, unsupported(er.name, er.index, "flags %#x", e.flags)
	}
	if msg.Flags != nil && msg.GetInParent() && e.flags&flagParent == 0 {
		return e, badEntry(er.name, er.index, "is in the parent and has flags %#x", e.flags)
	}
	return e, nil
}

// at returns the index of the first entry that ends after addr.
func (pm *pageMap) at(addr uint64) int {
	return sort.Search(len(pm.entries), func(i int) bool { return pm.entries[i].end() > addr })
}
