package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"thaw/control"
)

func topExample(second int, pages, fromNode, fromStore uint64) *shownTop {
	begun := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	class := func(bytes uint64) control.TierClass { return control.TierClass{Requests: 3, Bytes: bytes} }
	lying := begun.Add(time.Hour)
	return &shownTop{
		Time:   begun.Add(time.Duration(second) * time.Second),
		Health: &control.Health{Status: control.HealthOK, Version: "1.0", PID: 12, Store: "/s", Started: begun, Sessions: 1},
		Sessions: []control.Session{
			{ID: "old", Snapshot: "web", State: control.StateComplete, Created: begun, Ended: &begun},
			{
				ID: "new", Snapshot: "web", State: control.StateServing, Created: begun,
				Progress: control.Progress{PagesDone: pages, PagesTotal: 1024},
				Tiers: &control.SessionTiers{
					StoredPages: 1000, LocalPages: 500, Peer: control.TierCount{Bytes: fromNode}, ObjectStore: control.TierCount{Bytes: fromStore},
				},
			},
		},
		Tiers: &control.Tiers{
			Node: "a", ObjectStore: "s3://b",
			Made:    &control.TierMade{Prepared: 3, Waiting: 1, LeftOut: 2, Bytes: 5 << 20, Limit: 1 << 30, Failed: 1, LastError: "no space"},
			Members: []control.TierMember{{Node: "a"}, {Node: "b"}, {Node: "c", Down: true}},
			Sources: []control.TierSource{
				{Source: "s3://b", Tier: control.TierObjectStore, Classes: map[string]control.TierClass{"demand": class(fromStore)}, Lies: 2, SetAside: &lying},
				{Source: "node b", Tier: control.TierPeer, Typical: 0.002, Slow: 0.01, Classes: map[string]control.TierClass{
					"hot": class(fromNode), "demand": {Requests: 4, Hedges: 2, HedgesWon: 1, Errors: map[string]uint64{"busy": 1, "other": 0}},
				}},
			},
		},
	}
}

func TestTopShowsRatesPlacesAndSessions(t *testing.T) {
	v := &topView{before: topExample(10, 256, 1<<20, 0), now: topExample(12, 512, 5<<20, 1<<20)}
	want := `thawd 1.0, process 12, ok for 12s; 1 sessions run; /s
node a sees 1 peers, and not c; object store s3://b
came from elsewhere and is kept: 0 B, no bound; waited for: 0 frames
served to peers: 0 B in 0 requests, 0 B/s now; 0 refused
prepared for peers: 3 snapshots, 1 wait, 2 left out; 5.0 MiB of 1.0 GiB; 1 tries failed: no space

PLACE   CAME     RATE       DEMAND   AHEAD  HOT      REQUESTS  FIRST FRAME       HEDGES WON  ERRORS  
node b  5.0 MiB  2.0 MiB/s  0 B      0 B    5.0 MiB  7         2 ms, 95 % 10 ms  1 of 2      1 busy  
s3://b  1.0 MiB  512 KiB/s  1.0 MiB  0 B    0 B      3         not known                             LIES: 2 times wrong bytes; not asked until TIME

SESSION  SNAPSHOT  STATE     AGE  MEMORY              RATE       FAULTS  WAITED  WAS HERE  PEERS    OBJECT STORE  ERROR
new      web       serving   12s  2.0 MiB of 4.0 MiB  512 KiB/s  0       0 us    50 %      5.0 MiB  1.0 MiB       
old      web       complete  0s   0 B of 0 B                     0       0 us    all                              
`
	want = strings.ReplaceAll(want, "TIME", when(time.Date(2026, 11, 26, 13, 0, 0, 0, time.UTC)))
	var got bytes.Buffer
	v.write(&got)
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("top (-want +got):\n%s", diff)
	}
}

func TestTopShowsNoRatesAtFirstNorOfAnotherThawd(t *testing.T) {
	for name, v := range map[string]*topView{
		"at first":      {now: topExample(1, 1, 1, 1)},
		"another thawd": {before: topExample(1, 9, 9<<20, 9<<20), now: topExample(2, 1, 1, 1)},
	} {
		var got bytes.Buffer
		v.write(&got)
		for line := range strings.Lines(got.String()) {
			if strings.Contains(line, "/s ") && !strings.HasPrefix(line, "served") && !strings.HasPrefix(line, "thawd") {
				t.Errorf("%s: %s", name, line)
			}
		}
	}
}

func TestAFrameStaysInsideOfTheScreenAndSteersNoTerminal(t *testing.T) {
	var got bytes.Buffer
	frame(&got, []string{"ab\x1b[2Jcd", "é€ü1234567", "third", "fourth"}, 6, 3)
	want := screenHome + "ab [2J" + lineEnd + "é€ü123" + lineEnd + "third" + screenRest
	if got.String() != want {
		t.Errorf("frame = %q, want %q", got.String(), want)
	}
}

func TestTopOffATerminalWritesOneObjectAfterTheOther(t *testing.T) {
	p := newPlace(t)
	p.fill(t, "web")
	p.serve(t)
	cmd := p.command("thaw", "top", "--json", "--every", "100ms")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for dec, i := json.NewDecoder(out), 0; i < 3; i++ {
		var v shownTop
		if err := dec.Decode(&v); err != nil || v.Health == nil || v.Tiers != nil {
			t.Errorf("top wrote %+v: %v", v, err)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("interrupted it ended with %v", err)
	}
}

func TestTopOnATerminalDrawsOverItselfAndLeavesTheScreenAsItWas(t *testing.T) {
	p := newPlace(t)
	p.fill(t, "web")
	s := p.serve(t)
	screen, terminal := openTerminal(t)
	cmd := p.command("thaw", "top", "--every", "100ms")
	cmd.Stdout = terminal
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill() // if the test ends early
	terminal.Close()
	var seen strings.Builder
	read := func(what string) {
		t.Helper()
		buf := make([]byte, 4096)
		for !strings.Contains(seen.String(), what) {
			n, err := screen.Read(buf)
			if err != nil {
				t.Fatalf("the terminal got %q, and never %q: %v", seen.String(), what, err)
			}
			seen.Write(buf[:n])
		}
	}
	read("thawd devel")
	if !strings.HasPrefix(seen.String(), screenBegin+screenHome) {
		t.Errorf("it begins with %q", seen.String())
	}
	seen.Reset()
	read("thawd devel")
	if text := seen.String(); strings.Contains(text, "\x1b[2J") || strings.Contains(text, screenBegin) {
		t.Errorf("the next picture clears the screen: %q", text)
	}
	s.end(t, syscall.SIGTERM)
	read("no thawd listens") // it waits for another one
	seen.Reset()
	p.serve(t)
	read("thawd devel")
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	read(screenEnd)
	if err := cmd.Wait(); err != nil {
		t.Errorf("interrupted it ended with %v", err)
	}
}

// openTerminal returns both ends of a new terminal of 100 columns and 10 lines.
func openTerminal(t *testing.T) (screen, terminal *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("needs pseudo-terminals: mount devpts: %v", err)
	}
	t.Cleanup(func() { screen.Close() })
	number, err := unix.IoctlGetInt(int(screen.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 10, Col: 100})
	}
	if err != nil {
		t.Fatal(err)
	}
	return screen, terminal
}
