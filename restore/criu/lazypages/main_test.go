package lazypages_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"thaw/internal/testenv"
	"thaw/restore"
	"thaw/restore/criu"
	"thaw/restore/criu/internal/criutest"
	"thaw/restore/criu/lazypages"
)

// asProgram makes the test binary behave as the stand-in, so that tests have a process to start.
const asProgram = "THAW_TEST_AS_LAZY_PAGES"

// asStore makes it take the pages of skeletons from a folder of images.
const asStore = "THAW_TEST_IMAGES"

func openImages(dir string) (restore.PageSource, map[int]restore.Layout, io.Closer, error) {
	im, err := criu.Open(dir)
	if err != nil {
		return nil, nil, nil, err
	}
	defer im.Close()
	src, layouts, err := im.SkeletonSource()
	return src, layouts, src, err
}

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		opts := &lazypages.Options{Program: []string{"/proc/self/exe"}}
		if dir := os.Getenv(asStore); dir != "" {
			opts.Resolve = func(string) (restore.PageSource, map[int]restore.Layout, io.Closer, error) { return openImages(dir) }
		}
		os.Exit(lazypages.Run(os.Args[1:], os.Stdout, os.Stderr, opts))
	}
	testenv.Main(m)
}

// A server is the stand-in, running.
type server struct {
	cmd    *exec.Cmd
	stderr bytes.Buffer
}

// command returns a command for the stand-in.
func command(t *testing.T, args ...string) *server {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := &server{cmd: exec.Command(exe, args...)}
	s.cmd.Env = append(os.Environ(), asProgram+"=1")
	s.cmd.Stderr = &s.stderr
	return s
}

// start starts the stand-in and waits until it says on its status descriptor that the socket is there.
func start(t *testing.T, args ...string) *server {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s := command(t, append(args, "--status-fd", "3", "--no-default-config")...)
	s.cmd.ExtraFiles = []*os.File{w}
	err = s.cmd.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.cmd.Process.Kill()
		s.cmd.Wait()
	})
	r.SetReadDeadline(time.Now().Add(30 * time.Second))
	buf := make([]byte, 2)
	if n, err := r.Read(buf); n != 1 || buf[0] != 0 {
		t.Fatalf("status descriptor: %d bytes % x, %v\n%s", n, buf[:n], err, &s.stderr)
	}
	return s
}

// exit waits for the stand-in and returns its exit code.
func (s *server) exit(t *testing.T) int {
	t.Helper()
	var ee *exec.ExitError
	if err := s.cmd.Wait(); err != nil && !errors.As(err, &ee) {
		t.Fatal(err)
	}
	return s.cmd.ProcessState.ExitCode()
}

func freeze(t *testing.T, scenarios ...string) (*criutest.Target, string) {
	t.Helper()
	tg, dir := criutest.Start(t, scenarios...), t.TempDir()
	tg.Dump(t, dir)
	return tg, dir
}

// restoreAndCheck restores dir, and checks that all went well with the tree and with the stand-in.
func restoreAndCheck(t *testing.T, s *server, tg *criutest.Target, dir, work string, roles ...string) {
	t.Helper()
	tg.Go(t)
	r := criutest.Restore(t, dir, work, "--lazy-pages")
	if err := r.Wait(t.Context()); err != nil {
		t.Errorf("criu restore: %v\n%s", err, r.Log())
	}
	if code := s.exit(t); code != 0 {
		t.Errorf("exit code %d\n%s", code, &s.stderr)
	}
	tg.Check(t, 1, roles...)
}

func TestPlainImagesAreServed(t *testing.T) {
	tg, dir := freeze(t, "plain", "tree")
	s := start(t, "-D", dir, "-o", "lazy-pages.log", "-vvvv")
	restoreAndCheck(t, s, tg, dir, dir, "root", "child", "grandchild")
	log, err := os.ReadFile(filepath.Join(dir, "lazy-pages.log"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(log), "complete or gone") {
		t.Errorf("the log file holds\n%s", log)
	}
	if s.stderr.Len() > 0 {
		t.Errorf("standard error holds\n%s", &s.stderr)
	}
	if _, err := os.Lstat(filepath.Join(dir, criu.SocketName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestSkeletonsAreServedFromTheStore(t *testing.T) {
	tg, dir := freeze(t, "plain")
	skeleton, work := t.TempDir(), t.TempDir()
	im, err := criu.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer im.Close()
	if err := im.WriteSkeleton(skeleton); err != nil {
		t.Fatal(err)
	}
	refused := command(t, "-D", skeleton, "-W", work, "--no-default-config")
	if err := refused.cmd.Run(); err == nil || !strings.Contains(refused.stderr.String(), "skeleton of a snapshot") {
		t.Errorf("without a store: %v\n%s", err, &refused.stderr)
	}
	t.Setenv(asStore, dir)
	s := start(t, "-D", skeleton, "-W", work)
	restoreAndCheck(t, s, tg, skeleton, work, "root")
}

func TestDaemonSignalsReadiness(t *testing.T) {
	tg, dir := freeze(t, "plain")
	work := t.TempDir()
	script := `echo "$CRTOOLS_SCRIPT_ACTION $(pwd) $(ls $CRTOOLS_IMAGE_DIR/pstree.img | wc -l)" > script.out`
	d := command(t, "--images-dir", dir, "--work-dir="+work, "--daemon", "--pidfile", "pid", "--log-file", "log", "-v3",
		"--action-script", script, "--no-default-config")
	out, err := d.cmd.Output()
	if err != nil || len(out) > 0 {
		t.Fatalf("starting the daemon: %v\n%s%s", err, out, &d.stderr)
	}
	pid := readPID(t, filepath.Join(work, "pid"))
	exited := watch(t, pid)
	r := criutest.Restore(t, dir, work, "--lazy-pages")
	tg.Go(t)
	if err := r.Wait(t.Context()); err != nil {
		t.Errorf("criu restore: %v\n%s", err, r.Log())
	}
	exited()
	tg.Check(t, 1, "root")
	got, err := os.ReadFile(filepath.Join(work, "script.out"))
	if want := "status-ready " + work + " 1\n"; err != nil || string(got) != want {
		t.Errorf("the script wrote %q, want %q, %v", got, want, err)
	}
}

// A daemon's log outlives its standard streams, and what is named by number is its own.
func TestDaemonKeepsWhatItIsGiven(t *testing.T) {
	tg, dir := freeze(t, "plain")
	work := t.TempDir()
	status, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer status.Close()
	log, logEnd, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if err := os.WriteFile(filepath.Join(work, "pid"), []byte("1234567 of a server that is gone"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := command(t, "-D", dir, "-W", work, "-d", "--pidfile", "pid", "-v3", "-o", "-", "--status-fd", "3", "--no-default-config")
	d.cmd.Stdout, d.cmd.ExtraFiles = logEnd, []*os.File{theirs}
	err = d.cmd.Run()
	theirs.Close()
	logEnd.Close()
	if err != nil {
		t.Fatalf("starting the daemon: %v\n%s", err, &d.stderr)
	}
	watch(t, readPID(t, filepath.Join(work, "pid")))
	status.SetReadDeadline(time.Now().Add(30 * time.Second))
	if got, err := io.ReadAll(status); err != nil || !bytes.Equal(got, []byte{0}) {
		t.Errorf("status descriptor: % x, %v", got, err)
	}
	tg.Go(t)
	r := criutest.Restore(t, dir, work, "--lazy-pages")
	if err := r.Wait(t.Context()); err != nil {
		t.Errorf("criu restore: %v\n%s", err, r.Log())
	}
	log.SetReadDeadline(time.Now().Add(30 * time.Second))
	if got, err := io.ReadAll(log); err != nil || !strings.Contains(string(got), "complete or gone") {
		t.Errorf("the log ends with %v and holds\n%s", err, got)
	}
	tg.Check(t, 1, "root")
}

// In a configuration file that CRIU reads too, the pidfile is the restored process's: CRIU refuses one that is there.
func TestOnlyADaemonWritesItsPID(t *testing.T) {
	tg, dir := freeze(t, "plain")
	s := start(t, "-D", dir, "--pidfile", "pid")
	if _, err := os.Stat(filepath.Join(dir, "pid")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there is a pidfile: %v", err)
	}
	restoreAndCheck(t, s, tg, dir, dir, "root")
}

func readPID(t *testing.T, name string) int {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(data))
	if err != nil {
		t.Fatalf("the pidfile holds %q", data)
	}
	return pid
}

// watch returns a function that waits for the end of a process that is not our child. It is killed if it lasts.
func watch(t *testing.T, pid int) (wait func()) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		unix.Close(fd)
	})
	return func() {
		t.Helper()
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 60_000)
		if n != 1 {
			t.Errorf("process %d does not end: %v", pid, err)
		}
	}
}

// CRIU's server ends when all memory is in place, whatever the processes do then.
func TestStandInDoesNotWaitForChildren(t *testing.T) {
	tg, dir := freeze(t, "offspring")
	s := start(t, "-D", dir)
	tg.Go(t)
	r := criutest.Restore(t, dir, dir, "--lazy-pages")
	if code := s.exit(t); code != 0 {
		t.Errorf("exit code %d\n%s", code, &s.stderr)
	}
	tg.Bye(t)
	if err := r.Wait(t.Context()); err != nil {
		t.Errorf("criu restore: %v\n%s", err, r.Log())
	}
	tg.Check(t, 1, "root")
}

func TestDaemonThatCannotStartSaysWhy(t *testing.T) {
	dir := t.TempDir()
	d := command(t, "-D", dir, "-d", "--pidfile", "pid", "--no-default-config")
	if err := d.cmd.Run(); err == nil || d.cmd.ProcessState.ExitCode() != 1 || !strings.Contains(d.stderr.String(), "inventory.img") {
		t.Errorf("%v\n%s", err, &d.stderr)
	}
	if _, err := os.Stat(filepath.Join(dir, "pid")); err == nil {
		t.Error("there is a pidfile")
	}
}

func TestFailedRestoreEndsTheStandIn(t *testing.T) {
	tg, dir := freeze(t, "plain")
	work := t.TempDir()
	s := start(t, "-D", dir, "-W", work)
	if err := os.Remove(filepath.Join(dir, "pagemap-"+strconv.Itoa(tg.PID)+".img")); err != nil {
		t.Fatal(err)
	}
	r := criutest.Restore(t, dir, work, "--lazy-pages")
	if err := r.Wait(t.Context()); err == nil {
		t.Error("CRIU restores broken images")
	}
	if code := s.exit(t); code != 1 || !strings.Contains(s.stderr.String(), "CRIU gave up the restore") {
		t.Errorf("exit code %d\n%s", code, &s.stderr)
	}
}

func TestSignalEndsTheStandIn(t *testing.T) {
	tg, dir := freeze(t, "plain")
	_ = tg
	s := start(t, "-D", dir)
	s.cmd.Process.Signal(unix.SIGTERM)
	if code := s.exit(t); code != 1 {
		t.Errorf("exit code %d\n%s", code, &s.stderr)
	}
	if _, err := os.Lstat(filepath.Join(dir, criu.SocketName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestSignalEndsTheStandInThatWaitsForAPageServer(t *testing.T) {
	_, dir := freeze(t, "plain")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	s := start(t, "-D", dir, "-W", work, "--page-server", "--address", "127.0.0.1", "--port", port)
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	criutest.Restore(t, dir, work, "--lazy-pages")
	if _, err := io.ReadFull(conn, make([]byte, 32)); err != nil { // a request, which is never answered
		t.Fatal(err)
	}
	s.cmd.Process.Signal(unix.SIGTERM)
	if code := s.exit(t); code != 1 {
		t.Errorf("exit code %d\n%s", code, &s.stderr)
	}
}

func TestSecondStandInFindsTheSocketTaken(t *testing.T) {
	tg, dir := freeze(t, "plain")
	work := t.TempDir()
	first := start(t, "-D", dir, "-W", work)
	second := command(t, "-D", dir, "-W", work, "--no-default-config")
	if err := second.cmd.Run(); err == nil || !strings.Contains(second.stderr.String(), "socket is taken") {
		t.Errorf("%v\n%s", err, &second.stderr)
	}
	restoreAndCheck(t, first, tg, dir, work, "root")
}

// needPageServer makes CRIU's own page server able to hand out pages, for the length of the test: it needs pipes of
// 4 MiB, for which it wants CAP_SYS_RESOURCE or a higher limit, and does not notice that it has not got them.
func needPageServer(t *testing.T) {
	t.Helper()
	const limit, want = "/proc/sys/fs/pipe-max-size", 4 << 20
	before, err := os.ReadFile(limit)
	if err != nil {
		t.Fatal(err)
	}
	size, err := strconv.Atoi(strings.TrimSpace(string(before)))
	if err != nil {
		t.Fatal(err)
	}
	if size >= want {
		return
	}
	if err := os.WriteFile(limit, []byte(strconv.Itoa(want)), 0); err != nil {
		t.Skipf("CRIU's page server needs pipes of 4 MiB: sysctl fs.pipe-max-size=%d: %v", want, err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(limit, before, 0); err != nil {
			t.Errorf("put back fs.pipe-max-size: %v", err)
		}
	})
}

func TestPagesComeFromAPageServer(t *testing.T) {
	needPageServer(t)
	tg, dir := freeze(t, "plain", "forks")
	port := freePort(t)
	ps := exec.Command(testenv.CRIU(t), "page-server", "--lazy-pages", "-D", dir, "--address", "127.0.0.1", "--port", port,
		"-v4", "-o", "page-server.log", "--status-fd", "3")
	startCRIU(t, ps)
	work := t.TempDir()
	s := start(t, "-D", dir, "-W", work, "--page-server", "--address", "127.0.0.1", "--port", port)
	restoreAndCheck(t, s, tg, dir, work, "root")
	checkEnd(t, ps, filepath.Join(dir, "page-server.log"))
}

func TestPagesComeFromALazyDump(t *testing.T) {
	needPageServer(t)
	tg, dir, port := criutest.Start(t, "plain"), t.TempDir(), freePort(t)
	dump := exec.Command(testenv.CRIU(t), "dump", "-t", strconv.Itoa(tg.PID), "-D", dir, "--lazy-pages", "--address", "127.0.0.1",
		"--port", port, "-v4", "-o", "dump.log", "--status-fd", "3", "--manage-cgroups=ignore")
	startCRIU(t, dump)
	if _, err := criu.Open(dir); !errors.Is(err, criu.ErrRemotePages) {
		t.Errorf("the images open without the page server: %v", err)
	}
	work := t.TempDir()
	s := start(t, "-D", dir, "-W", work, "--page-server", "--address", "127.0.0.1", "--port", port)
	restoreAndCheck(t, s, tg, dir, work, "root")
	checkEnd(t, dump, filepath.Join(dir, "dump.log"))
}

func checkEnd(t *testing.T, cmd *exec.Cmd, log string) {
	t.Helper()
	if err := cmd.Wait(); err != nil {
		data, _ := os.ReadFile(log)
		t.Errorf("%v: %v\n%s", cmd.Args, err, data[max(0, len(data)-2000):])
	}
}

// startCRIU starts a server of CRIU's that reports on descriptor 3 that it listens.
func startCRIU(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd.ExtraFiles = []*os.File{w}
	err = cmd.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	r.SetReadDeadline(time.Now().Add(30 * time.Second))
	if n, err := r.Read(make([]byte, 1)); n != 1 {
		t.Fatalf("%v does not get ready: %v", cmd.Args, err)
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}
