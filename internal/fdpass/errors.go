package fdpass

import (
	"errors"
	"fmt"
)

var (
	// ErrTruncated is returned if the kernel did not deliver all that the peer attached: the table of
	// descriptors of this process is full (RLIMIT_NOFILE).
	ErrTruncated = errors.New("descriptors of a message were cut off: raise the limit of open files")

	// ErrUnexpected is returned if something other than descriptors and credentials is attached.
	ErrUnexpected = errors.New("unexpected attachment")
)

// CountError is returned if a peer sends another number of descriptors than it should.
type CountError struct{ Got, Want int }

func (e *CountError) Error() string {
	return fmt.Sprintf("peer sent %d descriptors, want %d", e.Got, e.Want)
}
