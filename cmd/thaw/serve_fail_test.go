package main

import (
	"strings"
	"testing"

	"thaw/cmd/internal/cli"
	"thaw/function"
	"thaw/function/registry"
)

// expectAuthors fails the test unless what was said is a traceback with the author's frames alone, ending with the message.
func expectAuthors(t *testing.T, said string, want ...string) {
	t.Helper()
	for _, w := range append(want, "Traceback (most recent call last):", `File "/app/app.py", line `) {
		if !strings.Contains(said, w) {
			t.Errorf("%q is not in what was said:\n%s", w, said)
		}
	}
	for _, ours := range []string{"/.thaw/python", "thaw/life.py", "thaw/serve.py", "runner.py"} {
		if strings.Contains(said, ours) {
			t.Errorf("%q is in what was said:\n%s", ours, said)
		}
	}
}

func TestMistakesOfAuthorsAndCallersAreTold(t *testing.T) {
	f := newServed(t)
	f.serveFunctions(t, "--freeze-after=-1", "--max-instances=8")
	f.deploy(t, "fail")
	with := []string{"--parameters", `{"size": 1}`}
	call := func(target, args string, flags ...string) result {
		return f.thaw(t, append([]string{"call", f.target(target), args}, flags...)...)
	}
	for _, tt := range []struct {
		name, target, args string
		flags              []string
		code               cli.Code
		want               []string
		traceback          bool
	}{
		{"an exception", "fail/Mistakes.raises", "[2]", with, cli.Failure, []string{"in raises", "KeyError: 'no such thing'"}, true},
		{"a result that is no JSON", "fail/Mistakes.unserialisable", "[]", with, cli.Failure, []string{"object", "inside"}, false},
		{"sys.exit", "fail/Mistakes.exits", "[]", with, cli.Failure, []string{"SystemExit: 3"}, true},
		{"too few arguments", "fail/Mistakes.add", "[]", with, cli.Usage, []string{"add(a: int, b: int = 1)", "'a'"}, false},
		{"too many arguments", "fail/Mistakes.add", "[1, 2, 3]", with, cli.Usage, []string{"too many"}, false},
		{"an argument that is none", "fail/Mistakes.add", `{"a": 1, "c": 2}`, with, cli.Usage, []string{"'c'"}, false},
		{"arguments that are no JSON", "fail/Mistakes.add", "[1", with, cli.Usage, []string{"not JSON"}, false},
		{"arguments that are a number", "fail/Mistakes.add", "1", with, cli.Usage, []string{"neither a JSON object"}, false},
		{"a parameter that is missing", "fail/Mistakes.add", "[1]", nil, cli.Usage, []string{`needs the parameter "size"`}, false},
		{"a parameter that is none", "fail/Mistakes.add", "[1]", []string{"--parameters", `{"size": 1, "other": 2}`}, cli.Usage, []string{`no parameter "other"`}, false},
		{"parameters that are no object", "fail/Mistakes.add", "[1]", []string{"--parameters", `[1]`}, cli.Usage, []string{"JSON object"}, false},
		{"a parameter of another type", "fail/Mistakes.add", "[1]", []string{"--parameters", `{"size": "x"}`}, cli.Failure, []string{"size"}, false},
		{"a method that is not marked", "fail/Mistakes.unmarked", "[]", with, cli.NotFound, []string{"unmarked"}, false},
		{"a method that is none", "fail/Mistakes.none", "[]", with, cli.NotFound, []string{"none"}, false},
		{"an endpoint that is called", "fail/Mistakes.page", "[]", with, cli.NotFound, []string{"page"}, false},
		{"an object that is none", "fail/None.add", "[]", nil, cli.NotFound, []string{"None"}, false},
		{"an app that is none", "none/None.add", "[]", nil, cli.NotFound, []string{f.app("none")}, false},
		{"a class without a method", "fail/Mistakes", "[]", with, cli.NotFound, []string{"Mistakes"}, false},
		{"__init__ raises", "fail/InInit.work", "[]", nil, cli.Failure, []string{"in __init__", "ValueError: in init"}, true},
		{"enter(snap=True) raises", "fail/InSnap.work", "[]", nil, cli.Failure, []string{"in load", "in deeper", "ValueError: in enter(snap=True)"}, true},
		{"enter raises", "fail/InEnter.work", "[]", nil, cli.Failure, []string{"in setup", "ValueError: in enter"}, true},
	} {
		r := call(tt.target, tt.args, tt.flags...)
		if r.code != int(tt.code) || r.stdout != "" {
			t.Errorf("%s: exit code %d, want %d, printed %q", tt.name, r.code, tt.code, r.stdout)
		}
		for _, w := range tt.want {
			if !strings.Contains(r.stderr, w) {
				t.Errorf("%s: %q is not in\n%s", tt.name, w, r.stderr)
			}
		}
		if tt.traceback {
			expectAuthors(t, r.stderr)
		} else if strings.Contains(r.stderr, "Traceback") {
			t.Errorf("%s: a traceback, though no code of the author's has failed\n%s", tt.name, r.stderr)
		}
	}
	if r := f.must(t, nil, append([]string{"call", f.target("fail/Mistakes.add"), "[1]"}, with...)...); r.stdout != "3\n" {
		t.Errorf("behind all that, the instance answers %q", r.stdout)
	}

	t.Run("an instance that ends itself, or takes too much memory, fails its call alone", func(t *testing.T) {
		for method, want := range map[string]string{"dies": "the process has ended", "eats": "out of memory (limit: 64 MiB)"} {
			r := call("fail/Mistakes."+method, "[]", with...)
			if r.code != int(cli.Failure) || !strings.Contains(r.stderr, want) {
				t.Errorf("%s: exit code %d: %s", method, r.code, r.stderr)
			}
			if r := f.must(t, nil, append([]string{"call", f.target("fail/Mistakes.add"), "[1]"}, with...)...); r.stdout != "3\n" {
				t.Errorf("the call behind it was answered %q", r.stdout)
			}
		}
	})
	t.Run("an exit hook that raises is in the log", func(t *testing.T) {
		f.must(t, nil, "call", f.target("fail/InExit.work"))
		// Another version ends the instances of the one before.
		f.edit(t, "fail", "app.py", "import thaw\n", "import thaw  # again\n")
		f.deploy(t, "fail")
		f.must(t, nil, append([]string{"call", f.target("fail/Mistakes.add"), "[1]"}, with...)...)
		f.awaitLog(t, "fail/InExit", "ValueError: in exit")
	})
	t.Run("what cannot be frozen is named, and the function goes on without a snapshot", func(t *testing.T) {
		for object, want := range map[string]string{"InBefore": "ValueError: in before_snapshot", "Connected": "connection: a TCP connection to 127.0.0.1"} {
			r := f.must(t, nil, "call", f.target("fail/"+object+".work"))
			if r.stdout != "\"done\"\n" {
				t.Errorf("%s: %q", object, r.stdout)
			}
			r = f.thaw(t, "freeze", f.target("fail/"+object))
			if r.code != int(cli.Failure) || !strings.Contains(r.stderr, want) {
				t.Errorf("freeze of %s: exit code %d, want %q:\n%s", object, r.code, want, r.stderr)
			}
			f.awaitLog(t, "fail/"+object, "no memory snapshot: ")
			f.awaitLog(t, "fail/"+object, want)
			f.must(t, nil, "call", f.target("fail/"+object+".work"))
		}
	})
}

// freezes returns how many have begun, by the log.
func (f *served) freezes(t *testing.T, target string) (n int) {
	t.Helper()
	for _, l := range f.logged(t, target) {
		if strings.Contains(l.Text, "creating memory snapshot") {
			n++
		}
	}
	return n
}

func TestAMissingFlagIsToldAtTheDeployment(t *testing.T) {
	f := newServed(t)
	f.file(t, "fail")
	f.edit(t, "fail", "app.py", "on = app.cls(enable_memory_snapshot=True)", "on = app.cls()")
	r := f.thaw(t, "deploy", f.file(t, "fail"))
	if r.code != int(cli.Failure) {
		t.Errorf("exit code %d", r.code)
	}
	expectAuthors(t, r.stderr, "InSnap.load is marked @thaw.enter(snap=True), but InSnap has no memory snapshot", "@app.cls(enable_memory_snapshot=True)")
	if r := f.must(t, nil, "functions"); !strings.Contains(r.stdout, "nothing is deployed") {
		t.Errorf("deployed all the same: %s", r.stdout)
	}
}

func TestARestoreThatFailsCostsAColdStart(t *testing.T) {
	f := newServed(t)
	s := f.serveFunctions(t, noIdle, "--freeze-after=2", "--failures=2")
	f.deploy(t, "fail")
	for object, why := range map[string]string{"Restored": "only when it is restored", "AfterRestore": "in after_restore"} {
		t.Run(object, func(t *testing.T) {
			work := func() {
				t.Helper()
				a := f.ask(t, "fail/"+object+".work")
				expectBoot(t, a, function.BootCold)
			}
			work()
			work()
			first := f.awaitSnapshot(t, "fail", object)
			work() // behind a restore that fails
			f.awaitLog(t, "fail/"+object, "restore from snapshot "+first.Name+" failed, the instance is started cold: ")
			f.awaitLog(t, "fail/"+object, why)
			if all := f.snapshots(t, "fail", object); len(all) != 1 || all[0].State != registry.StateGood || all[0].Failures != 1 || all[0].Name != first.Name {
				t.Errorf("after one failure functions shows %+v", all)
			}
			work()
			aside := f.snapshots(t, "fail", object)
			if len(aside) != 1 || aside[0].State != registry.StateSetAside || aside[0].Failures != 2 || !strings.Contains(aside[0].Reason, why) {
				t.Fatalf("after two failures functions shows %+v", aside)
			}
			if out := f.must(t, nil, "functions", f.app("fail")).stdout; !strings.Contains(out, "set aside: ") || !strings.Contains(out, why) {
				t.Errorf("functions shows\n%s", out)
			}
			f.awaitLog(t, "fail/"+object, "is set aside: 2 restores in a row have failed")
			if got := f.freezes(t, "fail/"+object); got != 1 {
				t.Errorf("%d freezes have begun before the snapshot was set aside, want 1", got)
			}
			// In time another one takes its place.
			work()
			until(t, "another snapshot is there", func() bool {
				all := f.snapshots(t, "fail", object)
				return len(all) == 1 && all[0].Name != first.Name && all[0].State == registry.StateGood
			})
			if r := f.thaw(t, "snapshot", "inspect", first.Name); r.code != int(cli.NotFound) {
				t.Errorf("the snapshot that was set aside: exit code %d, want that it is gone: %s", r.code, r.stdout)
			}
		})
	}
	if got := strings.Count(s.log.String(), "restore failed, starting cold"); got != 4 {
		t.Errorf("%d restores have failed, want 4:\n%s", got, s.log.String())
	}
}
