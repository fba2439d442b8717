package registry

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"thaw/cpu"
	"thaw/function/version"
)

var rewrite = flag.Bool("rewrite", false, "write the files in testdata instead of comparing them")

func goldenStats(tb testing.TB) *Stats {
	tb.Helper()
	v := versionOf(tb, "demo", source(text1))
	s := &Stats{Snapshots: []Snapshot{snapshotOf(v, "fn/demo-1"), snapshotOf(v, "fn/demo-2")}}
	s.AddCold("Embedder", 14*time.Second)
	s.Snapshots[0].CameUp(created.Add(time.Minute), 500*time.Millisecond)
	s.Snapshots[1].Template = "fn/template"
	for range 3 {
		s.Snapshots[1].Failed(created.Add(time.Hour), "after_restore: ValueError: no such host", 3)
	}
	return s
}

// TestFilesLookAsEver holds the formats still.
func TestFilesLookAsEver(t *testing.T) {
	rec := &Record{Version: versionOf(t, "demo", source(text1)), Deployed: created, Before: version.Key{1, 2, 3}}
	for name, tt := range map[string]struct {
		content checker
		empty   checker
	}{
		"version.json": {rec, new(Record)},
		"stats.json":   {goldenStats(t), new(Stats)},
	} {
		got, err := encode(tt.content)
		if err != nil {
			t.Fatal(err)
		}
		golden := filepath.Join("testdata", name)
		if *rewrite {
			if err := os.WriteFile(golden, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if err := readFile(golden, tt.empty); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		again, err := encode(tt.empty)
		if err != nil || string(again) != string(want) {
			t.Errorf("%s is written another way when it was read: %v\n%s", name, err, again)
		}
	}
}

func FuzzFiles(f *testing.F) {
	for _, name := range []string{"version.json", "stats.json"} {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
		var env envelope
		if err := json.Unmarshal(text, &env); err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(env.Content))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, empty := range []func() checker{func() checker { return new(Record) }, func() checker { return new(Stats) }} {
			c := empty()
			if err := decode(text, c); err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
				t.Errorf("error is of no kind: %v", err)
			}
			// Without the digest, which no fuzzer finds.
			c = empty()
			if strictUnmarshal(text, c) != nil || c.check() != nil {
				continue
			}
			again, err := encode(c)
			if err != nil {
				t.Fatal(err)
			}
			if err := decode(again, empty()); err != nil {
				t.Errorf("%s: %v", again, err)
			}
		}
	})
}

func TestASnapshotThatFailsTooOftenIsSetAside(t *testing.T) {
	s := &Snapshot{State: StateGood}
	s.Failed(created, "first", 3)
	s.Failed(created, "second", 3)
	s.CameUp(created, time.Second)
	if s.FailuresInRow != 2 {
		t.Errorf("one that only came up ends the row: %+v", s)
	}
	s.Proven()
	s.Failed(created, "third", 3)
	s.Failed(created, "fourth", 3)
	if s.State != StateGood || s.FailuresInRow != 2 || s.Failures != 4 || s.Uses != 1 {
		t.Errorf("after a restore among failures: %+v", s)
	}
	s.Failed(created, "fifth", 3)
	if s.State != StateSetAside || s.Reason != "fifth" || !s.SetAside.Equal(created) {
		t.Errorf("after three failures in a row: %+v", s)
	}
}

func TestTheBestSnapshotIsOneThatTheHostMayHave(t *testing.T) {
	v2, _ := cpu.Level("x86-64-v2")
	v3, _ := cpu.Level("x86-64-v3")
	v4, _ := cpu.Level("x86-64-v4")
	snap := func(name, object string, set cpu.Set, age time.Duration) Snapshot {
		return Snapshot{Name: name, Kind: KindFunction, Object: object, CPU: set, Created: created.Add(-age), State: StateGood}
	}
	bad := snap("bad", "A", v4, 0)
	bad.State = StateSetAside
	small := snap("parameters", "A", v4, 0)
	small.Parameters = `{"size":1}`
	s := &Stats{Snapshots: []Snapshot{
		snap("v3 old", "A", v3, time.Hour), snap("v3", "A", v3, time.Minute), snap("v4", "A", v4, 2*time.Hour), snap("other", "B", v4, 0), bad, small,
	}}
	for _, tt := range []struct {
		object, parameters string
		host               cpu.Set
		want               string
	}{
		{"A", "", v4, "v4"},
		{"A", "", v3, "v3"},
		{"A", "", v2, ""},
		{"A", `{"size":1}`, v4, "parameters"},
		{"A", `{"size":2}`, v4, ""},
		{"B", "", v3, ""},
		{"C", "", v4, ""},
	} {
		got := ""
		if best := s.Best(tt.object, tt.parameters, tt.host); best != nil {
			got = best.Name
		}
		if got != tt.want {
			t.Errorf("best of %s%s for %s is %q, want %q", tt.object, tt.parameters, tt.host, got, tt.want)
		}
	}
	s.Remove("v4")
	s.Remove("not there")
	if s.Snapshot("v4") != nil || len(s.Snapshots) != 5 {
		t.Errorf("after the removal: %+v", s.Snapshots)
	}
}

func TestTheFactorIsThatOfTheMedians(t *testing.T) {
	s := &Stats{Snapshots: []Snapshot{{Name: "x", Object: "A", State: StateGood}}}
	x := &s.Snapshots[0]
	if _, ok := s.Factor(x); ok {
		t.Error("a factor of nothing")
	}
	for _, d := range []time.Duration{9, 10, 100} {
		s.AddCold("A", d*time.Second)
	}
	if _, ok := s.Factor(x); ok {
		t.Error("a factor without a restored boot")
	}
	for _, d := range []time.Duration{4, 5, 6, 60} {
		x.CameUp(created, d*time.Second)
	}
	if f, ok := s.Factor(x); !ok || f != 2 {
		t.Errorf("factor is %v, %t; want 2", f, ok)
	}
}

func TestOnlyTheLastTimesAreKept(t *testing.T) {
	var times Times
	for i := range 1000 {
		times.Add(time.Duration(i))
	}
	if times.Count != 1000 || len(times.Recent) != keepTimes {
		t.Errorf("%d of %d are kept", len(times.Recent), times.Count)
	}
	if m, ok := times.Median(); !ok || m != 1000-1-keepTimes/2 {
		t.Errorf("median is %d", m)
	}
	if _, ok := (*Times)(nil).Median(); ok {
		t.Error("nothing has a median")
	}
}
