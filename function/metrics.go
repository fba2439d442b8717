package function

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the server's, by app and object.
type metrics struct {
	boots       *prometheus.CounterVec
	bootSeconds *prometheus.HistogramVec
	calls       *prometheus.CounterVec
	callSeconds *prometheus.HistogramVec
	freezes     *prometheus.CounterVec
	fallbacks   *prometheus.CounterVec
	setAside    *prometheus.CounterVec
	ended       *prometheus.CounterVec

	server *Server
}

var (
	instancesDesc = prometheus.NewDesc("thaw_function_instances", "Instances that serve.", []string{"app", "object"}, nil)
	busyDesc      = prometheus.NewDesc("thaw_function_calls_running", "Calls that instances have now.", []string{"app", "object"}, nil)
)

func newMetrics(s *Server) *metrics {
	object := []string{"app", "object"}
	with := func(more ...string) []string { return append(append([]string(nil), object...), more...) }
	counter := func(name, help string, labels []string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "thaw", Subsystem: "function", Name: name, Help: help}, labels)
	}
	seconds := func(name, help string, labels []string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "thaw", Subsystem: "function", Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(0.001, 2, 18),
		}, labels)
	}
	return &metrics{
		server:      s,
		boots:       counter("boots_total", "Boots of instances, by kind (cold, template, restored) and whether they came up.", with("kind", "outcome")),
		bootSeconds: seconds("boot_seconds", "From the start of a boot until the instance was ready.", with("kind")),
		calls:       counter("calls_total", "Calls, by outcome (ok, error).", with("outcome")),
		callSeconds: seconds("call_seconds", "From the arrival of a call until its answer, by the boot that it waited for.", with("boot")),
		freezes:     counter("freezes_total", "Snapshots that were taken, or not.", with("outcome")),
		fallbacks:   counter("fallbacks_total", "Restores that failed, in whose place an instance was started cold.", object),
		setAside:    counter("snapshots_set_aside_total", "Snapshots that are used no more because restores of them failed.", object),
		ended:       counter("instances_ended_total", "Instances that ended by themselves.", object),
	}
}

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.boots, m.bootSeconds, m.calls, m.callSeconds, m.freezes, m.fallbacks, m.setAside, m.ended, m}
}

// Register registers the server's metrics.
func (s *Server) Register(r prometheus.Registerer) error {
	for _, c := range s.metrics.all() {
		if err := r.Register(c); err != nil {
			return err
		}
	}
	return nil
}

// Describe is part of prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- instancesDesc
	ch <- busyDesc
}

// Collect is part of prometheus.Collector: it counts the instances.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	type key struct{ app, object string }
	instances, busy := make(map[key]int), make(map[key]int)
	for _, i := range m.server.Instances() {
		k := key{i.App, i.Object}
		instances[k]++
		busy[k] += i.Busy
	}
	for k, n := range instances {
		ch <- prometheus.MustNewConstMetric(instancesDesc, prometheus.GaugeValue, float64(n), k.app, k.object)
		ch <- prometheus.MustNewConstMetric(busyDesc, prometheus.GaugeValue, float64(busy[k]), k.app, k.object)
	}
}

func outcomeOf(err error) string {
	if err != nil {
		return "error"
	}
	return "ok"
}

func (m *metrics) called(p *pool, boot BootKind, o *Outcome, err error) {
	m.calls.WithLabelValues(p.key.app, p.key.object, outcomeOf(err)).Inc()
	m.callSeconds.WithLabelValues(p.key.app, p.key.object, string(boot)).Observe(o.Took.Seconds())
}

// failed notes a call that got no instance.
func (m *metrics) failed(p *pool) { m.calls.WithLabelValues(p.key.app, p.key.object, "error").Inc() }

func (m *metrics) booted(p *pool, kind BootKind, took time.Duration, err error) {
	m.boots.WithLabelValues(p.key.app, p.key.object, string(kind), outcomeOf(err)).Inc()
	if err == nil {
		m.bootSeconds.WithLabelValues(p.key.app, p.key.object, string(kind)).Observe(took.Seconds())
	}
}

func (m *metrics) frozen(p *pool, err error) {
	m.freezes.WithLabelValues(p.key.app, p.key.object, outcomeOf(err)).Inc()
}
