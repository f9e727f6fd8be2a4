// Package share judges what miners send and hands on what it is worth.
//
// A [Validator] rules on one session's submissions; the outcome is a [Verdict] that the miner is told, a [Share] that
// every [Sink] gets, and now and then a [Solution] for a [SolutionSink]. [Tee] feeds several sinks, a [Batcher] is the
// queue in front of a slow one, and package sharetest checks any other.
package share
