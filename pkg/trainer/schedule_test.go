package trainer

import (
	"math"
	"strings"
	"testing"
)

func TestLearningRateByHand(t *testing.T) {
	s := Schedule{Steps: 110, Warmup: 10, Peak: 4e-4, Min: 4e-5}
	cases := []struct {
		step int64
		want float64
	}{
		{1, 4e-5},                      // a tenth of the warm-up
		{5, 2e-4},                      // half of it
		{10, 4e-4},                     // its end
		{60, 2.2e-4},                   // the middle of the cosine: (Peak+Min)/2
		{35, 4e-5 + 3.6e-4*0.85355339}, // a quarter: (1 + cos 45 deg)/2 = 0.85355339
		{110, 4e-5},                    // the last step
		{500, 4e-5},                    // beyond it
	}
	for _, c := range cases {
		if got := s.LearningRate(c.step); math.Abs(got-c.want) > 1e-11 {
			t.Errorf("LearningRate(%d) = %v, want %v", c.step, got, c.want)
		}
	}
}

func TestLearningRateWithoutWarmup(t *testing.T) {
	s := Schedule{Steps: 2, Peak: 1, Min: 0}
	if got := s.LearningRate(1); math.Abs(got-0.5) > 1e-15 {
		t.Errorf("step 1 of 2: %v, want 0.5", got)
	}
	if got := s.LearningRate(2); got != 0 {
		t.Errorf("step 2 of 2: %v, want 0", got)
	}
	if got := (Schedule{Steps: 1, Peak: 1, Min: 0.25}).LearningRate(1); got != 0.25 {
		t.Errorf("step 1 of 1: %v, want 0.25", got)
	}
}

// The rate rises up to the end of the warm-up, falls after it, and stays within its limits.
func TestLearningRateShape(t *testing.T) {
	for _, warmup := range []int64{0, 1, 7, 50, 99} {
		s := Schedule{Steps: 100, Warmup: warmup, Peak: 3e-3, Min: 1e-4}
		for step := int64(1); step <= 100; step++ {
			now := s.LearningRate(step)
			if !(now > 0 && now <= s.Peak) {
				t.Fatalf("warmup %d: LearningRate(%d) = %v, outside (0, peak]", warmup, step, now)
			}
			if step == 1 {
				continue
			}
			before := s.LearningRate(step - 1)
			if rising := step <= warmup; rising != (now > before) {
				t.Fatalf("warmup %d: LearningRate(%d) = %v after %v", warmup, step, now, before)
			}
		}
	}
}

func TestResolveWarmup(t *testing.T) {
	cases := []struct {
		warmup, steps, want int64
		warned              bool
	}{
		{0, 1, 0, false},
		{99, 100, 99, false},
		{100, 100, 50, true},
		{190, 20, 10, true},
		{5, 1, 0, true},
	}
	for _, c := range cases {
		got, warning := ResolveWarmup(c.warmup, c.steps)
		if got != c.want || (warning != "") != c.warned {
			t.Errorf("ResolveWarmup(%d, %d) = %d, %q; want %d, warned %v", c.warmup, c.steps, got, warning, c.want, c.warned)
		}
	}
	cfg := DefaultConfig()
	cfg.Steps = 20
	s, warning := cfg.Schedule()
	if s.Warmup != 10 || !strings.Contains(warning, "trainer.warmup = 190") {
		t.Errorf("schedule %+v, warning %q", s, warning)
	}
}
