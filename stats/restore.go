package stats

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/poolkit/poolkit/share"
)

// Restore fills a, which must be new, with what a Flusher wrote to store, and returns the position from which the
// source of shares goes on; it is nil when the store is empty or shares never came with a position. Totals, rounds and
// names are what they were at that position; windows are as of now, to the resolution of [Options.BucketSpan].
//
// Workers and users beyond the bounds in Options are left in the store and counted in the pool only.
func (a *Aggregator) Restore(ctx context.Context, store Store) (position []byte, err error) {
	state, err := store.State(ctx)
	if err != nil {
		return nil, fmt.Errorf("stats: restore: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.seq != 0 || a.users.Load() != 0 || a.blocks != 0 {
		return nil, errors.New("stats: restore: the aggregator has counted shares already")
	}
	now := a.opts.Now()
	a.loadTotals(state.Totals)
	a.loadNames(state.Names)
	a.loadRounds(state.Rounds)
	from := now.Add(-max(time.Hour, a.opts.LargeWindow) - time.Minute)
	for b, err := range store.Buckets(ctx, Query{From: from}) {
		if err != nil {
			return nil, fmt.Errorf("stats: restore: %w", err)
		}
		a.loadBucket(&b, now.Unix())
	}
	a.collect = true
	a.seq, a.position = state.Seq, slices.Clone(state.Position)
	return state.Position, nil
}

func (a *Aggregator) loadTotals(totals []Total) {
	totals = slices.Clone(totals)
	slices.SortFunc(totals, func(a, b Total) int { return a.Key.Compare(b.Key) }) // users before their workers
	for i := range totals {
		t := &totals[i]
		sh := a.shard(t.Key.UserID)
		switch {
		case t.Key == Key{}:
			// What the pool had goes to one shard; all are added up when read.
			sh.pool.load(t)
			sh.round = t.RoundShares
			a.blocks, a.lastBlock = t.BlocksFound, unix(t.LastBlock)
			a.round.Store(max(t.Round, 1))
		case t.Key.WorkerID == 0:
			if !hasRoom(&a.users, a.opts.MaxUsers, true) {
				continue
			}
			u := a.newUser(sh, t.Key.UserID)
			u.load(t)
			u.round, u.roundNumber = t.RoundShares, t.Round
			u.blocks, u.lastBlock = t.BlocksFound, unix(t.LastBlock)
		default:
			u := sh.users[t.Key.UserID]
			if u == nil || !hasRoom(&a.workers, a.opts.MaxWorkers, true) {
				continue
			}
			w := a.newWorker(sh, u, t.Key)
			w.load(t)
			w.lastDiff = t.LastDifficulty
		}
	}
}

func (a *Aggregator) loadNames(names []Name) {
	for _, n := range names {
		sh := a.shard(n.Key.UserID)
		if n.Key.WorkerID == 0 {
			if u := sh.users[n.Key.UserID]; u != nil {
				a.nameUser(sh, u, n.Name)
				continue
			}
		} else if w := sh.workers[n.Key]; w != nil {
			w.name = n.Name
			continue
		}
		if len(sh.early) < a.maxEarly() {
			a.remember(sh, n.Key, n.Name)
		} else {
			sh.gone[n.Key] = struct{}{}
		}
	}
}

func (a *Aggregator) loadRounds(rounds []Round) {
	rounds = rounds[max(0, len(rounds)-a.opts.MaxRounds):]
	a.rounds = make([]Round, len(rounds))
	for i, r := range rounds {
		r.Users = nil
		a.rounds[i] = r
	}
}

// loadBucket puts a bucket into the windows. Its totals are known already.
func (a *Aggregator) loadBucket(b *Bucket, now int64) {
	t := b.Start.Unix()
	if t > now+futureSeconds {
		return
	}
	sh := a.shard(b.Key.UserID)
	load := func(c *counter) {
		if b.Accepted.Count > 0 {
			c.window(now, t, share.Accepted, true, b.Accepted.Sum)
		}
		for _, o := range b.Other {
			c.window(now, t, o.Verdict, a.accepted(o.Verdict), o.Sum)
		}
	}
	load(&sh.pool)
	if u := sh.users[b.Key.UserID]; u != nil {
		load(&u.counter)
	}
	if w := sh.workers[b.Key]; w != nil {
		load(&w.counter)
		w.coarsen()
	}
}
