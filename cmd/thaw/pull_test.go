package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
			if !strings.Contains(people, "("+step.share+")") || strings.Contains(people, "the rest comes from  not known: no thawd") != (step.pages < 6) {
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
	args := []string{"snapshot", "pull", "web", "--whole", "--object-store", b.url, "--give-up-after", "300ms"}
	r := p.thaw(t, append(args, "--json")...)
	var v struct {
		Error struct{ Message, Hint string }
	}
	if err := json.Unmarshal([]byte(r.stderr), &v); err != nil || r.code == 0 || v.Error.Message == "" {
		t.Errorf("exit code %d: %s: %v", r.code, r.stderr, err)
	}
	t.Logf("it says: %s", r.stderr)
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

func TestAPullByThawdNeedsAPlaceToPullFrom(t *testing.T) {
	p := newPlace(t)
	p.fill(t, "web")
	p.serve(t)
	if r := p.thaw(t, "snapshot", "pull", "far"); r.code == 0 || !strings.Contains(r.stderr, "hint: ") {
		t.Errorf("exit code %d: %s", r.code, r.stderr)
	}
	if i := p.hereOf(t, "web"); i.Remote != nil {
		t.Errorf("inspect says of a snapshot that was made here that it came from elsewhere: %+v", i.Remote)
	}
}
