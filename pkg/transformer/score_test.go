package transformer

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"meap/pkg/graph"
)

// Log-probabilities are the log-softmax of the full forward pass's logits, whatever the sequences are padded to and run with.
func TestLogProbs(t *testing.T) { eachDevice(t, "", testLogProbs) }

func testLogProbs(t *testing.T, dev graph.Device) {
	c := with(tiny, func(c *Config) { c.MaxSeq = 50 }) // no power of two
	params := parametersOn(t, dev, lively(c, 1))
	s := NewScorer(params)
	defer s.Close()
	var ids [][]int32
	var from []int
	for i, n := range []int{2, 51, 17, 1, 18, 33, 34, 50, 3, 16} {
		ids = append(ids, randomIDs(c, n, uint64(i)))
		from = append(from, 1+i%max(1, n/2))
	}
	got, err := s.LogProbs(context.Background(), ids, from)
	if err != nil {
		t.Fatal(err)
	}
	for i, row := range ids {
		if len(got[i]) != len(row)-from[i] {
			t.Fatalf("sequence %d of %d from %d: %d values", i, len(row), from[i], len(got[i]))
		}
		if len(row) == 1 {
			continue
		}
		logits := fullLogits(t, params, row[:len(row)-1])
		for j, v := range got[i] {
			at := from[i] + j
			var sum float64
			for _, l := range logits[at-1] {
				sum += math.Exp(float64(l))
			}
			if want := float64(logits[at-1][row[at]]) - math.Log(sum); math.Abs(float64(v)-want) > 1e-5 {
				t.Errorf("sequence %d, token %d: %v, want %v", i, at, v, want)
			}
		}
		alone, err := s.LogProbs(context.Background(), ids[i:i+1], from[i:i+1])
		if err != nil || !slices.Equal(alone[0], got[i]) {
			t.Errorf("sequence %d alone: %v, %v, with others %v", i, alone, err, got[i])
		}
	}
	if len(s.programs) > scorePrograms {
		t.Errorf("%d programs are kept", len(s.programs))
	}
}

func TestLogProbsRefuses(t *testing.T) {
	s := NewScorer(onNaive(t, lively(tiny, 1)))
	defer s.Close()
	for _, c := range []struct {
		want string
		ids  []int32
		from int
	}{
		{"must have one before it", []int32{1, 2}, 0},
		{"must have one before it", []int32{1, 2}, 3},
		{"must have one before it", nil, 1},
		{"id 50, outside", []int32{1, 50}, 1},
		{"34 tokens are more", randomIDs(tiny, 34, 1), 1},
	} {
		if _, err := s.LogProbs(context.Background(), [][]int32{{1, 2}, c.ids}, []int{1, c.from}); err == nil ||
			!strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "sequence 1") {
			t.Errorf("%v from %d: error %v, want %q", c.ids, c.from, err, c.want)
		}
	}
	if _, err := s.LogProbs(context.Background(), [][]int32{{1, 2}}, nil); err == nil {
		t.Error("no first tokens")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.LogProbs(ctx, [][]int32{{1, 2}}, []int{1}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
