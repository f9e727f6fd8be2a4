package difftest

import (
	"time"

	"github.com/poolkit/poolkit/difficulty"
)

// A Trace is what happened in a [Run]. Times in it are since the start, and its methods take spans in whole seconds,
// from inclusive to exclusive; what lies outside of the simulation counts as empty.
type Trace struct {
	Start   time.Time // the time that the Policy was told at the start
	Points  []Point   // every difficulty that was sent and differed from the one before, the first included
	Seconds []Second  // every second of the simulation
	Jobs    int       // jobs sent, each of which asked the Policy
	Invalid int       // jobs for which the Policy returned a difficulty that is not valid
	Lost    float64   // shares above Options.MaxShareRate, on average; no Policy saw them

	Truth    []difficulty.Hashrate // what the miner really had in every second, 0 while it was not connected
	Sessions int                   // times that the miner connected
	Blocks   int                   // new blocks of the network
	Hurried  int                   // of the jobs, those sent out of turn for a difficulty.Hurrier
	Withheld int                   // shares that the miner never sent
}

// A Point is a change of difficulty.
type Point struct {
	At         time.Duration
	Difficulty difficulty.Difficulty
}

// A Second is what the Policy was told in one second.
type Second struct {
	Shares int
	Work   difficulty.Difficulty // sum of the shares' difficulties
}

// Duration returns the length of the simulation.
func (tr *Trace) Duration() time.Duration { return time.Duration(len(tr.Seconds)) * time.Second }

func (tr *Trace) span(from, to time.Duration) []Second {
	n := time.Duration(len(tr.Seconds))
	lo := min(max(from/time.Second, 0), n)
	hi := min(max(to/time.Second, lo), n)
	return tr.Seconds[lo:hi]
}

// Shares returns the number of shares in a span.
func (tr *Trace) Shares(from, to time.Duration) int {
	var n int
	for _, s := range tr.span(from, to) {
		n += s.Shares
	}
	return n
}

// Work returns the sum of the difficulties of the shares in a span.
func (tr *Trace) Work(from, to time.Duration) difficulty.Difficulty {
	var d difficulty.Difficulty
	for _, s := range tr.span(from, to) {
		d += s.Work
	}
	return d
}

// ShareRate returns the shares per second in a span; an empty span has 0.
func (tr *Trace) ShareRate(from, to time.Duration) float64 {
	n := len(tr.span(from, to))
	if n == 0 {
		return 0
	}
	return float64(tr.Shares(from, to)) / float64(n)
}

// Interval returns the average time between shares in a span, or its length when no share is in it.
func (tr *Trace) Interval(from, to time.Duration) time.Duration {
	length := time.Duration(len(tr.span(from, to))) * time.Second
	return length / time.Duration(max(tr.Shares(from, to), 1))
}

// Hashrate returns what a pool would estimate from the shares in a span.
func (tr *Trace) Hashrate(from, to time.Duration) difficulty.Hashrate {
	length := time.Duration(len(tr.span(from, to))) * time.Second
	return difficulty.HashrateOf(tr.Work(from, to), length)
}

// DifficultyAt returns the difficulty sent last at a time, including that moment; 0 before the first.
func (tr *Trace) DifficultyAt(at time.Duration) difficulty.Difficulty {
	var d difficulty.Difficulty
	for _, p := range tr.Points {
		if p.At > at {
			break
		}
		d = p.Difficulty
	}
	return d
}

// Changes returns the changes of difficulty in a span. The first difficulty of all is not a change.
func (tr *Trace) Changes(from, to time.Duration) []Point {
	var changes []Point
	for i, p := range tr.Points {
		if i > 0 && p.At >= from && p.At < to {
			changes = append(changes, p)
		}
	}
	return changes
}

// LastChange returns when the difficulty last changed, or 0 when it never did.
func (tr *Trace) LastChange() time.Duration {
	if len(tr.Points) == 0 {
		return 0
	}
	return tr.Points[len(tr.Points)-1].At
}
