package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"thaw/cmd/internal/cli"
	"thaw/control"
	"thaw/pagestore"
)

// arrivalEvery is how often it is looked what has arrived.
const arrivalEvery = 500 * time.Millisecond

// arrival watches the pages of a snapshot come in, to tell how far that is.
type arrival struct {
	app  *app
	name pagestore.Name
	mode control.PullMode
	// store is the one to look in; nil: the one that the command line names is opened, if that can be done.
	store *pagestore.Store
	// stall, if it is not 0, is for how long nothing may arrive. An origin is patient: a place that is down may be back.
	stall time.Duration
}

// during calls fn with a context that ends when nothing has arrived for too long. why, if it is not nil, says what may be the reason.
func (v *arrival) during(ctx context.Context, why func() error, fn func(ctx context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var watching sync.WaitGroup
	stop := make(chan struct{})
	if v.stall > 0 || !v.app.quiet && !v.app.json {
		watching.Go(func() { v.watch(stop, cancel) })
	}
	err := fn(ctx)
	close(stop)
	watching.Wait()
	if err == nil || !errors.Is(context.Cause(ctx), errStalled) {
		return err
	}
	err = fmt.Errorf("bring %s: %w", v.name, context.Cause(ctx))
	if why != nil {
		if reason := why(); reason != nil {
			err = fmt.Errorf("%w: %w", err, reason)
		}
	}
	return &cli.Error{
		Code: cli.Missing, Err: err,
		Hint: "what has arrived stays, and the next pull goes on with it; is the place where it comes from there? --give-up-after waits longer",
	}
}

var errStalled = errors.New("nothing has arrived for too long")

// watch looks until stop is closed.
func (v *arrival) watch(stop <-chan struct{}, giveUp context.CancelCauseFunc) {
	p := cli.NewProgress(v.app.stderr, "bringing "+v.name.String(), v.app.quiet || v.app.json)
	defer p.Done()
	every := arrivalEvery
	if v.stall > 0 {
		every = min(every, v.stall)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	var seen uint64
	changed := time.Now()
	look := v.looker()
	defer look.close()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		done, total := look.at()
		if done != seen {
			seen, changed = done, time.Now()
		}
		if v.stall > 0 && time.Since(changed) >= v.stall {
			giveUp(fmt.Errorf("%w: %v", errStalled, v.stall))
			return
		}
		if total > 0 {
			p.Set(done, total)
		}
	}
}

// looker counts the bytes that are here of those that are to come.
type looker struct {
	*arrival
	own  bool // the store is its own
	snap *pagestore.Snapshot
	hot  []pagestore.PageRun
}

func (v *arrival) looker() *looker { return &looker{arrival: v} }

// at returns how many bytes are here and are to be here; 0 as long as nothing is known, also if the store cannot be read by whoever runs the command.
func (l *looker) at() (done, total uint64) {
	if l.snap == nil && !l.open() {
		return 0, 0
	}
	if l.mode == control.PullWorkingSet && l.hot != nil {
		done, total = l.countHot()
	} else {
		here, err := l.snap.Local()
		if err != nil {
			return 0, 0
		}
		done, total = here.LocalPages, here.StoredPages
	}
	return done * pagestore.PageSize, total * pagestore.PageSize
}

// open opens the snapshot, if it is there by now.
func (l *looker) open() bool {
	if l.store == nil {
		store, err := l.app.openStore()
		if err != nil {
			return false
		}
		l.store, l.own = store, true
	}
	snap, err := l.store.Snapshot(l.name)
	if err != nil {
		return false
	}
	l.snap = snap
	l.hot, _, _ = snap.HotOrder() // nil if nothing is known
	return true
}

// countHot counts the pages that a restore wants first.
func (l *looker) countHot() (done, total uint64) {
	image, err := l.snap.Image()
	if err != nil {
		return 0, 0
	}
	for _, run := range l.hot {
		for page, left := run.Image, run.Pages; left > 0; {
			const step = 1 << 16
			n := min(left, step)
			done += uint64(image.Holds(page, int(n)))
			page, left = page+n, left-n
		}
		total += run.Pages
	}
	return done, total
}

func (l *looker) close() {
	if l.snap != nil {
		l.snap.Close() // nothing was written
	}
	if l.own {
		l.store.Close()
	}
}
