// Package difficulty measures work and decides how much of it to ask for.
//
// A [Difficulty] is what a pool tells a miner, a [Target] is the 256-bit number that hashes are compared with, and a
// [Hashrate] is what shares over time amount to. A [Policy] decides the difficulty of one miner from the shares it
// sends; [Vardiff] is the one that BTCPool uses, [Fixed] and [Clamp] are building blocks, and package difftest tests
// any other in one call.
package difficulty
