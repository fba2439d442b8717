package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"thaw/pagestore/blob"
)

// transfer is one request and the body of its answer. One goroutine reads; any may close.
type transfer struct {
	outer  context.Context // the caller's
	ctx    context.Context // ends with it, with the transfer, and when the peer is too slow
	cancel context.CancelCauseFunc
	watch  watchdog
	limit  *Limiter
	resp   *http.Response
	total  int64 // bytes that the answer has
	left   int64 // of them
	part   bool  // more was asked for, which the peer does not have yet
	wrap   func(error) error
	err    error // what ended the reading
}

func newTransfer(ctx context.Context, opts *ClientOptions) *transfer {
	t := &transfer{outer: ctx, limit: opts.Receive, wrap: func(err error) error { return err }}
	t.ctx, t.cancel = context.WithCancelCause(ctx)
	t.watch.init(opts.Window, opts.MinRate, func() { t.cancel(ErrSlow) })
	return t
}

// Read reads what came, and waits until as much may be received.
func (t *transfer) Read(p []byte) (int, error) {
	if t.err != nil {
		return 0, t.err
	}
	t.watch.begin()
	n, err := t.resp.Body.Read(p[:min(int64(len(p)), t.left)])
	t.watch.end(n)
	t.left -= int64(n)
	switch {
	case t.left == 0 && t.part:
		t.err = t.wrap(fmt.Errorf("%w: there are %d bytes of what was asked for", blob.ErrNotFound, t.total))
	case t.left == 0:
		t.err = io.EOF
	case err != nil:
		t.err = t.wrap(t.early(err))
	}
	if waitErr := t.limit.wait(t.ctx, n, t.total); waitErr != nil && t.err == nil {
		t.err = t.wrap(t.cause(waitErr))
	}
	if n > 0 && t.left == 0 {
		return n, nil // the end comes with the next read
	}
	return n, t.err
}

// Close ends the transfer, early if bytes are left: their connection is closed then.
func (t *transfer) Close() error {
	if t.resp != nil {
		t.resp.Body.Close()
	}
	t.watch.stop()
	t.cancel(context.Canceled)
	return nil
}

// early says why there are fewer bytes than were asked for. Whatever happened to the connection, they are fewer.
func (t *transfer) early(err error) error {
	if t.ctx.Err() != nil {
		return t.cause(err)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.ErrUnexpectedEOF
	} else {
		err = fmt.Errorf("%w: %w", io.ErrUnexpectedEOF, err)
	}
	return fmt.Errorf("%d of %d bytes came: %w", t.total-t.left, t.total, err)
}

// cause returns what ended the transfer's context, if that is what err comes from, or err.
func (t *transfer) cause(err error) error {
	switch {
	case t.outer.Err() != nil:
		return t.outer.Err()
	case errors.Is(context.Cause(t.ctx), ErrSlow):
		return fmt.Errorf("%w: less than %d bytes in %s", ErrSlow, t.watch.least, t.watch.window)
	}
	return err
}

// watchdog barks when in a window of waiting too little has come.
type watchdog struct {
	window time.Duration
	least  int64 // bytes for each window
	timer  *time.Timer

	left  time.Duration // of this window
	came  int64         // in this window
	since time.Time     // when the waiting began
}

func (w *watchdog) init(window time.Duration, rate int64, bark func()) {
	w.window, w.left = window, window
	w.least = max(1, int64(float64(rate)*window.Seconds()))
	w.timer = time.AfterFunc(window, bark)
	w.timer.Stop()
}

// begin begins to wait.
func (w *watchdog) begin() {
	w.since = time.Now()
	w.timer.Reset(w.left)
}

// end ends the waiting: n bytes have come.
func (w *watchdog) end(n int) {
	w.timer.Stop()
	w.came += int64(n)
	w.left -= time.Since(w.since)
	w.left = max(w.left, 0)
	if w.came >= w.least {
		w.restart()
	}
}

// restart begins a new window.
func (w *watchdog) restart() { w.came, w.left = 0, w.window }

func (w *watchdog) stop() { w.timer.Stop() }
