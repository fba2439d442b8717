package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

var (
	// ErrToolMissing is returned when CRIU or runc is not where it should be.
	ErrToolMissing = errors.New("tool missing")
	// ErrNotAbsolute is returned for a folder that is not named by an absolute path: runc and CRIU change their
	// working folder, and a relative path would mean another place to each of them.
	ErrNotAbsolute = errors.New("path is not absolute")
)

// Tools says which CRIU and which runc to use. The zero value uses those in PATH. Its methods are safe for concurrent
// use as long as the fields do not change.
type Tools struct {
	// CRIU is the path of the CRIU binary, by default the "criu" in PATH. Its file must be called "criu": runc finds it by
	// that name in PATH and cannot be told another.
	CRIU string
	// Runc is the path of the runc binary, by default the "runc" in PATH.
	Runc string
	// StateDir is the folder in which runc keeps the state of containers (its --root), by default runc's own. A
	// program that gives its own folder sees only its own containers, and only it sees them.
	StateDir string
	// Logger gets one record per run of a tool. Nil means none.
	Logger *slog.Logger
}

// defaultStateDir is where runc, run by root, keeps its state when it is not told otherwise.
const defaultStateDir = "/run/runc"

func (t *Tools) log() *slog.Logger {
	if t.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return t.Logger
}

func (t *Tools) stateDir() string {
	if t.StateDir == "" {
		return defaultStateDir
	}
	return t.StateDir
}

// criu returns the path of CRIU's binary. Returns an error matching [ErrToolMissing] if there is none.
func (t *Tools) criu() (string, error) {
	path, err := lookTool(t.CRIU, "criu")
	if err != nil {
		return "", err
	}
	if filepath.Base(path) != "criu" {
		return "", fmt.Errorf("%w: %s must be called criu, for runc finds it by that name", ErrToolMissing, path)
	}
	return path, nil
}

func (t *Tools) runc() (string, error) { return lookTool(t.Runc, "runc") }

func lookTool(path, name string) (string, error) {
	if path == "" {
		path = name
	}
	found, err := exec.LookPath(path)
	if err != nil {
		return "", fmt.Errorf("%w: %s: %w", ErrToolMissing, name, err)
	}
	return filepath.Abs(found)
}

// environ is the environment for runc: ours, with CRIU's folder first in PATH.
func (t *Tools) environ() ([]string, error) {
	criu, err := t.criu()
	if err != nil {
		return nil, err
	}
	path := filepath.Dir(criu)
	if old := os.Getenv("PATH"); old != "" {
		path += string(os.PathListSeparator) + old
	}
	return append(os.Environ(), "PATH="+path), nil
}

// runcCommand makes a runc command line that logs to log.
func (t *Tools) runcCommand(ctx context.Context, log string, args ...string) (*exec.Cmd, error) {
	path, err := t.runc()
	if err != nil {
		return nil, err
	}
	global := []string{"--root", t.stateDir()}
	if log != "" {
		global = append(global, "--log", log, "--log-format", "json")
	}
	cmd := exec.CommandContext(ctx, path, append(global, args...)...)
	if cmd.Env, err = t.environ(); err != nil {
		return nil, err
	}
	return cmd, nil
}

// criuCommand makes a CRIU command line.
func (t *Tools) criuCommand(ctx context.Context, args ...string) (*exec.Cmd, error) {
	path, err := t.criu()
	if err != nil {
		return nil, err
	}
	return exec.CommandContext(ctx, path, args...), nil
}

// CRIUVersion returns the version of CRIU, such as "4.2.1".
func (t *Tools) CRIUVersion(ctx context.Context) (string, error) {
	cmd, err := t.criuCommand(ctx, "--version")
	if err != nil {
		return "", err
	}
	return version(cmd, "Version:")
}

// RuncVersion returns the version of runc, such as "1.1.5".
func (t *Tools) RuncVersion(ctx context.Context) (string, error) {
	cmd, err := t.runcCommand(ctx, "", "--version")
	if err != nil {
		return "", err
	}
	return version(cmd, "runc version")
}

// version runs cmd and returns what follows prefix in a line of its output.
func version(cmd *exec.Cmd, prefix string) (string, error) {
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("run %s: %w", cmd.Path, err)
	}
	for line := range strings.Lines(string(out)) {
		if rest, ok := strings.CutPrefix(line, prefix); ok {
			return strings.TrimSpace(rest), nil
		}
	}
	return "", fmt.Errorf("run %s: no line %q in %q", cmd.Path, prefix, out)
}

// makeDirs checks that all paths are absolute and makes the folders that are missing.
func makeDirs(paths ...string) error {
	for _, path := range paths {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("%w: %q", ErrNotAbsolute, path)
		}
		if err := os.MkdirAll(path, 0o700); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
	}
	return nil
}
