package python

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestFilesAreThoseOfThePackage(t *testing.T) {
	onDisk, err := filepath.Glob("thaw/*.py")
	if err != nil || len(onDisk) == 0 {
		t.Fatalf("the package's sources: %d files, %v", len(onDisk), err)
	}
	for _, name := range append(onDisk, "thaw/py.typed") {
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Files.ReadFile(filepath.ToSlash(name)); err != nil || string(got) != string(want) {
			t.Errorf("%s is not in Files as it is on disk: %v", name, err)
		}
	}
	embedded, err := fs.Glob(Files, "thaw/*")
	if err != nil || len(embedded) != len(onDisk)+1 {
		t.Errorf("Files has %d files, the package %d and py.typed: %v", len(embedded), len(onDisk), err)
	}
}
