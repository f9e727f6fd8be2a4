package difftest

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/poolkit/poolkit/difficulty"
)

// suits returns the hashrate whose ideal difficulty is d at a share every 10 s.
func suits(d float64) difficulty.Hashrate {
	return difficulty.Hashrate(d * difficulty.HashesPerDifficulty / 10)
}

// traced returns a Trace without shares of a miner whose ideal difficulty in each second is ideal's.
func traced(length time.Duration, ideal func(second int) float64, points ...Point) *Trace {
	n := int(length / time.Second)
	tr := &Trace{Points: points, Seconds: make([]Second, n), Truth: make([]difficulty.Hashrate, n)}
	for i := range tr.Truth {
		tr.Truth[i] = suits(ideal(i))
	}
	return tr
}

func ideally(d float64) func(int) float64 { return func(int) float64 { return d } }

func until(second int, before, after float64) func(int) float64 {
	return func(i int) float64 {
		if i < second {
			return before
		}
		return after
	}
}

func point(seconds float64, d difficulty.Difficulty) Point {
	return Point{time.Duration(seconds * float64(time.Second)), d}
}

func TestMeasureSettling(t *testing.T) {
	nan := math.NaN()
	const hour = time.Hour
	for _, c := range []struct {
		name   string
		trace  *Trace
		change time.Duration
		want   map[Metric]float64
	}{
		{"two steps to the ideal one", traced(hour, ideally(64), point(0, 16), point(60, 32), point(180, 64)), 0,
			map[Metric]float64{Converged: 1, ConvergeTime: 180, Resettled: nan, ResettleTime: nan, Reacted: nan, ReactTime: nan,
				ReferenceConverged: 1, ReferenceConvergeTime: 180, ReferenceError: 0, ReferenceJitter: 0, Jitter: 0, Spread: 0, Error: 1,
				ReferenceReacted: nan, ReferenceReactTime: nan}},
		{"right from the start", traced(hour, ideally(64), point(0, 64)), 0,
			map[Metric]float64{Converged: 1, ConvergeTime: 0, ReferenceConverged: 1, ReferenceConvergeTime: 0}},
		{"at rest where it does not belong", traced(hour, ideally(64), point(0, 16)), 0,
			map[Metric]float64{Converged: 0, ConvergeTime: nan, Jitter: nan, Spread: nan, Error: nan,
				ReferenceConverged: 1, ReferenceConvergeTime: 0, ReferenceError: 0.75}},
		{"a factor of 1.5 above", traced(hour, ideally(64), point(0, 96)), 0, map[Metric]float64{Converged: 1}},
		{"a little more above", traced(hour, ideally(64), point(0, 97)), 0, map[Metric]float64{Converged: 0}},
		{"a factor of 1.5 below", traced(hour, ideally(96), point(0, 64)), 0, map[Metric]float64{Converged: 1}},
		{"a little more below", traced(hour, ideally(97), point(0, 64)), 0, map[Metric]float64{Converged: 0}},
		{"quiet for five minutes and no more", traced(hour, ideally(64), point(0, 16), point(60, 64), point(360, 1)), 0,
			map[Metric]float64{Converged: 1, ConvergeTime: 60, ReferenceConvergeTime: 360}},
		{"quiet for not quite as long", traced(hour, ideally(64), point(0, 16), point(60, 64), point(359, 1)), 0,
			map[Metric]float64{Converged: 0, ReferenceConvergeTime: 359}},
		{"seconds that are not whole do not count", traced(hour, ideally(64), point(0, 16), point(60.5, 64), point(360.6, 1)), 0,
			map[Metric]float64{Converged: 0, ReferenceConvergeTime: 60.5}},
		{"in the last moment", traced(hour, ideally(64), point(0, 16), point(1500, 64)), 0,
			map[Metric]float64{Converged: 1, ConvergeTime: 1500, ReferenceConverged: 1}},
		{"too late", traced(hour, ideally(64), point(0, 16), point(1501, 64)), 0,
			map[Metric]float64{Converged: 0, ReferenceConverged: 0, ReferenceConvergeTime: nan, ReferenceError: nan, ReferenceJitter: nan}},
		{"quiet before the difficulty belongs there", traced(hour, until(600, 128, 64), point(0, 16), point(30, 64)), 0,
			map[Metric]float64{Converged: 1, ConvergeTime: 30}},
		{"only while the miner works", traced(hour, func(i int) float64 {
			if i%299 == 0 {
				return 0
			}
			return 64
		}, point(0, 64)), 0, map[Metric]float64{Converged: 0}},
		{"a change that the difficulty follows",
			traced(hour, until(900, 64, 32), point(0, 64), point(990, 40), point(1050, 32)), 15 * time.Minute,
			map[Metric]float64{Converged: 1, ConvergeTime: 0, Resettled: 1, ResettleTime: 150, Reacted: 1, ReactTime: 90,
				ReferenceReacted: 1, ReferenceReactTime: 90, Jitter: 0}},
		{"a change that it need not follow", traced(hour, until(900, 64, 50), point(0, 64)), 15 * time.Minute,
			map[Metric]float64{Resettled: 1, ResettleTime: 0, Reacted: 0, ReactTime: nan, ReferenceReacted: 0, ReferenceReactTime: nan}},
		{"a wrong step first", traced(hour, until(900, 64, 32), point(0, 64), point(960, 128), point(1260, 32)), 15 * time.Minute,
			map[Metric]float64{Reacted: 0, ReactTime: 360, ReferenceReacted: 1, ReferenceReactTime: 60, Resettled: 1, ResettleTime: 360}},
		{"up in five minutes", traced(hour, until(900, 64, 128), point(0, 64), point(1200, 128)), 15 * time.Minute,
			map[Metric]float64{Reacted: 1, ReactTime: 300, ReferenceReacted: 1}},
		{"up in more", traced(hour, until(900, 64, 128), point(0, 64), point(1200.5, 128)), 15 * time.Minute,
			map[Metric]float64{Reacted: 0, ReactTime: 300.5, ReferenceReacted: 0, ReferenceReactTime: 300.5}},
		{"up after more than ten", traced(hour, until(900, 64, 128), point(0, 64), point(1501, 128)), 15 * time.Minute,
			map[Metric]float64{Reacted: 0, ReactTime: nan, ReferenceReactTime: nan, Resettled: 1, ResettleTime: 601}},
		{"in the moment of the change is before it", traced(hour, until(900, 64, 128), point(0, 64), point(900, 128)), 15 * time.Minute,
			map[Metric]float64{Reacted: 0, ReferenceReacted: 0, Resettled: 1, ResettleTime: 0}},
		{"no change at all", traced(hour, ideally(64), point(0, 64)), 15 * time.Minute,
			map[Metric]float64{Reacted: nan, ReferenceReacted: 0}},
		{"coming from nothing", traced(hour, until(900, 0, 64), point(0, 1), point(960, 64)), 15 * time.Minute,
			map[Metric]float64{Converged: 0, Reacted: nan, ReactTime: nan, Resettled: 1, ResettleTime: 60}},
		{"a change at the end", traced(hour, until(3500, 64, 32), point(0, 64), point(3560, 32)), 3500 * time.Second,
			map[Metric]float64{Reacted: nan, ReactTime: 60, ReferenceReacted: nan, Resettled: 0}},
		{"a change after the end", traced(hour, ideally(64), point(0, 64)), 2 * hour,
			map[Metric]float64{Resettled: nan, Reacted: nan, ReferenceReacted: nan, Converged: 1}},
		{"a settled time that is too short", traced(11*time.Minute+59*time.Second, ideally(64), point(0, 64)), 0,
			map[Metric]float64{Converged: 1, Jitter: nan, Spread: nan, Error: nan, ReferenceJitter: nan}},
		{"a settled time that is just long enough", traced(12*time.Minute, ideally(64), point(0, 64)), 0,
			map[Metric]float64{Jitter: 0, Spread: 0, Error: 1, ReferenceJitter: 0}},
		{"nothing", &Trace{}, 0, map[Metric]float64{Converged: nan, ShareRate: nan, LongestFlood: nan, ReferenceConverged: nan}},
		{"never a difficulty", traced(hour, ideally(64)), 0, map[Metric]float64{Converged: 0, ReferenceError: 1, LongestEasy: 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := Measure(c.trace, &MeasureOptions{Change: c.change})
			for m, want := range c.want {
				if math.IsNaN(want) {
					require.True(t, math.IsNaN(v[m]), "%v is %v", m, v[m])
					continue
				}
				require.InDelta(t, want, v[m], 1e-9, "%v", m)
			}
		})
	}
}

func TestMeasureSettledTime(t *testing.T) {
	// Converged at 180 s, so the settled time is 300 s to 3600 s: 3300 s, of which 300 s are at twice the difficulty.
	tr := traced(time.Hour, ideally(64), point(0, 16), point(60, 32), point(180, 64), point(1800, 128), point(2100, 64))
	for i := range tr.Seconds {
		if i < 300 || i%8 == 0 { // 304, 312, ..., 3592: 412 shares
			tr.Seconds[i].Shares = 1
		}
	}
	v := Measure(tr, nil)
	require.InDelta(t, 2/3300.*3600, v[Jitter], 1e-9)
	require.InDelta(t, math.Sqrt(10)/11, v[Spread], 1e-9, "one part in eleven is 1 away: sqrt(1/11 * 10/11)")
	require.InDelta(t, 412./330-1, v[Error], 1e-9)
	require.InDelta(t, 2/55., v[ReferenceJitter], 1e-9)
	require.InDelta(t, 4, v[Retargets], 1e-9)

	// Seconds that the miner stands still are no part of the rate.
	for i := 600; i < 1600; i++ { // 600, 608, ..., 1592: 125 shares
		tr.Truth[i], tr.Seconds[i] = 0, Second{}
	}
	require.InDelta(t, math.Abs((412-125)/230.-1), Measure(tr, nil)[Error], 1e-9)

	// With a change the settled time is after it: 900 s + 0 s + 120 s to the end.
	v = Measure(tr, &MeasureOptions{Change: 1600 * time.Second})
	require.InDelta(t, 500, v[ResettleTime], 1e-9, "64 again at 2100 s")
	require.InDelta(t, 0, v[Jitter], 1e-9)
	// 2220 s to 3600 s: 2224, 2232, ..., 3592 are 172 shares in 1380 s.
	require.InDelta(t, 172./138-1, v[Error], 1e-9)
}

func TestMeasureOptions(t *testing.T) {
	tr := traced(time.Hour, ideally(64), point(0, 16), point(60, 128), point(120, 60))
	require.EqualValues(t, 0, Measure(tr, &MeasureOptions{Within: 1.01})[Converged])
	require.EqualValues(t, 60, Measure(tr, &MeasureOptions{Within: 2, Quiet: time.Minute})[ConvergeTime])
	require.EqualValues(t, 0, Measure(tr, &MeasureOptions{Deadline: 6 * time.Minute})[Converged])
	require.EqualValues(t, 1, Measure(tr, &MeasureOptions{Deadline: 7 * time.Minute})[Converged])
	require.EqualValues(t, 0, Measure(tr, &MeasureOptions{Interval: 20 * time.Second})[Converged], "128 is the ideal one")
	want := Measure(tr, nil)
	got := Measure(tr, &MeasureOptions{Interval: -1, Change: -1, Within: math.NaN(), Quiet: -1, Deadline: -1})
	require.Equal(t, want[ConvergeTime], got[ConvergeTime])
	require.Equal(t, want[Converged], got[Converged])
}

func TestMeasureHashrateError(t *testing.T) {
	tr := traced(35*time.Minute, func(i int) float64 {
		switch {
		case i < 600:
			return 64
		case i < 1200:
			return 0 // no part of it
		}
		return 32
	}, point(0, 64))
	// 600 s are 60 shares of the ideal difficulty.
	tr.Seconds[5].Work = 66 * 64                            // 10 % too much in the first 10 minutes
	tr.Seconds[1200].Work, tr.Seconds[1799].Work = 64, 1472 // 48 * 32: 20 % too little in the third
	tr.Seconds[1800].Work = 1e6                             // in 10 minutes that are not whole
	v := Measure(tr, nil)
	require.InDelta(t, 0.15, v[HashrateError10m], 1e-9)
	require.True(t, math.IsNaN(v[HashrateError1h]))

	tr = traced(90*time.Minute, ideally(64), point(0, 64))
	tr.Seconds[3599].Work = 64 * 450 // of 360
	require.InDelta(t, 0.25, Measure(tr, nil)[HashrateError1h], 1e-9)
}

func TestMeasureRates(t *testing.T) {
	tr := traced(100*time.Second, ideally(64), point(0, 64), point(30, 32), point(60, 64))
	tr.Seconds[0].Shares, tr.Seconds[99].Shares = 20, 30
	tr.Jobs, tr.Sessions = 4, 2
	v := Measure(tr, nil)
	require.InDelta(t, 0.5, v[ShareRate], 1e-9)
	require.InDelta(t, 72, v[Retargets], 1e-9)
	require.InDelta(t, (50*153+4*1501+(2+2)*63)/100., v[ByteRate], 1e-9)
}

func TestMeasureFloods(t *testing.T) {
	flood := func(o *MeasureOptions, shares map[int]int) float64 {
		tr := traced(2*time.Minute, ideally(64), point(0, 64))
		for i, n := range shares {
			tr.Seconds[i].Shares = n
		}
		return Measure(tr, o)[LongestFlood]
	}
	require.Zero(t, flood(nil, nil))
	require.Zero(t, flood(nil, map[int]int{20: 3}), "3 times the target is not above it")
	require.EqualValues(t, 10, flood(nil, map[int]int{20: 4}), "as long as 10 s see them: 20 to 29")
	require.EqualValues(t, 9, flood(nil, map[int]int{20: 3, 21: 1}), "21 to 29")
	require.EqualValues(t, 15, flood(nil, map[int]int{20: 4, 25: 4, 100: 5}), "20 to 34, and 100 to 109")
	require.EqualValues(t, 1, flood(nil, map[int]int{0: 4}), "only whole 10 s count: 9")
	require.EqualValues(t, 5, flood(nil, map[int]int{115: 4}), "115 to the end")
	require.EqualValues(t, 10, flood(&MeasureOptions{Interval: time.Second}, map[int]int{20: 31}))
	require.Zero(t, flood(&MeasureOptions{Interval: time.Second}, map[int]int{20: 30}))

	// 21 is less than a third of 64, and 22 is not. A change within a second counts from the next.
	tr := traced(2*time.Minute, until(90, 64, 66.1), point(0, 22), point(10, 21), point(40.5, 22), point(50, 1), point(60, 22))
	require.EqualValues(t, 31, Measure(tr, nil)[LongestEasy], "10 to 40, and 90 to the end is 30")
}

func TestMetricNames(t *testing.T) {
	names := map[string]bool{}
	for _, m := range Metrics() {
		require.NotEmpty(t, m.String())
		require.False(t, names[m.String()], m)
		names[m.String()] = true
		require.Contains(t, []string{"", "s", "ratio", "1/h", "1/min", "1/s", "B/s", "log2"}, m.Unit())
		require.Equal(t, m.Unit() == "", m.IsRate())
	}
	require.Len(t, names, int(metricCount))
	require.Equal(t, "Metric(200)", Metric(200).String())
	require.Empty(t, Metric(200).Unit())
	require.False(t, Metric(200).IsRate())
	require.Equal(t, "B/s", ByteRate.Unit())
	require.Equal(t, 153, BytesPerShare)
	require.Equal(t, 63, BytesPerDifficulty)
}
