package pack

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"

	"thaw/pagestore/internal/mapping"
	"thaw/pagestore/internal/pageset"
)

// ErrWrongBytes: what came is not what the pack, or its root, says.
var ErrWrongBytes = errors.New("wrong bytes")

// Partial is a pack that fills up: a sparse file laid out as the complete pack, and a map that says which pages are there. Pages are
// admitted in any order, by any number of goroutines and processes: all of them write the same bytes to the same places. All methods
// but Close and Finish are safe for concurrent use.
//
// Nothing is synced before Finish. After a start of the machine, which Boot tells, the map is only a hint: each page that it has is
// compared with its digest before it counts as present.
//
// The page's bytes are Mapped's, once they are known to be intact. A page that is not here is never known to be intact, and
// Mapped.Verify of one fails: see [Partial.Missing].
type Partial struct {
	*Mapped
	root    Digest
	files   [2]string // paths of pack and map
	write   *os.File  // the pack
	state   *os.File  // the map
	mapped  []byte    // the map, mapped
	states  []byte    // part of mapped
	marks   marks
	nodes   atomic.Pointer[[]byte]
	damaged atomic.Bool // given up: see Doubt

	memory     pageset.Set // pages that are served from memory: the disk was full
	kept       atomic.Bool // memory is not empty
	keeping    sync.Mutex
	memoryFile *os.File // where those lie, as in the pack; nil until there are any; protected by keeping
}

// OpenPartial opens the partial pack id, in the files path and state, and makes them if they are not there, or are not fit for use.
// Nobody else may be opening, finishing or deleting it: the caller sees to that. Errors wrap [ErrCorrupt] if there is one with another root.
func OpenPartial(path, state string, id ID, pages uint32, root Digest, boot Boot) (*Partial, error) {
	if pages == 0 || pages > MaxPages {
		return nil, fmt.Errorf("%w: pack of %d pages, want 1 to %d", ErrCorrupt, pages, MaxPages)
	}
	want := presence{id: id, root: root, pages: pages, boot: boot}
	p, err := openPartial(path, state, &want)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrCorrupt) && !errors.Is(err, errOtherRoot) {
		if err := makePartial(path, state, &want); err != nil {
			return nil, err
		}
		p, err = openPartial(path, state, &want)
	}
	return p, err
}

// HeldPartial opens a partial pack that is there, whatever its root, and makes none.
func HeldPartial(path, state string, id ID, boot Boot) (*Partial, error) {
	p, err := ReadPresence(state)
	if err != nil {
		return nil, err
	}
	return openPartial(path, state, &presence{id: id, root: p.Root, pages: p.Pages, boot: boot})
}

// errOtherRoot is an ErrCorrupt: two who should know say different things of one pack.
var errOtherRoot = fmt.Errorf("%w: root is another", ErrCorrupt)

// makePartial makes the files anew. The map gets its name last, and whole.
func makePartial(path, state string, want *presence) (err error) {
	tmp := state + ".tmp"
	for _, name := range []string{state, tmp, path} {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	defer func() {
		if err != nil {
			_, _ = os.Remove(path), os.Remove(tmp)
		}
	}()
	if err := makeFile(path, encodeHeader(), FileSize(int(want.pages))); err != nil {
		return err
	}
	// Written to its end, so that no later write of a byte finds the disk full.
	b := append(want.encode(), make([]byte, mapSize(want.pages)-mapHeaderSize)...)
	if err := makeFile(tmp, b, int64(len(b))); err != nil {
		return err
	}
	return os.Rename(tmp, state)
}

func makeFile(name string, begin []byte, size int64) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(begin, 0)
	if err == nil {
		err = f.Truncate(size)
	}
	return errors.Join(err, f.Close())
}

func openPartial(path, state string, want *presence) (_ *Partial, err error) {
	p := &Partial{root: want.root, files: [2]string{path, state}, memory: pageset.New(want.pages)}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	if p.state, err = os.OpenFile(state, os.O_RDWR, 0); err != nil {
		return nil, err
	}
	if p.write, err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
		return nil, err
	}
	if err := p.openMap(want); err != nil {
		return nil, err
	}
	if p.Mapped, err = openSparse(path, want.id, want.pages); err != nil {
		return nil, err
	}
	return p, p.openMarks()
}

// openMap checks the map, and takes back what it says if the machine was started since.
func (p *Partial) openMap(want *presence) error {
	b, err := readMap(p.state)
	if err != nil {
		return err
	}
	is, nodes, states, err := parsePresence(b)
	switch {
	case err != nil:
		return err
	case is.id != want.id || is.pages != want.pages:
		return fmt.Errorf("%w: map is that of pack %s of %d pages, want %s of %d", ErrCorrupt, is.id, is.pages, want.id, want.pages)
	case is.root != want.root:
		return fmt.Errorf("%w: %s here, want %s", errOtherRoot, is.root, want.root)
	}
	if is.boot != want.boot {
		for i, s := range states {
			if s == present {
				states[i] = doubtful
			}
		}
		if _, err := p.state.WriteAt(states, statesOff(want.pages)); err != nil {
			return err
		}
		// Last: who finds the new one may rely on the rest.
		if _, err := p.state.WriteAt(want.boot[:], mapBootOff); err != nil {
			return err
		}
	}
	if nodes != nil {
		p.nodes.Store(&nodes)
	}
	if p.mapped, err = mapping.Map(p.state, int64(len(b))); err != nil {
		return err
	}
	p.states = p.mapped[statesOff(want.pages):]
	return nil
}

// openSparse maps a pack of which nothing is known to be there.
func openSparse(path string, id ID, pages uint32) (*Mapped, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() != FileSize(int(pages)) {
		err = fmt.Errorf("%w: partial pack of %d pages has %d bytes, want %d", ErrCorrupt, pages, info.Size(), FileSize(int(pages)))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	data, err := mapping.MapRandom(f, info.Size())
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return newMapped(f, data, id, pages), nil
}

// Close unmaps the pack; what is in memory alone is gone then. No slice from Bytes may be in use.
func (p *Partial) Close() error {
	err := errors.Join(mapping.Unmap(p.mapped), p.marks.close())
	p.mapped, p.states = nil, nil
	if p.Mapped != nil {
		err = errors.Join(err, p.Mapped.Close())
	}
	for _, f := range []*os.File{p.state, p.write, p.memoryFile} {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	return err
}

// Root returns the root of the pack's nodes.
func (p *Partial) Root() Digest { return p.root }

// Files returns the paths under which pack and map were opened.
func (p *Partial) Files() (pack, state string) { return p.files[0], p.files[1] }

// Named reports whether the path under which the pack was opened still is that of this file. It stays so for who keeps others from
// opening, finishing and deleting it.
func (p *Partial) Named() (bool, error) {
	is, err := p.write.Stat()
	if err != nil {
		return false, err
	}
	there, err := os.Stat(p.files[0])
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(is, there), err
}

// Nodes returns the nodes of the pack's frames, one after the other; nil if they are not known yet. They must not be changed.
func (p *Partial) Nodes() []byte {
	if n := p.nodes.Load(); n != nil {
		return *n
	}
	return nil
}

// SetNodes makes the nodes known, if they have the root; else the error is [ErrWrongBytes]. They are copied, and kept in the map.
func (p *Partial) SetNodes(nodes []byte) error {
	if p.nodes.Load() != nil {
		return nil
	}
	if want := frames(p.pages) * nodeSize; len(nodes) != want {
		return fmt.Errorf("%w: nodes of %d bytes, want %d", ErrWrongBytes, len(nodes), want)
	}
	if got := Digest(sha256.Sum256(nodes)); got != p.root {
		return fmt.Errorf("%w: nodes have root %s, want %s", ErrWrongBytes, got, p.root)
	}
	nodes = bytes.Clone(nodes)
	p.nodes.Store(&nodes)
	_, err := p.state.WriteAt(nodes, mapHeaderSize)
	return err
}

// Frames returns how many frames the pack has.
func (p *Partial) Frames() int { return frames(p.pages) }

// Frame returns the first page of a frame and how many it has.
func (p *Partial) Frame(frame int) (page uint32, n int) {
	page = uint32(frame) * FramePages
	return page, int(min(FramePages, p.pages-page))
}

// has reports whether a page is here, in the file or in memory, without looking at doubtful ones.
func (p *Partial) has(page uint32) bool { return p.states[page] == present || p.memory.Has(page) }

// Missing returns the first page of [page, end) that is not here, end if all are. Those that were here before the machine was started
// are looked at: it may wait for the disk.
func (p *Partial) Missing(page, end uint32) uint32 {
	for ; page < end; page++ {
		if p.has(page) || p.states[page] == doubtful && p.settle(page) {
			continue
		}
		break
	}
	return page
}

// Present returns how many of the pages [page, end) are said to be here. It does not wait.
func (p *Partial) Present(page, end uint32) (n int) {
	for ; page < end; page++ {
		if p.states[page] != missing || p.memory.Has(page) {
			n++
		}
	}
	return n
}

// settle finds out whether a doubtful page is here. Whoever else says so meanwhile is right: they may have admitted it.
func (p *Partial) settle(page uint32) bool {
	state := byte(missing)
	if p.agrees(page) {
		state = present
	}
	return p.markDoubtful(page, state) == nil && p.states[page] == present
}

// agrees reports whether a page of the file, its digest and its sum go together.
func (p *Partial) agrees(page uint32) bool {
	var content [PageSize]byte
	var digest Digest
	var sum [sumSize]byte
	for _, part := range []struct {
		b   []byte
		off int64
	}{
		{content[:], Offset(page)}, {digest[:], p.digestOff(page)}, {sum[:], p.sumOff(page)},
	} {
		if _, err := p.write.ReadAt(part.b, part.off); err != nil {
			return false
		}
	}
	return sha256.Sum256(content[:]) == digest && Sum(content[:]) == binary.LittleEndian.Uint64(sum[:])
}

func (p *Partial) digestOff(page uint32) int64 { return Offset(p.pages) + int64(page)*digestSize }

func (p *Partial) sumOff(page uint32) int64 {
	return Offset(p.pages) + int64(p.pages)*digestSize + int64(page)*sumSize
}

// Admit puts pages from page on in their place: content is whole pages, digests their SHA-256s one after the other, which the caller
// has checked. Pages that are here stay. An error, of the disk, leaves them missing.
func (p *Partial) Admit(page uint32, content, digests []byte) error {
	n := uint32(len(content) / PageSize)
	if n == 0 || page >= p.pages || n > p.pages-page || len(content)%PageSize != 0 || len(digests) != int(n)*digestSize {
		return fmt.Errorf("%w: %d bytes at page %d of %d", ErrWrongBytes, len(content), page, p.pages)
	}
	for n > 0 && p.has(page) {
		page, n, content, digests = page+1, n-1, content[PageSize:], digests[digestSize:]
	}
	if n == 0 {
		return nil
	}
	sums := make([]byte, 0, FramePages*sumSize)
	for b := content; len(b) > 0; b = b[PageSize:] {
		sums = binary.LittleEndian.AppendUint64(sums, xxhash.Sum64(b[:PageSize]))
	}
	_, err := p.write.WriteAt(content, Offset(page))
	if err == nil {
		err = p.enter(page, digests, sums)
	}
	if err == nil {
		err = p.mark(page, n) // last: the rest is there
	}
	if err != nil {
		return fmt.Errorf("write page %d of partial pack: %w", page, err)
	}
	p.know(page, n)
	return nil
}

// know marks pages as known to be intact.
func (p *Partial) know(page, n uint32) {
	for i := page; i < page+n && !p.damaged.Load(); i++ {
		p.verified.Add(i)
	}
}

// Keep is Admit for a disk that is full: the pages are in memory, until Close. Those that are in the file already are, too, so that what is
// kept is one mapping of the process, or a part of one.
func (p *Partial) Keep(page uint32, content []byte) error {
	n := uint32(len(content) / PageSize)
	if n == 0 || page >= p.pages || n > p.pages-page || len(content)%PageSize != 0 {
		return fmt.Errorf("%w: %d bytes at page %d of %d", ErrWrongBytes, len(content), page, p.pages)
	}
	p.keeping.Lock()
	defer p.keeping.Unlock()
	if p.memoryFile == nil {
		f, err := mapping.MemoryFile(FileSize(int(p.pages)))
		if err != nil {
			return err
		}
		p.memoryFile = f
	}
	if _, err := p.memoryFile.WriteAt(content, Offset(page)); err != nil {
		return fmt.Errorf("keep page %d in memory: %w", page, err)
	}
	p.kept.Store(true)
	if err := mapping.Overlay(p.Bytes(page, int(n)), p.memoryFile, Offset(page)); err != nil {
		return fmt.Errorf("keep page %d in memory: %w", page, err)
	}
	p.know(page, n)
	for i := range n {
		p.memory.Add(page + i)
	}
	return nil
}

// InMemory reports whether pages are in memory, which Close gives back.
func (p *Partial) InMemory() bool { return p.kept.Load() }

// Copy is Mapped.Copy. Of pages that are in memory there may be no sum to compare with.
func (p *Partial) Copy(to []byte, page uint32) (n int, err error) {
	if !p.kept.Load() {
		return p.Mapped.Copy(to, page)
	}
	defer mapping.Recover(mapping.Guard(), &err)
	for ; n < len(to)/PageSize; n++ {
		at, b := page+uint32(n), to[n*PageSize:][:PageSize]
		kept := p.memory.Has(at) // before it is copied
		copy(b, p.Bytes(at, 1))
		if kept {
			continue
		}
		if err := p.compare(b, at); err != nil {
			return n, err
		}
	}
	return n, nil
}

// Forget makes a page count as missing: what is here of it is not what should be.
func (p *Partial) Forget(page uint32) error {
	_, err := p.state.WriteAt([]byte{missing}, statesOff(p.pages)+int64(page))
	return err
}

// Complete reports whether all pages are said to be in the file.
func (p *Partial) Complete() bool { return bytes.IndexByte(p.states, missing) < 0 }

// Finish makes the file a complete pack, but for its name, which the caller gives it when the file is synced: all pages are there. The error is
// [ErrWrongBytes] if they are not those of the pack's id: then the root was wrong, and nothing here is to be relied on.
// It is fs.ErrNotExist if a page turned out to be missing.
func (p *Partial) Finish() error {
	if at := p.Missing(0, p.pages); at < p.pages || !p.Complete() {
		return fmt.Errorf("finish pack: page %d: %w", at, fs.ErrNotExist)
	}
	tables := make([]byte, int(p.pages)*(digestSize+sumSize))
	if _, err := p.write.ReadAt(tables, Offset(p.pages)); err != nil {
		return fmt.Errorf("read tables of partial pack: %w", err)
	}
	if got := ID(sha256.Sum256(tables)); got != p.id {
		return fmt.Errorf("%w: pages of root %s make pack %s", ErrWrongBytes, p.root, got)
	}
	digests := tables[:int(p.pages)*digestSize]
	t := trailer{
		pages: int(p.pages), id: p.id, sumsSum: xxhash.Sum64(tables[len(digests):]), digestsSum: xxhash.Sum64(digests),
	}
	if _, err := p.write.WriteAt(t.encode(), FileSize(int(p.pages))-trailerSize); err != nil {
		return fmt.Errorf("write trailer of partial pack: %w", err)
	}
	if _, err := p.write.WriteAt(encodeHeader(), 0); err != nil { // which may have been lost with power
		return fmt.Errorf("write header of partial pack: %w", err)
	}
	return nil
}

// Doubt makes no page count as known to be intact, from now on: the root was wrong.
func (p *Partial) Doubt() {
	p.damaged.Store(true)
	for i := range p.verified {
		p.verified[i].Store(0)
	}
}
