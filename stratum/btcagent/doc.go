// Package btcagent is the wire format of the binary frames that BTCAgent, the proxy of mining farms, and a pool exchange
// on one connection with Stratum's JSON lines: for both sides, without sockets and without policy. The lines are package
// sv1's.
//
// The first byte of each message tells the two apart: [Magic] begins a frame, and no line. A server that meets it splits
// the frame off its read buffer with [Next] and reads it with the struct of its command:
//
//	f, n, err := btcagent.Next(buf)
//	switch {
//	case err != nil: // close: where the next message begins is unknown
//	case n == 0: // wait for more
//	}
//	switch {
//	case f.Command.IsSubmit():
//		index := submits // the agent counts every submit it sends, so this counts every one that came
//		submits++
//		var s btcagent.Submit
//		switch err := s.Decode(f); {
//		case errors.Is(err, btcagent.ErrSessionID): // answer index with 24, an unknown worker
//		case err != nil: // answer index with 27, illegal params
//		}
//	case f.Command == btcagent.CommandRegister:
//		…
//	}
//
// Whatever has no meaning is skipped, not answered: commands that are unknown, or meant for the other side, or for
// Ethereum, and bodies that a decoder refuses, except those of submits. An agent reads lines and frames with a [Reader].
//
// # Layout
//
// All integers are little-endian.
//
//	offset 0    1    2        4
//	       7F | cmd | length | body …      length counts the four bytes before the body, too
//
//	01 REGISTER_WORKER             agent to pool    session id u16, miner's software, 00, worker's name, 00
//	02 SUBMIT_SHARE                agent to pool    job u8, session id u16, extranonce2 u32, nonce u32
//	03 SUBMIT_SHARE_WITH_TIME      agent to pool    … ntime u32
//	04 UNREGISTER_WORKER           agent to pool    session id u16
//	05 MINING_SET_DIFF             pool to agent    exponent u8, count u16, session id u16 for each
//	10 SUBMIT_RESPONSE             pool to agent    index u16, status i32
//	12 SUBMIT_SHARE_WITH_VER       agent to pool    … version bits u32
//	13 SUBMIT_SHARE_WITH_TIME_VER  agent to pool    … ntime u32, version bits u32
//
// BTCPool's own description of the protocol, docs/AGENT.md, has wrong lengths and a big-endian version in some of its
// examples; the layout here is that of the programs.
//
// # Hot path
//
// Next, the decoders and the encoders allocate nothing, except where a buffer has to grow, and their errors are made
// once.
package btcagent
