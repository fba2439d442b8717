// Package tracepage writes what was touched as one self-contained HTML page.
package tracepage

import (
	_ "embed"
	"fmt"
	"html"
	"html/template"
	"io"
	"strings"
)

//go:embed page.html
var pageText string

//go:embed style.css
var style string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// A Page is what is shown, from top to bottom. All counts are of pages of memory.
type Page struct {
	Title    string
	Facts    []Fact
	Warnings []string
	Charts   []Chart
	Tables   []Table
}

// A Fact is a line of the heading.
type Fact struct{ Name, Value string }

// A Chart is columns side by side, each of one part for each series, stacked.
type Chart struct {
	Title   string
	Note    string   // what a column is
	Series  []string // at most 3
	Columns []Row
}

// A Table is rows below each other, with a bar for each.
type Table struct {
	Title  string
	Series []string // at most 3
	Rows   []Row
	More   string // what is left out, empty if nothing is
}

// A Row is what has one number for each series, and its name. The columns of charts may have none.
type Row struct {
	Name   string
	Counts []uint64
}

// Total returns the sum of the counts.
func (r Row) Total() uint64 {
	var n uint64
	for _, c := range r.Counts {
		n += c
	}
	return n
}

// Write writes the page. It refers to nothing outside of itself.
func (p *Page) Write(w io.Writer) error {
	err := pageTemplate.Execute(w, struct {
		*Page
		Style template.CSS
	}{p, template.CSS(style)})
	if err != nil {
		return fmt.Errorf("write page: %w", err)
	}
	return nil
}

// The sizes of a chart and of a bar, in CSS pixels.
const (
	width, height           = 960.0, 240.0
	left, right, top, below = 56.0, 8.0, 12.0, 24.0
	barWidth, barHeight     = 240.0, 12.0
)

// SVG draws the columns. All of its looks come from the style sheet, so that it follows light and dark.
func (c Chart) SVG() template.HTML {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %g %g" role="img" aria-label="%s">`, width, height, html.EscapeString(c.Title))
	mark := roundUp(most(c.Columns))
	y := func(n uint64) float64 { return height - below - float64(n)/float64(2*mark)*(height-below-top) }
	for _, n := range []uint64{0, mark, 2 * mark} {
		fmt.Fprintf(&b, `<line class="grid" x1="%g" x2="%g" y1="%.1f" y2="%.1f"/>`, left, width-right, y(n), y(n))
		fmt.Fprintf(&b, `<text x="%g" y="%.1f" text-anchor="end">%d</text>`, left-6, y(n)+4, n)
	}
	step := (width - left - right) / float64(max(len(c.Columns), 1))
	last := -100.0
	for i, col := range c.Columns {
		x := left + float64(i)*step
		fmt.Fprintf(&b, `<g><title>%s</title>`, html.EscapeString(title(col, c.Series)))
		var below uint64
		for s, n := range col.Counts {
			fmt.Fprintf(&b, `<rect class="s%d" x="%.1f" y="%.1f" width="%.1f" height="%.1f"/>`, s, x+step*0.08, y(below+n), step*0.84, y(below)-y(below+n))
			below += n
		}
		b.WriteString(`</g>`)
		if middle := x + step/2; col.Name != "" && middle-last > 72 {
			fmt.Fprintf(&b, `<text x="%.1f" y="%g" text-anchor="middle">%s</text>`, middle, height-6, html.EscapeString(col.Name))
			last = middle
		}
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String())
}

// Bar draws a row of the table, as long as its share of the longest one.
func (t Table) Bar(r Row) template.HTML {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="bar" viewBox="0 0 %g %g" aria-hidden="true">`, barWidth, barHeight)
	longest, x := float64(max(most(t.Rows), 1)), 0.0
	for s, n := range r.Counts {
		w := float64(n) / longest * barWidth
		fmt.Fprintf(&b, `<rect class="s%d" x="%.1f" y="0" width="%.1f" height="%g"/>`, s, x, w, barHeight)
		x += w
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String())
}

// title says what a column is when somebody points at it.
func title(r Row, series []string) string {
	parts := make([]string, 0, len(series))
	for i, s := range series {
		parts = append(parts, fmt.Sprintf("%s %d", s, r.Counts[i]))
	}
	if r.Name == "" {
		return strings.Join(parts, ", ")
	}
	return r.Name + ": " + strings.Join(parts, ", ")
}

func most(rows []Row) uint64 {
	var n uint64
	for _, r := range rows {
		n = max(n, r.Total())
	}
	return n
}

// roundUp returns a round number of which the double is at least n.
func roundUp(n uint64) uint64 {
	for step := uint64(1); ; step *= 10 {
		for _, f := range []uint64{1, 2, 3, 4, 5, 6, 8} {
			if half := f * step; half >= n/2+n%2 || half > 1<<60 {
				return half
			}
		}
	}
}
