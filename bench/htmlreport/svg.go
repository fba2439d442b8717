package htmlreport

import (
	"fmt"
	"html"
	"html/template"
	"strings"

	"thaw/bench/result"
)

// The sizes of a chart, in CSS pixels.
const (
	width, height           = 640.0, 320.0
	left, right, top, below = 64.0, 28.0, 14.0, 44.0
	colors                  = 8 // as many as style.css has
)

// svg draws a plot. All of its looks come from the page's style sheet, so that it follows light and dark.
func (p *plot) svg(title string) template.HTML {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %g %g" role="img" aria-label="%s">`, width, height, html.EscapeString(title))
	px := func(v float64) float64 { return left + clamp(p.x.at(v))*(width-left-right) }
	py := func(v float64) float64 { return height - below - clamp(p.y.at(v))*(height-below-top) }
	for _, t := range p.y.ticks {
		class := "grid"
		if t.label == "" {
			class = "grid minor"
		}
		fmt.Fprintf(&b, `<line class="%s" x1="%g" x2="%g" y1="%.1f" y2="%.1f"/>`, class, left, width-right, py(t.v), py(t.v))
		fmt.Fprintf(&b, `<text class="tick" x="%g" y="%.1f" text-anchor="end">%s</text>`, left-6, py(t.v)+4, html.EscapeString(t.label))
	}
	last := -100.0
	for _, t := range p.x.ticks {
		x := px(t.v)
		fmt.Fprintf(&b, `<line class="grid minor" x1="%.1f" x2="%.1f" y1="%g" y2="%g"/>`, x, x, top, height-below)
		if x-last < 34 {
			continue // no room for its label
		}
		if t.label != "" {
			last = x
		}
		fmt.Fprintf(&b, `<text class="tick" x="%.1f" y="%g" text-anchor="middle">%s</text>`, x, height-below+16, html.EscapeString(t.label))
	}
	fmt.Fprintf(&b, `<line class="axis" x1="%g" x2="%g" y1="%g" y2="%g"/>`, left, width-right, height-below, height-below)
	fmt.Fprintf(&b, `<text class="title" x="%g" y="%g" text-anchor="middle">%s</text>`, left+(width-left-right)/2, height-8, html.EscapeString(p.xTitle))
	// The engine's line lies on top.
	for i := len(p.lines) - 1; i >= 0; i-- {
		p.lines[i].svg(&b, px, py)
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String())
}

func (l *line) svg(b *strings.Builder, px, py func(float64) float64) {
	fmt.Fprintf(b, `<g class="s%d"><title>%s</title>`, l.color, html.EscapeString(l.name))
	for _, d := range l.dots {
		fmt.Fprintf(b, `<circle class="dot" cx="%.1f" cy="%.1f" r="2"/>`, px(d.x), py(d.y))
	}
	if len(l.points) == 1 {
		fmt.Fprintf(b, `<circle class="point" cx="%.1f" cy="%.1f" r="4"/>`, px(l.points[0].x), py(l.points[0].y))
	}
	b.WriteString(`<polyline points="`)
	for _, p := range l.points {
		fmt.Fprintf(b, "%.1f,%.1f ", px(p.x), py(p.y))
	}
	b.WriteString(`"/></g>`)
}

func clamp(v float64) float64 { return min(max(v, 0), 1) }

// strip draws the samples of a series as dots on a line from zero to top, with a mark at their median.
func strip(s *result.Series, top float64) template.HTML {
	const w, h = 150.0, 16.0
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="strip" viewBox="0 0 %g %g" aria-hidden="true"><line class="grid" x1="0" x2="%g" y1="%g" y2="%g"/>`, w, h, w, h/2, h/2)
	if top <= 0 {
		top = 1
	}
	at := func(v float64) float64 { return 3 + clamp(v/top)*(w-6) }
	for _, v := range s.Samples {
		fmt.Fprintf(&b, `<circle class="dot" cx="%.1f" cy="%g" r="2.5"/>`, at(v), h/2)
	}
	fmt.Fprintf(&b, `<line class="median" x1="%.1f" x2="%.1f" y1="2" y2="%g"/></svg>`, at(s.Median), at(s.Median), h-2)
	return template.HTML(b.String())
}
