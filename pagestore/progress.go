package pagestore

import "time"

// progressInterval is how often a progress callback runs at most: a terminal shows no more.
const progressInterval = 100 * time.Millisecond

// Stage is what a long operation is doing.
type Stage string

// The stages, in the order in which they occur.
const (
	// StageImport: reading, hashing and writing pages.
	StageImport Stage = "import"
	// StageSync: waiting for the disk to have what was written.
	StageSync Stage = "sync"
	// StageVerify: reading packs and comparing hashes.
	StageVerify Stage = "verify"
)

// Progress is how far a long operation has come in its stage.
type Progress struct {
	Stage Stage
	// DoneBytes of TotalBytes are done.
	DoneBytes, TotalBytes uint64
	// NewBytes is how much of DoneBytes was new to the store; StageImport only.
	NewBytes uint64
	// Elapsed is the time since the stage began.
	Elapsed time.Duration
}

// BytesPerSecond is the mean speed of the stage so far.
func (p Progress) BytesPerSecond() float64 {
	if p.Elapsed <= 0 {
		return 0
	}
	return float64(p.DoneBytes) / p.Elapsed.Seconds()
}

// meter counts and calls back. It is not safe for concurrent use.
type meter struct {
	progress Progress
	call     func(Progress)
	start    time.Time
	last     time.Time
}

func newMeter(call func(Progress), p Progress) *meter {
	if call == nil {
		call = func(Progress) {}
	}
	now := time.Now()
	m := &meter{progress: p, call: call, start: now, last: now}
	m.call(p)
	return m
}

// add notes n bytes done, and calls back if it is time.
func (m *meter) add(n uint64) {
	m.progress.DoneBytes += n
	if now := time.Now(); now.Sub(m.last) >= progressInterval {
		m.last = now
		m.progress.Elapsed = now.Sub(m.start)
		m.call(m.progress)
	}
}

// finish calls back a last time.
func (m *meter) finish() {
	m.progress.Elapsed = time.Since(m.start)
	m.call(m.progress)
}
