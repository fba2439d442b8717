package checkpoint

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"thaw/internal/testenv"
)

// fixture makes containers that write back what they read, out of the root file system of the project.
type fixture struct {
	tools  *Tools
	dir    string
	rootfs string
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	testenv.NeedRoot(t)
	f := &fixture{dir: tempDir(t), rootfs: testenv.Rootfs(t)}
	f.tools = &Tools{CRIU: testenv.CRIU(t), Runc: testenv.Runc(t), StateDir: filepath.Join(f.dir, "state")}
	return f
}

// tempDir is t.TempDir with a clean-up that follows no mount, for what a failed test leaves mounted.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "thaw-checkpoint")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := UnmountBelow(dir); err != nil {
			t.Error(err)
		}
		if err := RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func (f *fixture) path(name string) string { return filepath.Join(f.dir, name) }

// bundle writes a bundle for container id, whose process is cat, and returns its folder.
func (f *fixture) bundle(t *testing.T, id string) string {
	t.Helper()
	return f.write(t, id, f.cat(id))
}

// cat describes a container whose process is cat.
func (f *fixture) cat(id string) *Bundle {
	return &Bundle{Rootfs: f.rootfs, Args: []string{"/bin/cat"}, CgroupsPath: f.cgroup(id)}
}

// write writes the bundle of container id and returns its folder.
func (f *fixture) write(t *testing.T, id string, b *Bundle) string {
	t.Helper()
	dir := f.path("bundle-" + id)
	if err := b.Write(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func (f *fixture) cgroup(id string) string { return "/thaw-test-" + filepath.Base(f.dir) + "-" + id }

// streams are the test's ends of a container's standard streams.
type streams struct {
	in  *os.File
	out *bufio.Reader
}

// pipes makes standard streams for a container. The container's ends are closed by closeStdio.
func pipes(t *testing.T) (Stdio, *streams) {
	t.Helper()
	stdinR, stdinW := pipe(t)
	stdoutR, stdoutW := pipe(t)
	if err := stdoutR.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return Stdio{In: stdinR, Out: stdoutW}, &streams{in: stdinW, out: bufio.NewReader(stdoutR)}
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

func (s *streams) write(t *testing.T, line string) {
	t.Helper()
	if _, err := fmt.Fprintln(s.in, line); err != nil {
		t.Fatal(err)
	}
}

// expect reads one line and fails the test unless it is want.
func (s *streams) expect(t *testing.T, want string) {
	t.Helper()
	got, err := s.out.ReadString('\n')
	if err != nil {
		t.Fatalf("read answer: %v", err)
	}
	if got := strings.TrimSuffix(got, "\n"); got != want {
		t.Fatalf("container wrote %q, want %q", got, want)
	}
}

// deleteLater deletes the container when the test ends, also when it has failed.
func deleteLater(t *testing.T, c *Container) {
	t.Cleanup(func() {
		if err := c.Delete(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// freeze runs cat in a container, lets it answer once, and freezes it into the folder "images".
func (f *fixture) freeze(t *testing.T) (images string) {
	t.Helper()
	stdio, s := pipes(t)
	c, err := f.tools.RunContainer(t.Context(), RunOptions{ID: "first", Bundle: f.bundle(t, "first"), Work: f.path("work-run"), Stdio: stdio})
	if err != nil {
		t.Fatal(err)
	}
	deleteLater(t, c)
	s.write(t, "before the freeze")
	s.expect(t, "before the freeze")
	images = f.path("images")
	if err := f.tools.CheckpointContainer(t.Context(), c.ID, DumpOptions{Images: images, Work: f.path("work-dump")}); err != nil {
		t.Fatal(err)
	}
	return images
}

// restoreOptions are those of a restore called id with folders of its own.
func (f *fixture) restoreOptions(t *testing.T, id, images string) (RestoreContainerOptions, *streams) {
	t.Helper()
	stdio, s := pipes(t)
	return RestoreContainerOptions{
		ID:             id,
		Bundle:         f.bundle(t, id),
		RestoreOptions: RestoreOptions{Images: images, Work: f.path("work-" + id)},
		Stdio:          stdio,
	}, s
}

// deafServer takes CRIU's connection in work and serves nothing, so that the restore cannot get past its first fault. The
// context that it returns is cancelled when the first process has reported.
func deafServer(t *testing.T, work string) context.Context {
	t.Helper()
	if err := makeDirs(work); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", filepath.Join(work, LazyPagesSocket))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var group errgroup.Group
	group.Go(func() error {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			return err
		}
		cancel()
		// To the end of the connection, or of the test: what CRIU sends is left unread.
		<-t.Context().Done()
		return nil
	})
	t.Cleanup(func() {
		listener.Close()
		if err := group.Wait(); err != nil {
			t.Error(err)
		}
	})
	return ctx
}
