package stratumtest

import (
	"testing"

	"github.com/poolkit/poolkit/difficulty"
)

// BenchmarkSearch is one thread's hashrate.
func BenchmarkSearch(b *testing.B) {
	j := exampleJob(b)
	u := &unit{job: j, header: j.Header(make([]byte, 8), 0, 0, 0)}
	b.ReportAllocs()
	hashes := 0
	for b.Loop() {
		u.search(uint32(hashes), chunk, difficulty.Target{})
		hashes += chunk
	}
	b.ReportMetric(float64(hashes)/b.Elapsed().Seconds(), "hashes/s")
}
