package eval

import (
	"math"
	"strconv"
	"strings"

	"gonum.org/v1/plot/palette"
)

// Metric is one of the measures that a grid can be shown by.
type Metric string

// The metrics of a needle grid. MetricAuto is recall where any answer was exact;
// elsewhere recall is that of chance words and tells nothing, so it is the
// difference.
const (
	MetricAuto       Metric = "auto"
	MetricRecall     Metric = "recall"
	MetricExact      Metric = "exact"
	MetricDifference Metric = "difference"
)

// metricInfo says how a metric is shown.
type metricInfo struct {
	Metric
	title, unit string
	value       func(NeedleScores) float64
	share       bool // of 100 %; else nats around zero
}

var metrics = []metricInfo{
	{MetricRecall, "Keyword recall", "%", func(s NeedleScores) float64 { return 100 * s.Recall }, true},
	{MetricExact, "Exact answers", "%", func(s NeedleScores) float64 { return 100 * s.Exact }, true},
	{MetricDifference, "Log-likelihood of the answer with the needle, minus without it (our own measure)", "nats",
		func(s NeedleScores) float64 { return s.Difference }, false},
}

// Metrics are the names that a command may ask for.
func Metrics() []Metric { return []Metric{MetricAuto, MetricRecall, MetricExact, MetricDifference} }

// shown resolves MetricAuto.
func (m Metric) shown(results []*NeedleResult) metricInfo {
	if m == "" || m == MetricAuto {
		m = MetricDifference
		for _, r := range results {
			if r.Mean.Exact > 0 {
				m = MetricRecall
			}
		}
	}
	for _, info := range metrics {
		if info.Metric == m {
			return info
		}
	}
	return metrics[len(metrics)-1]
}

// needleMap is a grid to be shown: one model's, or what a second one has more.
type needleMap struct {
	title   string // of what it shows, "" for the only one
	lengths []int
	depths  []float64
	grid    [][]float64 // [depth][length], NaN where nothing was scored
	scale
	// cell explains a cell in words.
	cell func(depth, length int) string
}

// scale gives values their colours and digits.
type scale struct {
	low, high float64 // what the colour bar shows
	colours   palette.ColorMap
	format    func(float64) string
	unit      string
}

// shares is the scale of 0 to 100 %.
func shares() scale {
	return scale{low: 0, high: 100, colours: differenceColours(100), unit: "%",
		format: func(v float64) string { return strconv.FormatFloat(v, 'f', 0, 64) }}
}

// differences is a scale around zero that reaches to limit.
func differences(limit float64, unit string) scale {
	return scale{low: -limit, high: limit, colours: differenceColours(limit), format: differenceFormat(limit), unit: unit}
}

// maps returns a map per model and, for each but the first, what it has more
// than the first. Equal colours mean equal values in all models' maps.
func maps(results []*NeedleResult, info metricInfo) []needleMap {
	var all []needleMap
	limit := 0.0
	for _, r := range results {
		m := needleMap{}
		m.lengths, m.depths, m.grid = r.Grid(info.value)
		if len(results) > 1 {
			m.title = r.Model
		}
		m.cell = func(i, j int) string { return r.Cells[j*len(r.Config.Depths)+i].words() }
		limit = max(limit, greatest(m.grid))
		all = append(all, m)
	}
	for i := range all {
		all[i].scale = shares()
		if !info.share {
			all[i].scale = differences(limit, info.unit)
		}
	}
	for k, second := range all[1:] {
		first := all[0]
		m := needleMap{title: results[k+1].Model + " minus " + results[0].Model, lengths: first.lengths, depths: first.depths,
			grid: make([][]float64, len(first.grid))}
		for i := range m.grid {
			m.grid[i] = make([]float64, len(first.grid[i]))
			for j := range m.grid[i] {
				m.grid[i][j] = second.grid[i][j] - first.grid[i][j]
			}
		}
		unit := info.unit
		if info.share {
			unit = "points" // a difference of percentages is no percentage
		}
		m.scale = differences(greatest(m.grid), unit)
		m.cell = func(i, j int) string {
			return first.format(first.grid[i][j]) + " and " + second.format(second.grid[i][j])
		}
		all = append(all, m)
	}
	return all
}

// words explains a cell.
func (c *NeedleCell) words() string {
	percent := func(v float64) string { return strconv.FormatFloat(100*v, 'f', 0, 64) + " %" }
	nats := func(v float64) string { return strconv.FormatFloat(v, 'f', 2, 64) }
	return "recall " + percent(c.Recall) + ", exact " + percent(c.Exact) + "; log-likelihood with the needle " + nats(c.LogPWith) + ", without " + nats(c.LogPWithout)
}

// greatest returns the largest magnitude in the grid, 1 where all are zero.
func greatest(grid [][]float64) float64 {
	limit := 0.0
	for _, row := range grid {
		for _, v := range row {
			if a := math.Abs(v); a > limit {
				limit = a
			}
		}
	}
	if limit == 0 {
		return 1
	}
	return limit
}

// differenceFormat gives a difference as many digits as tell cells apart.
func differenceFormat(limit float64) func(float64) string {
	digits := 1
	switch {
	case limit >= 100:
		digits = 0
	case limit < 1:
		digits = 2
	}
	return func(v float64) string {
		s := strconv.FormatFloat(v, 'f', digits, 64)
		switch {
		case strings.Trim(s, "-0.") == "":
			return strings.TrimPrefix(s, "-")
		case v > 0:
			return "+" + s
		}
		return s
	}
}

// depthLabel is a depth in percent.
func depthLabel(d float64) string {
	if s := strconv.FormatFloat(d, 'f', -1, 64); len(s) <= 5 {
		return s
	}
	return strconv.FormatFloat(d, 'f', 1, 64)
}
