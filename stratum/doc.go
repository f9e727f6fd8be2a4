// Package stratum is a Stratum V1 server: it takes jobs from a [job.Feed], hands them to miners, judges what they send
// back and passes it on to a [share.Sink].
//
//	server, err := stratum.New(hub, users, shares, solutions, nil)
//	if err != nil {
//		return err
//	}
//	ln, err := net.Listen("tcp", ":3333")
//	if err != nil {
//		return err
//	}
//	return server.Serve(ctx, ln)
//
// # What a miner can rely on
//
// A share is judged and credited at the difficulty that went out with its job on its connection. A reply of true is
// sent after the sink has taken the share, and after a block's solution has been handed on. mining.set_difficulty is
// sent right before the job it belongs to, and a new difficulty always comes with a new job id.
//
// # Start difficulty
//
// Where several sources name one, the first of these counts: "d=" in the password, mining.suggest_difficulty or
// mining.suggest_target, [Options.StartDifficulty]. "md=" in the password and BIP 310's minimum-difficulty are lower
// bounds, of which the highest counts. All are rounded up to powers of two and bounded by the server's own limits.
//
// # How it is built
//
// One goroutine reads and judges for each connection; while nothing comes in it holds no buffer. Jobs are pushed by
// the goroutine that follows the feed, with writes that never block: a miner that does not read gets a goroutine of
// its own and a queue with a bound, and is dropped at the bound rather than fed old work.
package stratum
