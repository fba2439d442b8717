package lab

import (
	"os/exec"
	"path/filepath"
	"testing"

	"thaw/internal/testenv"
)

// programs builds thaw and thawd.
func programs(t *testing.T) Parts {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", dir, "thaw/cmd/thaw", "thaw/cmd/thawd").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	return Parts{Thaw: filepath.Join(dir, "thaw"), Thawd: filepath.Join(dir, "thawd")}
}

func TestThawedFunctionsAnswerBothInputsAsBeforeTheFreeze(t *testing.T) {
	testenv.NeedPython(t, "torch", "pandas", "sklearn", "fastapi", "uvicorn", "PIL")
	l := newLabWith(t, programs(t))
	var frozen []*Frozen
	for _, w := range Functions() {
		f, err := l.Freeze(t.Context(), w.Small())
		if err != nil {
			t.Fatalf("%s: %v", w.Name, err)
		}
		if f.want[SameInput].SHA256 == f.want[OtherInput].SHA256 {
			t.Errorf("%s: both inputs have the same answer", w.Name)
		}
		frozen = append(frozen, f)
	}
	if err := l.Prepare(t.Context(), Thaw); err != nil {
		t.Fatal(err)
	}
	for _, f := range frozen {
		for _, input := range Inputs() {
			r, err := l.Measure(t.Context(), f, input, Thaw, Warm)
			if err != nil {
				t.Fatalf("%s, %s input: %v", f.Workload.Name, input, err)
			}
			if r.Answer != f.want[input].SHA256 || *r.ToFirstResponse < r.ToRunning || *r.WarmCall <= 0 {
				t.Errorf("%s: run is %+v", f.Workload.Name, r)
			}
		}
	}
}
