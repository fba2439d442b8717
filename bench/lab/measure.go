package lab

import (
	"context"
	"errors"
	"fmt"
	"time"

	"thaw/bench/result"
)

// Run is one measured start. Times are in seconds and begin when the restore, or the cold start, is asked for; the
// request is already written into the container's pipe by then, or is sent by HTTP as soon as the container runs. What a mode does not
// have is left out.
type Run struct {
	Mode  Mode  `json:"mode"`
	Cache Cache `json:"cache"`
	Input Input `json:"input,omitempty"`

	ToRunning       float64  `json:"to_running_s"`
	ToFirstResponse *float64 `json:"to_first_response_s,omitempty"`
	WarmCall        *float64 `json:"warm_call_s,omitempty"` // W: median of the calls made once all memory was there
	// WarmCalls are the calls that W is the median of.
	WarmCalls []float64 `json:"warm_calls_s,omitempty"`

	// ServerStart is the part of ToRunning that passed before the memory server of this restore listened.
	ServerStart *float64 `json:"server_start_s,omitempty"`
	// BytesRead is what the machine read from its disks until the first response.
	BytesRead uint64 `json:"bytes_read"`
	// FaultsServed counts page faults that the memory server resolved until the first response. CRIU's server tells only in
	// a log that slows it down: its number comes from one run apart, whose times are in no report.
	FaultsServed *uint64 `json:"faults_served,omitempty"`
	// Demanded counts pages with content that thawd had to bring because somebody waited for them, until the first response: neither the
	// stream nor a working set had.
	Demanded *uint64 `json:"pages_demanded,omitempty"`
	// MajorFaults and MinorFaults are the kernel's counts for the process until the first response.
	MajorFaults uint64 `json:"major_faults"`
	MinorFaults uint64 `json:"minor_faults"`
	// ServerMemory is the server's own memory in bytes at the first response: RssAnon, so without mapped files.
	ServerMemory *uint64 `json:"server_memory_bytes,omitempty"`
	// Answer is the SHA-256 of the answer's bytes; it is the same in all runs of a frozen container with one input, or there is no run.
	Answer string `json:"answer_sha256,omitempty"`
}

// warmCalls is how often the request is made again for W, once all memory is there.
const warmCalls = 5

// Measure starts the container once, in a mode that was prepared, waits for its first response to an input, makes warm calls with
// the same one, and ends it. An answer that is not the expected one to the last bit is an error.
func (l *Lab) Measure(ctx context.Context, f *Frozen, input Input, name Mode, cache Cache) (Run, error) {
	r := Run{Mode: name, Cache: cache, Input: input}
	m := l.modes[name]
	if m == nil {
		return r, fmt.Errorf("mode %q was not prepared", name)
	}
	return l.measure(ctx, f, m, r)
}

func (l *Lab) measure(ctx context.Context, f *Frozen, m mode, r Run) (_ Run, err error) {
	t, err := l.newTrial(f, r.Input)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	if r.Mode != Floor {
		if err := t.client.ahead(t.request()); err != nil {
			return r, err
		}
	}
	read, err := l.begin(ctx, r.Mode, r.Cache, f)
	if err != nil {
		return r, err
	}

	start := time.Now()
	if err := m.restore(ctx, t); err != nil {
		return r, err
	}
	r.ToRunning = time.Since(start).Seconds()
	if !t.listening.IsZero() {
		r.ServerStart = seconds(t.listening.Sub(start))
	}
	if r.Mode != Floor {
		if err := t.respond(ctx, start, &r); err != nil {
			return r, err
		}
	}
	readNow, err := bytesRead()
	r.BytesRead = readNow - read
	if err != nil || r.Mode == Floor {
		return r, err
	}
	return r, t.warmCalls(ctx, &r)
}

// begin brings page cache and free memory into their state for a start of these containers, and returns how many bytes the machine has
// read from its disks by then.
func (l *Lab) begin(ctx context.Context, mode Mode, cache Cache, frozen ...*Frozen) (uint64, error) {
	if cache == Dropped {
		if err := DropCaches(); err != nil {
			return 0, err
		}
	} else if err := l.read(ctx, frozen, mode); err != nil {
		return 0, err
	}
	if err := OwnMemory(needed(frozen, cache)); err != nil {
		return 0, err
	}
	return bytesRead()
}

// respond waits for the first response and notes what it took.
func (t *trial) respond(ctx context.Context, start time.Time, r *Run) error {
	a, at, err := t.firstAnswer(ctx)
	if err != nil {
		return err
	}
	r.ToFirstResponse = seconds(at.Sub(start))
	f, err := processFaults(t.container.PID)
	if err != nil {
		return err
	}
	r.MinorFaults, r.MajorFaults = f.minor, f.major
	if r.FaultsServed, err = t.server.served(ctx); err != nil {
		return err
	}
	if s, ok := t.server.(*session); ok {
		if r.Demanded, err = s.demanded(ctx); err != nil {
			return err
		}
	}
	if pid := t.server.pid(); pid != 0 {
		memory, err := anonymousMemory(pid)
		if err != nil {
			return err
		}
		if memory > 0 {
			r.ServerMemory = &memory
		}
	}
	r.Answer = a.SHA256
	return a.compare(t.want())
}

// warmCalls waits until the process has all its memory and sets W.
func (t *trial) warmCalls(ctx context.Context, r *Run) error {
	if err := t.server.settle(ctx); err != nil {
		return err
	}
	for range warmCalls {
		a, took, err := t.client.call(ctx, t.request())
		if err == nil {
			err = a.compare(t.want())
		}
		if err != nil {
			return err
		}
		r.WarmCalls = append(r.WarmCalls, took.Seconds())
	}
	w := result.Median(r.WarmCalls)
	r.WarmCall = &w
	return nil
}

func seconds(d time.Duration) *float64 {
	s := d.Seconds()
	return &s
}
