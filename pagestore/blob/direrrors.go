package blob

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"thaw/internal/durable"
)

// check is what all calls begin with.
func check(ctx context.Context, key string) error {
	if err := ValidateKey(key); err != nil {
		return err
	}
	return ctx.Err()
}

// failed says what could not be done with which blob.
func failed(op, key string, err error) error {
	if err == nil || errors.Is(err, ErrKey) {
		return err // which names the key
	}
	return fmt.Errorf("%s %s: %w", op, key, place(err))
}

// failedPut is failed of a blob that is put. Whatever is missing then, it is not that blob.
func failedPut(op, key string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s %s: %w", op, key, err)
	}
	return failed(op, key, err)
}

// place gives an error of the file system the meaning that it has for a bucket.
func place(err error) error {
	var kind error
	switch {
	case errors.Is(err, fs.ErrNotExist):
		kind = ErrNotFound
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.EISDIR):
		kind = ErrKey
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.EXDEV):
		return fmt.Errorf("%w: a symbolic link is on the way, and none is followed: %w", ErrDenied, err)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EROFS):
		kind = ErrDenied
	case durable.NoSpace(err):
		kind = ErrNoSpace
	default:
		return err
	}
	if errors.Is(err, kind) {
		return err
	}
	return fmt.Errorf("%w: %w", kind, err)
}
