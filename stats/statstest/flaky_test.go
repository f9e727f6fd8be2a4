package statstest_test

import (
	"errors"
	"testing"

	"github.com/poolkit/poolkit/stats"
	"github.com/poolkit/poolkit/stats/statstest"
)

func TestFlaky(t *testing.T) {
	f := &statstest.Flaky{Store: new(stats.Memory)}
	seq := func() uint64 {
		st, err := f.State(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return st.Seq
	}
	f.Fail(statstest.Before, statstest.Not, statstest.After)
	if err := f.Commit(t.Context(), &stats.Batch{Seq: 1}); !errors.Is(err, statstest.ErrFlaky) || seq() != 0 {
		t.Errorf("Before: %v, batch %d", err, seq())
	}
	if err := f.Commit(t.Context(), &stats.Batch{Seq: 1}); err != nil || seq() != 1 {
		t.Errorf("Not: %v, batch %d", err, seq())
	}
	if err := f.Commit(t.Context(), &stats.Batch{Seq: 2}); !errors.Is(err, statstest.ErrFlaky) || seq() != 2 {
		t.Errorf("After: %v, batch %d", err, seq())
	}
	if err := f.Commit(t.Context(), &stats.Batch{Seq: 3}); err != nil || f.Commits() != 4 {
		t.Errorf("then: %v, %d commits", err, f.Commits())
	}
	if err := f.Commit(t.Context(), &stats.Batch{Seq: 9}); !errors.Is(err, stats.ErrConflict) {
		t.Errorf("the store's own error: %v", err)
	}
}
