package blocktest

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/poolkit/poolkit/block"
)

// A ConfirmerBackend is a Confirmer under test, and the means to let its chain grow.
type ConfirmerBackend struct {
	Confirmer block.Confirmer

	// Extend adds a block to the best chain and returns its hash.
	Extend func(t *testing.T) chainhash.Hash

	// Orphan adds a block that is not on the best chain and returns its hash. Where it is nil the test of it skips.
	Orphan func(t *testing.T) chainhash.Hash
}

// TestConfirmer checks the promises of block.Confirmer. open returns a fresh backend and cleans up with t.Cleanup.
func TestConfirmer(t *testing.T, open func(t *testing.T) ConfirmerBackend) {
	want := func(t *testing.T, b ConfirmerBackend, hash chainhash.Hash, want int64) {
		t.Helper()
		if n, err := b.Confirmer.Confirmations(t.Context(), hash); n != want || err != nil {
			t.Errorf("Confirmations = %d, %v, want %d", n, err, want)
		}
	}
	t.Run("CountsFromOne", func(t *testing.T) {
		b := open(t)
		first := b.Extend(t)
		want(t, b, first, 1)
		second := b.Extend(t)
		want(t, b, first, 2)
		want(t, b, second, 1)
	})
	t.Run("KnowsOrphans", func(t *testing.T) {
		b := open(t)
		if b.Orphan == nil {
			t.Skip("backend makes no orphans")
		}
		hash := b.Orphan(t)
		if n, err := b.Confirmer.Confirmations(t.Context(), hash); n >= 0 || err != nil {
			t.Errorf("Confirmations of an orphan = %d, %v, want a negative number", n, err)
		}
	})
	t.Run("ReportsUnknown", func(t *testing.T) {
		b := open(t)
		b.Extend(t)
		_, err := b.Confirmer.Confirmations(t.Context(), chainhash.Hash{1, 2, 3})
		if !errors.Is(err, block.ErrUnknownBlock) {
			t.Errorf("Confirmations of an unknown block: %v, want ErrUnknownBlock", err)
		}
	})
	t.Run("HonorsContext", func(t *testing.T) {
		b := open(t)
		hash := b.Extend(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := b.Confirmer.Confirmations(ctx, hash); err == nil || errors.Is(err, block.ErrUnknownBlock) {
			t.Errorf("Confirmations with an ended context: %v, want an error that says nothing of the block", err)
		}
	})
	t.Run("AllowsConcurrentCalls", func(t *testing.T) {
		b := open(t)
		hash := b.Extend(t)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() { want(t, b, hash, 1) })
		}
		wg.Wait()
	})
}
