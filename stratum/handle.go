package stratum

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum/sv1"
)

// handle reads one line and answers it, or judges it and leaves the answer to settle. An error ends the session.
func (s *Session) handle(ctx context.Context, sc *scratch, line []byte) error {
	if !s.authorized() && !startsRequest(line[0]) {
		s.srv.counters.malformed.Add(1)
		return errNotStratum
	}
	var req sv1.Request
	switch err := req.Decode(line); {
	case errors.Is(err, sv1.ErrParams):
		if err := s.settle(ctx, sc); err != nil {
			return err
		}
		sc.out = appendCode(sc.out, req.ID, sv1.CodeIllegalParams)
		return nil
	case errors.Is(err, sv1.ErrBatch):
		return errNotStratum
	case err != nil:
		return s.malformedLine(err)
	case req.IsReply:
		return nil // a pong, or the answer to a question that an earlier server asked
	}
	if req.Method == sv1.MethodSubmit {
		if len(sc.pending) == maxPending {
			if err := s.settle(ctx, sc); err != nil {
				return err
			}
		}
		verdict := s.judge(ctx, sc, &req, time.Now())
		sc.pending = append(sc.pending, submit{id: req.ID, verdict: verdict})
		if verdict == share.Unauthorized && !s.reconnectSent {
			// It believes to be logged in, perhaps from before a proxy lost its connection; once is enough.
			s.reconnectSent = true
			err := s.settle(ctx, sc)
			sc.out = sv1.AppendReconnect(sc.out, sv1.Reconnect{})
			return err
		}
		return nil
	}
	// Everything else is answered in its turn.
	if err := s.settle(ctx, sc); err != nil {
		return err
	}
	return s.answer(ctx, sc, &req)
}

func appendCode(dst, id []byte, code int) []byte {
	return sv1.AppendError(dst, id, code, sv1.CodeText(code))
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

// answer handles every request but mining.submit.
func (s *Session) answer(ctx context.Context, sc *scratch, req *sv1.Request) error {
	switch req.Method {
	case sv1.MethodSubscribe:
		return s.subscribe(sc, req)
	case sv1.MethodAuthorize:
		return s.authorize(ctx, sc, req)
	case sv1.MethodConfigure:
		return s.configure(sc, req)
	case sv1.MethodSuggestDifficulty:
		var m sv1.SuggestDifficulty
		if m.Decode(req.Params) != nil {
			sc.out = appendCode(sc.out, req.ID, sv1.CodeIllegalParams)
			return nil
		}
		return s.suggest(sc, req, difficulty.Difficulty(m.Difficulty))
	case sv1.MethodSuggestTarget:
		var m sv1.SuggestTarget
		if m.Decode(req.Params) != nil {
			sc.out = appendCode(sc.out, req.ID, sv1.CodeIllegalParams)
			return nil
		}
		return s.suggest(sc, req, difficulty.FromBytes(&m.Target).Difficulty())
	case sv1.MethodExtranonceSubscribe:
		sc.out = sv1.AppendTrue(sc.out, req.ID)
	case sv1.MethodGetTransactions:
		sc.out = sv1.AppendNoTransactions(sc.out, req.ID)
	case sv1.MethodPing:
		sc.out = sv1.AppendTextResult(sc.out, req.ID, "pong")
	default:
		sc.out = appendCode(sc.out, req.ID, sv1.CodeIllegalMethod)
	}
	return nil
}

// subscribe answers with the session's extranonce. A repeated one is answered in the same way: some miners subscribe
// again on the same connection after an error.
func (s *Session) subscribe(sc *scratch, req *sv1.Request) error {
	var m sv1.Subscribe
	if m.Decode(req.Params) != nil {
		sc.out = appendCode(sc.out, req.ID, sv1.CodeIllegalParams)
		return nil
	}
	agent := share.FilterName(m.Agent[:min(len(m.Agent), 30)])
	s.mu.Lock()
	s.agent = agent
	s.mu.Unlock()
	prefix := s.extranonce1()
	sc.out = sv1.AppendSubscribeResult(sc.out, req.ID, prefix[:], s.srv.opts.Extranonce2Size)
	s.subscribed = true
	s.start(sc)
	return nil
}

func (s *Session) authorize(ctx context.Context, sc *scratch, req *sv1.Request) error {
	var m sv1.Authorize
	refuse := func(code int) error {
		sc.out = appendCode(sc.out, req.ID, code)
		if s.failedLogins++; s.failedLogins >= maxFailedLogins && !s.authorized() {
			return errManyLogins
		}
		return nil
	}
	if m.Decode(req.Params) != nil {
		return refuse(sv1.CodeInvalidUser)
	}
	worker, err := share.ParseWorker(m.User)
	if err != nil {
		return refuse(sv1.CodeInvalidUser)
	}
	if !s.srv.opts.KeepUserCase {
		worker.User = strings.ToLower(worker.User)
	}
	if s.authorized() && worker.User != s.worker.User {
		// One connection mines for one user; a miner that wants another connects again.
		sc.out = appendCode(sc.out, req.ID, sv1.CodeUnauthorized)
		return nil
	}
	askCtx, cancel := context.WithTimeout(ctx, authorizeTimeout)
	user, err := s.srv.auth.Authorize(askCtx, worker, m.Password)
	cancel()
	switch {
	case errors.Is(err, ErrUnknownUser):
		return refuse(sv1.CodeInvalidUser)
	case err != nil || user <= 0:
		s.srv.opts.Logger.Error("cannot authorize", "worker", worker.String(), "remote", s.remote.String(), "error", err)
		return refuse(sv1.CodeInternal)
	}

	first := !s.authorized()
	s.mu.Lock()
	s.worker, s.workerID, s.userID = worker, worker.ID(), user
	s.mu.Unlock()
	if first {
		policy := s.newPolicy()
		s.mu.Lock()
		s.policy = policy
		s.applyOptions(m.Password)
		s.mu.Unlock()
	}
	s.failedLogins = 0
	sc.out = sv1.AppendTrue(sc.out, req.ID)
	if hook := s.srv.opts.Hooks.Authorized; hook != nil {
		hook(s)
	}
	s.start(sc)
	return nil
}

func (s *Session) newPolicy() difficulty.Policy {
	o := &s.srv.opts
	if o.NewPolicy != nil {
		if p := o.NewPolicy(s); p != nil {
			return p
		}
	}
	v, err := difficulty.NewVardiff(&difficulty.VardiffOptions{
		Start: o.StartDifficulty, Min: o.MinDifficulty, Max: o.MaxDifficulty,
	})
	if err != nil {
		// The bounds need not be powers of two, which BTCPool's algorithm works in.
		o.Logger.Error("vardiff refuses the bounds, difficulty stays fixed", "error", err)
		return difficulty.Fixed(o.StartDifficulty)
	}
	return v
}

// applyOptions reads the password, "d=65536,md=1024", and what was suggested before. mu is held.
func (s *Session) applyOptions(password string) {
	start := s.suggested
	for option := range strings.SplitSeq(password, ",") {
		key, value, ok := strings.Cut(option, "=")
		if !ok {
			continue
		}
		d, err := difficulty.Parse(strings.TrimSpace(value))
		if err != nil {
			continue
		}
		switch strings.TrimSpace(key) {
		case "d", "diff":
			start = d
		case "md":
			s.floorOption = s.srv.assignable(d.CeilPow2(), 0)
		}
	}
	s.raiseFloor()
	if start != 0 {
		s.wish(start)
	}
}

// raiseFloor tells the policy what the miner's minimum is, where it can be told. mu is held.
func (s *Session) raiseFloor() {
	if p, ok := s.policy.(difficulty.MinSetter); ok {
		p.SetMin(s.srv.assignable(s.srv.opts.MinDifficulty, max(s.floorOption, s.floorBIP310)))
	}
}

// wish goes on from a difficulty that the miner asks for. mu is held.
func (s *Session) wish(d difficulty.Difficulty) {
	d = s.srv.assignable(d.CeilPow2(), max(s.floorOption, s.floorBIP310))
	if r, ok := s.policy.(difficulty.Resetter); ok {
		r.Reset(d)
	} else {
		s.fixed = d
	}
}

// suggest takes a wish for a difficulty. It counts from the next job on, which for a miner that is at work already is
// the next one there is: the one it has would be the same work again.
func (s *Session) suggest(sc *scratch, req *sv1.Request, d difficulty.Difficulty) error {
	if !d.Valid() {
		sc.out = appendCode(sc.out, req.ID, sv1.CodeIllegalParams)
		return nil
	}
	s.mu.Lock()
	if s.policy == nil {
		s.suggested = d
	} else {
		s.wish(d)
	}
	s.mu.Unlock()
	sc.out = sv1.AppendTrue(sc.out, req.ID)
	s.sendNewer(sc)
	return nil
}

func (s *Session) configure(sc *scratch, req *sv1.Request) error {
	var m sv1.Configure
	if m.Decode(req.Params) != nil {
		sc.out = appendCode(sc.out, req.ID, sv1.CodeIllegalParams)
		return nil
	}
	r := sv1.ConfigureResult{MinimumDifficulty: m.MinimumDifficulty, Info: m.Info}
	// Shares are checked against the server's mask alone: some firmware rolls bits without having asked.
	if m.VersionRolling {
		r.VersionMask = m.VersionRollingMask & s.srv.opts.VersionMask
		r.VersionRolling = r.VersionMask != 0
	}
	s.mu.Lock()
	if m.MinimumDifficulty {
		s.floorBIP310 = 0
		if d := difficulty.Difficulty(m.MinimumDifficultyValue); d.Valid() {
			s.floorBIP310 = s.srv.assignable(d.CeilPow2(), 0)
		}
		s.raiseFloor()
	}
	s.mu.Unlock()
	sc.out = sv1.AppendConfigureResult(sc.out, req.ID, m.Extensions, r)
	if r.VersionRolling {
		sc.out = sv1.AppendSetVersionMask(sc.out, r.VersionMask)
	}
	s.sendNewer(sc)
	return nil
}

// start sends the first job once the miner has both subscribed and been let in. The replies so far go out with it, in
// one write.
func (s *Session) start(sc *scratch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ready || !s.subscribed || s.userID == 0 {
		return
	}
	s.ready = true
	if enc := s.srv.latest.Load(); enc != nil {
		sc.out = s.appendJob(sc.out, enc, true, time.Now())
	}
	// Under the lock, so that a job pushed from now on comes after this one. A failure shows at the next write.
	_ = s.out.push(sc.out)
	sc.out = sc.out[:0]
}

// sendNewer sends the latest job if the miner does not have it yet, for a wish to take effect.
func (s *Session) sendNewer(sc *scratch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	enc := s.srv.latest.Load()
	if !s.ready || enc == nil || len(s.sent) > 0 && s.sent[len(s.sent)-1].job == enc.job {
		return
	}
	sc.out = s.appendJob(sc.out, enc, false, time.Now())
	_ = s.out.push(sc.out)
	sc.out = sc.out[:0]
}

// judge rules on one mining.submit and notes the share where there is one to record.
func (s *Session) judge(ctx context.Context, sc *scratch, req *sv1.Request, now time.Time) share.Verdict {
	if !s.authorized() {
		return share.Unauthorized
	}
	var m sv1.Submit
	switch err := m.Decode(req.Params, s.srv.opts.Extranonce2Size); {
	case errors.Is(err, sv1.ErrJobID):
		return share.JobNotFound
	case err != nil:
		return share.IllegalParams
	}
	sent, ok := s.lookup(m.JobID)
	if !ok {
		return share.JobNotFound
	}
	state := s.srv.recent.State(sent.job, now)
	if s.targetOf != sent.difficulty {
		s.target, s.targetOf = sent.difficulty.Target(), sent.difficulty
	}
	work := share.Work{Job: sent.job, Difficulty: sent.difficulty, Target: s.target}
	sub := share.Submission{
		NTime:       m.NTime,
		Nonce:       m.Nonce,
		VersionBits: m.VersionBits,
		Stale:       state != job.Current,
	}
	sub.Grace = sub.Stale && s.srv.inGrace(now)
	// Zeros stand before the prefix of a miner that counts through less than 8 bytes, as in the coinb1 it was sent.
	pad := job.Extranonce2Size - s.srv.opts.Extranonce2Size
	prefix := s.extranonce1()
	copy(sub.Extranonce[pad:], prefix[:])
	copy(sub.Extranonce[pad+len(prefix):], m.Extranonce2[:s.srv.opts.Extranonce2Size])

	ruling := s.validator.Validate(&work, &sub, now)
	if ruling.Solves {
		s.solved(ctx, &ruling, sent.job, &sub, now)
	}
	verdict := ruling.Verdict
	if state == job.Expired && !ruling.Solves {
		// A job that is forgotten cannot be credited, but its block can still be one.
		return share.JobNotFound
	}
	if verdict.Accepted() || verdict.RejectedStale() || verdict == share.LowDifficulty {
		s.mu.Lock()
		s.policy.Observe(now, sent.difficulty)
		s.mu.Unlock()
	}
	if verdict == share.Rejected || !verdict.Accepted() && !s.rejects.record(now.Unix()) {
		return verdict
	}
	sc.shares = append(sc.shares, share.Share{
		Chain:       sent.job.Chain,
		Worker:      s.worker,
		JobID:       sent.job.ID,
		WorkerID:    s.workerID,
		UserID:      s.userID,
		Verdict:     verdict,
		Time:        now,
		IP:          s.remote.Addr(),
		Difficulty:  ruling.Difficulty,
		Bits:        sent.job.Bits,
		Height:      sent.job.Height,
		Nonce:       m.Nonce,
		SessionID:   s.prefix,
		VersionBits: m.VersionBits,
		BitsReached: difficulty.FromHash((*[32]byte)(&ruling.Hash)).Bits(),
	})
	return verdict
}

// solved hands a block on before anything else is done with the share.
func (s *Session) solved(ctx context.Context, r *share.Ruling, j *job.Job, sub *share.Submission, now time.Time) {
	solution := &share.Solution{
		Chain:    j.Chain,
		Job:      j,
		JobID:    j.ID,
		Height:   j.Height,
		Hash:     r.Hash,
		Header:   r.Header,
		Coinbase: j.AppendCoinbase(nil, &sub.Extranonce),
		Worker:   s.worker,
		WorkerID: s.workerID,
		UserID:   s.userID,
		Found:    now,
	}
	s.srv.counters.solutions.Add(1)
	// A block is worth more than a quick stop.
	err := s.srv.solutions.PutSolution(context.WithoutCancel(ctx), solution)
	log := s.srv.opts.Logger.With("height", j.Height, "hash", r.Hash.String(), "worker", s.worker.String())
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
		if putErr = s.srv.shares.Put(ctx, sc.shares); putErr != nil {
			s.srv.counters.lostPuts.Add(int64(len(sc.shares)))
			s.srv.opts.Logger.LogAttrs(ctx, slog.LevelError, "shares could not be recorded, the miner is told so",
				slog.String("worker", s.worker.String()), slog.Int("shares", len(sc.shares)), slog.Any("error", putErr))
		} else if hook := s.srv.opts.Hooks.Shares; hook != nil {
			hook(s, sc.shares)
		}
	}
	for i := range sc.pending {
		p := &sc.pending[i]
		if putErr != nil && p.verdict.Accepted() {
			p.verdict = share.InternalError
		}
		s.srv.counters.verdicts[p.verdict].Add(1)
		sc.out = appendVerdict(sc.out, p.id, p.verdict)
	}
	clear(sc.pending)
	clear(sc.shares)
	sc.pending, sc.shares = sc.pending[:0], sc.shares[:0]
	return nil
}
