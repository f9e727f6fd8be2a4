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
// What else p is stays in reach of [As], and then acts on p alone: a [MinSetter], [MaxSetter] or [Keeper] changes what
// p wants, and what was given last is kept if that is less than factor away. The caller of a Policy bounds what it
// returns in any case.
//
// It fails when p is nil or factor is not a finite number above 1.
func Hysteresis(p Policy, factor float64) (Policy, error) {
	if err := checkWrapped("hysteresis", p); err != nil {
		return nil, err
	}
	if !(factor > 1) || math.IsInf(factor, 1) {
		return nil, fmt.Errorf("difficulty: hysteresis: factor %v is not a finite number above 1", factor)
	}
	h := &hysteresis{Policy: p, factor: Difficulty(factor)}
	if r, ok := As[Resetter](p); ok {
		return resettableHysteresis{h, r}, nil
	}
	return h, nil
}

type hysteresis struct {
	Policy
	factor Difficulty
	last   Difficulty // 0 before the first
}

func (h *hysteresis) Unwrap() Policy { return h.Policy }

func (h *hysteresis) Next(now time.Time) Difficulty {
	d := h.Policy.Next(now)
	switch {
	case !d.Valid():
		return max(h.last, Min)
	case h.last == 0 || d/h.last >= h.factor || h.last/d >= h.factor:
		h.last = d
	}
	return h.last
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
// What else p is stays in reach of [As], and then acts on p alone: what a [MinSetter], [MaxSetter], [Keeper] or
// [Hurrier] wants is reached step by step as well. The caller of a Policy bounds what it returns in any case.
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
	l := &limitStep{Policy: p, up: Difficulty(up), down: Difficulty(down)}
	if r, ok := As[Resetter](p); ok {
		return resettableLimitStep{l, r}, nil
	}
	return l, nil
}

type limitStep struct {
	Policy
	up, down Difficulty
	last     Difficulty // 0 before the first
	at       time.Time  // when it was given
}

func (l *limitStep) Unwrap() Policy { return l.Policy }

func (l *limitStep) Next(now time.Time) Difficulty {
	d := l.Policy.Next(now)
	switch {
	case !d.Valid():
		return max(l.last, Min)
	case l.last == 0:
		l.last = d
	case !now.After(l.at):
		return l.last
	case d > l.last:
		l.last = min(d, l.last*l.up)
	default:
		l.last = max(d, l.last/l.down)
	}
	l.at = now
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

func checkWrapped(doing string, p Policy) error {
	if p == nil {
		return fmt.Errorf("difficulty: %s: the policy is nil", doing)
	}
	return nil
}
