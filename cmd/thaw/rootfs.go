package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"thaw/function/rootfs"
	"thaw/function/version"
)

// imagePrefix marks a root file system that is an image in an OCI image layout.
const imagePrefix = "oci:"

// parseRoot reads what --root says: a folder, or oci:LAYOUT[:TAG].
func parseRoot(text string) (version.Root, error) {
	r := version.Root{Kind: "dir", Path: strings.TrimPrefix(text, "dir:")}
	if layout, isImage := strings.CutPrefix(text, imagePrefix); isImage {
		r.Kind, r.Path = "oci", layout
		// A tag has no slash, and a path may have colons.
		if i := strings.LastIndexByte(layout, ':'); i > 0 && !strings.Contains(layout[i:], "/") {
			r.Path, r.Tag = layout[:i], layout[i+1:]
		}
	}
	path, err := filepath.Abs(r.Path)
	if err != nil {
		return r, err
	}
	r.Path, err = filepath.EvalSymlinks(path)
	return r, err
}

// openRoot opens a root file system. Layers of images are unpacked below state.
func openRoot(ctx context.Context, r version.Root, state string) (*rootfs.Root, error) {
	root, err := openRootAt(ctx, r, state)
	if err != nil {
		return nil, err
	}
	if r.Digest != "" && root.Digest() != r.Digest {
		return nil, fmt.Errorf("root file system %s is not what it was at the deployment: deploy again", r.Path)
	}
	return root, nil
}

func openRootAt(ctx context.Context, r version.Root, state string) (*rootfs.Root, error) {
	if r.Kind != "oci" {
		return rootfs.OpenFolder(r.Path)
	}
	cache, err := filepath.Abs(filepath.Join(state, "images"))
	if err != nil {
		return nil, err
	}
	return rootfs.OpenImage(ctx, r.Path, rootfs.ImageOptions{Cache: cache, Tag: r.Tag})
}
