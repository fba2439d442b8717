package rootfs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// ErrNoImage is returned when a layout has no image of the wanted tag, or for this machine.
var ErrNoImage = errors.New("no such image")

// ImageOptions say which image of a layout is meant, and where it goes.
type ImageOptions struct {
	// Cache is the folder, absolute, for unpacked layers. Each lies there under its digest, once for all images. It belongs to this package,
	// and several processes may use it at the same time.
	Cache string
	// Tag is the name of the image in the layout. Empty: the only one that there is.
	Tag string
	// MaxBytes bounds what one layer may unpack to. Default: 64 GiB.
	MaxBytes int64
}

// Bounds of what is read from a layout.
const (
	maxDocument = 4 << 20 // bytes of a JSON document
	maxLayers   = 500     // the kernel's own bound for lower folders
	maxNesting  = 4       // of indexes
	defaultMax  = 64 << 30
)

// Media types of Docker's, which mean the same as OCI's.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerLayer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

// OpenImage takes an image in an OCI image layout for a root, and unpacks its layers, as far as they are not in the cache. Everything is
// checked against its digest. Errors wrap [ErrNoImage] if the image is not there, and [ErrCorrupt] if the layout is not what it says it is.
func OpenImage(ctx context.Context, path string, o ImageOptions) (*Root, error) {
	if !filepath.IsAbs(o.Cache) {
		return nil, fmt.Errorf("open image %s: folder for layers %q is not absolute", path, o.Cache)
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = defaultMax
	}
	root, err := openImage(ctx, path, &o)
	if err != nil {
		return nil, fmt.Errorf("open image %s: %w", path, err)
	}
	return root, nil
}

func openImage(ctx context.Context, path string, o *ImageOptions) (*Root, error) {
	dir, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	l := &layout{dir: dir}
	manifest, found, err := l.find(o.Tag)
	if err != nil {
		return nil, err
	}
	var config v1.Image
	if err := l.document(manifest.Config, &config); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	if len(config.RootFS.DiffIDs) != len(manifest.Layers) || len(manifest.Layers) > maxLayers || len(manifest.Layers) == 0 {
		return nil, fmt.Errorf("%w: %d layers, and the configuration names %d; there may be 1 to %d", ErrCorrupt,
			len(manifest.Layers), len(config.RootFS.DiffIDs), maxLayers)
	}
	c, err := openCache(o.Cache)
	if err != nil {
		return nil, err
	}
	defer c.close()
	root := &Root{digest: found.String(), path: path, env: config.Config.Env}
	for i, desc := range manifest.Layers {
		folder, err := c.layer(ctx, l, &desc, config.RootFS.DiffIDs[i], o.MaxBytes)
		if err != nil {
			return nil, fmt.Errorf("layer %d of %d, %s: %w", i+1, len(manifest.Layers), desc.Digest, err)
		}
		// The kernel takes a folder once. Where a layer comes again, all that it has shows from above.
		root.lowers = slices.DeleteFunc(root.lowers, func(f string) bool { return f == folder })
		root.lowers = append(root.lowers, folder)
	}
	slices.Reverse(root.lowers)
	return root, nil
}

// layout is an OCI image layout.
type layout struct {
	dir *os.Root
}

// find returns the manifest of the image with a tag, and its digest.
func (l *layout) find(tag string) (*v1.Manifest, digest.Digest, error) {
	var version v1.ImageLayout
	if err := l.file(v1.ImageLayoutFile, &version); err != nil {
		return nil, "", err
	}
	if !strings.HasPrefix(version.Version, "1.") {
		return nil, "", fmt.Errorf("%w: version of the layout is %q, want %q", ErrCorrupt, version.Version, v1.ImageLayoutVersion)
	}
	var index v1.Index
	if err := l.file(v1.ImageIndexFile, &index); err != nil {
		return nil, "", err
	}
	desc, err := choose(index.Manifests, tag)
	if err != nil {
		return nil, "", err
	}
	return l.manifest(desc, maxNesting)
}

// choose returns the manifest with a tag, or the only one.
func choose(all []v1.Descriptor, tag string) (*v1.Descriptor, error) {
	var tags []string
	var found []*v1.Descriptor
	for i := range all {
		name := all[i].Annotations[v1.AnnotationRefName]
		tags = append(tags, name)
		if tag == "" || name == tag {
			found = append(found, &all[i])
		}
	}
	switch {
	case len(found) == 0:
		return nil, fmt.Errorf("%w: tag %q; there are %q", ErrNoImage, tag, tags)
	case len(found) > 1 && tag == "":
		return nil, fmt.Errorf("%w: say which of the tags %q is meant", ErrNoImage, tags)
	case len(found) > 1:
		return nil, fmt.Errorf("%w: %d images have tag %q", ErrCorrupt, len(found), tag)
	}
	return found[0], nil
}

// manifest reads a manifest, or the one for this machine of an index.
func (l *layout) manifest(desc *v1.Descriptor, nesting int) (*v1.Manifest, digest.Digest, error) {
	switch desc.MediaType {
	case v1.MediaTypeImageManifest, dockerManifest:
		m := new(v1.Manifest)
		if err := l.document(*desc, m); err != nil {
			return nil, "", fmt.Errorf("manifest: %w", err)
		}
		return m, desc.Digest, nil
	case v1.MediaTypeImageIndex, dockerIndex:
		if nesting == 0 {
			return nil, "", fmt.Errorf("%w: an index in an index, again and again", ErrCorrupt)
		}
		var index v1.Index
		if err := l.document(*desc, &index); err != nil {
			return nil, "", fmt.Errorf("index: %w", err)
		}
		var platforms []string
		for i := range index.Manifests {
			p := index.Manifests[i].Platform
			if p == nil {
				continue
			}
			if p.OS == "linux" && p.Architecture == runtime.GOARCH {
				return l.manifest(&index.Manifests[i], nesting-1)
			}
			platforms = append(platforms, p.OS+"/"+p.Architecture)
		}
		return nil, "", fmt.Errorf("%w: for linux/%s; there are %q", ErrNoImage, runtime.GOARCH, platforms)
	}
	return nil, "", fmt.Errorf("%w: media type %q is neither a manifest nor an index", ErrCorrupt, desc.MediaType)
}

// file reads a document by its name.
func (l *layout) file(name string, into any) error {
	f, err := l.dir.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: it is no OCI image layout: %w", ErrNoImage, err)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxDocument+1))
	if err != nil {
		return err
	}
	return decodeDocument(name, text, into)
}

// document reads a document by its digest.
func (l *layout) document(desc v1.Descriptor, into any) error {
	if desc.Size > maxDocument {
		return fmt.Errorf("%w: %s has %d bytes, more than %d", ErrCorrupt, desc.Digest, desc.Size, maxDocument)
	}
	f, err := l.blob(&desc)
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxDocument+1))
	if err != nil {
		return err
	}
	if got := digest.SHA256.FromBytes(text); got != desc.Digest || int64(len(text)) != desc.Size {
		return fmt.Errorf("%w: got %s of %d bytes, want %s of %d", ErrCorrupt, got, len(text), desc.Digest, desc.Size)
	}
	return decodeDocument(desc.Digest.String(), text, into)
}

func decodeDocument(name string, text []byte, into any) error {
	if len(text) > maxDocument {
		return fmt.Errorf("%w: %s has more than %d bytes", ErrCorrupt, name, maxDocument)
	}
	// Fields that are unknown are let pass: the specification wants that.
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(into); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrCorrupt, name, err)
	}
	return nil
}

// blob opens what has a digest. What it holds is not checked here.
func (l *layout) blob(desc *v1.Descriptor) (*os.File, error) {
	if !isDigest(desc.Digest.String()) || desc.Size < 0 {
		return nil, fmt.Errorf("%w: %q of %d bytes is no SHA-256 digest", ErrCorrupt, desc.Digest, desc.Size)
	}
	f, err := l.dir.Open(filepath.Join(v1.ImageBlobsDir, "sha256", desc.Digest.Encoded()))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return f, err
}
