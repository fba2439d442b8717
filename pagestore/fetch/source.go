package fetch

import (
	"context"
	"errors"
)

// An Object is what frames belong to. What its parts mean is between the caller and the sources.
type Object struct{ Namespace, Key string }

func (o Object) String() string { return o.Namespace + "/" + o.Key }

// A Class says how urgent a frame is.
type Class uint8

// The classes, the most urgent first.
const (
	Demand Class = iota // a process waits for it
	Ahead               // somebody will, soon
	Mirror              // to have it

	classes
)

var classNames = [classes]string{"demand", "ahead", "mirror"}

func (c Class) String() string {
	if c < classes {
		return classNames[c]
	}
	return "unknown class"
}

// bulk reports whether nobody waits for frames of the class.
func (c Class) bulk() bool { return c != Demand }

// A Deliver takes a frame. The content is the source's, and valid during the call only. The error wraps [ErrWrong] if the content is not
// that of the frame. Any other error says that the caller cannot take it, which is no fault of the source.
type Deliver func(frame int, content []byte) error

// A Source is a place that has frames. It is safe for concurrent use.
type Source interface {
	// String names the place, for people and for metrics; it does not change. Sources with the same name are the same place: they share
	// connections, and what is known of them.
	String() string

	// Frames brings n >= 1 frames of an object from first on, and delivers them in order, on the calling goroutine. It returns the error of
	// deliver as soon as there is one, and returns soon after ctx has ended. Errors wrap ErrNotHere, ErrNotYet, ErrWrong, ErrDiffers or ErrBusy
	// where these fit; after any other the frames may be asked for again. When deliver says ErrWrong it may find out first whether that is
	// really ErrDiffers, or whether it has looked in the wrong place: then it may deliver that frame and the rest anew, once.
	Frames(ctx context.Context, o Object, first, n int, deliver func(frame int, content []byte) error) error
}

// A Profile is what a Source says of itself.
type Profile struct {
	// Tier is how far the place is from what we should like: 0 a peer, 1 an object store that all share, for example. A source of a higher
	// tier is asked when those of lower ones cannot deliver, or are four times as slow.
	Tier int
	// Connections is how many requests the place gets at the same time; 0: as Options.Connections says.
	Connections int
}

// A Profiler is a Source with a Profile, which does not change. Others have the zero Profile.
type Profiler interface{ Profile() Profile }

// Errors of sources, and of Fetch.
var (
	// ErrNotHere: this source does not have the object.
	ErrNotHere = errors.New("not here")
	// ErrNotYet: this source does not have these frames, and may have others of the object.
	ErrNotYet = errors.New("not here yet")
	// ErrDiffers: this source has another object by that name. It is wrong, or whoever says what the object is.
	ErrDiffers = errors.New("another object has that name here")
	// ErrWrong: these bytes are not the frame's.
	ErrWrong = errors.New("wrong bytes")
	// ErrBusy: the source asks to be left alone for a while.
	ErrBusy = errors.New("busy")
	// ErrClosed: the Fetcher is closed.
	ErrClosed = errors.New("fetcher is closed")
)

// Errors that requests end with by themselves.
var (
	errStalled  = errors.New("no frame came in time")
	errShort    = errors.New("fewer frames than were asked for")
	errOrder    = errors.New("frame out of turn")
	errUnwanted = errors.New("nobody wants these frames any more")
)

// A Kind is what sort of error a request ended with.
type Kind uint8

// The kinds of errors. What is cancelled because nobody wants it any more is no error.
const (
	NotHere Kind = iota // ErrNotHere, ErrNotYet
	Wrong               // ErrWrong, from the source or from who took the frame
	Busy                // ErrBusy
	Stalled             // no frame within Options.Stall
	Short               // fewer frames than asked for, or out of turn
	Differs             // ErrDiffers
	Other               // anything else: refused, reset, denied

	kinds
)

var kindNames = [kinds]string{"not_here", "wrong", "busy", "stalled", "short", "differs", "other"}

// String returns a name that is fit for a label.
func (k Kind) String() string {
	if k < kinds {
		return kindNames[k]
	}
	return "unknown"
}

func kindOf(err error) Kind {
	switch {
	case errors.Is(err, ErrDiffers):
		return Differs
	case errors.Is(err, ErrWrong):
		return Wrong
	case errors.Is(err, ErrNotHere), errors.Is(err, ErrNotYet):
		return NotHere
	case errors.Is(err, ErrBusy):
		return Busy
	case errors.Is(err, errStalled):
		return Stalled
	case errors.Is(err, errShort), errors.Is(err, errOrder):
		return Short
	default:
		return Other
	}
}
