package registry

import (
	"errors"
	"fmt"

	"thaw/internal/durable"
)

// Errors of the package; test for them with errors.Is.
var (
	// ErrNotRegistry: the folder holds no functions.
	ErrNotRegistry = errors.New("no functions are kept here")
	// ErrNotEmpty: Open was to make the folder, and there is something else in it.
	ErrNotEmpty = errors.New("folder is not empty")
	// ErrVersion: a file was written in a version of the format that this code does not know.
	ErrVersion = errors.New("unknown format version")
	// ErrNotFound: there is no such app, version or template.
	ErrNotFound = errors.New("not deployed")
	// ErrCurrent: the version is the one that new instances get, and is not removed alone.
	ErrCurrent = errors.New("version is the current one")
	// ErrChanged: a file of the app is not what it was when the version was made of it.
	ErrChanged = errors.New("file changed while it was deployed")
	// ErrCorrupt: a file is not what was written.
	ErrCorrupt = errors.New("corrupt")
	// ErrNoSpace: the disk, or the owner's quota, is full. All is as it was before the call.
	ErrNoSpace = errors.New("no space left")
)

func corruptf(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrCorrupt, fmt.Errorf(format, args...))
}

// classify marks errors of the disk.
func classify(err error) error {
	if err != nil && durable.NoSpace(err) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}
