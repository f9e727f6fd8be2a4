package difftest

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/poolkit/poolkit/difficulty"
)

// A Maker returns a new Policy that begins at a difficulty, or near it where its rounding and bounds say so. It is called
// for every session, from many goroutines at once.
type Maker func(start difficulty.Difficulty) difficulty.Policy

// A Scenario is something that happens to a pool, over and over with other chances.
type Scenario struct {
	Name string // short, of lower-case letters and dashes
	Doc  string // one sentence

	// Begins is the hashrate that the difficulty suits which a Policy begins at, in every session.
	Begins difficulty.Hashrate

	// Miner returns the miner of one trial. The same seed gives the same miner.
	Miner func(seed uint64) Miner

	// Options of the simulation; Seed is that of the trial.
	Options Options

	// Change is when the miner's hashrate changes for good, or for long; 0 means that it does not. See [Metric] for what
	// is measured from then on.
	Change time.Duration
}

// Run runs one trial of sc for a Policy that aims at a share every interval.
func (sc *Scenario) Run(newPolicy Maker, interval time.Duration, seed uint64) Trace {
	var s simulation
	sc.run(&s, newPolicy, interval, seed)
	return s.trace
}

func (sc *Scenario) run(s *simulation, newPolicy Maker, interval time.Duration, seed uint64) {
	o := sc.Options
	o.Seed = seed
	start := sc.Begins.Difficulty(interval)
	s.newPolicy = func() difficulty.Policy { return newPolicy(start) }
	var m Miner
	if sc.Miner != nil {
		m = sc.Miner(seed)
	}
	s.run(m, &o)
}

// What the scenarios have in common: blocks and jobs as on mainnet, and a network that is no local one.
const (
	scenarioLatency = 50 * time.Millisecond
	scenarioLag     = time.Second
	blockInterval   = 10 * time.Minute

	ghs difficulty.Hashrate = 1e9
	ths difficulty.Hashrate = 1e12
	phs difficulty.Hashrate = 1e15
	ehs difficulty.Hashrate = 1e18
)

func scene(name, doc string, begins difficulty.Hashrate, length, change time.Duration, miner func(seed uint64) Miner) Scenario {
	return Scenario{
		Name: name, Doc: doc, Begins: begins, Change: change,
		Options: Options{Duration: length, BlockInterval: blockInterval},
		Miner: func(seed uint64) Miner {
			m := miner(seed)
			m.Lag, m.Latency = scenarioLag, scenarioLatency
			return m
		},
	}
}

func always(m Miner) func(uint64) Miner { return func(uint64) Miner { return m } }

func hashing(h func(at time.Duration) difficulty.Hashrate) func(uint64) Miner {
	return always(Miner{Hashrate: h})
}

// Scenarios returns all scenarios. Each is a miner of 1 PH/s where it does not say otherwise, with a latency of 50 ms, a
// second of work in flight, a job every 30 s and at new blocks. The slice is the caller's, and so are its elements: a
// longer Duration is a longer scenario.
func Scenarios() []Scenario {
	flapping := scene("flapping", "The connection breaks about every ten minutes for twenty seconds; sessions begin for 10 TH/s, "+
		"and the pool remembers.", 10*ths, 4*time.Hour, 0, func(seed uint64) Miner {
		m := Steady(phs)
		m.Connected = onAndOff(rand.New(rand.NewPCG(seed, 2)), 10*time.Minute, 20*time.Second)
		return m
	})
	flapping.Options.Keep = true
	return []Scenario{
		scene("steady", "Nothing happens.", phs, 6*time.Hour, 0, always(Steady(phs))),
		scene("cold-start", "A miner of 1 PH/s begins at the difficulty that suits 10 GH/s.",
			10*ghs, 2*time.Hour, 0, always(Steady(phs))),
		scene("cold-start-down", "A miner of 10 GH/s begins at the difficulty that suits 1 PH/s.",
			phs, 2*time.Hour, 0, always(Steady(10*ghs))),
		scene("doubling", "After an hour the hashrate doubles.",
			phs, 3*time.Hour, time.Hour, always(Stepped(phs, time.Hour, 2*phs))),
		scene("halving", "After an hour the hashrate halves.",
			phs, 3*time.Hour, time.Hour, always(Stepped(phs, time.Hour, phs/2))),
		scene("drop", "After a quarter of an hour the hashrate halves, as in the Stratum V2 reference's simulation.",
			phs, 30*time.Minute, 15*time.Minute, always(Stepped(phs, 15*time.Minute, phs/2))),
		scene("drift", "The hashrate swings between half and twice of 1 PH/s once in eight hours.",
			phs, 8*time.Hour, 0, hashing(func(at time.Duration) difficulty.Hashrate {
				return phs * difficulty.Hashrate(math.Exp2(math.Sin(2*math.Pi*at.Hours()/8)))
			})),
		scene("stop-and-return", "The miner stands still from the first to the second hour.",
			phs, 4*time.Hour, 2*time.Hour, hashing(func(at time.Duration) difficulty.Hashrate {
				if at >= time.Hour && at < 2*time.Hour {
					return 0
				}
				return phs
			})),
		scene("throttling", "For five minutes of every thirty the miner is hot and loses 30 % of its hashrate.",
			phs, 4*time.Hour, 0, hashing(func(at time.Duration) difficulty.Hashrate {
				if m := at % (30 * time.Minute); m >= 15*time.Minute && m < 20*time.Minute {
					return 0.7 * phs
				}
				return phs
			})),
		flapping,
		scene("proxy", "A proxy of 1,000 machines of 100 TH/s, in racks of 25, which come and go one by one and by the rack.",
			phs, 12*time.Hour, 0, func(seed uint64) Miner {
				return Miner{Hashrate: farm(rand.New(rand.NewPCG(seed, 2)))}
			}),
		scene("tiny", "A miner of 1 kH/s begins at the difficulty that suits 1 MH/s.",
			1e6, 4*time.Hour, 0, always(Steady(1e3))),
		scene("rented", "A miner of 10 TH/s rents 10 PH/s from the first to the second hour.",
			10*ths, 3*time.Hour, time.Hour, hashing(func(at time.Duration) difficulty.Hashrate {
				if at >= time.Hour && at < 2*time.Hour {
					return 10 * phs
				}
				return 10 * ths
			})),
		scene("withholding", "In the first half of every hour the miner keeps nine of ten shares to itself, to be given an easy "+
			"difficulty for the second half.", phs, 4*time.Hour, 0, func(uint64) Miner {
			m := Steady(phs)
			n := 0
			m.Send = func(at time.Duration, _ difficulty.Difficulty) time.Duration {
				if n++; at%time.Hour < 30*time.Minute && n%10 != 0 {
					return Never
				}
				return at
			}
			return m
		}),
		scene("flooding", "Every ten minutes the miner turns 1 EH/s on the pool for ten seconds.",
			phs, 4*time.Hour, 0, hashing(func(at time.Duration) difficulty.Hashrate {
				if m := at % (10 * time.Minute); m >= 5*time.Minute && m < 5*time.Minute+10*time.Second {
					return ehs
				}
				return phs
			})),
		scene("hoarding", "The miner saves the shares of five minutes and sends them at once.",
			phs, 4*time.Hour, 0, func(uint64) Miner {
				m := Steady(phs)
				m.Send = func(at time.Duration, _ difficulty.Difficulty) time.Duration {
					return at.Truncate(5*time.Minute) + 5*time.Minute
				}
				return m
			}),
		scene("timed", "The miner sends the shares of every thirty seconds in the moment before the next job.",
			phs, 4*time.Hour, 0, func(uint64) Miner {
				m := Steady(phs)
				m.Send = func(at time.Duration, _ difficulty.Difficulty) time.Duration {
					if send := at.Truncate(30*time.Second) + 30*time.Second - time.Millisecond; send > at {
						return send
					}
					return at
				}
				return m
			}),
	}
}

// onAndOff returns whether something is on that begins on and changes by chance.
func onAndOff(rng *rand.Rand, on, off time.Duration) func(at time.Duration) bool {
	draw := func(mean time.Duration) time.Duration { return time.Duration(rng.ExpFloat64() * float64(mean)) }
	state, until := true, draw(on)
	return func(at time.Duration) bool {
		for at >= until {
			if state = !state; state {
				until += draw(on)
			} else {
				until += draw(off)
			}
			until++ // time passes even when the chances say that it does not
		}
		return state
	}
}

// farm returns the hashrate of a proxy's machines: each of 40 racks loses power about twice a day for half an hour, and
// each of its 25 machines is off for a tenth of an hour every two hours on top of that.
func farm(rng *rand.Rand) func(at time.Duration) difficulty.Hashrate {
	const (
		racks, machines = 40, 25
		each            = 100 * ths
	)
	type rack struct {
		power func(time.Duration) bool
		on    [machines]func(time.Duration) bool
	}
	all := make([]rack, racks)
	for i := range all {
		all[i].power = onAndOff(rng, 12*time.Hour, 30*time.Minute)
		for j := range all[i].on {
			all[i].on[j] = onAndOff(rng, 2*time.Hour, 6*time.Minute)
		}
	}
	const step = time.Minute // as often as anybody looks
	last, h := time.Duration(-1), difficulty.Hashrate(0)
	return func(at time.Duration) difficulty.Hashrate {
		if at = at.Truncate(step); at == last {
			return h
		}
		last, h = at, 0
		for i := range all {
			r := &all[i]
			power := r.power(at)
			for j := range r.on {
				if on := r.on[j](at); on && power {
					h += each
				}
			}
		}
		return h
	}
}
