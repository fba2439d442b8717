package pagestore

import (
	"context"
	"errors"
	"fmt"

	"thaw/pagestore/internal/hot"
)

// checkWorkingSet checks what a snapshot keeps for its restores.
func (v *verifier) checkWorkingSet(ctx context.Context, w workingSetCheck) error {
	bad, err := w.check(ctx)
	v.mu.Lock()
	v.report.HotPages += bad.pages
	v.mu.Unlock()
	if bad.err != nil {
		v.badWorkingSet(w.snapshot.info.Name, bad.err)
	}
	v.done(0, w.packed)
	return err
}

func (v *verifier) badWorkingSet(name Name, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.report.BadWorkingSets = append(v.report.BadWorkingSets, BadSnapshot{Name: name, Err: classify(err)})
}

// workingSetCheck is the check of one working set.
type workingSetCheck struct {
	snapshot     *Snapshot
	hint, packed int64 // sizes in bytes when the check began
}

// checkedHot is what was found.
type checkedHot struct {
	pages uint64
	err   error // what is wrong
}

// check returns what it found, and an error if it could not go on.
func (w *workingSetCheck) check(ctx context.Context) (checkedHot, error) {
	var out checkedHot
	if w.hint > maxHintLen {
		out.err = corruptf("%s has %d bytes, want at most %d", hintFile, w.hint, maxHintLen)
	}
	if w.packed == 0 {
		return out, nil
	}
	w.snapshot.mu.Lock() // an image of our own: this one can be closed before the snapshot
	im, err := newImage(w.snapshot)
	w.snapshot.mu.Unlock()
	if err != nil {
		return out, nil // the manifest cannot be read, which is another finding
	}
	defer im.close()
	if _, err := im.Hot(); err != nil {
		out.err = errors.Join(out.err, fmt.Errorf("%s: %w", hotFile, err))
		return out, nil
	}
	if im.hot.file == nil {
		return out, nil // dropped while we looked
	}
	c := &hotCheck{image: im, file: im.hot.file, footers: make(map[uint32]bool)}
	err = c.run(ctx)
	out.pages = uint64(im.hot.file.Pages())
	if c.bad > 0 {
		out.err = errors.Join(out.err, fmt.Errorf("%s: pages that are bad: %d, the first is %w", hotFile, c.bad, c.first))
	}
	return out, err
}

// hotCheck compares the pages of a hot file with the digests of the image's pages.
type hotCheck struct {
	image   *Image
	file    *hot.Mapped
	footers map[uint32]bool // of the packs that were asked, by position: whether their digests can be relied on

	bad   int
	first error
}

func (c *hotCheck) run(ctx context.Context) error {
	pages := newHashedPages(min(hotStepPages, int(c.file.Pages())))
	run := 0
	for first := uint32(0); first < c.file.Pages(); first += hotStepPages {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := int(min(hotStepPages, c.file.Pages()-first))
		pages.read(c.file, c.file.Offset(first), n)
		for i := range n {
			page := first + uint32(i)
			r, begin := c.file.Run(run)
			if page == begin+r.Pages {
				run++
				r, begin = c.file.Run(run)
			}
			image := r.Image + uint64(page-begin)
			err := pages.failed[i]
			if err == nil {
				err = c.compare(&pages.digests[i], image)
			}
			if err != nil {
				c.note(fmt.Errorf("page %d, which is to be image page %d: %w", page, image, err))
			}
		}
	}
	return nil
}

func (c *hotCheck) note(err error) {
	if c.bad++; c.bad == 1 {
		c.first = err
	}
}

// compare returns an error unless a page of the image has this digest. A page whose pack is missing or damaged, which is another
// finding, cannot be told.
func (c *hotCheck) compare(digest *Digest, page uint64) error {
	at, err := c.image.locate(page, 1)
	if err != nil {
		return err
	}
	if at.zero {
		return corruptf("that is zero")
	}
	p := c.image.packs[at.pack]
	if p == nil {
		return nil
	}
	sound, asked := c.footers[at.pack]
	if !asked {
		sound = p.mapped.CheckFooter() == nil
		c.footers[at.pack] = sound
	}
	if !sound {
		return nil
	}
	if ok, err := p.mapped.HasDigest(at.page, digest); err == nil && !ok {
		return corruptf("page has SHA-256 %s, which is another", digest)
	}
	return nil
}
