package stats

import (
	"slices"
	"time"

	"github.com/poolkit/poolkit/share"
)

// cut takes everything that changed since the last cut and makes the next Batch of it; ok is false when there is
// nothing to write.
func (a *Aggregator) cut() (b *Batch, ok bool) {
	var pends [numShards][]pend
	a.mu.Lock()
	b = &Batch{Seq: a.seq + 1, Position: slices.Clone(a.position)}
	number := a.round.Load()
	poolDirty := false
	dirty := 1
	for i := range a.shards { // nobody appends while mu is held
		dirty += len(a.shards[i].dirtyWorkers) + len(a.shards[i].dirtyUsers)
	}
	b.Totals = make([]Total, 0, dirty)
	for i := range a.shards {
		sh := &a.shards[i]
		sh.mu.Lock()
		poolDirty = poolDirty || sh.dirty
		sh.dirty = false
		pends[i] = sh.pend
		sh.pend, sh.spare = sh.spare[:0], nil
		sh.gen++
		for k := range sh.gone {
			b.Forget = append(b.Forget, k)
		}
		clear(sh.gone)
		for k, n := range sh.names {
			b.Names = append(b.Names, Name{k, n})
		}
		clear(sh.names)
		for _, w := range sh.dirtyWorkers {
			if w.dirty {
				w.dirty = false
				t := w.total(w.key)
				t.LastDifficulty = w.lastDiff
				b.Totals = append(b.Totals, t)
			}
		}
		clear(sh.dirtyWorkers)
		sh.dirtyWorkers = sh.dirtyWorkers[:0]
		for _, u := range sh.dirtyUsers {
			if u.dirty {
				u.dirty = false
				b.Totals = append(b.Totals, u.userTotal(number))
			}
		}
		clear(sh.dirtyUsers)
		sh.dirtyUsers = sh.dirtyUsers[:0]
		sh.mu.Unlock()
	}
	b.Rounds, a.closed = a.closed, nil
	if poolDirty {
		b.Totals = append(b.Totals, a.poolTotal())
	}
	a.pending.Store(0)
	a.mu.Unlock()

	a.roomMu.Lock()
	close(a.room)
	a.room = make(chan struct{})
	a.roomMu.Unlock()

	b.Buckets = buckets(pends[:], a.opts.BucketSpan)
	for i := range a.shards {
		sh := &a.shards[i]
		sh.mu.Lock()
		sh.spare = pends[i]
		sh.mu.Unlock()
	}
	ok = len(b.Forget)+len(b.Names)+len(b.Totals)+len(b.Rounds)+len(b.Buckets) > 0
	return b, ok
}

func (u *user) userTotal(number uint64) Total {
	t := u.total(Key{UserID: u.id})
	t.BlocksFound, t.LastBlock = u.blocks, fromUnix(u.lastBlock)
	if t.Round = number; u.roundNumber == number {
		t.RoundShares = u.round
	}
	return t
}

// poolTotal adds the shards up. mu is held exclusively, or the result may fall between two shares.
func (a *Aggregator) poolTotal() Total {
	var sum Total
	for i := range a.shards {
		sh := &a.shards[i]
		sh.mu.Lock()
		t := sh.pool.total(Key{})
		sum.RoundShares += sh.round
		sh.mu.Unlock()
		sum.AcceptCount += t.AcceptCount
		sum.Accepted.Add(t.Accepted)
		for _, o := range t.Other {
			sum.Other = addTally(sum.Other, o.Verdict, o.Tally)
		}
		if sum.First.IsZero() || !t.First.IsZero() && t.First.Before(sum.First) {
			sum.First = t.First
		}
		if t.LastShare.After(sum.LastShare) {
			sum.LastShare, sum.LastIP = t.LastShare, t.LastIP
		}
		if t.LastAccepted.After(sum.LastAccepted) {
			sum.LastAccepted = t.LastAccepted
		}
	}
	sum.Round = a.round.Load()
	a.roundMu.Lock()
	sum.BlocksFound, sum.LastBlock = a.blocks, fromUnix(a.lastBlock)
	a.roundMu.Unlock()
	return sum
}

// buckets sorts and merges what the shards noted.
func buckets(pends [][]pend, span time.Duration) []Bucket {
	n := 0
	for _, p := range pends {
		n += len(p)
	}
	if n == 0 {
		return nil
	}
	all := make([]pend, 0, n)
	for _, p := range pends {
		all = append(all, p...)
	}
	slices.SortFunc(all, func(a, b pend) int {
		switch {
		case a.start != b.start:
			if a.start < b.start {
				return -1
			}
			return 1
		case a.key != b.key:
			return a.key.Compare(b.key)
		}
		return int(a.verdict) - int(b.verdict)
	})
	out := make([]Bucket, 0, n)
	for i, p := range all {
		if i == 0 || p.start != all[i-1].start || p.key != all[i-1].key {
			out = append(out, Bucket{Key: p.key, Start: fromUnix(p.start), Span: span})
		}
		b := &out[len(out)-1]
		if t := (Tally{uint64(p.count), p.sum}); p.verdict == share.Accepted {
			b.Accepted.Add(t)
		} else {
			b.Other = addTally(b.Other, p.verdict, t)
		}
	}
	return out
}
