package tracer

import (
	"fmt"
	"math"
	"time"

	"thaw/restore/tracer/trace"
)

// A Target is what is recorded: processes, or a cgroup.
type Target struct {
	// PIDs are processes, with those that they will fork. At most 1024.
	PIDs []int
	// Later allows PIDs to be empty: no process is recorded before one is chosen while the recording runs.
	Later bool
	// Cgroup is the folder of a cgroup of version 2. All processes in it, or in one below it, are recorded from their first
	// fault on, with those that they will fork.
	Cgroup string
}

// maxPIDs bounds how many processes are named at a time: so many fit into one message.
const maxPIDs = 1024

func (t *Target) check() error {
	switch {
	case t.Cgroup == "" && len(t.PIDs) == 0 && !t.Later:
		return fmt.Errorf("%w: neither a process nor a cgroup is named", ErrTarget)
	case t.Cgroup != "" && (len(t.PIDs) > 0 || t.Later):
		return fmt.Errorf("%w: both processes and a cgroup are named", ErrTarget)
	}
	return checkPIDs(t.PIDs)
}

func checkPIDs(pids []int) error {
	if len(pids) > maxPIDs {
		return fmt.Errorf("%w: %d processes, at most %d can be named", ErrTarget, len(pids), maxPIDs)
	}
	for _, pid := range pids {
		if pid <= 0 || pid > math.MaxInt32 {
			return fmt.Errorf("%w: %d is no number of a process", ErrTarget, pid)
		}
	}
	return nil
}

// Options are the settings of a recording.
type Options struct {
	// RingBytes is the size of the buffer between the kernel and us, rounded up to a power of two, at most 1 GiB. A touch
	// takes 40 bytes. Default: 4 MiB, 100,000 touches: those of a few tens of milliseconds when faults come fastest.
	RingBytes int
	// MaxPages is how many pages of all spaces can be told apart, at most 1<<26; touches of more are counted as lost. The
	// kernel sets aside about 72 bytes for each. Default: 1<<20, which is 4 GiB of memory.
	MaxPages int
	// Command is the program that a Client runs, and its arguments. It must call Main. Default: this program, with the
	// argument "tracer".
	Command []string
}

const (
	defaultRing  = 4 << 20
	maxRing      = 1 << 30
	defaultPages = 1 << 20
	maxPages     = 1 << 26
)

// withDefaults returns the options with what is not set filled in, within bounds. o may be nil.
func (o *Options) withDefaults() Options {
	var all Options
	if o != nil {
		all = *o
	}
	if all.RingBytes <= 0 {
		all.RingBytes = defaultRing
	}
	if all.MaxPages <= 0 {
		all.MaxPages = defaultPages
	}
	all.RingBytes, all.MaxPages = min(all.RingBytes, maxRing), min(all.MaxPages, maxPages)
	return all
}

// Info says of a recording what is known at its start.
type Info struct {
	Point   trace.Point
	Refused []Refusal // of better points; only a Recorder and Probe know them
	Started time.Time
	Chosen  []Chosen // the processes that were named for the start; none for a cgroup
}

// Chosen is a process that was named, and its space in the trace.
type Chosen struct {
	Space, PID uint32
}
