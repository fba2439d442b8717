package criu

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/pagemap"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// FuzzImages feeds bytes to the parser of every kind of image: there is an error that wraps ErrImages, or a result
// that keeps what the rest of the package relies on.
func FuzzImages(f *testing.F) {
	for kind, name := range []string{"inventory.img", "pstree.img", "core-950.img", "core-953.img", "mm-950.img", "pagemap-950.img", "pagemap-952.img"} {
		data, err := os.ReadFile("testdata/tiny/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(kind), data)
	}
	f.Fuzz(func(t *testing.T, kind uint8, data []byte) {
		var err error
		switch kind % 5 {
		case 0:
			_, err = parseBytes(data, magicInventory, parseInventory)
		case 1:
			var tree processTree
			if tree, err = parseBytes(data, magicPstree, parsePstree); err == nil && len(tree.pids) == 0 {
				t.Error("a tree without tasks")
			}
		case 2:
			_, err = parseBytes(data, magicCore, parseCore)
		case 3:
			var mem *memoryMap
			if mem, err = parseBytes(data, magicMM, parseMM); err == nil {
				checkMemoryMap(t, mem)
			}
		case 4:
			var pm *pageMap
			if pm, err = parseBytes(data, magicPagemap, parsePagemap); err == nil {
				checkPageMap(t, pm)
			}
		}
		if err != nil && !errors.Is(err, ErrImages) {
			t.Errorf("error %v is of the wrong kind", err)
		}
	})
}

func parseBytes[T any](data []byte, m magic, parse func(*entryReader) (T, error)) (T, error) {
	er, err := newEntryReader(bytes.NewReader(data), int64(len(data)), "fuzz.img", m)
	if err != nil {
		var zero T
		return zero, err
	}
	return parse(er)
}

func checkMemoryMap(t *testing.T, mem *memoryMap) {
	prev := uint64(0)
	for _, m := range mem.mappings {
		if m.start < prev || m.end <= m.start || m.start%page != 0 || m.end%page != 0 {
			t.Errorf("mapping [%#x, %#x) after %#x", m.start, m.end, prev)
		}
		prev = m.end
	}
	regions := mem.regions()
	if len(regions) == 0 {
		return
	}
	// Pages over all of the first region and a little more are cut into what is inside and the rest.
	r := Run{Addr: regions[0].Start, Pages: (regions[0].End-regions[0].Start)/page + 1}
	lazy, _, err := mem.classify([]Run{r}, "fuzz.img")
	if err == nil && (len(lazy) == 0 || lazy[0].end() != regions[0].End) {
		t.Errorf("pages of region %+v are cut into %+v", regions[0], lazy)
	}
}

// checkPageMap checks a pagemap's order, and that it survives being written and read.
func checkPageMap(t *testing.T, pm *pageMap) {
	var b strings.Builder
	w := newImageWriter(&b, magicPagemap)
	w.record(&pagemap.PagemapHead{PagesId: &pm.pagesID})
	prev, size := uint64(0), int64(0)
	for _, e := range pm.entries {
		if e.addr < prev || e.pages == 0 || e.end() <= e.addr || e.offset != size {
			t.Errorf("entry %+v after %#x, at %d", e, prev, size)
		}
		if prev = e.end(); e.flags&flagPresent != 0 {
			size += int64(e.pages) * page
		}
		w.record(&pagemap.PagemapEntry{Vaddr: &e.addr, CompatNrPages: proto.Uint32(0), Flags: &e.flags, NrPages: &e.pages})
	}
	if size != pm.bytes || size < 0 {
		t.Errorf("the pagemap counts %d bytes, and its entries have %d", pm.bytes, size)
	}
	if err := w.flush(); err != nil {
		t.Fatal(err)
	}
	again, err := parseBytes([]byte(b.String()), magicPagemap, parsePagemap)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(pm, again, cmp.AllowUnexported(pageMap{}, pageEntry{})); diff != "" {
		t.Errorf("-read +written and read\n%s", diff)
	}
}

// FuzzStream feeds bytes and descriptors to the reader of the socket: it ends with one of its errors or the end of
// the restore, and every descriptor is either handed out or closed. script says how the bytes are cut, and how many
// descriptors come with each piece.
func FuzzStream(f *testing.F) {
	f.Add(stream(10, 11, -12, finished), []byte{4, 0, 1, 1, 4, 0, 1, 1, 4, 0, 4, 0})
	f.Add(stream(10), []byte{4, 1, 1, 2, 1, 0})
	f.Add(stream(0), []byte{4, 0})
	null, err := os.Open(os.DevNull)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { null.Close() })
	f.Fuzz(func(t *testing.T, data, script []byte) {
		before := countFiles(t)
		conn := sent(t, data[:min(len(data), 4096)], script, int(null.Fd()))
		for {
			rec, err := readRecord(conn)
			if err != nil {
				if !errors.Is(err, ErrRestoreFailed) && !errors.Is(err, ErrProtocol) {
					t.Errorf("error %v is of the wrong kind", err)
				}
				break
			}
			if rec.kind == recordFinished {
				break
			}
			if rec.pid <= 0 {
				t.Errorf("record %+v", rec)
			}
			if rec.kind == recordTask {
				if err := unix.Close(rec.fd); err != nil {
					t.Errorf("descriptor of record %+v: %v", rec, err)
				}
			}
		}
		conn.Close()
		if after := countFiles(t); after != before {
			t.Errorf("%d descriptors are open, %d were before", after, before)
		}
	})
}

// sent returns a connection whose peer has sent data, in pieces with descriptors, and has gone.
func sent(t *testing.T, data, script []byte, fd int) *net.UnixConn {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(pair[0]), "socket")
	defer file.Close()
	c, err := net.FileConn(file)
	if err != nil {
		t.Fatal(err)
	}
	for len(data) > 0 {
		n, fds := len(data), 0
		if len(script) >= 2 {
			n, fds = min(1+int(script[0]%7), n), int(script[1]%4)
			script = script[2:]
		}
		if err := unix.Sendmsg(pair[1], data[:n], unix.UnixRights(slices.Repeat([]int{fd}, fds)...), nil, 0); err != nil {
			t.Fatal(err)
		}
		data = data[n:]
	}
	if err := unix.Close(pair[1]); err != nil {
		t.Fatal(err)
	}
	return c.(*net.UnixConn)
}

func countFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// stream is what CRIU sends for these pids, without descriptors.
func stream(pids ...int32) []byte {
	var b []byte
	for _, pid := range pids {
		b = binary.NativeEndian.AppendUint32(b, uint32(pid))
		if pid > 0 && pid != finished {
			b = append(b, 0)
		}
	}
	return b
}
