package stats

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
)

// futureSeconds is how far ahead of the clock a share may be. One dated further ahead would move the windows on, and
// every honest share would then be too old for them.
const futureSeconds = 60

// numShards spreads users over locks. The pool's counters are kept once a shard and added up when read.
const numShards = 32

// ErrBacklog is returned when as much waits to be written to the Store as [Options.MaxPending] allows. Nothing of the
// call was counted.
var ErrBacklog = errors.New("stats: too much waits to be written to the store")

// An Aggregator counts shares by worker, user and pool. It is safe for concurrent use; readers hold up writers for
// some tens of microseconds at a time.
//
// Two shares are never recognised as the same one: see [Aggregator.Apply] for how each is counted once.
//
// A share more than an hour late is left out of the windows of up to an hour and counted in everything else. One dated
// more than a minute ahead of the clock and one that lacks a user, a worker or a difficulty are not counted at all;
// [Stats] says how many there were.
type Aggregator struct {
	opts Options

	// mu is held shared while shares are counted and exclusively where they must stand still: to cut off what goes to
	// the store, and to close a round. It comes before the mutex of a shard.
	mu     sync.RWMutex
	shards [numShards]shard

	// Below here and up to the next blank line mu guards; position is also written with mu shared, under applyMu.
	seq      uint64 // of the last batch cut off
	position []byte
	collect  bool // there is a store to write to
	closed   []Round

	applyMu sync.Mutex

	round   atomic.Uint64 // number of the running round; changes with mu held exclusively
	pending atomic.Int64
	workers atomic.Int64
	users   atomic.Int64

	roomMu sync.Mutex
	room   chan struct{} // closed when pending shrinks

	roundMu   sync.Mutex
	rounds    []Round // newest last, without Users
	blocks    uint64
	lastBlock int64

	nameMu sync.RWMutex
	byName map[string]int32
}

// A shard holds the users whose IDs hash to it, with all their workers.
type shard struct {
	mu      sync.Mutex
	workers map[Key]*worker
	users   map[int32]*user
	pool    counter
	round   difficulty.Difficulty // accepted since the round began

	early map[Key]string // names of keys that no share has come from yet
	names map[Key]string // names to be written
	gone  map[Key]struct{}

	pend  []pend // to be written
	spare []pend
	gen   uint32 // of pend, for pendRef
	self  pendRef
	dirty bool // pool and round changed

	touched int64 // see putGroup

	dirtyWorkers []*worker
	dirtyUsers   []*user

	shares, late, future, invalid, unknown uint64
}

// pend is a part of a Bucket. It has no pointers, so that the garbage collector passes over a million of them.
type pend struct {
	key     Key
	start   int64
	sum     difficulty.Difficulty
	count   uint32
	verdict share.Verdict
}

// pendRef remembers where a key's newest entries are in a shard's pend.
type pendRef struct {
	gen           uint32
	accept, other int32
}

type worker struct {
	counter
	key      Key
	user     *user
	name     string
	lastDiff difficulty.Difficulty // of the last accepted share
	at       int                   // place in user.workers
	ref      pendRef
	dirty    bool
	resting  bool // silent for an hour, and kept for the large window only
}

type user struct {
	counter
	id          int32
	name        string
	workers     []*worker
	round       difficulty.Difficulty // accepted in round number roundNumber
	roundNumber uint64
	blocks      uint64
	lastBlock   int64
	ref         pendRef // of the user's shares that belong to no known worker
	dirty       bool
	resting     bool
}

var _ share.Sink = (*Aggregator)(nil)

// New returns an empty Aggregator.
func New(opts *Options) (*Aggregator, error) {
	o, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	a := &Aggregator{opts: o, room: make(chan struct{}), byName: make(map[string]int32)}
	a.round.Store(1)
	for i := range a.shards {
		sh := &a.shards[i]
		sh.workers, sh.users = make(map[Key]*worker), make(map[int32]*user)
		sh.early, sh.names, sh.gone = make(map[Key]string), make(map[Key]string), make(map[Key]struct{})
		sh.pool.init(&o)
		sh.gen = 1
	}
	return a, nil
}

func (a *Aggregator) shard(userID int32) *shard {
	return &a.shards[shardIndex(userID)]
}

// shardIndex is Fibonacci hashing to 5 bits.
func shardIndex(userID int32) uint32 { return uint32(userID) * 2654435769 >> 27 }

// Put counts shares: all of them, or none and an error, which is ctx's or [ErrBacklog]. What Put counted is written to
// the Store with everything else, but what a crash takes away before that is lost, and a caller that repeats a Put
// counts twice; use Apply where that matters.
func (a *Aggregator) Put(ctx context.Context, shares []share.Share) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if a.pending.Load() >= int64(a.opts.MaxPending) {
		return ErrBacklog
	}
	exclusive := a.lock(shares)
	a.putAll(shares, exclusive)
	a.unlock(exclusive)
	return nil
}

// Apply counts the shares that a source of shares handed out and remembers where it goes on after them. The shares
// and the position reach the Store in one piece, so a source that is resumed at the position [Aggregator.Restore]
// returns repeats exactly what was lost with the process. Calls must not overlap, nor should shares from the same
// source come by Put as well. Position is opaque, copied, and may come with no shares at all.
//
// While the Store is behind by [Options.MaxPending], Apply waits. It returns an error only when ctx ends first, and has
// then counted nothing.
func (a *Aggregator) Apply(ctx context.Context, shares []share.Share, position []byte) error {
	a.applyMu.Lock()
	defer a.applyMu.Unlock()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		a.roomMu.Lock()
		room := a.room
		a.roomMu.Unlock()
		if a.pending.Load() < int64(a.opts.MaxPending) {
			break
		}
		select {
		case <-room:
		case <-ctx.Done():
		}
	}
	exclusive := a.lock(shares)
	a.putAll(shares, exclusive)
	a.position = append(a.position[:0], position...)
	a.unlock(exclusive)
	return nil
}

// lock takes mu as counting the shares needs it: exclusively when one of them closes a round.
func (a *Aggregator) lock(shares []share.Share) (exclusive bool) {
	for i := range shares {
		if shares[i].Verdict.Solved() {
			a.mu.Lock()
			return true
		}
	}
	a.mu.RLock()
	return false
}

func (a *Aggregator) unlock(exclusive bool) {
	if exclusive {
		a.mu.Unlock()
	} else {
		a.mu.RUnlock()
	}
}

// Batches of at least smallBatch shares are counted shard by shard, groupSize shares at a time: a pool has more
// workers than a processor's caches hold, and with 20,000 of them, fetching what a group needs from memory side by side
// makes a share cost 540 ns instead of 890.
const (
	smallBatch = 16
	sortSize   = 512
	groupSize  = 16
)

// putAll counts shares. mu is held, exclusively when one of them is solved.
func (a *Aggregator) putAll(shares []share.Share, exclusive bool) {
	now := a.opts.Now().Unix()
	if exclusive || len(shares) < smallBatch {
		for i := range shares {
			s := &shares[i]
			sh := a.shard(s.UserID)
			sh.mu.Lock()
			u := a.put(sh, s, nil, now)
			sh.mu.Unlock()
			if s.Verdict.Solved() && u.counted {
				a.closeRound(s, u.user)
			}
		}
		return
	}
	for len(shares) > 0 {
		n := min(len(shares), sortSize)
		a.putSorted(shares[:n], now)
		shares = shares[n:]
	}
}

// putSorted counts up to sortSize shares, in their order within each shard.
func (a *Aggregator) putSorted(shares []share.Share, now int64) {
	var end [numShards]uint16 // of each shard's part of order
	for i := range shares {
		end[shardIndex(shares[i].UserID)]++
	}
	for i := 1; i < numShards; i++ {
		end[i] += end[i-1]
	}
	var order [sortSize]uint16
	for i := len(shares) - 1; i >= 0; i-- {
		e := &end[shardIndex(shares[i].UserID)]
		*e--
		order[*e] = uint16(i)
	}
	for i := range a.shards { // end has become the beginning
		from, to := int(end[i]), len(shares)
		if i+1 < numShards {
			to = int(end[i+1])
		}
		if from == to {
			continue
		}
		sh := &a.shards[i]
		sh.mu.Lock()
		for from < to {
			group := order[from:min(from+groupSize, to)]
			a.putGroup(sh, shares, group, now)
			from += len(group)
		}
		sh.mu.Unlock()
	}
}

// putGroup counts the shares with the given indices, all of one shard, whose mutex is held.
func (a *Aggregator) putGroup(sh *shard, shares []share.Share, group []uint16, now int64) {
	var ws [groupSize]*worker
	for i, at := range group {
		s := &shares[at]
		ws[i] = sh.workers[Key{s.UserID, s.WorkerID}]
	}
	// The loops that follow only read, each what does not depend on the one before within the same loop, so that the
	// processor waits for all of a group at once. What they read is added up lest the compiler leaves them out.
	var us [groupSize]*user
	var sum int64
	for i, w := range ws[:len(group)] {
		if w != nil {
			us[i] = w.user
			sum += w.accept.newest + w.lastAccept + int64(w.at)
		}
	}
	for i, w := range ws[:len(group)] {
		if w != nil {
			sum += w.accept.touch() + w.large.touch() + us[i].accept.newest + us[i].lastAccept + int64(us[i].blocks)
		}
	}
	for i, w := range ws[:len(group)] {
		if w != nil {
			sum += us[i].accept.touch() + us[i].large.touch()
		}
	}
	sh.touched = sum
	for i, at := range group {
		a.put(sh, &shares[at], ws[i], now)
	}
}

// touch reads the newest entry.
func (w *Window) touch() int64 {
	if w.n == 0 {
		return 0
	}
	return int64(w.ring[w.pos(w.n-1)*entryWords])
}

// placed says what put did with a share.
type placed struct {
	user    *user // nil when it is not known
	counted bool
}

// put counts one share of a shard, whose mutex is held. w is its worker, or nil when the caller did not look.
func (a *Aggregator) put(sh *shard, s *share.Share, w *worker, now int64) placed {
	t := s.Time.Unix()
	if s.UserID <= 0 || s.WorkerID == 0 || !s.Difficulty.Valid() || s.Difficulty > maxDifficulty || t < minute || t > maxTime {
		sh.invalid++
		return placed{}
	}
	if t > now+futureSeconds {
		sh.future++
		return placed{}
	}
	sh.shares++
	if now-t > hour {
		sh.late++
	}
	v := s.Verdict
	accepted := a.accepted(v)
	u, w := a.find(sh, s, w, accepted)

	d := s.Difficulty
	if a.opts.NormalizeRejects && !accepted {
		last := difficulty.Difficulty(1)
		if w != nil && w.lastDiff != 0 {
			last = w.lastDiff
		}
		d = min(d, 4*last)
	}
	sh.pool.count(now, t, v, accepted, d)
	sh.pool.seen(t, s.IP)
	if accepted {
		sh.round += d
	}
	sh.dirty = true
	if u != nil {
		if u.last != 0 && t-u.last > hour && !u.resting {
			u.rest(&a.opts, true)
		}
		u.count(now, t, v, accepted, d)
		u.seen(t, s.IP)
		u.resting = false
		if accepted {
			u.addRound(d, a.round.Load())
		}
		if !u.dirty && a.collect {
			u.dirty = true
			sh.dirtyUsers = append(sh.dirtyUsers, u)
		}
	}
	if w != nil {
		if w.last != 0 && t-w.last > hour && !w.resting {
			w.rest(&a.opts)
		}
		w.count(now, t, v, accepted, d)
		w.seen(t, s.IP)
		w.resting = false
		if accepted {
			w.lastDiff = d
			w.coarsen()
		}
		if !w.dirty && a.collect {
			w.dirty = true
			sh.dirtyWorkers = append(sh.dirtyWorkers, w)
		}
	} else {
		sh.unknown++
	}
	if a.collect {
		a.note(sh, u, w, t, v, d)
	}
	return placed{u, true}
}

const (
	maxTime       = 1<<32 - 1 // the largest time that a record of a Store need hold, in the year 2106
	maxDifficulty = 1 << 100  // far above any network's, and a slot of a Window holds thousands of it
)

// accepted reports whether a share with verdict v counts as accepted.
func (a *Aggregator) accepted(v share.Verdict) bool {
	return v.Accepted() && (a.opts.AcceptStale || !v.AcceptedStale())
}

// find returns the user and the worker of s, new ones if need be, or nil for what is not known and has no room.
func (a *Aggregator) find(sh *shard, s *share.Share, w *worker, accepted bool) (*user, *worker) {
	k := Key{s.UserID, s.WorkerID}
	if w == nil {
		w = sh.workers[k]
	}
	var u *user
	if w != nil {
		u = w.user
	} else {
		if u = sh.users[s.UserID]; u == nil {
			if !hasRoom(&a.users, a.opts.MaxUsers, accepted) {
				return nil, nil
			}
			u = a.newUser(sh, s.UserID)
		}
		if hasRoom(&a.workers, a.opts.MaxWorkers, accepted) {
			w = a.newWorker(sh, u, k)
		}
	}
	if s.Worker.User != "" && s.Worker.User != u.name {
		a.nameUser(sh, u, s.Worker.User)
	}
	if w != nil && s.Worker.Name != "" && s.Worker.Name != w.name {
		w.name = strings.Clone(s.Worker.Name)
		a.noteName(sh, k, w.name)
	}
	return u, w
}

// hasRoom counts one more in n if there is room.
func hasRoom(n *atomic.Int64, limit int, accepted bool) bool {
	if c := n.Load(); c >= int64(limit) || !accepted && c >= int64(limit+1)/2 {
		return false
	}
	if n.Add(1) > int64(limit) {
		n.Add(-1)
		return false
	}
	return true
}

func (a *Aggregator) newUser(sh *shard, id int32) *user {
	u := &user{id: id}
	u.init(&a.opts)
	sh.users[id] = u
	if name, ok := sh.early[Key{UserID: id}]; ok {
		delete(sh.early, Key{UserID: id})
		a.nameUser(sh, u, name)
	}
	return u
}

func (a *Aggregator) newWorker(sh *shard, u *user, k Key) *worker {
	w := &worker{key: k, user: u, at: len(u.workers)}
	w.init(&a.opts)
	u.workers = append(u.workers, w)
	sh.workers[k] = w
	if name, ok := sh.early[k]; ok {
		delete(sh.early, k)
		w.name = name
		a.noteName(sh, k, name)
	}
	return w
}

// coarsen bounds the memory of a worker that is busy all the time.
func (w *worker) coarsen() {
	if len(w.accept.ring) > coarseEntries*entryWords && w.slot == 1 {
		w.accept.coarsen(10)
		w.slot = 10
	}
}

// rest makes w what a new worker is, but for the large window and the last share.
func (w *worker) rest(o *Options) {
	w.counter.rest(o, false)
	w.lastDiff = 0
}

func (u *user) addRound(d difficulty.Difficulty, number uint64) {
	if u.roundNumber != number {
		u.round, u.roundNumber = 0, number
	}
	u.round += d
}

// nameUser gives a user a name and makes it findable by it. Of two users with one name the later is found.
func (a *Aggregator) nameUser(sh *shard, u *user, name string) {
	name = strings.Clone(name)
	a.nameMu.Lock()
	if a.byName[u.name] == u.id {
		delete(a.byName, u.name)
	}
	a.byName[name] = u.id
	a.nameMu.Unlock()
	u.name = name
	a.noteName(sh, Key{UserID: u.id}, name)
}

func (a *Aggregator) noteName(sh *shard, k Key, name string) {
	if a.collect {
		sh.names[k] = name
	}
}

// note adds a share to what goes to the store. It extends the key's newest entry where it can.
func (a *Aggregator) note(sh *shard, u *user, w *worker, t int64, v share.Verdict, d difficulty.Difficulty) {
	var k Key
	ref := &sh.self
	switch {
	case w != nil:
		k, ref = w.key, &w.ref
	case u != nil:
		k, ref = Key{UserID: u.id}, &u.ref
	}
	if ref.gen != sh.gen {
		*ref = pendRef{sh.gen, -1, -1}
	}
	at := &ref.other
	if v == share.Solved {
		v = share.Accepted
	}
	if v == share.Accepted {
		at = &ref.accept
	}
	start := t - t%int64(a.opts.BucketSpan/time.Second)
	if *at >= 0 {
		if p := &sh.pend[*at]; p.start == start && p.verdict == v && p.count < 1<<32-1 {
			p.count++
			p.sum += d
			return
		}
	}
	*at = int32(len(sh.pend))
	sh.pend = append(sh.pend, pend{k, start, d, 1, v})
	a.pending.Add(1)
}

// closeRound ends the running round with s, which is already counted. mu is held exclusively.
func (a *Aggregator) closeRound(s *share.Share, finder *user) {
	a.roundMu.Lock()
	defer a.roundMu.Unlock()
	for i := len(a.rounds) - 1; i >= 0; i-- {
		if r := &a.rounds[i]; r.is(s.JobID, s.Height, s.Nonce) && r.Finder == (Key{s.UserID, s.WorkerID}) {
			return // the record of it came twice
		}
	}
	number := a.round.Load()
	r := Round{
		Number: number, JobID: s.JobID, Height: s.Height, Nonce: s.Nonce, Bits: s.Bits,
		Time: fromUnix(s.Time.Unix()), Finder: Key{s.UserID, s.WorkerID},
	}
	t := s.Time.Unix()
	for i := range a.shards {
		sh := &a.shards[i]
		sh.mu.Lock()
		r.Shares += sh.round
		sh.round = 0
		if a.collect {
			for _, u := range sh.users {
				if u.roundNumber == number && u.round != 0 {
					r.Users = append(r.Users, UserShares{u.id, u.round})
				}
			}
		}
		sh.mu.Unlock()
	}
	a.round.Store(number + 1)
	a.blocks++
	a.lastBlock = max(a.lastBlock, t)
	if finder != nil {
		sh := a.shard(finder.id)
		sh.mu.Lock()
		finder.blocks++
		finder.lastBlock = max(finder.lastBlock, t)
		sh.mu.Unlock()
	}
	if a.collect {
		slices.SortFunc(r.Users, func(a, b UserShares) int { return int(a.UserID) - int(b.UserID) })
		a.closed = append(a.closed, r)
		a.pending.Add(int64(1 + len(r.Users)))
	}
	r.Users = nil
	a.rounds = append(a.rounds, r)
	if n := len(a.rounds) - a.opts.MaxRounds; n > 0 {
		a.rounds = slices.Delete(a.rounds, 0, n)
	}
}

func (r *Round) is(id job.ID, height int32, nonce uint32) bool {
	return r.JobID == id && r.Height == height && r.Nonce == nonce
}

// Observe tells what a worker is called, for where shares carry numbers only, as those read from a log do. It may be
// called before the first share of the worker and as often as one likes. A part of the name that is empty is left as
// it was. Names of as many workers as there is room for are kept until they send a share.
func (a *Aggregator) Observe(userID int32, workerID int64, w share.Worker) {
	if userID <= 0 || workerID == 0 {
		return
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	sh := a.shard(userID)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if len(w.User) > share.MaxUserName || len(w.Name) > share.MaxUserName {
		return
	}
	if w.User != "" {
		if u := sh.users[userID]; u == nil {
			a.remember(sh, Key{UserID: userID}, w.User)
		} else if u.name != w.User {
			a.nameUser(sh, u, w.User)
		}
	}
	if k := (Key{userID, workerID}); w.Name != "" {
		if o := sh.workers[k]; o == nil {
			a.remember(sh, k, w.Name)
		} else if o.name != w.Name {
			o.name = strings.Clone(w.Name)
			a.noteName(sh, k, o.name)
		}
	}
}

// remember keeps a name until a share comes. When there are too many, any other makes room.
func (a *Aggregator) remember(sh *shard, k Key, name string) {
	if sh.early[k] == name {
		return
	}
	if len(sh.early) >= a.maxEarly() {
		for old := range sh.early {
			delete(sh.early, old)
			a.forget(sh, old)
			break
		}
	}
	name = strings.Clone(name)
	sh.early[k] = name
	a.noteName(sh, k, name)
}

// maxEarly is how many names a shard remembers.
func (a *Aggregator) maxEarly() int { return a.opts.MaxWorkers/numShards + 1 }

func (a *Aggregator) forget(sh *shard, k Key) {
	delete(sh.names, k)
	if a.collect {
		sh.gone[k] = struct{}{}
	}
}

// Sweep frees what is no longer needed at now: the counters of workers and users that have been silent for more than
// an hour, and the workers themselves when they have left the large window too. Users that ever had a share accepted
// stay known. A [Flusher] calls it; without one, call it every half hour or so. What readers see does not depend on it:
// to them a worker is gone after an hour in any case, and comes back with its counts at zero.
func (a *Aggregator) Sweep(now time.Time) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	n := now.Unix()
	keep := max(hour, int64(a.opts.LargeWindow/time.Second))
	for i := range a.shards {
		sh := &a.shards[i]
		sh.mu.Lock()
		for _, u := range sh.users {
			a.sweepUser(sh, u, n, keep)
		}
		sh.mu.Unlock()
	}
}

func (a *Aggregator) sweepUser(sh *shard, u *user, now, keep int64) {
	for i := len(u.workers) - 1; i >= 0; i-- {
		w := u.workers[i]
		if w.last+keep < now {
			last := len(u.workers) - 1
			u.workers[i] = u.workers[last]
			u.workers[i].at = i
			u.workers[last] = nil
			u.workers = u.workers[:last]
			delete(sh.workers, w.key)
			a.workers.Add(-1)
			a.forget(sh, w.key)
			if w.name != "" {
				a.remember(sh, w.key, w.name)
			}
			w.dirty = false // what is on the list already is skipped
		} else if w.last+hour < now && !w.resting {
			w.rest(&a.opts)
			w.resting = true
			if !w.dirty && a.collect {
				w.dirty = true
				sh.dirtyWorkers = append(sh.dirtyWorkers, w)
			}
		}
	}
	if u.last+hour >= now {
		return
	}
	if !u.resting {
		u.rest(&a.opts, true)
		u.resting = true
		if !u.dirty && a.collect {
			u.dirty = true
			sh.dirtyUsers = append(sh.dirtyUsers, u)
		}
	}
	if u.last+keep < now && len(u.workers) == 0 {
		u.large.Clear()
		if u.accepted.Count == 0 && u.blocks == 0 {
			delete(sh.users, u.id)
			a.users.Add(-1)
			a.forget(sh, Key{UserID: u.id})
			u.dirty = false
			a.nameMu.Lock()
			if a.byName[u.name] == u.id {
				delete(a.byName, u.name)
			}
			a.nameMu.Unlock()
		}
	}
}

// Stats are counts since the Aggregator was made, and sizes.
type Stats struct {
	Shares  uint64 // counted
	Late    uint64 // of them, more than an hour late
	Unknown uint64 // of them, counted for the user or the pool only, for want of room
	Future  uint64 // refused: dated more than a minute ahead
	Invalid uint64 // refused: no user, worker, difficulty or time

	Workers int   // in memory
	Users   int   // in memory
	Pending int64 // entries that wait for the Store
}

// Stats returns the current values.
func (a *Aggregator) Stats() Stats {
	s := Stats{Workers: int(a.workers.Load()), Users: int(a.users.Load()), Pending: a.pending.Load()}
	for i := range a.shards {
		sh := &a.shards[i]
		sh.mu.Lock()
		s.Shares += sh.shares
		s.Late += sh.late
		s.Unknown += sh.unknown
		s.Future += sh.future
		s.Invalid += sh.invalid
		sh.mu.Unlock()
	}
	return s
}
