package pagestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"thaw/internal/durable/durabletest"
	"thaw/internal/testenv"
)

// usedAt makes a stub one that was used last at a time.
func usedAt(t *testing.T, s *Store, name string, at time.Time) {
	t.Helper()
	path := filepath.Join(s.namespace("default").snapshot(name), remoteFile)
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

// localPages returns how many pages of each snapshot are here.
func localPages(t *testing.T, s *Store, names ...string) (pages []uint64) {
	t.Helper()
	for _, name := range names {
		snap, err := s.Snapshot(mustName(name))
		if err != nil {
			t.Fatal(err)
		}
		l, err := snap.Local()
		if err := errors.Join(err, snap.Close()); err != nil {
			t.Fatal(err)
		}
		pages = append(pages, l.LocalPages)
	}
	return pages
}

// bring brings pages of a stub, without leaving it open.
func bring(t *testing.T, s *Store, name string, page, n uint64) {
	t.Helper()
	snap, err := s.Snapshot(mustName(name))
	if err != nil {
		t.Fatal(err)
	}
	im, err := snap.Image()
	if err == nil {
		err = im.Bring(t.Context(), page, n, Mirror)
	}
	if err := errors.Join(err, snap.Close()); err != nil {
		t.Fatal(err)
	}
	s.running.Wait()
}

// threeStubs returns a store with the stubs a, b and c, of which all pages are here, of a partly, and a was used least lately.
func threeStubs(t *testing.T) *Store {
	t.Helper()
	far := newStore(t)
	s := emptyStore(t, t.TempDir(), newStoreOrigin(far), Options{})
	for i, name := range []string{"a", "b", "c"} {
		mustImport(t, far, name, seeds(uint64(1+1000*i), 64))
		mustAdopt(t, s, far, name)
		if name == "a" {
			bring(t, s, name, 0, 32)
		} else {
			bring(t, s, name, 0, 64)
		}
		usedAt(t, s, name, time.Now().Add(-[]time.Duration{1000, 10, 1}[i]*time.Hour))
	}
	return s
}

func TestEvictTakesWhatWasNotUsedForLong(t *testing.T) {
	s := threeStubs(t)
	report, err := s.Evict(t.Context(), 1<<40)
	if err != nil || report.BytesFreed != 0 || report.RemoteBytes < 160*PageSize {
		t.Fatalf("below the bound: %+v, %v", report, err)
	}
	all := report.RemoteBytes
	if report, err = s.Evict(t.Context(), all-1); err != nil || report.Partial != 1 || report.Packs != 0 {
		t.Errorf("a byte too much: %+v, %v", report, err)
	}
	if got := fmt.Sprint(localPages(t, s, "a", "b", "c")); got != "[0 64 64]" {
		t.Errorf("pages %s are here", got)
	}
	if report, err = s.Evict(t.Context(), report.RemoteBytes-1); err != nil || report.Packs != 1 {
		t.Errorf("again: %+v, %v", report, err)
	}
	if got := fmt.Sprint(localPages(t, s, "a", "b", "c")); got != "[0 0 64]" {
		t.Errorf("pages %s are here", got)
	}
	if err := checkVerify(t, s); err != nil {
		t.Error(err)
	}
	for i, name := range []string{"a", "b", "c"} { // stubs again, which bring what they need
		if err := checkImage(s, name, seeds(uint64(1+1000*i), 64)); err != nil {
			t.Error(err)
		}
	}
}

func TestEvictTakesNothingThatIsLeasedOrWasMadeHere(t *testing.T) {
	s := threeStubs(t)
	mustImport(t, s, "local", seeds(2001, 64)) // the pages of c, whose pack it names now
	im := mustImage(t, s, "a")
	b := mustOpen(t, s, "b")
	report, err := s.Evict(t.Context(), 0)
	if err != nil || report.BytesFreed != 0 || report.LeasedBytes != report.RemoteBytes || report.RemoteBytes == 0 {
		t.Errorf("%+v, %v", report, err)
	}
	if got := fmt.Sprint(localPages(t, s, "a", "b", "c", "local")); got != "[32 64 64 64]" {
		t.Errorf("pages %s are here", got)
	}
	if _, n := im.Ready(0, 1); n != 0 { // the image was opened after they came
		t.Error("a page is ready that this image has not looked at")
	}
	if _, n, err := im.Load(0, 32); n != 32 || err != nil {
		t.Errorf("Load: %d, %v", n, err)
	}
	b.Close()
	if report, err = s.Evict(t.Context(), 0); err != nil || report.Packs != 1 {
		t.Errorf("without the lease: %+v, %v", report, err)
	}
	if got := fmt.Sprint(localPages(t, s, "a", "b", "c", "local")); got != "[32 0 64 64]" {
		t.Errorf("pages %s are here", got)
	}
}

func TestWhatIsLeasedByAnotherProcessIsNotEvicted(t *testing.T) {
	s, _ := newStub(t, seeds(1, 64), Options{})
	bring(t, s, "a", 0, 64)
	child, out := startChild(t, "lease", s.Dir())
	if !out.Scan() || out.Text() != "leased" {
		t.Fatalf("child says %q, %v", out.Text(), out.Err())
	}
	if report, err := s.Evict(t.Context(), 0); err != nil || report.BytesFreed != 0 {
		t.Errorf("%+v, %v", report, err)
	}
	child.Process.Kill()
	child.Wait()
	if report, err := s.Evict(t.Context(), 0); err != nil || report.Packs != 1 {
		t.Errorf("after its death: %+v, %v", report, err)
	}
}

// mustHold opens the only pack of the stub "a" as one does who serves it, without a lease.
func mustHold(t *testing.T, s *Store) *HeldPack {
	t.Helper()
	snap, err := s.Snapshot(mustName("a"))
	if err != nil {
		t.Fatal(err)
	}
	packs, err := snap.Packs()
	if err := errors.Join(err, snap.Close()); err != nil || len(packs) != 1 {
		t.Fatal(packs, err)
	}
	h, err := s.HeldPack("default", packs[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func TestAPackThatWasEvictedWhileItIsHeldIsBroughtAgain(t *testing.T) {
	for _, here := range []uint64{32, 64} { // a partial one, and a complete one
		s, _ := newStub(t, seeds(1, 64), Options{KeepPacks: 10})
		bring(t, s, "a", 0, here)
		h := mustHold(t, s)
		buf := make([]byte, framePages*PageSize)
		if report, err := s.Evict(t.Context(), 0); err != nil || report.Packs+report.Partial != 1 {
			t.Fatalf("%+v, %v", report, err)
		}
		bring(t, s, "a", 0, 64)
		if got := packList(t, s); len(got) != 1 {
			t.Errorf("with %d pages before: packs %v after all was brought", here, got)
		}
		if err := errors.Join(checkImage(openStore(t, s.Dir(), nil), "a", seeds(1, 64)), checkVerify(t, s)); err != nil {
			t.Error(err)
		}
		if _, err := h.ReadFrame(buf, 0); err != nil {
			t.Errorf("who held it cannot go on: %v", err)
		}
	}
}

func TestWhatWasEvictedDoesNotGiveItsNameToAnotherFile(t *testing.T) {
	s, o := newStub(t, seeds(1, 64), Options{})
	bring(t, s, "a", 0, 32)
	h := mustHold(t, s)
	other := openStore(t, s.Dir(), &Options{Origin: o})
	if report, err := other.Evict(t.Context(), 0); err != nil || report.Partial != 1 {
		t.Fatalf("%+v, %v", report, err)
	}
	bring(t, other, "a", 0, 32)
	if err := h.Bring(t.Context(), 0, 2, Mirror); err != nil { // the rest, in a file without a name
		t.Fatal(err)
	}
	s.running.Wait()
	if got := packList(t, s); len(got) != 0 {
		t.Errorf("packs %v, of which half is missing", got)
	}
	if err := errors.Join(checkVerify(t, other), checkImage(other, "a", seeds(1, 64)), checkVerify(t, other)); err != nil {
		t.Error(err)
	}
	other.running.Wait()
	if got := packList(t, s); len(got) != 1 {
		t.Errorf("packs %v in the end", got)
	}
}

func TestManyScatteredPagesAreKeptBeforeAFewLongRuns(t *testing.T) {
	long := evictable{bytes: 100 * requestBytes, runs: 1, idle: time.Hour}
	scattered := evictable{bytes: 100 * requestBytes, runs: 100, idle: time.Hour}
	if long.weight() <= scattered.weight() {
		t.Error("what costs more to bring again goes first")
	}
	scattered.idle = 100 * time.Hour
	if long.weight() >= scattered.weight() {
		t.Error("what was not used for a hundred times as long is kept")
	}
}

func TestAStubCanBeOpenedWhileOthersAreEvicted(t *testing.T) {
	s, _ := newStub(t, seeds(1, 64), Options{})
	bring(t, s, "a", 0, 64)
	dir := s.namespace("default").snapshot("a")
	yes, release, err := leased(dir) // as Evict does
	if yes || err != nil {
		t.Fatal(yes, err)
	}
	opened := make(chan error, 1)
	go func() { opened <- checkImage(s, "a", seeds(1, 64)) }()
	select {
	case err := <-opened:
		t.Errorf("it did not wait: %v", err)
	default:
	}
	release()
	if err := <-opened; err != nil {
		t.Error(err)
	}
}

func TestTheBoundHoldsWhilePagesComeIn(t *testing.T) {
	far := newStore(t)
	const bound = 200 * PageSize
	s := emptyStore(t, t.TempDir(), newStoreOrigin(far), Options{RemoteBytes: bound})
	for i := range 8 {
		name := fmt.Sprint("a", i)
		mustImport(t, far, name, seeds(uint64(1+1000*i), 64))
		mustAdopt(t, s, far, name)
		bring(t, s, name, 0, 64)
	}
	bring(t, s, "a7", 0, 64)
	report, err := s.Evict(t.Context(), 1<<40)
	if err != nil || report.RemoteBytes > bound+80*PageSize {
		t.Errorf("%d bytes are here, the bound is %d: %v", report.RemoteBytes, bound, err)
	}
	if report.RemoteBytes < 60*PageSize {
		t.Errorf("%d bytes are here: all was evicted", report.RemoteBytes)
	}
}

func TestGCKeepsPartialPacksOfStubsAndNoOthers(t *testing.T) {
	s := threeStubs(t)
	if report, err := s.GC(t.Context()); err != nil || report.PartialDeleted != 0 || report.PacksDeleted != 0 {
		t.Errorf("%+v, %v", report, err)
	}
	ns := s.namespace("default")
	if err := os.WriteFile(filepath.Join(ns.partial(), partialID{id: PackID{1}}.String()+mapExt), []byte("left behind"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		if err := s.Remove(t.Context(), mustName(name)); err != nil {
			t.Fatal(err)
		}
	}
	if report, err := s.GC(t.Context()); err != nil || report.PartialDeleted != 2 || report.PacksDeleted != 1 || report.BytesFreed < 96*PageSize {
		t.Errorf("%+v, %v", report, err)
	}
	if got := fmt.Sprint(localPages(t, s, "c")); got != "[64]" {
		t.Errorf("pages %s are here", got)
	}
}

func TestVerifyFindsAWrongPageOfAPartialPack(t *testing.T) {
	s, _ := newStub(t, seeds(1, 64), Options{})
	bring(t, s, "a", 0, 32)
	ids, err := s.namespace("default").listPartial()
	if err != nil || len(ids) != 1 {
		t.Fatal(ids, err)
	}
	file, _ := s.namespace("default").partialFiles(ids[0])
	flipBit(t, file, 5*PageSize+7)
	report, err := s.Verify(t.Context(), nil)
	if err != nil || report.BadPageCount != 1 || report.BadPages[0].Page != 4 || report.RemotePacks != 1 || report.Pages != 32 {
		t.Errorf("%+v, %v", report, err)
	}
	// It is not served either: it is brought again.
	if err := errors.Join(checkImage(s, "a", seeds(1, 64)), checkVerify(t, s)); err != nil {
		t.Error(err)
	}
}

func TestVerifyReportsAPartialPackThatIsCutOff(t *testing.T) {
	s, _ := newStub(t, seeds(1, 64), Options{})
	bring(t, s, "a", 0, 32)
	ids, err := s.namespace("default").listPartial()
	if err != nil || len(ids) != 1 {
		t.Fatal(ids, err)
	}
	file, _ := s.namespace("default").partialFiles(ids[0])
	truncate(t, file, 10*PageSize)
	report, err := s.Verify(t.Context(), nil)
	if err != nil || len(report.BadPacks) != 1 || report.BadPacks[0].Pack != ids[0].id || report.BadPageCount != 0 {
		t.Errorf("%+v, %v", report, err)
	}
}

// smallDisk returns a folder on a file system of its own.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	testenv.NeedRoot(t)
	mount := t.TempDir()
	if err := unix.Mount("pagestore-test", mount, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("cannot mount a small tmpfs: %v; run as root with CAP_SYS_ADMIN", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mount, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return mount
}

func TestPagesAreServedFromMemoryWhenTheDiskIsFull(t *testing.T) {
	far := newStore(t)
	m := seeds(1, 1000)
	mustImport(t, far, "a", m)
	s := emptyStore(t, smallDisk(t, "2m"), newStoreOrigin(far), Options{})
	mustAdopt(t, s, far, "a")
	im := mustImage(t, s, "a")
	for page := 0; page < len(m); {
		data, n, err := im.Load(uint64(page), 65)
		if err == nil {
			err = samePages(data, m[page:page+n])
		}
		if err != nil {
			t.Fatalf("page %d: %v", page, err)
		}
		page += n
	}
	s.running.Wait()
	// All of it stays, also that which the disk does not have.
	for page := range uint64(len(m)) {
		data, n := im.Ready(page, 1)
		if n != 1 || !bytes.Equal(data, pageOf(m[page])) {
			t.Fatalf("page %d is not ready any more", page)
		}
	}
	if l := mustLocal(t, s, "a"); l.LocalPages == l.StoredPages || l.LocalPages == 0 {
		t.Errorf("%d of %d pages are said to be on a disk that has not that much room", l.LocalPages, l.StoredPages)
	}
}

func TestWhatNobodyWaitsForIsNotKeptInMemoryWhenTheDiskIsFull(t *testing.T) {
	far := newStore(t)
	m := seeds(1, 1000)
	mustImport(t, far, "a", m)
	s := emptyStore(t, smallDisk(t, "2m"), newStoreOrigin(far), Options{})
	mustAdopt(t, s, far, "a")
	im := mustImage(t, s, "a")
	if err := im.Mirror(t.Context()); !errors.Is(err, ErrNoSpace) {
		t.Errorf("Mirror: %v, want %v", err, ErrNoSpace)
	}
	if err := im.Bring(t.Context(), 0, 1000, Ahead); !errors.Is(err, ErrNoSpace) {
		t.Errorf("Bring: %v, want %v", err, ErrNoSpace)
	}
	if n := s.inMemory.Load(); n != 0 {
		t.Errorf("%d bytes are in memory", n)
	}
	if err := checkImage(s, "a", m); err != nil {
		t.Errorf("who waits: %v", err)
	}
}

func TestWhatIsKeptInMemoryWhenTheDiskIsFullIsBounded(t *testing.T) {
	far := newStore(t)
	m := seeds(1, 1000)
	mustImport(t, far, "a", m)
	const bound = 5 * framePages * PageSize
	s := emptyStore(t, smallDisk(t, "2m"), newStoreOrigin(far), Options{keepBytes: bound})
	mustAdopt(t, s, far, "a")
	snap := mustOpen(t, s, "a")
	im, err := snap.Image()
	if err != nil {
		t.Fatal(err)
	}
	for page := 0; page < len(m) && err == nil; {
		var data []byte
		var n int
		if data, n, err = im.Load(uint64(page), 1); err == nil {
			err = samePages(data, m[page:page+n])
		}
		page += n
	}
	if bad := new(PageError); !errors.As(err, &bad) || !errors.Is(err, ErrNoSpace) {
		t.Errorf("Load: %v, want %v", err, ErrNoSpace)
	}
	if n := s.inMemory.Load(); n == 0 || n > bound {
		t.Errorf("%d bytes are in memory, want at most %d", n, bound)
	}
	if err := snap.Close(); err != nil {
		t.Fatal(err)
	}
	if n := s.inMemory.Load(); n != 0 {
		t.Errorf("%d bytes count as being in memory after all was closed", n)
	}
}

func TestAFullDiskIsEmptiedOfWhatNobodyUses(t *testing.T) {
	far := newStore(t)
	mustImport(t, far, "a", seeds(1, 300))
	mustImport(t, far, "b", seeds(1001, 300))
	s := emptyStore(t, smallDisk(t, "2m"), newStoreOrigin(far), Options{})
	mustAdopt(t, s, far, "a")
	mustAdopt(t, s, far, "b")
	bring(t, s, "a", 0, 300)
	bring(t, s, "b", 0, 300)
	if got := localPages(t, s, "a", "b"); got[0] == 300 || got[1] != 300 {
		t.Errorf("pages %d are here, want all of b, at the cost of a", got)
	}
	if err := errors.Join(checkImage(s, "b", seeds(1001, 300)), checkImage(s, "a", seeds(1, 300))); err != nil {
		t.Error(err)
	}
}

// TestFaultsWhileAPackIsFinished lets each change of folders fail, before and after it is made; the pages are right whatever happens.
func TestFaultsWhileAPackIsFinished(t *testing.T) {
	far := newStore(t)
	mustImport(t, far, "a", seeds(1, 64))
	for _, fault := range durabletest.Faults {
		for step, reached := 1, true; reached; step++ {
			dir := memoryDir(t)
			s := emptyStore(t, dir, newStoreOrigin(far), Options{})
			mustAdopt(t, s, far, "a")
			fsys := durabletest.New(t.TempDir(), step, fault)
			broken := openStore(t, s.Dir(), &Options{Origin: newStoreOrigin(far), fs: fsys})
			if err := checkImage(broken, "a", seeds(1, 64)); err != nil {
				t.Errorf("%v at step %d: %v", fault, step, err)
			}
			broken.Close()
			reached = fsys.Reached()
			if err := fsys.Close(); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(checkImage(s, "a", seeds(1, 64)), checkVerify(t, s)); err != nil {
				t.Errorf("%v at step %d, afterwards: %v", fault, step, err)
			}
			s.running.Wait()
			if got := packList(t, s); len(got) != 1 {
				t.Errorf("%v at step %d: packs %v", fault, step, got)
			}
			if _, err := s.GC(t.Context()); err != nil {
				t.Error(err)
			}
			if ids, err := s.namespace("default").listPartial(); err != nil || len(ids) > 0 {
				t.Errorf("%v at step %d: partial packs %v, %v", fault, step, ids, err)
			}
		}
	}
}

// TestFaultsAtEveryStepOfAnAdoption: there is the whole stub in the end, or nothing.
func TestFaultsAtEveryStepOfAnAdoption(t *testing.T) {
	far := newStore(t)
	mustImport(t, far, "a", seeds(1, 64))
	a := adoption(t, far, "a")
	for _, fault := range durabletest.Faults {
		for _, powerCut := range []bool{false, true} {
			for step, reached := 1, true; reached; step++ {
				s := emptyStore(t, memoryDir(t), newStoreOrigin(far), Options{})
				fsys := durabletest.New(t.TempDir(), step, fault)
				broken := openStore(t, s.Dir(), &Options{fs: fsys})
				err := broken.Adopt(t.Context(), a)
				reached = fsys.Reached()
				if fsys.Crashed() && powerCut {
					if err := fsys.PowerCut(); err != nil {
						t.Fatal(err)
					}
				} else if err := fsys.Close(); err != nil {
					t.Fatal(err)
				}
				entries, listErr := s.List()
				if listErr != nil {
					t.Fatal(listErr)
				}
				if err == nil && len(entries) != 1 {
					t.Errorf("%v at step %d: no error, and no snapshot", fault, step)
				}
				if len(entries) == 0 {
					if err := s.Adopt(t.Context(), a); err != nil {
						t.Errorf("%v at step %d: the next Adopt: %v", fault, step, err)
					}
				}
				if err := checkImage(s, "a", seeds(1, 64)); err != nil {
					t.Errorf("%v at step %d: %v", fault, step, err)
				}
			}
		}
	}
}

// childAdmit mirrors the stub "a" from the store "far" beside its own, says so after each fetch, and is killed meanwhile.
func childAdmit(s *Store) error {
	far, err := Open(filepath.Join(filepath.Dir(s.Dir()), "far"), nil)
	if err != nil {
		return err
	}
	o := newStoreOrigin(far)
	o.change = func(frame int, _ []byte) { fmt.Println("frame", frame) }
	s.opts.Origin = o
	snap, err := s.Snapshot(mustName("a"))
	if err != nil {
		return err
	}
	im, err := snap.Image()
	if err != nil {
		return err
	}
	if err := im.Mirror(context.Background()); err != nil {
		return err
	}
	s.running.Wait()
	fmt.Println("done")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// TestKilledWhilePagesComeIn kills a real process, at many points.
func TestKilledWhilePagesComeIn(t *testing.T) {
	dir := t.TempDir()
	farDir := filepath.Join(dir, "far")
	made, err := Create(farDir)
	if err != nil {
		t.Fatal(err)
	}
	made.Close()
	far := openStore(t, farDir, &Options{packPages: 128})
	m := seeds(1, 1000)
	mustImport(t, far, "a", m)
	for _, line := range []int{1, 2, 4, 5, 9, 20, 32, 33} {
		t.Run(fmt.Sprintf("after line %d", line), func(t *testing.T) {
			s := emptyStore(t, dir, newStoreOrigin(far), Options{})
			defer os.RemoveAll(s.Dir())
			mustAdopt(t, s, far, "a")
			child, out := startChild(t, "admit", s.Dir())
			for lines := 0; lines < line && out.Scan(); lines++ {
			}
			child.Process.Kill()
			child.Wait()
			before := localPages(t, s, "a")[0]
			if line > 2 && before == 0 {
				t.Error("nothing is left of what came")
			}
			if err := checkVerify(t, s); err != nil {
				t.Error(err)
			}
			if err := errors.Join(checkImage(s, "a", m), checkVerify(t, s)); err != nil {
				t.Error(err)
			}
			s.running.Wait()
			if got := len(packList(t, s)); got != len(packList(t, far)) {
				t.Errorf("%d packs, want %d", got, len(packList(t, far)))
			}
		})
	}
}

func TestHeldPackHasWhatIsHere(t *testing.T) {
	s, o := newStub(t, seeds(1, 64), Options{})
	packs, err := mustOpen(t, s, "a").Packs()
	if err != nil {
		t.Fatal(err)
	}
	id := packs[0].ID
	if _, err := s.HeldPack("default", id); !errors.Is(err, ErrMissingPack) {
		t.Errorf("a pack of which nothing is here: %v", err)
	}
	if _, err := s.HeldPack("other", id); !errors.Is(err, ErrMissingPack) {
		t.Errorf("a pack of another namespace: %v", err)
	}
	bring(t, s, "a", 32, 32)
	buf := make([]byte, framePages*PageSize)
	check := func(want ...bool) {
		t.Helper()
		h, err := s.HeldPack("default", id)
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		nodes, err := h.Nodes()
		if err != nil || len(nodes) != 64 {
			t.Errorf("%d bytes of nodes, %v", len(nodes), err)
		}
		for i, holds := range want {
			n, err := h.ReadFrame(buf, i)
			if h.Holds(i) != holds || (err == nil) != holds {
				t.Errorf("frame %d: Holds says %v, ReadFrame %v; want %v", i, h.Holds(i), err, holds)
			}
			if err == nil {
				if err := samePages(buf[:n], seeds(uint64(1+32*i), 32)); err != nil {
					t.Error(err)
				}
			} else if !errors.Is(err, ErrNotLocal) {
				t.Error(err)
			}
		}
		if _, err := h.ReadFrame(buf, 2); !errors.Is(err, ErrRange) || h.Holds(2) || h.Holds(-1) {
			t.Errorf("a frame that there is not: %v", err)
		}
	}
	check(false, true)
	// A third store can be filled from what the second holds.
	third := emptyStore(t, t.TempDir(), newStoreOrigin(s), Options{})
	mustAdopt(t, third, o.from, "a")
	bring(t, third, "a", 40, 1)
	bring(t, s, "a", 0, 64)
	check(true, true)
	if err := checkImage(third, "a", seeds(1, 64)); err != nil {
		t.Error(err)
	}
}
