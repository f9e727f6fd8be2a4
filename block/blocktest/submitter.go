package blocktest

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/poolkit/poolkit/block"
)

// patience is how long a call may take that should return soon.
const patience = 30 * time.Second

// A SubmitterBackend is a Submitter under test, and the blocks to test it with.
type SubmitterBackend struct {
	Submitter block.Submitter

	// Block returns a block that the node has not seen and will take as its new tip.
	Block func(t *testing.T) []byte

	// Stale returns a valid block that the node has not seen and that is not going to be on its best chain. Where it is
	// nil the test of it skips.
	Stale func(t *testing.T) []byte

	// Down makes the node unreachable, and Up reachable again. Where either is nil the test of it skips.
	Down, Up func(t *testing.T)

	// ForgetsDuplicates excuses a node that does not say that it had a block already.
	ForgetsDuplicates bool
}

// TestSubmitter checks the promises of block.Submitter. open returns a backend on a fresh node, or at least one that
// takes a block from Block as its new tip, and cleans up with t.Cleanup.
func TestSubmitter(t *testing.T, open func(t *testing.T) SubmitterBackend) {
	t.Run("Accepts", func(t *testing.T) {
		b := open(t)
		for i := range 3 {
			if err := b.Submitter.Submit(t.Context(), b.Block(t)); err != nil {
				t.Fatalf("Submit of good block %d: %v, want nil", i+1, err)
			}
		}
	})
	t.Run("KnowsDuplicates", func(t *testing.T) {
		b := open(t)
		if b.ForgetsDuplicates {
			t.Skip("the node does not report duplicates")
		}
		raw := b.Block(t)
		submit(t, b, raw)
		if err := b.Submitter.Submit(t.Context(), raw); !errors.Is(err, block.ErrDuplicate) {
			t.Fatalf("Submit of the same block again: %v, want ErrDuplicate", err)
		}
		submit(t, b, b.Block(t))
		if err := b.Submitter.Submit(t.Context(), raw); !errors.Is(err, block.ErrDuplicate) {
			t.Fatalf("Submit of the tip's parent again: %v, want ErrDuplicate", err)
		}
	})
	t.Run("KnowsStale", func(t *testing.T) {
		b := open(t)
		if b.Stale == nil {
			t.Skip("backend makes no stale blocks")
		}
		if err := b.Submitter.Submit(t.Context(), b.Stale(t)); !errors.Is(err, block.ErrStale) {
			t.Fatalf("Submit of a stale block: %v, want ErrStale", err)
		}
		submit(t, b, b.Block(t))
	})
	t.Run("Rejects", func(t *testing.T) {
		b := open(t)
		good := b.Block(t)
		for name, raw := range map[string][]byte{
			"another merkle root": flip(good, 36),
			"no transactions":     append(bytes.Clone(good[:80]), 0),
		} {
			var rejected *block.RejectedError
			err := b.Submitter.Submit(t.Context(), raw)
			if !errors.As(err, &rejected) || errors.Is(err, block.ErrDuplicate) || errors.Is(err, block.ErrStale) {
				t.Errorf("Submit of a block with %s: %v, want a RejectedError", name, err)
			} else if rejected.Reason == "" {
				t.Errorf("Submit of a block with %s: the RejectedError has no reason", name)
			}
		}
		for _, n := range []int{0, 1, 79, 80, len(good) - 1} {
			if err := b.Submitter.Submit(t.Context(), good[:n:n]); accepted(err) || errors.Is(err, block.ErrStale) {
				t.Errorf("Submit of the first %d bytes of a block: %v, want no success", n, err)
			}
		}
		submit(t, b, good)
	})
	t.Run("FailsWithoutVerdict", func(t *testing.T) {
		b := open(t)
		if b.Down == nil || b.Up == nil {
			t.Skip("backend cannot be made unreachable")
		}
		raw := b.Block(t)
		b.Down(t)
		for range 2 {
			if err := b.Submitter.Submit(t.Context(), raw); err == nil || verdict(err) {
				t.Fatalf("Submit while the node is down: %v, want an error that is no verdict", err)
			}
		}
		b.Up(t)
		submit(t, b, raw)
	})
	t.Run("HonorsContext", func(t *testing.T) {
		b := open(t)
		raw := b.Block(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		done := make(chan error, 1)
		go func() { done <- b.Submitter.Submit(ctx, raw) }()
		select {
		case err := <-done:
			if err == nil || verdict(err) {
				t.Fatalf("Submit with an ended context: %v, want an error that is no verdict", err)
			}
		case <-time.After(patience):
			t.Fatal("Submit with an ended context does not return")
		}
		submit(t, b, raw)
	})
	t.Run("RetainsNothing", func(t *testing.T) {
		b := open(t)
		raw := b.Block(t)
		buf := bytes.Clone(raw)
		submit(t, b, buf)
		if !bytes.Equal(buf, raw) {
			t.Fatal("Submit modified the block")
		}
		clear(buf) // the race detector sees whoever still reads it
		submit(t, b, b.Block(t))
	})
	t.Run("AllowsConcurrentCalls", func(t *testing.T) {
		b := open(t)
		raw, bad := b.Block(t), flip(b.Block(t), 36)
		errs := make([]error, 8)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() {
				if i%2 == 0 {
					errs[i] = b.Submitter.Submit(t.Context(), raw)
				} else {
					errs[i] = b.Submitter.Submit(t.Context(), bad)
				}
			})
		}
		wg.Wait()
		taken := 0
		for i, err := range errs {
			var rejected *block.RejectedError
			switch {
			case i%2 == 1 && !errors.As(err, &rejected):
				t.Errorf("concurrent Submit of a bad block: %v, want a RejectedError", err)
			case i%2 == 0 && accepted(err):
				taken++
			case i%2 == 0 && !errors.Is(err, block.ErrStale): // a node may not have judged the first one yet
				t.Errorf("concurrent Submit of a good block: %v", err)
			}
		}
		if taken == 0 {
			t.Error("no concurrent Submit of a good block succeeded")
		}
	})
}

func submit(t *testing.T, b SubmitterBackend, raw []byte) {
	t.Helper()
	if err := b.Submitter.Submit(t.Context(), raw); err != nil {
		t.Fatalf("Submit of a good block: %v, want nil", err)
	}
}

func accepted(err error) bool { return err == nil || errors.Is(err, block.ErrDuplicate) }

func verdict(err error) bool {
	var rejected *block.RejectedError
	return accepted(err) || errors.Is(err, block.ErrStale) || errors.As(err, &rejected)
}

// flip returns a copy of raw in which the byte at i differs.
func flip(raw []byte, i int) []byte {
	raw = bytes.Clone(raw)
	raw[i] ^= 0xff
	return raw
}
