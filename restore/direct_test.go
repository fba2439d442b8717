//go:build linux

package restore

import "testing"

func TestReaderAsksEpollEveryFewReads(t *testing.T) {
	s, err := NewSession(&Options{Source: newTestSource(1)})
	if err != nil {
		t.Fatal(err)
	}
	a := s.newSpace(Process{Layout: oneRegion(1, 1)})
	d := direct{a: a}
	for range 3 {
		for i := range directReads {
			if d.next() != a {
				t.Fatalf("read %d asks epoll first", i)
			}
		}
		for range 2 {
			if d.next() != nil {
				t.Fatalf("epoll is not asked after %d reads", directReads)
			}
		}
		d.reads = 0
	}
	d.forget(s.newSpace(Process{Layout: oneRegion(1, 1)}))
	if d.next() != a {
		t.Error("the end of another process counts")
	}
	d.forget(a)
	if d.next() != nil {
		t.Error("a process that has ended is read from")
	}
}

// TestMemoryThatOthersFillIsNotReadUnasked: a read in vain would take the lock from them.
func TestMemoryThatOthersFillIsNotReadUnasked(t *testing.T) {
	for name, change := range map[string]func(s *Session){
		"it is streamed":           func(s *Session) { s.own.streamed = true },
		"a fault waits for a disk": func(s *Session) { s.own.loading.Add(1) },
	} {
		s, err := NewSession(&Options{Source: newTestSource(1)})
		if err != nil {
			t.Fatal(err)
		}
		d := direct{a: s.newSpace(Process{Layout: oneRegion(1, 1)})}
		change(s)
		if d.next() != nil {
			t.Errorf("%s: read without asking epoll", name)
		}
	}
}

// TestSpinningReaderSeesAllProcesses: one that faults all the time must not hide those that do so now and then, nor the end of it.
func TestSpinningReaderSeesAllProcesses(t *testing.T) {
	server := startServer(t, ServerOptions{Readers: 1, Wait: WaitSpin})
	l := oneRegion(3000, 3000)
	busy := begin(t, l, newTestSource(3000), Options{Server: server, Stream: StreamNone})
	other := begin(t, l, newTestSource(3000), Options{Server: server, Stream: StreamNone})
	busy.Registered()
	other.Registered()
	sums := busy.target.Sums(at(0, 3000))
	for i := range uint64(50) {
		expect(t, other.target, at(i*60, 1), original(l, other.source))
	}
	sums.Must()
	other.target.Exit(0).Must()
	if err := other.wait(); err != nil {
		t.Errorf("Run() = %v", err)
	}
}
