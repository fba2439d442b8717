package rootfs

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Root is the root file system that instances share. It is immutable.
type Root struct {
	digest string
	lowers []string
	path   string
	env    []string
	folder bool // it is read in place
}

// Digest returns what a version of a function is keyed by: "sha256:" and 64 hexadecimal digits. For an image it is the digest of its
// manifest. For a folder see [OpenFolder].
func (r *Root) Digest() string { return r.digest }

// Lowers returns the folders of the root, the topmost first. They are absolute, and nobody may write to them while an instance runs.
func (r *Root) Lowers() []string { return r.lowers }

// Path returns what was opened: the folder, or the image layout.
func (r *Root) Path() string { return r.path }

// Env returns the environment that the image asks for, as KEY=value; none for a folder.
func (r *Root) Env() []string { return r.env }

// current returns the digest that the root has now. A folder may have been changed since it was opened, by a package manager say; what was frozen
// on it has the old files in its memory. It takes as long as reading the list of packages.
func (r *Root) current() (string, error) {
	if !r.folder {
		return r.digest, nil
	}
	return folderDigest(r.path)
}

// ErrNoRoot is returned for a folder that holds no root file system.
var ErrNoRoot = errors.New("no root file system")

// recipeFile is the name, beside a folder with the folder's name before it, of a file that says how the folder was made.
const recipeSuffix = ".recipe"

// identityFiles say together which system a folder holds. Of some systems not all are there.
var identityFiles = []string{"usr/lib/os-release", "etc/os-release", "var/lib/dpkg/status", "lib/apk/db/installed"}

// OpenFolder takes a folder for a root. It is read in place, and never written to.
//
// Hashing a whole system would take longer than starting an instance, so a folder's digest is that of what says how it was made: the file
// beside it that is called as the folder with ".recipe" behind, if there is one; else the system's release and its list of installed
// packages. Who changes a folder by hand must change the recipe, too.
func OpenFolder(path string) (*Root, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	// runc takes no symbolic link for a root.
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%s: %w: it is no folder", path, ErrNoRoot)
	}
	digest, err := folderDigest(path)
	if err != nil {
		return nil, err
	}
	return &Root{digest: digest, lowers: []string{path}, path: path, folder: true}, nil
}

// folderDigest hashes the recipe, or the files that identify the system. What is hashed comes with its name and length, so that no two
// sets of files are the same text.
func folderDigest(path string) (string, error) {
	h := sha256.New()
	add := func(name, file string) (bool, error) {
		data, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		fmt.Fprintf(h, "%s %d\n", name, len(data))
		h.Write(data)
		return true, err
	}
	found, err := add("recipe", path+recipeSuffix)
	if err != nil {
		return "", err
	}
	if !found {
		root, err := os.OpenRoot(path)
		if err != nil {
			return "", err
		}
		defer root.Close()
		for _, name := range identityFiles {
			// Not through a link that leads out of the root, such as /etc/os-release to an absolute path.
			if data, err := root.ReadFile(name); err == nil {
				fmt.Fprintf(h, "%s %d\n", name, len(data))
				h.Write(data)
				found = true
			}
		}
	}
	if !found {
		return "", fmt.Errorf("%s: %w: nothing in it says which system it is, and there is no %s beside it", path, ErrNoRoot, filepath.Base(path)+recipeSuffix)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}
