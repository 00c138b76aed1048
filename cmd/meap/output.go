package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"meap/internal/config"
	"meap/pkg/graph"
	"meap/pkg/transformer"
)

// checkedWriter remembers the first error of writing, so that commands may print without looking at each line's.
type checkedWriter struct {
	io.Writer
	err error
}

func (w *checkedWriter) Write(b []byte) (int, error) {
	n, err := w.Writer.Write(b)
	if w.err == nil {
		w.err = err
	}
	return n, err
}

// printJSON writes one object on one line.
func printJSON(w io.Writer, v any) error { return json.NewEncoder(w).Encode(v) }

// announce tells what is about to be trained, derived quantities first. epochs is how often the whole run sees the data; the lines
// about it, a name and a tab before each text, stand after the model's.
func announce(w io.Writer, c *config.Config, m transformer.Config, dev graph.Device, epochs float64, lines ...string) {
	t := c.Trainer
	tokens := float64(t.TokensPerStep()) * float64(t.LastStep())
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "model\t%s parameters, %d layers, hidden size %d, %d heads, %d kv heads, vocabulary %d\n",
		count(float64(m.Parameters())), m.Layers, m.Dim, m.Heads, m.KVHeads, m.Vocab)
	for _, line := range lines {
		fmt.Fprintln(table, line)
	}
	fmt.Fprintf(table, "step\t%d rows of %d tokens (micro batch %d x accumulate %d), %s FLOPs\n",
		t.RowsPerStep(), t.Seq, t.MicroBatch, t.Accumulate, count(m.FLOPsPerToken(t.Seq)*float64(t.TokensPerStep())))
	fmt.Fprintf(table, "run\t%d steps, %s tokens, %.2f epochs, learning rate %v\n", t.LastStep(), count(tokens), epochs, t.LearningRate)
	fmt.Fprintf(table, "device\t%s, %s\n", dev.Name(), t.DType)
	table.Flush()
}

// count writes a number with a unit: 1.2k, 3.4M, 5.6G.
func count(v float64) string {
	for _, u := range []struct {
		size float64
		name string
	}{{1e15, "P"}, {1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if v >= u.size {
			return fmt.Sprintf("%.3g%s", v/u.size, u.name)
		}
	}
	return fmt.Sprintf("%.4g", v)
}

// size writes bytes with a binary unit.
func size(bytes float64) string {
	for _, u := range []struct {
		size float64
		name string
	}{{1 << 40, "TiB"}, {1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if bytes >= u.size {
			return fmt.Sprintf("%.2f %s", bytes/u.size, u.name)
		}
	}
	return fmt.Sprintf("%.0f B", bytes)
}

// isTerminal says whether people watch w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// newBar shows how far long work is: a bar on a terminal, else a line at the end.
func newBar(w io.Writer, total int64, what string) *bar {
	b := &bar{w: w, what: what, start: time.Now()}
	if isTerminal(w) {
		b.bar = progressbar.NewOptions64(total, progressbar.OptionSetWriter(w), progressbar.OptionSetDescription(what),
			progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionShowCount(), progressbar.OptionSetPredictTime(true))
	}
	return b
}

type bar struct {
	w     io.Writer
	what  string
	start time.Time
	bar   *progressbar.ProgressBar
}

// set moves the bar; its error could only be that the terminal went away.
func (b *bar) set(done int64) {
	if b.bar != nil {
		_ = b.bar.Set64(done)
	}
}

func (b *bar) finish(format string, args ...any) {
	if b.bar != nil {
		_ = b.bar.Finish()
	}
	fmt.Fprintf(b.w, "%s: %s (%.1fs)\n", b.what, strings.TrimSpace(fmt.Sprintf(format, args...)), time.Since(b.start).Seconds())
}
