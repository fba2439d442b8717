package rootfs

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"thaw/internal/testenv"
)

// file is an entry of an archive, of a regular file if it says nothing else.
type file struct {
	name, text string
	kind       byte
	link       string
	mode       int64
	xattr      map[string]string
}

// archive writes a layer without compression.
func archive(t *testing.T, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{
			Name: f.name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(f.text)), Linkname: f.link, ModTime: time.Unix(5, 0), Format: tar.FormatPAX,
		}
		if f.kind != 0 {
			h.Typeflag = f.kind
		}
		if f.mode != 0 {
			h.Mode = f.mode
		}
		if f.kind == tar.TypeChar {
			h.Devmajor, h.Devminor = 1, 3
		}
		for k, v := range f.xattr {
			if h.PAXRecords == nil {
				h.PAXRecords = make(map[string]string)
			}
			h.PAXRecords[paxXAttr+k] = v
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(f.text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// builder makes an image layout.
type builder struct {
	t   *testing.T
	dir string
}

func newLayout(t *testing.T, dir string) *builder {
	b := &builder{t, dir}
	if err := os.MkdirAll(filepath.Join(dir, "blobs/sha256"), 0o755); err != nil {
		t.Fatal(err)
	}
	b.document("oci-layout", v1.ImageLayout{Version: v1.ImageLayoutVersion})
	return b
}

func (b *builder) document(name string, v any) {
	b.t.Helper()
	text, err := json.Marshal(v)
	if err == nil {
		err = os.WriteFile(filepath.Join(b.dir, name), text, 0o644)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *builder) blob(mediaType string, data []byte) v1.Descriptor {
	b.t.Helper()
	d := digest.FromBytes(data)
	if err := os.WriteFile(filepath.Join(b.dir, "blobs/sha256", d.Encoded()), data, 0o644); err != nil {
		b.t.Fatal(err)
	}
	return v1.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

func (b *builder) json(mediaType string, v any) v1.Descriptor {
	b.t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.blob(mediaType, text)
}

// image adds a manifest of layers, each compressed in another way, and returns its descriptor.
func (b *builder) image(layers ...[]byte) v1.Descriptor {
	b.t.Helper()
	m := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}}
	config := v1.Image{Config: v1.ImageConfig{Env: []string{"A=b"}}}
	config.OS, config.Architecture = "linux", runtime.GOARCH
	for i, l := range layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(l))
		var packed bytes.Buffer
		kind := v1.MediaTypeImageLayer
		switch i % 3 {
		case 0:
			packed.Write(l)
		case 1:
			kind = v1.MediaTypeImageLayerGzip
			w := gzip.NewWriter(&packed)
			w.Write(l)
			w.Close()
		case 2:
			kind = v1.MediaTypeImageLayerZstd
			w, _ := zstd.NewWriter(&packed)
			w.Write(l)
			w.Close()
		}
		m.Layers = append(m.Layers, b.blob(kind, packed.Bytes()))
	}
	m.Config = b.json(v1.MediaTypeImageConfig, config)
	return b.json(v1.MediaTypeImageManifest, m)
}

func (b *builder) index(all ...v1.Descriptor) { b.document("index.json", v1.Index{Manifests: all}) }

func tagged(d v1.Descriptor, tag string) v1.Descriptor {
	d.Annotations = map[string]string{v1.AnnotationRefName: tag}
	return d
}

func TestAnImageIsUnpackedOnceAndItsLayersLieOnEachOther(t *testing.T) {
	testenv.NeedRoot(t)
	dir := tempDir(t)
	layout, cache := filepath.Join(dir, "layout"), filepath.Join(dir, "cache")
	b := newLayout(t, layout)
	d := b.image(
		archive(t,
			file{name: "./", kind: tar.TypeDir, mode: 0o755},
			file{name: "etc/", kind: tar.TypeDir, mode: 0o750}, file{name: "etc/a", text: "a", mode: 0o4755}, file{name: "etc/b", text: "b"},
			file{name: "etc/hard", kind: tar.TypeLink, link: "etc/a"}, file{name: "link", kind: tar.TypeSymlink, link: "/etc/a"},
			file{name: "dir/old", text: "old"}, file{name: "replaced/old", text: "old"}, file{name: "again/old", text: "old"},
			file{name: "null", kind: tar.TypeChar, mode: 0o666}, file{name: "fifo", kind: tar.TypeFifo},
			file{name: "noted", xattr: map[string]string{"user.note": "x"}},
		),
		archive(t,
			file{name: "etc/", kind: tar.TypeDir, mode: 0o750}, file{name: "etc/.wh.b"}, file{name: "dir/.wh..wh..opq"}, file{name: "dir/new", text: "new"},
			file{name: ".wh.replaced"}, file{name: "replaced", kind: tar.TypeDir, mode: 0o755}, file{name: "replaced/new", text: "new"},
			file{name: "again", kind: tar.TypeDir, mode: 0o755}, file{name: ".wh.again"},
		),
		archive(t, file{name: "top", text: "first"}, file{name: "top", text: "second"}),
	)
	b.index(tagged(d, "latest"))
	root, err := OpenImage(t.Context(), layout, ImageOptions{Cache: cache})
	if err != nil {
		t.Fatal(err)
	}
	if root.Digest() != d.Digest.String() || len(root.Env()) != 1 {
		t.Errorf("digest is %s, want %s; environment %q", root.Digest(), d.Digest, root.Env())
	}
	o := mount(t, root, filepath.Join(dir, "overlay"), nil)
	expectTree(t, o.Root(), map[string]string{
		"etc": "folder", "etc/a": "a", "etc/hard": "a", "link": "link to /etc/a", "dir": "folder", "dir/new": "new",
		"replaced": "folder", "replaced/new": "new", "again": "folder", "null": (fs.ModeDevice | fs.ModeCharDevice).String(),
		"fifo": fs.ModeNamedPipe.String(), "noted": "", "top": "second",
	})
	var etc, a unix.Stat_t
	if err := errors.Join(unix.Stat(filepath.Join(o.Root(), "etc"), &etc), unix.Stat(filepath.Join(o.Root(), "etc/a"), &a)); err != nil {
		t.Fatal(err)
	}
	if etc.Mode&0o7777 != 0o750 || etc.Mtim.Sec != 5 || a.Mode&0o7777 != 0o4755 || a.Nlink != 2 {
		t.Errorf("folder has mode %o, time %d, file has mode %o, %d names", etc.Mode, etc.Mtim.Sec, a.Mode, a.Nlink)
	}

	// Blobs of layers are not needed any more.
	for _, l := range root.Lowers() {
		if err := os.Truncate(filepath.Join(layout, "blobs/sha256", filepath.Base(l)), 0); err != nil {
			t.Fatal(err)
		}
	}
	again, err := OpenImage(t.Context(), layout, ImageOptions{Cache: cache, Tag: "latest"})
	if err != nil || again.Lowers()[0] != root.Lowers()[0] {
		t.Errorf("opened again: %v", err)
	}
}

func TestImagesAreFoundByTagAndByMachine(t *testing.T) {
	testenv.NeedRoot(t)
	dir := tempDir(t)
	b := newLayout(t, dir)
	one, two := b.image(archive(t, file{name: "one"})), b.image(archive(t, file{name: "two"}))
	foreign := one
	foreign.Platform = &v1.Platform{OS: "linux", Architecture: "s390x"}
	ours := two
	ours.Platform = &v1.Platform{OS: "linux", Architecture: runtime.GOARCH}
	many := b.json(v1.MediaTypeImageIndex, v1.Index{Manifests: []v1.Descriptor{foreign, ours}})
	none := b.json(v1.MediaTypeImageIndex, v1.Index{Manifests: []v1.Descriptor{foreign}})
	b.index(tagged(one, "one"), tagged(two, "two"), tagged(many, "many"), tagged(none, "none"))
	for tag, want := range map[string]*v1.Descriptor{"one": &one, "two": &two, "many": &two, "none": nil, "missing": nil, "": nil} {
		root, err := OpenImage(t.Context(), dir, ImageOptions{Cache: filepath.Join(dir, "cache"), Tag: tag})
		if want == nil {
			if !errors.Is(err, ErrNoImage) {
				t.Errorf("tag %q: %v, want %v", tag, err, ErrNoImage)
			}
			continue
		}
		if err != nil || root.Digest() != want.Digest.String() {
			t.Errorf("tag %q: %v", tag, err)
		}
	}
}

func TestABadLayoutIsRefusedAndLeavesNothingInTheCache(t *testing.T) {
	testenv.NeedRoot(t)
	good := archive(t, file{name: "a", text: strings.Repeat("text", 1000)})
	break_ := func(change func(b *builder, m *v1.Manifest, c *v1.Image)) func(b *builder) {
		return func(b *builder) {
			var m v1.Manifest
			var c v1.Image
			d := b.image(good)
			read := func(d digest.Digest, v any) {
				text, err := os.ReadFile(filepath.Join(b.dir, "blobs/sha256", d.Encoded()))
				if err != nil || json.Unmarshal(text, v) != nil {
					b.t.Fatal(err)
				}
			}
			read(d.Digest, &m)
			read(m.Config.Digest, &c)
			change(b, &m, &c)
			if c.RootFS.DiffIDs != nil {
				m.Config = b.json(v1.MediaTypeImageConfig, c)
			}
			b.index(b.json(v1.MediaTypeImageManifest, m))
		}
	}
	layer := func(data []byte) func(b *builder) { return func(b *builder) { b.index(b.image(data)) } }
	for _, tt := range []struct {
		name  string
		build func(b *builder)
		want  error
	}{
		{"no layout", func(b *builder) { os.Remove(filepath.Join(b.dir, "oci-layout")) }, ErrNoImage},
		{"another version", func(b *builder) { b.document("oci-layout", v1.ImageLayout{Version: "2.0"}) }, ErrCorrupt},
		{"no index", func(b *builder) {}, ErrNoImage},
		{"an index that is no JSON", func(b *builder) { os.WriteFile(filepath.Join(b.dir, "index.json"), []byte("{"), 0o644) }, ErrCorrupt},
		{"an unknown media type", func(b *builder) { b.index(v1.Descriptor{MediaType: "x"}) }, ErrCorrupt},
		{"a digest that is a path", func(b *builder) {
			b.index(v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: "sha256:../../../../etc/passwd", Size: 1})
		}, ErrCorrupt},
		{"a manifest that is missing", func(b *builder) {
			b.index(v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromString("x"), Size: 1})
		}, ErrCorrupt},
		{"a manifest of another size", func(b *builder) { d := b.image(good); d.Size++; b.index(d) }, ErrCorrupt},
		{"a manifest that is too large", func(b *builder) { d := b.image(good); d.Size = 1 << 40; b.index(d) }, ErrCorrupt},
		{"no layers", break_(func(_ *builder, m *v1.Manifest, c *v1.Image) { m.Layers = nil }), ErrCorrupt},
		{"a layer of another size", break_(func(_ *builder, m *v1.Manifest, _ *v1.Image) { m.Layers[0].Size++ }), ErrCorrupt},
		{"a layer of another media type", break_(func(_ *builder, m *v1.Manifest, _ *v1.Image) { m.Layers[0].MediaType = "x" }), ErrCorrupt},
		{"a layer that is not compressed", break_(func(_ *builder, m *v1.Manifest, _ *v1.Image) { m.Layers[0].MediaType = v1.MediaTypeImageLayerGzip }), ErrCorrupt},
		{"a layer that is changed", break_(func(b *builder, m *v1.Manifest, _ *v1.Image) {
			path := filepath.Join(b.dir, "blobs/sha256", m.Layers[0].Digest.Encoded())
			os.WriteFile(path, bytes.Replace(good, []byte("text"), []byte("tExt"), 1), 0o644)
		}), ErrCorrupt},
		{"a layer that ends early", layer(good[:700]), ErrCorrupt},
		{"another content than the configuration names", break_(func(_ *builder, _ *v1.Manifest, c *v1.Image) { c.RootFS.DiffIDs[0] = digest.FromString("x") }), ErrCorrupt},
		{"a layer that is too large", layer(archive(t, file{name: "a", text: strings.Repeat("x", 2<<20)})), ErrCorrupt},
		{"a path that leads out", layer(archive(t, file{name: "../out", text: "x"})), ErrCorrupt},
		{"a path that leads out further down", layer(archive(t, file{name: "a/../../out", text: "x"})), ErrCorrupt},
		{"a link that leads out", layer(archive(t, file{name: "l", kind: tar.TypeSymlink, link: ".."}, file{name: "l/out", text: "x"})), ErrCorrupt},
		{"an absolute link that leads out", layer(archive(t, file{name: "l", kind: tar.TypeSymlink, link: "/tmp"}, file{name: "l/out", text: "x"})), ErrCorrupt},
		{"a hard link that leads out", layer(archive(t, file{name: "h", kind: tar.TypeLink, link: "../../lock"})), ErrCorrupt},
		{"a hard link through a link", layer(archive(t, file{name: "l", kind: tar.TypeSymlink, link: "/etc"}, file{name: "h", kind: tar.TypeLink, link: "l/passwd"})), ErrCorrupt},
		{"a hard link to nothing", layer(archive(t, file{name: "h", kind: tar.TypeLink, link: "none"})), ErrCorrupt},
		{"a whiteout through a link", layer(archive(t, file{name: "l", kind: tar.TypeSymlink, link: "/etc"}, file{name: "l/.wh.passwd"})), ErrCorrupt},
		{"a whiteout of nothing", layer(archive(t, file{name: ".wh."})), ErrCorrupt},
		{"a file as the root", layer(archive(t, file{name: "."})), ErrCorrupt},
		{"a file as a folder", layer(archive(t, file{name: "f"}, file{name: "f/x"})), ErrCorrupt},
		{"the kernel's own attribute", layer(archive(t, file{name: "a", xattr: map[string]string{"trusted.overlay.redirect": "/"}})), ErrCorrupt},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := tempDir(t)
			cache := filepath.Join(dir, "cache")
			b := newLayout(t, filepath.Join(dir, "layout"))
			tt.build(b)
			_, err := OpenImage(t.Context(), b.dir, ImageOptions{Cache: cache, MaxBytes: 1 << 20})
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if left := tree(t, dir); left["cache/staged"] != "" || left["out"] != "" || left["cache/out"] != "" {
				t.Errorf("there is %v", left)
			}
			if left, _ := filepath.Glob(filepath.Join(cache, "sha256/*")); len(left) != 0 {
				t.Errorf("in the cache there is %v", left)
			}
		})
	}
	if _, err := os.Lstat("/tmp/out"); err == nil {
		t.Error("a link led out of the layer")
	}
}

func TestAnUnpackingThatIsCancelledIsNoCorruption(t *testing.T) {
	testenv.NeedRoot(t)
	dir := tempDir(t)
	b := newLayout(t, dir)
	b.index(b.image(archive(t, file{name: "a", text: "x"})))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := OpenImage(ctx, dir, ImageOptions{Cache: filepath.Join(dir, "cache")}); !errors.Is(err, context.Canceled) || errors.Is(err, ErrCorrupt) {
		t.Errorf("got %v, want %v alone", err, context.Canceled)
	}
}

func TestManyOpenOneImageAtTheSameTime(t *testing.T) {
	testenv.NeedRoot(t)
	dir := tempDir(t)
	b := newLayout(t, dir)
	l := archive(t, file{name: "a", text: "x"})
	b.index(b.image(l, archive(t, file{name: "b"}), archive(t, file{name: "c"}), l)) // the same blob twice
	var g errgroup.Group
	for range 4 {
		g.Go(func() error {
			root, err := OpenImage(t.Context(), dir, ImageOptions{Cache: filepath.Join(dir, "cache")})
			if err == nil && len(root.Lowers()) != 3 {
				t.Errorf("layers are %q", root.Lowers())
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

func TestAnImageThatPodmanWroteIsRead(t *testing.T) {
	podman := testenv.Podman(t)
	dir := tempDir(t)
	layer := filepath.Join(dir, "layer.tar")
	if err := os.WriteFile(layer, archive(t, file{name: "etc/os-release", text: "ID=podman\n"}), 0o644); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) {
		t.Helper()
		args = append([]string{"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--storage-driver", "vfs"}, args...)
		if out, err := exec.Command(podman, args...).CombinedOutput(); err != nil {
			t.Fatalf("podman %q: %v: %s", args, err, out)
		}
	}
	run("import", layer, "localhost/made:1")
	run("save", "--format", "oci-dir", "-o", filepath.Join(dir, "layout"), "localhost/made:1")
	root, err := OpenImage(t.Context(), filepath.Join(dir, "layout"), ImageOptions{Cache: filepath.Join(dir, "cache")})
	if err != nil {
		t.Fatal(err)
	}
	expectTree(t, root.Lowers()[0], map[string]string{"etc": "folder", "etc/os-release": "ID=podman\n"})
}

func FuzzUnpack(f *testing.F) {
	t := new(testing.T)
	f.Add(archive(t, file{name: "a/b", text: "x"}, file{name: "a/.wh.c"}, file{name: "l", kind: tar.TypeSymlink, link: "a"}))
	f.Add(archive(t, file{name: "../x"}, file{name: "h", kind: tar.TypeLink, link: "a"}))
	f.Add([]byte("no archive"))
	f.Fuzz(func(t *testing.T, data []byte) {
		// A folder around the layer's, in which nothing may appear.
		dir := t.TempDir()
		layer := filepath.Join(dir, "layer")
		if err := os.Mkdir(layer, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unpack(bytes.NewReader(data), layer, 1<<20); err != nil {
			var errno unix.Errno
			if !errors.Is(err, ErrCorrupt) && !errors.As(err, &errno) {
				t.Errorf("got %v, which is neither the archive's nor the kernel's", err)
			}
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
			t.Errorf("there is %v, %v", left, err)
		}
	})
}
