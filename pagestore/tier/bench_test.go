package tier

import (
	"testing"

	"thaw/pagestore"
)

// benchPages is the size of the snapshots here: 64 MiB, of which half compresses to an eighth.
const benchPages = 16384

func BenchmarkPush(b *testing.B) {
	n := newNode(b)
	n.freeze("one", seeds(1, benchPages))
	b.SetBytes(benchPages * pagestore.PageSize)
	for b.Loop() {
		n.mustPush("one", newMemoryBucket(), nil)
	}
}

func BenchmarkWarm(b *testing.B)         { benchmarkPull(b, WorkingSetToo, true) }
func BenchmarkMirror(b *testing.B)       { benchmarkPull(b, Whole, true) }
func BenchmarkMirrorOfPeer(b *testing.B) { benchmarkPull(b, Whole, false) }

func benchmarkPull(b *testing.B, mode PullMode, fromBucket bool) {
	maker, bucket := newNode(b), newMemoryBucket()
	maker.freeze("one", seeds(1, benchPages))
	maker.mustPush("one", bucket, nil)
	pages := int64(benchPages)
	if mode == WorkingSetToo {
		pages /= 3
	}
	b.SetBytes(pages * pagestore.PageSize)
	for b.Loop() {
		b.StopTimer()
		n := newNode(b)
		n.sees(peer(maker))
		if fromBucket {
			n.sees(bucketPlace(bucket))
		}
		b.StartTimer()
		n.mustPull("one", &PullOptions{Mode: mode, Origin: n.origin})
	}
}
