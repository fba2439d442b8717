package doctor

import (
	"fmt"
	"strings"
)

// Status is the verdict of a check.
type Status string

const (
	// OK: what is needed is there.
	OK Status = "ok"
	// Warning: it works, with the limits that the finding names.
	Warning Status = "warning"
	// Missing: something that Thaw does cannot work here.
	Missing Status = "missing"
)

// Finding is the result of one check.
type Finding struct {
	// Check is what was looked at, such as "userfaultfd".
	Check string `json:"check"`
	// Status is the verdict.
	Status Status `json:"status"`
	// Has says what is there, Lacks what is not and what that means; Lacks is empty with [OK].
	Has   string `json:"has"`
	Lacks string `json:"lacks,omitempty"`
	// Fix says how to get what is lacking; empty with [OK], or where nothing can be done.
	Fix string `json:"fix,omitempty"`
}

// String writes the finding for people, in up to three lines without a newline at the end.
func (f Finding) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-8s %-12s %s", f.Status, f.Check, f.Has)
	if f.Lacks != "" {
		fmt.Fprintf(&b, "\n%21s %s", "", f.Lacks)
	}
	if f.Fix != "" {
		fmt.Fprintf(&b, "\n%21s fix: %s", "", f.Fix)
	}
	return b.String()
}

// Report holds the findings of all checks, in a fixed order.
type Report struct {
	Findings []Finding `json:"findings"`
}

// Status is the worst status of all findings.
func (r *Report) Status() Status {
	worst := OK
	for _, f := range r.Findings {
		switch f.Status {
		case Missing:
			return Missing
		case Warning:
			worst = Warning
		}
	}
	return worst
}

// ok, warn and missing make findings.

func ok(check, has string) Finding { return Finding{Check: check, Status: OK, Has: has} }

func warn(check, has, lacks, fix string) Finding {
	return Finding{Check: check, Status: Warning, Has: has, Lacks: lacks, Fix: fix}
}

func missing(check, has, lacks, fix string) Finding {
	return Finding{Check: check, Status: Missing, Has: has, Lacks: lacks, Fix: fix}
}
