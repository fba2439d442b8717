package objectstore_test

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"thaw/pagestore/blob/blobtest"
	"thaw/pagestore/blob/objectstore/objectstoretest"
)

// What one range costs, from a server on the same machine: a frame, and the most that is asked for at a time.
func BenchmarkOpen(b *testing.B) {
	bucket := open(b, objectstoretest.Start(b).Bucket(b, "bucket", ""))
	const size = 32 << 20
	if err := bucket.Create(b.Context(), "key", bytes.NewReader(blobtest.Content(size, 1)), size); err != nil {
		b.Fatal(err)
	}
	for _, n := range []int64{128 << 10, 4 << 20} {
		b.Run(fmt.Sprintf("%d KiB", n>>10), func(b *testing.B) {
			b.SetBytes(n)
			b.ReportAllocs()
			buf := make([]byte, n)
			off := int64(0)
			for b.Loop() {
				body, err := bucket.Open(b.Context(), "key", off, n)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(body, buf); err != nil {
					b.Fatal(err)
				}
				if err := body.Close(); err != nil {
					b.Fatal(err)
				}
				off = (off + n) % size
			}
		})
	}
}
