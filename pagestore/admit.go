package pagestore

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"thaw/internal/durable"
	"thaw/pagestore/internal/pack"
)

// lockPartial makes the caller the one who opens, finishes or deletes partial packs of the namespace, in all processes. It is held for
// steps that wait for no disk but by accident, so it is waited for without a deadline.
func (n namespace) lockPartial() (unlock func(), err error) {
	f, err := os.Open(n.partial())
	if err != nil {
		return nil, err
	}
	for {
		switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err {
		case nil:
			return func() { f.Close() }, nil
		case unix.EINTR:
		default:
			return nil, errors.Join(&fs.PathError{Op: "flock", Path: f.Name(), Err: err}, f.Close())
		}
	}
}

// bootID tells this start of the machine from others.
var bootID = sync.OnceValues(func() (b pack.Boot, err error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return b, err
	}
	digits, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(string(text)), "-", ""))
	if err != nil || len(digits) != len(b) {
		return b, fmt.Errorf("boot id is %q: %w", text, err)
	}
	return pack.Boot(digits), nil
})

// openPartial opens the pack that a stub names: the ordinary one, if it has become that, or the partial one. One of the two is nil.
func (s *Store) openPartial(ns namespace, name partialID, pages uint32, root Digest) (*pack.Mapped, *pack.Partial, error) {
	boot, err := bootID()
	if err != nil {
		return nil, nil, err
	}
	if err := os.Mkdir(ns.partial(), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, nil, err
	}
	unlock, err := ns.lockPartial()
	if err != nil {
		return nil, nil, err
	}
	defer unlock()
	mapped, err := pack.Open(ns.pack(name.id), name.id) // again: it may have got its name since
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return mapped, nil, err
	}
	file, state := ns.partialFiles(name)
	part, err := pack.OpenPartial(file, state, name.id, pages, root, boot)
	return nil, part, err
}

// keepBytes is how much of what came from afar a Store keeps in memory while the disk is full: 8192 frames, each of which adds two mappings at
// most, itself and what it cuts off behind it. So it is a quarter of what the kernel grants a process by default.
const keepBytes = 1 << 30

// admit writes checked pages to their place. If there is no room, they are kept in memory where somebody waits for them: whole frames.
func (p *RemotePack) admit(page uint32, content, digests []byte, awaited bool) error {
	if err := p.err(); err != nil {
		return err
	}
	err := p.part.Admit(page, content, digests)
	if durable.NoSpace(err) {
		p.store.makeRoom(int64(len(content)))
		if err = p.part.Admit(page, content, digests); durable.NoSpace(err) && awaited {
			err = p.keep(page, content, err)
		}
	}
	if err != nil {
		return classify(err)
	}
	p.store.admitted(int64(len(content)))
	p.store.finishSoon(p)
	return nil
}

// keep keeps a frame in memory, unless that has become too much: then the error is full, that of the disk.
func (p *RemotePack) keep(page uint32, content []byte, full error) (err error) {
	s, n := p.store, int64(len(content))
	if s.inMemory.Add(n) > s.opts.keepBytes {
		err = fmt.Errorf("the disk is full, and no more than %d bytes of pages from afar are kept in memory: %w", s.opts.keepBytes, full)
	} else {
		err = p.part.Keep(page, content)
	}
	if err != nil {
		s.inMemory.Add(-n)
		return err
	}
	p.inMemory.Add(n)
	s.opts.Logger.Warn("disk is full: pages from afar are in memory only", "pack", p.ID.String(), "bytes", n)
	return nil
}

// finishSoon has an ordinary pack made of p if all of its pages are there. The caller has a reference to the open pack.
func (s *Store) finishSoon(p *RemotePack) {
	if !p.part.Complete() || p.finishing.Swap(true) {
		return
	}
	s.retainPack(p.open) // which the caller holds, too
	started := s.background(func(context.Context) {
		defer s.releasePack(p.open)
		s.finishing.Lock() // one disk
		defer s.finishing.Unlock()
		if err := s.finish(p); err != nil {
			s.opts.Logger.Warn("pack that came from afar is not finished", "namespace", p.Namespace, "pack", p.ID.String(), "err", err)
		}
	})
	if !started {
		p.finishing.Store(false)
		s.releasePack(p.open)
	}
}

// finish makes an ordinary pack of p, durably.
func (s *Store) finish(p *RemotePack) error {
	err := p.part.Finish()
	if err == nil {
		err = s.publishPartial(p)
	}
	switch {
	case err == nil:
		p.complete.Store(true)
	case errors.Is(err, pack.ErrWrongBytes):
		err = fmt.Errorf("%w: %w", ErrWrongBytes, err)
		p.failed.Store(&err)
		p.part.Doubt()
		return errors.Join(err, p.ns.discard(s.opts.fs, p.name))
	default:
		p.finishing.Store(false)
	}
	return classify(err)
}

// publishPartial gives a finished file the name of an ordinary pack.
func (s *Store) publishPartial(p *RemotePack) error {
	file, state := p.ns.partialFiles(p.name)
	if err := s.opts.fs.SyncFile(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	unlock, err := p.ns.lockPartial()
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Stat(p.ns.pack(p.ID)); err == nil { // somebody else was faster
		return p.ns.discardLocked(s.opts.fs, p.name)
	}
	if same, err := p.part.Named(); err != nil {
		return err
	} else if !same { // it was evicted meanwhile, and another may be filling up there
		return fmt.Errorf("%s was deleted while it was filled: %w", file, fs.ErrNotExist)
	}
	if err := s.opts.fs.Rename(file, p.ns.pack(p.ID)); err != nil {
		return err
	}
	if err := s.opts.fs.SyncDir(p.ns.packs()); err != nil {
		return err
	}
	if err := s.opts.fs.Remove(state); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// discard deletes a partial pack. Who has it open goes on with what it has.
func (n namespace) discard(fsys durable.FS, name partialID) error {
	unlock, err := n.lockPartial()
	if err != nil {
		return err
	}
	defer unlock()
	return n.discardLocked(fsys, name)
}

func (n namespace) discardLocked(fsys durable.FS, name partialID) error {
	file, state := n.partialFiles(name)
	for _, path := range []string{state, file} {
		if err := fsys.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
