package version

import (
	"fmt"
	"strings"
)

// Change is one thing in which two versions differ.
type Change struct {
	Part string `json:"part"` // "code", "dependencies", "data", "runtime" or "cpu"
	What string `json:"what"` // such as "helpers.py changed"
}

// String returns "part: what".
func (c Change) String() string { return c.Part + ": " + c.What }

// Diff returns what changed from one version of an app to another; nothing if they have the same key.
func Diff(from, to *Version) []Change {
	var d differ
	if from.Parts.Code != to.Parts.Code {
		d.part = "code"
		d.files(from.Code, to.Code)
		d.value("file of the app", from.Entry, to.Entry)
	}
	if from.Parts.Dependencies != to.Parts.Dependencies {
		d.part = "dependencies"
		d.lock(from.Lock, to.Lock)
		d.root(&from.Root, &to.Root)
	}
	if from.Parts.Data != to.Parts.Data {
		d.part = "data"
		d.files(from.Data, to.Data)
	}
	if from.Parts.Runtime != to.Parts.Runtime {
		d.part = "runtime"
		d.runtime(&from.Runtime, &to.Runtime)
	}
	if from.Parts.CPU != to.Parts.CPU {
		d.part = "cpu"
		d.cpu(from, to)
	}
	return d.changes
}

// differ collects the changes of one part after the other.
type differ struct {
	part    string
	changes []Change
}

func (d *differ) add(format string, args ...any) {
	d.changes = append(d.changes, Change{d.part, fmt.Sprintf(format, args...)})
}

func (d *differ) value(what, from, to string) {
	if from != to {
		d.add("%s %s is now %s", what, orNone(from), orNone(to))
	}
}

func orNone(s string) string {
	if s == "" {
		return "(none)"
	}
	return s
}

// files compares two sorted lists.
func (d *differ) files(from, to []File) {
	for len(from) > 0 || len(to) > 0 {
		switch {
		case len(to) == 0 || len(from) > 0 && from[0].Path < to[0].Path:
			d.add("%s is gone", from[0].Path)
			from = from[1:]
		case len(from) == 0 || to[0].Path < from[0].Path:
			d.add("%s is new", to[0].Path)
			to = to[1:]
		default:
			d.file(&from[0], &to[0])
			from, to = from[1:], to[1:]
		}
	}
}

func (d *differ) file(from, to *File) {
	switch {
	case from.SHA256 != to.SHA256:
		d.add("%s changed", to.Path)
	case from.Executable != to.Executable:
		d.add("%s has another mode", to.Path)
	}
}

func (d *differ) lock(from, to *File) {
	switch {
	case from == nil && to == nil:
	case from == nil:
		d.add("%s is new", to.Path)
	case to == nil:
		d.add("%s is gone", from.Path)
	case from.SHA256 != to.SHA256:
		d.add("%s changed", to.Path)
	}
}

func (d *differ) root(from, to *Root) {
	if from.Digest == to.Digest {
		return
	}
	if from.Path != to.Path {
		d.add("root file system %s is now %s", from.Path, to.Path)
		return
	}
	d.add("root file system %s changed", to.Path)
}

func (d *differ) runtime(from, to *Runtime) {
	d.value("Python", from.Python, to.Python)
	d.value("SDK", from.SDK, to.SDK)
	if from.SDK == to.SDK && from.SDKDigest != to.SDKDigest {
		d.add("the SDK's files changed")
	}
	d.value("CRIU", from.CRIU, to.CRIU)
	d.value("snapshot format", fmt.Sprint(from.Snapshot), fmt.Sprint(to.Snapshot))
}

// listFeatures is how many features a change names one by one.
const listFeatures = 8

func (d *differ) cpu(from, to *Version) {
	gone := from.CPU.Features.Minus(to.CPU.Features)
	added := to.CPU.Features.Minus(from.CPU.Features)
	if len(gone)+len(added) > listFeatures {
		d.add("%s is now %s", from.CPU.Features.Summary(), to.CPU.Features.Summary())
	} else {
		if len(gone) > 0 {
			d.add("without %s", strings.Join(gone, " "))
		}
		if len(added) > 0 {
			d.add("with %s", strings.Join(added, " "))
		}
	}
	if from.CPU.Masked != to.CPU.Masked {
		d.add("%s", map[bool]string{true: "libraries are told to use no other features", false: "libraries are no longer told what to use"}[to.CPU.Masked])
	}
}
