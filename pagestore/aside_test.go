package pagestore

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// cachedPages returns how many pages of a file are in memory.
func cachedPages(t *testing.T, path string, drop bool) int {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if drop {
		_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	}
	var out unix.Cachestat_t
	if err := unix.Cachestat(uint(f.Fd()), &unix.CachestatRange{}, &out, 0); err != nil {
		t.Skip("the kernel does not say what is in memory (before Linux 6.5)")
	}
	return int(out.Cache)
}

func TestACopyThatIsReadAsideLeavesMemoryAgain(t *testing.T) {
	m := seeds(1, 700)
	im, _ := hotImage(t, m, []PageRun{{0, 700}}, nil)
	s, path := im.store, hotPath(im.store, "a")
	im.hot.file.Close()
	im.hot.file = nil // its mapping would hold the pages
	read := func(aside bool) {
		t.Helper()
		snap, err := s.Snapshot(mustName("a"))
		if err != nil {
			t.Fatal(err)
		}
		defer snap.Close()
		if aside {
			snap.Aside()
		}
		im, err := snap.Image()
		if err != nil {
			t.Fatal(err)
		}
		for page := 0; page < 700; {
			data, n, err := im.Load(uint64(page), 64)
			if err != nil || !copied(im, data) {
				t.Fatalf("page %d does not come from the copy: %v", page, err)
			}
			if err := samePages(data, m[page:page+n]); err != nil {
				t.Fatal(err)
			}
			page += n
		}
	}
	if cachedPages(t, path, true) > 0 {
		t.Skip("the kernel keeps the file in memory: it is in a tmpfs, or was not written yet")
	}
	read(true)
	if n := cachedPages(t, path, false); n > 0 {
		t.Errorf("%d pages are still in memory", n)
	}
	read(false)
	n := cachedPages(t, path, false)
	if n < 700 {
		t.Skipf("the kernel has dropped what was just read: %d pages are left", n)
	}
	read(true)
	if now := cachedPages(t, path, false); now < n {
		t.Errorf("of %d pages that were in memory before %d are", n, now)
	}
}
