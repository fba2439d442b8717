package instance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"thaw/checkpoint"
	"thaw/control"
	"thaw/function/network"
	"thaw/function/rootfs"
	"thaw/pagestore"
)

// HostOptions say where instances live, and with what they work.
type HostOptions struct {
	// Dir is the host's folder, absolute, on a file system that can hold what instances write (it must not be an overlay). What instances
	// need while they live is below it; their layers, unless Layers is set, outlive the host there.
	Dir string

	// Layers is the folder for what frozen instances had written, absolute, on the same file system as Dir. Default: "layers" in Dir.
	Layers string

	// CRIU and Runc are the paths of the tools; empty: those in PATH.
	CRIU, Runc string

	// Store is where snapshots go, and Thawd serves it. Without Store nothing is frozen, without Thawd nothing is restored. Both stay the
	// caller's.
	Store *pagestore.Store
	Thawd *control.Client

	// SDK is the folder, absolute, with the Python package thaw.
	SDK string

	// Network makes the namespaces; it stays the caller's. Default: one of the host's own, without a bridge.
	Network *network.Network

	// Ask, if it is set, changes what thawd is asked for with each restore. For measurements of what a restore would cost without it.
	Ask func(*control.SessionRequest)

	// Logger hears of what instances do. Nil: nobody does.
	Logger *slog.Logger
}

// Host is where instances live. It is safe for concurrent use.
type Host struct {
	options HostOptions
	tools   *checkpoint.Tools
	network *network.Network
	lock    *os.File
}

// ErrBusy is returned by [Open] if the folder belongs to a host that is open.
var ErrBusy = errors.New("host folder is in use by another process")

// Open makes a host in its folder, and removes the instances that an earlier owner of the folder has left, who must be gone.
func Open(ctx context.Context, o HostOptions) (_ *Host, err error) {
	for _, path := range []string{o.Dir, o.SDK} {
		if !filepath.IsAbs(path) {
			return nil, fmt.Errorf("open host: %q is not an absolute path", path)
		}
	}
	ours := o.Layers == "" // a folder of somebody else's may have layers that are just being written
	if ours {
		o.Layers = filepath.Join(o.Dir, "layers")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	h := &Host{options: o}
	h.tools = &checkpoint.Tools{CRIU: o.CRIU, Runc: o.Runc, StateDir: h.path("state"), Logger: o.Logger}
	for _, dir := range []string{o.Dir, o.Layers, h.path("instances")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("open host: %w", err)
		}
	}
	if h.lock, err = own(o.Dir); err != nil {
		return nil, fmt.Errorf("open host: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.lock.Close())
		}
	}()
	err = h.sweep(ctx)
	if ours && err == nil {
		err = h.sweepLayers()
	}
	if err != nil {
		return nil, fmt.Errorf("open host: remove what an earlier owner of %s has left: %w", o.Dir, err)
	}
	if h.network = o.Network; h.network == nil {
		if h.network, err = network.Open(network.Options{Dir: h.path("net"), Logger: o.Logger}); err != nil {
			return nil, fmt.Errorf("open host: %w", err)
		}
	}
	return h, nil
}

// path returns the path of what has a name in the host's folder.
func (h *Host) path(elem ...string) string {
	return filepath.Join(append([]string{h.options.Dir}, elem...)...)
}

// own takes the folder's lock, which its owner's end gives back.
func own(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrBusy
		}
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), f.Close())
	}
	return f, nil
}

// sweep deletes all containers of the folder, then what they were made of.
func (h *Host) sweep(ctx context.Context) error {
	ids, err := h.tools.Containers()
	if err != nil {
		return err
	}
	var errs []error
	for _, id := range ids {
		h.options.Logger.Info("remove a container that was left", "instance", id)
		c, err := h.tools.Container(ctx, id)
		if err == nil {
			err = c.Delete(ctx)
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return err // what is below may be in use
	}
	entries, err := os.ReadDir(h.path("instances"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		dir := h.path("instances", e.Name())
		errs = append(errs, checkpoint.UnmountBelow(dir), checkpoint.RemoveAll(dir))
	}
	return errors.Join(errs...)
}

// sweepLayers removes layers that no snapshot needs: those whose freeze or removal did not come to its end.
func (h *Host) sweepLayers() error {
	if h.options.Store == nil {
		return nil
	}
	if same, err := h.sameStore(); err != nil || !same {
		return err
	}
	names, err := filepath.Glob(filepath.Join(h.options.Layers, "*", "*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range names {
		name := pagestore.Name{Namespace: filepath.Base(filepath.Dir(dir)), Snapshot: filepath.Base(dir)}
		snap, err := h.options.Store.Snapshot(name)
		switch {
		case err == nil:
			errs = append(errs, snap.Close())
		case errors.Is(err, pagestore.ErrNotFound), errors.Is(err, pagestore.ErrName):
			h.options.Logger.Info("remove a layer without a snapshot", "layer", dir)
			errs = append(errs, rootfs.RemoveLayer(dir))
		}
	}
	return errors.Join(errs...)
}

// sameStore reports whether the layers are those of the host's store, which it notes the first time: whoever names another store by mistake must
// not lose what belongs to the snapshots of the first. The name of the file is none of a namespace.
func (h *Host) sameStore() (bool, error) {
	path, here := filepath.Join(h.options.Layers, ".store"), h.options.Store.Dir()
	known, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, os.WriteFile(path, []byte(here), 0o600)
	case err != nil:
		return false, err
	case string(known) != here:
		h.options.Logger.Warn("layers of another store's snapshots stay", "layers", h.options.Layers, "their_store", string(known), "store", here)
		return false, nil
	}
	return true, nil
}

// layerDir returns where the layer of a snapshot is.
func (h *Host) layerDir(name pagestore.Name) string {
	return filepath.Join(h.options.Layers, name.Namespace, name.Snapshot)
}

// errNoStore is returned where there is nothing that snapshots could be in.
var errNoStore = errors.New("the host has no store")

// RemoveSnapshot removes a snapshot and its layer. Instances that were restored from it keep their memory, but none may still have its layer
// below it. A snapshot that is not there is fine.
func (h *Host) RemoveSnapshot(ctx context.Context, name pagestore.Name) error {
	if h.options.Store == nil {
		return errNoStore
	}
	if err := h.options.Store.Remove(ctx, name); err != nil && !errors.Is(err, pagestore.ErrNotFound) {
		return err
	}
	return rootfs.RemoveLayer(h.layerDir(name))
}

// Close gives the folder back. All instances must be closed.
func (h *Host) Close() error {
	var errs []error
	if h.options.Network == nil {
		errs = append(errs, h.network.Close())
	}
	for _, dir := range []string{h.path("instances"), h.path("state")} {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, h.lock.Close())...)
}
