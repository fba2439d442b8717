package tracer

import (
	"context"
	"errors"
	"fmt"
	"io"

	"thaw/restore/tracer/trace"
)

// A recording is what Collect needs of a Recorder or a Client.
type recording interface {
	Info() Info
	Next([]trace.Event) (int, error)
	Stop()
	Ending() trace.Ending
}

// Collect takes the events of a recording, a *Recorder or a *Client, to its end, and makes a trace of them. When ctx ends
// the recording is stopped; that is no error. If the recorder fails, what it found until then is returned together with
// the error, and the trace says that it broke off.
//
// cgroup is the one that is recorded, for the trace to say. regions tells what a process has mapped, and is asked when a
// touch is in no region that is known; nil: regions are left out. [Mappings] asks the kernel.
func Collect(ctx context.Context, r recording, cgroup string, regions func(pid uint32) ([]trace.Region, error)) (*trace.Trace, error) {
	info := r.Info()
	c := &collector{Builder: trace.NewBuilder(info.Point, info.Started, cgroup), regions: regions, current: make(map[uint32]uint32)}
	for _, p := range info.Chosen {
		c.Choose(p.Space, p.PID)
		c.current[p.PID] = p.Space
		c.ask(p.PID)
	}
	defer context.AfterFunc(ctx, r.Stop)()
	events := make([]trace.Event, maxEvents)
	for {
		n, err := r.Next(events)
		if errors.Is(err, io.EOF) {
			return c.Finish(r.Ending()), nil
		}
		if err != nil {
			return c.Finish(trace.Ending{End: trace.EndBroken}), fmt.Errorf("record touches: %w", err)
		}
		c.take(events[:n])
	}
}

// A collector is a Builder that asks for regions.
type collector struct {
	*trace.Builder
	regions func(pid uint32) ([]trace.Region, error)
	current map[uint32]uint32 // the space that a process has now, by pid
}

func (c *collector) take(events []trace.Event) {
	unknown := make(map[uint32]struct{}) // processes that are new, or with a touch in no region
	for _, e := range events {
		c.Add(e)
		switch e.Kind {
		case trace.KindExit:
			delete(c.current, e.PID)
		case trace.KindChosen:
			c.current[e.PID] = e.Space
			unknown[e.PID] = struct{}{}
		case trace.KindTouch:
			if c.current[e.PID] == e.Space && !c.Mapped(e.Space, e.Addr) {
				unknown[e.PID] = struct{}{}
			}
		default:
			c.current[e.PID] = e.Space
		}
	}
	for pid := range unknown {
		c.ask(pid)
	}
}

// ask notes what a process has mapped. One that has ended, or that may not be looked at, keeps what is known.
func (c *collector) ask(pid uint32) {
	space, lives := c.current[pid]
	if c.regions == nil || !lives {
		return
	}
	if now, err := c.regions(pid); err == nil {
		c.Map(space, now)
	}
}
