package daemon

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func mustOpenRunDir(t *testing.T, dir string) *runDir {
	t.Helper()
	r, err := openRunDir(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.close() })
	return r
}

func namesIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestWhatAKilledDaemonHasLeftIsRemovedUnlessAnotherOneRuns(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sessions")
	work := newID()
	all := []string{"images-2", "images-of-mine", "lock", "other", work}
	slices.Sort(all)
	fill := func() {
		t.Helper()
		for _, name := range all {
			if name != "lock" {
				if err := os.MkdirAll(filepath.Join(dir, name, "below"), 0o700); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	fill()
	first := mustOpenRunDir(t, dir)
	if diff := cmp.Diff(all, namesIn(t, dir)); diff != "" {
		t.Errorf("in a folder that was no daemon's (-want +got):\n%s", diff)
	}
	second := mustOpenRunDir(t, dir)
	if diff := cmp.Diff(all, namesIn(t, dir)); diff != "" {
		t.Errorf("beside another daemon (-want +got):\n%s", diff)
	}
	first.close()
	second.close()
	third := mustOpenRunDir(t, dir)
	if diff := cmp.Diff([]string{"images-of-mine", "lock", "other"}, namesIn(t, dir)); diff != "" {
		t.Errorf("alone (-want +got):\n%s", diff)
	}
	fill()
	mustOpenRunDir(t, dir)
	if diff := cmp.Diff(all, namesIn(t, dir)); diff != "" {
		t.Errorf("beside one that has removed what was left (-want +got):\n%s", diff)
	}
	third.close()
}
