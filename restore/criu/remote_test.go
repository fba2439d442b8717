package criu

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"thaw/restore"
)

// A fakeServer is a page server that serves pages which hold their address.
type fakeServer struct {
	t      *testing.T
	conn   net.Conn
	answer func(req psHeader) psHeader // what it says to a request; pages of that many follow
	status int32                       // what it says to the end

	requests []psHeader
}

func (s *fakeServer) run() {
	defer s.conn.Close()
	for {
		var b [psHeaderSize]byte
		if _, err := io.ReadFull(s.conn, b[:]); err != nil {
			return
		}
		req := decodePSHeader(b[:])
		if req.cmd == psClose {
			s.conn.Write(binary.NativeEndian.AppendUint32(nil, uint32(s.status)))
			return
		}
		s.requests = append(s.requests, req)
		head := s.answer(req)
		if head == (psHeader{}) {
			return
		}
		out := head.encode()
		for i := range min(head.pages, maxRequest) {
			p := make([]byte, page)
			binary.NativeEndian.PutUint64(p, head.addr+i*page)
			out = append(out, p...)
		}
		if _, err := s.conn.Write(out); err != nil {
			return
		}
	}
}

// whole answers a request with all that it asks for.
func whole(req psHeader) psHeader {
	return psHeader{cmd: psAddPages | flagPresent<<16, pages: req.pages, addr: req.addr, id: req.id}
}

// openRemote returns a source of two tasks with pages on a fake server, and a function that ends the server.
func openRemote(t *testing.T, answer func(psHeader) psHeader) (*RemoteSource, map[int]restore.Layout, *fakeServer, func()) {
	t.Helper()
	dir := t.TempDir()
	d := newDump(entry(0x100000, 90, flagLazy), entry(0x160000, 2, flagPresent), entry(0x162000, 1, flagLazy))
	second := newDump(entry(0x100000, 5, flagLazy)).tasks[0]
	second.pid, second.pagesID = 11, 2
	d.tasks = append(d.tasks, second, dumpTask{pid: 12, state: taskDead})
	d.write(t, dir, 0)
	must(t, os.Remove(dir+"/pages-1.img")) // the page server has it
	im, err := OpenRemote(dir)
	must(t, err)
	defer im.Close()
	here, there := net.Pipe()
	s := &fakeServer{t: t, conn: there, answer: answer}
	var wg sync.WaitGroup
	wg.Go(s.run)
	src, layouts, err := NewRemoteSource(here, im, t.TempDir())
	must(t, err)
	end := func() { src.Close(); wg.Wait() }
	t.Cleanup(end)
	return src, layouts, s, end
}

func TestRemotePagesAreFetchedOnceAndKept(t *testing.T) {
	src, layouts, s, end := openRemote(t, whole)
	want := map[int]restore.Layout{
		10: {
			Regions: []restore.Region{{Start: 0x100000, End: 0x164000}},
			Extents: []restore.Extent{{Addr: 0x100000, Pages: 90}, {Addr: 0x162000, Pages: 1, Image: 90}},
		},
		11: {
			Regions: []restore.Region{{Start: 0x100000, End: 0x164000}},
			Extents: []restore.Extent{{Addr: 0x100000, Pages: 5, Image: 91}},
		},
	}
	if diff := cmp.Diff(want, layouts); diff != "" {
		t.Errorf("layouts: -want +got\n%s", diff)
	}
	if _, n := src.Ready(0, 10); n != 0 {
		t.Errorf("%d pages are at hand before any was fetched", n)
	}
	for range 2 {
		for _, l := range layouts {
			for _, e := range l.Extents {
				for p := uint64(0); p < e.Pages; {
					data, n, err := src.Load(e.Image+p, 1000)
					must(t, err)
					for i := range uint64(n) {
						if got := le(data[i*page:]); p+i < e.Pages && got != e.Addr+(p+i)*page {
							t.Errorf("page at %#x holds that of %#x", e.Addr+(p+i)*page, got)
						}
					}
					p += uint64(n)
				}
			}
		}
	}
	if data, n := src.Ready(60, 1000); n != 36 || len(data) != 36*page {
		t.Errorf("%d of the last 36 pages are at hand", n)
	}
	must(t, src.Finish())
	end()
	sum := map[uint64]uint64{}
	for _, r := range s.requests {
		sum[r.id] += r.pages
		if r.cmd != psGet || r.pages > maxRequest {
			t.Errorf("request %+v", r)
		}
	}
	if diff := cmp.Diff(map[uint64]uint64{10: 91, 11: 5}, sum); diff != "" {
		t.Errorf("pages asked for, by task: -want +got\n%s", diff)
	}
}

func TestRemoteAnswersMayBeShort(t *testing.T) {
	src, _, _, _ := openRemote(t, func(req psHeader) psHeader {
		h := whole(req)
		h.pages = min(h.pages, 3)
		return h
	})
	data, n, err := src.Load(10, 20)
	must(t, err)
	if n != 3 || le(data) != 0x10a000 {
		t.Errorf("%d pages, the first of %#x", n, le(data))
	}
}

func TestPageServerThatMisbehaves(t *testing.T) {
	for _, tc := range []struct {
		name   string
		answer func(psHeader) psHeader
		is     error
		says   string
	}{
		{"it hangs up", func(psHeader) psHeader { return psHeader{} }, io.EOF, "20 pages at 0x10a000 of task 10"},
		{"it answers with something else", func(req psHeader) psHeader { return psHeader{cmd: 4} }, ErrProtocol, "command 0x4"},
		{"it has no such pages", func(req psHeader) psHeader { h := whole(req); h.cmd = psAddPages; return h }, ErrProtocol, "command 0x6"},
		{"it sends other pages", func(req psHeader) psHeader { h := whole(req); h.addr += page; return h }, ErrProtocol, "0x10b000"},
		{"it sends none", func(req psHeader) psHeader { h := whole(req); h.pages = 0; return h }, ErrProtocol, "sends 0"},
		{"it sends too many", func(req psHeader) psHeader { h := whole(req); h.pages = 21; return h }, ErrProtocol, "sends 21"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			src, _, _, _ := openRemote(t, tc.answer)
			_, _, err := src.Load(10, 20)
			if !errors.Is(err, tc.is) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("error is %v", err)
			}
			if _, _, again := src.Load(0, 1); !errors.Is(again, tc.is) {
				t.Errorf("the connection is used again: %v", again)
			}
			if err := src.Finish(); !errors.Is(err, tc.is) {
				t.Errorf("Finish returns %v", err)
			}
		})
	}
	t.Run("it is not content with the end", func(t *testing.T) {
		src, _, s, _ := openRemote(t, whole)
		s.status = -1
		if err := src.Finish(); err == nil || !strings.Contains(err.Error(), "status -1") {
			t.Errorf("Finish returns %v", err)
		}
	})
}

func TestPageServerThatIsSilent(t *testing.T) {
	t.Run("counts as gone after a time", func(t *testing.T) {
		src := openSilent(t, nil)
		src.wait = time.Millisecond
		for range 2 {
			_, _, err := src.Load(10, 20)
			if !errors.Is(err, os.ErrDeadlineExceeded) || !strings.Contains(err.Error(), "has not answered within 1ms") {
				t.Errorf("error is %v", err)
			}
		}
		if err := src.Finish(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Finish returns %v", err)
		}
	})
	t.Run("is not waited for when the connection is closed", func(t *testing.T) {
		asked := make(chan struct{})
		src := openSilent(t, asked)
		failed := make(chan error)
		go func() {
			_, _, err := src.Load(10, 20)
			failed <- err
		}()
		<-asked
		src.conn.Close()
		if err := <-failed; err == nil {
			t.Error("pages have come from nowhere")
		}
		must(t, src.Close())
	})
}

// openSilent returns a source on a page server that takes requests, closes asked at the first one if it is not nil, and never answers.
func openSilent(t *testing.T, asked chan struct{}) *RemoteSource {
	t.Helper()
	over := make(chan struct{})
	src, _, _, _ := openRemote(t, func(psHeader) psHeader {
		if asked != nil {
			close(asked)
		}
		<-over
		return psHeader{}
	})
	t.Cleanup(func() { close(over) })
	return src
}

func TestRemoteSourceEnds(t *testing.T) {
	src, _, _, _ := openRemote(t, whole)
	if _, _, err := src.Load(96, 1); err == nil {
		t.Error("a page behind the image can be loaded")
	}
	must(t, src.Close())
	must(t, src.Close())
	if _, _, err := src.Load(0, 1); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close, Load returns %v", err)
	}
}
