package doctor

import (
	"path/filepath"
	"testing"

	"thaw/checkpoint"
	"thaw/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func TestThisHostIsInspected(t *testing.T) {
	tools := checkpoint.Tools{CRIU: testenv.CRIU(t), Runc: testenv.Runc(t)}
	store := filepath.Join(t.TempDir(), "not", "there", "yet")
	h, err := Inspect(t.Context(), &Options{Tools: tools, StoreDir: store})
	if err != nil {
		t.Fatal(err)
	}
	if h.CRIU.Version == "" || h.Runc.Version == "" || h.Kernel == "" || h.Permissions.OpenFiles == 0 {
		t.Errorf("host is %+v", h)
	}
	if len(h.Disks) != 1 || h.Disks[0].Free == 0 || h.Disks[0].Err != "" {
		t.Errorf("disks are %+v", h.Disks)
	}
	testenv.NeedTracing(t)
	if h.Tracing.Err != "" || h.Tracing.Point == 0 {
		t.Errorf("tracing is %+v", h.Tracing)
	}
	r := Examine(h)
	for _, f := range r.Findings {
		t.Log(f)
		// A machine that CRIU and runc were found on can run the privileged tests, so nothing essential may be missing.
		if f.Status == Missing {
			t.Errorf("%s is missing on a machine that runs the tests", f.Check)
		}
	}
}

func TestHostWithoutToolsIsInspectedToo(t *testing.T) {
	tools := checkpoint.Tools{CRIU: filepath.Join(t.TempDir(), "criu"), Runc: filepath.Join(t.TempDir(), "runc")}
	h, err := Inspect(t.Context(), &Options{Tools: tools})
	if err != nil {
		t.Fatal(err)
	}
	if h.CRIU.Path != "" || h.CRIU.Err == "" || h.Runc.Path != "" {
		t.Errorf("tools are %+v and %+v, want none", h.CRIU, h.Runc)
	}
	r := Examine(h)
	if r.Status() != Missing {
		t.Errorf("status is %s", r.Status())
	}
}
