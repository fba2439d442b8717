package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"thaw/control"
)

// Learn restores a frozen container once for each of the inputs, each recorded until it has answered, so that its working set learns from
// them. A mode that has a thawd must have been prepared. It returns what was recorded.
func (l *Lab) Learn(ctx context.Context, f *Frozen, inputs ...Input) (reports []*control.RecordingReport, err error) {
	d, err := l.recorder()
	if err != nil {
		return nil, err
	}
	err = l.step(fmt.Sprintf("record %d restores", len(inputs)), func() (string, error) {
		for _, input := range inputs {
			r, err := l.record(ctx, f, input, d)
			if err != nil {
				return "", err
			}
			reports = append(reports, r)
		}
		return "", nil
	})
	return reports, err
}

// recorder returns a thawd that can record.
func (l *Lab) recorder() (*thawd, error) {
	for _, m := range l.modes {
		if m, ok := m.(*thawMode); ok {
			return m.thawd, nil
		}
	}
	return nil, errors.New("no mode with a thawd was prepared")
}

// Packed says of a working set how many pages of the image it has.
type Packed struct {
	Recordings int    `json:"recordings"`   // that it has learned from
	Must       uint64 `json:"pages_must"`   // that processes are held for
	Likely     uint64 `json:"pages_likely"` // that follow
	Packed     uint64 `json:"pages_packed"` // of these, the ones that were written again, in one piece
	Far        uint64 `json:"pages_far"`    // of these, the ones that come as one object from elsewhere
}

// Pack packs the pages of a frozen container's working set.
func (l *Lab) Pack(ctx context.Context, f *Frozen) (p Packed, err error) {
	err = l.thaw(ctx, &p, "snapshot", "optimize", "--pack-only", f.name)
	return p, err
}

// Forget drops a frozen container's working set.
func (l *Lab) Forget(ctx context.Context, f *Frozen) error {
	return l.thaw(ctx, new(struct{}), "trace", "drop", f.name)
}

// thaw runs thaw on the lab's store, and decodes what it prints.
func (l *Lab) thaw(ctx context.Context, out any, args ...string) error {
	cmd := exec.CommandContext(ctx, l.config.Thaw, append(args, "--store", l.store(), "--json")...)
	printed, err := cmd.Output()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return fmt.Errorf("thaw %s: %w: %s", args[0], err, bytes.TrimSpace(exit.Stderr))
	case err != nil:
		return fmt.Errorf("thaw %s: %w", args[0], err)
	}
	return json.Unmarshal(printed, out)
}

// record restores once, and returns what was recorded until the first answer.
func (l *Lab) record(ctx context.Context, f *Frozen, input Input, d *thawd) (_ *control.RecordingReport, err error) {
	t, err := l.newTrial(f, input)
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
	a, _, err := t.firstAnswer(ctx)
	if err == nil {
		err = a.compare(t.want())
	}
	if err != nil {
		return nil, err
	}
	return d.endRecording(ctx, t.server.(*session).id)
}

// endRecording says that the first request has been answered, and waits until the working set has learned.
func (d *thawd) endRecording(ctx context.Context, id string) (*control.RecordingReport, error) {
	if err := d.client.MarkSession(ctx, id, control.MarkAnswered); err != nil {
		return nil, err
	}
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		now, err := d.client.Session(ctx, id)
		switch {
		case err != nil:
			return nil, err
		case now.Recording.State == control.RecordingFailed:
			return nil, fmt.Errorf("recording: %s", now.Recording.Error)
		case now.Recording.State.Ended():
			return now.Recording, nil
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-tick.C:
		}
	}
}
