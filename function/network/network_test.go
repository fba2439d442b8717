package network

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"thaw/internal/ownthread"
	"thaw/internal/testenv"
)

// ownerEnv has the test program own a network in the folder that it names, until it is killed.
const ownerEnv = "THAW_TEST_NETWORK_OWNER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(ownerEnv); dir != "" {
		fmt.Println(ownAttached(dir))
		_, _ = io.Copy(io.Discard, os.Stdin)
		return
	}
	testenv.Main(m)
}

var subnet = netip.MustParsePrefix("10.213.78.0/28")

const testBridge = "thawtest2"

// ownAttached makes a network with a bridge, and a namespace in it.
func ownAttached(dir string) error {
	n, err := Open(Options{Dir: dir, Bridge: testBridge, Subnet: subnet, Masquerade: true})
	if err != nil {
		return err
	}
	ns, err := n.New("left")
	if err != nil {
		return err
	}
	return ns.Attach()
}

// inNamespace calls f on a thread in the network namespace at path.
func inNamespace(t *testing.T, path string, f func() error) {
	t.Helper()
	err := ownthread.Run(func() error {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			return err
		}
		return f()
	})
	if err != nil {
		t.Error(err)
	}
}

// apart runs the rest of the test on a thread in a network namespace of its own, whose interfaces and rules are nobody else's.
func apart(t *testing.T, f func()) {
	t.Helper()
	testenv.NeedRoot(t)
	err := ownthread.Run(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		f()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// mustOpen opens a network and has it closed when the test ends, on the same thread.
func mustOpen(t *testing.T, o Options) *Network {
	t.Helper()
	if o.Dir == "" {
		o.Dir = filepath.Join(t.TempDir(), "net")
	}
	n, err := Open(o)
	if err != nil {
		t.Error(err)
		runtime.Goexit()
	}
	return n
}

func mustNew(t *testing.T, n *Network, name string) *Namespace {
	t.Helper()
	ns, err := n.New(name)
	if err != nil {
		t.Error(err)
		runtime.Goexit()
	}
	return ns
}

// interfaces returns those of this thread's namespace that are up.
func interfaces() ([]string, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	var up []string
	for _, l := range links {
		if l.Attrs().Flags&net.FlagUp != 0 {
			up = append(up, l.Attrs().Name)
		}
	}
	slices.Sort(up)
	return up, nil
}

func TestANamespaceHasTheLoopbackInterfaceAlone(t *testing.T) {
	testenv.NeedRoot(t)
	n := mustOpen(t, Options{})
	ns := mustNew(t, n, "one")
	inNamespace(t, ns.Path(), func() error {
		up, err := interfaces()
		if diff := cmp.Diff([]string{"lo"}, up); diff != "" {
			t.Errorf("interfaces (-want +got):\n%s", diff)
		}
		return err
	})
	if err := ns.Attach(); !errors.Is(err, ErrNoBridge) {
		t.Errorf("attach: %v, want %v", err, ErrNoBridge)
	}
	if _, err := n.New("one"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second one of its name: %v, want %v", err, fs.ErrExist)
	}
	for _, name := range []string{"", ".", "..", "a/b"} {
		if _, err := n.New(name); err == nil {
			t.Errorf("name %q was taken", name)
		}
	}
	for range 2 {
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(ns.Path()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its path: %v, want that it is gone", err)
	}
	for range 2 {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(n.options.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the network's folder: %v, want that it is gone", err)
	}
	if _, err := n.New("late"); !errors.Is(err, ErrClosed) {
		t.Errorf("a namespace after the end: %v, want %v", err, ErrClosed)
	}
}

func TestAttachedNamespacesReachEachOther(t *testing.T) {
	apart(t, func() {
		n := mustOpen(t, Options{Bridge: testBridge, Subnet: subnet})
		one, two := mustNew(t, n, "one"), mustNew(t, n, "two")
		for _, ns := range []*Namespace{one, two, one} { // attached twice is attached
			if err := ns.Attach(); err != nil {
				t.Error(err)
			}
		}
		if one.Addr() == two.Addr() || !subnet.Contains(one.Addr().Addr()) || !subnet.Contains(two.Addr().Addr()) {
			t.Errorf("addresses are %v and %v", one.Addr(), two.Addr())
		}
		if got := remoteOf(t, one.Path(), two); got != one.Addr().Addr() {
			t.Errorf("a connection comes from %v, want %v", got, one.Addr())
		}
		inNamespace(t, one.Path(), func() error {
			routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(routes, func(r netlink.Route) bool { return r.Gw != nil && r.Gw.String() == "10.213.78.1" }) {
				t.Errorf("routes are %v, want one by the bridge", routes)
			}
			return nil
		})
		if err := one.Close(); err != nil {
			t.Error(err)
		}
		up, err := interfaces()
		if err != nil || len(up) != 2 || up[0] != testBridge {
			t.Errorf("the host has %v, %v; want the bridge and one end", up, err)
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		if up, err := interfaces(); err != nil || len(up) != 0 {
			t.Errorf("interfaces are left: %v, %v", up, err)
		}
	})
}

// remoteOf connects from the namespace at path to another, and returns from where the other sees it come.
func remoteOf(t *testing.T, from string, to *Namespace) (remote netip.Addr) {
	t.Helper()
	var l net.Listener
	inNamespace(t, to.Path(), func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(to.Addr().Addr(), 0).String())
		return err
	})
	if l == nil {
		return remote
	}
	defer l.Close()
	inNamespace(t, from, func() error {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return err
		}
		return conn.Close()
	})
	if t.Failed() {
		return remote
	}
	conn, err := l.Accept()
	if err != nil {
		t.Error(err)
		return remote
	}
	defer conn.Close()
	return conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
}

func TestMasqueradingGivesTheHostsAddressAndEndsWithTheNetwork(t *testing.T) {
	apart(t, func() {
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
			t.Error(err)
		}
		other := mustOpen(t, Options{Bridge: "thawtest3", Subnet: netip.MustParsePrefix("10.213.79.0/28")})
		outside := mustNew(t, other, "outside")
		if err := outside.Attach(); err != nil {
			t.Error(err)
		}
		for _, on := range []bool{false, true, false} {
			n := mustOpen(t, Options{Bridge: testBridge, Subnet: subnet, Masquerade: on})
			inside := mustNew(t, n, "inside")
			if err := inside.Attach(); err != nil {
				t.Error(err)
			}
			want := inside.Addr().Addr()
			if on {
				want = netip.MustParseAddr("10.213.79.1")
			}
			if got := remoteOf(t, inside.Path(), outside); got != want {
				t.Errorf("masquerade %t: a connection comes from %v, want %v", on, got, want)
			}
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		}
		if err := other.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestABridgeThatIsSomebodyElsesIsLeftAlone(t *testing.T) {
	apart(t, func() {
		theirs := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: testBridge}}
		if err := netlink.LinkAdd(theirs); err != nil {
			t.Error(err)
		}
		if _, err := Open(Options{Dir: filepath.Join(t.TempDir(), "net"), Bridge: testBridge, Subnet: subnet}); !errors.Is(err, ErrBridgeTaken) {
			t.Errorf("open: %v, want %v", err, ErrBridgeTaken)
		}
		if _, err := netlink.LinkByName(testBridge); err != nil {
			t.Errorf("it is gone: %v", err)
		}
	})
}

func TestAnotherInterfaceWithAddressesOfTheSubnetIsInTheWay(t *testing.T) {
	apart(t, func() {
		first, err := Open(Options{Dir: filepath.Join(t.TempDir(), "net"), Bridge: testBridge, Subnet: netip.MustParsePrefix("10.99.4.0/24")})
		if err != nil {
			t.Error(err)
			return
		}
		defer first.Close()
		for _, tt := range []struct {
			subnet string
			taken  bool
		}{{"10.99.4.0/24", true}, {"10.99.0.0/16", true}, {"10.99.5.0/24", false}, {"10.99.4.128/25", false}} {
			n, err := Open(Options{Dir: filepath.Join(t.TempDir(), "net"), Bridge: testBridge + "b", Subnet: netip.MustParsePrefix(tt.subnet)})
			if errors.Is(err, ErrSubnetTaken) != tt.taken || err != nil && !tt.taken {
				t.Errorf("%s: %v, taken: want %v", tt.subnet, err, tt.taken)
			}
			if err == nil {
				err = n.Close()
			}
			if _, gone := netlink.LinkByName(testBridge + "b"); gone == nil || err != nil && !tt.taken {
				t.Errorf("%s: the bridge is left; %v", tt.subnet, err)
			}
		}
	})
}

func TestANetworkHasOneOwner(t *testing.T) {
	testenv.NeedRoot(t)
	n := mustOpen(t, Options{})
	if _, err := Open(n.options); !errors.Is(err, ErrBusy) {
		t.Errorf("a second owner: %v, want %v", err, ErrBusy)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	again := mustOpen(t, n.options)
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

func TestWhatAKilledOwnerLeftIsRemoved(t *testing.T) {
	apart(t, func() {
		dir := filepath.Join(t.TempDir(), "net")
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), ownerEnv+"="+dir)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Error(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Error(err)
		}
		// A child has the network namespace of the thread that starts it.
		if err := cmd.Start(); err != nil {
			t.Error(err)
			return
		}
		if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "<nil>\n" {
			t.Errorf("the owner says %q, %v", line, err)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait()
		in.Close()
		if up, err := interfaces(); err != nil || len(up) != 2 {
			t.Errorf("the killed owner left %v, %v; want the bridge and an interface: the test tests nothing", up, err)
		}
		n := mustOpen(t, Options{Dir: dir, Bridge: testBridge, Subnet: subnet})
		if left, err := os.ReadDir(n.nsDir()); err != nil || len(left) != 0 {
			t.Errorf("namespaces are left: %v, %v", left, err)
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		// The kernel takes a namespace apart behind the scenes, and its interfaces with it.
		for up, err := interfaces(); len(up) > 0 || err != nil; up, err = interfaces() {
			if err != nil {
				t.Error(err)
			}
		}
	})
}

func TestOptionsThatMakeNoNetworkAreRefused(t *testing.T) {
	for name, o := range map[string]Options{
		"a relative folder":        {Dir: "net"},
		"a bridge without subnet":  {Dir: "/x", Bridge: "b"},
		"a subnet of IPv6":         {Dir: "/x", Bridge: "b", Subnet: netip.MustParsePrefix("fd00::/64")},
		"a subnet without room":    {Dir: "/x", Bridge: "b", Subnet: netip.MustParsePrefix("10.0.0.0/31")},
		"a name that is too long ": {Dir: "/x", Bridge: strings.Repeat("b", 16), Subnet: subnet},
	} {
		if _, err := Open(o); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func TestAddressesRestBeforeTheyAreUsedAgain(t *testing.T) {
	p := newPool(netip.MustParsePrefix("10.0.0.77/29")) // not its first address
	if p.gateway != netip.MustParseAddr("10.0.0.73") {
		t.Errorf("the gateway is %v", p.gateway)
	}
	var all []string
	take := func() {
		a, err := p.take()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, a.String())
	}
	for range 3 {
		take()
	}
	p.release(netip.MustParseAddr("10.0.0.74"))
	for range 3 {
		take()
	}
	want := []string{"10.0.0.74", "10.0.0.75", "10.0.0.76", "10.0.0.77", "10.0.0.78", "10.0.0.74"}
	if diff := cmp.Diff(want, all); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
	if _, err := p.take(); !errors.Is(err, ErrNoAddress) {
		t.Errorf("one more: %v, want %v", err, ErrNoAddress)
	}
}

func TestNameServersOnLoopbackAddressesAreLeftOut(t *testing.T) {
	got := nameservers("# a comment\nnameserver 127.0.0.53\nnameserver 10.1.2.3\nsearch x\nnameserver ::1\n nameserver fd00::1 \nnameserver\nnameserver x\n")
	want := []netip.Addr{netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("fd00::1")}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("name servers (-want +got):\n%s", diff)
	}
}
