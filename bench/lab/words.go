package lab

// Mode is a way to get a process that answers.
type Mode string

const (
	// Cold starts the container and lets it import its libraries and load its model.
	Cold Mode = "cold"
	// CRIUEager restores with runc and CRIU; all memory is read before the process runs.
	CRIUEager Mode = "criu-eager"
	// CRIULazy restores with runc and CRIU; CRIU's own lazy-pages server brings the memory.
	CRIULazy Mode = "criu-lazy"
	// Thaw restores with runc and CRIU; thawd brings the memory.
	Thaw Mode = "thaw"
	// ThawBlind is Thaw without a working set, by a thawd that makes no use of earlier restores either.
	ThawBlind Mode = "thaw-blind"
	// ThawSet is Thaw with the working set that [Lab.Learn] has taught.
	ThawSet Mode = "thaw-set"
	// ThawSetCopied is ThawSet with all memory copied and none mapped, so that each page that is waited for is counted.
	ThawSetCopied Mode = "thaw-set-copied"
	// Floor restores the skeleton until the process runs, and goes no further: it has no memory and no response.
	Floor Mode = "floor"
)

// Modes lists the modes in which a container can be started that was only frozen, in the order in which reports show them. Those that are about
// working sets are not among them: one has to be learned first.
func Modes() []Mode { return []Mode{Cold, CRIUEager, CRIULazy, Thaw, Floor} }

// Cache is the state of the page cache before a run.
type Cache string

const (
	// Warm: all files that a run may read were read before it.
	Warm Cache = "warm"
	// Dropped: the page cache was emptied.
	Dropped Cache = "dropped"
)

// Caches lists both states.
func Caches() []Cache { return []Cache{Warm, Dropped} }

// Input says which of a workload's two requests is made.
type Input string

const (
	// SameInput is the request that the container answered right before it was frozen.
	SameInput Input = "same"
	// OtherInput is another one, which reads other parts of the memory.
	OtherInput Input = "other"
)

// Inputs lists both.
func Inputs() []Input { return []Input{SameInput, OtherInput} }
