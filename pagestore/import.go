package pagestore

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"thaw/internal/durable"
	"thaw/pagestore/internal/manifest"
	"thaw/pagestore/internal/pack"
)

// stagedSnapshot is the folder in a staging folder that becomes the snapshot's.
const stagedSnapshot = "snapshot"

// ImportOptions change how Import works.
type ImportOptions struct {
	// Workers is the number of goroutines that hash pages at a time; if there are more cores, up to two others read and write beside
	// them. Default: GOMAXPROCS.
	Workers int
	// Progress is called up to ten times a second, by one goroutine at a time; it should return soon. nil for none.
	Progress func(Progress)
}

func (o *ImportOptions) setDefaults() {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
}

// Report says what an import did. Every page of the image is one of ZeroPages, DuplicatePages and NewPages.
type Report struct {
	Name   Name   `json:"name"`
	Digest Digest `json:"digest"`

	Pages     uint64 `json:"pages"`
	ZeroPages uint64 `json:"zero_pages"`
	// DuplicatePages were in the store already or came earlier in the same image.
	DuplicatePages uint64 `json:"duplicate_pages"`
	NewPages       uint64 `json:"new_pages"`
	// Bytes is the size of the image, NewBytes what of it was written.
	Bytes    uint64 `json:"bytes"`
	NewBytes uint64 `json:"new_bytes"`
	// NewPacks hold the new pages.
	NewPacks int `json:"new_packs"`
	// SkeletonBytes is the size of the skeleton's files.
	SkeletonBytes int64 `json:"skeleton_bytes"`

	// Duration is that of the whole call. PageDuration of it went into reading, hashing and writing pages, with the skeleton beside
	// them, SyncDuration into waiting for the disk after that.
	Duration     time.Duration `json:"duration_ns"`
	PageDuration time.Duration `json:"page_duration_ns"`
	SyncDuration time.Duration `json:"sync_duration_ns"`
}

// BytesPerSecond is how fast pages were read, hashed and written, without the wait for the disk at the end.
func (r *Report) BytesPerSecond() float64 {
	if r.PageDuration <= 0 {
		return 0
	}
	return float64(r.Bytes) / r.PageDuration.Seconds()
}

// Import makes a snapshot. It returns once the snapshot is durable and visible; before that nobody sees anything of
// it, and if Import fails or dies the store is as it was. Errors are [ErrInput], [ErrShortInput], [ErrExists],
// [ErrLocked], [ErrNoSpace], those of ctx, of the files and of Input.Skeleton.
func (s *Store) Import(ctx context.Context, name Name, in Input, opts *ImportOptions) (Report, error) {
	start := time.Now()
	if err := name.Validate(); err != nil {
		return Report{}, err
	}
	im := &importer{store: s, ns: s.namespace(name.Namespace), name: name, input: in}
	if opts != nil {
		im.opts = *opts
	}
	im.opts.setDefaults()
	if err := im.run(ctx); err != nil {
		return Report{}, fmt.Errorf("import %s: %w", name, classify(err))
	}
	im.report.Name = name
	im.report.Duration = time.Since(start)
	return im.report, nil
}

// importer is one run of Import. Its steps are methods in the order in which run calls them.
type importer struct {
	store *Store
	ns    namespace
	name  Name
	input Input
	opts  ImportOptions

	spaces   []Space
	pages    uint64
	dir      string // the staging folder
	skeleton []SkeletonFile
	lookup   *dedup
	packs    *packSet
	builder  manifest.Builder
	report   Report
}

func (im *importer) run(ctx context.Context) (err error) {
	if im.spaces, err = im.input.check(); err != nil {
		return err
	}
	if im.pages, err = imagePages(im.spaces); err != nil {
		return err
	}
	unlock, err := im.store.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := im.stage(); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, im.abandon())
		}
	}()
	return im.fill(ctx)
}

func (im *importer) fs() durable.FS { return im.store.opts.fs }

func (im *importer) staged(elem ...string) string {
	return filepath.Join(append([]string{im.dir, stagedSnapshot}, elem...)...)
}

// stage makes the staging folder, in a namespace without the leftovers of others.
func (im *importer) stage() error {
	if err := im.ns.make(im.fs()); err != nil {
		return err
	}
	if err := im.store.sweepStaging(im.ns); err != nil {
		return err
	}
	if _, err := os.Stat(im.ns.snapshot(im.name.Snapshot)); err == nil {
		return ErrExists
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	im.dir = filepath.Join(im.ns.staging(), uniqueName(im.name.Snapshot))
	for _, dir := range []string{im.dir, im.staged(), im.staged(skeletonDir)} {
		if err := im.fs().Mkdir(dir); err != nil {
			return errors.Join(err, im.abandon())
		}
	}
	return nil
}

// abandon leaves the store as it was before stage. What it cannot delete now the next writer will.
func (im *importer) abandon() error {
	return im.store.abandon(im.ns, im.dir)
}

// stageSkeleton has the caller fill the skeleton folder, makes it durable and notes what is in it.
func (im *importer) stageSkeleton() error {
	dir := im.staged(skeletonDir)
	if im.input.Skeleton != nil {
		if err := im.input.Skeleton(dir); err != nil {
			return fmt.Errorf("write skeleton: %w", err)
		}
	}
	err := durable.SyncTree(im.fs(), dir, func(path string, info fs.FileInfo) error {
		digest, n, err := hashFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		im.skeleton = append(im.skeleton, SkeletonFile{Path: filepath.ToSlash(rel), Bytes: n, SHA256: digest})
		im.report.SkeletonBytes += n
		return nil
	})
	if err != nil {
		return fmt.Errorf("store skeleton: %w", err)
	}
	return nil
}

// fill brings pages and skeleton into the staging folder and commits.
func (im *importer) fill(ctx context.Context) (err error) {
	if im.lookup, err = openDedup(im.store, im.ns); err != nil {
		return err
	}
	defer im.closeIndex()
	im.packs = newPackSet(im.fs(), im.dir, im.store.opts.packPages)
	defer func() { err = errors.Join(err, im.packs.close()) }()

	start := time.Now()
	g, pagesCtx := errgroup.WithContext(ctx)
	g.Go(im.stageSkeleton)
	g.Go(func() error {
		defer func() { im.report.PageDuration = time.Since(start) }()
		return im.copyPages(pagesCtx)
	})
	if err := errors.Join(g.Wait(), im.lookup.closePacks()); err != nil {
		return err
	}
	indexed := make(chan struct{})
	go func() {
		defer close(indexed)
		im.updateIndex()
	}()
	err = im.commit(ctx)
	<-indexed
	im.report.SyncDuration = time.Since(start) - im.report.PageDuration
	return err
}

// closeIndex is no reason for an import to fail: the index is a hint.
func (im *importer) closeIndex() {
	if err := im.lookup.index.Close(); err != nil {
		im.store.opts.Logger.Warn("index was not closed cleanly", "namespace", im.ns.name, "err", err)
	}
}

// updateIndex enters the new packs into the index while the disk syncs. That it may then name packs that never come to be
// is in its contract, and so is that it may lack some: the next import adds them.
func (im *importer) updateIndex() {
	staged := make(map[PackID]string)
	for i, p := range im.packs.sealed {
		staged[p.ID] = im.packs.path(i)
	}
	err := im.lookup.add(im.packs.sealed, func(id PackID) (*pack.Footer, error) {
		footer, err := readFooter(staged[id], id)
		if errors.Is(err, fs.ErrNotExist) { // published meanwhile
			footer, err = readFooter(im.ns.pack(id), id)
		}
		return footer, err
	})
	if err != nil {
		im.store.opts.Logger.Warn("index is left to the next import", "namespace", im.ns.name, "err", err)
	}
}

// commit waits for the disk and publishes the snapshot.
func (im *importer) commit(ctx context.Context) error {
	meter := newMeter(im.opts.Progress, Progress{Stage: StageSync, TotalBytes: im.report.NewBytes})
	if err := im.packs.sync(ctx, meter); err != nil {
		return err
	}
	if err := im.writeManifest(); err != nil {
		return err
	}
	for _, dir := range []string{im.staged(), im.dir, im.ns.staging()} {
		if err := im.fs().SyncDir(dir); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := im.publish(); err != nil {
		return err
	}
	meter.finish()
	return nil
}

// writeManifest writes manifest and info.json to the staging folder.
func (im *importer) writeManifest() error {
	im.builder.Packs = im.lookup.table(im.packs.sealed)
	data, err := im.builder.Encode()
	if err != nil {
		return err
	}
	m, err := manifest.Parse(data)
	if err != nil {
		return err
	}
	im.report.Digest = sha256.Sum256(data)
	info, err := encodeInfo(&Info{
		Name:          im.name,
		Created:       time.Now().UTC().Round(0),
		Digest:        im.report.Digest,
		ManifestBytes: int64(len(data)),
		ManifestSum:   m.Checksum(),
		Parent:        im.input.Parent,
		Spaces:        m.Spaces(),
		Pages:         im.report.Pages,
		ZeroPages:     im.report.ZeroPages,
		NewPages:      im.report.NewPages,
		Skeleton:      im.skeleton,
		Host:          im.input.Host,
	})
	if err != nil {
		return err
	}
	if err := durable.Write(im.fs(), im.staged(manifestFile), data); err != nil {
		return err
	}
	return durable.Write(im.fs(), im.staged(infoFile), info)
}

// publish moves the packs and then the snapshot to their places. The second rename is the commit: an error before or in it
// leaves packs that abandon finds through the staged manifest.
func (im *importer) publish() error {
	for i, f := range im.packs.sealed {
		// A file of that name has the same content, or is damaged; then this one repairs it.
		if err := im.fs().Rename(im.packs.path(i), im.ns.pack(f.ID)); err != nil {
			return err
		}
	}
	if err := im.fs().SyncDir(im.ns.packs()); err != nil {
		return err
	}
	if err := im.store.move(im.staged(), im.ns.snapshot(im.name.Snapshot)); err != nil {
		return err
	}
	if err := durable.RemoveAll(im.fs(), im.dir); err != nil {
		im.store.opts.Logger.Warn("staging folder is left to the next writer", "snapshot", im.name.String(), "err", err)
	}
	return nil
}
