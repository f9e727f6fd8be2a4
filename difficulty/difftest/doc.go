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
// every time for the same seed.
package difftest
