package tracer

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"thaw/restore/tracer/trace"
)

func TestMessagesSurviveTheWay(t *testing.T) {
	start := startBody{ringBytes: 1 << 20, maxPages: 7, pids: []uint32{3, 4711}}
	k, body, err := parse(start.append(packet(kindStart)))
	if err != nil || k != kindStart {
		t.Fatalf("kind %d, %v", k, err)
	}
	got, err := parseStart(body)
	if diff := cmp.Diff(start, got, cmp.AllowUnexported(startBody{})); err != nil || diff != "" {
		t.Errorf("%v, (-want +got):\n%s", err, diff)
	}

	group := startBody{ringBytes: 1, maxPages: 2, cgroup: true}
	got, err = parseStart(group.append(nil))
	if diff := cmp.Diff(group, got, cmp.AllowUnexported(startBody{})); err != nil || diff != "" {
		t.Errorf("%v, (-want +got):\n%s", err, diff)
	}

	info := Info{Point: trace.PointKprobe, Started: time.Unix(5, 6), Chosen: []Chosen{{1, 3}, {5, 4711}}}
	gotInfo, err := parseStarted(appendStarted(nil, info))
	if diff := cmp.Diff(info, gotInfo); err != nil || diff != "" {
		t.Errorf("%v, (-want +got):\n%s", err, diff)
	}

	end := trace.Ending{End: trace.EndExited, Length: time.Hour, LostRing: 1, LostSpace: 2}
	gotEnd, err := parseEnded(appendEnded(nil, end))
	if err != nil || gotEnd != end {
		t.Errorf("%+v, %v", gotEnd, err)
	}

	at, err := parseChosen(appendChosen(nil, time.Minute))
	if err != nil || at != time.Minute {
		t.Errorf("%v, %v", at, err)
	}

	for _, want := range []error{ErrNotPermitted, ErrNotSupported, ErrNoProcess, ErrTarget, ErrEnded} {
		if err := parseRefused(appendRefused(nil, want)); !errors.Is(err, want) || err.Error() != want.Error() {
			t.Errorf("%v became %v", want, err)
		}
	}
	if err := parseRefused(appendRefused(nil, errors.New("else"))); err.Error() != "else" || errors.Is(err, ErrTarget) {
		t.Errorf("another error became %v", err)
	}
}

func TestEventsSurviveTheWay(t *testing.T) {
	for _, e := range []trace.Event{
		{Time: 1, Kind: trace.KindTouch, Addr: 0x7fff12345678, Space: 1, PID: 2, TID: 3, Write: true},
		{Time: 1 << 60, Kind: trace.KindTouch, Addr: 1, Space: 1 << 19, Kernel: true},
		{Time: 5, Kind: trace.KindFork, Space: 9, Parent: 8, PID: 1, TID: 1},
		{Time: 5, Kind: trace.KindExit, Space: 9, PID: 1, TID: 1},
		{Time: 5, Kind: trace.KindChosen, Space: 9, PID: 1},
	} {
		b := appendEvent(nil, e)
		got, err := parseEvent(b, 0)
		if diff := cmp.Diff(e, got); err != nil || diff != "" {
			t.Errorf("%v, (-want +got):\n%s", err, diff)
		}
		if early, err := parseEvent(b, e.Time+1); err != nil || early.Time != 0 {
			t.Errorf("an event before the start is at %v, %v", early.Time, err)
		}
		for i, bad := range map[int]byte{28: 0, 29: 4, 30: 1} {
			broken := append([]byte(nil), b...)
			broken[i] = bad
			if _, err := parseEvent(broken, 0); !errors.Is(err, errMalformed) {
				t.Errorf("byte %d as %d: %v", i, bad, err)
			}
		}
	}
}

func TestProcessesAreNamedInOrderAndOnce(t *testing.T) {
	for name, pids := range map[string][]uint32{
		"none of this number": {0}, "twice": {3, 3}, "not in order": {3, 2}, "no pid": {1 << 31}, "too many": make([]uint32, maxPIDs+1),
	} {
		if got, err := parsePIDs(appendPIDs(nil, pids)); !errors.Is(err, errMalformed) {
			t.Errorf("%s: %d, %v", name, got, err)
		}
		if _, err := parseStart(startBody{pids: pids}.append(nil)); !errors.Is(err, errMalformed) {
			t.Errorf("%s, in a start: %v", name, err)
		}
	}
	if _, err := parseStart(startBody{cgroup: true, pids: []uint32{1}}.append(nil)); !errors.Is(err, errMalformed) {
		t.Errorf("a start with a cgroup and a process: %v", err)
	}
}

func FuzzMessage(f *testing.F) {
	f.Add(startBody{1, 2, false, []uint32{3}}.append(packet(kindStart)))
	f.Add(startBody{1, 2, true, nil}.append(packet(kindStart)))
	f.Add(appendStarted(packet(kindStarted), Info{Point: trace.PointFentry, Chosen: []Chosen{{1, 2}}}))
	f.Add(appendPIDs(packet(kindChoose), []uint32{3, 4}))
	f.Add(appendChosen(packet(kindChosen), time.Second))
	f.Add(appendEnded(packet(kindEnded), trace.Ending{End: trace.EndStopped}))
	f.Add(appendRefused(packet(kindRefused), ErrTarget))
	f.Add(appendEvent(packet(kindEvents), trace.Event{Kind: trace.KindJoin, Space: 1}))
	f.Fuzz(func(t *testing.T, b []byte) {
		k, body, err := parse(b)
		if err != nil {
			return
		}
		// Each either returns an error or what writes the same bytes.
		var again []byte
		switch k {
		case kindStart:
			s, err := parseStart(body)
			if err != nil {
				return
			}
			again = s.append(nil)
		case kindStarted:
			i, err := parseStarted(body)
			if err != nil {
				return
			}
			again = appendStarted(nil, i)
		case kindChoose:
			pids, err := parsePIDs(body)
			if err != nil {
				return
			}
			again = appendPIDs(nil, pids)
		case kindChosen:
			at, err := parseChosen(body)
			if err != nil {
				return
			}
			again = appendChosen(nil, at)
		case kindEnded:
			e, err := parseEnded(body)
			if err != nil {
				return
			}
			again = appendEnded(nil, e)
		case kindEvents:
			if _, err := parseEvent(body, 0); err != nil {
				return
			}
			return
		default:
			return
		}
		if string(again) != string(body) {
			t.Errorf("%x became %x", body, again)
		}
	})
}
