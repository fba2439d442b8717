package network

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

var (
	// ErrBusy is returned by [Open] if the folder belongs to a network that is open.
	ErrBusy = errors.New("network is in use by another process")
	// ErrBridgeTaken is returned by [Open] if there is an interface of the bridge's name that is not this network's.
	ErrBridgeTaken = errors.New("there is an interface of this name, which another one has made")
	// ErrSubnetTaken is returned by [Open] if another interface of this host has addresses of the network's subnet: two roads would lead there.
	ErrSubnetTaken = errors.New("another interface has addresses of this subnet")
	// ErrNoBridge is returned by [Namespace.Attach] in a network without a bridge.
	ErrNoBridge = errors.New("network has no bridge")
	// ErrNoAddress is returned by [Namespace.Attach] if all addresses of the subnet are in use.
	ErrNoAddress = errors.New("no address is free")
	// ErrClosed is returned for what is asked of a network after its end.
	ErrClosed = os.ErrClosed
)

// Options say what kind of network it is.
type Options struct {
	// Dir is the folder of the network, absolute. Everything below it is the network's, and is removed.
	Dir string

	// Bridge is the name of the bridge that namespaces are attached to; it is made, and removed at the end. Empty: namespaces have
	// nothing but their loopback interface.
	Bridge string

	// Subnet holds the addresses of the bridge (the first) and of what is attached (the others). It must be set if Bridge is. Only IPv4.
	Subnet netip.Prefix

	// Masquerade lets what is attached reach other networks in the name of the host. It needs a kernel with nftables, and the host must
	// forward packets (net.ipv4.ip_forward), which this package does not turn on.
	Masquerade bool

	// Spares is how many namespaces are attached ahead, for NewAttached. Default: none.
	Spares int

	// Nameservers are written into the resolv.conf of what is attached. Default: those of the host that a container can reach.
	Nameservers []netip.Addr

	// Logger hears of what an earlier owner has left. Nil: nobody does.
	Logger *slog.Logger
}

func (o *Options) check() error {
	switch {
	case !filepath.IsAbs(o.Dir):
		return fmt.Errorf("folder of the network %q is not absolute", o.Dir)
	case o.Bridge == "":
		return nil
	case len(o.Bridge) >= unix.IFNAMSIZ:
		return fmt.Errorf("bridge %q: a name has at most %d bytes", o.Bridge, unix.IFNAMSIZ-1)
	case !o.Subnet.IsValid() || !o.Subnet.Addr().Is4() || o.Subnet.Bits() > 30:
		return fmt.Errorf("subnet %v of bridge %s is no IPv4 subnet with room for two addresses", o.Subnet, o.Bridge)
	}
	return nil
}

// Network makes namespaces. It is safe for concurrent use.
type Network struct {
	options Options
	lock    *os.File
	bridge  *bridge // nil if there is none
	pool    *pool   // nil if there is no bridge
	spares  spares

	mu sync.Mutex
	// protected by mu
	open   map[string]*Namespace // by name
	closed bool
}

// Open makes a network in its folder, and removes what an earlier owner of the folder has left, which must be gone. Close ends it.
func Open(o Options) (_ *Network, err error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(filepath.Join(o.Dir, "ns"), 0o700); err != nil {
		return nil, err
	}
	n := &Network{options: o, open: make(map[string]*Namespace)}
	if n.lock, err = own(o.Dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.lock.Close())
		}
	}()
	if err := n.sweep(); err != nil {
		return nil, fmt.Errorf("remove what an earlier owner of %s has left: %w", o.Dir, err)
	}
	if o.Bridge == "" {
		return n, nil
	}
	n.pool = newPool(o.Subnet)
	n.bridge, err = openBridge(o.Bridge, o.Dir, n.pool.prefix(n.pool.gateway))
	if err != nil {
		return nil, err
	}
	if o.Masquerade {
		if err := masquerade(o.Bridge, o.Subnet); err != nil {
			return nil, errors.Join(fmt.Errorf("masquerade: %w", err), n.bridge.remove())
		}
	}
	n.spares.want = o.Spares
	n.spares.fill(n)
	return n, nil
}

// own takes the folder's lock. It is held until the file is closed, or its owner ends.
func own(dir string) (*os.File, error) {
	path := filepath.Join(dir, "lock")
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			if errors.Is(err, unix.EWOULDBLOCK) {
				err = ErrBusy
			}
			return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), f.Close())
		}
		// An owner that ends removes the file. The lock of a file without a name is of no use: the next one would not see it.
		ours, err1 := f.Stat()
		named, err2 := os.Stat(path)
		if err1 == nil && err2 == nil && os.SameFile(ours, named) {
			return f, nil
		}
		if err := errors.Join(err1, f.Close()); err != nil {
			return nil, err
		}
	}
}

// sweep removes the namespaces that an earlier owner has left. With a namespace that nobody is in any more go its interfaces.
func (n *Network) sweep() error {
	entries, err := os.ReadDir(n.nsDir())
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		n.options.Logger.Info("remove a network namespace that was left", "namespace", e.Name())
		errs = append(errs, unbind(filepath.Join(n.nsDir(), e.Name())))
	}
	return errors.Join(errs...)
}

func (n *Network) nsDir() string { return filepath.Join(n.options.Dir, "ns") }

// Bridge returns the name of the bridge, empty if there is none.
func (n *Network) Bridge() string { return n.options.Bridge }

// Close removes all namespaces that are still there, the bridge, and the folder. Whoever is in a namespace stays in it, without a
// connection. Closing again does nothing.
func (n *Network) Close() error {
	n.spares.close()
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return nil
	}
	n.closed = true
	left := make([]*Namespace, 0, len(n.open))
	for _, ns := range n.open {
		left = append(left, ns)
	}
	n.mu.Unlock()

	var errs []error
	for _, ns := range left {
		errs = append(errs, ns.Close())
	}
	if n.bridge != nil {
		if n.options.Masquerade {
			errs = append(errs, unmasquerade(n.options.Bridge))
		}
		errs = append(errs, n.bridge.remove())
	}
	for _, path := range []string{n.nsDir(), filepath.Join(n.options.Dir, "lock"), n.options.Dir} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, n.lock.Close())...)
}
