package function

import (
	"context"
	"sync"

	"thaw/function/rootfs"
	"thaw/function/version"
)

// keyed are locks by key: one holder for each at a time.
type keyed[K comparable] struct {
	mu   sync.Mutex
	held map[K]chan struct{} // protected by mu; closed when the holder lets go
}

// lock waits until nobody holds k. unlock is nil if ctx has ended before.
func (l *keyed[K]) lock(ctx context.Context, k K) (unlock func(), err error) {
	for {
		l.mu.Lock()
		wait, taken := l.held[k]
		if !taken {
			if l.held == nil {
				l.held = make(map[K]chan struct{})
			}
			mine := make(chan struct{})
			l.held[k] = mine
			l.mu.Unlock()
			return func() {
				l.mu.Lock()
				defer l.mu.Unlock()
				delete(l.held, k)
				close(mine)
			}, nil
		}
		l.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// rootCache opens each root file system once.
type rootCache struct {
	open func(version.Root) (*rootfs.Root, error)

	mu    sync.Mutex
	known map[version.Root]*rootfs.Root // protected by mu
}

func (c *rootCache) get(r version.Root) (*rootfs.Root, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if root := c.known[r]; root != nil {
		return root, nil
	}
	root, err := c.open(r)
	if err != nil {
		return nil, err
	}
	if c.known == nil {
		c.known = make(map[version.Root]*rootfs.Root)
	}
	c.known[r] = root
	return root, nil
}
