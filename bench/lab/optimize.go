package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"thaw/control"
)

// Learn restores a frozen container some times, has recorded what it touches until it has answered, and packs the working set that is
// learned. The mode [ThawSet] must have been prepared. It returns what was recorded.
func (l *Lab) Optimize(ctx context.Context, f *Frozen, runs int) (reports []*control.RecordingReport, err error) {
	m, ok := l.modes[ThawSet].(*thawMode)
	if !ok {
		return nil, fmt.Errorf("mode %q was not prepared", ThawSet)
	}
	err = l.step(fmt.Sprintf("learn the working set from %d restores", runs), func() (string, error) {
		for range runs {
			r, err := l.record(ctx, f, m.thawd)
			if err != nil {
				return "", err
			}
			reports = append(reports, r)
		}
		cmd := exec.CommandContext(ctx, l.config.Thaw, "snapshot", "optimize", "--store", l.store(), "--json", "--pack-only", f.name)
		out, err := cmd.Output()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("thaw snapshot optimize: %w: %s", err, bytes.TrimSpace(exit.Stderr))
		}
		return string(out), err
	})
	return reports, err
}

// record restores once, and returns what was recorded until the first answer.
func (l *Lab) record(ctx context.Context, f *Frozen, d *thawd) (_ *control.RecordingReport, err error) {
	t, err := l.newTrial(f, SameInput)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	if err := t.client.ahead(t.request()); err != nil {
		return nil, err
	}
	m := &thawMode{thawd: d, stream: control.StreamAll, record: true}
	if err := m.restore(ctx, t); err != nil {
		return nil, err
	}
	s := t.server.(*session)
	a, _, err := t.firstAnswer(ctx)
	if err == nil {
		err = errors.Join(a.compare(t.want()), d.client.MarkSession(ctx, s.id, control.MarkAnswered))
	}
	if err != nil {
		return nil, err
	}
	for {
		now, err := d.client.Session(ctx, s.id)
		switch {
		case err != nil:
			return nil, err
		case now.Recording != nil && now.Recording.State == control.RecordingFailed:
			return nil, fmt.Errorf("recording: %s", now.Recording.Error)
		case now.Recording != nil && now.Recording.State.Ended():
			return now.Recording, nil
		}
		time.Sleep(pollInterval)
	}
}
