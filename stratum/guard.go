package stratum

import (
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"net/netip"
	"strings"
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

// A penalty is what becomes of a session after a window that was bad. The zero value is nothing.
type penalty struct {
	grade            grade
	submits, invalid uint32
	ban              time.Duration // with the first two grades, the one that comes next; 0 when none does
}

// text is what the miner is told.
func (p penalty) text() string {
	was := ratio(p.invalid, p.submits)
	n, unit := inWords(p.ban)
	switch p.grade {
	case gradeWarn:
		return was + "; here are your difficulty and a new job, please start afresh. If it goes on, you are disconnected"
	case gradeDisconnect:
		if p.ban == 0 {
			return "disconnected: " + was + ". You may connect again"
		}
		const format = "disconnected: %s. You may connect again; if it goes on, this worker is banned for %d %s"
		return fmt.Sprintf(format, was, n, unit)
	case gradeBanWorker:
		return fmt.Sprintf("banned for %d %s: %s, after a warning and a disconnect", n, unit, was)
	case gradeBanAddress:
		const format = "your address is banned for %d %s: %s, as of other workers there, and nobody there mines well"
		return fmt.Sprintf(format, n, unit, was)
	}
	return ""
}

// closes reports whether the connection is to be closed once the miner has been told.
func (p penalty) closes() bool { return p.grade >= gradeDisconnect }

// err is the reason for the end of a session that the penalty closes.
func (p penalty) err() error { return &refusal{ErrBanned, sv1.CodeBanned, p.text(), p.ban} }

// A refusal is why a connection or a login is not taken.
type refusal struct {
	cause error // ErrBanned or ErrTooMany
	code  int   // of the reply
	text  string
	left  time.Duration // until it is worth trying again; 0 when unknown
}

func (r *refusal) Error() string { return r.cause.Error() + ": " + r.text }
func (r *refusal) Unwrap() error { return r.cause }

func bannedAddress(r *record, left time.Duration) *refusal {
	n, unit := inWords(left)
	text := fmt.Sprintf("your address is banned for %d more %s: %s, as of other workers there", n, unit, r.ratio())
	return &refusal{ErrBanned, sv1.CodeBanned, text, left}
}

func (r *record) ratio() string { return ratio(r.invalid, r.submits) }

func ratio(invalid, submits uint32) string {
	return fmt.Sprintf("%d%% of %d submits were invalid", uint64(invalid)*100/uint64(max(submits, 1)), submits)
}

// inWords rounds up to what a person would say.
func inWords(d time.Duration) (n int64, unit string) {
	per, unit := time.Second, "second"
	switch {
	case d > 90*time.Minute:
		per, unit = time.Hour, "hour"
	case d > 90*time.Second:
		per, unit = time.Minute, "minute"
	}
	n = int64(d / per)
	if d%per > 0 {
		n++
	}
	if n != 1 {
		unit += "s"
	}
	return n, unit
}

// ban bans and returns for how long.
func (g *guard) ban(r *record, now int64) time.Duration {
	length := g.nextBan(r)
	r.bans++
	r.length = int64(length)
	r.until = now + r.length
	return length
}

func (g *guard) nextBan(r *record) time.Duration {
	length := g.limits.BanTime
	for i := int32(0); i < r.bans && length < g.limits.MaxBanTime; i++ {
		length *= 2
	}
	return min(length, g.limits.MaxBanTime)
}

// banned returns how long a ban lasts, after lifting one that a session which mines well shows to be wrong.
func (g *guard) banned(e *entry, now int64) time.Duration {
	left := e.left(now)
	if left > 0 && e.good.Load() > 0 {
		e.record.until = 0
		return 0
	}
	return left
}

// left returns how long a ban lasts.
func (e *entry) left(now int64) time.Duration {
	if e.record == nil || e.record.until == 0 {
		return 0
	}
	return remaining(&e.record.until, e.record.length, now)
}

// keptWell reports whether a session of the worker, or at the address, mines well or left lately while it did.
func (e *entry) keptWell(now int64) bool {
	return e.good.Load() > 0 || elapsed(e.lastGood, now) < goodMemory
}

// blame returns the record, which is made where there is none.
func (e *entry) blame(worker share.Worker) *record {
	if e.record == nil {
		e.record = new(record)
	}
	if e.key.worker != 0 && e.record.worker == (share.Worker{}) {
		e.record.worker = cloneWorker(worker)
	}
	return e.record
}

// tidy drops a record that says nothing.
func (e *entry) tidy() {
	if r := e.record; r != nil && !r.offender() && r.fails == 0 {
		e.record = nil
	}
}

// never is a time long before any other.
const never = math.MinInt64

func (g *guard) key(sg *sessionGuard, worker share.Worker) entryKey {
	var h maphash.Hash
	h.SetSeed(g.seed)
	h.WriteString(worker.User)
	h.WriteByte(0)
	h.WriteString(worker.Name)
	return entryKey{sg.network, max(h.Sum64(), 1)}
}

// entry returns the entry with a key, which is made where there is none. The caller settles it.
func (g *guard) entry(key entryKey) *entry {
	e := g.entries[key]
	if e == nil {
		e = &entry{key: key, lastGood: never}
		g.entries[key] = e
	}
	return e
}

// offend puts an entry behind all other offenders.
func (g *guard) offend(e *entry, now int64) {
	g.leave(e)
	g.settle(e, now)
}

// settle puts an entry into the list where it belongs, or forgets it.
func (g *guard) settle(e *entry, now int64) {
	var to *entryList
	switch r := e.record; {
	case r != nil && r.offender():
		to = &g.offenders
		e.forget = later(max(r.last, r.until), offenceMemory)
	case r != nil:
		to = &g.failing
		e.forget = later(r.retry, loginMemory)
	case e.sessions > 0:
	case e.bucket > now || e.keptWell(now):
		to = &g.idle
		e.forget = max(e.bucket, later(e.lastGood, goodMemory))
	default:
		g.leave(e)
		delete(g.entries, e.key)
		return
	}
	if e.list == to {
		return
	}
	g.leave(e)
	if to != nil {
		to.push(e)
		if to.len > g.limits.MaxRemembered {
			g.evict(to.first)
		}
	}
}

// evict drops an entry from its list, with what is held against it.
func (g *guard) evict(e *entry) {
	g.leave(e)
	e.record = nil
	if e.sessions == 0 {
		delete(g.entries, e.key)
	}
}

// sweep forgets what is due. A few at each call are more than can be added by one.
func (g *guard) sweep(now int64) {
	for _, l := range [...]*entryList{&g.idle, &g.failing, &g.offenders} {
		for range 3 {
			if l.first == nil || now < l.first.forget {
				break
			}
			g.evict(l.first)
		}
	}
}

func (g *guard) leave(e *entry) {
	if e.list != nil {
		e.list.remove(e)
	}
}

// An entryList is in order of age.
type entryList struct {
	first, last *entry
	len         int
}

func (l *entryList) push(e *entry) {
	e.list, e.prev, e.next = l, l.last, nil
	if l.last == nil {
		l.first = e
	} else {
		l.last.next = e
	}
	l.last = e
	l.len++
}

func (l *entryList) remove(e *entry) {
	if e.prev == nil {
		l.first = e.next
	} else {
		e.prev.next = e.next
	}
	if e.next == nil {
		l.last = e.prev
	} else {
		e.next.prev = e.prev
	}
	e.list, e.prev, e.next = nil, nil, nil
	l.len--
}

// remaining returns how long it is until a time that was set length ahead, and sets it anew when the clock has stepped
// back to before.
func remaining(until *int64, length, now int64) time.Duration {
	if now >= *until {
		return 0
	}
	left := *until - now
	if left < 0 || left > length { // negative: an overflow
		left = length
		*until = now + length
	}
	return time.Duration(left)
}

// elapsed returns how long ago a time was, 0 when it is to come.
func elapsed(from, now int64) int64 {
	switch d := now - from; {
	case now < from:
		return 0
	case d < 0:
		return math.MaxInt64
	default:
		return d
	}
}

func later(t, d int64) int64 {
	if t > math.MaxInt64-d {
		return math.MaxInt64
	}
	return t + d
}

func cloneWorker(w share.Worker) share.Worker {
	return share.Worker{User: strings.Clone(w.User), Name: strings.Clone(w.Name)}
}

// nat64 is the well-known prefix of RFC 6052, behind which IPv4 addresses reach a server that has none.
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// networkOf returns what counts as one address, and whether it is this machine. An IPv4 address stands in the lower
// half, where no /64 that is routed begins.
func networkOf(addr netip.Addr) (network uint64, local bool) {
	addr = addr.WithZone("").Unmap()
	switch {
	case !addr.IsValid():
		return 0, false
	case addr.IsLoopback():
		return 0x7f000001, true
	case addr.Is4():
		b := addr.As4()
		return uint64(b[0])<<24 | uint64(b[1])<<16 | uint64(b[2])<<8 | uint64(b[3]), false
	}
	b := addr.As16()
	if nat64.Contains(addr) {
		return uint64(b[12])<<24 | uint64(b[13])<<16 | uint64(b[14])<<8 | uint64(b[15]), false
	}
	for _, c := range b[:8] {
		network = network<<8 | uint64(c)
	}
	return network, false
}

func prefixOf(network uint64) netip.Prefix {
	var b [16]byte
	for i := range 8 {
		b[i] = byte(network >> (56 - 8*i))
	}
	if network>>32 == 0 {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte(b[4:8])), 32)
	}
	return netip.PrefixFrom(netip.AddrFrom16(b), 64)
}

func (g *guard) allows(addr netip.Addr) bool {
	addr = addr.WithZone("").Unmap()
	for _, p := range g.limits.AllowList {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// unmapPrefix makes a range of IPv4 addresses written as IPv6 one of IPv4.
func unmapPrefix(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}
