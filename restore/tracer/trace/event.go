package trace

import (
	"cmp"
	"slices"
	"time"
)

// A Kind is what an event is about.
type Kind uint8

const (
	KindTouch  Kind = iota + 1
	KindJoin        // a process of the cgroup was seen for the first time
	KindFork        // a chosen process forked
	KindExec        // a chosen process executes another program
	KindExit        // a chosen process has ended
	KindChosen      // a process was named while the recording ran; no kernel says so, but the recorder
	lastKind   = KindChosen
)

// Valid reports whether the kind is one of the above.
func (k Kind) Valid() bool { return k >= KindTouch && k <= lastKind }

// An Event is what a recorder tells. Fields that its kind has no use for are zero.
type Event struct {
	Time          time.Duration // since the start of the recording
	Kind          Kind
	Addr          uint64 // touch: of the access, not rounded
	Space         uint32 // for all but touch and exit the new one
	Parent        uint32 // fork, exec: the space before
	PID, TID      uint32
	Write, Kernel bool // touch
}

// Limits of what a Builder takes: those of the format. Events beyond them count as lost.
const (
	maxSpaces  = 1 << 20
	maxThreads = 1 << 20
	maxRegions = 1 << 20
	maxTouches = 1 << 26
)

// A Builder makes a trace of events, in any order that recorders give them. It is for one goroutine.
type Builder struct {
	trace   Trace
	spaces  map[uint32]*Space
	threads map[threadKey]struct{}
	regions map[uint32][]Region
}

type threadKey struct{ space, tid uint32 }

// NewBuilder begins a trace of a recording from the point, which started at the time. cgroup is empty if processes are
// named; see Choose.
func NewBuilder(p Point, started time.Time, cgroup string) *Builder {
	return &Builder{
		trace:   Trace{Point: p, Blind: p.Blind(), Started: started, Cgroup: cgroup},
		spaces:  make(map[uint32]*Space),
		threads: make(map[threadKey]struct{}),
		regions: make(map[uint32][]Region),
	}
}

// Choose says that a process was named for the start, and which space it has. One that is named later is an event.
func (b *Builder) Choose(space, pid uint32) {
	b.spaces[space] = &Space{ID: space, PID: pid, Origin: OriginChosen, Ended: Alive}
}

// Add takes an event.
func (b *Builder) Add(e Event) {
	s := b.space(e)
	if s == nil {
		b.trace.LostSpace++
		return
	}
	switch e.Kind {
	case KindTouch:
		b.touch(e)
	case KindJoin:
		s.Origin, s.Began = OriginJoined, e.Time
	case KindChosen:
		s.Origin, s.Began = OriginChosen, e.Time
	case KindFork:
		s.Origin, s.Began, s.Parent = OriginFork, e.Time, e.Parent
	case KindExec:
		s.Origin, s.Began, s.Parent = OriginExec, e.Time, e.Parent
		if before := b.spaces[e.Parent]; before != nil {
			before.Ended = e.Time
		}
	case KindExit:
		s.Ended = e.Time
	}
}

// space returns the space of an event, and makes it if there is none yet. nil: there are too many.
func (b *Builder) space(e Event) *Space {
	s := b.spaces[e.Space]
	if s == nil && e.Space > 0 && len(b.spaces) < maxSpaces && e.Parent < e.Space {
		s = &Space{ID: e.Space, PID: e.PID, Began: e.Time, Ended: Alive}
		b.spaces[e.Space] = s
	}
	return s
}

func (b *Builder) touch(e Event) {
	thread := threadKey{e.Space, e.TID}
	if _, known := b.threads[thread]; !known {
		if len(b.threads) >= maxThreads {
			b.trace.LostSpace++
			return
		}
		b.threads[thread] = struct{}{}
	}
	if len(b.trace.Touches) >= maxTouches {
		b.trace.LostSpace++
		return
	}
	b.trace.Touches = append(b.trace.Touches, Touch{
		Time: e.Time, Addr: e.Addr &^ (PageSize - 1), Space: e.Space, TID: e.TID, Write: e.Write, Kernel: e.Kernel,
	})
}

// Map says which mappings a space has now, ascending. They join those that it had before, and replace the ones that they
// overlap. Of spaces that no event has named nothing is kept.
func (b *Builder) Map(space uint32, now []Region) {
	if b.spaces[space] == nil {
		return
	}
	merged := slices.Clone(now)
	for i := range merged {
		merged[i].Space = space
	}
	for _, old := range b.regions[space] {
		at, _ := slices.BinarySearchFunc(now, old.Start, func(r Region, addr uint64) int { return cmp.Compare(r.End, addr+1) })
		if at == len(now) || now[at].Start >= old.End {
			merged = append(merged, old)
		}
	}
	slices.SortFunc(merged, func(a, b Region) int { return cmp.Compare(a.Start, b.Start) })
	b.regions[space] = merged
}

// Mapped reports whether the address lies in a region of the space that is known.
func (b *Builder) Mapped(space uint32, addr uint64) bool {
	return find(b.regions[space], addr) != nil
}

// find returns the region that has the address, nil if none does. The regions are those of one space.
func find(regions []Region, addr uint64) *Region {
	at, _ := slices.BinarySearchFunc(regions, addr, func(r Region, addr uint64) int { return cmp.Compare(r.End, addr+1) })
	if at < len(regions) && regions[at].Start <= addr {
		return &regions[at]
	}
	return nil
}

// An Ending is what a recorder says at its end.
type Ending struct {
	End                 End
	Length              time.Duration
	LostRing, LostSpace uint64 // events; see Trace
}

// Finish returns the trace. The builder must not be used any more.
func (b *Builder) Finish(end Ending) *Trace {
	t := &b.trace
	t.End, t.Length = end.End, end.Length
	t.LostRing += end.LostRing
	t.LostSpace += end.LostSpace
	// Processors write to the ring buffer in their own order, a little off.
	slices.SortStableFunc(t.Touches, func(a, b Touch) int { return cmp.Compare(a.Time, b.Time) })
	if n := len(t.Touches); n > 0 {
		t.Length = max(t.Length, t.Touches[n-1].Time)
	}
	for _, s := range b.spaces {
		t.Length = max(t.Length, s.Began, s.Ended)
		t.Spaces = append(t.Spaces, *s)
	}
	slices.SortFunc(t.Spaces, func(a, b Space) int { return cmp.Compare(a.ID, b.ID) })
	for _, s := range t.Spaces {
		t.Regions = append(t.Regions, b.regions[s.ID]...)
	}
	t.Regions = t.Regions[:min(len(t.Regions), maxRegions)]
	return t
}
