package eval

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/palette"
	"gonum.org/v1/plot/palette/moreland"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

// theme holds the colours of a figure that depend on what it is shown on.
type theme struct {
	ink, rule color.NRGBA
}

// paper is for pictures with a white background of their own. page marks ink
// and rules by colours that occur nowhere else: inlineSVG turns them into CSS
// colours that follow the page's light or dark scheme.
var (
	paper = theme{ink: color.NRGBA{0x22, 0x22, 0x22, 0xff}, rule: color.NRGBA{0xdd, 0xdd, 0xdd, 0xff}}
	page  = theme{ink: color.NRGBA{0x12, 0x34, 0x56, 0xff}, rule: color.NRGBA{0xab, 0xcd, 0xef, 0xff}}
)

// figure is something drawn on a canvas of its own size.
type figure struct {
	width, height vg.Length
	draw          func(draw.Canvas)
}

// pngDPI makes a point two pixels, sharp on dense screens and in print.
const pngDPI = 144

// png renders the figure on white.
func (f figure) png() ([]byte, error) {
	img := vgimg.NewWith(vgimg.UseWH(f.width, f.height), vgimg.UseDPI(pngDPI), vgimg.UseBackgroundColor(color.White))
	f.draw(draw.New(img))
	var buf bytes.Buffer
	if _, err := (vgimg.PngCanvas{Canvas: img}).WriteTo(&buf); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// inlineSVG renders a figure drawn with the theme page as an element for an
// HTML page, label being what a screen reader says.
func (f figure) inlineSVG(label string) (string, error) {
	canvas := vgsvg.New(f.width, f.height)
	f.draw(draw.New(canvas))
	var buf bytes.Buffer
	if _, err := canvas.WriteTo(&buf); err != nil {
		return "", err
	}
	svg := buf.String()
	start := strings.Index(svg, "<svg")
	if start < 0 {
		return "", fmt.Errorf("drawing %s: the canvas wrote no SVG", label)
	}
	return strings.NewReplacer(
		"<svg ", `<svg role="img" aria-label="`+strings.ReplaceAll(label, `"`, "&quot;")+`" `,
		hex(page.ink), "currentColor",
		hex(page.rule), "var(--rule)",
		// The class of the page's figures sets the font; these four would
		// override it in every text.
		"font-family:Liberation Sans;font-variant:normal;font-weight:normal;font-style:normal;", "",
	).Replace(svg[start:]), nil
}

func hex(c color.NRGBA) string { return fmt.Sprintf("#%02X%02X%02X", c.R, c.G, c.B) }

// style returns a text style in the theme's ink.
func (t theme) style(p *plot.Plot, size float64, x text.XAlignment, y text.YAlignment) text.Style {
	s := p.X.Label.TextStyle
	s.Color, s.XAlign, s.YAlign, s.Rotation = t.ink, x, y, 0
	s.Font.Variant, s.Font.Size = "Sans", vg.Points(size)
	return s
}

// newPlot returns an empty plot in the theme.
func (t theme) newPlot() *plot.Plot {
	p := plot.New()
	p.BackgroundColor = color.Transparent
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.Color, a.Tick.Color = t.ink, t.ink
		for _, s := range []*text.Style{&a.Label.TextStyle, &a.Tick.Label} {
			s.Color, s.Font.Variant = t.ink, "Sans"
		}
		a.Label.TextStyle.Font.Size, a.Tick.Label.Font.Size = vg.Points(11), vg.Points(9)
		a.LineStyle.Width, a.Tick.LineStyle.Width = vg.Points(0.5), vg.Points(0.5)
		a.Label.Padding = vg.Points(4)
	}
	p.Title.TextStyle = t.style(p, 12, text.XCenter, text.YTop)
	p.Title.Padding = vg.Points(8)
	p.Legend.TextStyle = t.style(p, 9, text.XLeft, text.YBottom)
	return p
}

// differenceColours maps -limit..limit to red, light grey at zero, blue, which
// people of every kind of colour vision tell apart.
func differenceColours(limit float64) palette.ColorMap {
	m := moreland.NewSmoothDiverging(color.NRGBA{180, 4, 38, 255}, color.NRGBA{59, 76, 192, 255}, 88)
	m.SetMin(-limit)
	m.SetMax(limit)
	return m
}

// colourAt returns the colour of v, clamped to the map's range, and whether
// white text reads better on it than black.
func colourAt(m palette.ColorMap, v float64) (c color.NRGBA, white bool) {
	at, err := m.At(min(max(v, m.Min()), m.Max()))
	if err != nil { // NaN: no such cell is drawn
		return color.NRGBA{}, false
	}
	c = color.NRGBAModel.Convert(at).(color.NRGBA)
	linear := func(v uint8) float64 { return math.Pow(float64(v)/255, 2.2) }
	// Contrast is (lighter + 0.05) / (darker + 0.05) in relative luminance
	// (WCAG 2, 1.4.3); white wins below the geometric mean of both ends.
	luminance := 0.2126*linear(c.R) + 0.7152*linear(c.G) + 0.0722*linear(c.B)
	return c, luminance+0.05 < math.Sqrt(1.05*0.05)
}

// heatMap draws a grid: context length from left to right, depth from 0 % at the
// top down to 100 %. compact makes it small, for several side by side.
func heatMap(m needleMap, t theme, title string, compact bool) figure {
	const barWidth = 74 // points, colour bar with its labels
	columns, rows := float64(len(m.lengths)), float64(len(m.depths))
	// A cell has room for its value; a grid of few cells has room for the title
	// and the axes' labels.
	cellW := max(28, min(72, 600/columns), 330/columns)
	cellH := max(13, min(30, 340/rows), 150/rows)
	if compact {
		cellW = max(min(44, 420/columns), 240/columns)
	}
	cells := &heatCells{needleMap: m, figures: cellW >= 26}

	p := t.newPlot()
	p.Title.Text = title
	p.X.Label.Text = "context length (tokens)"
	p.Y.Label.Text = "depth of the needle (%)"
	p.Add(cells)
	xLabels, yLabels := make([]string, len(m.lengths)), make([]string, len(m.depths))
	for i, l := range m.lengths {
		xLabels[i] = strconv.Itoa(l)
	}
	for i, d := range m.depths {
		yLabels[i] = depthLabel(d)
	}
	categories(&p.X, xLabels, +1, cellW, 6*float64(len(xLabels[len(xLabels)-1]))+6)
	categories(&p.Y, yLabels, -1, cellH, 12)

	height := vg.Points(cellH*rows + 46)
	if title != "" {
		height += vg.Points(24)
	}
	f := figure{width: vg.Points(cellW*columns + 56 + barWidth), height: height}
	f.draw = func(c draw.Canvas) {
		main := draw.Crop(c, vg.Points(4), -vg.Points(barWidth), vg.Points(4), -vg.Points(4))
		p.Draw(main)
		area := p.DataCanvas(main)
		left := area.Max.X + vg.Points(14)
		bar := vg.Rectangle{Min: vg.Point{X: left, Y: area.Min.Y}, Max: vg.Point{X: left + vg.Points(12), Y: area.Max.Y}}
		colourBar(c, bar, m.scale, t.style(p, 9, text.XLeft, text.YCenter))
		unit := t.style(p, 9, text.XCenter, text.YTop)
		unit.Rotation = math.Pi / 2
		c.FillText(unit, vg.Point{X: c.Max.X - vg.Points(14), Y: (area.Min.Y + area.Max.Y) / 2}, m.unit)
	}
	return f
}

// heatMaps draws several maps side by side under a title of their own each, and
// a common one.
func heatMaps(all []needleMap, t theme, title string) figure {
	if len(all) == 1 {
		return heatMap(all[0], t, title, false)
	}
	var parts []figure
	var f figure
	const head = 26 // points, for the common title
	for _, m := range all {
		part := heatMap(m, t, m.title, true)
		parts = append(parts, part)
		f.width += part.width
		f.height = max(f.height, part.height+vg.Points(head))
	}
	f.draw = func(c draw.Canvas) {
		style := t.style(t.newPlot(), 12, text.XCenter, text.YTop)
		c.FillText(style, vg.Point{X: (c.Min.X + c.Max.X) / 2, Y: c.Max.Y - vg.Points(6)}, title)
		left := c.Min.X
		for _, part := range parts {
			part.draw(draw.Canvas{Canvas: c.Canvas, Rectangle: vg.Rectangle{
				Min: vg.Point{X: left, Y: c.Min.Y}, Max: vg.Point{X: left + part.width, Y: c.Min.Y + part.height}}})
			left += part.width
		}
	}
	return f
}

// categories labels the positions 0, sign, 2 sign ... of an axis and leaves
// labels out where they would touch: cell is a position's size and room what a
// label needs, in points.
func categories(a *plot.Axis, labels []string, sign int, cell, room float64) {
	every := max(1, int(math.Ceil(room/cell)))
	ticks := make(plot.ConstantTicks, 0, len(labels))
	for i, l := range labels {
		if i%every == 0 {
			ticks = append(ticks, plot.Tick{Value: float64(sign * i), Label: l})
		}
	}
	last := float64(sign * (len(labels) - 1))
	a.Min, a.Max = min(0, last)-0.5, max(0, last)+0.5
	a.Padding, a.LineStyle.Width, a.Tick.Length = vg.Points(2), 0, 0
	a.Tick.Marker = ticks
}

// heatCells draws a grid at x = column, y = -row, each value in its cell.
type heatCells struct {
	needleMap
	figures bool // there is room for the values
}

// Plot implements plot.Plotter.
func (h *heatCells) Plot(c draw.Canvas, p *plot.Plot) {
	const gap = 0.5 // points on each side
	trX, trY := p.Transforms(&c)
	label := paper.style(p, 8, text.XCenter, text.YCenter)
	for i, row := range h.grid {
		for j, v := range row {
			if math.IsNaN(v) {
				continue
			}
			x, y := float64(j), float64(-i)
			fill, white := colourAt(h.colours, v)
			fillRect(c, fill, vg.Rectangle{
				Min: vg.Point{X: trX(x-0.5) + gap, Y: trY(y-0.5) + gap},
				Max: vg.Point{X: trX(x+0.5) - gap, Y: trY(y+0.5) - gap},
			})
			if !h.figures {
				continue
			}
			label.Color = color.Color(color.NRGBA{0x1a, 0x1a, 0x1a, 0xff})
			if white {
				label.Color = color.White
			}
			c.FillText(label, vg.Point{X: trX(x), Y: trY(y)}, h.format(v))
		}
	}
}

// colourBar draws the scale of the cells into r, five labels on its right.
func colourBar(c draw.Canvas, r vg.Rectangle, s scale, label text.Style) {
	const steps = 64
	size := r.Max.Y - r.Min.Y
	for i := range steps {
		fill, _ := colourAt(s.colours, s.low+(s.high-s.low)*float64(i)/(steps-1))
		// Each step reaches to the top, so that no seam shows between two.
		fillRect(c, fill, vg.Rectangle{Min: vg.Point{X: r.Min.X, Y: r.Min.Y + size*vg.Length(i)/steps}, Max: r.Max})
	}
	for i := range 5 {
		y := r.Min.Y + size*vg.Length(i)/4
		c.FillText(label, vg.Point{X: r.Max.X + vg.Points(5), Y: y}, s.format(s.low+(s.high-s.low)*float64(i)/4))
	}
}

func fillRect(c draw.Canvas, fill color.Color, r vg.Rectangle) {
	c.FillPolygon(fill, []vg.Point{r.Min, {X: r.Max.X, Y: r.Min.Y}, r.Max, {X: r.Min.X, Y: r.Max.Y}})
}
