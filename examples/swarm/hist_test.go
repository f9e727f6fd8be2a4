package main

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestBucketsAreInOrderAndWithoutGaps(t *testing.T) {
	for i := range maxBucket {
		top := bucketTop(i)
		require.Equal(t, i, bucketOf(top), "the largest of bucket %d", i)
		require.Equal(t, i+1, bucketOf(top+1), "what comes after bucket %d", i)
	}
	require.Equal(t, maxBucket, bucketOf(math.MaxInt64))
	require.Equal(t, 0, bucketOf(-5))
}

// The second method is to sort.
func TestQuantilesAreThoseOfTheSortedValues(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 2, 10, 1000, 20000} {
		var h hist
		var all []time.Duration
		for range n {
			d := time.Duration(math.Exp(rng.Float64() * 25))
			h.add(d)
			all = append(all, d)
		}
		slices.Sort(all)
		for _, q := range []float64{0, 0.5, 0.9, 0.99, 1} {
			want := all[max(int(math.Ceil(q*float64(n)))-1, 0)]
			got := h.quantile(q)
			require.GreaterOrEqual(t, got, want, "q %v of %d", q, n)
			require.LessOrEqual(t, float64(got), float64(want)*(1+1.0/(1<<subBits)), "q %v of %d", q, n)
		}
		require.Equal(t, all[n-1], h.max)
		require.EqualValues(t, n, h.count)
	}
}

func TestHistOfNothingAndOfTheExtremes(t *testing.T) {
	var h hist
	require.Zero(t, h.quantile(0.5))
	require.Zero(t, h.mean())
	h.add(-time.Second)
	require.Zero(t, h.quantile(1), "a clock that went backwards counts as no time")
	h.add(24 * time.Hour)
	require.Equal(t, 24*time.Hour, h.quantile(1), "what no bucket holds is the largest there was")
	require.LessOrEqual(t, len(h.n), maxBucket+1)
}

func TestMergeIsAddingEverything(t *testing.T) {
	var a, b, both hist
	for i := range 1000 {
		d := time.Duration(i*i) * time.Microsecond
		if i%3 == 0 {
			a.add(d)
		} else {
			b.add(d)
		}
		both.add(d)
	}
	a.merge(&b)
	for _, q := range []float64{0, 0.1, 0.5, 0.99, 1} {
		require.Equal(t, both.quantile(q), a.quantile(q))
	}
	require.Equal(t, both.count, a.count)
	require.Equal(t, both.mean(), a.mean())
	var empty hist
	empty.merge(&both)
	require.Equal(t, both.quantile(0.5), empty.quantile(0.5))
}

func BenchmarkHistAdd(b *testing.B) {
	var h hist
	d := time.Duration(1)
	b.ReportAllocs()
	for b.Loop() {
		h.add(d)
		d = (d*7 + 3) & (1<<30 - 1)
	}
}
