package daemon

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"thaw/control"
)

// metrics are the daemon's own; what is measured fault by fault is in restore.Metrics.
type metrics struct {
	sessions *prometheus.Desc       // gauge, by state; counted when it is asked for
	ended    *prometheus.CounterVec // by end state
	refused  prometheus.Counter     // requests that came to nothing
	restored prometheus.Histogram   // request to finish message
	complete prometheus.Histogram   // request to all memory in place
	failed   prometheus.Counter     // pages

	hintsRefused prometheus.Counter // working sets that could not be used
	sets         *workingSetMetrics // of sessions that have ended

	daemon   *Daemon // for counting sessions
	outcomes map[control.State]prometheus.Counter
}

var _ prometheus.Collector = (*metrics)(nil)

func newMetrics(d *Daemon) *metrics {
	m := &metrics{
		daemon:   d,
		sessions: prometheus.NewDesc("thaw_sessions", "Sessions that have not ended, by state.", []string{"state"}, nil),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "thaw_sessions_ended_total",
			Help: "Sessions that have ended, by end state.",
		}, []string{"state"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "thaw_sessions_refused_total",
			Help: "Requests for a session that could not be granted, as for a snapshot that is not there.",
		}),
		restored: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "thaw_session_restore_seconds",
			Help: "Time from the request for a session to the runtime's word that all processes are restored.",
			// CRIU alone takes 30 to 50 ms for one process, through runc 200 to 300 ms; trees and slow disks more.
			Buckets: []float64{0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30},
		}),
		complete: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "thaw_session_complete_seconds",
			Help: "Time from the request for a session to its end, of sessions that stream all memory and ended well.",
			// A gigabyte takes 0.3 s from page cache and several seconds from a disk.
			Buckets: []float64{0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 300, 1800},
		}),
		failed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "thaw_failed_pages_total",
			Help: "Pages whose content could not be had, of sessions that have ended.",
		}),
		sets: newWorkingSetMetrics(),
		hintsRefused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "thaw_working_sets_refused_total",
			Help: "Restores whose snapshot has a working set that cannot be used: it is broken, or another snapshot's.",
		}),
	}
	m.outcomes = map[control.State]prometheus.Counter{}
	for _, state := range control.States() {
		if state.Ended() {
			m.outcomes[state] = m.ended.WithLabelValues(string(state))
		}
	}
	return m
}

// Register registers all that the daemon measures, and the usual metrics of its process and of Go.
func (d *Daemon) Register(r prometheus.Registerer) error {
	for _, c := range []prometheus.Collector{
		d.metrics, d.faults,
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "thaw_build_info",
			Help:        "Always 1; the version is in the label.",
			ConstLabels: prometheus.Labels{"version": d.opts.Version},
		}, func() float64 { return 1 }),
	} {
		if err := r.Register(c); err != nil {
			return err
		}
	}
	return nil
}

// Describe implements [prometheus.Collector].
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- m.sessions
	m.ended.Describe(ch)
	m.refused.Describe(ch)
	m.restored.Describe(ch)
	m.complete.Describe(ch)
	m.failed.Describe(ch)
	m.hintsRefused.Describe(ch)
	m.sets.Describe(ch)
}

// Collect implements [prometheus.Collector].
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	for _, state := range control.States() {
		if !state.Ended() {
			ch <- prometheus.MustNewConstMetric(m.sessions, prometheus.GaugeValue, float64(m.daemon.count(state)), string(state))
		}
	}
	m.ended.Collect(ch)
	m.refused.Collect(ch)
	m.restored.Collect(ch)
	m.complete.Collect(ch)
	m.failed.Collect(ch)
	m.hintsRefused.Collect(ch)
	m.sets.Collect(ch)
}

// sessionEnded counts a session that has ended.
func (m *metrics) sessionEnded(s *control.Session) {
	m.outcomes[s.State].Inc()
	m.failed.Add(float64(s.Progress.PagesFailed))
	m.sets.sessionEnded(s)
	since := func(t *time.Time) float64 { return t.Sub(s.Created).Seconds() }
	if s.Running != nil {
		m.restored.Observe(since(s.Running))
	}
	if s.State == control.StateComplete && s.Stream == control.StreamAll {
		m.complete.Observe(since(s.Ended))
	}
}
