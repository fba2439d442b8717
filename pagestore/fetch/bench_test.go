package fetch_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"thaw/pagestore/fetch"
)

// quick is a source that takes no time: what is left is the Fetcher's own.
type quick struct{ frame []byte }

func (quick) String() string { return "quick" }

func (q quick) Frames(_ context.Context, _ fetch.Object, first, n int, deliver func(int, []byte) error) error {
	for f := first; f < first+n; f++ {
		if err := deliver(f, q.frame); err != nil {
			return err
		}
	}
	return nil
}

func newQuick(b *testing.B) *fetch.Fetcher {
	sources := []fetch.Source{quick{make([]byte, 128<<10)}}
	f := fetch.New(fetch.Options{}, func(fetch.Object) []fetch.Source { return sources })
	b.Cleanup(f.Close)
	return f
}

func nowhere(int, []byte) error { return nil }

// BenchmarkDemand is one frame at a time, from the call to its return, by one caller: two changes of goroutine, and the bookkeeping.
func BenchmarkDemand(b *testing.B) {
	f := newQuick(b)
	b.ReportAllocs()
	for i := 0; b.Loop(); i += 2 {
		if err := f.Fetch(context.Background(), obj, i, 1, fetch.Demand, nowhere); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDemandOfMany is the same by several callers, that want different frames.
func BenchmarkDemandOfMany(b *testing.B) {
	f := newQuick(b)
	b.ReportAllocs()
	var next atomic.Int64
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := f.Fetch(context.Background(), obj, int(next.Add(2)), 1, fetch.Demand, nowhere); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkStream is a mirror, in calls of so many frames. An op is one frame.
func BenchmarkStream(b *testing.B) {
	for _, n := range []int{32, 8192} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			f := newQuick(b)
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; i < b.N; i += n {
				if err := f.Fetch(context.Background(), obj, i, min(n, b.N-i), fetch.Mirror, nowhere); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
