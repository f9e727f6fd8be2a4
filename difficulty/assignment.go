package difficulty

import (
	"errors"
	"fmt"
	"time"
)

// Bounds of the target interval of the policies of other pools.
const (
	minInterval = 100 * time.Millisecond
	maxInterval = 24 * time.Hour
)

// optionErrors collects all that is wrong with the options of one kind of policy.
type optionErrors struct {
	policy string
	errs   []error
}

func (e *optionErrors) wrong(format string, args ...any) {
	e.errs = append(e.errs, fmt.Errorf("difficulty: "+e.policy+": "+format, args...))
}

func (e *optionErrors) err() error { return errors.Join(e.errs...) }

// interval returns the interval that is asked for, or otherwise when that is 0.
func (e *optionErrors) interval(asked, otherwise time.Duration) time.Duration {
	if asked == 0 {
		return otherwise
	}
	if asked < minInterval || asked > maxInterval {
		e.wrong("Interval %v is not within %v and %v", asked, minInterval, maxInterval)
	}
	return asked
}

// An assignment is the difficulty that a policy gives, and all that bounds it. Everything in it is on the grid.
type assignment struct {
	grid   Grid
	lo, hi Difficulty // from the options
	min    Difficulty // from SetMin, else lo
	max    Difficulty // from SetMax, else hi; it has the last word
	cur    Difficulty
}

// newAssignment reads the options that every policy has. The defaults give way to what is asked for.
func newAssignment(e *optionErrors, grid Grid, start, lo, hi, defaultStart, defaultMin Difficulty) assignment {
	if grid > PowersOfSqrt2 {
		e.wrong("%v is no grid", grid)
	}
	asked := func(name string, d Difficulty) bool {
		if d == 0 || d.Valid() && d >= Min && d <= Max {
			return d != 0
		}
		e.wrong("%s %v is not within [2^-32, 2^62]", name, d)
		return false
	}
	defaultStart, defaultMin = grid.Ceil(defaultStart), grid.Ceil(defaultMin)
	startSet := asked("Start", start)
	a := assignment{grid: grid, hi: Max}
	if asked("Max", hi) {
		a.hi = grid.Floor(hi)
	}
	a.lo = min(defaultMin, a.hi)
	if startSet {
		a.lo = min(a.lo, grid.Ceil(start))
	}
	if asked("Min", lo) {
		a.lo = grid.Ceil(lo)
		if a.lo > a.hi {
			e.wrong("Min %v is above Max %v", a.lo, a.hi)
		}
	}
	a.min, a.max = a.lo, a.hi
	a.cur = max(a.lo, min(defaultStart, a.hi))
	if startSet {
		a.cur = grid.Ceil(start)
		if a.cur < a.lo || a.cur > a.hi {
			e.wrong("Start %v is not within Min %v and Max %v", a.cur, a.lo, a.hi)
		}
	}
	return a
}

// bound brings d within what is allowed without rounding it.
func (a *assignment) bound(d Difficulty) Difficulty { return min(max(d, a.min), a.max) }

// set gives the difficulty of the grid that is nearest to d and allowed.
func (a *assignment) set(d Difficulty) { a.cur = a.bound(a.grid.Nearest(d)) }

// setMin and setMax report whether the present difficulty had to follow.
func (a *assignment) setMin(m Difficulty) bool {
	a.min = a.lo
	if m.Valid() {
		a.min = min(max(a.grid.Ceil(m), a.lo), a.hi)
	}
	return a.follow()
}

func (a *assignment) setMax(m Difficulty) bool {
	a.max = a.hi
	if m.Valid() {
		a.max = min(max(a.grid.Floor(m), a.lo), a.hi)
	}
	return a.follow()
}

func (a *assignment) follow() bool {
	before := a.cur
	a.cur = a.bound(before)
	return a.cur != before
}

// A timeline turns the times that a policy is told into the time that has passed, which never runs backwards: a time
// before one that was seen counts as that one. The zero value has seen none.
type timeline struct {
	base time.Time     // the first time seen
	at   time.Duration // the latest, since base
}

// tick goes on to now. The zero Time before any other is no time at all, and tick returns false.
func (t *timeline) tick(now time.Time) bool {
	if t.base.IsZero() {
		if now.IsZero() {
			return false
		}
		t.base = now
		return true
	}
	// Sub reads the monotonic clock where both times have one, so a wall clock that is set changes nothing. An overflow
	// after 292 years stays at the largest Duration.
	t.at = max(t.at, now.Sub(t.base))
	return true
}
