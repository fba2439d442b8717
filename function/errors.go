package function

import (
	"errors"
	"fmt"
	"strings"

	"thaw/function/version"
)

var (
	// ErrNotDeployed says that there is no such app, object or method.
	ErrNotDeployed = errors.New("not deployed")
	// ErrParameters says that an object is to be constructed with something that it does not take.
	ErrParameters = errors.New("parameters do not fit")
	// ErrClosing says that the server is about to end, and takes no calls.
	ErrClosing = errors.New("server is ending")
	// ErrSlow says that an instance was not ready in time, or not frozen.
	ErrSlow = errors.New("not ready")
	// ErrSecret says that a function asks for a secret that nobody has.
	ErrSecret = errors.New("no such secret")
	// ErrFreezing says that a snapshot of the object is being taken, so that another one is not.
	ErrFreezing = errors.New("a snapshot is being taken already; the log says when it is there")
	// ErrNoSnapshots says that an object has not asked for memory snapshots.
	ErrNoSnapshots = errors.New("enable_memory_snapshot is not set")
)

// noMethod says that an object has no such method or endpoint, and what it has.
func noMethod(o *version.Object, t *Target, method, kind string) error {
	noun := map[string]string{"method": "method", "web": "web endpoint"}
	var there []string
	for _, m := range o.Methods {
		if m.Name == method {
			return fmt.Errorf("%s %s of %s: %w: it is a %s", noun[kind], method, t, ErrNotDeployed, noun[m.Kind])
		}
		if m.Kind == kind {
			there = append(there, m.Name)
		}
	}
	return fmt.Errorf("%s %s of %s: %w: %s has %s", noun[kind], method, t, ErrNotDeployed, t, list(there))
}

// noObject says that an app has no such object, and what it has.
func noObject(d *version.Description, name string) error {
	var there []string
	for i := range d.Objects {
		there = append(there, d.Objects[i].Name)
	}
	return fmt.Errorf("%s of app %s: %w: the app has %s", name, d.App, ErrNotDeployed, list(there))
}

func list(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

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
