package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"thaw/bench/result"
	"thaw/cmd/internal/cli"
	"thaw/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// bench runs the program and returns what it wrote.
func bench(ctx context.Context, args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = run(ctx, args, &out, &err)
	return code, out.String(), err.String()
}

func TestWrongCommandLinesAreUsageErrors(t *testing.T) {
	for _, args := range [][]string{
		{"run", "nosuch"}, {"run", "--reps", "0"}, {"run", "--filter", "("}, {"run", "--nosuch"}, {"compare", "one.json"}, {"report"}, {"nosuch"},
		{"fleet", "--nodes", "0"}, {"fleet", "--nodes", "10,"}, {"fleet", "--scenario", "nosuch"}, {"fleet", "--scenario", ""}, {"fleet", "x"},
	} {
		if code, out, stderr := bench(t.Context(), args...); code != int(cli.Usage) || out != "" || !strings.Contains(stderr, "uffdbench: ") {
			t.Errorf("%q: exit code %d, output %q, error %q", args, code, out, stderr)
		}
	}
}

func TestListNamesEveryScenario(t *testing.T) {
	code, out, _ := bench(t.Context(), "list")
	for _, s := range scenarios() {
		if !strings.Contains(out, s.Name+" ") {
			t.Errorf("scenario %s is not listed", s.Name)
		}
	}
	if code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestQuickRunWritesAllFormats(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedUserfaultfd(t)
	testenv.NeedCC(t)
	dir := t.TempDir()
	json, html := filepath.Join(dir, "run.json"), filepath.Join(dir, "run.html")
	profile := filepath.Join(dir, "cpu")
	code, out, stderr := bench(t.Context(), "run", "fault", "--quick", "--filter", "threads=1/(thaw|c-poll)$", "--json", json, "--html", html, "--cpuprofile", profile)
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	for _, want := range []string{"BenchmarkFault/layout=scattered/threads=1/subject=thaw 1 ", "subject=c-poll 1 ", "latency-p99-ns", "goarch: "} {
		if !strings.Contains(out, want) {
			t.Errorf("the output lacks %q:\n%s", want, out)
		}
	}
	if page, err := os.ReadFile(html); err != nil || !bytes.Contains(page, []byte("</html>")) {
		t.Errorf("the page is not whole: %v", err)
	}
	if info, err := os.Stat(profile); err != nil || info.Size() == 0 {
		t.Errorf("there is no profile: %v", err)
	}
	f, err := os.Open(json)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, err := result.ReadJSON(f)
	if err != nil {
		t.Fatal(err)
	}
	if d.Host.Kernel == "" || d.Host.CPU == "" || d.Host.Commit == "" {
		t.Errorf("the host is told as %+v", d.Host)
	}

	code, out, stderr = bench(t.Context(), "compare", json, json, "--all")
	if code != 0 || !strings.Contains(out, "0 of ") {
		t.Errorf("compare with itself: exit code %d, %q, %q", code, out, stderr)
	}
	if code, _, stderr = bench(t.Context(), "report", json, "--html", html); code != 0 {
		t.Errorf("report: exit code %d, %q", code, stderr)
	}
}

func TestJSONOnStandardOutputIsAllThatIsThere(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedUserfaultfd(t)
	testenv.NeedCC(t)
	code, out, stderr := bench(t.Context(), "run", "zero", "--quick", "--filter", "gap=small.*read/kernel", "--json", "-")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	if _, err := result.ReadJSON(strings.NewReader(out)); err != nil {
		t.Errorf("%v: %.200s", err, out)
	}
}

func TestFilesThatAreNoResultsAreNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.json")
	if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := bench(t.Context(), "compare", path, path); code != int(cli.Corrupt) || !strings.Contains(stderr, path) {
		t.Errorf("exit code %d, %q", code, stderr)
	}
	if code, _, _ := bench(t.Context(), "compare", path, path+".none"); code == 0 {
		t.Error("a file that does not exist is compared")
	}
}

func TestFilterThatMatchesNothingIsAUsageError(t *testing.T) {
	testenv.NeedRoot(t)
	if code, _, stderr := bench(t.Context(), "run", "zero", "--quick", "--filter", "nosuch"); code != int(cli.Usage) || !strings.Contains(stderr, "nosuch") {
		t.Errorf("exit code %d, %q", code, stderr)
	}
}

func TestFleetWritesAllFormatsAndTheSameTwice(t *testing.T) {
	dir := t.TempDir()
	json, html := filepath.Join(dir, "fleet.json"), filepath.Join(dir, "fleet.html")
	args := []string{"fleet", "--nodes", "3,10", "--scenario", "burst,zone", "--html", html, "--json"}
	code, out, stderr := bench(t.Context(), append(args, json)...)
	if code != 0 || !strings.Contains(out, "inputs were measured") || !strings.Contains(stderr, "zone, 10 nodes, with peers: done") {
		t.Fatalf("exit code %d, %q, %q", code, out, stderr)
	}
	if page, err := os.ReadFile(html); err != nil || !bytes.Contains(page, []byte("</html>")) {
		t.Errorf("the page is not whole: %v", err)
	}
	first, err := os.ReadFile(json)
	if err != nil {
		t.Fatal(err)
	}
	if code, out, _ = bench(t.Context(), append(args, "-")...); code != 0 || out != string(first) {
		t.Errorf("exit code %d; on standard output is another report than in the file", code)
	}
}

func TestFleetTakesInputsFromAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "inputs.json")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"format":"thaw-fleet-inputs","version":1,"load":{"seconds":{"value":30,"basis":"assumed","from":"a short test"}}}`)
	code, out, stderr := bench(t.Context(), "fleet", "--nodes", "3", "--scenario", "poisson", "--inputs", path, "--json", "-", "-q")
	if code != 0 || !strings.Contains(out, "a short test") || stderr != "" {
		t.Errorf("exit code %d, %q", code, stderr)
	}
	write(`{"format":"x"}`)
	if code, _, stderr = bench(t.Context(), "fleet", "--inputs", path); code != int(cli.Corrupt) || !strings.Contains(stderr, path) {
		t.Errorf("exit code %d, %q", code, stderr)
	}
}
