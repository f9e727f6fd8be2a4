package stats

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"
)

// Memory is a Store that lasts as long as the process: the reference for others, and good for tests and for pools
// that do not mind counting from the log's end after a restart. The zero value is empty and ready.
type Memory struct {
	mu       sync.Mutex
	seq      uint64
	position []byte
	totals   map[Key]Total
	names    map[Key]string
	rounds   map[uint64]Round
	buckets  map[bucketKey]Bucket
}

type bucketKey struct {
	start int64 // Unix seconds
	key   Key
	span  time.Duration
}

var (
	_ Store       = (*Memory)(nil)
	_ RoundReader = (*Memory)(nil)
)

// Commit is [Store]'s.
func (m *Memory) Commit(ctx context.Context, b *Batch) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch b.Seq {
	case m.seq + 1:
	case m.seq:
		if b.Seq != 0 {
			return nil
		}
		fallthrough
	default:
		return fmt.Errorf("stats: commit batch %d after %d: %w", b.Seq, m.seq, ErrConflict)
	}
	if m.totals == nil {
		m.totals, m.names = make(map[Key]Total), make(map[Key]string)
		m.rounds, m.buckets = make(map[uint64]Round), make(map[bucketKey]Bucket)
	}
	m.seq, m.position = b.Seq, slices.Clone(b.Position)
	for _, k := range b.Forget {
		delete(m.totals, k)
		delete(m.names, k)
	}
	for _, t := range b.Totals {
		t.Other = slices.Clone(t.Other)
		m.totals[t.Key] = t
	}
	for _, n := range b.Names {
		m.names[n.Key] = n.Name
	}
	for _, r := range b.Rounds {
		r.Users = slices.Clone(r.Users)
		m.rounds[r.Number] = r
	}
	for i := range b.Buckets {
		in := &b.Buckets[i]
		k := bucketKey{in.Start.Unix(), in.Key, in.Span}
		old, ok := m.buckets[k]
		if !ok {
			old = Bucket{Key: in.Key, Start: time.Unix(k.start, 0).UTC(), Span: in.Span}
		}
		old.Merge(in)
		m.buckets[k] = old
	}
	if t := b.PruneBuckets; !t.IsZero() {
		maps.DeleteFunc(m.buckets, func(k bucketKey, _ Bucket) bool { return time.Unix(k.start, 0).Before(t) })
	}
	if t := b.PruneRounds; !t.IsZero() {
		maps.DeleteFunc(m.rounds, func(_ uint64, r Round) bool { return r.Time.Before(t) })
	}
	return nil
}

// State is [Store]'s.
func (m *Memory) State(ctx context.Context) (*State, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s := &State{Seq: m.seq, Position: slices.Clone(m.position)}
	for _, t := range m.totals {
		t.Other = slices.Clone(t.Other)
		s.Totals = append(s.Totals, t)
	}
	slices.SortFunc(s.Totals, func(a, b Total) int { return a.Key.Compare(b.Key) })
	for k, n := range m.names {
		s.Names = append(s.Names, Name{k, n})
	}
	slices.SortFunc(s.Names, func(a, b Name) int { return a.Key.Compare(b.Key) })
	numbers := slices.Sorted(maps.Keys(m.rounds))
	for _, n := range numbers[max(0, len(numbers)-StateRounds):] {
		r := m.rounds[n]
		r.Users = nil
		s.Rounds = append(s.Rounds, r)
	}
	return s, nil
}

// RoundUsers is [RoundReader]'s.
func (m *Memory) RoundUsers(ctx context.Context, number uint64) ([]UserShares, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.rounds[number].Users), nil
}

// Buckets is [Store]'s. It returns what was there when the loop over it began.
func (m *Memory) Buckets(ctx context.Context, q Query) iter.Seq2[Bucket, error] {
	return func(yield func(Bucket, error) bool) {
		m.mu.Lock()
		var found []Bucket
		for _, b := range m.buckets {
			if q.Matches(&b) {
				b.Other = slices.Clone(b.Other)
				found = append(found, b)
			}
		}
		m.mu.Unlock()
		slices.SortFunc(found, func(a, b Bucket) int { return a.Compare(&b) })
		for _, b := range found {
			if err := ctx.Err(); err != nil {
				yield(Bucket{}, err)
				return
			}
			if !yield(b, nil) {
				return
			}
		}
	}
}
