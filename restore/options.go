package restore

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"time"

	"thaw/uffd"
)

// A StreamPolicy says what a session does with pages that nobody has asked for.
type StreamPolicy uint8

const (
	// StreamAll installs all pages behind the faults, after which the processes are on their own.
	StreamAll StreamPolicy = iota
	// StreamNone installs only what is touched. The session lasts as long as its processes.
	StreamNone
)

func (p StreamPolicy) String() string {
	switch p {
	case StreamAll:
		return "all"
	case StreamNone:
		return "none"
	}
	return fmt.Sprintf("StreamPolicy(%d)", uint8(p))
}

// ParseStreamPolicy reads what String writes.
func ParseStreamPolicy(s string) (StreamPolicy, error) {
	for _, p := range []StreamPolicy{StreamAll, StreamNone} {
		if s == p.String() {
			return p, nil
		}
	}
	return 0, fmt.Errorf("unknown stream policy %q: want all or none", s)
}

// A FailurePolicy says what becomes of a page whose content cannot be had, or is not what was stored. It is never
// given other content.
type FailurePolicy uint8

const (
	// FailurePoison poisons the page: a thread that touches it gets SIGBUS, the others go on. Where the kernel
	// cannot (before 6.6), the process is killed.
	FailurePoison FailurePolicy = iota
	// FailureHold leaves the threads that touch the page waiting, and tries the source again every second.
	FailureHold
	// FailureKill kills the process.
	FailureKill
)

func (p FailurePolicy) String() string {
	switch p {
	case FailurePoison:
		return "poison"
	case FailureHold:
		return "hold"
	case FailureKill:
		return "kill"
	}
	return fmt.Sprintf("FailurePolicy(%d)", uint8(p))
}

// A Guard keeps a process from reading zeros in place of its memory if the server dies while pages are missing: it
// holds duplicates of the descriptors elsewhere. restore/guard has one.
type Guard interface {
	// Hold duplicates the descriptors; pidfd may be nil, name is for logs. When it has returned the process is safe.
	// release lets go of the duplicates, and is called once, when nothing is missing any more or the process is gone,
	// before the descriptors themselves are closed.
	Hold(fd *uffd.FD, pidfd *os.File, name string) (release func(), err error)
}

// Options are a session's settings. Only Source is required.
type Options struct {
	// Source gives the pages. The session does not close it.
	Source PageSource

	// Server has the threads that serve the session, and is shared with others. Default: one of its own, with one reader.
	Server *Server

	// Stream says whether untouched pages are brought too. Default: StreamAll.
	Stream StreamPolicy

	// Rate bounds the stream, in bytes per second, all workers together; faults are not bounded. Default 0: unbounded.
	Rate uint64

	// Hold bounds how long processes are held, before they run, for the pages that they must have, if they have a preload. Default:
	// DefaultHold. Negative: they are not held.
	Hold time.Duration

	// HoldRate is at what rate, in bytes a second, they must come for the processes to be held on: for Hold once more, each time that so much of
	// them has come in the last. Default 0: when Hold is over it is over.
	HoldRate float64

	// Quiet is how long, from Registered on, only what is touched or preloaded is brought, and the stream waits; longer, for 30 s at most, if what is
	// preloaded is not there then. Default: DefaultQuiet if
	// a process has a preload, else none. Negative: none.
	Quiet time.Duration

	// SinglePages brings only the page itself for a fault, and none around it, so that each page that is touched first is seen to
	// be: for recordings.
	SinglePages bool

	// Workers is the number of stream workers. Default: the number of CPUs, at most 2; one worker copies 2 to
	// 3 GB/s, and two reach what one address space takes (6 to 7 GB/s, 2 cores, kernel 6.18).
	Workers int

	// Failure says what becomes of pages that cannot be had. Default: FailurePoison.
	Failure FailurePolicy

	// Guard, if there is one, holds duplicates of the descriptors of every process, forked children included, as long
	// as it is served.
	Guard Guard

	// Added is called by Add for each process, before any of its faults is read: it may have the processes held. Default: nobody is told.
	Added func(ProcessInfo)

	// Demanded is called for each page with content that is about to be installed because a thread waits for it: its number in the image,
	// and whether it is to be written. It may come more than once for a page, from several goroutines, on the fault path, and must be
	// quick. Default: nobody is told.
	Demanded func(image uint64, write bool)

	// Logger gets a line at the start and the end of each process, and one for each page that failed. Default: none.
	Logger *slog.Logger

	// Metrics counts for all sessions that share it. Default: not counted.
	Metrics *Metrics
}

func (o *Options) setDefaults() error {
	if o.Source == nil {
		return errors.New("a session needs a page source")
	}
	if o.Hold == 0 {
		o.Hold = DefaultHold
	}
	if o.Workers <= 0 {
		o.Workers = min(2, runtime.NumCPU())
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics()
	}
	return nil
}
