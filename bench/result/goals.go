package result

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// maxBusy is the part of all cores that may be in use before a run without a warning.
const maxBusy = 0.10

// Warnings say why the numbers may not be what they seem.
func (d *Document) Warnings() []string {
	var out []string
	if d.Settings.Quick {
		out = append(out, "A quick run: tiny sizes, each trial once. It says that everything works, and nothing about speed.")
	}
	if d.Host.Busy > maxBusy {
		out = append(out, fmt.Sprintf("The machine was busy before the run began (%s of its cores): the times are not to be relied on.", Percent(d.Host.Busy)))
	}
	if d.Settings.Repetitions < 5 && !d.Settings.Quick {
		out = append(out, fmt.Sprintf("Only %d repetitions: the spread says little.", d.Settings.Repetitions))
	}
	return out
}

// Verdict says whether the goal was reached.
func (g *Goal) Verdict() string {
	if g.Met {
		return "met"
	}
	return "missed"
}

// Bound says what was to be reached.
func (g *Goal) Bound() string {
	if g.AtLeast {
		return fmt.Sprintf("at least %g", g.Want)
	}
	return fmt.Sprintf("at most %g", g.Want)
}

// LimitText is the limit for people, empty if there is none.
func (g *Goal) LimitText() string {
	if g.LimitIs == "" {
		return ""
	}
	return fmt.Sprintf("%.2f", g.Limit)
}

// limits returns what the limits of the goals are, a line for each kind.
func (d *Document) limits() []string {
	var out []string
	for i := range d.Goals {
		g := &d.Goals[i]
		line := fmt.Sprintf("%s, %s: the limit is %s.", g.Scenario, g.Name, g.LimitIs)
		if g.LimitIs != "" && !slices.Contains(out, line) {
			out = append(out, line)
		}
	}
	return out
}

// WriteGoals writes the figures that were to be reached, for people.
func (d *Document) WriteGoals(w io.Writer) error {
	var b strings.Builder
	tab := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	if len(d.Goals) > 0 {
		fmt.Fprintln(tab, "\tscenario\tfigure\tin\treached\twanted\tlimit\tours\tfloor\t")
	}
	for i := range d.Goals {
		g := &d.Goals[i]
		floor, limit := "-", "-"
		if g.Floor != 0 {
			floor = Format(g.Floor, g.Unit)
		}
		if text := g.LimitText(); text != "" {
			limit = text
		}
		fmt.Fprintf(tab, "%s\t%s\t%s\t%s\t%.2f\t%s\t%s\t%s\t%s\t\n",
			g.Verdict(), g.Scenario, g.Name, g.Params, g.Reached, g.Bound(), limit, Format(g.Ours, g.Unit), floor)
	}
	if err := tab.Flush(); err != nil {
		return err
	}
	for _, line := range d.limits() {
		fmt.Fprintln(&b, line)
	}
	for _, s := range d.Scenarios {
		for _, note := range s.Notes {
			fmt.Fprintf(&b, "%s: %s\n", s.Name, note)
		}
	}
	for _, warning := range d.Warnings() {
		fmt.Fprintf(&b, "%s\n", warning)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
