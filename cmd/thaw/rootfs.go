package main

import (
	"errors"
	"path/filepath"
	"strings"

	"thaw/cmd/internal/cli"
	"thaw/function/rootfs"
	"thaw/function/version"
)

// rootFS is the root file system of a function, as far as a deployment needs it.
type rootFS struct {
	version.Root
	lowers []string // folders, the topmost first
}

// openRoot opens the root file system that --root names: a folder, or an image in an OCI image layout.
func openRoot(text string) (*rootFS, error) {
	layout, isImage := strings.CutPrefix(text, "oci:")
	if isImage {
		return openImage(layout)
	}
	path, err := filepath.Abs(strings.TrimPrefix(text, "dir:"))
	if err != nil {
		return nil, err
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return nil, err
	}
	root, err := rootfs.OpenFolder(path)
	if err != nil {
		return nil, err
	}
	return &rootFS{version.Root{Kind: "dir", Path: path, Digest: root.Digest()}, root.Lowers()}, nil
}

func openImage(string) (*rootFS, error) {
	return nil, &cli.Error{Code: cli.Missing, Err: errors.New("images in an OCI layout cannot be unpacked by this thaw"), Hint: "unpack the image, and name the folder"}
}
