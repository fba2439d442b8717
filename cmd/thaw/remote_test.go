package main

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"thaw/cmd/internal/cli"
	"thaw/pagestore/blob/objectstore/objectstoretest"
	"thaw/pagestore/tier"
)

// A bucketPlace is an object store, and what programs need to reach it.
type bucketPlace struct {
	name string
	url  string
	env  []string
}

// bucketPlaces returns an object store of each kind. It skips those that cannot be had.
func bucketPlaces(t *testing.T, test func(t *testing.T, b bucketPlace)) {
	t.Run("folder", func(t *testing.T) {
		test(t, bucketPlace{name: "folder", url: "file://" + filepath.Join(t.TempDir(), "bucket")})
	})
	t.Run("S3", func(t *testing.T) {
		s := objectstoretest.Start(t)
		test(t, bucketPlace{name: "S3", url: s.Bucket(t, "snapshots", "fleet"), env: s.Env()})
	})
}

// uses makes the programs of a place know an object store.
func (p *place) uses(b bucketPlace) {
	p.env = append(append(p.env, b.env...), cli.EnvObjectStore+"="+b.url)
}

// listedAt returns the names that remote ls lists.
func (p *place) listedAt(t *testing.T) (names []string) {
	t.Helper()
	var out struct{ Snapshots []remoteListed }
	p.must(t, &out, "remote", "ls", "--json")
	for _, l := range out.Snapshots {
		if l.Error != "" {
			t.Errorf("%s is listed with error %s", l.Name, l.Error)
		}
		names = append(names, l.Name)
	}
	return names
}

func TestSnapshotsArePushedListedRemovedAndCollected(t *testing.T) {
	bucketPlaces(t, func(t *testing.T, b bucketPlace) {
		p := newPlace(t)
		p.uses(b)
		p.fill(t, "web", "prod/web", "prod/worker")

		if r := p.must(t, nil, "snapshot", "push", "web", "prod/web", "prod/worker"); strings.Count(r.stdout, ": pushed in") != 3 {
			t.Errorf("push says %q", r.stdout)
		}
		var again pushed
		p.must(t, &again, "snapshot", "push", "web", "--json")
		if len(again.Pushed) != 1 || again.Pushed[0].Named || again.Pushed[0].Sent != 0 || again.Pushed[0].Skipped == 0 {
			t.Errorf("a second push did %+v", again.Pushed)
		}
		if got := p.listedAt(t); strings.Join(got, " ") != "web prod/web prod/worker" {
			t.Errorf("listed are %q", got)
		}
		if r := p.must(t, nil, "remote", "ls", "prod"); strings.Count(r.stdout, "prod/") != 2 || strings.Contains(r.stdout, "\nweb") {
			t.Errorf("remote ls prod says %q", r.stdout)
		}

		if r := p.must(t, nil, "remote", "rm", "prod/web"); !strings.Contains(r.stdout, "prod/web: removed") {
			t.Errorf("remote rm says %q", r.stdout)
		}
		if r := p.thaw(t, "remote", "rm", "prod/web"); r.code != int(cli.NotFound) || !strings.Contains(r.stderr, "thaw remote ls") {
			t.Errorf("a second removal: exit code %d: %s", r.code, r.stderr)
		}
		if got := p.listedAt(t); strings.Join(got, " ") != "web prod/worker" {
			t.Errorf("after the removal %q are listed", got)
		}

		gc := func(args ...string) map[string]tier.CollectReport {
			t.Helper()
			var out struct{ Namespaces []remoteCollected }
			p.must(t, &out, append([]string{"remote", "gc", "--json"}, args...)...)
			all := map[string]tier.CollectReport{}
			for _, c := range out.Namespaces {
				all[c.Namespace] = c.CollectReport
			}
			return all
		}
		all := gc()
		if len(all) != 2 || all["prod"].Deleted != 0 || all["prod"].Names != 1 || all["prod"].Leases != 1 || all["default"].Names != 1 {
			t.Errorf("a collection with the usual grace time did %+v", all)
		}
		// The lease of the removal counts for an hour at least, whatever the grace time.
		if all = gc("prod", "--grace", "1ns", "--dry-run"); len(all) != 1 || all["prod"].Deleted != 0 || all["prod"].Kept == 0 {
			t.Errorf("a dry run without grace time did %+v", all)
		}
		if r := p.must(t, nil, "remote", "gc"); !strings.Contains(r.stdout, "default: freed 0 B") || !strings.Contains(r.stdout, "removed not long ago") {
			t.Errorf("remote gc says %q", r.stdout)
		}
	})
}

func TestAPushReplacesANameOnlyWhenToldTo(t *testing.T) {
	one, two := newPlace(t), newPlace(t)
	b := bucketPlace{url: "file://" + filepath.Join(t.TempDir(), "bucket")}
	one.uses(b)
	two.uses(b)
	one.fill(t, "web")
	importPages(t, two.fill(t, "other"), "web", 5) // another one
	one.must(t, nil, "snapshot", "push", "web")
	r := two.thaw(t, "snapshot", "push", "web", "other", "--json")
	var out pushed
	if err := json.Unmarshal([]byte(r.stdout), &out); err != nil || len(out.Pushed) != 1 || out.Pushed[0].Name.Snapshot != "other" {
		t.Errorf("a push of two of which one cannot be printed %q: %v", r.stdout, err)
	}
	if r.code != int(cli.Busy) || !strings.Contains(r.stderr, "--force") {
		t.Errorf("a push over another snapshot: exit code %d: %s", r.code, r.stderr)
	}
	if r := two.must(t, nil, "snapshot", "push", "web", "--force"); !strings.Contains(r.stdout, "web: pushed") {
		t.Errorf("push --force says %q", r.stdout)
	}
	if got := one.listedAt(t); strings.Join(got, " ") != "other web" {
		t.Errorf("listed are %q", got)
	}
}

func TestExitCodesOfObjectStores(t *testing.T) {
	p := newPlace(t)
	p.fill(t, "web")
	folder := "file://" + filepath.Join(p.dir, "bucket")
	for _, tt := range []struct {
		name, args string
		want       cli.Code
		says       string
	}{
		{"no object store is named", "snapshot push web", cli.Usage, "--object-store"},
		{"an object store that is none", "remote ls --object-store ftp://x", cli.Usage, "ftp"},
		{"a password in the address", "remote ls --object-store s3://a:b@bucket", cli.Usage, "credentials"},
		{"nobody listens there", "remote ls --object-store s3://bucket?endpoint=http://127.0.0.1:1", cli.Missing, "reached"},
		{"push to where nobody listens", "snapshot push web --object-store s3://bucket?endpoint=http://127.0.0.1:1", cli.Missing, "reached"},
		{"pull from where nobody listens", "snapshot pull far --object-store s3://bucket?endpoint=http://127.0.0.1:1", cli.Missing, "reached"},
		{"a snapshot that is not here", "snapshot push nosuch --object-store " + folder, cli.NotFound, "thaw snapshot ls"},
		{"a snapshot that is not there", "snapshot pull nosuch --object-store " + folder, cli.NotFound, "thaw remote ls"},
		{"a removal of what is not there", "remote rm nosuch --object-store " + folder, cli.NotFound, "thaw remote ls"},
		{"a name that is none", "remote rm a/b/c --object-store " + folder, cli.Usage, "b/c"},
		{"a namespace that is none", "remote ls a/b --object-store " + folder, cli.Usage, "a/b"},
		{"no grace time", "remote gc --grace 0s --object-store " + folder, cli.Usage, "--grace"},
		{"whole and not", "snapshot pull web --whole --working-set", cli.Usage, "whole"},
		{"no thawd to pull", "snapshot pull web", cli.Missing, "--object-store"},
		{"no thawd to watch", "top --once", cli.Missing, p.socket},
		{"a node that is none", "peer issue a/b --authority x --out y", cli.Usage, "a/b"},
		{"no authority", "peer issue a --authority /nonexistent --out " + p.dir, cli.NotFound, "thaw peer init"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := p.thaw(t, strings.Fields(tt.args)...)
			if r.code != int(tt.want) || !strings.Contains(r.stderr, tt.says) {
				t.Errorf("exit code %d, want %d (%s) and %q: %s", r.code, tt.want, tt.want, tt.says, r.stderr)
			}
			if !strings.Contains(r.stderr, "hint: ") && !strings.Contains(r.stderr, "--help") {
				t.Errorf("standard error %q does not say what to do", r.stderr)
			}
		})
	}
}

func TestWrongCredentialsAreAMatterOfPermission(t *testing.T) {
	p := newPlace(t)
	s := objectstoretest.Start(t)
	p.uses(bucketPlace{url: s.Bucket(t, "snapshots", ""), env: append(s.Env(), "AWS_SECRET_ACCESS_KEY=wrong")})
	p.fill(t, "web")
	for _, args := range []string{"snapshot push web", "remote ls", "remote rm web", "remote gc"} {
		if r := p.thaw(t, strings.Fields(args)...); r.code != int(cli.Permission) || !strings.Contains(r.stderr, "AWS_SECRET_ACCESS_KEY") {
			t.Errorf("thaw %s: exit code %d, want %d: %s", args, r.code, cli.Permission, r.stderr)
		}
	}
}

func TestKeysOfNodesAreIssued(t *testing.T) {
	p := newPlace(t)
	authority, node := filepath.Join(p.dir, "authority"), filepath.Join(p.dir, "node-1")
	p.must(t, nil, "peer", "init", authority)
	if r := p.thaw(t, "peer", "init", authority); r.code != int(cli.Busy) || !strings.Contains(r.stderr, "not replaced") {
		t.Errorf("a second authority in the folder: exit code %d: %s", r.code, r.stderr)
	}
	var out issued
	p.must(t, &out, "peer", "issue", "node-1", "--authority", authority, "--out", node, "--json")
	if out.Node != "node-1" || out.Dir != node || !out.Gossip {
		t.Errorf("issue printed %+v", out)
	}
	for _, name := range []string{"node.crt", "node.key", "authorities.crt", "gossip.key"} {
		info, err := os.Stat(filepath.Join(node, name))
		if err != nil {
			t.Error(err)
		} else if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
	if _, err := os.Stat(filepath.Join(node, "authority.key")); err == nil {
		t.Error("the node has the authority's key")
	}
	text, err := os.ReadFile(filepath.Join(node, "gossip.key"))
	if err != nil {
		t.Fatal(err)
	}
	if key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text))); err != nil || len(key) != 32 {
		t.Errorf("the gossip key has %d bytes: %v", len(key), err)
	}
	before, err := os.ReadFile(filepath.Join(node, "node.key"))
	if err != nil {
		t.Fatal(err)
	}
	p.must(t, nil, "peer", "issue", "node-1", "--authority", authority, "--out", node)
	if after, err := os.ReadFile(filepath.Join(node, "node.key")); err != nil || string(after) == string(before) {
		t.Errorf("a second certificate has the key of the first: %v", err)
	}
}
