package snapshot

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"thaw/checkpoint"
	"thaw/control"
)

// ThawOptions are the options of [Thaw].
type ThawOptions struct {
	// Session says what to restore, and how its memory is brought.
	Session control.SessionRequest

	// Copy has all memory copied. Default: what is fit for it is mapped from the store's packs, if the process sees them: a
	// plain process does, a container whose bundle binds their folder.
	Copy bool

	// Container restores into a container of runc's, from a bundle. Default: a plain process, as it was frozen.
	Container *ContainerOptions
}

// binds returns where the process will see folders of this host, as far as that may be of use.
func (o *ThawOptions) binds() ([]control.Bind, error) {
	switch {
	case o.Copy:
		return nil, nil
	case o.Container == nil:
		return []control.Bind{{Source: "/", Target: "/"}}, nil
	}
	mounts, err := checkpoint.BundleFolders(o.Container.Bundle)
	if err != nil {
		return nil, err
	}
	var out []control.Bind
	for _, m := range mounts {
		if !filepath.IsAbs(m.Source) || !filepath.IsAbs(m.Target) {
			continue // runc takes it, and we can do without
		}
		out = append(out, control.Bind{Source: m.Source, Target: m.Target})
	}
	return out, nil
}

// ContainerOptions name the container that a snapshot is restored into.
type ContainerOptions struct {
	ID     string // name of the new container
	Bundle string // absolute path of its bundle
	Stdio  checkpoint.Stdio
}

// Thawed is a process that runs again.
type Thawed struct {
	// PID is the first process, in our pid namespace.
	PID int

	// Container is set if the process runs in one.
	Container *checkpoint.Container

	// Session is the session that brings its memory.
	Session *control.Session

	// ToRunning is how long it took from the request for the session until the process ran.
	ToRunning time.Duration

	// Warnings say what the process may miss on this host.
	Warnings []string
}

// Thaw restores a snapshot: it has thawd make a session and the runtime restore from it, and returns when the process
// runs. If the restore fails nothing of it is left.
func Thaw(ctx context.Context, client *control.Client, tools *checkpoint.Tools, o ThawOptions) (*Thawed, error) {
	begin := time.Now()
	binds, err := o.binds()
	if err != nil {
		return nil, err
	}
	o.Session.Binds = append(o.Session.Binds, binds...)
	p, err := Begin(ctx, client, &o.Session)
	if err != nil {
		return nil, err
	}
	t, err := p.Restore(ctx, tools, o.Container)
	if err != nil {
		return nil, err
	}
	t.ToRunning = time.Since(begin)
	return t, nil
}

// Pending is a session that no runtime has connected to yet: half of a [Thaw]. thawd reads ahead for it, while its owner makes what else the
// restore needs. Not safe for concurrent use.
type Pending struct {
	client  *control.Client
	session *control.Session
	host    Host
	begin   time.Time
}

// Begin has thawd make a session. The caller calls Restore or Cancel.
func Begin(ctx context.Context, client *control.Client, r *control.SessionRequest) (*Pending, error) {
	p := &Pending{client: client, begin: time.Now()}
	var err error
	if p.session, err = client.CreateSession(ctx, r); err != nil {
		return nil, err
	}
	if p.host, err = parseHost(p.session.Host); err != nil {
		return nil, errors.Join(err, p.Cancel(ctx))
	}
	return p, nil
}

// Session returns the session.
func (p *Pending) Session() *control.Session { return p.session }

// Cancel takes the session back. The context's end does not keep it from that.
func (p *Pending) Cancel(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return cancelSession(ctx, p.client, p.session.ID)
}

// Restore has the runtime restore from the session, and returns when the process runs: a plain process if c is nil, else a container whose
// bundle has the binds that the session was asked for. If that fails nothing of it is left, nor of the session.
func (p *Pending) Restore(ctx context.Context, tools *checkpoint.Tools, c *ContainerOptions) (*Thawed, error) {
	t := &Thawed{Session: p.session}
	if err := t.restore(ctx, tools, &p.host, c); err != nil {
		return nil, explain(ctx, p.client, tools, p.session.ID, err)
	}
	t.ToRunning = time.Since(p.begin)
	here := thisHost()
	t.Warnings = p.host.lacks(&here)
	return t, nil
}

// restore has the runtime restore from the session.
func (t *Thawed) restore(ctx context.Context, tools *checkpoint.Tools, host *Host, c *ContainerOptions) error {
	o := checkpoint.RestoreOptions{
		Images: t.Session.ImagesDir, Work: t.Session.WorkDir, Lazy: true,
		ShellJob: host.ShellJob, TCPEstablished: host.TCPEstablished, FileLocks: host.FileLocks,
		ExternalUnixSockets: host.ExternalUnixSockets,
	}
	if c == nil {
		p, err := tools.RestoreProcess(ctx, o)
		if err != nil {
			return err
		}
		t.PID = p.PID
		return p.Close()
	}
	container, err := tools.RestoreContainer(ctx, checkpoint.RestoreContainerOptions{
		ID: c.ID, Bundle: c.Bundle, RestoreOptions: o, Stdio: c.Stdio,
	})
	if err != nil {
		return err
	}
	t.PID, t.Container = container.PID, container
	return nil
}

// explain adds to the runtime's error what else is known: that a page could not be had, or that CRIU is too old. Neither is
// asked for before something has failed, because a restore is in a hurry. A session that nobody will connect to any more
// is cancelled; one that has failed stays in thawd's list, and its work folder with CRIU's log too.
func explain(ctx context.Context, client *control.Client, tools *checkpoint.Tools, id string, err error) error {
	// The request must go out even if the restore was interrupted.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err = needsRoot(err)
	if pidTaken(err) {
		err = fmt.Errorf("%w: %w", ErrPIDTaken, err)
	}
	if old := checkCRIU(ctx, tools); old != nil {
		err = fmt.Errorf("%w: %w", old, err)
	}
	session, sessionErr := client.Session(ctx, id)
	switch {
	case sessionErr != nil:
		return errors.Join(err, fmt.Errorf("ask thawd for session %s: %w", id, sessionErr))
	case session.FailedPage != nil:
		return fmt.Errorf("thawd: %s: %w", session.Error, err)
	case session.State == control.StateWaiting:
		return errors.Join(err, cancelSession(ctx, client, id))
	}
	return err
}

// ErrPIDTaken says that a number that the frozen process had, or one of its children, is in use on this host. CRIU gives
// processes the numbers that they had.
var ErrPIDTaken = errors.New("a process has the number of the frozen one")

// pidTaken reports whether CRIU failed for want of a process number. It has no code for that, only words; if they change,
// the error is merely less clear.
func pidTaken(err error) bool {
	var tool *checkpoint.Error
	return errors.As(err, &tool) && slices.ContainsFunc(tool.Lines, func(line string) bool {
		return strings.Contains(line, "Can't fork for") && strings.Contains(line, "File exists")
	})
}

// cancelSession cancels a session that nobody will connect to.
func cancelSession(ctx context.Context, client *control.Client, id string) error {
	if err := client.DeleteSession(ctx, id); err != nil && !errors.Is(err, control.CodeNotFound) {
		return fmt.Errorf("cancel session %s: %w", id, err)
	}
	return nil
}
