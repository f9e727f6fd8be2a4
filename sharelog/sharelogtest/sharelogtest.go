// Package sharelogtest checks implementations of [sharelog.Log], and provides [Flaky], a log that fails on command.
package sharelogtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/sharelog"
)

// A Backend is a Log and what a check needs besides it.
type Backend struct {
	Log sharelog.Log

	// Reopen closes the log as the end of its process would and opens what it left behind. nil: the log keeps nothing
	// across restarts.
	Reopen func() (Backend, error)
}

// TestLog checks the promises of [sharelog.Log], in a subtest for each. open returns an empty backend that it closes
// with t.Cleanup.
func TestLog(t *testing.T, open func(t *testing.T) Backend) {
	t.Run("KeepsOrder", func(t *testing.T) { testKeepsOrder(t, open(t)) })
	t.Run("SortsByDay", func(t *testing.T) { testSortsByDay(t, open(t)) })
	t.Run("IsDurable", func(t *testing.T) {
		b := open(t)
		if b.Reopen == nil {
			t.Skip("backend keeps nothing across restarts")
		}
		testIsDurable(t, b)
	})
	t.Run("ResumesExactly", func(t *testing.T) { testResumesExactly(t, open(t)) })
	t.Run("FollowsAppends", func(t *testing.T) { testFollowsAppends(t, open(t)) })
	t.Run("AllowsConcurrentCalls", func(t *testing.T) { testAllowsConcurrentCalls(t, open(t)) })
	t.Run("RetainsNothing", func(t *testing.T) { testRetainsNothing(t, open(t)) })
	t.Run("TakesTheRestOfAnInvalidBatch", func(t *testing.T) { testTakesTheRest(t, open(t)) })
	t.Run("EndsAtTheLastDay", func(t *testing.T) { testEndsAtTheLastDay(t, open(t)) })
	t.Run("HonorsContext", func(t *testing.T) { testHonorsContext(t, open(t)) })
}

// firstDay is the day of the shares that the checks use, 2024-04-20.
const firstDay sharelog.Day = 19833

// shareOn returns the i-th of a sequence of shares that all differ, at noon of day.
func shareOn(day sharelog.Day, i int) share.Share {
	return share.Share{
		JobID: 0x66236c8000000001, WorkerID: int64(i%13) + 1, UserID: 42, Verdict: share.Accepted,
		Time: day.Start().Add(12*time.Hour + time.Duration(i/50)*time.Second), Difficulty: 16384, Bits: 0x17034219,
		Height: 840000, Nonce: uint32(i) * 2654435761, SessionID: 1, BitsReached: 0x1903ffff,
	}
}

func sharesOn(day sharelog.Day, from, to int) []share.Share {
	var s []share.Share
	for i := from; i < to; i++ {
		s = append(s, shareOn(day, i))
	}
	return s
}

func mustAppend(t *testing.T, l sharelog.Log, shares []share.Share) {
	t.Helper()
	if err := l.Append(t.Context(), shares); err != nil {
		t.Fatalf("Append %d shares: %v", len(shares), err)
	}
}

func mustScan(t *testing.T, l sharelog.Log, from sharelog.Position, to sharelog.Day) sharelog.Cursor {
	t.Helper()
	c, err := l.Scan(from, to)
	if err != nil {
		t.Fatalf("Scan from %v to %v: %v", from, to, err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// drain reads c to the end of what there is, up to step shares at a time.
func drain(t *testing.T, c sharelog.Cursor, step int) []share.Share {
	t.Helper()
	var all []share.Share
	buf := make([]share.Share, step)
	for {
		n, err := c.Read(t.Context(), buf)
		if err == io.EOF {
			if n != 0 {
				t.Fatalf("Read returned %d shares and io.EOF", n)
			}
			return all
		}
		if err != nil {
			t.Fatalf("Read after %d shares: %v", len(all), err)
		}
		if n < 1 || n > step {
			t.Fatalf("Read of up to %d shares returned %d without an error", step, n)
		}
		all = append(all, buf[:n]...)
	}
}

func equal(t *testing.T, got, want []share.Share) {
	t.Helper()
	for i := range min(len(got), len(want)) {
		if got[i].ID() != want[i].ID() {
			t.Fatalf("share %d of %d is\n%+v, want\n%+v", i, len(got), got[i], want[i])
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d shares were read, want %d", len(got), len(want))
	}
}

func testKeepsOrder(t *testing.T, b Backend) {
	mustAppend(t, b.Log, nil)
	all := sharesOn(firstDay, 0, 1000)
	for rest, n := all, 1; len(rest) > 0; n = n*3%97 + 1 {
		n = min(n, len(rest))
		mustAppend(t, b.Log, rest[:n])
		rest = rest[n:]
	}
	for _, step := range []int{1, 7, 4096} {
		equal(t, drain(t, mustScan(t, b.Log, sharelog.Position{}, 0), step), all)
	}
}

func testSortsByDay(t *testing.T, b Backend) {
	d0, d1 := sharesOn(firstDay, 0, 40), sharesOn(firstDay+1, 40, 80)
	mustAppend(t, b.Log, d0[:10])
	mixed := []share.Share{d1[0], d0[10], d1[1], d0[11], d1[2]}
	mustAppend(t, b.Log, mixed)
	mustAppend(t, b.Log, d1[3:])
	mustAppend(t, b.Log, d0[12:]) // late
	equal(t, drain(t, mustScan(t, b.Log, sharelog.Position{Day: firstDay}, firstDay), 100), d0)
	equal(t, drain(t, mustScan(t, b.Log, sharelog.Position{Day: firstDay + 1}, firstDay+1), 100), d1)
	equal(t, drain(t, mustScan(t, b.Log, sharelog.Position{}, 0), 100), append(slices.Clone(d0), d1...))
}

func testIsDurable(t *testing.T, b Backend) {
	all := append(sharesOn(firstDay, 0, 300), sharesOn(firstDay+1, 300, 310)...)
	c := mustScan(t, b.Log, sharelog.Position{}, 0)
	mustAppend(t, b.Log, all[:100])
	got := drain(t, c, 64)
	again, err := b.Reopen()
	if err != nil {
		t.Fatalf("reopen: %v", err)
	}
	equal(t, drain(t, mustScan(t, again.Log, sharelog.Position{}, 0), 64), all[:100])
	mustAppend(t, again.Log, all[100:])
	equal(t, drain(t, mustScan(t, again.Log, sharelog.Position{}, 0), 64), all)
	got = append(got, drain(t, mustScan(t, again.Log, c.Position(), 0), 64)...)
	equal(t, got, all)
}

func testResumesExactly(t *testing.T, b Backend) {
	var all []share.Share
	for day := range sharelog.Day(3) {
		all = append(all, sharesOn(firstDay+day, len(all), len(all)+70)...)
	}
	for rest := all; len(rest) > 0; {
		n := min(11, len(rest))
		mustAppend(t, b.Log, rest[:n])
		rest = rest[n:]
	}
	for stop := range len(all) + 1 {
		c := mustScan(t, b.Log, sharelog.Position{}, 0)
		var got []share.Share
		buf := make([]share.Share, 5)
		for len(got) < stop {
			n, err := c.Read(t.Context(), buf[:min(5, stop-len(got))])
			if err != nil {
				t.Fatalf("Read after %d shares: %v", len(got), err)
			}
			got = append(got, buf[:n]...)
		}
		text, err := c.Position().MarshalText()
		if err != nil {
			t.Fatalf("MarshalText: %v", err)
		}
		c.Close()
		var pos sharelog.Position
		if err := pos.UnmarshalText(text); err != nil {
			t.Fatalf("UnmarshalText of %q: %v", text, err)
		}
		got = append(got, drain(t, mustScan(t, b.Log, pos, 0), 64)...)
		equal(t, got, all)
	}
}

func testFollowsAppends(t *testing.T, b Backend) {
	c := mustScan(t, b.Log, sharelog.Position{}, 0)
	var all, got []share.Share
	got = append(got, drain(t, c, 3)...)
	for round := range 20 {
		day := firstDay + sharelog.Day(round/7)
		more := sharesOn(day, len(all), len(all)+round%4)
		all = append(all, more...)
		mustAppend(t, b.Log, more)
		got = append(got, drain(t, c, 3)...)
		equal(t, got, all)
	}
}

func testAllowsConcurrentCalls(t *testing.T, b Backend) {
	const callers, each = 4, 200
	var wg sync.WaitGroup
	errs := make(chan error, 2*callers)
	for k := range callers {
		wg.Go(func() {
			for i := 0; i < each; i += 10 {
				if err := b.Log.Append(t.Context(), sharesOn(firstDay, k*each+i, k*each+i+10)); err != nil {
					errs <- fmt.Errorf("caller %d: %w", k, err)
					return
				}
			}
		})
		wg.Go(func() {
			c, err := b.Log.Scan(sharelog.Position{}, 0)
			if err != nil {
				errs <- err
				return
			}
			defer c.Close()
			buf := make([]share.Share, 50)
			for range 50 {
				if _, err := c.Read(t.Context(), buf); err != nil && err != io.EOF {
					errs <- fmt.Errorf("reader %d: %w", k, err)
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
	for i, s := range sharesOn(firstDay, 0, callers*each) {
		place[s.ID()] = i
	}
	var next [callers]int
	got := drain(t, mustScan(t, b.Log, sharelog.Position{}, 0), 100)
	for _, s := range got {
		i, ok := place[s.ID()]
		if k := i / each; !ok || next[k] != i%each {
			t.Fatalf("share %d of caller %d (known: %v) was read where its share %d belongs", i%each, k, ok, next[k])
		}
		next[i/each]++
	}
	if len(got) != callers*each {
		t.Errorf("%d shares were read, want %d", len(got), callers*each)
	}
}

func testRetainsNothing(t *testing.T, b Backend) {
	want, given := sharesOn(firstDay, 0, 30), sharesOn(firstDay, 0, 30)
	mustAppend(t, b.Log, given)
	for i := range given {
		if given[i] != want[i] {
			t.Errorf("Append has changed share %d of the caller's slice", i)
		}
		given[i] = shareOn(firstDay, 100+i)
	}
	equal(t, drain(t, mustScan(t, b.Log, sharelog.Position{}, 0), 100), want)
}

func testTakesTheRest(t *testing.T, b Backend) {
	given := sharesOn(firstDay, 0, 9)
	given[4].UserID = 0
	if err := b.Log.Append(t.Context(), given); !share.OnlyInvalid(err) {
		t.Fatalf("Append with an invalid share returned %v, want an error about that alone", err)
	}
	want := append(sharesOn(firstDay, 0, 4), sharesOn(firstDay, 5, 9)...)
	equal(t, drain(t, mustScan(t, b.Log, sharelog.Position{}, 0), 100), want)
}

func testEndsAtTheLastDay(t *testing.T, b Backend) {
	for day := range sharelog.Day(4) {
		mustAppend(t, b.Log, sharesOn(firstDay+day, 0, 5))
	}
	want := append(sharesOn(firstDay+1, 0, 5), sharesOn(firstDay+2, 0, 5)...)
	c := mustScan(t, b.Log, sharelog.Position{Day: firstDay + 1}, firstDay+2)
	equal(t, drain(t, c, 3), want)
	equal(t, drain(t, c, 3), nil)
	if _, err := b.Log.Scan(sharelog.Position{Day: firstDay + 9}, firstDay+9); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Scan of a day without shares returned %v, want %v", err, fs.ErrNotExist)
	}
}

func testHonorsContext(t *testing.T, b Backend) {
	mustAppend(t, b.Log, sharesOn(firstDay, 0, 5))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Log.Append(ended, sharesOn(firstDay, 5, 6)); !errors.Is(err, context.Canceled) {
		t.Errorf("Append with a context that has ended returned %v, want %v", err, context.Canceled)
	}
	c := mustScan(t, b.Log, sharelog.Position{}, 0)
	if _, err := c.Read(ended, make([]share.Share, 5)); !errors.Is(err, context.Canceled) {
		t.Errorf("Read with a context that has ended returned %v, want %v", err, context.Canceled)
	}
	equal(t, drain(t, c, 5), sharesOn(firstDay, 0, 5))
}

// Flaky is a [sharelog.Log] that passes everything on to another one, and fails on command.
type Flaky struct {
	sharelog.Log

	mu      sync.Mutex
	err     error
	fails   int
	partial bool
	calls   int
}

// NewFlaky returns a Flaky in front of log that works until it is told otherwise.
func NewFlaky(log sharelog.Log) *Flaky { return &Flaky{Log: log} }

// FailNext makes the next n calls of Append fail with err before anything is stored; below 0 means all until they are
// counted anew with FailNext(0, nil).
func (f *Flaky) FailNext(n int, err error) { f.fail(n, err, false) }

// FailPartly makes the next n calls of Append store the shares of the first day of the batch and fail with err for all
// others, as a [sharelog.PartialError].
func (f *Flaky) FailPartly(n int, err error) { f.fail(n, err, true) }

func (f *Flaky) fail(n int, err error, partial bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fails, f.err, f.partial = n, err, partial
}

// Calls returns how often Append was called.
func (f *Flaky) Calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

// Append passes shares on, or does what it was told to do instead.
func (f *Flaky) Append(ctx context.Context, shares []share.Share) error {
	f.mu.Lock()
	f.calls++
	fails, partial, err := f.fails != 0, f.partial, f.err
	if f.fails > 0 {
		f.fails--
	}
	f.mu.Unlock()
	switch {
	case !fails:
		return f.Log.Append(ctx, shares)
	case !partial || len(shares) == 0:
		return err
	}
	day := sharelog.DayOf(shares[0].Time)
	var first []share.Share
	for _, s := range shares {
		if sharelog.DayOf(s.Time) == day {
			first = append(first, s)
		}
	}
	if err := f.Log.Append(ctx, first); err != nil {
		return err
	}
	return &sharelog.PartialError{Stored: []sharelog.Day{day}, Err: err}
}
