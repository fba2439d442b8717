package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"thaw/control"
)

// Place is where a lab can restore, besides its own store: a store with a thawd, which is somebody else's.
type Place struct {
	// Name tells places apart in errors.
	Name string
	// Store is the folder of the store. The folder of its packs must be there.
	Store string
	// Thawd is asked for sessions.
	Thawd *control.Client
	// PID is thawd's.
	PID int
}

// thawd returns the place's thawd as one of the lab's. It is not the lab's to stop.
func (p *Place) thawd() *thawd { return &thawd{client: p.Thawd, number: p.PID} }

// StoreFolder is the folder of the lab's own store, for a node of a fleet that has what was frozen.
func (l *Lab) StoreFolder() string { return l.store() }

// Import brings what was frozen into the lab's own store. Nothing can be frozen afterwards.
func (l *Lab) Import(ctx context.Context) error {
	for _, f := range l.frozen {
		if err := l.importImages(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

// Name is what the snapshot is called in stores.
func (f *Frozen) Name() string { return f.name }

// Started is how a container is restored at a place.
type Started struct {
	// Input is what it is asked first.
	Input Input
	// Stream says what comes without being asked for. Default: everything.
	Stream control.Stream
	// WorkingSet says whether what is known of it is used. Default: it is.
	WorkingSet control.WorkingSetUse
	// Copied has no memory mapped from packs.
	Copied bool
}

func (s *Started) mode(at *Place) *thawMode {
	return &thawMode{thawd: at.thawd(), stream: s.Stream, mapped: !s.Copied, use: s.WorkingSet}
}

// Process is a container that was restored at a place. Not safe for concurrent use, but for Session.
type Process struct {
	trial *trial
	place *Place
	start time.Time

	// ToRunning is how long it took until it ran, in seconds.
	ToRunning float64
}

// Restore restores a container at a place. Its first request waits for it: [Process.First] returns when it has been answered. The caller closes what is
// returned.
func (l *Lab) Restore(ctx context.Context, f *Frozen, at *Place, how Started) (*Process, error) {
	if how.Input == "" {
		how.Input = SameInput
	}
	t, err := l.newTrialWith(f, how.Input, packsOf(at.Store))
	if err != nil {
		return nil, err
	}
	p := &Process{trial: t, place: at}
	if err := t.client.ahead(t.request()); err != nil {
		return nil, errors.Join(err, t.close())
	}
	p.start = time.Now()
	if err := how.mode(at).restore(ctx, t); err != nil {
		return nil, errors.Join(fmt.Errorf("restore at %s: %w", at.Name, err), t.close())
	}
	p.ToRunning = time.Since(p.start).Seconds()
	return p, nil
}

// First waits for the answer to the request that was there before the process ran, and returns how long it took, in seconds from the start of the restore. An answer that
// is not the expected one to the last bit is an error.
func (p *Process) First(ctx context.Context) (float64, error) {
	a, at, err := p.trial.firstAnswer(ctx)
	if err != nil {
		return 0, err
	}
	return at.Sub(p.start).Seconds(), a.compare(p.trial.want())
}

// Ask makes a request and waits for the answer. One that is not the expected one to the last bit is an error.
func (p *Process) Ask(ctx context.Context, input Input) error {
	a, _, err := p.trial.client.call(ctx, p.trial.frozen.Workload.request(input))
	if err != nil {
		return err
	}
	return a.compare(p.trial.frozen.want[input])
}

// Answer makes any request and returns the answer as it came, for others to be compared with.
func (p *Process) Answer(ctx context.Context, r Request) (string, error) {
	a, _, err := p.trial.client.call(ctx, r)
	if err != nil {
		return "", err
	}
	return string(a.text), nil
}

// WarmCall waits until all memory is there and returns W, in seconds.
func (p *Process) WarmCall(ctx context.Context) (float64, error) {
	var r Run
	if err := p.trial.warmCalls(ctx, &r); err != nil {
		return 0, err
	}
	return *r.WarmCall, nil
}

// Session is what thawd says of the restore.
func (p *Process) Session(ctx context.Context) (*control.Session, error) {
	s, ok := p.trial.server.(*session)
	if !ok {
		return nil, fmt.Errorf("%s has no session", p.trial.id)
	}
	return p.place.Thawd.Session(ctx, s.id)
}

// PID is the process's.
func (p *Process) PID() int { return p.trial.container.PID }

// Close ends the process, and removes what was its own.
func (p *Process) Close() error { return p.trial.close() }

// Ready empties the page cache, reads into it again what lies below the paths, and has memory ready for so many restores of a frozen container.
func (l *Lab) Ready(ctx context.Context, f *Frozen, restores int, cached ...string) error {
	if err := DropCaches(); err != nil {
		return err
	}
	return l.Have(ctx, f, restores, cached...)
}

// Have is Ready without emptying the page cache: for what was put there on purpose since, and which the disk has then, too.
func (l *Lab) Have(ctx context.Context, f *Frozen, restores int, cached ...string) error {
	unix.Sync() // or what is written behind a restore would be work of the next one
	if len(cached) > 0 {
		if _, err := ReadAll(ctx, cached...); err != nil {
			return err
		}
	}
	return OwnMemory(uint64(restores)*2*f.Snapshot.ImageBytes + restoreMemory)
}

// ManifestDigest returns the SHA-256 of a snapshot's manifest, in hexadecimal, by which other places know it.
func (l *Lab) ManifestDigest(f *Frozen) (string, error) {
	text, err := os.ReadFile(filepath.Join(l.store(), "namespaces", "default", "snapshots", f.name, "info.json"))
	if err != nil {
		return "", err
	}
	var file struct {
		Info struct {
			Digest string `json:"digest"`
		} `json:"info"`
	}
	if err := json.Unmarshal(text, &file); err != nil {
		return "", err
	}
	if file.Info.Digest == "" {
		return "", fmt.Errorf("the store says nothing of the manifest of %s", f.name)
	}
	return file.Info.Digest, nil
}
