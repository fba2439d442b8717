package functions

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"thaw/bench/lab"
	"thaw/checkpoint"
	"thaw/control"
	"thaw/function/gateway"
	"thaw/function/registry"
)

// A Place is a thawd, a function server, and folders of their own. Close it.
type Place struct {
	parts lab.Parts
	dir   string
	run   string // for thawd's sessions
	thawd *control.Client
	api   *gateway.Client
	stops []func() error // in the order of the starts
}

// Open starts the programs with their files in dir, an empty folder with a short path. serve are more flags of thaw serve. name tells bridges of
// places apart that run at the same time: a small number.
func Open(ctx context.Context, parts lab.Parts, dir string, name int, serve ...string) (_ *Place, err error) {
	p := &Place{parts: parts, dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	p.thawd, p.api = control.NewClient(p.socket()), gateway.NewClient(p.apiSocket())
	// Where a machine keeps such files: in memory.
	if p.run, err = os.MkdirTemp("/run", "thaw-bench-*"); err != nil {
		return nil, err
	}
	if err := p.start(ctx, parts.Thawd, []string{"serve", "--store", p.store(), "--socket", p.socket(), "--run-dir", p.run}, func(ctx context.Context) error {
		_, err := p.thawd.Health(ctx)
		return err
	}); err != nil {
		return nil, err
	}
	args := []string{
		"serve", "--store", p.store(), "--socket", p.socket(), "--state", p.state(), "--api", p.apiSocket(), "--criu", parts.CRIU, "--runc", parts.Runc,
		"--bridge", fmt.Sprintf("thawbench%d", name), "--subnet", fmt.Sprintf("10.77.%d.0/24", 100+name),
	}
	return p, p.start(ctx, parts.Thaw, append(args, serve...), func(ctx context.Context) error {
		_, err := p.api.Health(ctx)
		return err
	})
}

func (p *Place) store() string     { return filepath.Join(p.dir, "store") }
func (p *Place) state() string     { return filepath.Join(p.dir, "state") }
func (p *Place) socket() string    { return filepath.Join(p.dir, "thawd.sock") }
func (p *Place) apiSocket() string { return filepath.Join(p.dir, "functions.sock") }

// startPatience is how long a program may take until it answers, stopPatience until it has ended.
const (
	startPatience = 30 * time.Second
	stopPatience  = 60 * time.Second
	lookInterval  = 5 * time.Millisecond
)

// start starts a program and waits until it answers. Its output goes to a file in the folder.
func (p *Place) start(ctx context.Context, program string, args []string, answers func(context.Context) error) error {
	log, err := os.Create(filepath.Join(p.dir, filepath.Base(program)+".log"))
	if err != nil {
		return err
	}
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	// We end it after what depends on it; a terminal's interrupt must not be first.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return errors.Join(err, log.Close())
	}
	p.stops = append(p.stops, func() error {
		if err := cmd.Process.Signal(unix.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		kill := time.AfterFunc(stopPatience, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		if err := errors.Join(cmd.Wait(), log.Close()); err != nil {
			return fmt.Errorf("%s: %w (its log: %s)", filepath.Base(program), err, tail(log.Name()))
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	if err := await(ctx, func() (bool, error) { return answers(ctx) == nil, nil }); err != nil {
		return fmt.Errorf("%s does not answer: %w (its log: %s)", filepath.Base(program), err, tail(log.Name()))
	}
	return nil
}

// tail returns the last bytes of a file, for an error.
func tail(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(data[max(0, len(data)-2000):]))
}

// await asks until the answer is true, an error, or ctx ends.
func await(ctx context.Context, ask func() (bool, error)) error {
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for {
		if ok, err := ask(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// Close ends the programs, the last one first. The folder stays.
func (p *Place) Close() (err error) {
	for i := len(p.stops) - 1; i >= 0; i-- {
		err = errors.Join(err, p.stops[i]())
	}
	p.stops = nil
	if p.run != "" {
		err = errors.Join(err, checkpoint.UnmountBelow(p.run), checkpoint.RemoveAll(p.run))
	}
	return err
}

// thaw runs a command of thaw's and decodes what it prints.
func (p *Place) thaw(ctx context.Context, out any, args ...string) error {
	cmd := exec.CommandContext(ctx, p.parts.Thaw, append(args, "--json", "--store", p.store(), "--socket", p.socket())...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("thaw %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(stdout.Bytes(), out)
}

// Deploy deploys an app of the examples, and returns how long that took.
func (p *Place) Deploy(ctx context.Context, file string) (time.Duration, error) {
	begin := time.Now()
	err := p.thaw(ctx, nil, "deploy", filepath.Join(p.parts.Examples, file), "--root", p.parts.Rootfs, "--state", p.state(), "--criu", p.parts.CRIU)
	return time.Since(begin), err
}

// Call calls a method with thaw call.
func (p *Place) Call(ctx context.Context, target, arguments string) (*gateway.Answer, error) {
	var a gateway.Answer
	return &a, p.thaw(ctx, &a, "call", target, arguments, "--api", p.apiSocket())
}

// Freeze takes a snapshot of an object now.
func (p *Place) Freeze(ctx context.Context, app, object string) (*gateway.Frozen, error) {
	return p.api.Freeze(ctx, &gateway.FreezeRequest{App: app, Object: object})
}

// Empty waits until no instance is left.
func (p *Place) Empty(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stopPatience)
	defer cancel()
	return await(ctx, func() (bool, error) {
		list, err := p.api.Instances(ctx)
		if err != nil || len(list.Instances) > 0 {
			return false, err
		}
		// The list is empty before the last container is gone.
		left, err := os.ReadDir(filepath.Join(p.state(), "instances"))
		for _, e := range left {
			if strings.HasPrefix(e.Name(), "thaw-") {
				return false, err
			}
		}
		return true, err
	})
}

// Recordings returns from how many recordings a snapshot's working set has learned.
func (p *Place) Recordings(ctx context.Context, snapshot string) (int, error) {
	var shown struct {
		Recordings int `json:"recordings"`
	}
	if err := p.thaw(ctx, &shown, "trace", "show", "--snapshot", snapshot); err != nil {
		return 0, nil // there is none yet
	}
	return shown.Recordings, nil
}

// Snapshot waits until an app has a snapshot, and returns its name.
func (p *Place) Snapshot(ctx context.Context, app string) (name string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*stopPatience)
	defer cancel()
	reg, err := registry.Open(p.state(), nil)
	if err != nil {
		return "", err
	}
	return name, await(ctx, func() (bool, error) {
		key, err := reg.Current(app)
		if err != nil {
			return false, err
		}
		stats, err := reg.VersionStats(app, key)
		if err != nil || len(stats.Snapshots) == 0 {
			return false, err
		}
		name = stats.Snapshots[0].Name
		return true, nil
	})
}
