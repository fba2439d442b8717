package main

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"thaw/cmd/internal/cli"
	"thaw/restore/tracer/trace"
	"thaw/restore/workingset"
)

// learned writes a working set of the snapshot that has learned from n recordings of a core, a few pages of chance and a file.
func (p *place) learned(t *testing.T, name string, snapshot byte, n int) string {
	t.Helper()
	r := rand.New(rand.NewPCG(uint64(n), 1))
	digest := [32]byte{snapshot}
	set := workingset.NewSet(digest, 10000)
	for range n {
		rec := &workingset.Recording{Digest: digest, ImagePages: 10000, Hidden: []workingset.Run{{Page: 500, Pages: 7}}}
		for page := range uint64(100) {
			at := time.Duration(page) * time.Millisecond
			rec.Image = append(rec.Image, workingset.Touch{Page: page, Time: at, Phase: workingset.Phase(page / 40), Write: page%2 == 0})
		}
		for range 50 {
			rec.Image = append(rec.Image, workingset.Touch{Page: 1000 + r.Uint64N(9000), Time: time.Second})
		}
		rec.Files = []workingset.FileTouches{{Path: "/usr/lib/libc.so.6", Touches: []workingset.Touch{{Page: 3}, {Page: 4}}}}
		if err := set.Add(rec); err != nil {
			t.Fatal(err)
		}
	}
	data, err := set.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	return p.file(t, name, data)
}

func (p *place) file(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// shownJSON is what scripts read of a working set.
type shownJSON struct {
	Kind       string
	Digest     string `json:"snapshot_digest"`
	Recordings int
	Hidden     uint64 `json:"hidden_pages"`
	Image      workingset.Counts
	Times      []struct {
		Until *time.Duration `json:"until_ns"`
		Must  workingset.Count
	}
	Objects []workingset.ObjectCount
}

func TestWorkingSetIsShown(t *testing.T) {
	p := newPlace(t)
	file := p.learned(t, "web.ws", 1, 20)
	var s shownJSON
	p.must(t, &s, "trace", "show", file, "--json")
	if s.Kind != "working set" || !strings.HasPrefix(s.Digest, "0100") || s.Recordings != 20 || s.Hidden != 7 || len(s.Times) < 5 || len(s.Objects) != 2 {
		t.Errorf("show prints %+v", s)
	}
	if m := s.Image.Must; m.Pages != 80 || m.Start != 40 || m.Request != 40 || s.Image.Likely.Later < 20 || s.Image.Tail.Pages < 100 {
		t.Errorf("classes of the image are %+v", s.Image)
	}
	text := p.must(t, nil, "trace", "show", file).stdout
	for _, part := range []string{"0100000000000000", "20 recordings", "28.0 KiB were there before", "must    80", "/usr/lib/libc.so.6", "[image]", "█", "8 ms"} {
		if !strings.Contains(text, part) {
			t.Errorf("show does not say %q to people:\n%s", part, text)
		}
	}
}

func TestPageOfATraceOrAWorkingSetIsWritten(t *testing.T) {
	p := newPlace(t)
	b := trace.NewBuilder(trace.PointTracepoints, time.Unix(0, 0), "")
	b.Choose(1, 4711)
	b.Map(1, []trace.Region{{Start: 0x1000, End: 0x9000, Name: "/usr/bin/<program>"}})
	b.Add(trace.Event{Kind: trace.KindTouch, Time: time.Millisecond, Space: 1, PID: 4711, TID: 4711, Addr: 0x1000})
	data, err := b.Finish(trace.Ending{End: trace.EndStopped, LostRing: 3}).Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, file string
		says       []string
	}{
		{"a trace", p.file(t, "out.trace", data), []string{"NOT complete", "Touches over time", "/usr/bin/&lt;program&gt;", "4711"}},
		{"a working set", p.learned(t, "web.ws", 1, 4), []string{"Pages by their place in the image", "libc.so.6", "must", "likely", "tail"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out := filepath.Join(p.dir, "out.html")
			if r := p.must(t, nil, "trace", "show", tt.file, "--html", out); !strings.Contains(r.stdout, out) {
				t.Errorf("it says %q", r.stdout)
			}
			page, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			for _, part := range append(tt.says, "<!doctype html>", "<svg", "</html>") {
				if !strings.Contains(string(page), part) {
					t.Errorf("the page lacks %q", part)
				}
			}
		})
	}
}

func TestWorkingSetsAreMerged(t *testing.T) {
	p := newPlace(t)
	out := filepath.Join(p.dir, "all.ws")
	var merged, shown shownJSON
	p.must(t, &merged, "trace", "merge", "-o", out, p.learned(t, "new.ws", 1, 3), p.learned(t, "old.ws", 1, 5), p.learned(t, "older.ws", 1, 7), "--json")
	p.must(t, &shown, "trace", "show", out, "--json")
	if diff := cmp.Diff(merged, shown); diff != "" {
		t.Errorf("merge prints something else than show: %s", diff)
	}
	if shown.Recordings != 15 || shown.Image.Must.Pages != 80 {
		t.Errorf("the merged set is %+v", shown)
	}
}

func TestExitCodesOfWorkingSets(t *testing.T) {
	p := newPlace(t)
	ours, foreign := p.learned(t, "ours.ws", 1, 1), p.learned(t, "foreign.ws", 2, 1)
	garbage := p.file(t, "garbage", []byte(workingset.Magic+" and nothing else"))
	out := filepath.Join(p.dir, "out")
	for _, tt := range []struct {
		name, args string
		want       cli.Code
		says       string
	}{
		{"no file to merge", "trace merge -o " + out, cli.Usage, "got none"},
		{"no file to write", "trace merge " + ours, cli.Usage, "output"},
		{"sets of two snapshots", "trace merge -o " + out + " " + ours + " " + foreign, cli.Usage, "foreign.ws with"},
		{"a set that does not exist", "trace merge -o " + out + " " + ours + " nosuch", cli.NotFound, "nosuch"},
		{"a damaged set", "trace merge -o " + out + " " + ours + " " + garbage, cli.Corrupt, garbage},
		{"a folder that does not exist", "trace merge -o /nonexistent/x " + ours, cli.NotFound, "/nonexistent"},
		{"a damaged set to show", "trace show " + garbage, cli.Corrupt, "working set"},
		{"a page that cannot be written", "trace show " + ours + " --html /nonexistent/x", cli.NotFound, "/nonexistent"},
		{"an empty file", "trace show /dev/null", cli.Corrupt, "/dev/null"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := p.thaw(t, strings.Fields(tt.args)...)
			if r.code != int(tt.want) || !strings.Contains(r.stderr, tt.says) {
				t.Errorf("exit code %d, want %d: %s", r.code, tt.want, r.stderr)
			}
			if _, err := os.Stat(out); err == nil {
				t.Error("it wrote a file")
			}
		})
	}
}

func TestSparklinesShowWhatIsNotNothing(t *testing.T) {
	got := sparklines([]spark{{"a", []uint64{0, 1, 500, 1000}}, {"b", []uint64{0, 0, 0, 124}}, {"none", nil}})
	want := [][]string{{"a", "[ ▁▄█]"}, {"b", "[   ▁]"}, {"none", "[]"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
