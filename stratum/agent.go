package stratum

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum/btcagent"
	"github.com/poolkit/poolkit/stratum/sv1"
)

const (
	frameMagic      = btcagent.Magic
	frameHeader     = btcagent.HeaderSize
	maxAgentWorkers = btcagent.MaxSessionID + 1
	maxBadFrames    = 100 // in a row

	// Machines come and go at most this fast, after as many at once as there can be.
	registersPerSecond = 1000

	// All machines of an agent have one memory of shares.
	maxAgentShares = 1 << 22
)

var errBadFrames = errors.New("too many frames without meaning")

// An agentState is what a session holds that is an agent with many machines behind it. The session's goroutine owns it;
// Session.mu guards workers and all that is theirs, which jobs are pushed by.
type agentState struct {
	index    uint16
	skip     int // bytes of a frame that is not looked at
	bad      int
	tokens   float64 // for registering
	refilled time.Time

	// announced is the difficulty that machines have until a frame tells otherwise. The agent keeps the first that it
	// hears, so it never changes; nor does start, what the agent's password asks for, and floor.
	announced    difficulty.Difficulty
	start, floor difficulty.Difficulty

	workers map[uint16]*agentWorker
	groups  map[uint8][]uint16 // scratch: machines by the exponent of their new difficulty
}

// An agentWorker is one machine behind an agent.
type agentWorker struct {
	miner
	history []agentDifficulty // by ascending job, the first for all jobs before the second
	changed time.Time         // when the last of them was added
}

// An agentDifficulty holds from a job on.
type agentDifficulty struct {
	from       uint32 // sentJob.seq
	difficulty difficulty.Difficulty
}

func newAgentState() *agentState {
	return &agentState{workers: make(map[uint16]*agentWorker), tokens: maxAgentWorkers}
}

// capabilities answers agent.get_capabilities, in every state: an agent asks before anything else whether the pool
// lives.
func (s *Session) capabilities(sc *scratch, req *sv1.Request) error {
	var m sv1.Capabilities
	_ = m.Decode(req.Params) // whatever it says, it is told what there is
	if m.Has(sv1.CapabilitySubmitResponse) {
		s.subres = true
	}
	sc.out = sv1.AppendCapabilitiesResult(sc.out, req.ID, sv1.CapabilityVersionRolling, sv1.CapabilitySubmitResponse)
	return nil
}

// begin announces the difficulty of machines to come, once for the whole connection. s.mu is held.
func (a *agentState) begin(s *Session) {
	d := s.StartDifficulty()
	if a.start != 0 {
		d = a.start.CeilPow2()
	}
	floor := s.miner.floor()
	if a.floor != 0 {
		floor = max(floor, s.srv.assignable(a.floor.CeilPow2(), s.miner.low))
	}
	s.sentDiff = 0
	a.announced = s.srv.assignable(d, floor).FloorPow2()
	if enc := s.chain.latest.Load(); enc != nil {
		a.announced = min(a.announced, enc.ceiling.FloorPow2())
	}
	opts := s.srv.opts.Validation
	opts.MaxShares = max(opts.MaxShares, maxAgentShares)
	s.validator.Init(&opts)
}

// handleFrame handles the frame that data begins with, or skips a part of it, and returns how many bytes that took: 0
// when more must come.
func (s *Session) handleFrame(ctx context.Context, sc *scratch, data []byte) (used int, err error) {
	a := s.agents
	if a.skip > 0 {
		used = min(a.skip, len(data))
		a.skip -= used
		return used, nil
	}
	cmd, size, err := btcagent.Header(data)
	if err != nil || size == 0 {
		return 0, err
	}
	if size > btcagent.MaxRegister {
		// No frame of an agent is that large. It is not kept while it comes in.
		if cmd.IsSubmit() && s.authorized() {
			if err := s.answerFrame(ctx, sc, share.IllegalParams); err != nil {
				return 0, err
			}
		}
		used = min(size, len(data))
		a.skip = size - used
		return used, s.meaningless()
	}
	f, used, err := btcagent.Next(data)
	if err != nil || used == 0 {
		return used, err
	}
	if err := s.admitRequest(sc); err != nil || !s.authorized() {
		return used, err
	}
	switch {
	case f.Command.IsSubmit():
		verdict, what := s.judgeFrame(ctx, sc, f)
		if verdict == share.IllegalParams {
			err = s.meaningless()
		} else {
			a.bad = 0
		}
		if err = errors.Join(err, s.answerFrame(ctx, sc, verdict)); err != nil {
			return used, err
		}
		// The connection is judged as a whole: one bad machine of many does not end it.
		if p := s.srv.guard.submit(&s.guard, s.login, what, s.srv.clock(sc.now)); p.grade != 0 {
			return used, s.punish(ctx, sc, p)
		}
		return used, nil
	case f.Command == btcagent.CommandRegister:
		var r btcagent.Register
		if r.Decode(f) != nil {
			return used, s.meaningless()
		}
		return used, s.register(ctx, sc, &r)
	case f.Command == btcagent.CommandUnregister:
		var u btcagent.Unregister
		if u.Decode(f) != nil {
			return used, s.meaningless()
		}
		a.bad = 0
		s.unregister(u.SessionID)
		return used, nil
	}
	return used, s.meaningless()
}

// meaningless counts a frame that says nothing. Newer agents may know more commands than we do, so it takes many.
func (s *Session) meaningless() error {
	s.srv.counters.malformed.Add(1)
	if s.agents.bad++; s.agents.bad >= maxBadFrames {
		return errBadFrames
	}
	return nil
}

// answerFrame leaves the answer to a submit to settle. Neither side writes the index down: each counts, so every submit
// is answered, whatever is wrong with it.
func (s *Session) answerFrame(ctx context.Context, sc *scratch, v share.Verdict) error {
	a := s.agents
	sc.pending = append(sc.pending, submit{frame: true, index: a.index, verdict: v})
	a.index++
	return s.makeRoom(ctx, sc)
}

// appendResponse appends the answer to a submit, if the agent asked for answers.
func (s *Session) appendResponse(dst []byte, p *submit) []byte {
	if !s.subres {
		return dst
	}
	return btcagent.AppendSubmitResponse(dst, p.index, p.verdict.Status())
}

func (s *Session) judgeFrame(ctx context.Context, sc *scratch, f btcagent.Frame) (share.Verdict, outcome) {
	var m btcagent.Submit
	switch err := m.Decode(f); {
	case errors.Is(err, btcagent.ErrSessionID):
		return share.Unauthorized, outcomeNone
	case err != nil:
		return share.IllegalParams, outcomeInvalid
	}
	s.mu.Lock()
	w := s.agents.workers[m.SessionID]
	s.mu.Unlock()
	if w == nil {
		return share.Unauthorized, outcomeNone
	}
	sent, ok := s.lookup(uint64(m.JobID))
	if !ok {
		return share.JobNotFound, outcomeNone
	}
	s.mu.Lock()
	d := w.difficultyAt(sent.seq)
	s.mu.Unlock()
	verdict, reached := s.rule(ctx, sc, &w.miner, &w.credit, &sent, d, &sv1.Submit{
		Extranonce2: btcagent.Extranonce2(m.SessionID, m.Extranonce2),
		NTime:       m.NTime,
		Nonce:       m.Nonce,
		VersionBits: m.VersionBits,
	})
	if verdict != share.LowDifficulty {
		return verdict, outcomeOf(verdict, 0, 0, 0)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	before, changed := w.lastChange()
	return verdict, outcomeOf(verdict, reached.Difficulty(), before, sc.now.Sub(changed))
}

// register adds a machine, in place of one with the same id.
func (s *Session) register(ctx context.Context, sc *scratch, r *btcagent.Register) error {
	a := s.agents
	a.bad = 0
	a.tokens = min(maxAgentWorkers, a.tokens+sc.now.Sub(a.refilled).Seconds()*registersPerSecond)
	a.refilled = sc.now
	_, known := a.workers[r.SessionID]
	full := len(a.workers) >= s.srv.opts.MaxAgentWorkers || s.srv.machines.Load() >= int64(s.srv.opts.MaxMachines)
	if a.tokens < 1 || !known && full {
		s.srv.counters.unregistered.Add(1)
		return nil
	}
	a.tokens--
	if known {
		s.unregister(r.SessionID)
	}
	worker, _ := share.ParseWorker("-." + string(r.Worker))
	worker.User = s.login.User
	w := &agentWorker{miner: miner{
		credit: s.srv.credit(worker, s.userID),
		agent:  share.FilterName(string(r.Software[:min(len(r.Software), 30)])),
		low:    s.miner.low,
	}}
	s.setPolicy(&w.miner, s.srv.newPolicy(s))
	w.floors[floorBIP310] = s.miner.floors[floorBIP310] // before the policy is told of all
	s.srv.setFloor(&w.miner, floorSoftware, s.srv.softwareFloor(w.agent))
	s.srv.setFloor(&w.miner, floorPassword, a.floor)
	var last *difficulty.State
	if a.start == 0 {
		last = s.srv.known(w.worker, sc.now)
	}
	s.mu.Lock()
	d := max(a.announced, a.assignable(w.floor(), a.announced))
	if last != nil {
		s.srv.goOn(&w.miner, last, sc.now)
		d = a.assignable(s.srv.assignable(last.Difficulty, w.floor()), a.announced)
	} else if _, ok := difficulty.As[difficulty.Resetter](w.policy); ok {
		s.srv.wish(&w.miner, a.announced)
	}
	if n := len(s.sent); n > 0 { // the job that the machine begins with
		d = a.assignable(min(d, s.sent[n-1].ceiling), a.announced)
	}
	w.history = []agentDifficulty{{difficulty: d}}
	a.workers[r.SessionID] = w
	s.srv.machines.Add(1)
	s.event(&w.miner, MinerConnect, ToldByAgent)
	s.mu.Unlock()
	if hook := s.srv.opts.Hooks.Registered; hook != nil {
		hook(s, w.worker, w.userID)
	}
	if d == a.announced {
		return nil
	}
	// What was judged before is answered before.
	if err := s.settle(ctx, sc); err != nil {
		return err
	}
	sc.out = btcagent.AppendSetDifficulty(sc.out, exponent(d), r.SessionID)
	return nil
}

func (s *Session) unregister(id uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.agents.workers[id]; w != nil {
		delete(s.agents.workers, id)
		s.srv.machines.Add(-1)
		s.event(&w.miner, MinerDead, ToldByAgent)
		if store := s.srv.difficulties; store != nil && s.sentDiff != 0 {
			k := w.known(time.Now())
			store.Save(k.worker, k.state)
		}
	}
}

// appendAgentDifficulties asks the policies of all machines and appends a frame for each difficulty that is new to
// some. mu is held.
func (s *Session) appendAgentDifficulties(dst []byte, enc *encodedJob, now time.Time) []byte {
	a, seq := s.agents, s.jobs
	if s.sentDiff == 0 {
		a.lower(enc.ceiling.FloorPow2())
		s.sentDiff = a.announced
		dst = sv1.AppendSetDifficulty(dst, float64(a.announced))
	}
	oldest := seq
	if len(s.sent) > 0 {
		oldest = s.sent[0].seq
	}
	if enc.ceiling < 1 && a.announced > enc.ceiling {
		// No frame names a difficulty below 1. When the agent connects again it is announced another one.
		s.out.abort(errTooEasy)
		return dst
	}
	for id, w := range a.workers {
		had := w.history[len(w.history)-1].difficulty
		d := a.assignable(s.srv.nextDifficulty(&w.miner, enc, now), had)
		if d > enc.ceiling { // below 1 too
			s.out.abort(errTooEasy)
			return dst
		}
		if d == had {
			continue
		}
		for len(w.history) > 1 && w.history[1].from <= oldest {
			w.history = append(w.history[:0], w.history[1:]...)
		}
		w.history = append(w.history, agentDifficulty{from: seq, difficulty: d})
		w.changed = now
		if a.groups == nil {
			a.groups = make(map[uint8][]uint16)
		}
		a.groups[exponent(d)] = append(a.groups[exponent(d)], id)
	}
	for exp := range uint8(64) {
		if ids := a.groups[exp]; len(ids) > 0 {
			dst = btcagent.AppendSetDifficulty(dst, exp, ids...)
		}
	}
	clear(a.groups)
	return dst
}

// lower lowers what was not announced yet, and with it what the machines have that came before the first job.
func (a *agentState) lower(ceiling difficulty.Difficulty) {
	if a.announced <= ceiling {
		return
	}
	for _, w := range a.workers {
		if w.history[0].difficulty == a.announced {
			w.history[0].difficulty = ceiling
		}
	}
	a.announced = ceiling
}

// assignable makes d one that a frame can name to a machine that has another. Below 1 there is only what was announced,
// for those that never had more.
func (a *agentState) assignable(d, had difficulty.Difficulty) difficulty.Difficulty {
	switch {
	case d >= 1:
		return d.FloorPow2()
	case had < 1:
		return had
	}
	return 1
}

// exponent returns the binary logarithm of a power of two.
func exponent(d difficulty.Difficulty) uint8 { return uint8(math.Ilogb(float64(d))) }

// difficultyAt returns the difficulty that went out with a job. Session.mu is held.
func (w *agentWorker) difficultyAt(seq uint32) difficulty.Difficulty {
	for i := len(w.history) - 1; i > 0; i-- {
		if w.history[i].from <= seq {
			return w.history[i].difficulty
		}
	}
	return w.history[0].difficulty
}

// lastChange returns the difficulty before the last change, 0 when there was none, and when it was. Session.mu is held.
func (w *agentWorker) lastChange() (difficulty.Difficulty, time.Time) {
	if n := len(w.history); n > 1 {
		return w.history[n-2].difficulty, w.changed
	}
	return 0, w.changed
}

// AgentWorkers returns how many machines are registered behind an agent; 0 for other sessions.
func (s *Session) AgentWorkers() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.agents == nil {
		return 0
	}
	return len(s.agents.workers)
}
