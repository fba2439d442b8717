package instance

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"thaw/function/runner"
	"thaw/internal/testenv"
	"thaw/pagestore"
	"thaw/snapshot"
)

// BenchmarkRestore takes the time from the demand for an instance of a snapshot until the first call is answered, less that of a warm call, and
// beside it that of the bare restore of the same snapshot into a shell that is there: until runc has restored the process. The quotient of the
// medians is reported as "bare".
func BenchmarkRestore(b *testing.B) {
	for _, bm := range []struct {
		name, code string
		load       LoadOptions
		call       runner.Call
	}{
		{"small", "function/instance/testdata/app", LoadOptions{File: "small.py", Object: "Small"}, runner.Call{Method: "count"}},
		{"embedder", "examples/embedder", LoadOptions{File: "app.py", Object: "Embedder"},
			runner.Call{Method: "embed", Args: json.RawMessage(`[["a sentence to embed"]]`)}},
	} {
		b.Run(bm.name, func(b *testing.B) {
			f := newFixture(b, realSDK(b))
			spec := f.spec(b)
			spec.Code = filepath.Join(testenv.RepoRoot(b), bm.code)
			begin := time.Now()
			i := f.start(b, spec)
			if _, err := i.Load(b.Context(), bm.load); err != nil {
				b.Fatal(err)
			}
			cold := time.Since(begin)
			if _, err := i.Prepare(b.Context()); err != nil {
				b.Fatal(err)
			}
			frozen, err := i.Freeze(b.Context(), FreezeOptions{Name: "bench"})
			if err != nil {
				b.Fatal(err)
			}
			if err := i.Close(); err != nil {
				b.Fatal(err)
			}
			var bare, whole []time.Duration
			for b.Loop() {
				bare = append(bare, f.bareRestore(b, spec, frozen.Name))
				whole = append(whole, f.restoreToResponse(b, spec, frozen.Name, &bm.call))
			}
			ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }
			b.ReportMetric(0, "ns/op") // of both, with all that ends them
			b.ReportMetric(ms(cold), "cold-ms")
			b.ReportMetric(ms(median(bare)), "bare-ms")
			b.ReportMetric(ms(median(whole)), "response-ms")
			b.ReportMetric(float64(median(whole))/float64(median(bare)), "bare")
			b.ReportMetric(ms(frozen.Stopped), "stopped-ms")
			b.ReportMetric(ms(frozen.Writing), "writing-ms")
		})
	}
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// bareRestore returns how long runc takes to restore a snapshot.
func (f *fixture) bareRestore(b *testing.B, spec Spec, name pagestore.Name) time.Duration {
	layers, err := spec.layers(f.Host, name)
	if err != nil {
		b.Fatal(err)
	}
	s, err := f.newShell(&spec, layers, false)
	if err != nil {
		b.Fatal(err)
	}
	pending, err := snapshot.Begin(b.Context(), f.thawd, f.sessionRequest(name, spec.Root))
	if err != nil {
		b.Fatal(err)
	}
	begin := time.Now()
	thawed, err := pending.Restore(b.Context(), f.tools, &snapshot.ContainerOptions{ID: s.id, Bundle: s.bundleDir(), Stdio: s.theirs})
	if err != nil {
		b.Fatal(err)
	}
	took := time.Since(begin)
	s.handedOver()
	i := &Instance{shell: s, container: thawed.Container}
	if err := i.Close(); err != nil {
		b.Fatal(err)
	}
	return took
}

// restoreToResponse returns how long it takes from the demand for an instance until its first answer, less a warm call.
func (f *fixture) restoreToResponse(b *testing.B, spec Spec, name pagestore.Name, c *runner.Call) time.Duration {
	call := func(i *Instance) time.Duration {
		begin := time.Now()
		if _, err := i.Call(b.Context(), c); err != nil {
			b.Fatal(err)
		}
		return time.Since(begin)
	}
	begin := time.Now()
	i, err := f.Restore(b.Context(), spec, name)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := i.Boot(b.Context(), BootOptions{}); err != nil {
		b.Fatal(err)
	}
	call(i)
	took := time.Since(begin)
	var warm []time.Duration
	for range 5 {
		warm = append(warm, call(i))
	}
	if err := i.Close(); err != nil {
		b.Fatal(err)
	}
	return took - median(warm)
}
