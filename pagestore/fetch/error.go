package fetch

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// An Error says why frames could not be brought.
type Error struct {
	Object  Object
	Frame   int // the first that did not come; what Sources says is of it
	Missing int // how many frames did not come
	// Cause is why waiting ended: that of the context, or ErrClosed.
	Cause error
	// Sources is what each source said that was asked, or why it was not. It may be empty.
	Sources []SourceError
}

// A SourceError is why one source did not bring a frame.
type SourceError struct {
	Source   string
	Attempts int // requests for this frame that failed
	Err      error
}

// What is said of sources that did not say anything.
var (
	errNoAnswer = errors.New("has not answered yet")
	errNotAsked = errors.New("not asked yet")
)

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "fetch frame %d of %s", e.Frame, e.Object)
	if e.Missing > 1 {
		fmt.Fprintf(&b, " and %d more", e.Missing-1)
	}
	fmt.Fprintf(&b, ": %v", e.Cause)
	if len(e.Sources) == 0 {
		b.WriteString("; no source is known")
	}
	for _, s := range e.Sources {
		fmt.Fprintf(&b, "; %s: %v", s.Source, s.Err)
		if s.Attempts > 1 {
			fmt.Fprintf(&b, " (%d times)", s.Attempts)
		}
	}
	return b.String()
}

// Unwrap returns the cause and what the sources said.
func (e *Error) Unwrap() []error {
	all := []error{e.Cause}
	for _, s := range e.Sources {
		all = append(all, s.Err)
	}
	return all
}

// errorLocked says why frames of a call did not come.
func (f *Fetcher) errorLocked(c *call, cause error, now time.Time) *Error {
	e := &Error{Object: c.ob.name, Frame: c.first, Missing: c.missing, Cause: cause}
	for frame := c.first; frame < c.first+c.n; frame++ {
		if fl := c.ob.flights[frame]; fl != nil && fl.waitsFor(c) {
			e.Frame, e.Sources = frame, c.ob.reasons(fl, now)
			break
		}
	}
	return e
}

// reasons returns why a frame has not come, by source.
func (ob *object) reasons(fl *flight, now time.Time) []SourceError {
	var all []SourceError
	for _, c := range ob.candidates {
		e := SourceError{Source: c.name, Err: errNotAsked}
		switch t := fl.tried(c.source); {
		case t != nil:
			e.Err, e.Attempts = t.err, t.fails
		case ob.distrusted(c.source).After(now):
			e.Err = fmt.Errorf("set aside for %v: %w", ob.distrusted(c.source).Sub(now).Round(time.Second), c.lie)
		case ob.absent[c.source].until.After(now):
			e.Err = ErrNotHere
		case fl.askedOf(c.source):
			e.Err = errNoAnswer
		case c.restUntil.After(now):
			e.Err = c.lastErr
		}
		all = append(all, e)
	}
	for _, t := range fl.tries { // sources that are no longer named
		if ob.candidate(t.source) == nil {
			all = append(all, SourceError{Source: t.source.name, Attempts: t.fails, Err: t.err})
		}
	}
	return all
}
