package network

import (
	"errors"
	"os"
	"testing"
)

func TestSparesAreAttachedAhead(t *testing.T) {
	apart(t, func() {
		n := mustOpen(t, Options{Bridge: testBridge, Subnet: subnet, Spares: 1})
		got := make(map[string]*Namespace)
		for _, want := range []string{"spare-1", "second", "spare-2"} { // the second comes before another one is made ahead
			ns, err := n.NewAttached("second")
			if err != nil {
				t.Error(err)
				return
			}
			if ns.name != want || !ns.Addr().IsValid() {
				t.Errorf("namespace %s with the address %v, want %s, attached", ns.name, ns.Addr(), want)
			}
			got[ns.Addr().String()] = ns
			if want == "second" {
				n.spares.fill(n)
			}
		}
		if len(got) != 3 {
			t.Errorf("three namespaces have the addresses of %d", len(got))
		}
		n.spares.fill(n) // one that nobody takes
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(n.options.Dir); !os.IsNotExist(err) {
			t.Errorf("the folder is still there: %v", err)
		}
		n.spares.fill(n)
		if _, err := n.NewAttached("late"); !errors.Is(err, ErrClosed) {
			t.Errorf("a network that is closed: %v, want %v", err, ErrClosed)
		}
	})
}
