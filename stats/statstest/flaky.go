package statstest

import (
	"context"
	"errors"
	"iter"
	"sync"

	"github.com/poolkit/poolkit/stats"
)

// ErrFlaky is what a Flaky store fails with.
var ErrFlaky = errors.New("statstest: failed on command")

// A Failure is how a call fails.
type Failure int

const (
	Not    Failure = iota // it does not
	Before                // with ErrFlaky and without doing anything
	After                 // with ErrFlaky, though what was asked for is done
)

// Flaky is a Store that fails when told to.
type Flaky struct {
	Store stats.Store

	mu   sync.Mutex
	next []Failure
	seen int
}

var _ stats.Store = (*Flaky)(nil)

// Fail says how the next calls of Commit go, in order; those after them succeed.
func (f *Flaky) Fail(next ...Failure) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next = next
}

// Commits returns how often Commit was called.
func (f *Flaky) Commits() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen
}

// Commit fails as it was told to.
func (f *Flaky) Commit(ctx context.Context, b *stats.Batch) error {
	f.mu.Lock()
	how := Not
	if len(f.next) > 0 {
		how, f.next = f.next[0], f.next[1:]
	}
	f.seen++
	f.mu.Unlock()
	if how == Before {
		return ErrFlaky
	}
	if err := f.Store.Commit(ctx, b); err != nil {
		return err
	}
	if how == After {
		return ErrFlaky
	}
	return nil
}

// State is that of the store behind.
func (f *Flaky) State(ctx context.Context) (*stats.State, error) { return f.Store.State(ctx) }

// Buckets are those of the store behind.
func (f *Flaky) Buckets(ctx context.Context, q stats.Query) iter.Seq2[stats.Bucket, error] {
	return f.Store.Buckets(ctx, q)
}
