package tier

import (
	"context"
	"time"

	"thaw/pagestore"
)

// aheadPatience is for how long a hot object that was asked for ahead is held ready.
const aheadPatience = 30 * time.Second

// aheadHot is a hot object that was asked for before the stub is there that it belongs to: its first bytes are on their way, as many as connections hold.
type aheadHot struct {
	end    context.CancelFunc
	done   chan struct{}
	stream *hotStream // after done; nil if it could not be opened
}

// prepareHot asks for a hot object that FetchHot will be asked for soon.
func (o *Origin) prepareHot(key Key, pages uint32, root pagestore.Digest) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed || o.ahead[key] != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background()) // it lives longer than the call that asks for it
	expire := time.AfterFunc(aheadPatience, func() {
		if a := o.removeAhead(key); a != nil {
			a.discard()
		}
	})
	a := &aheadHot{end: func() { expire.Stop(); cancel() }, done: make(chan struct{})}
	o.ahead[key] = a
	o.using.Go(func() {
		defer close(a.done)
		stream, err := o.openHot(ctx, key, pages, root, 0, o.opts.Places(key))
		if err != nil {
			cancel()
			return // FetchHot will find out
		}
		end := stream.end
		stream.end = func() { end(); a.end() }
		a.stream = stream
	})
}

// removeAhead returns a hot object that was asked for ahead, nil if there is none, and leaves it to the caller.
func (o *Origin) removeAhead(key Key) *aheadHot {
	o.mu.Lock()
	defer o.mu.Unlock()
	a := o.ahead[key]
	delete(o.ahead, key)
	return a
}

// takeAhead returns the stream of a hot object that was asked for ahead, nil if there is none.
func (o *Origin) takeAhead(ctx context.Context, key Key) *hotStream {
	a := o.removeAhead(key)
	if a == nil {
		return nil
	}
	select {
	case <-a.done:
		return a.stream
	case <-ctx.Done():
		a.discard()
		return nil
	}
}

// discard ends a hot object that nobody wants.
func (a *aheadHot) discard() {
	a.end()
	<-a.done
	if a.stream != nil {
		a.stream.Close() // of what is only read
	}
}
