package pagestore

import (
	"bytes"
	"io"
	"math/rand/v2"
	"path/filepath"
	"testing"
)

// BenchmarkImport imports 256 MiB of which a tenth is zero and a tenth repeats, into an empty namespace each time.
func BenchmarkImport(b *testing.B) {
	const pages = 64 << 10
	rng := rand.NewChaCha8([32]byte{1})
	data := make([]byte, pages*PageSize)
	rng.Read(data)
	for p := range pages {
		switch page := data[p*PageSize:][:PageSize]; p % 10 {
		case 3:
			clear(page)
		case 7:
			copy(page, data[:PageSize])
		}
	}
	in := Input{
		Spaces: []Space{{
			ID:      1,
			Regions: []Region{{Start: 1 << 32, End: 1<<32 + pages*PageSize}},
			Runs:    []Run{{Addr: 1 << 32, Pages: pages}},
		}},
		Files: []io.ReaderAt{bytes.NewReader(data)},
	}
	b.SetBytes(pages * PageSize)
	var pageSeconds, syncSeconds float64
	for b.Loop() {
		s, err := Create(filepath.Join(b.TempDir(), "store"))
		if err != nil {
			b.Fatal(err)
		}
		report, err := s.Import(b.Context(), Name{DefaultNamespace, "a"}, in, nil)
		if err != nil {
			b.Fatal(err)
		}
		pageSeconds += report.PageDuration.Seconds()
		syncSeconds += report.SyncDuration.Seconds()
		s.Close()
	}
	total := float64(b.N) * pages * PageSize / 1e9
	b.ReportMetric(total/pageSeconds, "GB/s-pages")
	b.ReportMetric(syncSeconds/float64(b.N), "s-sync/op")
}
