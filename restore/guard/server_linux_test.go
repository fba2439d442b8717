package guard

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"thaw/uffd"
	"thaw/uffd/uffdtest"
)

// serverMain is a memory server that serves nothing. It holds the processes whose descriptors it has inherited, from
// 3 on, and obeys lines on standard input, each of which it answers. An argument says what there is of a process: "u"
// a userfaultfd, "up" a pidfd, too. The first argument says whether there is a guard: "guarded".
func serverMain(args []string) int {
	s := &testServer{}
	if args[0] == "guarded" {
		g, err := Start(context.Background(), nil)
		if err != nil {
			return fail(err)
		}
		s.guard = g
	}
	next := 3
	for i, spec := range args[1:] {
		fd, err := uffd.FromFD(next)
		if err != nil {
			return fail(err)
		}
		var pidfd *os.File
		if spec == "up" {
			pidfd = os.NewFile(uintptr(next+1), "pidfd")
		}
		next += len(spec)
		if err := s.hold(fd, pidfd, fmt.Sprintf("process %d", i)); err != nil {
			return fail(err)
		}
	}
	pid := 0
	if s.guard != nil {
		pid = s.guard.PID()
	}
	fmt.Println(pid)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if err := s.obey(in.Text()); err != nil {
			return fail(err)
		}
		fmt.Println("done")
	}
	return 0
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "server:", err)
	return 1
}

type testServer struct {
	guard   *Guard
	fds     []*uffd.FD
	release []func()
}

func (s *testServer) hold(fd *uffd.FD, pidfd *os.File, name string) error {
	s.fds = append(s.fds, fd)
	if s.guard == nil {
		return nil
	}
	release, err := s.guard.Hold(fd, pidfd, name)
	s.release = append(s.release, release)
	return err
}

// obey does one of "release N" and "fork N": wait for process N to fork, and hold the child.
func (s *testServer) obey(line string) error {
	var verb string
	var n int
	if _, err := fmt.Sscan(line, &verb, &n); err != nil {
		return err
	}
	if verb == "release" {
		s.release[n]()
		return s.fds[n].Close()
	}
	for {
		events := []unix.PollFd{{Fd: int32(s.fds[n].Fd()), Events: unix.POLLIN}}
		if _, err := unix.Poll(events, -1); err != nil && err != unix.EINTR {
			return err
		}
		var msgs [8]uffd.Message
		count, err := s.fds[n].ReadMessages(msgs[:])
		if err != nil {
			return err
		}
		for i := range msgs[:count] {
			if msgs[i].Kind() != uffd.EventFork {
				continue
			}
			child, err := uffd.FromFD(msgs[i].Fork())
			if err != nil {
				return err
			}
			return s.hold(child, nil, fmt.Sprintf("child of process %d", n))
		}
	}
}

// A server is a process that runs serverMain.
type server struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.Writer
	out   *bufio.Scanner
	guard int      // pid, 0 if there is none
	exit  *os.File // pidfd of the guard
}

// startServer runs a server for processes, with log as its standard error, and returns when it holds them. The
// descriptors of the processes are left with the server.
func startServer(t *testing.T, mode string, log *os.File, processes ...*process) *server {
	t.Helper()
	args := []string{"server", mode}
	cmd := exec.Command("/proc/self/exe")
	for _, p := range processes {
		spec := "u"
		cmd.ExtraFiles = append(cmd.ExtraFiles, p.file())
		if p.pidfd != nil {
			spec = "up"
			cmd.ExtraFiles = append(cmd.ExtraFiles, p.pidfd)
		}
		args = append(args, spec)
	}
	cmd.Args = append(cmd.Args, args...)
	cmd.Stderr = log
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, cmd: cmd, in: in, out: bufio.NewScanner(out)}
	t.Cleanup(s.kill)
	if _, err := fmt.Sscan(s.line(), &s.guard); err != nil {
		t.Fatal(err)
	}
	if s.guard != 0 {
		s.exit = pidfdOf(t, s.guard)
		t.Cleanup(func() { unix.PidfdSendSignal(int(s.exit.Fd()), unix.SIGKILL, nil, 0) })
	}
	for _, f := range cmd.ExtraFiles {
		f.Close()
	}
	for _, p := range processes {
		p.fd.Close()
	}
	return s
}

func (s *server) line() string {
	s.t.Helper()
	if !s.out.Scan() {
		s.t.Fatalf("server has ended: %v", s.out.Err())
	}
	return s.out.Text()
}

// tell sends a line and waits for the answer.
func (s *server) tell(format string, args ...any) {
	s.t.Helper()
	fmt.Fprintf(s.in, format+"\n", args...)
	if got := s.line(); got != "done" {
		s.t.Fatalf("server says %q", got)
	}
}

// kill kills the server, and returns when it has ended and so has let go of its descriptors.
func (s *server) kill() {
	if s.cmd.ProcessState == nil {
		s.cmd.Process.Kill()
		s.cmd.Wait()
	}
}

// awaitGuard waits until the guard has ended, and fails the test if it did not end well. Its server must be dead.
func (s *server) awaitGuard() {
	s.t.Helper()
	eventually(s.t, "the guard ends", func() bool {
		events := []unix.PollFd{{Fd: int32(s.exit.Fd()), Events: unix.POLLIN}}
		n, _ := unix.Poll(events, int(patience.Milliseconds()))
		return n == 1
	})
	var status unix.WaitStatus
	if _, err := unix.Wait4(s.guard, &status, 0, nil); err != nil {
		s.t.Fatal(err)
	}
	if !status.Exited() || status.ExitStatus() != 0 {
		s.t.Errorf("guard has ended with status %#x", status)
	}
}

func pidfdOf(t *testing.T, pid int) *os.File {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "pidfd of guard")
	t.Cleanup(func() { file.Close() })
	return file
}

// signal sends sig to the guard.
func (s *server) signal(sig unix.Signal) {
	s.t.Helper()
	if err := unix.PidfdSendSignal(int(s.exit.Fd()), sig, nil, 0); err != nil {
		s.t.Fatal(err)
	}
}

// hasState reports whether /proc says state of the process: 'T' is stopped.
func hasState(t *testing.T, pid int, state string) bool {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(after, state)
}

// A process is a target whose memory at region is registered and missing.
type process struct {
	*uffdtest.Target
	t     *testing.T
	fd    *uffd.FD
	pidfd *os.File // nil if the guard shall do without
}

var (
	region  = uffd.Range{Start: 0x10_0000_0000, End: 0x10_0000_0000 + 64*uffd.PageSize}
	scratch = uffd.Range{Start: 0x20_0000_0000, End: 0x20_0000_0000 + uffd.PageSize}
)

// newProcess starts a process with a pidfd.
func newProcess(t *testing.T) *process {
	t.Helper()
	target := uffdtest.Start(t)
	target.Map(region).Must()
	target.Map(scratch).Must()
	p := &process{Target: target, t: t, fd: target.Open(uffdtest.CRIUFeatures).Must(), pidfd: target.PIDFD()}
	t.Cleanup(func() { p.fd.Close(); p.pidfd.Close() })
	target.Register(region, uffd.ModeMissing).Must()
	target.Drop().Must()
	return p
}

// file returns a duplicate of the userfaultfd.
func (p *process) file() *os.File {
	p.t.Helper()
	fd, err := unix.FcntlInt(uintptr(p.fd.Fd()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), "userfaultfd")
}

// block has threads read missing pages, and returns when all of them sleep in the fault.
func (p *process) block(threads int) []*uffdtest.Call[[]uffdtest.Access] {
	p.t.Helper()
	calls := p.Touch(region, threads, 1)
	for faults := 0; faults < threads; {
		faults += len(uffdtest.Await(p.t, p.fd))
	}
	return calls
}
