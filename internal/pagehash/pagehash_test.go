package pagehash_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"testing"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"thaw/internal/pagehash"
	"thaw/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// digest is a type of somebody else's.
type digest [pagehash.Size]byte

// eachWay runs test with the kernel, if this machine has what that needs, and without.
func eachWay(t *testing.T, test func(t *testing.T)) {
	t.Run("kernel", func(t *testing.T) {
		if !pagehash.Fast() {
			t.Skip("no kernel for this processor: run it on one with SHA-NI and AVX2, without the build tag purego")
		}
		test(t)
	})
	t.Run("crypto/sha256", func(t *testing.T) {
		defer pagehash.Portable()()
		test(t)
	})
}

// randomPages returns n pages, and room behind them. Each call with the same n returns the same.
func randomPages(n int) []byte {
	b := make([]byte, (n+1)*pagehash.PageSize)
	_, _ = rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	return b[:n*pagehash.PageSize]
}

// check compares all that the package does to pages with crypto/sha256.
func check(t *testing.T, pages []byte) {
	t.Helper()
	var want []digest
	flat := []byte("before")
	for page := range slices.Chunk(pages, pagehash.PageSize) {
		d := sha256.Sum256(page)
		want, flat = append(want, d), append(flat, d[:]...)
	}
	if got := pagehash.Append([]byte("before"), pages); !bytes.Equal(got, flat) {
		t.Errorf("Append of %d pages:\n%x, want\n%x", len(want), got, flat)
	}
	got := make([]digest, len(want))
	if pagehash.Sum(got, pages, nil); !slices.Equal(got, want) {
		t.Errorf("Sum of %d pages:\n%x, want\n%x", len(want), got, want)
	}
}

func TestAnyNumberOfPagesHasTheirSHA256s(t *testing.T) {
	eachWay(t, func(t *testing.T) {
		for n := range 10 {
			check(t, randomPages(n))
		}
		check(t, randomPages(257))
	})
}

func TestPagesOfAllKindsHaveTheirSHA256s(t *testing.T) {
	var bits []byte // a bit in each page, at every place of a block and in each of the 64
	for i := range pagehash.PageSize {
		page := make([]byte, pagehash.PageSize)
		page[i] = 1 << (i % 8)
		bits = append(bits, page...)
	}
	counting := make([]byte, 8*pagehash.PageSize)
	for i := range counting {
		counting[i] = byte(i ^ i>>8)
	}
	eachWay(t, func(t *testing.T) {
		for name, pages := range map[string][]byte{
			"zero": make([]byte, 5*pagehash.PageSize), "ones": bytes.Repeat([]byte{0xff}, 5*pagehash.PageSize), "counting": counting, "one bit": bits,
			"text": bytes.Repeat([]byte("0123456789abcdef"), 7*pagehash.PageSize/16),
		} {
			t.Run(name, func(t *testing.T) { check(t, pages) })
		}
	})
}

func TestPagesMayBeginAnywhere(t *testing.T) {
	eachWay(t, func(t *testing.T) {
		b := randomPages(6)
		for off := range 65 {
			check(t, b[off:][:5*pagehash.PageSize])
		}
	})
}

func TestPagesThatAreSkippedKeepTheirDigests(t *testing.T) {
	eachWay(t, func(t *testing.T) {
		const n = 9
		pages := randomPages(n)
		for skipped := range 1 << n {
			got, want := make([]digest, n), make([]digest, n)
			for i := range n {
				got[i], want[i] = digest{byte(i)}, digest{byte(i)}
				if skipped>>i&1 == 0 {
					want[i] = sha256.Sum256(pages[i*pagehash.PageSize:][:pagehash.PageSize])
				}
			}
			if pagehash.Sum(got, pages, func(i int) bool { return skipped>>i&1 == 1 }); !slices.Equal(got, want) {
				t.Errorf("without %b:\n%x, want\n%x", skipped, got, want)
			}
		}
	})
}

func TestNothingBesideThePagesIsRead(t *testing.T) {
	const n = 9
	mapped, err := unix.Mmap(-1, 0, (n+2)*os.Getpagesize(), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Munmap(mapped); err != nil {
			t.Error(err)
		}
	}()
	readable := mapped[os.Getpagesize():][:n*os.Getpagesize()]
	if err := unix.Mprotect(readable, unix.PROT_READ|unix.PROT_WRITE); err != nil {
		t.Fatal(err)
	}
	copy(readable, randomPages(n))
	eachWay(t, func(t *testing.T) {
		for k := range n + 1 {
			check(t, readable[len(readable)-k*pagehash.PageSize:])
			check(t, readable[:k*pagehash.PageSize])
		}
	})
}

// TestAFaultIsAPanicOfTheCaller is about mapped files that storage does not deliver: who reads them asks for a panic, and recovers.
func TestAFaultIsAPanicOfTheCaller(t *testing.T) {
	const n = 4
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(n * pagehash.PageSize); err != nil {
		t.Fatal(err)
	}
	mapped, err := unix.Mmap(int(f.Fd()), 0, n*pagehash.PageSize, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Munmap(mapped); err != nil {
			t.Error(err)
		}
	}()
	if err := f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	eachWay(t, func(t *testing.T) {
		fault := func() (r any) {
			defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
			defer func() { r = recover() }()
			pagehash.Append(nil, mapped)
			return nil
		}()
		if _, ok := fault.(interface{ Addr() uintptr }); !ok {
			t.Errorf("recovered %v, want a fault with its address", fault)
		}
		check(t, randomPages(n))
	})
}

func TestAPartOfAPagePanics(t *testing.T) {
	eachWay(t, func(t *testing.T) {
		for name, f := range map[string]func(pages []byte){
			"Append": func(pages []byte) { pagehash.Append(nil, pages) },
			"Sum":    func(pages []byte) { pagehash.Sum(make([]digest, 6), pages, nil) },
		} {
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%s took it", name)
					}
				}()
				f(randomPages(6)[:6*pagehash.PageSize-1])
			}()
		}
	})
}

func TestManyGoroutinesHashAtOnce(t *testing.T) {
	eachWay(t, func(t *testing.T) {
		var g errgroup.Group
		for n := range 8 {
			g.Go(func() error {
				for range 50 {
					check(t, randomPages(n))
				}
				return nil
			})
		}
		_ = g.Wait()
	})
}

func FuzzPages(f *testing.F) {
	f.Add([]byte(nil), uint16(0))
	f.Add([]byte("a page that repeats itself"), uint16(5))
	f.Add(randomPages(3), uint16(0b1010))
	f.Fuzz(func(t *testing.T, content []byte, skipped uint16) {
		const n = 8
		if len(content) == 0 {
			content = []byte{0}
		}
		pages := bytes.Repeat(content, n*pagehash.PageSize/len(content)+1)[:n*pagehash.PageSize]
		check(t, pages)
		got := make([]digest, n)
		pagehash.Sum(got, pages, func(i int) bool { return skipped>>i&1 == 1 })
		for i := range got {
			want := digest{}
			if skipped>>i&1 == 0 {
				want = sha256.Sum256(pages[i*pagehash.PageSize:][:pagehash.PageSize])
			}
			if got[i] != want {
				t.Errorf("page %d, without %b: %x, want %x", i, skipped, got[i], want)
			}
		}
	})
}

// BenchmarkPages hashes 1 MiB, which is what moves through an import at a time, beside crypto/sha256.
func BenchmarkPages(b *testing.B) {
	const n = 256
	for _, threads := range []int{1, 2} {
		for _, way := range []struct {
			name string
			hash func(digests []digest, pages []byte)
		}{
			{"pagehash", func(digests []digest, pages []byte) { pagehash.Sum(digests, pages, nil) }},
			{"crypto", func(digests []digest, pages []byte) {
				for i := range digests {
					digests[i] = sha256.Sum256(pages[i*pagehash.PageSize:][:pagehash.PageSize])
				}
			}},
		} {
			b.Run(fmt.Sprintf("%s/goroutines=%d", way.name, threads), func(b *testing.B) {
				b.SetBytes(int64(threads) * n * pagehash.PageSize)
				var g errgroup.Group
				for range threads {
					pages, digests := randomPages(n), make([]digest, n)
					g.Go(func() error {
						for range b.N {
							way.hash(digests, pages)
						}
						return nil
					})
				}
				_ = g.Wait()
			})
		}
	}
}
