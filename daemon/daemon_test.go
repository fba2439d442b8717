package daemon

import (
	"bytes"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"thaw/control"
	"thaw/pagestore"
	"thaw/uffd"
	"thaw/uffd/uffdtest"
)

func TestARestoreGetsEveryByteAndItsSessionEndsComplete(t *testing.T) {
	const n = 600
	d := start(t, newStore(t, n), nil)
	s := d.create(t, control.SessionRequest{Snapshot: "web"})
	if s.State != control.StateWaiting || s.Snapshot != "web" || string(s.Host) != `{"kernel":"test"}` || s.Progress.PagesTotal != n {
		t.Errorf("a new session is %+v", s)
	}
	r := connect(t, s, n)
	r.finish()
	if got := r.target.Read(pages(0, n)).Must(); !bytes.Equal(got, want(t, 0, n)) {
		t.Error("the process reads other bytes than were frozen")
	}
	if got := r.target.Read(pages(n, n)).Must(); !bytes.Equal(got, make([]byte, n*uffd.PageSize)) {
		t.Error("memory without content does not read as zero")
	}
	end := d.ended(t, s.ID)
	if end.State != control.StateComplete || end.Error != "" || end.Running == nil || end.Ended == nil {
		t.Errorf("the session ended as %+v", end)
	}
	if p := end.Progress; p.Processes != 1 || p.Live != 0 || p.PagesDone != n || p.PagesTotal != n || p.PagesFailed != 0 {
		t.Errorf("progress at the end is %+v", p)
	}
	if c := end.Counters; c.BytesDemand+c.BytesStreamed != n*uffd.PageSize {
		t.Errorf("bytes installed: %d on demand and %d streamed, want %d together", c.BytesDemand, c.BytesStreamed, n*uffd.PageSize)
	}
}

func TestFaultsAreServedWhileTheRuntimeStillRestores(t *testing.T) {
	const n = 4
	d := start(t, newStore(t, n), nil)
	s := d.create(t, control.SessionRequest{Snapshot: "web", Stream: control.StreamNone})
	r := connect(t, s, n)
	r.target.Read(pages(1, 1)).Must() // sleeps until it is served
	got, err := d.Session(s.ID)
	if err != nil || got.State != control.StateRestoring {
		t.Errorf("state before the finish message is %v, %v; want restoring", got, err)
	}
	r.finish()
	r.target.Kill()
	if end := d.ended(t, s.ID); end.State != control.StateComplete {
		t.Errorf("the session whose process ended is %s (%s), want complete", end.State, end.Error)
	}
}

func TestSessionsThatCannotBeMadeSayWhy(t *testing.T) {
	store := newStore(t, 4)
	damaged := damage(t, store, "damaged")
	d := start(t, store, nil)
	taken := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(taken, "lazy-pages.socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file := filepath.Join(taken, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		req  control.SessionRequest
		want control.Code
		says string
	}{
		{"a snapshot that does not exist", control.SessionRequest{Snapshot: "nosuch"}, control.CodeSnapshotNotFound, "nosuch"},
		{"a snapshot of another namespace", control.SessionRequest{Snapshot: "other/web"}, control.CodeSnapshotNotFound, "other/web"},
		{"a name that is none", control.SessionRequest{Snapshot: "../web"}, control.CodeInvalid, ".."},
		{"a damaged snapshot", control.SessionRequest{Snapshot: damaged}, control.CodeCorrupt, damaged},
		{"images that are not there", control.SessionRequest{ImagesDir: filepath.Join(taken, "none")}, control.CodeNotFound, "none"},
		{"a folder without images", control.SessionRequest{ImagesDir: t.TempDir()}, control.CodeCorrupt, "inventory.img"},
		{"a work folder that is not there", control.SessionRequest{Snapshot: "web", WorkDir: filepath.Join(taken, "none")}, control.CodeNotFound, "none"},
		{"a work folder that is a file", control.SessionRequest{Snapshot: "web", WorkDir: file}, control.CodeInvalid, "file"},
		{"a socket path that is taken", control.SessionRequest{Snapshot: "web", WorkDir: taken}, control.CodeInUse, taken},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := d.Create(t.Context(), &tt.req)
			mustCode(t, err, tt.want)
			if !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error %q does not name %q", err, tt.says)
			}
		})
	}
	if left := d.Sessions(); len(left) != 0 {
		t.Errorf("sessions are left: %v", left)
	}
	if h := d.Health(); h.Sessions != 0 {
		t.Errorf("Health counts %d sessions", h.Sessions)
	}
	if left := namesIn(t, d.opts.RunDir); !slices.Equal(left, []string{"lock"}) {
		t.Errorf("work folders are left: %v", left)
	}
}

// damage makes a snapshot whose manifest is damaged and returns its name.
func damage(t *testing.T, store *pagestore.Store, name string) string {
	t.Helper()
	addSnapshot(t, store, name, 2)
	snap, err := store.Snapshot(pagestore.Name{Namespace: pagestore.DefaultNamespace, Snapshot: name})
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	manifest := filepath.Join(filepath.Dir(snap.SkeletonDir()), "manifest")
	if err := os.Truncate(manifest, 10); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestASnapshotThatIsBeingRemovedServesItsSessionsAndNoNewOnes(t *testing.T) {
	const n = 8
	store := newStore(t, n)
	d := start(t, store, nil)
	s := d.create(t, control.SessionRequest{Snapshot: "web"})
	if err := store.Remove(t.Context(), pagestore.Name{Namespace: pagestore.DefaultNamespace, Snapshot: "web"}); err != nil {
		t.Fatal(err)
	}
	_, err := d.Create(t.Context(), &control.SessionRequest{Snapshot: "web"})
	mustCode(t, err, control.CodeBeingRemoved)

	r := connect(t, s, n)
	r.finish()
	if got := r.target.Read(pages(0, n)).Must(); !bytes.Equal(got, want(t, 0, n)) {
		t.Error("the process reads other bytes than were frozen")
	}
	if end := d.ended(t, s.ID); end.State != control.StateComplete {
		t.Errorf("the session ended as %s: %s", end.State, end.Error)
	}
}

func TestAClientThatNeverConnectsLosesItsSession(t *testing.T) {
	d := start(t, newStore(t, 4), &Options{ConnectTimeout: time.Millisecond})
	s := d.create(t, control.SessionRequest{Snapshot: "web"})
	end := d.ended(t, s.ID)
	if end.State != control.StateFailed || !strings.Contains(end.Error, "no runtime connected in time") {
		t.Errorf("the session ended as %s: %q", end.State, end.Error)
	}
	if _, err := os.Stat(s.Socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its socket is still there: %v", err)
	}
}

func TestAClientThatClosesEarlyFailsItsSession(t *testing.T) {
	d := start(t, newStore(t, 4), nil)
	s := d.create(t, control.SessionRequest{Snapshot: "web"})
	conn, err := net.Dial("unix", s.Socket)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	end := d.ended(t, s.ID)
	if end.State != control.StateFailed || !strings.Contains(end.Error, "CRIU gave up the restore") {
		t.Errorf("the session ended as %s: %q", end.State, end.Error)
	}
	if _, err := os.Stat(s.WorkDir); err != nil {
		t.Errorf("the work folder, with the runtime's log, is gone: %v", err)
	}
	if err := d.Delete(t.Context(), s.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.WorkDir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the work folder of a session that is forgotten is still there: %v", err)
	}
	_, err = d.Session(s.ID)
	mustCode(t, err, control.CodeNotFound)
}

func TestARuntimeThatDiesInMidRestoreTakesItsProcessesWithIt(t *testing.T) {
	const n = 4
	d := start(t, newStore(t, n), nil)
	s := d.create(t, control.SessionRequest{Snapshot: "web", Stream: control.StreamNone})
	r := connect(t, s, n)
	// It may be dead before it can say that it hung up.
	if _, err := r.target.Hangup(r.conn).Wait(t.Context()); err != nil && !errors.Is(err, uffdtest.ErrTargetGone) {
		t.Fatal(err)
	}
	if end := d.ended(t, s.ID); end.State != control.StateFailed {
		t.Errorf("the session ended as %s", end.State)
	}
	mustEnd(t, r.target)
}

func TestDeleteCancelsOnlyWhatNobodyDependsOn(t *testing.T) {
	const n = 4
	d := start(t, newStore(t, n), nil)

	idle := d.create(t, control.SessionRequest{Snapshot: "web"})
	if err := d.Delete(t.Context(), idle.ID); err != nil {
		t.Errorf("Delete of a session that waits: %v", err)
	}
	if end, err := d.Session(idle.ID); err != nil || end.State != control.StateCancelled {
		t.Errorf("a cancelled session is %v, %v", end, err)
	}

	busy := d.create(t, control.SessionRequest{Snapshot: "web", Stream: control.StreamNone})
	r := connect(t, busy, n)
	r.finish()
	r.target.Read(pages(0, 1)).Must()
	mustCode(t, d.Delete(t.Context(), busy.ID), control.CodeWouldLoseMemory)
	if got := r.target.Read(pages(0, n)).Must(); !bytes.Equal(got, want(t, 0, n)) {
		t.Error("the process reads other bytes than were frozen")
	}
	r.target.Kill()
	d.ended(t, busy.ID)

	mustCode(t, d.Delete(t.Context(), "nosuch"), control.CodeNotFound)
}

func TestAGivenWorkFolderStays(t *testing.T) {
	d := start(t, newStore(t, 4), nil)
	dir := t.TempDir()
	s := d.create(t, control.SessionRequest{Snapshot: "web", WorkDir: dir})
	if s.WorkDir != dir || s.Socket != filepath.Join(dir, "lazy-pages.socket") {
		t.Errorf("the session works in %s on %s, want %s", s.WorkDir, s.Socket, dir)
	}
	for range 2 { // cancel, then forget
		if err := d.Delete(t.Context(), s.ID); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("the folder holds %v, %v; want it empty and there", left, err)
	}
}

func TestSessionsAreBounded(t *testing.T) {
	d := start(t, newStore(t, 4), &Options{MaxSessions: 2})
	first := d.create(t, control.SessionRequest{Snapshot: "web"})
	d.create(t, control.SessionRequest{Snapshot: "web"})
	_, err := d.Create(t.Context(), &control.SessionRequest{Snapshot: "web"})
	mustCode(t, err, control.CodeTooMany)
	if err := d.Delete(t.Context(), first.ID); err != nil {
		t.Fatal(err)
	}
	d.ended(t, first.ID)
	d.create(t, control.SessionRequest{Snapshot: "web"})
}

func TestHistoryIsBoundedAndForgetsTheOldestFirst(t *testing.T) {
	d := start(t, newStore(t, 4), &Options{History: 2})
	var made []*control.Session
	for range 4 {
		s := d.create(t, control.SessionRequest{Snapshot: "web"})
		if err := d.Delete(t.Context(), s.ID); err != nil {
			t.Fatal(err)
		}
		made = append(made, s)
	}
	d.Drain()
	if err := d.wait(); err != nil {
		t.Fatal(err)
	}
	list := d.Sessions()
	if len(list) != 2 || list[0].ID != made[2].ID || list[1].ID != made[3].ID {
		t.Errorf("sessions left: %v, want the last two", list)
	}
	for i, s := range made {
		_, err := os.Stat(s.WorkDir)
		if forgotten := errors.Is(err, fs.ErrNotExist); forgotten != (i < 2) {
			t.Errorf("work folder of session %d: %v", i, err)
		}
	}
}

func TestTwoDaemonsServeOneStore(t *testing.T) {
	const n = 64
	store := newStore(t, n)
	again, err := pagestore.Open(store.Dir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	a, b := start(t, store, nil), start(t, again, nil)
	sa := a.create(t, control.SessionRequest{Snapshot: "web"})
	sb := b.create(t, control.SessionRequest{Snapshot: "web"})
	ra, rb := connect(t, sa, n), connect(t, sb, n)
	ra.finish()
	rb.finish()
	for name, r := range map[string]*criuStandIn{"first": ra, "second": rb} {
		if got := r.target.Read(pages(0, n)).Must(); !bytes.Equal(got, want(t, 0, n)) {
			t.Errorf("the %s daemon's process reads other bytes than were frozen", name)
		}
	}
	if ea, eb := a.ended(t, sa.ID), b.ended(t, sb.ID); ea.State != control.StateComplete || eb.State != control.StateComplete {
		t.Errorf("sessions ended as %s and %s", ea.State, eb.State)
	}
}
