package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"thaw/bench/demo/internal/report"
	"thaw/control"
)

// snapshotName is what the frozen container is called in the store.
const snapshotName = "demo"

// thawd is a thawd of the lab's own, with a store that holds the frozen container. Not safe for concurrent use.
type thawd struct {
	client *control.Client
	cmd    *exec.Cmd
	log    *os.File
}

// pollInterval is how often thawd is asked for its state where the clock is off.
const pollInterval = 5 * time.Millisecond

// startThawd starts a thawd on the store, into which it imports the images first if that is still to be done. The lab ends
// it. name tells its files apart from those of another thawd.
func (l *Lab) startThawd(ctx context.Context, name string, flags ...string) (*thawd, error) {
	if l.snapshot.StoreBytes == 0 {
		if err := l.step("import into the page store", func() (string, error) { return l.importImages(ctx) }); err != nil {
			return nil, err
		}
	}
	var d *thawd
	err := l.step("start "+name, func() (_ string, err error) {
		d, err = startThawd(ctx, l.config.Thawd, l.store(), filepath.Join(l.work, name), flags)
		return "", err
	})
	if d != nil {
		l.servers = append(l.servers, d)
	}
	return d, err
}

func (l *Lab) store() string { return filepath.Join(l.work, "store") }

// packs is the folder in the store that the container sees as packsTarget, a folder that there is in every root file system.
func (l *Lab) packs() string { return filepath.Join(l.store(), "namespaces", "default", "packs") }

const packsTarget = "/mnt"

// importImages puts the frozen container into the store.
func (l *Lab) importImages(ctx context.Context) (string, error) {
	start := time.Now()
	cmd := exec.CommandContext(ctx, l.config.Thaw, "snapshot", "import", "--store", l.store(), "--json", "--name", snapshotName, l.images)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("thaw import: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	s := &l.snapshot
	s.ImportSeconds = time.Since(start).Seconds()
	s.ImportRate = float64(s.ImageBytes) / s.ImportSeconds
	var err error
	if s.StoreBytes, err = diskUsage(l.store()); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s, %s/s", report.Bytes(float64(s.StoreBytes)), report.Bytes(s.ImportRate)), nil
}

// startThawd starts thawd with its files in dir, and returns when it answers.
func startThawd(ctx context.Context, binary, store, dir string, flags []string) (*thawd, error) {
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
	args := append([]string{"serve", "--store", store, "--socket", socket, "--run-dir", filepath.Join(dir, "sessions")}, flags...)
	cmd := exec.Command(binary, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		log.Close()
		return nil, fmt.Errorf("start thawd: %w", err)
	}
	d := &thawd{client: control.NewClient(socket), cmd: cmd, log: log}
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
	// A thawd that waits for a session that cannot end would keep the demo for ever.
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
	called report.Mode
	stream control.Stream

	session *control.Session // nil when there is none
}

func (m *thawMode) name() report.Mode { return m.called }

func (m *thawMode) restore(ctx context.Context, t *trial) error {
	var err error
	request := control.SessionRequest{Snapshot: snapshotName, WorkDir: t.work, Stream: m.stream}
	if m.called == report.Thaw {
		request.Binds = []control.Bind{{Source: t.lab.packs(), Target: packsTarget}, {Source: t.lab.config.Rootfs, Target: "/"}}
	}
	m.session, err = m.thawd.client.CreateSession(ctx, &request)
	if err != nil {
		return err
	}
	t.listening = time.Now()
	return t.restore(ctx, m.session.ImagesDir, m.session.WorkDir, true)
}

func (m *thawMode) served(ctx context.Context, _ *trial, _ faults) (*uint64, error) {
	s, err := m.thawd.client.Session(ctx, m.session.ID)
	if err != nil {
		return nil, err
	}
	var total uint64
	for _, n := range s.Counters.Faults {
		total += n
	}
	return &total, nil
}

func (m *thawMode) server() int { return m.thawd.cmd.Process.Pid }

// settle waits until thawd has brought everything.
func (m *thawMode) settle(ctx context.Context, _ *trial) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		s, err := m.thawd.client.Session(ctx, m.session.ID)
		switch {
		case err != nil:
			return err
		case s.State == control.StateFailed:
			return fmt.Errorf("thawd's session failed: %s", s.Error)
		case s.State.Ended():
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// cleanup takes back a session that no restore has connected to. One that has served a container ends with it.
func (m *thawMode) cleanup(*trial) error {
	if m.session == nil {
		return nil
	}
	id := m.session.ID
	m.session = nil
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		err := m.thawd.client.DeleteSession(ctx, id)
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
