package difficulty

import (
	"errors"
	"fmt"
	"time"
)

// A Policy decides one miner's difficulty. One value serves one session (or one machine behind a proxy), calls never
// overlap, and it reads no clock: now is passed in and never goes backwards.
//
// What a Policy returns is bounded by the caller and rounded to an assignable difficulty; it takes effect with the
// next job that is sent, never with work that a miner already has.
type Policy interface {
	// Observe reports one share that took the miner work at difficulty d: accepted, stale or too low. Duplicates
	// and shares for unknown jobs are not reported.
	Observe(now time.Time, d Difficulty)

	// Next returns the difficulty for the jobs sent from now on. It is called once for each job about to be sent.
	Next(now time.Time) Difficulty
}

// A Resetter is a Policy that can go on from a difficulty decided elsewhere: what the miner suggested, what its
// password asks for, or what the same worker had before it reconnected.
type Resetter interface {
	Policy
	Reset(d Difficulty)
}

// A MinSetter is a Policy whose lower bound can be changed, for miners that ask for a minimum of their own.
type MinSetter interface {
	Policy
	SetMin(d Difficulty)
}

// Fixed is a Policy that never changes its mind.
type Fixed Difficulty

// Observe does nothing.
func (f Fixed) Observe(time.Time, Difficulty) {}

// Next returns f.
func (f Fixed) Next(time.Time) Difficulty { return Difficulty(f) }

// Clamp bounds what p returns to [lo, hi] and leaves p otherwise unchanged; the result is a [Resetter] when p is one.
// It fails when p is nil, lo or hi is not valid, or lo is above hi.
func Clamp(p Policy, lo, hi Difficulty) (Policy, error) {
	switch {
	case p == nil:
		return nil, errors.New("difficulty: clamp: the policy is nil")
	case !lo.Valid() || !hi.Valid():
		return nil, fmt.Errorf("%w: clamp to [%v, %v]", ErrInvalid, lo, hi)
	case lo > hi:
		return nil, fmt.Errorf("difficulty: clamp to [%v, %v]: the bounds are crossed", lo, hi)
	}
	c := clamp{p, lo, hi}
	if r, ok := p.(Resetter); ok {
		return resettableClamp{c, r}, nil
	}
	return c, nil
}

type clamp struct {
	Policy
	lo, hi Difficulty
}

func (c clamp) Next(now time.Time) Difficulty { return c.bound(c.Policy.Next(now)) }

// bound sends a NaN to the lower bound, where it does least harm.
func (c clamp) bound(d Difficulty) Difficulty {
	if !(d >= c.lo) {
		return c.lo
	}
	return min(d, c.hi)
}

type resettableClamp struct {
	clamp
	r Resetter
}

func (c resettableClamp) Reset(d Difficulty) { c.r.Reset(c.bound(d)) }
