package eval

import (
	"fmt"
	"image/color"
	"math"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Curve is one metric of a training run over its steps. Name is the metric's
// name in metrics.jsonl; X and Y are equally long.
type Curve struct {
	Name string
	X, Y []float64
}

// panel is one figure of curves that share an axis.
type panel struct {
	Title  string
	curves []Curve
}

// panelTitles names the metrics whose unit or meaning the name alone leaves
// open. Metrics not listed have a panel with their own name.
var panelTitles = map[string]string{
	"loss":              "Loss (nats per token)",
	"val_loss":          "Loss (nats per token)",
	"val_bits_per_byte": "Validation, bits per byte",
	"learning_rate":     "Learning rate",
	"grad_norm":         "Gradient norm, before clipping",
	"tokens_per_s":      "Throughput (tokens per second)",
}

// panels groups curves by title, in order of first appearance, and leaves out
// what cannot be drawn: points that are not finite, curves without points.
func panels(curves []Curve) ([]panel, error) {
	var out []panel
	at := map[string]int{}
	for _, c := range curves {
		if len(c.X) != len(c.Y) {
			return nil, fmt.Errorf("curve %s: %d steps and %d values", c.Name, len(c.X), len(c.Y))
		}
		kept := Curve{Name: c.Name}
		for i, y := range c.Y {
			if x := c.X[i]; finite(x) && finite(y) {
				kept.X, kept.Y = append(kept.X, x), append(kept.Y, y)
			}
		}
		if len(kept.X) == 0 {
			continue
		}
		title := panelTitles[c.Name]
		if title == "" {
			title = c.Name
		}
		i, ok := at[title]
		if !ok {
			i = len(out)
			at[title] = i
			out = append(out, panel{Title: title})
		}
		out[i].curves = append(out[i].curves, kept)
	}
	return out, nil
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// maxPoints keeps a curve's share of the page small however long the run was.
const maxPoints = 400

// thin reduces a curve to at most maxPoints means over neighbouring steps, and
// returns the lowest and highest value behind each.
func thin(c Curve) (mean, low, high plotter.XYs) {
	per := (len(c.X) + maxPoints - 1) / maxPoints
	for from := 0; from < len(c.X); from += per {
		to := min(from+per, len(c.X))
		var x, y float64
		lo, hi := c.Y[from], c.Y[from]
		for i := from; i < to; i++ {
			x += c.X[i]
			y += c.Y[i]
			lo, hi = min(lo, c.Y[i]), max(hi, c.Y[i])
		}
		n := float64(to - from)
		mean = append(mean, plotter.XY{X: x / n, Y: y / n})
		low = append(low, plotter.XY{X: x / n, Y: lo})
		high = append(high, plotter.XY{X: x / n, Y: hi})
	}
	return mean, low, high
}

// lineColours are of middling lightness: they show on white and on black.
var lineColours = []color.NRGBA{
	{0x3b, 0x7d, 0xd8, 0xff}, {0xe0, 0x7b, 0x39, 0xff}, {0x2f, 0x9e, 0x6e, 0xff}, {0xb0, 0x5c, 0xc4, 0xff},
}

// fewPoints is up to how many points each is marked, as in a validation loss.
const fewPoints = 50

// plot draws the panel's curves over the steps. Where a curve had to be
// thinned, the line is the mean and a band behind it shows the extremes.
func (p panel) plot(t theme) (figure, error) {
	pl := t.newPlot()
	pl.X.Label.Text = "step"
	grid := plotter.NewGrid()
	for _, g := range []*draw.LineStyle{&grid.Vertical, &grid.Horizontal} {
		g.Color, g.Width = t.rule, vg.Points(0.5)
	}
	pl.Add(grid)
	for i, c := range p.curves {
		colour := lineColours[i%len(lineColours)]
		mean, low, high := thin(c)
		if len(mean) < len(c.X) {
			outline := append(plotter.XYs{}, low...)
			for k := len(high) - 1; k >= 0; k-- {
				outline = append(outline, high[k])
			}
			band, err := plotter.NewPolygon(outline)
			if err != nil {
				return figure{}, fmt.Errorf("curve %s: %w", c.Name, err)
			}
			band.Color = color.NRGBA{colour.R, colour.G, colour.B, 0x40}
			band.LineStyle.Width = 0
			pl.Add(band)
		}
		line, points, err := plotter.NewLinePoints(mean)
		if err != nil {
			return figure{}, fmt.Errorf("curve %s: %w", c.Name, err)
		}
		line.Color, line.Width = colour, vg.Points(1.4)
		points.Color, points.Shape, points.Radius = colour, draw.CircleGlyph{}, vg.Points(2)
		pl.Add(line)
		thumbs := []plot.Thumbnailer{line}
		if len(mean) <= fewPoints {
			pl.Add(points)
			thumbs = append(thumbs, points)
		}
		if len(p.curves) > 1 {
			pl.Legend.Add(c.Name, thumbs...)
		}
	}
	pl.Legend.Top = true
	pl.Legend.Padding = vg.Points(3)
	for _, a := range []*plot.Axis{&pl.X, &pl.Y} {
		widen(a)
		a.Tick.Marker = plot.TickerFunc(roundTicks)
	}
	return figure{width: vg.Points(430), height: vg.Points(230), draw: func(c draw.Canvas) {
		pl.Draw(draw.Crop(c, vg.Points(4), -vg.Points(10), vg.Points(4), -vg.Points(6)))
	}}, nil
}

// roundTicks marks the multiples of 1, 2 or 5 times a power of ten, about
// four to ten of them, where plot.DefaultTicks chooses multiples of any digit.
func roundTicks(lo, hi float64) []plot.Tick {
	step := math.Pow(10, math.Floor(math.Log10((hi-lo)/4)))
	for _, m := range []float64{5, 2} {
		if (hi-lo)/(m*step) >= 4 {
			step *= m
			break
		}
	}
	var ticks []plot.Tick
	for i := math.Ceil(lo / step); i*step <= hi; i++ {
		ticks = append(ticks, plot.Tick{Value: i * step, Label: strconv.FormatFloat(i*step, 'g', 6, 64)})
	}
	return ticks
}

// widen gives an axis with a single value a range around it that keeps its
// order of magnitude, so that a constant learning rate does not stand between
// -1 and 1.
func widen(a *plot.Axis) {
	if a.Max > a.Min {
		return
	}
	margin := math.Abs(a.Min) / 10
	if margin == 0 {
		margin = 1
	}
	a.Min, a.Max = a.Min-margin, a.Max+margin
}
