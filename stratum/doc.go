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
// sent right before the job it belongs to, and a new difficulty always comes with a new job id. A job goes out again
// when nothing was sent for [Options.NotifyInterval], under the id it had.
//
// A policy that is a [difficulty.Hurrier] need not wait for the next job. It is asked after each read that brought shares,
// and once a second; then the latest job goes out again, with another id, a later time and the new difficulty, at most once
// a second. It is not clean, and shares under the old id count as before. At most 128 jobs of a session are remembered for
// that; a policy that wants more waits for the next job.
//
// From the twentieth share that is refused within a minute on, the refusals of a machine are answered and no longer
// recorded.
//
// # Difficulty
//
// A miner begins at the first of these that there is:
//
//	fd= in the password                          for good: the policy is not asked any more
//	d= or diff= in the password
//	mining.suggest_difficulty, suggest_target    before authorize; after it they count anew, with the next job
//	the session that is resumed                  what was known of the miner in it
//	Options.Difficulties                         what was known of the worker, within Options.KeepDifficulty (24h)
//	Port.StartDifficulty                         of the port it came by
//	Options.StartDifficulty
//
// From there its [difficulty.Policy] goes on. It never gets less than the highest of these, not by fd= either:
//
//	md= in the password
//	minimum-difficulty in mining.configure       BIP 310
//	its software                                 NiceHash: NiceHashOptions.MinDifficulty (524,288)
//	                                             Bitaxe, which cuts fractions off: 1
//	Port.MinDifficulty                           or, on a port without one, Options.MinDifficulty
//
// nor more than [Options.MaxDifficulty]. And whatever all these say, no job goes out with more than its block has: a
// miner sends shares and nothing else, so it would keep to itself a block that is none. Only [Options.AboveNetwork] allows
// that. What a miner asks for is rounded up to a power of two. Of two options with the
// same key in a password the last one counts, and what is no number above 0 is none. A policy of [Options.NewPolicy]
// takes the place of the last two beginnings; when it is no [difficulty.Resetter], a miner that asks for one stays at it.
// What was known is the whole [difficulty.State] for a policy that is a [difficulty.Keeper]. For one that can only be reset
// it is the last difficulty, and for any other nothing. A worker is known by its name: of several machines that share one,
// what was said of them last counts.
//
// The machines of an agent begin at what the first table gives for its connection, but for those that the connection has
// no wish for and that are known each by itself. They stay at whole powers of two:
// frames know no others. Only when they begin below 1 do they stay at that, until they are given 1 or more. An agent whose
// machines have more than a new job's block, where that has less than 1, is disconnected to begin anew.
//
// # Agents
//
// A connection whose software calls itself "btccom-agent/…" may send the binary frames of package
// [github.com/poolkit/poolkit/stratum/btcagent] between its lines, where Extranonce2Size is 8. Each of its machines has
// a difficulty, a credit and a minimum of its own; frames that change difficulties name many machines each. The
// connection is one session, and Limits judge it as a whole.
//
// # Resuming a session
//
// A miner that lost its connection and names its old session in mining.subscribe gets its extranonce1 back, its
// difficulty, and the shares and jobs that were remembered: what it has hashed meanwhile counts, and nothing counts
// twice. It must come from the same address and with the same software. A session that is open is never taken over; one
// that is just ending is waited for, a quarter of a second. Agents do not resume: each has its machines register anew.
// Nobody else gets the extranonce1 meanwhile, nor in the ten minutes after ([Prefixes]).
//
// # Ports, TLS and proxies
//
// A listener that is a [*Port] has rules of its own. With a [Certificate] it serves TLS and plain TCP alike, which the
// first byte tells apart, or TLS alone. Balancers in [Port.TrustedProxies] name the miner's address in a PROXY protocol
// header. What comes to the wrong door, a TLS hello or a browser, is told so and closed.
//
// # Users and chains
//
// An [Authorizer] lets workers in: [Users] everybody, package httpauth those of BTCPool's user list, and an
// [AutoRegistrar] has a [Registrar] open accounts for the others. [NameRules] say which spellings are one user, and
// [SingleUser] credits one account for all. Where the feed has the jobs of several chains a [Router] says who mines
// what, and [Server.Reroute] moves sessions without a new connection. An [EventSink] is told who comes and goes, and
// [EventWriter] writes that down. [Server.Stats], [Server.Bans] and [Hooks] tell the operator; package promstratum tells
// Prometheus.
//
// # The other side
//
// A [Client] mines at, or watches, another pool: it logs in, follows reconnects it may follow, resumes, and falls back
// to other pools. What it is sent can be handed on to miners of one's own with [ClientJob.Job] and [ClientJob.Share].
//
// # Handing over
//
// [Server.Shutdown] has the miners connect again and waits until they have left. What [Server.SaveSessions] then writes
// and [Server.RestoreSessions] reads in the next process lets them resume there; package
// [github.com/poolkit/poolkit/stratum/handover] passes the listening sockets on, so that nobody is refused in between.
//
// # A miner that does not read
//
// Writes to a miner never hold up another one. What its socket does not take waits in a queue of the connection, in
// order, at most [Options.MaxQueue] bytes. When that is full the connection is dropped, and never a line of it: the
// newest clean job is not skipped, and the miner finds it, or a newer one, when it connects again. It is dropped too when
// it has not taken within [Options.WriteTimeout] what is being written. Replies wait in the same queue behind what waits already; when nothing
// does, the session waits for the socket itself, and is not read from meanwhile.
//
// # Bounds
//
// What strangers can make the server hold:
//
//	connections                 MaxSessions; of one address Limits.MaxPerAddress and ConnectRate
//	time without a login        LoginTimeout; in silence HandshakeTimeout
//	a line that has no end yet  4 KiB before authorize, then MaxLine; of a frame 512 bytes, what is longer is skipped
//	lines to be written         MaxQueue
//	submits without a reply     64, then they are recorded and answered before more are judged
//	jobs of a session           256
//	remembered shares of a job  Validation.MaxShares accepted ones (of an agent 4,194,304 at least), 1,024 refused ones
//	machines of an agent        MaxAgentWorkers, about 1.2 KB each while they mine; those of all agents have no bound
//	sessions to be resumed      MaxParked, for ResumeTime
//	workers' difficulties       DifficultyMemoryOptions.MaxWorkers, about 200 bytes each
//	addresses and workers       three lists of Limits.MaxRemembered, at most 16 MB each at the default
//	lines they put in the log   one a second of a kind
//
// Read buffers belong to connections at work and not to those that wait. A line that is
// no request ends a connection before authorize, after it the third within a minute does; so do three failed logins, and
// a hundred frames in a row without meaning. A share that is remembered takes 50 to 80 bytes, for ten minutes at least. With the
// zero [Limits] a miner whose shares are all refused is disconnected after a thousand of them.
//
// # How it is built
//
// On Linux a connection without TLS has no goroutine: one poller waits for all sockets, reads, judges and answers for
// those that have something to say, and shares them with helpers on the other processors when they are many. Where that
// may take long, as to ask an Authorizer, to hand on a block or to give shares to a slow sink, another goroutine goes on
// in its place. Elsewhere, and with TLS or a net.Conn that is no socket, each connection has a goroutine that does the
// same. While nothing comes in a connection holds no buffer of the server's but for the beginning of a line; TLS has its
// own.
//
// A job is encoded once for all. Jobs are pushed by the goroutine that follows the feed and helpers on the other
// processors, with writes that never block: what a socket does not take at once, and all that goes through TLS, is
// written by a goroutine of that connection, which ends when it is done.
//
// # What is not as in BTCPool
//
// Shares, events and error codes are BTCPool's, and its vardiff is difficulty.Vardiff. On purpose otherwise:
//
//   - The memory for duplicates goes by the work and not by the job's short id, which BTCPool gives anew when it sends a
//     job again: there one share can be credited twice.
//   - A header that meets the network target is handed on whatever else is wrong with the share, unless it was before.
//   - Version bits are read as BIP 310 has it, and as most firmware sends them (flipped) where that makes no share.
//   - ntime may be ten minutes ahead of the clock or of the job, whichever is later, and not of the job alone.
//   - Every request is answered, unknown ones with code 26; a submit before authorize with 24, and client.reconnect once.
//   - authorize may come before subscribe, configure and suggest_* at any time.
//   - Extranonces are not given out again for ten minutes, and a subscription id is honoured.
//   - The zeros of a short extranonce2 are part of the coinbase that shares are judged by.
//   - minimum-difficulty does not lift the minimum for NiceHash, and difficulties may be below 1.
//   - The policy hears of shares that took work: accepted, stale, of low difficulty. Not of duplicates and unknown jobs.
//   - A miner moved to another chain is sent its job at once.
//   - PROXY headers count from trusted addresses alone, once, in front of TLS.
//   - Lines, queues and the time to log in have bounds.
//   - Miners whose shares are mostly invalid are warned, disconnected and banned ([Limits]). BTCPool stops recording, as
//     this server does, too.
package stratum
