package daemon

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"thaw/control"
	"thaw/internal/testenv"
	"thaw/pagestore"
	"thaw/uffd"
	"thaw/uffd/uffdtest"
)

// onePack returns the path of the store's only pack.
func onePack(t *testing.T, store *pagestore.Store) string {
	t.Helper()
	packs, err := filepath.Glob(filepath.Join(store.Dir(), "namespaces", pagestore.DefaultNamespace, "packs", "*.pack"))
	if err != nil || len(packs) != 1 {
		t.Fatalf("packs: %v, %v; want one", packs, err)
	}
	return packs[0]
}

// flip flips one bit of the stored copy of a page of content.
func flip(t *testing.T, pack string, page uint64) {
	t.Helper()
	if err := os.Chmod(pack, 0o600); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(pack)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(data, want(t, page, 1))
	if at < 0 {
		t.Fatalf("page %d is not in the pack", page)
	}
	data[at+100] ^= 4
	if err := os.WriteFile(pack, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAFlippedBitReachesNoProcessAndIsNamed(t *testing.T) {
	testenv.NeedUserfaultfd(t, uffd.FeaturePoison)
	const n, bad = 300, 123
	store := newStore(t, n)
	pack := onePack(t, store)
	flip(t, pack, bad)
	d := start(t, store, nil)
	s := d.create(t, control.SessionRequest{Snapshot: "web"})
	r := connect(t, s, n)
	r.finish()

	_, err := r.target.Read(pages(bad, 1)).Wait(t.Context())
	var got *uffdtest.SignalError
	if !errors.As(err, &got) || got.Signal != unix.SIGBUS {
		t.Errorf("reading the damaged page: %v, want SIGBUS", err)
	}
	if got := r.target.Read(pages(0, bad)).Must(); !bytes.Equal(got, want(t, 0, bad)) {
		t.Error("pages before the damaged one have other bytes than were frozen")
	}
	if got := r.target.Read(pages(bad+1, n-bad-1)).Must(); !bytes.Equal(got, want(t, bad+1, n-bad-1)) {
		t.Error("pages behind the damaged one have other bytes than were frozen")
	}

	end := d.ended(t, s.ID)
	if end.State != control.StateFailed || end.Progress.PagesFailed == 0 {
		t.Errorf("the session ended as %s with %+v", end.State, end.Progress)
	}
	if p := end.FailedPage; p == nil || p.Page != bad || !strings.Contains(pack, p.Pack) || p.Pack == "" {
		t.Errorf("failed page is %+v, want image page %d of pack %s", p, bad, filepath.Base(pack))
	}
	if !strings.Contains(end.Error, "pack") || !strings.Contains(end.Error, "corrupt") {
		t.Errorf("error %q does not say what is wrong, and where", end.Error)
	}
}

func TestAMissingPackReachesNoProcessAsZeros(t *testing.T) {
	testenv.NeedUserfaultfd(t, uffd.FeaturePoison)
	const n = 8
	store := newStore(t, n)
	if err := os.Remove(onePack(t, store)); err != nil {
		t.Fatal(err)
	}
	d := start(t, store, nil)
	s := d.create(t, control.SessionRequest{Snapshot: "web"})
	r := connect(t, s, n)
	r.finish()
	data, err := r.target.Read(pages(2, 1)).Wait(t.Context())
	var got *uffdtest.SignalError
	if !errors.As(err, &got) || got.Signal != unix.SIGBUS {
		t.Errorf("reading a page of the missing pack: %v and %d bytes that begin with %x, want SIGBUS", err, len(data), data[:min(8, len(data))])
	}
	end := d.ended(t, s.ID)
	if end.State != control.StateFailed || end.FailedPage == nil || !strings.Contains(end.Error, "pack is missing") {
		t.Errorf("the session ended as %s, failed page %+v: %s", end.State, end.FailedPage, end.Error)
	}
}
