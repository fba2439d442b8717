// Package blob is where the bytes of snapshots live outside of a store's own files: a folder, a peer, an object store.
//
// A blob is an immutable sequence of bytes under a key. Keys are paths with '/' between their parts; each part has 1 to 255 ASCII
// letters, digits, '.', '_', '-', '@' and '=', and does not begin with '.'. There are at most 16 of them, and 512 bytes in all, so that a key fits into the
// 1024 of an object store with something before it ([ValidateKey]). Places that are folders can have no blob a beside a blob a/b; nobody may want both.
//
// A blob appears with all its bytes or not at all, and whoever reads one must check what it reads: a place can be wrong, and this package checks
// nothing but lengths.
//
// Implementations: [Dir] here, blob/objectstore, blob/peer (which can only be read). blobtest has the suite that all of them pass, and wrappers that misbehave.
package blob

import (
	"context"
	"errors"
	"io"
	"iter"
)

// Errors of all implementations; what they return wraps one of these, or the context's error, or says something else went wrong, which may be
// worth another try.
var (
	// ErrNotFound: there is no blob of that name here.
	ErrNotFound = errors.New("no such blob")
	// ErrExists: a blob of that name is here already, and stays.
	ErrExists = errors.New("blob exists already")
	// ErrRange: the range does not lie inside the blob.
	ErrRange = errors.New("range is not inside the blob")
	// ErrKey: no blob can have that name.
	ErrKey = errors.New("bad key")
	// ErrDenied: whoever we are, we may not do that. Trying again is of no use.
	ErrDenied = errors.New("access denied")
	// ErrBusy: the place asks to be left alone for a while (HTTP 429 and 503).
	ErrBusy = errors.New("busy")
	// ErrNoSpace: the place is full.
	ErrNoSpace = errors.New("no space left")
)

// A Reader is a place that blobs can be read from. It is safe for concurrent use.
type Reader interface {
	// String names the place for people: a path, an address or a URL, without secrets.
	String() string

	// Size returns how many bytes a blob has.
	Size(ctx context.Context, key string) (int64, error)

	// Open returns n bytes of a blob from off on; n < 0 stands for all that follow. Reading ends with io.EOF after exactly as many bytes, or with an
	// error, io.ErrUnexpectedEOF if there were fewer. The caller closes it, early if it likes. ctx holds for the reading, too.
	Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error)
}

// A Part is what a place returns from Open that has not all of the range, and knows it: Part is how many bytes come before an error that wraps ErrNotFound.
// Nobody has to look: it says nothing that reading would not.
type Part interface{ Part() int64 }

// A Bucket is a place that blobs can be put to. It is safe for concurrent use, also by several processes and machines.
type Bucket interface {
	Reader

	// Create puts a blob of exactly size bytes from r, ErrSize if r has others; it is ErrExists, and nothing changes, if there is one of that name. Of several that create
	// one blob at the same time exactly one succeeds where the place can promise that; [Bucket.Exclusive] says whether it can. Nobody sees a part of a blob.
	Create(ctx context.Context, key string, r io.Reader, size int64) error

	// Replace is Create that replaces a blob which is there.
	Replace(ctx context.Context, key string, r io.Reader, size int64) error

	// Exclusive reports whether one Create among several that race succeeds. Elsewhere Create may replace a blob that came in between.
	Exclusive() bool

	// List yields the blobs whose key begins with prefix, ascending by key. The error, if there is one, comes last.
	List(ctx context.Context, prefix string) iter.Seq2[Info, error]

	// Delete deletes a blob. That there is none is no error.
	Delete(ctx context.Context, key string) error
}

// Info is what List says of a blob.
type Info struct {
	Key  string
	Size int64 // in bytes
	// Modified is when the blob was put, in nanoseconds since 1970 by the place's own clock.
	Modified int64
}
