package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"thaw/internal/ownthread"
)

// Namespace is a network namespace that is bound to a path. It is safe for concurrent use.
type Namespace struct {
	net  *Network
	name string
	path string

	mu sync.Mutex
	// protected by mu
	addr   netip.Prefix // not valid while it is not attached
	closed bool
}

// New makes a namespace with the loopback interface up, and nothing else. name is its file's name in the network's folder.
func (n *Network) New(name string) (*Namespace, error) {
	if name == "" || filepath.Base(name) != name || name == "." || name == ".." {
		return nil, fmt.Errorf("name of a network namespace %q is no file's name", name)
	}
	ns := &Namespace{net: n, name: name, path: filepath.Join(n.nsDir(), name)}
	n.mu.Lock()
	_, exists := n.open[name]
	closed := n.closed
	if !exists && !closed {
		n.open[name] = ns
	}
	n.mu.Unlock()
	switch {
	case closed:
		return nil, fmt.Errorf("network %s: %w", n.options.Dir, ErrClosed)
	case exists:
		return nil, fmt.Errorf("network namespace %s: %w", name, fs.ErrExist)
	}
	if err := bind(ns.path); err != nil {
		return nil, errors.Join(fmt.Errorf("make network namespace %s: %w", name, err), ns.Close())
	}
	return ns, nil
}

// Path returns where the namespace is bound: what a bundle names.
func (ns *Namespace) Path() string { return ns.path }

// Addr returns the address and the subnet of the namespace, not valid while it is not attached.
func (ns *Namespace) Addr() netip.Prefix {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	return ns.addr
}

// Attach connects the namespace to the network's bridge: interface eth0, an address, a default route. A namespace that is attached stays so.
func (ns *Namespace) Attach() error {
	if ns.net.bridge == nil {
		return ErrNoBridge
	}
	ns.mu.Lock()
	defer ns.mu.Unlock()
	switch {
	case ns.closed:
		return fmt.Errorf("network namespace %s: %w", ns.name, ErrClosed)
	case ns.addr.IsValid():
		return nil
	}
	addr, err := ns.net.pool.take()
	if err != nil {
		return err
	}
	prefix := ns.net.pool.prefix(addr)
	if err := ns.net.bridge.attach(ns.path, prefix, ns.net.pool.gateway); err != nil {
		ns.net.pool.release(addr)
		return fmt.Errorf("attach network namespace %s: %w", ns.name, err)
	}
	ns.addr = prefix
	return nil
}

// Close takes the namespace's connection and its path away, and gives its address back. Processes in it stay, with the loopback
// interface. Closing again does nothing.
func (ns *Namespace) Close() error {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if ns.closed {
		return nil
	}
	ns.closed = true
	var errs []error
	if ns.addr.IsValid() {
		// At once, so that nobody else's packets come here by the address.
		errs = append(errs, ns.net.bridge.detach(ns.addr.Addr()))
		ns.net.pool.release(ns.addr.Addr())
		ns.addr = netip.Prefix{}
	}
	errs = append(errs, unbind(ns.path))
	ns.net.mu.Lock()
	delete(ns.net.open, ns.name)
	ns.net.mu.Unlock()
	return errors.Join(errs...)
}

// bind makes a network namespace and binds it to path.
func bind(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return ownthread.Run(func() error { return bindNew(path) })
}

// bindNew moves this thread to a new network namespace, sets its loopback interface up, and binds it to the file at path.
func bindNew(path string) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := setLoopbackUp(); err != nil {
		return fmt.Errorf("set the loopback interface up: %w", err)
	}
	if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	return nil
}

// setLoopbackUp sets the loopback interface of this thread's network namespace up.
func setLoopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}

// unbind takes the namespace at path away, and the file with it. A path that is gone is fine.
func unbind(path string) error {
	// EINVAL: nothing is mounted there.
	if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && err != unix.EINVAL && err != unix.ENOENT {
		return &fs.PathError{Op: "unmount", Path: path, Err: err}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
