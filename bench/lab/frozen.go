package lab

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"thaw/bench/result"
	"thaw/checkpoint"
)

// Frozen is a container that was frozen. It belongs to its lab.
type Frozen struct {
	Workload Workload
	Snapshot Snapshot

	name   string            // in the store
	images string            // folder with CRIU's images
	want   map[Input]*answer // what every start has to answer
	files  []string
	faults map[Input]*uint64 // how many CRIU's own server serves until the first response; nil if that was not counted
}

// Snapshot says what was frozen. Sizes are in bytes, times in seconds.
type Snapshot struct {
	ImageBytes    uint64  `json:"image_bytes"`              // CRIU's image folder
	SkeletonBytes uint64  `json:"skeleton_bytes,omitempty"` // what of it a lazy restore reads
	StoreBytes    uint64  `json:"store_bytes,omitempty"`    // the page store, once this snapshot was in it
	ImportSeconds float64 `json:"import_s,omitempty"`
	ImportRate    float64 `json:"import_bytes_per_s,omitempty"` // image bytes a second, with all syncs
	FreezeSeconds float64 `json:"freeze_s"`
	WarmUpCalls   int     `json:"warm_up_calls"` // answered by the container before it was frozen
	// Request is the same input; Body is that of a workload that takes no sentences.
	Request []string `json:"request_sentences,omitempty"`
	Body    string   `json:"request_body,omitempty"`
}

// warmUpCalls are answered by the container before it is frozen. A function's first calls set up thread pools, caches
// and the like; a snapshot is taken behind them.
const warmUpCalls = 3

// Freeze starts a container with the workload, lets it answer the other input once and then the same input a few times, and
// freezes it.
func (l *Lab) Freeze(ctx context.Context, w Workload) (*Frozen, error) {
	f := &Frozen{
		Workload: w,
		Snapshot: Snapshot{WarmUpCalls: warmUpCalls, Request: w.Request.Sentences, Body: w.Request.Body},
		name:     fmt.Sprintf("%s-%d", w.Name, len(l.frozen)+1),
		want:     make(map[Input]*answer),
		faults:   make(map[Input]*uint64),
	}
	f.images = filepath.Join(l.work, "images", f.name)
	if l.config.Learn {
		if err := l.step("first cold start, for the answer that all others must give", func() (string, error) { return l.learn(ctx, f) }); err != nil {
			return nil, err
		}
	}
	if err := l.step("freeze", func() (string, error) { return l.freeze(ctx, f) }); err != nil {
		return nil, err
	}
	l.frozen = append(l.frozen, f)
	return f, nil
}

// learn starts the container once and keeps its answer.
func (l *Lab) learn(ctx context.Context, f *Frozen) (string, error) {
	t, err := l.newTrial(f, SameInput)
	if err != nil {
		return "", err
	}
	defer t.close()
	start := time.Now()
	if err := t.run(ctx); err != nil {
		return "", err
	}
	if err := t.talk.ready(ctx); err != nil {
		return "", err
	}
	ready := time.Since(start)
	for _, input := range Inputs() {
		if err := t.check(ctx, input); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("ready after %.1f s, answer %.12s", ready.Seconds(), f.want[SameInput].SHA256), t.close()
}

// check makes a request and compares the answer with what is known already. The first answer to an input is what all others have
// to be.
func (t *trial) check(ctx context.Context, input Input) error {
	a, _, err := t.client.call(ctx, t.frozen.Workload.request(input))
	if err != nil {
		return err
	}
	if t.frozen.want[input] == nil {
		t.frozen.want[input] = a
	}
	return a.compare(t.frozen.want[input])
}

func (l *Lab) freeze(ctx context.Context, f *Frozen) (string, error) {
	t, err := l.newTrial(f, SameInput)
	if err != nil {
		return "", err
	}
	defer t.close()
	if err := t.run(ctx); err != nil {
		return "", err
	}
	if err := t.talk.ready(ctx); err != nil {
		return "", err
	}
	// The other input first: the container is frozen as calls with the same input have left it.
	for _, input := range append([]Input{OtherInput}, slices.Repeat([]Input{SameInput}, warmUpCalls)...) {
		if err := t.check(ctx, input); err != nil {
			return "", err
		}
	}
	if f.files, err = mappedFiles(t.container.PID, l.config.Rootfs); err != nil {
		return "", err
	}
	start := time.Now()
	o := checkpoint.DumpOptions{Images: f.images, Work: filepath.Join(t.dir, "dump")}
	if err := l.tools.CheckpointContainer(ctx, t.id, o); err != nil {
		return "", err
	}
	f.Snapshot.FreezeSeconds = time.Since(start).Seconds()
	if f.Snapshot.ImageBytes, err = diskUsage(f.images); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s of images", result.Format(float64(f.Snapshot.ImageBytes), "B")), t.close()
}

// mappedFiles returns the files below the root file system that a process has mapped: a restore opens them again.
func mappedFiles(pid int, rootfs string) ([]string, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var paths []string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// The kernel shows paths below the root of the mount, which is that of the root file system.
		_, path, ok := strings.Cut(lines.Text(), " /")
		if path = filepath.Join(rootfs, path); ok && isFile(path) && !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	return paths, lines.Err()
}

// importImages puts a frozen container into the store, if it is not there yet.
func (l *Lab) importImages(ctx context.Context, f *Frozen) error {
	if f.Snapshot.StoreBytes != 0 {
		return nil
	}
	return l.step("import into the page store", func() (string, error) {
		start := time.Now()
		cmd := exec.CommandContext(ctx, l.config.Thaw, "snapshot", "import", "--store", l.store(), "--json", "--name", f.name, f.images)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Run(); err != nil {
			return "", fmt.Errorf("thaw import: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
		}
		s := &f.Snapshot
		s.ImportSeconds = time.Since(start).Seconds()
		s.ImportRate = float64(s.ImageBytes) / s.ImportSeconds
		var err error
		if s.StoreBytes, err = diskUsage(l.store()); err != nil {
			return "", err
		}
		return fmt.Sprintf("%s, %s", result.Format(float64(s.StoreBytes), "B"), result.Format(s.ImportRate, "B/s")), nil
	})
}
