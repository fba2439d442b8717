package fleet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"thaw/bench/lab"
	"thaw/control"
	"thaw/internal/testenv"
)

// A ward is four nodes and a frozen process that the first one has, and the object store too.
type ward struct {
	*Fleet
	lab    *lab.Lab
	parts  lab.Parts
	frozen *lab.Frozen
	// right are the answers about all blocks, as the process gives them that was restored where it was frozen.
	right []string
}

// blocks is a process that reads one of its blocks of memory for each request, and no other.
var blocks = lab.Workload{
	Name: "blocks", Title: "Blocks of memory that are read one at a time", Script: "../bench/lab/fleet/testdata/blocks.py", Request: block(0), Other: block(1),
}

const (
	blockCount = 16
	blockBytes = 4 << 20
)

func block(number int) lab.Request { return lab.Request{Body: fmt.Sprintf(`{"block": %d}`, number)} }

// newWard freezes a process and brings it to the first node and the object store.
func newWard(t *testing.T) *ward {
	t.Helper()
	testenv.NeedRoot(t)
	testenv.NeedUserfaultfd(t)
	if testing.Short() {
		t.Skip("restores containers many times, which takes a minute: run without -short")
	}
	w := &ward{}
	bin, s3 := t.TempDir(), testenv.S3Server(t)
	w.parts = lab.Parts{
		CRIU: testenv.CRIU(t), Runc: testenv.Runc(t), Rootfs: testenv.Rootfs(t), Examples: filepath.Join(testenv.RepoRoot(t), "examples"),
		Thaw: filepath.Join(bin, "thaw"), Thawd: filepath.Join(bin, "thawd"),
	}
	if out, err := exec.Command("go", "build", "-o", bin, "thaw/cmd/thaw", "thaw/cmd/thawd").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	// Sockets have short paths.
	dir, err := os.MkdirTemp("", "thaw-ward")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil { // which fails if something is left in it
			t.Error(err)
		}
	})
	if w.lab, err = lab.New(t.Context(), lab.Config{Parts: w.parts, Dir: dir}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, w.lab.Close()) })
	if w.frozen, err = w.lab.Freeze(t.Context(), blocks); err != nil {
		t.Fatal(err)
	}
	check(t, w.lab.Import(t.Context()))
	w.Fleet, err = New(t.Context(), Config{Thawd: w.parts.Thawd, S3: s3, Dir: filepath.Join(dir, "fleet"), Nodes: 4, Stores: []string{w.lab.StoreFolder()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, w.Close()) })
	check(t, w.nodes[0].Start(t.Context(), Sources{Push: true}))
	check(t, w.nodes[0].Pushed(t.Context(), 1))
	p := w.restore(t, w.nodes[0], lab.Started{})
	for i := range blockCount {
		answer, err := p.Answer(t.Context(), block(i))
		check(t, err)
		w.right = append(w.right, answer)
	}
	check(t, p.Close())
	w.nodes[0].Stop()
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range w.nodes {
				if text, err := os.ReadFile(n.Log()); err == nil {
					t.Logf("%s:\n%s", n.name, text[max(0, len(text)-3000):])
				}
			}
		}
	})
	return w
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fresh starts nodes that have never seen the snapshot (but for the first one); they end with the test.
func (w *ward) fresh(t *testing.T, nodes []*Node, from Sources, flags ...string) {
	t.Helper()
	t.Cleanup(func() {
		for _, n := range nodes {
			n.Stop()
		}
	})
	check(t, w.Restart(t.Context(), nodes, from, flags...))
}

// restore restores the process and waits for its first answer, which is compared. It ends with the test, before the nodes.
func (w *ward) restore(t *testing.T, n *Node, how lab.Started) *lab.Process {
	t.Helper()
	p, err := w.lab.Restore(t.Context(), w.frozen, n.Place(), how)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, p.Close()) })
	if _, err := p.First(t.Context()); err != nil {
		t.Fatalf("%s: %v", n.name, err)
	}
	return p
}

// ask asks for a block and compares the answer. The first two were read before the process was frozen, and when it is restored the first one is.
func (w *ward) ask(ctx context.Context, p *lab.Process, number int) error {
	got, err := p.Answer(ctx, block(number))
	if err == nil && got != w.right[number] {
		err = errWrongAnswer
	}
	return err
}

var errWrongAnswer = errors.New("the answer is another than where the process was frozen")

// noReadAhead and onDemand together bring nothing that is not asked for, so that each block needs places.
var (
	noReadAhead = []string{"--read-ahead", "0"}
	onDemand    = lab.Started{Stream: control.StreamNone, WorkingSet: control.WorkingSetIgnored, Copied: true}
)

// eventually waits until something is so.
func eventually(t *testing.T, what string, is func() (bool, error)) {
	t.Helper()
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for {
		ok, err := is()
		check(t, err)
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatalf("it never comes that %s", what)
		}
	}
}

func TestProcessesGoOnOnNodesThatNeverSawThemAsWhereTheyWereFrozen(t *testing.T) {
	w := newWard(t)
	everywhere := func(t *testing.T) {
		t.Helper()
		var all errgroup.Group
		for _, n := range w.nodes[1:] {
			p := w.restore(t, n, lab.Started{})
			all.Go(func() error {
				for i := range blockCount {
					if err := w.ask(t.Context(), p, i); err != nil {
						return fmt.Errorf("%s: block %d: %w", n.name, i, err)
					}
				}
				_, err := p.WarmCall(t.Context()) // once all memory is there
				return err
			})
		}
		check(t, all.Wait())
	}
	t.Run("from the object store", func(t *testing.T) {
		w.fresh(t, w.nodes[1:], Sources{})
		w.Objects().TakeReads()
		everywhere(t)
		if packs := readOf(w.Objects().TakeReads(), "v1/default/packs/"); packs.Bytes < 3*blockCount*blockBytes/2 {
			t.Errorf("the object store delivered %d bytes of packs to three nodes that had nothing", packs.Bytes)
		}
	})
	t.Run("from a peer alone", func(t *testing.T) {
		w.fresh(t, w.nodes, Sources{Peers: w.nodes, NoObjectStore: true})
		w.Objects().TakeReads()
		everywhere(t)
		if reads := w.Objects().TakeReads(); len(reads) > 0 {
			t.Errorf("nodes that know no object store have read %d objects of it", len(reads))
		}
	})
	t.Run("from peers that have nothing either and the object store", func(t *testing.T) {
		w.fresh(t, w.nodes[1:], Sources{Peers: w.nodes[1:]})
		everywhere(t)
	})
	w.breaks(t)
}

// readOf adds up what was read of all objects whose key begins with prefix.
func readOf(reads map[string]*Reads, prefix string) (sum Reads) {
	for key, r := range reads {
		if strings.HasPrefix(key, prefix) {
			sum.Requests, sum.Bytes, sum.Distinct = sum.Requests+r.Requests, sum.Bytes+r.Bytes, sum.Distinct+r.Distinct
		}
	}
	return sum
}

// breaks is what becomes of restores where something breaks.
func (w *ward) breaks(t *testing.T) {
	t.Run("peers are killed one after the other and the object store serves", func(t *testing.T) {
		n := w.nodes[1]
		w.fresh(t, w.nodes, Sources{Peers: w.nodes}, noReadAhead...)
		for _, holder := range w.nodes[2:] {
			_, err := holder.Thawd().Pull(t.Context(), w.frozen.Name(), control.PullWhole)
			check(t, err)
		}
		p := w.restore(t, n, onDemand)
		next := 2
		for _, holder := range []*Node{w.nodes[0], w.nodes[2], w.nodes[3]} {
			answered := make(chan error, 1)
			go func() { answered <- w.ask(t.Context(), p, next) }()
			holder.Kill()
			if err := <-answered; err != nil {
				t.Fatalf("%s was killed while the process asked for memory: %v", holder.name, err)
			}
			check(t, w.ask(t.Context(), p, next+1))
			next += 2
		}
	})
	for _, trouble := range []struct {
		name string
		is   Trouble
	}{{"the object store is stopped", Stopped}, {"the object store answers 503", Unavailable}} {
		t.Run(trouble.name+" and the process waits until it is back", func(t *testing.T) {
			n := w.nodes[1]
			w.fresh(t, []*Node{n}, Sources{}, noReadAhead...)
			p := w.restore(t, n, onDemand)
			before := w.Objects().Refused()
			w.Objects().SetTrouble(trouble.is)
			defer w.Objects().SetTrouble(NoTrouble)
			answered := make(chan error, 1)
			go func() { answered <- w.ask(t.Context(), p, 2) }()
			eventually(t, "the object store was asked again", func() (bool, error) { return w.Objects().Refused() > before+2, nil })
			select {
			case err := <-answered:
				t.Errorf("the process answered without its memory: %v", err)
			default:
			}
			w.Objects().SetTrouble(NoTrouble)
			check(t, <-answered)
		})
	}
	t.Run("the link is cut and the process waits until it is back", func(t *testing.T) {
		n := w.nodes[1]
		w.fresh(t, []*Node{n}, Sources{}, noReadAhead...)
		p := w.restore(t, n, onDemand)
		check(t, n.Cut(true))
		defer n.Cut(false) //nolint:errcheck // below it is checked
		asked := demanded(t, p)
		answered := make(chan error, 1)
		go func() { answered <- w.ask(t.Context(), p, 2) }()
		eventually(t, "the process waits for memory", func() (bool, error) { return demanded(t, p) > asked, nil })
		check(t, n.Cut(false))
		check(t, <-answered)
	})
	for _, c := range []struct {
		name string
		from Sources
	}{
		{"a certificate expires during a restore and the process waits until it is replaced", Sources{Peers: w.nodes[:2], NoObjectStore: true}},
		{"a certificate expires during a restore and the object store serves", Sources{Peers: w.nodes[:2]}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := w.nodes[1]
			w.fresh(t, w.nodes[:2], c.from, noReadAhead...)
			p := w.restore(t, n, onDemand)
			check(t, n.Certify(-time.Second))
			asked := demanded(t, p)
			answered := make(chan error, 1)
			go func() { answered <- w.ask(t.Context(), p, 2) }()
			if c.from.NoObjectStore {
				eventually(t, "the process waits for memory", func() (bool, error) { return demanded(t, p) > asked, nil })
				eventually(t, "the peer is said to be of no use", func() (bool, error) { return refused(t, n) > 0, nil })
				select {
				case err := <-answered:
					t.Errorf("the process answered without its memory: %v", err)
				default:
				}
				check(t, n.Certify(time.Hour))
			}
			check(t, <-answered)
			check(t, n.Certify(time.Hour))
			check(t, w.ask(t.Context(), p, 3))
		})
	}
	t.Run("nothing comes until the deadline and the process is stopped with the reason", func(t *testing.T) {
		n := w.nodes[1]
		w.fresh(t, []*Node{n}, Sources{}, "--read-ahead", "0", "--page-deadline", "500ms", "--bad-pages", "kill")
		p := w.restore(t, n, onDemand)
		w.Objects().SetTrouble(Unavailable)
		defer w.Objects().SetTrouble(NoTrouble)
		err := w.ask(t.Context(), p, 2)
		if err == nil || errors.Is(err, errWrongAnswer) {
			t.Fatalf("without its memory the process answered: %v", err)
		}
		var s *control.Session
		eventually(t, "the session has failed", func() (_ bool, err error) {
			s, err = p.Session(t.Context())
			return err == nil && s.State.Ended(), err
		})
		if s.State != control.StateFailed || s.FailedPage == nil || s.Error == "" {
			t.Errorf("the session is %s, because of %q and page %+v", s.State, s.Error, s.FailedPage)
		}
		t.Logf("the reason: %s; %+v", s.Error, s.FailedPage)
	})
	t.Run("the snapshot is deleted where another node restores it from", func(t *testing.T) {
		holder, n := w.nodes[2], w.nodes[1]
		w.fresh(t, []*Node{holder}, Sources{Peers: w.nodes[1:3]})
		_, err := holder.Thawd().Pull(t.Context(), w.frozen.Name(), control.PullWhole)
		check(t, err)
		w.fresh(t, []*Node{n}, Sources{Peers: w.nodes[1:3]}, noReadAhead...)
		p := w.restore(t, n, onDemand)
		for _, args := range [][]string{{"snapshot", "rm", w.frozen.Name()}, {"snapshot", "gc"}} {
			if out, err := exec.Command(w.parts.Thaw, append(args, "--store", holder.store)...).CombinedOutput(); err != nil {
				t.Fatalf("thaw %v: %v: %s", args, err, out)
			}
		}
		for i := range blockCount {
			if err := w.ask(t.Context(), p, i); err != nil {
				t.Fatalf("block %d: %v", i, err)
			}
		}
	})
}

// demanded returns how many faults of a process thawd has seen.
func demanded(t *testing.T, p *lab.Process) (n uint64) {
	t.Helper()
	s, err := p.Session(t.Context())
	check(t, err)
	for _, f := range s.Counters.Faults {
		n += f
	}
	return n
}

// refused returns how many requests of a node for pages have failed.
func refused(t *testing.T, n *Node) (sum uint64) {
	t.Helper()
	tiers, err := n.Thawd().Tiers(t.Context())
	check(t, err)
	for _, s := range tiers.Sources {
		for _, c := range s.Classes {
			for _, errs := range c.Errors {
				sum += errs
			}
		}
	}
	return sum
}
