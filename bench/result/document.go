package result

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"time"
)

// Version is that of the document's form. Readers refuse others.
const Version = 1

// ErrVersion is returned for a document in another form.
var ErrVersion = errors.New("unknown version of benchmark document")

// Host is the machine and the software that the run was made with.
type Host struct {
	CPU        string    `json:"cpu"`
	Cores      int       `json:"cores"`
	Memory     uint64    `json:"memory_bytes"`
	Kernel     string    `json:"kernel"`
	OS         string    `json:"os"`
	FileSystem string    `json:"file_system"` // of the folder with stores and files
	Go         string    `json:"go"`
	Arch       string    `json:"arch"`
	CC         string    `json:"cc"`     // what the baselines were compiled with
	CRIU       string    `json:"criu"`   // empty if there is none
	Commit     string    `json:"commit"` // "-dirty" behind it: the tree had changes
	Date       time.Time `json:"date"`
	// Busy is the part of all cores that somebody else used in the second before the run.
	Busy float64 `json:"busy_before_run"`
}

// Settings are what the run was asked for.
type Settings struct {
	Repetitions int      `json:"repetitions"`
	Quick       bool     `json:"quick,omitempty"` // tiny sizes: the numbers say that it works, and nothing else
	Filter      string   `json:"filter,omitempty"`
	Scenarios   []string `json:"scenarios"`
}

// A ChartKind says how a metric is shown.
type ChartKind string

const (
	// Distribution draws how large a part of the observations is below a value.
	Distribution ChartKind = "distribution"
	// OverParam draws the metric against a numeric setting.
	OverParam ChartKind = "over-param"
	// OverTime draws the curves of the trials.
	OverTime ChartKind = "over-time"
)

// A Chart is one picture of a scenario.
type Chart struct {
	Kind   ChartKind `json:"kind"`
	Title  string    `json:"title"`
	Metric string    `json:"metric"`
	// X is the setting along the x axis, of OverParam.
	X string `json:"x,omitempty"`
	// Only restricts the chart to these settings.
	Only Params `json:"only,omitempty"`
}

// Scenario describes one that was run.
type Scenario struct {
	Name    string  `json:"name"`
	Summary string  `json:"summary"`
	Charts  []Chart `json:"charts"`
	// Notes say what was left out and why, and what a reader must know.
	Notes   []string `json:"notes,omitempty"`
	Seconds float64  `json:"took_s"`
}

// A Goal is a figure to reach, with what was reached.
type Goal struct {
	Scenario string `json:"scenario"`
	Name     string `json:"name"`
	Params   Params `json:"params,omitempty"`
	// Want is the bound: Reached must be at least that much if AtLeast is set, at most that much otherwise.
	Want    float64 `json:"want"`
	AtLeast bool    `json:"at_least"`
	Reached float64 `json:"reached"`
	Met     bool    `json:"met"`
	// Ours and Floor are what Reached is the ratio of; of a goal that is no ratio Floor is left out.
	Ours  float64 `json:"ours"`
	Floor float64 `json:"floor,omitempty"`
	Unit  string  `json:"unit"`
	// FloorIs says how the floor was measured.
	FloorIs string `json:"floor_is,omitempty"`
	// Limit is the best that Reached can be on this machine, by what was measured in the same run; left out if that is not known.
	Limit float64 `json:"limit,omitempty"`
	// LimitIs says how the limit was measured.
	LimitIs string `json:"limit_is,omitempty"`
}

// Document is all that a run came to.
type Document struct {
	Version   int        `json:"version"`
	Host      Host       `json:"host"`
	Settings  Settings   `json:"settings"`
	Scenarios []Scenario `json:"scenarios"`
	Goals     []Goal     `json:"goals"`
	Series    []*Series  `json:"series"`
}

// Add takes in what one repetition of a trial observed.
func (d *Document) Add(scenario string, params Params, subject string, seen []Observation) {
	for _, o := range seen {
		d.series(scenario, params, subject, o.Metric).add(o)
	}
}

func (d *Document) series(scenario string, params Params, subject string, m Metric) *Series {
	for _, s := range d.Series {
		if s.Scenario == scenario && s.Subject == subject && s.Name == m.Name && s.Params.String() == params.String() {
			return s
		}
	}
	s := &Series{Scenario: scenario, Params: params, Subject: subject, Metric: m}
	d.Series = append(d.Series, s)
	return s
}

// Finish computes what follows from the observations. Nothing can be added after it.
func (d *Document) Finish() {
	d.Version = Version
	for _, s := range d.Series {
		s.finish()
	}
}

// Find returns the first series that matches, nil if none does. Of params it has to have at least those given.
func (d *Document) Find(scenario string, params Params, subject, metric string) *Series {
	for _, s := range d.Series {
		if s.Scenario == scenario && s.Subject == subject && s.Name == metric && s.Params.Has(params) {
			return s
		}
	}
	return nil
}

// WriteJSON writes the document.
func (d *Document) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", " ")
	return enc.Encode(d)
}

// ReadJSON reads what WriteJSON wrote.
func ReadJSON(r io.Reader) (*Document, error) {
	var d Document
	if err := json.NewDecoder(r).Decode(&d); err != nil {
		return nil, fmt.Errorf("read benchmark document: %w", err)
	}
	if d.Version != Version {
		return nil, fmt.Errorf("%w %d, want %d", ErrVersion, d.Version, Version)
	}
	for _, s := range d.Series {
		if s == nil || len(s.Samples) == 0 || math.IsNaN(s.Median) {
			return nil, errors.New("read benchmark document: a series without samples")
		}
	}
	return &d, nil
}
