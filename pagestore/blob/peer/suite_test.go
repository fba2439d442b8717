package peer

import (
	"bytes"
	"testing"
	"time"

	"thaw/pagestore/blob"
	"thaw/pagestore/blob/blobtest"
)

func TestPeerIsAReaderLikeAnyOther(t *testing.T) {
	authority := must(NewAuthority())(t)
	a, _ := keysOf(t, authority, "a", time.Hour)
	b, _ := keysOf(t, authority, "b", time.Hour)
	protocols(t, func(t *testing.T, http2 bool) {
		blobtest.RunReader(t, func(t *testing.T, content map[string][]byte) blob.Reader {
			held := new(blobtest.Memory)
			for key, data := range content {
				if err := held.Create(t.Context(), key, bytes.NewReader(data), int64(len(data))); err != nil {
					t.Fatal(err)
				}
			}
			n := loopback(t)
			start(t, n, NewServer(held, b, ServerOptions{Allow: func(node, namespace string) bool { return node == "a" && namespace == "ns" }}))
			return connect(t, n, a, ClientOptions{http2: http2})
		})
	})
}
