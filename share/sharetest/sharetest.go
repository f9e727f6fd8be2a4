// Package sharetest checks implementations of [share.Sink], and provides the sinks that tests need: [Memory], which
// remembers, and [Flaky], which fails on command.
//
// A backend is checked in a few lines:
//
//	func TestSink(t *testing.T) {
//		sharetest.TestSink(t, func(t *testing.T) sharetest.Backend {
//			s := open(t, t.TempDir())
//			return sharetest.Backend{Sink: s, Shares: s.readAll}
//		})
//	}
package sharetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/poolkit/poolkit/share"
)

// Patience is how long a check waits for something that should happen at once.
const Patience = 10 * time.Second

// A Backend is a Sink and the view of it that a check needs. Its parts are called from one goroutine, except for Sink.
type Backend struct {
	Sink share.Sink

	// Shares returns all that is stored, oldest first, and must include the shares of every Put that has returned. A
	// sink that forwards returns what arrived. Fields that a record does not carry need not come back.
	Shares func() ([]share.Share, error)

	// Reopen stops the backend as the end of its process would, opens what it left behind and returns that. nil: it
	// keeps nothing across restarts.
	Reopen func() (Backend, error)

	// Stall makes whatever is behind the Sink stop taking shares, so that Put must wait sooner or later, until the
	// function that it returns is called. nil: Put never waits.
	Stall func() (release func())
}

// TestSink checks the promises of [share.Sink], in a subtest for each. open returns an empty backend that it closes
// with t.Cleanup.
func TestSink(t *testing.T, open func(t *testing.T) Backend) {
	t.Run("KeepsOrder", func(t *testing.T) { testKeepsOrder(t, open(t)) })
	t.Run("RetainsNothing", func(t *testing.T) { testRetainsNothing(t, open(t)) })
	t.Run("IsDurable", func(t *testing.T) {
		b := open(t)
		if b.Reopen == nil {
			t.Skip("backend keeps nothing across restarts")
		}
		testIsDurable(t, b)
	})
	t.Run("HonorsContext", func(t *testing.T) { testHonorsContext(t, open(t)) })
	t.Run("AllowsConcurrentCalls", func(t *testing.T) { testAllowsConcurrentCalls(t, open(t)) })
	t.Run("TakesSharesAgain", func(t *testing.T) { testTakesSharesAgain(t, open(t)) })
	t.Run("TakesTheRestOfAnInvalidBatch", func(t *testing.T) { testTakesTheRest(t, open(t)) })
}

// Numbered returns the i-th of a sequence of valid shares that all differ; i is not negative. Their times, in November
// 2023, grow by a second every hundred shares; one in seven is rejected, and one in eleven came over IPv6.
func Numbered(i int) share.Share { return numbered(i) }

// Numbers returns shares from to to-1 of the sequence of [Numbered].
func Numbers(from, to int) []share.Share {
	s := make([]share.Share, 0, to-from)
	for i := from; i < to; i++ {
		s = append(s, numbered(i))
	}
	return s
}

func put(t *testing.T, b Backend, shares []share.Share) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	if err := b.Sink.Put(ctx, shares); err != nil {
		t.Fatalf("Put %d shares: %v", len(shares), err)
	}
}

// stored returns the IDs of what b holds.
func stored(t *testing.T, b Backend) []share.ID {
	t.Helper()
	shares, err := b.Shares()
	if err != nil {
		t.Fatalf("read the shares back: %v", err)
	}
	return ids(shares)
}

func ids(shares []share.Share) []share.ID {
	out := make([]share.ID, len(shares))
	for i := range shares {
		out[i] = shares[i].ID()
	}
	return out
}

// equal fails the test where got is not want, saying where they part.
func equal(t *testing.T, got, want []share.ID) {
	t.Helper()
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Fatalf("share %d of %d is %v, want %v", i, len(got), got[i], want[i])
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d shares are stored, want %d", len(got), len(want))
	}
}

func testKeepsOrder(t *testing.T, b Backend) {
	all := Numbers(0, 500)
	put(t, b, nil) // an empty batch is none
	for rest, n := all, 1; len(rest) > 0; n = n%17 + 1 {
		n = min(n, len(rest))
		put(t, b, rest[:n])
		rest = rest[n:]
	}
	equal(t, stored(t, b), ids(all))
}

func testRetainsNothing(t *testing.T, b Backend) {
	want := Numbers(0, 50)
	given := Numbers(0, 50)
	put(t, b, given)
	for i := range given {
		if given[i] != want[i] {
			t.Errorf("Put has changed share %d of the caller's slice", i)
		}
		given[i] = Numbered(1000 + i) // the caller uses its slice again
	}
	put(t, b, given[:1])
	equal(t, stored(t, b), append(ids(want), given[0].ID()))
}

func testIsDurable(t *testing.T, b Backend) {
	all := Numbers(0, 300)
	put(t, b, all[:200])
	again, err := b.Reopen()
	if err != nil {
		t.Fatalf("reopen: %v", err)
	}
	equal(t, stored(t, again), ids(all[:200]))
	put(t, again, all[200:])
	equal(t, stored(t, again), ids(all))
}

func testHonorsContext(t *testing.T, b Backend) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Sink.Put(ended, Numbers(0, 3)); !errors.Is(err, context.Canceled) {
		t.Errorf("Put with a context that has ended returned %v, want %v", err, context.Canceled)
	}
	if b.Stall == nil {
		return
	}

	release := b.Stall()
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const most = 1 << 20 // more than any queue of a test holds
	returned := make(chan error, 1)
	progress := make(chan struct{}, 1)
	go func() {
		for i := 0; i < most; i += 1024 {
			if err := b.Sink.Put(ctx, Numbers(i, i+1024)); err != nil {
				returned <- err
				return
			}
			select {
			case progress <- struct{}{}:
			default:
			}
		}
		returned <- nil
	}()
	// A second without progress is as good a sign as any that Put waits.
	quiet := time.NewTimer(time.Second)
	defer quiet.Stop()
	for waiting := false; !waiting; {
		select {
		case <-progress:
			quiet.Reset(time.Second)
		case <-quiet.C:
			waiting = true
		case err := <-returned:
			t.Fatalf("Put did not wait for a stalled backend: %d shares, error %v", most, err)
		}
	}
	cancel()
	select {
	case err := <-returned:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Put returned %v after its context ended, want %v", err, context.Canceled)
		}
	case <-time.After(Patience):
		t.Fatalf("Put had not returned %v after its context ended", Patience)
	}
}

func testAllowsConcurrentCalls(t *testing.T, b Backend) {
	const callers, each = 8, 200
	var wg sync.WaitGroup
	errs := make(chan error, callers)
	for c := range callers {
		wg.Go(func() {
			for i := 0; i < each; i += 5 {
				if err := b.Sink.Put(t.Context(), Numbers(c*each+i, c*each+i+5)); err != nil {
					errs <- fmt.Errorf("caller %d: %w", c, err)
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	place := make(map[share.ID]int)
	for i, id := range ids(Numbers(0, callers*each)) {
		place[id] = i
	}
	var next [callers]int
	got := stored(t, b)
	for _, id := range got {
		i, ok := place[id]
		if !ok {
			t.Fatalf("share %v is stored but was never put", id)
		}
		if c := i / each; next[c] != i%each {
			t.Fatalf("share %d of caller %d is stored where its share %d belongs", i%each, c, next[c])
		}
		next[i/each]++
	}
	if len(got) != callers*each {
		t.Errorf("%d shares are stored, want %d", len(got), callers*each)
	}
}

// testTakesSharesAgain puts shares a second time, as a caller does that has not learnt of a success. Whether the
// backend stores them once or twice is its own business.
func testTakesSharesAgain(t *testing.T, b Backend) {
	all := Numbers(0, 20)
	put(t, b, all[:10])
	put(t, b, all[:10])
	put(t, b, all[10:])
	seen := make(map[share.ID]bool)
	var once []share.ID
	for _, id := range stored(t, b) {
		if !seen[id] {
			seen[id] = true
			once = append(once, id)
		}
	}
	equal(t, once, ids(all))
}

// testTakesTheRest puts shares of which one has no user. A sink that does not care may store that one, too.
func testTakesTheRest(t *testing.T, b Backend) {
	given := Numbers(0, 9)
	given[4].UserID = 0
	if err := b.Sink.Put(t.Context(), given); err != nil && !share.OnlyInvalid(err) {
		t.Fatalf("Put with one invalid share of %d returned %v, want nil or an error about nothing else", len(given), err)
	}
	put(t, b, Numbers(9, 12))
	want := append(ids(Numbers(0, 4)), ids(Numbers(5, 12))...)
	got := stored(t, b)
	if len(got) == len(want)+1 && got[4] == given[4].ID() {
		got = append(got[:4], got[5:]...)
	}
	equal(t, got, want)
}
