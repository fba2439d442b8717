package tier

import (
	"time"

	"thaw/pagestore"
)

// PushOptions change how Push works.
type PushOptions struct {
	// Force replaces a name that stands for another snapshot. By default that is [pagestore.ErrExists].
	Force bool
	// Refresh replaces a name that stands for the same snapshot with another working set. By default it stays as it is.
	Refresh bool
	// Parallel is how many blobs are compressed and sent at a time. Default: 4.
	Parallel int
	// TempDir is for packs while they are compressed: up to Parallel of them, 256 MiB each. Default: [os.TempDir].
	TempDir string
	// Progress is called whenever a blob is there, and when the stage changes, by one goroutine at a time. nil for none.
	Progress func(PushProgress)
}

func (o *PushOptions) setDefaults() {
	if o.Parallel <= 0 {
		o.Parallel = 4
	}
}

// PushStage is what a push is doing.
type PushStage string

// The stages. StageWait comes seldom, and StagePush follows it once more.
const (
	// StagePush: compressing and sending what is not there.
	StagePush PushStage = "push"
	// StageWait: waiting, for minutes at most, for a collection that was running at the place already.
	StageWait PushStage = "wait"
	// StageName: everything is there, and gets its name.
	StageName PushStage = "name"
)

// PushProgress is how far a push has come.
type PushProgress struct {
	Stage PushStage
	// DoneBytes of TotalBytes are there, as they are before they are compressed; SkippedBytes of them were there already.
	DoneBytes, TotalBytes, SkippedBytes int64
	// SentBytes went over the wire.
	SentBytes int64
}

// PushReport says what a push did.
type PushReport struct {
	Name pagestore.Name `json:"name"`
	// Descriptor is what the name stands for now. It is another node's if that has pushed the same snapshot with another working set; see PushOptions.Refresh.
	Descriptor pagestore.Digest `json:"descriptor"`
	// Named: this push wrote the name. Else it stood for that already.
	Named bool `json:"named"`
	// Sent blobs were brought by this push, Skipped ones were there.
	Sent    int `json:"sent"`
	Skipped int `json:"skipped"`
	// SentBytes went over the wire; Bytes is what the snapshot has before it is compressed.
	SentBytes int64         `json:"sent_bytes"`
	Bytes     int64         `json:"bytes"`
	Duration  time.Duration `json:"duration_ns"`
}
