package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"thaw/cpu"
	"thaw/function/version"
	"thaw/internal/durable"
	"thaw/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// memoryDir returns a folder in memory, if there is one: copies of whole registries are written there, and synced.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "registry")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// source is an app's folder.
func source(helpers string) fstest.MapFS {
	return fstest.MapFS{
		"app.py":          {Data: []byte("import pkg.helpers\n"), Mode: 0o644},
		"pkg/helpers.py":  {Data: []byte(helpers), Mode: 0o644},
		"pkg/sub/tool.sh": {Data: []byte("#!/bin/sh\n"), Mode: 0o755},
		"model.bin":       {Data: bytes.Repeat([]byte("w"), 5000), Mode: 0o644},
	}
}

// versionOf makes a version of the app from the files.
func versionOf(tb testing.TB, app string, files fs.FS) *version.Version {
	tb.Helper()
	d := version.Description{
		SDK: "0.1.0", Python: "3.13.5", App: app, Sources: []string{"app.py", "pkg/helpers.py"}, Include: []string{"pkg"}, Data: []string{"*.bin"},
		Objects: []version.Object{{Name: "Embedder", Kind: "class", Snapshot: true, Concurrency: 1, Methods: []version.Method{{Name: "embed", Kind: "method"}}}},
	}
	found, err := version.Collect(files, &d)
	if err != nil {
		tb.Fatal(err)
	}
	v, err := version.New(version.Content{
		Description: d, Entry: "app.py", Code: found.Code, Data: found.Data,
		Root:    version.Root{Kind: "dir", Path: "/srv/root", Digest: "sha256:abc"},
		Runtime: version.Runtime{Python: "3.13.5", SDK: "0.1.0", CRIU: "4.2", Snapshot: 1},
		CPU:     cpu.Confinement{Features: cpu.New("avx2", "sse2")},
	})
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

func openNew(tb testing.TB) *Registry {
	tb.Helper()
	return reopen(tb, filepath.Join(tb.TempDir(), "functions"), nil)
}

func reopen(tb testing.TB, dir string, disk durable.FS) *Registry {
	tb.Helper()
	r, err := Open(dir, &Options{Create: true, fs: disk})
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// deployed deploys a version of the app with the text in a helper file, and returns it.
func deployed(tb testing.TB, r *Registry, app, helpers string) *version.Version {
	tb.Helper()
	v := versionOf(tb, app, source(helpers))
	if _, err := r.Deploy(tb.Context(), v, source(helpers)); err != nil {
		tb.Fatal(err)
	}
	return v
}

var created = time.Date(2026, 11, 26, 17, 0, 0, 0, time.UTC)

func snapshotOf(v *version.Version, name string) Snapshot {
	return Snapshot{
		Name: name, Kind: KindFunction, Key: v.Key, Object: "Embedder", CPU: cpu.New("avx2", "sse2"), Bytes: 8 << 20, NewBytes: 1 << 20,
		Created: created, State: StateGood,
	}
}

// look says what the registry holds, but for times.
func look(r *Registry) (string, error) {
	var out strings.Builder
	names, err := r.Apps()
	if err != nil {
		return "", err
	}
	for _, name := range names {
		app, err := r.App(name)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&out, "%s current %s\n", name, app.Current.Short())
		var lines []string
		for _, e := range app.Versions {
			if e.Err != nil {
				return "", e.Err
			}
			line, err := lookVersion(r, e)
			if err != nil {
				return "", err
			}
			lines = append(lines, line)
		}
		// Deployed in one and the same moment, they have no order.
		slices.Sort(lines)
		out.WriteString(strings.Join(lines, ""))
	}
	templates, err := r.Templates()
	if err != nil {
		return "", err
	}
	for _, key := range templates {
		stats, err := r.TemplateStats(key)
		if err != nil {
			return "", err
		}
		if len(stats.Snapshots) > 0 {
			fmt.Fprintf(&out, "template %s %s\n", key.Short(), lookStats(stats))
		}
	}
	return out.String(), nil
}

func lookVersion(r *Registry, e Entry) (string, error) {
	code := filepath.Join(r.versionDir(e.Record.App(), e.Key), codeDir)
	for _, f := range e.Record.Files() {
		path := filepath.Join(code, f.Path)
		text, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		info, err := os.Stat(path)
		if err != nil {
			return "", err
		}
		if sha256.Sum256(text) != f.SHA256 || info.Mode()&0o100 != 0 != f.Executable {
			return "", fmt.Errorf("%s is not what it was", path)
		}
	}
	return fmt.Sprintf("  %s root %s before %s %s\n", e.Key.Short(), e.Record.Root.Path, e.Record.Before.Short(), lookStats(e.Stats)), nil
}

func lookStats(s *Stats) string {
	text, err := json.Marshal(s)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// leftovers returns what is in the folders where nothing stays.
func leftovers(r *Registry) (out []string) {
	for _, folder := range []string{stagingDir, removedDir} {
		entries, err := os.ReadDir(r.path(folder))
		if err != nil {
			return []string{err.Error()}
		}
		for _, e := range entries {
			out = append(out, filepath.Join(folder, e.Name()))
		}
	}
	return out
}

func mustLook(t *testing.T, r *Registry) string {
	t.Helper()
	text, err := look(r)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

var errRefused = errors.New("refused")

func update(ctx context.Context, r *Registry, v *version.Version, change func(*Stats)) error {
	return r.UpdateVersion(ctx, v.App(), v.Key, func(s *Stats) error {
		change(s)
		return nil
	})
}

var beforeKeys = regexp.MustCompile(`before [0-9a-f]+`)

// withoutBefore leaves out which version was current when another was deployed: a deployment that is run again may find itself.
func withoutBefore(text string) string { return beforeKeys.ReplaceAllString(text, "before") }
