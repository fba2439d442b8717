package report

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"path/filepath"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"

	"thaw/bench/lab"
)

const (
	plotWidth  = 27 * vg.Centimeter
	plotHeight = 11 * vg.Centimeter
	// plotDPI makes a PNG of about 1600 pixels, which stays sharp on dense screens.
	plotDPI = 150
	// sans is the variant of the default typeface that all text is set in.
	sans = "Sans"
)

// WritePlot draws the medians, with a dot for each run, into a file whose name ends in .svg or .png.
func (r *Report) WritePlot(path string) error {
	var canvas interface {
		vg.CanvasSizer
		vg.CanvasWriterTo
	}
	switch ext := filepath.Ext(path); ext {
	case ".svg":
		canvas = vgsvg.New(plotWidth, plotHeight)
	case ".png":
		canvas = vgimg.PngCanvas{Canvas: vgimg.NewWith(vgimg.UseWH(plotWidth, plotHeight), vgimg.UseDPI(plotDPI))}
	default:
		return fmt.Errorf("no plot format is called %q", ext)
	}
	r.draw(draw.New(canvas))
	var data bytes.Buffer
	if _, err := canvas.WriteTo(&data); err != nil {
		return fmt.Errorf("encode plot: %w", err)
	}
	return writeWhole(path, data.Bytes())
}

// draw fills the canvas: a title, a panel with the time to the first response and one with the overhead.
func (r *Report) draw(c draw.Canvas) {
	c.SetColor(color.White)
	c.Fill(c.Path())
	margin := vg.Points(12)
	c = draw.Crop(c, margin, -margin, margin, -margin)

	base := plot.New().Title.TextStyle
	base.Font.Variant = sans
	title, small := base, base
	title.Font.Size, small.Font.Size = vg.Points(14), vg.Points(9)
	title.XAlign, small.XAlign = text.XLeft, text.XLeft
	title.YAlign, small.YAlign = text.YTop, text.YTop
	small.Color = color.Gray{Y: 0x60}
	c.FillText(title, vg.Point{X: c.Min.X, Y: c.Max.Y}, r.Summary.Workload+": time until it answers again")
	c.FillText(small, vg.Point{X: c.Min.X, Y: c.Max.Y - vg.Points(21)}, r.caption())
	drawKey(c, small)

	panels := draw.Crop(c, 0, 0, 0, -vg.Points(44))
	middle := panels.Size().X * 0.54
	left := r.panel("To the first response", "seconds", lab.Modes()[:4], func(r *Run) *float64 { return r.ToFirstResponse })
	left.Draw(draw.Crop(panels, 0, middle-panels.Size().X-vg.Points(8), 0, 0))
	right := r.panel("Overhead: first response, less a warm call, less the floor", "seconds", lab.Modes()[1:4],
		func(r *Run) *float64 { return r.Overhead })
	right.Draw(draw.Crop(panels, middle+vg.Points(8), 0, 0, 0))
}

func (r *Report) caption() string {
	h := r.Host
	return fmt.Sprintf("Medians, a dot for each run. %s, %d cores, Linux %s, CRIU %s, runc %s, %s, commit %s",
		h.CPU, h.Cores, h.Kernel, h.CRIU, h.Runc, h.Date.Format("2006-01-02"), h.Commit)
}

// drawKey says in the upper right corner which bars are which.
func drawKey(c draw.Canvas, style text.Style) {
	style.YAlign = text.YCenter
	side := vg.Points(9)
	at := vg.Point{X: c.Max.X - vg.Points(190), Y: c.Max.Y - vg.Points(8)}
	for _, cache := range lab.Caches() {
		fill(c, vg.Rectangle{Min: at.Sub(vg.Point{Y: side / 2}), Max: at.Add(vg.Point{X: side, Y: side / 2})}, shade(lab.CRIUEager, cache))
		c.FillText(style, at.Add(vg.Point{X: side + vg.Points(4)}), string(cache)+" page cache")
		at.X += vg.Points(90)
	}
}

// panel makes a plot with a group of bars for each mode, one bar for each cache state.
func (r *Report) panel(title, unit string, modes []lab.Mode, figure func(*Run) *float64) *plot.Plot {
	p := plot.New()
	p.Title.Text = title
	for _, font := range []*font.Font{&p.Title.TextStyle.Font, &p.X.Label.TextStyle.Font, &p.X.Tick.Label.Font, &p.Y.Tick.Label.Font} {
		font.Variant = sans
	}
	p.Title.TextStyle.Font.Size = vg.Points(11)
	p.Title.Padding = vg.Points(4)
	p.X.Label.Text = unit
	p.X.Label.TextStyle.Font.Size = vg.Points(10)
	p.X.Tick.Marker = plot.TickerFunc(roundTicks)
	p.Y.Tick.Length = 0
	p.Y.Width = 0
	p.Y.Tick.Label.Font.Size = vg.Points(10.5)
	b := &bars{modes: modes, style: p.X.Tick.Label}
	for row, mode := range modes {
		// The first mode is on top, and the y axis points up.
		y := float64(len(modes) - 1 - row)
		b.centers = append(b.centers, y)
		for i, cache := range lab.Caches() {
			bar := bar{mode: mode, cache: cache, y: y + 0.21 - 0.42*float64(i)}
			for k := range r.Runs {
				if run := &r.Runs[k]; run.Mode == mode && run.Cache == cache {
					if v := figure(run); v != nil {
						bar.values = append(bar.values, *v)
					}
				}
			}
			if len(bar.values) > 0 {
				b.bars = append(b.bars, bar)
			}
		}
	}
	p.Add(b)
	p.Y.Tick.Marker = plot.ConstantTicks(b.ticks())
	p.X.Min = min(0, p.X.Min)
	// Room for the labels behind the longest bar.
	p.X.Max *= 1.2
	return p
}

// bars draws horizontal bars with their medians, and a dot for each value.
type bars struct {
	modes   []lab.Mode
	centers []float64 // of each mode's group
	bars    []bar
	style   text.Style
}

type bar struct {
	mode   lab.Mode
	cache  lab.Cache
	y      float64
	values []float64
}

func (b *bars) ticks() []plot.Tick {
	var ticks []plot.Tick
	for i, mode := range b.modes {
		ticks = append(ticks, plot.Tick{Value: b.centers[i], Label: label(mode)})
	}
	return ticks
}

// DataRange implements plot.DataRanger.
func (b *bars) DataRange() (xmin, xmax, ymin, ymax float64) {
	for _, bar := range b.bars {
		for _, v := range bar.values {
			xmin, xmax = min(xmin, v), max(xmax, v)
		}
	}
	if xmax == 0 {
		xmax = 1
	}
	return xmin, xmax, -0.5, float64(len(b.modes)) - 0.5
}

// Plot implements plot.Plotter.
func (b *bars) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	grid := draw.LineStyle{Color: color.Gray{Y: 0xe4}, Width: vg.Points(0.5)}
	for _, tick := range p.X.Tick.Marker.Ticks(p.X.Min, p.X.Max) {
		c.StrokeLine2(grid, x(tick.Value), c.Min.Y, x(tick.Value), c.Max.Y)
	}
	c.StrokeLine2(draw.LineStyle{Color: color.Gray{Y: 0x80}, Width: vg.Points(0.7)}, x(0), c.Min.Y, x(0), c.Max.Y)
	style := b.style
	style.Font.Size = vg.Points(9.5)
	style.XAlign, style.YAlign = text.XLeft, text.YCenter
	for _, bar := range b.bars {
		median := *Median(bar.values)
		fill(c, vg.Rectangle{Min: vg.Point{X: x(0), Y: y(bar.y - 0.18)}, Max: vg.Point{X: x(median), Y: y(bar.y + 0.18)}}, shade(bar.mode, bar.cache))
		end := median
		for _, v := range bar.values {
			c.DrawGlyph(draw.GlyphStyle{Color: color.NRGBA{A: 0x90}, Radius: vg.Points(1.6), Shape: draw.CircleGlyph{}}, vg.Point{X: x(v), Y: y(bar.y)})
			end = max(end, v)
		}
		c.FillText(style, vg.Point{X: x(end) + vg.Points(6), Y: y(bar.y)}, strconv.FormatFloat(median, 'f', decimals(median), 64)+" s")
	}
}

// roundTicks puts a label at every multiple of a round step.
func roundTicks(low, high float64) []plot.Tick {
	// At most six steps: the smallest of 1, 2, 5 and 10 times a power of ten that gives no more.
	rough := (high - low) / 6
	power := math.Pow(10, math.Floor(math.Log10(rough)))
	step := 10 * power
	for _, factor := range []float64{5, 2, 1} {
		if factor*power >= 0.999*rough {
			step = factor * power
		}
	}
	digits := max(0, int(-math.Floor(math.Log10(step))))
	var ticks []plot.Tick
	for n := math.Ceil(low / step); n*step <= high; n++ {
		value := n*step + 0 // without the sign of a negative zero
		ticks = append(ticks, plot.Tick{Value: value, Label: strconv.FormatFloat(value, 'f', digits, 64)})
	}
	return ticks
}

// decimals keeps three digits of a time, at most three of them behind the point.
func decimals(seconds float64) int {
	switch {
	case seconds >= 10:
		return 1
	case seconds >= 1:
		return 2
	}
	return 3
}

// fill fills a rectangle.
func fill(c draw.Canvas, r vg.Rectangle, col color.Color) {
	c.SetColor(col)
	c.Fill(r.Path())
}

func label(m lab.Mode) string {
	switch m {
	case lab.Cold:
		return "cold start"
	case lab.CRIUEager:
		return "CRIU, eager"
	case lab.CRIULazy:
		return "CRIU, lazy"
	case lab.Thaw:
		return "Thaw"
	}
	return string(m)
}

// shade returns the color of a bar: Thaw's are blue and the others grey, and those of the dropped cache are lighter.
func shade(m lab.Mode, cache lab.Cache) color.Color {
	switch {
	case m == lab.Thaw && cache == lab.Warm:
		return color.RGBA{R: 0x1f, G: 0x6f, B: 0xb5, A: 0xff}
	case m == lab.Thaw:
		return color.RGBA{R: 0x8f, G: 0xbf, B: 0xe6, A: 0xff}
	case cache == lab.Warm:
		return color.RGBA{R: 0x77, G: 0x7c, B: 0x85, A: 0xff}
	}
	return color.RGBA{R: 0xc4, G: 0xc8, B: 0xce, A: 0xff}
}
