package cprogram

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"thaw/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func TestProgramsAreBuiltOnceAndRun(t *testing.T) {
	testenv.NeedCC(t)
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	source := []byte(fmt.Sprintf("#include <stdio.h>\nint main(void) { return puts(\"%s\") < 0; }\n", t.Name()))
	first, err := Build("hello", source)
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(first)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Build("hello", source)
	if err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(again)
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("the second build made another file: %v", err)
	}
	if other, err := Build("hello", append(source, '\n')); err != nil || other == first {
		t.Errorf("another source is %s, %v", other, err)
	}
	out, err := exec.Command(first).Output()
	if err != nil || strings.TrimSpace(string(out)) != t.Name() {
		t.Errorf("the program says %q, %v", out, err)
	}
}

func TestSourceThatDoesNotCompileIsNamed(t *testing.T) {
	testenv.NeedCC(t)
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	_, err := Build("broken", []byte("int main(void) { return nonsense; }"))
	if err == nil || !strings.Contains(err.Error(), "broken") || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("Build says %v", err)
	}
}
