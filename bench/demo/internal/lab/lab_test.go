package lab

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"thaw/bench/demo/internal/report"
	"thaw/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// encode makes the line that a workload would answer with.
func encode(t *testing.T, rows ...string) []byte {
	t.Helper()
	sum := sha256.Sum256([]byte(strings.Join(rows, "")))
	var encoded []string
	for _, row := range rows {
		encoded = append(encoded, hex.EncodeToString([]byte(row)))
	}
	line, err := json.Marshal(answer{Embeddings: encoded, SHA256: hex.EncodeToString(sum[:])})
	if err != nil {
		t.Fatal(err)
	}
	return line
}

func TestAnswersAreComparedToTheLastBit(t *testing.T) {
	parse := func(rows ...string) *answer {
		a, err := parseAnswer(encode(t, rows...))
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	want := parse("abcd", "efgh")
	if err := parse("abcd", "efgh").compare(want); err != nil {
		t.Errorf("equal answers: %v", err)
	}
	for name, rows := range map[string][]string{
		"one bit":           {"abcd", "efgi"},
		"a row is missing":  {"abcd"},
		"one row too many":  {"abcd", "efgh", "ijkl"},
		"rows are reversed": {"efgh", "abcd"},
	} {
		if err := parse(rows...).compare(want); err == nil {
			t.Errorf("%s: not noticed", name)
		}
	}
}

func TestLinesThatAreNoAnswerAreRefused(t *testing.T) {
	for name, line := range map[string]string{
		"a digest of other bytes": strings.Replace(string(encode(t, "abcd")), `"sha256":"`, `"sha256":"00`, 1),
		"an error":                `{"error": "ValueError: no"}`,
		"no embeddings":           `{"embeddings": [], "sha256": ""}`,
		"the greeting":            `{"ready": true}`,
		"no JSON":                 `Traceback (most recent call last):`,
		"no hexadecimal digits":   `{"embeddings": ["zz"], "sha256": ""}`,
	} {
		if a, err := parseAnswer([]byte(line)); err == nil {
			t.Errorf("%s was taken as the answer %+v", name, a)
		}
	}
}

func TestConversationWithAContainerThatEndsTellsItsLastWords(t *testing.T) {
	c, err := newConversation()
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if _, err := c.theirs.Err.WriteString("ImportError: no such module\n"); err != nil {
		t.Fatal(err)
	}
	// The container's ends close with it.
	c.handedOver()
	if _, _, err := c.answer(t.Context()); err == nil || !strings.Contains(err.Error(), "ImportError") {
		t.Errorf("got %v, want the container's last words", err)
	}
}

func TestOwnCountersAreRead(t *testing.T) {
	f, err := processFaults(os.Getpid())
	if err != nil || f.minor == 0 {
		t.Errorf("faults are %+v, %v", f, err)
	}
	memory, err := anonymousMemory(os.Getpid())
	if err != nil || memory < 1<<20 {
		t.Errorf("memory is %d bytes, %v", memory, err)
	}
	if _, err := bytesRead(); err != nil {
		t.Error(err)
	}
}

func TestBusyIsThePartThatWasNotIdle(t *testing.T) {
	if got := busy(cpuTimes{idle: 100, total: 200}, cpuTimes{idle: 175, total: 300}); got != 0.25 {
		t.Errorf("75 idle ticks of 100 are %v busy", got)
	}
	if got := busy(cpuTimes{}, cpuTimes{}); got != 0 {
		t.Errorf("no time at all is %v busy", got)
	}
	got, err := measureBusy(t.Context(), time.Millisecond)
	if err != nil || got < 0 || got > 1 {
		t.Errorf("this machine is %v busy, %v", got, err)
	}
}

func TestAllFilesBelowAFolderAreReadAndFoldersThatAreNotThereAreFine(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "a"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]int{"x": 10, "a/y": 5000} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/proc/kmsg", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	n, err := readAll(t.Context(), dir, filepath.Join(dir, "none"))
	if err != nil || n != 5010 {
		t.Errorf("read %d bytes, %v; want 5010", n, err)
	}
}

func TestDiskUsageDoesNotCountHoles(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(1 << 30); err != nil {
		t.Fatal(err)
	}
	if n, err := diskUsage(dir); err != nil || n > 1<<20 {
		t.Errorf("a hole of 1 GiB takes %d bytes, %v", n, err)
	}
}

func TestWorkloadsAreThereWithTheirScripts(t *testing.T) {
	for _, w := range Workloads() {
		found, err := FindWorkload(w.Name)
		if err != nil || found.Title != w.Title {
			t.Errorf("workload %s: %+v, %v", w.Name, found, err)
		}
		if _, err := os.Stat(filepath.Join(testenv.RepoRoot(t), "examples", w.Script)); err != nil {
			t.Error(err)
		}
	}
	if _, err := FindWorkload("none"); err == nil {
		t.Error("a workload that is not there was found")
	}
}

// A whole demo, with one round, in the modes that need neither a terminal nor minutes.
func TestFrozenContainerGivesTheSameAnswerInAllModes(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedUserfaultfd(t)
	if testing.Short() {
		t.Skip("starts a container with torch several times, which takes a minute: run without -short")
	}
	w, err := FindWorkload("minilm")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "thaw-demo")
	if err != nil {
		t.Fatal(err)
	}
	// Not os.RemoveAll: Close removes what may have mounts below it, and Remove fails if something is left.
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	l, err := New(t.Context(), Config{
		Workload: w,
		Rounds:   1,
		Modes:    []report.Mode{report.CRIUEager, report.CRIULazy},
		Dir:      dir,
		Examples: filepath.Join(testenv.RepoRoot(t), "examples"),
		Rootfs:   testenv.Rootfs(t),
		CRIU:     testenv.CRIU(t),
		Runc:     testenv.Runc(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	r, err := l.Measure(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Runs) != 4 {
		t.Errorf("%d runs, want 4", len(r.Runs))
	}
	for _, run := range r.Runs {
		if run.Answer != l.want.SHA256 || run.ToFirstResponse == nil || *run.ToFirstResponse < run.ToRunning {
			t.Errorf("run is %+v", run)
		}
	}
}
