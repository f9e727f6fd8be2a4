package job

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
)

// Bounds of what a Maker takes and keeps.
const (
	// A template counts as seen before while it is among this many that were accepted last.
	seenTemplates = 20

	// A template whose time of arrival is this far from now, in either direction, is dropped or warned about.
	dropAge = 60 * time.Second
	warnAge = 3 * time.Second

	// Templates are kept for falling back: at most one for each height with and without transactions, since an older
	// one of the same kind can never be chosen, and at most this many.
	maxTemplates = 32
)

// A KeyOrder says which of several templates is the best to mine on.
type KeyOrder uint8

const (
	// KeyOrderTime prefers the newest template, whatever its height, and among those of one second the highest.
	// Where the newest is empty and there is one with transactions for the same height, it prefers that one: a second
	// node that is slower to fill its template must not displace a full one.
	KeyOrderTime KeyOrder = iota

	// KeyOrderHeight prefers the highest template, then one with transactions, then the newest. A wrong template that
	// is too high is followed until it expires.
	KeyOrderHeight
)

// String returns "time" or "height", as UnmarshalText reads it.
func (o KeyOrder) String() string {
	switch o {
	case KeyOrderTime:
		return "time"
	case KeyOrderHeight:
		return "height"
	}
	return fmt.Sprintf("KeyOrder(%d)", uint8(o))
}

// MarshalText returns String; a value that is not one of the constants is an error.
func (o KeyOrder) MarshalText() ([]byte, error) {
	if o > KeyOrderHeight {
		return nil, fmt.Errorf("job: no such key order: %d", uint8(o))
	}
	return []byte(o.String()), nil
}

// UnmarshalText reads "time" or "height", for configuration files.
func (o *KeyOrder) UnmarshalText(text []byte) error {
	for k := range KeyOrderHeight + 1 {
		if k.String() == string(text) {
			*o = k
			return nil
		}
	}
	return fmt.Errorf("job: no such key order: %.20q (there are time and height)", text)
}

// key returns the number by which templates are compared; the largest is the best:
//
//	         bits 63 to 32           bits 31 to 1    bit 0
//	time     Unix time of arrival    height          1 with transactions
//
//	         bits 63 to 33    bit 32                 bits 31 to 0
//	height   height           1 with transactions    Unix time of arrival
func (o KeyOrder) key(t *Template) uint64 {
	seconds := uint64(uint32(t.Received.Unix()))
	height := uint64(t.Height) << 1
	if !t.Empty() {
		height |= 1
	}
	if o == KeyOrderHeight {
		return height<<32 | seconds
	}
	return seconds<<32 | height
}

// A Drop says why a [Maker] did not take a template.
type Drop uint8

const (
	NotDropped       Drop = iota
	DroppedInvalid        // no ID, no time of arrival, or a height that cannot be
	DroppedDuplicate      // one of the last 20 has the same ID
	DroppedOld            // it arrived a minute ago or more, or will
	DroppedLower          // it is for a block that has been found already, by a better template
)

// String returns the reason as a log attribute: "duplicate", "old" and so on.
func (d Drop) String() string {
	switch d {
	case NotDropped:
		return "not dropped"
	case DroppedInvalid:
		return "invalid"
	case DroppedDuplicate:
		return "duplicate"
	case DroppedOld:
		return "old"
	case DroppedLower:
		return "lower height"
	}
	return fmt.Sprintf("Drop(%d)", uint8(d))
}

// A SendReason says why a [Maker] sent a job.
type SendReason uint8

const (
	NotSent          SendReason = iota
	SentFirst                   // there was no job before
	SentNewHeight               // the best template is higher than the last job: a block was found
	SentTransactions            // the last job was an empty block, and now there are transactions for it
	SentInterval                // the interval was over
)

// String returns the reason as a log attribute: "new height", "interval" and so on.
func (r SendReason) String() string {
	switch r {
	case NotSent:
		return "not sent"
	case SentFirst:
		return "first"
	case SentNewHeight:
		return "new height"
	case SentTransactions:
		return "transactions"
	case SentInterval:
		return "interval"
	}
	return fmt.Sprintf("SendReason(%d)", uint8(r))
}

// A store is the part of a Maker that decides: which templates to take, which of them is the best, and when a job is
// due. It reads no clock and starts nothing.
type store struct {
	interval, lifetime, emptyLifetime time.Duration
	order                             KeyOrder
	protectEmptyBest                  bool

	seen    []chainhash.Hash // of the templates accepted last, oldest first
	entries []entry          // ascending by key, the best one last; keys differ, since heights or kinds do

	// What went out last. lastTemplate is the template it was made of, which is known to work.
	lastJob      *Job
	lastTemplate *Template
	lastSent     time.Time
}

type entry struct {
	t   *Template
	key uint64
}

// accept takes t unless there is a reason not to.
func (s *store) accept(t *Template, now time.Time) Drop {
	switch {
	case t == nil, t.ID == (chainhash.Hash{}), t.Received.IsZero(), t.Height < 0, t.Height == math.MaxInt32:
		return DroppedInvalid
	case slices.Contains(s.seen, t.ID):
		return DroppedDuplicate
	case now.Sub(t.Received).Abs() >= dropAge:
		return DroppedOld
	}
	s.expire(now)
	if best := s.best(); best != nil && t.Height < best.Height && (!best.Empty() || s.protectEmptyBest) &&
		t.Received.Sub(best.Received) < 2*s.interval { // signed: the clocks of two sources may differ
		return DroppedLower
	}
	s.insert(t)
	if len(s.seen) == seenTemplates {
		s.seen = slices.Delete(s.seen, 0, 1)
	}
	s.seen = append(s.seen, t.ID)
	return NotDropped
}

// insert puts t among the entries, in place of one with the same height and kind unless that one is newer.
func (s *store) insert(t *Template) {
	e := entry{t, s.order.key(t)}
	same := func(f entry) bool { return f.t.Height == t.Height && f.t.Empty() == t.Empty() }
	if i := slices.IndexFunc(s.entries, same); i >= 0 {
		if s.entries[i].key > e.key {
			return
		}
		s.entries = slices.Delete(s.entries, i, i+1)
	}
	s.entries = append(s.entries, e)
	slices.SortFunc(s.entries, func(a, b entry) int { return cmp.Compare(a.key, b.key) })
	if len(s.entries) > maxTemplates {
		s.entries = slices.Delete(s.entries, 0, 1)
	}
}

func (s *store) expired(t *Template, now time.Time) bool {
	life := s.lifetime
	if t.Empty() {
		life = s.emptyLifetime
	}
	return !t.Received.Add(life).After(now)
}

// expire removes what has outlived its time, worst first, and never the last one: a node whose template does not change
// for minutes is no reason to stop mining.
func (s *store) expire(now time.Time) {
	for i := 0; i < len(s.entries) && len(s.entries) > 1; {
		if s.expired(s.entries[i].t, now) {
			s.entries = slices.Delete(s.entries, i, i+1)
		} else {
			i++
		}
	}
}

// best returns the template to mine on of those that expire has left, nil when there is none.
func (s *store) best() *Template {
	if len(s.entries) == 0 {
		return nil
	}
	best := s.entries[len(s.entries)-1].t
	if best.Empty() {
		for _, e := range s.entries {
			if e.t.Height == best.Height && !e.t.Empty() {
				return e.t
			}
		}
	}
	return best
}

// due returns the template that a job should be made of now, and why; or nil and NotSent.
func (s *store) due(now time.Time) (*Template, SendReason) {
	s.expire(now)
	best := s.best()
	switch {
	case best == nil:
		return nil, NotSent
	case s.lastJob == nil:
		return best, SentFirst
	case best.Height > s.lastJob.Height:
		return best, SentNewHeight
	case best.Height == s.lastJob.Height && s.lastJob.Empty() && !best.Empty():
		return best, SentTransactions
	case !s.lastSent.Add(s.interval).After(now):
		return best, SentInterval
	}
	return nil, NotSent
}

// clean reports whether miners must drop what they have when they get j: it is on another tip than the job before, and
// not below it. A job for a lower height comes from a node that lags behind; what miners do on the higher tip is worth
// more than what it asks for. Nobody knows what miners had before the first job.
func (s *store) clean(j *Job) bool {
	return s.lastJob == nil || j.PrevHash != s.lastJob.PrevHash && j.Height >= s.lastJob.Height
}

// sent notes that j, made of t, is out.
func (s *store) sent(t *Template, j *Job, now time.Time) {
	s.lastTemplate, s.lastJob, s.lastSent = t, j, now
}

// reject removes a template of which no job could be made. The one that worked last comes back where it had to make
// room.
func (s *store) reject(t *Template) {
	s.entries = slices.DeleteFunc(s.entries, func(e entry) bool { return e.t == t })
	if s.lastTemplate != nil && s.lastTemplate != t {
		s.insert(s.lastTemplate)
	}
}
