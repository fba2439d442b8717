package main

import (
	"fmt"
	"io"
	"math"
	"time"

	"thaw/cmd/internal/cli"
	"thaw/cpu"
	"thaw/function/registry"
	"thaw/function/version"
)

// listedApp is an app as functions prints it.
type listedApp struct {
	App      string          `json:"app"`
	Current  version.Key     `json:"current,omitzero"`
	Versions []listedVersion `json:"versions"`
}

type listedVersion struct {
	Key       version.Key      `json:"key"`
	Current   bool             `json:"current"`
	Error     string           `json:"error,omitempty"` // why it cannot be read
	Deployed  *time.Time       `json:"deployed,omitempty"`
	Before    version.Key      `json:"before,omitzero"`
	Changes   []version.Change `json:"changes"` // from the version before, if that is still there
	Root      *version.Root    `json:"root,omitempty"`
	Runtime   *version.Runtime `json:"runtime,omitempty"`
	CPU       cpu.Set          `json:"cpu,omitempty"`
	Objects   []deployedObject `json:"objects"`
	Snapshots []listedSnapshot `json:"snapshots"`
}

type listedSnapshot struct {
	registry.Snapshot
	// Medians of the boots, in seconds, and the one over the other; 0 where there was none yet.
	ColdSeconds     float64 `json:"cold_seconds"`
	RestoredSeconds float64 `json:"restored_seconds"`
	Faster          float64 `json:"faster"`
}

func listApp(app *registry.App) listedApp {
	out := listedApp{App: app.Name, Current: app.Current, Versions: []listedVersion{}}
	records := make(map[version.Key]*registry.Record)
	for _, e := range app.Versions {
		records[e.Key] = e.Record
	}
	for _, e := range app.Versions {
		v := listVersion(&e)
		v.Current = e.Key == app.Current
		if e.Record != nil {
			if before := records[e.Record.Before]; before != nil {
				v.Changes = append(v.Changes, version.Diff(before.Version, e.Record.Version)...)
			}
		}
		out.Versions = append(out.Versions, v)
	}
	return out
}

func listVersion(e *registry.Entry) listedVersion {
	v := listedVersion{Key: e.Key, Changes: []version.Change{}, Objects: []deployedObject{}, Snapshots: []listedSnapshot{}}
	if e.Err != nil {
		v.Error = e.Err.Error()
	}
	if r := e.Record; r != nil {
		v.Deployed, v.Before, v.Root, v.Runtime, v.CPU = &r.Deployed, r.Before, &r.Root, &r.Runtime, r.CPU.Features
		for i := range r.Description.Objects {
			v.Objects = append(v.Objects, describeObject(&r.Description.Objects[i], e.Stats))
		}
	}
	if e.Stats != nil {
		for i := range e.Stats.Snapshots {
			v.Snapshots = append(v.Snapshots, listSnapshot(e.Stats, &e.Stats.Snapshots[i]))
		}
	}
	return v
}

func listSnapshot(stats *registry.Stats, s *registry.Snapshot) listedSnapshot {
	out := listedSnapshot{Snapshot: *s}
	if d, ok := stats.Cold[s.Object].Median(); ok {
		out.ColdSeconds = d.Seconds()
	}
	if d, ok := s.Restored.Median(); ok {
		out.RestoredSeconds = d.Seconds()
	}
	if f, ok := stats.Factor(s); ok {
		out.Faster = math.Round(f*100) / 100
	}
	return out
}

func (a *listedApp) write(w io.Writer, now time.Time) {
	fmt.Fprintln(w, a.App)
	for i := range a.Versions {
		a.Versions[i].write(w, now)
	}
}

func (v *listedVersion) write(w io.Writer, now time.Time) {
	mark := " "
	if v.Current {
		mark = "*"
	}
	fmt.Fprintf(w, "%s %s", mark, v.Key.Short())
	if v.Deployed != nil {
		fmt.Fprintf(w, "  deployed %s  Python %s  %s", when(*v.Deployed), v.Runtime.Python, v.CPU.Summary())
	}
	fmt.Fprintln(w)
	if v.Error != "" {
		fmt.Fprintf(w, "    cannot be read: %s\n", v.Error)
	}
	for _, c := range v.Changes {
		fmt.Fprintf(w, "    %s\n", c)
	}
	if v.Current {
		writeObjects(w, "    ", v.Objects)
	}
	if len(v.Snapshots) == 0 {
		return
	}
	rows := [][]string{{"    SNAPSHOT", "OF", "AGE", "SIZE", "NEW", "USES", "COLD", "RESTORED", "FASTER", "STATE"}}
	for i := range v.Snapshots {
		rows = append(rows, v.Snapshots[i].row(now))
	}
	table(w, rows)
}

func (s *listedSnapshot) row(now time.Time) []string {
	of := s.Object
	if s.Kind == registry.KindTemplate {
		of = "template"
	}
	if s.Parameters != "" {
		of += s.Parameters
	}
	faster := "-"
	if s.Faster > 0 {
		faster = fmt.Sprintf("%.1fx", s.Faster)
	}
	state := string(s.State)
	if s.State == registry.StateSetAside {
		state += ": " + s.Reason
	}
	return []string{
		"    " + s.Name, of, age(now.Sub(s.Created)), cli.Bytes(s.Bytes), cli.Bytes(s.NewBytes), fmt.Sprint(s.Uses),
		seconds(s.ColdSeconds), seconds(s.RestoredSeconds), faster, state,
	}
}

// seconds returns a time as lists show it; a dash if there is none.
func seconds(s float64) string {
	if s == 0 {
		return "-"
	}
	return time.Duration(s * float64(time.Second)).Round(time.Millisecond).String()
}

// age returns how old something is, in its largest unit.
func age(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d >= 2*time.Minute:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return fmt.Sprintf("%ds", max(d, 0)/time.Second)
}
