package pagestore

import (
	"errors"
	"fmt"

	"thaw/internal/durable"
	"thaw/pagestore/internal/hot"
	"thaw/pagestore/internal/manifest"
	"thaw/pagestore/internal/pack"
)

// Errors of the package; test for them with errors.Is.
var (
	// ErrNotStore: the folder holds no page store.
	ErrNotStore = errors.New("not a page store")
	// ErrNotEmpty: Create was given a folder with something else in it.
	ErrNotEmpty = errors.New("folder is not empty")
	// ErrVersion: the store was written in a version of the format that this code does not know.
	ErrVersion = errors.New("unknown format version")
	// ErrName: a namespace or snapshot name has forbidden characters or length.
	ErrName = errors.New("invalid name")
	// ErrExists: a snapshot of that name is there already.
	ErrExists = errors.New("snapshot exists")
	// ErrNotFound: there is no such snapshot.
	ErrNotFound = errors.New("snapshot not found")
	// ErrBeingRemoved: the snapshot was removed and lives on only for those who leased it before. It is an ErrNotFound.
	ErrBeingRemoved = fmt.Errorf("%w: it is being removed", ErrNotFound)
	// ErrLocked: another writer holds the store and the caller did not want to wait.
	ErrLocked = errors.New("store is locked by another writer")
	// ErrNoSpace: the disk, or the owner's quota, is full. The store is as it was before the call.
	ErrNoSpace = errors.New("no space left for the store")
	// ErrInput: what Import was given contradicts itself, for example regions that overlap.
	ErrInput = errors.New("invalid input")
	// ErrShortInput: a file of the input ended before the page that a run names.
	ErrShortInput = fmt.Errorf("%w: file is too short", ErrInput)
	// ErrCorrupt: bytes in the store are not what was written. Where is in the message, and in [PageError] for pages.
	ErrCorrupt = errors.New("corrupt")
	// ErrMissingPack: a pack that a snapshot names is not there.
	ErrMissingPack = errors.New("pack is missing")
	// ErrNotLocal: a page is not here, and there is no origin to bring it.
	ErrNotLocal = errors.New("page is not local")
	// ErrWrongBytes: what came from afar is not what it should be. Nothing of it was let in.
	ErrWrongBytes = errors.New("wrong bytes")
	// ErrRange: a page number lies outside the image.
	ErrRange = errors.New("page outside the image")
	// ErrClosed: the store or the snapshot was closed.
	ErrClosed = errors.New("closed")
)

// PageSize is the size of a page in bytes.
const PageSize = pack.PageSize

// PackID names a pack: the SHA-256 of its tables of page hashes.
type PackID = pack.ID

// Digest is a SHA-256.
type Digest = pack.Digest

// PageError says which page could not be served, and why. It unwraps to [ErrCorrupt], [ErrMissingPack], [ErrNotLocal],
// [ErrWrongBytes] or the error of the storage or of the origin.
type PageError struct {
	// Snapshot and Image are the page as the reader knows it. Image counts pages. Verify leaves both empty, because
	// several snapshots may use one page.
	Snapshot Name
	Image    uint64
	// Pack and Page are the page as it is stored. Page counts the pages of the pack from 0.
	Pack PackID
	Page uint32
	// Offset is where the page starts in the pack file, in bytes.
	Offset int64
	// Err is the reason.
	Err error
}

// Error names the pack, the page in it and the offset in the file.
func (e *PageError) Error() string {
	where := ""
	if e.Snapshot != (Name{}) {
		where = fmt.Sprintf("image page %d of %s: ", e.Image, e.Snapshot)
	}
	return fmt.Sprintf("%spage %d of pack %s (file offset %d): %v", where, e.Page, e.Pack, e.Offset, e.Err)
}

// Unwrap returns Err.
func (e *PageError) Unwrap() error { return e.Err }

// corruptf makes an error that is [ErrCorrupt].
func corruptf(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrCorrupt, fmt.Errorf(format, args...))
}

// classify gives the errors of the layers below the store's own markers, so that callers test for one set.
func classify(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrNoSpace), errors.Is(err, ErrCorrupt), errors.Is(err, ErrVersion):
		return err
	case errors.Is(err, pack.ErrWrongBytes) && !errors.Is(err, ErrWrongBytes):
		return fmt.Errorf("%w: %w", ErrWrongBytes, err)
	case durable.NoSpace(err):
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	case errors.Is(err, pack.ErrVersion), errors.Is(err, manifest.ErrVersion), errors.Is(err, hot.ErrVersion):
		return fmt.Errorf("%w: %w", ErrVersion, err)
	case errors.Is(err, pack.ErrCorrupt), errors.Is(err, manifest.ErrCorrupt), errors.Is(err, hot.ErrCorrupt):
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return err
}
