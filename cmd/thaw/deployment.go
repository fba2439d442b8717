package main

import (
	"fmt"
	"io"
	"strings"

	"thaw/function/registry"
	"thaw/function/version"
)

// deployment is what deploy prints.
type deployment struct {
	App      string           `json:"app"`
	Key      version.Key      `json:"key"`
	New      bool             `json:"new"`      // the version was not there before
	Switched bool             `json:"switched"` // another one was current
	Before   version.Key      `json:"before,omitzero"`
	Changes  []version.Change `json:"changes"`
	Objects  []deployedObject `json:"objects"`
	Warnings []string         `json:"warnings"`
	Next     string           `json:"next"` // what will happen
	Files    int              `json:"files"`
	Bytes    int64            `json:"bytes"`
}

type deployedObject struct {
	Name      string   `json:"name"`
	Kind      string   `json:"kind"`
	Snapshot  bool     `json:"snapshot"`
	Methods   []string `json:"methods"`
	Snapshots int      `json:"snapshots"` // good ones that are there
}

func newDeployment(v *version.Version, done *registry.Deployed, stats *registry.Stats) *deployment {
	d := &deployment{
		App: v.App(), Key: v.Key, New: done.New, Switched: done.Switched,
		Changes: []version.Change{}, Objects: []deployedObject{}, Warnings: []string{},
	}
	if done.Switched && done.Before != nil {
		d.Before = done.Before.Key
		d.Changes = append(d.Changes, version.Diff(done.Before.Version, v)...)
	}
	for _, f := range v.Files() {
		d.Files++
		d.Bytes += f.Bytes
	}
	for i := range v.Description.Objects {
		d.Objects = append(d.Objects, describeObject(&v.Description.Objects[i], stats))
	}
	for _, g := range v.Description.Generators {
		d.Warnings = append(d.Warnings, fmt.Sprintf("%s (%s) gives the same numbers after each restore: register it with thaw.register_rng", g.Where, g.Type))
	}
	d.Next = d.next()
	return d
}

// describeObject describes an object. stats may be nil.
func describeObject(o *version.Object, stats *registry.Stats) deployedObject {
	out := deployedObject{Name: o.Name, Kind: o.Kind, Snapshot: o.Snapshot, Methods: []string{}}
	for _, m := range o.Methods {
		out.Methods = append(out.Methods, m.Name)
	}
	if stats == nil {
		return out
	}
	for i := range stats.Snapshots {
		if s := &stats.Snapshots[i]; s.Object == o.Name && s.State == registry.StateGood {
			out.Snapshots++
		}
	}
	return out
}

// next says what will happen with the objects that want a snapshot.
func (d *deployment) next() string {
	var cold, there []string
	for _, o := range d.Objects {
		switch {
		case !o.Snapshot:
		case o.Snapshots > 0:
			there = append(there, o.Name)
		default:
			cold = append(cold, o.Name)
		}
	}
	var parts []string
	if len(cold) > 0 {
		parts = append(parts, fmt.Sprintf("the first boots of %s are cold, then thaw serve makes a snapshot", strings.Join(cold, ", ")))
	}
	if len(there) > 0 {
		parts = append(parts, fmt.Sprintf("%s boots from the snapshots that are there", strings.Join(there, ", ")))
	}
	if len(parts) == 0 {
		return "every boot is cold: nothing asks for a memory snapshot (enable_memory_snapshot=True)"
	}
	return strings.Join(parts, "; ")
}

func (d *deployment) write(w io.Writer) {
	switch {
	case d.New:
		fmt.Fprintf(w, "deployed %s, version %s\n", d.App, d.Key.Short())
	case d.Switched:
		fmt.Fprintf(w, "deployed %s, version %s, which was there\n", d.App, d.Key.Short())
	default:
		fmt.Fprintf(w, "%s is deployed already, version %s\n", d.App, d.Key.Short())
	}
	if len(d.Changes) > 0 {
		fmt.Fprintf(w, "changed since %s:\n", d.Before.Short())
		for _, c := range d.Changes {
			fmt.Fprintf(w, "  %s\n", c)
		}
	}
	writeObjects(w, "  ", d.Objects)
	for _, warning := range d.Warnings {
		fmt.Fprintf(w, "warning: %s\n", warning)
	}
	fmt.Fprintf(w, "next: %s\n", d.Next)
}

// writeObjects shows what an app has: each object with its methods.
func writeObjects(w io.Writer, indent string, objects []deployedObject) {
	var rows [][]string
	for _, o := range objects {
		how := "no snapshot"
		if o.Snapshot {
			how = "snapshot"
		}
		rows = append(rows, []string{indent + o.Name, o.Kind, how, strings.Join(o.Methods, " ")})
	}
	table(w, rows)
}
