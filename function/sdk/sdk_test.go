package sdk

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"thaw/internal/durable/durabletest"
	"thaw/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func files() fstest.MapFS {
	return fstest.MapFS{
		"thaw/__init__.py":                   {Data: []byte("version = 1\n")},
		"thaw/sub/a.py":                      {Data: []byte("a\n")},
		"thaw/__pycache__/x.cpython-311.pyc": {Data: []byte("compiled")},
	}
}

func TestTheSDKIsUnpackedOnce(t *testing.T) {
	base := filepath.Join(t.TempDir(), "not", "yet")
	dir, digest, err := Unpack(files(), base)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "thaw/sub/a.py")); err != nil || string(text) != "a\n" {
		t.Errorf("a.py is %q, %v", text, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "thaw/__pycache__")); err == nil {
		t.Error("compiled files were unpacked")
	}
	again, same, err := Unpack(files(), base)
	if err != nil || again != dir || same != digest {
		t.Errorf("again: %s %s, %v; want %s %s", again, same, err, dir, digest)
	}
	if dir != Folder(base, digest) {
		t.Errorf("folder %s, want %s", dir, Folder(base, digest))
	}
}

func TestEveryChangeOfTheSDKChangesItsDigest(t *testing.T) {
	seen := make(map[string]string)
	for name, change := range map[string]func(fstest.MapFS){
		"nothing":      func(fstest.MapFS) {},
		"a content":    func(f fstest.MapFS) { f["thaw/sub/a.py"] = &fstest.MapFile{Data: []byte("b\n")} },
		"a file more":  func(f fstest.MapFS) { f["thaw/b.py"] = &fstest.MapFile{} },
		"a file moved": func(f fstest.MapFS) { f["thaw/a.py"] = f["thaw/sub/a.py"]; delete(f, "thaw/sub/a.py") },
	} {
		f := files()
		change(f)
		digest, err := Digest(f)
		if err != nil {
			t.Fatal(err)
		}
		if other := seen[digest.String()]; other != "" {
			t.Errorf("digest is the same after %q and %q", name, other)
		}
		seen[digest.String()] = name
	}
}

func TestManyUnpackAtOnce(t *testing.T) {
	base := t.TempDir()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, _, err := Unpack(files(), base); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if left, err := os.ReadDir(base); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestFaultsAtEveryStep: what is under the name of the digest is whole, whatever happens.
func TestFaultsAtEveryStep(t *testing.T) {
	for _, fault := range durabletest.Faults {
		for _, powerCut := range []bool{false, true} {
			for step, reached := 1, true; reached && !t.Failed(); step++ {
				base, trash := t.TempDir(), t.TempDir()
				disk := durabletest.New(trash, step, fault)
				dir, _, err := unpack(disk, files(), base)
				reached = disk.Reached()
				if powerCut && disk.Crashed() {
					err = errors.Join(err, disk.PowerCut())
				} else if err := disk.Close(); err != nil {
					t.Fatal(err)
				}
				again, _, againErr := Unpack(files(), base)
				if againErr != nil || err == nil && again != dir {
					t.Fatalf("%v at step %d: again: %s, %v", fault, step, again, againErr)
				}
				got, err := Digest(os.DirFS(again))
				want, _ := Digest(files())
				if diff := cmp.Diff(want, got); err != nil || diff != "" {
					t.Errorf("%v at step %d: %v (-want +got):\n%s", fault, step, err, diff)
				}
			}
		}
	}
}
