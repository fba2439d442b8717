package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"thaw/pagestore"
	"thaw/restore/criu"
)

// planOf returns a plan that maps pages pages of process 1.
func planOf(pages uint64) *criu.FilePlan {
	return &criu.FilePlan{
		Files: []criu.MappedFile{{Path: "/packs/a", Size: 1 << 20}},
		Tasks: map[int][]criu.FileMapping{1: {{PageRange: criu.PageRange{Addr: base, Pages: pages}}}},
	}
}

// newMappedImages returns one that writes nothing but what the plan was into its folders, and how often it did.
func newMappedImages(t *testing.T) (m *mappedImages, wrote *int) {
	t.Helper()
	wrote = new(int)
	return &mappedImages{dir: t.TempDir(), write: func(_, dir string, plan *criu.FilePlan) error {
		*wrote++
		return os.WriteFile(filepath.Join(dir, "plan"), fmt.Append(nil, plan.Tasks), 0o600)
	}}, wrote
}

func mustUse(t *testing.T, m *mappedImages, skeleton string, d pagestore.Digest, plan *criu.FilePlan) *mappedFolder {
	t.Helper()
	f, err := m.use(skeleton, d, plan)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(f.path, "plan")); err != nil || string(got) != fmt.Sprint(plan.Tasks) {
		t.Fatalf("the folder has %q, %v; want the images of %v", got, err, plan.Tasks)
	}
	return f
}

func mustRelease(t *testing.T, m *mappedImages, f *mappedFolder) {
	t.Helper()
	if err := m.release(f); err != nil {
		t.Fatal(err)
	}
}

func foldersIn(t *testing.T, m *mappedImages) int {
	t.Helper()
	entries, err := os.ReadDir(m.dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestImagesWithTheSameMappingsAreWrittenOnce(t *testing.T) {
	m, wrote := newMappedImages(t)
	d := pagestore.Digest{1}
	first := mustUse(t, m, "/skeleton", d, planOf(64))
	again := mustUse(t, m, "/skeleton", d, planOf(64))
	mustRelease(t, m, first)
	mustRelease(t, m, again)
	later := mustUse(t, m, "/skeleton", d, planOf(64))
	if again != first || later != first || *wrote != 1 {
		t.Errorf("three sessions got %s, %s and %s, written %d times", first.path, again.path, later.path, *wrote)
	}
	for what, other := range map[string]*mappedFolder{
		"plan":     mustUse(t, m, "/skeleton", d, planOf(65)),
		"skeleton": mustUse(t, m, "/other", d, planOf(64)),
		"snapshot": mustUse(t, m, "/skeleton", pagestore.Digest{2}, planOf(64)),
	} {
		if other.path == first.path {
			t.Errorf("another %s has the same folder", what)
		}
	}
}

func TestFoldersThatAreUsedAreKept(t *testing.T) {
	m, _ := newMappedImages(t)
	used := mustUse(t, m, "/skeleton", pagestore.Digest{}, planOf(64))
	for i := range uint64(2 * maxMappedImages) {
		mustRelease(t, m, mustUse(t, m, "/skeleton", pagestore.Digest{}, planOf(100+i)))
	}
	if n := foldersIn(t, m); n != maxMappedImages {
		t.Errorf("%d folders are kept, want %d", n, maxMappedImages)
	}
	if again := mustUse(t, m, "/skeleton", pagestore.Digest{}, planOf(64)); again != used {
		t.Error("one that is used was given up")
	}
	if err := m.close(); err != nil {
		t.Fatal(err)
	}
	if n := foldersIn(t, m); n != 1 {
		t.Errorf("at the end there are %d folders, want the one that is used", n)
	}
	mustRelease(t, m, used)
	mustRelease(t, m, used)
	if n := foldersIn(t, m); n != 0 {
		t.Errorf("%d folders are left", n)
	}
}

func TestAFolderThatCannotBeWrittenIsForgotten(t *testing.T) {
	m, _ := newMappedImages(t)
	write := m.write
	full := errors.New("the disk is full")
	m.write = func(string, string, *criu.FilePlan) error { return full }
	if _, err := m.use("/skeleton", pagestore.Digest{}, planOf(64)); !errors.Is(err, full) {
		t.Fatalf("use: %v, want %v", err, full)
	}
	if n := foldersIn(t, m); n != 0 {
		t.Errorf("%d folders are left", n)
	}
	m.write = write
	mustUse(t, m, "/skeleton", pagestore.Digest{}, planOf(64))
}
