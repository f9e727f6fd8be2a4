// Package regtest is a Bitcoin chain in a folder: a node without a network, for tests and for trying a pool out. It
// serves block templates, judges blocks by the full consensus rules of btcd, and makes transactions by itself, so that
// merkle branches and witness commitments are never trivial.
//
//	chain, err := regtest.Open("", nil) // "" keeps nothing; a folder name keeps everything
//	if err != nil { … }
//	defer chain.Close()
//	go chain.Watch(ctx, maker.Put)      // a job.TemplateSource
//	err = chain.Submit(ctx, rawBlock)   // a block.Submitter
//
// # What it keeps
//
// A folder holds chain.json (how the chain was made), blocks.log (every block accepted, in the order of arrival) and a
// database. The log is the truth: a block is appended to it and synced to the disk before the chain looks at it, and
// the database is caught up or built anew from the log after a crash. A block for which [Chain.Submit] returned nil
// is therefore still there after kill -9, and after a power cut on a disk that honours a sync.
//
// # Difficulty
//
// By default this is plain regtest, where every second hash is a block. [Options.Bits] makes blocks as rare as a demo
// wants them. Such a chain has a genesis block of its own, which carries those bits, and the rule of testnet that a
// block may have the lowest difficulty when its time is long after its parent's; here that is 30 days, so that only
// the first blocks, dated 40 days apart, profit from it. Opening takes no longer than on plain regtest, no check of
// proof of work is ever switched off, and difficulty does not adjust.
//
// # Time
//
// The chain follows package time, so that it runs in a testing/synctest bubble as well. Its clock is never behind the
// median time of the last blocks: thousands of blocks mined in a second, or a machine whose clock was set back, do not
// stop it.
package regtest
