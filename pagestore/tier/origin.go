package tier

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"thaw/pagestore"
	"thaw/pagestore/blob"
	"thaw/pagestore/fetch"
	"thaw/pagestore/internal/frame"
)

// OriginOptions are how an Origin works.
type OriginOptions struct {
	// Places says where blobs may be had from.
	Places Places
	// Fetch is how packs are brought. Its Observe is told of hot objects, too, its Log of wrong bytes of anything.
	Fetch fetch.Options
	// Stagger is how long a place may take to begin with a hot object before the next one is asked as well. Default 100 ms. Not measured: several times a round trip.
	Stagger time.Duration
}

// Origin brings the pages of one store's stubs from the places beyond it, each from whichever delivers it soonest. It is a [pagestore.Origin]. Its calls go on until
// their contexts end: for how long a page may be waited for is the caller's policy.
type Origin struct {
	opts    OriginOptions
	fetcher *fetch.Fetcher
	objects objects

	mu     sync.Mutex
	closed bool
	ahead  map[Key]*aheadHot // hot objects that were asked for before anybody wanted them; protected by mu
	using  sync.WaitGroup    // aheads that run; Add with mu
}

var _ pagestore.Origin = (*Origin)(nil)

// NewOrigin returns an Origin for one store, to be closed after the store.
func NewOrigin(opts OriginOptions) *Origin {
	if opts.Stagger <= 0 {
		opts.Stagger = 100 * time.Millisecond
	}
	if opts.Fetch.Stall <= 0 {
		opts.Fetch.Stall = 5 * time.Second
	}
	if opts.Fetch.Log == nil {
		opts.Fetch.Log = slog.New(slog.DiscardHandler)
	}
	o := &Origin{opts: opts, ahead: make(map[Key]*aheadHot)}
	o.fetcher = fetch.New(opts.Fetch, o.sources)
	return o
}

// Close ends all calls, and waits for them.
func (o *Origin) Close() {
	o.mu.Lock()
	o.closed = true
	ahead := o.ahead
	o.ahead = nil
	o.mu.Unlock()
	for _, a := range ahead {
		a.discard()
	}
	o.using.Wait()
	o.fetcher.Close()
}

// Stats returns what the fetcher has done and knows of the places. Of hot and meta objects only lies are in it.
func (o *Origin) Stats() fetch.Stats { return o.fetcher.Stats() }

// Fetch implements [pagestore.Origin].
func (o *Origin) Fetch(ctx context.Context, p *pagestore.RemotePack, first, n int, class pagestore.Class) error {
	key := PackKey(p.Namespace, p.ID)
	object := fetchObject(key)
	object.Key += claimMark + p.Claim() // frames go to the one that asks for them
	ob := o.objects.use(object.Key, key, p.Pages, p.Root, p.Nodes())
	defer o.objects.release(ob)
	return o.fetcher.Fetch(ctx, object, first, n, fetchClass(class), func(number int, content []byte) error {
		if p.Nodes() == nil {
			if err := p.SetNodes(ob.knownNodes()); err != nil { // compared with the root when they came
				return err
			}
		}
		return admitted(p.Admit(number, content))
	})
}

// admitted tells wrong bytes from a store that cannot take right ones.
func admitted(err error) error {
	if errors.Is(err, pagestore.ErrWrongBytes) {
		return fmt.Errorf("%w: %w", fetch.ErrWrong, err)
	}
	return err
}

// claimMark stands between the key of a pack and its claim. No key has it.
const claimMark = "#"

func fetchObject(k Key) fetch.Object { return fetch.Object{Namespace: k.Namespace, Key: k.String()} }

func fetchClass(c pagestore.Class) fetch.Class {
	switch c {
	case pagestore.Demand:
		return fetch.Demand
	case pagestore.Ahead:
		return fetch.Ahead
	}
	return fetch.Mirror
}

// ObjectKey returns the key of what a [fetch.Event] of an Origin's is about.
func ObjectKey(object fetch.Object) (Key, error) {
	text, _, _ := strings.Cut(object.Key, claimMark)
	return ParseKey(text)
}

// sources returns the places of an object as the fetcher knows them.
func (o *Origin) sources(object fetch.Object) []fetch.Source {
	key, err := ObjectKey(object)
	if err != nil {
		return nil // we made it
	}
	var all []fetch.Source
	for _, p := range o.opts.Places(key) {
		all = append(all, &source{o, p})
	}
	return all
}

// source is a place as a fetch.Source of packs.
type source struct {
	origin *Origin
	place  Place
}

var _ fetch.Profiler = (*source)(nil)

func (s *source) String() string { return s.place.String() }

func (s *source) Profile() fetch.Profile {
	return fetch.Profile{Tier: s.place.Tier, Connections: s.place.Connections}
}

// Frames implements [fetch.Source].
func (s *source) Frames(ctx context.Context, object fetch.Object, first, n int, deliver func(number int, content []byte) error) error {
	ob := s.origin.objects.find(object.Key)
	if ob == nil {
		return fetch.ErrNotHere // nobody wants it any more
	}
	delivered := 0
	count := func(number int, content []byte) error {
		err := deliver(number, content)
		if err == nil {
			delivered++
		}
		return err
	}
	x, known, err := ob.index(ctx, s.place)
	if err != nil {
		return sourceError(err)
	}
	err = readFrames(ctx, s.place, ob.key, x, first, n, count)
	switch {
	case errors.Is(err, fetch.ErrWrong):
		return s.doubt(ctx, ob, known, err, func(x *frame.Index) error {
			return readFrames(ctx, s.place, ob.key, x, first+delivered, n-delivered, count)
		})
	case errors.Is(err, blob.ErrNotFound) && s.place.Raw:
		return fmt.Errorf("%w: %w", fetch.ErrNotYet, err) // it may have others
	}
	return sourceError(err)
}

// doubt finds out what it means that a place has delivered wrong bytes. It may have another object, by its own index; and where frames lie was taken
// from elsewhere if known, and may have changed: then again reads the rest.
func (s *source) doubt(ctx context.Context, ob *object, known bool, wrong error, again func(x *frame.Index) error) error {
	ob.forget(s.place)
	x, err := readIndex(ctx, s.place, ob.key, ob.pages, ob.root)
	switch {
	case errors.Is(err, errDiffers):
		return sourceError(err)
	case err != nil || !known || s.place.Raw:
		return wrong
	}
	ob.keep(s.place, x)
	return sourceError(again(x))
}

// sourceError is an error of a place as the fetcher knows it.
func sourceError(err error) error {
	switch {
	case errors.Is(err, errDiffers):
		return fmt.Errorf("%w: %w", fetch.ErrDiffers, err)
	case errors.Is(err, blob.ErrNotFound), errors.Is(err, blob.ErrDenied):
		return fmt.Errorf("%w: %w", fetch.ErrNotHere, err)
	case errors.Is(err, blob.ErrBusy):
		return fmt.Errorf("%w: %w", fetch.ErrBusy, err)
	case errors.Is(err, errWrong), errors.Is(err, blob.ErrRange): // it is shorter than its index says
		return fmt.Errorf("%w: %w", fetch.ErrWrong, err)
	}
	return err
}

// blame notes that a place has delivered wrong bytes of what does not come in frames, if that is what the error says.
func (o *Origin) blame(p Place, key Key, err error) {
	if err := sourceError(err); errors.Is(err, fetch.ErrWrong) {
		o.fetcher.Lied(&source{o, p}, fetchObject(key), err)
	}
}

// trusted returns those of some places that are to be asked for what does not come in frames, in the same order.
func (o *Origin) trusted(key Key, places []Place) (left []Place) {
	all := make([]fetch.Source, len(places))
	for i, p := range places {
		all[i] = &source{o, p}
	}
	for _, s := range o.fetcher.Trusted(fetchObject(key), all) {
		left = append(left, s.(*source).place)
	}
	return left
}

// buffers are for the bytes of a frame and for its content.
var buffers = sync.Pool{New: func() any { return new([2 * frame.HotPages * pagestore.PageSize]byte) }}

// readFrames reads frames of an object at one place with one request.
func readFrames(ctx context.Context, place Place, key Key, x *frame.Index, first, n int, deliver func(number int, content []byte) error) error {
	last := first + n - 1
	body, err := place.Open(ctx, key.String(), x.Offset(first), x.Offset(last)+int64(x.Length(last))-x.Offset(first))
	if err != nil {
		return err
	}
	defer body.Close()
	buf := buffers.Get().(*[2 * frame.HotPages * pagestore.PageSize]byte)
	defer buffers.Put(buf)
	for number := first; number <= last; number++ {
		b := buf[:x.Length(number)]
		if _, err := io.ReadFull(body, b); err != nil {
			return fmt.Errorf("read frame %d of %s: %w", number, key, err)
		}
		content, err := x.Decode(buf[len(buf)/2:], b, number)
		if err != nil {
			return fmt.Errorf("%w: %s: %w", fetch.ErrWrong, key, err)
		}
		if err := deliver(number, content); err != nil {
			return err
		}
	}
	return nil
}

// hotStream is a hot object that has begun to come from one place.
type hotStream struct {
	place Place
	index *frame.Index
	first int           // the frame that comes first
	body  io.ReadCloser // from that frame on
	end   context.CancelFunc
	began time.Time
}

func (s *hotStream) Close() error {
	s.end()
	return s.body.Close()
}

// openHot has the first place that answers begin with a hot object, at a frame of it.
func (o *Origin) openHot(ctx context.Context, key Key, pages uint32, root pagestore.Digest, first int, places []Place) (*hotStream, error) {
	r := race[*hotStream]{
		ask: func(ctx context.Context, p Place) (*hotStream, error) {
			ctx, cancel := context.WithCancel(ctx)
			stalled := time.AfterFunc(o.opts.Fetch.Stall, cancel)
			defer stalled.Stop()
			s, err := openHotAt(ctx, p, key, pages, root, first)
			if err != nil {
				cancel()
				o.blame(p, key, err)
				return nil, err
			}
			s.end = cancel
			return s, nil
		},
		drop: func(s *hotStream) { s.Close() },
	}
	a, err := r.run(ctx, o.trusted(key, places), o.opts.Stagger)
	if err != nil {
		return nil, err
	}
	end := a.value.end
	a.value.end = func() { end(); a.cancel() }
	return a.value, nil
}

func openHotAt(ctx context.Context, p Place, key Key, pages uint32, root pagestore.Digest, first int) (*hotStream, error) {
	s := &hotStream{place: p, first: first, began: time.Now()}
	body, err := p.Open(ctx, key.String(), 0, -1)
	if err != nil {
		return nil, err
	}
	if s.index, err = parseHead(body, key, pages, root); err != nil {
		return nil, errors.Join(err, body.Close())
	}
	if first > 0 { // another place has brought what comes before
		body.Close() // of what is only read
		if body, err = p.Open(ctx, key.String(), s.index.Offset(first), s.index.Size()-s.index.Offset(first)); err != nil {
			return nil, err
		}
	}
	s.body = body
	return s, nil
}

// hotRounds is how often all places are asked for a hot object. Who needs a page of it does not wait for more: it is in a pack, too.
const hotRounds = 2

// FetchHot implements [pagestore.Origin]: the object comes as one stream, from the first place that answers. If that breaks off, the next goes on.
func (o *Origin) FetchHot(ctx context.Context, h *pagestore.RemoteHot) error {
	key := HotKey(h.Snapshot.Namespace, h.Manifest, h.Root)
	var errs []error
	stream := o.takeAhead(ctx, key)
	for range hotRounds {
		places := o.opts.Places(key)
		for {
			if stream == nil {
				var err error
				if stream, err = o.openHot(ctx, key, h.Pages, h.Root, firstMissing(h), places); err != nil {
					errs = append(errs, err)
					break
				}
			}
			err := o.admitHot(ctx, stream, h)
			if err == nil {
				return nil
			}
			o.blame(stream.place, key, err)
			errs = append(errs, fmt.Errorf("%s: %w", stream.place, err))
			places = without(places, stream.place)
			stream = nil
			if ctx.Err() != nil {
				break
			}
		}
		if ctx.Err() != nil {
			return errors.Join(append(errs, context.Cause(ctx))...)
		}
	}
	return errors.Join(errs...)
}

// firstMissing returns the first frame that is not all here, 0 if all are.
func firstMissing(h *pagestore.RemoteHot) int {
	for i := range h.Frames() {
		if h.Missing(i) {
			return i
		}
	}
	return 0
}

func without(places []Place, p Place) (left []Place) {
	for _, q := range places {
		if q.String() != p.String() {
			left = append(left, q)
		}
	}
	return left
}

// admitAtOnce is how many frames of a stream are decompressed and checked at a time, beside reading the next.
const admitAtOnce = 4

// admitHot reads a stream to its end and admits what is missing.
func (o *Origin) admitHot(ctx context.Context, s *hotStream, h *pagestore.RemoteHot) (err error) {
	defer s.Close()
	event := fetch.Event{
		Object: fetchObject(HotKey(h.Snapshot.Namespace, h.Manifest, h.Root)), Source: s.place.String(), Class: fetch.Ahead,
		First: s.first, Frames: h.Frames() - s.first, Started: s.began, FirstFrame: time.Since(s.began),
	}
	defer func() {
		event.Took, event.Err = time.Since(s.began), err
		if o.opts.Fetch.Observe != nil {
			o.opts.Fetch.Observe(event)
		}
	}()
	if h.Nodes() == nil {
		if err := h.SetNodes(s.index.Nodes()); err != nil {
			return err
		}
	}
	stop := context.AfterFunc(ctx, s.end)
	defer stop()
	var g errgroup.Group
	g.SetLimit(admitAtOnce)
	var readErr error
	var mu sync.Mutex
	for i := s.first; i < s.index.Frames(); i++ {
		buf := buffers.Get().(*[2 * frame.HotPages * pagestore.PageSize]byte)
		b := buf[:s.index.Length(i)]
		stalled := time.AfterFunc(o.opts.Fetch.Stall, s.end)
		_, readErr = io.ReadFull(s.body, b)
		stalled.Stop()
		if readErr != nil {
			buffers.Put(buf)
			readErr = fmt.Errorf("read frame %d: %w", i, readErr)
			break
		}
		g.Go(func() error {
			defer buffers.Put(buf)
			content, err := s.index.Decode(buf[len(buf)/2:], b, i)
			if err != nil {
				return fmt.Errorf("%w: %w", fetch.ErrWrong, err)
			}
			if h.Missing(i) {
				if err := h.Admit(i, content); err != nil {
					s.end() // the rest is of no use
					return admitted(err)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			event.Taken++
			event.Bytes += int64(len(content))
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return readErr
}
