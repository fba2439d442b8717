package pagestore

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"thaw/pagestore/internal/mapping"
	"thaw/pagestore/internal/pack"
)

// maxBadPages bounds VerifyReport.BadPages: a report is read by people.
const maxBadPages = 1000

// VerifyReport says what Verify looked at and what is wrong with it.
type VerifyReport struct {
	Snapshots int    `json:"snapshots"`
	Packs     int    `json:"packs"`
	Pages     uint64 `json:"pages"`
	// RemotePacks are named by stubs alone, and not, or not all, here; Pages has those that are.
	RemotePacks int `json:"remote_packs"`
	// HotPages are second copies of pages; see [WorkingSet].
	HotPages uint64 `json:"hot_pages"`

	// BadSnapshots have a damaged manifest, info or skeleton.
	BadSnapshots []BadSnapshot `json:"bad_snapshots,omitempty"`
	// BadPacks are missing, or their tables are damaged. Their pages are not looked at.
	BadPacks []BadPack `json:"bad_packs,omitempty"`
	// BadPages are the first 1000 of BadPageCount pages that are not what they should be.
	BadPages     []BadPage `json:"bad_pages,omitempty"`
	BadPageCount uint64    `json:"bad_page_count"`
	// BadWorkingSets are snapshots that are whole, with a hint or a packed copy that is damaged. Nothing is lost with it:
	// [Snapshot.DropWorkingSet] deletes it, [Snapshot.SetWorkingSet] replaces it, and restores go without.
	BadWorkingSets []BadSnapshot `json:"bad_working_sets,omitempty"`
}

// BadSnapshot is a snapshot that is damaged apart from its pages.
type BadSnapshot struct {
	Name Name
	Err  error
}

// BadPack is a pack that cannot be used: Err is [ErrMissingPack], [ErrCorrupt], [ErrVersion] or one of the storage.
type BadPack struct {
	Namespace string
	Pack      PackID
	// Snapshots use the pack.
	Snapshots []Name
	Err       error
}

// BadPage is a page that cannot be used.
type BadPage struct {
	PageError
	Namespace string
	// Snapshots use the page; none do if the page is garbage that GC could not free.
	Snapshots []Name
}

// OK reports whether nothing was wrong.
func (r *VerifyReport) OK() bool {
	return len(r.BadSnapshots) == 0 && len(r.BadPacks) == 0 && r.BadPageCount == 0 && len(r.BadWorkingSets) == 0
}

// Verify reads all that is in the store and compares it with its SHA-256. What is wrong is in the report, sorted by
// namespace and pack; the error says that Verify itself could not go on. It holds a lease on every snapshot, and no lock:
// writers go on meanwhile. progress, if not nil, is called now and then, never by two goroutines at a time.
func (s *Store) Verify(ctx context.Context, progress func(Progress)) (VerifyReport, error) {
	v := &verifier{store: s}
	names, err := s.Namespaces()
	if err != nil {
		return VerifyReport{}, fmt.Errorf("verify: %w", err)
	}
	var all []*namespaceCheck
	defer func() {
		for _, c := range all {
			c.close()
		}
	}()
	for _, name := range names {
		c, err := v.openNamespace(s.namespace(name))
		all = append(all, c)
		if err != nil {
			return v.report, fmt.Errorf("verify namespace %s: %w", name, err)
		}
		v.total += c.bytes()
	}
	v.meter = newMeter(progress, Progress{Stage: StageVerify, TotalBytes: v.total})
	for _, c := range all {
		if err := v.checkNamespace(ctx, c); err != nil {
			return v.report, fmt.Errorf("verify namespace %s: %w", c.ns.name, err)
		}
	}
	v.meter.finish()
	v.sort()
	return v.report, nil
}

// verifier is one run of Verify.
type verifier struct {
	store *Store
	total uint64

	mu     sync.Mutex
	meter  *meter       // protected by mu
	report VerifyReport // protected by mu
}

// namespaceCheck is what one namespace is made of.
type namespaceCheck struct {
	ns        namespace
	snapshots []*Snapshot
	used      usage
	stubs     map[PackID]bool // packs that are named: whether by stubs alone
	packs     []packFile
	partial   []partialID
	// workingSets are those of the snapshots that have one.
	workingSets []workingSetCheck
}

func (c *namespaceCheck) close() {
	for _, s := range c.snapshots {
		s.Close()
	}
}

func (c *namespaceCheck) bytes() (n uint64) {
	for _, p := range c.packs {
		n += uint64(p.size)
	}
	for _, w := range c.workingSets {
		n += uint64(w.packed)
	}
	return n
}

// openNamespace leases the snapshots first and lists the packs then, so that no pack of theirs can go meanwhile.
func (v *verifier) openNamespace(ns namespace) (*namespaceCheck, error) {
	c := &namespaceCheck{ns: ns, used: make(usage), stubs: make(map[PackID]bool)}
	folders, err := ns.folders()
	if err != nil {
		return c, err
	}
	for _, f := range folders {
		v.openSnapshot(c, f)
	}
	if c.partial, err = ns.listPartial(); err != nil {
		return c, err
	}
	c.packs, err = ns.listPacks()
	return c, err
}

// openSnapshot leases one snapshot and checks all of it but the pages.
func (v *verifier) openSnapshot(c *namespaceCheck, f folder) {
	snap, err := v.store.openFolder(c.ns, f.dir)
	if err != nil {
		if _, statErr := os.Stat(f.dir); f.removed || errors.Is(statErr, fs.ErrNotExist) || errors.Is(err, errMoved) {
			return // removed or deleted while we looked
		}
		v.badSnapshot(Name{Namespace: c.ns.name, Snapshot: f.snapshot}, err)
		return
	}
	c.snapshots = append(c.snapshots, snap)
	v.report.Snapshots++
	if err := snap.verify(c.used); err != nil {
		v.badSnapshot(snap.info.Name, err)
		return
	}
	c.noteStub(snap)
	if hint, packed, _ := workingSetFiles(f.dir); hint > 0 || packed > 0 {
		c.workingSets = append(c.workingSets, workingSetCheck{snapshot: snap, hint: hint, packed: packed})
	}
}

// noteStub notes whether the packs that a snapshot names may be missing.
func (c *namespaceCheck) noteStub(snap *Snapshot) {
	ids, _, err := readPacks(snap.manifest)
	if err != nil {
		return // another finding
	}
	for _, id := range ids {
		alone, named := c.stubs[id]
		c.stubs[id] = snap.remote != nil && (alone || !named)
	}
}

// verify checks the manifest against its digest and the skeleton against the list in info.json, and adds to used what the
// manifest names.
func (s *Snapshot) verify(used usage) (err error) {
	defer mapping.Recover(mapping.Guard(), &err)
	if got := Digest(sha256.Sum256(s.data)); got != s.info.Digest {
		return corruptf("manifest has digest %s, want %s", got, s.info.Digest)
	}
	if err := used.add(s.info.Name.Snapshot, s.manifest); err != nil {
		return err
	}
	for _, f := range s.info.Skeleton {
		digest, n, err := hashFile(filepath.Join(s.SkeletonDir(), filepath.FromSlash(f.Path)))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return corruptf("skeleton file %s is missing", f.Path)
		case err != nil:
			return err
		case n != f.Bytes || digest != f.SHA256:
			return corruptf("skeleton file %s has %d bytes with digest %s, want %d with %s", f.Path, n, digest, f.Bytes, f.SHA256)
		}
	}
	return nil
}

func hashFile(path string) (d Digest, n int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return d, 0, err
	}
	defer f.Close()
	h := sha256.New()
	n, err = io.Copy(h, f)
	return Digest(h.Sum(nil)), n, err
}

// checkNamespace checks the packs and the working sets of a namespace, several at a time.
func (v *verifier) checkNamespace(ctx context.Context, c *namespaceCheck) error {
	present := make(map[PackID]bool)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, p := range c.packs {
		present[p.id] = true
		g.Go(func() error { return v.checkPack(ctx, c, p) })
	}
	for _, w := range c.workingSets {
		g.Go(func() error { return v.checkWorkingSet(ctx, w) })
	}
	for _, name := range c.partial {
		if !present[name.id] && c.used[name.id] != nil {
			g.Go(func() error { return v.checkPartial(ctx, c, name) })
		}
	}
	for _, id := range slices.SortedFunc(maps.Keys(c.used), compareIDs) {
		switch {
		case present[id]:
		case c.stubs[id]:
			v.remotePack()
		default:
			v.badPack(c, id, ErrMissingPack)
		}
	}
	return g.Wait()
}

// checkPack reads one pack from end to end.
func (v *verifier) checkPack(ctx context.Context, c *namespaceCheck, p packFile) error {
	f, err := os.Open(c.ns.pack(p.id))
	if errors.Is(err, fs.ErrNotExist) && c.used[p.id] == nil {
		return nil // garbage, collected while we looked
	} else if err != nil {
		v.badPack(c, p.id, err)
		return nil
	}
	defer f.Close()
	stat, err := f.Stat()
	if err != nil {
		return err
	}
	footer, err := pack.ReadFooter(f, stat.Size())
	if err == nil && footer.ID != p.id {
		err = corruptf("file holds pack %s", footer.ID)
	}
	if use := c.used[p.id]; err == nil && use != nil && int(use.pages) != footer.Pages() {
		err = corruptf("pack has %d pages, manifests say %d", footer.Pages(), use.pages)
	}
	if err != nil {
		v.badPack(c, p.id, classify(err))
		v.done(0, p.size)
		return nil
	}
	v.done(0, p.size-int64(footer.Pages())*PageSize)
	if err := v.checkPages(ctx, c, f, footer); err != nil {
		return err
	}
	v.mu.Lock()
	v.report.Packs++
	v.mu.Unlock()
	return nil
}

// done notes progress.
func (v *verifier) done(pages int, bytes int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.report.Pages += uint64(pages)
	v.meter.add(uint64(bytes))
}

// checkPages hashes the pages of a pack, 1 MiB at a time.
func (v *verifier) checkPages(ctx context.Context, c *namespaceCheck, f *os.File, footer *pack.Footer) error {
	pages := newHashedPages(min(chunkPages, footer.Pages()))
	for first := 0; first < footer.Pages(); first += chunkPages {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(chunkPages, footer.Pages()-first)
		pages.read(f, pack.Offset(uint32(first)), n)
		for i := range n {
			number := uint32(first + i)
			if err := pages.check(i, footer, number); err != nil {
				v.badPage(c, footer.ID, number, err)
			}
		}
		v.done(n, int64(n)*PageSize)
	}
	return nil
}

func (v *verifier) badSnapshot(name Name, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.report.BadSnapshots = append(v.report.BadSnapshots, BadSnapshot{Name: name, Err: classify(err)})
}

func (v *verifier) badPack(c *namespaceCheck, id PackID, err error) {
	bad := BadPack{Namespace: c.ns.name, Pack: id, Err: err}
	if use := c.used[id]; use != nil {
		for _, s := range use.snapshots {
			bad.Snapshots = append(bad.Snapshots, Name{Namespace: c.ns.name, Snapshot: s})
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.report.BadPacks = append(v.report.BadPacks, bad)
}

func (v *verifier) badPage(c *namespaceCheck, id PackID, page uint32, err error) {
	bad := BadPage{
		PageError: PageError{Pack: id, Page: page, Offset: pack.Offset(page), Err: err},
		Namespace: c.ns.name,
		Snapshots: c.usersOf(id, page),
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.report.BadPageCount++
	if len(v.report.BadPages) < maxBadPages {
		v.report.BadPages = append(v.report.BadPages, bad)
	}
}

// usersOf returns the snapshots with an extent over a page. It reads all manifests; bad pages are rare.
func (c *namespaceCheck) usersOf(id PackID, page uint32) (users []Name) {
	for _, s := range c.snapshots {
		if uses, err := s.uses(id, page); err == nil && uses && !slices.Contains(users, s.info.Name) {
			users = append(users, s.info.Name)
		}
	}
	return users
}

func (s *Snapshot) uses(id PackID, page uint32) (yes bool, err error) {
	defer mapping.Recover(mapping.Guard(), &err)
	for i := range s.manifest.Extents() {
		e := s.manifest.Extent(i)
		if e.Page <= page && page-e.Page < e.Pages && s.manifest.Pack(int(e.Pack)).ID == id {
			return true, nil
		}
	}
	return false, nil
}

func compareIDs(a, b PackID) int { return slices.Compare(a[:], b[:]) }

func (v *verifier) sort() {
	slices.SortFunc(v.report.BadPacks, func(a, b BadPack) int {
		return slices.Compare(append([]byte(a.Namespace+"/"), a.Pack[:]...), append([]byte(b.Namespace+"/"), b.Pack[:]...))
	})
	slices.SortFunc(v.report.BadPages, func(a, b BadPage) int {
		if c := slices.Compare(append([]byte(a.Namespace+"/"), a.Pack[:]...), append([]byte(b.Namespace+"/"), b.Pack[:]...)); c != 0 {
			return c
		}
		return int(a.Page) - int(b.Page)
	})
	slices.SortFunc(v.report.BadWorkingSets, func(a, b BadSnapshot) int { return strings.Compare(a.Name.String(), b.Name.String()) })
}
