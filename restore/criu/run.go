package criu

import "thaw/restore"

// A Run is pages at consecutive addresses of a task whose bytes are consecutive in a pages file.
type Run struct {
	Addr   uint64 // of the first page
	Pages  uint64
	File   int   // for Images.Reader, or Remote
	Offset int64 // of the first byte in the file; 0 if Remote

	// lazyFlag says that the image marks the pages lazy, so that `criu restore --lazy-pages` leaves them out when
	// it is given the images as they lie.
	lazyFlag bool
}

// Remote is the File of pages whose bytes are with a page server.
const Remote = -1

func (r *Run) end() uint64 { return r.Addr + r.Pages*restore.PageSize }

// skip returns the run without its first n pages.
func (r Run) skip(n uint64) Run {
	r.Addr += n * restore.PageSize
	r.Pages -= n
	if r.File != Remote {
		r.Offset += int64(n) * restore.PageSize
	}
	return r
}

// appendRun appends r, as part of the last run if it continues it. A run that begins at border stays apart. So does a
// remote one: it is one pagemap entry of the page server's, and no request may cross those.
func appendRun(runs []Run, r Run, border uint64) []Run {
	if len(runs) > 0 && r.Addr != border && r.File != Remote {
		last := &runs[len(runs)-1]
		if next := last.skip(last.Pages); next.Addr == r.Addr && next.File == r.File && next.Offset == r.Offset && last.lazyFlag == r.lazyFlag {
			last.Pages += r.Pages
			return runs
		}
	}
	return append(runs, r)
}
