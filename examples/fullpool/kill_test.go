package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/poolkit/poolkit/block"
	"github.com/poolkit/poolkit/block/regtest"
	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/sharelog"
	"github.com/poolkit/poolkit/stats"
	"github.com/poolkit/poolkit/stats/pebblestats"
	"github.com/poolkit/poolkit/stratum/stratumtest"
	"github.com/stretchr/testify/require"
)

// An ack is a share that a miner was told is accepted.
type ack struct {
	key  string
	at   time.Time
	hash string // where it is a block
}

// keyOf names a share by what both the miner and the log know of it.
func keyOf(nonce, bitsReached uint32) string { return fmt.Sprintf("%08x/%08x", nonce, bitsReached) }

// Kill -9 at random moments under load: every share that was acknowledged more than two seconds before the kill is in
// the log exactly once, every file is readable, no block is lost, and the statistics agree with the log.
func TestKilledAtAnyMomentThePoolLosesNothing(t *testing.T) {
	kills := 20
	if testing.Short() {
		kills = 3
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	data := t.TempDir()
	args := []string{"-data", data, "-mine", "0", "-diff", easy, "-vardiff=false"}

	var must, may []ack // acknowledged before the last two seconds of a life, and within them
	for round := range kills {
		p := spawn(t, args...)
		acks, stop, solved := mineOn(t, p.miners, 2)
		life := 2500*time.Millisecond + time.Duration(rnd.Int64N(int64(2*time.Second))) // beyond two seconds, or no share must be there
		if round%2 == 0 {
			solved = nil
		}
		select {
		case <-solved: // the moment at which there is most to lose
		case <-time.After(life):
		case <-p.ended:
			t.Fatalf("round %d: the pool ended by itself:\n%s", round, p.log)
		}
		killed := time.Now()
		require.NoError(t, p.process.Kill())
		<-p.ended
		for _, a := range append(acks(), stop()...) {
			if a.at.Before(killed.Add(-2 * time.Second)) {
				must = append(must, a)
			} else {
				may = append(may, a)
			}
		}
		require.NotContains(t, p.log.String(), "level=ERROR")
	}
	require.NotEmpty(t, must)

	// One more life, which ends well, settles what was pending.
	p := spawn(t, args...)
	var blocks []string
	for _, a := range append(append([]ack(nil), must...), may...) {
		if a.hash != "" {
			blocks = append(blocks, a.hash)
		}
	}
	p.eventually("the blocks being on record", func() bool {
		known := hashes(p.get("/api/blocks"))
		for _, hash := range blocks {
			if !contains(known, hash) {
				return false
			}
		}
		return true
	})
	want := 0.0
	for _, s := range readShares(t, data) {
		if s.Verdict.Accepted() {
			want += float64(s.Difficulty)
		}
	}
	p.eventually("the statistics having read the log", func() bool { return counted(p) >= want })
	require.Equal(t, 0, p.stop())

	logged := make(map[string]int)
	for _, s := range readShares(t, data) {
		logged[keyOf(s.Nonce, s.BitsReached)]++
	}
	for _, a := range must {
		require.Equal(t, 1, logged[a.key], "share %s, acknowledged at %v", a.key, a.at)
	}
	kept := 0
	for _, a := range may {
		require.LessOrEqual(t, logged[a.key], 1, "share %s", a.key)
		kept += logged[a.key]
	}
	t.Logf("%d kills: %d shares acknowledged in time, all in the log once; of %d in the last two seconds %d; %d blocks",
		kills, len(must), len(may), kept, len(blocks))

	// What is stored is what the log says, and each file of the folder opens.
	requireCounted(t, data)
	found, err := block.OpenFile(filepath.Join(data, "blocks.jsonl"), nil)
	require.NoError(t, err)
	defer found.Close()
	records, err := found.Found(t.Context(), block.Query{})
	require.NoError(t, err)
	require.Zero(t, found.Damaged())
	chain, err := regtest.Open(filepath.Join(data, "chain"), nil)
	require.NoError(t, err)
	defer chain.Close()
	recorded := make(map[string]bool)
	for _, f := range records {
		recorded[f.Hash.String()] = true
		require.True(t, f.Outcome == block.Accepted || f.Outcome == block.Stale, "block %d %v: %v %s", f.Height, f.Hash, f.Outcome, f.Reason)
		_, err := chain.Block(f.Hash)
		require.NoError(t, err, "a block that is on record as accepted is not in the chain")
	}
	// Nobody else mines here: a block of the chain is one of the pool's, but for those that every chain begins with.
	for h := chain.Height(); h > 0; h-- {
		hash, err := chain.BlockHash(h)
		require.NoError(t, err)
		b, err := chain.Block(hash)
		require.NoError(t, err)
		if strings.Contains(string(b.Transactions[0].TxIn[0].SignatureScript), "/poolkit/") {
			require.True(t, recorded[hash.String()], "block %d of the pool is in the chain and not on record", h)
		}
	}
}

// requireCounted compares the statistics that a pool has stored with its log.
func requireCounted(t testing.TB, data string) {
	t.Helper()
	total, accepted := difficulty.Difficulty(0), uint64(0)
	for _, s := range readShares(t, data) {
		if s.Verdict.Accepted() {
			total += s.Difficulty
			accepted++
		}
	}
	require.NotZero(t, accepted)
	store, err := pebblestats.Open(filepath.Join(data, "stats"), nil)
	require.NoError(t, err)
	defer store.Close()
	totals, err := stats.New(nil)
	require.NoError(t, err)
	_, err = totals.Restore(t.Context(), store)
	require.NoError(t, err)
	pool := totals.Snapshot(time.Now()).Pool
	require.Equal(t, accepted, pool.AcceptCount)
	require.Equal(t, total, pool.Accepted.Sum)
}

// counted is the difficulty that the statistics have counted: the rounds that blocks closed, and the open one.
func counted(p *running) float64 {
	sum := 0.0
	blocks := p.get("/api/blocks")
	for _, list := range []string{"candidates", "immature", "matured"} {
		for _, b := range blocks[list].([]any) {
			sum += b.(map[string]any)["shares"].(float64)
		}
	}
	if round, ok := p.get("/api/stats")["stats"].(map[string]any)["roundShares"].(float64); ok {
		sum += round
	}
	return sum
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

// mineOn runs miners until stop is called, which returns what acks has not yet. solved is sent to when a miner is about
// to submit a block.
func mineOn(t testing.TB, addr string, miners int) (acks, stop func() []ack, solved chan struct{}) {
	solved = make(chan struct{}, 1)
	var mu sync.Mutex
	var list []ack
	take := func() []ack {
		mu.Lock()
		defer mu.Unlock()
		out := list
		list = nil
		return out
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range miners {
		wg.Go(func() {
			m, err := stratumtest.Dial(ctx, addr, &stratumtest.MinerOptions{
				User:     fmt.Sprintf("user%d.rig", i),
				Hashrate: 700_000,
				Hooks: stratumtest.Hooks{
					OnSubmit: func(s stratumtest.Share) {
						if isBlock(&s) {
							select {
							case solved <- struct{}{}:
							default:
							}
						}
					},
					OnReply: func(s stratumtest.Share, r stratumtest.Reply) {
						if r.Err() != nil {
							return
						}
						a := ack{key: keyOf(s.Nonce, difficulty.FromHash(&s.Hash).Bits()), at: time.Now()}
						if isBlock(&s) {
							a.hash = s.BlockHash()
						}
						mu.Lock()
						list = append(list, a)
						mu.Unlock()
					},
				},
			})
			if err != nil {
				t.Errorf("miner %d: %v", i, err)
				return
			}
			defer m.Close()
			m.Run(ctx) // ends with the pool
		})
	}
	return take, func() []ack { cancel(); wg.Wait(); return take() }, solved
}

func isBlock(s *stratumtest.Share) bool {
	network, err := difficulty.FromBits(binary.LittleEndian.Uint32(s.Header[72:]))
	return err == nil && network.MetBy(&s.Hash)
}

func readShares(t testing.TB, data string) []share.Share {
	t.Helper()
	var shares []share.Share
	for s, err := range sharelog.NewReader(openLog(t, data), sharelog.Position{}, 0).All(t.Context()) {
		var damage *sharelog.DamageError
		if errors.As(err, &damage) {
			t.Fatalf("the log is damaged: %v", err)
		}
		require.NoError(t, err)
		shares = append(shares, s)
	}
	return shares
}
