package checkpoint

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

var (
	// ErrContainerExists is returned when a container of that id is there already.
	ErrContainerExists = errors.New("container exists")
	// ErrCgroupTaken is returned when the bundle names a cgroup that holds processes already.
	ErrCgroupTaken = errors.New("cgroup is taken")
)

// Container is a container of runc's that runs.
type Container struct {
	// ID is its name in runc's state folder.
	ID string
	// PID is the number of its first process in this process's pid namespace.
	PID int

	tools   *Tools
	cgroups string
}

// Stdio are the standard streams of a container. They become the container's own descriptors; the caller may close its
// copies once the call returns. A nil stream is /dev/null. To be frozen, a container's streams must be pipes or
// /dev/null: CRIU cannot dump another kind of file that lies outside the container.
type Stdio struct {
	In, Out, Err *os.File
}

func (s *Stdio) give(cmd *exec.Cmd) {
	// An interface that holds a nil file is not a nil interface, so each stream is looked at by itself.
	if s.In != nil {
		cmd.Stdin = s.In
	}
	if s.Out != nil {
		cmd.Stdout = s.Out
	}
	cmd.Stderr = s.Err
	if s.Err == nil {
		cmd.Stderr = nil
	}
}

// RunOptions say how to start a container.
type RunOptions struct {
	// ID is the container's name, Bundle its bundle's folder, Work the folder for runc's log; both paths are absolute.
	ID, Bundle, Work string
	Stdio            Stdio
}

// RunContainer starts a container from its bundle and returns when its process runs.
func (t *Tools) RunContainer(ctx context.Context, o RunOptions) (*Container, error) {
	return t.start(ctx, startOptions{
		id: o.ID, bundle: o.Bundle, work: o.Work, stdio: o.Stdio, op: "runc run", args: []string{"run"},
	})
}

// RestoreContainerOptions say how to start a container from its images.
type RestoreContainerOptions struct {
	// ID is the new container's name. Bundle, absolute, is its bundle: that of the frozen container but for the
	// cgroup. Restores that run at the same time need an id, a bundle and a work folder each, and, if the bundles have
	// bind mounts, a mount of the root file system each: runc 1.1 mounts the binds below it for a moment, and one of two that
	// do so in one place may leave its mount behind.
	ID, Bundle string
	// RestoreOptions apply except for Config, which comes from the bundle, and Inherit, which runc does itself.
	RestoreOptions
	Stdio Stdio
}

// RestoreContainer starts a container from o.Images and returns when its process runs. When the restore fails, or the
// context is cancelled, nothing of it is left: no process, no mount, no cgroup; only CRIU's log stays in o.Work.
func (t *Tools) RestoreContainer(ctx context.Context, o RestoreContainerOptions) (*Container, error) {
	if err := makeDirs(o.Images, o.Work); err != nil {
		return nil, err
	}
	args := append([]string{"restore", "--image-path", o.Images, "--work-path", o.Work}, o.flags()...)
	return t.start(ctx, startOptions{
		id: o.ID, bundle: o.Bundle, work: o.Work, stdio: o.Stdio, op: "runc restore", args: args,
		criuLog: filepath.Join(o.Work, "restore.log"),
	})
}

// startOptions are what run and restore have in common.
type startOptions struct {
	id, bundle, work string
	stdio            Stdio
	op               string
	args             []string
	criuLog          string
}

func (t *Tools) start(ctx context.Context, o startOptions) (*Container, error) {
	if err := makeDirs(o.bundle, o.work); err != nil {
		return nil, err
	}
	cgroups, err := t.checkFree(o.id, o.bundle)
	if err != nil {
		return nil, err
	}
	pidfile, log := filepath.Join(o.work, o.id+".pid"), filepath.Join(o.work, "runc.log")
	args := append(o.args, "--detach", "--bundle", o.bundle, "--pid-file", pidfile, o.id)
	cmd, err := t.runcCommand(ctx, log, args...)
	if err != nil {
		return nil, err
	}
	o.stdio.give(cmd)
	if cmd.Stderr == nil {
		// A buffer would make a pipe of it, which the container would then keep.
		null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		if err != nil {
			return nil, err
		}
		defer null.Close()
		cmd.Stderr = null
	}
	c := &Container{ID: o.id, tools: t, cgroups: cgroups}
	err = t.do(ctx, run{op: o.op, cmd: cmd, criuLog: o.criuLog, runcLog: log})
	if err == nil {
		c.PID, err = readPID(pidfile)
	}
	if err != nil {
		// The clean-up must not be cut short by the context that was cancelled.
		return nil, errors.Join(err, c.Delete(context.WithoutCancel(ctx)), UnmountBelow(o.work))
	}
	return c, nil
}

// checkFree makes sure that neither the container's id nor its cgroup is in use, so that cleaning up behind a failure
// cannot hit another container. It returns the bundle's cgroup.
func (t *Tools) checkFree(id, bundle string) (cgroups string, err error) {
	if id == "" || filepath.Base(id) != id {
		return "", fmt.Errorf("container id %q is no plain name", id)
	}
	if _, err := os.Lstat(filepath.Join(t.stateDir(), id)); err == nil {
		return "", fmt.Errorf("%w: %s", ErrContainerExists, id)
	}
	if cgroups, err = bundleCgroups(bundle); err != nil || cgroups == "" {
		return "", err
	}
	dirs, err := cgroupDirs(cgroups)
	if err != nil {
		return "", err
	}
	if pids, err := cgroupPIDs(dirs); err != nil || len(pids) > 0 {
		return "", errors.Join(err, fmt.Errorf("%w: %s holds %d processes", ErrCgroupTaken, cgroups, len(pids)))
	}
	return cgroups, nil
}

// bundleCgroups returns the cgroup that a bundle names, empty if it leaves the choice to runc.
func bundleCgroups(bundle string) (string, error) {
	spec, err := readBundle(bundle)
	if err != nil || spec.Linux == nil {
		return "", err
	}
	return spec.Linux.CgroupsPath, nil
}

// CheckpointContainer freezes a running container into o.Images. Unless o.LeaveRunning is set, the container is gone
// when it returns.
func (t *Tools) CheckpointContainer(ctx context.Context, id string, o DumpOptions) error {
	if err := makeDirs(o.Images, o.Work); err != nil {
		return err
	}
	log := filepath.Join(o.Work, "runc.log")
	args := append([]string{"checkpoint", "--image-path", o.Images, "--work-path", o.Work}, o.flags()...)
	cmd, err := t.runcCommand(ctx, log, append(args, id)...)
	if err != nil {
		return err
	}
	ahead, err := t.stopAhead(id, o.Work)
	if err != nil {
		return err
	}
	ahead.give(cmd)
	err = t.do(ctx, run{op: "runc checkpoint", cmd: cmd, criuLog: filepath.Join(o.Work, "dump.log"), runcLog: log})
	released := ahead.release()
	if err == nil && !o.LeaveRunning {
		return nil // the container is gone and the images are all that is left of it: nothing that is wrong with a cgroup may cost these
	}
	return errors.Join(err, released)
}

// Container returns the handle of a container that runc knows, whoever started it. What a failed start left has a handle
// too, without a PID. Returns an error matching fs.ErrNotExist if there is none.
func (t *Tools) Container(ctx context.Context, id string) (*Container, error) {
	if _, err := os.Lstat(filepath.Join(t.stateDir(), id)); err != nil {
		return nil, fmt.Errorf("container %s: %w", id, err)
	}
	if _, err := os.Lstat(filepath.Join(t.stateDir(), id, "state.json")); errors.Is(err, fs.ErrNotExist) {
		return &Container{ID: id, tools: t}, nil
	}
	cmd, err := t.runcCommand(ctx, "", "state", id)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := t.do(ctx, run{op: "runc state", cmd: cmd}); err != nil {
		return nil, err
	}
	var state specs.State
	if err := json.Unmarshal(out.Bytes(), &state); err != nil {
		return nil, fmt.Errorf("read state of container %s: %w", id, err)
	}
	// The bundle may be gone; then its cgroup is left to runc.
	cgroups, _ := bundleCgroups(state.Bundle)
	return &Container{ID: id, PID: state.Pid, tools: t, cgroups: cgroups}, nil
}

// Containers returns the names of the containers in runc's state folder, those of failed starts too.
func (t *Tools) Containers() ([]string, error) {
	entries, err := os.ReadDir(t.stateDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, entry := range entries {
		if entry.IsDir() {
			ids = append(ids, entry.Name())
		}
	}
	return ids, nil
}

// Delete kills the container, waits for its end, and removes what runc and CRIU keep of it: mounts first, state and
// cgroups behind. A container that is gone is fine.
func (c *Container) Delete(ctx context.Context) error {
	state := filepath.Join(c.tools.stateDir(), c.ID)
	dirs, err := cgroupDirs(c.cgroups)
	if err != nil {
		return err
	}
	// By the cgroup and not by PID: the number may be another process's by now.
	errs := []error{killCgroup(dirs)}
	// runc deletes its state folder without a look at what is mounted there.
	errs = append(errs, UnmountBelow(state))
	if _, err := os.Lstat(state); err == nil {
		errs = append(errs, c.runcDelete(ctx))
	}
	errs = append(errs, removeCgroup(dirs))
	if err := RemoveAll(state); err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// runcDelete lets runc forget the container. A failed restore leaves a state folder that runc itself cannot read; that
// one is removed by the caller.
func (c *Container) runcDelete(ctx context.Context) error {
	if _, err := os.Lstat(filepath.Join(c.tools.stateDir(), c.ID, "state.json")); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	cmd, err := c.tools.runcCommand(ctx, "", "delete", "--force", c.ID)
	if err != nil {
		return err
	}
	return c.tools.do(ctx, run{op: "runc delete", cmd: cmd})
}
