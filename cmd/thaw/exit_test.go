package main

import (
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"thaw/cmd/internal/cli"
	"thaw/internal/testenv"
	"thaw/pagestore"
)

// numbers is an endless file in which no page is like another.
type numbers struct{}

func (numbers) ReadAt(p []byte, off int64) (int, error) {
	for i := range p {
		at := uint64(off) + uint64(i)
		p[i] = byte(at/pagestore.PageSize>>(8*(at%4))) | 1<<7
	}
	return len(p), nil
}

// fill makes a store with snapshots of the names, of a few pages each, that no CRIU has written.
func (p *place) fill(t *testing.T, names ...string) *pagestore.Store {
	t.Helper()
	store, err := pagestore.Create(p.store)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	for _, name := range names {
		importPages(t, store, name, 6)
	}
	return store
}

// importPages makes a snapshot of so many pages, eight at most.
func importPages(t *testing.T, store *pagestore.Store, name string, pages uint64) {
	t.Helper()
	parsed, err := pagestore.ParseName(name)
	if err != nil {
		t.Fatal(err)
	}
	_, err = store.Import(t.Context(), parsed, pagestore.Input{
		Spaces: []pagestore.Space{{
			ID:      7,
			Regions: []pagestore.Region{{Start: 1 << 32, End: 1<<32 + 8*pagestore.PageSize}},
			Runs:    []pagestore.Run{{Addr: 1 << 32, Pages: pages}},
		}},
		Files: []io.ReaderAt{numbers{}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
}

func TestExitCodes(t *testing.T) {
	p := newPlace(t)
	p.fill(t, "web")
	empty := t.TempDir()
	noImages := filepath.Join(empty, "images")
	if err := os.Mkdir(noImages, 0o700); err != nil {
		t.Fatal(err)
	}
	withFile := t.TempDir()
	if err := os.WriteFile(filepath.Join(withFile, "letter"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		args string
		want cli.Code
		says string
	}{
		{"no arguments", "", cli.OK, ""},
		{"help", "snapshot create --help", cli.OK, ""},
		{"version", "--version", cli.OK, ""},
		{"an unknown command", "defrost", cli.Usage, "defrost"},
		{"an unknown command of a group", "snapshot defrost", cli.Usage, "defrost"},
		{"an unknown flag", "snapshot ls --fast", cli.Usage, "--fast"},
		{"a missing argument", "snapshot inspect", cli.Usage, "name of one snapshot"},
		{"a missing flag", "snapshot import .", cli.Usage, "name"},
		{"neither a process nor a container", "snapshot create --name x", cli.Usage, "pid"},
		{"both a process and a container", "snapshot create --name x --pid 1 --container c", cli.Usage, "container"},
		{"a number that is no process", "snapshot create --name x --pid -4", cli.Usage, "-4"},
		{"a name that is none", "snapshot inspect a/b/c", cli.Usage, "b/c"},
		{"a bundle without an id", "restore web --bundle .", cli.Usage, "id"},
		{"an unknown stream", "restore web --stream fast", cli.Usage, "fast"},
		{"a rate that is none", "restore web --rate fast", cli.Usage, "fast"},
		{"unknown streams for a container", "restore web --stdio tape", cli.Usage, "tape"},

		{"a snapshot that does not exist", "snapshot inspect nosuch", cli.NotFound, "nosuch"},
		{"a snapshot to remove that does not exist", "snapshot rm nosuch", cli.NotFound, "nosuch"},
		{"a store that does not exist", "snapshot ls --store " + filepath.Join(empty, "none"), cli.NotFound, "none"},
		{"images that do not exist", "snapshot import " + filepath.Join(empty, "none") + " --name x", cli.NotFound, "none"},
		{"a folder without images", "snapshot import " + noImages + " --name x", cli.Corrupt, "inventory.img"},
		{"a folder with other things as a store", "snapshot import " + noImages + " --name x --store " + withFile, cli.Busy, "letter"},

		{"no thawd", "restore web", cli.Missing, p.socket},
		{"no thawd to list sessions of", "sessions", cli.Missing, p.socket},
		{"no CRIU", "snapshot create --name x --pid 1 --criu /nonexistent/criu", cli.Missing, "criu"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := p.thaw(t, strings.Fields(tt.args)...)
			if r.code != int(tt.want) {
				t.Errorf("exit code %d, want %d (%s): %s", r.code, tt.want, tt.want, r.stderr)
			}
			if tt.want != cli.OK && (!strings.HasPrefix(r.stderr, "thaw: ") || !strings.Contains(r.stderr, tt.says)) {
				t.Errorf("standard error %q does not name %q", r.stderr, tt.says)
			}
			if tt.want != cli.OK && !strings.Contains(r.stderr, "hint: ") && !strings.Contains(r.stderr, "--help") && tt.want != cli.NotFound {
				t.Errorf("standard error %q does not say what to do", r.stderr)
			}
			if tt.want == cli.OK && r.stdout == "" {
				t.Error("nothing was printed")
			}
		})
	}
}

func TestExitCodesWithThawd(t *testing.T) {
	p := newPlace(t)
	p.fill(t, "web")
	s := p.serve(t)
	for _, tt := range []struct {
		name, args string
		want       cli.Code
	}{
		{"a snapshot that does not exist", "restore nosuch", cli.NotFound},
		{"a session that does not exist", "sessions nosuch", cli.NotFound},
		{"a name that is none", "restore a/b/c", cli.Usage},
		{"a work folder that does not exist", "restore web --work-dir /nonexistent/dir", cli.NotFound},
		{"no CRIU", "restore web --criu /nonexistent/criu", cli.Missing},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if r := p.thaw(t, strings.Fields(tt.args)...); r.code != int(tt.want) {
				t.Errorf("exit code %d, want %d: %s", r.code, tt.want, r.stderr)
			}
		})
	}
	for _, left := range mustSessions(t, s) {
		if !left.State.Ended() {
			t.Errorf("session %s of a restore that failed is %s", left.ID, left.State)
		}
	}

	second := finish(t, p.command("thawd", "serve"))
	if second.code != int(cli.Busy) || !strings.Contains(second.stderr, p.socket) {
		t.Errorf("a second thawd on the socket: exit code %d, want %d: %s", second.code, cli.Busy, second.stderr)
	}
	if code := s.end(t, syscall.SIGTERM); code != 0 {
		t.Errorf("thawd ended with exit code %d", code)
	}
}

func TestThawdRefusesAPathThatIsNoSocket(t *testing.T) {
	p := newPlace(t)
	file := filepath.Join(p.dir, "file")
	if err := os.WriteFile(file, []byte("keep me"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := finish(t, p.command("thawd", "serve", "--socket", file)); r.code != int(cli.Busy) {
		t.Errorf("exit code %d, want %d: %s", r.code, cli.Busy, r.stderr)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "keep me" {
		t.Errorf("the file holds %q, %v", b, err)
	}
	for _, args := range [][]string{{"serve", "--log-format", "xml"}, {"serve", "--read-ahead", "much"}, {"serve", "--bad-pages", "zero"}, {"serve", "extra"}, {"nosuch"}} {
		if r := finish(t, p.command("thawd", args...)); r.code != int(cli.Usage) {
			t.Errorf("thawd %q: exit code %d, want %d: %s", args, r.code, cli.Usage, r.stderr)
		}
	}
}

func TestThawdReplacesTheSocketOfOneThatWasKilled(t *testing.T) {
	p := newPlace(t)
	p.fill(t, "web")
	s := p.serve(t)
	s.cmd.Process.Kill()
	<-s.ended
	if conn, err := net.Dial("unix", p.socket); err == nil {
		conn.Close()
		t.Fatal("somebody still listens")
	}
	again := p.serve(t)
	if h, err := again.Health(t.Context()); err != nil || h.PID != again.cmd.Process.Pid {
		t.Errorf("Health = %+v, %v", h, err)
	}
}

func TestADamagedStoreIsToldWithItsPacks(t *testing.T) {
	p := newPlace(t)
	p.fill(t, "web", "also")
	packs, err := filepath.Glob(filepath.Join(p.store, "namespaces", "*", "packs", "*.pack"))
	if err != nil || len(packs) == 0 {
		t.Fatalf("packs: %v, %v", packs, err)
	}
	if r := p.must(t, nil, "snapshot", "verify"); !strings.Contains(r.stdout, "all is well") {
		t.Errorf("verify of a sound store: %s", r.stdout)
	}
	data, err := os.ReadFile(packs[0])
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, pagestore.PageSize)
	numbers{}.ReadAt(want, 3*pagestore.PageSize)
	at := strings.Index(string(data), string(want))
	if at < 0 {
		t.Fatal("page 3 is not in the pack")
	}
	data[at] ^= 1
	if err := os.Chmod(packs[0], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(packs[0], data, 0o600); err != nil {
		t.Fatal(err)
	}
	r := p.thaw(t, "snapshot", "verify", "--json")
	if r.code != int(cli.Corrupt) {
		t.Errorf("exit code %d, want %d: %s", r.code, cli.Corrupt, r.stderr)
	}
	var v verified
	if err := json.Unmarshal([]byte(r.stdout), &v); err != nil {
		t.Fatal(err)
	}
	pack := strings.TrimSuffix(filepath.Base(packs[0]), ".pack")
	if v.OK || v.BadPages != 1 || len(v.Findings) != 1 || v.Findings[0].Pack != pack || len(v.BadSnapshots) != 2 {
		t.Errorf("verify found %+v, want one page of pack %s and two snapshots", v, pack)
	}
	if r := p.thaw(t, "snapshot", "verify"); !strings.Contains(r.stdout, pack) || !strings.Contains(r.stdout, "used by web") {
		t.Errorf("verify says to people: %s", r.stdout)
	}
}

func TestVerifySaysThatADamagedWorkingSetCostsNothing(t *testing.T) {
	p := newPlace(t)
	store := p.fill(t, "web")
	snap, err := store.Snapshot(pagestore.Name{Namespace: pagestore.DefaultNamespace, Snapshot: "web"})
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	set := pagestore.WorkingSet{Hint: []byte("hint"), Order: []pagestore.PageRun{{Image: 3, Pages: 2}}}
	if err := snap.SetWorkingSet(t.Context(), set); err != nil {
		t.Fatal(err)
	}
	if r := p.must(t, nil, "snapshot", "inspect", "web"); !strings.Contains(r.stdout, "working set") {
		t.Errorf("inspect: %s", r.stdout)
	}
	var list struct{ Snapshots []listed }
	if err := json.Unmarshal([]byte(p.must(t, nil, "snapshot", "ls", "--json").stdout), &list); err != nil {
		t.Fatal(err)
	}
	if l := list.Snapshots[0]; l.HintBytes != 4 || l.HotBytes != 3*pagestore.PageSize {
		t.Errorf("ls: %+v", l)
	}
	if r := p.must(t, nil, "snapshot", "verify"); !strings.Contains(r.stdout, "all is well") {
		t.Errorf("verify of a sound store: %s", r.stdout)
	}
	path := filepath.Join(filepath.Dir(snap.SkeletonDir()), "hot")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-1] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	r := p.thaw(t, "snapshot", "verify", "--json")
	if r.code != int(cli.Corrupt) || !strings.Contains(r.stderr, "nothing is lost") {
		t.Errorf("exit code %d, want %d: %s", r.code, cli.Corrupt, r.stderr)
	}
	var v verified
	if err := json.Unmarshal([]byte(r.stdout), &v); err != nil {
		t.Fatal(err)
	}
	if v.OK || len(v.Findings) != 1 || v.Findings[0].What != "working set" || len(v.BadSnapshots) != 0 {
		t.Errorf("verify found %+v, want one working set and no snapshot that is hit", v)
	}
}

// as runs thaw as a user who may nothing.
func (p *place) as(t *testing.T, uid uint32, args ...string) result {
	t.Helper()
	cmd := p.command("thaw", args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	return finish(t, cmd)
}

func TestWithoutPermissionTheExitCodeSaysSo(t *testing.T) {
	testenv.NeedRoot(t)
	p := newPlace(t)
	p.fill(t, "web")
	p.serve(t)
	// The folders may be looked into; what is in them may not be used.
	for _, dir := range []string{p.dir, filepath.Dir(p.socket)} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(p.store, 0o700); err != nil {
		t.Fatal(err)
	}
	images := filepath.Join(p.dir, "images")
	if err := os.Mkdir(images, 0o755); err != nil {
		t.Fatal(err)
	}
	const nobody = 65534
	for _, args := range []string{
		"sessions", "restore web", "snapshot ls", "snapshot rm web", "snapshot verify", "snapshot import " + images + " --name x",
	} {
		r := p.as(t, nobody, strings.Fields(args)...)
		if r.code != int(cli.Permission) || !strings.Contains(r.stderr, "hint: ") {
			t.Errorf("thaw %s: exit code %d, want %d with a hint: %s", args, r.code, cli.Permission, r.stderr)
		}
	}
}

func TestAFullDiskIsToldAndLeavesTheStoreAsItWas(t *testing.T) {
	p := newPlace(t)
	p.useCRIU(t)
	f := startTarget(t, p)
	images := filepath.Join(p.dir, "images")
	p.freeze(t, f, "web", "--images", images)

	small := filepath.Join(p.dir, "small")
	if err := os.Mkdir(small, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", small, "tmpfs", 0, "size=8m"); err != nil {
		t.Skipf("needs to mount a tmpfs: run where CAP_SYS_ADMIN is granted: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(small, 0); err != nil {
			t.Errorf("unmount %s: %v", small, err)
		}
	})
	store := filepath.Join(small, "store")
	r := p.thaw(t, "snapshot", "import", images, "--name", "web", "--store", store)
	if r.code != int(cli.NoSpace) || !strings.Contains(r.stderr, "hint: ") {
		t.Errorf("exit code %d, want %d with a hint: %s", r.code, cli.NoSpace, r.stderr)
	}
	var after struct{ Snapshots []listed }
	p.must(t, &after, "snapshot", "ls", "--json", "--store", store)
	if len(after.Snapshots) != 0 {
		t.Errorf("the store holds %+v", after.Snapshots)
	}
	p.must(t, nil, "snapshot", "gc", "--store", store)
	p.must(t, nil, "snapshot", "verify", "--store", store)
}

func TestEveryCommandHasJSON(t *testing.T) {
	p := newPlace(t)
	p.uses(bucketPlace{url: "file://" + filepath.Join(t.TempDir(), "bucket")})
	p.fill(t, "web", "prod/web", "old")
	p.serve(t)
	keys := filepath.Join(p.dir, "keys")
	for _, args := range []string{
		"snapshot push web", "snapshot pull web", "snapshot warm web", "remote ls", "remote rm web", "remote gc", "top --once",
		"peer init " + keys, "peer issue a --authority " + keys + " --out " + keys,
		"snapshot ls", "snapshot inspect web", "snapshot inspect prod/web", "snapshot verify", "snapshot rm old", "snapshot gc",
		"sessions", "doctor",
	} {
		r := p.thaw(t, append(strings.Fields(args), "--json")...)
		var v map[string]any
		if err := json.Unmarshal([]byte(r.stdout), &v); err != nil || len(v) == 0 {
			t.Errorf("thaw %s --json printed %q: %v", args, r.stdout, err)
		}
	}
	for _, args := range []string{
		"snapshot inspect nosuch", "snapshot create --name x", "snapshot import /nonexistent --name x", "restore nosuch", "sessions nosuch",
		"snapshot push nosuch", "snapshot pull nosuch", "remote rm nosuch", "remote ls a/b", "peer issue a --authority /nonexistent --out x",
		"snapshot ls --store /nonexistent", "nosuch",
	} {
		r := p.thaw(t, append(strings.Fields(args), "--json")...)
		var v struct {
			Error struct {
				ExitCode int `json:"exit_code"`
				Kind     string
				Message  string
			}
		}
		if err := json.Unmarshal([]byte(r.stderr), &v); err != nil || v.Error.ExitCode != r.code || v.Error.Message == "" || r.code == 0 {
			t.Errorf("thaw %s --json ended with %d and told %q: %v", args, r.code, r.stderr, err)
		}
	}
}

func TestOutputForPeopleIsATable(t *testing.T) {
	p := newPlace(t)
	p.fill(t, "web")
	p.serve(t)
	for _, tt := range []struct {
		args string
		says []string
	}{
		{"snapshot ls", []string{"NAME", "web", "24.0 KiB"}},
		{"snapshot inspect web", []string{"digest", "process 7", "stored"}},
		{"sessions", []string{"SNAPSHOT", "STATE"}},
		{"snapshot rm web", []string{"web: removed"}},
		{"snapshot gc", []string{"1 packs", "left 0 B"}},
	} {
		r := p.must(t, nil, strings.Fields(tt.args)...)
		for _, want := range tt.says {
			if !strings.Contains(r.stdout, want) {
				t.Errorf("thaw %s does not say %q:\n%s", tt.args, want, r.stdout)
			}
		}
	}
}

func TestCompletionScriptsAreScripts(t *testing.T) {
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("needs bash: apt-get install bash")
	}
	p := newPlace(t)
	r := p.must(t, nil, "completion", "bash")
	cmd := exec.Command("bash", "-n")
	cmd.Stdin = strings.NewReader(r.stdout)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("bash refuses the script: %v: %s", err, out)
	}
}
