package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Parts are the paths of what a lab works with, all absolute.
type Parts struct {
	CRIU, Runc string
	// Thaw and Thawd are our programs.
	Thaw, Thawd string
	// Rootfs is the root file system with the workloads' Python, Examples the folder with their scripts.
	Rootfs, Examples string
}

// ErrPartMissing is returned if something is not there that a lab works with.
var ErrPartMissing = errors.New("a part is missing")

// FindParts returns the paths of all parts: criu, if it is not empty, and those that the environment names (THAW_CRIU, THAW_RUNC, THAW_ROOTFS), else
// those that `make deps build` provides, relative to the repository's root as the working folder. Our programs may lie
// beside the running one, too.
func FindParts(criu string) (Parts, error) {
	if found, err := exec.LookPath(criu); err == nil {
		criu = found // a plain name is one in PATH
	}
	deps := orDefault(os.Getenv("THAW_DEPS"), ".deps")
	var p Parts
	for _, part := range []struct {
		path     *string
		chosen   string
		fallback string
	}{
		{&p.CRIU, orDefault(criu, os.Getenv("THAW_CRIU")), filepath.Join(deps, "bin", "criu")},
		{&p.Rootfs, os.Getenv("THAW_ROOTFS"), filepath.Join(deps, "rootfs")},
		{&p.Examples, "", "examples"},
		{&p.Thaw, "", program("thaw")},
		{&p.Thawd, "", program("thawd")},
	} {
		path, err := filepath.Abs(orDefault(part.chosen, part.fallback))
		if err != nil {
			return p, err
		}
		if _, err := os.Stat(path); err != nil {
			return p, fmt.Errorf("%w: %w: run `make deps build` in the root of the repository, and this program from there", ErrPartMissing, err)
		}
		*part.path = path
	}
	// runc takes no symbolic link for a root.
	rootfs, err := filepath.EvalSymlinks(p.Rootfs)
	if err != nil {
		return p, err
	}
	p.Rootfs = rootfs
	runc, err := exec.LookPath(orDefault(os.Getenv("THAW_RUNC"), "runc"))
	if err != nil {
		return p, fmt.Errorf("%w: runc: %w: run `make deps`", ErrPartMissing, err)
	}
	p.Runc, err = filepath.Abs(runc)
	return p, err
}

// Files returns the files and folders of the programs that a restore runs, with the libraries of a CRIU that brings its own.
func (p *Parts) Files() []string {
	folder := filepath.Dir(p.CRIU)
	return []string{p.CRIU, filepath.Join(filepath.Dir(folder), "criu"), p.Runc, p.Thaw, p.Thawd}
}

// program returns where a program of ours lies: beside the running one, else in bin.
func program(name string) string {
	if self, err := os.Executable(); err == nil {
		if path := filepath.Join(filepath.Dir(self), name); isFile(path) {
			return path
		}
	}
	return filepath.Join("bin", name)
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

func orDefault(value, fallback string) string {
	if value == "" {
		return fallback
	}
	return value
}
