package rootfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"thaw/checkpoint"
	"thaw/internal/durable"
)

var (
	// ErrCorrupt marks a layer or an image that is not what it says it is.
	ErrCorrupt = errors.New("corrupt")
	// ErrWrongRoot is returned when a layer is to lie on another root, or on other layers, than it was written on.
	ErrWrongRoot = errors.New("layer was written on another root")
	// ErrOtherFileSystem is returned when a layer is to be captured on another file system than it was written on.
	ErrOtherFileSystem = errors.New("a layer stays on the file system that it was written on")
)

// Layer is what an instance had written when it was frozen. It is immutable.
type Layer struct {
	dir  string
	note layerNote
}

// Parts of the format: names in a layer's folder.
const (
	layerNoteName    = "layer.json"
	layerContentName = "content"
)

// layerNote is layer.json, docs/format/layer.md.
type layerNote struct {
	Format  string     `json:"format"`
	Version int        `json:"version"`
	Digest  string     `json:"digest"`  // of the listing of the content
	Entries int64      `json:"entries"` // lines of the listing
	Bytes   int64      `json:"bytes"`   // of regular files, holes too
	Root    string     `json:"root"`    // digest of the root below
	Below   []LayerRef `json:"below"`   // the layers between, the newest first
}

// LayerRef names a layer.
type LayerRef struct {
	Name   string `json:"name"` // of its folder, which lies beside those of the layers above it
	Digest string `json:"digest"`
}

// Parts of the format, do not change.
const (
	layerFormat  = "thaw-layer"
	layerVersion = 1
	maxLayerNote = 64 << 10 // bytes of layer.json
)

// Digest returns the digest of what the layer holds: "sha256:" and 64 hexadecimal digits.
func (l *Layer) Digest() string { return l.note.Digest }

// Bytes returns the size of all regular files, with their holes.
func (l *Layer) Bytes() int64 { return l.note.Bytes }

// Entries returns the number of files, folders and all else in the layer.
func (l *Layer) Entries() int64 { return l.note.Entries }

// Below returns the layers that it was written on, the newest first.
func (l *Layer) Below() []LayerRef { return l.note.Below }

// Root returns the digest of the root below all layers.
func (l *Layer) Root() string { return l.note.Root }

// Content returns the path of the folder that is a lower one of an overlay.
func (l *Layer) Content() string { return filepath.Join(l.dir, layerContentName) }

// Capture unmounts the overlay, in which nobody may be any more, and makes a layer of what was written: the folder dir, which must not
// exist yet, in a folder that does, on the same file system; the layers below lie beside it. root and below are what the overlay was mounted
// of. The layer is durable, and
// there or not, whenever the host stops. The overlay is empty then, and its owner removes it.
func (o *Overlay) Capture(dir string, root *Root, below []*Layer) (*Layer, error) {
	if err := o.Unmount(); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(dir); err == nil {
		return nil, fmt.Errorf("layer %s: %w", dir, os.ErrExist)
	}
	staged := dir + stagedSuffix
	if err := RemoveLayer(staged); err != nil {
		return nil, err
	}
	if err := durable.Disk.Mkdir(staged); err != nil {
		return nil, err
	}
	l, err := o.capture(staged, root, below)
	if err == nil {
		err = durable.Disk.Rename(staged, dir)
	}
	if err == nil {
		err = durable.Disk.SyncDir(filepath.Dir(dir))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("capture layer %s: %w", dir, err), RemoveLayer(staged))
	}
	l.dir = dir
	return l, nil
}

// stagedSuffix is behind the name of a layer's folder that is not one yet, or not any more.
const stagedSuffix = ".tmp"

func (o *Overlay) capture(staged string, root *Root, below []*Layer) (*Layer, error) {
	l := &Layer{dir: staged, note: layerNote{Format: layerFormat, Version: layerVersion, Root: root.digest, Below: []LayerRef{}}}
	for _, b := range below {
		l.note.Below = append(l.note.Below, LayerRef{Name: filepath.Base(b.dir), Digest: b.note.Digest})
	}
	if err := os.Rename(o.upper(), l.Content()); err != nil {
		if errors.Is(err, unix.EXDEV) {
			err = fmt.Errorf("%w: %w", ErrOtherFileSystem, err)
		}
		return nil, err
	}
	sum, err := list(l.Content(), syncEntry)
	if err != nil {
		return nil, err
	}
	l.note.Digest, l.note.Entries, l.note.Bytes = sum.digest(), sum.entries, sum.bytes
	text, err := json.MarshalIndent(&l.note, "", "\t")
	if err != nil {
		return nil, err
	}
	if err := durable.Write(durable.Disk, filepath.Join(staged, layerNoteName), append(text, '\n')); err != nil {
		return nil, err
	}
	return l, durable.Disk.SyncDir(staged)
}

// OpenLayer reads what a layer says of itself. Errors wrap [ErrCorrupt] if that cannot be; the content is not looked at, see [Layer.Verify].
func OpenLayer(dir string) (*Layer, error) {
	f, err := os.Open(filepath.Join(dir, layerNoteName))
	if err != nil {
		return nil, fmt.Errorf("open layer: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxLayerNote+1))
	if err != nil {
		return nil, fmt.Errorf("open layer: %w", err)
	}
	note, err := parseLayerNote(text)
	if err != nil {
		return nil, fmt.Errorf("open layer %s: %w", dir, err)
	}
	return &Layer{dir: dir, note: *note}, nil
}

func parseLayerNote(text []byte) (*layerNote, error) {
	if len(text) > maxLayerNote {
		return nil, fmt.Errorf("%w: %s has more than %d bytes", ErrCorrupt, layerNoteName, maxLayerNote)
	}
	dec := json.NewDecoder(strings.NewReader(string(text)))
	dec.DisallowUnknownFields()
	n := new(layerNote)
	if err := dec.Decode(n); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrCorrupt, layerNoteName, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: %s goes on behind its end", ErrCorrupt, layerNoteName)
	}
	switch {
	case n.Format != layerFormat:
		return nil, fmt.Errorf("%w: format is %q, want %q", ErrCorrupt, n.Format, layerFormat)
	case n.Version != layerVersion:
		return nil, fmt.Errorf("%w: version is %d, want %d", ErrCorrupt, n.Version, layerVersion)
	case n.Entries < 0 || n.Bytes < 0:
		return nil, fmt.Errorf("%w: %d entries, %d bytes", ErrCorrupt, n.Entries, n.Bytes)
	}
	digests := []string{n.Digest, n.Root}
	for _, b := range n.Below {
		if b.Name == "" || b.Name == "." || b.Name == ".." || strings.ContainsAny(b.Name, "/\x00") {
			return nil, fmt.Errorf("%w: %q is no name of a folder", ErrCorrupt, b.Name)
		}
		digests = append(digests, b.Digest)
	}
	for _, d := range digests {
		if !isDigest(d) {
			return nil, fmt.Errorf("%w: %q is no digest", ErrCorrupt, d)
		}
	}
	return n, nil
}

// isDigest reports whether s is a SHA-256 as everybody writes it.
func isDigest(s string) bool {
	hex, ok := strings.CutPrefix(s, "sha256:")
	return ok && len(hex) == 64 && strings.Trim(hex, "0123456789abcdef") == ""
}

// Verify reads all that the layer holds. Returns an error that wraps [ErrCorrupt] unless it is what was captured.
func (l *Layer) Verify() error {
	sum, err := list(l.Content(), nil)
	if err != nil {
		return fmt.Errorf("verify layer %s: %w", l.dir, err)
	}
	if got := sum.digest(); got != l.note.Digest || sum.entries != l.note.Entries || sum.bytes != l.note.Bytes {
		return fmt.Errorf("verify layer %s: %w: got %d entries, %d bytes, %s, want %d, %d, %s", l.dir, ErrCorrupt,
			sum.entries, sum.bytes, got, l.note.Entries, l.note.Bytes, l.note.Digest)
	}
	return nil
}

// OpenLayers opens the layer in dir and those that it was written on, which lie beside it: what [Root.Mount] takes. Returns an error that
// wraps [ErrWrongRoot] unless they are the same that it was written on, and the root too.
func (r *Root) OpenLayers(dir string) ([]*Layer, error) {
	top, err := OpenLayer(dir)
	if err != nil {
		return nil, err
	}
	now, err := r.current()
	if err != nil {
		return nil, err
	}
	if top.note.Root != now {
		return nil, fmt.Errorf("%w: layer %s is for %s, and %s is %s", ErrWrongRoot, dir, top.note.Root, r.path, now)
	}
	all := []*Layer{top}
	for _, ref := range top.note.Below {
		l, err := OpenLayer(filepath.Join(filepath.Dir(dir), ref.Name))
		if err != nil {
			return nil, fmt.Errorf("layer %s lies on another: %w", dir, err)
		}
		if l.note.Digest != ref.Digest {
			return nil, fmt.Errorf("%w: layer %s lies on %s as %s, and that is %s now", ErrWrongRoot, dir, ref.Name, ref.Digest, l.note.Digest)
		}
		all = append(all, l)
	}
	return all, nil
}

// RemoveLayer deletes a layer's folder, which no overlay may use any more. The layer is gone at once, whenever the host stops. One that is
// not there is fine.
func RemoveLayer(dir string) error {
	gone := dir
	if !strings.HasSuffix(dir, stagedSuffix) {
		gone = dir + stagedSuffix
		if err := checkpoint.RemoveAll(gone); err != nil {
			return err
		}
		if err := os.Rename(dir, gone); errors.Is(err, os.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return checkpoint.RemoveAll(gone)
}
