package baseline

import (
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"thaw/internal/testenv"
	"thaw/uffd"
	"thaw/uffd/uffdtest"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const (
	base  = 0x10_0000_0000
	pages = 64
)

// source makes a file in memory whose pages begin with their number and a mark.
func source(t *testing.T) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("source", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "source")
	t.Cleanup(func() { f.Close() })
	data := make([]byte, pages*uffd.PageSize)
	for p := range pages {
		binary.NativeEndian.PutUint64(data[p*uffd.PageSize:], uint64(p)+1000)
	}
	if _, err := f.WriteAt(data, 0); err != nil {
		t.Fatal(err)
	}
	return f
}

// target starts a process with n registered pages at base.
func target(t *testing.T, n uint64) (*uffdtest.Target, *os.File) {
	t.Helper()
	p := uffdtest.Start(t)
	r := uffd.Range{Start: base, End: base + n*uffd.PageSize}
	p.Map(r).Must()
	fd := os.NewFile(uintptr(p.OpenRaw(uffdtest.CRIUFeatures).Must()), "userfaultfd")
	p.Register(r, uffd.ModeMissing).Must()
	p.Drop().Must()
	return p, fd
}

// expect touches the pages and compares their first words.
func expect(t *testing.T, p *uffdtest.Target, n uint64, want func(page uint64) uint64) {
	t.Helper()
	for _, a := range p.Touch(uffd.Range{Start: base, End: base + n*uffd.PageSize}, 1, 1)[0].Must() {
		if a.Word != want(a.Page) {
			t.Errorf("page %d begins with %d, want %d", a.Page, a.Word, want(a.Page))
		}
	}
}

// placed says what the placement of runs of 3 pages with gaps of 2 has at a page; the source repeats itself.
func placed(page uint64) uint64 {
	if page%5 >= 3 {
		return 0
	}
	return (page/5*3+page%5)%pages + 1000
}

func TestServerBringsWhatBelongsThere(t *testing.T) {
	for _, wait := range []Wait{Poll, Spin, Example} {
		for name, fill := range map[string]bool{"fault by fault": false, "in bulk": true} {
			t.Run(string(wait)+" "+name, func(t *testing.T) {
				const n = 5 * pages
				p, fd := target(t, n)
				defer fd.Close()
				s, err := StartServer(t.Context(), ServerOptions{
					Wait: wait, Source: source(t), FDs: []*os.File{fd}, Bulk: 2,
					Placement: Placement{Base: base, Pages: n, Run: 3, Gap: 2},
				})
				if err != nil {
					t.Fatal(err)
				}
				if fill {
					cost, err := s.Fill(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					if want := uint64(n / 5 * 3 * uffd.PageSize); cost.Bytes != want || cost.Time <= 0 || cost.CPU <= 0 {
						t.Errorf("the fill cost %+v, want %d bytes", cost, want)
					}
				}
				expect(t, p, n, placed)
				p.Kill()
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func TestServerServesSeveralProcesses(t *testing.T) {
	a, fdA := target(t, pages)
	b, fdB := target(t, pages)
	defer fdA.Close()
	defer fdB.Close()
	s, err := StartServer(t.Context(), ServerOptions{
		Wait: Poll, Source: source(t), FDs: []*os.File{fdA, fdB}, Placement: Placement{Base: base, Pages: pages, Run: pages},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []*uffdtest.Target{a, b} {
		expect(t, p, pages, func(page uint64) uint64 { return page + 1000 })
		p.Kill()
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestTheServerInGoBringsWhatBelongsThere(t *testing.T) {
	for _, wait := range []Wait{Poll, Spin} {
		t.Run(string(wait), func(t *testing.T) {
			p, file := target(t, pages)
			fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			file.Close()
			if err := unix.SetNonblock(fd, true); err != nil {
				t.Fatal(err)
			}
			u, err := uffd.FromFD(fd)
			if err != nil {
				t.Fatal(err)
			}
			defer u.Close()
			data, err := io.ReadAll(source(t))
			if err != nil {
				t.Fatal(err)
			}
			s, err := StartGoServer(wait, u, data, base)
			if err != nil {
				t.Fatal(err)
			}
			expect(t, p, pages, func(page uint64) uint64 { return page + 1000 })
			p.Kill()
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestTheServerInGoRefusesAPolicyThatItDoesNotHave(t *testing.T) {
	if _, err := StartGoServer(Example, nil, nil, base); err == nil {
		t.Error("it is started")
	}
}

func TestServerRefusesAPlacementWithoutRuns(t *testing.T) {
	if _, err := StartServer(t.Context(), ServerOptions{Placement: Placement{Base: base}}); err == nil {
		t.Error("it is started")
	}
}

func TestMemoryIsReadAndMapped(t *testing.T) {
	testenv.NeedCC(t)
	f := source(t)
	for name, how := range map[string]func() (Cost, error){
		"read": func() (Cost, error) { return ReadFile(t.Context(), f, pages*uffd.PageSize) },
		"map":  func() (Cost, error) { return MapFile(t.Context(), f, pages*uffd.PageSize) },
	} {
		cost, err := how()
		if err != nil || cost.Bytes != pages*uffd.PageSize || cost.Time <= 0 {
			t.Errorf("%s: %+v, %v", name, cost, err)
		}
	}
	if _, err := ReadFile(t.Context(), f, 2*pages*uffd.PageSize); err == nil {
		t.Error("more is read than there is")
	}
}

func TestCRIUsServerTakesAProcessForItsOwn(t *testing.T) {
	criu := testenv.CRIU(t)
	testenv.NeedCC(t)
	images, err := DumpForCRIU(t.Context(), criu, filepath.Join(t.TempDir(), "criu"), source(t), base, pages)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s, err := images.StartServer(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		p := uffdtest.Start(t)
		r := uffd.Range{Start: base, End: base + pages*uffd.PageSize}
		p.Map(r).Must()
		p.Open(uffdtest.CRIUFeatures).Must().Close()
		h := p.Dial(s.Socket()).Must()
		p.Send(h, binary.NativeEndian.AppendUint32(nil, uint32(images.PID)), 0).Must()
		p.Send(h, []byte{0}, 1).Must()
		p.Register(r, uffd.ModeMissing).Must()
		p.Drop().Must()
		expect(t, p, pages, func(page uint64) uint64 { return page + 1000 })
		p.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestCostIsRead(t *testing.T) {
	c, err := parseCost("10 20 4096 1 2 3")
	if err != nil || c.Time != 10 || c.CPU != 20 || c.Bytes != 4096 || len(c.Progress) != 3 {
		t.Errorf("cost is %+v, %v", c, err)
	}
	for _, bad := range []string{"", "1 2", "a b c", "1 2 -3"} {
		if _, err := parseCost(bad); err == nil {
			t.Errorf("%q is understood", bad)
		}
	}
}
