package stratum

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum/sv1"
)

// submit judges a mining.submit and leaves the answer to settle.
func (s *Session) submit(ctx context.Context, sc *scratch, req *sv1.Request) error {
	if err := s.makeRoom(ctx, sc); err != nil {
		return err
	}
	if s.agents != nil {
		// Its machines are told apart by frames only.
		if err := s.settle(ctx, sc); err != nil {
			return err
		}
		sc.out = appendCode(sc.out, req.ID, sv1.CodeIllegalMethod)
		return nil
	}
	verdict, what := s.judge(ctx, sc, req)
	sc.pending = append(sc.pending, submit{id: req.ID, verdict: verdict})
	if p := s.srv.guard.submit(&s.guard, s.login, what, s.srv.clock(sc.now)); p.grade != 0 {
		return s.punish(ctx, sc, p)
	}
	if verdict == share.Unauthorized && !s.reconnectSent {
		// It believes to be logged in, perhaps from before a proxy lost its connection; once is enough.
		s.reconnectSent = true
		err := s.settle(ctx, sc)
		sc.out = sv1.AppendReconnect(sc.out, sv1.Reconnect{})
		return err
	}
	return nil
}

// punish tells a miner what it has done wrong for too long, and what becomes of it.
func (s *Session) punish(ctx context.Context, sc *scratch, p penalty) error {
	if err := s.settle(ctx, sc); err != nil {
		return err
	}
	text := p.text()
	s.srv.warn(&s.srv.badLog, "a miner sends invalid shares", "worker", s.miner.worker.String(),
		"remote", s.remote.String(), "told", text)
	sc.out = sv1.AppendShowMessage(sc.out, text)
	if p.closes() {
		sc.out = sv1.AppendError(sc.out, nil, sv1.CodeBanned, text)
		return p.err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if enc := s.chain.latest.Load(); enc != nil && s.ready && s.agents == nil {
		s.sentDiff = 0 // to be sent again
		sc.out = s.appendJob(sc.out, enc, true, sc.now)
	}
	_ = s.out.push(sc.out) // under the lock, as in start
	sc.out = sc.out[:0]
	return nil
}

// makeRoom answers what was judged when no more can wait.
func (s *Session) makeRoom(ctx context.Context, sc *scratch) error {
	if len(sc.pending) < maxPending {
		return nil
	}
	return s.settle(ctx, sc)
}

// judge rules on one mining.submit and notes the share where there is one to record. It also says what that means for
// the guard.
func (s *Session) judge(ctx context.Context, sc *scratch, req *sv1.Request) (share.Verdict, outcome) {
	if !s.authorized() {
		return share.Unauthorized, outcomeNone
	}
	var m sv1.Submit
	switch err := m.Decode(req.Params, s.srv.opts.Extranonce2Size); {
	case errors.Is(err, sv1.ErrJobID):
		return share.JobNotFound, outcomeNone
	case err != nil:
		return share.IllegalParams, outcomeInvalid
	}
	sent, ok := s.lookup(m.JobID)
	if !ok {
		return share.JobNotFound, outcomeNone
	}
	to := &s.miner.credit
	if s.coworkers != nil {
		if c, ok := s.coworkers[string(m.Worker)]; ok {
			to = &c
		}
	}
	verdict, reached := s.rule(ctx, sc, &s.miner, to, &sent, sent.difficulty, &m)
	if verdict == share.LowDifficulty {
		return verdict, outcomeOf(verdict, reached.Difficulty(), s.before, time.Duration(s.srv.clock(sc.now)-s.changed))
	}
	return verdict, outcomeOf(verdict, 0, 0, 0)
}

// rule judges a share for a job that was sent, on behalf of a machine, to be credited to somebody, at a difficulty. It
// returns what the hash reached, too.
func (s *Session) rule(ctx context.Context, sc *scratch, by *miner, to *credit, sent *sentJob, d difficulty.Difficulty, m *sv1.Submit) (share.Verdict, difficulty.Target) {
	now, j := sc.now, sent.job
	state := sent.state(now)
	work := share.Work{Job: j, Difficulty: d, Target: by.targetFor(d)}
	sub := share.Submission{
		NTime:       m.NTime,
		Nonce:       m.Nonce,
		VersionBits: m.VersionBits,
		Stale:       state != job.Current,
	}
	sub.Grace = sub.Stale && s.srv.inGrace(sent.chain, now)
	// Zeros stand before the prefix of a miner that counts through less than 8 bytes, as in the coinb1 it was sent.
	size := s.srv.opts.Extranonce2Size
	pad := job.Extranonce2Size - size
	en1 := extranonce1(sent.prefix)
	copy(sub.Extranonce[pad:], en1[:])
	copy(sub.Extranonce[pad+len(en1):], m.Extranonce2[:size])

	ruling := s.validator.Validate(&work, &sub, now)
	if ruling.Solves {
		s.solved(ctx, &ruling, j, &sub, to, now)
	}
	verdict := ruling.Verdict
	reached := difficulty.FromHash((*[32]byte)(&ruling.Hash))
	if state == job.Expired && !ruling.Solves {
		// A job that is forgotten cannot be credited, but its block can still be one.
		return share.JobNotFound, reached
	}
	if verdict.Accepted() || verdict.RejectedStale() || verdict == share.LowDifficulty {
		s.mu.Lock()
		by.policy.Observe(now, d)
		s.learned = true
		s.mu.Unlock()
		if n := len(sc.observed); by.hurrier != nil && (n == 0 || sc.observed[n-1] != by) {
			sc.observed = append(sc.observed, by)
		}
	}
	if verdict == share.Rejected || !verdict.Accepted() && !by.rejects.record(now.Unix()) {
		return verdict, reached
	}
	sc.shares = append(sc.shares, share.Share{
		Chain:       j.Chain,
		Worker:      to.worker,
		JobID:       j.ID,
		WorkerID:    to.workerID,
		UserID:      to.userID,
		ExtUserID:   to.extUserID,
		Verdict:     verdict,
		Time:        now,
		IP:          s.remote.Addr(),
		Difficulty:  ruling.Difficulty,
		Bits:        j.Bits,
		Height:      j.Height,
		Nonce:       m.Nonce,
		SessionID:   sent.prefix,
		VersionBits: m.VersionBits,
		BitsReached: reached.Bits(),
	})
	return verdict, reached
}

// solved hands a block on before anything else is done with the share.
func (s *Session) solved(ctx context.Context, r *share.Ruling, j *job.Job, sub *share.Submission, to *credit, now time.Time) {
	solution := &share.Solution{
		Chain:    j.Chain,
		Job:      j,
		JobID:    j.ID,
		Height:   j.Height,
		Hash:     r.Hash,
		Header:   r.Header,
		Coinbase: j.AppendCoinbase(nil, &sub.Extranonce),
		Worker:   to.worker,
		WorkerID: to.workerID,
		UserID:   to.userID,
		Found:    now,
	}
	s.srv.counters.solutions.Add(1)
	s.mayBlock()
	// A block is worth more than a quick stop.
	err := s.srv.solutions.PutSolution(context.WithoutCancel(ctx), solution)
	log := s.srv.opts.Logger.With("height", j.Height, "hash", r.Hash.String(), "worker", to.worker.String())
	if err != nil {
		log.Error("BLOCK COULD NOT BE HANDED ON", "error", err)
	} else {
		log.Debug("block handed on", "verdict", r.Verdict.String())
	}
	if hook := s.srv.opts.Hooks.Solved; hook != nil {
		hook(s, solution, err)
	}
}

// settle records the shares judged so far and then answers them, in this order: a reply of true is a share recorded.
func (s *Session) settle(ctx context.Context, sc *scratch) error {
	if len(sc.pending) == 0 {
		return nil
	}
	var putErr error
	if len(sc.shares) > 0 {
		if putErr = s.put(ctx, sc.shares); putErr != nil {
			s.srv.counters.lostPuts.Add(int64(len(sc.shares)))
			s.srv.opts.Logger.LogAttrs(ctx, slog.LevelError, "shares could not be recorded, the miner is told so",
				slog.String("worker", s.miner.worker.String()), slog.Int("shares", len(sc.shares)), slog.Any("error", putErr))
		} else if hook := s.srv.opts.Hooks.Shares; hook != nil {
			hook(s, sc.shares)
		}
	}
	run := int64(0) // of equal verdicts, which are counted together: the counters are shared by all sessions
	for i := range sc.pending {
		p := &sc.pending[i]
		if putErr != nil && p.verdict.Accepted() {
			p.verdict = share.InternalError
		}
		if p.frame {
			sc.out = s.appendResponse(sc.out, p)
		} else {
			sc.out = appendVerdict(sc.out, p.id, p.verdict)
		}
		run++
		if i+1 == len(sc.pending) || sc.pending[i+1].verdict != p.verdict {
			s.srv.counters.verdicts[p.verdict].Add(run)
			run = 0
		}
	}
	clear(sc.pending)
	clear(sc.shares)
	sc.pending, sc.shares = sc.pending[:0], sc.shares[:0]
	return nil
}

// A Sink that blocks is called by the poller only after somebody else polls. It counts as one when it took slowPut several
// times with few quick calls between them: a single slow call is the scheduler's doing, mostly, and to hand the polling
// over costs as much as a dozen shares.
const (
	slowPut     = 200 * time.Microsecond
	slowWeight  = 8  // quick calls that make up for a slow one
	slowEnough  = 32 // four slow calls more than that
	slowAtWorst = 64
)

func (s *Session) put(ctx context.Context, shares []share.Share) error {
	slow := &s.srv.slowPuts
	before := slow.Load()
	if before >= slowEnough {
		s.mayBlock()
	}
	start := time.Now()
	err := s.srv.shares.Put(ctx, shares)
	// What another session counts at the same moment may be lost, which does not matter here.
	switch took := time.Since(start); {
	case took > slowPut:
		slow.Store(min(before+slowWeight, slowAtWorst))
	case before > 0:
		slow.Store(before - 1)
	}
	return err
}

func appendVerdict(dst, id []byte, v share.Verdict) []byte {
	if v.Accepted() {
		return sv1.AppendTrue(dst, id)
	}
	if v == share.JobNotFound || v == share.Stale {
		v = share.JobNotFoundOrStale // the text that goes with the code
	}
	return sv1.AppendError(dst, id, v.Code(), v.String())
}
