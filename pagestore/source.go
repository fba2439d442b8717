package pagestore

import (
	"errors"
	"fmt"
	"io"
)

// source deals out the pages of the image in order.
type source struct {
	spaces []Space // that are not dealt out
	run    int     // number of the run of spaces[0] that comes next
	done   uint64  // pages of it that are dealt out
}

// part is consecutive pages of an input file.
type part struct {
	file   int
	offset int64
	pages  int
}

// next says in c.n and c.parts which pages the chunk is to get, and reports whether there are any. The first chunk gets one less, as a pack
// begins with a header of the size of a page: if all pages are new, each write ends at a whole MiB of the file then, where the page
// cache can take it in one piece.
func (s *source) next(c *chunk) bool {
	c.n, c.parts = 0, c.parts[:0]
	limit := chunkPages
	if c.number == 0 {
		limit--
	}
	for c.n < limit && s.more() {
		run := &s.spaces[0].Runs[s.run]
		n := int(min(run.Pages-s.done, uint64(limit-c.n)))
		c.want(part{file: run.File, offset: run.Offset + int64(s.done)*PageSize, pages: n})
		if s.done += uint64(n); s.done == run.Pages {
			s.run, s.done = s.run+1, 0
		}
	}
	return c.n > 0
}

// more finds the next run.
func (s *source) more() bool {
	for len(s.spaces) > 0 && s.run == len(s.spaces[0].Runs) {
		s.spaces, s.run = s.spaces[1:], 0
	}
	return len(s.spaces) > 0
}

// want adds pages to the chunk. Parts that follow each other in a file are read at once.
func (c *chunk) want(p part) {
	c.n += p.pages
	if last := len(c.parts) - 1; last >= 0 && c.parts[last].file == p.file &&
		c.parts[last].offset+int64(c.parts[last].pages)*PageSize == p.offset {
		c.parts[last].pages += p.pages
		return
	}
	c.parts = append(c.parts, p)
}

// read reads the pages of the chunk.
func (c *chunk) read(files []io.ReaderAt) error {
	at := 0
	for _, p := range c.parts {
		dst := c.pages(at, at+p.pages)
		at += p.pages
		n, err := files[p.file].ReadAt(dst, p.offset)
		switch {
		case n == len(dst):
		case err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return fmt.Errorf("%w: file %d has no %d bytes at offset %d, only %d", ErrShortInput, p.file, len(dst), p.offset, n)
		default:
			return fmt.Errorf("read file %d at offset %d: %w", p.file, p.offset, err)
		}
	}
	return nil
}
