package tracer

import (
	"errors"
	"fmt"
	"strings"

	"thaw/restore/tracer/trace"
)

// A Refusal says why a point, better than the one that is used, cannot be.
type Refusal struct {
	Point trace.Point
	Err   error
}

func (r Refusal) String() string { return fmt.Sprintf("%v: %v", r.Point, r.Err) }

// choose attaches to the best point that the kernel lets us have. Which those are cannot be told from the kernel's
// version: it depends on how it was built, and on what the process may do. So each is tried, the best one first.
//
// Returns the refusals of the better points; if all refuse, an error that wraps those of all.
func choose[T any](attach func(trace.Point) (T, error)) (point trace.Point, attached T, refused []Refusal, err error) {
	for _, p := range []trace.Point{trace.PointFentry, trace.PointKprobe, trace.PointTracepoints, trace.PointUserTracepoint} {
		attached, err = attach(p)
		if err == nil {
			return p, attached, refused, nil
		}
		refused = append(refused, Refusal{p, err})
	}
	return 0, attached, refused, refusalError(refused)
}

// refusalError makes one error of the refusals of all points.
func refusalError(refused []Refusal) error {
	var texts []string
	var causes []error
	for _, r := range refused {
		texts = append(texts, r.String())
		causes = append(causes, r.Err)
	}
	return &refusalsError{strings.Join(texts, "; "), causes}
}

type refusalsError struct {
	text   string
	causes []error
}

func (e *refusalsError) Error() string { return "no way to see page faults: " + e.text }

func (e *refusalsError) Unwrap() []error { return e.causes }

// errNoField: a tracepoint has no such field in this kernel.
var errNoField = errors.New("tracepoint has no such field")

// fieldOffset finds where a field lies in the records of a tracepoint, in its format file.
func fieldOffset(format, field string) (uint32, error) {
	for line := range strings.Lines(format) {
		declaration, rest, ok := strings.Cut(strings.TrimSpace(line), ";")
		if !ok || !strings.HasPrefix(declaration, "field:") {
			continue
		}
		words := strings.Fields(declaration)
		if words[len(words)-1] != field {
			continue
		}
		var offset uint32
		if _, err := fmt.Sscanf(strings.TrimSpace(rest), "offset:%d;", &offset); err != nil {
			return 0, fmt.Errorf("offset of %s: %w", field, err)
		}
		return offset, nil
	}
	return 0, fmt.Errorf("%w: %s", errNoField, field)
}
