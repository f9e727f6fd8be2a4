package difftest

import (
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
