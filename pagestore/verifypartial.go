package pagestore

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"thaw/pagestore/internal/pack"
)

func (v *verifier) remotePack() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.report.RemotePacks++
}

// checkPartial checks the pages of a partial pack that are said to be here since the machine was started. Those from before are looked at
// before they are used.
func (v *verifier) checkPartial(ctx context.Context, c *namespaceCheck, name partialID) error {
	boot, err := bootID()
	if err != nil {
		return err
	}
	file, state := c.ns.partialFiles(name)
	p, err := pack.ReadPresence(state)
	switch {
	case errors.Is(err, pack.ErrCorrupt), errors.Is(err, pack.ErrVersion), errors.Is(err, fs.ErrNotExist):
		return nil // it will be made anew; or it has become an ordinary pack, or is gone
	case err != nil:
		return err
	case p.Boot != boot:
		return nil
	}
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	defer f.Close()
	tables, err := p.Tables(f)
	if err != nil {
		v.badPack(c, name.id, classify(err))
		return nil
	}
	pages := newHashedPages(int(min(chunkPages, p.Pages)))
	for first := uint32(0); first < p.Pages; {
		n := uint32(0)
		for n < chunkPages && first+n < p.Pages && p.Present(first+n) {
			n++
		}
		if n == 0 {
			first++
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		pages.read(f, pack.Offset(first), int(n))
		for i := range n {
			if err := pages.check(int(i), tables, first+i); err != nil {
				v.badPage(c, name.id, first+i, classify(err))
			}
		}
		v.done(int(n), 0)
		first += n
	}
	return nil
}
