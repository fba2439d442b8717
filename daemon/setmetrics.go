package daemon

import (
	"github.com/prometheus/client_golang/prometheus"

	"thaw/control"
)

// workingSetMetrics are what sessions say of working sets when they have ended.
type workingSetMetrics struct {
	pages      *prometheus.CounterVec // brought early, by when
	demand     *prometheus.CounterVec // pages that were waited for, by cause
	waited     prometheus.Counter
	held       prometheus.Histogram
	heldInVain prometheus.Counter
	recordings *prometheus.CounterVec // by end state
	precision  prometheus.Histogram
	recall     prometheus.Histogram
}

var _ prometheus.Collector = (*workingSetMetrics)(nil)

func newWorkingSetMetrics() *workingSetMetrics {
	shares := []float64{0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99}
	return &workingSetMetrics{
		pages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "thaw_working_set_pages_total",
			Help: "Pages that were brought because a working set has them: before the processes ran, or while they did.",
		}, []string{"when"}),
		demand: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "thaw_demand_pages_total",
			Help: "Pages with content that a thread waited for: late if the working set has them, missed if it does not or there is none.",
		}, []string{"cause"}),
		waited: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "thaw_fault_wait_seconds_total",
			Help: "How long threads waited for page faults, from where thawd read the fault to its end, of sessions that have ended.",
		}),
		held: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "thaw_hold_seconds",
			Help: "How long processes were held, before they ran, for the pages of their working set; of sessions with one.",
			// The bound is 30 ms unless somebody has set another one.
			Buckets: []float64{0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.5, 2},
		}),
		heldInVain: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "thaw_holds_in_vain_total",
			Help: "Sessions whose processes ran before they had all that they must have, because the time was over.",
		}),
		recordings: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "thaw_recordings_total",
			Help: "Recorded sessions, by whether the working set has learned from them.",
		}, []string{"state"}),
		precision: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "thaw_working_set_precision_ratio", Buckets: shares,
			Help: "Share of a working set that was needed, by what was left out of recorded restores to see.",
		}),
		recall: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "thaw_working_set_recall_ratio", Buckets: shares,
			Help: "Share of what a recorded restore touched that its working set has.",
		}),
	}
}

func (m *workingSetMetrics) each(do func(prometheus.Collector)) {
	for _, c := range []prometheus.Collector{m.pages, m.demand, m.waited, m.held, m.heldInVain, m.recordings, m.precision, m.recall} {
		do(c)
	}
}

// Describe implements [prometheus.Collector].
func (m *workingSetMetrics) Describe(ch chan<- *prometheus.Desc) {
	m.each(func(c prometheus.Collector) { c.Describe(ch) })
}

// Collect implements [prometheus.Collector].
func (m *workingSetMetrics) Collect(ch chan<- prometheus.Metric) {
	m.each(func(c prometheus.Collector) { c.Collect(ch) })
}

func (m *workingSetMetrics) sessionEnded(s *control.Session) {
	m.demand.WithLabelValues("late").Add(float64(s.Counters.DemandLate))
	m.demand.WithLabelValues("missed").Add(float64(s.Counters.DemandMissed))
	m.waited.Add(s.Counters.Waited)
	if w := s.WorkingSet; w != nil {
		m.pages.WithLabelValues("before_run").Add(float64(w.PagesBeforeRun))
		m.pages.WithLabelValues("behind").Add(float64(w.PagesBehind))
		m.held.Observe(w.Held)
		if w.HeldInVain {
			m.heldInVain.Inc()
		}
	}
	r := s.Recording
	if r == nil {
		return
	}
	m.recordings.WithLabelValues(string(r.State)).Inc()
	if r.Precision != nil && r.Recall != nil {
		m.precision.Observe(*r.Precision)
		m.recall.Observe(*r.Recall)
	}
}
