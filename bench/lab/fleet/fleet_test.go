package fleet

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"

	"thaw/internal/testenv"
)

func TestMain(m *testing.M) {
	before := pipes()
	// The standard library keeps the pipes through which it has the kernel pass on what a delay carries, and closes them when they are collected.
	testenv.AtExit(func() {
		for range 1000 {
			if pipes() <= before {
				return
			}
			runtime.GC()
		}
	})
	testenv.Main(m)
}

// pipes counts the descriptors of pipes.
func pipes() (n int) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	for _, e := range entries {
		if target, err := os.Readlink(filepath.Join("/proc/self/fd", e.Name())); err == nil && strings.HasPrefix(target, "pipe:") {
			n++
		}
	}
	return n
}

// newFleet makes a fleet without a thawd, which leaves nothing behind.
func newFleet(t *testing.T, nodes int) *Fleet {
	t.Helper()
	testenv.NeedRoot(t)
	dir := filepath.Join(t.TempDir(), "fleet")
	f, err := New(t.Context(), Config{S3: testenv.S3Server(t), Dir: dir, Nodes: nodes})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		for _, left := range []string{dir, f.config.Run} {
			if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is left: %v", left, err)
			}
		}
	})
	return f
}

// send sends so many bytes from one node to another and returns what has arrived.
func send(ctx context.Context, from, to *Node, bytes int64) (int64, error) {
	l, err := to.listen(8000)
	if err != nil {
		return 0, err
	}
	defer l.Close()
	var both errgroup.Group
	both.Go(func() error {
		c, err := from.space.dial(ctx, l.Addr().String())
		if err != nil {
			return errors.Join(err, l.Close())
		}
		defer c.Close()
		_, err = io.CopyN(c, zeros{}, bytes)
		return err
	})
	c, err := l.Accept()
	if err != nil {
		return 0, errors.Join(err, both.Wait())
	}
	defer c.Close()
	n, err := io.Copy(io.Discard, c)
	return n, errors.Join(err, both.Wait())
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestNodesReachEachOtherAndTheMachineSeesNothingOfIt(t *testing.T) {
	before, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	f := newFleet(t, 2)
	a, b := f.nodes[0], f.nodes[1]
	was, err := b.Received()
	if err != nil {
		t.Fatal(err)
	}
	const bytes = 1 << 20
	if n, err := send(t.Context(), a, b, bytes); err != nil || n != bytes {
		t.Fatalf("%d bytes arrived, %v", n, err)
	}
	if now, err := b.Received(); err != nil || now-was < bytes || now-was > bytes*11/10 {
		t.Errorf("the node has received %d bytes, %v; %d were sent", now-was, err, bytes)
	}
	after, err := netlink.LinkList()
	if err != nil || len(after) != len(before) {
		t.Errorf("the machine has %d interfaces, %v, and had %d", len(after), err, len(before))
	}
}

func TestALinkIsBoundToItsRateAndFreeAgain(t *testing.T) {
	f := newFleet(t, 2)
	for _, bits := range []int64{10e9, 100e6, 0} {
		if err := f.SetLinks(Links{Bits: bits}); err != nil {
			t.Fatal(err)
		}
		for _, n := range f.nodes {
			err := n.link.ends(func(h *netlink.Handle, end netlink.Link) error {
				all, err := h.QdiscList(end)
				if err != nil {
					return err
				}
				var rate uint64
				for _, q := range all {
					if q, ok := q.(*netlink.Tbf); ok {
						rate = q.Rate
					}
				}
				if rate != uint64(bits)/8 {
					t.Errorf("%s lets %d bytes a second pass, want %d", end.Attrs().Name, rate, bits/8)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if n, err := send(t.Context(), f.nodes[0], f.nodes[1], 1<<20); err != nil || n != 1<<20 {
			t.Fatalf("%d bits a second: %d bytes arrived, %v", bits, n, err)
		}
	}
}

func TestACutLinkCarriesNothingUntilItIsBack(t *testing.T) {
	f := newFleet(t, 2)
	a, b := f.nodes[0], f.nodes[1]
	if err := b.Cut(true); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if c, err := a.space.dial(ctx, address(firstNodeAt+1).String()+":8000"); err == nil || ctx.Err() == nil {
		t.Errorf("a connection over a cut link: %v, %v", c, err)
	}
	if err := b.Cut(false); err != nil {
		t.Fatal(err)
	}
	if n, err := send(t.Context(), a, b, 1<<10); err != nil || n != 1<<10 {
		t.Errorf("%d bytes arrived over the link that is back, %v", n, err)
	}
}

func TestADelayPassesOnWhatIsSaidInBothDirections(t *testing.T) {
	f := newFleet(t, 2)
	if err := f.SetLinks(Links{Delay: time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	a, b := f.nodes[0], f.nodes[1]
	l, err := b.space.listen(b.listens())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var served errgroup.Group
	served.Go(func() error {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = io.Copy(c, c)
		return err
	})
	start := time.Now()
	c, err := a.space.dial(t.Context(), b.reach())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "there and back"); err != nil {
		t.Fatal(err)
	}
	closeWrite(c)
	got, err := io.ReadAll(c)
	if err != nil || string(got) != "there and back" {
		t.Errorf("%q came back, %v", got, err)
	}
	// A bound from below only: two trips, of the connection and of what was said.
	if took := time.Since(start); took < 4*time.Millisecond {
		t.Errorf("it took %v, less than the delay", took)
	}
	if err := served.Wait(); err != nil {
		t.Error(err)
	}
}

func TestReadsOfAnObjectAreCountedOnceForEachByteAndInAll(t *testing.T) {
	var r Reads
	for _, e := range []extent{{100, 200}, {0, 50}, {150, 250}, {50, 100}, {300, 400}, {0, 0}} {
		r.add(e.off, e.end)
	}
	if r.Requests != 6 || r.Bytes != 100+50+100+50+100 || r.Distinct != 350 {
		t.Errorf("reads are %+v", r)
	}
}

func TestTheObjectStoreGetsIntoTroubleAndOutOfIt(t *testing.T) {
	f := newFleet(t, 1)
	front := "http://" + net.JoinHostPort(address(hubAt).String(), storePort) + "/"
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return f.nodes[0].space.dial(ctx, address)
		},
		DisableKeepAlives: true,
	}}
	status := func() int {
		response, err := client.Get(front)
		if err != nil {
			return 0
		}
		response.Body.Close()
		return response.StatusCode
	}
	for _, tt := range []struct {
		trouble Trouble
		want    int
	}{{NoTrouble, http.StatusForbidden}, {Unavailable, http.StatusServiceUnavailable}, {Stopped, 0}, {NoTrouble, http.StatusForbidden}} {
		f.Objects().SetTrouble(tt.trouble)
		if got := status(); got != tt.want {
			t.Errorf("with trouble %d the store answers %d, want %d", tt.trouble, got, tt.want)
		}
	}
}
