package lab

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"thaw/checkpoint"
)

// Config says with what a lab works.
type Config struct {
	Parts
	// Dir is the folder for images, store and logs, absolute. Its subfolder "work" belongs to the lab and is removed.
	Dir string
	// Learn starts each workload once before it is frozen, and holds everything to the answer of that start. Without it
	// that of the container that is frozen counts.
	Learn bool
	// Progress hears what is going on. Nil: nobody does.
	Progress Progress
}

// Progress hears what is going on. It is called by one goroutine.
type Progress interface {
	// Step begins a step that may take long; the function that it returns ends it, with a result for people.
	Step(name string) (done func(result string, err error))
}

// Lab holds frozen containers and what is needed to start them in several modes: [Lab.Freeze] them, [Lab.Prepare] the
// modes, then measure. Not safe for concurrent use.
type Lab struct {
	config Config
	tools  *checkpoint.Tools
	work   string // folder for everything that ends with the lab
	run    string // the same for what runtimes write while they restore; where a machine keeps such, in memory
	frozen []*Frozen
	modes  map[Mode]mode
	thawds []*thawd
}

// New prepares a lab, and removes what a lab that was killed has left in the same folder. The caller closes it.
func New(ctx context.Context, config Config) (*Lab, error) {
	if config.Progress == nil {
		config.Progress = quiet{}
	}
	work := filepath.Join(config.Dir, "work")
	l := &Lab{
		config: config,
		work:   work,
		run:    runFolder(work),
		modes:  make(map[Mode]mode),
		tools:  &checkpoint.Tools{CRIU: config.CRIU, Runc: config.Runc, StateDir: filepath.Join(work, "state")},
	}
	if err := l.clear(ctx); err != nil {
		return nil, fmt.Errorf("clear %s: %w", work, err)
	}
	if err := errors.Join(os.MkdirAll(l.packs(), 0o700), os.MkdirAll(l.run, 0o700)); err != nil {
		return nil, err
	}
	return l, nil
}

// runFolder returns a folder in /run, named after the lab's, so that the next lab there finds what one that was killed has left.
func runFolder(work string) string {
	sum := sha256.Sum256([]byte(work))
	return fmt.Sprintf("/run/thaw-lab-%x", sum[:6])
}

// Close ends what runs and removes everything that the lab has made.
func (l *Lab) Close() error {
	var errs []error
	for _, d := range l.thawds {
		errs = append(errs, d.stop())
	}
	return errors.Join(append(errs, l.clear(context.Background()))...)
}

// clear deletes all containers of this lab's folder, and the folder.
func (l *Lab) clear(ctx context.Context) error {
	ids, err := l.tools.Containers()
	if err != nil {
		return err
	}
	var errs []error
	for _, id := range ids {
		c, err := l.tools.Container(ctx, id)
		if err == nil {
			err = c.Delete(ctx)
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return errors.Join(removeFolder(l.work), removeFolder(l.run))
}

// removeFolder removes a folder in which a container that failed may have left mounts.
func removeFolder(dir string) error {
	return errors.Join(checkpoint.UnmountBelow(dir), checkpoint.RemoveAll(dir))
}

// step runs f as a step that the progress hears of.
func (l *Lab) step(name string, f func() (result string, err error)) error {
	done := l.config.Progress.Step(name)
	result, err := f()
	done(result, err)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// quiet is the progress that nobody hears.
type quiet struct{}

func (quiet) Step(string) func(string, error) { return func(string, error) {} }
