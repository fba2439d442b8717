package fetch

import "time"

// A budget is a bucket of tokens. What succeeds puts a share of one in, what is to be bounded takes one out.
type budget struct {
	share float64 // for each success
	most  float64
	rate  float64 // tokens for each second, from nothing

	tokens float64
	at     time.Time
}

func newBudget(share, most, rate float64, now time.Time) budget {
	return budget{share: share, most: most, rate: rate, tokens: most, at: now}
}

func (b *budget) earn() { b.tokens = min(b.tokens+b.share, b.most) }

// take takes a token, or returns how long it is until there is one; for ever is an hour.
func (b *budget) take(now time.Time) (wait time.Duration) {
	b.tokens = min(b.tokens+b.rate*now.Sub(b.at).Seconds(), b.most)
	b.at = now
	if b.tokens >= 1 {
		b.tokens--
		return 0
	}
	if b.rate == 0 {
		return time.Hour
	}
	// A little more than it takes, so that rounding does not bring the caller back too early.
	return time.Duration((1-b.tokens)/b.rate*float64(time.Second)) + time.Millisecond
}
