package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"thaw/cmd/internal/cli"
	"thaw/internal/testenv"
	"thaw/restore/tracer/trace"
)

// recorder is a thaw trace record that runs.
type recorder struct {
	file string
	end  func(os.Signal) result // sends the signal, if it is not nil, and waits
}

// record starts to record a process, and returns when thaw says that it does.
func (p *place) record(t *testing.T, pid int, args ...string) *recorder {
	t.Helper()
	testenv.NeedTracing(t)
	r := &recorder{file: filepath.Join(p.dir, "out.trace")}
	cmd := p.command("thaw", append([]string{"trace", "record", "--pid", fmt.Sprint(pid), "-o", r.file}, args...)...)
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	lines := bufio.NewReader(stderr)
	if first, err := lines.ReadString('\n'); err != nil || !strings.Contains(first, "recording from") {
		t.Fatalf("it says %q, %v", first, err)
	}
	r.end = func(s os.Signal) result {
		t.Helper()
		if s != nil {
			if err := cmd.Process.Signal(s); err != nil {
				t.Fatal(err)
			}
		}
		rest, err := io.ReadAll(lines)
		if err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		return result{cmd.ProcessState.ExitCode(), stdout.String(), string(rest)}
	}
	return r
}

// mustRead returns the trace that was written.
func (r *recorder) mustRead(t *testing.T) *trace.Trace {
	t.Helper()
	f, err := os.Open(r.file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tr, err := trace.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func TestTraceIsRecordedUntilInterrupted(t *testing.T) {
	p := newPlace(t)
	f := startTarget(t, p)
	defer f.kill(t)
	r := p.record(t, f.pid)
	f.mustRemember(t) // it opens a file, at least
	if res := r.end(os.Interrupt); res.code != 0 || !strings.Contains(res.stdout, "pages of") {
		t.Fatalf("exit code %d, %q, %s", res.code, res.stdout, res.stderr)
	}
	if tr := r.mustRead(t); !tr.Complete() || tr.End != trace.EndStopped || len(tr.Chosen()) != 1 || len(tr.Regions) == 0 {
		t.Errorf("the trace is %v, complete: %t, of %d, with %d regions", tr.End, tr.Complete(), tr.Chosen(), len(tr.Regions))
	}
	var s struct {
		Complete bool
		PIDs     []int
		Point    string
		Blind    []string `json:"cannot_see"`
		Pages    uint64
		Regions  []struct{ Name string }
	}
	p.must(t, &s, "trace", "show", r.file, "--json")
	if !s.Complete || len(s.PIDs) != 1 || s.PIDs[0] != f.pid || s.Point == "" || len(s.Blind) < 3 {
		t.Errorf("show prints %+v", s)
	}
	if text := p.must(t, nil, "trace", "show", r.file).stdout; !strings.Contains(text, s.Point) || !strings.Contains(text, "MAPPING") {
		t.Errorf("show says to people:\n%s", text)
	}
}

func TestTraceEndsWithItsProcessOrItsTime(t *testing.T) {
	p := newPlace(t)
	f := startTarget(t, p)
	defer f.kill(t)
	r := p.record(t, f.pid, "--duration", "1ms")
	if res := r.end(nil); res.code != 0 {
		t.Errorf("exit code %d: %s", res.code, res.stderr)
	}
	if tr := r.mustRead(t); tr.End != trace.EndStopped {
		t.Errorf("the trace is %v", tr.End)
	}
	again := p.record(t, f.pid)
	f.kill(t)
	if res := again.end(nil); res.code != 0 {
		t.Errorf("exit code %d: %s", res.code, res.stderr)
	}
	if tr := again.mustRead(t); tr.End != trace.EndExited {
		t.Errorf("the trace is %v", tr.End)
	}
}

func TestTraceThatLostTouchesSaysSo(t *testing.T) {
	p := newPlace(t)
	// It waits for a line, and then forks and executes, which touches many pages.
	cmd := exec.Command("/bin/sh", "-c", "read line; /bin/true; /bin/true")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := p.record(t, cmd.Process.Pid, "--max-pages", "1")
	in.Close()
	cmd.Wait() // "read" fails at the end of its input, and the shell goes on
	res := r.end(nil)
	if res.code != 0 || !strings.Contains(res.stderr, "lost") || !strings.Contains(res.stderr, "--max-pages") {
		t.Errorf("exit code %d: %s", res.code, res.stderr)
	}
	if text := p.must(t, nil, "trace", "show", r.file).stdout; !strings.Contains(text, "NOT complete") {
		t.Errorf("show says to people:\n%s", text)
	}
}

func TestExitCodesOfTrace(t *testing.T) {
	p := newPlace(t)
	garbage := filepath.Join(p.dir, "garbage")
	if err := os.WriteFile(garbage, []byte("no trace"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(p.dir, "out.trace")
	for _, tt := range []struct {
		name, args string
		want       cli.Code
		says       string
	}{
		{"neither a process nor a cgroup", "trace record -o " + out, cli.Usage, "pid"},
		{"both", "trace record --pid 1 --cgroup / -o " + out, cli.Usage, "cgroup"},
		{"no file", "trace record --pid 1", cli.Usage, "output"},
		{"a number that is no process", "trace record --pid -4 -o " + out, cli.Usage, "-4"},
		{"a buffer that is none", "trace record --pid 1 --buffer much -o " + out, cli.Usage, "much"},
		{"no pages", "trace record --pid 1 --max-pages 0 -o " + out, cli.Usage, "max-pages"},
		{"a time before now", "trace record --pid 1 -d -1s -o " + out, cli.Usage, "duration"},
		{"a folder that is no cgroup", "trace record --cgroup / -o " + out, cli.Usage, "cgroup"},
		{"a process that does not exist", "trace record --pid 2147483647 -o " + out, cli.NotFound, "2147483647"},
		{"a folder that does not exist", "trace record --pid 1 -o /nonexistent/x", cli.NotFound, "/nonexistent"},
		{"two files to show", "trace show a b", cli.Usage, "one file"},
		{"a file that does not exist", "trace show nosuch", cli.NotFound, "nosuch"},
		{"a file that is no trace", "trace show " + garbage, cli.Corrupt, garbage},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := p.thaw(t, strings.Fields(tt.args)...)
			if r.code != int(tt.want) || !strings.Contains(r.stderr, tt.says) {
				t.Errorf("exit code %d, want %d: %s", r.code, tt.want, r.stderr)
			}
			if _, err := os.Stat(out); err == nil {
				t.Error("it wrote a trace")
			}
		})
	}
}

func TestTraceWithoutPermissionSaysWhatToGrant(t *testing.T) {
	testenv.NeedTracing(t)
	p := newPlace(t)
	if err := os.Chmod(p.dir, 0o777); err != nil {
		t.Fatal(err)
	}
	const nobody = 65534
	r := p.as(t, nobody, "trace", "record", "--pid", fmt.Sprint(os.Getpid()), "-o", filepath.Join(p.dir, "out.trace"))
	if r.code != int(cli.Permission) || !strings.Contains(r.stderr, "CAP_BPF and CAP_PERFMON") {
		t.Errorf("exit code %d, want %d: %s", r.code, cli.Permission, r.stderr)
	}
}
