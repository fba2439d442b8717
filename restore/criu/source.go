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
// mapped makes Load and the copying ioctl fail; reading such bytes in this process would kill it.
type ImageSource struct {
	segments []fileSegment // sorted by first
	pages    uint64
	known    pageBits // pages that were in memory once

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
	src.known = newPageBits(src.pages)
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

// at returns the bytes of the file of a page from there on; none if the image has no such page.
func (s *ImageSource) at(page uint64) []byte {
	if page >= s.pages {
		return nil
	}
	// The last segment that begins at or before page: an empty one shares its beginning with the next.
	i := sort.Search(len(s.segments), func(i int) bool { return s.segments[i].first > page }) - 1
	seg := &s.segments[i]
	return seg.data[(page-seg.first)*restore.PageSize:]
}

// pagesOf returns how many whole pages data has, at most limit.
func pagesOf(data []byte, limit int) int { return max(0, min(limit, len(data)/restore.PageSize)) }

// Ready returns pages that are in memory. One that was there once counts as that, without asking the kernel again: if it has been dropped
// since, the kernel reads it while it copies.
func (s *ImageSource) Ready(page uint64, limit int) (data []byte, n int) {
	data = s.at(page)
	for limit = pagesOf(data, limit); n < limit; {
		next := page + uint64(n)
		run := s.known.run(next, limit-n)
		if run == 0 {
			s.ask(next, data[n*restore.PageSize:limit*restore.PageSize])
			run = s.known.run(next, limit-n)
		}
		if run == 0 {
			break
		}
		n += run
	}
	return data[:n*restore.PageSize], n
}

// ask notes which of the pages of data are in memory, the first of which is page; of those only that have their bits in one word.
func (s *ImageSource) ask(page uint64, data []byte) {
	found, errno := resident(data[:pagesOf(data, int(64-page%64))*restore.PageSize])
	if errno == 0 {
		s.known[page/64].Or(found << (page % 64))
	}
}

// maxLoad is how many pages Load brings at most: 2 MiB.
const maxLoad = 512

// Load reads pages from their file.
func (s *ImageSource) Load(page uint64, limit int) (data []byte, n int, err error) {
	data = s.at(page)
	if n = pagesOf(data, min(limit, maxLoad)); n == 0 {
		return nil, 0, fmt.Errorf("page %d of an image of %d pages", page, s.pages)
	}
	if s.known.run(page, n) == n {
		return data[:n*restore.PageSize], n, nil
	}
	if err := populate(data[:n*restore.PageSize]); err != nil {
		n = 1 // perhaps it is another one that cannot be read
		if err := populate(data[:restore.PageSize]); err != nil {
			return nil, 0, fmt.Errorf("read page %d of the images: %w", page, err)
		}
	}
	s.known.set(page, n)
	return data[:n*restore.PageSize], n, nil
}

// populate has pages of a mapped file read, and waits for them. A page that is not there, because the file has been truncated, is an error.
func populate(data []byte) error {
	err := unix.Madvise(data, unix.MADV_POPULATE_READ)
	if errors.Is(err, unix.EINVAL) {
		return nil // before Linux 5.14: they are read when they are copied
	}
	return os.NewSyscallError("madvise", err)
}

// Prefetch has the kernel read the pages ahead.
func (s *ImageSource) Prefetch(page, pages uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.done {
		return
	}
	for pages > 0 {
		data := s.at(page)
		n := pagesOf(data, int(min(pages, 1<<20)))
		if n == 0 {
			return
		}
		// The source is a hint: an error would come again, with a reason, when the pages are copied.
		_ = unix.Madvise(data[:n*restore.PageSize], unix.MADV_WILLNEED)
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
