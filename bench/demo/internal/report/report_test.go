package report

import (
	"bytes"
	"encoding/json"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"thaw/bench/lab"
)

func value(v float64) *float64 { return &v }

func TestMedianOfOddAndEvenNumbersOfValues(t *testing.T) {
	tests := []struct {
		name   string
		values []float64
		want   *float64
	}{
		{"no values have no median", nil, nil},
		{"one value is its own median", []float64{3}, value(3)},
		{"the middle of three", []float64{9, 1, 2}, value(2)},
		{"the mean of the middle two of four", []float64{4, 1, 2, 100}, value(3)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			before := append([]float64(nil), test.values...)
			if diff := cmp.Diff(test.want, Median(test.values)); diff != "" {
				t.Errorf("median (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, test.values); diff != "" {
				t.Errorf("the values were changed:\n%s", diff)
			}
		})
	}
}

// run makes a run in the warm cache.
func run(mode lab.Mode, running, first, w float64) Run {
	r := Run{Run: lab.Run{Mode: mode, Cache: lab.Warm, ToRunning: running}}
	if mode != lab.Floor {
		r.ToFirstResponse, r.WarmCall = &first, &w
	}
	return r
}

func TestOverheadIsFirstResponseLessWLessTheMedianFloor(t *testing.T) {
	runs := []Run{
		run(lab.Floor, 0.1, 0, 0), run(lab.Floor, 0.2, 0, 0), run(lab.Floor, 0.9, 0, 0),
		run(lab.Thaw, 0.2, 0.5, 0.05),
		run(lab.CRIUEager, 0.8, 1.25, 0.05),
		run(lab.Cold, 0.1, 5, 0.05),
		// Another cache state's floor is another floor.
		{Run: lab.Run{Mode: lab.Floor, Cache: lab.Dropped, ToRunning: 100}},
	}
	s := Summarize("w", lab.Snapshot{}, runs, Goals{ColdToThaw: map[lab.Cache]float64{lab.Warm: 10}, ThawToEager: 0.2, ThawToLazy: 0.5})
	approx := cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) < 1e-9 })

	if diff := cmp.Diff(value(0.25), s.Medians[lab.Warm][lab.Thaw].Overhead, approx); diff != "" {
		t.Errorf("overhead of thaw (-want +got):\n%s", diff)
	}
	if s.Medians[lab.Warm][lab.Cold].Overhead != nil {
		t.Error("a cold start brings no memory and has an overhead")
	}
	want := Ratios{ColdToThaw: value(10), ThawToEager: value(0.25)}
	if diff := cmp.Diff(want, s.Ratios[lab.Warm], approx); diff != "" {
		t.Errorf("ratios (-want +got):\n%s", diff)
	}
	// CRIU's server did not run, so that goal is neither met nor missed.
	targets := []Target{
		{Name: "first response, cold start over thaw", Cache: lab.Warm, Want: 10, AtLeast: true, Reached: 10, Met: true},
		{Name: "overhead, thaw over CRIU eager", Cache: lab.Warm, Want: 0.2, Reached: 0.25},
	}
	if diff := cmp.Diff(targets, s.Targets, approx); diff != "" {
		t.Errorf("targets (-want +got):\n%s", diff)
	}
}

func TestWithoutAFloorThereIsNoOverhead(t *testing.T) {
	s := Summarize("w", lab.Snapshot{}, []Run{run(lab.Thaw, 0.2, 0.5, 0.05), run(lab.CRIUEager, 0.8, 1, 0.05)}, Goals{ThawToEager: 0.5})
	if s.Medians[lab.Warm][lab.Thaw].Overhead != nil || s.Ratios[lab.Warm].ThawToEager != nil || len(s.Targets) != 0 {
		t.Errorf("summary is %+v", s)
	}
}

func TestReportHasTheShapeThatReadersRelyOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "report.json")
	if err := sample().WriteFile(path); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Runs    []map[string]any
		Summary map[string]any
		Host    map[string]any
	}
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	for _, r := range got.Runs {
		keys := []string{"mode", "cache", "to_running_s"}
		if r["mode"] != "floor" {
			keys = append(keys, "to_first_response_s", "warm_call_s")
		} else if _, ok := r["to_first_response_s"]; ok {
			t.Errorf("a floor run has a first response: %v", r)
		}
		for _, key := range keys {
			if _, ok := r[key]; !ok {
				t.Errorf("run %v lacks %q", r, key)
			}
		}
	}
	for _, key := range []string{"medians", "ratios", "targets"} {
		if _, ok := got.Summary[key]; !ok {
			t.Errorf("the summary lacks %q", key)
		}
	}
	for _, key := range []string{"cpu", "cores", "memory_bytes", "kernel", "criu", "runc", "commit", "date"} {
		if _, ok := got.Host[key]; !ok {
			t.Errorf("the host lacks %q", key)
		}
	}
}

func TestFilesAreReplacedWholeAndNothingElseIsLeft(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "report.json")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeWhole(path, []byte("new")); err != nil {
		t.Fatal(err)
	}
	if data, _ := os.ReadFile(path); string(data) != "new" {
		t.Errorf("the file holds %q", data)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("the folder holds %v, %v", entries, err)
	}
}

func TestTableShowsEachModeInEachCacheStateAndTheVerdicts(t *testing.T) {
	var table bytes.Buffer
	if err := sample().WriteTable(&table); err != nil {
		t.Fatal(err)
	}
	for _, mode := range lab.Modes() {
		if n := strings.Count(table.String(), " "+string(mode)+" "); n < len(lab.Caches()) {
			t.Errorf("mode %s is in %d lines, want %d:\n%s", mode, n, len(lab.Caches()), &table)
		}
	}
	if !strings.Contains(table.String(), "met     first response, cold start over thaw, warm cache: 19.31 (at least 10)") {
		t.Errorf("no verdict in:\n%s", &table)
	}
}

func TestTableSaysWhenTheMachineWasBusy(t *testing.T) {
	for part, busy := range map[float64]bool{0.02: false, 0.6: true} {
		var table bytes.Buffer
		r := sample()
		r.Host.Busy = part
		if err := r.WriteTable(&table); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(table.String(), "busy"); got != busy {
			t.Errorf("%v of the cores in use: warned %v, want %v", part, got, busy)
		}
	}
}

func TestPlotsAreWritten(t *testing.T) {
	dir := t.TempDir()
	r := sample()
	for _, name := range []string{"report.png", "report.svg"} {
		if err := r.WritePlot(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(filepath.Join(dir, "report.png"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	if size := img.Bounds().Size(); size.X < 1200 || size.Y < 500 {
		t.Errorf("the picture has %v pixels", size)
	}
	svg, err := os.ReadFile(filepath.Join(dir, "report.svg"))
	if err != nil || !bytes.Contains(svg, []byte("</svg>")) || !bytes.Contains(svg, []byte("cold start")) {
		t.Errorf("the SVG is no plot of the modes: %v", err)
	}
	if err := r.WritePlot(filepath.Join(dir, "report.pdf")); err == nil {
		t.Error("a format that is not supported was accepted")
	}
}

func TestPlotOfAReportWithoutThawOrFloorIsDrawn(t *testing.T) {
	runs := []Run{run(lab.Cold, 0.1, 5, 0.1)}
	r := &Report{Runs: runs, Summary: Summarize("w", lab.Snapshot{}, runs, Goals{})}
	if err := r.WritePlot(filepath.Join(t.TempDir(), "report.png")); err != nil {
		t.Error(err)
	}
}

func TestTicksAreRound(t *testing.T) {
	tests := []struct {
		name      string
		low, high float64
		want      []string
	}{
		{"from zero", 0, 18, []string{"0", "5", "10", "15"}},
		{"below one", -0.1, 1.1, []string{"0.0", "0.2", "0.4", "0.6", "0.8", "1.0"}},
		{"very short times", 0, 0.033, []string{"0.00", "0.01", "0.02", "0.03"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			for _, tick := range roundTicks(test.low, test.high) {
				got = append(got, tick.Label)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("ticks (-want +got):\n%s", diff)
			}
		})
	}
}

func TestBytesAreWrittenForPeople(t *testing.T) {
	tests := map[float64]string{0: "0 B", 999: "999 B", 41_600_000: "41.6 MB", 1_640_000_000: "1.64 GB", 5000: "5 kB"}
	for n, want := range tests {
		if got := Bytes(n); got != want {
			t.Errorf("%v bytes are written as %q, want %q", n, got, want)
		}
	}
}
