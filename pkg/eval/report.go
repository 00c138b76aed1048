package eval

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"meap/internal/durable"
)

// Fact is one line of a list for people.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Section is a list of facts under a heading.
type Section struct {
	Name  string `json:"name"`
	Facts []Fact `json:"facts"`
}

// Model says what was evaluated.
type Model struct {
	Dir        string          `json:"dir"`
	Parameters int64           `json:"parameters,omitempty"`
	MaxSeq     int             `json:"max_seq,omitempty"`
	Config     json.RawMessage `json:"config,omitempty"` // config.json as it stands
}

// Report is what an evaluation leaves behind. Empty parts are left out.
type Report struct {
	Title string `json:"title"`
	Model Model  `json:"model"`
	// Sections hold what else describes the model and its training: the run's
	// resolved configuration, the seed, the device.
	Sections   []Section         `json:"sections,omitempty"`
	Perplexity *PerplexityResult `json:"perplexity,omitempty"`
	Needle     *NeedleResult     `json:"needle,omitempty"`
	// Curves are drawn on the page; their figures stay in the run's
	// metrics.jsonl.
	Curves []Curve `json:"-"`
}

// The files that Write makes.
const (
	ResultsFile = "results.json"
	NeedleFile  = "needle.png"
	PageFile    = "report.html"
)

const needleTitle = "Log-likelihood of the answer with the needle, minus without it"

// Write writes results.json, report.html and, where there is a grid, needle.png
// into dir, which it makes if needed. Everything is written under temporary
// names before the first file is replaced, results.json last.
func (r *Report) Write(dir string) error {
	results, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding %s: %w", ResultsFile, err)
	}
	htmlPage, err := r.page()
	if err != nil {
		return fmt.Errorf("making %s: %w", PageFile, err)
	}
	files := []outFile{{name: PageFile, data: htmlPage}}
	if r.Needle != nil {
		png, err := heatMap(r.Needle, paper, needleTitle).png()
		if err != nil {
			return fmt.Errorf("drawing %s: %w", NeedleFile, err)
		}
		files = append(files, outFile{name: NeedleFile, data: png})
	}
	files = append(files, outFile{name: ResultsFile, data: append(results, '\n')})
	if err := replaceAll(dir, files); err != nil {
		return fmt.Errorf("writing the report to %s: %w; free some space or give another --output", dir, err)
	}
	return nil
}

type outFile struct {
	name string
	data []byte
}

// replaceAll writes files into dir in such a way that each is at any moment
// either the old one or the new one, and all are the old ones unless all new
// ones could be written.
func replaceAll(dir string, files []outFile) error {
	if err := durable.MakeDir(dir); err != nil {
		return err
	}
	var written []string
	defer func() {
		for _, name := range written {
			os.Remove(name) // after success the name is gone already
		}
	}()
	for _, f := range files {
		temporary, err := durable.WriteTemporary(filepath.Join(dir, f.name), func(w io.Writer) error {
			_, err := w.Write(f.data)
			return err
		})
		if err != nil {
			return err
		}
		written = append(written, temporary)
	}
	for i, f := range files {
		if err := durable.Commit(written[i], filepath.Join(dir, f.name)); err != nil {
			return err
		}
	}
	return nil
}

//go:embed report.html.tmpl
var pageSource string

var pageTemplate = template.Must(template.New("report").Parse(pageSource))

// pageData is what the template shows.
type pageData struct {
	*Report
	Cards       []Fact
	ModelFacts  []Fact
	Config      string
	NeedleTitle string
	NeedleFacts []Fact
	HeatMap     template.HTML
	Table       *pageTable
	Perplexity  []Fact
	Panels      []pagePanel
}

type pagePanel struct {
	Title string
	SVG   template.HTML
}

// pageTable is the grid in figures.
type pageTable struct {
	Lengths []int
	Rows    []pageRow
}

type pageRow struct {
	Depth string
	Cells []pageCell
}

type pageCell struct {
	Text  string
	Hint  string
	Style template.CSS
}

// page renders the HTML page; it refers to nothing outside itself.
func (r *Report) page() ([]byte, error) {
	d := pageData{Report: r, NeedleTitle: needleTitle}
	d.ModelFacts = r.Model.facts()
	if len(r.Model.Config) > 0 {
		var buf bytes.Buffer
		if err := json.Indent(&buf, r.Model.Config, "", "  "); err != nil {
			return nil, fmt.Errorf("the model's config.json: %w", err)
		}
		d.Config = buf.String()
	}
	if p := r.Perplexity; p != nil {
		d.Perplexity = p.facts()
		d.Cards = append(d.Cards, Fact{"perplexity", number(p.Perplexity)})
		if p.Bytes > 0 {
			d.Cards = append(d.Cards, Fact{"bits per byte", number(p.BitsPerByte)})
		}
	}
	if n := r.Needle; n != nil {
		_, _, grid := n.Grid()
		format := differenceFormat(greatest(grid))
		d.Cards = append(d.Cards,
			Fact{"needle: mean difference, nats", format(n.MeanDifference)},
			Fact{"needle: cells above zero", fmt.Sprintf("%.0f %%", 100*n.Above)})
		d.NeedleFacts = n.facts()
		d.Table = n.table()
		svg, err := heatMap(n, page, "").inlineSVG(needleTitle)
		if err != nil {
			return nil, err
		}
		d.HeatMap = template.HTML(svg)
	}
	ps, err := panels(r.Curves)
	if err != nil {
		return nil, err
	}
	for _, p := range ps {
		f, err := p.plot(page)
		if err != nil {
			return nil, err
		}
		svg, err := f.inlineSVG(p.Title)
		if err != nil {
			return nil, err
		}
		d.Panels = append(d.Panels, pagePanel{p.Title, template.HTML(svg)})
	}
	var buf bytes.Buffer
	if err := pageTemplate.Execute(&buf, d); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

func (m *Model) facts() []Fact {
	var f []Fact
	if m.Dir != "" {
		f = append(f, Fact{"folder", m.Dir})
	}
	if m.Parameters > 0 {
		f = append(f, Fact{"parameters", thousands(m.Parameters)})
	}
	if m.MaxSeq > 0 {
		f = append(f, Fact{"max_seq", thousands(int64(m.MaxSeq))})
	}
	return f
}

// facts says how the grid was made.
func (r *NeedleResult) facts() []Fact {
	order := "files by name"
	if r.HaystackSeed != 0 {
		order = "files shuffled with seed " + strconv.FormatUint(r.HaystackSeed, 10)
	}
	return []Fact{
		{"needle", fmt.Sprintf("%s (%d tokens)", strings.TrimSpace(r.Config.Needle), r.NeedleTokens)},
		{"question", r.Config.Question},
		{"answer", fmt.Sprintf("%s (%d tokens)", r.Config.Answer, r.AnswerTokens)},
		{"haystack", r.Haystack + ", " + order},
		{"needle stands after", "the end of a " + string(r.Boundary)},
		{"context length", fmt.Sprintf("document and needle are %d tokens shorter; question and answer come on top", r.Config.Buffer)},
	}
}

// table lays the grid out in figures, coloured as the picture is.
func (r *NeedleResult) table() *pageTable {
	lengths, depths, grid := r.Grid()
	limit := greatest(grid)
	format, scale := differenceFormat(limit), differenceColours(limit)
	t := &pageTable{Lengths: lengths}
	for i, depth := range depths {
		row := pageRow{Depth: strconv.FormatFloat(depth, 'f', 1, 64)}
		for j, v := range grid[i] {
			cell := pageCell{Text: "–"}
			if k := j*len(depths) + i; k < len(r.Cells) {
				c := r.Cells[k]
				fill, white := colourAt(scale, v)
				ink := "#1a1a1a"
				if white {
					ink = "#fff"
				}
				cell = pageCell{
					Text:  format(v),
					Hint:  fmt.Sprintf("with %.2f, without %.2f; needle at token %d, depth %.1f %%", c.LogPWith, c.LogPWithout, c.NeedleToken, c.ActualDepth),
					Style: template.CSS("background:" + hex(fill) + ";color:" + ink),
				}
			}
			row.Cells = append(row.Cells, cell)
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}
