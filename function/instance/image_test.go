package instance

import (
	"archive/tar"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"thaw/function/rootfs"
	"thaw/internal/testenv"
)

// pythonFiles are what Python needs of a Debian: the interpreter, its own modules, and the libraries of both.
var pythonFiles = regexp.MustCompile(`^(bin|lib|lib64|sbin|usr/bin/python3[.0-9]*|usr/lib64/.*|usr/lib/python3\.[0-9]+/.*|` +
	`usr/lib/[a-z0-9_]+-linux-gnu/(ld-linux|lib(c|m|z|expat|ssl|crypto|ffi|lzma|bz2|uuid|zstd)[-.]).*)$`)

// writeImage makes an image layout with a part of a root file system in one layer, and a small second one, with a link in the place of
// /dev/null.
func writeImage(t *testing.T, root, layout string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(layout, "blobs/sha256"), 0o755))
	blob := func(mediaType string, write func(w *os.File)) v1.Descriptor {
		f, err := os.CreateTemp(layout, "blob-")
		must(err)
		write(f)
		size, err := f.Seek(0, 1)
		must(err)
		_, err = f.Seek(0, 0)
		must(err)
		d, err := digest.FromReader(f)
		must(err)
		must(f.Close())
		must(os.Rename(f.Name(), filepath.Join(layout, "blobs/sha256", d.Encoded())))
		return v1.Descriptor{MediaType: mediaType, Digest: d, Size: size}
	}
	document := func(mediaType string, v any) v1.Descriptor {
		return blob(mediaType, func(f *os.File) { must(json.NewEncoder(f).Encode(v)) })
	}
	config := v1.Image{Config: v1.ImageConfig{Env: []string{"FROM_IMAGE=yes", "PATH=/usr/bin:/bin", HideGPUs + "=3"}}}
	config.OS, config.Architecture = "linux", runtime.GOARCH
	layer := func(fill func(w *tar.Writer)) v1.Descriptor {
		return blob(v1.MediaTypeImageLayerZstd, func(f *os.File) {
			plain := digest.SHA256.Digester()
			z, err := zstd.NewWriter(f, zstd.WithEncoderLevel(zstd.SpeedFastest))
			must(err)
			w := tar.NewWriter(both{z, plain.Hash()})
			fill(w)
			must(w.Close())
			must(z.Close())
			config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, plain.Digest())
		})
	}
	m := v1.Manifest{MediaType: v1.MediaTypeImageManifest}
	m.SchemaVersion = 2
	m.Layers = []v1.Descriptor{
		layer(func(w *tar.Writer) {
			must(filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
				name, _ := filepath.Rel(root, path)
				if err != nil || !d.IsDir() && !pythonFiles.MatchString(name) {
					return err
				}
				return addFile(w, path, name)
			}))
		}),
		layer(func(w *tar.Writer) {
			must(w.WriteHeader(&tar.Header{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755}))
			must(w.WriteHeader(&tar.Header{Name: "etc/of-the-image", Typeflag: tar.TypeReg, Mode: 0o644, Size: 3}))
			_, err := w.Write([]byte("yes"))
			must(err)
			must(w.WriteHeader(&tar.Header{Name: "dev/null", Typeflag: tar.TypeSymlink, Linkname: "/etc/of-the-image"}))
		}),
	}
	m.Config = document(v1.MediaTypeImageConfig, config)
	d := document(v1.MediaTypeImageManifest, m)
	for name, v := range map[string]any{"oci-layout": v1.ImageLayout{Version: "1.0.0"}, "index.json": v1.Index{Manifests: []v1.Descriptor{d}}} {
		text, err := json.Marshal(v)
		must(err)
		must(os.WriteFile(filepath.Join(layout, name), text, 0o644))
	}
}

// both writes to two.
type both [2]interface{ Write([]byte) (int, error) }

func (b both) Write(p []byte) (int, error) {
	if n, err := b[0].Write(p); err != nil {
		return n, err
	}
	return b[1].Write(p)
}

// addFile adds a file, folder or link to an archive.
func addFile(w *tar.Writer, path, name string) error {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() && !info.IsDir() && info.Mode().Type() != fs.ModeSymlink {
		return err
	}
	target := ""
	if info.Mode().Type() == fs.ModeSymlink {
		if target, err = os.Readlink(path); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return err
	}
	h.Name = name
	if err := w.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
		return err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	_, err = w.Write(data)
	return err
}

func TestAnInstanceOfAnImageIsFrozenAndRestored(t *testing.T) {
	f := newFixture(t, realSDK(t))
	layout := filepath.Join(f.dir, "layout")
	writeImage(t, testenv.Rootfs(t), layout)
	root, err := rootfs.OpenImage(t.Context(), layout, rootfs.ImageOptions{Cache: filepath.Join(f.dir, "cache")})
	if err != nil {
		t.Fatal(err)
	}
	spec := f.spec(t)
	spec.Root = root
	cold := f.start(t, spec)
	if _, err := cold.Load(t.Context(), LoadOptions{File: "real.py", Object: "Real"}); err != nil {
		t.Fatal(err)
	}
	boot(t, cold)
	f.freezeReal(t, spec, "real", "null")
	i := f.restore(t, spec, "real")
	boot(t, i)
	for _, i := range []*Instance{cold, i} {
		if got := call[*string](t, i, "environ", HideGPUs); got == nil || *got != "3" {
			t.Errorf("%s of %s is %v, want what the image has", HideGPUs, i.ID(), got)
		}
		// runc hides files of /proc behind /dev/null, wherever that leads.
		for _, path := range []string{"/dev/null", "/proc/timer_list"} {
			if got := call[string](t, i, "read", path); got != "" {
				t.Errorf("%s of %s holds %.60q", path, i.ID(), got)
			}
		}
	}
	if told := call[[]any](t, i, "tell"); told[2] != i.ID() {
		t.Errorf("it tells %v", told)
	}
	if got := call[string](t, i, "read", "/etc/of-the-image"); got != "yes" {
		t.Errorf("a file of the image holds %q", got)
	}
	if got := call[string](t, i, "environ", "FROM_IMAGE"); got != "yes" {
		t.Errorf("a variable of the image is %q", got)
	}
}
