package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"thaw/checkpoint"
)

// trial is one start of a container: its name, folders, streams and, once it runs, the container and its memory server.
// Not safe for concurrent use.
type trial struct {
	lab    *Lab
	frozen *Frozen
	input  Input // what it is asked
	id     string
	packs  string // the folder of packs that the container sees
	dir    string // of this trial alone
	bundle string
	rootfs string // the root file system, mounted for this trial alone
	work   string
	talk   *conversation
	client client // how it is asked

	container *checkpoint.Container // nil until it runs
	server    server                // of this container's memory
	listening time.Time             // when the server listened, zero if there is none for this trial alone
	greets    bool                  // the process begins by saying that it is ready
	closed    bool
}

// trials counts those of this process, to name their cgroups apart, which are the machine's and not a lab's.
var trials atomic.Uint64

// newTrial makes the folders, the bundle and the streams of a container, which is to be asked an input.
func (l *Lab) newTrial(f *Frozen, input Input) (*trial, error) {
	return l.newTrialWith(f, input, l.packs())
}

// newTrialWith makes a trial whose container sees the packs of another store than the lab's.
func (l *Lab) newTrialWith(f *Frozen, input Input, packs string) (*trial, error) {
	// The number of our process tells the containers of two programs on one machine apart.
	id := fmt.Sprintf("thaw-lab-%d-%d", os.Getpid(), trials.Add(1))
	dir := filepath.Join(l.work, "trials", id)
	t := &trial{
		lab: l, frozen: f, input: input, id: id, packs: packs, dir: dir, server: noServer{},
		bundle: filepath.Join(dir, "bundle"), rootfs: filepath.Join(dir, "rootfs"), work: filepath.Join(l.run, id),
	}
	err := errors.Join(os.MkdirAll(t.work, 0o700), os.MkdirAll(t.rootfs, 0o755))
	if err == nil {
		err = mountPrivately(l.config.Rootfs, t.rootfs)
	}
	if err == nil {
		err = t.describe().Write(t.bundle)
	}
	if err == nil {
		t.talk, err = newConversation()
	}
	if err != nil {
		return nil, errors.Join(err, t.remove())
	}
	t.client = t.talk
	if port := f.Workload.Port; port != 0 {
		t.client = &web{trial: t, port: port}
	}
	return t, nil
}

// mountPrivately binds a folder to another, so that what is mounted below one of them is not seen below the other.
//
// To restore a container runc mounts its binds below the root file system, in our mount namespace, and unmounts them again.
// Where several do so in one place at the same time, one may find its mount covered by another's that is just going away, take it
// for gone already, and leave it there for good (runc 1.1, prepareCriuRestoreMounts).
func mountPrivately(source, target string) error {
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s to %s: %w", source, target, err)
	}
	if err := unix.Mount("", target, "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mount at %s private: %w", target, err)
	}
	return nil
}

// describe returns the container. All containers of a workload are the same but for their cgroup.
func (t *trial) describe() *checkpoint.Bundle {
	w := &t.frozen.Workload
	return &checkpoint.Bundle{
		Rootfs: t.rootfs,
		// The bind keeps its target's name in the container, whatever the script is called.
		Args: append([]string{"python3", "/srv/" + filepath.Base(w.Script)}, w.Args...),
		Env: []string{
			"HF_HUB_OFFLINE=1",
			"HOME=/tmp",
			"LANG=C.UTF-8",
			// A container shares its cores: threads of a parallel section that wait must not spin. Where they do, a warm
			// call takes ten times as long as soon as anything else runs.
			"OMP_WAIT_POLICY=PASSIVE",
		},
		Binds: []checkpoint.Bind{{
			Source: filepath.Dir(filepath.Join(t.lab.config.Examples, w.Script)),
			Target: "/srv",
		}, {
			// Where the container sees the packs of the store that it will be in.
			Source: t.packs,
			Target: packsTarget,
		}},
		CgroupsPath: "/" + t.id,
	}
}

// run starts the container from its bundle.
func (t *trial) run(ctx context.Context) error {
	var err error
	t.container, err = t.lab.tools.RunContainer(ctx, checkpoint.RunOptions{
		ID: t.id, Bundle: t.bundle, Work: t.work, Stdio: t.talk.theirs,
	})
	t.talk.handedOver()
	return err
}

// restore starts the container from images.
func (t *trial) restore(ctx context.Context, images, work string, lazy bool) error {
	var err error
	t.container, err = t.lab.tools.RestoreContainer(ctx, checkpoint.RestoreContainerOptions{
		ID:             t.id,
		Bundle:         t.bundle,
		RestoreOptions: checkpoint.RestoreOptions{Images: images, Work: work, Lazy: lazy},
		Stdio:          t.talk.theirs,
	})
	t.talk.handedOver()
	return err
}

// firstAnswer waits for the answer to what was put ahead before the container ran, and returns when it came.
func (t *trial) firstAnswer(ctx context.Context) (*answer, time.Time, error) {
	if t.greets {
		if err := t.talk.ready(ctx); err != nil {
			return nil, time.Time{}, err
		}
	}
	return t.client.first(ctx)
}

// request returns what the container is asked, want what it has to answer.
func (t *trial) request() Request { return t.frozen.Workload.request(t.input) }
func (t *trial) want() *answer    { return t.frozen.want[t.input] }

// close ends the container and its memory server, and removes everything that is the trial's own. Closing again does
// nothing.
func (t *trial) close() error {
	if t.closed {
		return nil
	}
	t.closed = true
	var err error
	// The container first: it must not go on without the server that holds its memory.
	if t.container != nil {
		err = t.container.Delete(context.Background())
	}
	err = errors.Join(err, t.server.close())
	t.talk.close()
	return errors.Join(err, t.remove())
}

// remove removes the trial's folders.
func (t *trial) remove() error {
	return errors.Join(removeFolder(t.dir), removeFolder(t.work))
}
