package instance

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"thaw/checkpoint"
	"thaw/control"
	"thaw/function/network"
	"thaw/function/rootfs"
	"thaw/function/runner"
	"thaw/internal/testenv"
	"thaw/pagestore"
)

// fixture is a host with all that belongs to it.
type fixture struct {
	*Host
	dir   string
	root  *rootfs.Root
	thawd *control.Client
}

// newFixture makes a host in a folder of its own. When the test ends, it fails if anything is left that was not there before.
func newFixture(t testing.TB, change ...func(*HostOptions)) *fixture {
	t.Helper()
	testenv.NeedRoot(t)
	expectNothingLeft(t)
	f := &fixture{dir: tempDir(t)}
	var err error
	if f.root, err = rootfs.OpenFolder(testenv.Rootfs(t)); err != nil {
		t.Fatal(err)
	}
	store, err := pagestore.Create(filepath.Join(f.dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	if err := store.MakeNamespace(pagestore.DefaultNamespace); err != nil {
		t.Fatal(err)
	}
	sdk, err := filepath.Abs("testdata/sdk")
	if err != nil {
		t.Fatal(err)
	}
	f.thawd = startThawd(t, store.Dir(), f.dir)
	o := HostOptions{
		Dir: filepath.Join(f.dir, "host"), CRIU: testenv.CRIU(t), Runc: testenv.Runc(t), Store: store, Thawd: f.thawd, SDK: sdk,
	}
	for _, c := range change {
		c(&o)
	}
	if f.Host, err = Open(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// tempDir makes a folder on a disk, under a short name: paths of sockets are short.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "thaw-inst-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := checkpoint.UnmountBelow(dir); err != nil {
			t.Error(err)
		}
		if err := checkpoint.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// buildThawd builds the server once for all tests.
var buildThawd = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "thaw-inst-bin-")
	if err != nil {
		return "", err
	}
	testenv.AtExit(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "thawd")
	out, err := exec.Command("go", "build", "-o", path, "thaw/cmd/thawd").CombinedOutput()
	if err != nil {
		os.Stderr.Write(out)
	}
	return path, err
})

// startThawd starts a thawd and returns its client.
func startThawd(t testing.TB, store, dir string) *control.Client {
	t.Helper()
	testenv.NeedUserfaultfd(t)
	path, err := buildThawd()
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "thawd.sock")
	var log bytes.Buffer
	cmd := exec.Command(path, "serve", "--store", store, "--socket", socket, "--run-dir", filepath.Join(dir, "sessions"), "--record-share", "0")
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	client := control.NewClient(socket)
	t.Cleanup(func() {
		client.Close()
		_ = cmd.Process.Signal(unix.SIGTERM)
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Logf("thawd: %v\n%s", err, log.Bytes())
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		if _, err := client.Health(ctx); err == nil {
			return client
		} else if ctx.Err() != nil {
			t.Fatalf("thawd does not answer: %v", err)
		}
	}
}

// withBridge gives the host a network with a bridge.
func withBridge(t testing.TB, n network.Options) func(*HostOptions) {
	return func(o *HostOptions) {
		n.Dir = filepath.Join(filepath.Dir(o.Dir), "bridge")
		net, err := network.Open(n)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := net.Close(); err != nil {
				t.Error(err)
			}
		})
		o.Network = net
	}
}

// spec returns that of the tests' own function.
func (f *fixture) spec(t testing.TB) Spec {
	t.Helper()
	app, err := filepath.Abs("testdata/app")
	if err != nil {
		t.Fatal(err)
	}
	return Spec{Name: function, Root: f.root, Code: app}
}

// start starts an instance cold. The test closes it.
func (f *fixture) start(t testing.TB, spec Spec) *Instance {
	t.Helper()
	i, err := f.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	closeLater(t, i)
	return i
}

func closeLater(t testing.TB, i *Instance) {
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of %s: %q", i.ID(), i.Log())
		}
		if err := i.Close(); err != nil {
			t.Error(err)
		}
	})
}

// load has an instance make the tests' object.
func load(t testing.TB, i *Instance, parameters string) {
	t.Helper()
	o := LoadOptions{File: "app.py", Object: "Probe", Parameters: json.RawMessage(parameters)}
	if _, err := i.Load(t.Context(), o); err != nil {
		t.Fatal(err)
	}
}

// freeze makes a snapshot of a prepared instance of the spec.
func (f *fixture) freeze(t testing.TB, spec Spec, name, parameters string) *FreezeReport {
	t.Helper()
	i := f.start(t, spec)
	load(t, i, parameters)
	if _, err := i.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	r, err := i.Freeze(t.Context(), FreezeOptions{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	return r
}

// restore makes an instance of a snapshot. The test closes it.
func (f *fixture) restore(t testing.TB, spec Spec, name string) *Instance {
	t.Helper()
	i, err := f.Restore(t.Context(), spec, pagestore.Name{Namespace: pagestore.DefaultNamespace, Snapshot: name})
	if err != nil {
		t.Fatal(err)
	}
	closeLater(t, i)
	return i
}

func boot(t testing.TB, i *Instance) {
	t.Helper()
	if _, err := i.Boot(t.Context(), BootOptions{}); err != nil {
		t.Fatal(err)
	}
}

// call calls a method and returns what it returned.
func call[T any](t testing.TB, i *Instance, method string, args ...any) (out T) {
	t.Helper()
	if args == nil {
		args = []any{}
	}
	text, err := json.Marshal(args)
	if err != nil {
		t.Fatal(err)
	}
	r, err := i.Call(t.Context(), &runner.Call{Method: method, Args: text})
	if err != nil {
		t.Fatalf("%s%v: %v", method, args, err)
	}
	if err := json.Unmarshal(r.Value, &out); err != nil {
		t.Fatalf("%s%v: %v", method, args, err)
	}
	return out
}
