// Package difftest tries a difficulty.Policy on simulated miners, without a pool and in virtual time.
//
// [TestPolicy] checks the promises of difficulty.Policy and what any pool expects of one. A policy of one's own is
// tested by
//
//	func TestMyPolicy(t *testing.T) {
//		difftest.TestPolicy(t, func() difficulty.Policy { return mypolicy.New() })
//	}
//
// [Run] is the simulation by itself: a [Miner], a [Trace] of what it was told and what it sent, and the same again
// every time for the same seed. The shares of a miner of hashrate h at difficulty d are a Poisson process of
// h / (d x 2^32) a second. Jobs come when they are due, at new blocks and out of turn; a network, work in flight,
// connections that break and miners that choose what they send stand between the policy and the truth.
//
// Which of two policies is better is another question than whether one is sound. [Scenarios] are what pools see,
// [Measure] gives a Trace its marks, each a [Metric] with a definition, [Trials] repeats a scenario often enough to
// tell skill from luck, and [Compare] puts several policies into one [Table]:
//
//	table, err := difftest.Compare(&difftest.CompareOptions{Trials: 1000},
//		difftest.Candidate{Name: "mine", New: mypolicy.New},
//		difftest.Candidate{Name: "BTCPool's", New: newVardiff})
//	table.WriteMarkdown(os.Stdout)
//
// The program examples/vardiff does so with all policies of package difficulty and one of its own, and draws what they
// did.
//
// A goal can be a test: the trials of a seed are the same on every machine of an architecture.
package difftest
