package restore

import "github.com/prometheus/client_golang/prometheus"

// Metrics are the counters of all sessions that share it, for one Prometheus registry. It is safe for concurrent use.
type Metrics struct {
	faultsVec *prometheus.CounterVec
	bytesVec  *prometheus.CounterVec
	latency   prometheus.Histogram
	live      prometheus.Gauge

	// Resolved once, so that the fault path looks up no label.
	faults [outcomes]prometheus.Counter
	bytes  [classes]prometheus.Counter
}

var _ prometheus.Collector = (*Metrics)(nil)

// NewMetrics returns metrics that are not registered anywhere yet.
func NewMetrics() *Metrics {
	m := &Metrics{
		faultsVec: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "thaw_faults_total",
			Help: "Attempts to resolve a page fault of a restored process, by outcome.",
		}, []string{"outcome"}),
		bytesVec: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "thaw_installed_bytes_total",
			Help: "Memory installed in restored processes, by why: demand, stream, zero or preload.",
		}, []string{"class"}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "thaw_fault_resolve_seconds",
			Help: "Time from reading a page fault to its end, first attempt to last.",
			// A fault whose page is at hand takes 2 to 20 us, one behind a bulk copy up to 100 us, one that
			// waits for a local disk 0.1 to 10 ms; above that something is wrong.
			Buckets: []float64{2e-6, 5e-6, 10e-6, 20e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 50e-3, 250e-3, 1},
		}),
		live: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "thaw_processes",
			Help: "Restored processes whose memory is still served.",
		}),
	}
	for o := range outcomes {
		m.faults[o] = m.faultsVec.WithLabelValues(outcomeNames[o])
	}
	for c := range classes {
		m.bytes[c] = m.bytesVec.WithLabelValues(classNames[c])
	}
	return m
}

// Describe implements [prometheus.Collector].
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	m.faultsVec.Describe(ch)
	m.bytesVec.Describe(ch)
	m.latency.Describe(ch)
	m.live.Describe(ch)
}

// Collect implements [prometheus.Collector].
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	m.faultsVec.Collect(ch)
	m.bytesVec.Collect(ch)
	m.latency.Collect(ch)
	m.live.Collect(ch)
}
