// Package difficulty measures work and decides how much of it to ask for.
//
// A [Difficulty] is what a pool tells a miner, a [Target] is the 256-bit number that hashes are compared with, and a
// [Hashrate] is what shares over time amount to. A [Grid] is the set of difficulties that a pool chooses from.
//
// A [Policy] decides the difficulty of one miner from the shares it sends. [Sequential] is the one for new pools, with its
// method and sources in its comment. [Vardiff] does as BTCPool does, [Decaying] as ckpool, [Ladder] and [EWMA] as the
// reference of Stratum V2, [QuickStart] as the DATUM gateway; [Fixed] does nothing. [Clamp], [Hysteresis], [LimitStep] and
// [Quantize] change what another one says. What a Policy can do besides are small interfaces, which [As] finds through
// such wrappers: a [Resetter], [MinSetter] and [MaxSetter] take orders, a [Hurrier] cannot always wait for the next job, a
// [Keeper] knows miners that come back.
//
// Package difftest tests any of them in one line and compares them over scenarios; examples/vardiff draws the pictures.
package difficulty
