package difficulty

import (
	"errors"
	"fmt"
	"math"
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

// A MaxSetter is a Policy whose upper bound can be changed. A pool never asks for more than the network does: a miner
// would keep a block to itself that is no share.
type MaxSetter interface {
	Policy
	SetMax(d Difficulty)
}

// A Hurrier is a Policy that cannot always wait for the job that is due next. A miner which is far too fast for its
// difficulty sends thousands of shares until then.
type Hurrier interface {
	Policy

	// Hurry reports whether a job should be sent now for the difficulty that Next will give. It is asked after shares
	// were observed and about once a second while there are none, and changes nothing.
	Hurry(now time.Time) bool
}

// A Keeper is a Policy whose knowledge of a miner outlives it.
type Keeper interface {
	Policy

	// State returns what is known of the miner.
	State(now time.Time) State

	// Restore makes a new Policy go on from what another one knew of the same miner. A State that is not valid changes
	// nothing.
	Restore(now time.Time, s State)
}

// A State is what a [Keeper] knows of a miner. It has the same meaning for all of them, so that the miner may come back
// to another kind of Policy.
type State struct {
	At         time.Time  // when it was known
	Difficulty Difficulty // the last one given
	Hashrate   Hashrate   // the estimate; 0 for none
	Shares     float64    // how many shares the estimate is worth: its relative error is about 1/sqrt(Shares)
}

// Valid reports whether s can be used: it has a valid difficulty, and neither Hashrate nor Shares is negative, infinite
// or not a number.
func (s State) Valid() bool {
	return s.Difficulty.Valid() && s.Hashrate >= 0 && !math.IsInf(float64(s.Hashrate), 1) &&
		s.Shares >= 0 && !math.IsInf(s.Shares, 1)
}

// A Wrapper is a Policy that changes what another one says. [As] looks through it.
type Wrapper interface {
	Policy
	Unwrap() Policy
}

// As returns p as a T, such as a [Resetter], when p is one or wraps one.
func As[T Policy](p Policy) (t T, ok bool) {
	for p != nil {
		if t, ok = p.(T); ok {
			return t, true
		}
		w, wraps := p.(Wrapper)
		if !wraps {
			break
		}
		p = w.Unwrap()
	}
	return t, false
}

// Fixed is a Policy that never changes its mind.
type Fixed Difficulty

// Observe does nothing.
func (f Fixed) Observe(time.Time, Difficulty) {}

// Next returns f.
func (f Fixed) Next(time.Time) Difficulty { return Difficulty(f) }

// Clamp bounds what p returns to [lo, hi] and leaves p otherwise unchanged. The result is a [Wrapper], a [MinSetter] and a
// [MaxSetter] that can only narrow the bounds, but for a maximum below lo, which counts more; and a [Resetter] that bounds
// what it is reset to when p can be reset. It fails when p is nil, lo or hi is not valid, or lo is above hi.
func Clamp(p Policy, lo, hi Difficulty) (Policy, error) {
	switch {
	case p == nil:
		return nil, errors.New("difficulty: clamp: the policy is nil")
	case !lo.Valid() || !hi.Valid():
		return nil, fmt.Errorf("%w: clamp to [%v, %v]", ErrInvalid, lo, hi)
	case lo > hi:
		return nil, fmt.Errorf("difficulty: clamp to [%v, %v]: the bounds are crossed", lo, hi)
	}
	c := &clamp{bounded{Policy: p}, lo, hi}
	if r, ok := As[Resetter](p); ok {
		return resettableClamp{c, r}, nil
	}
	return c, nil
}

type clamp struct {
	bounded
	low, high Difficulty
}

func (c *clamp) Next(now time.Time) Difficulty { return c.bounded.bound(c.bound(c.Policy.Next(now))) }

// bound sends a NaN to the lower bound, where it does least harm.
func (c *clamp) bound(d Difficulty) Difficulty {
	if !(d >= c.low) {
		return c.low
	}
	return min(d, c.high)
}

type resettableClamp struct {
	*clamp
	r Resetter
}

func (c resettableClamp) Reset(d Difficulty) { c.r.Reset(c.bound(d)) }
