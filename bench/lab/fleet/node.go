package fleet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"thaw/bench/lab"
	"thaw/checkpoint"
	"thaw/control"
)

// Node is one machine of the fleet. Its methods are not safe for concurrent use, but for those of its place.
type Node struct {
	fleet  *Fleet
	number int
	name   string
	store  string // its folder
	own    bool   // the store is the fleet's to delete
	dir    string
	run    string
	space  *space
	link   *link
	via    *delay // what others reach it by, nil if that is the node itself
	thawd  *program
	client *control.Client
}

const peerPort = "7000"

// Name is what its certificate says.
func (n *Node) Name() string { return n.name }

// Place is where a lab can restore, while the node runs.
func (n *Node) Place() *lab.Place {
	return &lab.Place{Name: n.name, Store: n.store, Thawd: n.client, PID: n.thawd.cmd.Process.Pid}
}

// Thawd asks the node's thawd.
func (n *Node) Thawd() *control.Client { return n.client }

// listens is where the node's peers find it themselves, reach is what they are told.
func (n *Node) listens() string {
	return net.JoinHostPort(address(firstNodeAt+n.number).String(), peerPort)
}

func (n *Node) reach() string {
	if n.via != nil {
		return n.via.listener.Addr().String()
	}
	return n.listens()
}

// newNode makes a node that does not run yet.
func (f *Fleet) newNode(number int, store string) (_ *Node, err error) {
	name := fmt.Sprintf("node-%d", number)
	n := &Node{fleet: f, number: number, name: name, store: store, dir: filepath.Join(f.config.Dir, name), run: filepath.Join(f.config.Run, name)}
	if store == "" {
		n.store, n.own = filepath.Join(n.dir, "store"), true
	}
	f.nodes = append(f.nodes, n)
	if err := errors.Join(os.MkdirAll(n.dir, 0o700), os.MkdirAll(n.run, 0o700)); err != nil {
		return nil, err
	}
	n.client = control.NewClient(n.socket())
	if err := n.Certify(certificateLife); err != nil {
		return nil, err
	}
	if n.space, err = newSpace(); err != nil {
		return nil, err
	}
	n.link, err = join(f.hub, n.space, name, address(firstNodeAt+number))
	return n, err
}

// Certify gives the node a new key and a certificate for it that holds for so long from now on, also while it runs. One that is negative is over.
func (n *Node) Certify(life time.Duration) error {
	certificate, err := n.fleet.authority.Issue(n.name, life)
	if err != nil {
		return err
	}
	_, err = certificate.Write(n.keys())
	return err
}

func (n *Node) socket() string { return filepath.Join(n.dir, "thawd.sock") }
func (n *Node) keys() string   { return filepath.Join(n.dir, "keys") }

// Sources says where a node looks for what it does not have.
type Sources struct {
	// Peers are the other nodes it knows. Nil: none, and nobody can ask it.
	Peers []*Node
	// NoObjectStore leaves the object store out.
	NoObjectStore bool
	// Push has the node push to the object store what it has.
	Push bool
	// Unprepared has the node make nothing for its peers before they ask.
	Unprepared bool
}

// Start runs the node's thawd, with more flags of thawd serve.
func (n *Node) Start(ctx context.Context, from Sources, flags ...string) error {
	args := []string{"serve", "--store", n.store, "--socket", n.socket(), "--run-dir", n.run, "--record-share", "0"}
	if !from.NoObjectStore {
		args = append(args, "--object-store", n.fleet.objects.url)
	}
	if from.Push {
		args = append(args, "--push")
	}
	if from.Peers != nil {
		var known []string
		for _, p := range from.Peers {
			known = append(known, p.name+"="+p.reach())
		}
		args = append(args, "--peer-listen", n.listens(), "--peer-keys", n.keys(), "--peer-access", n.fleet.access(), "--peers", strings.Join(known, ","))
	}
	if from.Unprepared {
		args = append(args, "--peer-made", "0")
	}
	cmd := exec.Command(n.fleet.config.Thawd, append(args, flags...)...)
	cmd.Env = append(os.Environ(), credentials()...)
	var err error
	if n.thawd, err = startProgram(n.space, cmd, n.Log()); err != nil {
		return err
	}
	return n.thawd.await(ctx, func() bool {
		_, err := n.client.Health(ctx)
		return err == nil
	})
}

// Log is the path of what thawd writes, over all of its starts.
func (n *Node) Log() string { return filepath.Join(n.dir, "thawd.log") }

// Stop ends the node's thawd in order. No process may need it any more.
func (n *Node) Stop() { n.end(syscall.SIGTERM) }

// Kill ends the node's thawd at once, as if the node had lost its power.
func (n *Node) Kill() { n.end(syscall.SIGKILL) }

func (n *Node) end(signal syscall.Signal) {
	if n.thawd != nil {
		n.thawd.stop(signal)
		n.thawd = nil
	}
	if n.client != nil {
		n.client.Close() // of idle connections
	}
}

// Wipe makes the node one that has never seen a snapshot. It must not run, and its store must be the fleet's.
func (n *Node) Wipe() error {
	if !n.own || n.thawd != nil {
		return fmt.Errorf("%s runs, or its store is not ours", n.name)
	}
	return checkpoint.RemoveAll(n.store)
}

// Cut takes the node's link away, or brings it back.
func (n *Node) Cut(off bool) error { return n.link.cut(off) }

// Received returns how many bytes have come to the node, with the heads of packets and frames.
func (n *Node) Received() (uint64, error) { return n.link.received() }

// Run runs a program in the node's network, with the credentials for the object store, and returns what it prints.
func (n *Node) Run(ctx context.Context, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), credentials()...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := n.space.start(cmd); err != nil {
		return nil, err
	}
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", filepath.Base(program), args[0], err, strings.TrimSpace(errs.String()))
	}
	return []byte(out.String()), nil
}

// Pushed waits until the object store has everything that the node had when it was started, which was with Push.
func (n *Node) Pushed(ctx context.Context, snapshots int) error {
	return n.until(ctx, func(t *control.Tiers) (bool, error) {
		switch {
		case t.Push == nil:
			return false, fmt.Errorf("%s does not push", n.name)
		case t.Push.Failed > 0:
			return false, fmt.Errorf("%s cannot push: %s", n.name, t.Push.LastError)
		}
		return t.Push.Waiting == 0 && t.Push.Pushed >= uint64(snapshots), nil
	})
}

// Prepared waits until the node has made what its peers will ask for of the snapshots that it had when it was started, which was with peers and not
// Unprepared.
func (n *Node) Prepared(ctx context.Context) error {
	return n.until(ctx, func(t *control.Tiers) (bool, error) {
		if t.Made == nil { // it has not looked yet
			return false, nil
		}
		if t.Made.Failed > 0 {
			return false, fmt.Errorf("%s cannot prepare what it has for its peers: %s", n.name, t.Made.LastError)
		}
		return t.Made.Waiting == 0, nil
	})
}

// until waits until what thawd says of the places beyond its store is as wanted.
func (n *Node) until(ctx context.Context, is func(t *control.Tiers) (bool, error)) error {
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for {
		t, err := n.client.Tiers(ctx)
		if err != nil {
			return err
		}
		if done, err := is(t); done || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// listen listens in the node's network.
func (n *Node) listen(port int) (net.Listener, error) {
	return n.space.listen(net.JoinHostPort(address(firstNodeAt+n.number).String(), strconv.Itoa(port)))
}

func (n *Node) close() error {
	n.Stop()
	var errs []error
	if n.via != nil {
		errs = append(errs, n.via.close())
	}
	if n.space != nil {
		errs = append(errs, n.space.close())
	}
	return errors.Join(append(errs, checkpoint.RemoveAll(n.run))...)
}

// each does something with all nodes at the same time.
func each(nodes []*Node, f func(n *Node) error) error {
	errs := make([]error, len(nodes))
	var all sync.WaitGroup
	for i, n := range nodes {
		all.Go(func() { errs[i] = f(n) })
	}
	all.Wait()
	return errors.Join(errs...)
}
