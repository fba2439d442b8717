package pagestore

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"thaw/pagestore/internal/pack"
)

func TestVerifyNamesTheBadPage(t *testing.T) {
	s := newStore(t)
	mustImport(t, s, "a", seeds(1, 100))
	mustImport(t, s, "b", append(memory{900}, seeds(60, 10)...))
	mustImport(t, s, "c", seeds(90, 5))
	ids, paths := packPaths(t, s, "a")
	flipBit(t, paths[0], pack.Offset(62)+5)   // seed 63, in a and b
	flipBit(t, paths[1], pack.Offset(30)+7)   // seed 95, in a only
	flipBit(t, paths[1], pack.Offset(33)+100) // seed 98

	report, err := s.Verify(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	type bad struct {
		Pack      PackID
		Page      uint32
		Offset    int64
		Corrupt   bool
		Snapshots []Name
	}
	var got []bad
	for _, p := range report.BadPages {
		got = append(got, bad{p.Pack, p.Page, p.Offset, errors.Is(&p, ErrCorrupt), p.Snapshots})
	}
	both, one := []Name{mustName("a"), mustName("b")}, []Name{mustName("a")}
	want := []bad{
		{ids[0], 62, pack.Offset(62), true, both},
		{ids[1], 30, pack.Offset(30), true, one},
		{ids[1], 33, pack.Offset(33), true, one},
	}
	if compareIDs(ids[0], ids[1]) > 0 {
		want = append(want[1:], want[0])
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("bad pages (-want +got):\n%s", diff)
	}
	if report.Snapshots != 3 || report.Packs != 3 || report.Pages != 101 || report.BadPageCount != 3 || report.OK() {
		t.Errorf("report is %+v", report)
	}
}

func TestVerifyNamesBadPacks(t *testing.T) {
	s := newStore(t)
	mustImport(t, s, "a", seeds(1, 10))
	mustImport(t, s, "b", seeds(11, 10))
	mustImport(t, s, "c", seeds(21, 10))
	mustImport(t, s, "other/d", seeds(1, 10))
	aIDs, aPaths := packPaths(t, s, "a")
	bIDs, bPaths := packPaths(t, s, "b")
	remove(t, aPaths[0])
	flipBit(t, bPaths[0], pack.Offset(10)+100) // a digest, which serving does not look at

	report, err := s.Verify(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(report.BadPacks) != 2 || report.Packs != 2 {
		t.Fatalf("report is %+v", report)
	}
	for _, bad := range report.BadPacks {
		switch bad.Pack {
		case aIDs[0]:
			if !errors.Is(bad.Err, ErrMissingPack) || !cmp.Equal(bad.Snapshots, []Name{mustName("a")}) {
				t.Errorf("missing pack: %+v", bad)
			}
		case bIDs[0]:
			if !errors.Is(bad.Err, ErrCorrupt) || !cmp.Equal(bad.Snapshots, []Name{mustName("b")}) {
				t.Errorf("pack with a damaged table: %+v", bad)
			}
		default:
			t.Errorf("unexpected %+v", bad)
		}
	}
}

func TestVerifyNamesBadSnapshots(t *testing.T) {
	tests := []struct {
		name   string
		damage func(t *testing.T, dir string)
	}{
		{"flipped bit in the manifest", func(t *testing.T, dir string) { flipBit(t, filepath.Join(dir, manifestFile), 99) }},
		{"manifest cut off", func(t *testing.T, dir string) { truncate(t, filepath.Join(dir, manifestFile), 99) }},
		{"manifest missing", func(t *testing.T, dir string) { remove(t, filepath.Join(dir, manifestFile)) }},
		{"flipped bit in the info", func(t *testing.T, dir string) { flipBit(t, filepath.Join(dir, infoFile), 120) }},
		{"info missing", func(t *testing.T, dir string) { remove(t, filepath.Join(dir, infoFile)) }},
		{"flipped bit in the skeleton", func(t *testing.T, dir string) { flipBit(t, filepath.Join(dir, skeletonDir, "core"), 1) }},
		{"skeleton cut off", func(t *testing.T, dir string) { truncate(t, filepath.Join(dir, skeletonDir, "core"), 1) }},
		{"skeleton file missing", func(t *testing.T, dir string) { remove(t, filepath.Join(dir, skeletonDir, "core")) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStore(t)
			mustImport(t, s, "sound", seeds(1, 10))
			in := seeds(1, 10).input()
			in.Skeleton = func(dir string) error { return os.WriteFile(filepath.Join(dir, "core"), []byte("text"), 0o600) }
			if _, err := s.Import(t.Context(), mustName("a"), in, nil); err != nil {
				t.Fatal(err)
			}
			if err := checkVerify(t, s); err != nil {
				t.Fatal(err)
			}
			tt.damage(t, s.namespace("default").snapshot("a"))
			report, err := s.Verify(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if len(report.BadSnapshots) != 1 || report.BadSnapshots[0].Name != mustName("a") || len(report.BadPacks) != 0 {
				t.Errorf("report is %+v", report)
			}
		})
	}
}

func TestManifestOfAnotherSnapshotIsRefused(t *testing.T) {
	s := newStore(t)
	mustImport(t, s, "a", seeds(1, 10))
	mustImport(t, s, "b", seeds(11, 10))
	ns := s.namespace("default")
	text, err := os.ReadFile(filepath.Join(ns.snapshot("b"), manifestFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(ns.snapshot("a"), manifestFile), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Snapshot(mustName("a")); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a manifest that was swapped: %v, want %v", err, ErrCorrupt)
	}
	if err := os.Rename(ns.snapshot("b"), ns.snapshot("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Snapshot(mustName("x")); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a snapshot that was renamed: %v, want %v", err, ErrCorrupt)
	}
}

func TestVerifyProgressReachesItsTotal(t *testing.T) {
	s := newStore(t)
	mustImport(t, s, "a", seeds(1, 300))
	var last Progress
	if _, err := s.Verify(t.Context(), func(p Progress) { last = p }); err != nil {
		t.Fatal(err)
	}
	if last.Stage != StageVerify || last.DoneBytes != last.TotalBytes || last.DoneBytes < 300*PageSize {
		t.Errorf("progress ended with %+v", last)
	}
}
