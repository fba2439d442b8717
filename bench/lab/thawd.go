package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"thaw/control"
)

// thawd is a thawd of the lab's own, with a store that holds the frozen containers.
type thawd struct {
	client *control.Client
	number int // of the process
	cmd    *exec.Cmd
	log    *os.File
}

// pollInterval is how often thawd is asked for its state where the clock is off.
const pollInterval = 5 * time.Millisecond

// startThawd starts a thawd on the store, into which it imports first what is frozen and not in it yet. The lab ends it. name
// tells its files apart from those of another thawd.
func (l *Lab) startThawd(ctx context.Context, name string, flags ...string) (*thawd, error) {
	for _, f := range l.frozen {
		if err := l.importImages(ctx, f); err != nil {
			return nil, err
		}
	}
	var d *thawd
	err := l.step("start "+name, func() (_ string, err error) {
		d, err = startThawd(ctx, l.config.Thawd, l.store(), filepath.Join(l.work, name), filepath.Join(l.run, name), flags)
		return "", err
	})
	if d != nil {
		l.thawds = append(l.thawds, d)
	}
	return d, err
}

func (l *Lab) store() string { return filepath.Join(l.work, "store") }

// packs is the folder in the store that the container sees as packsTarget, a folder that there is in every root file system.
func (l *Lab) packs() string { return packsOf(l.store()) }

func packsOf(store string) string { return filepath.Join(store, "namespaces", "default", "packs") }

const packsTarget = "/mnt"

// startThawd starts thawd with its files in dir and its sessions' in run, and returns when it answers.
func startThawd(ctx context.Context, binary, store, dir, run string, flags []string) (*thawd, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "thawd.log"))
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "thawd.sock")
	// thawd ends when we tell it to, after the containers whose memory it holds; a group of its own keeps it from the
	// terminal's interrupt.
	args := append([]string{"serve", "--store", store, "--socket", socket, "--run-dir", run}, flags...)
	cmd := exec.Command(binary, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		log.Close()
		return nil, fmt.Errorf("start thawd: %w", err)
	}
	d := &thawd{client: control.NewClient(socket), number: cmd.Process.Pid, cmd: cmd, log: log}
	if err := d.waitReady(ctx); err != nil {
		return nil, errors.Join(err, d.stop())
	}
	return d, nil
}

func (d *thawd) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		_, err := d.client.Health(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("thawd does not answer (log: %s): %w", d.log.Name(), err)
		case <-tick.C:
		}
	}
}

// stop ends thawd. No container may need it any more.
func (d *thawd) stop() error {
	defer d.log.Close()
	defer d.client.Close()
	if err := d.cmd.Process.Signal(unix.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	// A thawd that waits for a session that cannot end would keep us for ever.
	kill := time.AfterFunc(10*time.Second, func() { _ = d.cmd.Process.Kill() })
	defer kill.Stop()
	if err := d.cmd.Wait(); err != nil {
		return fmt.Errorf("thawd: %w", err)
	}
	return nil
}

// thawMode restores with thawd. A session is made for one restore, so making it is a part of the restore; thawd itself
// runs on, as it does next to a runtime.
type thawMode struct {
	thawd  *thawd
	stream control.Stream
	mapped bool // let memory be mapped from the packs
	record bool // have recorded what is touched
	use    control.WorkingSetUse
}

func (m *thawMode) restore(ctx context.Context, t *trial) error {
	request := control.SessionRequest{Snapshot: t.frozen.name, WorkDir: t.work, Stream: m.stream, Record: m.record, WorkingSet: m.use}
	if m.mapped {
		request.Binds = []control.Bind{{Source: t.packs, Target: packsTarget}, {Source: t.lab.config.Rootfs, Target: "/"}}
	}
	made, err := m.thawd.client.CreateSession(ctx, &request)
	if err != nil {
		return err
	}
	t.server, t.listening = &session{thawd: m.thawd, id: made.ID}, time.Now()
	return t.restore(ctx, made.ImagesDir, made.WorkDir, true)
}

// session is what thawd does for one restore.
type session struct {
	thawd *thawd
	id    string
}

func (s *session) pid() int { return s.thawd.number }

func (s *session) served(ctx context.Context) (*uint64, error) {
	now, err := s.thawd.client.Session(ctx, s.id)
	if err != nil {
		return nil, err
	}
	var total uint64
	for _, n := range now.Counters.Faults {
		total += n
	}
	return &total, nil
}

// demanded returns how many pages were waited for so far.
func (s *session) demanded(ctx context.Context) (*uint64, error) {
	now, err := s.thawd.client.Session(ctx, s.id)
	if err != nil {
		return nil, err
	}
	n := now.Counters.DemandLate + now.Counters.DemandMissed
	return &n, nil
}

// settle waits until thawd has brought everything.
func (s *session) settle(ctx context.Context) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		now, err := s.thawd.client.Session(ctx, s.id)
		switch {
		case err != nil:
			return err
		case now.State == control.StateFailed:
			return fmt.Errorf("thawd's session failed: %s", now.Error)
		case now.State.Ended():
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// close takes back a session that no restore has connected to. One that has served a container ends with it.
func (s *session) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		err := s.thawd.client.DeleteSession(ctx, s.id)
		var refused *control.Error
		if !errors.As(err, &refused) || refused.Code != control.CodeWouldLoseMemory {
			return err
		}
		// The container's end has not reached thawd yet.
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}
