package main

import (
	"os"
	"testing"

	"thaw/internal/testenv"
	"thaw/restore/tracer"
	"thaw/restore/tracer/trace"
)

func TestThawdIsItsOwnTracer(t *testing.T) {
	testenv.NeedTracing(t)
	c, err := tracer.Start(t.Context(), tracer.Target{Later: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Choose(t.Context(), os.Getpid()); err != nil {
		t.Fatal(err)
	}
	c.Stop()
	tr, err := tracer.Collect(t.Context(), c, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if pids := tr.Chosen(); tr.End != trace.EndStopped || len(pids) != 1 || pids[0] != uint32(os.Getpid()) {
		t.Errorf("the trace is %v, of %d", tr.End, pids)
	}
}
