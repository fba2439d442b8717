package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"thaw/checkpoint"
)

// trial is one start of the container: its name, folders, streams and, once it runs, the container. Not safe for
// concurrent use.
type trial struct {
	lab    *Lab
	id     string
	dir    string // of this trial alone
	bundle string
	work   string
	talk   *conversation

	container *checkpoint.Container // nil until it runs
	listening time.Time             // when the memory server of this trial listened, zero if it has none
	greets    bool                  // the process begins by saying that it is ready
	closed    bool
}

// newTrial makes the folders, the bundle and the streams of a container.
func (l *Lab) newTrial() (*trial, error) {
	l.started++
	// The number of our process tells the containers of two labs on one machine apart.
	id := fmt.Sprintf("thaw-demo-%d-%d", os.Getpid(), l.started)
	dir := filepath.Join(l.work, "trials", id)
	t := &trial{lab: l, id: id, dir: dir, bundle: filepath.Join(dir, "bundle"), work: filepath.Join(dir, "work")}
	if err := os.MkdirAll(t.work, 0o700); err != nil {
		return nil, err
	}
	bundle := checkpoint.Bundle{
		Rootfs: l.config.Rootfs,
		// The bind keeps its target's name in the container, whatever the script is called.
		Args: []string{"python3", "/srv/" + filepath.Base(l.config.Workload.Script)},
		Env: []string{
			"HF_HUB_OFFLINE=1",
			"HOME=/tmp",
			"LANG=C.UTF-8",
			// A container shares its cores: threads of a parallel section that wait must not spin. Where they do, a warm
			// call takes ten times as long as soon as anything else runs.
			"OMP_WAIT_POLICY=PASSIVE",
		},
		Binds: []checkpoint.Bind{{
			Source: filepath.Dir(filepath.Join(l.config.Examples, l.config.Workload.Script)),
			Target: "/srv",
		}, {
			// Where the container sees the packs of the store that it will be in.
			Source: l.packs(),
			Target: packsTarget,
		}},
		CgroupsPath: "/" + id,
	}
	if err := bundle.Write(t.bundle); err != nil {
		return nil, err
	}
	var err error
	if t.talk, err = newConversation(); err != nil {
		return nil, err
	}
	return t, nil
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

// kill ends the container, if it runs. The trial's other things stay.
func (t *trial) kill() error {
	if t.container == nil {
		return nil
	}
	err := t.container.Delete(context.Background())
	t.container = nil
	return err
}

// close ends the container and removes everything that is the trial's own. Closing again does nothing.
func (t *trial) close() error {
	if t.closed {
		return nil
	}
	t.closed = true
	err := t.kill()
	t.talk.close()
	return errors.Join(err, checkpoint.UnmountBelow(t.dir), checkpoint.RemoveAll(t.dir))
}
