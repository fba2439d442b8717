package fleet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// A program is one that runs in a namespace.
type program struct {
	cmd   *exec.Cmd
	log   string        // path of what it writes
	ended chan struct{} // closed when it has
	err   error         // how, after ended
}

// startProgram starts a program. A group of its own keeps it from the terminal's interrupt: we end it, after what depends on it.
func startProgram(s *space, cmd *exec.Cmd, log string) (*program, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.start(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	p := &program{cmd: cmd, log: log, ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		p.err = cmd.Wait()
	}()
	return p, nil
}

const (
	startPatience = 30 * time.Second
	stopPatience  = 20 * time.Second
	lookInterval  = 5 * time.Millisecond
)

// errNotUp: a program ended, or went on for too long, before it was of use.
var errNotUp = errors.New("it does not answer")

// await waits until the program answers.
func (p *program) await(ctx context.Context, answers func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for !answers() {
		select {
		case <-tick.C:
			continue
		case <-p.ended:
		case <-ctx.Done():
		}
		return fmt.Errorf("%s: %w: %s", p.cmd.Path, errNotUp, p.tail())
	}
	return nil
}

// stop sends the program a signal and waits for its end, which it forces if it has to.
func (p *program) stop(signal syscall.Signal) {
	_ = p.cmd.Process.Signal(signal) // it may have ended
	force := time.AfterFunc(stopPatience, func() { _ = p.cmd.Process.Kill() })
	defer force.Stop()
	<-p.ended
}

// tail returns the last bytes of what the program wrote, for an error.
func (p *program) tail() string {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(data[max(0, len(data)-4000):]))
}
