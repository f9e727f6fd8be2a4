package stratum

import (
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum/sv1"
)

// Why the guard turned a miner away, for those who look at the reason of a disconnect.
var (
	// ErrBanned is wrapped by the reason when a miner was banned, or disconnected for its invalid submits.
	ErrBanned = errors.New("stratum: banned")

	// ErrTooMany is wrapped by the reason when there were too many connections, requests or failed logins.
	ErrTooMany = errors.New("stratum: too many")
)

// A guard applies Limits. It reads no clock: now is nanoseconds of any clock, best a monotonic one. A clock that steps
// back makes nobody wait longer than it would have from the start, one that steps forward ends waits early.
//
// Requests and submits touch the session's own sessionGuard and counters that are atomic. The lock is taken when a
// session comes, logs in or goes, and at the end of a window that was bad or follows a bad one.
type guard struct {
	limits       Limits
	connectCost  int64 // nanoseconds of the bucket that one takes; 0 without a limit
	connectBurst int64 // nanoseconds that the bucket may be ahead
	requestCost  int64
	requestBurst int64
	windowTime   int64
	seed         maphash.Seed

	throttled, tooFast atomic.Int64

	mu        sync.Mutex
	entries   map[entryKey]*entry
	idle      entryList // who has no connection any more, and nothing against it
	failing   entryList // workers that failed to log in
	offenders entryList // whoever got a grade
	stats     LimitStats
}

// A sessionGuard is what the guard keeps in a session. It belongs to the session's goroutine. It is set up by connect
// and given up by disconnect.
type sessionGuard struct {
	host      *entry // nil when the address has no limits
	worker    *entry // nil before the first login
	bucket    int64  // when the requests so far will be within the rate
	throttled int64  // since when requests have been above the rate, where slow says that they are
	opened    int64  // when the window was
	submits   uint32 // in the window
	invalid   uint32
	network   uint64
	grade     grade
	good      bool // counted as such in host and worker
	soiled    bool // the last window was bad
	allowed   bool // on the allow-list
	slow      bool
}

// An entry is an address, or a worker at an address: as long as it has sessions, and longer where there is something to
// remember.
type entry struct {
	key      entryKey
	sessions int32
	good     atomic.Int32 // sessions that mine well
	bucket   int64        // of connections
	lastGood int64        // when the last session that mined well left, or never
	record   *record      // nil when there is nothing against it
	list     *entryList   // that it is in; nil when only its sessions keep it
	forget   int64        // when it leaves the list by itself
	prev     *entry
	next     *entry
}

// An entryKey names the worker by a hash whose seed nobody knows, so that no two can be made to collide; 0 is the
// address itself.
type entryKey struct{ network, worker uint64 }

// A record is what is held against an entry.
type record struct {
	worker           share.Worker
	until, length    int64 // of the last ban; until is 0 when there was none or it was lifted
	last             int64 // offence
	retry, delay     int64 // when the Authorizer is asked again
	submits, invalid uint32
	bans             int32 // in a row
	strikes          int32 // workers of the address that were disconnected
	fails            int32 // logins in a row
	grade            grade // of the worker, at most gradeDisconnect
	counted          bool  // among the strikes of its address
}

func (r *record) offender() bool { return r.grade > 0 || r.bans > 0 || r.strikes > 0 }

// A grade is how far a miner has got.
type grade uint8

const (
	gradeNone       grade = iota
	gradeWarn             // tell it, send the difficulty and a clean job again
	gradeDisconnect       // tell it and close
	gradeBanWorker        // likewise, and it is banned already
	gradeBanAddress
)

// What is remembered of those who have left, and for how long.
const (
	goodMemory    = int64(10 * time.Minute) // that somebody mined well
	offenceMemory = int64(time.Hour)        // after the offence and the end of its ban
	loginMemory   = int64(10 * time.Minute) // after the end of the back-off

	junkCost     = 4                       // connections that junk or a failed login counts for
	maxPause     = int64(10 * time.Second) // that a session is not read from at a stretch
	explainsDiff = time.Minute             // after a change of difficulty
)

// newGuard returns a guard for limits that are complete.
func newGuard(limits *Limits) *guard {
	g := &guard{
		limits: *limits, windowTime: int64(limits.WindowTime),
		seed: maphash.MakeSeed(), entries: make(map[entryKey]*entry),
	}
	g.limits.AllowList = make([]netip.Prefix, len(limits.AllowList))
	for i, p := range limits.AllowList {
		g.limits.AllowList[i] = unmapPrefix(p)
	}
	if limits.ConnectRate > 0 {
		g.connectCost = int64(time.Second) / int64(limits.ConnectRate)
		g.connectBurst = g.connectCost * int64(limits.ConnectBurst)
	}
	if limits.RequestRate > 0 {
		g.requestCost = int64(time.Second) / int64(limits.RequestRate)
		g.requestBurst = g.requestCost * int64(limits.RequestBurst)
	}
	return g
}

// connect admits a connection, or says why not, and then sg stays empty. The refusal is for the miner and the log;
// nothing else needs to be called for the connection.
func (g *guard) connect(sg *sessionGuard, addr netip.Addr, now int64) *refusal {
	network, local := networkOf(addr)
	allowed := g.allows(addr)
	if !addr.IsValid() || local || allowed {
		*sg = sessionGuard{network: network, allowed: allowed}
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sweep(now)
	h := g.entry(entryKey{network: network})
	if left := g.banned(h, now); left > 0 {
		g.stats.RefusedBanned++
		return bannedAddress(h.record, left)
	}
	if most := g.limits.MaxPerAddress; most > 0 && int(h.sessions) >= most {
		g.stats.RefusedFull++
		text := fmt.Sprintf("%d connections from your address are open, the most allowed", most)
		return &refusal{ErrTooMany, sv1.CodeOther, text, 0}
	}
	if wait := g.takeConnects(h, 1, now); wait > 0 {
		g.stats.RefusedRate++
		g.settle(h, now)
		return &refusal{ErrTooMany, sv1.CodeOther, "too many connections from your address in a short time", wait}
	}
	h.sessions++
	g.settle(h, now)
	*sg = sessionGuard{network: network, host: h}
	return nil
}

// disconnect ends what connect began. A second call does nothing. A window that is bad so far counts as if it were at
// its end: otherwise nobody who connects often enough would ever be judged.
func (g *guard) disconnect(sg *sessionGuard, worker *share.Worker, now int64) {
	if sg.host == nil && sg.worker == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sweep(now)
	if g.bad(sg) {
		g.punish(sg, worker, now)
	}
	if sg.soiled && sg.worker != nil && sg.worker.record != nil && !sg.worker.record.counted && !sg.allowed {
		g.strike(sg, now) // warned, and gone without having mended
	}
	good := sg.good
	sg.setGood(false)
	for _, e := range [...]*entry{sg.worker, sg.host} {
		if e == nil {
			continue
		}
		if good {
			e.lastGood = now
		}
		e.sessions--
		g.settle(e, now)
	}
	*sg = sessionGuard{network: sg.network, allowed: sg.allowed}
}

// junk notes that a connection was not Stratum, which takes some of what its address may connect.
func (g *guard) junk(sg *sessionGuard, now int64) {
	if sg.host == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.takeConnects(sg.host, junkCost-1, now) // the connection itself has been counted
}

// takeConnects takes n connections from the bucket of an address and returns 0, or how long there is none. More than
// there are can be taken, but not twice. mu is held.
func (g *guard) takeConnects(h *entry, n, now int64) time.Duration {
	if g.connectCost == 0 {
		return 0
	}
	ahead := bucketAhead(h.bucket, now, g.connectBurst+junkCost*g.connectCost)
	if ahead > g.connectBurst-g.connectCost {
		return time.Duration(ahead - g.connectBurst + g.connectCost)
	}
	h.bucket = now + ahead + n*g.connectCost
	return 0
}

// bucketAhead returns how many nanoseconds a bucket has taken in advance. More than limit, which is the most it can
// have taken, means that the clock has stepped back, and the bucket begins anew.
func bucketAhead(bucket, now, limit int64) int64 {
	if ahead := bucket - now; bucket > now && ahead >= 0 && ahead <= limit { // negative: an overflow
		return ahead
	}
	return 0
}

// request counts one request before anything is done about it, and returns for how long the session is not to be read
// from, which it is to observe once it has dealt with what it holds: the last of several values is the one that
// counts. It returns false when the session has been too fast for too long and is to be closed. miners is how many
// share the connection: 1, or those behind an agent.
//
// A pause of a session that mines well (mayRaise) says that its difficulty is far too low; it is best given a higher
// one at once.
func (g *guard) request(sg *sessionGuard, miners int, now int64) (pause time.Duration, ok bool) {
	cost := g.requestCost
	if cost == 0 {
		return 0, true
	}
	if miners > 1 {
		cost = max(cost/int64(miners), 1)
	}
	limit := g.requestBurst + maxPause
	ahead := min(bucketAhead(sg.bucket, now, limit)+cost, limit)
	sg.bucket = now + ahead
	if ahead <= g.requestBurst {
		if sg.slow && ahead <= max(g.requestBurst/2, cost) { // not as soon as it may go on: that is still its limit
			sg.slow = false
		}
		return 0, true
	}
	if !sg.slow {
		sg.slow, sg.throttled = true, now
		g.throttled.Add(1)
	}
	pause = time.Duration(ahead - g.requestBurst)
	if p := g.limits.RequestPatience; p >= 0 && elapsed(sg.throttled, now) >= int64(p) && !sg.good {
		g.tooFast.Add(1)
		return pause, false
	}
	return pause, true
}

// mayRaise reports whether the session sends more than its rate and mines well.
func (sg *sessionGuard) mayRaise() bool { return sg.slow && sg.good }

// errTooFast is the reason for a session that request has closed.
var errTooFast = fmt.Errorf("%w requests for too long", ErrTooMany)

// An outcome is what a verdict means for the guard.
type outcome uint8

const (
	outcomeNone    outcome = iota // says nothing about the miner
	outcomeValid                  // work was done
	outcomeInvalid                // the miner, or its firmware, is at fault
)

// outcomeOf sorts verdicts. Stale shares and unknown jobs say nothing: after each block there are some, after a
// reconnect many, and on a quick chain nothing else comes from a slow miner. Neither do failures of the pool itself.
//
// A hash that misses its target says nothing either if it reached the difficulty the miner had before a change up to
// a minute ago: some firmware takes its time, or judges by the wrong one of the two. previous is that difficulty, 0
// when there was none, and changed how long ago it changed.
func outcomeOf(v share.Verdict, reached, previous difficulty.Difficulty, changed time.Duration) outcome {
	switch v {
	case share.Accepted, share.AcceptedStale, share.Solved, share.SolvedStale:
		return outcomeValid
	case share.LowDifficulty:
		if previous > 0 && reached >= previous && changed >= 0 && changed < explainsDiff {
			return outcomeNone
		}
		return outcomeInvalid
	case share.Duplicate, share.IllegalParams, share.TimeTooOld, share.TimeTooNew, share.IllegalVersionBits,
		share.InvalidSolution, share.WrongNoncePrefix:
		return outcomeInvalid
	}
	return outcomeNone
}

// submit counts a judged submit of the worker that is logged in, and returns what is to be done about the session, which
// is nearly always nothing.
func (g *guard) submit(sg *sessionGuard, worker *share.Worker, o outcome, now int64) penalty {
	if o == outcomeNone {
		return penalty{}
	}
	if sg.submits == 0 || now < sg.opened {
		sg.opened = now
	}
	sg.submits++
	if o == outcomeInvalid {
		sg.invalid++
	} else if !sg.good && !sg.soiled {
		// The first share is enough until there is something against the session.
		sg.setGood(true)
	}
	if int(sg.submits) < g.limits.WindowSubmits && (sg.submits < minWindow || elapsed(sg.opened, now) < g.windowTime) {
		return penalty{}
	}
	var p penalty
	switch {
	case g.bad(sg):
		g.mu.Lock()
		g.sweep(now)
		p = g.punish(sg, worker, now)
		g.mu.Unlock()
	case sg.grade > 0 || sg.soiled:
		g.forgive(sg, now)
	}
	sg.submits, sg.invalid = 0, 0
	return p
}

// bad reports whether too much of the window is invalid.
func (g *guard) bad(sg *sessionGuard) bool {
	most := g.limits.InvalidPercent
	return most > 0 && sg.submits >= minWindow && uint64(sg.invalid)*100 >= uint64(sg.submits)*uint64(most)
}

// setGood counts the session as one that mines well, or no longer.
func (sg *sessionGuard) setGood(good bool) {
	if sg.good == good {
		return
	}
	sg.good = good
	n := int32(1)
	if !good {
		n = -1
	}
	for _, e := range [...]*entry{sg.host, sg.worker} {
		if e != nil {
			e.good.Add(n)
		}
	}
}

// punish takes a session whose window was bad to the next grade. mu is held.
func (g *guard) punish(sg *sessionGuard, worker *share.Worker, now int64) penalty {
	sg.setGood(false)
	sg.soiled = true
	sg.grade = min(max(sg.grade, g.standing(sg))+1, gradeBanWorker)
	mayBan := g.limits.BanTime > 0 && !sg.allowed && sg.worker != nil && !sg.worker.keptWell(now)
	if sg.grade == gradeBanWorker && !mayBan {
		sg.grade = gradeDisconnect
	}
	p := penalty{grade: sg.grade, submits: sg.submits, invalid: sg.invalid}
	g.stats.count(p.grade)
	w := sg.worker
	if w == nil || sg.allowed {
		return p
	}
	r := w.blame(*worker)
	r.last, r.submits, r.invalid = now, sg.submits, sg.invalid
	r.grade = min(sg.grade, gradeDisconnect)
	switch {
	case sg.grade == gradeBanWorker:
		p.ban = g.ban(r, now)
	case mayBan:
		p.ban = g.nextBan(r) // what it is threatened with
	}
	g.offend(w, now)
	if sg.grade >= gradeDisconnect {
		if ban := g.strike(sg, now); ban > 0 {
			p.grade, p.ban = gradeBanAddress, ban
		}
	}
	return p
}

// strike counts the worker of a session that leaves in disgrace against its address, once, and bans the address if it
// has too many of them and nobody who mines well. It returns for how long. mu is held.
func (g *guard) strike(sg *sessionGuard, now int64) time.Duration {
	h, r := sg.host, sg.worker.record
	if h == nil || g.limits.BadWorkers < 0 {
		return 0
	}
	hr := h.blame(share.Worker{})
	hr.last, hr.submits, hr.invalid = now, r.submits, r.invalid
	if !r.counted {
		r.counted = true
		hr.strikes++
	}
	var length time.Duration
	if g.limits.BanTime > 0 && int(hr.strikes) >= g.limits.BadWorkers && h.left(now) == 0 && !h.keptWell(now) {
		length = g.ban(hr, now)
		g.stats.count(gradeBanAddress)
	}
	g.offend(h, now)
	return length
}

// standing returns the grade that a session begins with: that of its worker, or a first one where the address has so
// many bad workers that only those who mine well there keep it from being banned.
func (g *guard) standing(sg *sessionGuard) grade {
	at, most := gradeNone, g.limits.BadWorkers
	if h := sg.host; h != nil && h.record != nil && most > 0 && int(h.record.strikes) >= most {
		at = gradeWarn
	}
	if w := sg.worker; w != nil && w.record != nil {
		at = max(at, w.record.grade)
	}
	return at
}

// forgive takes a session whose window was good one grade back, and its worker.
func (g *guard) forgive(sg *sessionGuard, now int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sweep(now)
	sg.soiled = false
	sg.setGood(true)
	if sg.grade > 0 {
		sg.grade--
	}
	w := sg.worker
	if w == nil || w.record == nil || w.record.grade == 0 {
		return
	}
	r := w.record
	if r.grade--; r.grade > 0 {
		return
	}
	if h := sg.host; r.counted && h != nil && h.record != nil && h.record.strikes > 0 {
		h.record.strikes--
		h.tidy()
		g.settle(h, now)
	}
	r.counted = false
	w.tidy()
	g.settle(w, now)
}

// mayLogin says whether the Authorizer is to be asked about a worker, and otherwise what the miner is told instead.
func (g *guard) mayLogin(sg *sessionGuard, worker share.Worker, now int64) *refusal {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sweep(now)
	if h := sg.host; h != nil {
		if left := g.banned(h, now); left > 0 {
			g.stats.LoginsBanned++
			return bannedAddress(h.record, left)
		}
	}
	w := g.entries[g.key(sg, worker)]
	if w == nil || w.record == nil {
		return nil
	}
	if left := g.banned(w, now); left > 0 && !sg.allowed {
		g.stats.LoginsBanned++
		n, unit := inWords(left)
		return &refusal{ErrBanned, sv1.CodeBanned, fmt.Sprintf("banned for %d more %s: %s", n, unit, w.record.ratio()), left}
	}
	if w.record == nil || w.record.fails == 0 {
		return nil
	}
	if left := remaining(&w.record.retry, w.record.delay, now); left > 0 {
		g.stats.LoginsDelayed++
		n, unit := inWords(left)
		text := fmt.Sprintf("unknown user, refused %d times; not looked up again for %d %s", w.record.fails, n, unit)
		return &refusal{ErrTooMany, sv1.CodeInvalidUser, text, left}
	}
	return nil
}

// loginFailed notes that the Authorizer does not know the worker. A failure of the Authorizer itself is none of the
// miner's. A name that is no worker's at all is given as the zero Worker.
func (g *guard) loginFailed(sg *sessionGuard, worker share.Worker, now int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sweep(now)
	if sg.host != nil {
		g.takeConnects(sg.host, junkCost, now)
	}
	most := int64(g.limits.LoginBackoff)
	if most < 0 || worker == (share.Worker{}) {
		return
	}
	w := g.entry(g.key(sg, worker))
	r := w.blame(worker)
	if r.fails < math.MaxInt32 {
		r.fails++
	}
	r.delay = min(int64(time.Second)<<min(r.fails-1, 30), most)
	r.retry = now + r.delay
	if !r.offender() {
		g.leave(w) // it joins again as the youngest
	}
	g.settle(w, now)
}

// loggedIn notes that the worker was let in, instead of the one before where there was one.
func (g *guard) loggedIn(sg *sessionGuard, worker share.Worker, now int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sweep(now)
	w := g.entry(g.key(sg, worker))
	if r := w.record; r != nil {
		r.fails = 0
		w.tidy()
	}
	if old := sg.worker; old != w {
		w.sessions++
		if sg.good {
			w.good.Add(1)
		}
		sg.worker = w
		if old != nil {
			old.sessions--
			if sg.good {
				old.good.Add(-1)
				old.lastGood = now
			}
			g.settle(old, now)
		}
	}
	g.settle(w, now)
	sg.grade = max(sg.grade, g.standing(sg))
}

// bans lists what is in force.
func (g *guard) bans(now int64) []BanInfo {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sweep(now)
	var list []BanInfo
	for e := g.offenders.first; e != nil; e = e.next {
		if left := e.left(now); left > 0 && e.good.Load() == 0 {
			list = append(list, BanInfo{
				Address: prefixOf(e.key.network), Worker: e.record.worker,
				Left: left, Times: int(e.record.bans), Reason: e.record.ratio(),
			})
		}
	}
	return list
}

// unban forgets everything against a worker at an address, or with the zero Worker everything against the address and
// all workers there, or with the zero Addr everything against the worker anywhere. It returns how many bans it lifted.
func (g *guard) unban(addr netip.Addr, worker share.Worker, now int64) int {
	if !addr.IsValid() && worker == (share.Worker{}) {
		return 0
	}
	network, _ := networkOf(addr)
	g.mu.Lock()
	defer g.mu.Unlock()
	lifted := 0
	for e := g.offenders.first; e != nil; {
		this := e
		e = e.next
		if addr.IsValid() && this.key.network != network || worker != (share.Worker{}) && this.record.worker != worker {
			continue
		}
		if this.left(now) > 0 {
			lifted++
		}
		this.record = nil
		g.settle(this, now)
	}
	return lifted
}

// counters returns what has happened. It looks at every offender.
func (g *guard) counters(now int64) LimitStats {
	g.mu.Lock()
	defer g.mu.Unlock()
	st := g.stats
	st.Throttled, st.TooFast = g.throttled.Load(), g.tooFast.Load()
	st.Remembered = len(g.entries)
	for e := g.offenders.first; e != nil; e = e.next {
		switch {
		case e.left(now) == 0 || e.good.Load() > 0:
		case e.key.worker == 0:
			st.BannedAddresses++
		default:
			st.BannedWorkers++
		}
	}
	return st
}

func (st *LimitStats) count(at grade) {
	switch at {
	case gradeWarn:
		st.Warned++
	case gradeDisconnect:
		st.Disconnected++
	case gradeBanWorker:
		st.WorkerBans++
	case gradeBanAddress:
		st.AddressBans++
	}
}
