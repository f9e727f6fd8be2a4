package block

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/poolkit/poolkit/job"
)

// A Memory is a [Recorder] that forgets everything when the process ends. The zero value is ready for use.
type Memory struct {
	mu    sync.Mutex
	table foundTable
}

var _ Recorder = (*Memory)(nil)

// Record implements [Recorder].
func (m *Memory) Record(ctx context.Context, f *Found) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if next, changed := m.table.merged(f); changed {
		m.table.set(next)
	}
	return nil
}

// Found implements [Recorder].
func (m *Memory) Found(ctx context.Context, q Query) ([]Found, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.table.list(q), nil
}

type foundKey struct {
	chain job.Chain
	hash  chainhash.Hash
}

// A foundTable holds records in the order in which they are listed.
type foundTable struct {
	byKey  map[foundKey]*Found
	sorted []*Found
}

// merged returns what recording f makes of its record, and whether that is news.
func (t *foundTable) merged(f *Found) (Found, bool) {
	old, ok := t.byKey[foundKey{f.Chain, f.Hash}]
	if !ok {
		return *f, true
	}
	next := *old
	return next, next.Merge(f)
}

func (t *foundTable) set(f Found) {
	key := foundKey{f.Chain, f.Hash}
	if old, ok := t.byKey[key]; ok {
		if compareFound(old, &f) == 0 {
			*old = f // as always after Merge, which leaves alone what decides the order
			return
		}
		if i, ok := slices.BinarySearchFunc(t.sorted, old, compareFound); ok {
			t.sorted = slices.Delete(t.sorted, i, i+1)
		}
	}
	if t.byKey == nil {
		t.byKey = make(map[foundKey]*Found)
	}
	t.byKey[key] = &f
	i, _ := slices.BinarySearchFunc(t.sorted, &f, compareFound)
	t.sorted = slices.Insert(t.sorted, i, &f)
}

func (t *foundTable) list(q Query) []Found {
	list := []Found{}
	for _, f := range t.sorted {
		if q.Limit > 0 && len(list) >= q.Limit {
			break
		}
		if q.selects(f) {
			list = append(list, *f)
		}
	}
	return list
}

// compareFound orders records as Recorder promises, and by chain and hash where that leaves a choice.
func compareFound(a, b *Found) int {
	return cmp.Or(cmp.Compare(b.Height, a.Height), b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(a.Chain, b.Chain),
		bytes.Compare(a.Hash[:], b.Hash[:]))
}
