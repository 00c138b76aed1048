package eval

import (
	"fmt"
	"html/template"
	"math"
	"strconv"
	"strings"
)

// needlePage adds the grid to the page.
func (r *Report) needlePage(d *pageData) error {
	for _, n := range r.Needle {
		of := ""
		if len(r.Needle) > 1 {
			of = ", " + n.Model
		}
		format := differenceFormat(math.Abs(n.Mean.Difference))
		d.Cards = append(d.Cards,
			Fact{"keyword recall" + of, fmt.Sprintf("%.1f %%", 100*n.Mean.Recall)},
			Fact{"exact answers" + of, fmt.Sprintf("%.1f %%", 100*n.Mean.Exact)},
			Fact{"mean difference, nats" + of, format(n.Mean.Difference)})
		d.Answers = append(d.Answers, n.answers())
	}
	d.NeedleFacts = r.Needle[0].facts()
	first := r.Metric.shown(r.Needle)
	order := []metricInfo{first}
	for _, info := range metrics {
		if info.Metric != first.Metric {
			order = append(order, info)
		}
	}
	for _, info := range order {
		p := pageMetric{Title: info.title, Unit: info.unit, Share: info.share}
		all := maps(r.Needle, info)
		for _, m := range all {
			label := strings.TrimSuffix(info.title+", "+m.title, ", ")
			svg, err := heatMap(m, page, "", len(all) > 1).inlineSVG(label)
			if err != nil {
				return err
			}
			p.Maps = append(p.Maps, pageMap{Title: m.title, HeatMap: template.HTML(svg), Lengths: m.lengths, Rows: m.rows()})
		}
		d.Needle = append(d.Needle, p)
	}
	return nil
}

// facts says how the grid was made.
func (r *NeedleResult) facts() []Fact {
	c := &r.Config
	order := "files by name"
	if r.HaystackSeed != 0 {
		order = "files shuffled with seed " + strconv.FormatUint(r.HaystackSeed, 10)
	}
	var f []Fact
	if len(c.Cases) == 1 {
		for _, needle := range c.Cases[0].Needles {
			f = append(f, Fact{"needle", strings.TrimSpace(needle)})
		}
		f = append(f, Fact{"question", c.Cases[0].Question}, Fact{"answer", c.Cases[0].Answer})
	} else {
		f = append(f, Fact{"needles", fmt.Sprintf("%d cases, %d in each cell", len(c.Cases), c.Samples)})
	}
	prompt := c.Template
	if c.Chat != "" {
		prompt = "chat template " + c.Chat + ": " + prompt
	}
	length := fmt.Sprintf("nominal: document and needle are %d tokens shorter; question and answer come on top", c.Buffer)
	if c.Exact {
		length = "exact: of the whole prompt, up to where the answer begins"
	}
	return append(f,
		Fact{"prompt", prompt},
		Fact{"answers", fmt.Sprintf("the most likely tokens, at most %d", c.MaxNew)},
		Fact{"haystack", r.Haystack + ", " + order},
		Fact{"needle stands after", "the end of a " + string(r.Boundary)},
		Fact{"context length", length})
}

// rows lays a map out in figures, coloured as the picture is.
func (m *needleMap) rows() []pageRow {
	var rows []pageRow
	for i, depth := range m.depths {
		row := pageRow{Depth: depthLabel(depth)}
		for j, v := range m.grid[i] {
			cell := pageCell{Text: "–"}
			if v == v {
				fill, white := colourAt(m.colours, v)
				ink := "#1a1a1a"
				if white {
					ink = "#fff"
				}
				cell = pageCell{Text: m.format(v), Hint: m.cell(i, j), Style: template.CSS("background:" + hex(fill) + ";color:" + ink)}
			}
			row.Cells = append(row.Cells, cell)
		}
		rows = append(rows, row)
	}
	return rows
}

// answers lists every prompt's answer.
func (r *NeedleResult) answers() pageAnswers {
	a := pageAnswers{Model: r.Model}
	for _, p := range r.Prompts {
		a.Rows = append(a.Rows, pageAnswer{Length: p.Length, Depth: depthLabel(p.Depth), Case: p.Case + 1, Answer: p.Answer,
			Recall: strconv.FormatFloat(100*p.Recall, 'f', 0, 64), Exact: strconv.FormatFloat(100*p.Exact, 'f', 0, 64),
			Difference: strconv.FormatFloat(p.Difference, 'f', 2, 64)})
	}
	return a
}
