package blobtest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"thaw/internal/testenv"
	"thaw/pagestore/blob"
	"thaw/pagestore/blob/blobtest"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// Wrappers that have nothing to spoil pass the suite.
func TestSuite(t *testing.T) {
	never := func(string, int64) bool { return false }
	for name, wrap := range map[string]func(t *testing.T, b blob.Bucket) blob.Bucket{
		"memory":      func(_ *testing.T, b blob.Bucket) blob.Bucket { return b },
		"short":       func(_ *testing.T, b blob.Bucket) blob.Bucket { return blobtest.Short(b, 1<<40) },
		"failing":     func(_ *testing.T, b blob.Bucket) blob.Bucket { return blobtest.Failing(b, 0, blob.ErrBusy) },
		"lying":       func(_ *testing.T, b blob.Bucket) blob.Bucket { return blobtest.Lying(b, never) },
		"hanging":     func(_ *testing.T, b blob.Bucket) blob.Bucket { return blobtest.Hanging(b, 1<<40) },
		"full":        func(_ *testing.T, b blob.Bucket) blob.Bucket { return blobtest.Full(b, 1<<40) },
		"recorder":    func(_ *testing.T, b blob.Bucket) blob.Bucket { return blobtest.NewRecorder(b) },
		"switch":      func(_ *testing.T, b blob.Bucket) blob.Bucket { return blobtest.NewSwitch(b) },
		"two of them": func(_ *testing.T, b blob.Bucket) blob.Bucket { return blobtest.NewRecorder(blobtest.Short(b, 1<<40)) },
	} {
		t.Run(name, func(t *testing.T) {
			blobtest.Run(t, func(t *testing.T) blob.Bucket { return wrap(t, &blobtest.Memory{}) })
		})
	}
}

const key = "some/key"

// memory returns a bucket that holds content under key.
func memory(t *testing.T, content string) *blobtest.Memory {
	t.Helper()
	m := &blobtest.Memory{}
	put(t, m.Create, content)
	return m
}

func put(t *testing.T, put func(ctx context.Context, key string, r io.Reader, size int64) error, content string) {
	t.Helper()
	if err := put(t.Context(), key, strings.NewReader(content), int64(len(content))); err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, r blob.Reader, off, n int64, content string, err error) {
	t.Helper()
	got, gotErr := blobtest.Read(t.Context(), r, key, off, n)
	if string(got) != content || !errors.Is(gotErr, err) {
		t.Errorf("%d bytes from %d on are %q, %v, want %q, %v", n, off, got, gotErr, content, err)
	}
}

func TestSlowTakesItsTimeForEachByte(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := blobtest.Slow(memory(t, "0123456789"), blobtest.Pause(time.Second))
		begin := time.Now()
		want(t, slow, 2, 5, "23456", nil)
		if took := time.Since(begin); took != 6*time.Second { // the end of it is one more
			t.Errorf("it took %v", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
		defer cancel()
		if got, err := blobtest.Read(ctx, slow, key, 0, -1); string(got) != "01" || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("within 2.5 s came %q, %v", got, err)
		}
	})
}

func TestShortEndsAsIfThatWereTheEnd(t *testing.T) {
	short := blobtest.Short(memory(t, "0123456789"), 4)
	want(t, short, 0, -1, "0123", nil)
	want(t, short, 5, 5, "5678", nil)
	want(t, short, 5, 4, "5678", nil)
	if size, err := short.Size(t.Context(), key); size != 10 || err != nil {
		t.Errorf("size is %d, %v", size, err)
	}
}

func TestBrokenEndsWithItsErrorForEver(t *testing.T) {
	errBroken := errors.New("broken")
	broken := blobtest.Broken(memory(t, "0123456789"), 4, errBroken)
	want(t, broken, 0, -1, "0123", errBroken)
	want(t, broken, 8, 2, "89", nil)
	body, err := broken.Open(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	for range 20 {
		_, err = body.Read(make([]byte, 3))
	}
	if !errors.Is(err, errBroken) {
		t.Errorf("the last error is %v", err)
	}
}

func TestFailingFailsTheFirstCalls(t *testing.T) {
	failing := blobtest.Failing(memory(t, "content"), 3, blob.ErrBusy)
	_, err := failing.Size(t.Context(), key)
	_, listErr := blobtest.Keys(t.Context(), failing, "")
	for _, err := range []error{err, listErr, failing.Delete(t.Context(), key)} {
		if !errors.Is(err, blob.ErrBusy) {
			t.Errorf("error is %v", err)
		}
	}
	want(t, failing, 0, -1, "content", nil)
}

func TestLyingTellsTheSameLieWhateverIsAskedFor(t *testing.T) {
	lying := blobtest.Lying(memory(t, "0000000000"), blobtest.At(3))
	want(t, lying, 0, -1, "0001000000", nil)
	want(t, lying, 3, 2, "10", nil)
	want(t, lying, 4, 3, "000", nil)
}

func TestHangingEndsWithTheContextOrWithClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memory(t, "0123456789")
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if got, err := blobtest.Read(ctx, blobtest.Hanging(m, 4), key, 0, -1); string(got) != "0123" || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("read %q, %v", got, err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, err := blobtest.Hanging(m, -1).Size(ctx, key); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("size: %v", err)
		}
		body, err := blobtest.Hanging(m, 0).Open(t.Context(), key, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() { _, err := body.Read(make([]byte, 1)); done <- err }()
		synctest.Wait()
		if err := body.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; err == nil {
			t.Error("reading went on after Close")
		}
	})
}

func TestStaleAnswersAsOfThen(t *testing.T) {
	m := memory(t, "old")
	stale, err := blobtest.NewStale(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	put(t, stale.Replace, "new")
	if err := stale.Create(t.Context(), "other", strings.NewReader("x"), 1); err != nil {
		t.Fatal(err)
	}
	want(t, stale, 0, -1, "old", nil)
	want(t, m, 0, -1, "new", nil)
	if _, err := stale.Size(t.Context(), "other"); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("size of what is new: %v", err)
	}
	if err := stale.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(t, stale, 0, -1, "new", nil)
	if err := stale.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	want(t, stale, 0, -1, "new", nil)
	want(t, m, 0, -1, "", blob.ErrNotFound)
}

func TestFullTakesWhatFits(t *testing.T) {
	m := &blobtest.Memory{}
	full := blobtest.Full(m, 10)
	put(t, full.Create, "123456")
	for _, size := range []int{5, 100} {
		if err := full.Create(t.Context(), "other", bytes.NewReader(make([]byte, size)), int64(size)); !errors.Is(err, blob.ErrNoSpace) {
			t.Errorf("%d bytes: error is %v", size, err)
		}
	}
	if err := full.Create(t.Context(), "other", strings.NewReader("1234"), 4); err != nil {
		t.Error(err)
	}
	if keys, err := blobtest.Keys(t.Context(), m, ""); err != nil || len(keys) != 2 {
		t.Errorf("there are %q, %v", keys, err)
	}
}

func TestTheRecorderKnowsWhatWasAsked(t *testing.T) {
	r := blobtest.NewRecorder(memory(t, "0123456789"))
	want(t, r, 2, 3, "234", nil)
	want(t, r, 7, -1, "789", nil)
	_, _ = r.Size(t.Context(), "none")
	if _, err := blobtest.Keys(t.Context(), r, "some/"); err != nil {
		t.Error(err)
	}
	calls := []blobtest.Call{
		{Op: blobtest.OpOpen, Key: key, Off: 2, N: 3}, {Op: blobtest.OpOpen, Key: key, Off: 7, N: -1}, {Op: blobtest.OpSize, Key: "none"}, {Op: blobtest.OpList, Key: "some/"},
	}
	if diff := cmp.Diff(calls, r.Calls()); diff != "" || r.Bytes() != 6 {
		t.Errorf("calls (-want +got), %d bytes:\n%s", r.Bytes(), diff)
	}
}

func TestTheSwitchGoesWhereItIsSet(t *testing.T) {
	s := blobtest.NewSwitch(memory(t, "one"))
	want(t, s, 0, -1, "one", nil)
	s.Set(blobtest.Failing(memory(t, "two"), 1, blob.ErrBusy))
	want(t, s, 0, -1, "", blob.ErrBusy)
	want(t, s, 0, -1, "two", nil)
}

// onlyReader hides all but what a Reader has.
type onlyReader struct{ blob.Reader }

func TestWhatCanOnlyBeReadCanOnlyBeRead(t *testing.T) {
	r := blobtest.Lying(onlyReader{memory(t, "abc")}, blobtest.At(0))
	want(t, r, 0, -1, "`bc", nil)
	_, err := blobtest.Keys(t.Context(), r, "")
	for _, err := range []error{err, r.Create(t.Context(), key, strings.NewReader(""), 0), r.Replace(t.Context(), key, strings.NewReader(""), 0), r.Delete(t.Context(), key)} {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("error is %v", err)
		}
	}
	if r.Exclusive() {
		t.Error("it is exclusive")
	}
}
