package report

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

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
	// Floor restores the skeleton until the process runs, and goes no further: it has no memory and no response.
	Floor Mode = "floor"
)

// Modes lists all modes in the order in which reports show them.
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

// Run is one measured run. Times are in seconds and begin when the restore, or the cold start, is asked for; the
// request is already written into the container's pipe by then. What a mode does not have is left out.
type Run struct {
	Mode  Mode  `json:"mode"`
	Cache Cache `json:"cache"`
	Round int   `json:"round"` // runs of one round were interleaved

	ToRunning       float64  `json:"to_running_s"`
	ToFirstResponse *float64 `json:"to_first_response_s,omitempty"`
	WarmCall        *float64 `json:"warm_call_s,omitempty"` // W: median of the calls made once all memory was there
	// WarmCalls are the calls that W is the median of.
	WarmCalls []float64 `json:"warm_calls_s,omitempty"`
	Overhead  *float64  `json:"overhead_s,omitempty"` // filled in by Summarize

	// ServerStart is the part of ToRunning that passed before the memory server of this restore listened.
	ServerStart *float64 `json:"server_start_s,omitempty"`
	// BytesRead is what the machine read from its disks until the first response.
	BytesRead uint64 `json:"bytes_read"`
	// FaultsServed counts page faults that the memory server resolved until the first response. CRIU's server tells only in
	// a log that slows it down: its number comes from one run apart, whose times are in no report.
	FaultsServed *uint64 `json:"faults_served,omitempty"`
	// MajorFaults and MinorFaults are the kernel's counts for the process until the first response.
	MajorFaults uint64 `json:"major_faults"`
	MinorFaults uint64 `json:"minor_faults"`
	// ServerMemory is the server's own memory in bytes at the first response: RssAnon, so without mapped files.
	ServerMemory *uint64 `json:"server_memory_bytes,omitempty"`
	// Answer is the SHA-256 of the answer's bytes; it is the same in all runs, or there is no report.
	Answer string `json:"answer_sha256,omitempty"`
}

// Host is the machine and the software that the runs were made with.
type Host struct {
	CPU        string    `json:"cpu"`
	Cores      int       `json:"cores"`
	Memory     uint64    `json:"memory_bytes"`
	Kernel     string    `json:"kernel"`
	OS         string    `json:"os"`
	FileSystem string    `json:"file_system"` // of the folder with images and packs
	CRIU       string    `json:"criu"`
	Runc       string    `json:"runc"`
	Go         string    `json:"go"`
	Commit     string    `json:"commit"` // "-dirty" behind it: the tree had changes
	Date       time.Time `json:"date"`
	// Busy is the part of all cores that somebody else used in the second before the runs began.
	Busy float64 `json:"busy_before_runs"`
}

// Snapshot is what was frozen.
type Snapshot struct {
	ImageBytes    uint64   `json:"image_bytes"`              // CRIU's image folder
	SkeletonBytes uint64   `json:"skeleton_bytes,omitempty"` // what of it a lazy restore reads
	StoreBytes    uint64   `json:"store_bytes,omitempty"`    // the page store with this one snapshot
	ImportSeconds float64  `json:"import_s,omitempty"`
	ImportRate    float64  `json:"import_bytes_per_s,omitempty"` // image bytes a second, with all syncs
	FreezeSeconds float64  `json:"freeze_s"`
	WarmUpCalls   int      `json:"warm_up_calls"` // answered by the container before it was frozen
	Request       []string `json:"request_sentences"`
}

// Report is the document that report.json holds.
type Report struct {
	Runs    []Run   `json:"runs"`
	Summary Summary `json:"summary"`
	Host    Host    `json:"host"`
}

// WriteFile writes the report as JSON to path, over an older one, whole or not at all.
func (r *Report) WriteFile(path string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode report: %w", err)
	}
	return writeWhole(path, append(data, '\n'))
}

// writeWhole writes a file under another name and gives it its name when it is complete.
func writeWhole(path string, data []byte) error {
	temp, err := os.CreateTemp(filepath.Dir(path), ".report-*")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name()) // fails once it is renamed, as it should
	_, err = temp.Write(data)
	if err == nil {
		err = temp.Chmod(0o644)
	}
	if closeErr := temp.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	return os.Rename(temp.Name(), path)
}
