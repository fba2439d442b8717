package main

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"thaw/cmd/internal/cli"
	"thaw/function/gateway"
	"thaw/internal/testenv"
)

// tutorial is the text of docs/functions.md.
type tutorial string

func readTutorial(t *testing.T) tutorial {
	t.Helper()
	text, err := os.ReadFile("../../docs/functions.md")
	if err != nil {
		t.Fatal(err)
	}
	return tutorial(text)
}

// python returns a block of Python, the first being 0.
func (d tutorial) python(t *testing.T, n int) []byte {
	t.Helper()
	blocks := regexp.MustCompile("(?s)```python\n(.*?)```\n").FindAllStringSubmatch(string(d), -1)
	if len(blocks) <= n {
		t.Fatalf("there are %d blocks of Python", len(blocks))
	}
	return []byte(blocks[n][1])
}

// output returns what stands below each place where a command is shown, up to an empty line.
func (d tutorial) output(t *testing.T, command string) (outputs []string) {
	t.Helper()
	for _, below := range strings.Split(string(d), "\n    "+command+"\n")[1:] {
		var out strings.Builder
		for line := range strings.Lines(below) {
			line, ok := strings.CutPrefix(line, "    ")
			if !ok {
				break
			}
			out.WriteString(line)
		}
		outputs = append(outputs, out.String())
	}
	if len(outputs) == 0 {
		t.Fatalf("the command %q is not shown", command)
	}
	return outputs
}

var versionKeys = regexp.MustCompile(`\b[0-9a-f]{12}\b`)

// expectShown compares what was printed with what the tutorial shows. Keys of versions are others elsewhere.
func expectShown(t *testing.T, what, got, shown string) {
	t.Helper()
	got, shown = versionKeys.ReplaceAllString(got, "KEY"), versionKeys.ReplaceAllString(shown, "KEY")
	if diff := cmp.Diff(shown, got); diff != "" {
		t.Errorf("%s (-tutorial +printed):\n%s", what, diff)
	}
}

func TestTheTutorialRunsAsItIsWritten(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedPython(t)
	p := newPlace(t)
	p.useCRIU(t)
	d := readTutorial(t)
	file := filepath.Join(p.dir, "app.py")
	if err := os.WriteFile(file, d.python(t, 0), 0o644); err != nil {
		t.Fatal(err)
	}
	p.env = append(p.env,
		cli.EnvState+"="+filepath.Join(p.dir, "functions"), cli.EnvAPI+"="+filepath.Join(p.dir, "run", "functions.sock"),
		cli.EnvRoot+"="+testenv.Rootfs(t), cli.EnvRunc+"="+testenv.Runc(t), "XDG_CACHE_HOME="+filepath.Join(p.dir, "cache"))

	t.Run("without a server", func(t *testing.T) {
		r := p.must(t, nil, "run", file+"::Words.length", "--json-args", `{"word": "frozen"}`)
		expectShown(t, "thaw run", r.stderr+r.stdout, d.output(t, `thaw run app.py::Words.length --json-args '{"word": "frozen"}'`)[0])
		more := filepath.Join(p.dir, "greetings.py")
		if err := os.WriteFile(more, d.python(t, 1), 0o644); err != nil {
			t.Fatal(err)
		}
		if r := p.must(t, nil, "run", more+"::Greeter.greet", "--param", "language=de", "--json-args", `["you"]`); r.stdout != "\"hallo you\"\n" {
			t.Errorf("the second app returns %s", r.stdout)
		}
	})
	t.Run("with one, which waits for thawd", func(t *testing.T) {
		startTutorialServers(t, p)
		r := p.must(t, nil, "deploy", file)
		expectShown(t, "thaw deploy", r.stdout, d.output(t, "thaw deploy app.py")[0])
		calls := d.output(t, `thaw call words/Words.length '{"word": "frozen"}'`)
		for i, shown := range calls {
			r := p.must(t, nil, "call", "words/Words.length", `{"word": "frozen"}`)
			expectShown(t, "thaw call", r.stdout, shown)
			if i == 0 {
				p.must(t, nil, "freeze", "words/Words")
			}
		}
		if len(calls) < 2 {
			t.Error("the tutorial calls nothing that is restored")
		}
	})
}

// startTutorialServers starts thaw serve, and then thawd. Instances end when they have nothing to do, so that nobody has to wait for it.
func startTutorialServers(t *testing.T, p *place) {
	t.Helper()
	// In its folder, and so with paths from there.
	cmd := p.command("thaw", "serve", "--bridge=", "--idle=1ns", "--freeze-after=-1", "--api=run/functions.sock", "--state=functions")
	cmd.Dir = p.dir
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Of one that has ended as it should, this does nothing.
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	var said bytes.Buffer
	lines := bufio.NewScanner(log)
	waitFor := func(text string) {
		for lines.Scan() {
			said.WriteString(lines.Text() + "\n")
			if strings.Contains(lines.Text(), text) {
				return
			}
		}
		t.Errorf("the function server has not said %q:\n%s", text, said.String())
	}
	waitFor("waiting for thawd")
	thawd := p.serve(t)
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		waitFor("told to end")
		for lines.Scan() {
			said.WriteString(lines.Text() + "\n")
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("the function server: %v\n%s", err, said.String())
		}
		if code := thawd.end(t, syscall.SIGTERM); code != 0 {
			t.Errorf("thawd ended with exit code %d", code)
		}
	})
	waitFor("functions are served")
	client := gateway.NewClient(filepath.Join(p.dir, "run", "functions.sock"))
	defer client.Close()
	until(t, "the function server answers", func() bool {
		_, err := client.Health(t.Context())
		return err == nil
	})
}
