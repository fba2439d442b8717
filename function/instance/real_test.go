package instance

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"thaw/function/runner"
	"thaw/internal/testenv"
	"thaw/pagestore"
)

// realSDK has the containers see the real runner in the place of the tests' own.
func realSDK(t testing.TB) func(*HostOptions) {
	return func(o *HostOptions) { o.SDK = filepath.Join(testenv.RepoRoot(t), "python") }
}

// freezeReal makes a snapshot of the function in real.py.
func (f *fixture) freezeReal(t *testing.T, spec Spec, name, parameters string) *runner.Prepared {
	t.Helper()
	i := f.start(t, spec)
	if _, err := i.Load(t.Context(), LoadOptions{File: "real.py", Object: "Real", Parameters: json.RawMessage(parameters)}); err != nil {
		t.Fatal(err)
	}
	p, err := i.Prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := i.Freeze(t.Context(), FreezeOptions{Name: name}); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestTheRealRunnerIsFrozenAndRestored(t *testing.T) {
	f := newFixture(t, realSDK(t))
	spec := f.spec(t)
	if p := f.freezeReal(t, spec, "real", "null"); len(p.Problems) > 0 {
		t.Errorf("problems before the freeze: %+v", p.Problems)
	}
	var draws []float64
	for range 2 {
		i := f.restore(t, spec, "real")
		boot(t, i)
		told := call[[]any](t, i, "tell")
		if diff := cmp.Diff([]any{"snap", "no network", "setup"}, told[0]); diff != "" {
			t.Errorf("order of events (-want +got):\n%s", diff)
		}
		if told[2] != i.ID() || told[1] == told[2] {
			t.Errorf("host name is %v, was %v, want %s", told[2], told[1], i.ID())
		}
		draws = append(draws, call[float64](t, i, "draw"))
		var failed *runner.CallError
		if _, err := i.Call(t.Context(), &runner.Call{Method: "boom"}); !errors.As(err, &failed) || !strings.Contains(failed.Traceback, "in boom") {
			t.Errorf("a call that raises: %v, %+v", err, failed)
		}
		if _, err := i.Call(t.Context(), &runner.Call{Method: "none"}); !errors.As(err, &failed) || failed.Kind != "method" {
			t.Errorf("a call of a method that is not there: %v, %+v", err, failed)
		}
		response, err := i.HTTP(t.Context(), "page", &runner.Request{Method: "GET", Path: "/"})
		if err != nil || response.Status != 200 || string(response.Body) != "page" {
			t.Errorf("response is %+v, %v", response, err)
		}
		if err := i.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		if !slices.Contains(i.Log(), "left") {
			t.Errorf("the log ends with %q, want that the exit hook has run", i.Log())
		}
	}
	if draws[0] == draws[1] {
		t.Errorf("two restores draw the same number %v", draws[0])
	}
}

func TestARestoreWhoseHookFailsSaysSo(t *testing.T) {
	f := newFixture(t, realSDK(t))
	spec := f.spec(t)
	f.freezeReal(t, spec, "real", `{"fail": true}`)
	i := f.restore(t, spec, "real")
	_, err := i.Boot(t.Context(), BootOptions{})
	var failed *runner.FailedError
	if !errors.As(err, &failed) || failed.Stage != runner.StageEnter || failed.Type != "RuntimeError" {
		t.Errorf("boot: %v, want that %s failed", err, runner.StageEnter)
	}
	// The same, started cold, does well.
	cold := f.start(t, spec)
	if _, err := cold.Load(t.Context(), LoadOptions{File: "real.py", Object: "Real", Parameters: json.RawMessage(`{"fail": true}`)}); err != nil {
		t.Fatal(err)
	}
	boot(t, cold)
}

func TestATemplatesInstanceIsUnlikeTheTemplate(t *testing.T) {
	f := newFixture(t, realSDK(t))
	spec := f.spec(t)
	spec.Env = map[string]string{"LEVEL": "template"}
	template := f.start(t, spec)
	if _, err := template.Import(t.Context(), []string{"random", "decimal"}); err != nil {
		t.Fatal(err)
	}
	if _, err := template.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := template.Freeze(t.Context(), FreezeOptions{Name: "template"}); err != nil {
		t.Fatal(err)
	}
	// Never frozen again: it loads, and serves.
	var told []string
	for range 2 {
		i := f.restore(t, spec, "template")
		level := "function"
		o := LoadOptions{File: "real.py", Object: "Real", Parameters: json.RawMessage(`{"fail": true}`), Env: map[string]*string{"LEVEL": &level}}
		if _, err := i.Load(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		boot(t, i) // which fails if it takes itself for a restored one
		told = append(told, fmt.Sprint(call[float64](t, i, "draw")))
		if _, err := i.Freeze(t.Context(), FreezeOptions{Name: "late"}); !errors.Is(err, ErrState) {
			t.Errorf("freeze of one that serves: %v, want %v", err, ErrState)
		}
	}
	if told[0] == told[1] {
		t.Errorf("two instances of a template draw the same number %v", told[0])
	}
}

func TestManyInstancesComeAndGoAtTheSameTime(t *testing.T) {
	f := newFixture(t, realSDK(t))
	spec := f.spec(t)
	f.freezeReal(t, spec, "real", "null")
	var g errgroup.Group
	for range 16 {
		g.Go(func() error {
			i, err := f.Restore(t.Context(), spec, pagestore.Name{Namespace: pagestore.DefaultNamespace, Snapshot: "real"})
			if err != nil {
				return err
			}
			_, err = i.Boot(t.Context(), BootOptions{})
			if err == nil {
				_, err = i.Call(t.Context(), &runner.Call{Method: "tell"})
			}
			if err == nil {
				err = i.Stop(t.Context())
			}
			return errors.Join(err, i.Close())
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}
