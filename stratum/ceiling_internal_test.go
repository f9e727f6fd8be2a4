package stratum

import (
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/stretchr/testify/require"
)

func TestShareCeiling(t *testing.T) {
	for _, test := range []struct {
		name string
		bits uint32
		want difficulty.Difficulty
	}{
		{"mainnet at height 840,000, where it is 86,388,558,925,171.02", 0x17034219, 86388558925171},
		{"mainnet at height 30,240, where it is 1.18", 0x1d00d86a, 1},
		{"the genesis block", 0x1d00ffff, 1},
		{"signet, where it is 0.00112", 0x1e0377ae, 1. / 1024},
		{"a regtest, where it is 2^-31 but for a millionth", 0x207fffff, 1. / (1 << 32)},
		{"the hardest there can be", 0x01010000, difficulty.Max},
	} {
		t.Run(test.name, func(t *testing.T) {
			target, err := difficulty.FromBits(test.bits)
			require.NoError(t, err)
			require.Equal(t, test.want, shareCeiling(target))
		})
	}
}

// Every hash that is a block is a share, and no higher difficulty has that, for targets in the neighbourhood of whole
// difficulties above all: a difficulty as a float64 does not tell those apart.
func TestShareCeilingIsTheHighestThatLosesNoBlock(t *testing.T) {
	rnd := rand.New(rand.NewPCG(4, 4))
	one := new(big.Int).Lsh(big.NewInt(0xffff), 208)
	limit := new(big.Int).Lsh(big.NewInt(1), 256)
	for i := range 20_000 {
		var target *big.Int
		if i%2 == 0 {
			target = new(big.Int).Div(one, big.NewInt(1+rnd.Int64N(1<<rnd.IntN(62)+1)))
		} else {
			target = new(big.Int).Mul(one, new(big.Int).Lsh(big.NewInt(1), uint(rnd.IntN(32))))
		}
		target.Add(target, big.NewInt(rnd.Int64N(5)-2))
		if target.Cmp(limit) >= 0 || target.Sign() <= 0 {
			continue
		}
		var b [32]byte
		target.FillBytes(b[:])
		network := difficulty.FromBytes(&b)
		d := shareCeiling(network)
		require.True(t, d.Assignable() && d >= difficulty.Min && d <= difficulty.Max, "%v", d)
		require.GreaterOrEqual(t, d.Target().Cmp(network), 0, "%v loses blocks of %v", d, network)
		next := 2 * d
		if d >= 1 && d < 1<<53 {
			next = d + 1
		}
		if d < difficulty.Max && d < 1<<53 {
			require.Negative(t, next.Target().Cmp(network), "%v would do for %v, not %v alone", next, network, d)
		}
	}
}
