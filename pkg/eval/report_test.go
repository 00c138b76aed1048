package eval

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/recorder"
)

// gridResult makes a result with the differences diff(length, depth); answers are exact where that is above zero.
func gridResult(lengths []int, depths []float64, diff func(l int, d float64) float64) *NeedleResult {
	cfg := DefaultNeedle()
	cfg.Lengths, cfg.Depths = lengths, depths
	r := &NeedleResult{Model: "runs/a", Haystack: "essays", Boundary: BoundarySentence, Config: cfg}
	for _, l := range lengths {
		for _, d := range depths {
			v := diff(l, d)
			p := NeedlePrompt{Length: l, Depth: d, Needles: []Placed{{7, d}}, Answer: "no <idea>",
				NeedleScores: NeedleScores{LogPWith: v - 70, LogPWithout: -70, Difference: v, DifferencePerToken: v / 55}}
			if v > 0 {
				p.Recall, p.Exact, p.Answer = 1, 1, "eat & sit"
			}
			r.Prompts = append(r.Prompts, p)
		}
	}
	r.summarise()
	return r
}

func testReport() *Report {
	steps := make([]float64, 3000)
	for i := range steps {
		steps[i] = float64(i + 1)
	}
	falling := make([]float64, len(steps))
	for i := range falling {
		falling[i] = 5 / math.Sqrt(steps[i])
	}
	return &Report{
		Title:    "run <1> & \"two\"",
		Models:   []Model{{Name: "runs/a", Dir: "runs/a/step-9", Parameters: 1234567, MaxSeq: 512, RopeScaling: "yarn:4", Config: json.RawMessage(`{"hidden_size":64}`)}},
		Sections: []Section{{"Training", []Fact{{"trainer.seed", "3407"}}}},
		Needle: []*NeedleResult{gridResult([]int{500, 600, 700}, []float64{0, 50, 100}, func(l int, d float64) float64 {
			return float64(l)/10 - d
		})},
		Perplexity: &PerplexityResult{Source: "val", Tokens: 10, Bytes: 20, Windows: 2, Seq: 5, Nats: 12.5, NatsPerToken: 1.25, Perplexity: math.Exp(1.25), BitsPerByte: 0.9},
		Curves: []Curve{
			{"loss", steps, falling},
			{"val_loss", []float64{1000, 2000, 3000}, []float64{.2, math.NaN(), .1}},
			{"learning_rate", []float64{1, 2}, []float64{4e-4, 4e-4}},
			{"grad_norm", []float64{1}, []float64{math.Inf(1)}},
		},
	}
}

func TestReportWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "folder")
	r := testReport()
	if err := r.Write(dir); err != nil {
		t.Fatal(err)
	}
	read := func(name string) []byte {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}

	results := read(ResultsFile)
	var back Report
	if err := json.Unmarshal(results, &back); err != nil {
		t.Fatal(err)
	}
	want := *r
	want.Curves, want.Needle[0].Config.Batch = nil, 0 // neither is written
	back.Models[0].Config = want.Models[0].Config     // indentation differs
	if !reflect.DeepEqual(back, want) {
		t.Errorf("results.json reads back as\n%+v\nwant\n%+v", back, want)
	}
	order := regexp.MustCompile(`(?m)^  "(\w+)":`).FindAllStringSubmatch(string(results), -1)
	var keys []string
	for _, m := range order {
		keys = append(keys, m[1])
	}
	if !slices.Equal(keys, []string{"title", "models", "sections", "perplexity", "needle"}) {
		t.Errorf("results.json has the keys %v", keys)
	}

	img, err := png.Decode(bytes.NewReader(read(NeedleFile)))
	if err != nil || img.Bounds().Dx() < 400 || img.Bounds().Dy() < 200 {
		t.Errorf("needle.png: %v, %v", err, img.Bounds())
	}

	names, _ := filepath.Glob(filepath.Join(dir, "*"))
	hidden, _ := filepath.Glob(filepath.Join(dir, ".*"))
	if len(names) != 3 || len(hidden) != 0 {
		t.Errorf("the folder holds %v %v", names, hidden)
	}
	// Written again, every byte is the same.
	page := read(PageFile)
	if err := r.Write(dir); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(page, read(PageFile)) || !bytes.Equal(results, read(ResultsFile)) {
		t.Error("the same report gave other bytes")
	}
}

// The page needs nothing from outside, escapes what it is given, and holds the
// figures as text.
func TestReportPage(t *testing.T) {
	data, err := testReport().page()
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	bare := strings.NewReplacer("http://www.w3.org/2000/svg", "", "http://www.w3.org/1999/xlink", "").Replace(page)
	for _, forbidden := range []string{"http:", "https:", "<script", "<link", "src=", "url(", "@import", "ZgotmplZ",
		"<1>", "#123456", "#ABCDEF", "Liberation Sans;", "NaN", "Inf"} {
		if strings.Contains(bare, forbidden) {
			t.Errorf("the page contains %q", forbidden)
		}
	}
	for _, wanted := range []string{"run &lt;1&gt; &amp;", "currentColor", "var(--rule)", "1,234,567", "hidden_size", "trainer.seed", "yarn:4", "no &lt;idea&gt;",
		">&#43;70.0<", ">-50.0<", "with the needle -120.00, without -70.00", "Dolores Park", "Keyword recall", "Exact answers", "own measure", "Loss (nats per token)", "Learning rate", ">val_loss<", ">3.4903<"} {
		if !strings.Contains(page, wanted) {
			t.Errorf("the page lacks %q", wanted)
		}
	}
	// -50 stands at length 500, depth 100; its log-likelihoods belong to it.
	if !regexp.MustCompile(`title="recall 0 %, exact 0 %; [^"]* -120\.00, without -70\.00">-50\.0<`).MatchString(page) {
		t.Error("the cell of -50 does not show its own log-likelihoods")
	}
	if strings.Contains(page, "Gradient norm") {
		t.Error("a curve without finite points has a panel")
	}
	svgs := regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(page, -1)
	if len(svgs) != 5 {
		t.Errorf("%d figures, want the grid by three metrics, the losses and the learning rate", len(svgs))
	}
	for _, svg := range svgs {
		dec := xml.NewDecoder(strings.NewReader(svg))
		for {
			if _, err := dec.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("a figure is not well-formed: %v", err)
			}
		}
	}
}

// A page of the original test's grid and a long run stays small.
func TestReportPageSize(t *testing.T) {
	r := testReport()
	r.Needle = []*NeedleResult{gridResult(LinspaceLengths(1000, 16000, 35), Linspace(0, 100, 35), func(l int, d float64) float64 { return math.Sin(float64(l)) * d })}
	for i := range r.Curves[:1] {
		c := &r.Curves[i]
		for s := range 200_000 {
			c.X, c.Y = append(c.X, float64(3001+s)), append(c.Y, math.Cos(float64(s)))
		}
	}
	data, err := r.page()
	if err != nil {
		t.Fatal(err)
	}
	if len(data) > 3<<19 {
		t.Errorf("the page has %d bytes", len(data))
	}
}

func TestReportParts(t *testing.T) {
	for name, change := range map[string]func(*Report){
		"perplexity only": func(r *Report) { r.Needle, r.Curves, r.Sections, r.Models = nil, nil, nil, nil },
		"needle only":     func(r *Report) { r.Perplexity, r.Curves = nil, nil },
		"one cell": func(r *Report) {
			r.Needle = []*NeedleResult{gridResult([]int{9}, []float64{0}, func(int, float64) float64 { return 0 })}
		},
		"limit":     func(r *Report) { r.Needle[0].Prompts = r.Needle[0].Prompts[:4]; r.Needle[0].summarise() },
		"one point": func(r *Report) { r.Curves = []Curve{{"custom", []float64{0}, []float64{0}}} },
	} {
		r := testReport()
		change(r)
		dir := t.TempDir()
		if err := r.Write(dir); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(filepath.Join(dir, NeedleFile)); (err == nil) != (len(r.Needle) > 0) {
			t.Errorf("%s: needle.png: %v", name, err)
		}
		if err := r.Print(io.Discard, 80, true); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A report that cannot be written leaves the one before untouched.
func TestReportWriteFails(t *testing.T) {
	dir := t.TempDir()
	r := testReport()
	if err := r.Write(dir); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(filepath.Join(dir, ResultsFile))

	bad := testReport()
	bad.Needle[0].Cells[0].LogPWith = math.NaN()
	if err := bad.Write(dir); err == nil || !strings.Contains(err.Error(), ResultsFile) {
		t.Errorf("a figure that JSON cannot hold: %v", err)
	}
	bad = testReport()
	bad.Curves[0].X = nil
	if err := bad.Write(dir); err == nil || !strings.Contains(err.Error(), "curve loss") {
		t.Errorf("a curve without steps: %v", err)
	}
	bad = testReport()
	bad.Title = "another"
	if runtime.GOOS != "windows" && os.Geteuid() != 0 {
		if err := os.Chmod(dir, 0o500); err != nil {
			t.Fatal(err)
		}
		if err := bad.Write(dir); err == nil || !strings.Contains(err.Error(), "--output") {
			t.Errorf("a folder that cannot be written: %v", err)
		}
		if err := os.Chmod(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := bad.Write(filepath.Join(dir, ResultsFile)); err == nil || !strings.Contains(err.Error(), "--output") {
		t.Errorf("a file in the folder's place: %v", err)
	}
	// A temporary file that cannot be made: the name of the last is too long.
	files := []outFile{{PageFile, []byte("x")}, {strings.Repeat("n", 300), []byte("x")}}
	if err := replaceAll(dir, files); err == nil {
		t.Error("a name of 300 bytes was written")
	}
	after, _ := os.ReadFile(filepath.Join(dir, ResultsFile))
	page, _ := os.ReadFile(filepath.Join(dir, PageFile))
	if !bytes.Equal(before, after) || len(page) < 1000 {
		t.Error("a failed write changed the report")
	}
	if hidden, _ := filepath.Glob(filepath.Join(dir, ".*")); len(hidden) != 0 {
		t.Errorf("a failed write left %v", hidden)
	}
}

// The picture has context length on x growing to the right and depth on y with
// 0 % on top.
func TestHeatMapOrientation(t *testing.T) {
	// The scale goes to 301 in steps of 150.5: no other label reads like these.
	r := gridResult([]int{100, 210}, []float64{10, 50, 90}, func(l int, d float64) float64 { return float64(l) + d + 1 })
	f := heatMaps(maps([]*NeedleResult{r}, MetricDifference.shown(nil)), paper, "title")
	var rec recorder.Canvas
	f.draw(draw.NewCanvas(&rec, f.width, f.height))
	at := map[string]vg.Point{}
	turned := 0
	for _, a := range rec.Actions {
		switch a := a.(type) {
		case *recorder.Rotate:
			turned++
		case *recorder.Pop:
			turned = 0
		case *recorder.FillString:
			if turned > 0 {
				continue // the axis labels that read upwards have other coordinates
			}
			at[a.String] = a.Point
			if a.Point.X < 0 || a.Point.X > f.width || a.Point.Y < 0 || a.Point.Y > f.height {
				t.Errorf("%q stands outside the picture at %v", a.String, a.Point)
			}
		}
	}
	for _, text := range []string{"+111", "+151", "+191", "+221", "+261", "title", "10", "50", "90", "100", "210"} {
		if _, ok := at[text]; !ok {
			t.Fatalf("%q is not drawn; drawn are %v", text, at)
		}
	}
	if !(at["+111"].X < at["+221"].X && at["+111"].Y > at["+151"].Y && at["+151"].Y > at["+191"].Y && at["+111"].Y == at["+221"].Y) {
		t.Errorf("values at %v", at)
	}
	if at["10"].Y < at["50"].Y || at["50"].Y < at["90"].Y || at["100"].X > at["210"].X {
		t.Errorf("labels at %v", at)
	}
}

func TestPrint(t *testing.T) {
	n := gridResult([]int{500, 600, 700}, []float64{0, 50}, func(l int, d float64) float64 { return float64(l)/100 - d/5 })
	n.Prompts = n.Prompts[:5]
	n.summarise()
	r := &Report{Needle: []*NeedleResult{n}, Metric: MetricDifference}
	var buf bytes.Buffer
	if err := r.Print(&buf, 22, false); err != nil {
		t.Fatal(err)
	}
	want := `Log-likelihood of the answer with the needle, minus without it (our own measure), nats

        context length (tokens)
depth %   500  600
    0.0  +5.0 +6.0
   50.0  -5.0 -4.0

        context length (tokens)
depth %   700
    0.0  +7.0
   50.0     -

keyword recall 60.0 %, exact 60.0 %, log-likelihood difference +1.8 nats (above zero in 60 %), 5 prompts
`
	// A heading is as wide as its words.
	if got := regexp.MustCompile(` +context`).ReplaceAllString(buf.String(), "        context"); got != want {
		t.Errorf("printed\n%s\nwant\n%s", got, want)
	}
	buf.Reset()
	if err := r.Print(&buf, 80, true); err != nil {
		t.Fatal(err)
	}
	plain := regexp.MustCompile("\x1b\\[[0-9;]*m").ReplaceAllString(buf.String(), "")
	if strings.Count(buf.String(), "\x1b[0m") != 5 || !strings.Contains(plain, "   50.0  -5.0 -4.0    -\n") {
		t.Errorf("in colour:\n%q", buf.String())
	}
	// Answers were exact, so recall is what auto shows.
	r.Metric = MetricAuto
	buf.Reset()
	if err := r.Print(&buf, 80, false); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(buf.String(), "Keyword recall, %\n") || !strings.Contains(buf.String(), "    0.0   100  100  100\n   50.0     0    0    -\n") {
		t.Errorf("recall:\n%s", buf.String())
	}
}

// Two models: a map of each on one scale, and what the second has more.
func TestSeveralModels(t *testing.T) {
	grid := func(name string, by float64) *NeedleResult {
		r := gridResult([]int{500, 600}, []float64{0, 50}, func(l int, d float64) float64 { return by * (float64(l)/100 - d/5) })
		r.Model = name
		return r
	}
	r := &Report{Title: "two", Models: []Model{{Name: "ntp", Dir: "a"}, {Name: "meap", Dir: "b"}}, Needle: []*NeedleResult{grid("ntp", 1), grid("meap", -2)}}
	all := maps(r.Needle, MetricDifference.shown(r.Needle))
	if len(all) != 3 || all[2].title != "meap minus ntp" {
		t.Fatalf("%d maps, the last %q", len(all), all[len(all)-1].title)
	}
	if got, want := fmt.Sprint(all[0].grid, all[1].grid, all[2].grid), "[[5 6] [-5 -4]] [[-10 -12] [10 8]] [[-15 -18] [15 12]]"; got != want {
		t.Errorf("grids %s, want %s", got, want)
	}
	if all[0].high != 12 || all[1].high != 12 || all[2].high != 18 {
		t.Errorf("scales up to %v, %v and %v, want 12, 12 and 18", all[0].high, all[1].high, all[2].high)
	}
	percent := maps(r.Needle, MetricExact.shown(r.Needle))
	if got := fmt.Sprint(percent[0].grid, percent[2].grid); got != "[[100 100] [0 0]] [[-100 -100] [100 100]]" {
		t.Errorf("exact answers %s", got)
	}
	var buf bytes.Buffer
	if err := r.Print(&buf, 80, false); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\nntp\n", "\nmeap\n", "\nmeap minus ntp\n", "\nntp: keyword recall 50.0 %", "\nmeap: keyword"} {
		if !strings.Contains(buf.String(), want) {
			t.Errorf("%q is not in\n%s", want, buf.String())
		}
	}
	dir := t.TempDir()
	if err := r.Write(dir); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(dir, NeedleFile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	one := heatMap(all[0], paper, "", true)
	if img, err := png.DecodeConfig(f); err != nil || float64(img.Width) < 3*float64(one.width)*pngDPI/72-2 {
		t.Errorf("the picture is %d pixels wide, %v; three maps need %v", img.Width, err, 3*float64(one.width)*pngDPI/72)
	}
	page, err := os.ReadFile(filepath.Join(dir, PageFile))
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(page, []byte("<svg")); n != 9 {
		t.Errorf("%d figures on the page, want three maps by three metrics", n)
	}
}

func TestDifferenceFormat(t *testing.T) {
	for _, c := range []struct {
		limit, v float64
		want     string
	}{
		{150, 3.6, "+4"}, {150, -0.2, "0"}, {20, -0.04, "0.0"}, {20, 0.06, "+0.1"}, {20, -13.25, "-13.2"}, {0.5, 0.126, "+0.13"}, {0.5, -0.001, "0.00"},
	} {
		if got := differenceFormat(c.limit)(c.v); got != c.want {
			t.Errorf("%v in a grid up to %v is shown as %q, want %q", c.v, c.limit, got, c.want)
		}
	}
}

func TestColours(t *testing.T) {
	m := differenceColours(10)
	low, _ := colourAt(m, -10)
	zero, white := colourAt(m, 0)
	high, _ := colourAt(m, 10)
	if low.R <= low.B || high.B <= high.R {
		t.Errorf("lowest %v, highest %v: want red and blue", low, high)
	}
	if white || max(zero.R, zero.G, zero.B)-min(zero.R, zero.G, zero.B) > 8 {
		t.Errorf("zero is %v, want a light grey with dark text", zero)
	}
	if beyond, _ := colourAt(m, 11); beyond != high {
		t.Errorf("beyond the range: %v, want %v", beyond, high)
	}
}

func TestRoundTicks(t *testing.T) {
	for _, c := range []struct {
		lo, hi float64
		want   string
	}{
		{0, 1, "0 0.2 0.4 0.6 0.8 1"},
		{1, 300, "50 100 150 200 250 300"},
		{0.00001, 0.001, "0.0002 0.0004 0.0006 0.0008 0.001"},
		{-3, 3, "-3 -2 -1 0 1 2 3"},
	} {
		var got []string
		for _, tick := range roundTicks(c.lo, c.hi) {
			got = append(got, tick.Label)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("ticks from %v to %v: %v, want %v", c.lo, c.hi, got, c.want)
		}
	}
	for _, width := range []float64{1e-6, 0.013, 0.7, 1, 3, 9.99, 64, 190000} {
		if n := len(roundTicks(0.3*width, 1.3*width)); n < 4 || n > 11 {
			t.Errorf("a range %v wide has %d ticks", width, n)
		}
	}
}

// A constant is drawn at its own order of magnitude.
func TestPanelConstant(t *testing.T) {
	ps, err := panels([]Curve{{"learning_rate", []float64{1, 2, 3}, []float64{4e-4, 4e-4, 4e-4}}})
	if err != nil {
		t.Fatal(err)
	}
	f, err := ps[0].plot(paper)
	if err != nil {
		t.Fatal(err)
	}
	var rec recorder.Canvas
	f.draw(draw.NewCanvas(&rec, f.width, f.height))
	for _, a := range rec.Actions {
		if s, ok := a.(*recorder.FillString); ok && s.String == "0.0004" {
			return
		}
	}
	t.Error("no tick reads 0.0004")
}

// Thinning keeps the mean and shows the extremes.
func TestThin(t *testing.T) {
	var c Curve
	for i := range 10*maxPoints - 3 {
		c.X, c.Y = append(c.X, float64(i)), append(c.Y, float64(i%10))
	}
	mean, low, high := thin(c)
	if len(mean) != maxPoints || len(low) != maxPoints || len(high) != maxPoints {
		t.Fatalf("%d points", len(mean))
	}
	if mean[0].X != 4.5 || mean[0].Y != 4.5 || low[0].Y != 0 || high[0].Y != 9 || mean[maxPoints-1].Y != 3 {
		t.Errorf("first %v in %v..%v, last %v", mean[0], low[0].Y, high[0].Y, mean[maxPoints-1])
	}
	short := Curve{X: c.X[:maxPoints], Y: c.Y[:maxPoints]}
	if mean, _, _ := thin(short); len(mean) != maxPoints || mean[7].Y != short.Y[7] {
		t.Error("a short curve was changed")
	}
}

func TestThousands(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -123456: "-123,456", -1234: "-1,234"} {
		if got := thousands(n); got != want {
			t.Errorf("%d is shown as %s", n, got)
		}
	}
}

func ExampleLinspace() {
	fmt.Println(Linspace(0, 100, 5))
	// Output: [0 25 50 75 100]
}
