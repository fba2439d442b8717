package workingset

import (
	"errors"
	"fmt"
	"math/bits"
	"time"
)

// PageSize is the unit of images and files, in bytes.
const PageSize = 4096

// These constants are part of the format; do not change them.
const (
	// Depth is how many recordings the history of a page has at most.
	Depth = 32
	// MaxImagePages bounds an image, as manifests do.
	MaxImagePages = 1 << 46

	maxFilePages = 1 << 51 // a file has at most 2^63 bytes
	maxPath      = 4095    // bytes, as in Linux
	maxObjects   = 1 << 16
)

// ErrForeign is returned, wrapped, for recordings and sets of another snapshot.
var ErrForeign = errors.New("working set of another snapshot")

// A Set is what several recordings say of a snapshot.
type Set struct {
	Digest     [32]byte // of the snapshot's manifest
	ImagePages uint64   // pages of its image, whether touched or not; all page numbers of the image are less

	// Recordings is how many complete ones the set has learned from, Partial how many that lacked touches. They stop at
	// 2^32-1.
	Recordings, Partial uint32

	// Objects are ascending by path. The first one is the image, and is always there; the others have entries.
	Objects []Object
	// Hidden are the pages of the image that have no entry and were not observable in all complete recordings: ascending,
	// apart, and two that touch differ in Known. It is what the history of such a page will be made of, should it be touched.
	Hidden []Hidden
}

// An Object is the image or a file.
type Object struct {
	Path    string  // empty for the image
	Entries []Entry // ascending by page
}

// An Entry is a page that was touched in a recording of its history.
type Entry struct {
	Page   uint64
	Bucket Bucket // the earliest of its first touches, of all recordings since it is in the set
	Write  bool   // it was written, at first or later, in one of them
	Known  uint8  // length of the history, 1 to Depth

	// The history. Bit 0 stands for the last recording in which the page was observable, bit 1 for the one before, and so on
	// up to Known; one of the masks has the bit if the page was touched, by when that was. Not all are 0.
	Start, Request, Later uint32
}

// Hidden are pages that were observable in Known recordings only; Known is less than Depth and less than Recordings.
type Hidden struct {
	Page, Pages uint64
	Known       uint8
}

// NewSet returns a set of the snapshot that has learned nothing yet.
func NewSet(digest [32]byte, imagePages uint64) *Set {
	return &Set{Digest: digest, ImagePages: imagePages, Objects: []Object{{}}}
}

// Match returns nil if the set is of the snapshot, and otherwise an error that wraps ErrForeign.
func (s *Set) Match(digest [32]byte, imagePages uint64) error {
	switch {
	case s.Digest != digest:
		return fmt.Errorf("%w: of manifest %x, not %x", ErrForeign, s.Digest[:8], digest[:8])
	case s.ImagePages != imagePages:
		return fmt.Errorf("%w: of an image of %d pages, not %d", ErrForeign, s.ImagePages, imagePages)
	}
	return nil
}

// Learned returns how many recordings the set is made of, complete or not.
func (s *Set) Learned() int { return int(s.Recordings) + int(s.Partial) }

// Image returns the entries of the image. They belong to the set.
func (s *Set) Image() []Entry { return s.Objects[0].Entries }

// Seen has the bits of the recordings of the history in which the page was touched.
func (e *Entry) Seen() uint32 { return e.Start | e.Request | e.Later }

// Support returns in how many recordings the page was touched, of how many in which it was observable. Neither is 0.
func (e *Entry) Support() (seen, known int) { return bits.OnesCount32(e.Seen()), int(e.Known) }

// early returns in how many recordings the page was touched before the first answer.
func (e *Entry) early() int { return bits.OnesCount32(e.Start | e.Request) }

func (e *Entry) share() float64 {
	seen, known := e.Support()
	return float64(seen) / float64(known)
}

// Phase returns the most frequent one of the history: one odd restore does not make a page urgent. Of two that are as
// frequent it is the earlier one, since what is brought too late costs a fault and what is brought too early only its place.
func (e *Entry) Phase() Phase {
	phase, n := PhaseStart, bits.OnesCount32(e.Start)
	if r := bits.OnesCount32(e.Request); r > n {
		phase, n = PhaseRequest, r
	}
	if bits.OnesCount32(e.Later) > n {
		phase = PhaseLater
	}
	return phase
}

// A Phase is when a page was first touched, as seen by somebody who waits. The numbers are part of the format; do not
// change them.
type Phase uint8

// The phases, the earliest one first.
const (
	PhaseStart   Phase = iota // before the first request was made
	PhaseRequest              // from then to the first answer
	PhaseLater                // after it
	lastPhase    = PhaseLater
)

var phaseNames = [...]string{"start", "request", "later"}

func (p Phase) String() string {
	if p <= lastPhase {
		return phaseNames[p]
	}
	return fmt.Sprintf("phase %d", uint8(p))
}

// MarshalText makes JSON say the name.
func (p Phase) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// A Bucket is a span of time since the processes began to run: 0 is before that, 1 is the first 250 us, and each further one
// lasts until twice the time; the last one has no end. The numbers are part of the format; do not change them.
type Bucket uint8

// LastBucket is the one without an end.
const LastBucket Bucket = 15

const firstBucket = 250 * time.Microsecond

// BucketOf returns the one of a time since the processes began to run.
func BucketOf(t time.Duration) Bucket {
	if t < 0 {
		return 0
	}
	b := Bucket(1)
	for b < LastBucket && t >= b.Until() {
		b++
	}
	return b
}

// Until returns when the bucket ends: 0 for bucket 0, and for the last one a time that is not reached.
func (b Bucket) Until() time.Duration {
	switch {
	case b == 0:
		return 0
	case b >= LastBucket:
		return 1<<63 - 1
	}
	return firstBucket << (b - 1)
}
