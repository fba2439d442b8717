package peer

import (
	"context"
	"time"

	"golang.org/x/time/rate"
)

// Small is how many bytes a request may be for, at most, so that it does not queue behind bulk transfers at a [Limiter].
const Small = 256 << 10

// burst is how many bytes may pass at once after a pause, and the most that is waited for at a time.
const burst = 256 << 10

// Limiter bounds how many bytes pass in a second, over all transfers that it is given to: those that a node sends, or those that it receives.
// Small requests wait for each other only. What they take is missing for bulk transfers, so the bound holds for all together. A nil
// Limiter lets everything pass. Safe for concurrent use.
type Limiter struct {
	all   *rate.Limiter // what bulk transfers wait for; small ones run it into debt
	small *rate.Limiter // what small requests wait for
}

// NewLimiter returns a Limiter for so many bytes a second, or nil if that is not more than 0.
func NewLimiter(bytesPerSecond int64) *Limiter {
	if bytesPerSecond <= 0 {
		return nil
	}
	r := rate.Limit(bytesPerSecond)
	return &Limiter{all: rate.NewLimiter(r, burst), small: rate.NewLimiter(r, burst)}
}

// wait returns when n bytes of a request for total bytes may pass.
func (l *Limiter) wait(ctx context.Context, n int, total int64) error {
	if l == nil {
		return nil
	}
	for n > 0 {
		part := min(n, burst)
		lane := l.all
		if total <= Small {
			lane = l.small
			l.all.ReserveN(time.Now(), part)
		}
		if err := waitFor(ctx, lane, part); err != nil {
			return err
		}
		n -= part
	}
	return nil
}

// waitFor is lane.WaitN, but that it waits until ctx ends even if what it waits for comes later: so that a deadline is reported when it is over, and as that.
func waitFor(ctx context.Context, lane *rate.Limiter, n int) error {
	r := lane.ReserveN(time.Now(), n)
	delay := r.Delay()
	if delay == 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		r.Cancel()
		return context.Cause(ctx)
	}
}
