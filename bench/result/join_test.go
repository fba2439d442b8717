package result

import (
	"errors"
	"testing"
)

func TestRunsOfDifferentScenariosAreJoined(t *testing.T) {
	other := func(change func(*Document)) *Document {
		d := sample(1)
		d.Settings.Scenarios = []string{"fill"}
		change(d)
		return d
	}
	d := sample(1)
	if err := d.Join(other(func(o *Document) { o.Host.Busy = 0.3 })); err != nil {
		t.Fatal(err)
	}
	if len(d.Series) != 8 || len(d.Scenarios) != 2 || len(d.Goals) != 2 || d.Host.Busy != 0.3 {
		t.Errorf("%d series, %d scenarios, %d goals, busy %v", len(d.Series), len(d.Scenarios), len(d.Goals), d.Host.Busy)
	}
	for name, change := range map[string]func(*Document){
		"another kernel":      func(o *Document) { o.Host.Kernel = "5.0" },
		"another commit":      func(o *Document) { o.Host.Commit = "def" },
		"another number":      func(o *Document) { o.Settings.Repetitions = 1 },
		"a scenario of ours":  func(o *Document) { o.Settings.Scenarios = []string{"fault-under-fill"} },
		"one that was joined": func(*Document) {},
	} {
		if err := d.Join(other(change)); !errors.Is(err, ErrDifferent) {
			t.Errorf("%s: %v, want ErrDifferent", name, err)
		}
	}
}
