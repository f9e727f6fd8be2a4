package difftest_test

import (
	"fmt"
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
