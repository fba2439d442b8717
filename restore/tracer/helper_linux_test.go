package tracer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"thaw/internal/testenv"
	"thaw/restore/tracer/trace"
	"thaw/uffd/uffdtest"
)

func startHelper(t *testing.T, target Target, opts *Options) *Client {
	t.Helper()
	testenv.NeedTracing(t)
	c, err := Start(t.Context(), target, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// status returns a line of /proc/PID/status.
func status(t *testing.T, pid int, key string) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("no %s in the status of %d", key, pid)
	return ""
}

func TestHelperHasTheTwoPrivilegesThatItNeeds(t *testing.T) {
	target := uffdtest.Start(t)
	c := startHelper(t, Target{PIDs: []int{target.PID()}}, nil)
	want := fmt.Sprintf("%016x", uint64(1)<<unix.CAP_BPF|1<<unix.CAP_PERFMON)
	for _, set := range []string{"CapPrm", "CapEff", "CapBnd"} {
		if got := status(t, c.PID(), set); got != want {
			t.Errorf("%s is %s, want %s", set, got, want)
		}
	}
	if got := status(t, c.PID(), "NoNewPrivs"); got != "1" {
		t.Errorf("NoNewPrivs is %s", got)
	}
}

func TestHelperWithoutPrivilegesSaysWhatToGrant(t *testing.T) {
	testenv.NeedTracing(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		t.Skipf("needs setpriv: apt-get install util-linux: %v", err)
	}
	target := uffdtest.Start(t)
	for name, drop := range map[string]string{"none": "-all", "without CAP_BPF": "-bpf,-sys_admin", "without CAP_PERFMON": "-perfmon,-sys_admin"} {
		t.Run(name, func(t *testing.T) {
			command := []string{setpriv, "--bounding-set=" + drop, "--inh-caps=-all", self, helperCommand}
			c, err := Start(t.Context(), Target{PIDs: []int{target.PID()}}, &Options{Command: command})
			if err == nil {
				c.Close()
			}
			if !errors.Is(err, ErrNotPermitted) || !strings.Contains(err.Error(), "CAP_BPF and CAP_PERFMON") {
				t.Errorf("Start returns %v", err)
			}
		})
	}
}

func TestHelperThatIsKilledEndsTheRecording(t *testing.T) {
	target := uffdtest.Start(t)
	target.Map(pagesAt(0, 1)).Must()
	c := startHelper(t, Target{PIDs: []int{target.PID()}}, nil)
	if err := syscall.Kill(c.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	tr, err := Collect(t.Context(), c, "", nil)
	if !errors.Is(err, ErrGone) {
		t.Errorf("Collect returns %v", err)
	}
	if tr == nil || tr.Complete() || tr.End != trace.EndBroken {
		t.Errorf("the trace is %+v", tr)
	}
}

func TestHelperThatIsNoneIsGone(t *testing.T) {
	for name, command := range map[string][]string{
		"it ends":        {"/bin/true"},
		"it is mute":     {"/bin/sleep", "1000"},
		"it is not here": {"/nonexistent/tracer"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			c, err := Start(ctx, Target{PIDs: []int{os.Getpid()}}, &Options{Command: command})
			if err == nil {
				c.Close()
				t.Error("Start succeeds")
			}
		})
	}
}

func TestHelperEndsWithItsClient(t *testing.T) {
	target := uffdtest.Start(t)
	c := startHelper(t, Target{PIDs: []int{target.PID()}}, nil)
	c.conn.Close()
	<-c.done // not killed: it notices
	if c.exited != nil {
		t.Errorf("the helper ended with %v", c.exited)
	}
}

func TestEndOfTheContextStopsTheRecording(t *testing.T) {
	target := uffdtest.Start(t)
	c := startHelper(t, Target{PIDs: []int{target.PID()}}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	tr, err := Collect(ctx, c, "", nil)
	if err != nil || tr.End != trace.EndStopped {
		t.Errorf("Collect returns %+v, %v", tr, err)
	}
}

// pair returns two connected sockets of packets.
func pair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if a, err = connOf(fds[0]); err != nil {
		t.Fatal(err)
	}
	if b, err = connOf(fds[1]); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		a.Close()
		b.Close()
	})
	return a, b
}

func TestHelperRefusesWhatMakesNoSense(t *testing.T) {
	for name, packets := range map[string][][]byte{
		"nothing":                   nil,
		"another version":           {{9, byte(kindStart), 0, 0}},
		"no start":                  {packet(kindStop)},
		"a start that is too short": {packet(kindStart)},
		"a cgroup that is none":     {startBody{1, 1, true, nil}.append(packet(kindStart)), packet(kindStop)},
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := pair(t)
			_, events := pair(t)
			for _, p := range packets {
				if _, err := ours.Write(p); err != nil {
					t.Fatal(err)
				}
			}
			ours.CloseWrite()
			if err := (&helper{theirs, events}).serve(); err == nil {
				t.Error("it served")
			}
		})
	}
}

func TestClientRefusesWhatMakesNoSense(t *testing.T) {
	event := appendEvent(nil, trace.Event{Kind: trace.KindTouch, Space: 1})
	for name, packet := range map[string][]byte{
		"another version":          {9, byte(kindEvents), 0, 0},
		"an unknown kind":          {version, 99, 0, 0},
		"half an event":            append(packet(kindEvents), event[:10]...),
		"no event":                 packet(kindEvents),
		"an event of no kind":      append(packet(kindEvents), make([]byte, eventSize)...),
		"an end that is too short": packet(kindEnded),
		"an end of no kind":        append(packet(kindEnded), make([]byte, 28)...),
		"a refusal without reason": packet(kindRefused),
		"another greeting":         packet(kindHello),
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := pair(t)
			c := &Client{stream: ours, buf: make([]byte, maxMessage+1)}
			if _, err := theirs.Write(packet); err != nil {
				t.Fatal(err)
			}
			if n, err := c.Next(make([]trace.Event, 4)); err == nil || errors.Is(err, io.EOF) {
				t.Errorf("Next returns %d, %v", n, err)
			}
		})
	}
}
