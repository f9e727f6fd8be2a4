// Package batches is a policy of one's own, as somebody outside of this library would write it: with nothing but the
// interface [difficulty.Policy]. Its test is one line.
package batches

import (
	"time"

	"github.com/poolkit/poolkit/difficulty"
)

// A Policy counts a batch of forty shares and then decides. The time that they take is off by a sixth by chance alone, so
// the difficulty changes only when it is off by a factor of 1.6.
type Policy struct {
	interval time.Duration
	now      difficulty.Difficulty // what was decided last
	since    time.Time             // when the batch began
	shares   int
	work     difficulty.Difficulty // of the shares, each as hard as it was
}

// New returns a Policy that begins at start and aims at a share every interval.
func New(start difficulty.Difficulty, interval time.Duration) *Policy {
	return &Policy{interval: interval, now: difficulty.AnyDifficulty.Nearest(start)}
}

// Observe counts a share.
func (p *Policy) Observe(_ time.Time, d difficulty.Difficulty) {
	if d.Valid() {
		p.shares++
		p.work += d
	}
}

// Next decides when forty shares have come, or should have.
func (p *Policy) Next(now time.Time) difficulty.Difficulty {
	if p.since.IsZero() || now.Before(p.since) {
		p.since = now
	}
	took := now.Sub(p.since)
	if took < p.interval || p.shares < 40 && took < 40*p.interval {
		return p.now
	}
	// One more share is on its way, and all that is known of a miner that has sent none.
	ideal := difficulty.HashrateOf(p.work+p.now, took).Difficulty(p.interval)
	if ideal > p.now*1.6 || ideal < p.now/1.6 {
		p.now = difficulty.AnyDifficulty.Nearest(ideal)
	}
	p.since, p.shares, p.work = now, 0, 0
	return p.now
}
