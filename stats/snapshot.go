package stats

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
)

// readStep is how many workers or users a reader looks at before it lets writers go on.
const readStep = 8

// A Snapshot is the pool at one moment. Shares that arrive while it is taken may be in some of its numbers and not yet
// in others.
type Snapshot struct {
	Time time.Time
	Pool Live

	// Hashrate is the pool's over the small window: the sum of what its users have, each divided by its own time.
	Hashrate difficulty.Hashrate

	TotalWorkers int // with a share within an hour
	TotalUsers   int // with a share within an hour

	RoundShares difficulty.Difficulty // accepted since the last block
	BlocksFound uint64
	LastBlock   time.Time // zero before the first
	FirstShare  time.Time // zero before the first

	Users []UserStats // every user that is known, in order of ID
}

// UserStats is a user at one moment.
type UserStats struct {
	UserID int32
	Name   string // "#" and the number when nobody told
	Live

	Workers     int // with a share within an hour
	RoundShares difficulty.Difficulty
	BlocksFound uint64
	LastBlock   time.Time // zero before the first
}

// WorkerStats is a worker at one moment.
type WorkerStats struct {
	Key  Key
	Name string // "#" and the number when nobody told
	Live
}

// Snapshot returns the pool and all its users as of now. It takes time in proportion to the number of users, and
// holds up writers of a part of the users for some tens of microseconds at a time.
func (a *Aggregator) Snapshot(now time.Time) *Snapshot {
	s := a.pool(now)
	var untracked = s.Pool.Small
	for i := range a.shards {
		sh := &a.shards[i]
		sh.mu.Lock()
		users := make([]*user, 0, len(sh.users))
		for _, u := range sh.users {
			users = append(users, u)
		}
		sh.mu.Unlock()
		for part := range slices.Chunk(users, readStep) {
			sh.mu.Lock()
			for _, u := range part {
				s.Users = append(s.Users, a.userStats(u, now))
				s.Users[len(s.Users)-1].Workers = sh.countWorkers(u, now.Unix())
			}
			sh.mu.Unlock()
		}
	}
	slices.SortFunc(s.Users, func(a, b UserStats) int { return cmp.Compare(a.UserID, b.UserID) })
	for i := range s.Users {
		u := &s.Users[i]
		s.TotalWorkers += u.Workers
		if u.LastShare.Unix()+hour >= now.Unix() {
			s.TotalUsers++
		}
		s.Hashrate += u.Small.Hashrate
		untracked.Sum -= u.Small.Sum
	}
	if untracked.Sum > 0 { // of users beyond MaxUsers
		untracked.divide(now, untracked.First, a.opts.SmallWindow)
		s.Hashrate += untracked.Hashrate
	}
	return s
}

// pool adds up the shards.
func (a *Aggregator) pool(now time.Time) *Snapshot {
	s := &Snapshot{Time: now}
	n := now.Unix()
	l := &s.Pool
	var rejects []VerdictSums
	for i := range a.shards {
		sh := &a.shards[i]
		sh.mu.Lock()
		p := sh.pool.live(n, &a.opts)
		p.AcceptCount = sh.pool.acceptCount // the pool is never gone
		s.RoundShares += sh.round
		sh.mu.Unlock()
		l.AcceptCount += p.AcceptCount
		l.Accepted.Add(p.Accepted)
		l.Accept1m += p.Accept1m
		l.Accept5m += p.Accept5m
		l.Accept15m += p.Accept15m
		l.Accept1h += p.Accept1h
		l.Reject15m += p.Reject15m
		l.Reject1h += p.Reject1h
		l.Stale15m += p.Stale15m
		l.Stale1h += p.Stale1h
		rejects = append(rejects, p.Rejects...)
		l.FirstShare = earlier(l.FirstShare, p.FirstShare)
		if p.LastShare.After(l.LastShare) {
			l.LastShare, l.LastIP = p.LastShare, p.LastIP
		}
		if p.LastAccepted.After(l.LastAccepted) {
			l.LastAccepted = p.LastAccepted
		}
		l.Small.Sum += p.Small.Sum
		l.Large.Sum += p.Large.Sum
		l.Small.First = earlier(l.Small.First, p.Small.First)
		l.Large.First = earlier(l.Large.First, p.Large.First)
	}
	slices.SortStableFunc(rejects, func(a, b VerdictSums) int { return cmp.Compare(a.Verdict, b.Verdict) })
	for _, r := range rejects {
		if n := len(l.Rejects); n > 0 && l.Rejects[n-1].Verdict == r.Verdict {
			l.Rejects[n-1].Sum15m += r.Sum15m
			l.Rejects[n-1].Sum1h += r.Sum1h
			continue
		}
		l.Rejects = append(l.Rejects, r)
	}
	l.Small.divide(now, l.Small.First, a.opts.SmallWindow)
	l.Large.divide(now, l.Large.First, a.opts.LargeWindow)
	s.FirstShare = l.FirstShare
	a.roundMu.Lock()
	s.BlocksFound, s.LastBlock = a.blocks, fromUnix(a.lastBlock)
	a.roundMu.Unlock()
	return s
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// userStats is called with the shard's mutex held.
func (a *Aggregator) userStats(u *user, now time.Time) UserStats {
	n := now.Unix()
	s := UserStats{
		UserID: u.id, Name: u.name, Live: u.live(n, &a.opts),
		BlocksFound: u.blocks, LastBlock: fromUnix(u.lastBlock),
	}
	if s.Name == "" {
		s.Name = "#" + strconv.Itoa(int(u.id))
	}
	if u.roundNumber == a.round.Load() {
		s.RoundShares = u.round
	}
	s.Small.divide(now, s.Small.First, a.opts.SmallWindow)
	s.Large.divide(now, s.Large.First, a.opts.LargeWindow)
	return s
}

// countWorkers counts the workers with a share within an hour. It is called with the mutex of sh held, and lets it go
// now and then when there are many.
func (sh *shard) countWorkers(u *user, now int64) (n int) {
	list := u.workers
	const step = 1024
	if len(list) > step {
		list = slices.Clone(list)
	}
	for i, w := range list {
		if i%step == step-1 {
			sh.mu.Unlock()
			sh.mu.Lock()
		}
		if !w.gone(now) {
			n++
		}
	}
	return n
}

// User returns one user as of now, and false when it is not known.
func (a *Aggregator) User(now time.Time, userID int32) (UserStats, bool) {
	sh := a.shard(userID)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	u := sh.users[userID]
	if u == nil {
		return UserStats{}, false
	}
	s := a.userStats(u, now)
	s.Workers = sh.countWorkers(u, now.Unix())
	return s, true
}

// UserID returns the user with the given name, letter for letter, or with the number in a name of the form "#42" for
// users that nobody has told the name of.
func (a *Aggregator) UserID(name string) (int32, bool) {
	if name == "" {
		return 0, false
	}
	if name[0] == '#' {
		n, err := strconv.ParseInt(name[1:], 10, 32)
		if u, ok := a.User(time.Time{}, int32(n)); err == nil && ok && u.Name == name {
			return u.UserID, true
		}
		return 0, false
	}
	a.nameMu.RLock()
	defer a.nameMu.RUnlock()
	id, ok := a.byName[name]
	return id, ok
}

// Workers returns the workers of a user, or of all users when userID is 0, in order of Key: those with a share within
// an hour or an accepted one within the large window.
//
// The hashrates of a worker, small and large, are both divided by the time since its oldest share in the large window.
func (a *Aggregator) Workers(now time.Time, userID int32) []WorkerStats {
	var out []WorkerStats
	for i := range a.shards {
		sh := &a.shards[i]
		if userID != 0 && sh != a.shard(userID) {
			continue
		}
		sh.mu.Lock()
		var list []*worker
		if userID == 0 {
			list = make([]*worker, 0, len(sh.workers))
			for _, w := range sh.workers {
				list = append(list, w)
			}
		} else if u := sh.users[userID]; u != nil {
			list = slices.Clone(u.workers)
		}
		sh.mu.Unlock()
		for part := range slices.Chunk(list, readStep) {
			sh.mu.Lock()
			for _, w := range part {
				if s, ok := a.workerStats(w, now); ok {
					out = append(out, s)
				}
			}
			sh.mu.Unlock()
		}
	}
	slices.SortFunc(out, func(a, b WorkerStats) int { return a.Key.Compare(b.Key) })
	return out
}

func (a *Aggregator) workerStats(w *worker, now time.Time) (WorkerStats, bool) {
	n := now.Unix()
	s := WorkerStats{Key: w.key, Name: w.name, Live: w.live(n, &a.opts)}
	gone := w.gone(n)
	if gone && s.Large.Sum == 0 {
		return s, false
	}
	if gone {
		s.Accepted = Tally{}
	}
	if s.Name == "" {
		s.Name = "#" + strconv.FormatInt(w.key.WorkerID, 10)
	}
	s.Small.divide(now, s.Large.First, a.opts.SmallWindow)
	s.Large.divide(now, s.Large.First, a.opts.LargeWindow)
	return s, true
}

// ClosedRound returns the round that was closed by a share for the given job, height and nonce, without Users, and
// false when there is none among the last [Options.MaxRounds].
func (a *Aggregator) ClosedRound(id job.ID, height int32, nonce uint32) (Round, bool) {
	a.roundMu.Lock()
	defer a.roundMu.Unlock()
	for i := len(a.rounds) - 1; i >= 0; i-- {
		if a.rounds[i].is(id, height, nonce) {
			return a.rounds[i], true
		}
	}
	return Round{}, false
}

// Rounds returns the last closed rounds, newest last and without Users.
func (a *Aggregator) Rounds() []Round {
	a.roundMu.Lock()
	defer a.roundMu.Unlock()
	return slices.Clone(a.rounds)
}

// Windows returns the small and the large hashrate window.
func (a *Aggregator) Windows() (small, large time.Duration) {
	return a.opts.SmallWindow, a.opts.LargeWindow
}
