package stratum_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum"
	"github.com/stretchr/testify/require"
)

func TestSingleUserCredits(t *testing.T) {
	alice := share.Worker{User: "alice", Name: "rig01"}
	pool := stratum.SingleUser{Name: "pool", UserID: 3}
	w, id, ext := pool.Credit(alice, 7)
	require.Equal(t, share.Worker{User: "pool", Name: "alice.rig01"}, w)
	require.Equal(t, "pool.alice.rig01", w.String())
	require.Equal(t, []int32{3, 7}, []int32{id, ext})
	require.Equal(t, int64(-4182293149444991612), w.ID(), "as BTCPool numbers alice.rig01")

	w, id, ext = stratum.SingleUser{}.Credit(alice, 7)
	require.Equal(t, alice, w)
	require.Equal(t, []int32{7, 0}, []int32{id, ext})

	long := share.Worker{User: strings.Repeat("u", 30), Name: strings.Repeat("m", share.MaxWorkerName)}
	w, _, _ = pool.Credit(long, 7)
	require.Equal(t, long.String(), w.Name, "the machines of a long name stay apart")
}

func ExampleSingleUser() {
	pool := stratum.SingleUser{Name: "pool", UserID: 3}
	w, id, ext := pool.Credit(share.Worker{User: "alice", Name: "rig01"}, 7)
	fmt.Println(w, id, ext)
	// Output: pool.alice.rig01 3 7
}
