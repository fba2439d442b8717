package lab

import (
	"context"
	"time"
)

// client puts requests to the process in a container: by its standard streams ([conversation]) or by HTTP ([web]). Not safe for
// concurrent use.
type client interface {
	// ahead puts a request before the process runs, as far as that is possible: [client.first] does the rest.
	ahead(r Request) error
	// first returns the answer to the request that was put ahead, and when it was there. The process runs, and is ready.
	first(ctx context.Context) (*answer, time.Time, error)
	// call puts a request and returns the answer, and how long it took.
	call(ctx context.Context, r Request) (*answer, time.Duration, error)
}

var (
	_ client = (*conversation)(nil)
	_ client = (*web)(nil)
)
