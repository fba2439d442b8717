package version

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"thaw/cpu"
)

// File is a file of an app.
type File struct {
	Path       string `json:"path"` // relative to the app's folder, with slashes
	Bytes      int64  `json:"bytes"`
	Executable bool   `json:"executable,omitempty"`
	SHA256     Digest `json:"sha256"`
}

// Root is the root file system that a version runs in.
type Root struct {
	Kind   string `json:"kind"`             // "dir": a folder with a system; "oci": an image layout
	Path   string `json:"path"`             // absolute, of the folder or the layout
	Tag    string `json:"tag,omitempty"`    // of the image in the layout
	Digest string `json:"digest,omitempty"` // what is in it: "sha256:..."
}

// SnapshotFormat is the version of what a snapshot of a function holds. Raise it when snapshots that are there cannot be used any more.
const SnapshotFormat = 1

// Runtime is what runs a version's code and freezes it.
type Runtime struct {
	Python    string `json:"python"`         // version
	SDK       string `json:"sdk"`            // version
	SDKDigest Digest `json:"sdk_digest"`     // of the SDK's files
	CRIU      string `json:"criu,omitempty"` // version; empty where there is none
	Snapshot  int    `json:"snapshot"`       // [SnapshotFormat]
}

// Content is all that a version is made of.
type Content struct {
	Description Description `json:"description"`
	// Entry is the file that declares the app, one of Code.
	Entry string `json:"entry"`
	// Code and Data are files of the app, sorted by their paths.
	Code []File `json:"code"`
	Data []File `json:"data,omitempty"`
	// Lock is the declared lock file, which is among Code; nil if none is declared.
	Lock    *File   `json:"lock,omitempty"`
	Root    Root    `json:"root"`
	Runtime Runtime `json:"runtime"`
	// CPU is what the version's processes may use.
	CPU cpu.Confinement `json:"cpu"`
}

// Version is a version of an app. It is immutable.
type Version struct {
	Key   Key   `json:"key"`
	Parts Parts `json:"parts"`
	Content
}

// New returns the version with that content. The error says what contradicts itself in it.
func New(c Content) (*Version, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	v := &Version{Parts: c.parts(), Content: c}
	v.Key = v.Parts.key()
	return v, nil
}

// App returns the name of the app.
func (v *Version) App() string { return v.Description.App }

// Files returns all files of the version, each once: code, then data that is no code.
func (v *Version) Files() []File {
	out := append([]File(nil), v.Code...)
	for _, f := range v.Data {
		if find(v.Code, f.Path) == nil {
			out = append(out, f)
		}
	}
	return out
}

// Verify returns an error unless key and parts are those of the content.
func (v *Version) Verify() error {
	want, err := New(v.Content)
	if err != nil {
		return err
	}
	if v.Parts != want.Parts || v.Key != want.Key {
		return fmt.Errorf("key is %s, and the content has %s", v.Key, want.Key)
	}
	return nil
}

func (c *Content) check() error {
	if err := c.Description.check(); err != nil {
		return err
	}
	for _, files := range [][]File{c.Code, c.Data} {
		if err := checkFiles(files); err != nil {
			return err
		}
	}
	switch {
	case find(c.Code, c.Entry) == nil:
		return fmt.Errorf("%q is not among the files of the code", c.Entry)
	case c.Lock != nil && (c.Lock.Path != c.Description.Dependencies || find(c.Code, c.Lock.Path) == nil):
		return fmt.Errorf("lock file %q is not the declared one or not among the files", c.Lock.Path)
	case c.Lock == nil && c.Description.Dependencies != "":
		return fmt.Errorf("the declared lock file %q is missing", c.Description.Dependencies)
	case c.Root.Kind != "dir" && c.Root.Kind != "oci":
		return fmt.Errorf("root file system of kind %q, want dir or oci", c.Root.Kind)
	case !filepath.IsAbs(c.Root.Path):
		return fmt.Errorf("root file system at %q, want an absolute path", c.Root.Path)
	case c.Root.Digest == "":
		return errors.New("root file system without a digest")
	}
	return nil
}

func checkFiles(files []File) error {
	for i, f := range files {
		if !filepath.IsLocal(f.Path) || f.Path == "." || strings.ContainsRune(f.Path, 0) || f.Bytes < 0 {
			return fmt.Errorf("file %q of %d bytes", f.Path, f.Bytes)
		}
		if i > 0 && files[i-1].Path >= f.Path {
			return fmt.Errorf("files are not sorted: %q before %q", files[i-1].Path, f.Path)
		}
	}
	return nil
}

// find returns the file of that path in a sorted list, or nil.
func find(files []File, path string) *File {
	for i := range files {
		if files[i].Path == path {
			return &files[i]
		}
	}
	return nil
}
