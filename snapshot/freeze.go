package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"thaw/checkpoint"
	"thaw/cpu"
	"thaw/pagestore"
	"thaw/restore/criu"
)

// FreezeOptions are the options of [Freeze]. Exactly one of PID and Container is set.
type FreezeOptions struct {
	// PID is the process to freeze, with all its children.
	PID int

	// Container is the id of the container of runc's to freeze.
	Container string

	// ImagesDir is the folder, absolute, that gets CRIU's images and keeps them. It must be empty or not exist. Default: a
	// folder in TempDir that is removed when the images are in the store.
	ImagesDir string

	// TempDir is where folders are made. Default: $TMPDIR, else /var/tmp, which is on a disk where /tmp often is not.
	TempDir string

	// Dump are CRIU's options; Images and Work are set by Freeze.
	Dump checkpoint.DumpOptions

	// CPU are the features that the process may use. Default: all that this host's CPU has.
	CPU cpu.Set

	// Import says how the images enter the store. Host is set by Freeze.
	Import ImportOptions

	// Dumped is called when the images are written, before they enter the store. An error of it fails the freeze as one of the import
	// does. Nil: nothing happens then.
	Dumped func(ctx context.Context) error
}

// FreezeReport says what a freeze did.
type FreezeReport struct {
	Import    *pagestore.Report
	Dump      time.Duration // how long CRIU took
	Stopped   time.Duration // how long the process stood still at most, from when CRIU began to stop it, as CRIU says; 0 if it does not
	Writing   time.Duration // how much of that CRIU needed to write pages
	ImagesDir string        // where the images are; empty if they were removed
}

// KeptError says that a process was frozen and is gone, and that its images could not be brought into the store: they
// are all that is left of it.
type KeptError struct {
	ImagesDir string
	Err       error
}

// Error says where the images are.
func (e *KeptError) Error() string {
	return fmt.Sprintf("the process is frozen, its images are kept in %s: %v", e.ImagesDir, e.Err)
}

// Unwrap returns Err.
func (e *KeptError) Unwrap() error { return e.Err }

// Freeze dumps a process or a container and imports the images. What would make the import fail for certain, such as a
// name that is taken, is found out before the process is touched.
//
// If the dump fails the process goes on. If the import fails and the process does not run any more, the images are kept
// and the error is a [*KeptError].
func Freeze(ctx context.Context, store *pagestore.Store, tools *checkpoint.Tools, o FreezeOptions) (*FreezeReport, error) {
	if (o.PID == 0) == (o.Container == "") {
		return nil, errors.New("freeze: neither or both of a process and a container are named")
	}
	if err := checkCRIU(ctx, tools); err != nil {
		return nil, fmt.Errorf("freeze: %w", err)
	}
	if err := checkNameFree(store, o.Import.Name); err != nil {
		return nil, fmt.Errorf("freeze: %w", err)
	}
	pid, err := checkTarget(ctx, tools, &o)
	if err != nil {
		return nil, fmt.Errorf("freeze: %w", err)
	}
	packs, err := holdPacks(store, o.Import.Name.Namespace, pid)
	if err != nil {
		return nil, fmt.Errorf("freeze: %w", err)
	}
	defer packs.close() // of files that were only read
	dirs, err := makeFreezeDirs(&o)
	if err != nil {
		return nil, fmt.Errorf("freeze: %w", err)
	}
	o.Dump.Images, o.Dump.Work = dirs.images, dirs.work
	readBeginnings(pid)

	begin := time.Now()
	host, err := dump(ctx, tools, &o)
	if err != nil {
		// What a dump left is of no use, but for its log, whose last lines are in the error.
		return nil, errors.Join(fmt.Errorf("freeze: %w", needsRoot(err)), dirs.remove())
	}
	report := &FreezeReport{Dump: time.Since(begin)}
	// A freeze without figures is as good.
	if stats, err := criu.ReadDumpStats(dirs.work); err == nil {
		report.Stopped, report.Writing = stats.Stopping+stats.Stopped, stats.Writing
	}
	o.Import.Host = host
	if o.Dumped != nil {
		err = o.Dumped(ctx)
	}
	if err == nil {
		report.Import, err = Import(ctx, store, dirs.images, o.Import)
	}
	if err != nil {
		if o.Dump.LeaveRunning {
			return nil, errors.Join(fmt.Errorf("freeze: %w", err), dirs.remove())
		}
		return nil, errors.Join(&KeptError{ImagesDir: dirs.images, Err: err}, dirs.removeWork())
	}
	if o.ImagesDir != "" {
		report.ImagesDir = dirs.images
	}
	return report, dirs.remove()
}

func dump(ctx context.Context, tools *checkpoint.Tools, o *FreezeOptions) (*Host, error) {
	host := thisHost()
	if o.CPU != nil {
		host.CPUFlags = o.CPU
	}
	if o.Container != "" {
		if err := host.describe(ctx, tools, RuntimeRunc, &o.Dump); err != nil {
			return nil, err
		}
		return &host, tools.CheckpointContainer(ctx, o.Container, o.Dump)
	}
	if err := host.describe(ctx, tools, RuntimeCRIU, &o.Dump); err != nil {
		return nil, err
	}
	return &host, tools.DumpProcess(ctx, o.PID, o.Dump)
}

// checkTarget returns the first process to freeze. The error wraps fs.ErrNotExist if there is none.
func checkTarget(ctx context.Context, tools *checkpoint.Tools, o *FreezeOptions) (pid int, err error) {
	if o.Container != "" {
		c, err := tools.Container(ctx, o.Container)
		if err != nil {
			return 0, needsRoot(err)
		}
		return c.PID, nil
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", o.PID)); err != nil {
		return 0, fmt.Errorf("process %d: %w", o.PID, err)
	}
	return o.PID, nil
}

// needsRoot says of a tool that failed without root that this is the likely reason.
func needsRoot(err error) error {
	var tool *checkpoint.Error
	if os.Geteuid() != 0 && errors.As(err, &tool) {
		return fmt.Errorf("%w: CRIU and runc need root: %w", fs.ErrPermission, err)
	}
	return err
}

// checkNameFree returns an error unless a snapshot of that name can be made.
func checkNameFree(store *pagestore.Store, name pagestore.Name) error {
	snap, err := store.Snapshot(name)
	switch {
	case err == nil:
		return errors.Join(fmt.Errorf("snapshot %s: %w", name, pagestore.ErrExists), snap.Close())
	case errors.Is(err, pagestore.ErrNotFound):
		return nil
	case errors.Is(err, pagestore.ErrName):
		return err
	default:
		return fmt.Errorf("snapshot %s: %w, and cannot be read: %w", name, pagestore.ErrExists, err)
	}
}

// runDir is where machines keep what may be lost, most of them in memory. Who may not write there uses the disk.
const runDir = "/run"

// freezeDirs are the folders of a freeze.
type freezeDirs struct {
	images string
	work   string
	ours   []string // to be removed at the end
}

func makeFreezeDirs(o *FreezeOptions) (freezeDirs, error) {
	temp := o.TempDir
	if temp == "" {
		temp = tempDir()
	}
	base, err := os.MkdirTemp(temp, "thaw-freeze-")
	if err != nil {
		return freezeDirs{}, err
	}
	// CRIU gets absolute paths, whatever TMPDIR says.
	if base, err = filepath.Abs(base); err != nil {
		return freezeDirs{}, err
	}
	d := freezeDirs{images: filepath.Join(base, "images"), work: filepath.Join(base, "work"), ours: []string{base}}
	// CRIU's log has a megabyte and more, line by line, while the process stands still.
	if run, err := os.MkdirTemp(runDir, "thaw-freeze-"); err == nil {
		d.work, d.ours = run, append(d.ours, run)
	}
	if o.ImagesDir != "" {
		d.images = o.ImagesDir
		if err := checkEmpty(d.images); err != nil {
			return freezeDirs{}, errors.Join(err, d.remove())
		}
	}
	return d, nil
}

func tempDir() string {
	if dir := os.Getenv("TMPDIR"); dir != "" {
		return dir
	}
	return "/var/tmp"
}

// ErrNotEmpty says that a folder for images holds something already: images of two dumps in one folder are of no use.
var ErrNotEmpty = errors.New("folder is not empty")

func checkEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case len(entries) > 0:
		return fmt.Errorf("%s: %w: it holds %s", dir, ErrNotEmpty, entries[0].Name())
	}
	return nil
}

// removeWork removes the work folder, if it is not in that of images that are kept.
func (d *freezeDirs) removeWork() error {
	if len(d.ours) == 1 {
		return nil
	}
	return errors.Join(checkpoint.UnmountBelow(d.work), checkpoint.RemoveAll(d.work))
}

// remove removes the folders that we made. CRIU may have left mounts in its work folder; checkpoint.RemoveAll does not
// go across them.
func (d *freezeDirs) remove() error {
	var errs []error
	for _, dir := range d.ours {
		errs = append(errs, checkpoint.UnmountBelow(dir), checkpoint.RemoveAll(dir))
	}
	return errors.Join(errs...)
}
