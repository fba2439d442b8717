package result

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// WriteGoBench writes the document in the Go benchmark format, a line for each repetition of each trial, for benchstat:
//
//	benchstat -col /subject run.txt        ours beside the baselines
//	benchstat before.txt after.txt         two runs
func (d *Document) WriteGoBench(w io.Writer) error {
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "goos: linux\ngoarch: %s\npkg: thaw/bench\ncpu: %s\n", d.Host.Arch, d.Host.CPU)
	fmt.Fprintf(b, "cores: %d\nkernel: %s\ncommit: %s\n", d.Host.Cores, d.Host.Kernel, d.Host.Commit)
	d.writeUnits(b)
	for _, group := range d.trials() {
		for rep := range len(group[0].Samples) {
			fmt.Fprintf(b, "%s 1", benchName(group[0]))
			for _, s := range group {
				writeValues(b, s, rep)
			}
			b.WriteByte('\n')
		}
	}
	return b.Flush()
}

// writeUnits says of each unit which direction is better; benchstat assumes lower.
func (d *Document) writeUnits(b *bufio.Writer) {
	told := make(map[string]bool)
	for _, s := range d.Series {
		if unit := benchUnit(s, ""); s.Higher && !told[unit] {
			told[unit] = true
			fmt.Fprintf(b, "Unit %s better=higher\n", unit)
		}
	}
}

// trials groups the series by what they were measured in.
func (d *Document) trials() [][]*Series {
	var groups [][]*Series
	index := make(map[string]int)
	for _, s := range d.Series {
		if len(s.Samples) == 0 {
			continue
		}
		name := benchName(s)
		i, ok := index[name]
		if !ok {
			i = len(groups)
			index[name] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], s)
	}
	return groups
}

// benchName returns the name of a trial as a benchmark: BenchmarkFaultUnderFill/size=512MiB/subject=thaw.
func benchName(s *Series) string {
	var name strings.Builder
	name.WriteString("Benchmark")
	for part := range strings.SplitSeq(s.Scenario, "-") {
		name.WriteString(strings.ToUpper(part[:1]) + part[1:])
	}
	return fmt.Sprintf("%s/%s", &name, s.Params.With("subject", s.Subject))
}

// benchUnit returns the unit of a series in the Go benchmark format, where the unit is all that tells metrics apart:
// "latency-p99-ns", "fill-B/s".
func benchUnit(s *Series, figure string) string {
	if figure != "" {
		return s.Name + "-" + figure + "-" + s.Unit
	}
	return s.Name + "-" + s.Unit
}

func writeValues(b *bufio.Writer, s *Series, rep int) {
	if rep >= len(s.Samples) {
		return
	}
	value := func(v float64, figure string) {
		fmt.Fprintf(b, " %s %s", strconv.FormatFloat(v, 'g', 8, 64), benchUnit(s, figure))
	}
	if !s.Many {
		value(s.Samples[rep], "")
		return
	}
	q := s.Repetitions[rep]
	value(q.P50, "p50")
	value(q.P90, "p90")
	value(q.P99, "p99")
	value(q.P999, "p99.9")
}
