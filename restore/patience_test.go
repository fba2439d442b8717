package restore

import (
	"testing"
	"time"
)

func TestAdaptiveReaderIsAwakeAsLongAsItPays(t *testing.T) {
	p := newPatience(WaitAdaptive)
	now := time.Unix(1, 0)
	if p.awake(now) {
		t.Error("awake before there was any fault")
	}
	p.found(now)
	if !p.awake(now.Add(patienceFor - 1)) {
		t.Error("asleep right after a fault")
	}
	if p.awake(now.Add(patienceFor)) || p.awake(now) {
		t.Error("awake when the time is over")
	}
	// One wait was in vain. One that finds something starts the count anew.
	p.found(now)
	p.found(now)
	for i := range patienceLost {
		if !p.awake(now) {
			t.Fatalf("asleep after %d waits in vain", i)
		}
		p.awake(now.Add(patienceFor))
		p.found(now)
	}
	for i := range patienceRest {
		if p.awake(now) {
			t.Fatalf("awake at fault %d after %d waits in vain", i, patienceLost)
		}
		p.found(now)
	}
	if !p.awake(now) {
		t.Error("never tried again")
	}
}

func TestOtherWaitPoliciesAreFixed(t *testing.T) {
	for policy, want := range map[WaitPolicy]bool{WaitSleep: false, WaitSpin: true} {
		p := newPatience(policy)
		now := time.Unix(1, 0)
		p.found(now)
		if got := p.awake(now.Add(time.Hour)); got != want {
			t.Errorf("%v: awake = %v", policy, got)
		}
		if got := p.awake(now); got != want {
			t.Errorf("%v: awake after a fault = %v", policy, got)
		}
	}
}

func TestWaitPoliciesHaveNames(t *testing.T) {
	for _, p := range []WaitPolicy{WaitAdaptive, WaitSleep, WaitSpin} {
		if got, err := ParseWaitPolicy(p.String()); err != nil || got != p {
			t.Errorf("%v is read as %v, %v", p, got, err)
		}
	}
	if _, err := ParseWaitPolicy("WaitPolicy(3)"); err == nil || WaitPolicy(3).String() != "WaitPolicy(3)" {
		t.Error("there is a fourth policy")
	}
}
