package result

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/perf/benchfmt"
)

func TestDocumentSurvivesItsJSON(t *testing.T) {
	want := sample(1)
	var data bytes.Buffer
	if err := want.WriteJSON(&data); err != nil {
		t.Fatal(err)
	}
	got, err := ReadJSON(&data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Series{})); diff != "" {
		t.Errorf("document (-written +read):\n%s", diff)
	}
}

func TestDocumentHasTheShapeThatReadersRelyOn(t *testing.T) {
	var data bytes.Buffer
	if err := sample(1).WriteJSON(&data); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Host   map[string]any
		Series []map[string]any
	}
	if err := json.Unmarshal(data.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	for _, s := range got.Series {
		for _, key := range []string{"scenario", "params", "subject", "metric", "unit", "samples", "median", "p50", "p90", "p99", "p999", "spread"} {
			if _, ok := s[key]; !ok {
				t.Errorf("series %v of %v lacks %q", s["metric"], s["subject"], key)
			}
		}
		if n := len(s["samples"].([]any)); n != 6 {
			t.Errorf("%d samples, want one for each of 6 repetitions", n)
		}
	}
	for _, key := range []string{"cpu", "cores", "kernel", "commit", "busy_before_run"} {
		if _, ok := got.Host[key]; !ok {
			t.Errorf("the host lacks %q", key)
		}
	}
}

func TestWhatIsNoDocumentIsRefused(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON":                  "hello",
		"a series without samples": `{"version":1,"series":[{"scenario":"x"}]}`,
		"a series that is null":    `{"version":1,"series":[null]}`,
	} {
		if _, err := ReadJSON(strings.NewReader(text)); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	if _, err := ReadJSON(strings.NewReader(`{"version":2}`)); !errors.Is(err, ErrVersion) {
		t.Errorf("another version: %v, want ErrVersion", err)
	}
}

func TestGoBenchmarkFormatIsReadByItsOwnReader(t *testing.T) {
	d := sample(1)
	var text bytes.Buffer
	if err := d.WriteGoBench(&text); err != nil {
		t.Fatal(err)
	}
	results := make(map[string]int)
	r := benchfmt.NewReader(bytes.NewReader(text.Bytes()), "test")
	for r.Scan() {
		switch rec := r.Result().(type) {
		case *benchfmt.Result:
			results[string(rec.Name.Full())]++
			if rec.GetConfig("commit") != "abc" || rec.GetConfig("cores") != "2" {
				t.Errorf("the lines do not say what machine they come from: %v", rec.Config)
			}
			for _, unit := range []string{"latency-p50-sec", "latency-p99-sec", "fill-B/s"} {
				if _, ok := rec.Value(unit); !ok {
					t.Errorf("%s lacks %s: %v", rec.Name.Full(), unit, rec.Values)
				}
			}
			if v, _ := rec.Value("latency-p50-sec"); v < 149e-9 || v > 156e-9 {
				t.Errorf("p50 is %v s", v)
			}
		case *benchfmt.SyntaxError:
			t.Error(rec)
		}
	}
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	want := map[string]int{"FaultUnderFill/threads=1/subject=thaw": 6, "FaultUnderFill/threads=1/subject=c-poll": 6}
	if diff := cmp.Diff(want, results); diff != "" {
		t.Errorf("results by name (-want +got):\n%s", diff)
	}
	if got := r.Units().GetBetter("fill-B/s"); got <= 0 {
		t.Errorf("of B/s more is not better: %d", got)
	}
}

func TestFindTakesTheSeriesThatHasAllOfTheSettings(t *testing.T) {
	d := sample(1)
	if s := d.Find("fault-under-fill", P("threads", "1"), "thaw", "fill"); s == nil || s.Subject != "thaw" || s.Unit != "B/s" {
		t.Errorf("found %+v", s)
	}
	for _, missing := range []*Series{
		d.Find("fault-under-fill", P("threads", "2"), "thaw", "fill"),
		d.Find("fault", nil, "thaw", "fill"),
		d.Find("fault-under-fill", nil, "criu", "fill"),
	} {
		if missing != nil {
			t.Errorf("found %+v", missing)
		}
	}
}

func TestGoalsAreToldWithTheirVerdicts(t *testing.T) {
	for factor, want := range map[float64]string{1: "met ", 2: "missed "} {
		var out bytes.Buffer
		if err := sample(factor).WriteGoals(&out); err != nil {
			t.Fatal(err)
		}
		for _, part := range []string{want, "p50 over C", "at most 1.1", "150 ns", "fault-under-fill: left out"} {
			if !strings.Contains(out.String(), part) {
				t.Errorf("the goals lack %q:\n%s", part, &out)
			}
		}
	}
}

func TestGoalsAreToldWithTheirLimits(t *testing.T) {
	d := sample(2)
	var none, some bytes.Buffer
	if err := d.WriteGoals(&none); err != nil {
		t.Fatal(err)
	}
	limited := d.Goals[0]
	limited.Limit, limited.LimitIs = 1.234, "the disk"
	d.Goals = append(d.Goals, limited, limited)
	if err := d.WriteGoals(&some); err != nil {
		t.Fatal(err)
	}
	const line = "fault-under-fill, p50 over C: the limit is the disk.\n"
	if strings.Contains(none.String(), "the limit is") || strings.Count(some.String(), line) != 1 || strings.Count(some.String(), " 1.23 ") != 2 {
		t.Errorf("without a limit:\n%s\ntwo of a kind:\n%s", &none, &some)
	}
}

func TestWarningsSayWhyNumbersMayBeWrong(t *testing.T) {
	d := sample(1)
	if w := d.Warnings(); len(w) != 0 {
		t.Errorf("a good run warns: %q", w)
	}
	d.Host.Busy, d.Settings.Repetitions = 0.5, 2
	if w := d.Warnings(); len(w) != 2 {
		t.Errorf("warnings are %q", w)
	}
}

func TestValuesAreWrittenForPeople(t *testing.T) {
	for _, tt := range []struct {
		v    float64
		unit string
		want string
	}{
		{0, "ns", "0 ns"}, {999, "ns", "999 ns"}, {18_340, "ns", "18.3 us"}, {2.5e9, "ns", "2.50 s"}, {5e12, "ns", "5000 s"},
		{2.8e9, "B/s", "2.80 GB/s"}, {65536, "B", "65.5 kB"}, {0.456, "s/GB", "0.456 s/GB"}, {0.0281, "%", "0.0281 %"}, {3, "", "3.00"},
	} {
		if got := Format(tt.v, tt.unit); got != tt.want {
			t.Errorf("%v %s is written as %q, want %q", tt.v, tt.unit, got, tt.want)
		}
	}
}
