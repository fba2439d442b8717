//go:build linux

package uffdtest

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"thaw/internal/testenv"
)

//go:embed target/target.c
var source []byte

// _FORTIFY_SOURCE would refuse the copies that are meant to fault.
var ccFlags = []string{"-x", "c", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-pthread", "-U_FORTIFY_SOURCE", "-Wl,-z,now", "-"}

var build = sync.OnceValues(buildTarget)

// program returns the path of the compiled target.
func program(tb testing.TB) string {
	tb.Helper()
	testenv.NeedCC(tb)
	path, err := build()
	if err != nil {
		tb.Fatal(err)
	}
	return path
}

// buildTarget compiles the target unless an earlier run has. The name of the file is a hash of all that went
// into it, and it appears under that name complete or not at all, so test binaries that run at the same time
// need no lock.
func buildTarget() (string, error) {
	cc := os.Getenv("CC")
	if cc == "" {
		cc = "cc"
	}
	version, err := exec.Command(cc, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("ask %s for its version: %w", cc, err)
	}
	hash := sha256.New()
	fmt.Fprintf(hash, "%q %q", version, ccFlags)
	hash.Write(source)

	dir, err := cacheDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, fmt.Sprintf("target-%x", hash.Sum(nil)[:8]))
	if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
		return path, nil
	}
	return path, compile(cc, path)
}

func cacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	dir = filepath.Join(dir, "thaw-test")
	return dir, os.MkdirAll(dir, 0o700)
}

func compile(cc, path string) error {
	out, err := os.CreateTemp(filepath.Dir(path), "build-*")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	if err := out.Close(); err != nil {
		return err
	}
	cmd := exec.Command(cc, append([]string{"-o", out.Name()}, ccFlags...)...)
	cmd.Stdin = io.NopCloser(bytes.NewReader(source))
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compile the target: %w\n%s", err, text)
	}
	return os.Rename(out.Name(), path)
}
