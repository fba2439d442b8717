package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"thaw/cmd/internal/cli"
	"thaw/function"
	"thaw/function/gateway"
	"thaw/internal/testenv"
)

// served is a place with a thawd, in which functions of testdata/functions are deployed, served and called.
type served struct {
	*place
	state, api string
	mark       string // begins the names of apps, and so those of all that is made for them
	client     *gateway.Client
	thawd      *server
}

// newServed makes the place. When the test ends, it fails if something is left of an instance.
func newServed(t *testing.T) *served {
	t.Helper()
	testenv.NeedRoot(t)
	p := newPlace(t)
	f := &served{place: p, state: filepath.Join(p.dir, "functions"), api: filepath.Join(p.dir, "run", "functions.sock"), mark: filepath.Base(p.dir)}
	t.Cleanup(func() { f.expectNothingLeft(t) })
	p.useCRIU(t)
	p.env = append(p.env, cli.EnvState+"="+f.state, cli.EnvAPI+"="+f.api, cli.EnvRoot+"="+testenv.Rootfs(t), cli.EnvRunc+"="+testenv.Runc(t))
	f.client = gateway.NewClient(f.api)
	t.Cleanup(f.client.Close)
	f.thawd = f.startThawd(t)
	return f
}

// startThawd starts one, which is told to end before the test does.
func (f *served) startThawd(t *testing.T) *server {
	t.Helper()
	s := f.serve(t, "--run-dir", filepath.Join(f.dir, "sessions"))
	t.Cleanup(func() {
		select {
		case <-s.ended:
			return // the test has ended it
		default:
		}
		if code := s.end(t, syscall.SIGTERM); code != 0 {
			t.Errorf("thawd ended with exit code %d", code)
		}
	})
	return s
}

// A functionServer is a thaw serve that runs.
type functionServer struct {
	cmd   *exec.Cmd
	log   logBuffer
	told  bool          // to end: a second signal would kill it
	ended chan struct{} // closed when it has ended
}

// logBuffer is a log that is written and read at the same time.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer // protected by mu
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// noIdle has instances end as soon as they have nothing to do, so that each call is a boot.
const noIdle = "--idle=1ns"

// bridgeName is that of a bridge that is this test program's own.
func bridgeName() string { return fmt.Sprintf("thawe2e%d", os.Getpid()%10000) }

// bridgeFlags are the flags for it; instances reach the tests at the address.
func bridgeFlags() (flags []string, address string) {
	net := fmt.Sprintf("10.%d.%d.", 230+os.Getpid()%20, os.Getpid()%250)
	return []string{"--bridge=" + bridgeName(), "--subnet=" + net + "0/24"}, net + "1"
}

// serveFunctions starts thaw serve and waits until it answers. Without a flag that says otherwise instances have no network.
func (f *served) serveFunctions(t *testing.T, args ...string) *functionServer {
	t.Helper()
	s := &functionServer{ended: make(chan struct{})}
	s.cmd = f.command("thaw", append([]string{"serve", "--bridge="}, args...)...)
	s.cmd.Stderr = &s.log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		s.cmd.Wait()
		close(s.ended)
	}()
	t.Cleanup(func() {
		s.stop(t)
		if t.Failed() {
			t.Logf("the server's log:\n%s", s.log.String())
		}
	})
	until(t, "the function server answers", func() bool {
		select {
		case <-s.ended:
			t.Fatalf("the function server has ended:\n%s", s.log.String())
		default:
		}
		_, err := f.client.Health(t.Context())
		return err == nil
	})
	return s
}

// tell tells the server to end.
func (s *functionServer) tell(t *testing.T) {
	t.Helper()
	if s.told {
		return
	}
	s.told = true
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
}

// stop has the server end, with all instances.
func (s *functionServer) stop(t *testing.T) {
	t.Helper()
	select {
	case <-s.ended:
		return // before: or the test has killed it
	default:
	}
	s.tell(t)
	<-s.ended
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("the function server ended with exit code %d", code)
	}
}

// app is the name under which the app of a folder is deployed.
func (f *served) app(name string) string { return f.mark + "-" + name }

// target is what is called, as the commands take it: "app/Object.method".
func (f *served) target(of string) string { return f.mark + "-" + of }

// file returns the file of an app: a copy that has a name of its own, and that the test may change.
func (f *served) file(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(f.dir, "apps", name)
	if _, err := os.Stat(dir); err == nil {
		return filepath.Join(dir, "app.py")
	}
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", "functions", name))); err != nil {
		t.Fatal(err)
	}
	f.edit(t, name, "app.py", `thaw.App("`, `thaw.App("`+f.mark+"-")
	return filepath.Join(dir, "app.py")
}

// edit puts one text in the place of another in a file of an app.
func (f *served) edit(t *testing.T, name, file, from, to string) {
	t.Helper()
	path := filepath.Join(f.dir, "apps", name, file)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(text, []byte(from)) {
		t.Fatalf("%s does not have %q", file, from)
	}
	if err := os.WriteFile(path, bytes.Replace(text, []byte(from), []byte(to), 1), 0o600); err != nil {
		t.Fatal(err)
	}
}

// deploy deploys an app, which has to succeed.
func (f *served) deploy(t *testing.T, name string, args ...string) (d deployment) {
	t.Helper()
	f.must(t, &d, append([]string{"deploy", f.file(t, name), "--json"}, args...)...)
	return d
}

// ask calls a function, which has to succeed.
func (f *served) ask(t *testing.T, target string, args ...any) (a gateway.Answer) {
	t.Helper()
	f.must(t, &a, "call", f.target(target), jsonOf(t, append([]any{}, args...)), "--json")
	return a
}

// askWith is ask for an object with parameters, a JSON object.
func (f *served) askWith(t *testing.T, parameters, target string, args ...any) (a gateway.Answer) {
	t.Helper()
	f.must(t, &a, "call", f.target(target), jsonOf(t, append([]any{}, args...)), "--json", "--parameters", parameters)
	return a
}

// fails calls a function, which must not succeed, and returns what was said.
func (f *served) fails(t *testing.T, target string, args ...any) result {
	t.Helper()
	r := f.thaw(t, "call", f.target(target), jsonOf(t, append([]any{}, args...)))
	if r.code == 0 {
		t.Errorf("%s%v: %s, want a failure", target, args, r.stdout)
	}
	return r
}

func jsonOf(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// valueOf decodes what a call returned.
func valueOf[T any](t *testing.T, a gateway.Answer) (v T) {
	t.Helper()
	if err := json.Unmarshal(a.Value, &v); err != nil {
		t.Fatalf("%s: %v", a.Value, err)
	}
	return v
}

// expectBoot fails the test unless the call has waited for such a boot.
func expectBoot(t *testing.T, a gateway.Answer, want function.BootKind) {
	t.Helper()
	if a.Boot != want {
		t.Errorf("the call has waited for the boot %q, want %q", a.Boot, want)
	}
}

// freezeNow has a snapshot taken of an object, "app/Object", which has to succeed.
func (f *served) freezeNow(t *testing.T, target, parameters string) (z gateway.Frozen) {
	t.Helper()
	f.must(t, &z, "freeze", f.target(target), "--parameters", parameters, "--json")
	return z
}

// current returns what functions shows of the current version of an app.
func (f *served) current(t *testing.T, app string) *listedVersion {
	t.Helper()
	var listed struct{ Apps []listedApp }
	f.must(t, &listed, "functions", f.app(app), "--json")
	for i := range listed.Apps[0].Versions {
		if v := &listed.Apps[0].Versions[i]; v.Current {
			return v
		}
	}
	t.Fatalf("app %s has no current version", app)
	return nil
}

// snapshots returns what functions shows of the snapshots of an object.
func (f *served) snapshots(t *testing.T, app, object string) (of []listedSnapshot) {
	t.Helper()
	for _, s := range f.current(t, app).Snapshots {
		if s.Object == object {
			of = append(of, s)
		}
	}
	return of
}

// awaitSnapshot waits until a snapshot that is taken behind the calls is there.
func (f *served) awaitSnapshot(t *testing.T, app, object string) *listedSnapshot {
	t.Helper()
	var found []listedSnapshot
	until(t, "there is a snapshot of "+object, func() bool {
		found = f.snapshots(t, app, object)
		return len(found) > 0
	})
	return &found[0]
}

// logged returns the log of an app, or of an object ("app/Object").
func (f *served) logged(t *testing.T, target string) (lines []logLine) {
	t.Helper()
	for text := range strings.Lines(f.must(t, nil, "logs", f.target(target), "-n", "0", "--json").stdout) {
		var l logLine
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, l)
	}
	return lines
}

// awaitLog waits until a line of the log has a text in it.
func (f *served) awaitLog(t *testing.T, target, text string) logLine {
	t.Helper()
	var found logLine
	until(t, fmt.Sprintf("the log of %s has %q", target, text), func() bool {
		lines := f.logged(t, target)
		i := slices.IndexFunc(lines, func(l logLine) bool { return strings.Contains(l.Text, text) })
		if i >= 0 {
			found = lines[i]
		}
		return i >= 0
	})
	return found
}

// instances returns those that serve an app.
func (f *served) instances(t *testing.T, app string) (of []function.InstanceInfo) {
	t.Helper()
	all, err := f.client.Instances(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all.Instances {
		if i.App == f.app(app) {
			of = append(of, i)
		}
	}
	return of
}

// awaitNoInstances waits until none is left of those of an app, nor of their containers.
func (f *served) awaitNoInstances(t *testing.T, app string) {
	t.Helper()
	until(t, "no instance of "+app+" is left", func() bool {
		return len(f.instances(t, app)) == 0 && len(f.folders()) == 0
	})
}

// folders are those of containers that are there.
func (f *served) folders() []string {
	found, _ := filepath.Glob(filepath.Join(f.state, "instances", "instances", "*"))
	return found
}

// together does n things at the same time, and returns when all are done.
func together(n int, do func(i int)) {
	var g sync.WaitGroup
	for i := range n {
		g.Go(func() { do(i) })
	}
	g.Wait()
}
