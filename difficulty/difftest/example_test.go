package difftest_test

import (
	"fmt"
	"os"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/difficulty/difftest"
)

func ExampleRun() {
	p, err := difficulty.NewVardiff(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	tr := difftest.Run(p, difftest.Steady(200e12), &difftest.Options{Ideal: true})
	for _, pt := range tr.Points {
		fmt.Println(pt.At, pt.Difficulty)
	}
	fmt.Println("in the second hour, a share every", tr.Interval(time.Hour, 2*time.Hour).Round(100*time.Millisecond))
	// Output:
	// 0s 16384
	// 1m0s 32768
	// 1m30s 65536
	// 3m0s 131072
	// 6m0s 262144
	// 12m0s 524288
	// 15m0s 262144
	// in the second hour, a share every 5.6s
}

// newVardiff is a Maker: the start differs from scenario to scenario, and the bounds must not stand in the way.
func newVardiff(start difficulty.Difficulty) difficulty.Policy {
	p, err := difficulty.NewVardiff(&difficulty.VardiffOptions{
		Start: start, Min: difficulty.Min, Improved: true, Levels: []difficulty.VardiffLevel{{From: 0, Factor: 1}},
	})
	if err != nil {
		panic(err) // the options above are sound
	}
	return p
}

func ExampleMeasure() {
	miner := difftest.Stepped(1e15, time.Hour, 0.1e15) // 1 PH/s, of which nine tenths go away
	tr := difftest.Run(newVardiff(1024), miner, &difftest.Options{Duration: 3 * time.Hour})
	v := difftest.Measure(&tr, &difftest.MeasureOptions{Change: time.Hour})
	for _, m := range []difftest.Metric{difftest.ConvergeTime, difftest.ReactTime, difftest.ResettleTime} {
		fmt.Println(m, v[m], m.Unit())
	}
	// Output:
	// converge time 120 s
	// react time 600 s
	// resettle time 1290 s
}

func ExampleRun_hostile() {
	miner := difftest.Steady(1e15)
	miner.Send = func(at time.Duration, _ difficulty.Difficulty) time.Duration {
		return at.Truncate(time.Minute) + time.Minute // saves its shares and sends them once a minute
	}
	tr := difftest.Run(difficulty.Fixed(1<<18), miner, &difftest.Options{Duration: 10 * time.Minute, Ideal: true})
	for minute := range 3 {
		at := time.Duration(minute+1)*time.Minute + time.Second
		fmt.Println(tr.Shares(at-time.Minute, at), "shares, of which", tr.Seconds[60*(minute+1)-1].Shares, "in a second")
	}
	// Output:
	// 53 shares, of which 53 in a second
	// 53 shares, of which 53 in a second
	// 53 shares, of which 53 in a second
}

func ExampleTrials() {
	for _, sc := range difftest.Scenarios() {
		if sc.Name != "cold-start" {
			continue
		}
		r, err := difftest.Trials(newVardiff, sc, 30, 1, nil)
		if err != nil {
			fmt.Println(err)
			return
		}
		c, t := r[difftest.Converged], r[difftest.ConvergeTime]
		fmt.Printf("%.0f %% of %d cold starts converged, with 95 %% confidence %.0f to %.0f %%\n",
			100*c.Mean, c.N, 100*c.Low, 100*c.High)
		fmt.Printf("after %.0f s in the median, 90 %% of them within %.0f s\n", t.P50, t.P90)
	}
	// Output:
	// 80 % of 30 cold starts converged, with 95 % confidence 63 to 90 %
	// after 30 s in the median, 90 % of them within 120 s
}

func ExampleCompare() {
	fixed := func(start difficulty.Difficulty) difficulty.Policy { return difficulty.Fixed(start.CeilPow2()) }
	var some []difftest.Scenario
	for _, sc := range difftest.Scenarios() {
		if sc.Name == "cold-start-down" || sc.Name == "drop" {
			some = append(some, sc)
		}
	}
	table, err := difftest.Compare(&difftest.CompareOptions{
		Trials: 20, Scenarios: some,
		Metrics:  []difftest.Metric{difftest.Converged, difftest.ConvergeTime, difftest.Reacted, difftest.Retargets},
		Progress: func(done, total int) {}, // a progress bar
	}, difftest.Candidate{Name: "vardiff", New: newVardiff}, difftest.Candidate{Name: "fixed", New: fixed})
	if err != nil {
		fmt.Println(err)
		return
	}
	table.WriteTo(os.Stdout)
	// Output:
	// 20 trials of each scenario, seed 0, a share every 10s aimed at; [..] and ± are 95 % bounds
	//
	// cold-start-down: A miner of 10 GH/s begins at the difficulty that suits 1 PH/s.
	// policy              converged  converge time p50/p90  retargets 1/h
	// vardiff  100.0% [83.9, 100.0]           14m / 21m30s    9.600±0.475
	// fixed        0.0% [0.0, 16.1]                      -    0.000±0.000
	//
	// drop: After a quarter of an hour the hashrate halves, as in the Stratum V2 reference's simulation.
	// policy           converged  converge time p50/p90             reacted  retargets 1/h
	// vardiff  15.0% [5.2, 36.0]          5m30s / 6m30s  25.0% [11.2, 46.9]    2.000±0.000
	// fixed     0.0% [0.0, 16.1]                      -    0.0% [0.0, 16.1]    0.000±0.000
}
