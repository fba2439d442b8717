package instance

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"thaw/function/runner"
	"thaw/internal/testenv"
	"thaw/pagestore"
	"thaw/snapshot"
)

func TestFigures(t *testing.T) {
	if os.Getenv("FIGURES") == "" {
		t.Skip()
	}
	f := newFixture(t, realSDK(t))
	spec := f.spec(t)
	spec.Code = filepath.Join(testenv.RepoRoot(t), "examples/embedder")
	file, object, method, args := "app.py", "Embedder", "embed", `[["a sentence to embed"]]`
	if os.Getenv("FIGURES") == "small" {
		spec.Code, file, object, method, args = f.spec(t).Code, "small.py", "Small", "count", "[]"
	}
	begin := time.Now()
	i := f.start(t, spec)
	if _, err := i.Load(t.Context(), LoadOptions{File: file, Object: object}); err != nil {
		t.Fatal(err)
	}
	p, err := i.Prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("cold to prepared %v; %+v\n", time.Since(begin), p)
	r, err := i.Freeze(t.Context(), FreezeOptions{Name: "fig"})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("freeze: stopped %v writing %v ratio %.2f dump %v total %v; pages %d new %d\n", r.Stopped, r.Writing, float64(r.Stopped)/float64(r.Writing), r.Dump, r.Total, r.Import.Pages, r.Import.NewPages)
	i.Close()
	name := pagestore.Name{Namespace: "default", Snapshot: "fig"}
	for range 8 {
		// bare
		spec2 := spec
		spec2.Namespace = "default"
		layers, err := spec2.layers(f.Host, name)
		if err != nil {
			t.Fatal(err)
		}
		s, err := f.newShell(&spec2, layers)
		if err != nil {
			t.Fatal(err)
		}
		b0 := time.Now()
		pend, err := snapshot.Begin(t.Context(), f.thawd, f.sessionRequest(name))
		if err != nil {
			t.Fatal(err)
		}
		b1 := time.Now()
		th, err := pend.Restore(t.Context(), f.tools, &snapshot.ContainerOptions{ID: s.id, Bundle: s.bundleDir(), Stdio: s.theirs})
		if err != nil {
			t.Fatal(err)
		}
		bare := time.Since(b1)
		bi := &Instance{shell: s, container: th.Container, state: StatePrepared}
		s.handedOver()
		bi.Close()

		if c := os.Getenv("CPUS"); c != "" {
			fmt.Sscan(c, &spec.Limits.CPUs)
		}
		t0 := time.Now()
		i, err := f.Restore(t.Context(), spec, name)
		if err != nil {
			t.Fatal(err)
		}
		t1 := time.Now()
		ready, err := i.Boot(t.Context(), BootOptions{})
		if err != nil {
			t.Fatal(err, i.Log())
		}
		t2 := time.Now()
		res, err := i.Call(t.Context(), &runner.Call{Method: method, Args: json.RawMessage(args)})
		if err != nil {
			t.Fatal(err)
		}
		t3 := time.Now()
		var w time.Duration
		for k := range 5 {
			w0 := time.Now()
			if _, err := i.Call(t.Context(), &runner.Call{Method: method, Args: json.RawMessage(args)}); err != nil {
				t.Fatal(err)
			}
			if k == 0 || time.Since(w0) < w {
				w = time.Since(w0)
			}
		}
		total := t3.Sub(t0)
		fmt.Printf("bare %v (session %v) | restore %v %+v boot %v %+v call %v (%.4f) W %v | total-W %v ratio %.2f\n", bare, b1.Sub(b0), t1.Sub(t0), i.Timings(), t2.Sub(t1), *ready, t3.Sub(t2), res.Seconds, w, total-w, float64(total-w)/float64(bare))
		c0 := time.Now()
		i.Close()
		fmt.Printf("   close %v\n", time.Since(c0))
	}
}
