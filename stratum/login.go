package stratum

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum/sv1"
)

// handle reads one line and answers it, or judges it and leaves the answer to settle. An error ends the session.
func (s *Session) handle(ctx context.Context, sc *scratch, line []byte) error {
	if !s.authorized() && !startsRequest(line[0]) {
		s.srv.counters.malformed.Add(1)
		return errNotStratum
	}
	if err := s.admitRequest(sc); err != nil {
		return err
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
		return s.malformedLine(sc.now, line, err)
	case req.IsReply:
		s.replied(&req)
		return nil
	}
	if req.Method == sv1.MethodSubmit {
		return s.submit(ctx, sc, &req)
	}
	// Everything else is answered in its turn.
	if err := s.settle(ctx, sc); err != nil {
		return err
	}
	return s.answer(ctx, sc, &req)
}

// admitRequest counts a request before anything is done about it.
func (s *Session) admitRequest(sc *scratch) error {
	miners := 1
	if s.agents != nil {
		miners = max(len(s.agents.workers), 1)
	}
	pause, ok := s.srv.guard.request(&s.guard, miners, s.srv.clock(sc.now))
	if !ok {
		sc.out = sv1.AppendError(sc.out, nil, sv1.CodeOther, "too many requests for too long")
		return errTooFast
	}
	s.pause = pause
	if pause > 0 && s.guard.mayRaise() {
		// Its difficulty is far too low. A job it does not have yet brings it the one that its policy thinks right.
		s.sendNewer(sc)
	}
	return nil
}

// replied takes the answer to a question of ours, or to one that an earlier server asked.
func (s *Session) replied(req *sv1.Request) {
	if string(req.ID) != "1" || len(req.Result) < 2 || req.Result[0] != '"' {
		return
	}
	version := share.FilterName(strings.ReplaceAll(string(req.Result[1:len(req.Result)-1]), `\/`, "/"))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version = version[:min(len(version), 64)]
}

func appendCode(dst, id []byte, code int) []byte {
	return sv1.AppendError(dst, id, code, sv1.CodeText(code))
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
		s.mu.Lock()
		s.canMove = true
		s.mu.Unlock()
		sc.out = sv1.AppendTrue(sc.out, req.ID)
	case sv1.MethodAgentGetCapabilities:
		return s.capabilities(sc, req)
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
	if !s.ready {
		s.introduce(share.FilterName(m.Agent[:min(len(m.Agent), 30)]))
	}
	if !s.subscribed && s.agents == nil {
		s.resume(m.ResumeID, s.miner.agent)
	}
	en1 := extranonce1(s.prefix)
	sc.out = sv1.AppendSubscribeResult(sc.out, req.ID, en1[:], s.srv.opts.Extranonce2Size)
	s.subscribed = true
	sc.out = s.appendMask(sc.out)
	s.state.CompareAndSwap(uint32(Connected), uint32(Subscribed))
	s.start(sc)
	return nil
}

// introduce notes what the miner's software is, and what comes with that.
func (s *Session) introduce(agent string) {
	o := &s.srv.opts
	// A session that was resumed has the memory of a miner's shares, which it must not lose: it stays a miner's.
	isAgent := strings.HasPrefix(agent, "btccom-agent/") && o.Extranonce2Size == 8 && s.resumeFrom == nil
	market := s.srv.isNiceHash(agent)
	s.patient = isAgent || market || strings.HasPrefix(agent, "__PoolWatcher__") ||
		strings.HasPrefix(agent, "__PoolGrandPoolWatcher__") ||
		o.LongTimeoutAgents != nil && o.LongTimeoutAgents.MatchString(agent)
	s.cleanChanges = o.CleanChangeAgents != nil && o.CleanChangeAgents.MatchString(agent)
	s.mu.Lock()
	defer s.mu.Unlock()
	if isAgent && s.agents == nil {
		s.agents = newAgentState()
	} else if !isAgent {
		s.agents = nil
	}
	s.miner.agent = agent
	s.ids = shortIDs
	if market && !isAgent {
		s.ids = longIDs // an agent's frames have no room for them
	}
	s.srv.setFloor(&s.miner, floorSoftware, s.srv.softwareFloor(agent))
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
	worker, err := s.srv.opts.Names.Worker(m.User)
	if err != nil {
		s.srv.guard.loginFailed(&s.guard, share.Worker{}, s.srv.clock(sc.now))
		return refuse(sv1.CodeInvalidUser)
	}
	first := !s.authorized()
	// One more worker of a proxy, whoever its user is; without MultiWorker a machine may only change its name.
	coworker := s.srv.opts.MultiWorker && !first && worker != *s.login
	if !first && !coworker && worker.User != s.login.User || coworker && len(s.coworkers) >= maxCoWorkers {
		// A miner that wants to mine for somebody else connects again.
		sc.out = appendCode(sc.out, req.ID, sv1.CodeUnauthorized)
		return nil
	}
	if r := s.srv.guard.mayLogin(&s.guard, worker, s.srv.clock(sc.now)); r != nil {
		sc.out = sv1.AppendError(sc.out, req.ID, r.code, r.text)
		if s.failedLogins++; s.failedLogins >= maxFailedLogins && !s.authorized() {
			return errors.Join(errManyLogins, r)
		}
		return nil
	}
	user, err := s.ask(ctx, sc, worker, m.Password)
	switch {
	case errors.Is(err, ErrUnknownUser):
		s.srv.guard.loginFailed(&s.guard, worker, s.srv.clock(time.Now()))
		return refuse(sv1.CodeInvalidUser)
	case err != nil || user <= 0:
		s.srv.warn(&s.srv.loginLog, "cannot authorize", "worker", worker.String(), "remote", s.remote.String(), "error", err)
		return refuse(sv1.CodeInternal)
	}
	c := s.srv.credit(worker, user)
	if coworker { // the guard knows a proxy by its first worker
		if s.coworkers == nil {
			s.coworkers = make(map[string]credit)
		}
		s.coworkers[m.User] = c
		if hook := s.srv.opts.Hooks.Registered; hook != nil {
			hook(s, c.worker, c.userID)
		}
		sc.out = sv1.AppendTrue(sc.out, req.ID)
		return nil
	}
	s.srv.guard.loggedIn(&s.guard, worker, s.srv.clock(time.Now()))
	if first {
		at, asked := s.srv.chainOf(""), s.srv.reroutes.Load()
		router := s.srv.opts.Router
		if router != nil {
			ask, cancel := context.WithTimeout(ctx, s.srv.opts.AuthorizeTimeout)
			name, err := router.Route(ask, worker, user)
			cancel()
			if err != nil {
				s.srv.warn(&s.srv.loginLog, "cannot route", "worker", worker.String(), "remote", s.remote.String(), "error", err)
				return refuse(sv1.CodeInternal)
			}
			at = s.srv.chainOf(name)
		}
		s.admit(&worker, user, c, at, m.Password)
		if router != nil && s.srv.reroutes.Load() != asked {
			s.srv.reroute(ctx, s) // which did not see the session, and Route perhaps not what is new
		}
	} else {
		s.mu.Lock()
		s.login = &worker
		s.miner.credit = c
		s.applyPassword(m.Password, 0)
		s.mu.Unlock()
	}
	s.failedLogins = 0
	if hook := s.srv.opts.Hooks.Authorized; hook != nil {
		hook(s)
	}
	sc.out = sv1.AppendTrue(sc.out, req.ID)
	s.start(sc)
	return nil
}

// ask asks the Authorizer. What was answered so far is not made to wait for it.
func (s *Session) ask(ctx context.Context, sc *scratch, w share.Worker, password string) (int32, error) {
	s.mayBlock()
	before := s.state.Swap(uint32(Registering))
	defer s.state.Store(before)
	ctx, cancel := context.WithTimeout(ctx, s.srv.opts.AuthorizeTimeout)
	defer cancel()
	return s.srv.auth.Authorize(ctx, w, password)
}

// admit makes the session that of a worker. Of the difficulties that somebody asks for, the first of these counts: that
// in the password, the suggested one, the one that the worker had before, the listener's, the server's.
func (s *Session) admit(login *share.Worker, userID int32, c credit, at *chain, password string) {
	now := time.Now()
	last := s.resumeFrom
	if last == nil {
		last = s.srv.known(c.worker, now)
	}
	s.mu.Lock()
	s.login, s.userID = login, userID
	m := &s.miner
	m.credit, s.chain = c, at
	s.mu.Unlock()
	policy := s.srv.newPolicy(s) // which may ask whose it is to be
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setPolicy(m, policy)
	s.learned = true
	s.event(m, MinerConnect, NewConnection)
	s.applyPassword(password, s.suggested)
	if o := passwordOptions(password); s.agents == nil && s.suggested == 0 && o.start == 0 && o.fixed == 0 {
		// What one machine had says nothing about the many behind an agent.
		if last != nil {
			s.srv.goOn(m, last, now)
		}
		m.fixed = s.resumeWish // what it had asked for holds as long as it asks for nothing else
	}
	s.state.Store(uint32(Authorized))
}

// applyPassword does what the password asks for, or goes on from another difficulty where it names none. mu is held.
func (s *Session) applyPassword(password string, otherwise difficulty.Difficulty) {
	o := passwordOptions(password)
	if s.agents != nil {
		if !s.ready { // what machines start at never changes
			s.agents.start, s.agents.floor = cmp.Or(o.fixed, o.start, otherwise), o.floor
		}
		return
	}
	if o.floor != 0 || !s.ready { // the first time tells the policy of the other floors, too
		s.srv.setFloor(&s.miner, floorPassword, o.floor)
	}
	if start := cmp.Or(o.start, otherwise); start != 0 {
		s.srv.wish(&s.miner, start)
	}
	if o.fixed != 0 {
		s.miner.fixed = o.fixed.CeilPow2()
	}
}

// credit returns whom the work of a worker is recorded for.
func (s *Server) credit(w share.Worker, userID int32) credit {
	c := credit{}
	c.worker, c.userID, c.extUserID = s.opts.SingleUser.Credit(w, userID)
	c.workerID = c.worker.ID()
	return c
}

// suggest takes a wish for a difficulty. It counts from the next job on, which for a miner that is at work already is
// the next one there is: the one it has would be the same work again.
func (s *Session) suggest(sc *scratch, req *sv1.Request, d difficulty.Difficulty) error {
	if !d.Valid() {
		sc.out = appendCode(sc.out, req.ID, sv1.CodeIllegalParams)
		return nil
	}
	s.mu.Lock()
	if s.miner.policy == nil {
		s.suggested = d
	} else {
		s.srv.wish(&s.miner, d)
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
	r := sv1.ConfigureResult{MinimumDifficulty: m.MinimumDifficulty, SubscribeExtranonce: m.SubscribeExtranonce, Info: m.Info}
	// Shares are checked against the server's mask alone: some firmware rolls bits without having asked.
	if m.VersionRolling {
		r.VersionMask = m.VersionRollingMask & s.srv.opts.VersionMask
		r.VersionRolling = r.VersionMask != 0
	}
	s.mu.Lock()
	if m.MinimumDifficulty {
		s.srv.setFloor(&s.miner, floorBIP310, difficulty.Difficulty(m.MinimumDifficultyValue))
	}
	if m.SubscribeExtranonce {
		s.canMove = true
	}
	s.mu.Unlock()
	sc.out = sv1.AppendConfigureResult(sc.out, req.ID, m.Extensions, r)
	if m.VersionRolling {
		s.mask = r.VersionMask
		sc.out = s.appendMask(sc.out)
	}
	s.sendNewer(sc)
	return nil
}

// appendMask appends mining.set_version_mask where the miner has to hear of it: once, unless the mask changes, and not
// before the reply to mining.subscribe, for which cgminer takes whatever line comes next.
func (s *Session) appendMask(dst []byte) []byte {
	if !s.subscribed || s.mask == s.maskTold {
		return dst
	}
	if s.maskTold = s.mask; s.mask == 0 {
		return dst // it was refused, and the reply said so
	}
	return sv1.AppendSetVersionMask(dst, s.mask)
}

// start sends the first job once the miner has both subscribed and been let in. The replies so far go out with it, in
// one write.
func (s *Session) start(sc *scratch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ready || !s.subscribed || s.miner.userID == 0 {
		return
	}
	s.ready = true
	if s.agents != nil {
		s.agents.begin(s)
	}
	if enc := s.chain.latest.Load(); enc != nil {
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
	if !s.ready {
		return
	}
	enc := s.chain.latest.Load()
	if enc == nil || len(s.sent) > 0 && s.sent[len(s.sent)-1].job == enc.job {
		return
	}
	sc.out = s.appendJob(sc.out, enc, false, time.Now())
	_ = s.out.push(sc.out)
	sc.out = sc.out[:0]
}
