package pagestore

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sync/errgroup"

	"thaw/internal/durable"
	"thaw/pagestore/internal/frame"
)

// benchPages is the size of the benchmarks' image: 256 MiB.
const benchPages = 64 << 10

// benchInput is an image of which a tenth is zero and a tenth repeats.
func benchInput() Input {
	data := make([]byte, benchPages*PageSize)
	rand.NewChaCha8([32]byte{1}).Read(data)
	for p := range benchPages {
		switch page := data[p*PageSize:][:PageSize]; p % 10 {
		case 3:
			clear(page)
		case 7:
			copy(page, data[:PageSize])
		}
	}
	return Input{
		Spaces: []Space{{
			ID:      1,
			Regions: []Region{{Start: testBase, End: testBase + benchPages*PageSize}},
			Runs:    []Run{{Addr: testBase, Pages: benchPages}},
		}},
		Files: []io.ReaderAt{bytes.NewReader(data)},
	}
}

// benchStore makes a store with the image as snapshot "a".
func benchStore(b *testing.B) *Store {
	b.Helper()
	s, err := Create(filepath.Join(b.TempDir(), "store"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	if _, err := s.Import(b.Context(), mustName("a"), benchInput(), nil); err != nil {
		b.Fatal(err)
	}
	return s
}

// BenchmarkImport imports into an empty store each time.
func BenchmarkImport(b *testing.B) {
	in := benchInput()
	b.SetBytes(benchPages * PageSize)
	var pageSeconds, syncSeconds float64
	for b.Loop() {
		s, err := Create(filepath.Join(b.TempDir(), "store"))
		if err != nil {
			b.Fatal(err)
		}
		report, err := s.Import(b.Context(), mustName("a"), in, nil)
		if err != nil {
			b.Fatal(err)
		}
		pageSeconds += report.PageDuration.Seconds()
		syncSeconds += report.SyncDuration.Seconds()
		s.Close()
	}
	b.ReportMetric(float64(b.N)*benchPages*PageSize/1e9/pageSeconds, "GB/s-pages")
	b.ReportMetric(syncSeconds/float64(b.N), "s-sync/op")
}

// BenchmarkImportAgain imports what the store has already.
func BenchmarkImportAgain(b *testing.B) {
	s, in := benchStore(b), benchInput()
	b.SetBytes(benchPages * PageSize)
	for i := 0; b.Loop(); i++ {
		report, err := s.Import(b.Context(), mustName(fmt.Sprint("again", i)), in, nil)
		if err != nil {
			b.Fatal(err)
		}
		if report.NewPages != 0 {
			b.Fatalf("%d pages are new", report.NewPages)
		}
	}
}

// BenchmarkAdmit is what becomes of a frame that came from afar: hashed, compared with its node and written.
func BenchmarkAdmit(b *testing.B) {
	a := newAdmitter(b)
	b.SetBytes(framePages * PageSize)
	p, i := a.open(b), 0
	for b.Loop() {
		if i == admitFrames {
			a.discard(b, p)
			p, i = a.open(b), 0
		}
		if err := a.admit(p, i); err != nil {
			b.Fatal(err)
		}
		i++
	}
	a.discard(b, p)
}

// BenchmarkAdmitTogether is the same for all frames of a pack, by as many goroutines as there are processors: what streams do.
func BenchmarkAdmitTogether(b *testing.B) {
	a := newAdmitter(b)
	b.SetBytes(admitFrames * framePages * PageSize)
	for b.Loop() {
		p := a.open(b)
		var g errgroup.Group
		g.SetLimit(runtime.GOMAXPROCS(0))
		for i := range admitFrames {
			g.Go(func() error { return a.admit(p, i) })
		}
		if err := g.Wait(); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		a.discard(b, p)
		b.StartTimer()
	}
}

const admitFrames = 512

// admitter has a partial pack filled, again and again.
type admitter struct {
	store          *Store
	content, nodes []byte
}

func newAdmitter(b *testing.B) *admitter {
	b.Helper()
	a := &admitter{content: make([]byte, admitFrames*framePages*PageSize)}
	rand.NewChaCha8([32]byte{1}).Read(a.content)
	// One frame more, which never comes: the packs are not finished.
	a.nodes = append(frame.Nodes(frame.Pack, frame.Digests(nil, a.content)), make([]byte, frame.NodeSize)...)
	var err error
	if a.store, err = Create(filepath.Join(b.TempDir(), "store")); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { a.store.Close() })
	if err := a.store.namespace("default").make(durable.Disk); err != nil {
		b.Fatal(err)
	}
	return a
}

func (a *admitter) open(b *testing.B) *openPack {
	b.Helper()
	root := RemotePackRoot{Pages: admitFrames*framePages + 1, Root: frame.Root(a.nodes)}
	p, err := a.store.acquirePack(a.store.namespace("default"), root.ID, root.Pages, (&Remote{Packs: []RemotePackRoot{root}}).partialPack(root.ID))
	if err == nil {
		err = p.remote.SetNodes(a.nodes)
	}
	if err != nil {
		b.Fatal(err)
	}
	return p
}

func (a *admitter) admit(p *openPack, i int) error {
	return p.remote.Admit(i, a.content[i*framePages*PageSize:][:framePages*PageSize])
}

func (a *admitter) discard(b *testing.B, p *openPack) {
	b.Helper()
	name := p.remote.name
	a.store.releasePack(p)
	if err := a.store.namespace("default").discard(durable.Disk, name); err != nil {
		b.Fatal(err)
	}
}
