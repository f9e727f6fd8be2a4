package stats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/share"
	"github.com/stretchr/testify/require"
)

const t0 = 1713597568

// A clock is set by hand.
type clock struct{ now int64 }

func (c *clock) time() time.Time { return time.Unix(c.now, 0).UTC() }

func newAgg(t testing.TB, o Options) (*Aggregator, *clock) {
	c := &clock{t0}
	if o.Now == nil {
		o.Now = c.time
	}
	a, err := New(&o)
	require.NoError(t, err)
	return a, c
}

func shareAt(user int32, worker int64, at int64, v share.Verdict, d difficulty.Difficulty) share.Share {
	return share.Share{
		UserID: user, WorkerID: worker, Verdict: v, Time: time.Unix(at, 0), Difficulty: d,
		JobID: 0x66236c8000000001, Bits: 0x17034219, Height: 840000, IP: netip.MustParseAddr("10.1.2.3"),
	}
}

func put(t testing.TB, a *Aggregator, shares ...share.Share) {
	t.Helper()
	require.NoError(t, a.Put(context.Background(), shares))
}

func workerOf(t testing.TB, a *Aggregator, now int64, k Key) WorkerStats {
	t.Helper()
	for _, w := range a.Workers(time.Unix(now, 0), k.UserID) {
		if w.Key == k {
			return w
		}
	}
	t.Fatalf("worker %v is not there", k)
	return WorkerStats{}
}

// TestWindowsOfTheSpecification is the example of accepted and rejected shares that BTCPool's counters are explained
// with, in slots of a second and of ten.
func TestWindowsOfTheSpecification(t *testing.T) {
	for _, c := range []struct {
		slot                time.Duration
		m1, m5, m15, h1     difficulty.Difficulty
		rejected15, reject1 difficulty.Difficulty
	}{
		{time.Second, 196608, 229376, 262144, 294912, 16384, 49152},
		{10 * time.Second, 131072, 196608, 262144, 294912, 16384, 49152},
	} {
		t.Run(c.slot.String(), func(t *testing.T) {
			a, _ := newAgg(t, Options{AcceptSlot: c.slot})
			for _, s := range []struct {
				ago int64
				d   difficulty.Difficulty
			}{{3500, 16384}, {1000, 16384}, {400, 32768}, {299, 32768}, {59, 65536}, {10, 65536}, {0, 65536}} {
				put(t, a, shareAt(42, 1, t0-s.ago, share.Accepted, s.d))
			}
			for _, ago := range []int64{3500, 870, 20} {
				put(t, a, shareAt(42, 1, t0-ago, share.LowDifficulty, 16384))
			}
			snap := a.Snapshot(time.Unix(t0, 0))
			for who, l := range map[string]Live{
				"worker": workerOf(t, a, t0, Key{42, 1}).Live, "user": snap.Users[0].Live, "pool": snap.Pool,
			} {
				require.Equal(t, []difficulty.Difficulty{c.m1, c.m5, c.m15, c.h1},
					[]difficulty.Difficulty{l.Accept1m, l.Accept5m, l.Accept15m, l.Accept1h}, who)
				require.Equal(t, c.rejected15, l.Reject15m, who)
				require.Equal(t, c.reject1, l.Reject1h, who)
				require.Equal(t, []VerdictSums{{share.LowDifficulty, 16384, 49152}}, l.Rejects, who)
				require.EqualValues(t, 7, l.AcceptCount, who)
				require.Equal(t, Tally{7, 294912}, l.Accepted, who)
				require.Equal(t, time.Unix(t0, 0).UTC(), l.LastShare, who)
				require.Equal(t, time.Unix(t0-3500, 0).UTC(), l.FirstShare, who)
				require.Equal(t, "10.1.2.3", l.LastIP.String(), who)
			}
			require.Equal(t, 1, snap.TotalUsers)
			require.Equal(t, 1, snap.TotalWorkers)
		})
	}
}

func TestHashrates(t *testing.T) {
	for _, c := range []struct {
		sum  difficulty.Difficulty
		span time.Duration
		want float64
	}{
		{196608, time.Minute, 14.0737488355328e12},
		{229376, 5 * time.Minute, 3.283874728e12},
		{294912, time.Hour, 0.351843721e12},
		{1, 10 * time.Second, 0.4294967296e9},
		{32000000000, 10 * time.Second, 13743895347.2e9},
	} {
		require.InEpsilon(t, c.want, float64(difficulty.HashrateOf(c.sum, c.span)), 1e-9)
	}
}

// TestBTCPoolCapture feeds the share that a running BTCPool had seen and compares what it served.
func TestBTCPoolCapture(t *testing.T) {
	dump, err := os.ReadFile("testdata/slparser-dump.txt")
	require.NoError(t, err)
	line := regexp.MustCompile(`userId: (\d+), workerId: (\d+), time: (\d+)/.* shareDiff: (\d+),.* status: (\d+)/`)
	m := line.FindSubmatch(dump)
	require.NotNil(t, m)
	num := func(i int) int64 {
		n, err := strconv.ParseInt(string(m[i]), 10, 64)
		require.NoError(t, err)
		return n
	}
	v, ok := share.VerdictOf(int32(num(5)))
	require.True(t, ok)
	s := shareAt(int32(num(1)), num(2), num(3), v, difficulty.Difficulty(num(4)))
	s.IP = netip.MustParseAddr("127.0.0.1")

	doc, err := os.ReadFile("testdata/statshttpd.txt")
	require.NoError(t, err)
	date := regexp.MustCompile(`Date: (.*)`).FindSubmatch(doc)
	now, err := time.Parse(time.RFC1123, strings.TrimSpace(string(date[1])))
	require.NoError(t, err)
	type counters struct {
		Accept        [4]float64 `json:"accept"`
		Reject        [4]float64 `json:"reject"`
		AcceptCount   uint64     `json:"accept_count"`
		LastShareIP   string     `json:"last_share_ip"`
		LastShareTime int64      `json:"last_share_time"`
	}
	a, c := newAgg(t, Options{})
	c.now = now.Unix()
	put(t, a, s)
	check := func(want counters, got Live) {
		// BTCPool's last releases no longer count the first minute and serve 0; this share is older in any case.
		require.Equal(t, want.Accept, [4]float64{
			float64(got.Accept1m), float64(got.Accept5m), float64(got.Accept15m), float64(got.Accept1h)})
		require.Equal(t, want.Reject, [4]float64{0, 0, float64(got.Reject15m), float64(got.Reject1h)})
		require.Equal(t, want.AcceptCount, got.AcceptCount)
		if want.LastShareIP != "" {
			require.Equal(t, want.LastShareIP, got.LastIP.String())
			require.Equal(t, want.LastShareTime, got.LastShare.Unix())
		}
	}
	n := 0
	for line := range strings.Lines(string(doc)) {
		var pool struct {
			Data struct {
				Pool counters `json:"pool"`
			} `json:"data"`
		}
		var workers struct {
			Data map[string]json.RawMessage `json:"data"`
		}
		if !strings.HasPrefix(line, "{") {
			continue
		}
		require.NoError(t, json.Unmarshal([]byte(line), &pool))
		require.NoError(t, json.Unmarshal([]byte(line), &workers))
		if workers.Data["pool"] != nil {
			check(pool.Data.Pool, a.Snapshot(now).Pool)
			n++
			continue
		}
		for id, raw := range workers.Data {
			var w counters
			switch id {
			case "flush_db_time":
				continue
			case "0":
				require.NoError(t, json.Unmarshal(raw, &w))
				u, ok := a.User(now, s.UserID)
				require.True(t, ok)
				check(w, u.Live)
				require.Equal(t, 1, u.Workers)
			default:
				require.NoError(t, json.Unmarshal(raw, &w))
				require.Equal(t, fmt.Sprint(s.WorkerID), id)
				check(w, workerOf(t, a, c.now, Key{s.UserID, s.WorkerID}).Live)
			}
			n++
		}
	}
	require.Equal(t, 3, n, "documents compared")
}

func TestAgeOfShares(t *testing.T) {
	for _, c := range []struct {
		name       string
		age        int64
		live, kept bool
		stat       func(Stats) uint64
	}{
		{"an hour late", 3600, false, true, nil}, // out of the window, but not late
		{"one second less than an hour late", 3599, true, true, nil},
		{"more than an hour late", 3601, false, true, func(s Stats) uint64 { return s.Late }},
		{"a minute ahead", -60, true, true, nil},
		{"more than a minute ahead", -61, false, false, func(s Stats) uint64 { return s.Future }},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, _ := newAgg(t, Options{})
			put(t, a, shareAt(1, 1, t0-c.age, share.Accepted, 8))
			end := int64(t0)
			if c.age < 0 {
				end -= c.age
			}
			s := a.Snapshot(time.Unix(end, 0))
			want := func(b bool) difficulty.Difficulty {
				if b {
					return 8
				}
				return 0
			}
			require.Equal(t, want(c.live), s.Pool.Accept1h)
			require.Equal(t, want(c.kept), s.Pool.Accepted.Sum)
			require.Equal(t, want(c.kept), s.RoundShares)
			require.Equal(t, want(c.kept), s.Pool.Large.Sum)
			if c.stat != nil {
				require.EqualValues(t, 1, c.stat(a.Stats()))
			}
			// An honest share is counted after it in any case.
			put(t, a, shareAt(1, 1, t0, share.Accepted, 16))
			require.Equal(t, want(c.live)+16, a.Snapshot(time.Unix(end, 0)).Pool.Accept1h)
		})
	}
}

func TestInvalidShares(t *testing.T) {
	a, _ := newAgg(t, Options{})
	good := shareAt(1, 1, t0, share.Accepted, 8)
	for _, change := range []func(*share.Share){
		func(s *share.Share) { s.UserID = 0 },
		func(s *share.Share) { s.UserID = -5 },
		func(s *share.Share) { s.WorkerID = 0 },
		func(s *share.Share) { s.Difficulty = 0 },
		func(s *share.Share) { s.Difficulty = -1 },
		func(s *share.Share) { s.Difficulty = 1 << 120 },
		func(s *share.Share) { s.Time = time.Time{} },
		func(s *share.Share) { s.Time = time.Unix(0, 0) },
	} {
		s := good
		change(&s)
		put(t, a, s)
	}
	require.Equal(t, Stats{Invalid: 8}, a.Stats())
	require.Empty(t, a.Snapshot(time.Unix(t0, 0)).Users)
}

func TestExpiry(t *testing.T) {
	a, c := newAgg(t, Options{})
	k := Key{1, 1}
	s := shareAt(1, 1, t0, share.Accepted, 8)
	s.Worker = share.Worker{User: "alice", Name: "rig1"}
	put(t, a, s, shareAt(1, 1, t0, share.Stale, 8))
	a.Sweep(time.Unix(t0+3600, 0))
	require.EqualValues(t, 1, workerOf(t, a, t0+3600, k).AcceptCount, "an hour of silence is not too much")
	require.Equal(t, 1, a.Snapshot(time.Unix(t0+3600, 0)).TotalWorkers)

	snap := a.Snapshot(time.Unix(t0+3601, 0)) // before the sweep, as after it
	require.Zero(t, snap.TotalWorkers)
	require.Zero(t, snap.TotalUsers)
	for range 2 {
		w := workerOf(t, a, t0+3601, k)
		require.Zero(t, w.AcceptCount)
		require.Zero(t, w.Accepted)
		require.Zero(t, w.Reject1h)
		require.Equal(t, difficulty.Difficulty(8), w.Large.Sum, "it stays in the large window")
		require.Equal(t, "rig1", w.Name)
		a.Sweep(time.Unix(t0+3601, 0))
	}

	c.now = t0 + 4000
	put(t, a, shareAt(1, 1, c.now, share.Accepted, 16))
	w := workerOf(t, a, c.now, k)
	require.EqualValues(t, 1, w.AcceptCount, "counts begin anew")
	require.Equal(t, Tally{1, 16}, w.Accepted)
	require.Equal(t, difficulty.Difficulty(24), w.Large.Sum)
	u, _ := a.User(c.time(), 1)
	require.Equal(t, Tally{2, 24}, u.Accepted, "a user's totals do not")
	require.Equal(t, Tally{2, 24}, a.Snapshot(c.time()).Pool.Accepted)

	// The same without a sweep in between.
	b, d := newAgg(t, Options{})
	put(t, b, s)
	d.now = t0 + 4000
	put(t, b, shareAt(1, 1, d.now, share.Accepted, 16))
	require.Equal(t, w.Accepted, workerOf(t, b, d.now, k).Accepted)

	a.Sweep(time.Unix(c.now+3*3600+1, 0))
	require.Zero(t, a.Stats().Workers)
	require.Equal(t, 1, a.Stats().Users, "who had shares accepted stays known")
	id, ok := a.UserID("alice")
	require.True(t, ok)
	require.EqualValues(t, 1, id)
	c.now += 4 * 3600
	put(t, a, shareAt(1, 1, c.now, share.Accepted, 1), shareAt(2, 7, c.now, share.LowDifficulty, 1))
	require.Equal(t, "rig1", workerOf(t, a, c.now, k).Name, "its name is remembered")
	require.Equal(t, 2, a.Stats().Users)
	a.Sweep(time.Unix(c.now+3*3600+1, 0))
	require.Equal(t, 1, a.Stats().Users, "who never had one does not")
}

func TestClasses(t *testing.T) {
	shares := []share.Share{
		shareAt(1, 1, t0, share.Accepted, 1024), shareAt(1, 1, t0, share.Solved, 1024),
		shareAt(1, 1, t0, share.AcceptedStale, 512), shareAt(1, 1, t0, share.Stale, 256),
		shareAt(1, 1, t0, share.JobNotFoundOrStale, 128), shareAt(1, 1, t0, share.JobNotFound, 64),
		shareAt(1, 1, t0, share.LowDifficulty, 1<<20),
	}
	for _, c := range []struct {
		name                  string
		o                     Options
		accept, reject, stale difficulty.Difficulty
	}{
		{"two classes", Options{}, 2048, 512 + 256 + 128 + 64 + 1<<20, 0},
		{"stale apart", Options{SplitStale: true}, 2048, 64 + 1<<20, 512 + 256 + 128},
		{"accepted stale ones pay", Options{AcceptStale: true, SplitStale: true}, 2560, 64 + 1<<20, 256 + 128},
		{"rejects capped at 4 times the last accepted", Options{NormalizeRejects: true}, 2048, 512 + 256 + 128 + 64 + 4096, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, _ := newAgg(t, c.o)
			put(t, a, shares...)
			s := a.Snapshot(time.Unix(t0, 0))
			for _, l := range []Live{s.Pool, s.Users[0].Live, workerOf(t, a, t0, Key{1, 1}).Live} {
				require.Equal(t, c.accept, l.Accept1h)
				require.Equal(t, c.reject, l.Reject1h)
				require.Equal(t, c.reject, l.Reject15m)
				require.Equal(t, c.stale, l.Stale15m)
				require.Equal(t, c.stale, l.Stale1h)
			}
			require.EqualValues(t, 1, s.BlocksFound)
		})
	}
	t.Run("the cap before anything was accepted is 4", func(t *testing.T) {
		a, _ := newAgg(t, Options{NormalizeRejects: true})
		for range 7 { // seven rejects of 16384 counted 28 on a running BTCPool
			put(t, a, shareAt(1, 1, t0, share.LowDifficulty, 16384))
		}
		require.Equal(t, difficulty.Difficulty(28), a.Snapshot(time.Unix(t0, 0)).Pool.Reject1h)
	})
}

func TestRates(t *testing.T) {
	t.Run("a newcomer is divided by ten minutes", func(t *testing.T) {
		a, _ := newAgg(t, Options{})
		put(t, a, shareAt(1, 1, t0-120, share.Accepted, 8192), shareAt(1, 1, t0-60, share.Accepted, 32768))
		s := a.Snapshot(time.Unix(t0, 0))
		want := difficulty.HashrateOf(40960, 600*time.Second) // 293 GH/s
		require.InEpsilon(t, 293e9, float64(want), 0.001)
		require.Equal(t, want, s.Hashrate)
		w := workerOf(t, a, t0, Key{1, 1})
		require.Equal(t, want, w.Small.Hashrate)
		require.Equal(t, want, w.Large.Hashrate)
	})
	t.Run("a full window by the window", func(t *testing.T) {
		a, _ := newAgg(t, Options{})
		for i := range int64(30) {
			put(t, a, shareAt(1, 1, t0-1799+60*i, share.Accepted, 16384))
		}
		require.InEpsilon(t, 1.17e12, float64(a.Snapshot(time.Unix(t0, 0)).Users[0].Small.Hashrate), 0.01)
	})
	t.Run("a worker's small rate counts from its first share in the large window", func(t *testing.T) {
		a, _ := newAgg(t, Options{})
		put(t, a, shareAt(1, 1, t0-7200, share.Accepted, 1024), shareAt(1, 1, t0-60, share.Accepted, 1024))
		w := workerOf(t, a, t0, Key{1, 1})
		require.Equal(t, difficulty.HashrateOf(1024, 1800*time.Second), w.Small.Hashrate)
		require.InEpsilon(t, float64(difficulty.HashrateOf(2048, 7200*time.Second)), float64(w.Large.Hashrate), 0.02)
	})
}

func TestRounds(t *testing.T) {
	a, _ := newAgg(t, Options{MaxRounds: 2})
	solved := shareAt(2, 5, t0+1, share.Solved, 100)
	solved.Nonce = 77
	put(t, a, shareAt(1, 1, t0, share.Accepted, 10), shareAt(1, 2, t0, share.Accepted, 20),
		shareAt(1, 1, t0, share.LowDifficulty, 1000), solved, shareAt(1, 1, t0, share.Accepted, 1))
	s := a.Snapshot(time.Unix(t0+1, 0))
	require.Equal(t, difficulty.Difficulty(1), s.RoundShares)
	require.Equal(t, difficulty.Difficulty(1), s.Users[0].RoundShares)
	require.Zero(t, s.Users[1].RoundShares, "the solving share belongs to the closed round")
	require.EqualValues(t, 1, s.BlocksFound)
	require.EqualValues(t, 1, s.Users[1].BlocksFound)
	require.Zero(t, s.Users[0].BlocksFound)
	require.Equal(t, time.Unix(t0+1, 0).UTC(), s.LastBlock)
	require.Equal(t, time.Unix(t0+1, 0).UTC(), s.Users[1].LastBlock)
	r, ok := a.ClosedRound(solved.JobID, 840000, 77)
	require.True(t, ok)
	require.Equal(t, Round{
		Number: 1, JobID: solved.JobID, Height: 840000, Nonce: 77, Bits: 0x17034219, Time: time.Unix(t0+1, 0).UTC(),
		Finder: Key{2, 5}, Shares: 130,
	}, r)
	_, ok = a.ClosedRound(solved.JobID, 840000, 78)
	require.False(t, ok)

	put(t, a, solved)
	require.Len(t, a.Rounds(), 1, "a record that came twice closes one round")
	for n := range uint32(3) {
		solved.Nonce = n
		put(t, a, solved)
	}
	require.Len(t, a.Rounds(), 2)
	require.EqualValues(t, 4, a.Rounds()[1].Number)
	require.EqualValues(t, 4, a.Snapshot(time.Unix(t0, 0)).BlocksFound)
}

func TestNames(t *testing.T) {
	a, _ := newAgg(t, Options{MaxWorkers: 320})
	put(t, a, shareAt(1, 1, t0, share.Accepted, 1))
	id, ok := a.UserID("#1")
	require.True(t, ok)
	require.EqualValues(t, 1, id)
	require.Equal(t, "#1", workerOf(t, a, t0, Key{1, 1}).Name)
	a.Observe(1, 1, share.Worker{User: "alice", Name: "rig1"})
	a.Observe(2, 9, share.Worker{User: "bob/x", Name: "rig9"}) // before its first share
	a.Observe(0, 9, share.Worker{User: "nobody"})
	a.Observe(1, 1, share.Worker{User: strings.Repeat("x", 1000), Name: "r"})
	put(t, a, shareAt(2, 9, t0, share.Accepted, 1))
	for name, want := range map[string]int32{
		"alice": 1, "bob/x": 2, "#1": 0, "#2": 0, "#x": 0, "": 0, "Alice": 0, "nobody": 0,
	} {
		id, ok := a.UserID(name)
		require.Equal(t, want, id, name)
		require.Equal(t, want != 0, ok, name)
	}
	require.Equal(t, "rig9", workerOf(t, a, t0, Key{2, 9}).Name)

	a.Observe(1, 1, share.Worker{User: "alicia"})
	_, ok = a.UserID("alice")
	require.False(t, ok)
	require.Equal(t, "rig1", workerOf(t, a, t0, Key{1, 1}).Name)

	for i := range int64(100_000) { // names alone take no more room than workers would
		a.Observe(3, i+1, share.Worker{User: "eve", Name: fmt.Sprint("w", i)})
	}
	n := 0
	for i := range a.shards {
		n += len(a.shards[i].early)
	}
	require.LessOrEqual(t, n, 330)
}

// TestFlood sends shares from a million worker names.
func TestFlood(t *testing.T) {
	const names = 1_000_000
	a, _ := newAgg(t, Options{MaxWorkers: 1000, MaxUsers: 100})
	f := NewFlusher(a, new(Memory), nil)
	honest := shareAt(1, 1, t0, share.Accepted, 64)
	put(t, a, honest)
	batch := make([]share.Share, 0, 1000)
	for i := range names {
		v := share.Accepted
		if i%2 == 0 {
			v = share.LowDifficulty
		}
		batch = append(batch, shareAt(int32(i%1000)+1, int64(i)+2, t0, v, 1))
		if len(batch) == cap(batch) {
			put(t, a, batch...)
			batch = batch[:0]
		}
	}
	put(t, a, honest)
	st := a.Stats()
	require.Equal(t, 1000, st.Workers)
	require.Equal(t, 100, st.Users)
	require.LessOrEqual(t, st.Pending, int64(4*1200), "and what waits for the store")
	require.EqualValues(t, names+2, st.Shares)
	s := a.Snapshot(time.Unix(t0, 0))
	require.Equal(t, Tally{names/2 + 2, names/2 + 128}, s.Pool.Accepted, "every share is in the pool's totals")
	require.Equal(t, difficulty.Difficulty(names/2), s.Pool.Reject1h)
	require.Equal(t, difficulty.Difficulty(names/2+128), s.RoundShares)
	require.Equal(t, difficulty.Difficulty(128), workerOf(t, a, t0, Key{1, 1}).Accept1h, "who was there goes on")
	u, _ := a.User(time.Unix(t0, 0), 1)
	require.Equal(t, difficulty.Difficulty(names/1000), u.Reject1h+u.Accept1h-128,
		"every share of a known user is in the user's")
	want := difficulty.HashrateOf(names/2+128, 10*time.Minute)
	require.InEpsilon(t, float64(want), float64(s.Hashrate), 1e-9, "unknown users are in the pool's hashrate")

	require.NoError(t, f.Flush(t.Context()))
	b, _ := newAgg(t, Options{MaxWorkers: 1000, MaxUsers: 100})
	_, err := b.Restore(t.Context(), f.store)
	require.NoError(t, err)
	require.Equal(t, s.Pool.Accepted, b.Snapshot(time.Unix(t0, 0)).Pool.Accepted)
	require.Equal(t, s.Pool.Accept1h, b.Snapshot(time.Unix(t0+9, 0)).Pool.Accept1h)
}

func TestRejectsDoNotCrowdOutHonestWorkers(t *testing.T) {
	a, _ := newAgg(t, Options{MaxWorkers: 10, MaxUsers: 10})
	for i := range int64(100) {
		put(t, a, shareAt(int32(i)+10, i+1, t0, share.LowDifficulty, 1))
	}
	require.Equal(t, 5, a.Stats().Workers)
	require.Equal(t, 5, a.Stats().Users)
	put(t, a, shareAt(1, 1, t0, share.Accepted, 1))
	workerOf(t, a, t0, Key{1, 1})
}

func TestOptions(t *testing.T) {
	for name, o := range map[string]Options{
		"AcceptSlot":  {AcceptSlot: 2 * time.Second},
		"SmallWindow": {SmallWindow: 2 * time.Hour},
		"LargeWindow": {LargeWindow: 25 * time.Hour},
		"BucketSpan":  {BucketSpan: 7 * time.Second},
		"MaxWorkers":  {MaxWorkers: -1},
		"MaxUsers":    {MaxUsers: -1},
		"MaxPending":  {MaxPending: -1},
		"MaxRounds":   {MaxRounds: -1},
	} {
		_, err := New(&o)
		require.ErrorContains(t, err, "stats: "+name+" is ")
	}
	_, err := New(&Options{AcceptSlot: 1, MaxUsers: -1})
	require.ErrorContains(t, err, "AcceptSlot")
	require.ErrorContains(t, err, "MaxUsers", "everything wrong is reported at once")
}

// TestOrderWithinASecond replays the same shares in another order.
func TestOrderWithinASecond(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	shares := randomShares(r, 5000)
	base, _ := newAgg(t, Options{})
	put(t, base, shares...)
	at := func(a *Aggregator) (*Snapshot, []WorkerStats) {
		now := time.Unix(t0, 0)
		return a.Snapshot(now), a.Workers(now, 0)
	}
	wantSnap, wantWorkers := at(base)
	for range 5 {
		for i := 0; i < len(shares); {
			j := i
			for j < len(shares) && shares[j].Time.Equal(shares[i].Time) && !shares[j].Verdict.Solved() {
				j++
			}
			part := shares[i:max(j, i+1)]
			r.Shuffle(len(part), func(i, j int) { part[i], part[j] = part[j], part[i] })
			i += len(part)
		}
		a, _ := newAgg(t, Options{})
		put(t, a, shares...)
		snap, workers := at(a)
		require.Equal(t, wantSnap, snap)
		require.Equal(t, wantWorkers, workers)
	}
}

// randomShares returns shares of an hour and a half that end at t0, in order, with some a little late.
func randomShares(r *rand.Rand, n int) []share.Share {
	shares := make([]share.Share, n)
	verdicts := []share.Verdict{
		share.Accepted, share.Accepted, share.Accepted, share.Accepted, share.LowDifficulty, share.Stale, share.Duplicate,
		share.AcceptedStale,
	}
	for i := range shares {
		at := t0 - 5400 + int64(i)*5400/int64(n)
		user := int32(r.IntN(7)) + 1
		d := difficulty.Difficulty(int64(1) << r.IntN(30))
		if r.IntN(5) == 0 {
			d = difficulty.Difficulty(r.IntN(1e6) + 1)
		}
		s := shareAt(user, int64(r.IntN(3)+1)*int64(user), at, verdicts[r.IntN(len(verdicts))], d)
		if i%701 == 700 {
			s.Verdict = share.Solved
			s.Nonce = uint32(i)
		}
		shares[i] = s
	}
	return shares
}

func TestConcurrentUse(t *testing.T) {
	a, _ := newAgg(t, Options{MaxWorkers: 50})
	f := NewFlusher(a, new(Memory), nil)
	const writers, batches = 4, 50
	var write, read sync.WaitGroup
	done := make(chan struct{})
	for _, reader := range []func(){
		func() { a.Snapshot(time.Unix(t0, 0)) },
		func() { a.Workers(time.Unix(t0, 0), 0) },
		func() { a.Workers(time.Unix(t0, 0), 3) },
		func() { a.User(time.Unix(t0, 0), 3) },
		func() { a.Sweep(time.Unix(t0+3601, 0)) },
		func() { a.Observe(3, 4, share.Worker{User: "u", Name: "w"}) },
		func() { a.Stats(); a.Rounds(); a.UserID("u") },
		func() { f.Flush(context.Background()) },
	} {
		read.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					reader()
				}
			}
		})
	}
	var want Tally
	for n := range writers {
		shares := randomShares(rand.New(rand.NewPCG(uint64(n), 1)), 1000)
		for i := range shares {
			if shares[i].Nonce += uint32(n) << 16; shares[i].Verdict.Accepted() && !shares[i].Verdict.AcceptedStale() {
				want.Add(Tally{1, shares[i].Difficulty})
			}
		}
		write.Go(func() {
			for part := range slices.Chunk(shares, 1000/batches) {
				if n == 0 {
					if err := a.Apply(context.Background(), part, []byte{1}); err != nil {
						t.Error(err)
					}
				} else if err := a.Put(context.Background(), part); err != nil {
					t.Error(err)
				}
			}
		})
	}
	write.Wait()
	close(done)
	read.Wait()
	s := a.Snapshot(time.Unix(t0, 0))
	require.Equal(t, want, s.Pool.Accepted)
	var users Tally
	for _, u := range s.Users {
		users.Add(u.Accepted)
	}
	require.Equal(t, want, users)
	var rounds difficulty.Difficulty
	for _, r := range a.Rounds() {
		rounds += r.Shares
	}
	require.Equal(t, want.Sum, rounds+s.RoundShares)
	require.NoError(t, f.Flush(t.Context()))
	var stored Tally
	for b, err := range f.store.Buckets(t.Context(), Query{}) {
		require.NoError(t, err)
		stored.Add(b.Accepted)
	}
	require.Equal(t, want, stored)
}

func TestPutHonorsContext(t *testing.T) {
	a, _ := newAgg(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	shares := []share.Share{shareAt(1, 1, t0, share.Accepted, 1)}
	require.ErrorIs(t, a.Put(ctx, shares), context.Canceled)
	require.ErrorIs(t, a.Apply(ctx, shares, nil), context.Canceled)
	require.Zero(t, a.Stats())
}

func TestBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, c := newAgg(t, Options{MaxPending: 10})
		f := NewFlusher(a, new(Memory), nil)
		var shares []share.Share
		for i := range int64(10) {
			shares = append(shares, shareAt(1, i+1, c.now, share.Accepted, 1))
		}
		put(t, a, shares...)
		require.ErrorIs(t, a.Put(t.Context(), shares), ErrBacklog)
		ctx, cancel := context.WithCancel(t.Context())
		errs := make(chan error)
		go func() { errs <- a.Apply(ctx, shares, nil) }()
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-errs, context.Canceled)
		go func() { errs <- a.Apply(t.Context(), shares, nil) }()
		synctest.Wait()
		require.EqualValues(t, 10, a.Stats().Shares)
		require.NoError(t, f.Flush(t.Context()))
		require.NoError(t, <-errs)
		require.EqualValues(t, 20, a.Stats().Shares)
	})
}

func TestPutAllocatesNothing(t *testing.T) {
	a, c := newAgg(t, Options{})
	NewFlusher(a, new(Memory), nil)
	shares := make([]share.Share, 100)
	for i := range shares {
		shares[i] = shareAt(int32(i%10)+1, int64(i)+1, t0, share.Accepted, 16384)
		shares[i].Worker = share.Worker{User: fmt.Sprint("user", i%10), Name: fmt.Sprint("rig", i)}
		if i%10 == 9 {
			shares[i].Verdict = share.LowDifficulty
		}
	}
	ctx := t.Context()
	fill := func() {
		c.now += 30
		for i := range shares {
			shares[i].Time = time.Unix(c.now, 0)
		}
		if err := a.Put(ctx, shares); err != nil {
			t.Fatal(err)
		}
	}
	for range 500 { // four hours, until every window turns over
		fill()
		a.cut()
	}
	for range 2 { // room for what waits between two flushes, in both buffers
		for range 20 {
			fill()
		}
		a.cut()
	}
	if n := testing.AllocsPerRun(15, fill); n != 0 {
		t.Errorf("Put allocates %v times, want 0", n)
	}
}

// TestMemoryPerWorker measures workers with a full large window behind them.
func TestMemoryPerWorker(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for _, c := range []struct {
		name  string
		every int64
	}{{"6 shares a minute", 10}, {"a share a second", 1}} {
		t.Run(c.name, func(t *testing.T) {
			const workers = 200
			a, clk := newAgg(t, Options{LargeWindow: 3 * time.Hour})
			heap := func() int64 {
				runtime.GC()
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				return int64(m.HeapAlloc)
			}
			batch := make([]share.Share, workers)
			// One user has them all, so that its own windows count for little.
			before := heap()
			step := c.every * 60 // the first hours fill the large window only
			for at := int64(t0); at < t0+3*3600+600; at += step {
				if at >= t0+2*3600 {
					step = c.every
				}
				clk.now = at
				for i := range batch {
					d := difficulty.Difficulty(16384)
					if at%7 == 0 {
						d = 65536
					}
					batch[i] = shareAt(1, int64(i)+1, at, share.Accepted, d)
					if at%100 == 0 {
						batch[i].Verdict = share.Stale
					}
					if at%2000 == 0 {
						batch[i].Verdict = share.LowDifficulty
					}
				}
				put(t, a, batch...)
			}
			per := (heap() - before) / workers
			runtime.KeepAlive(a)
			t.Logf("%d bytes a worker", per)
			require.LessOrEqual(t, per, int64(4096))
		})
	}
}

func TestWorkersWithManySharesAreCoarse(t *testing.T) {
	a, c := newAgg(t, Options{})
	c.now = t0 + 3600
	for i := range int64(3600) {
		put(t, a, shareAt(1, 1, t0+i+1, share.Accepted, 2))
	}
	w := workerOf(t, a, c.now, Key{1, 1})
	require.InDelta(t, 7200, float64(w.Accept1h), 20)
	require.InDelta(t, 1800, float64(w.Accept15m), 20)
	u, _ := a.User(c.time(), 1)
	require.EqualValues(t, 7200, u.Accept1h, "a user is kept by the second")
	require.EqualValues(t, 120, u.Accept1m)
}

func BenchmarkPut(b *testing.B) {
	for _, workers := range []int{1, 1000, 20_000} {
		for _, collect := range []bool{false, true} {
			b.Run(fmt.Sprintf("workers=%d/store=%v", workers, collect), func(b *testing.B) {
				a, c := newAgg(b, Options{})
				if collect {
					NewFlusher(a, new(Memory), nil)
				}
				const batchSize = 256
				r := rand.New(rand.NewPCG(1, 1))
				batches := make([][]share.Share, 2000)
				for i := range batches {
					batches[i] = make([]share.Share, batchSize)
					for j := range batches[i] {
						w := r.IntN(workers)
						batches[i][j] = shareAt(int32(w/5)+1, int64(w)+1, t0, share.Accepted, 16384)
					}
				}
				run := func(i int) {
					batch := batches[i%len(batches)]
					for j := range batch {
						batch[j].Time = time.Unix(c.now, 0)
					}
					if err := a.Put(context.Background(), batch); err != nil {
						b.Fatal(err)
					}
				}
				// A second of a pool is one share a worker in ten seconds; what waits is taken every 15 s.
				perSecond := max(1, workers/10/batchSize)
				i := 0
				for range 4000 { // until the windows of an hour turn over
					for range perSecond {
						run(i)
						i++
					}
					if c.now++; c.now%15 == 0 && collect {
						a.cut()
					}
				}
				b.ReportAllocs()
				for b.Loop() {
					run(i)
					if i++; i%perSecond == 0 {
						if c.now++; c.now%15 == 0 && collect {
							b.StopTimer()
							a.cut()
							b.StartTimer()
						}
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/batchSize, "ns/share")
			})
		}
	}
}

func BenchmarkPutParallel(b *testing.B) {
	a, _ := newAgg(b, Options{})
	var mu sync.Mutex
	next := int32(0)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		mu.Lock()
		next++
		one := []share.Share{shareAt(next, 1, t0, share.Accepted, 1024)}
		mu.Unlock()
		for pb.Next() {
			if err := a.Put(context.Background(), one); err != nil {
				b.Error(err)
			}
		}
	})
}

func filled(b *testing.B, users, workersEach int) *Aggregator {
	a, c := newAgg(b, Options{})
	NewFlusher(a, new(Memory), nil)
	for at := int64(t0 - 3600); at <= t0; at += 60 {
		c.now = at
		batch := make([]share.Share, 0, users*workersEach)
		for u := range users {
			for w := range workersEach {
				batch = append(batch, shareAt(int32(u)+1, int64(w)+1, at+int64(u+w)%50, share.Accepted, 16384))
			}
		}
		put(b, a, batch...)
		a.cut()
	}
	return a
}

func BenchmarkSnapshot(b *testing.B) {
	a := filled(b, 10_000, 2)
	b.ReportAllocs()
	for b.Loop() {
		a.Snapshot(time.Unix(t0, 0))
	}
}

// BenchmarkCut is how long counting stands still for a flush of 20,000 workers.
func BenchmarkCut(b *testing.B) {
	a := filled(b, 10_000, 2)
	var batch []share.Share
	for u := range int32(10_000) {
		for w := range int64(2) {
			batch = append(batch, shareAt(u+1, w+1, t0, share.Accepted, 16384))
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		put(b, a, batch...)
		b.StartTimer()
		if out, ok := a.cut(); !ok || len(out.Buckets) != 20_000 {
			b.Fatal(errors.New("nothing was cut"))
		}
	}
}
