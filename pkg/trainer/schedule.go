package trainer

import (
	"fmt"
	"math"
)

// Schedule is a cosine decay after a linear warm-up. It is a pure function of the step, so that a resumed run needs no state for it.
type Schedule struct {
	Steps  int64   // the step at which the learning rate is Min
	Warmup int64   // the step at which it is Peak; 0 starts the cosine at once
	Peak   float64 // largest learning rate
	Min    float64 // learning rate of the last step
}

// Schedule returns the learning-rate schedule of the run, and a warning for people where the warm-up had to be cut ("" otherwise).
func (c Config) Schedule() (s Schedule, warning string) {
	warmup, warning := ResolveWarmup(c.Warmup, c.Steps)
	return Schedule{Steps: c.Steps, Warmup: warmup, Peak: c.LearningRate, Min: c.MinLearningRate}, warning
}

// ResolveWarmup cuts a warm-up that is not shorter than the run to half of the run: a run that only warms up never trains at its
// learning rate. The warning is "" where nothing was cut.
func ResolveWarmup(warmup, steps int64) (resolved int64, warning string) {
	if warmup < steps || warmup == 0 {
		return warmup, ""
	}
	resolved = steps / 2
	return resolved, fmt.Sprintf("trainer.warmup = %d is not shorter than trainer.steps = %d: warming up for %d steps, half of the run",
		warmup, steps, resolved)
}

// LearningRate returns the learning rate of a step, counted from 1. With w = Warmup and n = Steps it is
//
//	Peak * step/w                                             for step <= w
//	Min + (Peak-Min) * (1 + cos(pi * (step-w) / (n-w))) / 2   for w < step < n
//	Min                                                       for step >= n
func (s Schedule) LearningRate(step int64) float64 {
	switch {
	case step <= s.Warmup && s.Warmup > 0:
		return s.Peak * float64(step) / float64(s.Warmup)
	case step >= s.Steps:
		return s.Min
	}
	progress := float64(step-s.Warmup) / float64(s.Steps-s.Warmup)
	return s.Min + (s.Peak-s.Min)*(1+math.Cos(math.Pi*progress))/2
}
