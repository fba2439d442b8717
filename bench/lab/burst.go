package lab

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

// Burst is what several restores at the same time came to. Times are in seconds and begin when all of them are asked for.
type Burst struct {
	// ToRunning and ToFirstResponse have an entry for each container.
	ToRunning, ToFirstResponse []float64
	// ToComplete is when the last process had all its memory.
	ToComplete float64
	// BytesToResponse is what the machine read from its disks until the last first response, BytesRead until all processes
	// had all their memory.
	BytesToResponse, BytesRead uint64
}

// Burst starts a container of each of the frozen ones, which may be the same, at the same time, in a mode that was
// prepared, and asks each for the [SameInput]. It waits for the first response of each, and until each has all its memory, and ends
// them. An answer that is not the expected one to the last bit is an error.
func (l *Lab) Burst(ctx context.Context, frozen []*Frozen, name Mode, cache Cache) (b Burst, err error) {
	m := l.modes[name]
	if m == nil || name == Floor {
		return b, fmt.Errorf("mode %q was not prepared, or is none for bursts", name)
	}
	var all crowd
	defer func() { err = errors.Join(err, all.close()) }()
	for _, f := range frozen {
		t, err := l.newTrial(f, SameInput)
		if err != nil {
			return b, err
		}
		all = append(all, t)
		if err := t.client.ahead(t.request()); err != nil {
			return b, err
		}
	}
	read, err := l.begin(ctx, name, cache, frozen...)
	if err != nil {
		return b, err
	}
	start := time.Now()
	if err := all.respond(ctx, m, start, &b); err != nil {
		return b, err
	}
	responded, err := bytesRead()
	if err != nil {
		return b, err
	}
	if err := all.settle(ctx); err != nil {
		return b, err
	}
	b.ToComplete = time.Since(start).Seconds()
	complete, err := bytesRead()
	b.BytesToResponse, b.BytesRead = responded-read, complete-read
	return b, err
}

// crowd are trials that are run together.
type crowd []*trial

// respond restores all and waits for the first response of each.
func (c crowd) respond(ctx context.Context, m mode, start time.Time, b *Burst) error {
	b.ToRunning, b.ToFirstResponse = make([]float64, len(c)), make([]float64, len(c))
	g, ctx := errgroup.WithContext(ctx)
	for i, t := range c {
		g.Go(func() error {
			if err := m.restore(ctx, t); err != nil {
				return fmt.Errorf("restore %d of %d: %w", i+1, len(c), err)
			}
			b.ToRunning[i] = time.Since(start).Seconds()
			a, at, err := t.firstAnswer(ctx)
			if err == nil {
				b.ToFirstResponse[i] = at.Sub(start).Seconds()
				err = a.compare(t.want())
			}
			if err != nil {
				return fmt.Errorf("first response %d of %d: %w", i+1, len(c), err)
			}
			return nil
		})
	}
	return g.Wait()
}

// settle waits until all processes have all their memory. It looks at one after the other, for many that ask thawd again and
// again would keep it from its work.
func (c crowd) settle(ctx context.Context) error {
	for _, t := range c {
		if err := t.server.settle(ctx); err != nil {
			return err
		}
	}
	return nil
}

// closeAtOnce is how many containers are ended at a time: runc's delete waits more than it works.
const closeAtOnce = 8

// close ends all, whatever happens to one.
func (c crowd) close() error {
	errs := make([]error, len(c))
	var g errgroup.Group
	g.SetLimit(closeAtOnce)
	for i, t := range c {
		g.Go(func() error {
			errs[i] = t.close()
			return nil
		})
	}
	return errors.Join(append(errs, g.Wait())...)
}
