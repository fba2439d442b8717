package function

import (
	"errors"
	"fmt"
)

var (
	// ErrNotDeployed says that there is no such app, object or method.
	ErrNotDeployed = errors.New("not deployed")
	// ErrParameters says that an object is to be constructed with something that it does not take.
	ErrParameters = errors.New("parameters do not fit")
	// ErrClosing says that the server is about to end, and takes no calls.
	ErrClosing = errors.New("server is ending")
	// ErrSlow says that an instance was not ready in time.
	ErrSlow = errors.New("not ready")
	// ErrSecret says that a function asks for a secret that nobody has.
	ErrSecret = errors.New("no such secret")
	// ErrNoSnapshots says that an object has not asked for memory snapshots.
	ErrNoSnapshots = errors.New("enable_memory_snapshot is not set")
)

// errOver says that a pool has ended, and that another one is to be asked for.
var errOver = errors.New("pool has ended")

// A BootError says that an instance could not be started. Err may wrap a *runner.FailedError, with the author's traceback.
type BootError struct {
	Target string // app/object
	Err    error
}

// Error says what could not be started, and why.
func (e *BootError) Error() string { return fmt.Sprintf("start %s: %v", e.Target, e.Err) }

// Unwrap returns Err.
func (e *BootError) Unwrap() error { return e.Err }
