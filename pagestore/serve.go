package pagestore

import (
	"context"
	"fmt"
)

// Holds returns how many pages from page on are here, limit at most: none of them would have to come from the origin. Pages that are zero count.
func (im *Image) Holds(page uint64, limit int) (n int) {
	if !im.gate.enter() {
		return 0
	}
	defer im.gate.leave()
	for n < limit {
		at, err := im.locate(page+uint64(n), limit-n)
		if err != nil {
			return n
		}
		if !at.zero {
			p := im.packs[at.pack]
			if p == nil {
				return n
			}
			if p.partial() {
				end := at.page + uint32(at.n)
				if first := p.remote.part.Missing(at.page, end); first < end {
					return n + int(first-at.page)
				}
			}
		}
		n += at.n
	}
	return n
}

// Bring waits until n frames of the pack from number on are here, for which it asks the store's origin. Errors are those of the origin, [ErrRange], and those of ctx.
func (h *HeldPack) Bring(ctx context.Context, number, n int, class Class) error {
	if number < 0 || n < 1 || n > h.Frames()-number {
		return fmt.Errorf("%w: %d frames from %d on of pack %s", ErrRange, n, number, h.ID)
	}
	if !h.pack.partial() {
		return nil
	}
	return h.store.fetch(ctx, h.pack.remote, uint32(number*framePages), min(uint32((number+n)*framePages), h.Pages)-1, class)
}
