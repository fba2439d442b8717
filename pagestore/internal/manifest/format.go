package manifest

import (
	"errors"

	"thaw/pagestore/internal/pack"
)

// These constants are part of the format; do not change them.
const (
	// Version is the one version of the format.
	Version = 1
	// MaxSize bounds a manifest in bytes: over 100 million extents.
	MaxSize = 4 << 30
	// MaxImagePages bounds an image: the pages of a 57-bit address space, twice.
	MaxImagePages = 1 << 46

	magic      = "THAWMANI"
	headerSize = 88

	pageSizeOff   = 12
	sizeOff       = 16
	imagePagesOff = 24
	countsOff     = 32 // packs, spaces, regions, runs, extents
	bodySumOff    = 72
	headerSumOff  = 80

	packSize   = 40
	spaceSize  = 40
	regionSize = 24
	runSize    = 24
	extentSize = 24

	spaceZombie = 1 << 0

	// RegionSplittable marks a region of which parts may be unregistered on their own.
	RegionSplittable = 1 << 0
	// RegionWipeOnFork marks a region that a forked child sees as zeros.
	RegionWipeOnFork = 1 << 1

	knownSpaceFlags  = spaceZombie
	knownRegionFlags = RegionSplittable | RegionWipeOnFork
)

// The tables in the order of the file.
const (
	tablePacks = iota
	tableSpaces
	tableRegions
	tableRuns
	tableExtents
	tables
)

var entrySizes = [tables]uint64{packSize, spaceSize, regionSize, runSize, extentSize}

// Errors of the package.
var (
	// ErrCorrupt: the bytes are not a manifest as it was written.
	ErrCorrupt = errors.New("corrupt manifest")
	// ErrVersion: a manifest of a version that this code does not know.
	ErrVersion = errors.New("unknown manifest version")
)

// Pack is a pack that extents name.
type Pack struct {
	ID    pack.ID
	Pages uint32
}

// Space is one address space. Its regions are [Regions.First, Regions.First+Regions.Count) of the table; runs likewise.
type Space struct {
	ID            uint32
	Zombie        bool
	Regions, Runs Span
}

// Span is a part of a table.
type Span struct{ First, Count uint64 }

// Region is a range of addresses, in bytes, page aligned, half open.
type Region struct {
	Start, End uint64
	Flags      uint64
}

// Run says that Pages pages at Addr, in bytes, have the content of the image from page Image on.
type Run struct{ Addr, Pages, Image uint64 }

// Extent says that Pages pages of the image from Image on are stored in pack number Pack of the table from its page
// Page on.
type Extent struct {
	Image uint64
	Pages uint32
	Pack  uint32
	Page  uint32
}
