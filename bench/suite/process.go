package suite

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"thaw/restore"
	"thaw/uffd"
	"thaw/uffd/uffdtest"
)

// A process is a child whose memory waits to be populated. Close ends it.
type process struct {
	*uffdtest.Target
	// file is its userfaultfd.
	file *os.File
}

// startProcess starts a child that can do so many things at a time, and registers what mapped maps in [start, end).
func startProcess(ctx context.Context, workers int, start, end uint64, mapped func(*uffdtest.Target) error) (*process, error) {
	return startWith(ctx, workers, start, end, mapped, func(*uffdtest.Target) error { return nil })
}

// startWith is startProcess that calls opened when the child has its userfaultfd, and nothing is registered yet.
func startWith(ctx context.Context, workers int, start, end uint64, mapped, opened func(*uffdtest.Target) error) (_ *process, err error) {
	target, err := uffdtest.Launch(&uffdtest.Options{Workers: workers})
	if err != nil {
		return nil, err
	}
	p := &process{Target: target}
	defer func() {
		if err != nil {
			p.Close()
		}
	}()
	if err := mapped(target); err != nil {
		return nil, fmt.Errorf("map memory: %w", err)
	}
	fd, err := target.OpenRaw(uffdtest.CRIUFeatures).Wait(ctx)
	if err != nil {
		return nil, err
	}
	if p.file, err = unwatched(fd); err != nil {
		return nil, err
	}
	if err := opened(target); err != nil {
		return nil, err
	}
	if _, err := target.Register(uffd.Range{Start: start, End: end}, uffd.ModeMissing).Wait(ctx); err != nil {
		return nil, err
	}
	_, err = target.Drop().Wait(ctx)
	return p, err
}

// unwatched makes a file of a userfaultfd, which it owns, that is not watched by the Go runtime. It would watch a file that does not block, for
// which every fault would wake a thread of ours beside the server that is measured.
func unwatched(fd int) (*os.File, error) {
	if err := unix.SetNonblock(fd, false); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	f := os.NewFile(uintptr(fd), "userfaultfd")
	if err := unix.SetNonblock(fd, true); err != nil {
		f.Close()
		return nil, os.NewSyscallError("fcntl", err)
	}
	return f, nil
}

// startOne starts a child with one region.
func startOne(ctx context.Context, workers int, r restore.Region) (*process, error) {
	return startProcess(ctx, workers, r.Start, r.End, mapOne(ctx, r))
}

// mapOne maps one region.
func mapOne(ctx context.Context, r restore.Region) func(*uffdtest.Target) error {
	return func(t *uffdtest.Target) error {
		_, err := t.Map(uffd.Range{Start: r.Start, End: r.End}).Wait(ctx)
		return err
	}
}

// Close kills the process, and then lets go of its userfaultfd.
func (p *process) Close() {
	p.Target.Close()
	if p.file != nil {
		p.file.Close()
	}
}

// takeFD returns the userfaultfd as the engine takes it.
func (p *process) takeFD() (*uffd.FD, error) {
	fd, err := unix.FcntlInt(p.file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	// What File.Fd returns blocks from then on, and the flag belongs to the open file.
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	p.file.Close()
	p.file = nil
	return uffd.FromFD(fd)
}

// touch walks, and returns the accesses of all threads.
func (p *process) touch(ctx context.Context, w uffdtest.Walk) ([]uffdtest.Access, error) {
	return collect(ctx, p.Walk(w))
}

func collect(ctx context.Context, calls []*uffdtest.Call[[]uffdtest.Access]) ([]uffdtest.Access, error) {
	var all []uffdtest.Access
	for _, c := range calls {
		seen, err := c.Wait(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, seen...)
	}
	return all, nil
}
