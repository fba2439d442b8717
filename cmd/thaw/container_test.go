package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"thaw/checkpoint"
	"thaw/control"
	"thaw/internal/testenv"
)

// containers makes containers whose process is cat, in a state folder of their own.
type containers struct {
	place *place
	tools *checkpoint.Tools
	root  string // runc's state folder
	rootf string // their root file system
}

func newContainers(t *testing.T, p *place) *containers {
	t.Helper()
	p.useCRIU(t)
	c := &containers{place: p, root: filepath.Join(p.dir, "runc"), rootf: testenv.Rootfs(t)}
	c.tools = &checkpoint.Tools{CRIU: testenv.CRIU(t), Runc: testenv.Runc(t), StateDir: c.root}
	t.Cleanup(func() {
		ids, err := c.tools.Containers()
		if err != nil {
			t.Error(err)
		}
		for _, id := range ids {
			if left, err := c.tools.Container(context.Background(), id); err != nil {
				t.Error(err)
			} else if err := left.Delete(context.Background()); err != nil {
				t.Error(err)
			}
		}
		if err := checkpoint.UnmountBelow(p.dir); err != nil {
			t.Error(err)
		}
	})
	return c
}

// bundle writes a bundle with a cgroup of its own.
func (c *containers) bundle(t *testing.T, id string) string {
	t.Helper()
	dir := filepath.Join(c.place.dir, "bundle-"+id)
	b := checkpoint.Bundle{Rootfs: c.rootf, Args: []string{"/bin/cat"}, CgroupsPath: "/" + filepath.Base(c.place.dir) + "-" + id}
	if err := b.Write(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// talk writes a line to a cat and expects it back.
func talk(t *testing.T, in *os.File, out *bufio.Reader, line string) {
	t.Helper()
	if _, err := fmt.Fprintln(in, line); err != nil {
		t.Fatal(err)
	}
	if got, err := out.ReadString('\n'); err != nil || strings.TrimSpace(got) != line {
		t.Fatalf("the container answers %q to %q: %v", got, line, err)
	}
}

// pipe returns both ends of a pipe; reads from it end after a while.
func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	if err := r.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return r, w
}

// start runs a container and returns what it is talked to by.
func (c *containers) start(t *testing.T, id string) (in *os.File, out *bufio.Reader) {
	t.Helper()
	inR, inW := pipe(t)
	outR, outW := pipe(t)
	_, err := c.tools.RunContainer(t.Context(), checkpoint.RunOptions{
		ID: id, Bundle: c.bundle(t, id), Work: filepath.Join(c.place.dir, "run-"+id), Stdio: checkpoint.Stdio{In: inR, Out: outW},
	})
	if err != nil {
		t.Fatal(err)
	}
	inR.Close()
	outW.Close()
	return inW, bufio.NewReader(outR)
}

// restore runs thaw restore in the foreground and returns what its container is talked to by.
func (c *containers) restore(t *testing.T, snapshot, id string) (cmd *exec.Cmd, in *os.File, out *bufio.Reader) {
	t.Helper()
	inR, inW := pipe(t)
	outR, outW := pipe(t)
	cmd = c.place.command("thaw", "restore", snapshot, "--runc-root", c.root, "--bundle", c.bundle(t, id), "--id", id)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = inR, outW, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	inR.Close()
	outW.Close()
	return cmd, inW, bufio.NewReader(outR)
}

func TestOneContainerBecomesSeveral(t *testing.T) {
	p := newPlace(t)
	c := newContainers(t, p)
	s := p.serve(t)
	in, out := c.start(t, "one")
	talk(t, in, out, "before")
	if r := p.thaw(t, "snapshot", "create", "--container", "nosuch", "--runc-root", c.root, "--name", "web"); r.code != 3 {
		t.Errorf("create of a container that is not there: exit code %d, want 3: %s", r.code, r.stderr)
	}
	p.must(t, nil, "snapshot", "create", "--container", "one", "--runc-root", c.root, "--name", "web")

	first, in1, out1 := c.restore(t, "web", "two")
	second, in2, out2 := c.restore(t, "web", "three")
	talk(t, in1, out1, "after, in the first")
	talk(t, in2, out2, "after, in the second")
	taken := p.thaw(t, "restore", "web", "--runc-root", c.root, "--bundle", filepath.Join(p.dir, "bundle-two"), "--id", "two")
	if taken.code != 5 {
		t.Errorf("restore into a container that is there: exit code %d, want 5: %s", taken.code, taken.stderr)
	}
	for _, end := range []struct {
		in  *os.File
		cmd *exec.Cmd
	}{{in1, first}, {in2, second}} {
		end.in.Close() // the end of its input ends cat
		if err := end.cmd.Wait(); err != nil {
			t.Errorf("thaw restore: %v", err)
		}
	}
	for _, id := range []string{"two", "three"} {
		if _, err := os.Stat(filepath.Join(c.root, id)); !os.IsNotExist(err) {
			t.Errorf("runc still knows container %s: %v", id, err)
		}
	}
	complete := 0
	for _, session := range mustSessions(t, s) {
		if session.State == control.StateComplete {
			complete++
		}
	}
	if complete != 2 {
		t.Errorf("%d sessions are complete, want 2", complete)
	}
}

func TestARestoreWhoseRuntimeFailsLeavesNothing(t *testing.T) {
	p := newPlace(t)
	c := newContainers(t, p)
	s := p.serve(t)
	in, out := c.start(t, "one")
	talk(t, in, out, "before")
	p.must(t, nil, "snapshot", "create", "--container", "one", "--runc-root", c.root, "--name", "web")
	empty := filepath.Join(p.dir, "no-bundle")
	if err := os.Mkdir(empty, 0o700); err != nil {
		t.Fatal(err)
	}
	r := p.thaw(t, "restore", "web", "--detach", "--runc-root", c.root, "--bundle", empty, "--id", "two")
	if r.code == 0 || !strings.Contains(r.stderr, "config.json") {
		t.Errorf("restore from a folder without a bundle: exit code %d: %s", r.code, r.stderr)
	}
	for _, session := range mustSessions(t, s) {
		if session.State != control.StateCancelled {
			t.Errorf("session %s is %s, want cancelled", session.ID, session.State)
		}
	}
	if ids, err := c.tools.Containers(); err != nil || len(ids) != 0 {
		t.Errorf("containers are left: %v, %v", ids, err)
	}
}
