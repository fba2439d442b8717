package pagestore

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"

	"thaw/pagestore/internal/manifest"
)

// Input is what a snapshot is made of.
type Input struct {
	// Spaces are the address spaces, one for each process. Their runs in the order of space ID and address make the
	// image.
	Spaces []Space
	// Files hold the pages that runs name. They are read while Import runs, by several goroutines, and stay the
	// caller's.
	Files []io.ReaderAt
	// Skeleton fills a new, empty folder with the checkpoint images that a restore needs beside the pages: regular
	// files and folders only. It runs while Files are read. Import makes them durable. nil for none.
	Skeleton func(dir string) error
	// Host is what the snapshot needs to know about its host, a JSON value that the store keeps as it is.
	Host json.RawMessage
	// Parent is the snapshot on top of which this one was taken, for the record; the zero Name for none.
	Parent Name
}

// Space is an address space to import.
type Space struct {
	// ID is what the caller calls it, for CRIU the pid in the image. Unique in a snapshot.
	ID uint32
	// Zombie: a process that has exited, with nothing left but its status.
	Zombie bool
	// Regions are ascending and do not overlap.
	Regions []Region
	// Runs are ascending, do not overlap, and lie each inside one region.
	Runs []Run
}

// RegionFlags are what is known of a region.
type RegionFlags uint64

const (
	// RegionSplittable: parts of the region may be unregistered on their own, because nobody will mremap it.
	RegionSplittable RegionFlags = manifest.RegionSplittable
	// RegionWipeOnFork: a forked child sees zeros here (MADV_WIPEONFORK).
	RegionWipeOnFork RegionFlags = manifest.RegionWipeOnFork
)

// Region is a range of addresses in bytes, page aligned, half open.
type Region struct {
	Start, End uint64
	Flags      RegionFlags
}

// Run says that the content of Pages pages at Addr, a page-aligned address, lies in Files[File] from Offset on, in
// bytes.
type Run struct {
	Addr, Pages uint64
	File        int
	Offset      int64
}

// ImageRun says that Pages pages at Addr have the content of the image from page Image on.
type ImageRun struct{ Addr, Pages, Image uint64 }

// maxHostLen bounds Input.Host in bytes: info.json is read whole.
const maxHostLen = 1 << 20

// check returns an error that wraps ErrInput unless the input makes sense, and the spaces in the order of the image.
func (in *Input) check() ([]Space, error) {
	if len(in.Host) > maxHostLen {
		return nil, fmt.Errorf("%w: host metadata of %d bytes, want at most %d", ErrInput, len(in.Host), maxHostLen)
	}
	if in.Host != nil && !json.Valid(in.Host) {
		return nil, fmt.Errorf("%w: host metadata is not JSON", ErrInput)
	}
	if in.Parent != (Name{}) {
		if err := in.Parent.Validate(); err != nil {
			return nil, fmt.Errorf("%w: parent: %w", ErrInput, err)
		}
	}
	spaces := slices.Clone(in.Spaces)
	slices.SortFunc(spaces, func(a, b Space) int { return int(int64(a.ID) - int64(b.ID)) })
	for i, s := range spaces {
		if i > 0 && spaces[i-1].ID == s.ID {
			return nil, fmt.Errorf("%w: two spaces have id %d", ErrInput, s.ID)
		}
		if err := s.check(len(in.Files)); err != nil {
			return nil, fmt.Errorf("%w: space %d: %w", ErrInput, s.ID, err)
		}
	}
	return spaces, nil
}

func (s *Space) check(files int) error {
	var end uint64
	for i, r := range s.Regions {
		switch {
		case r.Start%PageSize != 0 || r.End%PageSize != 0 || r.Start >= r.End:
			return fmt.Errorf("region %d is [%#x, %#x)", i, r.Start, r.End)
		case r.Start < end:
			return fmt.Errorf("region %d at %#x overlaps or precedes the one that ends at %#x", i, r.Start, end)
		case r.Flags&^(RegionSplittable|RegionWipeOnFork) != 0:
			return fmt.Errorf("region %d has unknown flags %#x", i, r.Flags)
		}
		end = r.End
	}
	end = 0
	region := 0
	for i, r := range s.Runs {
		switch {
		case r.Addr%PageSize != 0 || r.Pages == 0 || r.Pages > math.MaxInt64/PageSize:
			return fmt.Errorf("run %d is %d pages at %#x", i, r.Pages, r.Addr)
		case r.Addr < end:
			return fmt.Errorf("run %d at %#x overlaps or precedes the one that ends at %#x", i, r.Addr, end)
		case r.File < 0 || r.File >= files:
			return fmt.Errorf("run %d names file %d of %d", i, r.File, files)
		case r.Offset < 0 || r.Offset%PageSize != 0 || r.Offset > math.MaxInt64-int64(r.Pages)*PageSize:
			return fmt.Errorf("run %d starts at offset %d of its file", i, r.Offset)
		}
		for region < len(s.Regions) && s.Regions[region].End <= r.Addr {
			region++
		}
		if region == len(s.Regions) || r.Addr < s.Regions[region].Start ||
			r.Pages > (s.Regions[region].End-r.Addr)/PageSize {
			return fmt.Errorf("run %d, %d pages at %#x, does not lie in one region", i, r.Pages, r.Addr)
		}
		end = r.Addr + r.Pages*PageSize
	}
	return nil
}

// imagePages counts the pages of the spaces.
func imagePages(spaces []Space) (n uint64, err error) {
	for _, s := range spaces {
		for _, r := range s.Runs {
			if n += r.Pages; n > manifest.MaxImagePages {
				return 0, fmt.Errorf("%w: more than %d pages", ErrInput, uint64(manifest.MaxImagePages))
			}
		}
	}
	return n, nil
}
