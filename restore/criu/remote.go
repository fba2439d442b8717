package criu

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sort"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"thaw/restore"
)

// Commands of CRIU's page server, since CRIU 4.2 (before, the header was shorter, and nothing in it tells). They are
// part of the protocol.
const (
	psAddPages = 6      // with flags in the upper half: pages follow
	psGet      = 7      // asks for pages
	psClose    = 0x1023 // answered with an int32

	psHeaderSize = 32
)

// maxRequest is how many pages one request asks for: 256 KiB. Answers come in the order of the requests, so a fault
// waits for those before it: 2.5 ms for each at 100 MB/s.
const maxRequest = 64

// answerWait is how long the page server may take for one answer, with its pages, before it counts as gone. All of the session's faults wait
// meanwhile; and when it is over, processes are killed that another machine may have for ever.
const answerWait = time.Minute

// A RemoteSource gives the pages that a page server of CRIU's has: `criu dump --lazy-pages` on another machine, or
// `criu page-server --lazy-pages`. It is safe for concurrent use.
//
// It keeps what it has received in an unnamed file: pages handed out stay valid until the source is closed, and a
// forked child asks for the pages of its parent again.
type RemoteSource struct {
	runs []remoteRun // sorted by first
	file *os.File
	data []byte        // file, mapped
	have pageBits      // what is in the file
	wait time.Duration // for an answer

	mu     sync.Mutex // held from a request until its answer has been read
	conn   net.Conn
	buf    []byte // of one answer
	err    error  // why the connection is unusable
	closed bool
}

var _ restore.PageSource = (*RemoteSource)(nil)

// A remoteRun is one pagemap entry of the page server's: image pages from first on.
type remoteRun struct {
	first, pages uint64
	pid          int
	addr         uint64
}

// NewRemoteSource returns a source for the lazy pages of im, which OpenRemote has opened, and the layouts of the tasks
// with memory, by image pid. conn is a connection to the page server on which nothing was sent. The pages are kept in
// a file in the folder dir while the source is open.
//
// The source owns conn from now on, also if NewRemoteSource fails; but anybody may close it at any time, to have calls that wait for the page
// server fail. The source does not need im afterwards.
func NewRemoteSource(conn net.Conn, im *Images, dir string) (*RemoteSource, map[int]restore.Layout, error) {
	s := &RemoteSource{conn: conn, buf: make([]byte, maxRequest*restore.PageSize), wait: answerWait}
	layouts, err := s.init(im, dir)
	if err != nil {
		s.Close()
		return nil, nil, fmt.Errorf("prepare to fetch pages: %w", err)
	}
	return s, layouts, nil
}

func (s *RemoteSource) init(im *Images, dir string) (map[int]restore.Layout, error) {
	if err := im.checkFlags(); err != nil {
		return nil, err
	}
	pages := uint64(0)
	layouts := make(map[int]restore.Layout)
	for i := range im.Tasks {
		t := &im.Tasks[i]
		if t.Zombie {
			continue
		}
		layouts[t.PID] = t.layout(t.Lazy, func(r *Run) uint64 {
			first := pages
			s.runs = append(s.runs, remoteRun{first, r.Pages, t.PID, r.Addr})
			pages += r.Pages
			return first
		})
	}
	if pages == 0 {
		return layouts, nil
	}
	s.have = newPageBits(pages)
	return layouts, s.makeFile(dir, int64(pages)*restore.PageSize)
}

func (s *RemoteSource) makeFile(dir string, size int64) error {
	f, err := os.CreateTemp(dir, ".thaw-pages-")
	if err != nil {
		return err
	}
	s.file = f
	if err := os.Remove(f.Name()); err != nil {
		return err
	}
	if err := f.Truncate(size); err != nil {
		return err
	}
	s.data, err = unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	return os.NewSyscallError("mmap", err)
}

// Ready returns pages that have been received.
func (s *RemoteSource) Ready(page uint64, limit int) (data []byte, n int) {
	if n = s.have.run(page, limit); n == 0 {
		return nil, 0
	}
	return s.data[page*restore.PageSize : (page+uint64(n))*restore.PageSize], n
}

// Load asks the page server. What it fetches may end before limit.
func (s *RemoteSource) Load(page uint64, limit int) (data []byte, n int, err error) {
	if limit <= 0 || page >= uint64(len(s.data))/restore.PageSize {
		return nil, 0, fmt.Errorf("page %d of an image of %d pages", page, len(s.data)/restore.PageSize)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if data, n = s.Ready(page, limit); n > 0 {
		return data, n, nil // another caller fetched it meanwhile
	}
	if s.err != nil {
		return nil, 0, s.err
	}
	if err := s.fetch(page, min(limit, maxRequest)); err != nil {
		return nil, 0, err
	}
	data, n = s.Ready(page, limit)
	return data, n, nil
}

// fetch brings at least the page into the file. An error of the connection is final: after it, nobody knows what the
// next byte means. An error of the file is not.
func (s *RemoteSource) fetch(page uint64, limit int) error {
	i := sort.Search(len(s.runs), func(i int) bool { return s.runs[i].first > page }) - 1
	r := &s.runs[i]
	off := page - r.first
	n := min(uint64(limit), r.pages-off)
	n, err := s.request(r.pid, r.addr+off*restore.PageSize, n)
	if err != nil {
		s.err = fmt.Errorf("fetch pages from the page server: %w", err)
		return s.err
	}
	if _, err := s.file.WriteAt(s.buf[:n*restore.PageSize], int64(page)*restore.PageSize); err != nil {
		return fmt.Errorf("keep pages from the page server: %w", err)
	}
	s.have.set(page, int(n))
	return nil
}

// A psHeader is the head of each message, in either direction.
type psHeader struct {
	cmd   uint32 // command in the lower half, flags in the upper
	pages uint64
	addr  uint64
	id    uint64
}

func (h *psHeader) encode() []byte {
	b := make([]byte, psHeaderSize)
	binary.NativeEndian.PutUint32(b[0:], h.cmd)
	binary.NativeEndian.PutUint64(b[8:], h.pages)
	binary.NativeEndian.PutUint64(b[16:], h.addr)
	binary.NativeEndian.PutUint64(b[24:], h.id)
	return b
}

func decodePSHeader(b []byte) psHeader {
	return psHeader{
		cmd:   binary.NativeEndian.Uint32(b[0:]),
		pages: binary.NativeEndian.Uint64(b[8:]),
		addr:  binary.NativeEndian.Uint64(b[16:]),
		id:    binary.NativeEndian.Uint64(b[24:]),
	}
}

// request reads n pages of a task from the page server into buf, and returns how many came: it may be fewer.
func (s *RemoteSource) request(pid int, addr, n uint64) (uint64, error) {
	var head [psHeaderSize]byte
	if err := s.exchange(&psHeader{cmd: psGet, pages: n, addr: addr, id: uint64(pid)}, head[:]); err != nil {
		return 0, fmt.Errorf("ask for %d pages at %#x of task %d: %w", n, addr, pid, err)
	}
	switch h := decodePSHeader(head[:]); {
	case h.cmd&0xffff != psAddPages || h.cmd>>16&flagPresent == 0:
		return 0, fmt.Errorf("%w: the page server answers with command %#x: is it a CRIU before 4.2?", ErrProtocol, h.cmd)
	case h.addr != addr || h.pages == 0 || h.pages > n:
		return 0, fmt.Errorf("%w: asked for %d pages at %#x, the page server sends %d at %#x", ErrProtocol, n, addr, h.pages, h.addr)
	default:
		_, err := io.ReadFull(s.conn, s.buf[:h.pages*restore.PageSize])
		return h.pages, s.silence(err)
	}
}

// exchange sends a request and reads as much of its answer as buf has room for. The rest has to come within the same time.
func (s *RemoteSource) exchange(req *psHeader, buf []byte) error {
	if err := s.conn.SetDeadline(time.Now().Add(s.wait)); err != nil {
		return err
	}
	_, err := s.conn.Write(req.encode())
	if err == nil {
		_, err = io.ReadFull(s.conn, buf)
	}
	return s.silence(err)
}

// silence says what it means that the deadline of a request is over.
func (s *RemoteSource) silence(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("the page server has not answered within %v, and counts as gone: %w", s.wait, err)
	}
	return err
}

// Prefetch does nothing: requests are answered in order, and one for later would delay the faults of now.
func (s *RemoteSource) Prefetch(page, pages uint64) {}

// Finish tells the page server that all is done, on which a dump ends and lets go of the frozen processes. Without it
// the server takes the restore for failed.
func (s *RemoteSource) Finish() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	s.err = errors.New("the page server has been told that all is done")
	var status [4]byte
	if err := s.exchange(&psHeader{cmd: psClose}, status[:]); err != nil {
		return fmt.Errorf("end the page server's session: %w", err)
	}
	if st := int32(binary.NativeEndian.Uint32(status[:])); st != 0 {
		return fmt.Errorf("end the page server's session: it reports status %d", st)
	}
	return nil
}

// Close closes the connection and removes the file. No page handed out may be in use any more.
func (s *RemoteSource) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.err = net.ErrClosed
	var errs []error
	if err := s.conn.Close(); !errors.Is(err, net.ErrClosed) {
		errs = append(errs, err)
	}
	if s.data != nil {
		errs = append(errs, unix.Munmap(s.data))
	}
	if s.file != nil {
		errs = append(errs, s.file.Close())
	}
	return errors.Join(errs...)
}
