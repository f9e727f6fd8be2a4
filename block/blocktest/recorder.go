package blocktest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/poolkit/poolkit/block"
)

// A RecorderBackend is a Recorder under test.
type RecorderBackend struct {
	Recorder block.Recorder

	// Reopen closes the Recorder and opens it again, as a restart of the process would. Where it is nil the backend
	// keeps nothing, and the test of that skips.
	Reopen func(t *testing.T) block.Recorder
}

// TestRecorder checks the promises of block.Recorder. open returns an empty backend and cleans up with t.Cleanup.
func TestRecorder(t *testing.T, open func(t *testing.T) RecorderBackend) {
	t.Run("UpsertsByHash", func(t *testing.T) {
		r := open(t).Recorder
		f := found(1)
		record(t, r, f)
		record(t, r, f)
		again := *f
		again.UserID, again.Rewards, again.CreatedAt = 7, 1, f.CreatedAt.Add(time.Hour)
		record(t, r, &again)
		wantFound(t, r, block.Query{}, *f)

		other := *f
		other.Chain = "other"
		record(t, r, &other)
		if list := query(t, r, block.Query{}); len(list) != 2 {
			t.Errorf("the same hash on two chains gives %d records, want 2", len(list))
		}
	})
	t.Run("UpsertsByHash/merging", func(t *testing.T) {
		steps := []struct {
			name           string
			state          block.State
			outcome        block.Outcome
			reason         string
			size           int
			wantState      block.State
			wantOutcome    block.Outcome
			wantReason     string
			wantSize       int
			wantIsOrphaned bool
		}{
			{"found without its job", block.Candidate, block.Unsubmitted, "", 0, block.Candidate, block.Unsubmitted, "", 0, false},
			{"assembled", block.Candidate, block.Unsubmitted, "", 321, block.Candidate, block.Unsubmitted, "", 321, false},
			{"no verdict", block.Candidate, block.Unsubmitted, "refused", 321, block.Candidate, block.Unsubmitted, "refused", 321, false},
			{"rejected", block.Candidate, block.Rejected, "bad", 321, block.Candidate, block.Rejected, "bad", 321, false},
			{"an older write comes late", block.Candidate, block.Unsubmitted, "refused", 321, block.Candidate, block.Rejected, "bad", 321, false},
			{"confirmed by a watcher that read before", block.Immature, block.Unsubmitted, "", 321, block.Immature, block.Rejected, "bad", 321, false},
			{"accepted after all", block.Candidate, block.Accepted, "", 321, block.Immature, block.Accepted, "", 321, false},
			{"submitted again, rejected", block.Candidate, block.Rejected, "known", 999, block.Immature, block.Accepted, "", 321, false},
			{"orphaned", block.Orphaned, block.Accepted, "", 321, block.Orphaned, block.Accepted, "", 321, true},
			{"submitted again", block.Candidate, block.Accepted, "duplicate", 321, block.Orphaned, block.Accepted, "duplicate", 321, true},
			{"back", block.Immature, block.Accepted, "", 321, block.Immature, block.Accepted, "duplicate", 321, false},
			{"matured", block.Matured, block.Accepted, "", 321, block.Matured, block.Accepted, "duplicate", 321, false},
			{"matured is final", block.Orphaned, block.Accepted, "", 321, block.Matured, block.Accepted, "duplicate", 321, false},
		}
		r := open(t).Recorder
		for _, s := range steps {
			f := found(1)
			f.State, f.Outcome, f.Reason, f.Size = s.state, s.outcome, s.reason, s.size
			record(t, r, f)
			list := query(t, r, block.Query{})
			if len(list) != 1 {
				t.Fatalf("%s: %d records, want 1", s.name, len(list))
			}
			g := list[0]
			if g.State != s.wantState || g.Outcome != s.wantOutcome || g.Reason != s.wantReason || g.Size != s.wantSize ||
				g.IsOrphaned() != s.wantIsOrphaned {
				t.Fatalf("%s: got %v, %v %q, %d bytes, orphaned %v; want %v, %v %q, %d bytes, orphaned %v", s.name, g.State,
					g.Outcome, g.Reason, g.Size, g.IsOrphaned(), s.wantState, s.wantOutcome, s.wantReason, s.wantSize,
					s.wantIsOrphaned)
			}
		}
	})
	t.Run("KeepsFields", func(t *testing.T) {
		r := open(t).Recorder
		f := found(1)
		f.Chain, f.WorkerID, f.JobID, f.Version = "btc", -911964159890136328, 1<<63+1, -1
		f.State, f.Outcome, f.Reason, f.Warning = block.Orphaned, block.Stale, `said "no"`, "looked wrong"
		record(t, r, f)
		wantFound(t, r, block.Query{}, *f)
	})
	t.Run("ListsHighestFirst", func(t *testing.T) {
		r := open(t).Recorder
		a, b, c, d := found(1), found(2), found(3), found(4)
		c.Height = b.Height
		c.CreatedAt = b.CreatedAt.Add(time.Minute)
		for _, f := range []*block.Found{b, d, a, c} {
			record(t, r, f)
		}
		wantFound(t, r, block.Query{}, *d, *c, *b, *a)
	})
	t.Run("SelectsByQuery", func(t *testing.T) {
		r := open(t).Recorder
		var all []block.Found
		for i := range 8 {
			f := found(i)
			f.State = block.State(i % 4)
			if i >= 4 {
				f.Chain = "bch"
			}
			record(t, r, f)
			all = append([]block.Found{*f}, all...)
		}
		wantFound(t, r, block.Query{}, all...)
		wantFound(t, r, block.Query{Limit: 3}, all[:3]...)
		wantFound(t, r, block.Query{Limit: 100}, all...)
		wantFound(t, r, block.Query{Chain: "bch"}, all[:4]...)
		wantFound(t, r, block.Query{Chain: "none"})
		for s := range block.State(4) {
			wantFound(t, r, block.Query{States: []block.State{s}}, all[3-s], all[7-s])
		}
		wantFound(t, r, block.Query{Chain: "bch", States: []block.State{block.Candidate, block.Orphaned}}, all[0], all[3])
		wantFound(t, r, block.Query{States: []block.State{block.Immature}, Limit: 1}, all[2])
	})
	t.Run("IsDurable", func(t *testing.T) {
		b := open(t)
		if b.Reopen == nil {
			t.Skip("backend keeps nothing across restarts")
		}
		one, two := found(1), found(2)
		record(t, b.Recorder, one)
		record(t, b.Recorder, two)
		one.State, one.Outcome = block.Immature, block.Accepted
		record(t, b.Recorder, one)
		r := b.Reopen(t)
		wantFound(t, r, block.Query{}, *two, *one)
		three := found(3)
		record(t, r, three)
		record(t, r, one)
		wantFound(t, b.Reopen(t), block.Query{}, *three, *two, *one)
	})
	t.Run("ReturnsCopies", func(t *testing.T) {
		r := open(t).Recorder
		f := found(1)
		want := *f
		record(t, r, f)
		f.Height, f.WorkerName = 99, "changed"
		list := query(t, r, block.Query{})
		list[0].Height, list[0].State = 98, block.Matured
		wantFound(t, r, block.Query{}, want)
	})
	t.Run("HonorsContext", func(t *testing.T) {
		r := open(t).Recorder
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := r.Record(ctx, found(1)); !errors.Is(err, context.Canceled) {
			t.Errorf("Record with an ended context: %v, want context.Canceled", err)
		}
		if _, err := r.Found(ctx, block.Query{}); !errors.Is(err, context.Canceled) {
			t.Errorf("Found with an ended context: %v, want context.Canceled", err)
		}
		wantFound(t, r, block.Query{})
	})
	t.Run("AllowsConcurrentCalls", func(t *testing.T) {
		r := open(t).Recorder
		const blocks, writers = 10, 4
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for i := range blocks {
					f := found(i)
					f.Outcome, f.Reason = block.Outcome(1+w), fmt.Sprint(w)
					if err := r.Record(t.Context(), f); err != nil {
						t.Errorf("concurrent Record: %v", err)
					}
					if _, err := r.Found(t.Context(), block.Query{Limit: 3}); err != nil {
						t.Errorf("concurrent Found: %v", err)
					}
				}
			})
		}
		wg.Wait()
		list := query(t, r, block.Query{})
		if len(list) != blocks {
			t.Fatalf("%d records after %d writers wrote the same %d blocks", len(list), writers, blocks)
		}
		for _, f := range list {
			if f.Outcome != block.Accepted || f.Reason != "3" {
				t.Errorf("block %d: outcome %v %q, want the one of the greatest weight", f.Height, f.Outcome, f.Reason)
			}
		}
	})
}

// found returns a record with every field filled in; different i give different blocks, the higher the later.
func found(i int) *block.Found {
	at := time.Date(2026, 11, 21, 3, 0, i, 0, time.UTC)
	return &block.Found{
		Hash: chainhash.DoubleHashH([]byte{byte(i)}), UserID: 42, WorkerID: int64(i) - 5, WorkerName: "alice.rig1",
		JobID: 7359845513065136129, Height: 840000 + int32(i), PrevHash: chainhash.Hash{byte(i), 1}, Bits: 0x17034219,
		Version: 0x20000000, Nonce: 0xfffffff0 + uint32(i),
		Difficulty: 86388558925171.02, Rewards: 313734567, Size: 1234567, FoundAt: at,
		CreatedAt: at.Add(2 * time.Second),
	}
}

func record(t *testing.T, r block.Recorder, f *block.Found) {
	t.Helper()
	if err := r.Record(t.Context(), f); err != nil {
		t.Fatalf("Record: %v", err)
	}
}

func query(t *testing.T, r block.Recorder, q block.Query) []block.Found {
	t.Helper()
	list, err := r.Found(t.Context(), q)
	if err != nil {
		t.Fatalf("Found(%+v): %v", q, err)
	}
	return list
}

func wantFound(t *testing.T, r block.Recorder, q block.Query, want ...block.Found) {
	t.Helper()
	got := query(t, r, q)
	if !slices.EqualFunc(got, want, equal) {
		t.Errorf("Found(%+v) = %s\nwant %s", q, describe(got), describe(want))
	}
}

// equal compares records with their times to the second.
func equal(a, b block.Found) bool {
	if a.FoundAt.Unix() != b.FoundAt.Unix() || a.CreatedAt.Unix() != b.CreatedAt.Unix() {
		return false
	}
	a.FoundAt, a.CreatedAt, b.FoundAt, b.CreatedAt = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	return a == b
}

func describe(list []block.Found) string {
	if len(list) == 0 {
		return "nothing"
	}
	s := ""
	for _, f := range list {
		s += fmt.Sprintf("\n%+v", f)
	}
	return s
}
