package blobtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"thaw/pagestore/blob"
)

// Run tests a bucket. open returns one that is empty, a new one for each call, and cleans up after the test it is given.
func Run(t *testing.T, open func(t *testing.T) blob.Bucket) {
	RunReader(t, func(t *testing.T, content map[string][]byte) blob.Reader {
		b := open(t)
		for key, data := range content {
			create(t, b, key, data)
		}
		return b
	})
	for _, test := range []struct {
		name string
		run  func(t *testing.T, b blob.Bucket)
	}{
		{"create replaces nothing", testCreateReplacesNothing},
		{"replace replaces", testReplace},
		{"content of another size leaves nothing", testWrongSize},
		{"content that cannot be read leaves nothing", testSourceFails},
		{"a context that ends during create leaves nothing", testCancelledCreate},
		{"of several that create one blob one succeeds", testRacingCreates},
		{"readers see an old or a new blob as a whole", testReadersDuringReplace},
		{"what is deleted is gone", testDelete},
		{"list yields keys in the order of their bytes", testList},
		{"list stops when its caller has enough", testListStops},
		{"bad keys are refused", testBadKeys},
		{"a context that has ended changes nothing", testEndedContext},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

// RunReader tests a place that can be read. open returns one that holds content and nothing else.
func RunReader(t *testing.T, open func(t *testing.T, content map[string][]byte) blob.Reader) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, r blob.Reader, content map[string][]byte)
	}{
		{"what is there is read back", testReadBack},
		{"ranges are read exactly", testRanges},
		{"a range outside is refused", testOutside},
		{"what is not there is not found", testNotFound},
		{"keys that cannot be are refused to readers", testBadKeysOfReaders},
		{"many read at once", testConcurrentReads},
		{"a reader that is closed early harms no other", testCloseEarly},
		{"a context that has ended reads nothing", testEndedContextOfReaders},
		{"a context that ends stops a reader", testCancelledRead},
	} {
		t.Run(test.name, func(t *testing.T) {
			content := sample()
			test.run(t, open(t, content), content)
		})
	}
}

// Keys of sample. All of them, as those that readers look for in vain, begin with a version and a namespace: some places have no others.
const (
	root  = "v1/ns/"
	small = root + "names/a.snapshot-1_x@y=z"
	large = root + "packs/0123456789abcdef"
	empty = root + "empty"
)

// sample is blobs of all sorts; the large one does not fit into any buffer on the way.
func sample() map[string][]byte {
	longest := root + strings.Repeat("k", 255) + "/" + strings.Repeat("l", 248) + "/m"
	return map[string][]byte{small: []byte("some bytes"), large: largeContent(), empty: {}, longest: []byte("long")}
}

var largeContent = sync.OnceValue(func() []byte { return Content(9<<20+17, 1) })

// Content returns n bytes that follow from seed and do not repeat.
func Content(n int, seed uint64) []byte {
	b := make([]byte, n)
	x := seed*0x9e3779b97f4a7c15 + 1
	for i := range b { // xorshift64
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x >> 32)
	}
	return b
}

func create(t *testing.T, b blob.Bucket, key string, data []byte) {
	t.Helper()
	if err := b.Create(t.Context(), key, bytes.NewReader(data), int64(len(data))); err != nil {
		t.Fatalf("create %s: %v", key, err)
	}
}

// Read returns n bytes of a blob from off on, or all that follow if n < 0: [blob.Reader.Open], read to its end and closed.
func Read(ctx context.Context, r blob.Reader, key string, off, n int64) ([]byte, error) {
	body, err := r.Open(ctx, key, off, n)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(body)
	return data, errors.Join(err, body.Close())
}

func wantContent(t *testing.T, r blob.Reader, key string, want []byte) {
	t.Helper()
	got, err := Read(t.Context(), r, key, 0, -1)
	if err != nil {
		t.Errorf("read %s: %v", key, err)
	} else if !bytes.Equal(got, want) {
		t.Errorf("%s has %d bytes, other than the %d that were put", key, len(got), len(want))
	}
	if size, err := r.Size(t.Context(), key); err != nil || size != int64(len(want)) {
		t.Errorf("size of %s is %d, %v, want %d", key, size, err, len(want))
	}
}

func wantError(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error is %v, want %v", what, err, want)
	}
}

func wantMissing(t *testing.T, r blob.Reader, key string) {
	t.Helper()
	_, err := r.Size(t.Context(), key)
	wantError(t, "size of "+key, err, blob.ErrNotFound)
	_, err = Read(t.Context(), r, key, 0, -1)
	wantError(t, "read "+key, err, blob.ErrNotFound)
}

func testReadBack(t *testing.T, r blob.Reader, content map[string][]byte) {
	for key, data := range content {
		wantContent(t, r, key, data)
	}
	if r.String() == "" {
		t.Error("the place has no name")
	}
}

func testRanges(t *testing.T, r blob.Reader, content map[string][]byte) {
	size := int64(len(content[large]))
	for _, c := range []struct{ off, n int64 }{
		{0, 0}, {0, 1}, {0, size}, {1, 128 << 10}, {size - 1, 1}, {size - 1, -1}, {size, 0}, {size, -1}, {size / 2, 4 << 20}, {size / 3, -1},
	} {
		n := c.n
		if n < 0 {
			n = size - c.off
		}
		got, err := Read(t.Context(), r, large, c.off, c.n)
		if err != nil || !bytes.Equal(got, content[large][c.off:c.off+n]) {
			t.Errorf("%d bytes from %d on: got %d, other ones or too few, %v", c.n, c.off, len(got), err)
		}
	}
	if got, err := Read(t.Context(), r, empty, 0, 0); err != nil || len(got) != 0 {
		t.Errorf("no bytes of an empty blob: %d, %v", len(got), err)
	}
}

func testOutside(t *testing.T, r blob.Reader, content map[string][]byte) {
	size := int64(len(content[small]))
	for _, c := range []struct {
		key    string
		off, n int64
	}{
		{small, size, 1}, {small, size + 1, 0}, {small, size + 1, -1}, {small, size + 1, 1}, {small, 0, size + 1}, {small, 1, size}, {small, -1, 1}, {small, 1, 1<<63 - 1}, {empty, 0, 1},
	} {
		_, err := Read(t.Context(), r, c.key, c.off, c.n)
		wantError(t, fmt.Sprintf("%d bytes from %d on of %s", c.n, c.off, c.key), err, blob.ErrRange)
	}
}

func testNotFound(t *testing.T, r blob.Reader, _ map[string][]byte) {
	// Beside a blob, before one, where folders are, and below a blob.
	for _, key := range []string{root + "nothing", root + "packs/none", root + "packs", root + "packs/0123456789abcde", small + "/below"} {
		wantMissing(t, r, key)
		_, err := Read(t.Context(), r, key, 0, 0)
		wantError(t, "no bytes of "+key, err, blob.ErrNotFound)
	}
}

// badKeys are refused everywhere.
var badKeys = []string{
	"", "/", "a/", "/a", "a//b", ".", "..", "a/../b", "../a", ".hidden", "a/.b", "a b", "a\x00", "a\\b", "ä", "a?b", "a%2f", "a\n", "a:b", "a+b",
	strings.Repeat("k", 256), strings.Repeat("k/", 16) + "k", strings.Repeat("kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk/", 13) + "k",
}

func testBadKeysOfReaders(t *testing.T, r blob.Reader, _ map[string][]byte) {
	for _, key := range badKeys {
		_, err := r.Size(t.Context(), key)
		wantError(t, fmt.Sprintf("size of %q", key), err, blob.ErrKey)
		_, err = Read(t.Context(), r, key, 0, -1)
		wantError(t, fmt.Sprintf("read %q", key), err, blob.ErrKey)
	}
}

func testConcurrentReads(t *testing.T, r blob.Reader, content map[string][]byte) {
	const readers, n = 8, 1 << 20
	var wg sync.WaitGroup
	for i := range readers {
		wg.Go(func() {
			off := int64(i) * n
			got, err := Read(t.Context(), r, large, off, n)
			if err != nil || !bytes.Equal(got, content[large][off:off+n]) {
				t.Errorf("reader %d: %d bytes, other ones or too few, %v", i, len(got), err)
			}
		})
	}
	wg.Wait()
}

func testCloseEarly(t *testing.T, r blob.Reader, content map[string][]byte) {
	for range 3 {
		body, err := r.Open(t.Context(), large, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(body, make([]byte, 10)); err != nil {
			t.Error(err)
		}
		if err := body.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	wantContent(t, r, small, content[small])
}

func testEndedContextOfReaders(t *testing.T, r blob.Reader, _ map[string][]byte) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := r.Size(ctx, small)
	wantError(t, "size", err, context.Canceled)
	_, err = Read(ctx, r, small, 0, -1)
	wantError(t, "read", err, context.Canceled)
}

func testCancelledRead(t *testing.T, r blob.Reader, _ map[string][]byte) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	body, err := r.Open(ctx, large, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(body, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	cancel()
	_, err = io.Copy(io.Discard, body)
	wantError(t, "read on", err, context.Canceled)
	if err := body.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func testCreateReplacesNothing(t *testing.T, b blob.Bucket) {
	first, second := []byte("first"), []byte("the second one")
	create(t, b, small, first)
	wantError(t, "the second create", b.Create(t.Context(), small, bytes.NewReader(second), int64(len(second))), blob.ErrExists)
	wantContent(t, b, small, first)
}

func testReplace(t *testing.T, b blob.Bucket) {
	for _, data := range [][]byte{[]byte("first"), []byte("the second one"), {}} { // the first replaces nothing
		if err := b.Replace(t.Context(), small, bytes.NewReader(data), int64(len(data))); err != nil {
			t.Fatal(err)
		}
		wantContent(t, b, small, data)
	}
}

func testWrongSize(t *testing.T, b blob.Bucket) {
	old := []byte("old")
	create(t, b, small, old)
	data := Content(1<<20, 2)
	for _, size := range []int64{0, 1, 1<<20 - 1, 1<<20 + 1, 8 << 20, -1} {
		err := b.Create(t.Context(), large, bytes.NewReader(data), size)
		wantError(t, fmt.Sprintf("create %d bytes of %d", size, len(data)), err, blob.ErrSize)
		err = b.Replace(t.Context(), small, bytes.NewReader(data), size)
		wantError(t, fmt.Sprintf("replace by %d bytes of %d", size, len(data)), err, blob.ErrSize)
	}
	wantMissing(t, b, large)
	wantContent(t, b, small, old)
	wantKeys(t, b, "", small)
}

func testSourceFails(t *testing.T, b blob.Bucket) {
	errSource := errors.New("the source is gone")
	for _, n := range []int{0, 1 << 20} {
		r := io.MultiReader(bytes.NewReader(Content(n, 3)), iotest.ErrReader(errSource))
		wantError(t, fmt.Sprintf("create, after %d bytes", n), b.Create(t.Context(), large, r, 2<<20), errSource)
	}
	wantMissing(t, b, large)
}

// cancelAt ends a context when it is read for the second time, and delivers all the same.
type cancelAt struct {
	io.Reader
	cancel func()
	reads  int
}

func (c *cancelAt) Read(b []byte) (int, error) {
	if c.reads++; c.reads == 2 {
		c.cancel()
	}
	return c.Reader.Read(b[:min(len(b), 4096)])
}

func testCancelledCreate(t *testing.T, b blob.Bucket) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	data := Content(1<<20, 4)
	err := b.Create(ctx, large, &cancelAt{Reader: bytes.NewReader(data), cancel: cancel}, int64(len(data)))
	wantError(t, "create", err, context.Canceled)
	wantMissing(t, b, large)
}

func testRacingCreates(t *testing.T, b blob.Bucket) {
	const racers, rounds = 4, 5
	for round := range rounds {
		key := fmt.Sprintf("race/%d", round)
		var won, lost atomic.Int32
		var wg sync.WaitGroup
		start := make(chan struct{})
		for i := range racers {
			data := bytes.Repeat([]byte{byte('a' + i)}, 100_000)
			wg.Go(func() {
				<-start
				switch err := b.Create(t.Context(), key, bytes.NewReader(data), int64(len(data))); {
				case err == nil:
					won.Add(1)
				case errors.Is(err, blob.ErrExists), errors.Is(err, blob.ErrBusy):
					lost.Add(1)
				default:
					t.Errorf("create: %v", err)
				}
			})
		}
		close(start)
		wg.Wait()
		if won.Load() < 1 || won.Load() > 1 && b.Exclusive() {
			t.Errorf("round %d: %d created the blob, %d did not; Exclusive says %t", round, won.Load(), lost.Load(), b.Exclusive())
		}
		wantWhole(t, b, key, 100_000)
	}
}

// wantWhole wants a blob of size equal bytes.
func wantWhole(t *testing.T, r blob.Reader, key string, sizes ...int) {
	t.Helper()
	data, err := Read(t.Context(), r, key, 0, -1)
	if err != nil {
		t.Errorf("read %s: %v", key, err)
		return
	}
	if !slices.Contains(sizes, len(data)) || bytes.Count(data, data[:1]) != len(data) {
		t.Errorf("%s is %d bytes, mixed or cut off", key, len(data))
	}
}

func testReadersDuringReplace(t *testing.T, b blob.Bucket) {
	sizes := []int{100_000, 300_000}
	put := func(i int) error {
		data := bytes.Repeat([]byte{byte('a' + i)}, sizes[i%2])
		return b.Replace(t.Context(), small, bytes.NewReader(data), int64(len(data)))
	}
	if err := put(0); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				wantWhole(t, b, small, sizes...)
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for i := 1; i < 20; i++ {
		if err := put(i); err != nil {
			t.Errorf("replace: %v", err)
		}
	}
	close(done)
	wg.Wait()
}

func testDelete(t *testing.T, b blob.Bucket) {
	create(t, b, small, []byte("one"))
	create(t, b, small+"2", []byte("two"))
	for range 2 { // that there is none is no error
		if err := b.Delete(t.Context(), small); err != nil {
			t.Errorf("delete: %v", err)
		}
		wantMissing(t, b, small)
	}
	for _, key := range []string{"never/was", "v1", small + "2/below"} {
		if err := b.Delete(t.Context(), key); err != nil {
			t.Errorf("delete %s: %v", key, err)
		}
	}
	wantKeys(t, b, "", small+"2")
	create(t, b, small, []byte("another one"))
	wantContent(t, b, small, []byte("another one"))
}

// Keys returns the keys that b lists below prefix.
func Keys(ctx context.Context, b blob.Bucket, prefix string) ([]string, error) {
	var keys []string
	for info, err := range b.List(ctx, prefix) {
		if err != nil {
			return keys, err
		}
		keys = append(keys, info.Key)
	}
	return keys, nil
}

func wantKeys(t *testing.T, b blob.Bucket, prefix string, want ...string) {
	t.Helper()
	got, err := Keys(t.Context(), b, prefix)
	if err != nil {
		t.Errorf("list %q: %v", prefix, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("list %q (-want +got):\n%s", prefix, diff)
	}
}

func testList(t *testing.T, b blob.Bucket) {
	wantKeys(t, b, "")
	// Where folders are sorted by their names, the first ones come out in another order: '-' and '.' are below '/', '0' and '_' above it.
	keys := []string{"a-b", "a.b/c", "a/b", "a/b-c", "a/c/d/e", "a0", "a_b", "b"}
	for i, key := range slices.Backward(keys) {
		create(t, b, key, make([]byte, i))
	}
	wantKeys(t, b, "", keys...)
	wantKeys(t, b, "a", keys[:7]...)
	wantKeys(t, b, "a/", "a/b", "a/b-c", "a/c/d/e")
	wantKeys(t, b, "a/b", "a/b", "a/b-c")
	wantKeys(t, b, "a/c/", "a/c/d/e")
	wantKeys(t, b, "a/c/d/e", "a/c/d/e")
	for _, none := range []string{"c", "a/b/", "a/b/c", "a/x/y", "b/c"} {
		wantKeys(t, b, none)
	}
	for info, err := range b.List(t.Context(), "a") {
		if err != nil {
			t.Fatal(err)
		}
		if want := int64(slices.Index(keys, info.Key)); info.Size != want {
			t.Errorf("%s has %d bytes, want %d", info.Key, info.Size, want)
		}
		if info.Modified <= 0 {
			t.Errorf("%s was put at %d", info.Key, info.Modified)
		}
	}
}

func testListStops(t *testing.T, b blob.Bucket) {
	for i := range 5 {
		create(t, b, fmt.Sprintf("dir/%d", i), nil)
	}
	n := 0
	for _, err := range b.List(t.Context(), "dir/") {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 2 {
			break
		}
	}
	if n != 2 {
		t.Errorf("%d were listed", n)
	}
}

func testBadKeys(t *testing.T, b blob.Bucket) {
	for _, key := range badKeys {
		what := fmt.Sprintf(" %q", key)
		wantError(t, "create"+what, b.Create(t.Context(), key, strings.NewReader("x"), 1), blob.ErrKey)
		wantError(t, "replace"+what, b.Replace(t.Context(), key, strings.NewReader("x"), 1), blob.ErrKey)
		wantError(t, "delete"+what, b.Delete(t.Context(), key), blob.ErrKey)
	}
	for _, prefix := range []string{"/", "../", "a//", ".", "a/.", "a b"} {
		_, err := Keys(t.Context(), b, prefix)
		wantError(t, fmt.Sprintf("list %q", prefix), err, blob.ErrKey)
	}
	wantKeys(t, b, "")
}

func testEndedContext(t *testing.T, b blob.Bucket) {
	create(t, b, small, []byte("old"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantError(t, "create", b.Create(ctx, large, strings.NewReader("x"), 1), context.Canceled)
	wantError(t, "replace", b.Replace(ctx, small, strings.NewReader("x"), 1), context.Canceled)
	wantError(t, "delete", b.Delete(ctx, small), context.Canceled)
	_, err := Keys(ctx, b, "")
	wantError(t, "list", err, context.Canceled)
	wantKeys(t, b, "", small)
	wantContent(t, b, small, []byte("old"))
}
