package rootfs

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"thaw/checkpoint"
	"thaw/internal/testenv"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) { testenv.Main(m) }

// tempDir makes a folder on a disk, and removes it without following a mount.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "thaw-rootfs-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(checkpoint.UnmountBelow(dir), checkpoint.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// write makes files with a text each, and the folders that they are in.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
}

// folderRoot makes a root of a folder.
func folderRoot(t *testing.T, dir string, files map[string]string) *Root {
	t.Helper()
	write(t, dir, files)
	write(t, dir, map[string]string{"etc/os-release": "ID=test\n"})
	r, err := OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func mount(t *testing.T, r *Root, dir string, layers []*Layer) *Overlay {
	t.Helper()
	testenv.NeedRoot(t)
	o, err := r.Mount(dir, layers)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// tree describes what is below dir: paths, kinds, and the text of files.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		switch d.Type() {
		case fs.ModeDir:
			all[name] = "folder"
		case fs.ModeSymlink:
			target, err := os.Readlink(path)
			all[name] = "link to " + target
			return err
		case 0:
			text, err := os.ReadFile(path)
			all[name] = string(text)
			if len(text) > 1<<10 {
				all[name] = fmt.Sprintf("%d bytes, then %s", len(text)-3, text[len(text)-3:])
			}
			return err
		default:
			all[name] = d.Type().String()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func expectTree(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", dir, diff)
	}
}

func TestAFolderIsKnownByWhatItHoldsOrByItsRecipe(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "root")
	digest := func() string {
		t.Helper()
		r, err := OpenFolder(dir)
		if err != nil {
			t.Fatal(err)
		}
		if !isDigest(r.Digest()) {
			t.Errorf("%q is no digest", r.Digest())
		}
		return r.Digest()
	}
	write(t, dir, map[string]string{"etc/os-release": "ID=debian\n", "var/lib/dpkg/status": "Package: a\n"})
	first := digest()
	write(t, dir, map[string]string{"srv/data": "not looked at"})
	if digest() != first {
		t.Error("another file made another root")
	}
	write(t, dir, map[string]string{"var/lib/dpkg/status": "Package: b\n"})
	second := digest()
	if second == first {
		t.Error("another package made no other root")
	}
	write(t, filepath.Dir(dir), map[string]string{"root.recipe": "1"})
	third := digest()
	write(t, dir, map[string]string{"var/lib/dpkg/status": "Package: c\n"})
	if third == second || digest() != third {
		t.Error("the recipe is not what counts")
	}
}

func TestWhatIsNoRootIsRefused(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"file": ""})
	for _, path := range []string{dir, filepath.Join(dir, "file")} {
		if _, err := OpenFolder(path); !errors.Is(err, ErrNoRoot) {
			t.Errorf("%s: %v, want %v", path, err, ErrNoRoot)
		}
	}
	if _, err := OpenFolder(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder that is not there: %v", err)
	}
	// Its release is a link that leads to the host's.
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "etc"), 0o755), os.Symlink("/etc/hostname", filepath.Join(dir, "etc/os-release"))); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenFolder(dir); !errors.Is(err, ErrNoRoot) {
		t.Errorf("a link out of the folder: %v, want %v", err, ErrNoRoot)
	}
}

func TestEachOverlayHasItsOwnFilesAndTheRootStaysAsItIs(t *testing.T) {
	dir := tempDir(t)
	// Of names that mount(2) would have to be told carefully.
	r := folderRoot(t, filepath.Join(dir, `a,b:c\d`), map[string]string{"a": "root's", "b": "root's"})
	before := tree(t, r.Path())
	one, two := mount(t, r, filepath.Join(dir, "one"), nil), mount(t, r, filepath.Join(dir, "two"), nil)
	write(t, one.Root(), map[string]string{"a": "one's", "new": "one's"})
	if err := os.Remove(filepath.Join(one.Root(), "b")); err != nil {
		t.Fatal(err)
	}
	expectTree(t, two.Root(), before)
	expectTree(t, one.Root(), map[string]string{"a": "one's", "new": "one's", "etc": "folder", "etc/os-release": "ID=test\n"})
	for _, o := range []*Overlay{one, two, one} {
		if err := o.Remove(); err != nil {
			t.Error(err)
		}
	}
	expectTree(t, r.Path(), before)
	if _, err := os.Lstat(filepath.Join(dir, "one")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the overlay's folder: %v, want that it is gone", err)
	}
}

func TestAnOverlayCannotLieOnAnother(t *testing.T) {
	dir := tempDir(t)
	r := folderRoot(t, filepath.Join(dir, "root"), nil)
	o := mount(t, r, filepath.Join(dir, "one"), nil)
	inside := filepath.Join(o.Root(), "inside")
	if _, err := r.Mount(inside, nil); !errors.Is(err, ErrUpper) {
		t.Errorf("mount: %v, want %v", err, ErrUpper)
	}
	if _, err := os.Lstat(inside); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its folder: %v, want that it is gone", err)
	}
}

func TestBothWaysToMountAreTheSame(t *testing.T) {
	dir := tempDir(t)
	testenv.NeedRoot(t)
	for i, mountAt := range []func(string, []string, string, string) error{mountByText, mountByDescriptor} {
		lowers := []string{filepath.Join(dir, fmt.Sprint(`x,y:z\`, i)), filepath.Join(dir, "low")}
		write(t, lowers[0], map[string]string{"a": "high"})
		write(t, lowers[1], map[string]string{"a": "low", "b": "low"})
		base := filepath.Join(dir, fmt.Sprint("overlay, ", i))
		for _, sub := range []string{"upper", "work", "root"} {
			if err := os.MkdirAll(filepath.Join(base, sub), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := mountAt(filepath.Join(base, "root"), lowers, filepath.Join(base, "upper"), filepath.Join(base, "work")); err != nil {
			if errors.Is(err, errOldKernel) {
				t.Skip(err)
			}
			t.Fatal(err)
		}
		expectTree(t, filepath.Join(base, "root"), map[string]string{"a": "high", "b": "low"})
	}
	long := strings.Repeat("x", 200)
	if err := mountByText("/none", []string{long, long, long, long, long, long, long, long, long, long, long, long, long, long, long, long, long, long, long, long, long}, "/u", "/w"); err == nil || !strings.Contains(err.Error(), "fewer layers") {
		t.Errorf("more layers than fit: %v", err)
	}
}

// fill makes something of each kind in an overlay's root, whose root has a/deleted, replaced/old and kept.
func fill(t *testing.T, root string) {
	t.Helper()
	write(t, root, map[string]string{"new/file": "new", "new/%\xff": "a name that is no text", "kept": "changed"})
	at := func(name string) string { return filepath.Join(root, name) }
	sparse, err := os.Create(at("new/sparse"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sparse.WriteAt([]byte("end"), 8<<20); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(
		sparse.Close(),
		os.Remove(at("a/deleted")),
		os.RemoveAll(at("replaced")), os.Mkdir(at("replaced"), 0o700),
		os.Link(at("new/file"), at("new/linked")),
		os.Symlink("/nowhere", at("new/symlink")),
		unix.Mknod(at("new/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))),
		unix.Mkfifo(at("new/fifo"), 0o600),
		os.Chown(at("new/file"), 7, 8),
		os.Chmod(at("new/file"), 0o640|fs.ModeSetuid),
		unix.Setxattr(at("new/file"), "user.note", []byte("x"), 0),
		os.Chtimes(at("new/file"), time.Unix(5, 6), time.Unix(5, 6)),
	); err != nil {
		t.Fatal(err)
	}
}

var filledRoot = map[string]string{"a/deleted": "x", "a/stays": "x", "replaced/old": "x", "kept": "x"}

// expectFilled fails the test unless all that fill has made shows.
func expectFilled(t *testing.T, root string) {
	t.Helper()
	expectTree(t, root, map[string]string{
		"a": "folder", "a/stays": "x", "etc": "folder", "etc/os-release": "ID=test\n", "kept": "changed",
		"new": "folder", "new/file": "new", "new/linked": "new", "new/%\xff": "a name that is no text", "new/symlink": "link to /nowhere",
		"new/null": (fs.ModeDevice | fs.ModeCharDevice).String(), "new/fifo": fs.ModeNamedPipe.String(),
		"new/sparse": "8388608 bytes, then end", "replaced": "folder",
	})
	var file, linked, sparse, null unix.Stat_t
	at := func(name string) string { return filepath.Join(root, name) }
	if err := errors.Join(unix.Stat(at("new/file"), &file), unix.Stat(at("new/linked"), &linked), unix.Stat(at("new/sparse"), &sparse), unix.Stat(at("new/null"), &null)); err != nil {
		t.Fatal(err)
	}
	if file.Ino != linked.Ino || file.Nlink != 2 {
		t.Errorf("two names of a file are files %d and %d, with %d names", file.Ino, linked.Ino, file.Nlink)
	}
	if file.Uid != 7 || file.Gid != 8 || file.Mode&0o7777 != 0o4640 || file.Mtim.Nano() != 5e9+6 {
		t.Errorf("the file has owner %d:%d, mode %o, time %d", file.Uid, file.Gid, file.Mode, file.Mtim.Nano())
	}
	if sparse.Blocks*512 > 1<<20 {
		t.Errorf("the file with a hole takes %d bytes", sparse.Blocks*512)
	}
	if null.Rdev != unix.Mkdev(1, 3) {
		t.Errorf("the device is %d", null.Rdev)
	}
	note := make([]byte, 8)
	if n, err := unix.Getxattr(at("new/file"), "user.note", note); err != nil || string(note[:n]) != "x" {
		t.Errorf("the attribute is %q, %v", note[:max(n, 0)], err)
	}
}

func TestWhatWasWrittenComesBackWithEachOverlayOnTheLayer(t *testing.T) {
	dir := tempDir(t)
	r := folderRoot(t, filepath.Join(dir, "root"), filledRoot)
	o := mount(t, r, filepath.Join(dir, "builder"), nil)
	fill(t, o.Root())
	layer, err := o.Capture(filepath.Join(dir, "layer"), r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Remove(); err != nil {
		t.Error(err)
	}
	if err := layer.Verify(); err != nil {
		t.Error(err)
	}
	layers, err := r.OpenLayers(filepath.Join(dir, "layer"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(layer.note, layers[0].note); diff != "" {
		t.Errorf("the layer that is opened (-captured +opened):\n%s", diff)
	}
	one, two := mount(t, r, filepath.Join(dir, "one"), layers), mount(t, r, filepath.Join(dir, "two"), layers)
	expectFilled(t, one.Root())
	write(t, one.Root(), map[string]string{"new/file": "one's", "replaced/again": "one's"})
	expectFilled(t, two.Root())

	// A layer on top of the layer.
	upper, err := one.Capture(filepath.Join(dir, "upper"), r, layers)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]LayerRef{{"layer", layer.Digest()}}, upper.Below()); diff != "" {
		t.Errorf("layers below (-want +got):\n%s", diff)
	}
	chain, err := r.OpenLayers(filepath.Join(dir, "upper"))
	if err != nil {
		t.Fatal(err)
	}
	three := mount(t, r, filepath.Join(dir, "three"), chain)
	got := tree(t, three.Root())
	if got["new/file"] != "one's" || got["replaced/again"] != "one's" || got["replaced/old"] != "" {
		t.Errorf("the overlay of both layers has %q", got)
	}
	if err := layer.Verify(); err != nil {
		t.Errorf("a layer that overlays were on: %v", err)
	}
}

func TestAChangeOfALayerIsFound(t *testing.T) {
	dir := tempDir(t)
	r := folderRoot(t, filepath.Join(dir, "root"), filledRoot)
	for name, change := range map[string]func(content string) error{
		"a byte": func(c string) error {
			return os.WriteFile(filepath.Join(c, "new/%\xff"), []byte("a name that is no texT"), 0)
		},
		"a new file":     func(c string) error { return os.WriteFile(filepath.Join(c, "x"), nil, 0o600) },
		"a file less":    func(c string) error { return os.Remove(filepath.Join(c, "new/linked")) },
		"the mode":       func(c string) error { return os.Chmod(filepath.Join(c, "new"), 0o700) },
		"the owner":      func(c string) error { return os.Lchown(filepath.Join(c, "new/symlink"), 1, 1) },
		"an attribute":   func(c string) error { return unix.Setxattr(filepath.Join(c, "new/file"), "user.note", []byte("y"), 0) },
		"a whiteout":     func(c string) error { return os.Remove(filepath.Join(c, "a/deleted")) },
		"an opaque mark": func(c string) error { return unix.Removexattr(filepath.Join(c, "replaced"), opaqueXAttr) },
		"a time": func(c string) error {
			return os.Chtimes(filepath.Join(c, "new/null"), time.Unix(1, 0), time.Unix(1, 0))
		},
	} {
		t.Run(name, func(t *testing.T) {
			base := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
			o := mount(t, r, base+"-overlay", nil)
			fill(t, o.Root())
			l, err := o.Capture(base, r, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Verify(); err != nil {
				t.Fatal(err)
			}
			if err := change(l.Content()); err != nil {
				t.Fatal(err)
			}
			if err := l.Verify(); !errors.Is(err, ErrCorrupt) {
				t.Errorf("verify: %v, want %v", err, ErrCorrupt)
			}
		})
	}
}

func TestALayerLiesOnlyOnWhatItWasWrittenOn(t *testing.T) {
	dir := tempDir(t)
	r := folderRoot(t, filepath.Join(dir, "root"), filledRoot)
	other := folderRoot(t, filepath.Join(dir, "other"), nil)
	write(t, other.Path(), map[string]string{"etc/os-release": "ID=other\n"})
	other, err := OpenFolder(other.Path())
	if err != nil {
		t.Fatal(err)
	}
	capture := func(name string, below []*Layer) []*Layer {
		t.Helper()
		o := mount(t, r, filepath.Join(dir, name+"-overlay"), below)
		write(t, o.Root(), map[string]string{name: time.Now().String()})
		l, err := o.Capture(filepath.Join(dir, name), r, below)
		if err != nil {
			t.Fatal(err)
		}
		return append([]*Layer{l}, below...)
	}
	template := capture("template", nil)
	capture("top", template)
	if _, err := other.OpenLayers(filepath.Join(dir, "top")); !errors.Is(err, ErrWrongRoot) {
		t.Errorf("on another root: %v, want %v", err, ErrWrongRoot)
	}
	for _, c := range []struct {
		text string
		want error
	}{{"ID=newer\n", ErrWrongRoot}, {"ID=test\n", nil}} {
		write(t, r.Path(), map[string]string{"etc/os-release": c.text})
		if _, err := r.OpenLayers(filepath.Join(dir, "top")); !errors.Is(err, c.want) {
			t.Errorf("on the root when its release is %q: %v, want %v", c.text, err, c.want)
		}
	}
	if err := RemoveLayer(filepath.Join(dir, "template")); err != nil {
		t.Fatal(err)
	}
	if _, err := r.OpenLayers(filepath.Join(dir, "top")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without the layer below: %v, want %v", err, fs.ErrNotExist)
	}
	capture("template", nil)
	if _, err := r.OpenLayers(filepath.Join(dir, "top")); !errors.Is(err, ErrWrongRoot) {
		t.Errorf("on another layer of the name: %v, want %v", err, ErrWrongRoot)
	}
}

func TestACaptureThatFailsLeavesNoLayer(t *testing.T) {
	dir := tempDir(t)
	r := folderRoot(t, filepath.Join(dir, "root"), filledRoot)
	shm, err := os.MkdirTemp("/dev/shm", "thaw-rootfs-")
	if err != nil {
		t.Skipf("needs another file system: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(shm) })
	o := mount(t, r, filepath.Join(dir, "overlay"), nil)
	if _, err := o.Capture(filepath.Join(shm, "layer"), r, nil); !errors.Is(err, ErrOtherFileSystem) {
		t.Errorf("on another file system: %v, want %v", err, ErrOtherFileSystem)
	}
	if left, err := os.ReadDir(shm); err != nil || len(left) != 0 {
		t.Errorf("there is %v, %v", left, err)
	}
	write(t, dir, map[string]string{"taken/file": ""})
	if _, err := o.Capture(filepath.Join(dir, "taken"), r, nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a folder that is there: %v, want %v", err, fs.ErrExist)
	}
	if _, err := o.Capture(filepath.Join(dir, "layer"), r, nil); err != nil {
		t.Errorf("the next one: %v", err)
	}
	for range 2 {
		if err := RemoveLayer(filepath.Join(dir, "layer")); err != nil {
			t.Error(err)
		}
	}
}

func TestTheListingIsWhatTheFormatSays(t *testing.T) {
	testenv.NeedRoot(t)
	dir := t.TempDir()
	write(t, dir, map[string]string{"b/file <&>": "hello", "a%\xff": ""})
	when := time.Unix(1, 2)
	if err := errors.Join(
		os.Link(filepath.Join(dir, "b/file <&>"), filepath.Join(dir, "b/link")),
		os.Symlink("x/y", filepath.Join(dir, "sym")),
		unix.Mknod(filepath.Join(dir, "gone"), unix.S_IFCHR, 0),
		unix.Setxattr(filepath.Join(dir, "b"), opaqueXAttr, []byte("y"), 0),
		unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(dir, "sym"), []unix.Timespec{unix.NsecToTimespec(when.UnixNano()), unix.NsecToTimespec(when.UnixNano())}, unix.AT_SYMLINK_NOFOLLOW),
		os.Chmod(dir, 0o755), os.Chmod(filepath.Join(dir, "b"), 0o700),
	); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"b/file <&>", "a%\xff", "gone", "b", "."} {
		if err := os.Chtimes(filepath.Join(dir, name), when, when); err != nil {
			t.Fatal(err)
		}
	}
	var text strings.Builder
	sum, err := listTo(&text, dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("testdata/listing.txt", []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/listing.txt")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), text.String()); diff != "" {
		t.Errorf("listing (-golden +got):\n%s", diff)
	}
	const golden = "sha256:d8ccb2c18a00ea744658de965a5769db023de60b4ef2adcf6a10b9f06c7ab077"
	if sum.entries != 7 || sum.bytes != 5 || sum.digest() != golden {
		t.Errorf("%d entries, %d bytes, %s", sum.entries, sum.bytes, sum.digest())
	}
}

func FuzzLayerNote(f *testing.F) {
	golden, err := os.ReadFile("testdata/layer.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(golden)
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		n, err := parseLayerNote(text)
		if (n == nil) == (err == nil) || err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("got %+v and %v", n, err)
		}
	})
}

func TestTheGoldenLayerNoteIsReadAndOthersAreNot(t *testing.T) {
	golden, err := os.ReadFile("testdata/layer.json")
	if err != nil {
		t.Fatal(err)
	}
	n, err := parseLayerNote(golden)
	if err != nil || n.Entries != 7 || n.Bytes != 5 || len(n.Below) != 1 || n.Below[0].Name != "template" {
		t.Errorf("got %+v, %v", n, err)
	}
	for name, change := range map[string][2]string{
		"another format":     {"thaw-layer", "x"},
		"another version":    {`"version": 1`, `"version": 2`},
		"an unknown field":   {`"version"`, `"x": 1, "version"`},
		"a bad digest":       {"sha256:0", "sha256:g"},
		"a name with a path": {`"template"`, `"../template"`},
		"a negative size":    {`"bytes": 5`, `"bytes": -5`},
		"more behind":        {"\n}\n", "\n}\n{}"},
		"less":               {"\n}\n", "\n"},
	} {
		text := strings.Replace(string(golden), change[0], change[1], 1)
		if text == string(golden) {
			t.Fatalf("%s: nothing was changed", name)
		}
		if _, err := parseLayerNote([]byte(text)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v, want %v", name, err, ErrCorrupt)
		}
	}
}
