//go:build linux

package uffdtest_test

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"
	"thaw/internal/testenv"
	"thaw/uffd"
	"thaw/uffd/uffdtest"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const base = 0x10_0000_0000

// pages returns the range of n pages, skip pages behind the base.
func pages(skip, n uint64) uffd.Range {
	return uffd.Range{Start: base + skip*uffd.PageSize, End: base + (skip+n)*uffd.PageSize}
}

func TestTargetReadsWhatItWrote(t *testing.T) {
	target := uffdtest.Start(t)
	target.Map(pages(0, 4)).Must()
	data := bytes.Repeat([]byte("thaw"), 2048)
	target.Write(base+4096, data).Must()
	got := target.Read(pages(1, 2)).Must()
	if !bytes.Equal(got, data) {
		t.Error("the bytes read are not those written")
	}
	sums := target.Sums(pages(0, 4)).Must()
	want := []uint64{uffdtest.Sum(make([]byte, 4096)), uffdtest.Sum(data[:4096]), uffdtest.Sum(data[4096:]), uffdtest.Sum(make([]byte, 4096))}
	for i := range want {
		if sums[i] != want[i] {
			t.Errorf("sum of page %d is %#x, want %#x", i, sums[i], want[i])
		}
	}
}

func TestTouchVisitsEachPageOnce(t *testing.T) {
	for _, n := range []uint64{1, 2, 3, 64, 1000} {
		target := uffdtest.Start(t)
		target.Map(pages(0, n)).Must()
		seen := make(map[uint64]int)
		for _, c := range target.TouchWrite(pages(0, n), 3, 42) {
			for _, a := range c.Must() {
				seen[a.Page]++
				if a.Word != a.Page+42 {
					t.Errorf("page %d holds %d", a.Page, a.Word)
				}
			}
		}
		if uint64(len(seen)) != n {
			t.Errorf("%d of %d pages touched", len(seen), n)
		}
	}
}

func TestForkedChildObeys(t *testing.T) {
	target := uffdtest.Start(t)
	target.Map(pages(0, 2)).Must()
	target.Write(base, []byte("parent")).Must()
	child := target.Fork().Must()
	child.Write(base, []byte("child!")).Must()
	grandchild := child.Fork().Must()
	grandchild.Write(base, []byte("grand!")).Must()
	for _, tt := range []struct {
		t    *uffdtest.Target
		want string
	}{{target, "parent"}, {child, "child!"}, {grandchild, "grand!"}} {
		if got := tt.t.Read(uffd.Range{Start: base, End: base + 6}).Must(); string(got) != tt.want {
			t.Errorf("process %d reads %q, want %q", tt.t.PID(), got, tt.want)
		}
	}
	child.Exit(3).Must()
	grandchild.Exec().Must()
	if err := grandchild.Read(pages(0, 1)).Err(); err == nil {
		t.Error("memory survived exec")
	}
	target.Mprotect(pages(0, 1), unix.PROT_NONE).Must()
	if err := target.Read(pages(0, 1)).Err(); err == nil {
		t.Error("read of protected memory succeeded")
	}
}
