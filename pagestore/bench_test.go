package pagestore

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"testing"

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
	const frames = 512
	content := make([]byte, frames*framePages*PageSize)
	rand.NewChaCha8([32]byte{1}).Read(content)
	// One frame more, which never comes: the packs are not finished.
	nodes := append(frame.Nodes(frame.Pack, frame.Digests(nil, content)), make([]byte, frame.NodeSize)...)
	s, err := Create(filepath.Join(b.TempDir(), "store"))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	ns := s.namespace("default")
	if err := ns.make(durable.Disk); err != nil {
		b.Fatal(err)
	}
	open := func(id PackID) *openPack {
		root := RemotePackRoot{ID: id, Pages: frames*framePages + 1, Root: frame.Root(nodes)}
		p, err := s.acquirePack(ns, id, root.Pages, (&Remote{Packs: []RemotePackRoot{root}}).partialPack(id))
		if err == nil {
			err = p.remote.SetNodes(nodes)
		}
		if err != nil {
			b.Fatal(err)
		}
		return p
	}
	b.SetBytes(framePages * PageSize)
	p, i := open(PackID{}), 0
	for b.Loop() {
		if i == frames {
			s.releasePack(p)
			if err := ns.discard(durable.Disk, p.remote.name); err != nil {
				b.Fatal(err)
			}
			p, i = open(PackID{}), 0
		}
		if err := p.remote.Admit(i, content[i*framePages*PageSize:][:framePages*PageSize]); err != nil {
			b.Fatal(err)
		}
		i++
	}
	s.releasePack(p)
}
