package daemon

import (
	"math/rand/v2"
	"os"

	"golang.org/x/sys/unix"

	"thaw/control"
	"thaw/restore"
)

const (
	// warmPages and warmFiles are how many pages of an image, and of files, are looked at for whether all that is needed is in memory: some
	// 50 us of system calls. Where a tenth is not, that is noticed in 97 of 100 restores.
	warmPages = 32
	warmFiles = 8
)

// warm reports whether what will be needed seems to be in memory, and checked, by a sample. To go through all of it takes 10 to 15 ms of a
// CPU, in which CRIU restores the process on the other thread of the same core; what a sample has missed comes with its fault, as it would
// have without reading ahead.
func (o *origin) warm(known *needs, binds []control.Bind, rnd *rand.Rand) bool {
	pages := o.pages + o.mapped
	if pages == 0 {
		return false
	}
	for range warmPages {
		page := rnd.Uint64N(pages)
		if known != nil {
			page = known.image.from(page)
		}
		s, _, err := o.image.Stored(page, 1)
		if err != nil || o.image.StoredCached(page, 1) < s.Pages || o.image.StoredIntact(page, 1) < s.Pages {
			return false
		}
	}
	return known == nil || filesWarm(known.files, binds)
}

// filesWarm reports whether pages of files seem to be in memory. A file that is not there needs no reading.
func filesWarm(files map[string]pageSet, binds []control.Bind) bool {
	left := warmFiles
	for name, pages := range files { // in an order that changes
		if left == 0 {
			break
		}
		left--
		f := openSeen(name, binds)
		if f == nil {
			continue
		}
		cached := inMemory(f, pages.from(0))
		f.Close()
		if !cached {
			return false
		}
	}
	return true
}

func inMemory(f *os.File, page uint64) bool {
	in := unix.CachestatRange{Off: page * restore.PageSize, Len: restore.PageSize}
	var out unix.Cachestat_t
	return unix.Cachestat(uint(f.Fd()), &in, &out, 0) == nil && out.Cache > 0
}

// from returns the first page of the set that is not before page, or the first of all; 0 if there is none.
func (s pageSet) from(page uint64) uint64 {
	end := uint64(len(s)) * 64
	for _, begin := range []uint64{page, 0} {
		if p := s.next(begin, end, true); p < end {
			return p
		}
	}
	return 0
}
