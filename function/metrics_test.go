package function

import (
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"thaw/function/runner"
)

func TestMetrics(t *testing.T) {
	inWorld(t, func(o *Options) { o.FreezeAfter = 1; o.Failures = 1 }, func(w *world) {
		reg := prometheus.NewPedanticRegistry()
		if err := w.server.Register(reg); err != nil {
			w.Fatal(err)
		}
		w.boots("Cart", BootCold, BootRestored)
		w.host.fail(opFreeze, errTest)
		w.host.fail(opRestore, errTest)
		w.boots("Cart", BootCold)
		w.host.fail(opLoad, errTest)
		w.call("Cart")
		w.host.on(opLoad, nil)
		w.wantBoot(w.call("Cart"), BootCold)
		w.host.fail(opCall, &runner.CallError{Kind: "exception"})
		w.call("Cart")
		g := w.host.hold(opCall)
		c := w.later(w.Context(), "Cart")
		got := gathered(w, reg)
		g.open()
		<-c
		want := `thaw_function_boot_seconds kind=cold 3
thaw_function_boot_seconds kind=restored 1
thaw_function_boots_total kind=cold outcome=error 1
thaw_function_boots_total kind=cold outcome=ok 3
thaw_function_boots_total kind=restored outcome=ok 1
thaw_function_call_seconds boot=cold 3
thaw_function_call_seconds boot=none 1
thaw_function_call_seconds boot=restored 1
thaw_function_calls_running 1
thaw_function_calls_total outcome=error 2
thaw_function_calls_total outcome=ok 4
thaw_function_fallbacks_total 1
thaw_function_freezes_total outcome=error 1
thaw_function_freezes_total outcome=ok 1
thaw_function_instances 1
thaw_function_instances_ended_total 3
thaw_function_snapshots_set_aside_total 1
`
		if got != want {
			w.Errorf("metrics are\n%s\nwant\n%s", got, want)
		}
	})
}

// gathered returns the metrics of one object as text.
func gathered(w *world, g prometheus.Gatherer) string {
	w.Helper()
	families, err := g.Gather()
	if err != nil {
		w.Fatal(err)
	}
	var out strings.Builder
	for _, f := range families {
		for _, m := range f.GetMetric() {
			out.WriteString(f.GetName())
			for _, l := range m.GetLabel() {
				switch l.GetName() {
				case "app", "object":
					if l.GetValue() != app && l.GetValue() != "Cart" {
						w.Errorf("%s is of %s", f.GetName(), l.GetValue())
					}
				default:
					fmt.Fprintf(&out, " %s=%s", l.GetName(), l.GetValue())
				}
			}
			switch {
			case m.GetCounter() != nil:
				fmt.Fprintf(&out, " %v\n", m.GetCounter().GetValue())
			case m.GetHistogram() != nil:
				fmt.Fprintf(&out, " %d\n", m.GetHistogram().GetSampleCount())
			default:
				fmt.Fprintf(&out, " %v\n", m.GetGauge().GetValue())
			}
		}
	}
	return out.String()
}
