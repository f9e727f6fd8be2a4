package difftest

import (
	"fmt"
	"io"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/poolkit/poolkit/difficulty"
)

// makerOf returns a Maker of Vardiffs that go as low as any difficulty.
func makerOf(opts difficulty.VardiffOptions) Maker {
	return func(start difficulty.Difficulty) difficulty.Policy {
		o := opts
		o.Start, o.Min = start, difficulty.Min
		v, err := difficulty.NewVardiff(&o)
		if err != nil {
			panic(err)
		}
		return v
	}
}

var (
	newVardiff  = makerOf(difficulty.VardiffOptions{})
	newImproved = makerOf(difficulty.VardiffOptions{Improved: true, Levels: []difficulty.VardiffLevel{{From: 0, Factor: 1}}})
)

func TestCompareRunsEveryScenario(t *testing.T) {
	calls := 0
	table, err := Compare(&CompareOptions{Trials: 2, Progress: func(done, total int) {
		calls++
		require.Equal(t, calls, done)
		require.Equal(t, 2*2*len(Scenarios()), total)
	}}, Candidate{"BTCPool's", newVardiff}, Candidate{"improved", newImproved})
	require.NoError(t, err)
	require.Equal(t, 2*2*len(Scenarios()), calls)
	for _, sc := range Scenarios() {
		r, ok := table.Result(sc.Name, "improved")
		require.True(t, ok)
		require.Equal(t, 2, r[ShareRate].N)
		require.Positive(t, r[ShareRate].Mean, sc.Name)
	}
}

func TestCompareRefusesWhatItCannotDo(t *testing.T) {
	one := Candidate{"one", newVardiff}
	sc := Scenario{Name: "a", Miner: always(Steady(1))}
	for _, c := range []struct {
		name     string
		opts     *CompareOptions
		policies []Candidate
		want     string
	}{
		{"no policy", nil, nil, "there is no policy"},
		{"no scenario", &CompareOptions{Scenarios: []Scenario{}}, []Candidate{one}, "there is no scenario"},
		{"a policy without a name", nil, []Candidate{{"", newVardiff}}, "a policy has no name"},
		{"a scenario without a name", &CompareOptions{Scenarios: []Scenario{{}}}, []Candidate{one}, "a scenario has no name"},
		{"a name twice", nil, []Candidate{one, one}, `more than one policy is called "one"`},
		{"a scenario twice", &CompareOptions{Scenarios: []Scenario{sc, sc}}, []Candidate{one}, `more than one scenario is called "a"`},
		{"an unknown metric", &CompareOptions{Metrics: []Metric{99}}, []Candidate{one}, "Metric(99) is not known"},
		{"no maker", nil, []Candidate{{"one", nil}}, "compare one in steady: difftest: trials: the maker of policies is nil"},
		{"too few trials", &CompareOptions{Trials: -1}, []Candidate{one}, "-1 trials are not within"},
		{"too many trials", &CompareOptions{Trials: MaxTrials + 1}, []Candidate{one}, "trials are not within"},
		{"a scenario without a miner", &CompareOptions{Scenarios: []Scenario{{Name: "a"}}}, []Candidate{one}, `scenario "a" has no miner`},
		{"no policy from a maker", nil, []Candidate{{"one", func(difficulty.Difficulty) difficulty.Policy { return nil }}},
			"the policy is nil"},
	} {
		t.Run(c.name, func(t *testing.T) {
			table, err := Compare(c.opts, c.policies...)
			require.ErrorContains(t, err, c.want)
			require.Nil(t, table)
		})
	}
	_, err := Compare(&CompareOptions{Metrics: []Metric{99}})
	require.ErrorContains(t, err, "no policy")
	require.ErrorContains(t, err, "Metric(99)", "all that is wrong")
}

func TestSummarize(t *testing.T) {
	nan := math.NaN()
	s := Summarize([]float64{1, 1, 0, 1, 1, nan, 1, 0, 1, 1, 1}, true)
	require.Equal(t, 10, s.N)
	require.InDelta(t, 0.8, s.Mean, 1e-12)
	// (0.8 + z²/20 -+ z sqrt(0.016 + z²/400)) / (1 + z²/10), z² = 3.84146
	require.InDelta(t, 0.49016, s.Low, 1e-5)
	require.InDelta(t, 0.94332, s.High, 1e-5)
	s = Summarize(make([]float64, 1000), true)
	require.Zero(t, s.Low)
	require.InDelta(t, 3.84146/1003.84146, s.High, 1e-7)

	s = Summarize([]float64{10, 9, 8, 7, nan, 6, 5, 4, 3, 2, 1}, false)
	half := 1.959964 * math.Sqrt(82.5/9/10)
	require.InDelta(t, 5.5, s.Mean, 1e-12)
	require.InDelta(t, 5.5-half, s.Low, 1e-6)
	require.InDelta(t, 5.5+half, s.High, 1e-6)
	require.Equal(t, []float64{1, 5, 9, 10}, []float64{s.P10, s.P50, s.P90, s.P99})
	hundred := make([]float64, 200)
	for i := range hundred {
		hundred[i] = float64(200 - i)
	}
	s = Summarize(hundred, false)
	require.Equal(t, []float64{20, 100, 180, 198}, []float64{s.P10, s.P50, s.P90, s.P99})

	s = Summarize([]float64{7}, false)
	require.Equal(t, []float64{7, 7, 7, 7, 7}, []float64{s.Mean, s.P10, s.P50, s.P90, s.P99})
	require.True(t, math.IsNaN(s.Low) && math.IsNaN(s.High))
	s = Summarize([]float64{nan}, true)
	require.Zero(t, s.N)
	require.True(t, math.IsNaN(s.Mean) && math.IsNaN(s.P50) && math.IsNaN(s.High))
}

func TestTrialsRepeat(t *testing.T) {
	sc := Scenarios()[2]
	sc.Options.Duration = 40 * time.Minute
	run := func(procs int, seed uint64) Result {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
		r, err := Trials(newVardiff, sc, 50, seed, nil)
		require.NoError(t, err)
		return r
	}
	same := func(a, b Result) bool { return fmt.Sprint(a) == fmt.Sprint(b) } // NaN is not itself
	one := run(1, 5)
	require.True(t, same(one, run(8, 5)))
	require.False(t, same(one, run(8, 6)))

	// It is what the trials are one by one.
	var shares []float64
	for i := range 50 {
		tr := sc.Run(newVardiff, 10*time.Second, TrialSeed(5, i))
		shares = append(shares, Measure(&tr, nil)[ShareRate])
	}
	require.Equal(t, Summarize(shares, false), one[ShareRate])
}

// The change of the scenario counts unless another is asked for, and so does the interval.
func TestTrialsMeasureTheScenario(t *testing.T) {
	sc := Scenario{Name: "a", Begins: phs, Miner: always(Steady(phs)), Change: 20 * time.Minute}
	fixed := func(start difficulty.Difficulty) difficulty.Policy { return difficulty.Fixed(start) }
	r, err := Trials(fixed, sc, 3, 0, nil)
	require.NoError(t, err)
	require.Equal(t, 3, r[Resettled].N)
	require.EqualValues(t, 1, r[Resettled].Mean)
	require.InDelta(t, 0.1, r[ShareRate].Mean, 0.02)
	r, err = Trials(fixed, sc, 3, 0, &MeasureOptions{Change: -1, Interval: time.Second})
	require.NoError(t, err)
	require.Zero(t, r[Resettled].N)
	require.EqualValues(t, 1, r[Converged].Mean)
	require.InDelta(t, 1, r[ShareRate].Mean, 0.05)
}

func TestTrialSeedsDiffer(t *testing.T) {
	seen := map[uint64]bool{}
	for seed := range uint64(100) {
		for i := range 100 {
			s := TrialSeed(seed, i)
			require.False(t, seen[s])
			seen[s] = true
		}
	}
}

func TestTable(t *testing.T) {
	table := &Table{
		Trials: 10, Seed: 7, Interval: 10 * time.Second,
		Policies: []string{"one", "the|other"},
		Metrics:  []Metric{Converged, ConvergeTime, Reacted, Error, Jitter, ByteRate},
		Scenarios: []Scenario{
			{Name: "calm", Doc: "Nothing happens."}, {Name: "nothing_measured", Doc: "Less."},
		},
		Results: [][]Result{{
			{
				Converged: {N: 10, Mean: 0.8, Low: 0.49, High: 0.943}, ConvergeTime: {N: 8, P50: 90, P90: 3600},
				Error: {N: 8, Mean: 0.0512, Low: 0.0412, High: 0.0612}, Jitter: {N: 8, Mean: 0.25, Low: 0.125, High: 0.375},
				ByteRate: {N: 10, Mean: 1234.4, Low: 1233.4, High: 1235.4},
			},
			{Converged: {N: 10, High: 0.278}, ByteRate: {N: 1, Mean: 62, Low: math.NaN(), High: math.NaN()}},
		}, {{}, {}}},
	}
	require.Equal(t, `10 trials of each scenario, seed 7, a share every 10s aimed at; [..] and ± are 95 % bounds

calm: Nothing happens.
policy              converged  converge time p50/p90     error   jitter 1/h  bytes B/s
one        80.0% [49.0, 94.3]             1m30s / 1h  5.1±1.0%  0.250±0.125     1234±1
the|other    0.0% [0.0, 27.8]                      -         -            -     62.000

nothing_measured: Less.
policy
one
the|other
`, table.String())
	var md strings.Builder
	n, err := table.WriteMarkdown(&md)
	require.NoError(t, err)
	require.EqualValues(t, md.Len(), n)
	require.Equal(t, `10 trials of each scenario, seed 7, a share every 10s aimed at; [..] and ± are 95 % bounds

**calm**: Nothing happens.

| policy     |          converged | converge time p50/p90 |    error |  jitter 1/h | bytes B/s |
|------------|-------------------:|----------------------:|---------:|------------:|----------:|
| one        | 80.0% [49.0, 94.3] |            1m30s / 1h | 5.1±1.0% | 0.250±0.125 |    1234±1 |
| the\|other |   0.0% [0.0, 27.8] |                     - |        - |           - |    62.000 |

**nothing\_measured**: Less.

| policy     |
|------------|
| one        |
| the\|other |
`, md.String())
	_, err = table.WriteTo(failing{})
	require.ErrorIs(t, err, io.ErrShortWrite)
	_, ok := table.Result("calm", "nobody")
	require.False(t, ok)
	r, ok := table.Result("calm", "the|other")
	require.True(t, ok)
	require.EqualValues(t, 62, r[ByteRate].Mean)
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func TestShortTime(t *testing.T) {
	for secs, want := range map[float64]string{
		0: "0", 0.4: "0", 1: "1s", 59.6: "1m", 60: "1m", 90: "1m30s", 600: "10m", 610: "10m10s", 3600: "1h", 3660: "1h1m",
		3601: "1h0m1s", 7200: "2h", 36000: "10h",
	} {
		require.Equal(t, want, shortTime(secs), secs)
	}
}

// BenchmarkScenario reports what a simulated day of each scenario costs, as memory is used again in Trials.
func BenchmarkScenario(b *testing.B) {
	for _, sc := range Scenarios() {
		b.Run(sc.Name, func(b *testing.B) {
			sc.Options.Duration = 24 * time.Hour
			var s simulation
			b.ReportAllocs()
			for seed := uint64(0); b.Loop(); seed++ {
				s = simulation{trace: Trace{Points: s.trace.Points[:0], Seconds: s.trace.Seconds[:0], Truth: s.trace.Truth[:0]}}
				sc.run(&s, newImproved, 10*time.Second, seed)
				Measure(&s.trace, nil)
			}
		})
	}
}
