package pagestore

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
)

var (
	randomSeed  = flag.Uint64("seed", 0, "seed of TestRandomOperations; 0 for another one each time")
	randomSteps = flag.Int("steps", 300, "operations of TestRandomOperations")
)

// model is what the store should hold.
type model struct {
	t     *testing.T
	rng   *rand.Rand
	store *Store

	snapshots map[string]memory
	// leased are the open snapshots, also removed ones.
	leased []leasedSnapshot
}

type leasedSnapshot struct {
	snap *Snapshot
	want memory
}

// TestRandomOperations runs random operations on a store and on maps of the same content.
func TestRandomOperations(t *testing.T) {
	seed := *randomSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("run again with -run %s -seed %d", t.Name(), seed)
	rng := rand.New(rand.NewPCG(seed, 0))

	dir := filepath.Join(memoryDir(t), "store")
	made, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	made.Close()
	m := &model{
		t:         t,
		rng:       rng,
		store:     openStore(t, dir, &Options{packPages: 1 + rng.IntN(100), packsCold: rng.IntN(2) == 0}),
		snapshots: make(map[string]memory),
	}
	for step := range *randomSteps {
		name, op := m.pick()
		if err := op(); err != nil {
			t.Fatalf("step %d, %s: %v", step, name, err)
		}
	}
	for len(m.leased) > 0 {
		if err := m.release(); err != nil {
			t.Error(err)
		}
	}
	if err := errors.Join(m.gc(), holds(t, m.store, m.snapshots)); err != nil {
		t.Error(err)
	}
	checkNoLeftovers(t, m.store)
}

// pick chooses an operation.
func (m *model) pick() (string, func() error) {
	operations := []struct {
		name   string
		weight int
		run    func() error
	}{
		{"import", 20, m.importSome},
		{"remove", 15, m.remove},
		{"lease", 15, m.lease},
		{"read", 60, m.read},
		{"release", 12, m.release},
		{"working set", 15, m.setWorkingSet},
		{"gc", 5, m.gc},
		{"reopen", 3, m.reopen},
		{"lose the index", 2, m.loseIndex},
		{"verify", 2, func() error { return checkVerify(m.t, m.store) }},
		{"list", 3, m.list},
	}
	total := 0
	for _, op := range operations {
		total += op.weight
	}
	n := m.rng.IntN(total)
	for _, op := range operations {
		if n -= op.weight; n < 0 {
			return op.name, op.run
		}
	}
	panic("unreachable")
}

func (m *model) name() string {
	return []string{"", "other/"}[m.rng.IntN(2)] + string(rune('a'+m.rng.IntN(6)))
}

// memory makes a memory with zeros, repeats, and much in common with others.
func (m *model) memory() memory {
	var out memory
	for range m.rng.IntN(8) {
		n := 1 + m.rng.IntN(80)
		switch m.rng.IntN(4) {
		case 0:
			out = append(out, make(memory, n)...)
		case 1:
			out = append(out, slices.Repeat(memory{1 + m.rng.Uint64N(2000)}, n)...)
		default:
			out = append(out, seeds(1+m.rng.Uint64N(2000), n)...)
		}
	}
	return out
}

func (m *model) importSome() error {
	name, want := m.name(), m.memory()
	report, err := m.store.Import(m.t.Context(), mustName(name), want.input(), &ImportOptions{Workers: 1 + m.rng.IntN(3)})
	if m.snapshots[name] != nil {
		if !errors.Is(err, ErrExists) {
			return fmt.Errorf("import of %s, which exists: %w", name, err)
		}
		return nil
	}
	if err != nil {
		return err
	}
	if report.Pages != uint64(len(want)) || report.ZeroPages+report.DuplicatePages+report.NewPages != report.Pages {
		return fmt.Errorf("import of %d pages reports %+v", len(want), report)
	}
	if want == nil {
		want = memory{}
	}
	m.snapshots[name] = want
	return nil
}

func (m *model) remove() error {
	name := m.name()
	err := m.store.Remove(m.t.Context(), mustName(name))
	if m.snapshots[name] == nil {
		if !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("removal of %s, which does not exist: %w", name, err)
		}
		return nil
	}
	delete(m.snapshots, name)
	return err
}

func (m *model) lease() error {
	name := m.name()
	snap, err := m.store.Snapshot(mustName(name))
	want := m.snapshots[name]
	if want == nil {
		if !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("%s, which does not exist, was opened: %w", name, err)
		}
		return nil
	}
	if err != nil {
		return err
	}
	m.leased = append(m.leased, leasedSnapshot{snap: snap, want: want})
	return nil
}

// read compares a random range of a leased snapshot.
func (m *model) read() error {
	if len(m.leased) == 0 {
		return nil
	}
	l := m.leased[m.rng.IntN(len(m.leased))]
	im, err := l.snap.Image()
	if err != nil {
		return err
	}
	if im.Pages() != uint64(len(l.want)) {
		return fmt.Errorf("%s has %d pages, want %d", l.snap.Name(), im.Pages(), len(l.want))
	}
	if len(l.want) == 0 {
		return nil
	}
	page, limit := m.rng.IntN(len(l.want)), 1+m.rng.IntN(200)
	if m.rng.IntN(4) == 0 {
		im.Prefetch(uint64(page), uint64(limit))
	}
	if m.rng.IntN(10) == 0 {
		im.PrefetchHot()
	}
	ready, n := im.Ready(uint64(page), limit)
	if n > limit {
		return fmt.Errorf("of %d pages from %d on %d were ready", limit, page, n)
	}
	if err := samePages(ready, l.want[page:page+n]); err != nil {
		return fmt.Errorf("ready from page %d of %s on: %w", page, l.snap.Name(), err)
	}
	data, n, err := im.Load(uint64(page), limit)
	if err != nil {
		return err
	}
	if n < 1 || n > limit {
		return fmt.Errorf("of %d pages from %d on %d were loaded", limit, page, n)
	}
	if err := samePages(data, l.want[page:page+n]); err != nil {
		return fmt.Errorf("loaded from page %d of %s on: %w", page, l.snap.Name(), err)
	}
	return nil
}

// samePages returns an error unless data, nil for zeros, is the pages of want.
func samePages(data []byte, want memory) error {
	if data != nil && len(data) != len(want)*PageSize {
		return fmt.Errorf("%d bytes for %d pages", len(data), len(want))
	}
	for i, seed := range want {
		if data == nil {
			if seed != 0 {
				return fmt.Errorf("page %d of %d is zero", i, len(want))
			}
		} else if !slices.Equal(data[i*PageSize:][:PageSize], pageOf(seed)) {
			return fmt.Errorf("page %d of %d is not that of seed %d", i, len(want), seed)
		}
	}
	return nil
}

// setWorkingSet gives a leased snapshot a random working set, or none.
func (m *model) setWorkingSet() error {
	if len(m.leased) == 0 {
		return nil
	}
	l := m.leased[m.rng.IntN(len(m.leased))]
	w := WorkingSet{Hint: make([]byte, m.rng.IntN(100))}
	if len(l.want) > 0 {
		w.Order = randomOrder(m.rng, len(l.want))
	}
	err := l.snap.SetWorkingSet(m.t.Context(), w)
	if err == nil || !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrClosed) {
		return err
	}
	if m.named(l.snap) && !errors.Is(err, ErrClosed) { // closed: a lease of an earlier Store
		return fmt.Errorf("%s has its name: %w", l.snap.Name(), err)
	}
	return nil
}

// named reports whether a snapshot still has its name.
func (m *model) named(snap *Snapshot) bool { return snap.checkPlace() == nil }

// randomOrder returns some pages of an image in some order, some more than once.
func randomOrder(rng *rand.Rand, pages int) (order []PageRun) {
	for range rng.IntN(20) {
		first := rng.IntN(pages)
		order = append(order, PageRun{uint64(first), uint64(rng.IntN(min(pages-first, 30) + 1))})
	}
	return order
}

func (m *model) release() error {
	if len(m.leased) == 0 {
		return nil
	}
	i := m.rng.IntN(len(m.leased))
	err := m.leased[i].snap.Close()
	m.leased = slices.Delete(m.leased, i, i+1)
	return err
}

func (m *model) gc() error {
	_, err := m.store.GC(m.t.Context())
	return err
}

// reopen goes on with another Store on the same folder and other options; leases of the old one stay.
func (m *model) reopen() error {
	if err := m.store.Close(); err != nil {
		return err
	}
	m.store = openStore(m.t, m.store.Dir(), &Options{packPages: 1 + m.rng.IntN(100), packsCold: m.rng.IntN(2) == 0})
	return nil
}

func (m *model) loseIndex() error {
	matches, err := filepath.Glob(m.store.namespace("default").index() + "/*")
	for _, path := range matches {
		remove(m.t, path)
	}
	return err
}

func (m *model) list() error {
	entries, err := m.store.List()
	if err != nil {
		return err
	}
	var got []string
	for _, e := range entries {
		if !e.BeingRemoved {
			got = append(got, e.Name.String())
		}
	}
	slices.Sort(got)
	if want := slices.Sorted(maps.Keys(m.snapshots)); !slices.Equal(got, want) {
		return fmt.Errorf("list has %v, want %v", got, want)
	}
	return nil
}
