package control

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"
)

// MaxRequestBytes bounds the body of a request. The largest sensible one holds two paths.
const MaxRequestBytes = 64 << 10

// Stream says what a session does about pages that nobody has asked for.
type Stream string

const (
	// StreamAll brings every page, behind the ones that are asked for. Afterwards the processes need thawd no more.
	StreamAll Stream = "all"
	// StreamNone brings only what is asked for. The session lasts as long as its processes.
	StreamNone Stream = "none"
)

// WorkingSetUses lists what a request may say about the working set.
func WorkingSetUses() []WorkingSetUse { return []WorkingSetUse{WorkingSetUsed, WorkingSetIgnored} }

// Streams lists the streams that a request may name.
func Streams() []Stream { return []Stream{StreamAll, StreamNone} }

// WorkingSetUse says what a session does with the snapshot's working set.
type WorkingSetUse string

const (
	// WorkingSetUsed brings the pages that earlier restores needed before all others.
	WorkingSetUsed WorkingSetUse = "use"
	// WorkingSetIgnored does as if there were none, and as if no restore had been seen before.
	WorkingSetIgnored WorkingSetUse = "ignore"
)

// SessionRequest asks for a session. Exactly one of Snapshot and ImagesDir is set.
type SessionRequest struct {
	Snapshot  string `json:"snapshot,omitempty"`   // name in the store: "snapshot" or "namespace/snapshot"
	ImagesDir string `json:"images_dir,omitempty"` // absolute path of a folder of CRIU images, as criu dump wrote it

	// WorkDir is the absolute path of an existing folder for lazy-pages.socket and the runtime's logs. Empty: thawd
	// makes one, and removes it when it forgets the session.
	WorkDir string `json:"work_dir,omitempty"`

	// Binds say where the restored processes will see folders of this host. If the folder of the snapshot's packs is in one of
	// them, memory that is fit for it is mapped from the packs instead of being copied, and ImagesDir of the answer says so to
	// the runtime. Empty: all memory is copied.
	Binds []Bind `json:"binds,omitempty"`

	// WorkingSet says whether the snapshot's working set is used, if it has one. Default: it is.
	WorkingSet WorkingSetUse `json:"working_set,omitempty"`

	// Record has what the processes touch first recorded, until they are marked as having answered or some time is over, and the
	// snapshot's working set learn from it. Memory is copied then and none is mapped, page by page as it is touched, so the processes are
	// slower than usual. Not for ImagesDir.
	Record bool `json:"record,omitempty"`

	Stream             Stream `json:"stream,omitempty"`           // default: all
	RateBytesPerSecond uint64 `json:"rate_bytes_per_s,omitempty"` // bound of the stream; 0: as fast as it goes
}

// Validate returns an [Error] with [CodeInvalid] unless the request says exactly what to restore, with known values.
func (r *SessionRequest) Validate() error {
	invalid := func(format string, args ...any) error {
		return &Error{Code: CodeInvalid, Message: fmt.Sprintf(format, args...)}
	}
	switch {
	case r.Snapshot == "" && r.ImagesDir == "":
		return invalid("neither snapshot nor images_dir is set: one of them says what to restore")
	case r.Snapshot != "" && r.ImagesDir != "":
		return invalid("both snapshot and images_dir are set: only one of them can say what to restore")
	case r.ImagesDir != "" && !filepath.IsAbs(r.ImagesDir):
		return invalid("images_dir %q is not an absolute path", r.ImagesDir)
	case r.WorkDir != "" && !filepath.IsAbs(r.WorkDir):
		return invalid("work_dir %q is not an absolute path", r.WorkDir)
	case r.WorkingSet != "" && r.WorkingSet != WorkingSetUsed && r.WorkingSet != WorkingSetIgnored:
		return invalid("working_set %q is neither %q nor %q", r.WorkingSet, WorkingSetUsed, WorkingSetIgnored)
	case r.Record && r.Snapshot == "":
		return invalid("record is set without snapshot: only a snapshot has a working set")
	case r.Stream != "" && r.Stream != StreamAll && r.Stream != StreamNone:
		return invalid("stream %q is neither %q nor %q", r.Stream, StreamAll, StreamNone)
	}
	for _, b := range r.Binds {
		if !filepath.IsAbs(b.Source) || !filepath.IsAbs(b.Target) {
			return invalid("bind of %q at %q: both must be absolute paths", b.Source, b.Target)
		}
	}
	return nil
}

// A Bind is a folder of this host that processes see in their mount namespace. Both paths are absolute.
type Bind struct {
	Source string `json:"source"` // here
	Target string `json:"target"` // there: a mount point, or / for processes in the mount namespace of thawd
}

// State says where a session is in its life.
//
//	waiting --runtime connects--> restoring --finish message--> serving --last page in place, or processes gone--> complete
//	   |                             |                             |
//	   +--DELETE, drain-> cancelled  +--runtime closes early--+    +--page cannot be had, thawd stopped--> failed
//	   +--connect timeout-> failed                            +--> failed
type State string

const (
	// StateWaiting: the socket listens, no runtime has connected yet.
	StateWaiting State = "waiting"
	// StateRestoring: a runtime is connected and restores the processes; faults are served already.
	StateRestoring State = "restoring"
	// StateServing: the processes run, and pages of theirs are still here.
	StateServing State = "serving"
	// StateComplete: every process has all its memory, or is gone. An end state.
	StateComplete State = "complete"
	// StateFailed: the restore failed, or memory could not be brought; Error says why. An end state.
	StateFailed State = "failed"
	// StateCancelled: taken back before a runtime connected. An end state.
	StateCancelled State = "cancelled"
)

// States lists all states.
func States() []State {
	return []State{StateWaiting, StateRestoring, StateServing, StateComplete, StateFailed, StateCancelled}
}

// Ended reports whether s is an end state: the session serves nobody any more.
func (s State) Ended() bool {
	return s == StateComplete || s == StateFailed || s == StateCancelled
}

// Session is what thawd tells about one restore.
type Session struct {
	ID       string `json:"id"`
	Snapshot string `json:"snapshot,omitempty"` // full name; empty for a session over plain images

	// Host is what the snapshot says of the host that it was frozen on, and of what a restore must repeat. A JSON object;
	// not set for a session over plain images.
	Host json.RawMessage `json:"host,omitempty"`

	// What the runtime needs: criu restore --lazy-pages --images-dir ImagesDir --work-dir WorkDir.
	ImagesDir string `json:"images_dir"`
	WorkDir   string `json:"work_dir"`
	Socket    string `json:"socket"`

	Stream             Stream `json:"stream"`
	RateBytesPerSecond uint64 `json:"rate_bytes_per_s"`

	State   State      `json:"state"`
	Created time.Time  `json:"created"`
	Running *time.Time `json:"running,omitempty"` // when the runtime's finish message came
	Ended   *time.Time `json:"ended,omitempty"`

	Progress Progress `json:"progress"`
	Counters Counters `json:"counters"`

	// WorkingSet says what the working set was worth so far; not set if none was used.
	WorkingSet *WorkingSetReport `json:"working_set,omitempty"`

	// Tiers says where the snapshot's pages came from; not set if all of them were here, or no other place is known.
	Tiers *SessionTiers `json:"tiers,omitempty"`

	// Recording is set if the session is recorded: because that was asked for, or as one of a share of all restores.
	Recording *RecordingReport `json:"recording,omitempty"`

	Error      string      `json:"error,omitempty"`       // why the session failed
	FailedPage *FailedPage `json:"failed_page,omitempty"` // the page that could not be had, if that is why
}

// RecordingReport says what became of the recording of a session.
type RecordingReport struct {
	State RecordingState `json:"state"`
	Error string         `json:"error,omitempty"` // why nothing was recorded, or nothing was learned

	Point    string   `json:"point,omitempty"`      // from where in the kernel touches were noticed
	Blind    []string `json:"cannot_see,omitempty"` // what cannot be noticed from there
	Complete bool     `json:"complete"`             // nothing was lost
	Seconds  float64  `json:"length_s"`             // how long was recorded

	PagesTouched uint64 `json:"pages_touched"` // pages of the image that were seen to be touched
	PagesOfFiles uint64 `json:"pages_of_files"`
	Outside      uint64 `json:"outside"` // touches of other memory: new, or zero

	// How many pages of the working set were touched, and how many were not: of all if the recording was asked for, for then the set is not
	// used; else of those that were left out to see whether they are needed, and what that says of the whole set.
	Used      uint64   `json:"used"`
	Unused    uint64   `json:"unused"`
	Missed    uint64   `json:"missed"` // pages that were touched and are not in the set
	Precision *float64 `json:"precision,omitempty"`
	Recall    *float64 `json:"recall,omitempty"`
}

// RecordingState says how far a recording is.
type RecordingState string

const (
	// RecordingWaits: the processes do not run yet.
	RecordingWaits RecordingState = "waiting"
	// RecordingRuns: touches are recorded.
	RecordingRuns RecordingState = "recording"
	// RecordingLearned: the working set has learned from it. An end state.
	RecordingLearned RecordingState = "learned"
	// RecordingFailed: it has not; Error says why. An end state.
	RecordingFailed RecordingState = "failed"
)

// RecordingStates lists all states of recordings.
func RecordingStates() []RecordingState {
	return []RecordingState{RecordingWaits, RecordingRuns, RecordingLearned, RecordingFailed}
}

// Ended reports whether s is an end state.
func (s RecordingState) Ended() bool { return s == RecordingLearned || s == RecordingFailed }

// Mark is something that happens to recorded processes, and that thawd cannot see.
type Mark string

const (
	// MarkReady: the first request is being made.
	MarkReady Mark = "ready"
	// MarkAnswered: the first request has been answered. The recording ends.
	MarkAnswered Mark = "answered"
)

// Marks lists all marks.
func Marks() []Mark { return []Mark{MarkReady, MarkAnswered} }

// MarkRequest is the body of POST /v1/sessions/{id}/marks.
type MarkRequest struct {
	Mark Mark `json:"mark"`
}

// Progress counts processes and pages of one session.
type Progress struct {
	Processes   int    `json:"processes"`    // handed over by the runtime, or forked by those
	Live        int    `json:"live"`         // of these, the ones that are neither gone nor complete
	PagesTotal  uint64 `json:"pages_total"`  // pages with content of all processes, without those that are mapped
	PagesMapped uint64 `json:"pages_mapped"` // pages that are mapped from packs, by the runtime
	PagesDone   uint64 `json:"pages_done"`   // of these, the ones in place or no longer needed
	PagesFailed uint64 `json:"pages_failed"` // of these, the ones whose content could not be had
}

// Counters say what a session has done so far.
type Counters struct {
	Faults        map[string]uint64 `json:"faults"`         // faults by outcome
	BytesDemand   uint64            `json:"bytes_demand"`   // installed because a process asked
	BytesStreamed uint64            `json:"bytes_streamed"` // installed before a process asked
	BytesZero     uint64            `json:"bytes_zero"`     // zero pages installed

	BytesPreloaded uint64 `json:"bytes_preloaded"` // installed because the working set has them

	// Page faults that had to bring content: of pages that the working set has and that were not there yet, and of others.
	DemandLate   uint64 `json:"demand_late"`
	DemandMissed uint64 `json:"demand_missed"`

	// Waited is how long all threads together waited for faults, in seconds, from where thawd read a fault to where it was
	// resolved.
	Waited float64 `json:"waited_s"`
}

// WorkingSetReport says what a working set was worth in a session. Pages that the runtime maps from packs are not among those that are
// counted as brought: they are entered into page tables in windows of 64 KiB.
type WorkingSetReport struct {
	Recordings     int     `json:"recordings"`       // restores that it was learned from
	PagesMust      uint64  `json:"pages_must"`       // that the processes are held for
	PagesLikely    uint64  `json:"pages_likely"`     // that follow
	PagesBeforeRun uint64  `json:"pages_before_run"` // brought before the processes ran
	PagesBehind    uint64  `json:"pages_behind"`     // brought while they ran
	Populated      uint64  `json:"populated"`        // windows of mapped files that were entered into page tables
	Held           float64 `json:"held_s"`           // how long the processes were held, in seconds
	HeldInVain     bool    `json:"held_in_vain"`     // the time was over before they had all that they must have
}

// FailedPage names a page that could not be had.
type FailedPage struct {
	Page     uint64 `json:"page"`                // page number in the snapshot's image
	Pack     string `json:"pack,omitempty"`      // pack that should hold it
	PackPage uint64 `json:"pack_page,omitempty"` // page number in that pack
}

// SessionList is the answer to GET /v1/sessions: live sessions and the most recent ended ones, oldest first.
type SessionList struct {
	Sessions []Session `json:"sessions"`
}

// Health is the answer to GET /v1/health and POST /v1/drain.
type Health struct {
	Status   HealthStatus `json:"status"`
	Version  string       `json:"version"`
	PID      int          `json:"pid"`
	Store    string       `json:"store"`    // absolute path of the page store
	Started  time.Time    `json:"started"`  // when this thawd began
	Sessions int          `json:"sessions"` // sessions that have not ended
}

// HealthStatus says whether thawd takes new sessions.
type HealthStatus string

const (
	// HealthOK: sessions can be made.
	HealthOK HealthStatus = "ok"
	// HealthDraining: no new sessions; thawd ends with the last one.
	HealthDraining HealthStatus = "draining"
)
