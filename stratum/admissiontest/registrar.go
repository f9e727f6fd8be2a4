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

// A RegistrarBackend is a Registrar and what the suite needs to look behind it.
type RegistrarBackend struct {
	Registrar stratum.Registrar

	// Accounts returns how many accounts are open for a user, or asked for. nil skips the tests of what was recorded.
	Accounts func(t *testing.T, user string) int

	// Refused is a user that will never get an account, "" when there is none.
	Refused string

	// Stall makes whatever is behind the Registrar answer nothing until the test ends. nil leaves HonorsContext to a
	// context that has ended before the call.
	Stall func()
}

// TestRegistrar checks the promises of stratum.Registrar. open returns a backend without accounts and cleans up with
// t.Cleanup.
func TestRegistrar(t *testing.T, open func(t *testing.T) RegistrarBackend) {
	register := func(t *testing.T, b RegistrarBackend, user, machine string) {
		t.Helper()
		if err := b.Registrar.Register(t.Context(), share.Worker{User: user, Name: machine}); err != nil {
			t.Errorf("Register(%s.%s): %v", user, machine, err)
		}
	}
	accounts := func(t *testing.T, b RegistrarBackend, user string, want int) {
		t.Helper()
		if b.Accounts == nil {
			return
		}
		if n := b.Accounts(t, user); n != want {
			t.Errorf("%s has %d accounts, want %d", user, n, want)
		}
	}
	t.Run("RemembersTheUser", func(t *testing.T) {
		b := open(t)
		if b.Accounts == nil {
			t.Skip("the backend does not tell what it has recorded")
		}
		register(t, b, "alice", "rig")
		accounts(t, b, "alice", 1)
		accounts(t, b, "bob", 0)
	})
	t.Run("IsIdempotent", func(t *testing.T) {
		b := open(t)
		register(t, b, "alice", "rig")
		register(t, b, "alice", "rig")
		register(t, b, "alice", "another")
		accounts(t, b, "alice", 1)
	})
	t.Run("RefusesTheUnfit", func(t *testing.T) {
		b := open(t)
		if b.Refused == "" {
			t.Skip("the registrar takes everybody")
		}
		if err := b.Registrar.Register(t.Context(), share.Worker{User: b.Refused, Name: "rig"}); !errors.Is(err, stratum.ErrUnknownUser) {
			t.Fatalf("Register(%q) = %v, want ErrUnknownUser", b.Refused, err)
		}
		accounts(t, b, b.Refused, 0)
	})
	t.Run("HonorsContext", func(t *testing.T) {
		b := open(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if b.Stall == nil {
			cancel()
		} else {
			b.Stall()
			stop := time.AfterFunc(50*time.Millisecond, cancel)
			defer stop.Stop()
		}
		done := make(chan error, 1)
		go func() { done <- b.Registrar.Register(ctx, share.Worker{User: "alice", Name: "rig"}) }()
		select {
		case err := <-done:
			if err == nil && b.Stall != nil {
				t.Fatal("Register succeeded although nothing answered")
			}
			if errors.Is(err, stratum.ErrUnknownUser) {
				t.Fatalf("Register was cut short and refuses the user for good: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("Register goes on ten seconds after its context ended")
		}
	})
	t.Run("AllowsConcurrentCalls", func(t *testing.T) {
		b := open(t)
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() { register(t, b, []string{"alice", "bob"}[i%2], fmt.Sprint(i)) })
		}
		wg.Wait()
		accounts(t, b, "alice", 1)
		accounts(t, b, "bob", 1)
	})
}
