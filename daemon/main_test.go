package daemon

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"thaw/control"
	"thaw/internal/testenv"
	"thaw/pagestore"
	"thaw/restore/guard"
	"thaw/restore/tracer"
	"thaw/uffd"
	"thaw/uffd/uffdtest"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "guard" {
		os.Exit(guard.Main())
	}
	if len(os.Args) > 1 && os.Args[1] == "tracer" { // what tracer.Start runs this program with
		if os.Getenv(noTracer) != "" {
			os.Exit(1)
		}
		os.Exit(tracer.Main(os.Args[2:]))
	}
	testenv.Main(m)
}

// noTracer is the variable of the environment that makes the recorder fail.
const noTracer = "THAW_TEST_NO_TRACER"

const (
	base     = 0x10_0000_0000
	imagePID = 7
)

// pages returns the range of n pages, skip pages behind base.
func pages(skip, n uint64) uffd.Range {
	return uffd.Range{Start: base + skip*uffd.PageSize, End: base + (skip+n)*uffd.PageSize}
}

// content is an endless file whose page n is filled with words that say n and where they stand.
type content struct{}

func (content) ReadAt(p []byte, off int64) (int, error) {
	for i := range p {
		at := uint64(off) + uint64(i)
		var word [8]byte
		binary.LittleEndian.PutUint64(word[:], (at/uffd.PageSize+1)<<32|at%uffd.PageSize/8)
		p[i] = word[at%8]
	}
	return len(p), nil
}

// want returns the bytes of n pages of content, from page first on.
func want(t *testing.T, first, n uint64) []byte {
	t.Helper()
	b := make([]byte, n*uffd.PageSize)
	if _, err := io.ReadFull(io.NewSectionReader(content{}, int64(first*uffd.PageSize), int64(len(b))), b); err != nil {
		t.Fatal(err)
	}
	return b
}

// newStore makes a store with one snapshot, "web", of a process with n pages of content and as many empty ones behind.
func newStore(t *testing.T, n uint64) *pagestore.Store {
	t.Helper()
	store, err := pagestore.Create(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	addSnapshot(t, store, "web", n)
	return store
}

func addSnapshot(t *testing.T, store *pagestore.Store, name string, n uint64) {
	t.Helper()
	all := pages(0, 2*n)
	_, err := store.Import(t.Context(), pagestore.Name{Namespace: pagestore.DefaultNamespace, Snapshot: name}, pagestore.Input{
		Spaces: []pagestore.Space{
			{ID: imagePID, Regions: []pagestore.Region{{Start: all.Start, End: all.End}}, Runs: []pagestore.Run{{Addr: base, Pages: n}}},
			{ID: imagePID + 1, Zombie: true},
		},
		Files: []io.ReaderAt{content{}},
		Host:  json.RawMessage(`{"kernel":"test"}`),
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
}

// running is a daemon that runs.
type running struct {
	*Daemon
	stop context.CancelCauseFunc
	end  chan error // Run's error
}

// start runs a daemon over store until the test ends. opts may be nil.
func start(t *testing.T, store *pagestore.Store, opts *Options) *running {
	t.Helper()
	if opts == nil {
		opts = &Options{}
	}
	if opts.RecordShare == 0 {
		opts.RecordShare = -1 // tests leave nothing to chance
	}
	opts.Store, opts.RunDir = store, shortDir(t)
	d, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancelCause(context.WithoutCancel(t.Context()))
	r := &running{Daemon: d, stop: stop, end: make(chan error, 1)}
	go func() { r.end <- d.Run(ctx) }()
	t.Cleanup(func() {
		stop(nil)
		<-r.end
	})
	return r
}

// shortDir makes a folder whose path leaves room for the name of a socket, which has 107 bytes in all.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "thawd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// wait waits for Run to end.
func (r *running) wait() error {
	err := <-r.end
	r.end <- err
	return err
}

// create makes a session.
func (r *running) create(t *testing.T, req control.SessionRequest) *control.Session {
	t.Helper()
	s, err := r.Create(t.Context(), &req)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// ended waits until a session has ended and returns what is told of it then.
func (r *running) ended(t *testing.T, id string) control.Session {
	t.Helper()
	r.mu.Lock()
	i := r.findLocked(id)
	if i < 0 {
		r.mu.Unlock()
		t.Fatalf("session %s is not there", id)
	}
	s := r.sessions[i]
	r.mu.Unlock()
	select {
	case <-s.done:
		return s.info()
	case <-time.After(patience):
		t.Fatal("session did not end")
	}
	panic("unreachable")
}

// criuStandIn stands for CRIU: it connects to a session's socket from inside a target.
type criuStandIn struct {
	target *uffdtest.Target
	conn   uffdtest.Handle
}

// connect makes a target with the mappings of the snapshot, of n pages, and hands it to the session, like CRIU in the
// middle of a restore.
func connect(t *testing.T, s *control.Session, n uint64) *criuStandIn {
	t.Helper()
	r := &criuStandIn{target: uffdtest.Start(t)}
	r.target.Map(pages(0, 2*n)).Must()
	fd := r.target.Open(uffdtest.CRIUFeatures).Must()
	fd.Close() // the session gets a copy of its own
	r.conn = r.target.Dial(s.Socket).Must()
	r.target.Send(r.conn, binary.LittleEndian.AppendUint32(nil, imagePID), 0).Must()
	r.target.Send(r.conn, []byte{0}, 1).Must()
	r.target.Send(r.conn, binary.LittleEndian.AppendUint32(nil, uint32(0xffffffff-imagePID)), 0).Must() // -(imagePID + 1), a zombie
	r.target.Register(pages(0, 2*n), uffd.ModeMissing).Must()
	r.target.Drop().Must()
	return r
}

// finish says that the restore is complete.
func (r *criuStandIn) finish() {
	r.target.Send(r.conn, binary.LittleEndian.AppendUint32(nil, 0x52535446), 0).Must()
	r.target.Hangup(r.conn).Must()
}

// mustCode fails the test unless err is an Error with that code and a hint.
func mustCode(t *testing.T, err error, code control.Code) {
	t.Helper()
	var told *control.Error
	if !errors.As(err, &told) || told.Code != code {
		t.Fatalf("error is %v (%T), want code %s", err, err, fmt.Sprintf("%q", string(code)))
	}
	if told.Hint == "" {
		t.Errorf("error %q has no hint", told.Message)
	}
}

// patience bounds what a test waits for: far more than anything takes on a busy machine.
const patience = 30 * time.Second

// mustEnd fails the test unless the target ends.
func mustEnd(t *testing.T, target *uffdtest.Target) {
	t.Helper()
	select {
	case <-target.Gone():
	case <-time.After(patience):
		t.Fatal("the process still runs")
	}
}
