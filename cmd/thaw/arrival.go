package main

import (
	"sync"
	"time"

	"thaw/cmd/internal/cli"
	"thaw/control"
	"thaw/pagestore"
)

// arrivalEvery is how often it is looked what has arrived, and arrivalFirst as long as it is not known what is to come: from then on counts how fast it is.
const (
	arrivalEvery = 500 * time.Millisecond
	arrivalFirst = 50 * time.Millisecond
)

// arrival watches the pages of a snapshot come in, to tell how far that is.
type arrival struct {
	app  *app
	name pagestore.Name
	mode control.PullMode
	// store is the one to look in; nil: the one that the command line names is opened, if that can be done.
	store *pagestore.Store
}

// during calls fn, and tells meanwhile.
func (v *arrival) during(fn func() error) error {
	if v.app.quiet || v.app.json {
		return fn()
	}
	var watching sync.WaitGroup
	stop := make(chan struct{})
	watching.Go(func() { v.watch(stop) })
	err := fn()
	close(stop)
	watching.Wait()
	return err
}

// watch looks until stop is closed.
func (v *arrival) watch(stop <-chan struct{}) {
	p := cli.NewProgress(v.app.stderr, "bringing "+v.name.String(), false)
	defer p.Done()
	tick := time.NewTicker(arrivalFirst)
	defer tick.Stop()
	look := &looker{arrival: v}
	defer look.close()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		if done, total := look.at(); total > 0 {
			p.Set(done, total)
			tick.Reset(arrivalEvery)
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
