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
	for page := range p.Pages {
		if !p.Present(page) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := p.CheckPage(f, page); err != nil {
			v.badPage(c, name.id, page, classify(err))
		}
		v.done(1, 0)
	}
	return nil
}
