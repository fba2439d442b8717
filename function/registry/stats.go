package registry

import (
	"fmt"
	"time"

	"thaw/cpu"
	"thaw/function/version"
)

// Stats is what is known of the snapshots of a version, or of a template. It is a value: [Registry.UpdateVersion] and
// [Registry.UpdateTemplate] change it on the disk.
type Stats struct {
	Snapshots []Snapshot `json:"snapshots,omitempty"`
	// Cold are the cold boots, by the name of the object: from the start of an instance until it was ready.
	Cold map[string]*Times `json:"cold,omitempty"`
}

// Kind is what a snapshot is of.
type Kind string

// State is whether a snapshot is used.
type State string

// Kinds and states, part of the format.
const (
	KindFunction Kind = "function" // a function or class that has run enter(snap=True)
	KindTemplate Kind = "template" // a process that has imported modules, for functions to be made on

	StateGood     State = "good"
	StateSetAside State = "set aside" // it failed too often, and is used no more
)

// Snapshot is what is known of one snapshot.
type Snapshot struct {
	Name string      `json:"name"` // in the page store
	Kind Kind        `json:"kind"`
	Key  version.Key `json:"key"` // of the version or the template
	// Object is the function or class that it is of, and Parameters, in JSON, what that was constructed with; empty for a
	// template, and for an object without parameters.
	Object     string `json:"object,omitempty"`
	Parameters string `json:"parameters,omitempty"`
	// Template is the name of the snapshot on which it was taken; empty if it was taken from scratch.
	Template string `json:"template,omitempty"`
	// CPU are the features that its process may use.
	CPU cpu.Set `json:"cpu"`

	Bytes    uint64    `json:"bytes"`     // memory of the process
	NewBytes uint64    `json:"new_bytes"` // of these, what was not in the page store before
	Created  time.Time `json:"created"`

	State    State     `json:"state"`
	Reason   string    `json:"reason,omitempty"` // why it was set aside, or how it failed last
	SetAside time.Time `json:"set_aside,omitzero"`

	Uses          uint64    `json:"uses"` // restores that came up
	LastUsed      time.Time `json:"last_used,omitzero"`
	Failures      uint64    `json:"failures,omitempty"`
	FailuresInRow int       `json:"failures_in_row,omitempty"` // since it was last Proven

	// Restored are the restored boots: from the start of an instance until it was ready.
	Restored Times `json:"restored"`
}

// CameUp notes a restore that became ready after the time boot. It says nothing yet of the memory that only calls touch: see [Snapshot.Proven].
func (s *Snapshot) CameUp(now time.Time, boot time.Duration) {
	s.Uses++
	s.LastUsed = now
	s.Restored.Add(boot)
}

// Proven ends the row of failures: what was restored has done what it is there for.
func (s *Snapshot) Proven() { s.FailuresInRow = 0 }

// Failed notes a restore that did not come up, whose after-restore hooks failed, or that ended before it was of use. After limit of them in a
// row the snapshot is set aside.
func (s *Snapshot) Failed(now time.Time, reason string, limit int) {
	s.Failures++
	s.FailuresInRow++
	s.Reason = reason
	if s.FailuresInRow >= limit {
		s.State, s.SetAside = StateSetAside, now
	}
}

// Best returns the snapshot for an instance of the object with the parameters on a host with those features: of the good ones
// that the host may have, the one that may use most of them, and of these the newest. nil if there is none.
func (s *Stats) Best(object, parameters string, host cpu.Set) *Snapshot {
	var best *Snapshot
	for i := range s.Snapshots {
		c := &s.Snapshots[i]
		if c.State != StateGood || c.Object != object || c.Parameters != parameters || host.Admit(c.CPU) != nil {
			continue
		}
		if best == nil || len(c.CPU) > len(best.CPU) || len(c.CPU) == len(best.CPU) && c.Created.After(best.Created) {
			best = c
		}
	}
	return best
}

// Snapshot returns the one of that name, or nil. It stays part of s.
func (s *Stats) Snapshot(name string) *Snapshot {
	for i := range s.Snapshots {
		if s.Snapshots[i].Name == name {
			return &s.Snapshots[i]
		}
	}
	return nil
}

// Remove forgets the snapshot of that name, if it is there.
func (s *Stats) Remove(name string) {
	for i := range s.Snapshots {
		if s.Snapshots[i].Name == name {
			s.Snapshots = append(s.Snapshots[:i], s.Snapshots[i+1:]...)
			return
		}
	}
}

// AddCold notes a cold boot of the object.
func (s *Stats) AddCold(object string, boot time.Duration) {
	if s.Cold == nil {
		s.Cold = make(map[string]*Times)
	}
	if s.Cold[object] == nil {
		s.Cold[object] = new(Times)
	}
	s.Cold[object].Add(boot)
}

// Factor returns how much faster the snapshot boots than a cold start: the median of the one over that of the other. ok is false
// until there is one of each.
func (s *Stats) Factor(of *Snapshot) (factor float64, ok bool) {
	cold, ok := s.Cold[of.Object].Median()
	if !ok {
		return 0, false
	}
	restored, ok := of.Restored.Median()
	if !ok || restored <= 0 {
		return 0, false
	}
	return float64(cold) / float64(restored), true
}

func (s *Stats) check() error {
	for i := range s.Snapshots {
		c := &s.Snapshots[i]
		switch {
		case c.Name == "" || s.Snapshot(c.Name) != c:
			return fmt.Errorf("snapshot %q has no name, or another's", c.Name)
		case c.Kind != KindFunction && c.Kind != KindTemplate:
			return fmt.Errorf("snapshot %s: unknown kind %q", c.Name, c.Kind)
		case c.State != StateGood && c.State != StateSetAside:
			return fmt.Errorf("snapshot %s: unknown state %q", c.Name, c.State)
		case c.FailuresInRow < 0 || uint64(c.FailuresInRow) > c.Failures:
			return fmt.Errorf("snapshot %s: %d failures in a row of %d", c.Name, c.FailuresInRow, c.Failures)
		}
		if err := c.Restored.check(); err != nil {
			return fmt.Errorf("snapshot %s: %w", c.Name, err)
		}
	}
	for object, t := range s.Cold {
		if t == nil {
			return fmt.Errorf("cold boots of %s are missing", object)
		}
		if err := t.check(); err != nil {
			return fmt.Errorf("cold boots of %s: %w", object, err)
		}
	}
	return nil
}
