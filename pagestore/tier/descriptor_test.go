package tier

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"thaw/pagestore"
	"thaw/pagestore/blob"
)

var update = flag.Bool("update", false, "write the golden files")

// goldenDescriptor is the one of which testdata has the text.
func goldenDescriptor() *Descriptor {
	return &Descriptor{
		Snapshot:   "python-3.13",
		Manifest:   Part{digestOf("manifest"), 4711},
		Meta:       Part{digestOf("meta"), 815},
		Packs:      []Pack{{digestOf("pack 1"), 65536, digestOf("root 1")}, {digestOf("pack 2"), 1, digestOf("root 2")}},
		WorkingSet: &WorkingSet{12345, digestOf("hot")},
		Created:    time.Date(2026, 11, 26, 20, 15, 0, 123, time.UTC),
	}
}

func TestDescriptorsAndNamesHaveTheFormOfTheGoldenFiles(t *testing.T) {
	descriptor, digest, err := goldenDescriptor().Encode()
	if err != nil {
		t.Fatal(err)
	}
	name, err := encodePointer(descriptor)
	if err != nil {
		t.Fatal(err)
	}
	for file, got := range map[string][]byte{"descriptor.json": descriptor, "name.json": name} {
		path := filepath.Join("testdata", file)
		if *update {
			if err := os.WriteFile(path, got, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s (-golden +got):\n%s", path, diff)
		}
	}
	d, err := ParseDescriptor(descriptor)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(goldenDescriptor(), d); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
	if p, err := parsePointer(name); err != nil || p.Descriptor != digest || p.Bytes != int64(len(descriptor)) {
		t.Errorf("name is %+v, %v", p, err)
	}
}

func TestDescriptorsThatAreNoneAreRefused(t *testing.T) {
	text, _, err := goldenDescriptor().Encode()
	if err != nil {
		t.Fatal(err)
	}
	good := string(text)
	packs := good[strings.Index(good, `"packs":`):strings.Index(good, `,"working_set"`)]
	for what, change := range map[string][2]string{
		"an unknown field":         {`"created"`, `"extra":1,"created"`},
		"another order":            {`"format":"thaw-remote","version":1`, `"version":1,"format":"thaw-remote"`},
		"white space":              {`{"format"`, `{ "format"`},
		"no end of line":           {"}\n", "}"},
		"bytes behind it":          {"}\n", "}\n{}"},
		"digits in capitals":       {digestOf("meta").String(), strings.ToUpper(digestOf("meta").String())},
		"a short digest":           {digestOf("meta").String(), "00"},
		"another time zone":        {"00.000000123Z", "00.000000123+00:00"},
		"another format":           {"thaw-remote", "thaw-name"},
		"a negative size":          {"4711", "-1"},
		"a name that is none":      {"python-3.13", "../python"},
		"a pack without pages":     {`"pages":1,`, `"pages":0,`},
		"a pack that comes twice":  {digestOf("pack 2").String(), digestOf("pack 1").String()},
		"a pack that is too large": {"65536", "65537"},
		"no list of packs":         {packs, `"packs":null`},
		"hot pages that are none":  {"12345", "0"},
		"no meta object":           {"815", "0"},
	} {
		bad := strings.Replace(good, change[0], change[1], 1)
		if bad == good {
			t.Fatalf("%s: the test changes nothing", what)
		}
		if _, err := ParseDescriptor([]byte(bad)); !errors.Is(err, pagestore.ErrCorrupt) {
			t.Errorf("%s: %v, want %v", what, err, pagestore.ErrCorrupt)
		}
	}
	later := strings.Replace(good, `"version":1`, `"version":2,"more":[]`, 1)
	if _, err := ParseDescriptor([]byte(later)); !errors.Is(err, pagestore.ErrVersion) {
		t.Errorf("a later version: %v, want %v", err, pagestore.ErrVersion)
	}
}

func FuzzParseDescriptor(f *testing.F) {
	text, _, err := goldenDescriptor().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	small, _ := testDescriptor(f, "one", "a")
	f.Add(small)
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := ParseDescriptor(text)
		if err != nil {
			return
		}
		again, _, err := d.Encode()
		if err != nil || !bytes.Equal(again, text) {
			t.Errorf("%v; %q is written as %q", err, text, again)
		}
		for _, key := range d.keys("ns") {
			if k, err := ParseKey(key.String()); err != nil || k != key {
				t.Errorf("key %s is %v, %v", key, k, err)
			}
		}
	})
}

func FuzzParsePointer(f *testing.F) {
	text, err := encodePointer([]byte("descriptor"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		if p, err := parsePointer(text); err == nil && (p.Bytes < 1 || p.Bytes > maxDescriptor) {
			t.Errorf("%q points to %d bytes", text, p.Bytes)
		}
	})
}

func TestKeysAreReadAsTheyAreWritten(t *testing.T) {
	d := digestOf("x")
	for want, key := range map[string]Key{
		"v1/ns/names/one":                            NameKey(nameOf("one")),
		"v1/ns/descriptors/" + d.String():            DescriptorKey("ns", d),
		"v1/ns/meta/" + d.String():                   MetaKey("ns", d),
		"v1/ns/packs/" + d.String():                  PackKey("ns", d),
		"v1/ns/hot/" + d.String() + "-" + d.String(): HotKey("ns", d, d),
		"v1/ns/leases/kept-abc":                      leaseKey("ns", "kept-abc"),
	} {
		if key.String() != want {
			t.Errorf("key is %s, want %s", key, want)
		}
		if got, err := ParseKey(want); err != nil || got != key {
			t.Errorf("%s is read as %+v, %v", want, got, err)
		}
	}
	hex := d.String()
	for _, bad := range []string{
		"", "v1", "v1/ns/names", "v1/ns/names/", "v1/ns/names/a/b", "v2/ns/names/a", "/v1/ns/names/a", "v1//names/a", "v1/../names/a", "v1/ns/names/..", "v1/ns/names/.a",
		"v1/ns/other/a", "v1/ns//a", "v1/ns/packs/a", "v1/ns/packs/" + strings.ToUpper(hex), "v1/ns/packs/" + hex + "0", "v1/ns/hot/" + hex, "v1/ns/hot/" + hex + "-",
		"v1/ns/hot/" + hex + "-" + hex + "-" + hex, "v1/" + strings.Repeat("n", 200) + "/names/a",
	} {
		if k, err := ParseKey(bad); !errors.Is(err, blob.ErrKey) {
			t.Errorf("%q is read as %+v, %v", bad, k, err)
		}
	}
}

func FuzzParseKey(f *testing.F) {
	d := digestOf("x")
	for _, key := range []Key{NameKey(nameOf("one")), PackKey("ns", d), HotKey("ns", d, d), leaseKey("ns", "a")} {
		f.Add(key.String())
	}
	f.Fuzz(func(t *testing.T, text string) {
		if key, err := ParseKey(text); err == nil && key.String() != text {
			t.Errorf("%q is written as %q", text, key)
		}
	})
}
