package stats

import (
	"errors"
	"fmt"
	"time"
)

// Options tune an Aggregator. The zero value counts as BTCPool's first releases did.
type Options struct {
	// AcceptSlot is the resolution of the accepted sums of up to an hour, 1 s or 10 s; 0 means 1 s. A worker with
	// shares in more than some 400 seconds of an hour is kept by 10 s in any case, so that its memory stays bounded.
	AcceptSlot time.Duration

	SmallWindow time.Duration // fast hashrate; 0 means 30m, at most an hour
	LargeWindow time.Duration // smooth hashrate, kept in slots of 2m; 0 means 3h, at most 24h

	// BucketSpan is what the Store gets in one piece and so the resolution of windows after a restart: 1 s to 1m, and
	// a divisor of a minute; 0 means 10 s.
	BucketSpan time.Duration

	// MaxWorkers and MaxUsers bound what is kept in memory; 0 means 200,000 each. Above half of either only an
	// accepted share makes a new worker or user known, and at the bound none does. Shares of workers that are not known
	// are counted for their user and the pool, those of users that are not known for the pool; see [Stats].
	MaxWorkers int
	MaxUsers   int

	// MaxPending bounds what waits to be written; 0 means 1,000,000 buckets of about 40 bytes. When that much waits,
	// Put refuses and Apply waits.
	MaxPending int

	// MaxRounds is how many closed rounds are remembered for [Aggregator.ClosedRound]; 0 means 1,000.
	MaxRounds int

	AcceptStale      bool // shares accepted on a stale job count as accepted instead of stale
	SplitStale       bool // report stale shares apart instead of among the rejected
	NormalizeRejects bool // count at most 4 times a worker's last accepted difficulty for a share that is not accepted

	Now func() time.Time // the clock; nil means time.Now
}

// withDefaults returns o with zero fields filled in, or everything that is wrong with it.
func (o *Options) withDefaults() (Options, error) {
	var v Options
	if o != nil {
		v = *o
	}
	dur := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	num := func(n *int, def int) {
		if *n == 0 {
			*n = def
		}
	}
	dur(&v.AcceptSlot, time.Second)
	dur(&v.SmallWindow, 30*time.Minute)
	dur(&v.LargeWindow, 3*time.Hour)
	dur(&v.BucketSpan, 10*time.Second)
	num(&v.MaxWorkers, 200_000)
	num(&v.MaxUsers, 200_000)
	num(&v.MaxPending, 1_000_000)
	num(&v.MaxRounds, 1_000)
	if v.Now == nil {
		v.Now = time.Now
	}

	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("stats: "+format, args...)) }
	if v.AcceptSlot != time.Second && v.AcceptSlot != 10*time.Second {
		bad("AcceptSlot is %v, want 1s or 10s", v.AcceptSlot)
	}
	if v.SmallWindow < time.Minute || v.SmallWindow > time.Hour || v.SmallWindow%time.Minute != 0 {
		bad("SmallWindow is %v, want whole minutes up to an hour", v.SmallWindow)
	}
	if v.LargeWindow < v.SmallWindow || v.LargeWindow > 24*time.Hour || v.LargeWindow%(largeSlot*time.Second) != 0 {
		bad("LargeWindow is %v, want an even number of minutes from the small window up to a day", v.LargeWindow)
	}
	if s := v.BucketSpan; s < time.Second || s%time.Second != 0 || time.Minute%s != 0 {
		bad("BucketSpan is %v, want whole seconds that divide a minute", s)
	}
	for _, n := range []struct {
		name string
		n    int
	}{{"MaxWorkers", v.MaxWorkers}, {"MaxUsers", v.MaxUsers}, {"MaxPending", v.MaxPending}, {"MaxRounds", v.MaxRounds}} {
		if n.n < 0 {
			bad("%s is %d, want 0 or more", n.name, n.n)
		}
	}
	return v, errors.Join(errs...)
}
