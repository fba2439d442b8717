package pack

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"os"

	"github.com/cespare/xxhash/v2"
)

// These constants are part of the format of the map of a partial pack; do not change them.
const (
	// MapVersion is the one version of the format.
	MapVersion = 1
	// FramePages is how many pages share a node: those of a frame of a framed object.
	FramePages = 32

	mapMagic      = "THAWPART"
	mapHeaderSize = 128
	nodeSize      = sha256.Size

	mapPagesOff    = 12
	mapIDOff       = 16
	mapRootOff     = 48
	mapReservedOff = 80
	mapSumOff      = 88
	mapBootOff     = 96
	mapNoneOff     = 112
)

// What the map says of a page. Part of the format.
const (
	// missing: the page is not here, or nobody said that it is.
	missing = 0
	// present: page, digest and sum were written while this machine has been running.
	present = 1
	// doubtful: they were written before the machine was started last. What is true of that the page's digest says.
	doubtful = 2
)

// Boot tells one start of the machine from another.
type Boot [16]byte

// presence is the head of the map of a partial pack.
type presence struct {
	id    ID
	root  Digest
	pages uint32
	boot  Boot
}

func frames(pages uint32) int { return (int(pages) + FramePages - 1) / FramePages }

// mapSize returns the size in bytes of the map of a pack with so many pages: header, a node for each frame, a byte for each page.
func mapSize(pages uint32) int64 {
	return statesOff(pages) + int64(pages)
}

// statesOff returns where the bytes of the pages begin.
func statesOff(pages uint32) int64 { return mapHeaderSize + int64(frames(pages))*nodeSize }

func (p *presence) encode() []byte {
	b := make([]byte, mapHeaderSize)
	copy(b, mapMagic)
	binary.LittleEndian.PutUint32(b[8:], MapVersion)
	binary.LittleEndian.PutUint32(b[mapPagesOff:], p.pages)
	copy(b[mapIDOff:], p.id[:])
	copy(b[mapRootOff:], p.root[:])
	binary.LittleEndian.PutUint64(b[mapSumOff:], xxhash.Sum64(b[:mapSumOff]))
	copy(b[mapBootOff:], p.boot[:])
	return b
}

// parsePresence reads the map of a partial pack, which b is. Errors wrap [ErrCorrupt] or [ErrVersion].
func parsePresence(b []byte) (p presence, nodes, states []byte, err error) {
	if len(b) < mapHeaderSize || string(b[:8]) != mapMagic {
		return p, nil, nil, fmt.Errorf("%w: no header of a map", ErrCorrupt)
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != MapVersion {
		return p, nil, nil, fmt.Errorf("%w: map has version %d, want %d", ErrVersion, v, MapVersion)
	}
	p = presence{
		id:    ID(b[mapIDOff:mapRootOff]),
		root:  Digest(b[mapRootOff:mapReservedOff]),
		pages: binary.LittleEndian.Uint32(b[mapPagesOff:]),
		boot:  Boot(b[mapBootOff:mapNoneOff]),
	}
	if p.pages == 0 || p.pages > MaxPages {
		return p, nil, nil, fmt.Errorf("%w: map of %d pages, want 1 to %d", ErrCorrupt, p.pages, MaxPages)
	}
	if string(b[:mapHeaderSize]) != string(p.encode()) { // what is reserved, the checksum
		return p, nil, nil, fmt.Errorf("%w: header of a map differs from that of version %d", ErrCorrupt, MapVersion)
	}
	if want := mapSize(p.pages); int64(len(b)) != want {
		return p, nil, nil, fmt.Errorf("%w: map of %d pages has %d bytes, want %d", ErrCorrupt, p.pages, len(b), want)
	}
	states = b[statesOff(p.pages):]
	for i, s := range states {
		if s > doubtful {
			return p, nil, nil, fmt.Errorf("%w: page %d has state %d", ErrCorrupt, i, s)
		}
	}
	nodes = b[mapHeaderSize:statesOff(p.pages)]
	if sha256.Sum256(nodes) != p.root {
		nodes = nil // not known yet, or not written before power was lost
	}
	return p, nodes, states, nil
}

// Presence is what the map of a partial pack said when it was read.
type Presence struct {
	ID    ID
	Root  Digest
	Pages uint32
	Boot  Boot // when the map was opened last

	states []byte
}

// ReadPresence reads the map in the file path, as it is now. Errors are those of the file, or wrap [ErrCorrupt] or [ErrVersion].
func ReadPresence(path string) (*Presence, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := readMap(f)
	if err != nil {
		return nil, err
	}
	p, _, states, err := parsePresence(b)
	if err != nil {
		return nil, err
	}
	return &Presence{ID: p.id, Root: p.root, Pages: p.pages, Boot: p.boot, states: states}, nil
}

// Has reports whether a page is said to be here.
func (p *Presence) Has(page uint32) bool { return p.states[page] != missing }

// Present reports whether a page was written since the start of the machine that Boot names, or was compared with its digest since.
func (p *Presence) Present(page uint32) bool { return p.states[page] == present }

// Tables reads the tables of the partial pack that r reads. Nobody has checked them, and what they say of pages that are not here means nothing.
func (p *Presence) Tables(r io.ReaderAt) (*Footer, error) {
	b := make([]byte, int(p.Pages)*(digestSize+sumSize))
	if _, err := r.ReadAt(b, Offset(p.Pages)); err != nil {
		return nil, fmt.Errorf("read tables of partial pack: %w", err)
	}
	return &Footer{ID: p.ID, digests: b[:int(p.Pages)*digestSize], sums: b[int(p.Pages)*digestSize:]}, nil
}

// Count returns how many pages are said to be here.
func (p *Presence) Count() (n int) { return len(p.states) - bytes.Count(p.states, []byte{missing}) }

// Runs returns how many runs of pages there are.
func (p *Presence) Runs() (n int) {
	before := byte(missing)
	for _, s := range p.states {
		if s != missing && before == missing {
			n++
		}
		before = s
	}
	return n
}

// readMap reads a map whole: 130 KiB at most.
func readMap(f *os.File) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > mapSize(MaxPages) {
		return nil, fmt.Errorf("%w: map has %d bytes", ErrCorrupt, info.Size())
	}
	b := make([]byte, info.Size())
	if _, err := f.ReadAt(b, 0); err != nil && len(b) > 0 {
		return nil, fmt.Errorf("read map of partial pack: %w", err)
	}
	return b, nil
}
