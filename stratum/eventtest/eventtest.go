// Package eventtest checks implementations of stratum.EventSink.
package eventtest

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/poolkit/poolkit/stratum"
)

// A Backend is an EventSink and what the suite needs to look behind it.
type Backend struct {
	Sink stratum.EventSink

	// Events returns what has come out so far, the oldest first, after waiting for what is under way. nil skips the
	// tests of what comes out, for sinks that cannot be read back.
	Events func(t *testing.T) []stratum.Event

	// Stall makes whatever is behind the sink take nothing until the test ends. nil leaves that out of NeverBlocks.
	Stall func()
}

// patience is what a call may take that must not wait for anybody. It is long, or a busy machine would fail a sound
// sink; a sink that does wait for something that is stalled waits for ever.
const patience = 10 * time.Second

// TestEventSink checks the promises of stratum.EventSink. open returns an empty backend, which must take 1,000 events
// without dropping one while nothing stalls, and cleans up with t.Cleanup.
func TestEventSink(t *testing.T, open func(t *testing.T) Backend) {
	t.Run("NeverBlocks", func(t *testing.T) {
		b := open(t)
		if b.Stall != nil {
			b.Stall()
		}
		within(t, "100,000 calls of PutEvent", func() {
			e := event(0, 0)
			for range 100_000 {
				b.Sink.PutEvent(e)
			}
		})
	})
	t.Run("KeepsOrder", func(t *testing.T) {
		b := open(t)
		if b.Events == nil {
			t.Skip("the sink cannot be read back")
		}
		var want []stratum.Event
		for n := range 1000 {
			want = append(want, event(0, n))
			b.Sink.PutEvent(want[n])
		}
		got := b.Events(t)
		if len(got) != len(want) {
			t.Fatalf("%d events came out of %d", len(got), len(want))
		}
		for n := range want {
			if got[n] != want[n] {
				t.Fatalf("event %d is\n%+v, want\n%+v", n, got[n], want[n])
			}
		}
	})
	t.Run("AllowsConcurrentCalls", func(t *testing.T) {
		b := open(t)
		const callers, each = 10, 100
		within(t, "calls at the same time", func() {
			var wg sync.WaitGroup
			for caller := range callers {
				wg.Go(func() {
					for n := range each {
						b.Sink.PutEvent(event(caller, n))
					}
				})
			}
			wg.Wait()
		})
		if b.Events == nil {
			return
		}
		next := make(map[string]int)
		for _, got := range b.Events(t) {
			var caller, n int
			if _, err := fmt.Sscanf(got.WorkerName, "rig%d.%d", &caller, &n); err != nil || got != event(caller, n) {
				t.Fatalf("nobody put %+v", got)
			}
			if n != next[got.UserName] {
				t.Fatalf("event %d of caller %d came out as its number %d", n, caller, next[got.UserName])
			}
			next[got.UserName]++
		}
		for caller := range callers {
			if n := next[event(caller, 0).UserName]; n != each {
				t.Fatalf("%d events of caller %d came out of %d", n, caller, each)
			}
		}
	})
}

// event returns the nth event of a caller, no two alike, with what may follow from something else as it follows.
func event(caller, n int) stratum.Event {
	e := stratum.Event{
		Created: time.Unix(1_700_000_000+int64(n), 0).UTC(),
		Action:  stratum.MinerConnect, Desc: stratum.NewConnection,
		UserID: int32(caller + 1), UserName: fmt.Sprintf("user%d", caller),
		WorkerID: int64(n+1) << 32, WorkerName: fmt.Sprintf("rig%d.%d", caller, n),
		Agent: "cgminer/4.12.1", IP: netip.AddrFrom4([4]byte{10, 1, byte(n >> 8), byte(n)}),
		SessionID: 1<<24 | uint32(caller)<<16 | uint32(n),
	}
	if n%2 == 1 {
		e.Action, e.Desc, e.ExtUserID = stratum.MinerDead, stratum.ClosedConnection, int32(n)
	}
	return e
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
