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
