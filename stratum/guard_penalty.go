package stratum

import (
	"fmt"
	"math"
	"time"

	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum/sv1"
)

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
