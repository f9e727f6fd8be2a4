package difftest

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/poolkit/poolkit/difficulty"
)

// A Miner is what a simulation runs a Policy against.
type Miner struct {
	// Hashrate returns the hashes per second at a time since the start. It is asked once a second, for the second that
	// begins; what is not a positive finite number means that the miner stands still. A nil Hashrate is silence.
	Hashrate func(at time.Duration) difficulty.Hashrate

	// Lag is the time from a job's being sent until the shares that come back are of that job: the way there, work
	// already begun and the way back. Until then shares are of the difficulty before. Below 0 means 0.
	Lag time.Duration
}

// Steady returns a Miner that always has hashrate h.
func Steady(h difficulty.Hashrate) Miner {
	return Miner{Hashrate: func(time.Duration) difficulty.Hashrate { return h }}
}

// Stepped returns a Miner that has hashrate before until the time at, and after from then on.
func Stepped(before difficulty.Hashrate, at time.Duration, after difficulty.Hashrate) Miner {
	return Miner{Hashrate: func(now time.Duration) difficulty.Hashrate {
		if now < at {
			return before
		}
		return after
	}}
}

// Options tune [Run]. The zero value is two hours of shares that come by chance, a job every 30 s.
type Options struct {
	// Duration of the simulation, rounded up to whole seconds; 0 or less means 2h.
	Duration time.Duration

	// JobInterval is the time between jobs, the first of which is sent at the start; 0 or less means 30 s, and the
	// least is 1 ms. The Policy is asked for a difficulty once for each.
	JobInterval time.Duration

	// Ideal spaces shares evenly, so that n shares take exactly n times the average. Otherwise they come by chance, as
	// they do in mining: the time between two is exponentially distributed.
	Ideal bool

	// Seed of the chances. The same seed gives the same Trace.
	Seed uint64

	// Start is the time that the Policy is told at the start; the zero value means 2026-01-01 00:00:00 UTC.
	Start time.Time

	// MaxShareRate is the most shares a second that get through, as a connection carries only so many; the rest are
	// lost, and counted in Trace.Lost. 0 or less means 5000. It bounds the cost of simulating a miner that is far too
	// fast for its difficulty.
	MaxShareRate int
}

var defaultStart = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func (o *Options) orDefaults() Options {
	var r Options
	if o != nil {
		r = *o
	}
	if r.Duration <= 0 {
		r.Duration = 2 * time.Hour
	}
	if r.JobInterval <= 0 {
		r.JobInterval = 30 * time.Second
	}
	r.JobInterval = max(r.JobInterval, time.Millisecond)
	if r.Start.IsZero() {
		r.Start = defaultStart
	}
	if r.MaxShareRate <= 0 {
		r.MaxShareRate = 5000
	}
	return r
}

// Run lets m mine under p in virtual time and returns what happened. Nil options mean the defaults.
//
// The pool that is simulated asks p for a difficulty with every job and sends it on as it is; a value that is not valid
// is counted in Trace.Invalid and not sent, so the miner keeps the one before. Every share is reported to p with the
// difficulty of the job it was found for. Of a share and a job at the same moment the share comes first.
func Run(p difficulty.Policy, m Miner, opts *Options) Trace {
	o := opts.orDefaults()
	s := simulation{
		opts:   o,
		policy: p,
		miner:  m,
		rng:    rand.New(rand.NewPCG(o.Seed, 0)),
		trace:  Trace{Start: o.Start, Seconds: make([]Second, 0, (o.Duration+time.Second-1)/time.Second)},
	}
	s.drawWait()
	for range cap(s.trace.Seconds) {
		s.second()
	}
	return s.trace
}

// simulation is the state of one Run. Time passes in seconds of constant hashrate, and within one in spans of constant
// difficulty.
type simulation struct {
	opts   Options
	policy difficulty.Policy
	miner  Miner
	rng    *rand.Rand
	trace  Trace

	now     time.Duration // since the start
	nextJob time.Duration
	sent    difficulty.Difficulty // with the latest job; 0 before the first
	mining  difficulty.Difficulty // what shares are found at; 0 before the first job has arrived
	onWay   []Point               // sent and not mined yet, oldest first

	done float64 // progress towards the next share, in shares of the average
	wait float64 // where the next share comes: 1 on average
}

func (s *simulation) drawWait() {
	s.done = 0
	s.wait = 1
	if !s.opts.Ideal {
		s.wait = s.rng.ExpFloat64()
	}
}

func (s *simulation) second() {
	s.trace.Seconds = append(s.trace.Seconds, Second{})
	end := time.Duration(len(s.trace.Seconds)) * time.Second
	var h float64
	if s.miner.Hashrate != nil {
		h = float64(s.miner.Hashrate(s.now))
	}
	if !(h > 0) || math.IsInf(h, 1) {
		h = 0
	}
	for {
		// Shares come before what happens at the same moment.
		until := min(end, s.nextJob)
		if len(s.onWay) > 0 {
			until = min(until, s.onWay[0].At)
		}
		s.mine(h, until)
		s.now = until
		if until == end {
			return // a job due now is the next second's
		}
		if len(s.onWay) > 0 && s.onWay[0].At == s.now {
			s.mining = s.onWay[0].Difficulty
			s.onWay = s.onWay[1:]
		}
		if s.nextJob == s.now {
			s.job()
			s.nextJob += s.opts.JobInterval
		}
	}
}

func (s *simulation) job() {
	s.trace.Jobs++
	d := s.policy.Next(s.opts.Start.Add(s.now))
	if !d.Valid() {
		s.trace.Invalid++
		return
	}
	if d == s.sent {
		return
	}
	s.sent = d
	s.trace.Points = append(s.trace.Points, Point{s.now, d})
	if s.miner.Lag <= 0 {
		s.mining = d
		return
	}
	s.onWay = append(s.onWay, Point{s.now + s.miner.Lag, d})
}

// mine passes the time from now to until at one hashrate and one difficulty.
func (s *simulation) mine(h float64, until time.Duration) {
	if h == 0 || s.mining == 0 || until == s.now {
		return
	}
	rate := min(h/(float64(s.mining)*difficulty.HashesPerDifficulty), math.MaxFloat64) // shares per second
	at, left := 0.0, (until - s.now).Seconds()
	second := &s.trace.Seconds[len(s.trace.Seconds)-1]
	for {
		need := (s.wait - s.done) / rate
		if at+need > left {
			s.done += (left - at) * rate
			return
		}
		at += need
		if second.Shares >= s.opts.MaxShareRate {
			// Progress towards a share means nothing for a connection that is full, so the rest is lost at once.
			s.trace.Lost += 1 + (left-at)*rate
			s.drawWait()
			return
		}
		s.drawWait()
		offset := time.Duration(math.Round(at * float64(time.Second)))
		s.policy.Observe(s.opts.Start.Add(s.now+offset), s.mining)
		second.Shares++
		second.Work += s.mining
	}
}
