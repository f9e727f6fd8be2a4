package difficulty

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Hysteresis keeps the difficulty that it gave last for as long as p wants less than factor times as much and more than
// a factor-th of it, and gives what p wants otherwise. It keeps a policy that follows every hash from sending a new
// difficulty with every job.
//
// What p wants that is no difficulty, such as NaN, leaves the last one; before there is one, it gives [Min], which its
// caller bounds.
//
// The result is a [Wrapper], and a [Resetter] when p can be reset: after that it gives the first thing that p wants.
// It is a [MinSetter] and a [MaxSetter] whether p is or not. What else p is stays in reach of [As], and then acts on p
// alone: a [Keeper] changes what p wants, and what was given last is kept if that is less than factor away.
//
// It fails when p is nil or factor is not a finite number above 1.
func Hysteresis(p Policy, factor float64) (Policy, error) {
	if err := checkWrapped("hysteresis", p); err != nil {
		return nil, err
	}
	if !(factor > 1) || math.IsInf(factor, 1) {
		return nil, fmt.Errorf("difficulty: hysteresis: factor %v is not a finite number above 1", factor)
	}
	h := &hysteresis{bounded: bounded{Policy: p}, factor: Difficulty(factor)}
	if r, ok := As[Resetter](p); ok {
		return resettableHysteresis{h, r}, nil
	}
	return h, nil
}

type hysteresis struct {
	bounded
	factor Difficulty
	last   Difficulty // 0 before the first
}

func (h *hysteresis) Next(now time.Time) Difficulty {
	d := h.Policy.Next(now)
	switch {
	case !d.Valid():
		d = max(h.last, Min)
	case h.last == 0 || d/h.last >= h.factor || h.last/d >= h.factor:
		h.last = d
	default:
		d = h.last
	}
	return h.bound(d)
}

type resettableHysteresis struct {
	*hysteresis
	r Resetter
}

func (h resettableHysteresis) Reset(d Difficulty) {
	h.r.Reset(d)
	if d.Valid() {
		h.last = 0
	}
}

// LimitStep lets the difficulty rise to at most up times the one before and fall to no less than a down-th of it with
// each step, however far p wants to go. A step is a call of Next, so a job that is sent; several calls at the same
// moment are one step. The first difficulty is what p wants, and +Inf leaves a direction without a limit.
//
// A limited difficulty is last*up or last/down, which need not be [Difficulty.Assignable]: the caller rounds it, or
// [Quantize] around this does. It is remembered as it is, so that rounding does not hold small steps up.
//
// What p wants that is no difficulty, such as NaN, leaves the last one; before there is one, it gives [Min], which its
// caller bounds.
//
// The result is a [Wrapper], and a [Resetter] when p can be reset: after that it gives the first thing that p wants.
// It is a [MinSetter] and a [MaxSetter] whether p is or not, and goes to such a bound in one step. What else p is stays in
// reach of [As], and then acts on p alone: what a [Keeper] or [Hurrier] wants is reached step by step as well.
//
// It fails when p is nil, when up or down is not a number of at least 1, and when both are 1, which is a [Fixed].
func LimitStep(p Policy, up, down float64) (Policy, error) {
	if err := checkWrapped("limit step", p); err != nil {
		return nil, err
	}
	var errs []error
	if !(up >= 1) {
		errs = append(errs, fmt.Errorf("difficulty: limit step: up %v is not at least 1", up))
	}
	if !(down >= 1) {
		errs = append(errs, fmt.Errorf("difficulty: limit step: down %v is not at least 1", down))
	}
	if up == 1 && down == 1 {
		errs = append(errs, errors.New("difficulty: limit step: up and down of 1 never let it change"))
	}
	if errs != nil {
		return nil, errors.Join(errs...)
	}
	l := &limitStep{bounded: bounded{Policy: p}, up: Difficulty(up), down: Difficulty(down)}
	if r, ok := As[Resetter](p); ok {
		return resettableLimitStep{l, r}, nil
	}
	return l, nil
}

type limitStep struct {
	bounded
	up, down Difficulty
	last     Difficulty // 0 before the first
	at       time.Time  // when it was given
}

func (l *limitStep) Next(now time.Time) Difficulty {
	d := l.Policy.Next(now)
	switch {
	case !d.Valid():
		return l.bound(max(l.last, Min))
	case l.last == 0:
		l.last = d
	case !now.After(l.at):
		return l.bound(l.last)
	case d > l.last:
		l.last = min(d, l.last*l.up)
	default:
		l.last = max(d, l.last/l.down)
	}
	l.at = now
	l.last = l.bound(l.last)
	return l.last
}

type resettableLimitStep struct {
	*limitStep
	r Resetter
}

func (l resettableLimitStep) Reset(d Difficulty) {
	l.r.Reset(d)
	if d.Valid() {
		l.last = 0
	}
}

// A bounded policy holds the bounds that it was set itself, because what it wraps is not the last to speak.
type bounded struct {
	Policy
	lo, hi Difficulty // 0 where there is none
}

func (b *bounded) Unwrap() Policy { return b.Policy }

// SetMin raises the lowest difficulty that is given to m; an m that is not valid takes it back.
func (b *bounded) SetMin(m Difficulty) {
	if b.lo = 0; m.Valid() {
		b.lo = m
	}
	if p, ok := As[MinSetter](b.Policy); ok {
		p.SetMin(m)
	}
}

// SetMax lowers the highest difficulty that is given to m, and counts more than SetMin; an m that is not valid takes it
// back.
func (b *bounded) SetMax(m Difficulty) {
	if b.hi = 0; m.Valid() {
		b.hi = m
	}
	if p, ok := As[MaxSetter](b.Policy); ok {
		p.SetMax(m)
	}
}

func (b *bounded) bound(d Difficulty) Difficulty {
	if d = max(d, b.lo); b.hi != 0 {
		d = min(d, b.hi)
	}
	return d
}

func checkWrapped(doing string, p Policy) error {
	if p == nil {
		return fmt.Errorf("difficulty: %s: the policy is nil", doing)
	}
	return nil
}
