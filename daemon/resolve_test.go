package daemon

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"thaw/pagestore"
)

func TestAFolderLeadsToTheSnapshotWhoseSkeletonItIs(t *testing.T) {
	const n = 5
	store := newStore(t, n)
	addSnapshot(t, store, "other", 2)
	damage(t, store, "damaged")
	snap, err := store.Snapshot(pagestore.Name{Namespace: pagestore.DefaultNamespace, Snapshot: "web"})
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(snap.SkeletonDir(), link); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{snap.SkeletonDir(), link} {
		source, layouts, closer, err := ResolveSkeleton(dir)
		if err != nil {
			t.Fatalf("ResolveSkeleton(%s): %v", dir, err)
		}
		if l := layouts[imagePID]; len(layouts) != 1 || l.Pages() != n {
			t.Errorf("layouts of %s are %+v, want one of %d pages", dir, layouts, n)
		}
		if data, got, err := source.Load(3, 1); err != nil || got != 1 || !bytes.Equal(data, want(t, 3, 1)) {
			t.Errorf("page 3 through %s: %d pages, %v", dir, got, err)
		}
		if err := closer.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestAFolderThatIsNoSkeletonLeadsNowhere(t *testing.T) {
	store := newStore(t, 2)
	for name, dir := range map[string]string{"a folder elsewhere": t.TempDir(), "another folder of the store": filepath.Join(store.Dir(), "namespaces")} {
		if _, _, _, err := ResolveSkeleton(dir); !errors.Is(err, ErrNoSnapshot) {
			t.Errorf("ResolveSkeleton of %s: %v, want ErrNoSnapshot", name, err)
		}
	}
	if _, _, _, err := ResolveSkeleton(filepath.Join(store.Dir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("ResolveSkeleton of nothing: %v, want ErrNotExist", err)
	}
}
