// Package criutest freezes process trees with a real CRIU and thaws them again, for tests.
package criutest

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"thaw/internal/testenv"
)

//go:embed target.py
var targetSource string

// patience bounds everything that waits for another process. It is long because CI machines can be slow; a test that
// reaches it has failed.
const patience = 60 * time.Second

// A Report is what one process of a target's tree says after it has checked its memory.
type Report struct {
	Role   string
	PID    int
	Digest string
	Errors []string
}

// A Target is a Python process tree that fills memory, waits to be frozen, and checks its memory once it is let go.
type Target struct {
	PID    int
	Digest string // of the root's memory, before the freeze

	goFile string
	output string
	cmd    *exec.Cmd
}

// Start starts a target with the given scenarios of target.py, and returns when its memory is filled.
func Start(t *testing.T, scenarios ...string) *Target {
	t.Helper()
	testenv.NeedUserfaultfd(t)
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	tg := &Target{goFile: filepath.Join(dir, "go"), output: filepath.Join(dir, "output")}
	out, err := os.OpenFile(tg.output, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	tg.cmd = python(t, append([]string{"-c", targetSource, fifo, tg.goFile}, scenarios...)...)
	// A tree of its own: nothing in it may refer to the terminal, pipes or session of the test.
	tg.cmd.Stdout, tg.cmd.Stderr = out, out
	tg.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	tg.cmd.Dir = "/"
	if err := tg.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	tg.PID = tg.cmd.Process.Pid
	t.Cleanup(func() {
		syscall.Kill(-tg.PID, syscall.SIGKILL) // the session that was made above
		tg.cmd.Wait()
	})
	tg.Digest = tg.readFifo(t, fifo)
	return tg
}

// python returns a command that runs the root file system's Python, without entering it.
func python(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	root := testenv.Rootfs(t)
	lib := filepath.Join(root, "usr/lib/x86_64-linux-gnu")
	args = append([]string{"--library-path", lib, filepath.Join(root, "usr/bin/python3"), "-S", "-W", "ignore"}, args...)
	cmd := exec.Command(filepath.Join(lib, "ld-linux-x86-64.so.2"), args...)
	cmd.Env = []string{"PYTHONHOME=" + filepath.Join(root, "usr"), "PATH=/usr/bin:/bin"}
	return cmd
}

func (tg *Target) readFifo(t *testing.T, fifo string) string {
	t.Helper()
	f, err := os.OpenFile(fifo, os.O_RDWR, 0) // does not wait for the writer, and so sees no end
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 64)
	if _, err := f.Read(buf); err != nil {
		out, _ := os.ReadFile(tg.output)
		t.Fatalf("target does not get ready: %v\n%s", err, out)
	}
	return string(buf)
}

// Dump freezes the target into dir, which makes its processes disappear here.
func (tg *Target) Dump(t *testing.T, dir string, flags ...string) {
	t.Helper()
	args := append([]string{"dump", "-t", strconv.Itoa(tg.PID), "-D", dir, "-v4", "-o", "dump.log", "--manage-cgroups=ignore"}, flags...)
	run(t, filepath.Join(dir, "dump.log"), exec.Command(testenv.CRIU(t), args...))
	tg.cmd.Wait()
}

// Go lets all restored copies of the target go on.
func (tg *Target) Go(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(tg.goFile, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Bye lets the long-lived children of all copies go on.
func (tg *Target) Bye(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(tg.goFile+".bye", nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Reports returns what all copies of the target have said so far.
func (tg *Target) Reports(t *testing.T) []Report {
	t.Helper()
	data, err := os.ReadFile(tg.output)
	if err != nil {
		t.Fatal(err)
	}
	var reports []Report
	for s := bufio.NewScanner(bytes.NewReader(data)); s.Scan(); {
		var r Report
		if err := json.Unmarshal(s.Bytes(), &r); err != nil {
			t.Fatalf("target said %q", s.Text())
		}
		reports = append(reports, r)
	}
	return reports
}

// Check fails the test unless copies copies of the tree have reported, each of the given roles once, without an error.
func (tg *Target) Check(t *testing.T, copies int, roles ...string) {
	t.Helper()
	got := make(map[string]int)
	for _, r := range tg.Reports(t) {
		got[r.Role]++
		if r.Role == "root" && r.Digest != "" && r.Digest != tg.Digest {
			t.Errorf("memory of the restored root has digest %s, and had %s before the freeze", r.Digest, tg.Digest)
		}
		if len(r.Errors) > 0 {
			t.Errorf("%s (pid %d): %s", r.Role, r.PID, strings.Join(r.Errors, "; "))
		}
	}
	for _, role := range roles {
		if got[role] != copies {
			t.Errorf("%d of %d restored processes called %q have reported", got[role], copies, role)
		}
	}
}

// A Restored is a tree that is being restored, or runs again.
type Restored struct {
	cmd    *exec.Cmd
	log    string
	done   chan struct{}
	err    error
	killed sync.Once
}

// Restore starts `criu restore` of the images in dir, with work as its work folder, in pid and mount namespaces of its
// own, so that the pids of the images are free. It does not wait. The tree ends with the test.
func Restore(t *testing.T, dir, work string, flags ...string) *Restored {
	t.Helper()
	args := append([]string{"--pid", "--fork", "--kill-child", "--mount-proc", testenv.CRIU(t),
		"restore", "-D", dir, "-W", work, "-v4", "-o", "restore.log", "--manage-cgroups=ignore"}, flags...)
	r := &Restored{cmd: exec.Command("unshare", args...), log: filepath.Join(work, "restore.log"), done: make(chan struct{})}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(r.done)
		r.err = r.cmd.Wait()
	}()
	t.Cleanup(r.Kill)
	return r
}

// Kill ends the tree and waits until it is gone.
func (r *Restored) Kill() {
	r.killed.Do(func() { r.cmd.Process.Kill() })
	<-r.done
}

// Wait waits until the root of the tree has exited, or CRIU has given up, and returns CRIU's error.
func (r *Restored) Wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return errors.New("restored processes do not end")
	}
}

// Log returns the end of CRIU's log.
func (r *Restored) Log() string { return tail(r.log) }

// run runs a command that is expected to work.
func run(t *testing.T, log string, cmd *exec.Cmd) {
	t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %v\n%s%s", cmd.Args, err, out.String(), tail(log))
	}
}

func tail(log string) string {
	data, err := os.ReadFile(log)
	if err != nil {
		return fmt.Sprintln(err)
	}
	lines := strings.Split(string(data), "\n")
	return strings.Join(lines[max(0, len(lines)-25):], "\n")
}
