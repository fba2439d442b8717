package htmlreport

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"regexp"
	"strings"
	"testing"

	"thaw/bench/result"
)

// sample makes a document with a scenario that has every kind of chart.
func sample() *result.Document {
	d := &result.Document{
		Host:     result.Host{CPU: "A CPU", Cores: 2, Kernel: "6.18.0", Commit: "abc123", Busy: 0.02},
		Settings: result.Settings{Repetitions: 6},
		Scenarios: []result.Scenario{{Name: "fault", Summary: "What a thread waits <for>.", Notes: []string{"CRIU was left out"}, Charts: []result.Chart{
			{Kind: result.Distribution, Title: "Latency", Metric: "latency"},
			{Kind: result.OverParam, Title: "Cost by size", Metric: "fill", X: "size"},
			{Kind: result.OverTime, Title: "Over time", Metric: "fill"},
			{Kind: result.OverParam, Title: "Nothing to show", Metric: "unknown", X: "size"},
		}}},
		Goals: []result.Goal{
			{Scenario: "fault", Name: "p50 over C", Want: 1.1, Reached: 1.05, Met: true, Ours: 105, Floor: 100, Unit: "ns", FloorIs: "a loop in C"},
			{Scenario: "fault", Name: "memory", Want: 10, Reached: 20, Ours: 20, Unit: "B", Limit: 15.5, LimitIs: "all that there is"},
		},
	}
	for range 6 {
		for _, size := range []string{"16MiB", "1GiB"} {
			for i, subject := range []string{"c-poll", "thaw"} {
				v := 1e4 * float64(i+1)
				d.Add("fault", result.P("size", size), subject, []result.Observation{
					{Metric: result.Metric{Name: "latency", Unit: "ns", Many: true}, Values: []float64{v, 2 * v, 3 * v, 50 * v}},
					{Metric: result.Metric{Name: "fill", Unit: "B/s", Higher: true}, Values: []float64{1e9 / v}, Curve: []result.Point{{T: 0, V: 0}, {T: 0.1, V: 1e9}}},
				})
			}
		}
	}
	d.Finish()
	return d
}

func render(t *testing.T, d *result.Document) string {
	t.Helper()
	var page bytes.Buffer
	if err := Write(&page, d); err != nil {
		t.Fatal(err)
	}
	return page.String()
}

func TestPageShowsEverySeriesGoalAndFactOfTheHost(t *testing.T) {
	page := render(t, sample())
	for _, part := range []string{
		"A CPU, 2 cores", "Linux 6.18.0", "abc123", "6 repetitions", "2 %",
		"c-poll", "thaw", "size=16MiB", "size=1GiB", "latency", "fill",
		"Latency", "Cost by size", "Over time", "CRIU was left out", "What a thread waits &lt;for&gt;.",
		"1 of 2 met", "p50 over C", "a loop in C", "15.50", "the limit: all that there is", `<span class="badge missed">missed</span>`,
		"prefers-color-scheme: dark",
	} {
		if !strings.Contains(page, part) {
			t.Errorf("the page lacks %q", part)
		}
	}
	if n := strings.Count(page, "<polyline"); n != 4+2+4 {
		t.Errorf("%d lines are drawn, want 10", n)
	}
	if strings.Contains(page, "Nothing to show") {
		t.Error("a chart without data is shown")
	}
}

func TestPageRefersToNothingOutside(t *testing.T) {
	page := render(t, sample())
	outside := regexp.MustCompile(`(?i)https?:|//[a-z]|<script|<link|<img|<iframe|@import|url\(|\bsrc\s*=`)
	if found := outside.FindString(page); found != "" {
		t.Errorf("the page holds %q", found)
	}
	for _, ref := range regexp.MustCompile(`href="([^"]*)"`).FindAllStringSubmatch(page, -1) {
		if !strings.HasPrefix(ref[1], "#") || !strings.Contains(page, `id="`+ref[1][1:]+`"`) {
			t.Errorf("the link to %q leads nowhere in the page", ref[1])
		}
	}
}

func TestPicturesAreWellFormed(t *testing.T) {
	for _, svg := range regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(render(t, sample()), -1) {
		if strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") {
			t.Errorf("a picture has no number where one is needed: %.300s", svg)
		}
		for dec := xml.NewDecoder(strings.NewReader(svg)); ; {
			if _, err := dec.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%v in %.300s", err, svg)
			}
		}
	}
}

func TestPageOfARunWithoutGoalsOrChartsIsWritten(t *testing.T) {
	d := &result.Document{Settings: result.Settings{Quick: true}, Scenarios: []result.Scenario{{Name: "empty"}}}
	if page := render(t, d); !strings.Contains(page, "quick run") || strings.Contains(page, "Figures to reach") {
		t.Error("the page does not say that it is of a quick run, or has figures")
	}
}

func TestScalesMapTheirRangeInside(t *testing.T) {
	for name, s := range map[string]scale{
		"linear":      linearScale(7.3e9, "B/s"),
		"logarithmic": logScale(1e3, 5e6, 10, "ns"),
		"one value":   logScale(5, 5, 2, ""),
		"percentiles": percentileScale(),
	} {
		if len(s.ticks) == 0 {
			t.Errorf("%s has no marks", name)
		}
		for _, tick := range s.ticks {
			if at := s.at(tick.v); at < -0.001 || at > 1.001 || math.IsNaN(at) {
				t.Errorf("%s puts its mark %q at %v", name, tick.label, at)
			}
		}
	}
	if s := linearScale(7.3e9, "B/s"); s.at(7.3e9) < 0.7 || s.at(0) != 0 {
		t.Errorf("the linear scale ends at %v", s.at(7.3e9))
	}
}

func TestNumbersOfSettingsAreRead(t *testing.T) {
	for text, want := range map[string]float64{"10": 10, "16MiB": 16 << 20, "1GiB": 1 << 30, "512KiB": 512 << 10, "50%": 50} {
		if got, err := number(text); err != nil || got != want {
			t.Errorf("number(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
	if _, err := number("store"); err == nil {
		t.Error("a word is a number")
	}
}

func TestTheEnginesLineHasItsOwnColor(t *testing.T) {
	lines := []line{{name: "c-poll"}, {name: "thaw"}, {name: "criu"}}
	color(lines)
	if lines[1].color != 0 || lines[0].color == 0 || lines[2].color == lines[0].color {
		t.Errorf("colors are %v", lines)
	}
}
