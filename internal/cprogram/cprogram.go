package cprogram

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

var flags = []string{"-x", "c", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-pthread", "-Wl,-z,now"}

// Compiler returns the C compiler that Build uses: $CC, else cc.
func Compiler() string {
	if cc := os.Getenv("CC"); cc != "" {
		return cc
	}
	return "cc"
}

// Build compiles source unless an earlier run has, and returns the path of the program. The name of the file is a hash
// of all that went into it, and it appears under that name complete or not at all, so programs that need it at the same
// time need no lock. extra are further flags of the compiler.
func Build(name string, source []byte, extra ...string) (string, error) {
	cc := Compiler()
	version, err := exec.Command(cc, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("ask %s for its version: %w", cc, err)
	}
	args := append(append([]string{}, flags...), extra...)
	hash := sha256.New()
	fmt.Fprintf(hash, "%q %q", version, args)
	hash.Write(source)

	dir, err := cacheDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, fmt.Sprintf("%s-%x", name, hash.Sum(nil)[:8]))
	if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
		return path, nil
	}
	if err := compile(cc, args, source, path); err != nil {
		return "", fmt.Errorf("compile %s: %w", name, err)
	}
	return path, nil
}

func cacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	dir = filepath.Join(dir, "thaw-test")
	return dir, os.MkdirAll(dir, 0o700)
}

func compile(cc string, args []string, source []byte, path string) error {
	out, err := os.CreateTemp(filepath.Dir(path), "build-*")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	if err := out.Close(); err != nil {
		return err
	}
	cmd := exec.Command(cc, append([]string{"-o", out.Name()}, append(args, "-")...)...)
	cmd.Stdin = io.NopCloser(bytes.NewReader(source))
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, text)
	}
	return os.Rename(out.Name(), path)
}
