package registry

import (
	"errors"
	"time"

	"thaw/function/version"
)

// Record is a version and how it came here.
type Record struct {
	*version.Version
	// Deployed is when it was deployed first.
	Deployed time.Time `json:"deployed"`
	// Before is the version that was current then; zero if there was none. It may be gone.
	Before version.Key `json:"before,omitzero"`
}

func (r *Record) check() error {
	if r.Version == nil {
		return errors.New("it has no version")
	}
	if r.Deployed.IsZero() {
		return errors.New("it has no time")
	}
	return r.Verify()
}
