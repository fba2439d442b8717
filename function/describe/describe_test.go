package describe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"thaw/function/version"
	"thaw/internal/testenv"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == Command {
		os.Exit(Main(os.Args[2:]))
	}
	testenv.Main(m)
}

const document = `
DOCUMENT = {"sdk": "0", "python": "3", "app": "demo", "sources": ["app.py"],
    "objects": [{"name": "f", "kind": "function", "concurrency": 1, "methods": [{"name": "f", "kind": "method"}]}]}
`

// options makes an app of the code.
func options(t *testing.T, code string) Options {
	t.Helper()
	testenv.NeedRoot(t)
	file := filepath.Join(t.TempDir(), "app.py")
	if err := os.WriteFile(file, []byte(code), 0o600); err != nil {
		t.Fatal(err)
	}
	sdk, err := filepath.Abs("testdata/sdk")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", t.TempDir())
	return Options{File: file, Lowers: []string{testenv.Rootfs(t)}, SDK: sdk}
}

// checkClean fails the test if something is left.
func checkClean(t *testing.T) {
	t.Helper()
	if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) != 0 {
		t.Errorf("left in TMPDIR: %v, %v", left, err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || bytes.Contains(mounts, []byte(os.TempDir())) {
		t.Errorf("something is mounted in %s: %v", os.TempDir(), err)
	}
}

func TestTheCodeSaysWhatItDeclares(t *testing.T) {
	o := options(t, "import sys\nprint('hello')\n"+document)
	var log bytes.Buffer
	o.Log = &log
	d, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if d.App != "demo" || len(d.Objects) != 1 {
		t.Errorf("description is %+v", d)
	}
	if log.String() != "hello\n" {
		t.Errorf("log is %q", log.String())
	}
	checkClean(t)
}

// probe prints what the code can see and do.
const probe = `
import json, os, socket

def writes(path):
    try:
        with open(path, "w"):
            return True
    except OSError:
        return False

def connects():
    try:
        socket.create_connection(("192.0.2.1", 80))
        return "yes"
    except OSError as err:
        return err.strerror

status = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
print(json.dumps({
    "writable": [p for p in ["/x", "/app/x", "/app/app.py", "/.thaw/python/x", "/etc/x", "/usr/x", "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger", "/sys/kernel/mm/ksm/run", "/tmp/x", "/dev/shm/x"] if writes(p)],
    "caps": sorted({status[c].strip() for c in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]}),
    "privileges": status["NoNewPrivs"],
    "pid": os.getpid(), "folder": os.getcwd(), "host": socket.gethostname(), "interfaces": [n for _, n in socket.if_nameindex() if n != "lo"],
    "app": sorted(os.listdir("/app")), "connects": connects(), "devices": sorted(os.listdir("/dev")), "fds": sorted(os.listdir("/proc/self/fd")),
    "given": os.environ.get("GIVEN"), "host_variable": os.environ.get("TMPDIR"), "cuda": os.environ["CUDA_VISIBLE_DEVICES"],
    "processes": [p for p in os.listdir("/proc") if p.isdigit()],
}))
`

func TestTheCodeCanChangeNothing(t *testing.T) {
	o := options(t, probe+document)
	o.Environment = []string{"GIVEN=this"}
	var log bytes.Buffer
	o.Log = &log
	if _, err := Run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(log.Bytes(), &got); err != nil {
		t.Fatalf("%s: %v", log.String(), err)
	}
	want := map[string]any{
		"writable": []any{"/tmp/x", "/dev/shm/x"}, "caps": []any{"0000000000000000"}, "privileges": "1", "pid": 1.0, "folder": "/app",
		"host": "thaw", "interfaces": []any{}, "app": []any{"app.py"}, "connects": "Network is unreachable",
		"devices": []any{"fd", "full", "null", "random", "shm", "stderr", "stdin", "stdout", "urandom", "zero"},
		"fds":     []any{"0", "1", "2", "3", "4"}, // the document, and the list itself
		"given":   "this", "host_variable": nil, "cuda": "", "processes": []any{"1"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	checkClean(t)
}

func TestAnErrorOfTheCodeIsTheAuthors(t *testing.T) {
	_, err := Run(t.Context(), options(t, "def f():\n    raise ValueError('no such model')\nf()\n"))
	var author *version.AuthorError
	if !errors.As(err, &author) {
		t.Fatalf("error is %v", err)
	}
	if author.Type != "ValueError" || !strings.Contains(author.Traceback, "/app/app.py\", line 2, in f") {
		t.Errorf("error is %+v", author)
	}
	checkClean(t)
}

func TestCodeThatSaysNothingUsable(t *testing.T) {
	for name, code := range map[string]string{
		"an end without a word": "import os\nprint('the last words', flush=True)\nos._exit(3)\n",
		"no description":        "DOCUMENT = [1]\n",
		"a flood":               "DOCUMENT = {'app': 'x' * (8 << 20)}\n",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Run(t.Context(), options(t, code))
			if err == nil {
				t.Fatal("no error")
			}
			if strings.Contains(code, "last words") {
				if !strings.Contains(err.Error(), "the last words") {
					t.Errorf("%q does not show what the code wrote", err)
				}
			} else if !errors.Is(err, version.ErrDescription) {
				t.Errorf("error is %v, want ErrDescription", err)
			}
			checkClean(t)
		})
	}
}

// onLine calls a function when something is written.
type onLine struct{ do func() }

func (o onLine) Write(p []byte) (int, error) {
	o.do()
	return len(p), nil
}

func TestCodeThatDoesNotEndIsEnded(t *testing.T) {
	const forever = `
import os, signal
for s in range(1, 32):
    try:
        signal.signal(s, signal.SIG_IGN)
    except OSError:
        pass
os.fork()
print("running", flush=True)
while True:
    signal.pause()
`
	o := options(t, forever)
	ctx, cancel := context.WithCancel(t.Context())
	o.Log = onLine{cancel}
	if _, err := Run(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	checkClean(t)

	o.Log, o.Timeout = nil, time.Nanosecond
	if _, err := Run(t.Context(), o); !errors.Is(err, ErrTimeout) {
		t.Errorf("error is %v, want ErrTimeout", err)
	}
	checkClean(t)
}

func TestARootWithoutPythonIsNamed(t *testing.T) {
	o := options(t, document)
	o.Lowers = []string{t.TempDir()}
	_, err := Run(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "no python3 in the root") {
		t.Errorf("error is %v", err)
	}
	checkClean(t)
}

func TestFoldersOfARootLieAboveEachOther(t *testing.T) {
	o := options(t, "print(open('/etc/above').read(), end='')\n"+document)
	upper := filepath.Join(t.TempDir(), "a:b,c\\d") // names at which the kernel splits its options
	if err := os.MkdirAll(filepath.Join(upper, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(upper, "etc/above"), []byte("seen"), 0o600); err != nil {
		t.Fatal(err)
	}
	o.Lowers = append([]string{upper}, o.Lowers...)
	var log bytes.Buffer
	o.Log = &log
	if _, err := Run(t.Context(), o); err != nil || log.String() != "seen" {
		t.Errorf("%q, %v", log.String(), err)
	}
}

func TestWhatIsNotThereIsFoundBeforehand(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"no file":                func(o *Options) { o.File += "x" },
		"a folder":               func(o *Options) { o.File = filepath.Dir(o.File) },
		"a root that is nowhere": func(o *Options) { o.Lowers = []string{"root"} },
	} {
		o := options(t, document)
		change(&o)
		if _, err := Run(t.Context(), o); err == nil {
			t.Errorf("%s: no error", name)
		}
		checkClean(t)
	}
}
