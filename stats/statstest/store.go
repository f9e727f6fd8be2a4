package statstest

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stats"
)

// A Backend is a store to be checked.
type Backend struct {
	Store stats.Store // empty

	// Reopen ends the Store as a killed process would, as far as a test can, and returns another one on what it left.
	// It is nil for a store that keeps nothing across restarts.
	Reopen func(t *testing.T) stats.Store
}

// TestStore checks the promises of stats.Store. open returns an empty backend and cleans up with t.Cleanup.
func TestStore(t *testing.T, open func(t *testing.T) Backend) {
	t.Run("CommitsAtomically", func(t *testing.T) { testCommitsAtomically(t, open(t)) })
	t.Run("CommitsOnce", func(t *testing.T) { testCommitsOnce(t, open(t).Store) })
	t.Run("RefusesGaps", func(t *testing.T) { testRefusesGaps(t, open(t).Store) })
	t.Run("AddsBuckets", func(t *testing.T) { testAddsBuckets(t, open(t).Store) })
	t.Run("ReplacesTotals", func(t *testing.T) { testReplacesTotals(t, open(t).Store) })
	t.Run("ForgetsFirst", func(t *testing.T) { testForgetsFirst(t, open(t).Store) })
	t.Run("Prunes", func(t *testing.T) { testPrunes(t, open(t).Store) })
	t.Run("KeepsOrder", func(t *testing.T) { testKeepsOrder(t, open(t).Store) })
	t.Run("ReturnsLastRounds", func(t *testing.T) { testReturnsLastRounds(t, open(t).Store) })
	t.Run("RetainsNothing", func(t *testing.T) { testRetainsNothing(t, open(t).Store) })
	t.Run("HonorsContext", func(t *testing.T) { testHonorsContext(t, open(t).Store) })
	t.Run("AllowsConcurrentCalls", func(t *testing.T) { testAllowsConcurrentCalls(t, open(t).Store) })
	t.Run("Queries", func(t *testing.T) { testQueries(t, open(t).Store) })
	t.Run("Survives", func(t *testing.T) {
		b := open(t)
		if b.Reopen == nil {
			t.Skip("backend keeps nothing across restarts")
		}
		testSurvives(t, b)
	})
	t.Run("RoundUsers", func(t *testing.T) {
		s := open(t).Store
		r, ok := s.(stats.RoundReader)
		if !ok {
			t.Skip("backend is no stats.RoundReader")
		}
		testRoundUsers(t, s, r)
	})
}

var epoch = time.Unix(1713597560, 0).UTC()

func at(seconds int) time.Time { return epoch.Add(time.Duration(seconds) * time.Second) }

var (
	pool  = stats.Key{}
	alice = stats.Key{UserID: 42}
	rig1  = stats.Key{UserID: 42, WorkerID: -911964159890136328}
	rig2  = stats.Key{UserID: 42, WorkerID: 8113131267054106046}
	bob   = stats.Key{UserID: 7, WorkerID: 1}
)

func bucket(k stats.Key, start int, sum difficulty.Difficulty, other ...stats.VerdictTally) stats.Bucket {
	b := stats.Bucket{Key: k, Start: at(start), Span: 10 * time.Second, Other: other}
	if sum != 0 {
		b.Accepted = tally(1, sum)
	}
	return b
}

func tally(n uint64, sum difficulty.Difficulty) stats.Tally { return stats.Tally{Count: n, Sum: sum} }

func other(v share.Verdict, n uint64, sum difficulty.Difficulty) stats.VerdictTally {
	return stats.VerdictTally{Verdict: v, Tally: tally(n, sum)}
}

// full is a batch with something in every field.
func full() *stats.Batch {
	t := stats.Total{
		Key: rig1, AcceptCount: 3, Accepted: tally(4, 70000), Other: []stats.VerdictTally{other(share.LowDifficulty, 2, 5)},
		First: at(-5), LastShare: at(7), LastAccepted: at(6), LastIP: netip.MustParseAddr("10.1.2.3"),
		LastDifficulty: 0.25, RoundShares: 9, Round: 3, BlocksFound: 2, LastBlock: at(1),
	}
	p := stats.Total{Key: pool, Accepted: tally(1, 1), LastIP: netip.MustParseAddr("2001:db8::1")}
	return &stats.Batch{
		Seq: 1, Position: []byte("day 3, byte 77"),
		Totals: []stats.Total{p, t},
		Names:  []stats.Name{{Key: alice, Name: "alice"}, {Key: rig1, Name: "rig1"}},
		Rounds: []stats.Round{{
			Number: 1, JobID: 0x66236c8000000001, Height: 840000, Nonce: 0x12345678, Bits: 0x17034219, Time: at(1), Finder: rig1,
			Shares: 300,
			Users:  []stats.UserShares{{UserID: 7, Shares: 100}, {UserID: 42, Shares: 200}},
		}},
		Buckets: []stats.Bucket{
			bucket(rig1, 0, 16384, other(share.Stale, 1, 16384)), bucket(pool, 10, 0.25), bucket(rig1, 10, 32768),
		},
	}
}

// want is the state after full.
func want(b *stats.Batch) *stats.State {
	s := &stats.State{
		Seq: b.Seq, Position: b.Position, Totals: slices.Clone(b.Totals), Names: slices.Clone(b.Names),
		Rounds: slices.Clone(b.Rounds),
	}
	for i := range s.Rounds {
		s.Rounds[i].Users = nil
	}
	return s
}

func commit(t *testing.T, s stats.Store, b *stats.Batch) {
	t.Helper()
	if err := s.Commit(t.Context(), b); err != nil {
		t.Fatalf("Commit of batch %d: %v", b.Seq, err)
	}
}

func state(t *testing.T, s stats.Store) *stats.State {
	t.Helper()
	st, err := s.State(t.Context())
	if err != nil {
		t.Fatalf("State: %v", err)
	}
	slices.SortFunc(st.Totals, func(a, b stats.Total) int { return a.Key.Compare(b.Key) })
	slices.SortFunc(st.Names, func(a, b stats.Name) int { return a.Key.Compare(b.Key) })
	return st
}

func query(t *testing.T, s stats.Store, q stats.Query) []stats.Bucket {
	t.Helper()
	var list []stats.Bucket
	for b, err := range s.Buckets(t.Context(), q) {
		if err != nil {
			t.Fatalf("Buckets: %v", err)
		}
		list = append(list, b)
	}
	return list
}

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

func testCommitsAtomically(t *testing.T, backend Backend) {
	s := backend.Store
	st := state(t, s)
	same(t, "state of an empty store", *st, stats.State{})
	commit(t, s, full())
	same(t, "state", state(t, s), want(full()))
	same(t, "buckets", query(t, s, stats.Query{}), full().Buckets)

	// A batch that cannot be kept leaves nothing behind, whichever part is wrong.
	b := full()
	b.Seq, b.Position = 2, []byte("later")
	b.Totals[0].AcceptCount = 99
	b.Buckets[2].Span = 0
	if err := s.Commit(t.Context(), b); err == nil {
		return // this store keeps it
	}
	same(t, "state after a failed commit", state(t, s), want(full()))
	same(t, "buckets after a failed commit", query(t, s, stats.Query{}), full().Buckets)
}

func testCommitsOnce(t *testing.T, s stats.Store) {
	commit(t, s, full())
	again := full()
	again.Position = []byte("elsewhere")
	commit(t, s, again)
	same(t, "state", state(t, s), want(full()))
	same(t, "buckets", query(t, s, stats.Query{}), full().Buckets)
}

func testRefusesGaps(t *testing.T, s stats.Store) {
	for _, seq := range []uint64{0, 2} {
		if err := s.Commit(t.Context(), &stats.Batch{Seq: seq}); !errors.Is(err, stats.ErrConflict) {
			t.Errorf("batch %d on an empty store: %v, want ErrConflict", seq, err)
		}
	}
	commit(t, s, full())
	commit(t, s, &stats.Batch{Seq: 2})
	for _, seq := range []uint64{0, 1, 4} {
		if err := s.Commit(t.Context(), &stats.Batch{Seq: seq}); !errors.Is(err, stats.ErrConflict) {
			t.Errorf("batch %d after 2: %v, want ErrConflict", seq, err)
		}
	}
	if st := state(t, s); st.Seq != 2 || len(st.Position) != 0 {
		t.Errorf("state is at batch %d, position %q; want 2 and none", st.Seq, st.Position)
	}
}

func testAddsBuckets(t *testing.T, s stats.Store) {
	commit(t, s, &stats.Batch{Seq: 1, Buckets: []stats.Bucket{
		bucket(rig1, 0, 8, other(share.Stale, 1, 2)), bucket(rig2, 0, 1), bucket(rig1, 0, 16),
	}})
	commit(t, s, &stats.Batch{Seq: 2, Buckets: []stats.Bucket{
		bucket(rig1, 0, 32, other(share.LowDifficulty, 1, 4), other(share.Stale, 1, 8)), bucket(rig1, 10, 0.25),
	}})
	sum := bucket(rig1, 0, 56, other(share.LowDifficulty, 1, 4), other(share.Stale, 2, 10))
	sum.Accepted.Count = 3
	same(t, "buckets", query(t, s, stats.Query{}), []stats.Bucket{bucket(rig2, 0, 1), sum, bucket(rig1, 10, 0.25)})
}

func testReplacesTotals(t *testing.T, s stats.Store) {
	commit(t, s, full())
	b := full()
	b.Seq = 2
	b.Totals = []stats.Total{{Key: rig1, AcceptCount: 1}}
	b.Names = []stats.Name{{Key: rig1, Name: "new"}}
	b.Rounds, b.Buckets = nil, nil
	commit(t, s, b)
	w := want(full())
	w.Seq = 2
	w.Totals[1] = b.Totals[0]
	w.Names[1].Name = "new"
	same(t, "state", state(t, s), w)
}

func testForgetsFirst(t *testing.T, s stats.Store) {
	commit(t, s, full())
	commit(t, s, &stats.Batch{
		Seq: 2, Position: full().Position, Forget: []stats.Key{rig1, alice, bob},
		Totals: []stats.Total{{Key: rig1, AcceptCount: 5}},
	})
	w := want(full())
	w.Seq = 2
	w.Totals[1] = stats.Total{Key: rig1, AcceptCount: 5}
	w.Names = nil
	same(t, "state", state(t, s), w)
	if got := len(query(t, s, stats.Query{})); got != 3 {
		t.Errorf("%d buckets are left, want 3", got)
	}
}

func testPrunes(t *testing.T, s stats.Store) {
	b := full()
	b.Rounds = append(b.Rounds, stats.Round{Number: 2, Time: at(100)})
	commit(t, s, b)
	commit(t, s, &stats.Batch{
		Seq: 2, PruneBuckets: at(10), PruneRounds: at(2),
		Buckets: []stats.Bucket{bucket(rig2, 0, 1), bucket(rig2, 20, 2)},
	})
	same(t, "buckets", query(t, s, stats.Query{}),
		[]stats.Bucket{bucket(pool, 10, 0.25), bucket(rig1, 10, 32768), bucket(rig2, 20, 2)})
	same(t, "rounds", state(t, s).Rounds, []stats.Round{{Number: 2, Time: at(100)}})
	if r, ok := s.(stats.RoundReader); ok {
		if users, err := r.RoundUsers(t.Context(), 1); err != nil || len(users) != 0 {
			t.Errorf("users of a pruned round: %v, %v", users, err)
		}
	}
}

func testKeepsOrder(t *testing.T, s stats.Store) {
	minute := bucket(rig1, 0, 7)
	minute.Span = time.Minute
	neg := stats.Key{UserID: 3, WorkerID: -2}
	commit(t, s, &stats.Batch{
		Seq: 1, Rounds: []stats.Round{{Number: 1, Time: at(50)}, {Number: 2, Time: at(10)}},
		Buckets: []stats.Bucket{
			bucket(pool, 10, 1), bucket(neg, 0, 1), bucket(bob, 0, 1), minute, bucket(rig1, 0, 1), bucket(rig2, 0, 1),
			bucket(pool, 0, 1),
		},
	})
	commit(t, s, &stats.Batch{
		Seq: 2, Rounds: []stats.Round{{Number: 3, Time: at(30)}},
		Buckets: []stats.Bucket{bucket(alice, 0, 1), bucket(alice, -10, 1)},
	})
	same(t, "buckets", query(t, s, stats.Query{}), []stats.Bucket{
		bucket(alice, -10, 1), bucket(pool, 0, 1), bucket(neg, 0, 1), bucket(bob, 0, 1), bucket(alice, 0, 1),
		bucket(rig2, 0, 1), bucket(rig1, 0, 1), minute, bucket(pool, 10, 1),
	})
	same(t, "rounds", state(t, s).Rounds,
		[]stats.Round{{Number: 1, Time: at(50)}, {Number: 2, Time: at(10)}, {Number: 3, Time: at(30)}})
}

func testReturnsLastRounds(t *testing.T, s stats.Store) {
	const extra = 5
	b := &stats.Batch{Seq: 1}
	for i := range stats.StateRounds + extra {
		b.Rounds = append(b.Rounds, stats.Round{Number: uint64(i + 1), Time: at(i)})
	}
	commit(t, s, b)
	got := state(t, s).Rounds
	if len(got) < stats.StateRounds {
		t.Fatalf("State returns %d rounds, want the last %d", len(got), stats.StateRounds)
	}
	got = got[len(got)-stats.StateRounds:]
	if first, last := got[0].Number, got[len(got)-1].Number; first != extra+1 || last != stats.StateRounds+extra {
		t.Errorf("rounds %d to %d, want %d to %d", first, last, extra+1, stats.StateRounds+extra)
	}
}

func testRetainsNothing(t *testing.T, s stats.Store) {
	b, before := full(), full()
	commit(t, s, b)
	same(t, "batch after Commit", b, before)
	b.Position[0] = 'X'
	b.Totals[1].Other[0].Count = 1000
	b.Buckets[0].Other[0].Count = 1000
	b.Rounds[0].Users[0].UserID = 1000
	same(t, "state", state(t, s), want(full()))
	same(t, "buckets", query(t, s, stats.Query{}), full().Buckets)

	// What was returned is the caller's.
	st := state(t, s)
	st.Position[0] = 'X'
	st.Totals[1].Other[0].Count = 1000
	query(t, s, stats.Query{})[0].Other[0].Count = 1000
	same(t, "state", state(t, s), want(full()))
	same(t, "buckets", query(t, s, stats.Query{}), full().Buckets)
}

func testHonorsContext(t *testing.T, s stats.Store) {
	commit(t, s, full())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Commit(ctx, &stats.Batch{Seq: 2}); !errors.Is(err, context.Canceled) {
		t.Errorf("Commit with an ended context: %v", err)
	}
	if _, err := s.State(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("State with an ended context: %v", err)
	}
	var last error
	for _, err := range s.Buckets(ctx, stats.Query{}) {
		last = err
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("Buckets with an ended context: %v", last)
	}
	same(t, "state", state(t, s), want(full()))
}

func testAllowsConcurrentCalls(t *testing.T, s stats.Store) {
	const batches = 50
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				st, err := s.State(context.WithoutCancel(t.Context()))
				if err != nil {
					t.Errorf("State: %v", err)
					return
				}
				n := 0
				for b, err := range s.Buckets(context.WithoutCancel(t.Context()), stats.Query{}) {
					if err != nil {
						t.Errorf("Buckets: %v", err)
						return
					}
					n += int(b.Accepted.Count)
				}
				if uint64(n) < st.Seq {
					t.Errorf("%d buckets after %d batches", n, st.Seq)
					return
				}
			}
		})
	}
	for i := range batches {
		commit(t, s, &stats.Batch{Seq: uint64(i + 1), Buckets: []stats.Bucket{bucket(rig1, 10*(i%5), 1)}})
	}
	close(done)
	wg.Wait()

	// Of several callers with the same batch, one gets it in and the others are told that it is there.
	for range 4 {
		wg.Go(func() {
			if err := s.Commit(t.Context(), &stats.Batch{Seq: batches + 1, Buckets: []stats.Bucket{bucket(rig1, 0, 1)}}); err != nil {
				t.Errorf("Commit: %v", err)
			}
		})
	}
	wg.Wait()
	n := 0
	for _, b := range query(t, s, stats.Query{}) {
		n += int(b.Accepted.Count)
	}
	if n != batches+1 {
		t.Errorf("%d shares in the buckets, want %d", n, batches+1)
	}
}

func testQueries(t *testing.T, s stats.Store) {
	all := []stats.Bucket{
		bucket(pool, 0, 1), bucket(bob, 0, 2), bucket(alice, 0, 3), bucket(rig2, 0, 4), bucket(rig1, 0, 5),
		bucket(bob, 10, 6), bucket(rig1, 10, 7), bucket(rig1, 20, 8),
	}
	commit(t, s, &stats.Batch{Seq: 1, Buckets: all})
	for _, c := range []struct {
		name string
		q    stats.Query
	}{
		{"everything", stats.Query{}},
		{"a user with all that is counted for it", stats.Query{UserID: 42}},
		{"a worker", stats.Query{UserID: 42, WorkerID: rig1.WorkerID}},
		{"a worker of nobody", stats.Query{UserID: 9, WorkerID: 9}},
		{"from a time on, that time included", stats.Query{From: at(10)}},
		{"before a time, that time excluded", stats.Query{To: at(10)}},
		{"between times that are no starts", stats.Query{From: at(1), To: at(11)}},
		{"between parts of a second", stats.Query{From: at(10).Add(1), To: at(20).Add(1)}},
		{"an empty span", stats.Query{From: at(10), To: at(10)}},
		{"a crossed span", stats.Query{From: at(20), To: at(0)}},
		{"before there were computers", stats.Query{To: time.Unix(-1e9, 0)}},
		{"long after", stats.Query{From: time.Unix(1<<40, 0)}},
		{"a worker in a span", stats.Query{UserID: 42, WorkerID: rig1.WorkerID, From: at(5), To: at(15)}},
	} {
		var want []stats.Bucket
		for _, b := range all {
			if c.q.Matches(&b) {
				want = append(want, b)
			}
		}
		if got := query(t, s, c.q); !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %+v\nwant %+v", c.name, got, want)
		}
	}
	for b, err := range s.Buckets(t.Context(), stats.Query{}) {
		if err != nil || b.Key != pool {
			t.Errorf("first bucket is %+v, %v", b, err)
		}
		break // a loop may end early
	}
}

func testSurvives(t *testing.T, backend Backend) {
	commit(t, backend.Store, full())
	s := backend.Reopen(t)
	same(t, "state", state(t, s), want(full()))
	same(t, "buckets", query(t, s, stats.Query{}), full().Buckets)
	commit(t, s, full()) // the number is remembered too
	same(t, "buckets", query(t, s, stats.Query{}), full().Buckets)
	if err := s.Commit(t.Context(), &stats.Batch{Seq: 3}); !errors.Is(err, stats.ErrConflict) {
		t.Errorf("batch 3 after 1: %v, want ErrConflict", err)
	}
	commit(t, s, &stats.Batch{Seq: 2})
}

func testRoundUsers(t *testing.T, s stats.Store, r stats.RoundReader) {
	b := full()
	commit(t, s, b)
	got, err := r.RoundUsers(t.Context(), 1)
	if err != nil {
		t.Fatalf("RoundUsers: %v", err)
	}
	same(t, "users of round 1", got, b.Rounds[0].Users)
	if got, err = r.RoundUsers(t.Context(), 2); err != nil || len(got) != 0 {
		t.Errorf("users of a round that is not there: %v, %v", got, err)
	}
}
