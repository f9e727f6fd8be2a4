package stratum

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The last prefixes of a server, with all but three of its 16,777,214 in use.
func TestTheLastPrefixesOfAServer(t *testing.T) {
	p := NewPrefixes(255, time.Minute)
	now := time.Unix(1e9, 0)
	require.Equal(t, 16777214, p.free)
	for i := range p.held {
		p.held[i] = ^uint64(0)
	}
	for _, i := range []uint32{0, 77, 16777213} {
		p.held[i/64] &^= 1 << (i % 64)
	}
	p.free, p.next = 3, 77
	for _, want := range []uint32{0xff00004d, 0xfffffffd, 0xff000000} {
		prefix, err := p.Lease(now)
		require.NoError(t, err)
		require.Equal(t, want, prefix)
	}
	_, err := p.Lease(now)
	require.ErrorIs(t, err, ErrNoExtranonce)
	p.Release(0xff000007, now)
	_, err = p.Lease(now.Add(59 * time.Second))
	require.ErrorIs(t, err, ErrNoExtranonce, "it is in quarantine")
	prefix, err := p.Lease(now.Add(time.Minute))
	require.NoError(t, err)
	require.Equal(t, uint32(0xff000007), prefix)
}
