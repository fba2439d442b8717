package pagestore

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func testRemote() *Remote {
	return &Remote{
		Descriptor: []byte(`{"format":"thaw-remote"}`),
		Packs:      []RemotePackRoot{{ID: Digest{1}, Pages: 65536, Root: Digest{2}}, {ID: Digest{3}, Pages: 1, Root: Digest{4}}},
		Hot:        &RemoteHotRoot{Pages: 70, Root: Digest{5}},
	}
}

func TestRemoteComesBack(t *testing.T) {
	for _, want := range []*Remote{testRemote(), {}} {
		text, err := encodeRemote(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := parseRemote(text)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("remote (-want +got):\n%s", diff)
		}
	}
}

// remoteText returns the text of a remote.json with the right digest.
func remoteText(value string) []byte {
	text, err := json.Marshal(remoteEnvelope{Version: remoteVersion, SHA256: sha256.Sum256([]byte(value)), Remote: json.RawMessage(value)})
	if err != nil {
		panic(err)
	}
	return text
}

func TestBadRemotesAreRefused(t *testing.T) {
	good, err := json.Marshal(testRemote())
	if err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string][]byte{
		"nothing":            nil,
		"no JSON":            []byte("{"),
		"another digest":     []byte(strings.Replace(string(remoteText(string(good))), `"pages":1,`, `"pages":2,`, 1)),
		"an unknown field":   remoteText(`{"descriptor":"","packs":[],"more":1}`),
		"a pack of no pages": remoteText(strings.Replace(string(good), `"pages":1,`, `"pages":0,`, 1)),
		"a pack too large":   remoteText(strings.Replace(string(good), `"pages":65536,`, `"pages":65537,`, 1)),
		"no hot pages":       remoteText(strings.Replace(string(good), `"pages":70,`, `"pages":0,`, 1)),
	} {
		if _, err := parseRemote(text); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v, want %v", what, err, ErrCorrupt)
		}
	}
	next := strings.Replace(string(remoteText(string(good))), `"version":1`, `"version":2`, 1)
	if _, err := parseRemote([]byte(next)); !errors.Is(err, ErrVersion) {
		t.Errorf("the next version: %v, want %v", err, ErrVersion)
	}
}

func FuzzParseRemote(f *testing.F) {
	good, err := json.Marshal(testRemote())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, value []byte) {
		if !json.Valid(value) {
			return
		}
		r, err := parseRemote(remoteText(string(value)))
		if err != nil {
			return
		}
		text, err := encodeRemote(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseRemote(text); err != nil {
			t.Errorf("what was read is written as something bad: %v", err)
		}
	})
}
