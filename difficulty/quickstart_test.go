package difficulty_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/difficulty/difftest"
)

func newQuickStart(t testing.TB, opts *difficulty.QuickStartOptions) *difficulty.QuickStart {
	t.Helper()
	p, err := difficulty.NewQuickStart(opts)
	require.NoError(t, err)
	return p
}

// A share every 7.5 s is aimed at, from difficulty 1024.
func quickAt1024(t *testing.T) *difficulty.QuickStart {
	p := newQuickStart(t, &difficulty.QuickStartOptions{Start: 1024, Min: 64})
	require.Equal(t, difficulty.Difficulty(1024), p.Next(noon))
	return p
}

func TestQuickRaise(t *testing.T) {
	for _, c := range []struct {
		name   string
		opts   difficulty.QuickStartOptions
		shares int
		every  time.Duration
		want   difficulty.Difficulty // 0 for no quick raise
	}{
		{"seven shares are not enough", difficulty.QuickStartOptions{}, 7, 200 * time.Millisecond, 0},
		{"eight are", difficulty.QuickStartOptions{}, 8, 200 * time.Millisecond, 1024 * 32}, // 7500/200 = 37
		{"not within a second", difficulty.QuickStartOptions{}, 999, time.Millisecond, 0},
		{"after a second", difficulty.QuickStartOptions{}, 1000, time.Millisecond, 1024 * 4096}, // 7500
		{"many in a millisecond count as one each", difficulty.QuickStartOptions{}, 10_000, 100 * time.Microsecond, 1024 * 4096},
		{"less than an eighth", difficulty.QuickStartOptions{}, 8, 936 * time.Millisecond, 1024 * 8}, // 8.01
		{"an eighth", difficulty.QuickStartOptions{}, 8, 937 * time.Millisecond, 0},
		{"quotients and powers of two are rounded down", difficulty.QuickStartOptions{}, 8, 441 * time.Millisecond, 1024 * 16}, // 17.007
		{"just below 16 times", difficulty.QuickStartOptions{}, 8, 469 * time.Millisecond, 1024 * 8},                           // 15.99
		{"for another rate", difficulty.QuickStartOptions{Interval: 60 * time.Second}, 8, time.Second, 1024 * 32},              // 60
		{"fewer shares by option", difficulty.QuickStartOptions{QuickShares: 3}, 3, 500 * time.Millisecond, 1024 * 8},          // 15
		{"at least four times", difficulty.QuickStartOptions{QuickFactor: 2}, 8, 2600 * time.Millisecond, 1024 * 4},            // 2
		{"up to Max", difficulty.QuickStartOptions{Max: 8192}, 8, 200 * time.Millisecond, 8192},
		{"not at Max", difficulty.QuickStartOptions{Max: 1024}, 8, 200 * time.Millisecond, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.opts.Start, c.opts.Min = 1024, 64
			p := newQuickStart(t, &c.opts)
			p.Next(noon)
			now := observe(p, noon, c.shares, c.every, 1024)
			require.Equal(t, c.want != 0, p.Hurry(now))
			require.Equal(t, c.want != 0, p.Hurry(now.Add(time.Hour)), "asking changes nothing")
			if c.want != 0 {
				require.Equal(t, c.want, p.Next(now))
			}
			require.False(t, p.Hurry(now))
		})
	}
}

func TestQuickRaiseIsNotRepeated(t *testing.T) {
	p := quickAt1024(t)
	now := observe(p, noon, 8, 200*time.Millisecond, 1024)
	require.Equal(t, difficulty.Difficulty(32768), p.Next(now))
	// Shares of before, still as fast: until a job that was due has been sent, no other quick raise.
	now = observe(p, now, 15, 100*time.Millisecond, 1024)
	require.False(t, p.Hurry(now))
	require.Equal(t, difficulty.Difficulty(32768), p.Next(now), "15 are not enough for doubling")
	now = observe(p, now, 1, 100*time.Millisecond, 1024) // 16 in 1.6 s
	require.True(t, p.Hurry(now))
	require.Equal(t, difficulty.Difficulty(32768*64), p.Next(now)) // 75

	// The same with 16: doubling by one needs no hurry.
	now = observe(p, now, 16, 100*time.Millisecond, 1024)
	require.False(t, p.Hurry(now))
	require.Equal(t, difficulty.Difficulty(32768*128), p.Next(now))
}

func TestQuickStartWaitsUntilItIsSent(t *testing.T) {
	p := quickAt1024(t)
	now := observe(p, noon, 1000, 100*time.Millisecond, 1024) // 100 s, and no job
	require.True(t, p.Hurry(now))
	// 10 shares in the first second: 75 times too fast. What came after them changed nothing, nor does it count.
	require.Equal(t, difficulty.Difficulty(1024*64), p.Next(now))
	require.Equal(t, difficulty.Difficulty(1024*64), p.Next(now.Add(time.Minute)))
	require.Equal(t, difficulty.Difficulty(1024*32), p.Next(now.Add(time.Minute+time.Millisecond)))
}

func TestQuickStartHalves(t *testing.T) {
	p := quickAt1024(t)
	require.Equal(t, difficulty.Difficulty(1024), p.Next(noon.Add(60*time.Second)))
	now := noon.Add(60*time.Second + time.Millisecond)
	require.Equal(t, difficulty.Difficulty(512), p.Next(now), "a minute without a share")
	require.Equal(t, difficulty.Difficulty(512), p.Next(now.Add(60*time.Second)))
	now = now.Add(60*time.Second + time.Millisecond)
	require.Equal(t, difficulty.Difficulty(256), p.Next(now))
	// One share, in twice the time and a bit more.
	p.Observe(now.Add(time.Second), 256)
	require.Equal(t, difficulty.Difficulty(256), p.Next(now.Add(15*time.Second)))
	now = now.Add(15*time.Second + time.Millisecond)
	require.Equal(t, difficulty.Difficulty(128), p.Next(now))
	// After a share from the eighth on, as well; the job gets it.
	for range 7 {
		p.Observe(now.Add(time.Second), 128)
	}
	p.Observe(now.Add(8*15001*time.Millisecond), 128)
	require.Equal(t, difficulty.Difficulty(64), p.Next(now.Add(8*15001*time.Millisecond)))
	require.Equal(t, difficulty.Difficulty(64), p.Next(now.Add(time.Hour)), "no lower than Min")
}

func TestQuickStartDoubles(t *testing.T) {
	p := quickAt1024(t)
	now := observe(p, noon, 15, 3*time.Second, 1024)
	require.Equal(t, difficulty.Difficulty(1024), p.Next(now), "15 shares are not enough")
	now = observe(p, now, 1, 3*time.Second, 1024)
	require.False(t, p.Hurry(now))
	require.Equal(t, difficulty.Difficulty(2048), p.Next(now))

	p = quickAt1024(t)
	now = observe(p, noon, 100, 3750*time.Millisecond, 1024)
	require.Equal(t, difficulty.Difficulty(1024), p.Next(now), "half the time is not less than half")
	p = quickAt1024(t)
	now = observe(p, noon, 100, 15*time.Second, 1024)
	require.Equal(t, difficulty.Difficulty(1024), p.Next(now), "twice the time is not more than twice")
	require.Equal(t, difficulty.Difficulty(1024), p.Next(now), "nor is it decided about again")
}

func TestQuickStartReset(t *testing.T) {
	p := quickAt1024(t)
	now := observe(p, noon, 8, 200*time.Millisecond, 1024)
	require.True(t, p.Hurry(now))
	p.Reset(5000)
	require.False(t, p.Hurry(now))
	require.Equal(t, difficulty.Difficulty(8192), p.Next(now.Add(time.Hour)), "rounded up, and time begins with the next job")
	require.Equal(t, difficulty.Difficulty(8192), p.Next(now.Add(time.Hour+time.Minute)))
	require.Equal(t, difficulty.Difficulty(4096), p.Next(now.Add(time.Hour+time.Minute+time.Millisecond)))

	// A quick raise that SetMax takes back is none.
	p = quickAt1024(t)
	now = observe(p, noon, 8, 200*time.Millisecond, 1024)
	p.SetMax(1024)
	require.False(t, p.Hurry(now))
	require.Equal(t, difficulty.Difficulty(1024), p.Next(now))
}

func TestQuickStartWindow(t *testing.T) {
	// A share every 7.5 s for two hours, then one every 60 s. Without a Window the average is 15 s when 7200 + t seconds
	// hold 960 + t/60 shares, which is after 2 h 40 min. With 10 min, the last 5 to 10 count.
	run := func(window time.Duration) time.Duration {
		p := newQuickStart(t, &difficulty.QuickStartOptions{Start: 1024, Min: 1024 / 2, Window: window})
		p.Next(noon)
		now := noon
		for range 960 {
			now = observe(p, now, 1, 7500*time.Millisecond, 1024)
			require.Equal(t, difficulty.Difficulty(1024), p.Next(now))
		}
		slow := now
		for p.Next(now) == 1024 {
			now = observe(p, now, 1, time.Minute, 1024)
		}
		return now.Sub(slow)
	}
	require.InDelta(t, 160, run(0).Minutes(), 1)
	require.Less(t, run(10*time.Minute), 14*time.Minute)
	_, err := difficulty.NewQuickStart(&difficulty.QuickStartOptions{Window: 239 * time.Second})
	require.ErrorContains(t, err, "Window 3m59s is below 32 times Interval 7.5s")
}

func TestQuickStartConforms(t *testing.T) {
	// A Window, because what slows down after an hour has to be seen within the next.
	difftest.TestPolicyWith(t, func() difficulty.Policy {
		return newQuickStart(t, &difficulty.QuickStartOptions{Min: 1, Window: 10 * time.Minute})
	}, &difftest.Expect{MinInterval: 3 * time.Second, MaxInterval: 20 * time.Second, Settle: time.Hour, MaxChanges: 20})
}

func ExampleQuickStart() {
	p, err := difficulty.NewQuickStart(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	fmt.Println("first job:", p.Next(now))
	for !p.Hurry(now) {
		now = now.Add(50 * time.Millisecond)
		p.Observe(now, 16384)
	}
	fmt.Println("out of turn:", p.Next(now))
	// Output:
	// first job: 16384
	// out of turn: 2097152
}
