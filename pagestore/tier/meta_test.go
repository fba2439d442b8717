package tier

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"thaw/pagestore"
)

// testFiles is what a snapshot could be made of, with its skeleton in the folder dir.
func testFiles(t testing.TB, dir string) (files pagestore.Files, manifest Part) {
	t.Helper()
	files = pagestore.Files{Manifest: []byte("manifest"), Hint: []byte("hint"), HotOrder: []byte("order")}
	manifest = Part{sha256.Sum256(files.Manifest), int64(len(files.Manifest))}
	for path, content := range map[string]string{"b.img": "b", "a.img": strings.Repeat("a", 10_000), "folder/c.img": ""} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, path), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		files.Skeleton = append(files.Skeleton, pagestore.SkeletonFile{Path: path, Bytes: int64(len(content)), SHA256: sha256.Sum256([]byte(content))})
	}
	var err error
	files.Info, err = json.Marshal(map[string]any{"info": pagestore.Info{
		Name: nameOf("one"), Digest: manifest.Digest, ManifestBytes: manifest.Bytes, Skeleton: files.Skeleton,
	}})
	if err != nil {
		t.Fatal(err)
	}
	return files, manifest
}

func TestAMetaObjectIsReadAsItWasWritten(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	files, manifest := testFiles(t, from)
	var b, again bytes.Buffer
	if err := errors.Join(writeMeta(&b, &files, from), writeMeta(&again, &files, from)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), again.Bytes()) {
		t.Error("written twice it differs")
	}
	m, err := openMeta(&b, manifest)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if diff := cmp.Diff(files, m.Files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if err := m.extract(to); err != nil {
		t.Fatal(err)
	}
	for _, f := range files.Skeleton {
		want, err := os.ReadFile(filepath.Join(from, f.Path))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(to, f.Path)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, want %d; %v", f.Path, len(got), len(want), err)
		}
	}
}

// compressed returns entries as a meta object.
func compressed(t testing.TB, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	for _, e := range entries {
		content := e.PAXRecords["content"]
		e.PAXRecords = nil
		if e.Size == 0 {
			e.Size = int64(len(content))
		}
		if err := w.WriteHeader(&e); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	w.Flush() // an entry may be shorter than it says
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func entry(name, content string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, PAXRecords: map[string]string{"content": content}}
}

func TestMetaObjectsThatAreNoneAreRefused(t *testing.T) {
	files, manifest := testFiles(t, t.TempDir())
	info, man := entry(metaInfo, string(files.Info)), entry(metaManifest, string(files.Manifest))
	all := []tar.Header{info, man, entry("skeleton/a.img", strings.Repeat("a", 10_000)), entry("skeleton/b.img", "b"), entry("skeleton/folder/c.img", "")}
	with := func(more ...tar.Header) []tar.Header { return append(all[:len(all):len(all)], more...) }
	for what, entries := range map[string][]tar.Header{
		"nothing":                       {},
		"no manifest":                   {info},
		"another order":                 {man, info},
		"a manifest that is too large":  {info, entry(metaManifest, "manifest with more"), all[2], all[3], all[4]},
		"info that is no JSON":          {entry(metaInfo, "{"), man},
		"info of another manifest":      {entry(metaInfo, "{}"), man},
		"a missing file":                all[:4],
		"a file that is not listed":     with(entry("skeleton/d.img", "")),
		"a file that comes twice":       with(entry("skeleton/b.img", "b")),
		"a file of another size":        {info, man, entry("skeleton/a.img", "a"), all[3], all[4]},
		"a file outside of the folder":  with(entry("skeleton/../x", "")),
		"an absolute path":              with(entry("/etc/passwd", "")),
		"a link":                        with(tar.Header{Typeflag: tar.TypeSymlink, Name: "skeleton/l", Linkname: "/etc"}),
		"a folder":                      with(tar.Header{Typeflag: tar.TypeDir, Name: "skeleton/l"}),
		"a hint that is empty":          {info, man, entry(metaHint, "")},
		"something unknown":             with(entry("more", "x")),
		"an order that is much too big": {info, man, {Typeflag: tar.TypeReg, Name: metaHotOrder, Size: 1 << 40}},
	} {
		m, err := openMeta(bytes.NewReader(compressed(t, entries...)), manifest)
		if err == nil {
			err = m.extract(t.TempDir())
			m.Close()
		}
		if !errors.Is(err, pagestore.ErrCorrupt) {
			t.Errorf("%s: %v, want %v", what, err, pagestore.ErrCorrupt)
		}
	}
	whole := compressed(t, all...)
	if m, err := openMeta(bytes.NewReader(whole), manifest); err != nil {
		t.Errorf("what the others are made from: %v", err)
	} else {
		m.Close()
	}
	for n := 0; n < len(whole)-20; n += 7 {
		m, err := openMeta(bytes.NewReader(whole[:n]), manifest)
		if err == nil {
			err = m.extract(t.TempDir())
			m.Close()
		}
		if err == nil {
			t.Errorf("%d of %d bytes are taken for all", n, len(whole))
		}
	}
}

func FuzzMeta(f *testing.F) {
	dir := f.TempDir()
	files, manifest := testFiles(f, dir)
	var b bytes.Buffer
	if err := writeMeta(&b, &files, dir); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes(), false)
	z, err := zstd.NewReader(&b)
	if err != nil {
		f.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	z.Close()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain, true) // compressed by the target, so that it gets to the tar behind
	f.Fuzz(func(t *testing.T, data []byte, plain bool) {
		if plain {
			e, err := zstd.NewWriter(nil)
			if err != nil {
				t.Fatal(err)
			}
			data = e.EncodeAll(data, nil)
			e.Close()
		}
		m, err := openMeta(bytes.NewReader(data), manifest)
		if err != nil {
			return
		}
		defer m.Close()
		to := t.TempDir()
		if err := m.extract(filepath.Join(to)); err != nil {
			return
		}
		for _, s := range m.Skeleton {
			if info, err := os.Stat(filepath.Join(to, filepath.FromSlash(s.Path))); err != nil || info.Size() != s.Bytes {
				t.Errorf("%s: %v", s.Path, err)
			}
		}
	})
}
