package lab

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"thaw/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

func TestAnswersAreComparedToTheLastBit(t *testing.T) {
	parse := func(row string) *answer {
		a, err := parseAnswer([]byte(`{"embeddings": ["` + row + `"], "sha256": "` + digest + `"}` + "\n"))
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	want := parse("abcd")
	if err := parse("abcd").compare(want); err != nil {
		t.Errorf("equal answers: %v", err)
	}
	for name, row := range map[string]string{
		"one bit":            "abce",
		"something missing":  "abc",
		"something too many": "abcde",
		"nothing":            "",
	} {
		if err := parse(row).compare(want); err == nil {
			t.Errorf("%s: not noticed", name)
		}
	}
	if err := newAnswer([]byte("<p>1</p>")).compare(newAnswer([]byte("<p>1</p>\n"))); err == nil || !strings.Contains(err.Error(), "byte 8") {
		t.Errorf("a line too many: %v, want the place", err)
	}
}

func TestLinesThatAreNoAnswerAreRefused(t *testing.T) {
	for name, line := range map[string]string{
		"an error":              `{"error": "ValueError: no", "sha256": "` + digest + `"}`,
		"no digest":             `{"embeddings": []}`,
		"half a digest":         `{"embeddings": [], "sha256": "` + digest[:32] + `"}`,
		"the greeting":          `{"ready": true}`,
		"no JSON":               `Traceback (most recent call last):`,
		"no hexadecimal digits": `{"sha256": "` + strings.Repeat("z", len(digest)) + `"}`,
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
	if _, _, err := c.first(t.Context()); err == nil || !strings.Contains(err.Error(), "ImportError") {
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
	n, err := ReadAll(t.Context(), dir, filepath.Join(dir, "none"))
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
		for _, input := range Inputs() {
			r := w.request(input)
			// The pipe takes a request of that length before anybody reads it.
			if body := r.body(); !json.Valid([]byte(body)) || strings.Contains(body, "\n") || len(body) >= 60<<10 {
				t.Errorf("workload %s: its request is no short line of JSON: %q", w.Name, body)
			}
		}
		if same, other := w.request(SameInput), w.request(OtherInput); same.body() == other.body() {
			t.Errorf("workload %s: both inputs are %q", w.Name, same.body())
		}
	}
	if _, err := FindWorkload("none"); err == nil {
		t.Error("a workload that is not there was found")
	}
}

func TestAMissingPartIsNamedWithTheWayToGetIt(t *testing.T) {
	dir := t.TempDir()
	for _, variable := range []string{"THAW_CRIU", "THAW_ROOTFS"} {
		t.Setenv(variable, "")
	}
	t.Setenv("THAW_DEPS", dir)
	_, err := FindParts("")
	if !errors.Is(err, ErrPartMissing) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "make deps") {
		t.Errorf("FindParts says %v", err)
	}
}

func TestTablesDifferInTheirOwnPartOnly(t *testing.T) {
	a, b := Table(64, 1), Table(64, 2)
	if slices.Equal(a.Args, b.Args) || a.Script != b.Script || !slices.Equal(a.Request.Sentences, b.Request.Sentences) {
		t.Errorf("tables are %+v and %+v", a, b)
	}
}

func TestTheSmallFormLeavesTheWorkloadAlone(t *testing.T) {
	w := medium
	w.Args = slices.Grow(slices.Clone(w.Args), 1)
	if s := w.Small(); len(s.Args) != len(w.Args)+1 || slices.Contains(w.Args[:cap(w.Args)], "--small") {
		t.Errorf("arguments are %q, and in its small form %q", w.Args[:cap(w.Args)], s.Args)
	}
}

// newLab makes a lab without our programs that is closed, and whose folder must be empty, at the end of the test.
func newLab(t *testing.T) *Lab {
	t.Helper()
	return newLabWith(t, Parts{})
}

// newLabWith makes such a lab with our programs.
func newLabWith(t *testing.T, parts Parts) *Lab {
	t.Helper()
	testenv.NeedRoot(t)
	testenv.NeedUserfaultfd(t)
	if testing.Short() {
		t.Skip("starts containers many times, which takes a minute: run without -short")
	}
	parts.Examples = filepath.Join(testenv.RepoRoot(t), "examples")
	parts.Rootfs, parts.CRIU, parts.Runc = testenv.Rootfs(t), testenv.CRIU(t), testenv.Runc(t)
	dir, err := os.MkdirTemp("", "thaw-lab")
	if err != nil {
		t.Fatal(err)
	}
	l, err := New(t.Context(), Config{Parts: parts, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Not os.RemoveAll: Close removes what may have mounts below it, and Remove fails if something is left.
		if err := errors.Join(l.Close(), os.Remove(dir)); err != nil {
			t.Error(err)
		}
	})
	return l
}

// freeze freezes a workload and prepares the modes that need no program of ours.
func freeze(t *testing.T, l *Lab, workload string) *Frozen {
	t.Helper()
	w, err := FindWorkload(workload)
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.Freeze(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Prepare(t.Context(), Cold, CRIUEager, CRIULazy); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFrozenContainerGivesTheSameAnswerInAllModes(t *testing.T) {
	l := newLab(t)
	for _, workload := range []string{"small", "medium", "minilm"} {
		f := freeze(t, l, workload)
		if err := l.CountFaults(t.Context(), f, SameInput); err != nil {
			t.Fatal(err)
		}
		for _, mode := range []Mode{Cold, CRIUEager, CRIULazy} {
			for _, cache := range Caches() {
				r, err := l.Measure(t.Context(), f, SameInput, mode, cache)
				if err != nil {
					t.Fatalf("%s, %s, %s cache: %v", workload, mode, cache, err)
				}
				if r.Answer != f.want[SameInput].SHA256 || *r.ToFirstResponse < r.ToRunning || *r.WarmCall <= 0 {
					t.Errorf("%s: run is %+v", workload, r)
				}
				if mode == CRIULazy && (r.FaultsServed == nil || *r.FaultsServed == 0) {
					t.Errorf("%s: a lazy restore served %v faults", workload, r.FaultsServed)
				}
			}
		}
	}
}

func TestContainersOfABurstAllAnswer(t *testing.T) {
	l := newLab(t)
	f := freeze(t, l, "small")
	for _, mode := range []Mode{CRIUEager, CRIULazy} {
		b, err := l.Burst(t.Context(), []*Frozen{f, f, f}, mode, Dropped)
		if err != nil {
			t.Fatalf("%s: %v", mode, err)
		}
		for i, first := range b.ToFirstResponse {
			if first < b.ToRunning[i] || first > b.ToComplete {
				t.Errorf("%s: burst is %+v", mode, b)
			}
		}
		if len(b.ToFirstResponse) != 3 || b.BytesRead < b.BytesToResponse || b.BytesToResponse == 0 {
			t.Errorf("%s: burst is %+v", mode, b)
		}
	}
}

func TestABurstThatFailsLeavesNothingAndSaysWhich(t *testing.T) {
	l := newLab(t)
	f := freeze(t, l, "small")
	broken := *f
	broken.images = filepath.Join(l.work, "none")
	_, err := l.Burst(t.Context(), []*Frozen{f, &broken, f}, CRIUEager, Warm)
	if err == nil || !strings.Contains(err.Error(), " of 3: ") {
		t.Errorf("Burst says %v", err)
	}
	ids, err := l.tools.Containers()
	if err != nil || len(ids) > 0 {
		t.Errorf("containers are left: %q, %v", ids, err)
	}
	left, err := os.ReadDir(filepath.Join(l.work, "trials"))
	if err != nil || len(left) > 0 {
		t.Errorf("folders are left: %v, %v", left, err)
	}
}
