package stats

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWindowVectors(t *testing.T) {
	w := NewWindow(5)
	require.Zero(t, w.Sum(0, 5), "a window that never saw anything")
	for i := range 5 {
		require.True(t, w.Insert(int64(i), float64(i+1)))
	}
	require.Equal(t, 5.0, w.Sum(4, 1))
	require.Equal(t, 9.0, w.Sum(4, 2))
	require.Equal(t, 15.0, w.Sum(4, 5))
	require.Equal(t, 15.0, w.Sum(4, 99), "n is bounded by the slots")
	require.Zero(t, w.Sum(4, 0))
	require.True(t, w.Insert(8, 9))
	require.Equal(t, 14.0, w.Sum(8, 5))
	require.Equal(t, 9.0, w.Sum(10, 5))
	require.Zero(t, w.Sum(13, 5))
	require.True(t, w.Insert(7, 8))
	require.Equal(t, 22.0, w.Sum(8, 5))
	require.True(t, w.Insert(6, 7))
	require.Equal(t, 29.0, w.Sum(8, 5))
	require.True(t, w.Insert(5, 6))
	require.Equal(t, 35.0, w.Sum(8, 5))
}

func TestWindowTraps(t *testing.T) {
	t.Run("a slot W below the newest is refused", func(t *testing.T) {
		w := NewWindow(5)
		w.Insert(8, 9)
		require.False(t, w.Insert(3, 100))
		require.Equal(t, 9.0, w.Sum(8, 5))
		require.True(t, w.Insert(4, 1))
	})
	t.Run("a sum that begins below the window reads no reused slot", func(t *testing.T) {
		w := NewWindow(5)
		for i := range 9 {
			w.Insert(int64(i), 1)
		}
		require.Equal(t, 3.0, w.Sum(6, 5), "slots 2 and 3 have left")
	})
	t.Run("indices below zero", func(t *testing.T) {
		w := NewWindow(5)
		require.True(t, w.Insert(-3, 2))
		require.True(t, w.Insert(1, 4))
		require.Equal(t, 6.0, w.Sum(1, 5))
	})
	t.Run("a jump clears everything", func(t *testing.T) {
		w := NewWindow(5)
		w.Insert(1, 1)
		w.Insert(1+1<<16, 2)
		require.Equal(t, 2.0, w.Sum(1+1<<16, 5))
		require.Equal(t, 0.0, w.Sum(1, 1))
	})
	t.Run("amounts that are no numbers", func(t *testing.T) {
		w := NewWindow(5)
		require.False(t, w.Insert(1, math.NaN()))
		require.False(t, w.Insert(1, math.Inf(1)))
		require.False(t, w.Insert(1, 1<<127))
		require.True(t, w.Insert(1, 0))
	})
	t.Run("the zero value", func(t *testing.T) {
		var w Window
		require.False(t, w.Insert(1, 1))
		require.Zero(t, w.Sum(1, 1))
		w.Scale(2)
		w.Clear()
	})
}

func TestWindowScaleAndClear(t *testing.T) {
	w := NewWindow(5)
	w.Insert(1, 3)
	w.Insert(3, 1<<40+1)
	w.Scale(0.5)
	require.Equal(t, 1.5+(1<<40+1)/2.0, w.Sum(3, 5))
	w.Scale(math.NaN())
	require.Equal(t, 1.5, w.Sum(2, 5))
	w.Clear()
	require.Zero(t, w.Sum(3, 5))
	require.True(t, w.Insert(0, 1), "the newest index is forgotten")
	require.Equal(t, 5, w.Slots())
}

// dense is the window as the specification draws it.
type dense struct {
	slot []float64
	max  int64
	set  bool
}

func (d *dense) insert(i int64, v float64) bool {
	n := int64(len(d.slot))
	mod := func(i int64) int64 { return ((i % n) + n) % n }
	if d.set && i <= d.max-n {
		return false
	}
	if !d.set || i-d.max > n {
		clear(d.slot)
		d.max, d.set = i, true
	}
	for d.max < i {
		d.max++
		d.slot[mod(d.max)] = 0
	}
	d.slot[mod(i)] += v
	return true
}

func (d *dense) sum(b int64, n int) (s float64) {
	l := int64(len(d.slot))
	if !d.set {
		return 0
	}
	for k := max(b-int64(min(n, int(l)))+1, d.max-l+1); k <= min(b, d.max); k++ {
		s += d.slot[((k%l)+l)%l]
	}
	return s
}

func TestWindowIsTheDenseOne(t *testing.T) {
	for _, slots := range []int{1, 2, 5, 60, 360, 3600, MaxSlots} {
		t.Run(fmt.Sprint(slots, " slots"), func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, uint64(slots)))
			w, d := NewWindow(slots), dense{slot: make([]float64, slots)}
			now := int64(1713597568)
			for step := range 20000 {
				now += int64(r.IntN(3))
				if r.IntN(500) == 0 {
					now += int64(r.IntN(3 * slots))
				}
				i := now - int64(r.IntN(max(2, min(slots, 40))))
				if r.IntN(50) == 0 {
					i = now - int64(r.IntN(2*slots))
				}
				v := math.Ldexp(1, r.IntN(36)) // sums stay below 2^53 and so exact in any order
				if r.IntN(10) == 0 {
					v = float64(r.Int64N(1 << 36))
				}
				require.Equal(t, d.insert(i, v), w.Insert(i, v))
				if step%97 == 0 {
					b := now + int64(r.IntN(5)) - 2
					ns := []int{0, 1, r.IntN(slots) + 1, slots, slots + 7}
					if ns[2] < 1 || ns[2] > slots {
						ns[2] = 1
					}
					dst := make([]float64, len(ns))
					w.Sums(dst, b, ns)
					for j, n := range ns {
						require.Equal(t, d.sum(b, n), w.Sum(b, n), "n=%d", n)
						require.Equal(t, w.Sum(b, n), dst[j], "Sums n=%d", n)
					}
				}
			}
		})
	}
}

// TestWindowKeepsEveryBit fills one slot with amounts that share no scale.
func TestWindowKeepsEveryBit(t *testing.T) {
	w := NewWindow(10)
	var sum float64
	for _, v := range []float64{1 << 51, 1, 1 << 30, 3, 1 << 25, 1 << 51, 7} {
		w.Insert(5, v)
		sum += v
		require.Equal(t, sum, w.Sum(5, 1))
	}
	w.Insert(7, 1)
	w.Insert(6, 1<<51+1)
	require.Equal(t, sum+(1<<51+1)+1, w.Sum(7, 10))
	require.Equal(t, float64(1<<51+1), w.Sum(6, 1))
	require.LessOrEqual(t, int(w.n), 3+1+3)
	oldest, ok := w.Oldest(7, 2)
	require.True(t, ok)
	require.Equal(t, int64(6), oldest)
	_, ok = w.Oldest(4, 10)
	require.False(t, ok)
}

func TestWindowCoarsen(t *testing.T) {
	w := NewWindow(3600)
	var want float64
	for i := range int64(3600) {
		v := float64(i%7 + 1)
		w.Insert(1000+i, v)
		if (1000+i)/10 > 4599/10-30 {
			want += v
		}
	}
	w.coarsen(10)
	require.Equal(t, 360, w.Slots())
	require.Equal(t, want, w.Sum(4599/10, 30))
	require.LessOrEqual(t, int(w.n), 360)
}

func FuzzWindow(f *testing.F) {
	f.Add([]byte{1, 2, 3, 255, 0, 9, 9})
	f.Add([]byte("\x00\x10\x80\xff\x01\x02\x03\x04\x05"))
	f.Fuzz(func(t *testing.T, in []byte) {
		w, d := NewWindow(7), dense{slot: make([]float64, 7)}
		now := int64(20)
		for _, b := range in {
			now += int64(b & 3)
			i := now - int64(b>>2&15)
			v := math.Ldexp(1, int(b))
			if b > 52 {
				v = float64(b)
			}
			if got, want := w.Insert(i, v), d.insert(i, v); got != want {
				t.Fatalf("insert(%d) = %v, want %v", i, got, want)
			}
			for n := range 9 {
				if got, want := w.Sum(now, n), d.sum(now, n); got != want {
					t.Fatalf("sum(%d, %d) = %v, want %v", now, n, got, want)
				}
			}
		}
	})
}

func BenchmarkWindowInsert(b *testing.B) {
	w := NewWindow(3600)
	b.ReportAllocs()
	i := int64(0)
	for b.Loop() {
		i++
		w.Insert(i/4, 16384)
	}
}

func BenchmarkWindowSums(b *testing.B) {
	w := NewWindow(3600)
	for i := range 3600 {
		w.Insert(int64(i), 16384)
	}
	var dst [5]float64
	b.ReportAllocs()
	for b.Loop() {
		w.Sums(dst[:], 3599, []int{60, 300, 900, 1800, 3600})
	}
}
