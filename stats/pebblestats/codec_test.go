package pebblestats

import (
	"math"
	"net/netip"
	"testing"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stats"
	"github.com/stretchr/testify/require"
)

func TestAmounts(t *testing.T) {
	for _, v := range []float64{0, 1, 0.5, 1.0 / (1 << 32), 16384, 1<<53 - 1, 1 << 53, 1 << 62, 3.25, 1e100, -1} {
		b := appendAmount(nil, difficulty.Difficulty(v))
		d := decoder{b: b}
		require.Equal(t, v, float64(d.amount()))
		require.NoError(t, d.done("amount"))
	}
	require.Equal(t, []byte{0x80, 0x80, 2}, appendAmount(nil, 16384), "three bytes for a usual share")
	d := decoder{b: appendAmount(nil, difficulty.Difficulty(math.NaN()))}
	d.amount()
	require.ErrorIs(t, d.done("amount"), ErrCorrupt)
}

func TestAfter(t *testing.T) {
	require.Equal(t, []byte("b"), after([]byte("a")))
	require.Equal(t, []byte("b"), after([]byte("a\xff")))
	require.Nil(t, after([]byte("\xff\xff")))
}

// FuzzDecode feeds the decoders anything; what they take must come back the same after encoding it again.
func FuzzDecode(f *testing.F) {
	total, err := appendTotal(nil, &stats.Total{
		AcceptCount: 5, Accepted: stats.Tally{Count: 2, Sum: 0.25},
		Other: []stats.VerdictTally{{Verdict: share.Duplicate, Tally: stats.Tally{Count: 1, Sum: 7}}},
		First: time.Unix(1e9, 0), LastIP: netip.MustParseAddr("10.1.2.3"), Round: 3,
	})
	require.NoError(f, err)
	f.Add(total)
	f.Add(appendBucket(nil, &stats.Bucket{Accepted: stats.Tally{Count: 1, Sum: 16384}}))
	f.Add(appendRound(nil, &stats.Round{JobID: 1 << 63, Height: 840000, Nonce: 5, Bits: 0x1d00ffff, Shares: 1.5}))
	f.Add(appendUsers(nil, []stats.UserShares{{UserID: 1, Shares: 2}, {UserID: 2, Shares: 0.5}}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, in []byte) {
		var b, b2 stats.Bucket
		if decodeBucket(in, &b) == nil {
			require.NoError(t, decodeBucket(appendBucket(nil, &b), &b2))
			require.Equal(t, b, b2)
		}
		var o, o2 stats.Total
		if decodeTotal(in, &o) == nil {
			v, err := appendTotal(nil, &o)
			require.NoError(t, err)
			require.NoError(t, decodeTotal(v, &o2))
			require.Equal(t, o, o2)
		}
		var r, r2 stats.Round
		if decodeRound(in, &r) == nil {
			require.NoError(t, decodeRound(appendRound(nil, &r), &r2))
			require.Equal(t, r, r2)
		}
		if u, err := decodeUsers(in); err == nil {
			u2, err := decodeUsers(appendUsers(nil, u))
			require.NoError(t, err)
			require.Equal(t, u, u2)
		}
		decodeBucketKey(in, &b)
	})
}
