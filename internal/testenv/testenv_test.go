package testenv

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMain(m *testing.M) { Main(m) }

// verdict records how a helper ends a test, instead of ending it.
type verdict struct {
	testing.TB
	skipped, failed string
}

func (*verdict) Helper() {}

func (v *verdict) Skip(args ...any) { v.skipped = fmt.Sprint(args...) }

func (v *verdict) Fatalf(format string, args ...any) { v.failed = fmt.Sprintf(format, args...) }

func TestMissingThingSkipsUnlessItIsRequired(t *testing.T) {
	for _, tt := range []struct {
		require string
		fails   bool
	}{{"", false}, {"0", false}, {"1", true}, {"true", true}} {
		t.Run(fmt.Sprintf("THAW_REQUIRE=%q", tt.require), func(t *testing.T) {
			t.Setenv(envRequire, tt.require)
			v := &verdict{TB: t}
			missing(v, "needs %s: get it", "a thing")
			// A real Fatalf does not return, so what follows it does not count.
			if (v.failed != "") != tt.fails || !tt.fails && v.skipped == "" {
				t.Errorf("failed with %q, skipped with %q", v.failed, v.skipped)
			}
			if !strings.Contains(v.failed+v.skipped, "needs a thing: get it") {
				t.Error("it does not say what is missing")
			}
		})
	}
}

func TestVersionOfCRIUIsParsed(t *testing.T) {
	for _, tt := range []struct {
		out     string
		want    version
		tooOld  bool
		wantErr bool
	}{
		{out: "Version: 4.2.1\n", want: version{4, 2}},
		{out: "Version: 4.2\nGitID: v4.2-7-gabc\n", want: version{4, 2}},
		{out: "Version: 10.0\n", want: version{10, 0}},
		{out: "Version: 3.17.1\n", want: version{3, 17}, tooOld: true},
		{out: "Version: 4.1.1\n", want: version{4, 1}, tooOld: true},
		{out: "criu: not found\n", wantErr: true},
		{out: "", wantErr: true},
	} {
		t.Run(tt.out, func(t *testing.T) {
			got, err := parseCRIUVersion(tt.out)
			if (err != nil) != tt.wantErr {
				t.Fatalf("got error %v", err)
			}
			if err == nil && (got != tt.want || got.less(minCRIU) != tt.tooOld) {
				t.Errorf("got %v, too old: %t", got, got.less(minCRIU))
			}
		})
	}
}

func TestCRIUThatCannotServeIsRefused(t *testing.T) {
	dir := t.TempDir()
	script := func(name, body string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, tt := range []struct{ name, path string }{
		{"it is not there", filepath.Join(dir, "none")},
		{"it fails", script("fails", "exit 1\n")},
		{"it is too old", script("old", "echo Version: 3.17.1\n")},
		{"it is something else", script("else", "echo hello\n")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv(envCRIU, tt.path)
			if path, err := findCRIU(t); err == nil {
				t.Errorf("%s is accepted", path)
			}
		})
	}
	t.Setenv(envCRIU, script("new", "echo Version: 4.2.1\n"))
	if _, err := findCRIU(t); err != nil {
		t.Error(err)
	}
}

func TestRepoRootHoldsTheModule(t *testing.T) {
	root := RepoRoot(t)
	if !isFile(filepath.Join(root, "internal", "testenv", "testenv_test.go")) {
		t.Errorf("%s is not the root", root)
	}
}

func TestRootfsIsTakenFromTheEnvironment(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(envRootfs, dir)
	if got := Rootfs(t); got != dir {
		t.Errorf("got %s, want %s", got, dir)
	}
	t.Setenv(envRootfs, filepath.Join(dir, "none"))
	t.Setenv(envRequire, "")
	v := &verdict{TB: t}
	Rootfs(v)
	if !strings.Contains(v.skipped, "make deps") {
		t.Errorf("skipped with %q", v.skipped)
	}
}

func TestLeakedDescriptorsAreFound(t *testing.T) {
	before := openFiles()
	if len(before) == 0 {
		t.Skip("needs /proc")
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "leak"))
	if err != nil {
		t.Fatal(err)
	}
	leaked := leakedFiles(before, openFiles())
	if len(leaked) != 1 || !strings.HasSuffix(leaked[0], file.Name()) {
		t.Errorf("found %q, want %s", leaked, file.Name())
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string(nil), leakedFiles(before, openFiles())); diff != "" {
		t.Errorf("leaks after close (-want +got):\n%s", diff)
	}
}
