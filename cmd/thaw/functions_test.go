package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"thaw/cmd/internal/cli"
	"thaw/control"
	"thaw/cpu"
	"thaw/function/registry"
	"thaw/internal/testenv"
)

// functionPlace is a place with an app to deploy.
type functionPlace struct {
	*place
	state, file string
}

// appDocument is what the stand-in for the SDK says of an app.
const appDocument = `
import helpers
DOCUMENT = {"sdk": "0", "python": "3", "app": "demo", "sources": ["app.py", "helpers.py"], "data": ["*.bin"],
    "generators": [{"where": "app.RNG", "type": "random.Random"}],
    "objects": [{"name": "Embedder", "kind": "class", "snapshot": True, "concurrency": 1, "methods": [{"name": "embed", "kind": "method"}]},
        {"name": "hello", "kind": "function", "snapshot": False, "concurrency": 1, "methods": [{"name": "hello", "kind": "method"}]}]}
`

func newFunctionPlace(t *testing.T) *functionPlace {
	t.Helper()
	p := &functionPlace{place: newPlace(t)}
	p.state = filepath.Join(p.dir, "state", "functions")
	sdk, err := filepath.Abs("../../function/describe/testdata/sdk")
	if err != nil {
		t.Fatal(err)
	}
	p.env = append(p.env, cli.EnvState+"="+p.state, cli.EnvSDK+"="+sdk, "XDG_CACHE_HOME="+filepath.Join(p.dir, "cache"))
	app := filepath.Join(p.dir, "app")
	if err := os.Mkdir(app, 0o755); err != nil {
		t.Fatal(err)
	}
	p.file = filepath.Join(app, "app.py")
	p.write(t, "app.py", appDocument)
	p.write(t, "helpers.py", "x = 1\n")
	p.write(t, "model.bin", "weights")
	return p
}

// write writes a file of the app.
func (p *functionPlace) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(filepath.Dir(p.file), name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// deploy deploys the app, which has to succeed.
func (p *functionPlace) deploy(t *testing.T, args ...string) (d deployment) {
	t.Helper()
	testenv.NeedRoot(t)
	p.must(t, &d, append([]string{"deploy", p.file, "--json", "--root", testenv.Rootfs(t)}, args...)...)
	return d
}

func changesOf(d *deployment) (out []string) {
	for _, c := range d.Changes {
		out = append(out, c.String())
	}
	return out
}

func TestDeployRegistersWhatChanged(t *testing.T) {
	p := newFunctionPlace(t)
	first := p.deploy(t)
	if !first.New || !first.Switched || first.App != "demo" || first.Files != 3 || len(first.Objects) != 2 {
		t.Errorf("first deployment: %+v", first)
	}
	if len(first.Warnings) != 1 || !strings.Contains(first.Warnings[0], "app.RNG (random.Random)") {
		t.Errorf("warnings are %q", first.Warnings)
	}
	if again := p.deploy(t); again.New || again.Switched || again.Key != first.Key || len(again.Changes) != 0 {
		t.Errorf("deployment of the same: %+v", again)
	}
	p.write(t, "unrelated.txt", "no part of the app")
	if again := p.deploy(t); again.New {
		t.Errorf("deployment beside a new file that is no part of it: %+v", again)
	}
	for _, tt := range []struct {
		name   string
		change func()
		args   []string
		want   []string
	}{
		{"a comment", func() { p.write(t, "helpers.py", "x = 1 # one\n") }, nil, []string{"code: helpers.py changed"}},
		{"the data", func() { p.write(t, "model.bin", "other") }, nil, []string{"data: model.bin changed"}},
		{"more data", func() { p.write(t, "more.bin", "m") }, nil, []string{"data: more.bin is new"}},
	} {
		tt.change()
		d := p.deploy(t, tt.args...)
		if diff := cmp.Diff(tt.want, changesOf(&d)); !d.New || diff != "" {
			t.Errorf("%s: new is %t, changes (-want +got):\n%s", tt.name, d.New, diff)
		}
	}
}

func TestDeployConfinesToFeaturesOfTheCPU(t *testing.T) {
	p := newFunctionPlace(t)
	host, err := cpu.ThisHost()
	if err != nil {
		t.Fatal(err)
	}
	feature := host.Features[len(host.Features)-1]
	first := p.deploy(t)
	hidden := p.deploy(t, "--hide-cpu", feature)
	if got := changesOf(&hidden); hidden.Key == first.Key || len(got) == 0 || !strings.HasPrefix(got[0], "cpu: ") {
		t.Errorf("with %s hidden: %q", feature, got)
	}
	chosen := p.deploy(t, "--cpu", host.Features[0])
	rec := p.record(t, &chosen)
	if !rec.CPU.Features.Equal(host.Features[:1]) || !rec.CPU.Masked {
		t.Errorf("confined to %s: %+v", host.Features[0], rec.CPU)
	}
	r := p.thaw(t, "deploy", p.file, "--root", testenv.Rootfs(t), "--cpu", feature, "--hide-cpu", feature)
	if r.code != int(cli.Usage) || !strings.Contains(r.stderr, feature) {
		t.Errorf("confined to what is hidden: exit code %d\n%s", r.code, r.stderr)
	}
}

func (p *functionPlace) registry(t *testing.T) *registry.Registry {
	t.Helper()
	reg, err := registry.Open(p.state, nil)
	if err != nil {
		t.Fatal(err)
	}
	return reg
}

func (p *functionPlace) record(t *testing.T, d *deployment) *registry.Record {
	t.Helper()
	rec, err := p.registry(t).Version(d.App, d.Key)
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

func TestDeployShowsTheAuthorsMistakeAsPythonDoes(t *testing.T) {
	testenv.NeedRoot(t)
	p := newFunctionPlace(t)
	p.write(t, "helpers.py", "def f():\n    raise ValueError('no such model')\nf()\n")
	args := []string{"deploy", p.file, "--root", testenv.Rootfs(t)}
	r := p.thaw(t, args...)
	if r.code != int(cli.Failure) || !strings.Contains(r.stderr, `File "/app/helpers.py", line 2, in f`) ||
		!strings.Contains(r.stderr, "thaw: nothing is deployed: the app's own code failed with ValueError\n") {
		t.Errorf("exit code %d\n%s", r.code, r.stderr)
	}
	r = p.thaw(t, append(args, "--json")...)
	var told struct{ Error struct{ Message string } }
	if err := json.Unmarshal([]byte(r.stderr), &told); err != nil || !strings.Contains(told.Error.Message, "line 2, in f") {
		t.Errorf("%s: %v", r.stderr, err)
	}
	if apps, err := p.registry(t).Apps(); err != nil || len(apps) != 0 {
		t.Errorf("deployed all the same: %v, %v", apps, err)
	}
}

func TestDeployFindsOutBeforehandWhatCannotWork(t *testing.T) {
	p := newFunctionPlace(t)
	root := testenv.Rootfs(t)
	for _, tt := range []struct {
		name string
		args []string
		want cli.Code
	}{
		{"no file", []string{"deploy", "--root", root}, cli.Usage},
		{"a file that is not there", []string{"deploy", p.file + "x", "--root", root}, cli.NotFound},
		{"no root", []string{"deploy", p.file}, cli.Usage},
		{"a root that is not there", []string{"deploy", p.file, "--root", root + "x"}, cli.NotFound},
		{"a root that is none", []string{"deploy", p.file, "--root", filepath.Dir(p.file)}, cli.Usage},
		{"a level that is none", []string{"deploy", p.file, "--root", root, "--cpu", "x86-64-v9"}, cli.Usage},
		{"a state folder with other things", []string{"deploy", p.file, "--root", root, "--state", filepath.Dir(p.file)}, cli.Busy},
	} {
		if r := p.thaw(t, tt.args...); r.code != int(tt.want) {
			t.Errorf("%s: exit code %d, want %d\n%s", tt.name, r.code, tt.want, r.stderr)
		}
	}
}

func TestFunctionsShowsVersionsAndSnapshots(t *testing.T) {
	p := newFunctionPlace(t)
	if r := p.must(t, nil, "functions"); !strings.Contains(r.stdout, "nothing is deployed") {
		t.Errorf("without anything: %q", r.stdout)
	}
	first := p.deploy(t)
	p.write(t, "helpers.py", "x = 2\n")
	second := p.deploy(t)
	rec := p.record(t, &second)
	err := p.registry(t).UpdateVersion(context.Background(), "demo", second.Key, func(s *registry.Stats) error {
		s.AddCold("Embedder", 14*time.Second)
		snap := registry.Snapshot{
			Name: "fn/demo-1", Kind: registry.KindFunction, Key: second.Key, Object: "Embedder", CPU: rec.CPU.Features, Bytes: 800 << 20, NewBytes: 1 << 20,
			Created: time.Now().Add(-3 * time.Hour), State: registry.StateGood,
		}
		snap.CameUp(time.Now(), 500*time.Millisecond)
		bad := snap
		bad.Name = "fn/demo-2"
		bad.Failed(time.Now(), "after_restore: no such host", 1)
		s.Snapshots = append(s.Snapshots, snap, bad)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	out := p.must(t, nil, "functions", "demo").stdout
	for _, want := range []string{
		"* " + second.Key.Short(), "  " + first.Key.Short(), "code: helpers.py changed", "    Embedder  class     snapshot     embed\n",
		"fn/demo-1  Embedder  3h   800 MiB  1.0 MiB  1     14s   500ms     28.0x   good", "set aside: after_restore: no such host",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	var listed struct{ Apps []listedApp }
	p.must(t, &listed, "functions", "--json")
	if len(listed.Apps) != 1 || len(listed.Apps[0].Versions) != 2 {
		t.Fatalf("listed are %+v", listed)
	}
	v := listed.Apps[0].Versions[0]
	if !v.Current || v.Before != first.Key || len(v.Objects) != 2 || v.Objects[0].Snapshots != 1 || len(v.Snapshots) != 2 || v.Snapshots[0].Faster != 28 || v.Snapshots[0].Uses != 1 || !v.CPU.Equal(rec.CPU.Features) {
		t.Errorf("the current version is %+v", v)
	}
	if r := p.thaw(t, "functions", "other"); r.code != int(cli.NotFound) {
		t.Errorf("an app that is not there: exit code %d\n%s", r.code, r.stderr)
	}

	// The old version goes, the current one only with its app.
	if r := p.thaw(t, "functions", "rm", "demo", "--version", second.Key.Short()); r.code != int(cli.Busy) {
		t.Errorf("removal of the current version: exit code %d\n%s", r.code, r.stderr)
	}
	var gone removedFunctions
	p.must(t, &gone, "functions", "rm", "demo", "--version", first.Key.Short(), "--json")
	if len(gone.Keys) != 1 || gone.Keys[0] != first.Key {
		t.Errorf("removed are %+v", gone)
	}
	p.must(t, &gone, "functions", "rm", "demo", "--json")
	if fmt.Sprint(gone.Snapshots) != "[fn/demo-1 fn/demo-2]" {
		t.Errorf("snapshots that stay are %v", gone.Snapshots)
	}
	if r := p.thaw(t, "functions", "rm", "demo"); r.code != int(cli.NotFound) {
		t.Errorf("removal of what is gone: exit code %d\n%s", r.code, r.stderr)
	}
}

func TestRunBecomesPython(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skipf("needs Python on this host: apt-get install python3: %v", err)
	}
	p := newFunctionPlace(t)
	r := p.thaw(t, "run", p.file+"::Embedder.embed", "--json-args", `["a"]`, "--param", "size=3", "--param", "n=a,b")
	var got []string
	if err := json.Unmarshal([]byte(r.stdout), &got); err != nil {
		t.Fatalf("%q: %v\n%s", r.stdout, err, r.stderr)
	}
	want := []string{"run", p.file + "::Embedder.embed", "--json", `["a"]`, "--param", "size=3", "--param", "n=a,b"}
	if diff := cmp.Diff(want, got); diff != "" || r.code != 7 {
		t.Errorf("exit code %d, arguments (-want +got):\n%s", r.code, diff)
	}
	for _, tt := range []struct {
		args []string
		want cli.Code
	}{
		{[]string{"run"}, cli.Usage},
		{[]string{"run", p.file}, cli.Usage},
		{[]string{"run", p.file + "x::f"}, cli.NotFound},
		{[]string{"run", p.file + "::f", "--python", "no-such-python"}, cli.Missing},
	} {
		if r := p.thaw(t, tt.args...); r.code != int(tt.want) {
			t.Errorf("%q: exit code %d, want %d\n%s", tt.args, r.code, tt.want, r.stderr)
		}
	}
}

func TestCallSaysWhatIsWrongBeforeAServerHasToBeThere(t *testing.T) {
	p := newFunctionPlace(t)
	p.env = append(p.env, cli.EnvAPI+"="+filepath.Join(p.dir, "run", "functions.sock"))
	for _, tt := range []struct {
		name string
		args []string
		want cli.Code
		says string
	}{
		{"no server", []string{"call", "demo/hello"}, cli.Missing, "hint: start one (thaw serve)"},
		{"no server to freeze", []string{"freeze", "demo/Embedder"}, cli.Missing, "no function server listens on " + p.dir},
		{"no server at an address", []string{"call", "demo/hello", "--api", "http://127.0.0.1:1"}, cli.Missing, "no function server listens on http://127.0.0.1:1"},
		{"a server at an address", []string{"serve", "--api", "http://127.0.0.1:1"}, cli.Usage, "--listen"},
		{"a name without an app", []string{"call", "hello"}, cli.Usage, "APP/OBJECT"},
		{"arguments that are not JSON", []string{"call", "demo/hello", `{"name": you}`}, cli.Usage, "ARGUMENTS are not JSON"},
		{"one value", []string{"call", "demo/hello", "3"}, cli.Usage, "neither a JSON object"},
		{"parameters that are not JSON", []string{"call", "demo/Embedder.embed", "[]", "--parameters", "x"}, cli.Usage, "--parameters is not JSON"},
		{"parameters in order", []string{"freeze", "demo/Embedder", "--parameters", "[1]"}, cli.Usage, "--parameters is no JSON object"},
	} {
		if r := p.thaw(t, tt.args...); r.code != int(tt.want) || !strings.Contains(r.stderr, tt.says) {
			t.Errorf("%s: exit code %d, want %d with %q\n%s", tt.name, r.code, tt.want, tt.says, r.stderr)
		}
	}
}

func TestOneServerHasTheSocket(t *testing.T) {
	p := newFunctionPlace(t)
	api := filepath.Join(p.dir, "functions.sock")
	l, err := control.Listen(api)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r := p.thaw(t, "serve", "--api", api)
	if r.code != int(cli.Busy) || !strings.Contains(r.stderr, "hint: another function server runs here") {
		t.Errorf("exit code %d\n%s", r.code, r.stderr)
	}
}
