package pagestore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"thaw/pagestore/internal/frame"
	"thaw/pagestore/internal/hot"
	"thaw/pagestore/internal/mapping"
	"thaw/pagestore/internal/pageset"
)

// arrivals is where the hot pages of a stub lie from when they come until they have their places in packs, and for those who have them as long as
// their images are open: a file without a name, in the order of the hot object. To put pages that lie scattered in a pack into it one by one takes as much
// of a CPU as to receive and check them, and to read them there a fault each; a process that is held until it has them should not wait
// for that. The file is on the disk of the store, so that the kernel may take its memory.
type arrivals struct {
	file    *os.File
	data    []byte // file, mapped
	digests []byte // SHA-256s of the pages, one after the other; what lying has is set
	lying   pageset.Set
}

const hotFrameBytes = frame.HotPages * PageSize

// newArrivals makes room for the pages of a hot object. The error wraps [errors.ErrUnsupported] if the file system has no files without a name.
func newArrivals(dir string, pages uint32) (_ *arrivals, err error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	a := &arrivals{file: os.NewFile(uintptr(fd), dir), digests: make([]byte, int(pages)*frame.NodeSize), lying: pageset.New(hotFrames(pages))}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.close())
		}
	}()
	size := int64(pages) * PageSize
	if err := a.file.Truncate(size); err != nil {
		return nil, err
	}
	a.data, err = mapping.Map(a.file, size)
	return a, err
}

func hotFrames(pages uint32) uint32 { return (pages + frame.HotPages - 1) / frame.HotPages }

// put keeps the pages of a frame, of which nobody else puts any. An error, of the disk, leaves nothing.
func (a *arrivals) put(number int, content, digests []byte) error {
	if _, err := a.file.WriteAt(content, int64(number)*hotFrameBytes); err != nil {
		return err
	}
	copy(a.digests[number*frame.HotPages*frame.NodeSize:], digests)
	a.lying.Add(uint32(number)) // last: the rest is there
	return nil
}

// frame returns the pages of a frame that lies here, and their digests.
func (a *arrivals) frame(number int) (content, digests []byte) {
	content = a.data[number*hotFrameBytes : min(len(a.data), (number+1)*hotFrameBytes)]
	return content, a.digests[number*frame.HotPages*frame.NodeSize:][:len(content)/PageSize*frame.NodeSize]
}

// ready returns the pages of the image from page on that lie here, at most limit of them. a may be nil.
func (a *arrivals) ready(t *hot.Table, page uint64, limit int) (data []byte, n int) {
	if a == nil {
		return nil, 0
	}
	at, n := t.Find(page)
	if n == 0 {
		return nil, 0
	}
	end := at + uint32(min(n, max(limit, 1)))
	frames := uint32(a.lying.Run(at/frame.HotPages, hotFrames(end)))
	if end = min(end, (at/frame.HotPages+frames)*frame.HotPages); frames == 0 {
		return nil, 0
	}
	return a.data[int(at)*PageSize : int(end)*PageSize], int(end - at)
}

func (a *arrivals) close() error {
	return errors.Join(mapping.Unmap(a.data), a.file.Close())
}

// arrived returns pages of the image, which at says where they belong in a pack, that have come and may not be there yet: n of them.
func (im *Image) arrived(page uint64, at location) (data []byte, n int) {
	st := im.stream.Load()
	if st == nil {
		return nil, 0
	}
	if p := im.packs[at.pack]; p.remote == nil || p.remote.err() != nil {
		return nil, 0
	}
	return st.here.Load().ready(st.table, page, at.n)
}

// hasArrived reports whether a page of the image has come with the hot pages and lies there.
func (im *Image) hasArrived(page uint64) bool {
	st := im.stream.Load()
	if st == nil {
		return false
	}
	_, n := st.here.Load().ready(st.table, page, 1)
	return n > 0
}

// loadArrived is Image.Load for pages that have come with the hot pages, or will in a while; n is 0 if the pack has to be asked.
func (im *Image) loadArrived(page uint64, at location) (data []byte, n int) {
	if data, n = im.arrived(page, at); n > 0 {
		return data, n
	}
	if p := im.packs[at.pack].remote; p.part.Missing(at.page, at.page+1) > at.page || !im.awaitHot(im.ctx, page) {
		return nil, 0
	}
	return im.arrived(page, at)
}

// settle puts what lies in arrivals into the packs. It stops at the first error.
func (h *RemoteHot) settle(ctx context.Context, a *arrivals) error {
	for number := range h.Frames() {
		if !a.lying.Has(uint32(number)) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		content, digests := a.frame(number)
		if err := h.place(number, content, digests); err != nil {
			return fmt.Errorf("settle frame %d of the hot pages of %s: %w", number, h.Snapshot, err)
		}
	}
	return nil
}

// place puts the pages of a frame, which were checked, where they belong in their packs. They lie scattered there, so they are not kept in memory if
// the disk is full: who needs one has it brought by itself.
func (h *RemoteHot) place(number int, content, digests []byte) (err error) {
	defer mapping.Recover(mapping.Guard(), &err)
	parts, err := h.parts(number)
	if err != nil {
		return err
	}
	for _, part := range parts {
		n := part.at.n
		if p := h.image.packs[part.at.pack]; p != nil && p.partial() {
			if err := p.remote.admit(part.at.page, content[:n*PageSize], digests[:n*frame.NodeSize], false); err != nil {
				return err
			}
		}
		content, digests = content[n*PageSize:], digests[n*frame.NodeSize:]
	}
	return nil
}
