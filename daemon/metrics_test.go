package daemon

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"thaw/control"
	"thaw/uffd"
)

// values returns the samples that a registry gathers, histograms by their count, as name{label="value"}.
func values(t *testing.T, r *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+`="`+l.GetValue()+`"`)
			}
			name := f.GetName()
			if len(labels) > 0 {
				name += "{" + strings.Join(labels, ",") + "}"
			}
			switch {
			case m.GetHistogram() != nil:
				out[name] = float64(m.GetHistogram().GetSampleCount())
			case m.GetCounter() != nil:
				out[name] = m.GetCounter().GetValue()
			case m.GetGauge() != nil:
				out[name] = m.GetGauge().GetValue()
			}
		}
	}
	return out
}

func TestMetricsCountWhatHappened(t *testing.T) {
	const n = 40
	d := start(t, newStore(t, n), nil)
	registry := prometheus.NewRegistry()
	if err := d.Register(registry); err != nil {
		t.Fatal(err)
	}
	done := d.create(t, control.SessionRequest{Snapshot: "web"})
	r := connect(t, done, n)
	r.finish()
	r.target.Read(pages(0, n)).Must()
	d.ended(t, done.ID)
	d.create(t, control.SessionRequest{Snapshot: "web"})
	if _, err := d.Create(t.Context(), &control.SessionRequest{Snapshot: "nosuch"}); err == nil {
		t.Error("a session of no snapshot was made")
	}

	got := values(t, registry)
	for name, want := range map[string]float64{
		`thaw_sessions{state="waiting"}`:              1,
		`thaw_sessions{state="restoring"}`:            0,
		`thaw_sessions{state="serving"}`:              0,
		`thaw_sessions_ended_total{state="complete"}`: 1,
		`thaw_sessions_ended_total{state="failed"}`:   0,
		`thaw_sessions_refused_total`:                 1,
		`thaw_session_restore_seconds`:                1,
		`thaw_session_complete_seconds`:               1,
		`thaw_failed_pages_total`:                     0,
		`thaw_processes`:                              0,
		`thaw_build_info{version="devel"}`:            1,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s = %v (there: %v), want %v", name, v, ok, want)
		}
	}
	bytes := got[`thaw_installed_bytes_total{class="demand"}`] + got[`thaw_installed_bytes_total{class="stream"}`]
	if bytes != n*uffd.PageSize {
		t.Errorf("bytes installed = %v, want %d", bytes, n*uffd.PageSize)
	}
	if t.Failed() {
		t.Logf("there are: %s", strings.Join(slices.Sorted(maps.Keys(got)), "\n"))
	}
}

func TestMetricsTellWhatWorkingSetsAreWorth(t *testing.T) {
	m, registry := newWorkingSetMetrics(), prometheus.NewRegistry()
	registry.MustRegister(m)
	share := 0.9
	m.sessionEnded(&control.Session{
		Counters:   control.Counters{DemandLate: 3, DemandMissed: 4, Waited: 0.5},
		WorkingSet: &control.WorkingSetReport{PagesBeforeRun: 10, PagesBehind: 20, Held: 0.01, HeldInVain: true},
		Recording:  &control.RecordingReport{State: control.RecordingLearned, Precision: &share, Recall: &share},
	})
	m.sessionEnded(&control.Session{Recording: &control.RecordingReport{State: control.RecordingFailed}})
	got := values(t, registry)
	for name, want := range map[string]float64{
		`thaw_working_set_pages_total{when="before_run"}`: 10,
		`thaw_working_set_pages_total{when="behind"}`:     20,
		`thaw_demand_pages_total{cause="late"}`:           3,
		`thaw_demand_pages_total{cause="missed"}`:         4,
		`thaw_fault_wait_seconds_total`:                   0.5,
		`thaw_hold_seconds`:                               1,
		`thaw_holds_in_vain_total`:                        1,
		`thaw_recordings_total{state="learned"}`:          1,
		`thaw_recordings_total{state="failed"}`:           1,
		`thaw_working_set_precision_ratio`:                1,
		`thaw_working_set_recall_ratio`:                   1,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s = %v (there: %v), want %v", name, v, ok, want)
		}
	}
}
