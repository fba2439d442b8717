package report

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"thaw/bench/lab"
)

// Run is one measured run.
type Run struct {
	lab.Run
	Round    int      `json:"round"`                // runs of one round were interleaved
	Overhead *float64 `json:"overhead_s,omitempty"` // filled in by Summarize
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
