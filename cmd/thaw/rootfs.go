package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"thaw/cmd/internal/cli"
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
	if err := isFolder(path); err != nil {
		return nil, err
	}
	digest, err := folderDigest(path)
	if err != nil {
		return nil, err
	}
	return &rootFS{version.Root{Kind: "dir", Path: path, Digest: digest}, []string{path}}, nil
}

func openImage(string) (*rootFS, error) {
	return nil, &cli.Error{Code: cli.Missing, Err: errors.New("images in an OCI layout cannot be unpacked by this thaw"), Hint: "unpack the image, and name the folder"}
}

// folderDigest hashes what says which system the folder holds: the recipe beside it, or its release and list of packages. To hash the whole
// system would take longer than to start an instance.
func folderDigest(path string) (string, error) {
	h := sha256.New()
	found := false
	add := func(name, file string) error {
		data, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		found = true
		fmt.Fprintf(h, "%s %d\n", name, len(data))
		h.Write(data)
		return err
	}
	if err := add("recipe", path+".recipe"); err != nil {
		return "", err
	}
	for _, name := range []string{"usr/lib/os-release", "var/lib/dpkg/status", "lib/apk/db/installed"} {
		if found {
			break
		}
		if err := add(name, filepath.Join(path, name)); err != nil {
			return "", err
		}
	}
	if !found {
		return "", cli.Usagef("%s holds no root file system: nothing in it says which system it is", path)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}
