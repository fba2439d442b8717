package lazypages_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"thaw/checkpoint"
	"thaw/internal/testenv"
	"thaw/restore/criu"
)

// A pod is a podman with folders of its own, and one container in it.
type pod struct {
	path, runc string
	environ    []string
	dir        string
	cgroup     string // below which podman makes its cgroups
}

func newPod(t *testing.T) *pod {
	t.Helper()
	testenv.NeedUserfaultfd(t)
	p := &pod{path: testenv.Podman(t), runc: testenv.Runc(t)}
	// podman and runc find CRIU in PATH.
	p.environ = append(os.Environ(), "PATH="+filepath.Dir(testenv.CRIU(t))+":"+os.Getenv("PATH"))
	dir, err := os.MkdirTemp("", "thaw-podman")
	if err != nil {
		t.Fatal(err)
	}
	p.dir, p.cgroup = dir, filepath.Base(dir)
	t.Cleanup(func() {
		p.run(t, "rm", "--force", "--ignore", "--time", "0", containerName)
		// A failed restore may leave mounts, which a removal must not follow.
		if err := checkpoint.UnmountBelow(dir); err != nil {
			t.Error(err)
		}
		if err := checkpoint.RemoveAll(dir); err != nil {
			t.Error(err)
		}
		removeCgroups(t, p.cgroup)
	})
	return p
}

const containerName = "frozen"

// command returns a podman command. Nothing of it is kept outside the pod's folder.
func (p *pod) command(args ...string) *exec.Cmd {
	global := []string{"--root", p.file("root"), "--runroot", p.file("run"), "--tmpdir", p.file("tmp"), "--runtime", p.runc,
		"--cgroup-manager", "cgroupfs", "--storage-driver", "vfs", "--events-backend", "none"}
	cmd := exec.Command(p.path, append(global, args...)...)
	cmd.Env = p.environ
	return cmd
}

func (p *pod) file(name string) string { return filepath.Join(p.dir, name) }

// run runs a podman command and returns what it says.
func (p *pod) run(t *testing.T, args ...string) string {
	t.Helper()
	cmd := p.command(args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("podman %s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	return strings.TrimSpace(string(out))
}

// attach starts a podman command that holds on to the container's standard streams, and returns a function that has the
// container answer a line.
func (p *pod) attach(t *testing.T, args ...string) (ask func(line string) string) {
	t.Helper()
	streams, ask := stdio(t)
	cmd := p.command(args...)
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = streams.In, streams.Out, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("podman %s:\n%s", args[0], &stderr)
		}
	})
	return ask
}

// removeCgroups removes a cgroup and those below it from all hierarchies: podman leaves the one of its monitor, which ends
// a moment after its container.
func removeCgroups(t *testing.T, name string) {
	t.Helper()
	const root = "/sys/fs/cgroup"
	tops, err := filepath.Glob(filepath.Join(root, "*", name))
	if err != nil {
		t.Fatal(err)
	}
	for _, top := range append(tops, filepath.Join(root, name)) {
		var dirs []string
		filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for _, dir := range slices.Backward(dirs) {
			waitUntilEmpty(t, dir)
			if err := unix.Rmdir(dir); err != nil {
				t.Errorf("remove cgroup %s: %v", dir, err)
			}
		}
	}
}

// waitUntilEmpty waits for the end of the processes in a cgroup.
func waitUntilEmpty(t *testing.T, cgroup string) {
	t.Helper()
	procs, err := os.ReadFile(filepath.Join(cgroup, "cgroup.procs"))
	if err != nil {
		t.Error(err)
	}
	for _, field := range strings.Fields(string(procs)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if errors.Is(err, unix.ESRCH) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		ended := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(ended, 30_000)
		for errors.Is(err, unix.EINTR) {
			n, err = unix.Poll(ended, 30_000)
		}
		if n != 1 {
			t.Errorf("process %d in cgroup %s does not end: %v", pid, cgroup, err)
		}
		unix.Close(fd)
	}
}

// freeze has podman freeze the container, and returns the folder in which podman restores it: that of CRIU's logs and
// socket, with the images in it.
func (p *pod) freeze(t *testing.T) (work string) {
	t.Helper()
	p.run(t, "container", "checkpoint", "--keep", containerName)
	return p.run(t, "inspect", "--format", "{{.StaticDir}}", containerName)
}

// thaw has podman restore the container, served by the stand-in, and returns its answer.
func (p *pod) thaw(t *testing.T, work string) string {
	t.Helper()
	s := start(t, "-D", filepath.Join(work, "checkpoint"), "-W", work, "-o", "lazy-pages.log", "-v4")
	p.run(t, "container", "restore", "--keep", containerName)
	if t.Failed() {
		showLogs(t, work, "restore.log", "lazy-pages.log")
		t.FailNow()
	}
	ask := p.attach(t, "attach", "--sig-proxy=false", containerName)
	answer := ask("hello")
	if code := s.exit(t); code != 0 {
		t.Errorf("the stand-in ends with exit code %d", code)
		showLogs(t, work, "lazy-pages.log")
	}
	return answer
}

func TestContainersOfPodmanComeBack(t *testing.T) {
	p := newPod(t)
	config := p.file("criu.conf")
	if err := os.WriteFile(config, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ask := p.attach(t, "run", "--interactive", "--name", containerName, "--network", "none", "--cgroup-parent", "/"+p.cgroup,
		// podman raises limits, which takes a capability that we may not have.
		"--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--annotation", "org.criu.config="+config,
		// O: what podman writes to the root file system goes to an overlay.
		"--rootfs", testenv.Rootfs(t)+":O", "/usr/bin/python3", "-S", "-c", answerer)
	want := ask("hello")
	if !strings.HasPrefix(want, "hello ") {
		t.Fatalf("the container answers %q", want)
	}
	work := p.freeze(t)
	// Only now: in a configuration that is there for the dump, too, the line makes that a lazy one.
	if err := os.WriteFile(config, []byte("lazy-pages\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := p.thaw(t, work); got != want {
		t.Errorf("restored from the images, the container answers %q, not %q", got, want)
	}

	p.run(t, "kill", containerName)
	p.run(t, "wait", containerName)
	images, skeleton := filepath.Join(work, "checkpoint"), filepath.Join(work, "skeleton")
	im, err := criu.Open(images)
	if err != nil {
		t.Fatal(err)
	}
	defer im.Close()
	if err := os.Mkdir(skeleton, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := im.WriteSkeleton(skeleton); err != nil {
		t.Fatal(err)
	}
	full := p.file("images")
	if err := errors.Join(os.Rename(images, full), os.Rename(skeleton, images)); err != nil {
		t.Fatal(err)
	}
	t.Setenv(asStore, full)
	if got := p.thaw(t, work); got != want {
		t.Errorf("restored from a skeleton, the container answers %q, not %q", got, want)
	}
}

func showLogs(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(dir, name))
		t.Log(fmt.Sprintln(name, err) + string(data[max(0, len(data)-4000):]))
	}
}
