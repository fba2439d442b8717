package tier

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"thaw/pagestore"
	"thaw/pagestore/blob"
)

// ShelfOptions are how a Shelf works.
type ShelfOptions struct {
	// MadeBytes is how much of the disk what has to be made may take, meta and hot objects: it is kept for those who ask next. What is being made
	// for somebody who asks, or read, may be more than that. Default: 1 GiB. What goes when something is asked for: first what was prepared and
	// nobody has asked for, then what nobody has asked for for longest. What goes when something is prepared: see [Shelf.Prepare].
	MadeBytes int64
	// TempDir is where that lies, without names. Default: [os.TempDir].
	TempDir string
	// Bring, if it is set, says that this node is to bring frames of a pack that it does not hold when others ask for them, so that they come from farther away once, and
	// not once for each who asks. It applies to packs that a stub here names. The context is that of the asking.
	Bring func(ctx context.Context, k Key) bool
	// Logger receives what goes wrong here, and is not for those who ask. nil discards it.
	Logger *slog.Logger
}

// Shelf is a store seen as a place: what it holds, under the keys of the key space, for peers. Packs are served in the raw layout from where they
// lie, also those of which pages are missing, as far as they are here; names, descriptors, meta and hot objects are made when they are asked for
// first, unless they were prepared. It is safe for concurrent use.
//
// It serves all namespaces: who may read which is for its caller to say.
type Shelf struct {
	store *pagestore.Store
	opts  ShelfOptions

	mu     sync.Mutex
	closed bool
	offers map[pagestore.Name]*offer // protected by mu
	packs  map[Key]*heldPack         // protected by mu
	made   int64                     // bytes of all spools of offers; protected by mu
	pushed uint64                    // offers that went because others needed the room; protected by mu

	now     func() time.Time // tests have their own
	stepped func()           // called in the middle of a Prepare, in tests
}

var _ blob.Reader = (*Shelf)(nil)

// NewShelf returns a Shelf of a store, to be closed before it.
func NewShelf(store *pagestore.Store, opts *ShelfOptions) *Shelf {
	s := &Shelf{store: store, offers: make(map[pagestore.Name]*offer), packs: make(map[Key]*heldPack), now: time.Now, stepped: func() {}}
	if opts != nil {
		s.opts = *opts
	}
	if s.opts.MadeBytes <= 0 {
		s.opts.MadeBytes = 1 << 30
	}
	if s.opts.Logger == nil {
		s.opts.Logger = slog.New(slog.DiscardHandler)
	}
	return s
}

// Close gives up what was made. Readers that are open go on, and hold what they need of the store until they are closed.
func (s *Shelf) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, o := range s.offers {
		s.dropLocked(o)
	}
	for key, p := range s.packs {
		if p.users == 0 {
			s.closePackLocked(key, p)
		}
	}
}

// String implements [blob.Reader].
func (s *Shelf) String() string { return s.store.Dir() }

// Size implements [blob.Reader].
func (s *Shelf) Size(ctx context.Context, key string) (int64, error) {
	t, err := s.thing(ctx, key)
	if err != nil {
		return 0, err
	}
	defer t.close()
	return t.size, nil
}

// Open implements [blob.Reader]. Of a range of a pack of which not all frames are here the reader brings those before the first that is missing, and says so
// ([blob.Part]); it is [blob.ErrNotFound] if that is the first.
func (s *Shelf) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	t, err := s.thing(ctx, key)
	if err != nil {
		return nil, err
	}
	if n < 0 {
		n = t.size - off
	}
	if off < 0 || n < 0 || off > t.size-n {
		t.close()
		return nil, fmt.Errorf("%w: %d bytes from %d on of %d of %s", blob.ErrRange, n, off, t.size, key)
	}
	r, err := t.open(ctx, off, n)
	if err != nil {
		t.close()
		return nil, s.outside(key, err)
	}
	if p, ok := r.(*packReader); ok {
		n = p.end - p.off
	}
	return &thingReader{ctx: ctx, r: r, n: n, close: t.close}, nil
}

// thing is a blob that the shelf has. close is called once.
type thing struct {
	size  int64
	open  func(ctx context.Context, off, n int64) (io.Reader, error)
	close func()
}

type thingReader struct {
	ctx   context.Context
	r     io.Reader
	n     int64 // bytes that it brings
	close func()
	once  sync.Once
}

func (r *thingReader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(b)
}

// Part implements [blob.Part].
func (r *thingReader) Part() int64 { return r.n }

func (r *thingReader) Close() error {
	r.once.Do(r.close)
	return nil
}

func (s *Shelf) thing(ctx context.Context, text string) (*thing, error) {
	key, err := ParseKey(text)
	if err != nil {
		return nil, err
	}
	var t *thing
	switch key.Kind {
	case KindPack:
		t, err = s.packThing(ctx, key)
	case KindLease:
		err = blob.ErrNotFound
	default:
		t, err = s.offerThing(ctx, key)
	}
	if err != nil {
		return nil, s.outside(text, err)
	}
	return t, nil
}

// outside is an error as those may see it who ask: that something is not here, or not whole, is all that concerns them.
func (s *Shelf) outside(key string, err error) error {
	switch {
	case errors.Is(err, blob.ErrNotFound), errors.Is(err, pagestore.ErrNotFound), errors.Is(err, pagestore.ErrMissingPack), errors.Is(err, pagestore.ErrNotLocal):
		return fmt.Errorf("%s: %w", key, blob.ErrNotFound)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	s.opts.Logger.Warn("blob cannot be served to a peer", "key", key, "err", err)
	return fmt.Errorf("%s: %w: it is here, and of no use", key, blob.ErrNotFound)
}

// packPatience is for how long a pack stays open that nobody reads: opening one costs a read of its tables.
const packPatience = 5 * time.Second
