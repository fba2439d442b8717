package version

import (
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

func appFiles() fstest.MapFS {
	return fstest.MapFS{
		"app.py":                  {Data: []byte("import helpers\n"), Mode: 0o644},
		"helpers.py":              {Data: []byte("x = 1\n"), Mode: 0o644},
		"uv.lock":                 {Data: []byte("torch==2\n"), Mode: 0o644},
		"bin/tool":                {Data: []byte("#!/bin/sh\n"), Mode: 0o755},
		"templates/a.html":        {Data: []byte("a"), Mode: 0o644},
		"templates/sub/b.html":    {Data: []byte("b"), Mode: 0o644},
		"templates/sub/c.txt":     {Data: []byte("c"), Mode: 0o644},
		"model/weights.bin":       {Data: []byte("www"), Mode: 0o644},
		"__pycache__/app.311.pyc": {Data: []byte("compiled"), Mode: 0o644},
	}
}

func paths(files []File) (out []string) {
	for _, f := range files {
		out = append(out, f.Path)
	}
	return out
}

func TestFilesAreCollectedByNameAndPattern(t *testing.T) {
	for _, tt := range []struct {
		name       string
		d          Description
		code, data []string
	}{
		{"sources alone", Description{Sources: []string{"helpers.py", "app.py"}}, []string{"app.py", "helpers.py"}, nil},
		{"a file named twice", Description{Sources: []string{"app.py", "./app.py"}, Include: []string{"*.py"}}, []string{"app.py", "helpers.py"}, nil},
		{"the lock file", Description{Sources: []string{"app.py"}, Dependencies: "uv.lock"}, []string{"app.py", "uv.lock"}, nil},
		{"a pattern", Description{Sources: []string{"app.py"}, Include: []string{"templates/*.html"}}, []string{"app.py", "templates/a.html"}, nil},
		{"a pattern for any depth", Description{Sources: []string{"app.py"}, Include: []string{"**/*.html"}}, []string{"app.py", "templates/a.html", "templates/sub/b.html"}, nil},
		{"a folder", Description{Sources: []string{"app.py"}, Data: []string{"templates/sub", "model"}}, []string{"app.py"}, []string{"model/weights.bin", "templates/sub/b.html", "templates/sub/c.txt"}},
		{"all", Description{Sources: []string{"app.py"}, Data: []string{"**"}}, []string{"app.py"}, []string{"app.py", "bin/tool", "helpers.py", "model/weights.bin", "templates/a.html", "templates/sub/b.html", "templates/sub/c.txt", "uv.lock"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Collect(appFiles(), &tt.d)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.code, paths(got.Code)); diff != "" {
				t.Errorf("code (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.data, paths(got.Data)); diff != "" {
				t.Errorf("data (-want +got):\n%s", diff)
			}
			if (got.Lock != nil) != (tt.d.Dependencies != "") {
				t.Errorf("lock file is %v", got.Lock)
			}
		})
	}
}

func TestACollectedFileIsDescribed(t *testing.T) {
	got, err := Collect(appFiles(), &Description{Sources: []string{"bin/tool"}})
	if err != nil {
		t.Fatal(err)
	}
	want := []File{{Path: "bin/tool", Bytes: 10, Executable: true, SHA256: sha256.Sum256([]byte("#!/bin/sh\n"))}}
	if diff := cmp.Diff(want, got.Code); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWhatIsNotThereIsAnError(t *testing.T) {
	for _, d := range []Description{
		{Sources: []string{"gone.py"}},
		{Sources: []string{"app.py"}, Dependencies: "gone.lock"},
		{Sources: []string{"app.py"}, Data: []string{"*.onnx"}},
		{Sources: []string{"app.py"}, Include: []string{"nothing/**"}},
	} {
		if _, err := Collect(appFiles(), &d); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%+v: %v, want that it does not exist", d, err)
		}
	}
	if _, err := Collect(appFiles(), &Description{Sources: []string{"app.py"}, Data: []string{"[x"}}); err == nil {
		t.Error("a pattern that is none was taken")
	}
	if _, err := Collect(appFiles(), &Description{Sources: []string{"templates"}}); err == nil {
		t.Error("a folder was taken for a source")
	}
}

func TestLinksDoNotLeadOutOfTheFolder(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("s"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, filepath.Join(dir, "app.py")); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if _, err := Collect(root.FS(), &Description{Sources: []string{"app.py"}}); err == nil {
		t.Error("a file outside was read through a link")
	}
}
