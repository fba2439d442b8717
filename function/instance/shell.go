package instance

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"thaw/checkpoint"
	"thaw/function/network"
	"thaw/function/rootfs"
	"thaw/function/runner"
)

// shell is an instance without a process.
type shell struct {
	host    *Host
	spec    Spec
	id      string
	dir     string
	devices []device
	layers  []*rootfs.Layer // below what it writes, the newest first
	overlay *rootfs.Overlay
	ns      *network.Namespace

	theirs checkpoint.Stdio // the container's ends of the pipes, until they are handed over
	log    *runner.Log
	client *runner.Client
}

// newShell makes a shell, with the layers of a snapshot below it. On an error nothing of it is left.
// If it is attached it has its network from the start.
func (h *Host) newShell(spec *Spec, layers []*rootfs.Layer, attached bool) (_ *shell, err error) {
	if err := spec.check(); err != nil {
		return nil, err
	}
	s := &shell{host: h, spec: *spec, id: newID(spec.Name), layers: layers}
	s.dir = h.path("instances", s.id)
	if s.devices, err = spec.devices(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("make instance %s: %w", s.id, err), s.remove())
		}
	}()
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		return nil, err
	}
	// A namespace takes the kernel as long as all the rest.
	var g errgroup.Group
	g.Go(func() (err error) {
		if attached {
			s.ns, err = h.network.NewAttached(s.id)
		} else {
			s.ns, err = h.network.New(s.id)
		}
		return err
	})
	g.Go(func() (err error) {
		s.overlay, err = spec.Root.Mount(filepath.Join(s.dir, "overlay"), layers)
		if err == nil && len(layers) == 0 {
			err = s.emptyDev()
		}
		return errors.Join(err, s.writeFiles())
	})
	g.Go(s.openPipes)
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return s, s.bundle().Write(s.bundleDir())
}

// newID returns a name that nobody has.
func newID(name string) string {
	var random [6]byte
	_, _ = rand.Read(random[:]) // never fails
	return "thaw-" + name + "-" + hex.EncodeToString(random[:])
}

func (s *shell) bundleDir() string  { return filepath.Join(s.dir, "bundle") }
func (s *shell) workDir() string    { return filepath.Join(s.dir, "work") }
func (s *shell) hosts() string      { return filepath.Join(s.dir, "hosts") }
func (s *shell) resolvConf() string { return filepath.Join(s.dir, "resolv.conf") }

func (s *shell) hostname() string {
	if s.spec.Hostname == "" {
		return s.id
	}
	return s.spec.Hostname
}

// writeFiles writes the files of the host that the container sees. They are changed in place later: the container sees the file, not its name.
func (s *shell) writeFiles() error {
	hosts := "127.0.0.1\tlocalhost\n::1\tlocalhost\n127.0.1.1\t" + s.hostname() + "\n"
	return errors.Join(os.WriteFile(s.hosts(), []byte(hosts), 0o644), os.WriteFile(s.resolvConf(), nil, 0o644))
}

// emptyDev has the instance's /dev begin empty, and not as the root has it: runc keeps a node that is there, also where it is a link, and hides
// files of /proc behind /dev/null. Layers have what runc has made.
func (s *shell) emptyDev() error {
	dev := filepath.Join(s.overlay.Root(), "dev")
	if err := checkpoint.RemoveAll(dev); err != nil {
		return err
	}
	if err := os.Mkdir(dev, 0o755); err != nil {
		return err
	}
	return os.Chmod(dev, 0o755) // against the umask
}

// openPipes makes the standard streams.
func (s *shell) openPipes() error {
	var ours [3]*os.File
	var err error
	if s.theirs.In, ours[0], err = os.Pipe(); err != nil {
		return err
	}
	if ours[1], s.theirs.Out, err = os.Pipe(); err != nil {
		return errors.Join(err, ours[0].Close())
	}
	if ours[2], s.theirs.Err, err = os.Pipe(); err != nil {
		return errors.Join(err, ours[0].Close(), ours[1].Close())
	}
	s.log = runner.NewLog(ours[2], s.spec.Log)
	s.client = runner.New(ours[0], ours[1], s.log)
	return nil
}

// handedOver closes our copies of the container's ends, so that the end of the container ends its streams.
func (s *shell) handedOver() {
	for _, f := range []**os.File{&s.theirs.In, &s.theirs.Out, &s.theirs.Err} {
		if *f != nil {
			(*f).Close()
			*f = nil
		}
	}
}

// logPatience is how long the end of a log may come behind that of its container.
const logPatience = 10 * time.Second

// remove removes all. No process may be left. What was not made is passed over.
func (s *shell) remove() error {
	s.handedOver()
	var errs []error
	if s.client != nil {
		errs = append(errs, s.client.Close())
		s.log.Close(logPatience)
	}
	if s.ns != nil {
		errs = append(errs, s.ns.Close())
	}
	if s.overlay != nil {
		errs = append(errs, s.overlay.Remove())
	}
	return errors.Join(append(errs, checkpoint.UnmountBelow(s.dir), checkpoint.RemoveAll(s.dir))...)
}

// connect attaches the network, if the spec says so. Doing so again does nothing.
func (s *shell) connect(ctx context.Context) error {
	if !s.spec.Network || ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := s.ns.Attach(); err != nil {
		return err
	}
	return os.WriteFile(s.resolvConf(), []byte(s.host.network.ResolvConf()), 0o644)
}
