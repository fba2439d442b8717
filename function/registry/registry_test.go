package registry

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"thaw/function/version"
)

func TestADeployedVersionIsThereWithItsFiles(t *testing.T) {
	r := openNew(t)
	v := versionOf(t, "demo", source(text1))
	d, err := r.Deploy(t.Context(), v, source(text1))
	if err != nil {
		t.Fatal(err)
	}
	if !d.New || !d.Switched || d.Before != nil {
		t.Errorf("deployment did %+v", d)
	}
	rec, err := r.Version("demo", v.Key)
	if err != nil {
		t.Fatal(err)
	}
	if rec.Key != v.Key || rec.Deployed.IsZero() || rec.Before != (version.Key{}) {
		t.Errorf("record is %+v", rec)
	}
	if _, err := look(r); err != nil {
		t.Error(err)
	}
	if current, err := r.Current("demo"); err != nil || current != v.Key {
		t.Errorf("current is %s, %v", current, err)
	}
	if left := leftovers(r); left != nil {
		t.Errorf("left are %v", left)
	}
}

func TestDeployingTheSameAgainChangesNoFile(t *testing.T) {
	r := openNew(t)
	v := deployed(t, r, "demo", text1)
	before := inodes(t, r.Dir())
	d, err := r.Deploy(t.Context(), v, source(text1))
	if err != nil {
		t.Fatal(err)
	}
	if d.New || d.Switched || d.Before == nil || d.Before.Key != v.Key {
		t.Errorf("deployment did %+v", d)
	}
	if diff := cmp.Diff(before, inodes(t, r.Dir())); diff != "" {
		t.Errorf("files (-before +after):\n%s", diff)
	}
}

// inodes returns which files there are, and when they were changed.
func inodes(t *testing.T, dir string) map[string]time.Time {
	t.Helper()
	out := make(map[string]time.Time)
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		out[path] = info.ModTime()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestTheNextVersionKnowsTheOneBefore(t *testing.T) {
	r := openNew(t)
	v1 := deployed(t, r, "demo", text1)
	v2 := versionOf(t, "demo", source(text2))
	d, err := r.Deploy(t.Context(), v2, source(text2))
	if err != nil {
		t.Fatal(err)
	}
	if !d.New || d.Before == nil || d.Before.Key != v1.Key {
		t.Errorf("deployment did %+v", d)
	}
	app, err := r.App("demo")
	if err != nil {
		t.Fatal(err)
	}
	if len(app.Versions) != 2 || app.Current != v2.Key || app.Versions[0].Key != v2.Key || app.Versions[0].Record.Before != v1.Key {
		t.Errorf("app is %+v", app)
	}
	// Back to the first: it is there, and only switched to.
	d, err = r.Deploy(t.Context(), v1, source(text1))
	if err != nil || d.New || !d.Switched || d.Before.Key != v2.Key {
		t.Errorf("deployment did %+v, %v", d, err)
	}
}

func TestAFileThatChangesMeanwhileIsNoticed(t *testing.T) {
	r := openNew(t)
	v := versionOf(t, "demo", source(text1))
	for name, change := range map[string]func(fstest.MapFS){
		"another content": func(f fstest.MapFS) { f["pkg/helpers.py"] = &fstest.MapFile{Data: []byte(text2)} },
		"a longer file":   func(f fstest.MapFS) { f["pkg/helpers.py"] = &fstest.MapFile{Data: []byte(text1 + text1)} },
		"an empty file":   func(f fstest.MapFS) { f["pkg/helpers.py"] = &fstest.MapFile{} },
	} {
		f := source(text1)
		change(f)
		if _, err := r.Deploy(t.Context(), v, f); !errors.Is(err, ErrChanged) {
			t.Errorf("%s: %v, want ErrChanged", name, err)
		}
	}
	f := source(text1)
	delete(f, "model.bin")
	if _, err := r.Deploy(t.Context(), v, f); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is gone: %v", err)
	}
	if left := leftovers(r); left != nil {
		t.Errorf("left are %v", left)
	}
	if names, err := r.Apps(); err != nil || names != nil {
		t.Errorf("apps are %v, %v", names, err)
	}
}

func TestADeploymentCanBeInterrupted(t *testing.T) {
	r := openNew(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Deploy(ctx, versionOf(t, "demo", source(text1)), source(text1)); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	if left := leftovers(r); left != nil {
		t.Errorf("left are %v", left)
	}
}

func TestALeaseKeepsTheFilesOfARemovedVersion(t *testing.T) {
	r := openNew(t)
	v1 := deployed(t, r, "demo", text1)
	deployed(t, r, "demo", text2)
	lease, err := r.Lease("demo", v1.Key)
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(lease.Code())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := r.Remove(t.Context(), "demo", v1.Key); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Version("demo", v1.Key); !errors.Is(err, ErrNotFound) {
		t.Errorf("the removed version: %v", err)
	}
	if _, err := r.Lease("demo", v1.Key); !errors.Is(err, ErrNotFound) {
		t.Errorf("a lease on the removed version: %v", err)
	}
	if err := r.GC(t.Context()); err != nil {
		t.Fatal(err)
	}
	if text, err := root.ReadFile("pkg/helpers.py"); err != nil || string(text) != text1 {
		t.Errorf("leased file is %q, %v", text, err)
	}
	if err := lease.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.GC(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := leftovers(r); left != nil {
		t.Errorf("left are %v", left)
	}
}

func TestARemovedVersionThatIsLeasedCanBeDeployedAgain(t *testing.T) {
	r := openNew(t)
	v1 := deployed(t, r, "demo", text1)
	deployed(t, r, "demo", text2)
	for range 2 {
		lease, err := r.Lease("demo", v1.Key)
		if err != nil {
			t.Fatal(err)
		}
		defer lease.Close()
		if err := r.Remove(t.Context(), "demo", v1.Key); err != nil {
			t.Fatal(err)
		}
		deployed(t, r, "demo", text1)
		deployed(t, r, "demo", text2)
	}
}

func TestTheCurrentVersionIsRemovedWithItsAppOnly(t *testing.T) {
	r := openNew(t)
	v := deployed(t, r, "demo", text1)
	if err := r.Remove(t.Context(), "demo", v.Key); !errors.Is(err, ErrCurrent) {
		t.Errorf("removal of the current version: %v", err)
	}
	if err := r.RemoveApp(t.Context(), "demo"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.App("demo"); !errors.Is(err, ErrNotFound) {
		t.Errorf("the removed app: %v", err)
	}
	if err := r.RemoveApp(t.Context(), "demo"); !errors.Is(err, ErrNotFound) {
		t.Errorf("removal of what is gone: %v", err)
	}
}

func TestOpenSaysWhatIsThere(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(filepath.Join(dir, "not-there"), nil); !errors.Is(err, ErrNotRegistry) {
		t.Errorf("nothing: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "letter"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, &Options{Create: true}); !errors.Is(err, ErrNotEmpty) {
		t.Errorf("a folder with a letter: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, formatFile), []byte("thaw functions, version 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, nil); !errors.Is(err, ErrVersion) {
		t.Errorf("a newer format: %v", err)
	}
}

func TestNamesThatAreNoneAreRefused(t *testing.T) {
	r := openNew(t)
	v := versionOf(t, "demo", source(text1))
	for _, name := range []string{"", "..", "a/b", "../demo"} {
		_, appErr := r.App(name)
		_, currentErr := r.Current(name)
		_, versionErr := r.Version(name, v.Key)
		updateErr := r.UpdateVersion(t.Context(), name, v.Key, func(*Stats) error { return nil })
		for _, err := range []error{appErr, currentErr, versionErr, updateErr} {
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%q: %v", name, err)
			}
		}
	}
}

func TestDamagedFilesAreNamedInTheError(t *testing.T) {
	for _, tt := range []struct {
		name, file, text string
		want             error
	}{
		{"a version that is no JSON", versionFile, "hello", ErrCorrupt},
		{"a version of a newer thaw", versionFile, `{"version":2,"sha256":"` + strings.Repeat("0", 64) + `","content":{}}`, ErrVersion},
		{"a version with another digest", versionFile, `{"version":1,"sha256":"` + strings.Repeat("0", 64) + `","content":{}}`, ErrCorrupt},
		{"statistics that are cut off", statsFile, `{"version":1,"sha`, ErrCorrupt},
		{"statistics that are too long", statsFile, strings.Repeat(" ", maxFileLen+1), ErrCorrupt},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := openNew(t)
			v := deployed(t, r, "demo", text1)
			path := filepath.Join(r.versionDir("demo", v.Key), tt.file)
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			app, err := r.App("demo")
			if err != nil || len(app.Versions) != 1 {
				t.Fatalf("app is %+v, %v", app, err)
			}
			if err := app.Versions[0].Err; !errors.Is(err, tt.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("error is %v, want %v and the path", err, tt.want)
			}
		})
	}
}

func TestAVersionInTheWrongFolderIsNoticed(t *testing.T) {
	r := openNew(t)
	v1, v2 := deployed(t, r, "demo", text1), deployed(t, r, "demo", text2)
	text, err := os.ReadFile(filepath.Join(r.versionDir("demo", v1.Key), versionFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.versionDir("demo", v2.Key), versionFile), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Version("demo", v2.Key); !errors.Is(err, ErrCorrupt) {
		t.Errorf("error is %v", err)
	}
	if err := os.WriteFile(filepath.Join(r.appDir("demo"), currentFile), []byte("latest\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Current("demo"); !errors.Is(err, ErrCorrupt) {
		t.Errorf("current: %v", err)
	}
	// A deployment repairs both.
	deployed(t, r, "demo", text2)
	if _, err := look(r); err != nil {
		t.Error(err)
	}
}

func TestUpdatesAreNotLost(t *testing.T) {
	r := openNew(t)
	v := deployed(t, r, "demo", text1)
	const writers, each = 4, 10
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			other := reopen(t, r.Dir(), nil)
			for range each {
				if err := update(t.Context(), other, v, func(s *Stats) { s.AddCold("Embedder", time.Second) }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Go(func() { // a reader sees whole files at any time
		for range 200 {
			if _, err := r.VersionStats("demo", v.Key); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	stats, err := r.VersionStats("demo", v.Key)
	if err != nil || stats.Cold["Embedder"].Count != writers*each {
		t.Errorf("statistics are %+v, %v", stats, err)
	}
}

func TestAnUpdateThatIsRefusedWritesNothing(t *testing.T) {
	r := openNew(t)
	v := deployed(t, r, "demo", text1)
	if err := r.UpdateVersion(t.Context(), "demo", v.Key, func(*Stats) error { return errRefused }); !errors.Is(err, errRefused) {
		t.Errorf("error is %v", err)
	}
	bad := func(s *Stats) { s.Snapshots = []Snapshot{{Name: "x", Kind: "thing", State: StateGood}} }
	if err := update(t.Context(), r, v, bad); err == nil {
		t.Error("statistics that cannot be read were written")
	}
	if stats, err := r.VersionStats("demo", v.Key); err != nil || len(stats.Snapshots) != 0 {
		t.Errorf("statistics are %+v, %v", stats, err)
	}
	if err := r.UpdateVersion(t.Context(), "other", v.Key, func(*Stats) error { return nil }); !errors.Is(err, ErrNotFound) {
		t.Errorf("an app that is not there: %v", err)
	}
}

func TestAnUpdateDoesNotWaitForADeployment(t *testing.T) {
	r := openNew(t)
	v := deployed(t, r, "demo", text1)
	unlock, err := lock(t.Context(), r.lockPath()) // as a deployment has it
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if err := update(t.Context(), r, v, func(s *Stats) { s.AddCold("Embedder", time.Second) }); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errRefused)
	if err := r.GC(ctx); !errors.Is(err, errRefused) {
		t.Errorf("a collection beside a deployment: %v", err)
	}
}
