package daemon

import (
	"context"
	"errors"
	"testing"
	"time"

	"thaw/control"
	"thaw/internal/testenv"
	"thaw/pagestore"
	"thaw/uffd"
)

// listener is a Remote without a place, that is told of restores.
type listener struct {
	Remote
	begun, over chan struct{}
}

func newListener() *listener {
	return &listener{begun: make(chan struct{}, 8), over: make(chan struct{}, 8)}
}

func (l *listener) Pull(context.Context, pagestore.Name, control.PullMode) (*control.PullReport, error) {
	return nil, pagestore.ErrNotFound
}

func (l *listener) Restoring() func() {
	l.begun <- struct{}{}
	return func() { l.over <- struct{}{} }
}

// mustHear fails the test unless something is told.
func mustHear(t *testing.T, what string, c chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatalf("nothing is told of %s", what)
	}
}

func TestTheRemoteIsToldOfRestores(t *testing.T) {
	testenv.NeedUserfaultfd(t, uffd.FeaturePoison)
	const n = 8
	l := newListener()
	d := start(t, newStore(t, n), &Options{Remote: l})

	if _, err := d.Create(t.Context(), &control.SessionRequest{Snapshot: "nosuch"}); err == nil {
		t.Fatal("there is a session of a snapshot that nobody has")
	}
	mustHear(t, "the beginning", l.begun)
	mustHear(t, "the end of one that never began", l.over)

	s := d.create(t, control.SessionRequest{Snapshot: "web"})
	mustHear(t, "the beginning", l.begun)
	r := connect(t, s, n)
	if len(l.over) > 0 {
		t.Error("it is over before the process runs")
	}
	r.finish()
	d.ended(t, s.ID)
	mustHear(t, "the end", l.over)

	// Of one that goes on for as long as the process lives it is over when that runs.
	s = d.create(t, control.SessionRequest{Snapshot: "web", Stream: control.StreamNone})
	mustHear(t, "the beginning", l.begun)
	r = connect(t, s, n)
	r.finish()
	mustHear(t, "the end", l.over)
	if info, err := d.Session(s.ID); err != nil || info.State != control.StateServing {
		t.Errorf("the session is %+v, %v", info, err)
	}
	r.target.Kill()
	if end := d.ended(t, s.ID); end.State == control.StateCancelled {
		t.Errorf("the session ended as %+v", end)
	}

	s = d.create(t, control.SessionRequest{Snapshot: "web"})
	mustHear(t, "the beginning", l.begun)
	if err := d.Delete(t.Context(), s.ID); err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	mustHear(t, "the end of one that was taken back", l.over)
}
