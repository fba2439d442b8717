package baseline

import (
	"bufio"
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"thaw/internal/cprogram"
)

//go:embed program/*.c
var sources embed.FS

// start compiles a program if need be, and runs it. files become its descriptors from 3 on; it dies with us.
func start(name string, files []*os.File, args ...string) (*child, error) {
	source, err := sources.ReadFile("program/" + name + ".c")
	if err != nil {
		return nil, err
	}
	path, err := cprogram.Build(name, source)
	if err != nil {
		return nil, err
	}
	c := &child{name: name, cmd: exec.Command(path, args...)}
	c.cmd.ExtraFiles = files
	c.cmd.Stderr = &c.stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.out = bufio.NewReader(out)
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return c, nil
}

// A child is a run of one of the programs.
type child struct {
	name   string
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	out    *bufio.Reader
	stderr bytes.Buffer
}

// line returns the next line of output. If ctx ends before it comes the child is killed.
func (c *child) line(ctx context.Context) (string, error) {
	stop := context.AfterFunc(ctx, func() { _ = c.cmd.Process.Kill() })
	defer stop()
	line, err := c.out.ReadString('\n')
	if err != nil {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		return "", fmt.Errorf("%s says nothing more: %w", c.name, err)
	}
	return strings.TrimSpace(line), nil
}

// close ends the child and reaps it.
func (c *child) close() error {
	_ = c.stdin.Close()
	_ = c.cmd.Process.Kill()
	err := c.cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signaled() {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %s", c.name, err, &c.stderr)
	}
	return nil
}

// Cost is what it took to move bytes.
type Cost struct {
	Time  time.Duration
	CPU   time.Duration // of all threads
	Bytes uint64
	// Progress is how many bytes had been moved after each millisecond, where the program tells.
	Progress []uint64
}

// parseCost reads what the programs write: nanoseconds, nanoseconds of CPU, bytes, progress.
func parseCost(line string) (Cost, error) {
	fields := strings.Fields(line)
	if len(fields) < 3 {
		return Cost{}, fmt.Errorf("unexpected result %q", line)
	}
	n := make([]uint64, len(fields))
	for i, f := range fields {
		var err error
		if n[i], err = strconv.ParseUint(f, 10, 64); err != nil {
			return Cost{}, fmt.Errorf("unexpected result %q: %w", line, err)
		}
	}
	return Cost{Time: time.Duration(n[0]), CPU: time.Duration(n[1]), Bytes: n[2], Progress: n[3:]}, nil
}
