package version

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"thaw/cpu"
	"thaw/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

var rewrite = flag.Bool("rewrite", false, "write testdata/version.json instead of comparing it")

// digest returns a digest that looks like the byte.
func digest(b byte) (d Digest) {
	for i := range d {
		d[i] = b
	}
	return d
}

// content is what the versions of the tests are made of.
func content() Content {
	v3, _ := cpu.Level("x86-64-v3")
	memory := int64(1 << 30)
	return Content{
		Description: Description{
			SDK: "0.1.0", Python: "3.13.5", App: "sentence-transformers", Sources: []string{"app.py", "helpers.py"},
			Data: []string{"model.bin"}, Dependencies: "requirements.lock", Template: &Template{Modules: []string{"torch"}},
			Objects: []Object{{
				Name: "Embedder", Kind: "class", Snapshot: true, Concurrency: 1, Memory: &memory,
				Methods:    []Method{{Name: "embed", Kind: "method", Signature: "(sentences: list[str])"}},
				Parameters: []Parameter{{Name: "size", Type: "int", Default: json.RawMessage("384")}},
			}},
		},
		Entry: "app.py",
		Code: []File{
			{Path: "app.py", Bytes: 100, SHA256: digest(1)}, {Path: "helpers.py", Bytes: 20, SHA256: digest(2)},
			{Path: "requirements.lock", Bytes: 30, SHA256: digest(3)},
		},
		Data:    []File{{Path: "model.bin", Bytes: 1 << 20, SHA256: digest(4)}},
		Lock:    &File{Path: "requirements.lock", Bytes: 30, SHA256: digest(3)},
		Root:    Root{Kind: "dir", Path: "/srv/root", Digest: "sha256:abc"},
		Runtime: Runtime{Python: "3.13.5", SDK: "0.1.0", SDKDigest: digest(5), CRIU: "4.2", Snapshot: 1},
		CPU:     cpu.Confinement{Features: v3, Masked: true},
	}
}

func mustNew(t *testing.T, c Content) *Version {
	t.Helper()
	v, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestTheKeyIsComputedAsEver holds a whole version still: a key that is computed in another way fits no snapshot.
func TestTheKeyIsComputedAsEver(t *testing.T) {
	v := mustNew(t, content())
	got, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "version.json")
	if *rewrite {
		if err := os.WriteFile(golden, append(got, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.TrimSpace(string(want)), string(got)); diff != "" {
		t.Errorf("version (-want +got):\n%s", diff)
	}
	var read Version
	if err := json.Unmarshal(want, &read); err != nil {
		t.Fatal(err)
	}
	if err := read.Verify(); err != nil {
		t.Errorf("the golden version: %v", err)
	}
}

// changes are what may become of a version, and what is said of it.
var changes = []struct {
	name   string
	change func(*Content)
	says   []string
}{
	{"a comment in a file", func(c *Content) { c.Code[1].SHA256 = digest(9) }, []string{"code: helpers.py changed"}},
	{"a file more", func(c *Content) {
		c.Code = slices.Insert(c.Code, 2, File{Path: "more.py", SHA256: digest(9)})
	}, []string{"code: more.py is new"}},
	{"a file less", func(c *Content) { c.Code = slices.Delete(c.Code, 1, 2) }, []string{"code: helpers.py is gone"}},
	{"a file with another name", func(c *Content) { c.Code[1].Path = "helpers2.py" }, []string{"code: helpers.py is gone", "code: helpers2.py is new"}},
	{"a file that can be executed", func(c *Content) { c.Code[1].Executable = true }, []string{"code: helpers.py has another mode"}},
	{"another file of the app", func(c *Content) { c.Entry = "helpers.py" }, []string{"code: file of the app app.py is now helpers.py"}},
	{"a dependency", func(c *Content) {
		c.Code[2].SHA256 = digest(9)
		c.Lock.SHA256 = digest(9)
	}, []string{"code: requirements.lock changed", "dependencies: requirements.lock changed"}},
	{"no lock file any more", func(c *Content) {
		c.Lock, c.Description.Dependencies = nil, ""
	}, []string{"dependencies: requirements.lock is gone"}},
	{"the root file system", func(c *Content) { c.Root.Digest = "sha256:def" }, []string{"dependencies: root file system /srv/root changed"}},
	{"another root file system", func(c *Content) {
		c.Root.Path, c.Root.Digest = "/srv/other", "sha256:123"
	}, []string{"dependencies: root file system /srv/root is now /srv/other"}},
	{"the data", func(c *Content) { c.Data[0].SHA256 = digest(9) }, []string{"data: model.bin changed"}},
	{"no data", func(c *Content) { c.Data = nil }, []string{"data: model.bin is gone"}},
	{"Python", func(c *Content) { c.Runtime.Python = "3.14.0" }, []string{"runtime: Python 3.13.5 is now 3.14.0"}},
	{"the SDK", func(c *Content) { c.Runtime.SDK = "0.2.0" }, []string{"runtime: SDK 0.1.0 is now 0.2.0"}},
	{"the SDK's files", func(c *Content) { c.Runtime.SDKDigest = digest(9) }, []string{"runtime: the SDK's files changed"}},
	{"CRIU is gone", func(c *Content) { c.Runtime.CRIU = "" }, []string{"runtime: CRIU 4.2 is now (none)"}},
	{"the format of snapshots", func(c *Content) { c.Runtime.Snapshot = 2 }, []string{"runtime: snapshot format 1 is now 2"}},
	{"a feature of the CPU more", func(c *Content) { c.CPU.Features = c.CPU.Features.Plus(cpu.New("aes")) }, []string{"cpu: with aes"}},
	{"a feature of the CPU less", func(c *Content) { c.CPU.Features = c.CPU.Features.Minus(cpu.New("bmi2")) }, []string{"cpu: without bmi2"}},
	{"many features of the CPU less", func(c *Content) { c.CPU.Features, _ = cpu.Level("x86-64-v2") }, []string{"cpu: x86-64-v3 is now x86-64-v2"}},
	{"no mask", func(c *Content) { c.CPU.Masked = false }, []string{"cpu: libraries are no longer told what to use"}},
}

func TestAnyChangeMakesAnotherKeyAndIsTold(t *testing.T) {
	from := mustNew(t, content())
	seen := map[Key]string{from.Key: "nothing"}
	for _, tt := range changes {
		t.Run(tt.name, func(t *testing.T) {
			c := content()
			tt.change(&c)
			to := mustNew(t, c)
			if other := seen[to.Key]; other != "" {
				t.Errorf("the key is that of %q", other)
			}
			seen[to.Key] = tt.name
			var got []string
			for _, change := range Diff(from, to) {
				got = append(got, change.String())
			}
			if diff := cmp.Diff(tt.says, got); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
		})
	}
	if got := Diff(from, from); got != nil {
		t.Errorf("a version differs from itself: %v", got)
	}
}

func TestWhatIsNoPartOfAVersionKeepsItsKey(t *testing.T) {
	from := mustNew(t, content())
	c := content()
	c.Root.Path = "/mnt/the/same/root"
	c.Description.Generators = []Generator{{Where: "app.RNG", Type: "random.Random"}}
	if to := mustNew(t, c); to.Key != from.Key {
		t.Errorf("key is another one: %v", Diff(from, to))
	}
}

func TestContentThatContradictsItselfIsRefused(t *testing.T) {
	for name, change := range map[string]func(*Content){
		"no file of the app":             func(c *Content) { c.Entry = "other.py" },
		"files that are not sorted":      func(c *Content) { slices.Reverse(c.Code) },
		"a file twice":                   func(c *Content) { c.Code[1].Path = "app.py" },
		"a file outside":                 func(c *Content) { c.Code[1].Path = "../x" },
		"a lock file that is not there":  func(c *Content) { c.Lock = nil },
		"another lock file":              func(c *Content) { c.Lock.Path = "app.py" },
		"a root of an unknown kind":      func(c *Content) { c.Root.Kind = "zip" },
		"a root without a digest":        func(c *Content) { c.Root.Digest = "" },
		"a root with a path that floats": func(c *Content) { c.Root.Path = "root" },
		"no name":                        func(c *Content) { c.Description.App = "" },
		"a name with a slash":            func(c *Content) { c.Description.App = "a/b" },
	} {
		c := content()
		change(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestAVersionThatWasTamperedWithIsFound(t *testing.T) {
	v := mustNew(t, content())
	v.Code = slices.Clone(v.Code)
	v.Code[0].SHA256 = digest(9)
	if err := v.Verify(); err == nil {
		t.Error("other code has the same key")
	}
}

func TestTemplatesAreSharedByVersionsThatDifferInCodeOnly(t *testing.T) {
	a := mustNew(t, content())
	c := content()
	c.Code[0].SHA256 = digest(9)
	b := mustNew(t, c)
	modules := []string{"torch", "numpy"}
	if a.TemplateKey(modules) != b.TemplateKey(modules) {
		t.Error("other code has another template")
	}
	if a.TemplateKey(modules) == a.TemplateKey([]string{"numpy", "torch"}) {
		t.Error("modules in another order have the same template")
	}
	c.Root.Digest = "sha256:def"
	if d := mustNew(t, c); d.TemplateKey(modules) == a.TemplateKey(modules) {
		t.Error("another root has the same template")
	}
}

func TestFilesOfAVersionAreThereOnce(t *testing.T) {
	c := content()
	c.Data = append([]File{c.Code[1]}, c.Data...)
	var got []string
	v := mustNew(t, c)
	for _, f := range v.Files() {
		got = append(got, f.Path)
	}
	if diff := cmp.Diff([]string{"app.py", "helpers.py", "requirements.lock", "model.bin"}, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestKeysAreReadAsTheyArePrinted(t *testing.T) {
	k := mustNew(t, content()).Key
	if got, err := ParseKey(k.String()); err != nil || got != k {
		t.Errorf("read as %s, %v", got, err)
	}
	for _, bad := range []string{"", "abc", k.String() + "0", strings.Repeat("x", 64)} {
		if _, err := ParseKey(bad); err == nil {
			t.Errorf("%q was read as a key", bad)
		}
	}
}

func TestNames(t *testing.T) {
	for _, good := range []string{"a", "sentence-transformers", "_x", "App2.web", strings.Repeat("n", 64)} {
		if err := CheckName(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", ".", "..", "-a", ".a", "a/b", "a b", "ä", strings.Repeat("n", 65)} {
		if err := CheckName(bad); err == nil {
			t.Errorf("%q is allowed", bad)
		}
	}
}
