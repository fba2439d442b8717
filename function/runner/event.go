package runner

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Loaded says how long it took to load, in seconds.
type Loaded struct {
	Import    float64 `json:"import"`
	Construct float64 `json:"construct"`
	EnterSnap float64 `json:"enter_snap"`
}

// Prepared says what a runner has found before it is frozen.
type Prepared struct {
	// Problems are what cannot be frozen, or not so that it is of use afterwards.
	Problems []Problem `json:"problems"`
	// Generators draw the same numbers after each restore: nobody has registered them.
	Generators []Generator `json:"generators"`
	// Seconds says how long each step took.
	Seconds map[string]float64 `json:"seconds"`
}

// Problem is something of a process that cannot be frozen, or will not be of use afterwards.
type Problem struct {
	Kind   string `json:"kind"` // connection, io_uring, inotify, thread, gpu and others
	What   string `json:"what"`
	Hint   string `json:"hint"`   // what an author can do
	Blocks bool   `json:"blocks"` // the process cannot be frozen with it; else its author should know
}

// Generator is a generator of random numbers.
type Generator struct {
	Where string `json:"where"` // module.attribute
	Type  string `json:"type"`
}

// Ready says how long a boot took, in seconds.
type Ready struct {
	Refresh      float64 `json:"refresh"`
	AfterRestore float64 `json:"after_restore"`
	Enter        float64 `json:"enter"`
}

// Result is what a call has returned.
type Result struct {
	Value   json.RawMessage
	Seconds float64 // in the runner
}

// Response is an endpoint's answer to a [Request].
type Response struct {
	Status  int
	Headers [][2]string
	Body    []byte
}

// event is one line of a runner. The fields of other kinds than its own are empty.
type event struct {
	Event string `json:"event"`

	// imported has a number, result too; loaded, prepared and ready an object
	Seconds json.RawMessage `json:"seconds"`

	// prepared
	Problems   []Problem   `json:"problems"`
	Generators []Generator `json:"generators"`

	// result, error, response
	ID      uint64          `json:"id"`
	Value   json.RawMessage `json:"value"`
	Status  int             `json:"status"`
	Headers [][2]string     `json:"headers"`
	Body    []byte          `json:"body"`

	// error, failed
	Kind      string `json:"kind"`
	Stage     string `json:"stage"`
	Type      string `json:"type"`
	Message   string `json:"message"`
	Traceback string `json:"traceback"`
}

// parseEvent reads a line. Fields that it does not know are let pass: the SDK may be newer. Errors wrap [ErrProtocol].
func parseEvent(line []byte) (*event, error) {
	e := new(event)
	if err := json.Unmarshal(line, e); err != nil {
		return nil, fmt.Errorf("%w: %w: %.200q", ErrProtocol, err, line)
	}
	if err := e.check(); err != nil {
		return nil, fmt.Errorf("%w: %w: %.200q", ErrProtocol, err, line)
	}
	return e, nil
}

// check returns an error unless the event is one, with what belongs to it.
func (e *event) check() error {
	var seconds any
	switch e.Event {
	case "imported", "result":
		seconds = new(float64)
	case "loaded":
		seconds = new(Loaded)
	case "ready":
		seconds = new(Ready)
	case "prepared":
		seconds = new(map[string]float64)
	case "response":
		if e.Status < 100 || e.Status > 999 {
			return fmt.Errorf("status %d is none of HTTP's", e.Status)
		}
	case "failed":
		if e.Stage == "" {
			return fmt.Errorf("stage is missing")
		}
	case "error", "stopped":
	case "":
		return fmt.Errorf("event is missing")
	default:
		return fmt.Errorf("event %q is unknown", e.Event)
	}
	if e.isAnswer() && e.ID == 0 {
		return fmt.Errorf("id is missing")
	}
	if seconds == nil || len(e.Seconds) == 0 {
		return nil
	}
	return json.Unmarshal(e.Seconds, seconds)
}

// isAnswer reports whether the event belongs to a call.
func (e *event) isAnswer() bool {
	return e.Event == "result" || e.Event == "error" || e.Event == "response"
}

// seconds decodes what check has seen to be right.
func seconds[T any](e *event) (t T) {
	if len(e.Seconds) > 0 {
		_ = json.Unmarshal(e.Seconds, &t)
	}
	return t
}

// failed returns the error that the event reports.
func (e *event) failed() error {
	return &FailedError{Stage: e.Stage, Type: e.Type, Message: e.Message, Traceback: e.Traceback}
}

// result returns what a call comes to.
func (e *event) result() (*Result, error) {
	if e.Event == "error" {
		return nil, &CallError{Kind: e.Kind, Type: e.Type, Message: e.Message, Traceback: e.Traceback}
	}
	value := bytes.Clone(orEmpty(e.Value, "null"))
	return &Result{Value: value, Seconds: seconds[float64](e)}, nil
}
