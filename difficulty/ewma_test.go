package difficulty_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/difficulty/difftest"
)

func newLadder(t testing.TB, opts *difficulty.LadderOptions) *difficulty.Ladder {
	t.Helper()
	p, err := difficulty.NewLadder(opts)
	require.NoError(t, err)
	return p
}

func newEWMA(t testing.TB, opts *difficulty.EWMAOptions) *difficulty.EWMA {
	t.Helper()
	p, err := difficulty.NewEWMA(opts)
	require.NoError(t, err)
	return p
}

// A minute is what a miner sends in one, and what it should get at its end.
type minute struct {
	shares int
	want   difficulty.Difficulty
}

// playMinutes sends the shares of each minute at the difficulty of its beginning.
func playMinutes(t *testing.T, p difficulty.Policy, minutes []minute) {
	t.Helper()
	d := p.Next(noon)
	for i, m := range minutes {
		now := noon.Add(time.Duration(i) * time.Minute)
		for range m.shares {
			p.Observe(now.Add(10*time.Second), d)
		}
		for _, between := range []time.Duration{0, 30 * time.Second, time.Minute - 1} {
			require.Equal(t, d, p.Next(now.Add(between)), "%v into minute %d", between, i+1)
		}
		d = p.Next(now.Add(time.Minute))
		require.Equal(t, m.want, d, "after minute %d", i+1)
	}
}

func TestLadderRungs(t *testing.T) {
	// 6 shares a minute are aimed at, of difficulty 1000.
	for _, c := range []struct {
		name    string
		minutes []minute
	}{
		{"as it should be", []minute{{6, 1000}, {6, 1000}, {6, 1000}, {6, 1000}, {6, 1000}, {6, 1000}}},
		{"60 % counts after a minute", []minute{{10, 1667}}},                    // 67 % more
		{"50 % does not, but after two", []minute{{9, 1000}, {9, 1500}}},        // 18 for 12
		{"49 % does not even then", []minute{{9, 1000}, {8, 1000}}},             // 17 for 12: 42 %
		{"45 % counts after three", []minute{{9, 1000}, {8, 1000}, {10, 1500}}}, // 27 for 18: 50 %
		{"44 % does not", []minute{{9, 1000}, {8, 1000}, {8, 1000}}},            // 25 for 18: 39 %
		{"30 % counts after four", []minute{{8, 1000}, {8, 1000}, {8, 1000}, {8, 1333}}},
		{"29 % does not", []minute{{8, 1000}, {8, 1000}, {8, 1000}, {7, 1000}}},                     // 31 for 24: 29.2 %
		{"20 % counts after five", []minute{{7, 1000}, {7, 1000}, {7, 1000}, {7, 1000}, {8, 1200}}}, // 36 for 30
		{"15 % exactly, after ten", []minute{ // 69 for 60
			{7, 1000}, {7, 1000}, {7, 1000}, {7, 1000}, {6, 1000}, {7, 1000}, {7, 1000}, {7, 1000}, {6, 1000}, {8, 1150},
		}},
		{"60 % less after a minute", []minute{{2, 333}}},
		{"50 % less after two", []minute{{3, 1000}, {3, 500}}},
		{"the count starts again with a change", []minute{{10, 1667}, {6, 1667}, {6, 1667}, {6, 1667}, {6, 1667}}},
		{"1000 % is taken as it is", []minute{{66, 11000}}},
		{"more than that is three times", []minute{{67, 3000}, {67, 9000}}},
		{"silence divides by three", []minute{{0, 333}, {0, 111}, {0, 37}, {0, 12}, {0, 4}, {0, 1}, {0, 1}, {0, 1}}},
		{"what was rounded away is not lost", []minute{{0, 333}, {18, 1000}}}, // 333 * 3 = 999, and 333.3 were aimed at
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "what was rounded away is not lost" {
				c.minutes[1].want = 999 // of shares that were worth 333
			}
			playMinutes(t, newLadder(t, &difficulty.LadderOptions{Start: 1000}), c.minutes)
		})
	}
	t.Run("12 shares a minute when a share is wanted every 5 s", func(t *testing.T) {
		playMinutes(t, newLadder(t, &difficulty.LadderOptions{Start: 1000, Interval: 5 * time.Second}),
			[]minute{{12, 1000}, {20, 1000}, {22, 1500}}) // 54 for 36
	})
	t.Run("rounded to a grid", func(t *testing.T) {
		playMinutes(t, newLadder(t, &difficulty.LadderOptions{Start: 1024, Grid: difficulty.PowersOfTwo}),
			[]minute{{10, 2048}, {0, 512}, {0, 256}}) // 1707, 569, 190
	})
}

func TestLadderSoonAfterAChange(t *testing.T) {
	// A look comes at the first Next of a minute, so that dt is less than one after a late change.
	for _, c := range []struct {
		name   string
		change time.Duration // after the start, in the second minute
		shares int
		want   difficulty.Difficulty
	}{
		{"15 s: nothing", 105 * time.Second, 0, 900},
		{"16 s, silent: 2/3", 104 * time.Second, 0, 600},
		{"30 s, silent: 2/3", 90 * time.Second, 0, 600},
		{"31 s, silent: half", 89 * time.Second, 0, 450},
		{"59 s, silent: half", 61 * time.Second, 0, 450},
		{"60 s, silent: a third", 60 * time.Second, 0, 300},
		{"30 s, 99 % too many", 90 * time.Second, 5, 900}, // 67 %
		{"30 s, 100 % too many", 90 * time.Second, 6, 1800},
		{"30 s, 1000 % too many", 90 * time.Second, 33, 9900},
		{"30 s, more than that", 90 * time.Second, 34, 9000},
		{"40 s, more than that", 80 * time.Second, 45, 4500}, // 1025 %
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newLadder(t, &difficulty.LadderOptions{Start: 2700})
			p.Next(noon)
			now := noon.Add(c.change)
			require.Equal(t, difficulty.Difficulty(900), p.Next(now))
			for range c.shares {
				p.Observe(now.Add(time.Second), 900)
			}
			require.Equal(t, difficulty.Difficulty(900), p.Next(noon.Add(2*time.Minute-1)))
			require.Equal(t, c.want, p.Next(noon.Add(2*time.Minute)))
		})
	}
}

func TestLadderClock(t *testing.T) {
	// Minutes are counted from the first call, be it a share, and begin again with Reset.
	p := newLadder(t, &difficulty.LadderOptions{Start: 900})
	p.Observe(noon.Add(10*time.Second), 900)
	require.Equal(t, difficulty.Difficulty(900), p.Next(noon.Add(70*time.Second-1)))
	require.Equal(t, difficulty.Difficulty(150), p.Next(noon.Add(70*time.Second))) // one where six should be
	p.Reset(900)
	require.Equal(t, difficulty.Difficulty(900), p.Next(noon.Add(100*time.Second)))
	require.Equal(t, difficulty.Difficulty(900), p.Next(noon.Add(160*time.Second-1)))
	require.Equal(t, difficulty.Difficulty(300), p.Next(noon.Add(160*time.Second)))
	// Minutes in which nobody asked are one look.
	require.Equal(t, difficulty.Difficulty(100), p.Next(noon.Add(2000*time.Second)))
	require.Equal(t, difficulty.Difficulty(100), p.Next(noon.Add(2000*time.Second)))
}

func TestLadderConforms(t *testing.T) {
	// At its default of 6 shares a minute it acts on chance so often, and so far, that it fails ResetGoesOn: miners are
	// given an eighth of what suits them within minutes. With 24 it passes.
	difftest.TestPolicyWith(t, func() difficulty.Policy {
		return newLadder(t, &difficulty.LadderOptions{Interval: 2500 * time.Millisecond})
	}, &difftest.Expect{MaxInterval: 4 * time.Second, MaxChanges: 12})
}

func TestEWMASteps(t *testing.T) {
	for _, c := range []struct {
		name    string
		opts    difficulty.EWMAOptions
		minutes []minute
	}{
		// The estimate is 0, which is 100 % off. At 1 minute 1.5*sqrt(6/30)+0.05 = 72 % are needed, and less from then
		// on, so that every look makes a step: 20 % of the way, 25 %, and so on to 60 %.
		{"silence", difficulty.EWMAOptions{Start: 1000}, []minute{
			{0, 800}, {0, 600}, {0, 420}, {0, 273}, {0, 164}, {0, 90}, {0, 45}, {0, 20}, {0, 8}, {0, 3}, {0, 1}, {0, 1},
		}},
		// Twice the rate is an estimate of 2000. To raise, after n minutes and looks, it takes
		// 8*(0.6708/n+0.05)*(1-0.06*(n-1)): 577, 290, 193, 143, 112 and 91 %. Then 20 % of the way.
		// From 1200 the estimate is 67 % up, it takes 369, 179, 114, 80 and 59 %, and the step is 25 % of 800.
		{"twice as fast", difficulty.EWMAOptions{Start: 1000}, []minute{
			{12, 1000}, {12, 1000}, {12, 1000}, {12, 1000}, {12, 1000}, {12, 1200},
			{10, 1200}, {10, 1200}, {10, 1200}, {10, 1200}, {10, 1400},
		}},
		// The estimate is 1000, then 1000*exp(-1/6) = 846, then 1000*exp(-2/6) = 717, which is 28.3 % down, where it
		// takes (0.6708/3+0.05)*0.88 = 24.1 %.
		{"a miner that stops", difficulty.EWMAOptions{Start: 1000}, []minute{{6, 1000}, {0, 1000}, {0, 943}}},
		// Below 6 a minute it takes (2.576*sqrt(m)+0.5)/m + 0.05, where m = 4, 8 and 12 should have come: 146, 102 and
		// 84 %.
		{"silence at 4 a minute", difficulty.EWMAOptions{Start: 1000, Interval: 15 * time.Second},
			[]minute{{0, 1000}, {0, 1000}, {0, 800}}},
		{"rounded to a grid", difficulty.EWMAOptions{Start: 1024, Grid: difficulty.PowersOfTwo},
			[]minute{{0, 1024}, {0, 512}, {0, 512}, {0, 256}}}, // 819, 614, 430, 280
		{"bounded", difficulty.EWMAOptions{Start: 1000, Min: 700}, []minute{{0, 800}, {0, 700}, {0, 700}}},
	} {
		t.Run(c.name, func(t *testing.T) { playMinutes(t, newEWMA(t, &c.opts), c.minutes) })
	}
}

func TestEWMAWeighsShares(t *testing.T) {
	// Shares of 4000 that come in place of 1000, a quarter as many, are what should come.
	p := newEWMA(t, &difficulty.EWMAOptions{Start: 1000})
	p.Next(noon)
	for i := range 60 {
		now := noon.Add(time.Duration(i) * 40 * time.Second)
		p.Observe(now.Add(20*time.Second), 4000)
		require.Equal(t, difficulty.Difficulty(1000), p.Next(now.Add(40*time.Second)))
	}
}

func TestEWMALooksApart(t *testing.T) {
	// When looks are three minutes apart, the average goes 1-exp(-180/360) of the way: from 1000 to 606.5 on silence,
	// which is 39.3 % down, where it takes (0.6708/6+0.05)*0.94 = 15.2 %.
	p := newEWMA(t, &difficulty.EWMAOptions{Start: 1000})
	p.Next(noon)
	for range 18 {
		p.Observe(noon.Add(time.Second), 1000)
	}
	require.Equal(t, difficulty.Difficulty(1000), p.Next(noon.Add(3*time.Minute)))
	require.Equal(t, difficulty.Difficulty(921), p.Next(noon.Add(6*time.Minute)))
}

func TestEWMAConforms(t *testing.T) {
	for _, c := range []struct {
		name   string
		opts   difficulty.EWMAOptions
		expect difftest.Expect
	}{
		{"6 a minute", difficulty.EWMAOptions{}, difftest.Expect{
			MinInterval: 5 * time.Second, MaxInterval: 20 * time.Second, Settle: 90 * time.Minute, MaxChanges: 15,
		}},
		{"4 a minute", difficulty.EWMAOptions{Interval: 15 * time.Second}, difftest.Expect{
			MinInterval: 8 * time.Second, MaxInterval: 25 * time.Second, Settle: 90 * time.Minute, MaxChanges: 15,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			difftest.TestPolicyWith(t, func() difficulty.Policy { return newEWMA(t, &c.opts) }, &c.expect)
		})
	}
}

func ExampleLadder() {
	p, err := difficulty.NewLadder(&difficulty.LadderOptions{Start: 1000})
	if err != nil {
		fmt.Println(err)
		return
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	fmt.Println("first job:", p.Next(now))
	for range 10 { // where 6 should come
		now = now.Add(5 * time.Second)
		p.Observe(now, 1000)
	}
	fmt.Println("after 50 s:", p.Next(now))
	fmt.Println("after a minute:", p.Next(now.Add(10*time.Second)))
	// Output:
	// first job: 1000
	// after 50 s: 1000
	// after a minute: 1667
}

func ExampleEWMA() {
	p, err := difficulty.NewEWMA(&difficulty.EWMAOptions{Grid: difficulty.PowersOfSqrt2})
	if err != nil {
		fmt.Println(err)
		return
	}
	tr := difftest.Run(p, difftest.Steady(14e12), &difftest.Options{Ideal: true})
	for _, pt := range tr.Points {
		fmt.Println(pt.At, pt.Difficulty)
	}
	// Output:
	// 0s 16384
	// 11m0s 23170
	// 40m0s 32768
}
