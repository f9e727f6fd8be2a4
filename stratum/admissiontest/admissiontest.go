// Package admissiontest checks implementations of what lets a miner into a stratum.Server: Authorizer, Registrar and
// Extranonces. It is apart from package stratumtest so that programs can use the miner there without package testing.
package admissiontest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum"
)

// TestAuthorizer checks the promises of stratum.Authorizer. open returns one that lets alice and bob in, and cleans up
// with t.Cleanup; reopen, which may be nil, returns another one on what the last left behind. refused is a user that
// may not mine, "" for an authorizer that lets everybody in.
func TestAuthorizer(t *testing.T, open func(t *testing.T) stratum.Authorizer, reopen func(t *testing.T) stratum.Authorizer, refused string) {
	ask := func(t *testing.T, a stratum.Authorizer, user string) int32 {
		t.Helper()
		id, err := a.Authorize(t.Context(), share.Worker{User: user, Name: "rig"}, "x")
		if err != nil || id <= 0 {
			t.Fatalf("Authorize(%q) = %d, %v, want a number above 0", user, id, err)
		}
		return id
	}
	t.Run("OneNumberAUser", func(t *testing.T) {
		a := open(t)
		alice, bob := ask(t, a, "alice"), ask(t, a, "bob")
		if alice == bob {
			t.Fatalf("alice and bob are both number %d", alice)
		}
		if again := ask(t, a, "alice"); again != alice {
			t.Fatalf("alice is number %d and then %d", alice, again)
		}
		id, err := a.Authorize(t.Context(), share.Worker{User: "alice", Name: "another"}, "")
		if err != nil || id != alice {
			t.Fatalf("alice's other machine has number %d (%v), want %d", id, err, alice)
		}
	})
	t.Run("KeepsNumbers", func(t *testing.T) {
		if reopen == nil {
			t.Skip("the authorizer keeps nothing across restarts")
		}
		a := open(t)
		alice, bob := ask(t, a, "alice"), ask(t, a, "bob")
		a = reopen(t)
		if b := ask(t, a, "bob"); b != bob {
			t.Fatalf("bob was number %d and is %d after a restart", bob, b)
		}
		if b := ask(t, a, "alice"); b != alice {
			t.Fatalf("alice was number %d and is %d after a restart", alice, b)
		}
	})
	t.Run("RefusesTheUnknown", func(t *testing.T) {
		if refused == "" {
			t.Skip("the authorizer lets everybody in")
		}
		if id, err := open(t).Authorize(t.Context(), share.Worker{User: refused, Name: "rig"}, "x"); !errors.Is(err, stratum.ErrUnknownUser) {
			t.Fatalf("Authorize(%q) = %d, %v, want ErrUnknownUser", refused, id, err)
		}
	})
	t.Run("AllowsConcurrentCalls", func(t *testing.T) {
		a := open(t)
		ids := make([]int32, 16)
		var wg sync.WaitGroup
		for i := range ids {
			wg.Go(func() {
				id, err := a.Authorize(t.Context(), share.Worker{User: []string{"alice", "bob"}[i%2], Name: fmt.Sprint(i)}, "")
				if err != nil {
					t.Error(err)
				}
				ids[i] = id
			})
		}
		wg.Wait()
		for i := range ids {
			if ids[i] != ids[i%2] {
				t.Fatalf("calls at the same time gave one user two numbers: %v", ids)
			}
		}
	})
	t.Run("HonorsContext", func(t *testing.T) {
		a := open(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = a.Authorize(ctx, share.Worker{User: "alice", Name: "rig"}, "x")
		}()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatal("Authorize goes on ten seconds after its context ended")
		}
	})
}

// TestExtranonces checks the promises of stratum.Extranonces. open returns an allocator that nothing was leased from.
func TestExtranonces(t *testing.T, open func(t *testing.T) stratum.Extranonces) {
	now := time.Unix(1_700_000_000, 0)
	t.Run("NeverShares", func(t *testing.T) {
		e := open(t)
		var mu sync.Mutex
		held := make(map[uint32]bool)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 500 {
					prefix, err := e.Lease(now)
					if errors.Is(err, stratum.ErrNoExtranonce) {
						return
					}
					mu.Lock()
					if err != nil || held[prefix] {
						t.Errorf("Lease = %08x, %v; held by somebody: %v", prefix, err, held[prefix])
					}
					held[prefix] = true
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if len(held) == 0 {
			t.Fatal("nothing was leased")
		}
	})
	t.Run("Quarantines", func(t *testing.T) {
		e := open(t)
		given, err := e.Lease(now)
		if err != nil {
			t.Fatal(err)
		}
		e.Release(given, now)
		// Jobs are accepted for five minutes; a prefix must not come back before.
		for range 1000 {
			prefix, err := e.Lease(now.Add(5*time.Minute - time.Second))
			if errors.Is(err, stratum.ErrNoExtranonce) {
				return
			}
			if err != nil || prefix == given {
				t.Fatalf("Lease = %08x, %v right after it was released", prefix, err)
			}
		}
	})
}
