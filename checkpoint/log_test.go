package checkpoint

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestErrorsOfCRIUsLog(t *testing.T) {
	tests := []struct {
		name, log string
		want      []string
	}{
		{"the last errors are returned, in order",
			"(00.1) Error (a.c:1): one\n(00.2) fine\n(00.3) Error (a.c:2): two\n(00.4) Error (a.c:3): three\n",
			[]string{"(00.3) Error (a.c:2): two", "(00.4) Error (a.c:3): three"}},
		{"a log without errors gives its last lines", "one\ntwo\nthree", []string{"two", "three"}},
		{"an empty log gives nothing", "", nil},
		{"an error before a long tail is not searched for",
			"(00.1) Error (a.c:1): old\n" + strings.Repeat("(00.2) fine\n", maxLogTail/12+1), []string{"(00.2) fine", "(00.2) fine"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := criuErrors(writeFile(t, "restore.log", test.log), 2)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("lines (-want +got):\n%s", diff)
			}
		})
	}
}

func TestErrorsOfRuncsLogLeaveOutWhatIsNoError(t *testing.T) {
	path := writeFile(t, "runc.log", `{"level":"warning","msg":"careful"}
not json
{"level":"error","msg":"criu failed: type RESTORE errno 0\nlog file: /w/restore.log"}
`)
	want := []string{"criu failed: type RESTORE errno 0\nlog file: /w/restore.log"}
	if diff := cmp.Diff(want, runcErrors(path)); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
	if got := runcErrors(path + ".missing"); got != nil {
		t.Errorf("a log that is not there gave %q", got)
	}
}

func TestFailureNamesToolLogAndWords(t *testing.T) {
	exit := &exec.ExitError{}
	r := run{op: "runc restore", criuLog: writeFile(t, "restore.log", "(00.1) Error (x.c:1): no such page\n")}
	err := r.failure(exit, "said on stderr\n")
	want := "runc restore: <nil>: (00.1) Error (x.c:1): no such page; said on stderr (log: " + r.criuLog + ")"
	if got := err.Error(); got != want {
		t.Errorf("error is\n%s\nwant\n%s", got, want)
	}
	if !errors.Is(err, exit) {
		t.Error("the error does not unwrap to how the tool ended")
	}
}
