package cpu

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"thaw/internal/testenv"
)

// report prints what the libraries of a Python believe of their CPU.
const report = `
import json, torch, threadpoolctl
from numpy._core._multiarray_umath import __cpu_features__ as features, __cpu_dispatch__ as dispatch
with torch.no_grad():
    torch.nn.Conv2d(16, 32, 3)(torch.zeros(8, 16, 32, 32))  # oneDNN says its choice with the first of its primitives
print("report", json.dumps({
    "numpy": [name for name in dispatch if features[name]],  # what it has code for
    "torch": torch.backends.cpu.get_cpu_capability(),
    "openblas": [i["architecture"] for i in threadpoolctl.threadpool_info() if i["internal_api"] == "openblas"],
}))
`

// libraries is what a process says, in the root file system, with a mask.
type libraries struct {
	Numpy    []string
	Torch    string
	OpenBLAS []string
	onednn   string
	glibc    string    // folders of glibc-hwcaps that the loader looks in
	openssl  [2]uint64 // what OpenSSL believes it has
}

// ask runs the libraries in the root file system with the environment.
func ask(t *testing.T, environment map[string]string) libraries {
	t.Helper()
	var l libraries
	for line := range strings.Lines(inRoot(t, environment, "python3", "-c", report)) {
		if text, ok := strings.CutPrefix(line, "report "); ok {
			if err := json.Unmarshal([]byte(text), &l); err != nil {
				t.Fatal(err)
			}
		}
		if _, isa, ok := strings.Cut(line, "info,cpu,isa:"); ok {
			l.onednn = strings.TrimSpace(isa)
		}
	}
	for line := range strings.Lines(inRoot(t, environment, "/lib64/ld-linux-x86-64.so.2", "--help")) {
		if strings.Contains(line, "(supported, searched)") {
			l.glibc += strings.Fields(line)[0] + " "
		}
	}
	said := strings.TrimPrefix(inRoot(t, environment, "openssl", "info", "-cpusettings"), "OPENSSL_ia32cap=")
	for i, word := range strings.SplitN(strings.Fields(said)[0], ":", 3)[:2] {
		var err error
		if l.openssl[i], err = strconv.ParseUint(word, 0, 64); err != nil {
			t.Fatalf("openssl says %q: %v", said, err)
		}
	}
	return l
}

// inRoot runs a program in the root file system, in a mount namespace of its own: PyTorch asks /proc for its CPU.
func inRoot(t *testing.T, environment map[string]string, command ...string) string {
	t.Helper()
	script := `mount -t proc proc /proc && mount -t tmpfs tmpfs /tmp && exec "$@"`
	cmd := exec.Command("/bin/sh", append([]string{"-c", script, "sh"}, command...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: testenv.Rootfs(t), Unshareflags: syscall.CLONE_NEWNS}
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=/tmp", "PYTHONDONTWRITEBYTECODE=1", "ONEDNN_VERBOSE=1"}
	for k, v := range environment {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %v\n%s%s", command, err, stdout.String(), stderr.String())
	}
	return stdout.String()
}

func TestLibrariesOfDebianKeepToAMask(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("needs an x86: masks are for its levels")
	}
	testenv.NeedRoot(t)
	testenv.NeedPython(t, "numpy", "torch")
	host, err := ThisHost()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(testenv.Rootfs(t) + "/usr/bin/openssl"); err != nil {
		t.Fatal(err)
	}
	unmasked := ask(t, nil)
	if len(unmasked.Numpy) == 0 {
		t.Fatalf("numpy does not say what it uses: %+v", unmasked)
	}
	for _, tt := range []struct {
		level, torch, openblas, onednn, glibc string
	}{
		{"x86-64-v2", "NO AVX", "Nehalem", "Intel SSE4.1", "x86-64-v2 "},
		{"x86-64-v3", "AVX2", "Haswell", "Intel AVX2", "x86-64-v3 x86-64-v2 "},
		{"x86-64-v4", "AVX512", "SkylakeX", "Intel AVX-512 with AVX512BW, AVX512VL, and AVX512DQ extensions", "x86-64-v4 x86-64-v3 x86-64-v2 "},
	} {
		t.Run(tt.level, func(t *testing.T) {
			set, _ := Level(tt.level)
			if err := host.Features.Admit(set); err != nil {
				t.Skipf("needs a CPU of level %s: %v", tt.level, err)
			}
			got := ask(t, set.Mask())
			if got.Torch != tt.torch || got.onednn != tt.onednn || got.glibc != tt.glibc {
				t.Errorf("torch %q, oneDNN %q, glibc %q; want %+v", got.Torch, got.onednn, got.glibc, tt)
			}
			if fmt.Sprint(got.OpenBLAS) != fmt.Sprint([]string{tt.openblas}) {
				t.Errorf("OpenBLAS takes the CPU for %v, want %s", got.OpenBLAS, tt.openblas)
			}
			on := New(got.Numpy...)
			for _, o := range numpyNames {
				if on.Has(o.value) && !set.HasAll(New(strings.Fields(o.needs)...)) {
					t.Errorf("numpy uses %s", o.value)
				}
			}
			for i, word := range opensslWords {
				for _, c := range word {
					has := got.openssl[i]&(1<<c.bit) != 0
					if want := set.Has(c.feature) && unmasked.openssl[i]&(1<<c.bit) != 0; has != want {
						t.Errorf("OpenSSL: %s is %t, want %t", c.feature, has, want)
					}
				}
			}
		})
	}
	// The control: without a mask at least one library goes beyond the lowest level, or the test looks at nothing.
	if unmasked.Torch == "NO AVX" && host.Features.Has("avx2") {
		t.Errorf("without a mask: %+v", unmasked)
	}
}
