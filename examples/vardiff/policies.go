package main

import (
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/difficulty/difftest"
	"github.com/poolkit/poolkit/examples/vardiff/batches"
)

// fixedFor is whom the fixed difficulty suits: the miner of most scenarios.
const fixedFor difficulty.Hashrate = 1e15

// A kind is a policy that can be chosen, by the name that the table has for it.
type kind struct {
	name string
	doc  string
	make func(start difficulty.Difficulty, interval time.Duration) (difficulty.Policy, error)
}

// BTCPool wants up to six times as many shares of large miners as of small ones. Without these levels all policies aim
// at the same, and can be compared.
var flat = []difficulty.VardiffLevel{{Factor: 1}}

// kinds are all policies that are compared, with the names that examples/fullpool has for them, bounded by nothing but
// what a difficulty can be.
var kinds = []kind{
	{"sequential", "sequential tests, the choice for new pools",
		func(start difficulty.Difficulty, interval time.Duration) (difficulty.Policy, error) {
			return difficulty.NewSequential(&difficulty.SequentialOptions{Start: start, Min: difficulty.Min, Interval: interval})
		}},
	{"btcpool", "BTCPool, with one target for miners of all sizes",
		func(start difficulty.Difficulty, interval time.Duration) (difficulty.Policy, error) {
			return difficulty.NewVardiff(&difficulty.VardiffOptions{
				Start: start, Min: difficulty.Min, Interval: interval, Window: 90 * interval, Levels: flat,
			})
		}},
	{"btcpool-improved", "the same with VardiffOptions.Improved",
		func(start difficulty.Difficulty, interval time.Duration) (difficulty.Policy, error) {
			return difficulty.NewVardiff(&difficulty.VardiffOptions{
				Start: start, Min: difficulty.Min, Interval: interval, Window: 90 * interval, Levels: flat, Improved: true,
			})
		}},
	{"ckpool", "ckpool's decaying average",
		func(start difficulty.Difficulty, interval time.Duration) (difficulty.Policy, error) {
			return difficulty.NewDecaying(&difficulty.DecayingOptions{Start: start, Min: difficulty.Min, Interval: interval})
		}},
	{"sv2", "the Stratum V2 reference as released",
		func(start difficulty.Difficulty, interval time.Duration) (difficulty.Policy, error) {
			return difficulty.NewLadder(&difficulty.LadderOptions{Start: start, Min: difficulty.Min, Interval: interval})
		}},
	{"sv2-ewma", "the Stratum V2 reference as proposed",
		func(start difficulty.Difficulty, interval time.Duration) (difficulty.Policy, error) {
			return difficulty.NewEWMA(&difficulty.EWMAOptions{Start: start, Min: difficulty.Min, Interval: interval})
		}},
	{"datum", "DATUM gateway",
		func(start difficulty.Difficulty, interval time.Duration) (difficulty.Policy, error) {
			return difficulty.NewQuickStart(&difficulty.QuickStartOptions{Start: start, Min: difficulty.Min, Interval: interval})
		}},
	{"batches", "one's own in forty lines, examples/vardiff/batches",
		func(start difficulty.Difficulty, interval time.Duration) (difficulty.Policy, error) {
			return batches.New(start, interval), nil
		}},
	{"fixed", "what suits " + fixedFor.String() + ", whatever happens",
		func(_ difficulty.Difficulty, interval time.Duration) (difficulty.Policy, error) {
			return difficulty.Fixed(difficulty.AnyDifficulty.Nearest(fixedFor.Difficulty(interval))), nil
		}},
}

// candidate returns what difftest compares. It fails when the policy cannot aim at interval.
func (k *kind) candidate(interval time.Duration) (difftest.Candidate, error) {
	if _, err := k.make(1, interval); err != nil {
		return difftest.Candidate{}, err
	}
	return difftest.Candidate{Name: k.name, New: func(start difficulty.Difficulty) difficulty.Policy {
		p, err := k.make(start, interval)
		if err != nil {
			return nil // start is always one that suits a hashrate, and the interval has been tried
		}
		return p
	}}, nil
}
