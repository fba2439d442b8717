package lazypages_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"thaw/checkpoint"
	"thaw/internal/testenv"
	"thaw/restore/criu"
)

// A container runs a program that answers each line of its input with the digest of its memory.
type container struct {
	tools *checkpoint.Tools
	dir   string
}

const answerer = `import hashlib, random, sys
memory = random.Random(1).randbytes(30 << 20)
for line in sys.stdin:
    print(line.strip(), hashlib.sha256(memory).hexdigest(), flush=True)`

func newContainer(t *testing.T) *container {
	t.Helper()
	testenv.NeedUserfaultfd(t)
	dir, err := os.MkdirTemp("", "thaw-runc")
	if err != nil {
		t.Fatal(err)
	}
	// Not t.TempDir: a failed restore may leave mounts, which a removal must not follow.
	t.Cleanup(func() {
		if err := checkpoint.UnmountBelow(dir); err != nil {
			t.Error(err)
		}
		if err := checkpoint.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	tools := &checkpoint.Tools{CRIU: testenv.CRIU(t), Runc: testenv.Runc(t), StateDir: filepath.Join(dir, "state")}
	return &container{tools, dir}
}

func (c *container) path(name string) string { return filepath.Join(c.dir, name) }

func (c *container) bundle(t *testing.T, id string) string {
	t.Helper()
	b := checkpoint.Bundle{Rootfs: testenv.Rootfs(t), Args: []string{"/usr/bin/python3", "-S", "-c", answerer},
		CgroupsPath: "/" + filepath.Base(c.dir) + "-" + id}
	if err := b.Write(c.path("bundle-" + id)); err != nil {
		t.Fatal(err)
	}
	return c.path("bundle-" + id)
}

// stdio returns standard streams, and a function that has the container answer a line.
func stdio(t *testing.T) (checkpoint.Stdio, func(line string) string) {
	t.Helper()
	inR, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, f := range []*os.File{inR, inW, outR, outW} {
			f.Close()
		}
	})
	outR.SetReadDeadline(time.Now().Add(60 * time.Second))
	out := bufio.NewReader(outR)
	return checkpoint.Stdio{In: inR, Out: outW}, func(line string) string {
		t.Helper()
		if _, err := fmt.Fprintln(inW, line); err != nil {
			t.Fatal(err)
		}
		answer, err := out.ReadString('\n')
		if err != nil {
			t.Fatalf("read the container's answer: %v", err)
		}
		return answer
	}
}

func deleteLater(t *testing.T, c *checkpoint.Container) {
	t.Helper()
	t.Cleanup(func() {
		if err := c.Delete(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// freeze runs a container, has it answer, and freezes it.
func (c *container) freeze(t *testing.T) (images, answer string) {
	t.Helper()
	streams, ask := stdio(t)
	run, err := c.tools.RunContainer(t.Context(), checkpoint.RunOptions{
		ID: "first", Bundle: c.bundle(t, "first"), Work: c.path("work-first"), Stdio: streams})
	if err != nil {
		t.Fatal(err)
	}
	deleteLater(t, run)
	answer = ask("hello")
	images = c.path("images")
	if err := c.tools.CheckpointContainer(t.Context(), run.ID, checkpoint.DumpOptions{Images: images, Work: c.path("work-dump")}); err != nil {
		t.Fatal(err)
	}
	return images, answer
}

// thaw restores a container from images, served by the stand-in, and returns its answer.
func (c *container) thaw(t *testing.T, id, images string) string {
	t.Helper()
	work := c.path("work-" + id)
	if err := os.Mkdir(work, 0o700); err != nil {
		t.Fatal(err)
	}
	s := start(t, "-D", images, "-W", work)
	streams, ask := stdio(t)
	o := checkpoint.RestoreContainerOptions{ID: id, Bundle: c.bundle(t, id), Stdio: streams,
		RestoreOptions: checkpoint.RestoreOptions{Images: images, Work: work, Lazy: true}}
	restored, err := c.tools.RestoreContainer(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	deleteLater(t, restored)
	answer := ask("hello")
	if code := s.exit(t); code != 0 {
		t.Errorf("the stand-in ends with exit code %d\n%s", code, &s.stderr)
	}
	return answer
}

func TestContainersOfRuncComeBack(t *testing.T) {
	c := newContainer(t)
	images, want := c.freeze(t)
	if !strings.HasPrefix(want, "hello ") {
		t.Fatalf("the container answers %q", want)
	}
	if got := c.thaw(t, "second", images); got != want {
		t.Errorf("restored from the images, the container answers %q, not %q", got, want)
	}
	im, err := criu.Open(images)
	if err != nil {
		t.Fatal(err)
	}
	defer im.Close()
	skeleton := c.path("skeleton")
	if err := os.Mkdir(skeleton, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := im.WriteSkeleton(skeleton); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(skeleton, "descriptors.json")); err != nil {
		t.Error(err)
	}
	t.Setenv(asStore, images)
	if got := c.thaw(t, "third", skeleton); got != want {
		t.Errorf("restored from a skeleton, the container answers %q, not %q", got, want)
	}
}
