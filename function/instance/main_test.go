package instance

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"thaw/function/rootfs"
	"thaw/function/runner"
	"thaw/internal/testenv"
	"thaw/pagestore"
)

// ownerEnv has the test program be the owner of a host, who is to be killed.
const ownerEnv = "THAW_TEST_INSTANCE_OWNER"

func TestMain(m *testing.M) {
	if text := os.Getenv(ownerEnv); text != "" {
		fmt.Fprintln(os.Stderr, runOwner(text))
		os.Exit(1)
	}
	testenv.Main(m)
}

// owner is what it needs.
type owner struct{ Dir, CRIU, Runc, SDK, Root, Code string }

// runOwner makes a host with an instance that is at work, says so, and returns only on an error.
func runOwner(text string) error {
	var o owner
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	ctx := context.Background()
	h, err := Open(ctx, HostOptions{Dir: o.Dir, CRIU: o.CRIU, Runc: o.Runc, SDK: o.SDK})
	if err != nil {
		return err
	}
	root, err := rootfs.OpenFolder(o.Root)
	if err != nil {
		return err
	}
	log := &notice{word: "sleeping"}
	i, err := h.Start(ctx, Spec{Name: function, Root: root, Code: o.Code, Log: log})
	if err != nil {
		return err
	}
	if _, err := i.Load(ctx, LoadOptions{File: "app.py", Object: "Probe"}); err != nil {
		return err
	}
	if _, err := i.Boot(ctx, BootOptions{}); err != nil {
		return err
	}
	_, err = i.Call(ctx, &runner.Call{Method: "sleep", Args: json.RawMessage("[600]")})
	return err
}

// notice writes a line to standard output when it sees a word in a log.
type notice struct{ word string }

func (n *notice) Write(p []byte) (int, error) {
	if len(p) >= len(n.word) && string(p[:len(n.word)]) == n.word {
		fmt.Println(n.word)
	}
	return len(p), nil
}

func TestAHostRemovesWhatAKilledOneLeft(t *testing.T) {
	f := newFixture(t)
	o := f.options
	o.Dir, o.Layers = filepath.Join(f.dir, "killed"), ""
	text, err := json.Marshal(owner{Dir: o.Dir, CRIU: o.CRIU, Runc: o.Runc, SDK: o.SDK, Root: f.root.Path(), Code: f.spec(t).Code})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), ownerEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the owner said %q: %v, %v", line, err, cmd.Wait())
	}
	if _, err := Open(t.Context(), o); !errors.Is(err, ErrBusy) {
		t.Errorf("a second host in the folder: %v, want %v", err, ErrBusy)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if left := leftovers(t); len(left) < 3 {
		t.Errorf("the killed owner left %q, want a process, mounts and cgroups: the test tests nothing", left)
	}
	orphan := filepath.Join(o.Dir, "layers", pagestore.DefaultNamespace, "orphan")
	if err := os.MkdirAll(orphan, 0o700); err != nil {
		t.Fatal(err)
	}
	o.Layers = ""
	h, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(orphan); err == nil {
		t.Error("a layer without a snapshot is still there")
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}

	// With another store, nobody knows whether a snapshot needs a layer; nor with a folder that somebody else may have.
	for what, change := range map[string]func(*HostOptions){
		"another store":          func(o *HostOptions) { o.Store = anotherStore(t) },
		"somebody else's layers": func(o *HostOptions) { o.Layers = filepath.Join(o.Dir, "layers") },
	} {
		if err := os.MkdirAll(orphan, 0o700); err != nil {
			t.Fatal(err)
		}
		other := o
		change(&other)
		h, err := Open(t.Context(), other)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(orphan); err != nil {
			t.Errorf("%s: the layer is gone: %v", what, err)
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	}
}

// anotherStore returns an empty store.
func anotherStore(t *testing.T) *pagestore.Store {
	t.Helper()
	store, err := pagestore.Create(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}
