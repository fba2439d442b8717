package restores

import (
	"testing"

	"thaw/bench/lab"
	"thaw/bench/result"
)

func TestOverheadsFromAfarAreLessTheFloorOfTheirWorkloadWhateverTheLink(t *testing.T) {
	d := &result.Document{}
	d.Add("tiers", result.P("workload", "a", "link", "none"), string(lab.Floor), []result.Observation{one(toRunning, 100)})
	far := result.P("workload", "a", "link", "10Gbit")
	other := result.P("workload", "b", "link", "10Gbit")
	for _, p := range []result.Params{far, other} {
		d.Add("tiers", p, fromPeer, []result.Observation{one(firstResponse, 500), one(warmCall, 50)})
	}
	d.Add("tiers", far, fromPeerDemand, []result.Observation{one(firstResponse, 500)})
	deriveTiers(d)
	d.Finish()
	if s := d.Find("tiers", far, fromPeer, overhead.Name); s == nil || s.Median != 350 {
		t.Errorf("the overhead is %+v, want 350", s)
	}
	if d.Find("tiers", other, fromPeer, overhead.Name) != nil || d.Find("tiers", far, fromPeerDemand, overhead.Name) != nil {
		t.Error("there is an overhead without a floor or without W")
	}
}
