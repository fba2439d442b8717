//go:build linux

package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"thaw/uffd/uffdtest"
)

// startServer starts a server that ends after the sessions that are begun from now on.
func startServer(t *testing.T, o ServerOptions) *Server {
	t.Helper()
	s, err := NewServer(&o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func TestSessionsShareAServer(t *testing.T) {
	for _, o := range []ServerOptions{{Readers: 1, Copies: 1}, {Readers: 3, Wait: WaitSleep}, {Readers: 2, Wait: WaitSpin}} {
		t.Run(fmt.Sprintf("%d readers that %v", o.Readers, o.Wait), func(t *testing.T) {
			server := startServer(t, o)
			l := oneRegion(600, 500)
			var all []*fixture
			for i := range 8 {
				src := newTestSource(500)
				src.cold = i%2 == 1
				f := begin(t, l, src, Options{Server: server, Stream: StreamPolicy(i / 2 % 2)})
				f.Registered()
				all = append(all, f)
			}
			for _, f := range all {
				expect(t, f.target, at(0, 250), original(l, f.source))
			}
			// One that is stopped takes nobody with it.
			all[2].cancel() // on demand only: it misses pages
			if err := all[2].wait(); !errors.Is(err, ErrKilled) {
				t.Errorf("stopped session: %v, want ErrKilled", err)
			}
			for i, f := range all {
				if i == 2 {
					continue
				}
				expect(t, f.target, at(250, 350), original(l, f.source))
				if f.opts.Stream == StreamNone {
					f.target.Exit(0).Must()
				}
				if err := f.wait(); err != nil {
					t.Errorf("session %d: %v", i, err)
				}
			}
		})
	}
}

func TestSessionsAreSpreadOverTheReaders(t *testing.T) {
	server := startServer(t, ServerOptions{Readers: 3})
	for range 6 {
		begin(t, oneRegion(10, 10), newTestSource(10), Options{Server: server, Stream: StreamNone})
	}
	total := int64(0)
	for i, r := range server.readers {
		n := r.load.Load()
		total += n
		if n == 0 {
			t.Errorf("reader %d has no session", i)
		}
	}
	if total > 6 {
		t.Errorf("6 sessions are counted as %d", total)
	}
}

func TestAbortedSessionWithoutAProcessLeavesItsServer(t *testing.T) {
	server := startServer(t, ServerOptions{Readers: 1})
	s, err := NewSession(&Options{Source: newTestSource(1), Server: server})
	if err != nil {
		t.Fatal(err)
	}
	reason := errors.New("never came")
	s.Abort(reason)
	if err := s.Run(t.Context()); !errors.Is(err, ErrAborted) || !errors.Is(err, reason) {
		t.Errorf("Run() = %v", err)
	}
	if n := server.readers[0].load.Load(); n != 0 {
		t.Errorf("the reader still has %d sessions", n)
	}
}

// TestSessionWithoutAServerTakesNoProcesses: nobody would own their descriptors.
func TestSessionWithoutAServerTakesNoProcesses(t *testing.T) {
	s, err := NewSession(&Options{Source: newTestSource(1)})
	if err != nil {
		t.Fatal(err)
	}
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	err = s.Run(t.Context())
	if rerr := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); rerr != nil {
		t.Fatal(rerr)
	}
	if !errors.Is(err, unix.EMFILE) {
		t.Fatalf("Run() without descriptors = %v, want EMFILE", err)
	}
	target := uffdtest.Start(t)
	fd := target.Open(uffdtest.CRIUFeatures).Must()
	if err := s.Add(Process{ID: 1, FD: fd, Layout: oneRegion(1, 1)}); !errors.Is(err, ErrEnded) {
		t.Errorf("Add() after that = %v, want ErrEnded", err)
	}
}

// TestReaderThatDoesNotStreamHoldsNoChunk: a chunk that it kept would never be finished, and neither would its session.
func TestReaderThatDoesNotStreamHoldsNoChunk(t *testing.T) {
	now := time.Now()
	for name, change := range map[string]func(r *reader, s, other *Session){
		"no session had the last fault":     func(r *reader, s, other *Session) { r.hot = nil },
		"another session had it":            func(r *reader, s, other *Session) { r.hot = other },
		"a fault is to be tried again":      func(r *reader, s, other *Session) { r.parked = []fault{{}} },
		"the last fault was long ago":       func(r *reader, s, other *Session) { r.server.lastFault.Store(now.Add(-time.Hour).UnixNano()) },
		"what there is is not at hand":      func(r *reader, s, other *Session) { r.noStream = now.Add(time.Hour) },
		"what is left of it is not at hand": func(r *reader, s, other *Session) { s.opts.Source.(*testSource).cold = true },
	} {
		t.Run(name, func(t *testing.T) {
			newSession := func() *Session {
				s, err := NewSession(&Options{Source: newTestSource(20)})
				if err != nil {
					t.Fatal(err)
				}
				s.Registered()
				s.own.streamed = true
				return s
			}
			s, other := newSession(), newSession()
			r := newReader(&Server{}, nil)
			r.server.lastFault.Store(now.UnixNano())
			a := s.newSpace(Process{Layout: oneRegion(20, 20)})
			i, _ := a.stream.take()
			r.hot, r.job = s, job{a: a, i: i, rest: a.stream.chunks[i]}
			change(r, s, other)
			if r.stream(now) {
				t.Error("something was copied")
			}
			if r.job.a != nil || len(s.returned) != 1 {
				t.Errorf("the reader holds a chunk of %d pages; %d are given back", r.job.rest.pages, len(s.returned))
			}
		})
	}
}

// TestForkWaitsForADescriptor: the message of a fork that could not be delivered stays queued. In the kernel's answer to one reading it
// looks like the end of the queue if there were faults before it.
func TestForkWaitsForADescriptor(t *testing.T) {
	src := newTestSource(300)
	told := make(chan struct{}, 1)
	l := oneRegion(300, 300)
	server := startServer(t, ServerOptions{Readers: 1, Wait: WaitSleep}) // one that is awake reads again at once
	f := begin(t, l, src, Options{Server: server, Stream: StreamNone, Logger: slog.New(toldOf{"no descriptor for a forked child; its parent waits", told})})
	f.Registered()
	expect(t, f.target, at(0, 1), original(l, src))

	// The reader is held at the first fault, so the second one and the fork queue up.
	src.mu.Lock()
	first := f.target.Sums(at(100, 1))
	queued(t, f.target.PID(), 1)
	second, fork := f.target.Sums(at(200, 1)), f.target.Fork()
	queued(t, f.target.PID(), 3)
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	src.mu.Unlock()
	<-told
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	first.Must()
	second.Must()
	child := fork.Must()
	expect(t, child, at(0, 300), original(l, src))
	child.Kill()
}

// TestAnotherMoveOntoARangeThatMemoryHasLeft: the kernel says that the range was unmapped after the other move, and means what was there before.
func TestAnotherMoveOntoARangeThatMemoryHasLeft(t *testing.T) {
	src := newTestSource(300)
	l := oneRegion(300, 300)
	f := begin(t, l, src, Options{Server: startServer(t, ServerOptions{Readers: 1}), Stream: StreamNone})
	f.Registered()

	// The reader is held at a fault, so both moves are told of before the end of either.
	src.mu.Lock()
	first := f.target.Sums(at(100, 1))
	queued(t, f.target.PID(), 1)
	const fixed = unix.MREMAP_MAYMOVE | unix.MREMAP_FIXED
	away := f.target.Mremap(at(200, 10), 10*pg, fixed, at(400, 0).Start)
	queued(t, f.target.PID(), 2)
	there := f.target.Mremap(at(50, 10), 10*pg, fixed, at(200, 0).Start)
	queued(t, f.target.PID(), 3)
	src.mu.Unlock()
	first.Must()
	away.Must()
	there.Must()

	was := original(l, src)
	expect(t, f.target, at(200, 10), func(addr uint64) []byte { return was(addr - 150*pg) })
	expect(t, f.target, at(400, 10), func(addr uint64) []byte { return was(addr - 200*pg) })
	expect(t, f.target, at(210, 90), was)
}

// queued waits until so many threads of a process wait for their userfaultfd.
func queued(t *testing.T, pid, threads int) {
	t.Helper()
	await(t, fmt.Sprintf("%d threads wait for their userfaultfd", threads), func() bool { return waiting(t, pid) == threads })
}

// waiting returns how many threads of a process wait for their userfaultfd.
func waiting(t *testing.T, pid int) (threads int) {
	t.Helper()
	channels, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/wchan", pid))
	if err != nil || len(channels) == 0 {
		t.Fatalf("process %d has no threads: %v", pid, err)
	}
	for _, name := range channels {
		if where, err := os.ReadFile(name); err == nil && bytes.Contains(where, []byte("userfault")) {
			threads++
		}
	}
	return threads
}

// toldOf is a log that says when a message comes.
type toldOf struct {
	message string
	told    chan<- struct{}
}

func (h toldOf) Handle(_ context.Context, r slog.Record) error {
	if r.Message == h.message {
		select {
		case h.told <- struct{}{}:
		default:
		}
	}
	return nil
}

func (toldOf) Enabled(context.Context, slog.Level) bool { return true }
func (h toldOf) WithAttrs([]slog.Attr) slog.Handler     { return h }
func (h toldOf) WithGroup(string) slog.Handler          { return h }
