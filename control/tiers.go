package control

import (
	"fmt"
	"time"
)

// PullMode says how much of a snapshot that is elsewhere a pull brings.
type PullMode string

const (
	// PullOnDemand brings what a restore needs besides memory. Pages come when they are wanted.
	PullOnDemand PullMode = "on-demand"
	// PullWorkingSet brings the pages that a restore wants first, too.
	PullWorkingSet PullMode = "working-set"
	// PullWhole brings everything: afterwards no other place is needed.
	PullWhole PullMode = "whole"
)

// PullModes lists all modes.
func PullModes() []PullMode { return []PullMode{PullOnDemand, PullWorkingSet, PullWhole} }

// PullRequest is the body of POST /v1/snapshots/{namespace}/{name}/pull.
type PullRequest struct {
	Mode PullMode `json:"mode,omitempty"` // default: on-demand
}

// Validate returns an [Error] with [CodeInvalid] unless the mode is known.
func (r *PullRequest) Validate() error {
	switch r.Mode {
	case "", PullOnDemand, PullWorkingSet, PullWhole:
		return nil
	}
	return &Error{Code: CodeInvalid, Message: fmt.Sprintf("mode %q is none of %q, %q and %q", r.Mode, PullOnDemand, PullWorkingSet, PullWhole)}
}

// PullReport says what a pull did.
type PullReport struct {
	Snapshot string `json:"snapshot"` // full name
	Here     bool   `json:"here"`     // it was here before, if perhaps without its pages

	// Descriptor is the digest of what the name stands for, Source the place that said so. Not set if it was here before.
	Descriptor string `json:"descriptor,omitempty"`
	Source     string `json:"source,omitempty"`
	MetaBytes  uint64 `json:"meta_bytes"` // of manifest, skeleton and what is known of the working set, as they came

	// StoredPages of the snapshot are not zero; LocalPages of them are here now.
	StoredPages uint64 `json:"stored_pages"`
	LocalPages  uint64 `json:"local_pages"`

	// How long it took, in seconds, until it was known what the name stands for, until it could be restored, and in all.
	Resolved float64 `json:"resolved_s"`
	Adopted  float64 `json:"adopted_s"`
	Took     float64 `json:"took_s"`
}

// SourceTier says how far away a place is.
type SourceTier string

const (
	// TierPeer is another node.
	TierPeer SourceTier = "peer"
	// TierObjectStore is what all nodes share.
	TierObjectStore SourceTier = "object_store"
)

// SourceTiers lists all tiers but this machine itself.
func SourceTiers() []SourceTier { return []SourceTier{TierPeer, TierObjectStore} }

// Tiers is the answer to GET /v1/tiers: the places beyond this node's store, and what came from them since thawd began.
type Tiers struct {
	Node        string       `json:"node,omitempty"`         // name among the peers; not set without peers
	ObjectStore string       `json:"object_store,omitempty"` // not set without one
	Members     []TierMember `json:"members"`                // as this node sees them, itself too
	Sources     []TierSource `json:"sources"`                // that were asked for pages, by name

	Waiting int    `json:"waiting"` // frames that are waited for now
	Joined  uint64 `json:"joined"`  // frames that were asked for while they were on their way already

	// RemoteBytes of the disk are taken by what came from afar, as of some seconds ago at most; it may be RemoteLimit, or without
	// bound if that is 0.
	RemoteBytes uint64 `json:"remote_bytes"`
	RemoteLimit uint64 `json:"remote_limit_bytes"`

	Served TierServed `json:"served"`         // to peers
	Made   *TierMade  `json:"made,omitempty"` // not set if nothing is made for peers before they ask, or not looked for yet
	Push   *TierPush  `json:"push,omitempty"` // not set if new snapshots are not pushed
}

// TierMember is a node that peers see.
type TierMember struct {
	Node    string `json:"node"`
	Address string `json:"address"`
	Down    bool   `json:"down"` // it could not be reached the last time, and is not asked for a while
}

// TierSource is what came from one place.
type TierSource struct {
	Source  string     `json:"source"`
	Tier    SourceTier `json:"tier"`
	Running int        `json:"running"` // requests

	// Seconds to the first frame of a request: smoothed, and the 95th percentile of late; 0 if nothing is known.
	Typical float64 `json:"typical_s"`
	Slow    float64 `json:"slow_s"`

	Lies      uint64     `json:"lies"`                // how often it delivered wrong bytes
	SetAside  *time.Time `json:"set_aside,omitempty"` // until when it is asked only if nobody else can be: they were of several objects
	LastError string     `json:"last_error,omitempty"`

	// Classes are by urgency: demand (a process waits), ahead (one will), mirror (to have it), and hot (the pages that restores
	// want first, which come as one stream).
	Classes map[string]TierClass `json:"classes"`
}

// TierClass is what one place did for one class.
type TierClass struct {
	Requests     uint64            `json:"requests"`
	Retries      uint64            `json:"retries"`
	Hedges       uint64            `json:"hedges"`        // requests because another took long
	HedgesWon    uint64            `json:"hedges_won"`    // that delivered first
	HedgesWasted uint64            `json:"hedges_wasted"` // that did not
	Frames       uint64            `json:"frames"`        // that were taken
	Bytes        uint64            `json:"bytes"`         // of content of these
	WastedBytes  uint64            `json:"wasted_bytes"`  // of content that was not taken
	Errors       map[string]uint64 `json:"errors"`        // requests that failed, by kind
	FirstFrame   float64           `json:"first_frame_s"` // mean seconds to the first frame; 0 if none came
}

// TierServed is what this node served to its peers.
type TierServed struct {
	Requests uint64 `json:"requests"`
	Refused  uint64 `json:"refused"` // of these: not a member, not here, too busy
	Bytes    uint64 `json:"bytes"`
}

// TierMade says how far it has come to make, ahead of time, what peers ask for first of each snapshot.
type TierMade struct {
	Prepared  int    `json:"prepared"`    // snapshots for which nothing is left to be made
	Waiting   int    `json:"waiting"`     // that are to be, or again after an error
	LeftOut   int    `json:"left_out"`    // for which there is no room
	Bytes     uint64 `json:"bytes"`       // of the disk that are taken, also by what was made when it was asked for
	Limit     uint64 `json:"limit_bytes"` // of them
	Failed    uint64 `json:"failed"`      // tries
	LastError string `json:"last_error,omitempty"`
}

// TierPush says how far the pushing of new snapshots has come.
type TierPush struct {
	Waiting   int    `json:"waiting"` // snapshots that are to be pushed, or again after an error
	Pushed    uint64 `json:"pushed"`
	Failed    uint64 `json:"failed"`     // tries
	SentBytes uint64 `json:"sent_bytes"` // over the wire
	LastError string `json:"last_error,omitempty"`
}

// SessionTiers says where the pages of a session's snapshot came from. Sessions of one snapshot that run at the same time share what
// comes: it counts in each of them.
type SessionTiers struct {
	StoredPages uint64 `json:"stored_pages"` // of the snapshot, that are not zero
	LocalPages  uint64 `json:"local_pages"`  // of these, the ones that were here when the session was made

	Peer        TierCount `json:"peer"`
	ObjectStore TierCount `json:"object_store"`

	// HitRatio is the share of its pages that were here, or came from peers: what did not need the object store.
	HitRatio float64 `json:"hit_ratio"`
}

// TierCount is what came from the places of one tier.
type TierCount struct {
	Frames uint64 `json:"frames"`
	Bytes  uint64 `json:"bytes"` // of content
}
