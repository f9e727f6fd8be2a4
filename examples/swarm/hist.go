package main

import (
	"math"
	"math/bits"
	"time"
)

// subBits sets how exact a histogram is: 2^subBits buckets to a doubling, so that a value is at most 1 in 64, 1.6 %,
// off.
const subBits = 6

// maxBucket is the last bucket. It holds 2^40 ns, 18 minutes, and everything longer.
const maxBucket = (40-subBits)<<subBits + 1<<subBits

// A hist counts durations in buckets that grow with the value, as HDR histograms do. Its size is fixed, whatever is
// added. The zero value is empty.
type hist struct {
	count uint64
	sum   time.Duration
	max   time.Duration
	n     []uint32 // by bucket; it grows up to maxBucket
}

// bucketOf returns where d belongs. Below 2^subBits ns each value has a bucket of its own.
func bucketOf(d time.Duration) int {
	v := uint64(max(d, 0))
	if v < 1<<subBits {
		return int(v)
	}
	shift := bits.Len64(v) - subBits - 1
	return min((shift+1)<<subBits+int(v>>shift)-1<<subBits, maxBucket)
}

// bucketTop returns the largest duration that goes into a bucket.
func bucketTop(i int) time.Duration {
	if i < 1<<subBits {
		return time.Duration(i)
	}
	shift := i>>subBits - 1
	return time.Duration((i&(1<<subBits-1)+1<<subBits+1)<<shift - 1)
}

// add counts one duration; negative ones count as 0.
func (h *hist) add(d time.Duration) {
	d = max(d, 0)
	i := bucketOf(d)
	if i >= len(h.n) {
		h.grow(i)
	}
	if h.n[i] != math.MaxUint32 {
		h.n[i]++
	}
	h.count++
	h.sum += d
	h.max = max(h.max, d)
}

func (h *hist) grow(i int) {
	n := make([]uint32, min(i+2<<subBits, maxBucket+1))
	copy(n, h.n)
	h.n = n
}

// merge adds everything that o counted.
func (h *hist) merge(o *hist) {
	if len(o.n) > len(h.n) {
		h.grow(len(o.n) - 1)
	}
	for i, n := range o.n {
		h.n[i] += min(n, math.MaxUint32-h.n[i])
	}
	h.count += o.count
	h.sum += o.sum
	h.max = max(h.max, o.max)
}

// quantile returns a duration that at least the share q of all is not above, 0 when nothing was counted. It is never
// less than the true one, and never more than the largest counted.
func (h *hist) quantile(q float64) time.Duration {
	want := uint64(math.Ceil(q * float64(h.count)))
	seen := uint64(0)
	for i, n := range h.n {
		seen += uint64(n)
		if seen >= max(want, 1) {
			if i == maxBucket {
				break
			}
			return min(bucketTop(i), h.max)
		}
	}
	return h.max
}

func (h *hist) mean() time.Duration {
	if h.count == 0 {
		return 0
	}
	return h.sum / time.Duration(h.count)
}
