package htmlreport

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strings"
	"time"

	"thaw/bench/result"
)

//go:embed page.html
var pageText string

//go:embed style.css
var style string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"format": result.Format, "percent": result.Percent,
}).Parse(pageText))

type fact struct{ Name, Value string }

// A Line is an entry of a picture's legend: its text, and which of the style sheet's colors the line has.
type Line struct {
	Name  string
	Color int
}

// A Picture is a chart that has been drawn.
type Picture struct {
	Title  string
	SVG    template.HTML
	Legend []Line
}

type row struct {
	*result.Series
	Setting     string
	Ours, First bool
	Strip       template.HTML
}

type table struct {
	Metric       string
	Higher, Many bool
	Rows         []row
}

type section struct {
	result.Scenario
	Pictures []Picture
	Tables   []table
}

// Write writes the document as a page that refers to nothing outside of itself.
func Write(w io.Writer, d *result.Document) error {
	data := struct {
		*result.Document
		Style    template.CSS
		Facts    []fact
		Warnings []string
		Met      int
		Sections []section
	}{Document: d, Style: Style(), Facts: facts(d), Warnings: d.Warnings()}
	for i := range d.Goals {
		if d.Goals[i].Met {
			data.Met++
		}
	}
	for _, s := range d.Scenarios {
		data.Sections = append(data.Sections, section{Scenario: s, Pictures: Pictures(d, &s), Tables: tables(d, s.Name)})
	}
	if err := pageTemplate.Execute(w, data); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

func facts(d *result.Document) []fact {
	h := &d.Host
	criu := h.CRIU
	if criu == "" {
		criu = "none"
	}
	return []fact{
		{"CPU", fmt.Sprintf("%s, %d cores", h.CPU, h.Cores)},
		{"Memory", result.Format(float64(h.Memory), "B")},
		{"Kernel", "Linux " + h.Kernel},
		{"System", h.OS},
		{"File system", h.FileSystem},
		{"Commit", h.Commit},
		{"Go", h.Go},
		{"C compiler", h.CC},
		{"CRIU", criu},
		{"Date", h.Date.Format(time.RFC3339)},
		{"Busy before the run", result.Percent(h.Busy)},
		{"Settings", settings(&d.Settings)},
	}
}

func settings(s *result.Settings) string {
	out := fmt.Sprintf("%d repetitions", s.Repetitions)
	if s.Quick {
		out += ", quick"
	}
	if s.Filter != "" {
		out += ", filter " + s.Filter
	}
	return out
}

// Style returns the style sheet that pictures, and tables beside them, are drawn for.
func Style() template.CSS { return template.CSS(style) }

// Pictures draws the charts of a scenario of d, other pages' too. Charts that d has nothing for are left out.
func Pictures(d *result.Document, s *result.Scenario) []Picture {
	var out []Picture
	for i := range s.Charts {
		c := &s.Charts[i]
		p, ok := build(d, s.Name, c)
		if !ok {
			continue
		}
		pic := Picture{Title: c.Title, SVG: p.svg(c.Title)}
		for _, l := range p.lines {
			pic.Legend = append(pic.Legend, Line{l.name, l.color})
		}
		out = append(out, pic)
	}
	return out
}

// tables returns a table for each metric of the scenario; subjects of one setting lie together.
func tables(d *result.Document, scenario string) []table {
	var out []table
	index := make(map[string]int)
	tops := make(map[string]float64)
	for _, s := range d.Series {
		if s.Scenario != scenario {
			continue
		}
		i, ok := index[s.Name]
		if !ok {
			i = len(out)
			index[s.Name] = i
			out = append(out, table{Metric: s.Name, Higher: s.Higher, Many: s.Many})
		}
		r := row{Series: s, Setting: strings.ReplaceAll(s.Params.String(), "/", ", "), Ours: strings.HasPrefix(s.Subject, "thaw")}
		out[i].Rows = insert(out[i].Rows, r)
		for _, v := range s.Samples {
			tops[s.Name] = max(tops[s.Name], v)
		}
	}
	for i := range out {
		for k := range out[i].Rows {
			r := &out[i].Rows[k]
			r.First = k == 0 || out[i].Rows[k-1].Setting != r.Setting
			r.Strip = strip(r.Series, tops[out[i].Metric])
		}
	}
	return out
}

// insert puts a row behind the last one of the same setting.
func insert(rows []row, r row) []row {
	for i := len(rows) - 1; i >= 0; i-- {
		if rows[i].Setting == r.Setting {
			return append(rows[:i+1], append([]row{r}, rows[i+1:]...)...)
		}
	}
	return append(rows, r)
}
