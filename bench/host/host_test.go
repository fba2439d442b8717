package host

import (
	"os"
	"path/filepath"
	"testing"
)

func TestFieldsAreFoundInBothNotations(t *testing.T) {
	path := filepath.Join(t.TempDir(), "info")
	if err := os.WriteFile(path, []byte("processor : 0\nmodel name\t: A CPU: fast\nNAME=\"x\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"model name": "A CPU: fast", "NAME": `"x"`, "missing": ""} {
		if got := field(path, key); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	if got := field(path+"-none", "NAME"); got != "" {
		t.Errorf("a file that does not exist says %q", got)
	}
}

func TestShareIsWhatWasNotIdle(t *testing.T) {
	before, err := parseCPUTimes([]byte("cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 2 3\n"))
	if err != nil {
		t.Fatal(err)
	}
	after, err := parseCPUTimes([]byte("cpu  150 0 150 1000 100 0 0 0 50 0\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := share(before, after); got != 0.25 {
		t.Errorf("busy for %v of the time, want 0.25", got)
	}
	if got := share(before, before); got != 0 {
		t.Errorf("busy for %v of no time", got)
	}
	for _, bad := range []string{"", "cpu 1 2\n", "cpu a b c d e f g h\n", "intr 1 2 3 4 5 6 7 8 9\n"} {
		if _, err := parseCPUTimes([]byte(bad)); err == nil {
			t.Errorf("%q is understood", bad)
		}
	}
}
