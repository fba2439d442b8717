package workingset

import (
	"fmt"
	"slices"
	"time"

	"thaw/restore/tracer/trace"
)

// TraceOptions say what the addresses and times of a trace mean.
type TraceOptions struct {
	Digest     [32]byte // of the snapshot's manifest
	ImagePages uint64

	// Spaces is the memory of the restored processes, by pid in the initial pid namespace. A forked child that is not
	// named has its parent's. Of a program that is executed nothing is recorded: its memory is not the snapshot's.
	Spaces map[uint32]Memory

	// When the processes began to run, when the first request was made, and when it was answered: since the start of the
	// trace. Ready and Answered may be 0: that it did not come to that, or that it is not known.
	Running, Ready, Answered time.Duration

	// Hidden are the pages of the image that were not observable: see Recording.
	Hidden []Run
}

// Memory says what a process has at which addresses. Both lists are ascending by address and free of overlap; where an
// extent lies in a range of a file, the extent counts.
type Memory struct {
	Extents []Extent
	Files   []FileRange
}

// An Extent places Pages pages of the image, from page Image on, at Addr (in bytes).
type Extent struct{ Addr, Pages, Image uint64 }

// A FileRange places Pages pages of a file, from page Offset on, at Addr (in bytes).
type FileRange struct {
	Addr, Pages uint64
	Path        string // as the processes see it
	Offset      uint64 // in pages
}

// FromTrace returns what the restored processes of a trace touched of their snapshot. The recording is partial if the trace
// is not complete.
//
// What the processes map anew over the snapshot's memory is not known to a trace and is taken for that memory.
//
// Returns an error if the options contradict themselves, or place pages that the image does not have.
func FromTrace(t *trace.Trace, o *TraceOptions) (*Recording, error) {
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("memory of the restored processes: %w", err)
	}
	r := &Recording{Digest: o.Digest, ImagePages: o.ImagePages, Partial: !t.Complete(), Hidden: slices.Clone(o.Hidden)}
	memory := o.memory(t)
	files := make(map[string]int)
	for i := range t.Touches {
		touch := &t.Touches[i]
		m := memory[touch.Space]
		if m == nil {
			continue
		}
		out := Touch{Time: touch.Time - o.Running, Phase: o.PhaseAt(touch.Time), Write: touch.Write}
		if e := find(m.Extents, touch.Addr, Extent.place); e != nil {
			out.Page = e.Image + (touch.Addr-e.Addr)/PageSize
			r.Image = append(r.Image, out)
			continue
		}
		f := find(m.Files, touch.Addr, FileRange.place)
		if f == nil {
			r.Outside++
			continue
		}
		out.Page = f.Offset + (touch.Addr-f.Addr)/PageSize
		at, known := files[f.Path]
		if !known {
			at = len(r.Files)
			files[f.Path] = at
			r.Files = append(r.Files, FileTouches{Path: f.Path})
		}
		r.Files[at].Touches = append(r.Files[at].Touches, out)
	}
	return r, nil
}

// memory returns what each space of the trace has; spaces that have nothing of the snapshot are not in it.
func (o *TraceOptions) memory(t *trace.Trace) map[uint32]*Memory {
	all := make(map[uint32]*Memory)
	for _, s := range t.Spaces { // parents come first
		named, ok := o.Spaces[s.PID]
		switch {
		case s.Origin == trace.OriginExec, s.Origin == trace.OriginUnknown:
			// Of unknown origin is also what was executed, if the event that would say so was lost.
		case ok:
			all[s.ID] = &named
		case s.Origin == trace.OriginFork && all[s.Parent] != nil:
			all[s.ID] = all[s.Parent]
		}
	}
	return all
}

// PhaseAt returns the phase of a time since the start of the trace.
func (o *TraceOptions) PhaseAt(at time.Duration) Phase {
	switch {
	case o.Answered != 0 && at >= o.Answered:
		return PhaseLater
	case o.Ready != 0 && at >= o.Ready:
		return PhaseRequest
	}
	return PhaseStart
}

func (e Extent) place() (addr, pages uint64)    { return e.Addr, e.Pages }
func (f FileRange) place() (addr, pages uint64) { return f.Addr, f.Pages }

// find returns the range that has the address, nil if none does.
func find[T any](ranges []T, addr uint64, place func(T) (addr, pages uint64)) *T {
	at, _ := slices.BinarySearchFunc(ranges, addr, func(r T, addr uint64) int {
		if start, pages := place(r); start+pages*PageSize <= addr {
			return -1
		}
		return 1
	})
	if at < len(ranges) {
		if start, _ := place(ranges[at]); start <= addr {
			return &ranges[at]
		}
	}
	return nil
}

func (o *TraceOptions) check() error {
	switch {
	case o.ImagePages > MaxImagePages:
		return fmt.Errorf("image of %d pages", o.ImagePages)
	case o.Running < 0, o.Ready != 0 && o.Ready < o.Running, o.Answered != 0 && o.Answered < max(o.Ready, o.Running):
		return fmt.Errorf("running after %v, ready after %v, answered after %v", o.Running, o.Ready, o.Answered)
	}
	for pid, m := range o.Spaces {
		if err := inOrder(m.Extents, Extent.place); err != nil {
			return fmt.Errorf("pid %d: extents: %w", pid, err)
		}
		if err := inOrder(m.Files, FileRange.place); err != nil {
			return fmt.Errorf("pid %d: files: %w", pid, err)
		}
		for _, e := range m.Extents {
			if e.Image > o.ImagePages || e.Pages > o.ImagePages-e.Image {
				return fmt.Errorf("pid %d: %d pages from %d in an image of %d", pid, e.Pages, e.Image, o.ImagePages)
			}
		}
		for _, f := range m.Files {
			if f.Path == "" || len(f.Path) > maxPath || f.Offset > maxFilePages || f.Pages > maxFilePages-f.Offset {
				return fmt.Errorf("pid %d: %d pages from %d in file %q", pid, f.Pages, f.Offset, f.Path)
			}
		}
	}
	return nil
}

// inOrder checks that ranges ascend, are aligned, and end where addresses do.
func inOrder[T any](ranges []T, place func(T) (addr, pages uint64)) error {
	var end uint64
	for _, r := range ranges {
		addr, pages := place(r)
		if addr < end || addr%PageSize != 0 || pages == 0 || addr >= 1<<63 || pages > (1<<63-addr)/PageSize {
			return fmt.Errorf("%d pages at %#x behind %#x", pages, addr, end)
		}
		end = addr + pages*PageSize
	}
	return nil
}
