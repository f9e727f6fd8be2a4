package difficulty

import (
	"math"
	"time"
)

// How old a State may be that a policy goes on from.
const (
	keptAtLeast = 10 * time.Minute
	keptAtMost  = 24 * time.Hour
)

// fresh reports whether s still says where the miner belongs: a State is worth as long as its shares took, which is
// how long the miner is known to have been like that, but at least 10 minutes and at most a day. A State from the
// future, of a clock that is ahead, counts as that much old.
func (s State) fresh(now time.Time) bool {
	if !s.Valid() {
		return false
	}
	kept := keptAtLeast
	if s.Hashrate > 0 {
		took := s.Shares * float64(s.Difficulty) * HashesPerDifficulty / float64(s.Hashrate) // seconds
		if took > keptAtLeast.Seconds() {
			kept = time.Duration(min(took, keptAtMost.Seconds()) * float64(time.Second))
		}
	}
	age := now.Sub(s.At)
	return age <= kept && age >= -kept
}

// knownFrom returns what is known of a miner that did work in span at the difficulty of the moment.
func knownFrom(now time.Time, cur, work Difficulty, span time.Duration) State {
	s := State{At: now, Difficulty: cur}
	if h := HashrateOf(work, span); h > 0 && !math.IsInf(float64(h), 1) {
		s.Hashrate, s.Shares = h, float64(work/cur)
	}
	return s
}
