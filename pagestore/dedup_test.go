package pagestore

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"testing"

	bolt "go.etcd.io/bbolt"

	"thaw/pagestore/internal/pack"
)

// TestIndexThatLies makes the index say of one page that it is where another is.
func TestIndexThatLies(t *testing.T) {
	s := newStore(t)
	mustImport(t, s, "a", seeds(1, 10))
	dir := s.namespace("default").index()
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Skip(err)
	}
	writeFile(t, filepath.Join(dir, "state"), "dirty "+string(boot)) // so that the change is not noticed
	one, five := sha256.Sum256(pageOf(1)), sha256.Sum256(pageOf(5))
	db, err := bolt.Open(filepath.Join(dir, "pages.bolt"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		pages := tx.Bucket([]byte("pages.1"))
		if pages.Get(one[:]) == nil {
			return errors.New("the index does not have the page")
		}
		return pages.Put(one[:], bytes.Clone(pages.Get(five[:])))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	report := mustImport(t, s, "b", memory{1, 2})
	if report.NewPages != 1 || report.DuplicatePages != 1 {
		t.Errorf("%d new and %d duplicate pages, want the one that was lied about new", report.NewPages, report.DuplicatePages)
	}
	if err := checkImage(s, "b", memory{1, 2}); err != nil {
		t.Error(err)
	}
}

// TestDamagedPacksAreNotUsedForNewSnapshots damages tables that only the importer relies on.
func TestDamagedPacksAreNotUsedForNewSnapshots(t *testing.T) {
	for _, name := range []string{"the index knows the pack", "the index is lost"} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			mustImport(t, s, "a", seeds(1, 10))
			_, paths := packPaths(t, s, "a")
			flipBit(t, paths[0], pack.Offset(10)+32*3+1) // the digest of page 3
			if name == "the index is lost" {
				if err := os.RemoveAll(s.namespace("default").index()); err != nil {
					t.Fatal(err)
				}
			}
			if report := mustImport(t, s, "b", seeds(1, 5)); report.NewPages != 5 {
				t.Errorf("%d pages are new, want all 5", report.NewPages)
			}
			if err := checkImage(s, "b", seeds(1, 5)); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestImportRepairsADamagedPack imports the same pages again: the new pack has the name of the damaged one.
func TestImportRepairsADamagedPack(t *testing.T) {
	s := newStore(t)
	mustImport(t, s, "a", seeds(1, 10))
	ids, paths := packPaths(t, s, "a")
	flipBit(t, paths[0], pack.FileSize(10)-10)
	_, _, err := mustImage(t, s, "a").Load(0, 1)
	wantPageError(t, err, ids[0], 0, ErrCorrupt)

	mustImport(t, s, "b", seeds(1, 10))
	if again, _ := packPaths(t, s, "b"); again[0] != ids[0] {
		t.Fatalf("the new pack is %s, want %s", again[0], ids[0])
	}
	if err := errors.Join(checkImage(s, "b", seeds(1, 10)), checkImage(s, "a", seeds(1, 10)), checkVerify(t, s)); err != nil {
		t.Error(err)
	}
}
