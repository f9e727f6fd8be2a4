package main

import (
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/poolkit/poolkit/block/regtest"
	"github.com/poolkit/poolkit/sharelog"
	"github.com/stretchr/testify/require"
)

// What a newcomer sees: jobs, accepted shares, a block that the chain confirms, and the statistics; a stop within five
// seconds; and after the next start, everything where it was.
func TestThePoolOnItsOwnChain(t *testing.T) {
	data := t.TempDir()
	// Shares are easier than the blocks here, so that there are some of both within seconds.
	args := []string{"-data", data, "-diff", "0.0001220703125", "-vardiff=false"}
	p := start(t, args...)
	p.log.await(t, `msg="job sent" .* transactions=[1-9]`, p.ended)
	p.log.await(t, `msg="block accepted"`, p.ended)
	confirmed := p.log.await(t, `msg="block immature" chain=regtest height=(\d+) hash=([0-9a-f]{64})`, p.ended)
	height, hash := confirmed[1], confirmed[2]
	pays := p.log.await(t, `pays=(\S+)`, p.ended)[1]

	p.eventually("shares of the CPU miner in the statistics", func() bool {
		_, code := p.tryGet("/api/accounts/fullpool")
		return code == 200 && p.number("/api/accounts/fullpool", "stats", "blocksFound") >= 1
	})
	stats := p.get("/api/stats")
	require.Subset(t, keys(stats), []string{"now", "nodes", "stats", "hashrate", "minersTotal", "candidatesTotal", "immatureTotal", "maturedTotal"})
	require.Equal(t, 1.0, stats["minersTotal"])
	require.Greater(t, stats["hashrate"], 0.0)
	miners := p.get("/api/miners")
	require.Contains(t, miners["miners"], "fullpool")
	blocks := p.get("/api/blocks")
	require.Subset(t, keys(blocks), []string{"candidates", "candidatesTotal", "immature", "immatureTotal", "matured", "maturedTotal", "luck"})
	require.Contains(t, hashes(blocks), hash)
	account := p.get("/api/accounts/fullpool")
	require.Contains(t, account["workers"], "cpu")
	_, code := p.tryGet("/api/accounts/nobody")
	require.Equal(t, 404, code)

	found := account["stats"].(map[string]any)["blocksFound"].(float64)
	began := time.Now()
	require.Equal(t, 0, p.stop())
	took := time.Since(began)
	t.Logf("stopped in %v", took)
	require.Less(t, took, 5*time.Second)
	require.NotContains(t, p.log.String(), "level=ERROR")

	// The chain has the block, and it is one of the pool's.
	chain, err := regtest.Open(filepath.Join(data, "chain"), nil)
	require.NoError(t, err)
	id, err := chainhash.NewHashFromStr(hash)
	require.NoError(t, err)
	b, err := chain.Block(*id)
	require.NoError(t, err)
	require.Contains(t, string(b.Transactions[0].TxIn[0].SignatureScript), "/poolkit/")
	require.Equal(t, pays, chain.ThrowawayAddress().String())
	tip := chain.Height()
	require.NoError(t, chain.Close())
	logged := len(readLog(t, data))
	require.Positive(t, logged)

	// The second start goes on where the first one stopped.
	p = start(t, append(args, "-mine", "0")...)
	require.Equal(t, pays, p.log.await(t, `pays=(\S+)`, p.ended)[1])
	p.eventually("the counts of the first run", func() bool {
		return p.number("/api/accounts/fullpool", "stats", "blocksFound") >= found
	})
	require.Contains(t, hashes(p.get("/api/blocks")), hash)
	m := p.log.await(t, `msg="job sent" .* height=(\d+)`, p.ended)
	require.Greater(t, integer(t, m[1]), integer(t, height))
	require.Equal(t, 0, p.stop())
	require.GreaterOrEqual(t, len(readLog(t, data)), logged)
	chain, err = regtest.Open(filepath.Join(data, "chain"), nil)
	require.NoError(t, err)
	require.GreaterOrEqual(t, chain.Height(), tip)
	require.NoError(t, chain.Close())
}

func integer(t testing.TB, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	require.NoError(t, err)
	return n
}

func keys(m map[string]any) []string {
	var names []string
	for k := range m {
		names = append(names, k)
	}
	return names
}

func hashes(blocks map[string]any) []string {
	var out []string
	for _, list := range []string{"candidates", "immature", "matured"} {
		for _, b := range blocks[list].([]any) {
			out = append(out, b.(map[string]any)["hash"].(string))
		}
	}
	return out
}

// readLog reads every record there is; a file that cannot be read fails the test.
func readLog(t testing.TB, data string) []string {
	t.Helper()
	var ids []string
	for _, s := range readShares(t, data) {
		ids = append(ids, s.ID().String())
	}
	sorted := slices.Sorted(slices.Values(ids))
	require.Equal(t, len(sorted), len(slices.Compact(slices.Clone(sorted))), "a record stands twice in the log")
	return ids
}

func openLog(t testing.TB, data string) *sharelog.Dir {
	t.Helper()
	dir, err := sharelog.OpenDir(filepath.Join(data, "sharelog"), &sharelog.DirOptions{ReadOnly: true})
	require.NoError(t, err)
	t.Cleanup(func() { dir.Close() })
	return dir
}
