package criu

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/vma"
	"golang.org/x/sys/unix"
)

// sourceFromDisk returns a source of 600 pages of which none is in memory, and the pages file.
func sourceFromDisk(t *testing.T) (*ImageSource, string) {
	t.Helper()
	dir := t.TempDir()
	d := newDump(entry(0x100000, 600, lazy))
	d.tasks[0].vmas = []*vma.VmaEntry{anon(0x100000, 600)}
	d.write(t, dir, 0)
	name := filepath.Join(dir, "pages-1.img")
	f, err := os.Open(name)
	must(t, err)
	defer f.Close()
	must(t, f.Sync())
	must(t, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
	var in unix.Cachestat_t
	if err := unix.Cachestat(uint(f.Fd()), &unix.CachestatRange{}, &in, 0); err != nil || in.Cache > 0 {
		t.Skipf("%d pages of a file stay in memory (%v): needs Linux 6.5, and TMPDIR on a disk", in.Cache, err)
	}
	im, err := Open(dir)
	must(t, err)
	defer im.Close()
	src, _, err := im.Source()
	must(t, err)
	t.Cleanup(func() { must(t, src.Close()) })
	return src, name
}

func TestPagesThatAreOnTheDiskAreNotAtHand(t *testing.T) {
	src, _ := sourceFromDisk(t)
	if _, n := src.Ready(70, 64); n != 0 {
		t.Errorf("%d pages are at hand of which none is in memory", n)
	}
	data, n, err := src.Load(70, 64)
	if err != nil || n != 64 || le(data) != 0x100000+70*page {
		t.Fatalf("%d pages were read: %v", n, err)
	}
	if data, n := src.Ready(70, 64); n != 64 || len(data) != 64*page || le(data[63*page:]) != 0x100000+133*page {
		t.Errorf("%d of 64 pages are at hand that were read", n)
	}
	if _, n, err := src.Load(0, 600); err != nil || n != maxLoad {
		t.Errorf("%d pages were read at once, want %d: %v", n, maxLoad, err)
	}
}

func TestPagesThatAnotherHasReadAreAtHand(t *testing.T) {
	src, name := sourceFromDisk(t)
	_, err := os.ReadFile(name)
	must(t, err)
	if _, n := src.Ready(10, 1000); n != 590 {
		t.Errorf("%d of 590 pages are at hand", n)
	}
	if n := testing.AllocsPerRun(100, func() {
		src.Ready(10, 64)
		src.known[0].Store(0)
	}); n != 0 {
		t.Errorf("Ready allocates %v times", n)
	}
}

func TestPagesOfATruncatedFileCannotBeRead(t *testing.T) {
	src, name := sourceFromDisk(t)
	must(t, os.Truncate(name, 300*page))
	if _, _, err := src.Load(300, 4); !errors.Is(err, unix.EFAULT) {
		t.Errorf("error is %v", err)
	}
	if _, n := src.Ready(300, 4); n != 0 {
		t.Errorf("%d pages are at hand that are gone", n)
	}
	if data, n, err := src.Load(299, 4); err != nil || n != 1 || le(data) != 0x100000+299*page {
		t.Errorf("%d pages before the end were read: %v", n, err)
	}
}
