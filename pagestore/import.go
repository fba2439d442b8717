package pagestore

import (
	"context"
	"time"
)

const chunkPages = 256

// ImportOptions change how Import works.
type ImportOptions struct {
	// Workers is the number of goroutines that hash pages. Default: GOMAXPROCS.
	Workers int
	// Progress is called up to ten times a second, by one goroutine at a time; it should return soon. nil for none.
	Progress func(Progress)
}

// Report says what an import did. Every page of the image is one of ZeroPages, DuplicatePages and NewPages.
type Report struct {
	Name   Name   `json:"name"`
	Digest Digest `json:"digest"`

	Pages     uint64 `json:"pages"`
	ZeroPages uint64 `json:"zero_pages"`
	// DuplicatePages were in the store already or came earlier in the same image.
	DuplicatePages uint64 `json:"duplicate_pages"`
	NewPages       uint64 `json:"new_pages"`
	// Bytes is the size of the image, NewBytes what of it was written.
	Bytes    uint64 `json:"bytes"`
	NewBytes uint64 `json:"new_bytes"`
	// NewPacks hold the new pages.
	NewPacks int `json:"new_packs"`
	// SkeletonBytes is the size of the skeleton's files.
	SkeletonBytes int64 `json:"skeleton_bytes"`

	// Duration is that of the whole call. PageDuration of it went into reading, hashing and writing pages, SyncDuration
	// into waiting for the disk after that.
	Duration     time.Duration `json:"duration_ns"`
	PageDuration time.Duration `json:"page_duration_ns"`
	SyncDuration time.Duration `json:"sync_duration_ns"`
}

// BytesPerSecond is how fast pages were read, hashed and written, without the wait for the disk at the end.
func (r *Report) BytesPerSecond() float64 {
	if r.PageDuration <= 0 {
		return 0
	}
	return float64(r.Bytes) / r.PageDuration.Seconds()
}

const stagedSnapshot = "snapshot"

func (s *Store) Import(ctx context.Context, name Name, in Input, opts *ImportOptions) (Report, error) {
	panic("draft")
}
