// Package difficultytest checks implementations of stratum.DifficultyStore.
package difficultytest

import (
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum"
)

// A Backend is a DifficultyStore and what the suite needs to look behind it.
type Backend struct {
	Store stratum.DifficultyStore

	// Reopen closes the store, as a process does that ends in good order, and opens it again as the next one would.
	// nil skips the tests of what outlives the process, for stores that keep nothing.
	Reopen func(t *testing.T) stratum.DifficultyStore

	// Stall makes whatever is behind the store answer nothing until the test ends. nil leaves that out of NeverBlocks.
	Stall func()
}

// patience is what calls may take that must not wait for anybody. It is long, or a busy machine would fail a sound
// store; one that does wait for something that is stalled waits for ever.
const patience = 20 * time.Second

// Workers that a store must tell apart. None but itself has what was saved for it.
var workers = []share.Worker{
	{User: "alice", Name: "rig"},
	{User: "Alice", Name: "rig"},
	{User: "alice", Name: "Rig"},
	{User: "alice", Name: "rig2"},
	{User: "alice", Name: share.DefaultWorker},
	{User: "alice.rig", Name: "x"},
	{User: "alice", Name: "rig.x"},
	{User: "alic", Name: "erig"},
	{User: "alicer", Name: "ig"},
	{User: "a:b", Name: "c|d/e^f"},
	{User: "a", Name: "b:c|d/e^f"},
	{User: "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", Name: "12345678901234567890"},
}

// The time is a whole number of microseconds, which is what a store has to keep.
func at(n int) time.Time { return time.UnixMicro(1_700_000_000_123_456 + int64(n)*999_999) }

var states = []difficulty.State{
	{At: at(0), Difficulty: 16384},
	{At: at(1), Difficulty: difficulty.Min},
	{At: at(2), Difficulty: difficulty.Max, Hashrate: 1e18, Shares: 1e6},
	{At: at(3), Difficulty: 1.0 / 3, Hashrate: 1.0 / 7, Shares: 1.0 / 9},
	{At: at(4), Difficulty: 1<<53 + 2, Hashrate: difficulty.Hashrate(math.Nextafter(1e15, 0)), Shares: math.SmallestNonzeroFloat64},
}

// TestDifficultyStore checks the promises of stratum.DifficultyStore. open returns an empty backend, which must have
// room for 1,000 workers, and cleans up with t.Cleanup.
func TestDifficultyStore(t *testing.T, open func(t *testing.T) Backend) {
	t.Run("KeepsTheLatest", func(t *testing.T) {
		b := open(t)
		if s, ok := b.Store.Load(workers[0]); ok {
			t.Fatalf("an empty store has %+v", s)
		}
		for _, s := range states {
			b.Store.Save(workers[0], s)
			requireState(t, b.Store, workers[0], s)
		}
		// The latest is what was saved last, whatever times it speaks of.
		b.Store.Save(workers[0], states[1])
		requireState(t, b.Store, workers[0], states[1])
	})
	t.Run("KeepsWorkersApart", func(t *testing.T) {
		b := open(t)
		for i, w := range workers {
			if s, ok := b.Store.Load(w); ok {
				t.Fatalf("%v has %+v before anything was saved for it", w, s)
			}
			b.Store.Save(w, nth(i))
		}
		for i, w := range workers {
			requireState(t, b.Store, w, nth(i))
		}
	})
	t.Run("OutlivesTheProcess", func(t *testing.T) {
		b := open(t)
		if b.Reopen == nil {
			t.Skip("the store keeps nothing")
		}
		want := make(map[share.Worker]difficulty.State)
		save := func(store stratum.DifficultyStore, w share.Worker, s difficulty.State) {
			store.Save(w, s)
			want[w] = s
		}
		for i, w := range workers {
			save(b.Store, w, states[i%len(states)])
		}
		for n := range 900 {
			save(b.Store, machine(0, n), nth(n))
		}
		store := b.Reopen(t)
		for w, s := range want {
			requireState(t, store, w, s)
		}
		save(store, workers[0], nth(1))
		b.Store = store
		store = b.Reopen(t)
		for w, s := range want {
			requireState(t, store, w, s)
		}
	})
	t.Run("NeverBlocks", func(t *testing.T) {
		b := open(t)
		if b.Stall != nil {
			b.Stall()
		}
		within(t, "100,000 calls of Save and of Load", func() {
			for n := range 100_000 {
				b.Store.Save(machine(0, n), nth(n))
				b.Store.Load(machine(0, n/2))
			}
		})
	})
	t.Run("AllowsConcurrentCalls", func(t *testing.T) {
		b := open(t)
		const callers, machines, rounds = 10, 50, 20
		within(t, "calls at the same time", func() {
			var wg sync.WaitGroup
			for caller := range callers {
				wg.Go(func() {
					for round := range rounds {
						for n := range machines {
							w, s := machine(caller, n), nth(caller*machines*rounds+round*machines+n)
							b.Store.Save(w, s)
							if got, ok := b.Store.Load(w); ok && !same(got, s) {
								t.Errorf("%v has %+v after %+v was saved", w, got, s)
							}
						}
					}
				})
			}
			wg.Wait()
		})
		for caller := range callers {
			for n := range machines {
				requireState(t, b.Store, machine(caller, n), nth(caller*machines*rounds+(rounds-1)*machines+n))
			}
		}
	})
}

func machine(user, n int) share.Worker {
	return share.Worker{User: fmt.Sprintf("user%d", user), Name: fmt.Sprintf("rig%d", n)}
}

// nth returns a state unlike all others.
func nth(n int) difficulty.State {
	return difficulty.State{At: at(n), Difficulty: difficulty.Difficulty(n + 1), Hashrate: difficulty.Hashrate(n) * 1e12, Shares: float64(n)}
}

func same(a, b difficulty.State) bool {
	return a.At.Equal(b.At) && a.Difficulty == b.Difficulty && a.Hashrate == b.Hashrate && a.Shares == b.Shares
}

func requireState(t *testing.T, store stratum.DifficultyStore, w share.Worker, want difficulty.State) {
	t.Helper()
	got, ok := store.Load(w)
	if !ok || !same(got, want) {
		t.Fatalf("%v has %+v (%v), want %+v", w, got, ok, want)
	}
}

func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("%s did not return within %v", what, patience)
	}
}
