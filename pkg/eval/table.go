package eval

import (
	"bufio"
	"fmt"
	"image/color"
	"io"
	"math"
	"os"
	"runtime"
	"strconv"
	"strings"
	"text/tabwriter"

	"golang.org/x/term"
)

// Terminal returns how many columns f shows and whether it shows colours: 80
// and none unless it is a terminal. NO_COLOR (no-color.org) turns colours off.
func Terminal(f *os.File) (columns int, colours bool) {
	if !term.IsTerminal(int(f.Fd())) {
		return 80, false
	}
	columns, _, err := term.GetSize(int(f.Fd()))
	if err != nil || columns < 40 {
		columns = 80
	}
	colours = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	if runtime.GOOS == "windows" {
		// Older consoles print escape sequences as they are.
		colours = colours && (os.Getenv("WT_SESSION") != "" || os.Getenv("TERM") != "")
	}
	return columns, colours
}

// Print writes the figures as aligned tables for people, at most columns wide.
func (r *Report) Print(w io.Writer, columns int, colours bool) error {
	out := bufio.NewWriter(w)
	if p := r.Perplexity; p != nil {
		tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		for _, f := range p.facts() {
			fmt.Fprintf(tw, "%s\t%s\n", f.Name, f.Value)
		}
		if err := tw.Flush(); err != nil {
			return err
		}
	}
	if len(r.Needle) > 0 {
		if r.Perplexity != nil {
			fmt.Fprintln(out)
		}
		r.printNeedle(out, columns, colours)
	}
	return out.Flush()
}

// printNeedle writes the maps of the metric shown, and all means.
func (r *Report) printNeedle(w io.Writer, columns int, colours bool) {
	info := r.Metric.shown(r.Needle)
	fmt.Fprintf(w, "%s, %s\n", info.title, info.unit)
	for _, m := range maps(r.Needle, info) {
		if m.title != "" {
			fmt.Fprintf(w, "\n%s\n", m.title)
		}
		m.print(w, columns, colours)
	}
	fmt.Fprintln(w)
	for _, n := range r.Needle {
		if len(r.Needle) > 1 {
			fmt.Fprintf(w, "%s: ", n.Model)
		}
		fmt.Fprintln(w, n.means())
	}
}

// means says in one line how a model did.
func (r *NeedleResult) means() string {
	format := differenceFormat(math.Abs(r.Mean.Difference))
	return fmt.Sprintf("keyword recall %.1f %%, exact %.1f %%, log-likelihood difference %s nats (above zero in %.0f %%), %d prompts",
		100*r.Mean.Recall, 100*r.Mean.Exact, format(r.Mean.Difference), 100*r.Above, len(r.Prompts))
}

// print writes the grid in blocks of as many lengths as fit, depths downwards.
func (m *needleMap) print(w io.Writer, columns int, colours bool) {
	const head = 8 // "depth %" and a blank
	cell := 5
	for _, l := range m.lengths {
		cell = max(cell, len(strconv.Itoa(l))+1)
	}
	for _, row := range m.grid {
		for _, v := range row {
			cell = max(cell, len(m.format(v))+1)
		}
	}
	for from, per := 0, max(1, (columns-head)/cell); from < len(m.lengths); from += per {
		to := min(from+per, len(m.lengths))
		fmt.Fprintf(w, "\n%-*s%*s\n%-*s", head, "", cell*(to-from), "context length (tokens)", head, "depth %")
		for _, l := range m.lengths[from:to] {
			fmt.Fprintf(w, "%*d", cell, l)
		}
		fmt.Fprintln(w)
		for i, d := range m.depths {
			fmt.Fprintf(w, "%*s ", head-1, strconv.FormatFloat(d, 'f', 1, 64))
			for _, v := range m.grid[i][from:to] {
				switch {
				case v != v: // not scored
					fmt.Fprintf(w, "%*s", cell, "-")
				case colours:
					fill, white := colourAt(m.colours, v)
					fmt.Fprintf(w, "%s%*s\x1b[0m", ansi(fill, white), cell, m.format(v))
				default:
					fmt.Fprintf(w, "%*s", cell, m.format(v))
				}
			}
			fmt.Fprintln(w)
		}
	}
}

// ansi is the escape sequence for black or white text on the nearest colour of
// the 256-colour cube, which more terminals know than 24-bit colours.
func ansi(fill color.NRGBA, white bool) string {
	level := func(v uint8) int { return (int(v)*5 + 127) / 255 }
	ink := 16
	if white {
		ink = 231
	}
	return fmt.Sprintf("\x1b[38;5;%d;48;5;%dm", ink, 16+36*level(fill.R)+6*level(fill.G)+level(fill.B))
}

// facts lists the result for people, in both the table and the page.
func (r *PerplexityResult) facts() []Fact {
	f := []Fact{{"perplexity", number(r.Perplexity)}, {"nats per token", number(r.NatsPerToken)}}
	if r.Bytes > 0 {
		f = append(f, Fact{"bits per byte", number(r.BitsPerByte)}, Fact{"bytes", thousands(r.Bytes)})
	}
	if r.BigramNats > 0 {
		f = append(f, Fact{"bigram model", fmt.Sprintf("perplexity %s, bits per byte %s, counted on the training text; the model's bits are %.1f %% of that",
			number(r.BigramPerplexity), number(r.BigramBitsPerByte), 100*r.Nats/r.BigramNats)})
	}
	f = append(f, Fact{"tokens", thousands(int64(r.Tokens))},
		Fact{"windows", fmt.Sprintf("%s of at most %s tokens", thousands(int64(r.Windows)), thousands(int64(r.Seq)))})
	if r.Source != "" {
		f = append(f, Fact{"text", r.Source})
	}
	return f
}

// number shows five significant digits.
func number(v float64) string { return strconv.FormatFloat(v, 'g', 5, 64) }

// thousands groups digits by three.
func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	var b strings.Builder
	for i, d := range s {
		if i > 0 && d != '-' && s[i-1] != '-' && (len(s)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return b.String()
}
