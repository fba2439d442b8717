package report

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"thaw/bench/lab"
)

// maxBusy is the part of all cores that may be in use before the runs without a warning.
const maxBusy = 0.15

// WriteTable writes the medians and the targets for people.
func (r *Report) WriteTable(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s, %d runs, medians in seconds (%s, %d cores, Linux %s)\n\n",
		r.Summary.Workload, len(r.Runs), r.Host.CPU, r.Host.Cores, r.Host.Kernel)
	tab := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tab, "cache\tmode\tto running\tfirst response\tW\toverhead\tread\tfaults served\t")
	for _, cache := range lab.Caches() {
		for _, mode := range lab.Modes() {
			m, ok := r.Summary.Medians[cache][mode]
			if !ok {
				continue
			}
			fmt.Fprintf(tab, "%s\t%s\t%.3f\t%s\t%s\t%s\t%s\t%s\t\n", cache, mode, m.ToRunning,
				seconds(m.ToFirstResponse), seconds(m.WarmCall), seconds(m.Overhead), Bytes(m.BytesRead), count(m.FaultsServed))
		}
	}
	if err := tab.Flush(); err != nil {
		return err
	}
	if len(r.Summary.Targets) > 0 {
		b.WriteString("\n")
	}
	for _, t := range r.Summary.Targets {
		verdict, bound := "missed", "at most"
		if t.Met {
			verdict = "met"
		}
		if t.AtLeast {
			bound = "at least"
		}
		fmt.Fprintf(&b, "  %-6s  %s, %s cache: %.2f (%s %g)\n", verdict, t.Name, t.Cache, t.Reached, bound, t.Want)
	}
	// Beside somebody else's work the times say little: a container's threads wait for each other.
	if r.Host.Busy > maxBusy {
		fmt.Fprintf(&b, "\n  The machine was busy before the runs began (%.0f %% of its cores): the times are not to be relied on.\n", 100*r.Host.Busy)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func seconds(v *float64) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf("%.3f", *v)
}

func count(v *float64) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf("%.0f", *v)
}

// Bytes writes a number of bytes for people, in decimal units.
func Bytes(n float64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.2f GB", n/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", n/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.0f kB", n/1e3)
	}
	return fmt.Sprintf("%.0f B", n)
}
