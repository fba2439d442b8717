package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"thaw/cmd/internal/cli"
	"thaw/control"
	"thaw/pagestore"
)

// withSet makes a snapshot of six pages whose working set is two of them.
func (p *place) withSet(t *testing.T, name string) {
	t.Helper()
	store := p.fill(t, name)
	parsed, err := pagestore.ParseName(name)
	if err != nil {
		t.Fatal(err)
	}
	snap, err := store.Snapshot(parsed)
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	if err := snap.SetWorkingSet(t.Context(), pagestore.WorkingSet{Hint: []byte("hint"), Order: []pagestore.PageRun{{Image: 3, Pages: 2}}}); err != nil {
		t.Fatal(err)
	}
}

// hereOf returns how many pages of a snapshot are here, as inspect says.
func (p *place) hereOf(t *testing.T, name string) (here inspected) {
	t.Helper()
	p.must(t, &here, "snapshot", "inspect", name, "--json")
	return here
}

func TestMoreAndMoreOfASnapshotIsPulled(t *testing.T) {
	bucketPlaces(t, func(t *testing.T, b bucketPlace) {
		maker, p := newPlace(t), newPlace(t)
		maker.uses(b)
		maker.withSet(t, "prod/web")
		maker.must(t, nil, "snapshot", "push", "prod/web")
		p.env = append(p.env, b.env...)

		for _, step := range []struct {
			args  string
			here  bool
			pages uint64
			share string
		}{
			{"pull prod/web", false, 0, "0 %"},
			{"pull prod/web", true, 0, "0 %"},
			{"warm prod/web", true, 2, "33 %"},
			{"pull prod/web --working-set", true, 2, "33 %"},
			{"pull prod/web --whole", true, 6, "100 %"},
		} {
			var r control.PullReport
			p.must(t, &r, append(strings.Fields("snapshot "+step.args), "--object-store", b.url, "--json")...)
			if r.Here != step.here || r.LocalPages != step.pages || r.StoredPages != 6 || r.Snapshot != "prod/web" {
				t.Errorf("%s printed %+v", step.args, r)
			}
			if !r.Here && (r.Source == "" || r.Descriptor == "") {
				t.Errorf("%s does not say where it came from: %+v", step.args, r)
			}
			i := p.hereOf(t, "prod/web")
			if i.Local.LocalPages != step.pages || i.Local.StoredPages != 6 || i.Remote == nil || i.Remote.SetBytes != 2*pagestore.PageSize {
				t.Errorf("after %s inspect says %+v, %+v", step.args, i.Local, i.Remote)
			}
			var list struct{ Snapshots []listed }
			p.must(t, &list, "snapshot", "ls", "--json")
			if l := list.Snapshots[0]; !l.Stub || *l.LocalBytes != step.pages*pagestore.PageSize || *l.StoredBytes != 6*pagestore.PageSize {
				t.Errorf("after %s ls says %+v", step.args, l)
			}
			if r := p.must(t, nil, "snapshot", "ls"); !strings.Contains(r.stdout, step.share) {
				t.Errorf("after %s ls does not say %s: %s", step.args, step.share, r.stdout)
			}
			people := p.must(t, nil, "snapshot", "inspect", "prod/web").stdout
			if !strings.Contains(people, "("+step.share+")") || strings.Contains(people, "the rest comes from") != (step.pages < 6) {
				t.Errorf("after %s inspect says %s", step.args, people)
			}
		}
		if r := p.must(t, nil, "snapshot", "verify"); !strings.Contains(r.stdout, "all is well") {
			t.Errorf("verify says %s", r.stdout)
		}
		if i := maker.hereOf(t, "prod/web"); i.Remote != nil || i.Local.LocalPages != 6 {
			t.Errorf("where it was made inspect says %+v, %+v", i.Local, i.Remote)
		}
		if r := maker.must(t, nil, "snapshot", "ls"); !strings.Contains(r.stdout, "all") {
			t.Errorf("where it was made ls says %s", r.stdout)
		}
	})
}

func TestAPullGivesUpWhenNothingArrives(t *testing.T) {
	maker, p := newPlace(t), newPlace(t)
	folder := filepath.Join(t.TempDir(), "bucket")
	b := bucketPlace{url: "file://" + folder}
	maker.uses(b)
	maker.withSet(t, "web")
	maker.must(t, nil, "snapshot", "push", "web")
	packs := filepath.Join(folder, "v1", "default", "packs")
	if err := os.Rename(packs, packs+"-away"); err != nil {
		t.Fatal(err)
	}
	args := []string{"snapshot", "pull", "web", "--whole", "--object-store", b.url, "--page-deadline", "300ms"}
	r := p.thaw(t, append(args, "--json")...)
	var v struct {
		Error struct{ Message, Hint string }
	}
	if err := json.Unmarshal([]byte(r.stderr), &v); err != nil || r.code == 0 || v.Error.Message == "" {
		t.Errorf("exit code %d: %s: %v", r.code, r.stderr, err)
	}
	if r.code != int(cli.Missing) || v.Error.Hint == "" {
		t.Errorf("exit code %d, want %d with a hint: %s", r.code, cli.Missing, r.stderr)
	}
	// The stub is there, and of use when the packs are back.
	if err := os.Rename(packs+"-away", packs); err != nil {
		t.Fatal(err)
	}
	p.must(t, nil, args...)
	if i := p.hereOf(t, "web"); i.Local.LocalPages != 6 {
		t.Errorf("afterwards inspect says %+v", i.Local)
	}
}

func TestAProcessIsThawedFromAnObjectStore(t *testing.T) {
	bucketPlaces(t, func(t *testing.T, b bucketPlace) {
		maker, p := newPlace(t), newPlace(t)
		maker.useCRIU(t)
		maker.uses(b)
		p.useCRIU(t)
		p.env = append(p.env, b.env...)
		f := startTarget(t, maker)
		maker.freeze(t, f, "web")
		maker.must(t, nil, "snapshot", "push", "web")

		p.must(t, nil, "snapshot", "pull", "web", "--whole", "--object-store", b.url)
		p.serve(t) // which knows of no object store
		var back restored
		p.must(t, &back, "restore", "web", "--detach", "--json")
		if back.PID != f.pid {
			t.Errorf("restore printed %+v", back)
		}
		f.mustRemember(t)
		f.kill(t)
	})
}

// TestAProcessIsThawedWhereItsSnapshotHasNeverBeen: nothing is pulled before, and nothing but what is needed comes.
func TestAProcessIsThawedWhereItsSnapshotHasNeverBeen(t *testing.T) {
	bucketPlaces(t, func(t *testing.T, b bucketPlace) {
		maker, p := newPlace(t), newPlace(t)
		maker.useCRIU(t)
		maker.uses(b)
		p.useCRIU(t)
		p.uses(b) // thawd takes it from the environment
		f := startTarget(t, maker)
		maker.freeze(t, f, "prod/web")
		maker.must(t, nil, "snapshot", "push", "prod/web")
		s := p.serve(t, "--read-ahead", "0")

		var back restored
		p.must(t, &back, "restore", "prod/web", "--detach", "--json", "--stream", "none")
		if back.PID != f.pid || back.Snapshot != "prod/web" {
			t.Errorf("restore printed %+v", back)
		}
		i := p.hereOf(t, "prod/web")
		if i.Remote == nil || i.Local.LocalPages == i.Local.StoredPages || len(i.Remote.Places) != 1 || i.Remote.Unknown != "" {
			t.Errorf("while it runs inspect says %+v, %+v", i.Local, i.Remote)
		}
		// Who restores it has the rest for the grace time, although nobody else finds it any more.
		p.must(t, nil, "remote", "rm", "prod/web")
		p.must(t, nil, "remote", "gc")
		f.mustRemember(t)
		session, err := s.Session(t.Context(), back.Session)
		if err != nil {
			t.Fatal(err)
		}
		if got := session.Tiers; got == nil || got.LocalPages != 0 || got.ObjectStore.Bytes < targetMemory || got.HitRatio > 0.5 {
			t.Errorf("the session says of where its pages came from: %+v", got)
		}
		var top shownTop
		p.must(t, &top, "top", "--once", "--json")
		if top.Tiers == nil || len(top.Tiers.Sources) != 1 || sum(&top.Tiers.Sources[0]).Bytes < targetMemory || len(top.Sessions) != 1 {
			t.Errorf("top says %+v", top)
		}
		people := p.must(t, nil, "top", "--once").stdout
		for _, want := range []string{"object store ", "PLACE", "prod/web", string(control.StateServing)} {
			if !strings.Contains(people, want) {
				t.Errorf("top does not say %q:\n%s", want, people)
			}
		}
		f.kill(t)

		p.must(t, nil, "restore", "prod/web", "--detach") // from what is here, and is still to be had
		f.mustRemember(t)
		f.kill(t)
		if r := maker.thaw(t, "restore", "prod/other", "--detach"); r.code == 0 {
			t.Error("a snapshot that is nowhere was restored")
		}
		if r := p.thaw(t, "restore", "prod/other", "--detach"); r.code != int(cli.NotFound) {
			t.Errorf("restore of a snapshot that is nowhere: exit code %d, want %d: %s", r.code, cli.NotFound, r.stderr)
		}
	})
}

func TestAProcessWhosePagesAreGoneIsEndedWithTheReason(t *testing.T) {
	maker, p := newPlace(t), newPlace(t)
	folder := filepath.Join(t.TempDir(), "bucket")
	b := bucketPlace{url: "file://" + folder}
	maker.useCRIU(t)
	maker.uses(b)
	p.useCRIU(t)
	p.uses(b)
	f := startTarget(t, maker)
	maker.freeze(t, f, "web")
	maker.must(t, nil, "snapshot", "push", "web")
	s := p.serve(t, "--read-ahead", "0", "--page-deadline", "500ms", "--bad-pages", "kill")
	var back restored
	p.must(t, &back, "restore", "web", "--detach", "--json", "--stream", "none")
	if err := os.RemoveAll(filepath.Join(folder, "v1", "default", "packs")); err != nil {
		t.Fatal(err)
	}
	said := len(f.lines(t))
	if err := syscall.Kill(f.pid, syscall.SIGUSR1); err != nil { // it reads all of its memory
		t.Fatal(err)
	}
	until(t, "the process ends", func() bool {
		syscall.Wait4(f.pid, nil, syscall.WNOHANG, nil)
		return syscall.Kill(f.pid, 0) != nil
	})
	if len(f.lines(t)) != said {
		t.Errorf("it has said something about memory that it cannot have: %q", f.lines(t))
	}
	until(t, "the session has ended", func() bool { now, err := s.Session(t.Context(), back.Session); return err == nil && now.State.Ended() })
	now, err := s.Session(t.Context(), back.Session)
	if err != nil {
		t.Fatal(err)
	}
	if now.State != control.StateFailed || now.FailedPage == nil || !strings.Contains(now.FailedPage.Reason, "in time") {
		t.Errorf("the session ended as %s with %q, page %+v", now.State, now.Error, now.FailedPage)
	}
	if r := p.must(t, nil, "sessions", back.Session); !strings.Contains(r.stdout, "page did not come in time") {
		t.Errorf("sessions says %s", r.stdout)
	}
}

// TestAProcessIsThawedFromAPeer: there is no object store, and the keys are those that the commands make.
func TestAProcessIsThawedFromAPeer(t *testing.T) {
	maker, p := newPlace(t), newPlace(t)
	maker.useCRIU(t)
	p.useCRIU(t)
	authority, access := filepath.Join(maker.dir, "authority"), filepath.Join(maker.dir, "access.json")
	maker.must(t, nil, "peer", "init", authority)
	keys := map[string]string{}
	for _, node := range []string{"a", "b", "stranger"} {
		keys[node] = filepath.Join(maker.dir, "keys-"+node)
		maker.must(t, nil, "peer", "issue", node, "--authority", authority, "--out", keys[node])
	}
	if err := os.WriteFile(access, []byte(`{"namespaces": {"prod": ["a", "b"]}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	f := startTarget(t, maker)
	maker.freeze(t, f, "prod/web")
	maker.serve(t, "--peer-keys", keys["a"], "--peer-access", access, "--peer-listen", "127.0.0.1:0", "--peers", "b=127.0.0.1:1")
	var top shownTop
	maker.must(t, &top, "top", "--once", "--json")
	address := ""
	for _, m := range top.Tiers.Members {
		if m.Node == "a" {
			address = m.Address
		}
	}

	stranger := newPlace(t)
	stranger.serve(t, "--peer-keys", keys["stranger"], "--peers", "a="+address)
	if r := stranger.thaw(t, "restore", "prod/web", "--detach"); r.code != int(cli.NotFound) {
		t.Errorf("restore by a node that is no member: exit code %d, want %d: %s", r.code, cli.NotFound, r.stderr)
	}

	s := p.serve(t, "--peer-keys", keys["b"], "--peers", "a="+address)
	var back restored
	p.must(t, &back, "restore", "prod/web", "--detach", "--json")
	f.mustRemember(t)
	session := s.waitState(t, back.Session, control.StateComplete)
	if got := session.Tiers; got == nil || got.Peer.Bytes < targetMemory || got.ObjectStore.Bytes != 0 || got.HitRatio != 1 {
		t.Errorf("the session says of where its pages came from: %+v", got)
	}
	if i := p.hereOf(t, "prod/web"); i.Remote == nil || len(i.Remote.Places) != 1 || i.Remote.Places[0] != "node a" {
		t.Errorf("inspect says %+v", i.Remote)
	}
	f.mustRemember(t)
	f.kill(t)
}

func TestThawdPullsAsTheCommandDoes(t *testing.T) {
	maker, p := newPlace(t), newPlace(t)
	b := bucketPlace{url: "file://" + filepath.Join(t.TempDir(), "bucket")}
	maker.uses(b)
	p.uses(b)
	maker.withSet(t, "web")
	maker.must(t, nil, "snapshot", "push", "web")
	p.serve(t)
	for _, step := range []struct {
		args  string
		pages uint64
	}{{"pull web", 0}, {"warm web", 2}, {"pull web --whole", 6}} {
		var r control.PullReport
		p.must(t, &r, append(strings.Fields("snapshot "+step.args), "--json")...)
		if r.LocalPages != step.pages || r.StoredPages != 6 {
			t.Errorf("%s printed %+v", step.args, r)
		}
	}
	if r := p.must(t, nil, "snapshot", "pull", "web"); !strings.Contains(r.stdout, "web: was here; 24.0 KiB of 24.0 KiB of its memory (100 %)") {
		t.Errorf("pull says %q", r.stdout)
	}
	if r := p.thaw(t, "snapshot", "pull", "nosuch"); r.code != int(cli.NotFound) {
		t.Errorf("pull of what is nowhere: exit code %d, want %d: %s", r.code, cli.NotFound, r.stderr)
	}
}

func TestARestoreSaysThatNoPlaceCanBeAsked(t *testing.T) {
	p := newPlace(t)
	p.fill(t, "web")
	p.uses(bucketPlace{url: "s3://snapshots?endpoint=http://127.0.0.1:1"})
	p.serve(t)
	for _, args := range []string{"restore far", "snapshot pull far", "snapshot warm far"} {
		if r := p.thaw(t, strings.Fields(args)...); r.code != int(cli.Missing) || !strings.Contains(r.stderr, "127.0.0.1:1") || !strings.Contains(r.stderr, "hint: ") {
			t.Errorf("thaw %s: exit code %d, want %d: %s", args, r.code, cli.Missing, r.stderr)
		}
	}
	p.must(t, nil, "snapshot", "pull", "web") // which is here
}

func TestAPullByThawdNeedsAPlaceToPullFrom(t *testing.T) {
	p := newPlace(t)
	p.fill(t, "web")
	p.serve(t)
	if r := p.thaw(t, "snapshot", "pull", "far"); r.code != int(cli.Missing) || !strings.Contains(r.stderr, "hint: ") {
		t.Errorf("exit code %d: %s", r.code, r.stderr)
	}
	if i := p.hereOf(t, "web"); i.Remote != nil {
		t.Errorf("inspect says of a snapshot that was made here that it came from elsewhere: %+v", i.Remote)
	}
}
