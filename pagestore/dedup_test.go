package pagestore

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cespare/xxhash/v2"

	"thaw/pagestore/internal/pack"
)

// TestIndexThatLies makes the index say of one page that it is where another is.
func TestIndexThatLies(t *testing.T) {
	s := newStore(t)
	mustImport(t, s, "a", seeds(1, 10))
	segments, err := filepath.Glob(filepath.Join(s.namespace("default").index(), "*.segment"))
	if err != nil || len(segments) != 1 {
		t.Fatalf("segments of the index: %v, %v", segments, err)
	}
	data, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	key := sha256.Sum256(pageOf(1))
	slices.Reverse(key[:8]) // the file has it as a little endian number
	at := bytes.Index(data, key[:8])
	if at < 0 {
		t.Fatal("the index does not have the page")
	}
	binary.LittleEndian.PutUint32(data[at+12:], 4) // page 4 of the pack, which has seed 5
	body := len(data) - 8
	binary.LittleEndian.PutUint64(data[body:], xxhash.Sum64(data[:body])) // so that the change is not noticed
	writeFile(t, segments[0], string(data))

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
