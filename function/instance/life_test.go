package instance

import (
	"testing"

	"thaw/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func TestAFunctionIsFrozenAndEachRestoreGoesOnFromThere(t *testing.T) {
	f := newFixture(t)
	spec := f.spec(t)
	r := f.freeze(t, spec, "probe", "null")
	t.Logf("frozen: stopped %v, writing %v, dump %v, total %v", r.Stopped, r.Writing, r.Dump, r.Total)
	for range 2 {
		i := f.restore(t, spec, "probe")
		t.Logf("restored: %+v", i.Timings())
		boot(t, i)
		if n := call[int](t, i, "count"); n != 1 {
			t.Errorf("counted to %d, want 1", n)
		}
		if name := call[string](t, i, "hostname"); name != i.ID() {
			t.Errorf("host name is %s, want %s", name, i.ID())
		}
		if err := i.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
}
