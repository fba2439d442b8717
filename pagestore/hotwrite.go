package pagestore

import (
	"context"
	"errors"
	"fmt"

	"thaw/internal/durable"
	"thaw/pagestore/internal/hot"
)

// hotRuns returns the stored pages of an order, each once, as runs of pages that follow each other in the image.
func (im *Image) hotRuns(order []PageRun) ([]hot.Run, error) {
	if !im.gate.enter() {
		return nil, ErrClosed
	}
	defer im.gate.leave()
	p := hotPlan{seen: make(map[uint64]*[8]uint64)}
	for _, o := range order {
		if total := im.manifest.ImagePages(); o.Pages > total || o.Image > total-o.Pages {
			return nil, fmt.Errorf("%w: %d pages from %d on, of %d", ErrRange, o.Pages, o.Image, total)
		}
		for page, left := o.Image, o.Pages; left > 0; {
			at, err := im.locate(page, int(min(left, 1<<30)))
			if err != nil {
				return nil, err
			}
			if !at.zero {
				if err := p.add(page, at.n); err != nil {
					return nil, err
				}
			}
			page, left = page+uint64(at.n), left-uint64(at.n)
		}
	}
	return p.runs, nil
}

// hotPlan collects the pages of a hot file.
type hotPlan struct {
	runs  []hot.Run
	pages int
	seen  map[uint64]*[8]uint64 // one bit for each page of the image, 512 in an entry
}

// add appends those of n pages from page on that are new.
func (p *hotPlan) add(page uint64, n int) error {
	for ; n > 0; page, n = page+1, n-1 {
		part := p.seen[page/512]
		if part == nil {
			part = new([8]uint64)
			p.seen[page/512] = part
		}
		word, bit := &part[page%512/64], uint64(1)<<(page%64)
		if *word&bit != 0 {
			continue
		}
		*word |= bit
		if p.pages++; p.pages > hot.MaxPages {
			return fmt.Errorf("%w: more than %d pages in the order of a working set", ErrInput, hot.MaxPages)
		}
		if last := len(p.runs) - 1; last >= 0 && p.runs[last].Image+uint64(p.runs[last].Pages) == page {
			p.runs[last].Pages++
		} else {
			p.runs = append(p.runs, hot.Run{Image: page, Pages: 1})
		}
	}
	return nil
}

// writeHot makes a durable hot file of runs under a name that must not exist yet. The pages come from the packs, and what is written
// has been compared with their sums.
func (im *Image) writeHot(ctx context.Context, fsys durable.FS, name string, snapshot Digest, runs []hot.Run) error {
	head, table, err := hot.Encode(snapshot, im.Pages(), runs)
	if err != nil {
		return err
	}
	f, err := fsys.Create(name)
	if err != nil {
		return err
	}
	_ = f.Reserve(0, table.FileSize()) // a hint: so that it lies in one piece
	w := &hotWriter{ctx: ctx, image: im, file: f, buf: make([]byte, 0, chunkPages*PageSize)}
	if err := w.write(head, runs); err != nil {
		return errors.Join(err, f.Close())
	}
	return errors.Join(f.Sync(), f.Close())
}

// hotWriter writes a hot file, 1 MiB at a time.
type hotWriter struct {
	ctx       context.Context
	image     *Image
	file      durable.File
	buf       []byte
	written   int64 // bytes
	requested int64 // the bytes before were asked to be written back
}

func (w *hotWriter) write(head []byte, runs []hot.Run) error {
	if err := w.put(head); err != nil {
		return err
	}
	for _, r := range runs {
		for page, left := r.Image, int(r.Pages); left > 0; {
			room := min(left, (cap(w.buf)-len(w.buf))/PageSize)
			if room == 0 {
				if err := w.flush(); err != nil {
					return err
				}
				continue
			}
			n, err := w.image.copyStored(w.buf[len(w.buf):len(w.buf)+room*PageSize], page)
			if err != nil {
				return err
			}
			w.buf = w.buf[:len(w.buf)+n*PageSize]
			page, left = page+uint64(n), left-n
		}
	}
	return w.flush()
}

// flush writes what is in the buffer.
func (w *hotWriter) flush() error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	err := w.put(w.buf)
	w.buf = w.buf[:0]
	return err
}

// put writes b, and has the disk begin with what was written since the last time.
func (w *hotWriter) put(b []byte) error {
	if _, err := w.file.Write(b); err != nil {
		return err
	}
	w.written += int64(len(b))
	if n := w.written - w.requested; n >= writebackBytes {
		_ = w.file.Writeback(w.requested, n) // a hint: an error of the disk shows again in the sync
		w.requested = w.written
	}
	return nil
}

// copyStored copies stored pages from page on, at least one and as many as fit into to and lie together, and checks the copy.
func (im *Image) copyStored(to []byte, page uint64) (n int, err error) {
	if !im.gate.enter() {
		return 0, ErrClosed
	}
	defer im.gate.leave()
	at, err := im.locate(page, len(to)/PageSize)
	if err != nil {
		return 0, err
	}
	p := im.packs[at.pack]
	if p == nil {
		return 0, im.pageError(page, at, im.packErrs[at.pack])
	}
	if p.partial() {
		return im.copyRemote(to, p, page, at)
	}
	if n, err = p.mapped.Copy(to[:at.n*PageSize], at.page); err != nil {
		at.page += uint32(n)
		return 0, im.pageError(page+uint64(n), at, classify(err))
	}
	return n, nil
}

// sums returns the sums of stored pages; see [pack.Mapped.Sums].
func (im *Image) sums(at location) []byte { return im.packs[at.pack].mapped.Sums(at.page, at.n) }
