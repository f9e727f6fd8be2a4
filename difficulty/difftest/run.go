package difftest

import (
	"math"
	"math/rand/v2"
	"slices"
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

	// Latency is that of the network, one way; below 0 means 0. It adds twice to Lag, and what becomes of the miner is
	// seen that much later: Hashrate is asked for the time Latency ago. Shares that are on their way when the
	// connection breaks are lost.
	Latency time.Duration

	// Connected reports whether the miner is connected at a time since the start; nil means always. It is asked once a
	// second. Whoever connects begins a new session: see [RunSessions].
	Connected func(at time.Duration) bool

	// Send returns when a share of difficulty d that was found at the time at is sent: at or before then to send it at
	// once, later to hold it back, and [Never] to keep it for good. It is asked in the order of the finds; shares for
	// the same moment are sent in that order too. Nil sends every share at once. What is held back when the connection
	// breaks is lost, and so is what is found while [MaxHeld] shares are held back.
	Send func(at time.Duration, d difficulty.Difficulty) time.Duration
}

// Never is what [Miner].Send returns for a share that is not sent.
const Never time.Duration = math.MaxInt64

// MaxHeld is how many shares a simulated miner can hold back at once.
const MaxHeld = 1 << 16

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

	// BlockInterval is the average time between new blocks of the network, each of which brings a job beside those of
	// JobInterval. They come by chance, which depends on Seed and on nothing that the miner or the Policy does. 0 or
	// less means no blocks, and the least average is 1 s.
	BlockInterval time.Duration

	// NoHurry is a pool that sends a job only when one is due. Otherwise a difficulty.Hurrier is asked after every
	// share and at every whole second, and gets a job at once when it wants one, but not within a second of the last
	// that came out of turn.
	NoHurry bool

	// Assign returns what the pool makes of a valid difficulty that the Policy returned: bounds, or a grid. Nil sends
	// it as it is, and difficulty.Difficulty.CeilPow2 rounds it up to a power of two.
	Assign func(difficulty.Difficulty) difficulty.Difficulty

	// Keep makes the pool remember a miner whose connection breaks: the Policy of its next session is restored from
	// the State of the one before, when both are difficulty.Keepers.
	Keep bool
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
	if r.BlockInterval > 0 {
		r.BlockInterval = max(r.BlockInterval, time.Second)
	}
	return r
}

// Run lets m mine under p in virtual time and returns what happened. Nil options mean the defaults.
//
// The pool that is simulated asks p for a difficulty with every job and sends it on as Options.Assign makes it; a value
// that is not valid is counted in Trace.Invalid and not sent, so the miner keeps the one before. Every share is reported
// to p with the difficulty of the job it was found for. Of a share and a job at the same moment the share comes first.
//
// When the connection breaks and comes back p goes on. [RunSessions] begins with a new Policy then.
func Run(p difficulty.Policy, m Miner, opts *Options) Trace {
	s := simulation{policy: p}
	s.run(m, opts)
	return s.trace
}

// RunSessions is [Run] for a miner that may connect more than once: newPolicy makes the Policy of each session. Whether
// that one is told what the last one knew is Options.Keep. With a nil Policy every job counts in Trace.Invalid.
func RunSessions(newPolicy func() difficulty.Policy, m Miner, opts *Options) Trace {
	s := simulation{newPolicy: newPolicy}
	s.run(m, opts)
	return s.trace
}

// simulation is the state of one Run. Time passes in seconds of constant hashrate, and within one in spans of constant
// difficulty.
type simulation struct {
	opts      Options
	newPolicy func() difficulty.Policy // of every session; nil when there is one Policy for all
	policy    difficulty.Policy
	hurrier   difficulty.Hurrier // policy; nil when it is none or the pool cannot
	miner     Miner
	lag       time.Duration // from sending a job to shares of it
	rng       *rand.Rand    // of shares
	blocks    *rand.Rand
	trace     Trace

	now       time.Duration // since the start
	nextJob   time.Duration
	nextBlock time.Duration
	nextHurry time.Duration         // no job comes out of turn before
	sent      difficulty.Difficulty // with the latest job of the session; 0 before the first
	mining    difficulty.Difficulty // what shares are found at; 0 before the first job has arrived
	onWay     []Point               // sent and not mined yet, oldest first
	held      []Point               // shares that are sent later, soonest first
	found     int                   // shares in this second, sent or not

	connected bool
	kept      difficulty.State // of the session before

	done float64 // progress towards the next share, in shares of the average
	wait float64 // where the next share comes: 1 on average
}

func (s *simulation) run(m Miner, opts *Options) {
	s.opts = opts.orDefaults()
	s.miner = m
	s.lag = max(m.Lag, 0) + 2*max(m.Latency, 0)
	s.rng = rand.New(rand.NewPCG(s.opts.Seed, 0))
	seconds := int((s.opts.Duration + time.Second - 1) / time.Second)
	s.trace.Start = s.opts.Start
	s.trace.Seconds = slices.Grow(s.trace.Seconds[:0], seconds)
	s.trace.Truth = slices.Grow(s.trace.Truth[:0], seconds)
	s.nextBlock = Never
	if s.opts.BlockInterval > 0 {
		s.blocks = rand.New(rand.NewPCG(s.opts.Seed, 1))
		s.nextBlock = s.drawBlock()
	}
	s.drawWait()
	for range seconds {
		s.second()
	}
}

func (s *simulation) drawWait() {
	s.done = 0
	s.wait = 1
	if !s.opts.Ideal {
		s.wait = s.rng.ExpFloat64()
	}
}

func (s *simulation) drawBlock() time.Duration {
	wait := s.blocks.ExpFloat64() * float64(s.opts.BlockInterval)
	if wait > float64(Never/2) {
		return Never
	}
	return s.now + max(time.Duration(wait), 1)
}

func (s *simulation) second() {
	s.trace.Seconds = append(s.trace.Seconds, Second{})
	end := time.Duration(len(s.trace.Seconds)) * time.Second
	s.found = 0
	if connected := s.miner.Connected == nil || s.miner.Connected(s.now); connected != s.connected {
		s.connected = connected
		if connected {
			s.connect()
		} else {
			s.disconnect()
		}
	}
	var h float64
	if s.miner.Hashrate != nil && s.connected {
		h = float64(s.miner.Hashrate(max(s.now-max(s.miner.Latency, 0), 0)))
	}
	if !(h > 0) || math.IsInf(h, 1) {
		h = 0
	}
	s.trace.Truth = append(s.trace.Truth, difficulty.Hashrate(h))
	if s.nextJob != s.now {
		s.hurry()
	}
	for {
		// Shares come before what happens at the same moment.
		until := min(end, s.nextJob, s.nextBlock)
		if len(s.onWay) > 0 {
			until = min(until, s.onWay[0].At)
		}
		if len(s.held) > 0 {
			until = min(until, s.held[0].At)
		}
		s.mine(h, until)
		if s.now != until {
			continue // what comes next is another thing than it was
		}
		for len(s.held) > 0 && s.held[0].At == s.now {
			share := s.held[0]
			s.held = s.held[1:]
			s.share(share.Difficulty)
		}
		if until == end {
			return // a job due now is the next second's
		}
		if len(s.onWay) > 0 && s.onWay[0].At == s.now {
			s.mining = s.onWay[0].Difficulty
			s.onWay = s.onWay[1:]
		}
		if s.nextBlock == s.now {
			s.trace.Blocks++
			s.nextBlock = s.drawBlock()
			if s.nextJob != s.now {
				s.job()
			}
		}
		if s.nextJob == s.now {
			s.job()
			s.nextJob += s.opts.JobInterval
		}
	}
}

func (s *simulation) connect() {
	s.trace.Sessions++
	if s.newPolicy != nil {
		s.policy = s.newPolicy()
		if s.policy == nil {
			s.policy = difficulty.Fixed(0)
		}
		if k, ok := difficulty.As[difficulty.Keeper](s.policy); ok && s.opts.Keep && s.kept.Valid() {
			k.Restore(s.opts.Start.Add(s.now), s.kept)
		}
	}
	s.hurrier = nil
	if !s.opts.NoHurry {
		s.hurrier, _ = difficulty.As[difficulty.Hurrier](s.policy)
	}
	if s.nextJob != s.now {
		s.job()
	}
}

func (s *simulation) disconnect() {
	s.kept = difficulty.State{}
	if k, ok := difficulty.As[difficulty.Keeper](s.policy); ok {
		s.kept = k.State(s.opts.Start.Add(s.now))
	}
	s.hurrier = nil
	s.sent, s.mining = 0, 0
	s.onWay, s.held = nil, nil
}

func (s *simulation) job() {
	if !s.connected {
		return
	}
	s.trace.Jobs++
	d := s.policy.Next(s.opts.Start.Add(s.now))
	if d.Valid() && s.opts.Assign != nil {
		d = s.opts.Assign(d)
	}
	if !d.Valid() {
		s.trace.Invalid++
		return
	}
	if d == s.sent {
		return
	}
	s.sent = d
	if n := len(s.trace.Points); n == 0 || s.trace.Points[n-1].Difficulty != d {
		s.trace.Points = append(s.trace.Points, Point{s.now, d})
	}
	if s.lag <= 0 {
		s.mining = d
		return
	}
	s.onWay = append(s.onWay, Point{s.now + s.lag, d})
}

// hurry sends a job out of turn when the policy wants one and may have it, and reports whether it did.
func (s *simulation) hurry() bool {
	if s.hurrier == nil || s.sent == 0 || s.now < s.nextHurry || !s.hurrier.Hurry(s.opts.Start.Add(s.now)) {
		return false
	}
	s.nextHurry = s.now + time.Second
	s.trace.Hurried++
	s.job()
	return true
}

// share reports one share that arrives now.
func (s *simulation) share(d difficulty.Difficulty) (hurried bool) {
	second := &s.trace.Seconds[len(s.trace.Seconds)-1]
	if second.Shares >= s.opts.MaxShareRate {
		s.trace.Lost++
		return false
	}
	s.policy.Observe(s.opts.Start.Add(s.now), d)
	second.Shares++
	second.Work += d
	return s.hurry()
}

// send asks the miner when to send a share that it found now, and does. It reports whether something comes sooner than
// was to be expected.
func (s *simulation) send() bool {
	if s.miner.Send == nil {
		return s.share(s.mining)
	}
	at := s.miner.Send(s.now, s.mining)
	switch {
	case at <= s.now:
		return s.share(s.mining)
	case at == Never:
		s.trace.Withheld++
		return false
	case len(s.held) >= MaxHeld:
		s.trace.Lost++
		return false
	}
	i := len(s.held)
	for i > 0 && s.held[i-1].At > at {
		i--
	}
	s.held = slices.Insert(s.held, i, Point{at, s.mining})
	return i == 0
}

// mine lets the time pass until until, at one hashrate and one difficulty, or until something happened that changes
// what comes next.
func (s *simulation) mine(h float64, until time.Duration) {
	if h == 0 || s.mining == 0 || until == s.now {
		s.now = until
		return
	}
	rate := min(h/(float64(s.mining)*difficulty.HashesPerDifficulty), math.MaxFloat64) // shares per second
	begin := s.now
	at, left := 0.0, (until - begin).Seconds()
	for {
		need := (s.wait - s.done) / rate
		if at+need > left {
			s.done += (left - at) * rate
			s.now = until
			return
		}
		at += need
		if s.found >= s.opts.MaxShareRate {
			// Progress towards a share means nothing for a connection that is full, so the rest is lost at once.
			s.trace.Lost += 1 + (left-at)*rate
			s.drawWait()
			s.now = until
			return
		}
		s.found++
		s.drawWait()
		s.now = begin + time.Duration(math.Round(at*float64(time.Second)))
		if s.send() {
			return
		}
	}
}
