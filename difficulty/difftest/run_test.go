package difftest

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/poolkit/poolkit/difficulty"
)

// perSecond is the hashrate of n shares of difficulty 1 a second.
func perSecond(n float64) difficulty.Hashrate {
	return difficulty.Hashrate(n * difficulty.HashesPerDifficulty)
}

// call is one call of a Policy, at a time since the start.
type call struct {
	at time.Duration
	d  difficulty.Difficulty // 0 for Next
}

// scripted returns one difficulty after the other and records its calls.
type scripted struct {
	next  []difficulty.Difficulty
	calls []call
}

func (s *scripted) Observe(now time.Time, d difficulty.Difficulty) {
	s.calls = append(s.calls, call{now.Sub(defaultStart), d})
}

func (s *scripted) Next(now time.Time) difficulty.Difficulty {
	s.calls = append(s.calls, call{now.Sub(defaultStart), 0})
	d := s.next[0]
	if len(s.next) > 1 {
		s.next = s.next[1:]
	}
	return d
}

func TestRunIdeal(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name  string
		miner Miner
		opts  Options
		next  []difficulty.Difficulty
		want  []call
	}{
		{"evenly spaced shares, each before a job at the same moment", Steady(perSecond(0.5)),
			Options{Duration: 5 * time.Second, JobInterval: 2 * time.Second}, []difficulty.Difficulty{1},
			[]call{{0, 0}, {2000 * ms, 1}, {2000 * ms, 0}, {4000 * ms, 1}, {4000 * ms, 0}}},
		{"progress is kept when the difficulty changes", Steady(perSecond(1. / 8)),
			Options{Duration: 8 * time.Second, JobInterval: 4 * time.Second}, []difficulty.Difficulty{1, 0.5},
			[]call{{0, 0}, {4000 * ms, 0}, {6000 * ms, 0.5}}},
		{"shares keep the old difficulty until the new job has come through", Miner{
			Hashrate: func(time.Duration) difficulty.Hashrate { return perSecond(1) }, Lag: 2500 * ms,
		}, Options{Duration: 10 * time.Second, JobInterval: 4 * time.Second}, []difficulty.Difficulty{1, 2},
			[]call{{0, 0}, {3500 * ms, 1}, {4000 * ms, 0}, {4500 * ms, 1}, {5500 * ms, 1}, {6500 * ms, 1},
				{8000 * ms, 0}, {8500 * ms, 2}}},
		{"several jobs on their way", Miner{
			Hashrate: func(time.Duration) difficulty.Hashrate { return perSecond(1) }, Lag: 2500 * ms,
		}, Options{Duration: 5 * time.Second, JobInterval: time.Second}, []difficulty.Difficulty{1, 0.5, 0.25, 0.125},
			[]call{{0, 0}, {1000 * ms, 0}, {2000 * ms, 0}, {3000 * ms, 0}, {3500 * ms, 1}, {4000 * ms, 0.5}, {4000 * ms, 0},
				{4500 * ms, 0.5}, {4750 * ms, 0.25}, {5000 * ms, 0.25}}},
		{"a hashrate that changes", Stepped(perSecond(1), 2*time.Second, perSecond(4)),
			Options{Duration: 3 * time.Second}, []difficulty.Difficulty{1},
			[]call{{0, 0}, {1000 * ms, 1}, {2000 * ms, 1}, {2250 * ms, 1}, {2500 * ms, 1}, {2750 * ms, 1}, {3000 * ms, 1}}},
		{"what is no hashrate is standing still", Miner{Hashrate: func(at time.Duration) difficulty.Hashrate {
			return []difficulty.Hashrate{
				difficulty.Hashrate(math.NaN()), difficulty.Hashrate(math.Inf(1)), -5, perSecond(1),
			}[at/time.Second]
		}}, Options{Duration: 4 * time.Second}, []difficulty.Difficulty{1}, []call{{0, 0}, {4000 * ms, 1}}},
		{"silence", Miner{}, Options{Duration: 61 * time.Second}, []difficulty.Difficulty{1},
			[]call{{0, 0}, {30 * time.Second, 0}, {60 * time.Second, 0}}},
		{"a last second that is not whole", Steady(perSecond(1)), Options{Duration: 1500 * ms},
			[]difficulty.Difficulty{1}, []call{{0, 0}, {1000 * ms, 1}, {2000 * ms, 1}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.opts.Ideal = true
			p := &scripted{next: c.next}
			Run(p, c.miner, &c.opts)
			require.Equal(t, c.want, p.calls)
		})
	}
}

func TestRunByChance(t *testing.T) {
	run := func(seed uint64) Trace {
		return Run(difficulty.Fixed(1024), Steady(perSecond(1024)), &Options{Duration: 100_000 * time.Second, Seed: seed})
	}
	tr := run(7)
	require.Equal(t, tr, run(7), "the same seed")
	require.NotEqual(t, tr, run(8), "another seed")
	n := float64(tr.Shares(0, tr.Duration()))
	require.InDelta(t, 100_000, n, 5*math.Sqrt(100_000))
	require.EqualValues(t, n*1024, tr.Work(0, tr.Duration()))

	// Poisson: the variance of the number in a second is its mean.
	var sum float64
	for _, s := range tr.Seconds {
		sum += (float64(s.Shares) - 1) * (float64(s.Shares) - 1)
	}
	require.InDelta(t, 1, sum/100_000, 0.05)
}

func TestRunLosesWhatDoesNotGetThrough(t *testing.T) {
	for _, ideal := range []bool{true, false} {
		tr := Run(difficulty.Fixed(1), Steady(perSecond(1e9)), &Options{
			Duration: 10 * time.Second, MaxShareRate: 100, Ideal: ideal,
		})
		require.Equal(t, 1000, tr.Shares(0, time.Minute))
		require.InEpsilon(t, 1e10-1000, tr.Lost, 1e-6)
	}
	// Extremes cost no more.
	for _, d := range []difficulty.Difficulty{5e-324, difficulty.Min, math.MaxFloat64} {
		tr := Run(difficulty.Fixed(d), Steady(math.MaxFloat64), &Options{Duration: time.Minute})
		require.LessOrEqual(t, tr.Shares(0, tr.Duration()), 5000*60)
		require.False(t, math.IsNaN(tr.Lost))
	}
}

func TestRunCountsInvalidDifficulties(t *testing.T) {
	nan := difficulty.Difficulty(math.NaN())
	p := &scripted{next: []difficulty.Difficulty{0, -1, 4, nan, 2}}
	tr := Run(p, Steady(perSecond(4)), &Options{Duration: 5 * time.Second, JobInterval: time.Second, Ideal: true})
	require.Equal(t, 5, tr.Jobs)
	require.Equal(t, 3, tr.Invalid)
	require.Equal(t, []Point{{2 * time.Second, 4}, {4 * time.Second, 2}}, tr.Points)
	require.Equal(t, []Second{{}, {}, {1, 4}, {1, 4}, {2, 4}}, tr.Seconds, "the miner keeps what it had")
}

func TestRunDefaults(t *testing.T) {
	p := &scripted{next: []difficulty.Difficulty{1}}
	tr := Run(p, Miner{}, nil)
	require.Equal(t, 2*time.Hour, tr.Duration())
	require.Equal(t, 240, tr.Jobs)
	require.Equal(t, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), tr.Start)
	tr = Run(p, Miner{Lag: -5}, &Options{Duration: -1, JobInterval: -1, MaxShareRate: -1})
	require.Equal(t, 240, tr.Jobs)
	tr = Run(p, Miner{}, &Options{Duration: time.Second, JobInterval: 1})
	require.Equal(t, 1000, tr.Jobs, "at most one a millisecond")
}

func TestTrace(t *testing.T) {
	tr := Trace{
		Points:  []Point{{0, 16}, {2 * time.Second, 8}, {4 * time.Second, 4}},
		Seconds: []Second{{1, 16}, {2, 32}, {0, 0}, {3, 24}, {4, 16}},
	}
	const s = time.Second
	require.Equal(t, 5*s, tr.Duration())
	require.Equal(t, 10, tr.Shares(0, 5*s))
	require.Equal(t, 5, tr.Shares(s, 4*s))
	require.Equal(t, 10, tr.Shares(-s, time.Hour), "outside is empty")
	require.Equal(t, 0, tr.Shares(4*s, 2*s))
	require.Equal(t, 0, tr.Shares(time.Hour, 2*time.Hour))
	require.EqualValues(t, 56, tr.Work(s, 4*s))
	require.Equal(t, 2.0, tr.ShareRate(0, 5*s))
	require.Zero(t, tr.ShareRate(3*s, 3*s))
	require.Equal(t, s/2, tr.Interval(0, 5*s))
	require.Equal(t, s, tr.Interval(2*s, 3*s), "no share in it")
	require.Zero(t, tr.Interval(3*s, 3*s))
	require.Equal(t, difficulty.HashrateOf(88, 5*s), tr.Hashrate(0, 5*s))
	require.Zero(t, tr.Hashrate(3*s, 3*s))
	require.EqualValues(t, 0, tr.DifficultyAt(-1))
	require.EqualValues(t, 16, tr.DifficultyAt(2*s-1))
	require.EqualValues(t, 8, tr.DifficultyAt(2*s))
	require.EqualValues(t, 4, tr.DifficultyAt(time.Hour))
	require.Equal(t, tr.Points[1:], tr.Changes(0, time.Hour), "the first is no change")
	require.Equal(t, tr.Points[1:2], tr.Changes(2*s, 4*s))
	require.Equal(t, 4*s, tr.LastChange())

	var empty Trace
	require.Zero(t, empty.LastChange())
	require.Zero(t, empty.Shares(0, time.Hour))
	require.Zero(t, empty.DifficultyAt(0))
}

// hasty is a scripted policy that wants a job at given times.
type hasty struct {
	scripted
	from, to time.Duration // every moment of this wants one
	asked    []time.Duration
}

func (h *hasty) Hurry(now time.Time) bool {
	at := now.Sub(defaultStart)
	h.asked = append(h.asked, at)
	return at >= h.from && at < h.to
}

func TestRunHurries(t *testing.T) {
	const ms, s = time.Millisecond, time.Second
	opts := &Options{Duration: 5 * s, Ideal: true}
	p := &hasty{scripted: scripted{next: []difficulty.Difficulty{1, 2, 4}}, from: 700 * ms, to: 3 * s}
	tr := Run(p, Steady(perSecond(2)), opts)
	require.Equal(t, []call{
		{0, 0},
		{500 * ms, 1}, {1000 * ms, 1}, {1000 * ms, 0}, // after a share, at once, and mined at from then on
		{2000 * ms, 2}, {2000 * ms, 0}, // a second later at the earliest
		{4000 * ms, 4},
	}, p.calls)
	require.Equal(t, []time.Duration{500 * ms, s, 2 * s, 3 * s, 4 * s, 4 * s}, p.asked,
		"at shares and at whole seconds, but not within a second of the last")
	require.Equal(t, []Point{{0, 1}, {s, 2}, {2 * s, 4}}, tr.Points)
	require.Equal(t, 3, tr.Jobs)
	require.Equal(t, 2, tr.Hurried)

	// Once a second when there is no share; not in the moment in which a job is due.
	p = &hasty{scripted: scripted{next: []difficulty.Difficulty{8, 4}}, from: 2 * s, to: 3 * s}
	tr = Run(p, Miner{}, &Options{Duration: 5 * s, JobInterval: 4 * s})
	require.Equal(t, []time.Duration{s, 2 * s, 3 * s}, p.asked)
	require.Equal(t, []Point{{0, 8}, {2 * s, 4}}, tr.Points)

	p = &hasty{scripted: scripted{next: []difficulty.Difficulty{1}}, to: time.Hour}
	tr = Run(p, Steady(perSecond(2)), &Options{Duration: 5 * s, NoHurry: true})
	require.Empty(t, p.asked)
	require.Equal(t, 1, tr.Jobs)

	// Work on its way when the job comes is still of the old difficulty, and a wrapped Hurrier is one.
	p = &hasty{scripted: scripted{next: []difficulty.Difficulty{1, 2}}, from: 2 * s, to: 2*s + 1}
	bounded, err := difficulty.Clamp(p, 1, 64)
	require.NoError(t, err)
	m := Steady(perSecond(1))
	m.Lag = 500 * ms
	Run(bounded, m, opts)
	require.Equal(t, []call{
		{0, 0}, {1500 * ms, 1}, {2000 * ms, 0}, {2500 * ms, 1}, {4500 * ms, 2},
	}, p.calls)
}

// What cuts the time into pieces, and changes the difficulty in between, leaves the chances alone.
func TestRunByChanceWithEverything(t *testing.T) {
	const n = 100_000
	m := Steady(perSecond(2))
	m.Latency, m.Lag = 100*time.Millisecond, 300*time.Millisecond
	m.Send = func(at time.Duration, _ difficulty.Difficulty) time.Duration { return at + 10*time.Millisecond }
	p := &hasty{scripted: scripted{next: []difficulty.Difficulty{1}}, to: n * time.Second}
	doubts := 0
	tr := Run(p, m, &Options{
		Duration: n * time.Second, JobInterval: 700 * time.Millisecond, BlockInterval: 3 * time.Second,
		Assign: func(difficulty.Difficulty) difficulty.Difficulty {
			doubts++
			return difficulty.Difficulty(1 + doubts%2)
		},
	})
	work := float64(tr.Work(0, n*time.Second))
	require.InDelta(t, 2*n, work, 5*math.Sqrt(2*2*n), "work is hashrate times time")
	require.Greater(t, tr.Hurried, n/2)
	require.Greater(t, tr.Blocks, n/4)

	// The waits at one difficulty: their mean is a share's, and their variance its square.
	m.Send = nil
	var last time.Time
	var waits []float64
	Run(observer{p, func(now time.Time) {
		waits = append(waits, now.Sub(last).Seconds())
		last = now
	}}, m, &Options{Duration: n * time.Second, JobInterval: 700 * time.Millisecond})
	waits = waits[1:]
	var sum, squares float64
	for _, w := range waits {
		sum += w
		squares += w * w
	}
	mean := sum / float64(len(waits))
	require.InDelta(t, 0.5, mean, 0.005)
	require.InDelta(t, 0.25, squares/float64(len(waits))-mean*mean, 0.01)
}

// observer tells when shares come, and hurries if the policy does.
type observer struct {
	difficulty.Policy
	share func(now time.Time)
}

func (o observer) Unwrap() difficulty.Policy { return o.Policy }
func (o observer) Observe(now time.Time, d difficulty.Difficulty) {
	o.share(now)
	o.Policy.Observe(now, d)
}

func TestRunHurriesInAFlood(t *testing.T) {
	p := &hasty{scripted: scripted{next: []difficulty.Difficulty{1}}, to: time.Hour}
	tr := Run(p, Steady(perSecond(1e6)), &Options{Duration: 10 * time.Second})
	require.Equal(t, 10, tr.Hurried, "one a second")
	require.Equal(t, 50_000, tr.Shares(0, 10*time.Second))
}

func TestRunBlocks(t *testing.T) {
	const mean, days = 10 * time.Minute, 30
	opts := &Options{Duration: days * 24 * time.Hour, JobInterval: time.Hour, BlockInterval: mean, Seed: 3}
	p := &scripted{next: []difficulty.Difficulty{1}}
	tr := Run(p, Miner{}, opts)
	want := float64(days * 24 * 6)
	require.InDelta(t, want, tr.Blocks, 4*math.Sqrt(want))
	require.Equal(t, days*24+tr.Blocks, tr.Jobs)
	require.Len(t, p.calls, tr.Jobs)

	// They are exponentially distributed: the standard deviation is the mean.
	var gaps []float64
	var last time.Duration
	for _, c := range p.calls {
		if c.at%time.Hour != 0 {
			gaps = append(gaps, float64(c.at-last)/float64(mean))
			last = c.at
		}
	}
	var sum, squares float64
	for _, g := range gaps {
		sum += g
		squares += g * g
	}
	n := float64(len(gaps))
	require.InDelta(t, 1, sum/n, 0.06)
	require.InDelta(t, 1, squares/n-sum/n*sum/n, 0.12)

	// The miner changes nothing about the blocks, and they change nothing about the shares.
	opts.Duration = 24 * time.Hour
	with := Run(difficulty.Fixed(1), Steady(perSecond(0.1)), opts)
	opts.BlockInterval = 0
	without := Run(difficulty.Fixed(1), Steady(perSecond(0.1)), opts)
	// Cutting a wait in two rounds it.
	require.InDelta(t, with.Shares(0, with.Duration()), without.Shares(0, without.Duration()), 1)
	require.Zero(t, without.Blocks)
	opts.BlockInterval = time.Duration(math.MaxInt64)
	require.LessOrEqual(t, Run(difficulty.Fixed(1), Miner{}, opts).Blocks, 1)
	opts.Duration, opts.BlockInterval = 1000*time.Second, 1
	require.InDelta(t, 1000, Run(difficulty.Fixed(1), Miner{}, opts).Blocks, 150, "at most one a second")
}

func TestRunAssigns(t *testing.T) {
	p := &scripted{next: []difficulty.Difficulty{3, 5, difficulty.Difficulty(math.NaN()), 100}}
	tr := Run(p, Steady(perSecond(8)), &Options{
		Duration: 4 * time.Second, JobInterval: time.Second, Ideal: true,
		Assign: func(d difficulty.Difficulty) difficulty.Difficulty {
			if d == 100 {
				return -1
			}
			return d.CeilPow2()
		},
	})
	require.Equal(t, []Point{{0, 4}, {time.Second, 8}}, tr.Points)
	require.Equal(t, 2, tr.Invalid)
	require.EqualValues(t, 32, tr.Work(0, 4*time.Second))
	require.EqualValues(t, 8, p.calls[len(p.calls)-1].d, "the policy is told what the miner had")
}

func TestRunLatency(t *testing.T) {
	const ms, s = time.Millisecond, time.Second
	m := Stepped(perSecond(1), 2*s, perSecond(4))
	m.Latency, m.Lag = 400*ms, 200*ms
	p := &scripted{next: []difficulty.Difficulty{1, 2}}
	tr := Run(p, m, &Options{Duration: 6 * s, JobInterval: 4 * s, Ideal: true})
	// The first job is there and back after a second, and so is the second job. The hashrate is known with the second
	// that begins at 3 s, because it is asked for once a second.
	require.Equal(t, []call{
		{0, 0}, {2000 * ms, 1}, {3000 * ms, 1}, {3250 * ms, 1}, {3500 * ms, 1}, {3750 * ms, 1}, {4000 * ms, 1}, {4000 * ms, 0},
		{4250 * ms, 1}, {4500 * ms, 1}, {4750 * ms, 1}, {5000 * ms, 1}, {5500 * ms, 2}, {6000 * ms, 2},
	}, p.calls)
	require.Equal(t, []difficulty.Hashrate{
		perSecond(1), perSecond(1), perSecond(1), perSecond(4), perSecond(4), perSecond(4),
	}, tr.Truth)
	m.Latency, m.Lag = -5, -5
	tr = Run(difficulty.Fixed(1), m, &Options{Duration: 3 * s, Ideal: true})
	require.Equal(t, 6, tr.Shares(0, 3*s))
}

// remembering is a scripted Keeper.
type remembering struct {
	scripted
	state    difficulty.State
	restored []difficulty.State
}

func (r *remembering) State(now time.Time) difficulty.State {
	r.state.At = now
	return r.state
}
func (r *remembering) Restore(_ time.Time, s difficulty.State) { r.restored = append(r.restored, s) }

func TestRunSessions(t *testing.T) {
	const s = time.Second
	m := Steady(perSecond(1))
	m.Connected = func(at time.Duration) bool { return at >= s && at < 4*s || at >= 6*s && at < 8*s }
	var made []*remembering
	run := func(keep bool, state difficulty.State) Trace {
		made = nil
		return RunSessions(func() difficulty.Policy {
			made = append(made, &remembering{
				scripted: scripted{next: []difficulty.Difficulty{2, 1}}, state: state,
			})
			return made[len(made)-1]
		}, m, &Options{Duration: 10 * s, JobInterval: 3 * s, Ideal: true, Keep: keep})
	}
	tr := run(false, difficulty.State{Difficulty: 7})
	require.Len(t, made, 2)
	// A job comes with the connection, and when one is due, and none while it is broken.
	require.Equal(t, []call{{1 * s, 0}, {3 * s, 2}, {3 * s, 0}, {4 * s, 1}}, made[0].calls)
	require.Equal(t, []call{{6 * s, 0}, {8 * s, 2}}, made[1].calls, "at 6 s there is one job, not two")
	require.Equal(t, []Point{{s, 2}, {3 * s, 1}, {6 * s, 2}}, tr.Points)
	require.Equal(t, 2, tr.Sessions)
	require.Equal(t, 3, tr.Jobs)
	h := perSecond(1)
	require.Equal(t, []difficulty.Hashrate{0, h, h, h, 0, 0, h, h, 0, 0}, tr.Truth)
	require.Empty(t, made[1].restored)

	run(true, difficulty.State{Difficulty: 7})
	require.Empty(t, made[0].restored)
	require.Equal(t, []difficulty.State{{At: defaultStart.Add(4 * s), Difficulty: 7}}, made[1].restored)
	run(true, difficulty.State{})
	require.Empty(t, made[1].restored, "nothing was known")

	// One policy goes on, and is told a difficulty again that it was sent in another session.
	p := &scripted{next: []difficulty.Difficulty{1}}
	tr = Run(p, m, &Options{Duration: 10 * s, JobInterval: 3 * s, Ideal: true})
	require.Equal(t, []call{
		{1 * s, 0}, {2 * s, 1}, {3 * s, 1}, {3 * s, 0}, {4 * s, 1}, {6 * s, 0}, {7 * s, 1}, {8 * s, 1},
	}, p.calls)
	require.Equal(t, []Point{{s, 1}}, tr.Points)

	// Jobs that were on their way are lost with the connection.
	m.Lag = 2500 * time.Millisecond
	p = &scripted{next: []difficulty.Difficulty{1}}
	Run(p, m, &Options{Duration: 10 * s, JobInterval: 3 * s, Ideal: true})
	require.Equal(t, []call{{1 * s, 0}, {3 * s, 0}, {6 * s, 0}}, p.calls, "half a second of work, and none in the second session")

	tr = RunSessions(func() difficulty.Policy { return nil }, m, nil)
	require.Equal(t, tr.Jobs, tr.Invalid)
	require.Positive(t, tr.Jobs)
}

func TestRunLetsTheMinerChoose(t *testing.T) {
	const ms, s = time.Millisecond, time.Second
	run := func(opts Options, send func(at time.Duration, d difficulty.Difficulty) time.Duration) ([]call, Trace) {
		m := Steady(perSecond(2))
		m.Send = send
		p := &scripted{next: []difficulty.Difficulty{1, 2, 4, 8}}
		opts.Ideal = true
		tr := Run(p, m, &opts)
		return p.calls, tr
	}
	n := 0
	calls, tr := run(Options{Duration: 2 * s}, func(time.Duration, difficulty.Difficulty) time.Duration {
		if n++; n%2 == 0 {
			return Never
		}
		return 0
	})
	require.Equal(t, []call{{0, 0}, {500 * ms, 1}, {1500 * ms, 1}}, calls)
	require.Equal(t, 2, tr.Withheld)

	calls, _ = run(Options{Duration: 3 * s, JobInterval: 2 * s}, func(at time.Duration, d difficulty.Difficulty) time.Duration {
		require.Equal(t, at > 2*s, d == 2, "asked at %v about %v", at, d)
		return 2200 * ms
	})
	require.Equal(t, []call{{0, 0}, {2000 * ms, 0}, {2200 * ms, 1}, {2200 * ms, 1}, {2200 * ms, 1}, {2200 * ms, 1}}, calls[:6],
		"shares keep the difficulty that they were found at")

	// The last one found is the first one sent, also before the second is over in which it was found.
	calls, _ = run(Options{Duration: 3 * s}, func(at time.Duration, _ difficulty.Difficulty) time.Duration {
		switch at {
		case 500 * ms:
			return 1700 * ms
		case 1000 * ms:
			return 1200 * ms
		}
		return at
	})
	require.Equal(t, []call{{0, 0}, {1200 * ms, 1}, {1500 * ms, 1}, {1700 * ms, 1}, {2000 * ms, 1}, {2500 * ms, 1}, {3000 * ms, 1}}, calls)

	// A burst gets through as far as the connection carries it.
	_, tr = run(Options{Duration: 20 * s, MaxShareRate: 5}, func(time.Duration, difficulty.Difficulty) time.Duration {
		return 10*s + 1
	})
	require.Equal(t, 5, tr.Seconds[10].Shares)
	require.EqualValues(t, 15+2, tr.Lost, "of 20, and the two of the second that was full")
	require.Equal(t, 2, tr.Seconds[11].Shares)

	m := Steady(perSecond(20_000))
	m.Send = func(at time.Duration, _ difficulty.Difficulty) time.Duration { return at + time.Hour }
	tr = Run(difficulty.Fixed(1), m, &Options{Duration: 20 * s, MaxShareRate: 20_000, Ideal: true})
	require.InDelta(t, 20*20_000-MaxHeld, tr.Lost, 1)
	require.Zero(t, tr.Shares(0, 20*s))
}

func TestScenariosRepeat(t *testing.T) {
	names := map[string]bool{}
	for _, sc := range Scenarios() {
		require.NotEmpty(t, sc.Doc)
		require.False(t, names[sc.Name], sc.Name)
		names[sc.Name] = true
		require.Positive(t, sc.Begins)
		require.Less(t, sc.Change, sc.Options.Duration)
		a := sc.Run(newVardiff, 10*time.Second, 1)
		require.Equal(t, a, sc.Run(newVardiff, 10*time.Second, 1), sc.Name)
		require.NotEqual(t, a.Seconds, func() []Second { tr := sc.Run(newVardiff, 10*time.Second, 2); return tr.Seconds }(), sc.Name)
		require.Zero(t, a.Invalid)
	}
	require.Len(t, names, 17)
}

func BenchmarkRun(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		p, err := difficulty.NewVardiff(nil)
		if err != nil {
			b.Fatal(err)
		}
		Run(p, Steady(14e12), nil)
	}
}
