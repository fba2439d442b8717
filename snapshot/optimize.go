package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"time"

	"thaw/checkpoint"
	"thaw/control"
	"thaw/pagestore"
	"thaw/restore/workingset"
)

// OptimizeOptions are the options of [Optimize].
type OptimizeOptions struct {
	// Name is the snapshot.
	Name pagestore.Name

	// Runs is how often it is restored and recorded. 0: what has been recorded before is packed anew, and nothing is restored.
	Runs int

	// Requests are commands of a shell, of which each run makes one, in turn. A command makes the first request of a restored function, and
	// ends when that has been answered. It finds the number of the process in THAW_PID, and the container's id in THAW_CONTAINER; what it
	// writes to its standard output the container reads from its standard input, and the other way round.
	Requests []string

	// Bundle is the absolute path of the bundle to restore a container from. Empty: a plain process, as it was frozen.
	Bundle string

	// Stderr gets what the requests and the containers write to standard error. nil: it is discarded.
	Stderr *os.File

	// Done is told of each run. nil: nobody is.
	Done func(run int, r *control.RecordingReport)
}

// OptimizeReport says what Optimize did.
type OptimizeReport struct {
	Recordings  int           // that the working set has learned from, earlier ones too
	PagesMust   uint64        // of the image
	PagesLikely uint64        // of the image
	PagesPacked uint64        // of those, the ones that were written again, in the order in which they are needed
	PagesFar    uint64        // of those, the ones that come first, as one object, where the snapshot is restored from elsewhere
	Duration    time.Duration // of all
}

// ErrNotRecorded says that thawd could not record what a restored process touches, or could not learn from it.
var ErrNotRecorded = errors.New("nothing was recorded")

// Optimize restores a snapshot some times, has recorded what is touched until a request is answered, and packs the pages of the working set
// that is learned so that they are read in one go. Nothing of the restored processes is left.
func Optimize(ctx context.Context, store *pagestore.Store, client *control.Client, tools *checkpoint.Tools, o OptimizeOptions) (*OptimizeReport, error) {
	begin := time.Now()
	if o.Runs > 0 && len(o.Requests) == 0 {
		return nil, errors.New("optimize: no request is given")
	}
	for run := range o.Runs {
		r, err := recordOnce(ctx, client, tools, &o, run)
		if err != nil {
			return nil, fmt.Errorf("optimize: run %d of %d: %w", run+1, o.Runs, err)
		}
		if o.Done != nil {
			o.Done(run, r)
		}
	}
	report, err := pack(ctx, store, o.Name)
	if err != nil {
		return nil, fmt.Errorf("optimize: %w", err)
	}
	report.Duration = time.Since(begin)
	return report, nil
}

// recordOnce restores, makes a request, ends what it has restored, and returns what was recorded.
func recordOnce(ctx context.Context, client *control.Client, tools *checkpoint.Tools, o *OptimizeOptions, run int) (_ *control.RecordingReport, err error) {
	thaw := ThawOptions{Copy: true, Session: control.SessionRequest{Snapshot: o.Name.String(), Record: true}}
	var talk streams
	if o.Bundle != "" {
		if talk, err = newStreams(o.Stderr); err != nil {
			return nil, err
		}
		defer talk.close()
		thaw.Container = &ContainerOptions{ID: fmt.Sprintf("thaw-optimize-%d-%d", os.Getpid(), run), Bundle: o.Bundle, Stdio: talk.theirs}
	}
	t, err := Thaw(ctx, client, tools, thaw)
	if err != nil {
		return nil, err
	}
	talk.handedOver()
	request := o.Requests[run%len(o.Requests)]
	err = errors.Join(ask(ctx, client, t, request, &talk, o.Stderr), end(ctx, t))
	if err != nil {
		return nil, err
	}
	return recorded(ctx, client, t.Session.ID)
}

// ask makes the request, and marks when.
func ask(ctx context.Context, client *control.Client, t *Thawed, request string, talk *streams, stderr *os.File) error {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", request)
	cmd.Env = append(os.Environ(), "THAW_PID="+strconv.Itoa(t.PID))
	if t.Container != nil {
		cmd.Env = append(cmd.Env, "THAW_CONTAINER="+t.Container.ID)
		cmd.Stdin, cmd.Stdout = talk.out, talk.in
	}
	if stderr != nil {
		cmd.Stderr = stderr
	}
	if err := client.MarkSession(ctx, t.Session.ID, control.MarkReady); err != nil {
		return notRecorded(ctx, client, t.Session.ID, err)
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("request %q: %w", request, err)
	}
	if err := client.MarkSession(ctx, t.Session.ID, control.MarkAnswered); err != nil {
		return notRecorded(ctx, client, t.Session.ID, err)
	}
	return nil
}

// notRecorded says why there is no recording, as far as thawd knows.
func notRecorded(ctx context.Context, client *control.Client, id string, err error) error {
	s, sessionErr := client.Session(ctx, id)
	if sessionErr == nil && s.Recording != nil && s.Recording.Error != "" {
		return fmt.Errorf("%w: %s", ErrNotRecorded, s.Recording.Error)
	}
	return err
}

// end kills what was restored.
func end(ctx context.Context, t *Thawed) error {
	ctx = context.WithoutCancel(ctx)
	if t.Container != nil {
		return t.Container.Delete(ctx)
	}
	return checkpoint.KillTree(ctx, t.PID)
}

// recordedPoll is how often thawd is asked whether a recording has ended: it takes some milliseconds.
const recordedPoll = 5 * time.Millisecond

// recorded waits until the working set has learned.
func recorded(ctx context.Context, client *control.Client, id string) (*control.RecordingReport, error) {
	ticker := time.NewTicker(recordedPoll)
	defer ticker.Stop()
	for {
		s, err := client.Session(ctx, id)
		switch {
		case err != nil:
			return nil, err
		case s.Recording == nil:
			return nil, ErrNotRecorded
		case s.Recording.State == control.RecordingFailed:
			return nil, fmt.Errorf("%w: %s", ErrNotRecorded, s.Recording.Error)
		case s.Recording.State.Ended():
			return s.Recording, nil
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-ticker.C:
		}
	}
}

// pack packs the pages of a snapshot's working set.
func pack(ctx context.Context, store *pagestore.Store, name pagestore.Name) (_ *OptimizeReport, err error) {
	snap, err := store.Snapshot(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, snap.Close()) }()
	data, err := snap.WorkingSet()
	if err != nil {
		return nil, err
	}
	set, err := workingset.Decode(data)
	if err != nil {
		return nil, fmt.Errorf("working set of %s: %w", name, err)
	}
	image, err := snap.Image()
	if err != nil {
		return nil, err
	}
	if err := set.Match(snap.Digest(), image.Pages()); err != nil {
		return nil, fmt.Errorf("working set of %s: %w", name, err)
	}
	plan := workingset.Cut(set, nil)
	order := worthPacking(plan)
	far := worthSending(plan, order, image.Pages())
	if err := snap.SetWorkingSet(ctx, pagestore.WorkingSet{Hint: data, Order: order, Far: far}); err != nil {
		return nil, err
	}
	return &OptimizeReport{
		Recordings: set.Learned(), PagesMust: workingset.Pages(plan.Must.Ascending), PagesLikely: workingset.Pages(plan.Likely.Ascending) + workingset.Pages(plan.Near),
		PagesPacked: countPages(order), PagesFar: countPages(far),
	}, nil
}

const (
	// packBlock is how many pages of the image are looked at together: 1 MiB, which a disk reads in one go.
	packBlock = 256
	// packDense is from how many pages of a block on reading the block as it lies is as good.
	packDense = packBlock * 3 / 4
	// farShare is which part of an image, one over that, an object for restores elsewhere may be: it is a second copy of those pages, in the object store and on peers.
	farShare = 4
)

// worthPacking returns the pages of the plan that lie scattered, in the order in which they are needed.
func worthPacking(plan *workingset.Plan) []pagestore.PageRun {
	all := plan.Order()
	blocks := make(map[uint64]int)
	for _, page := range all {
		blocks[page/packBlock]++
	}
	return asRuns(slices.DeleteFunc(all, func(page uint64) bool { return blocks[page/packBlock] >= packDense }))
}

// worthSending returns the pages of the plan that come as one object where the snapshot is restored from elsewhere: all of them, unless that is too
// much of the image, and then those that are packed here. In packs pages come in frames, from peers uncompressed, with neighbors that nobody wants.
func worthSending(plan *workingset.Plan, packed []pagestore.PageRun, imagePages uint64) []pagestore.PageRun {
	all := plan.Order()
	if uint64(len(all)) > imagePages/farShare {
		return packed
	}
	return asRuns(all)
}

// asRuns returns pages as runs of pages that follow each other in the image.
func asRuns(pages []uint64) (out []pagestore.PageRun) {
	for _, page := range pages {
		if n := len(out); n > 0 && out[n-1].Image+out[n-1].Pages == page {
			out[n-1].Pages++
			continue
		}
		out = append(out, pagestore.PageRun{Image: page, Pages: 1})
	}
	return out
}

func countPages(runs []pagestore.PageRun) (n uint64) {
	for _, r := range runs {
		n += r.Pages
	}
	return n
}

// streams are a container's standard streams, and our ends of them.
type streams struct {
	theirs  checkpoint.Stdio
	in, out *os.File
}

func newStreams(stderr *os.File) (s streams, err error) {
	s.theirs.Err = stderr
	if s.theirs.In, s.in, err = os.Pipe(); err != nil {
		return s, err
	}
	if s.out, s.theirs.Out, err = os.Pipe(); err != nil {
		s.close()
	}
	return s, err
}

// handedOver closes our copies of the container's ends, so that its end ends its streams.
func (s *streams) handedOver() {
	closeAll(s.theirs.In, s.theirs.Out)
	s.theirs.In, s.theirs.Out = nil, nil
}

func (s *streams) close() {
	s.handedOver()
	closeAll(s.in, s.out)
	s.in, s.out = nil, nil
}

func closeAll(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			_ = io.Closer(f).Close()
		}
	}
}
