package checkpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Error says that CRIU or runc failed, with the tool's own words.
type Error struct {
	// Op is the tool and its verb, such as "runc restore".
	Op string
	// Err is how the tool ended, usually an *exec.ExitError.
	Err error
	// Log is the path of CRIU's log, empty if there is none.
	Log string
	// Lines are the last lines that the tool said about its failure: CRIU's from its log, runc's own behind them.
	Lines []string
}

// Error returns the failure in one line.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %v", e.Op, e.Err)
	if len(e.Lines) > 0 {
		fmt.Fprintf(&b, ": %s", strings.Join(e.Lines, "; "))
	}
	if e.Log != "" {
		fmt.Fprintf(&b, " (log: %s)", e.Log)
	}
	return b.String()
}

// Unwrap returns how the tool ended.
func (e *Error) Unwrap() error { return e.Err }

// run is one run of a tool: what to start, and where its words are found when it fails.
type run struct {
	op      string
	cmd     *exec.Cmd
	criuLog string // CRIU's log file, empty if CRIU is not involved
	runcLog string // runc's log file, empty if runc is not involved
}

// stopGrace is how long a tool that was told to stop may take before it is killed. CRIU thaws the process it is
// dumping when it is told to stop; killed, it leaves the process frozen.
const stopGrace = 5 * time.Second

// killDelay is how long a tool may take to end behind stopGrace, and how long its end may wait for its words.
const killDelay = time.Second

// do runs the tool until it ends. A cancelled context tells the tool, and the CRIU that runc started, to stop.
func (t *Tools) do(ctx context.Context, r run) error {
	var stderr bytes.Buffer
	if r.cmd.Stderr == nil {
		r.cmd.Stderr = &stderr
	}
	// runc starts CRIU as its child in its own process group, so one signal to the group reaches both.
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	r.cmd.Cancel = func() error { return stop(r.cmd.Process.Pid) }
	r.cmd.WaitDelay = killDelay

	start := time.Now()
	err := r.cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		// The tool ended well, and what it left behind (a restored process, say) holds our pipe of its words.
		err = nil
	}
	if ctx.Err() != nil && r.cmd.Process != nil {
		// The leader is gone; a CRIU that did not listen must not go on alone.
		_ = unix.Kill(-r.cmd.Process.Pid, unix.SIGKILL)
	}
	t.log().Debug("ran tool", "op", r.op, "duration", time.Since(start), "err", err)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("%w (%w)", context.Cause(ctx), err)
	}
	return r.failure(err, stderr.String())
}

// stopInterval is how often a restore that was told to stop is searched for processes.
const stopInterval = 20 * time.Millisecond

// stop tells the process group of a tool to stop, and returns when its leader has ended or has had its time. A restore
// that waits for its processes does not listen: those are killed, which CRIU takes for a failure and cleans up behind. A
// dump has none of its own.
func stop(leader int) error {
	p, err := openProcess(leader)
	if err != nil {
		return err
	}
	defer p.Close()
	if err := unix.Kill(-leader, unix.SIGTERM); err != nil {
		return err
	}
	for deadline := time.Now().Add(stopGrace); time.Now().Before(deadline); {
		for _, stray := range holdStrays(leader) {
			_ = stray.Kill()
			stray.Close()
		}
		ctx, cancel := context.WithTimeout(context.Background(), stopInterval)
		err := p.Wait(ctx)
		cancel()
		if err == nil {
			return nil
		}
	}
	return nil
}

// maxLines bounds the words of a failed tool in an error; the rest is in its log.
const maxLines = 4

// failure makes the error of a failed run.
func (r *run) failure(err error, stderr string) *Error {
	e := &Error{Op: r.op, Err: err}
	if r.criuLog != "" {
		if lines, readErr := criuErrors(r.criuLog, maxLines); readErr == nil {
			e.Log, e.Lines = r.criuLog, lines
		}
	}
	own := runcErrors(r.runcLog)
	if len(own) == 0 {
		own = nonEmptyLines(stderr)
	}
	if n := len(own); n > maxLines {
		own = own[n-maxLines:]
	}
	for _, line := range own {
		if !slices.Contains(e.Lines, line) {
			e.Lines = append(e.Lines, line)
		}
	}
	return e
}
