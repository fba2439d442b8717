package tier

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"thaw/pagestore"
	"thaw/pagestore/blob"
	"thaw/pagestore/internal/frame"
)

// Place is where blobs of the key space can be read from. Two places with the same String are the same.
type Place struct {
	blob.Reader
	// Tier is how far away it is: 0 a peer, 1 an object store. Those of a higher tier are asked when those of lower ones do not deliver.
	Tier int
	// Raw says that it serves packs without compression, as a Shelf does, so that where a frame lies is known without asking.
	Raw bool
	// Connections is how many requests for frames it gets at a time. 0 stands for the default of package fetch.
	Connections int
}

// Places returns the places that may have a blob, those to ask first at the beginning. It is called by several goroutines at a time and must not wait.
type Places func(k Key) []Place

// errWrong: a place has delivered bytes that are not those of the key.
var errWrong = errors.New("wrong bytes")

// errDiffers is an errWrong: a place has another object by that name, or has it in a format that we do not know. One of the two is wrong, the place or who knows the
// object; or neither.
var errDiffers = fmt.Errorf("%w: another object", errWrong)

// readIndex reads what comes before the frames of a framed object. The error wraps errWrong if it is that of another object.
func readIndex(ctx context.Context, r blob.Reader, key Key, pages uint32, root pagestore.Digest) (*frame.Index, error) {
	h := frame.Header{Kind: frameKind(key), ID: key.Digest, Pages: pages}
	body, err := r.Open(ctx, key.String(), 0, h.HeadSize())
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return parseHead(body, key, pages, root)
}

// parseHead reads what comes before the frames from r.
func parseHead(r io.Reader, key Key, pages uint32, root pagestore.Digest) (*frame.Index, error) {
	want := frame.Header{Kind: frameKind(key), ID: key.Digest, Pages: pages}
	head := make([]byte, want.HeadSize())
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, fmt.Errorf("read index of %s: %w", key, err)
	}
	h, err := frame.ParseHeader(head[:frame.HeaderSize])
	if errors.Is(err, frame.ErrVersion) {
		return nil, fmt.Errorf("%w: %s: %w", errDiffers, key, err)
	} else if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", errWrong, key, err)
	}
	if h.Kind != want.Kind || h.ID != want.ID || h.Pages != want.Pages {
		return nil, fmt.Errorf("%w: %s: object %s has %d pages, want %d", errWrong, key, h.ID, h.Pages, pages)
	}
	x, err := frame.ParseIndex(h, head[frame.HeaderSize:], root)
	if errors.Is(err, frame.ErrOtherRoot) {
		return nil, fmt.Errorf("%w: %s: %w", errDiffers, key, err)
	} else if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", errWrong, key, err)
	}
	return x, nil
}

func frameKind(key Key) frame.Kind {
	if key.Kind == KindHot {
		return frame.Hot
	}
	return frame.Pack
}

// race asks places for the same thing, the next one when one has failed or takes long.
type race[T any] struct {
	ask func(context.Context, Place) (T, error)
	// drop gets what places answer that have lost.
	drop func(T)

	answers chan answer[T]
	cancels []context.CancelFunc // of those that were asked
	pending int                  // have not answered
}

// answer is what one place said. cancel ends what its value needs.
type answer[T any] struct {
	number int
	place  Place
	value  T
	cancel context.CancelFunc
	err    error
}

func (r *race[T]) start(ctx context.Context, p Place) {
	ctx, cancel := context.WithCancel(ctx)
	number := len(r.cancels)
	r.cancels = append(r.cancels, cancel)
	r.pending++
	go func() {
		v, err := r.ask(ctx, p)
		if err != nil {
			err = fmt.Errorf("%s: %w", p, err)
		}
		r.answers <- answer[T]{number, p, v, cancel, err}
	}()
}

// end cancels all but the winner, if there is one, and has what they still answer dropped.
func (r *race[T]) end(winner int) {
	for i, cancel := range r.cancels {
		if i != winner {
			cancel()
		}
	}
	if r.pending == 0 {
		return
	}
	go func() {
		for range r.pending {
			if a := <-r.answers; a.err == nil {
				r.drop(a.value)
			}
		}
	}()
}

// run returns the first answer that is no error, or what all places said. Places are asked in turn: the next one when none is pending, or none has answered for the
// time stagger.
func (r *race[T]) run(ctx context.Context, places []Place, stagger time.Duration) (answer[T], error) {
	winner := -1
	defer func() { r.end(winner) }()
	r.answers = make(chan answer[T], len(places)) // so that no loser waits
	timer := time.NewTimer(0)
	defer timer.Stop()
	var errs []error
	for {
		select {
		case <-timer.C:
			if next := len(r.cancels); next < len(places) {
				r.start(ctx, places[next])
				timer.Reset(stagger)
			}
		case a := <-r.answers:
			r.pending--
			if a.err == nil {
				winner = a.number
				return a, nil
			}
			errs = append(errs, a.err)
			if r.pending == 0 {
				timer.Reset(0)
			}
		case <-ctx.Done():
			return answer[T]{}, errors.Join(append(errs, context.Cause(ctx))...)
		}
		if len(errs) == len(places) {
			return answer[T]{}, errors.Join(append(errs, errNoPlace)...)
		}
	}
}

// errNoPlace ends the list of what places said, which may be empty.
var errNoPlace = errors.New("no place is left to ask")
