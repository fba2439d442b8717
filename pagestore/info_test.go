package pagestore

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files")

const goldenInfo = "testdata/info.json"

func testInfo() *Info {
	return &Info{
		Name:          Name{"ns", "minilm"},
		Created:       time.Date(2026, 11, 23, 10, 20, 30, 40, time.UTC),
		Digest:        Digest{1, 2, 3},
		ManifestBytes: 4711,
		ManifestSum:   1<<64 - 1,
		Parent:        Name{DefaultNamespace, "base"},
		Spaces:        2,
		Pages:         100,
		ZeroPages:     30,
		NewPages:      70,
		Skeleton:      []SkeletonFile{{Path: "core-1.img", Bytes: 12, SHA256: Digest{4}}, {Path: "sub/x", SHA256: Digest{5}}},
		Host:          json.RawMessage(`{"kernel":"6.18"}`),
	}
}

func TestGoldenInfo(t *testing.T) {
	got, err := encodeInfo(testInfo())
	if err != nil {
		t.Fatal(err)
	}
	if *rewrite {
		if err := os.WriteFile(goldenInfo, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(goldenInfo)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("the format has changed (-want +got):\n%s", diff)
	}
	info, err := parseInfo(want)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(testInfo(), info); diff != "" {
		t.Errorf("info (-want +got):\n%s", diff)
	}
}

func TestParseInfoRefuses(t *testing.T) {
	text, err := encodeInfo(testInfo())
	if err != nil {
		t.Fatal(err)
	}
	change := func(from, to string) string { return strings.Replace(string(text), from, to, 1) }
	// seal makes the envelope of an info with right digest.
	seal := func(info string) string {
		env, err := json.Marshal(infoEnvelope{Version: infoVersion, SHA256: sha256.Sum256([]byte(info)), Info: json.RawMessage(info)})
		if err != nil {
			t.Fatal(err)
		}
		return string(env)
	}
	tests := []struct {
		name, text string
		want       error
	}{
		{"nothing", "", ErrCorrupt},
		{"text that is not JSON", "thaw", ErrCorrupt},
		{"text cut off", string(text[:len(text)/2]), ErrCorrupt},
		{"trailing text", string(text) + "{}", ErrCorrupt},
		{"another version", change(`"version":1`, `"version":2`), ErrVersion},
		{"an unknown field of the envelope", change(`"version":1`, `"version":1,"more":0`), ErrCorrupt},
		{"a number that was changed", change(`"pages":100`, `"pages":101`), ErrCorrupt},
		{"a space that was added", change(`"pages":100`, `"pages": 100`), ErrCorrupt},
		{"a digest that is too short", change(`"sha256":"`, `"sha256":"00`), ErrCorrupt},
		{"an unknown field", seal(`{"name":"a","digest":"` + Digest{}.String() + `","unknown":1}`), ErrCorrupt},
		{"no name", seal(`{"digest":"` + Digest{}.String() + `"}`), ErrCorrupt},
		{"a bad name", seal(`{"name":"../a"}`), ErrCorrupt},
		{"more zero pages than pages", seal(`{"name":"a","pages":1,"zero_pages":2}`), ErrCorrupt},
		{"more new pages than pages", seal(`{"name":"a","pages":2,"zero_pages":1,"new_pages":2}`), ErrCorrupt},
		{"a negative size", seal(`{"name":"a","manifest_bytes":-1}`), ErrCorrupt},
		{"a skeleton file outside of the skeleton", seal(`{"name":"a","skeleton":[{"path":"../x"}]}`), ErrCorrupt},
		{"a skeleton file of an absolute path", seal(`{"name":"a","skeleton":[{"path":"/etc/passwd"}]}`), ErrCorrupt},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := parseInfo([]byte(tt.text)); !errors.Is(err, tt.want) {
				t.Errorf("error is %v, want %v", err, tt.want)
			}
		})
	}
}

func FuzzParseInfo(f *testing.F) {
	text, err := encodeInfo(testInfo())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	raw, err := json.Marshal(testInfo())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"name":"a"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if info, err := parseInfo(data); (err == nil) != (info != nil) {
			t.Fatalf("info %v and error %v", info, err)
		}
		// With the right digest, so that the fields are looked at.
		env, err := json.Marshal(infoEnvelope{Version: infoVersion, SHA256: sha256.Sum256(data), Info: data})
		if err != nil {
			return
		}
		info, err := parseInfo(env)
		if err != nil {
			return
		}
		again, err := encodeInfo(info)
		if err != nil {
			t.Fatalf("an info that was accepted cannot be written: %v", err)
		}
		back, err := parseInfo(again)
		if err != nil {
			t.Fatal(err)
		}
		// Host is kept but for its white space.
		info.Host, back.Host = compact(info.Host), compact(back.Host)
		if !reflect.DeepEqual(info, back) && !bytes.Contains(data, []byte("created")) {
			t.Fatalf("%+v became %+v", info, back)
		}
	})
}

func compact(text json.RawMessage) json.RawMessage {
	var v any
	if json.Unmarshal(text, &v) != nil {
		return nil
	}
	out, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return out
}
