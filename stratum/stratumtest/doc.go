// Package stratumtest is the other side of the wire for tests of pools: a [Miner] that really hashes, a [Swarm] of them, an
// [Agent] with a farm behind it, and [Listen], a
// network in memory that works inside a testing/synctest bubble.
//
// A test that wants work done lets the miner run:
//
//	m := stratumtest.NewMiner(conn, &stratumtest.MinerOptions{User: "alice.rig01", Hashrate: 1000})
//	err := m.Run(ctx) // until ctx ends
//
// A test that wants to see each step takes them itself:
//
//	err := m.Handshake(ctx)
//	job, err := m.NextJob(ctx)
//	share, err := m.Solve(ctx, job)
//	share.Nonce++ // or not
//	reply, err := m.Submit(ctx, share)
//
// and sends what no miner would with [Miner.Send] and [Miner.Receive].
//
// An [Agent] is the same for BTCAgent, the proxy of a farm: many miners as workers of one connection, in binary frames.
//
// The miner is a second opinion: it reads mining.notify with encoding/json and encoding/hex and builds headers from
// that text with crypto/sha256, and shares no code with the pool it tests except for the requests it sends.
package stratumtest
