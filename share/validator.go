package share

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
)

// Work is a job as it went out to one session: shares for it are judged and credited at this difficulty, whatever the
// session's difficulty is by the time they arrive.
type Work struct {
	Job        *job.Job
	Difficulty difficulty.Difficulty
	Target     difficulty.Target // of Difficulty
}

// NewWork returns j at difficulty d.
func NewWork(j *job.Job, d difficulty.Difficulty) Work {
	return Work{Job: j, Difficulty: d, Target: d.Target()}
}

// A Submission is what the miner sent, as numbers: no text survives to this point, so no spelling of the same work can
// pass for other work.
type Submission struct {
	Extranonce  [job.ExtranonceSize]byte // extranonce1 and extranonce2, in the order of the coinbase
	NTime       uint32                   // 0 means the job's time
	Nonce       uint32
	VersionBits uint32 // BIP 310; 0 when the miner rolls none

	// Stale says that the job's block has been found, which the caller knows from [job.Recent]; Grace accepts the
	// share all the same, as AcceptedStale or SolvedStale.
	Stale, Grace bool
}

// A Ruling is what a Validator finds out about a submission.
type Ruling struct {
	Verdict Verdict

	// Solves reports that the header meets the network target. It does not depend on the verdict: such a header is
	// handed on as a [Solution] even when the share is refused.
	Solves bool

	// Difficulty is what the share is worth when it is accepted: the difficulty of its Work, or where a block misses
	// that (which takes a difficulty above the network's) the network's, rounded down to a power of two.
	Difficulty difficulty.Difficulty

	Hash   chainhash.Hash
	Header [job.HeaderSize]byte
}

// ValidatorOptions tune a [Validator]. The zero value is what a public pool uses.
type ValidatorOptions struct {
	// VersionMask holds the version bits that miners may roll; 0 means job.DefaultVersionMask.
	VersionMask uint32

	// MaxFuture bounds ntime: it may be this much ahead of the job's time or of the clock, whichever is later. 0 means
	// 10 minutes; consensus allows two hours.
	MaxFuture time.Duration

	// Memory is how long shares of a job are remembered to recognise duplicates, from the job's time on. It must
	// cover the time for which jobs are accepted; 0 means 10 minutes. The newest job's shares are never forgotten.
	Memory time.Duration

	// Alive reports whether shares for a job may still be accepted, however old it is: those of such a job are not
	// forgotten. Nil is for no job older than Memory.
	Alive func(*job.Job) bool

	// MaxShares bounds the shares that are accepted for one job, all of which are remembered; further ones are answered
	// [Rejected]. 0 means 262,144, which takes 10 MB: a difficulty that lets a miner find that many is far too low.
	// Of shares that are refused, the first 1,024 of a job are remembered, since sending them costs a miner nothing.
	MaxShares int
}

// A Validator judges the shares of one session and remembers them to recognise duplicates. It is not safe for
// concurrent use. One that has judged nothing holds no memory to speak of.
type Validator struct {
	opts     ValidatorOptions
	seen     []jobShares // in the order they came, a handful
	coinbase []byte      // scratch
}

// jobShares is what is remembered of a job, or of several that have the same work.
type jobShares struct {
	id      job.ID // the highest of these
	job     *job.Job
	work    chainhash.Hash
	few     []shareKey            // all there are, until there are more than maxFew
	shares  map[shareKey]struct{} // then
	refused int                   // of shares, those that earned nothing
}

// maxFew is how many shares of a job are looked through one by one. Most miners send no more, and a map would take half
// a kilobyte for them.
const maxFew = 8

// has reports whether a share is known.
func (s *jobShares) has(key shareKey) bool {
	if s.shares != nil {
		_, ok := s.shares[key]
		return ok
	}
	return slices.Contains(s.few, key)
}

func (s *jobShares) len() int { return len(s.few) + len(s.shares) }

func (s *jobShares) add(key shareKey) {
	switch {
	case s.shares != nil:
		s.shares[key] = struct{}{}
	case len(s.few) < maxFew:
		s.few = append(s.few, key)
	default:
		s.shares = make(map[shareKey]struct{}, 2*maxFew)
		for _, k := range s.few {
			s.shares[k] = struct{}{}
		}
		s.few = nil
		s.shares[key] = struct{}{}
	}
}

// maxRefused bounds what a miner can have us remember without doing any work.
const maxRefused = 1024

// A shareKey is everything of a header that a miner chooses, so within one job equal keys mean equal headers. It holds
// the header's version and not the bits as sent, because two readings of different bits can make one version.
type shareKey struct {
	extranonce1   uint32
	extranonce2   uint64
	ntime, nonce  uint32
	headerVersion uint32
}

// NewValidator returns a Validator for one session.
func NewValidator(opts *ValidatorOptions) *Validator {
	v := new(Validator)
	v.Init(opts)
	return v
}

// Init makes v, which may be part of a larger struct, ready for use.
func (v *Validator) Init(opts *ValidatorOptions) {
	*v = Validator{}
	if opts != nil {
		v.opts = *opts
	}
	if v.opts.VersionMask == 0 {
		v.opts.VersionMask = job.DefaultVersionMask
	}
	if v.opts.MaxFuture == 0 {
		v.opts.MaxFuture = 10 * time.Minute
	}
	if v.opts.Memory == 0 {
		v.opts.Memory = 10 * time.Minute
	}
	if v.opts.MaxShares == 0 {
		v.opts.MaxShares = 1 << 18
	}
}

// Validate rebuilds the header that the miner hashed and rules on it. The block test comes before all others. After
// it the first rule that a share breaks decides, in the order of BTCPool: duplicate, stale, time too old, time too
// new, version bits, low difficulty.
//
// It allocates nothing but room for the share's key, which is amortised over the shares of a job.
func (v *Validator) Validate(w *Work, sub *Submission, now time.Time) (r Ruling) {
	j := w.Job
	ntime := sub.NTime
	if ntime == 0 {
		ntime = j.Time
	}
	v.coinbase = j.AppendCoinbase(v.coinbase[:0], &sub.Extranonce)
	root := job.MerkleRoot(v.coinbase, j.Branch)
	header := r.Header[:]
	copy(header[4:], j.PrevHash[:])
	copy(header[36:], root[:])
	binary.LittleEndian.PutUint32(header[68:], ntime)
	binary.LittleEndian.PutUint32(header[72:], j.Bits)
	binary.LittleEndian.PutUint32(header[76:], sub.Nonce)

	version := v.hash(&r, w, sub.VersionBits)
	network := j.Target()
	r.Solves = network.MetBy((*[32]byte)(&r.Hash))
	meets := w.Target.MetBy((*[32]byte)(&r.Hash))
	r.Difficulty = w.Difficulty
	if r.Solves && !meets {
		r.Difficulty = network.Difficulty().FloorPow2()
	}

	key := shareKey{
		extranonce1:   binary.BigEndian.Uint32(sub.Extranonce[:]),
		extranonce2:   binary.BigEndian.Uint64(sub.Extranonce[job.Extranonce1Size:]),
		ntime:         ntime,
		nonce:         sub.Nonce,
		headerVersion: version,
	}
	seen := v.sharesOf(j, now)
	if seen.has(key) {
		// If it is a block, it was handed on when it came first.
		r.Verdict, r.Solves = Duplicate, false
		return r
	}
	r.Verdict = v.rule(w, sub, &r, ntime, meets, now)
	if !seen.remember(key, r.Verdict.Accepted() || r.Solves, &v.opts) {
		r.Verdict = Rejected
	}
	return r
}

// rule returns the verdict on a share that is no duplicate.
func (v *Validator) rule(w *Work, sub *Submission, r *Ruling, ntime uint32, meets bool, now time.Time) Verdict {
	j := w.Job
	latest := max(int64(j.Time), now.Unix()) + int64(v.opts.MaxFuture/time.Second)
	switch {
	case sub.Stale && !sub.Grace:
		return Stale
	case ntime < j.MinTime:
		return TimeTooOld
	case int64(ntime) > latest || j.MaxTime != 0 && ntime > j.MaxTime:
		return TimeTooNew
	case sub.VersionBits&^v.opts.VersionMask != 0:
		return IllegalVersionBits
	case !r.Solves && !meets:
		return LowDifficulty
	case r.Solves && sub.Stale:
		return SolvedStale
	case r.Solves:
		return Solved
	case sub.Stale:
		return AcceptedStale
	}
	return Accepted
}

// hash completes the header with its version, hashes it and returns the version. Miners combine the job's version with
// the bits they roll in two ways, which differ only where the job's version has bits inside the mask: BIP 310 replaces
// the bits, most firmware flips them. The second is tried when the first makes no share. Where bits outside the mask
// are set the miner went its own way, and flipping comes first.
func (v *Validator) hash(r *Ruling, w *Work, bits uint32) uint32 {
	base, mask := uint32(w.Job.Version), v.opts.VersionMask
	version, flipped := base&^mask|bits&mask, base^bits
	if bits == 0 {
		// BIP 310 read to the letter would clear the job's own bits; a miner that rolls nothing leaves them.
		version, flipped = base, base&^mask
	}
	easier := easier(w.Target, w.Job.Target())
	if bits&^mask != 0 {
		// Such a share is refused; its other reading matters only if it is a block.
		version, flipped = flipped, version
		easier = w.Job.Target()
	}
	r.setVersion(version)
	if flipped != version && !easier.MetBy((*[32]byte)(&r.Hash)) {
		first := r.Hash
		r.setVersion(flipped)
		if !easier.MetBy((*[32]byte)(&r.Hash)) {
			binary.LittleEndian.PutUint32(r.Header[:], version)
			r.Hash = first
			return version
		}
		return flipped
	}
	return version
}

func easier(a, b difficulty.Target) difficulty.Target {
	if a.Cmp(b) < 0 {
		return b
	}
	return a
}

func (r *Ruling) setVersion(version uint32) {
	binary.LittleEndian.PutUint32(r.Header[:], version)
	first := sha256.Sum256(r.Header[:])
	r.Hash = sha256.Sum256(first[:])
}

// remember notes a share and reports whether there was room. One that earned nothing needs no room: at most it is
// refused again.
func (s *jobShares) remember(key shareKey, worth bool, opts *ValidatorOptions) bool {
	switch {
	case worth:
		if s.len()-s.refused >= opts.MaxShares {
			return false
		}
	case s.refused >= maxRefused:
		return true
	default:
		s.refused++
	}
	s.add(key)
	return true
}

// sharesOf returns what is remembered of a job. The pointer is good until the next call.
func (v *Validator) sharesOf(j *job.Job, now time.Time) *jobShares {
	for i := len(v.seen) - 1; i >= 0; i-- {
		if v.seen[i].id == j.ID {
			return &v.seen[i]
		}
	}
	work := j.WorkID()
	for i := range v.seen {
		if v.seen[i].work == work {
			// Another id for work that is known, whose shares were paid for already.
			v.seen[i].id, v.seen[i].job = max(v.seen[i].id, j.ID), j
			return &v.seen[i]
		}
	}
	v.seen = slices.DeleteFunc(v.seen, func(old jobShares) bool { return v.forgotten(&old, j.ID, now) })
	v.seen = append(v.seen, jobShares{id: j.ID, job: j, work: work})
	return &v.seen[len(v.seen)-1]
}

// forgotten reports whether no share for an old job can be accepted any more.
func (v *Validator) forgotten(old *jobShares, newest job.ID, now time.Time) bool {
	return old.id < newest && now.Sub(old.id.Time()) > v.opts.Memory && (v.opts.Alive == nil || !v.opts.Alive(old.job))
}
