package runner

import "encoding/json"

// Load says what object a runner makes.
type Load struct {
	// File is the path of the author's module in the container, Object the name of the class or function in it.
	File   string
	Object string
	// Parameters are the class's, as a JSON object; nil if it has none.
	Parameters json.RawMessage
	// Env changes the environment before the module is imported: one that was restored from a template has the template's. A nil value takes
	// a variable away.
	Env map[string]*string
	// Network and GPU say whether the object has these from the start; else it is told to wait for the boot when it wants one.
	Network, GPU bool
}

// Boot says under what circumstances a runner serves.
type Boot struct {
	// Restored says that it comes from a snapshot, and must make itself unlike all others that do.
	Restored bool
	// Generation is different for each boot, 32 hexadecimal digits.
	Generation string
	// Env changes the environment. A nil value takes a variable away.
	Env map[string]*string
	// Hostname is the container's host name now; empty: as it is.
	Hostname string
	// CPUs are those it may use; nil: as it is.
	CPUs []int
	// KeepRandom leaves the state of random generators as it was frozen. For tests: two restores then draw the same numbers.
	KeepRandom bool
	// FrozenAt is when it was frozen, in seconds since 1970; 0: it was not.
	FrozenAt float64
}

// Call is a call of a method.
type Call struct {
	Method string
	// Args is a JSON array, Kwargs a JSON object; nil: empty.
	Args, Kwargs json.RawMessage
}

// Request is an HTTP request to an endpoint.
type Request struct {
	Method  string      `json:"method"`
	Path    string      `json:"path"`
	Query   string      `json:"query"`
	Headers [][2]string `json:"headers"`
	Body    []byte      `json:"body"` // in base64
}

// Commands as they are written.
type (
	importCommand struct {
		Op      string   `json:"op"`
		Modules []string `json:"modules"`
	}
	loadCommand struct {
		Op         string             `json:"op"`
		File       string             `json:"file"`
		Object     string             `json:"object"`
		Parameters json.RawMessage    `json:"parameters"` // null if there are none
		Env        map[string]*string `json:"env"`
		Network    bool               `json:"network"`
		GPU        bool               `json:"gpu"`
	}
	bootCommand struct {
		Op         string             `json:"op"`
		Restored   bool               `json:"restored"`
		Generation string             `json:"generation"`
		Env        map[string]*string `json:"env"`
		Hostname   string             `json:"hostname"`
		CPUs       []int              `json:"cpus"` // null if they stay
		Reseed     bool               `json:"reseed"`
		FrozenAt   *float64           `json:"frozen_at"`
	}
	callCommand struct {
		Op     string          `json:"op"`
		ID     uint64          `json:"id"`
		Method string          `json:"method"`
		Args   json.RawMessage `json:"args"`
		Kwargs json.RawMessage `json:"kwargs"`
	}
	httpCommand struct {
		Op      string   `json:"op"`
		ID      uint64   `json:"id"`
		Method  string   `json:"method"`
		Request *Request `json:"request"`
	}
	plainCommand struct {
		Op string `json:"op"`
	}
)

func (b *Boot) command() bootCommand {
	c := bootCommand{
		Op: "boot", Restored: b.Restored, Generation: b.Generation, Env: orNone(b.Env), Hostname: b.Hostname, CPUs: b.CPUs, Reseed: !b.KeepRandom,
	}
	if b.FrozenAt != 0 {
		c.FrozenAt = &b.FrozenAt
	}
	return c
}

func (l *Load) command() loadCommand {
	return loadCommand{
		Op: "load", File: l.File, Object: l.Object, Parameters: orEmpty(l.Parameters, "null"), Env: orNone(l.Env), Network: l.Network, GPU: l.GPU,
	}
}

// orNone gives what is not there the JSON value of an empty object.
func orNone(env map[string]*string) map[string]*string {
	if env == nil {
		return map[string]*string{}
	}
	return env
}

// orEmpty gives what is not there the JSON value that stands for nothing.
func orEmpty(raw json.RawMessage, empty string) json.RawMessage {
	if len(raw) == 0 {
		return json.RawMessage(empty)
	}
	return raw
}
