package difftest

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/poolkit/poolkit/difficulty"
)

const hashesPerDifficulty = difficulty.HashesPerDifficulty

// MaxTrials is the most trials of one scenario.
const MaxTrials = 1 << 20

// A Summary is what one Metric was over many trials. When it applied to none of them every number is NaN.
type Summary struct {
	N    int // trials that the Metric applied to
	Mean float64

	// Low and High bound the mean that endlessly many trials would have, with a confidence of 95 %. For a rate
	// ([Metric.IsRate]) they are Wilson's score interval, otherwise the normal one, Mean -+ 1.96 standard errors, which
	// takes two trials at least and is NaN for one.
	Low, High float64

	// The percentiles are values that came up: at least so many percent of the values are not above.
	P10, P50, P90, P99 float64
}

// A Result is the Summary of every Metric, by Metric.
type Result [metricCount]Summary

// z is the normal distribution's for 95 %.
const z = 1.959963984540054

// Summarize returns the Summary of values, of which NaN ones are left out. IsRate says that they are all 0 or 1.
func Summarize(values []float64, isRate bool) Summary {
	vs := make([]float64, 0, len(values))
	for _, v := range values {
		if !math.IsNaN(v) {
			vs = append(vs, v)
		}
	}
	slices.Sort(vs)
	nan := math.NaN()
	s := Summary{N: len(vs), Mean: nan, Low: nan, High: nan, P10: nan, P50: nan, P90: nan, P99: nan}
	if s.N == 0 {
		return s
	}
	n := float64(s.N)
	var sum float64
	for _, v := range vs {
		sum += v
	}
	s.Mean = sum / n
	switch {
	case isRate:
		middle := (s.Mean + z*z/(2*n)) / (1 + z*z/n)
		half := z / (1 + z*z/n) * math.Sqrt(s.Mean*(1-s.Mean)/n+z*z/(4*n*n))
		s.Low, s.High = max(middle-half, 0), min(middle+half, 1)
	case s.N > 1:
		var squares float64
		for _, v := range vs {
			squares += (v - s.Mean) * (v - s.Mean)
		}
		half := z * math.Sqrt(squares/(n-1)/n)
		s.Low, s.High = s.Mean-half, s.Mean+half
	}
	rank := func(p int) float64 { return vs[(p*s.N+99)/100-1] }
	s.P10, s.P50, s.P90, s.P99 = rank(10), rank(50), rank(90), rank(99)
	return s
}

// Trials runs n trials of a scenario, on all processors, and measures each with opts, of which Change is the scenario's
// when it is 0. Nil options mean the defaults.
//
// The same seed gives the same Result, whatever the number of processors. Every trial has a seed of its own that depends
// on seed and the number of the trial only, so two policies meet the same miners, and the same shares for as long as
// they ask for the same difficulties. It fails when n is not within [1, MaxTrials], sc has no Miner, newPolicy is nil or
// the Policy is.
func Trials(newPolicy Maker, sc Scenario, n int, seed uint64, opts *MeasureOptions) (Result, error) {
	return trials(newPolicy, sc, n, seed, opts, func() {})
}

// trials calls done after each trial, from many goroutines.
func trials(newPolicy Maker, sc Scenario, n int, seed uint64, opts *MeasureOptions, done func()) (Result, error) {
	o := opts.orDefaults()
	if o.Change == 0 {
		o.Change = sc.Change
	}
	var r Result
	switch {
	case newPolicy == nil:
		return r, errors.New("difftest: trials: the maker of policies is nil")
	case sc.Miner == nil:
		return r, fmt.Errorf("difftest: trials: scenario %q has no miner", sc.Name)
	case n < 1 || n > MaxTrials:
		return r, fmt.Errorf("difftest: trials: %d trials are not within [1, %d]", n, MaxTrials)
	case newPolicy(sc.Begins.Difficulty(o.Interval)) == nil:
		return r, errors.New("difftest: trials: the policy is nil")
	}

	all := make([]Values, n)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			var scratch simulation
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				// The memory of a Trace is what a trial costs most of, so it is used again.
				scratch = simulation{trace: Trace{
					Points: scratch.trace.Points[:0], Seconds: scratch.trace.Seconds[:0], Truth: scratch.trace.Truth[:0],
				}}
				sc.run(&scratch, newPolicy, o.Interval, TrialSeed(seed, i))
				all[i] = Measure(&scratch.trace, &o)
				done()
			}
		})
	}
	wg.Wait()

	values := make([]float64, n)
	for m := range r {
		for i := range all {
			values[i] = all[i][m]
		}
		r[m] = Summarize(values, Metric(m).IsRate())
	}
	return r, nil
}

// TrialSeed returns the seed of one of the [Trials] with a seed, so that [Scenario.Run] can show it.
func TrialSeed(seed uint64, trial int) uint64 {
	// Well mixed, so that neighbouring seeds share no trials.
	hi, lo := bits.Mul64(seed^0x9e3779b97f4a7c15, 0xbf58476d1ce4e5b9)
	x := hi ^ lo + uint64(trial)*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
