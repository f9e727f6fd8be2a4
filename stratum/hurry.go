package stratum

import (
	"strconv"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/stratum/sv1"
)

// hurryEvery is how often a session gets a job out of turn: every time the miner, or a farm of them, begins anew.
const hurryEvery = time.Second

// Ids of jobs sent again are those that were given out longest ago, but for the newest few: one of these may be on its
// way to becoming a chain's latest.
const newestIDs = 16

// setPolicy gives a machine its policy, and looks once for what the path of shares asks for.
func (s *Session) setPolicy(m *miner, p difficulty.Policy) {
	m.policy = p
	if m.hurrier, _ = difficulty.As[difficulty.Hurrier](p); m.hurrier != nil {
		s.hurries.Store(true)
	}
}

// hurryAfterShares sends a job out of turn when a policy that has just heard of shares asks for it.
func (s *Session) hurryAfterShares(sc *scratch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.mayHurry(sc.now) {
		return
	}
	for _, m := range sc.observed {
		if !m.hurrier.Hurry(sc.now) {
			continue
		}
		replies := len(sc.out)
		if sc.out = s.appendOutOfTurn(sc.out, sc.now); len(sc.out) > replies {
			_ = s.out.push(sc.out) // under the lock, as in start
			sc.out = sc.out[:0]
		}
		return
	}
}

// hurryInSilence does the same once a second, whether there are shares or none.
func (s *Session) hurryInSilence(now time.Time) {
	if !s.hurries.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.mayHurry(now) || !s.wantsToHurry(now) {
		return
	}
	if lines := s.appendOutOfTurn(nil, now); len(lines) > 0 {
		_ = s.out.push(lines)
	}
}

func (s *Session) wantsToHurry(now time.Time) bool {
	if s.agents == nil {
		return s.miner.hurrier != nil && s.miner.hurrier.Hurry(now)
	}
	for _, w := range s.agents.workers {
		if w.hurrier != nil && w.hurrier.Hurry(now) {
			return true
		}
	}
	return false
}

func (s *Session) mayHurry(now time.Time) bool {
	return s.ready && s.srv.clock(now)-s.hurried >= int64(hurryEvery)
}

// appendOutOfTurn appends the latest job, with the difficulty that the policy thinks right now. Where the miner has the
// job already it is sent again: under another id, so that each share is known to belong to the one difficulty or the
// other, and at a later time, or the miner would find its shares of before again. It is not clean: what is found
// meanwhile at the difficulty of before counts as that. Where the difficulty is what it was nothing is sent. mu is held.
func (s *Session) appendOutOfTurn(dst []byte, now time.Time) []byte {
	enc := s.chain.latest.Load()
	if enc == nil || len(s.sent) == 0 {
		return dst
	}
	if s.sent[len(s.sent)-1].job != enc.job {
		s.hurried = s.srv.clock(now)
		s.srv.counters.hurried.Add(1)
		return s.appendJob(dst, enc, false, now)
	}
	own := s.again(enc, now)
	if own == nil {
		return dst
	}
	s.hurried = s.srv.clock(now)
	dst, d, changed := s.appendDifficulty(dst, own, now)
	if !changed {
		return dst
	}
	s.refreshed = own.ntime
	s.remember(own, d, now)
	s.srv.counters.hurried.Add(1)
	return append(dst, s.lineOf(own, s.cleanChanges && s.agents == nil)...)
}

// again returns a job that was sent as one to be sent again, of this session alone, or nil when that cannot be. mu is
// held.
func (s *Session) again(enc *encodedJob, now time.Time) *encodedJob {
	if len(s.sent) >= maxSentJobs/2 {
		return nil // or jobs that are still mined would be forgotten for it
	}
	ntime := s.laterTime(enc.job, now)
	if latest := enc.job.MaxTime; latest != 0 && ntime > latest {
		return nil
	}
	var taken [256]bool
	for i := range s.sent {
		taken[uint8(s.sent[i].lines[s.ids].id)] = true
	}
	for _, c := range *s.srv.chains.Load() {
		if latest := c.latest.Load(); latest != nil {
			taken[uint8(latest.number)] = true // it may come to this session
		}
	}
	newest := s.srv.jobs.Load() - 1
	for k := uint32(newestIDs); k < 256; k++ {
		if id := uint8(newest - k); !taken[id] {
			own := &encodedJob{job: enc.job, chain: enc.chain, number: enc.number, ceiling: enc.ceiling, ntime: ntime}
			own.lines[shortIDs].id = uint64(id)
			own.lines[longIDs].id = uint64(now.Unix())<<8 | uint64(id)
			return own
		}
	}
	return nil
}

// laterTime returns a header time for a job that is sent again, after all that it was sent with. mu is held.
func (s *Session) laterTime(j *job.Job, now time.Time) uint32 {
	return max(j.Time+1, uint32(now.Unix()), s.refreshed+1)
}

// lineOf returns the mining.notify to send. Those of a job that is the session's own are not kept. mu is held.
func (s *Session) lineOf(e *encodedJob, clean bool) []byte {
	if e.ntime == 0 {
		return e.line(s.ids, clean)
	}
	return s.ownLine(e, e.ntime, clean)
}

// ownLine returns a line that nobody else is sent. mu is held.
func (s *Session) ownLine(e *encodedJob, ntime uint32, clean bool) []byte {
	n := s.srv.notify(e.job)
	n.JobID, n.NTime, n.Clean = strconv.FormatUint(e.lines[s.ids].id, 10), ntime, clean
	return sv1.AppendNotify(nil, n)
}
