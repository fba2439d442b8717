package criu

import (
	"errors"
	"fmt"
	"os"
	"sort"
	"sync"

	"golang.org/x/sys/unix"

	"thaw/restore"
)

// An ImageSource gives the pages of a folder of images straight from its pages files. It is safe for concurrent use.
//
// The files are mapped, so its bytes are page cache and cost no memory of ours. A file that is truncated while it is
// mapped makes the copying ioctl fail; reading such bytes in this process would kill it.
type ImageSource struct {
	segments []fileSegment // sorted by first
	pages    uint64

	mu   sync.RWMutex // excludes Close
	done bool
}

var _ restore.PageSource = (*ImageSource)(nil)

// A fileSegment is a mapped pages file: image pages [first, first+len(data)/PageSize).
type fileSegment struct {
	first uint64
	data  []byte
}

// Source returns the lazy pages of the images as they lie, for a restore from this folder itself rather than from a
// skeleton: a page counts as lazy here if CRIU will leave it out, which the flags in the images decide. The layouts,
// by image pid, are of the tasks with memory.
//
// Returns an error that wraps ErrEagerPages if CRIU would leave pages out that no server can bring afterwards.
// The source does not need the Images afterwards. The caller closes it.
func (im *Images) Source() (*ImageSource, map[int]restore.Layout, error) {
	if err := im.checkFlags(); err != nil {
		return nil, nil, err
	}
	return im.source((*Task).leftOut)
}

// SkeletonSource is Source for a restore from a skeleton of the images: all pages are there that the skeleton lacks.
func (im *Images) SkeletonSource() (*ImageSource, map[int]restore.Layout, error) {
	return im.source(func(t *Task) []Run { return t.Lazy })
}

// source maps the pages files. pages says which pages of a task the source is asked for.
func (im *Images) source(pages func(*Task) []Run) (*ImageSource, map[int]restore.Layout, error) {
	src := &ImageSource{}
	for _, f := range im.chain.files {
		if err := src.add(f); err != nil {
			src.Close()
			return nil, nil, fmt.Errorf("map %s: %w", f.Name(), err)
		}
	}
	imagePage := func(r *Run) uint64 {
		return src.segments[r.File].first + uint64(r.Offset)/restore.PageSize
	}
	layouts := make(map[int]restore.Layout)
	for i := range im.Tasks {
		if t := &im.Tasks[i]; !t.Zombie {
			layouts[t.PID] = t.layout(pages(t), imagePage)
		}
	}
	return src, layouts, nil
}

// leftOut returns the lazy pages that the images mark as lazy. CRIU restores the others itself even with --lazy-pages:
// they are present when the process starts, and what is missing of them later was dropped by the process.
func (t *Task) leftOut() []Run {
	var out []Run
	for _, r := range t.Lazy {
		if r.lazyFlag {
			out = append(out, r)
		}
	}
	return out
}

// checkFlags refuses images that a lazy restore would get wrong as they lie.
func (im *Images) checkFlags() error {
	for _, t := range im.Tasks {
		for _, r := range t.Eager {
			if r.lazyFlag {
				return &ImageError{File: fmt.Sprintf("pagemap-%d.img", t.PID), Entry: -1, Err: ErrEagerPages, Reason: fmt.Sprintf(
					"the pages at %#x would be lost: make a snapshot of the images and restore that", r.Addr)}
			}
		}
	}
	return nil
}

func (s *ImageSource) add(f *os.File) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	var data []byte
	if st.Size() > 0 {
		if data, err = unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_SHARED); err != nil {
			return os.NewSyscallError("mmap", err)
		}
	}
	s.segments = append(s.segments, fileSegment{s.pages, data})
	s.pages += uint64(st.Size()) / restore.PageSize
	return nil
}

// Ready returns pages from page on. All pages count as at hand: where they are not in memory, the kernel reads them
// while it copies.
func (s *ImageSource) Ready(page uint64, limit int) (data []byte, n int) {
	if page >= s.pages || limit <= 0 {
		return nil, 0
	}
	// The last segment that begins at or before page: an empty one shares its beginning with the next.
	i := sort.Search(len(s.segments), func(i int) bool { return s.segments[i].first > page }) - 1
	seg := &s.segments[i]
	data = seg.data[(page-seg.first)*restore.PageSize:]
	n = int(min(uint64(limit), uint64(len(data))/restore.PageSize))
	return data[:n*restore.PageSize], n
}

// Load is Ready. It fails only for a page that the image does not have.
func (s *ImageSource) Load(page uint64, limit int) (data []byte, n int, err error) {
	if data, n = s.Ready(page, limit); n == 0 {
		return nil, 0, fmt.Errorf("page %d of an image of %d pages", page, s.pages)
	}
	return data, n, nil
}

// Prefetch has the kernel read the pages ahead.
func (s *ImageSource) Prefetch(page, pages uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.done {
		return
	}
	for pages > 0 {
		data, n := s.Ready(page, int(min(pages, 1<<20)))
		if n == 0 {
			return
		}
		// The source is a hint: an error would come again, with a reason, when the pages are copied.
		_ = unix.Madvise(data, unix.MADV_WILLNEED)
		page += uint64(n)
		pages -= uint64(n)
	}
}

// Close unmaps the files. No page handed out may be in use any more.
func (s *ImageSource) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done {
		return nil
	}
	s.done = true
	var errs []error
	for _, seg := range s.segments {
		if len(seg.data) > 0 {
			errs = append(errs, os.NewSyscallError("munmap", unix.Munmap(seg.data)))
		}
	}
	return errors.Join(errs...)
}
