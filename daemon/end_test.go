package daemon

import (
	"bytes"
	"errors"
	"testing"

	"thaw/control"
)

func TestDrainFinishesWhatRunsAndCancelsWhatWaits(t *testing.T) {
	const n = 300
	d := start(t, newStore(t, n), nil)
	waiting := d.create(t, control.SessionRequest{Snapshot: "web"})
	serving := d.create(t, control.SessionRequest{Snapshot: "web", Stream: control.StreamNone})
	r := connect(t, serving, n)
	r.finish()
	r.target.Read(pages(0, 1)).Must()

	d.Drain()
	d.Drain() // again, to no effect
	_, err := d.Create(t.Context(), &control.SessionRequest{Snapshot: "web"})
	mustCode(t, err, control.CodeDraining)
	if h := d.Health(); h.Status != control.HealthDraining {
		t.Errorf("Health says %s", h.Status)
	}
	if err := d.wait(); err != nil {
		t.Fatalf("Run: %v", err)
	}
	if end := d.ended(t, waiting.ID); end.State != control.StateCancelled {
		t.Errorf("the session that waited ended as %s: %s", end.State, end.Error)
	}
	if end := d.ended(t, serving.ID); end.State != control.StateComplete || end.Progress.PagesDone != n {
		t.Errorf("the session that served ended as %s with %+v: %s", end.State, end.Progress, end.Error)
	}
	// Nobody serves any more: what is not there now would read as zero.
	if got := r.target.Read(pages(0, n)).Must(); !bytes.Equal(got, want(t, 0, n)) {
		t.Error("the process reads other bytes than were frozen")
	}
}

func TestDrainOfAnIdleDaemonEndsIt(t *testing.T) {
	d := start(t, newStore(t, 1), nil)
	d.Drain()
	if err := d.wait(); err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestStoppingKillsProcessesThatWouldLoseMemory(t *testing.T) {
	const n = 300
	d := start(t, newStore(t, n), nil)
	s := d.create(t, control.SessionRequest{Snapshot: "web", Stream: control.StreamNone})
	r := connect(t, s, n)
	r.finish()
	r.target.Read(pages(0, 1)).Must()
	if got := d.Dependents(); got != 1 {
		t.Errorf("Dependents = %d, want the one process", got)
	}

	d.stop(errors.New("told twice"))
	if err := d.wait(); !errors.Is(err, ErrStopped) {
		t.Errorf("Run: %v, want ErrStopped", err)
	}
	mustEnd(t, r.target)
	if end := d.ended(t, s.ID); end.State != control.StateFailed || !bytes.Contains([]byte(end.Error), []byte("told twice")) {
		t.Errorf("the session ended as %s: %q, want failed with the reason", end.State, end.Error)
	}
}

func TestStoppingAnIdleDaemonIsNoFailure(t *testing.T) {
	d := start(t, newStore(t, 1), nil)
	s := d.create(t, control.SessionRequest{Snapshot: "web"})
	d.stop(errors.New("told twice"))
	if err := d.wait(); err != nil {
		t.Errorf("Run: %v, want nil: nobody depended on it", err)
	}
	d.ended(t, s.ID)
	_, err := d.Create(t.Context(), &control.SessionRequest{Snapshot: "web"})
	mustCode(t, err, control.CodeDraining)
}
