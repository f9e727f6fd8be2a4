package difficulty_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/difficulty/difftest"
)

func newDecaying(t testing.TB, opts *difficulty.DecayingOptions) *difficulty.Decaying {
	t.Helper()
	p, err := difficulty.NewDecaying(opts)
	require.NoError(t, err)
	return p
}

// observe reports n shares of difficulty d, one every interval, the first an interval after from, and returns the time of
// the last.
func observe(p difficulty.Policy, from time.Time, n int, every time.Duration, d difficulty.Difficulty) time.Time {
	for range n {
		from = from.Add(every)
		p.Observe(from, d)
	}
	return from
}

func TestDecayingFirstDecision(t *testing.T) {
	// With a share of 42 every second, each goes the part q = p/(1+p) of the way from the average to 42, where
	// p = 1-exp(-1/300) = 0.0033278. The first is worth 42*(1-exp(-0.001/300))/0.001 = 0.14. After 71 more the average
	// is 42 - (42-0.14)/1.0033278^71 = 42 - 41.86*0.78987 = 8.9361. It is divided by 1-exp(-71/300) = 0.210748, which
	// gives 42.402, and 3.33 times that is 141.2.
	p := newDecaying(t, nil)
	require.Equal(t, difficulty.Difficulty(42), p.Next(noon))
	now := observe(p, noon, 71, time.Second, 42)
	require.Equal(t, difficulty.Difficulty(42), p.Next(now), "71 shares in 70 s")
	now = observe(p, now, 1, time.Second, 42)
	require.Equal(t, difficulty.Difficulty(141), p.Next(now))

	// Shares that were on their way are of the old difficulty. 72 of them restart the count, which does not decide.
	now = observe(p, now, 72, time.Second, 42)
	require.Equal(t, difficulty.Difficulty(141), p.Next(now))
	now = observe(p, now, 71, time.Second, 141) // three times as much as should come
	require.Equal(t, difficulty.Difficulty(141), p.Next(now), "they do not count")
	now = observe(p, now, 1, time.Second, 141)
	require.Greater(t, p.Next(now), difficulty.Difficulty(141))
}

func TestDecayingDecidesAfter240Seconds(t *testing.T) {
	// A share every 20 s is 6 times too slow. The first is at 20 s, from where 240 s are counted, so the one at 240 s
	// does not decide and the one at 260 s does. The difficulty is a power of ten for the eye only.
	p := newDecaying(t, &difficulty.DecayingOptions{Start: 1000})
	now := observe(p, noon, 12, 20*time.Second, 1000)
	require.Equal(t, difficulty.Difficulty(1000), p.Next(now))
	now = observe(p, now, 1, 20*time.Second, 1000)
	// p = 1-exp(-20/300) = 0.0644930; the first share was worth 1000/300 = 3.3333, and 12 more go towards 50:
	// 50 - 46.6667/1.064493^12 = 50 - 46.6667*0.472346 = 27.957. Divided by 1-exp(-240/300) = 0.550671: 50.769 a second,
	// which is 0.0508 of 1000, and 3.33 times that is 169.06.
	require.Equal(t, difficulty.Difficulty(169), p.Next(now))
	require.Equal(t, difficulty.Difficulty(169), p.Next(now.Add(48*time.Hour)), "silence lowers nothing")
}

func TestDecayingBand(t *testing.T) {
	// One share every interval for half an hour: the average is then within half a percent of 1000/interval.
	for _, c := range []struct {
		every time.Duration
		want  difficulty.Difficulty
	}{
		{2450 * time.Millisecond, 0}, // 0.408
		{2550 * time.Millisecond, 1000},
		{3333 * time.Millisecond, 1000},
		{6600 * time.Millisecond, 1000}, // 0.1515
		{6800 * time.Millisecond, 0},
	} {
		p := newDecaying(t, &difficulty.DecayingOptions{Start: 1000})
		now := noon
		for now.Before(noon.Add(30*time.Minute)) && p.Next(now) == 1000 {
			now = observe(p, now, 1, c.every, 1000)
		}
		if c.want == 0 {
			require.NotEqual(t, difficulty.Difficulty(1000), p.Next(now), "a share every %v", c.every)
			require.InEpsilon(t, 1000*3.33/c.every.Seconds(), float64(p.Next(now)), 0.03)
		} else {
			require.Equal(t, c.want, p.Next(now), "a share every %v", c.every)
		}
	}
}

func TestDecayingFirstShareAfterAChange(t *testing.T) {
	p := newDecaying(t, nil)
	now := observe(p, noon, 72, time.Second, 42)
	require.Equal(t, difficulty.Difficulty(141), p.Next(now))
	// The miner was away for an hour. Its first share says so little that the difficulty would fall; it starts 240 s
	// instead, and only what comes after them decides.
	now = observe(p, now, 1, time.Hour, 141)
	require.Equal(t, difficulty.Difficulty(141), p.Next(now))
	now = observe(p, now, 1, 239*time.Second, 141)
	require.Equal(t, difficulty.Difficulty(141), p.Next(now))
	now = observe(p, now, 1, time.Second, 141)
	require.Less(t, p.Next(now), difficulty.Difficulty(20))
}

func TestDecayingScalesWithTheInterval(t *testing.T) {
	// The same shares three times as slow make the same decisions three times as late, of the same difficulty.
	p := newDecaying(t, &difficulty.DecayingOptions{Start: 1000, Interval: 3330 * time.Millisecond})
	q := newDecaying(t, &difficulty.DecayingOptions{Start: 1000, Interval: 9990 * time.Millisecond})
	rng := rand.New(rand.NewPCG(1, 1))
	var changes int
	a, b, last := noon, noon, difficulty.Difficulty(1000)
	for i := range 3000 {
		wait := time.Duration(rng.ExpFloat64() * float64(time.Second) * math.Pow(2, float64(i/500%3)))
		a, b = a.Add(wait), b.Add(3*wait)
		p.Observe(a, last)
		q.Observe(b, last)
		require.InEpsilon(t, float64(p.Next(a)), float64(q.Next(b)), 1e-3, "share %d", i)
		if d := p.Next(a); d != last {
			last = d
			changes++
			q.Reset(d) // rounding must not pile up
			p.Reset(d)
		}
	}
	require.Greater(t, changes, 3)
}

func TestDecayingUnderABound(t *testing.T) {
	// The caller gives no less than 64, which the policy never asked for.
	p := newDecaying(t, nil)
	now := observe(p, noon, 1000, 100*time.Millisecond, 64)
	require.Equal(t, difficulty.Difficulty(42), p.Next(now), "it may still be on its way")
	now = observe(p, now, 2000, 100*time.Millisecond, 64)
	require.InEpsilon(t, 64*33.3, float64(p.Next(now)), 0.1)
}

// decayingReference is ckpool's algorithm as it is published, in seconds since the miner came.
type decayingReference struct {
	diff, dsps, last, first, ldc float64
	ssdc                         int
	begun                        bool
}

func (r *decayingReference) decay(add, secs float64) {
	prop := 1 - 1/math.Exp(min(secs/300, 36))
	r.dsps = (r.dsps + add/secs*prop) / (1 + prop)
	if r.dsps < 2e-16 {
		r.dsps = 0
	}
}

func (r *decayingReference) share(now, d float64) {
	if !r.begun {
		r.begun = true
		r.first, r.ldc, r.last = now, now, now
	}
	for now-r.last > 60 {
		r.decay(0, 60)
		r.last += 60
	}
	r.decay(d, max(now-r.last, 0.001))
	r.last = now
	r.ssdc++
	if r.ssdc < 72 && now-r.ldc < 240 {
		return
	}
	if d != r.diff {
		r.ssdc = 0
		return
	}
	dsps := r.dsps / (1 - 1/math.Exp(min(max(now-r.first, 0.001)/300, 36)))
	drr := dsps / r.diff
	if drr > 0.15 && drr < 0.4 {
		return
	}
	optimal := max(math.Round(dsps*3.33), 1)
	if optimal == r.diff {
		return
	}
	if optimal < r.diff && r.ssdc == 1 {
		r.ldc = now
		return
	}
	r.ssdc, r.ldc, r.diff = 0, now, optimal
}

func TestDecayingAgreesWithTheReference(t *testing.T) {
	var changes int
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 9))
		p := newDecaying(t, nil)
		r := decayingReference{diff: 42}
		work := math.Exp(rng.Float64()*8) * 5 // difficulty per second
		now, has, got := 0.0, 42.0, 0.0       // when the present difficulty arrived
		for i := range 3000 {
			if rng.IntN(300) == 0 {
				work *= math.Exp(rng.NormFloat64() * 1.5)
				if rng.IntN(4) == 0 {
					now += float64(rng.IntN(3000))
				}
			}
			now += math.Round(rng.ExpFloat64()*has/work*1000+1) / 1000
			if r.diff != has && now >= got {
				has, got = r.diff, 0
				changes++
			}
			at := noon.Add(time.Duration(math.Round(now*1000)) * time.Millisecond)
			r.share(now, has)
			p.Observe(at, difficulty.Difficulty(has))
			require.InDelta(t, r.diff, float64(p.Next(at)), 1e-9, "seed %d, share %d", seed, i)
			if r.diff != has && got == 0 {
				got = now + 10*rng.Float64()
			}
		}
	}
	require.Greater(t, changes, 200)
}

func TestDecayingConforms(t *testing.T) {
	// A flood takes the difficulty to Max, where silence leaves it: Max has to be near what the largest miner needs.
	difftest.TestPolicyWith(t, func() difficulty.Policy {
		return newDecaying(t, &difficulty.DecayingOptions{Max: 1 << 21})
	}, &difftest.Expect{Fastest: 1e15, Settle: 2 * time.Hour, MaxInterval: 8 * time.Second})
}

func ExampleDecaying() {
	p, err := difficulty.NewDecaying(&difficulty.DecayingOptions{Interval: 10 * time.Second})
	if err != nil {
		fmt.Println(err)
		return
	}
	tr := difftest.Run(p, difftest.Steady(100e12), &difftest.Options{Ideal: true})
	for _, pt := range tr.Points {
		fmt.Println(pt.At, pt.Difficulty)
	}
	fmt.Println("in the second hour, a share every", tr.Interval(time.Hour, 2*time.Hour).Round(100*time.Millisecond))
	// Output:
	// 0s 42
	// 30s 236109
	// in the second hour, a share every 10.1s
}
