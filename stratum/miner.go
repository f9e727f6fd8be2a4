package stratum

import (
	"math"
	"strings"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
)

// A miner is one machine with a difficulty of its own: the whole of an ordinary session, or one of those behind an
// agent.
type miner struct {
	credit
	agent   string
	policy  difficulty.Policy
	hurrier difficulty.Hurrier    // policy, or what it wraps; nil when it is none
	low     difficulty.Difficulty // the server's or the port's lowest
	fixed   difficulty.Difficulty // the miner's own wish where the policy cannot take it; 0 when none
	floors  [floorSources]difficulty.Difficulty

	// ceiling is that of the job sent last, 0 before the first.
	ceiling difficulty.Difficulty

	rejects rejectRing

	target   difficulty.Target // of targetOf, the difficulty judged by last
	targetOf difficulty.Difficulty
}

// A credit is whom shares are recorded for.
type credit struct {
	worker    share.Worker
	workerID  int64
	userID    int32 // 0 before authorize
	extUserID int32
}

// A floorSource is somebody who names a lowest difficulty. The highest of them counts.
type floorSource int

const (
	floorPassword floorSource = iota // md=
	floorBIP310                      // minimum-difficulty
	floorSoftware                    // NiceHash, and what reads whole numbers only
	floorSources
)

func (m *miner) floor() difficulty.Difficulty {
	floor := m.low
	for _, f := range m.floors {
		floor = max(floor, f)
	}
	return floor
}

// setFloor notes a lowest difficulty, rounded up to a power of two, and tells the policy if it can be told. 0 takes an
// earlier one back.
func (s *Server) setFloor(m *miner, from floorSource, d difficulty.Difficulty) {
	m.floors[from] = 0
	if d.Valid() {
		m.floors[from] = s.assignable(d.CeilPow2(), m.low)
	}
	s.tellFloor(m)
}

// tellFloor tells the policy the lowest difficulty, if it can be told: never one above the highest.
func (s *Server) tellFloor(m *miner) {
	p, ok := difficulty.As[difficulty.MinSetter](m.policy)
	if !ok {
		return
	}
	floor := s.assignable(m.low, m.floor())
	if m.ceiling != 0 {
		floor = min(floor, m.ceiling)
	}
	p.SetMin(floor)
}

// setCeiling notes the highest difficulty for the jobs from now on and tells the policy if it can be told.
func (s *Server) setCeiling(m *miner, d difficulty.Difficulty) {
	if m.ceiling == d {
		return
	}
	lower := d < m.ceiling
	m.ceiling = d
	if s.opts.AboveNetwork {
		return // it is what the policy was made for
	}
	if lower { // so that the floor is at no time above the ceiling
		s.tellFloor(m)
	}
	if p, ok := difficulty.As[difficulty.MaxSetter](m.policy); ok {
		p.SetMax(d)
	}
	if !lower {
		s.tellFloor(m)
	}
}

// ceilingOf returns the highest difficulty that a job may be sent with.
func (s *Server) ceilingOf(j *job.Job) difficulty.Difficulty {
	if s.opts.AboveNetwork {
		return s.opts.MaxDifficulty
	}
	return min(shareCeiling(j.Target()), s.opts.MaxDifficulty)
}

// shareCeiling returns the highest assignable difficulty whose shares include every hash that meets a network target.
func shareCeiling(network difficulty.Target) difficulty.Difficulty {
	d := network.Difficulty()
	if d >= 1 {
		d = min(d, difficulty.Max)
		if d < 1<<53 { // above, each is whole
			d = difficulty.Difficulty(uint64(d))
		}
	} else {
		d = d.FloorPow2()
	}
	// What Difficulty returns is rounded, perhaps up to a number that a few hashes in 2^53 do not reach.
	for d > difficulty.Min && d.Target().Cmp(network) < 0 {
		if d > 1 {
			d = difficulty.Difficulty(math.Nextafter(float64(d), 0))
			if d < 1<<53 {
				d = difficulty.Difficulty(uint64(d))
			}
		} else {
			d /= 2
		}
	}
	return d
}

// wish goes on from a difficulty that the miner asks for, or had before.
func (s *Server) wish(m *miner, d difficulty.Difficulty) {
	d = s.assignable(d.CeilPow2(), m.floor())
	if r, ok := difficulty.As[difficulty.Resetter](m.policy); ok {
		r.Reset(d)
	} else {
		m.fixed = d
	}
}

// nextDifficulty asks the policy for the difficulty that goes out with a job. Nobody's wishes and no floor lift it above
// the job's own: a miner sends nothing but shares, so it would keep a block to itself that is none.
func (s *Server) nextDifficulty(m *miner, enc *encodedJob, now time.Time) difficulty.Difficulty {
	s.setCeiling(m, enc.ceiling)
	d := m.fixed
	if d == 0 {
		d = m.policy.Next(now)
	}
	return min(s.assignable(d, m.floor()), enc.ceiling)
}

// assignable bounds d and makes it one that sums exactly.
func (s *Server) assignable(d, lo difficulty.Difficulty) difficulty.Difficulty {
	if !(d > lo) {
		return min(lo, s.opts.MaxDifficulty)
	}
	if d = min(d, s.opts.MaxDifficulty); d.Assignable() {
		return d
	}
	if d < 1 {
		return max(d.FloorPow2(), lo)
	}
	return max(difficulty.Difficulty(uint64(d)), lo)
}

// newPolicy makes the policy of a machine that has just been let in.
func (s *Server) newPolicy(sess *Session) difficulty.Policy {
	o := &s.opts
	if o.NewPolicy != nil {
		if p := o.NewPolicy(sess); p != nil {
			return p
		}
	}
	p, err := defaultPolicy(sess)
	if err != nil {
		o.Logger.Error("vardiff refuses the bounds, difficulty stays fixed", "error", err) // of an agent they may be crossed on its grid
		return difficulty.Fixed(sess.StartDifficulty())
	}
	return p
}

// defaultPolicy makes the policy of a pool that did not choose one.
func defaultPolicy(s *Session) (difficulty.Policy, error) {
	return difficulty.NewSequential(&difficulty.SequentialOptions{
		Start: s.StartDifficulty(), Min: s.MinDifficulty(), Max: s.MaxDifficulty(), Grid: s.Grid(),
	})
}

// Grid returns the difficulties that the miner can be told of: the machines behind a BTCAgent powers of two, all others
// any. It is for policies, see [Options.NewPolicy].
func (s *Session) Grid() difficulty.Grid {
	if s.agents != nil {
		return difficulty.PowersOfTwo
	}
	return difficulty.AnyDifficulty
}

// MinDifficulty returns the lowest difficulty of the server, or of the port that the miner came by. The miner may have
// asked for a higher one. It is for policies, see [Options.NewPolicy].
func (s *Session) MinDifficulty() difficulty.Difficulty { return s.miner.low }

// MaxDifficulty returns the highest difficulty of the server; what the network's allows may be less. It is for policies,
// see [Options.NewPolicy].
func (s *Session) MaxDifficulty() difficulty.Difficulty { return s.srv.opts.MaxDifficulty }

// StartDifficulty returns what a miner of whom nothing else is known starts at: the port's, or else the server's. It is
// for policies, see [Options.NewPolicy].
func (s *Session) StartDifficulty() difficulty.Difficulty {
	if d := s.port.StartDifficulty; d != 0 {
		return min(d, s.srv.opts.MaxDifficulty)
	}
	return max(s.srv.opts.StartDifficulty, s.miner.low)
}

// softwareFloor returns the lowest difficulty that miners of some software can work with, 0 for any.
func (s *Server) softwareFloor(agent string) difficulty.Difficulty {
	switch {
	case s.isNiceHash(agent):
		return s.opts.NiceHash.MinDifficulty
	case strings.HasPrefix(strings.ToLower(agent), "bitaxe"):
		return 1 // it cuts fractions off
	}
	return 0
}

func (s *Server) isNiceHash(agent string) bool {
	return s.opts.NiceHash.Forced || strings.HasPrefix(strings.ToLower(agent), "nicehash/")
}

// An askedFor is what a password asks for; 0 is nothing.
type askedFor struct {
	start difficulty.Difficulty // d=
	floor difficulty.Difficulty // md=
	fixed difficulty.Difficulty // fd=, for good
}

// passwordOptions reads "d=65536,md=1024"; what is not of that form is no option. Later ones count before earlier ones.
func passwordOptions(password string) (o askedFor) {
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
			o.start = d
		case "md":
			o.floor = d
		case "fd":
			o.fixed = d
		}
	}
	return o
}

// targetFor returns the target of d, which is that of the share before nearly always.
func (m *miner) targetFor(d difficulty.Difficulty) difficulty.Target {
	if m.targetOf != d {
		m.target, m.targetOf = d.Target(), d
	}
	return m.target
}

// A rejectRing tells when a miner sends so many bad shares that further ones are answered but no longer recorded: the
// twentieth within a minute, as in BTCPool.
type rejectRing struct {
	at   []int64 // Unix seconds of the last ones
	next int
}

const (
	rejectsRecorded = 19
	rejectWindow    = 60
)

func (r *rejectRing) record(now int64) bool {
	if len(r.at) < rejectsRecorded {
		r.at = append(r.at, now)
		return true
	}
	oldest := r.at[r.next]
	r.at[r.next] = now
	r.next = (r.next + 1) % rejectsRecorded
	return now-oldest >= rejectWindow
}
