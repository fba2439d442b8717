package version

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
)

// MaxDescriptionLen bounds the document that describes an app, in bytes.
const MaxDescriptionLen = 4 << 20

// Description is what `python -m thaw.describe` says of an app, by running its module once.
type Description struct {
	SDK    string `json:"sdk"`    // version of the SDK
	Python string `json:"python"` // version of Python
	App    string `json:"app"`    // name of the app: see [CheckName]

	// Sources are the files below the app's folder that the import loaded; Include are patterns of more files that the app
	// declares; Data are patterns of its data files; Dependencies is its lock file, empty if it declares none. All are relative
	// to the app's folder, with slashes.
	Sources      []string `json:"sources"`
	Include      []string `json:"include,omitempty"`
	Data         []string `json:"data,omitempty"`
	Dependencies string   `json:"dependencies,omitempty"`

	Template *Template `json:"template,omitempty"`
	Objects  []Object  `json:"objects"`

	// Generators are generators of random numbers in the module's globals that are not registered: each restore repeats them.
	Generators []Generator `json:"generators,omitempty"`
}

// Template says what a snapshot that several functions share has imported.
type Template struct {
	Modules []string `json:"modules"`
}

// Object is a function or a class of an app.
type Object struct {
	Name       string      `json:"name"`
	Kind       string      `json:"kind"`     // "class" or "function"
	Snapshot   bool        `json:"snapshot"` // it asked for a memory snapshot
	Methods    []Method    `json:"methods"`
	Parameters []Parameter `json:"parameters,omitempty"`

	Concurrency  int               `json:"concurrency"` // calls at the same time, at least 1
	Env          map[string]string `json:"env,omitempty"`
	Secrets      []string          `json:"secrets,omitempty"`
	CPU          *float64          `json:"cpu,omitempty"`    // cores; nil: no limit
	Memory       *int64            `json:"memory,omitempty"` // bytes; nil: no limit
	GPU          string            `json:"gpu,omitempty"`    // "any", or empty
	MinInstances int               `json:"min_instances,omitempty"`
	IdleTimeout  *float64          `json:"idle_timeout,omitempty"` // seconds; nil: the server's choice
	WarmUp       bool              `json:"warmup,omitempty"`
	Template     *Template         `json:"template,omitempty"` // nil: the app's
}

// Method is what can be called of an object.
type Method struct {
	Name      string `json:"name"`
	Kind      string `json:"kind"` // "method" or "web"
	Async     bool   `json:"async,omitempty"`
	Signature string `json:"signature,omitempty"`
}

// Parameter is what an instance of a class is constructed with.
type Parameter struct {
	Name     string          `json:"name"`
	Type     string          `json:"type,omitempty"`
	Required bool            `json:"required,omitempty"`
	Default  json.RawMessage `json:"default,omitempty"` // null if it is required
}

// Generator is a generator of random numbers.
type Generator struct {
	Where string `json:"where"` // such as "app.RNG"
	Type  string `json:"type"`  // such as "numpy.random.Generator"
}

// AuthorError is what went wrong in the author's own code.
type AuthorError struct {
	Type      string `json:"type"` // such as "ImportError"
	Message   string `json:"message"`
	Traceback string `json:"traceback"` // the author's frames
}

// Error returns type and message, without the traceback.
func (e *AuthorError) Error() string { return e.Type + ": " + e.Message }

// ErrDescription is returned for a document that is no description.
var ErrDescription = errors.New("unusable description of an app")

// ParseDescription reads what `python -m thaw.describe` prints. Fields that it does not know are let pass. The error is an
// [*AuthorError] if the document tells of one, else it wraps [ErrDescription].
func ParseDescription(text []byte) (*Description, error) {
	var doc struct {
		Error *AuthorError `json:"error"`
		Description
	}
	if len(text) > MaxDescriptionLen {
		return nil, fmt.Errorf("%w: %d bytes, want at most %d", ErrDescription, len(text), MaxDescriptionLen)
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDescription, err)
	}
	if doc.Error != nil {
		return nil, doc.Error
	}
	if err := doc.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDescription, err)
	}
	return &doc.Description, nil
}

func (d *Description) check() error {
	if err := CheckName(d.App); err != nil {
		return fmt.Errorf("name of the app: %w", err)
	}
	if len(d.Sources) == 0 {
		return errors.New("it names no file")
	}
	paths := slices.Concat(d.Sources, d.Include, d.Data)
	if d.Dependencies != "" {
		paths = append(paths, d.Dependencies)
	}
	for _, p := range paths {
		if !filepath.IsLocal(p) {
			return fmt.Errorf("file %q is not below the app's folder", p)
		}
	}
	if len(d.Objects) == 0 {
		return errors.New("it has no function and no class: see @app.function and @app.cls")
	}
	seen := make(map[string]bool)
	for i := range d.Objects {
		o := &d.Objects[i]
		if seen[o.Name] {
			return fmt.Errorf("%s is there twice", o.Name)
		}
		seen[o.Name] = true
		if err := o.check(); err != nil {
			return fmt.Errorf("%s: %w", o.Name, err)
		}
	}
	return nil
}

func (o *Object) check() error {
	switch {
	case CheckName(o.Name) != nil:
		return fmt.Errorf("name: %w", CheckName(o.Name))
	case o.Kind != "class" && o.Kind != "function":
		return fmt.Errorf("kind %q, want class or function", o.Kind)
	case o.Concurrency < 1:
		return fmt.Errorf("%d calls at the same time, want at least 1", o.Concurrency)
	case o.CPU != nil && *o.CPU <= 0:
		return fmt.Errorf("%v cores", *o.CPU)
	case o.Memory != nil && *o.Memory <= 0:
		return fmt.Errorf("%d bytes of memory", *o.Memory)
	case o.MinInstances < 0:
		return fmt.Errorf("at least %d instances", o.MinInstances)
	case o.IdleTimeout != nil && *o.IdleTimeout < 0:
		return fmt.Errorf("idle timeout of %v seconds", *o.IdleTimeout)
	}
	for _, m := range o.Methods {
		if m.Name == "" || m.Kind != "method" && m.Kind != "web" {
			return fmt.Errorf("method %q of kind %q, want method or web", m.Name, m.Kind)
		}
	}
	return nil
}

// Object returns the object of that name, or nil.
func (d *Description) Object(name string) *Object {
	for i := range d.Objects {
		if d.Objects[i].Name == name {
			return &d.Objects[i]
		}
	}
	return nil
}

// maxNameLen bounds names, so that they fit in the name of a file with what is put before and after them.
const maxNameLen = 64

// CheckName returns an error unless name can be that of an app or an object: 1 to 64 ASCII letters, digits, '.', '_' and '-', the first
// a letter, a digit or '_'.
func CheckName(name string) error {
	if name == "" || len(name) > maxNameLen {
		return fmt.Errorf("%q has %d bytes, want 1 to %d", name, len(name), maxNameLen)
	}
	for i, c := range []byte(name) {
		alnum := '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_'
		if !alnum && (i == 0 || c != '.' && c != '-') {
			return fmt.Errorf("%q holds %q; letters, digits, '.', '_' and '-' are allowed", name, c)
		}
	}
	return nil
}
