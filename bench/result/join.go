package result

import (
	"errors"
	"fmt"
	"slices"
)

// ErrDifferent is returned for documents that cannot be joined.
var ErrDifferent = errors.New("the runs do not belong together")

// Join adds the scenarios of another document. Both must come from the same host, commit and settings, and share no
// scenario: ratios are taken within one run of a scenario, never between two.
func (d *Document) Join(o *Document) error {
	if diff := differences(&d.Host, &o.Host); len(diff) > 0 {
		return fmt.Errorf("%w: %s", ErrDifferent, diff[0])
	}
	if d.Host.Commit != o.Host.Commit {
		return fmt.Errorf("%w: commit %s, then %s", ErrDifferent, d.Host.Commit, o.Host.Commit)
	}
	if d.Settings.Repetitions != o.Settings.Repetitions || d.Settings.Quick != o.Settings.Quick || d.Settings.Filter != o.Settings.Filter {
		return fmt.Errorf("%w: the settings differ", ErrDifferent)
	}
	for _, s := range o.Settings.Scenarios {
		if slices.Contains(d.Settings.Scenarios, s) {
			return fmt.Errorf("%w: both have scenario %s", ErrDifferent, s)
		}
	}
	d.Host.Busy = max(d.Host.Busy, o.Host.Busy)
	d.Settings.Scenarios = append(d.Settings.Scenarios, o.Settings.Scenarios...)
	d.Scenarios = append(d.Scenarios, o.Scenarios...)
	d.Goals = append(d.Goals, o.Goals...)
	d.Series = append(d.Series, o.Series...)
	return nil
}
