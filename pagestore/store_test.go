package pagestore

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCreateAndOpen(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(t *testing.T, dir string)
		create  error // of Create
		open    error // of Open afterwards
	}{
		{
			name:    "a folder that does not exist becomes a store",
			prepare: func(t *testing.T, dir string) {},
		},
		{
			name:    "an empty folder becomes a store",
			prepare: mkdir,
		},
		{
			name:    "a new file system becomes a store",
			prepare: func(t *testing.T, dir string) { mkdir(t, dir); mkdir(t, filepath.Join(dir, "lost+found")) },
		},
		{
			name:    "a Create that was killed half way is completed",
			prepare: func(t *testing.T, dir string) { mkdir(t, dir); writeFile(t, filepath.Join(dir, lockFile), "") },
		},
		{
			name:    "a folder with other things in it is left alone",
			prepare: func(t *testing.T, dir string) { mkdir(t, dir); writeFile(t, filepath.Join(dir, "photo.jpg"), "x") },
			create:  ErrNotEmpty,
			open:    ErrNotStore,
		},
		{
			name: "a store is not made again",
			prepare: func(t *testing.T, dir string) {
				mkdir(t, dir)
				writeFile(t, filepath.Join(dir, formatFile), formatText)
			},
			create: fs.ErrExist,
		},
		{
			name: "a store of a later version is refused",
			prepare: func(t *testing.T, dir string) {
				mkdir(t, dir)
				writeFile(t, filepath.Join(dir, formatFile), "thaw page store, version 2\n")
			},
			create: fs.ErrExist,
			open:   ErrVersion,
		},
		{
			name: "a format file of something else is refused",
			prepare: func(t *testing.T, dir string) {
				mkdir(t, dir)
				writeFile(t, filepath.Join(dir, formatFile), strings.Repeat("x", 1000))
			},
			create: fs.ErrExist,
			open:   ErrNotStore,
		},
		{
			name: "trailing bytes in the format file are refused",
			prepare: func(t *testing.T, dir string) {
				mkdir(t, dir)
				writeFile(t, filepath.Join(dir, formatFile), formatText+"x")
			},
			create: fs.ErrExist,
			open:   ErrVersion,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "store")
			tt.prepare(t, dir)
			s, err := Create(dir)
			if !errors.Is(err, tt.create) {
				t.Fatalf("Create: %v, want %v", err, tt.create)
			}
			if err == nil {
				s.Close()
			}
			s, err = Open(dir, nil)
			if !errors.Is(err, tt.open) {
				t.Fatalf("Open: %v, want %v", err, tt.open)
			}
			if err == nil {
				s.Close()
			}
		})
	}
}

func mkdir(t *testing.T, dir string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestOneOfManyCreatesMakesTheStore(t *testing.T) {
	for range 20 {
		dir := filepath.Join(t.TempDir(), "store")
		results := make(chan error)
		for range 8 {
			go func() {
				s, err := Create(dir)
				if err == nil {
					err = s.Close()
				} else if errors.Is(err, fs.ErrExist) {
					if s, openErr := Open(dir, nil); openErr != nil {
						err = openErr
					} else if closeErr := s.Close(); closeErr != nil {
						err = closeErr
					}
				}
				results <- err
			}()
		}
		made := 0
		for range 8 {
			switch err := <-results; {
			case err == nil:
				made++
			case !errors.Is(err, fs.ErrExist):
				t.Error(err)
			}
		}
		if made != 1 {
			t.Fatalf("%d made the store", made)
		}
	}
}

func TestParseName(t *testing.T) {
	tests := []struct {
		text string
		want Name
		ok   bool
	}{
		{"a", Name{"default", "a"}, true},
		{"ns/a", Name{"ns", "a"}, true},
		{"default/a", Name{"default", "a"}, true},
		{"MiniLM-v1.2_x", Name{"default", "MiniLM-v1.2_x"}, true},
		{strings.Repeat("a", 128), Name{"default", strings.Repeat("a", 128)}, true},
		{text: ""},
		{text: "/"},
		{text: "ns/"},
		{text: "/a"},
		{text: "a/b/c"},
		{text: ".."},
		{text: "ns/.."},
		{text: ".hidden"},
		{text: "a@b"},
		{text: "a b"},
		{text: "a\x00"},
		{text: "ä"},
		{text: strings.Repeat("a", 129)},
	}
	for _, tt := range tests {
		got, err := ParseName(tt.text)
		if tt.ok != (err == nil) || !tt.ok && !errors.Is(err, ErrName) {
			t.Errorf("ParseName(%q): error is %v", tt.text, err)
			continue
		}
		if !tt.ok {
			continue
		}
		if got != tt.want {
			t.Errorf("ParseName(%q) is %+v, want %+v", tt.text, got, tt.want)
		}
		if again, err := ParseName(got.String()); err != nil || again != got {
			t.Errorf("ParseName(%q.String()) is %+v, %v", tt.text, again, err)
		}
	}
}

func TestListShowsAllNamespacesAndWhatIsWrong(t *testing.T) {
	s := newStore(t)
	for _, name := range []string{"b", "a", "other/c", "broken", "removed"} {
		mustImport(t, s, name, seeds(1, 3))
	}
	mustOpen(t, s, "removed")
	if err := s.Remove(t.Context(), mustName("removed")); err != nil {
		t.Fatal(err)
	}
	flipBit(t, filepath.Join(s.namespace("default").snapshot("broken"), infoFile), 100)

	entries, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	type line struct {
		Name    string
		Pages   uint64
		Corrupt bool
		Removed bool
	}
	var got []line
	for _, e := range entries {
		l := line{Name: e.Name.String(), Corrupt: errors.Is(e.Err, ErrCorrupt), Removed: e.BeingRemoved}
		if e.Info != nil {
			l.Pages = e.Info.Pages
		}
		got = append(got, l)
	}
	want := []line{
		{Name: "a", Pages: 3},
		{Name: "b", Pages: 3},
		{Name: "broken", Corrupt: true},
		{Name: "removed", Pages: 3, Removed: true},
		{Name: "other/c", Pages: 3},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("listing (-want +got):\n%s", diff)
	}
}
