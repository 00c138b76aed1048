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
	Name       string `json:"name"` // as the user named it
	Dir        string `json:"dir"`
	Parameters int64  `json:"parameters,omitempty"`
	MaxSeq     int    `json:"max_seq,omitempty"`
	// RopeScaling is how positions are scaled, TYPE:FACTOR.
	RopeScaling string          `json:"rope_scaling,omitempty"`
	Config      json.RawMessage `json:"config,omitempty"` // config.json as it stands
}

// Report is what an evaluation leaves behind. Empty parts are left out.
type Report struct {
	Title string `json:"title"`
	// Models are what was evaluated, in the user's order.
	Models []Model `json:"models"`
	// Sections hold what else describes the model and its training: the run's
	// resolved configuration, the seed, the device.
	Sections   []Section         `json:"sections,omitempty"`
	Perplexity *PerplexityResult `json:"perplexity,omitempty"`
	Needle     []*NeedleResult   `json:"needle,omitempty"` // by model, all over the same grid
	// Metric is what the terminal and the picture show of the grid; the page
	// shows all.
	Metric Metric `json:"-"`
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
	if len(r.Needle) > 0 {
		info := r.Metric.shown(r.Needle)
		png, err := heatMaps(maps(r.Needle, info), paper, info.title).png()
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
	Subtitle    string
	Cards       []Fact
	ModelFacts  []Section
	Configs     []Fact
	NeedleFacts []Fact
	Needle      []pageMetric
	Answers     []pageAnswers
	Perplexity  []Fact
	Panels      []pagePanel
}

type pagePanel struct {
	Title string
	SVG   template.HTML
}

// pageMetric is the grid by one metric.
type pageMetric struct {
	Title, Unit string
	Share       bool
	Maps        []pageMap
}

type pageMap struct {
	Title   string
	HeatMap template.HTML
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

// pageAnswers lists what a model answered.
type pageAnswers struct {
	Model string
	Rows  []pageAnswer
}

type pageAnswer struct {
	Length, Case  int
	Depth, Answer string
	Recall, Exact string
	Difference    string
}

// page renders the HTML page; it refers to nothing outside itself.
func (r *Report) page() ([]byte, error) {
	d := pageData{Report: r}
	var dirs []string
	for _, m := range r.Models {
		dirs = append(dirs, m.Dir)
		name := m.Name
		if len(r.Models) == 1 {
			name = "Model"
		}
		if f := m.facts(); len(f) > 0 {
			d.ModelFacts = append(d.ModelFacts, Section{name, f})
		}
		if len(m.Config) > 0 {
			var buf bytes.Buffer
			if err := json.Indent(&buf, m.Config, "", "  "); err != nil {
				return nil, fmt.Errorf("the config.json of %s: %w", m.Dir, err)
			}
			d.Configs = append(d.Configs, Fact{filepath.Join(m.Dir, "config.json"), buf.String()})
		}
	}
	d.Subtitle = strings.Join(dirs, ", ")
	if p := r.Perplexity; p != nil {
		d.Perplexity = p.facts()
		d.Cards = append(d.Cards, Fact{"perplexity", number(p.Perplexity)})
		if p.Bytes > 0 {
			d.Cards = append(d.Cards, Fact{"bits per byte", number(p.BitsPerByte)})
		}
	}
	if len(r.Needle) > 0 {
		if err := r.needlePage(&d); err != nil {
			return nil, err
		}
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
	if m.RopeScaling != "" {
		f = append(f, Fact{"positions scaled", m.RopeScaling})
	}
	return f
}
