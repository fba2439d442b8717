package node

import (
	"github.com/prometheus/client_golang/prometheus"

	"thaw/control"
	"thaw/pagestore/fetch"
)

// metrics are what a node measures, made of what its parts count. Sources are as many as the fleet has nodes.
type metrics struct {
	node *Node

	bytes, frames, requests, firstFrame, hedges, retries, wasted, lies *prometheus.Desc
	joined, waiting, remote, limit                                     *prometheus.Desc
	served, servedBytes                                                *prometheus.Desc
	pushed, pushedBytes                                                *prometheus.Desc
	made, madeBytes, madeLimit                                         *prometheus.Desc
}

var _ prometheus.Collector = (*metrics)(nil)

// Collector returns what the node measures, for a registry.
func (n *Node) Collector() prometheus.Collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &metrics{
		node:     n,
		bytes:    desc("thaw_tier_bytes_total", "Bytes of pages that came from other places and were taken, by source, its tier and class.", "source", "tier", "class"),
		frames:   desc("thaw_tier_frames_total", "Frames of pages that came from other places and were taken.", "source", "tier", "class"),
		requests: desc("thaw_tier_requests_total", "Requests for frames that have ended, by how: ok, or the kind of error.", "source", "tier", "class", "result"),
		firstFrame: desc("thaw_tier_first_byte_seconds", "Time from a request to the first frame that it delivered, all of it and checked.",
			"source", "tier", "class"),
		hedges: desc("thaw_tier_hedges_total", "Requests to a second source because the first took long: won if it delivered first, else wasted.",
			"source", "tier", "class", "result"),
		retries:     desc("thaw_tier_retries_total", "Requests because an earlier one for the same frames had failed.", "source", "tier", "class"),
		wasted:      desc("thaw_tier_wasted_bytes_total", "Bytes of pages that came and were not taken: others were faster, or they were wrong.", "source", "tier", "class"),
		lies:        desc("thaw_tier_lies_total", "How often a source delivered wrong bytes.", "source", "tier"),
		joined:      desc("thaw_tier_joined_frames_total", "Frames that were asked for while they were on their way already."),
		waiting:     desc("thaw_tier_waiting_frames", "Frames that are waited for."),
		remote:      desc("thaw_store_remote_bytes", "Bytes of the disk that are taken by what came from afar, as of some seconds ago at most."),
		limit:       desc("thaw_store_remote_limit_bytes", "Bound of thaw_store_remote_bytes; 0: none."),
		served:      desc("thaw_peer_requests_total", "Requests of peers that were answered, by whether they got something.", "result"),
		servedBytes: desc("thaw_peer_sent_bytes_total", "Bytes of blobs that were sent to peers."),
		pushed:      desc("thaw_pushes_total", "Snapshots that were pushed to the object store by thawd itself, by result.", "result"),
		pushedBytes: desc("thaw_pushed_bytes_total", "Bytes that thawd itself sent to the object store."),
		made:        desc("thaw_peer_prepared_snapshots", "Snapshots by whether what peers ask for first is made: ready, waiting, or left_out for lack of room.", "state"),
		madeBytes:   desc("thaw_peer_made_bytes", "Bytes of the disk that are taken by what is made for peers."),
		madeLimit:   desc("thaw_peer_made_limit_bytes", "Bound of thaw_peer_made_bytes."),
	}
}

// Describe implements [prometheus.Collector].
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.bytes, m.frames, m.requests, m.firstFrame, m.hedges, m.retries, m.wasted, m.lies, m.joined, m.waiting,
		m.remote, m.limit, m.served, m.servedBytes, m.pushed, m.pushedBytes, m.made, m.madeBytes, m.madeLimit} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	t := m.node.Tiers()
	for _, s := range t.Sources {
		at := []string{s.Source, string(s.Tier)}
		count(m.lies, s.Lies, at...)
		for class, c := range s.Classes {
			m.collectClass(count, &c, append(at[:2:2], class))
		}
	}
	m.collectTimes(ch)
	count(m.joined, t.Joined)
	gauge(m.waiting, uint64(t.Waiting))
	gauge(m.remote, t.RemoteBytes)
	gauge(m.limit, t.RemoteLimit)
	count(m.served, t.Served.Requests-t.Served.Refused, "ok")
	count(m.served, t.Served.Refused, "refused")
	count(m.servedBytes, t.Served.Bytes)
	if t.Made != nil {
		gauge(m.made, uint64(t.Made.Prepared), "ready")
		gauge(m.made, uint64(t.Made.Waiting), "waiting")
		gauge(m.made, uint64(t.Made.LeftOut), "left_out")
		gauge(m.madeBytes, t.Made.Bytes)
		gauge(m.madeLimit, t.Made.Limit)
	}
	if t.Push != nil {
		count(m.pushed, t.Push.Pushed, "ok")
		count(m.pushed, t.Push.Failed, "error")
		count(m.pushedBytes, t.Push.SentBytes)
	}
}

func (m *metrics) collectClass(count func(*prometheus.Desc, uint64, ...string), c *control.TierClass, at []string) {
	with := func(label string) []string { return append(at[:len(at):len(at)], label) }
	count(m.bytes, c.Bytes, at...)
	count(m.frames, c.Frames, at...)
	count(m.retries, c.Retries, at...)
	count(m.wasted, c.WastedBytes, at...)
	count(m.hedges, c.HedgesWon, with("won")...)
	count(m.hedges, c.HedgesWasted, with("wasted")...)
	ok := c.Requests
	for kind, n := range c.Errors {
		ok -= min(n, ok)
		count(m.requests, n, with(kind)...)
	}
	count(m.requests, ok, with("ok")...)
}

// collectTimes sends the histograms, which the API does not have.
func (m *metrics) collectTimes(ch chan<- prometheus.Metric) {
	bounds := fetch.Buckets()
	for _, s := range m.node.origin.Stats().Sources {
		for class := range s.Classes {
			h := &s.Classes[class].FirstFrame
			buckets, total := make(map[float64]uint64, len(bounds)), uint64(0)
			for i, n := range h.Counts {
				total += n
				if i < len(bounds) {
					buckets[bounds[i].Seconds()] = total
				}
			}
			if total > 0 {
				ch <- prometheus.MustNewConstHistogram(m.firstFrame, total, h.Sum.Seconds(), buckets,
					s.Source, string(m.node.counts.tierOf(s.Source)), fetch.Class(class).String())
			}
		}
	}
}
