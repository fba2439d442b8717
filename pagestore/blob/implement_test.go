package blob_test

import (
	"context"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"testing/iotest"

	"thaw/pagestore/blob"
)

func TestExactDeliversTheLastByteOnlyIfThereAreNoMore(t *testing.T) {
	errSource := errors.New("the source is gone")
	for _, test := range []struct {
		name string
		r    io.Reader
		size int64
		want string // of which the last byte may be missing only with an error
		err  error
	}{
		{"as many", strings.NewReader("abc"), 3, "abc", nil},
		{"none", strings.NewReader(""), 0, "", nil},
		{"too few", strings.NewReader("ab"), 3, "ab", blob.ErrSize},
		{"too many", strings.NewReader("abcd"), 3, "", blob.ErrSize},
		{"too many, byte by byte", iotest.OneByteReader(strings.NewReader("abcd")), 3, "ab", blob.ErrSize},
		{"some for none", strings.NewReader("a"), 0, "", blob.ErrSize},
		{"as many, and the end with them", iotest.DataErrReader(strings.NewReader("abc")), 3, "abc", nil},
		{"too few, and the end with them", iotest.DataErrReader(strings.NewReader("ab")), 3, "ab", blob.ErrSize},
		{"an error before the end", io.MultiReader(strings.NewReader("ab"), iotest.ErrReader(errSource)), 3, "ab", errSource},
		{"an error at the end", io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(errSource)), 3, "", errSource},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := io.ReadAll(blob.Exact(t.Context(), test.r, test.size))
			if string(got) != test.want || !errors.Is(err, test.err) {
				t.Errorf("read %q, %v, want %q, %v", got, err, test.want, test.err)
			}
		})
	}
}

func TestExactEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r := blob.Exact(ctx, strings.NewReader("abc"), 3)
	if _, err := io.ReadFull(r, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if got, err := io.ReadAll(r); len(got) != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestRangeLiesInsideTheBlob(t *testing.T) {
	for _, test := range []struct{ size, off, n, want int64 }{
		{10, 0, 10, 10}, {10, 0, -1, 10}, {10, 4, -1, 6}, {10, 10, -1, 0}, {10, 10, 0, 0}, {0, 0, -1, 0}, {10, 9, 1, 1},
		{10, 0, 11, -1}, {10, 10, 1, -1}, {10, 11, -1, -1}, {10, 11, 0, -1}, {10, -1, 1, -1}, {10, 1, math.MaxInt64, -1}, {10, math.MinInt64, -1, -1},
	} {
		got, err := blob.Range(test.size, test.off, test.n)
		if test.want < 0 {
			if !errors.Is(err, blob.ErrRange) {
				t.Errorf("%+v: %d, %v", test, got, err)
			}
		} else if err != nil || got != test.want {
			t.Errorf("%+v: %d, %v", test, got, err)
		}
	}
}
