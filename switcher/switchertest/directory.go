// Package switchertest checks implementations of the interfaces of package switcher.
package switchertest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/switcher"
)

// A Backend is an empty directory whose users may mine the chains "a" and "b".
type Backend struct {
	switcher.Directory

	// Set stores what a user mines, in the way the backend's operators do.
	Set func(user string, chain job.Chain) error
}

// patience is how long a change may take to be reported.
const patience = 10 * time.Second

// TestDirectory checks the promises of switcher.Directory. open returns an empty backend and cleans up with t.Cleanup.
func TestDirectory(t *testing.T, open func(t *testing.T) Backend) {
	t.Run("KnowsNobodyElse", func(t *testing.T) { testKnowsNobodyElse(t, open(t)) })
	t.Run("ReportsChanges", func(t *testing.T) { testReportsChanges(t, open(t)) })
	t.Run("StopsWithContext", func(t *testing.T) { testStopsWithContext(t, open(t)) })
	t.Run("AllowsConcurrentCalls", func(t *testing.T) { testAllowsConcurrentCalls(t, open(t)) })
}

func testKnowsNobodyElse(t *testing.T, b Backend) {
	ctx := t.Context()
	if chain, err := b.Chain(ctx, "alice"); !errors.Is(err, switcher.ErrUnknownUser) {
		t.Fatalf("Chain of a user that was never set = %q, %v, want ErrUnknownUser", chain, err)
	}
	set(t, b, "alice", "a")
	if chain, err := b.Chain(ctx, "alice"); err != nil || chain != "a" {
		t.Fatalf("Chain = %q, %v, want a", chain, err)
	}
	if chain, err := b.Chain(ctx, "Alice"); !errors.Is(err, switcher.ErrUnknownUser) {
		t.Fatalf("Chain of a name in other case = %q, %v, want ErrUnknownUser", chain, err)
	}
	set(t, b, "alice", "b")
	if chain, err := b.Chain(ctx, "alice"); err != nil || chain != "b" {
		t.Fatalf("Chain after a change = %q, %v, want b", chain, err)
	}
}

func set(t *testing.T, b Backend, user string, chain job.Chain) {
	t.Helper()
	if err := b.Set(user, chain); err != nil {
		t.Fatalf("Set(%q, %q): %v", user, chain, err)
	}
}

// watch runs Watch in the background and returns its reports and a function that stops it and waits.
func watch(t *testing.T, b Backend) (changes <-chan string, stop func() error) {
	ctx, cancel := context.WithCancel(t.Context())
	reports := make(chan string, 1024)
	done := make(chan error, 1)
	go func() {
		done <- b.Watch(ctx, func(user string, chain job.Chain) { reports <- fmt.Sprintf("%s:%s", user, chain) })
	}()
	stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { _ = stop() })
	return reports, stop
}

// await sets a user's chain until the change is reported, since nothing tells when Watch has begun.
func await(t *testing.T, b Backend, changes <-chan string) {
	t.Helper()
	deadline := time.After(patience)
	for i := 0; ; i++ {
		set(t, b, "probe", []job.Chain{"a", "b"}[i%2])
		select {
		case <-changes:
			return
		case <-time.After(10 * time.Millisecond):
		case <-deadline:
			t.Fatal("Watch reports nothing")
		}
	}
}

func testReportsChanges(t *testing.T, b Backend) {
	changes, _ := watch(t, b)
	await(t, b, changes)
	for i, want := range []job.Chain{"a", "b", "a"} {
		set(t, b, "bob", want)
		for got := ""; got != fmt.Sprintf("bob:%s", want); {
			select {
			case got = <-changes:
			case <-time.After(patience):
				t.Fatalf("change %d of bob's chain to %q was not reported", i, want)
			}
		}
	}
}

func testStopsWithContext(t *testing.T, b Backend) {
	changes, stop := watch(t, b)
	await(t, b, changes)
	if err := stop(); err != nil {
		t.Fatalf("Watch = %v after its context ended, want nil", err)
	}
	for len(changes) > 0 {
		<-changes
	}
	set(t, b, "carol", "a")
	select {
	case c := <-changes:
		t.Fatalf("%s was reported after Watch had returned", c)
	case <-time.After(20 * time.Millisecond):
	}
}

func testAllowsConcurrentCalls(t *testing.T, b Backend) {
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			user := fmt.Sprintf("user%d", i)
			for k := range 50 {
				want := []job.Chain{"a", "b"}[k%2]
				if err := b.Set(user, want); err != nil {
					t.Errorf("Set: %v", err)
				}
				if got, err := b.Chain(t.Context(), user); err != nil || got != want {
					t.Errorf("Chain = %q, %v, want %q", got, err, want)
				}
			}
		})
	}
	wg.Wait()
}
