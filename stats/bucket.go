package stats

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
)

// A Key names what is counted. WorkerID 0 stands for a user and UserID 0 with it for the pool.
type Key struct {
	UserID   int32 // as [share.Share.UserID]; shares carry only values above 0
	WorkerID int64 // as [share.Worker.ID], which is never 0
}

// Compare orders keys by user and then by worker, with both numbers read as unsigned: the pool comes before all, and a
// user before its workers, half of which have negative numbers.
func (k Key) Compare(o Key) int {
	return cmp.Or(
		cmp.Compare(uint32(k.UserID), uint32(o.UserID)), cmp.Compare(uint64(k.WorkerID), uint64(o.WorkerID)))
}

// A Tally is a number of shares and the sum of their difficulties.
type Tally struct {
	Count uint64
	Sum   difficulty.Difficulty
}

// Add adds o to t.
func (t *Tally) Add(o Tally) {
	t.Count += o.Count
	t.Sum += o.Sum
}

// A VerdictTally is the Tally of one verdict.
type VerdictTally struct {
	Verdict share.Verdict
	Tally
}

// addTally adds t to the entry of v in list, which is kept in order of verdicts.
func addTally(list []VerdictTally, v share.Verdict, t Tally) []VerdictTally {
	i, ok := slices.BinarySearchFunc(list, v, func(e VerdictTally, v share.Verdict) int { return cmp.Compare(e.Verdict, v) })
	if !ok {
		list = slices.Insert(list, i, VerdictTally{Verdict: v})
	}
	list[i].Add(t)
	return list
}

// A Bucket holds what came in for a Key with times from Start until before Start+Span. A Bucket whose Key names a user
// or the pool holds only those of their shares that are in no worker's bucket, so adding buckets up counts every share
// once.
type Bucket struct {
	Key   Key
	Start time.Time     // a multiple of Span since 1970
	Span  time.Duration // whole seconds

	Accepted Tally          // verdicts Accepted and Solved
	Other    []VerdictTally // the rest, AcceptedStale included, each verdict once and in ascending order
}

// Compare orders buckets by Start, Key and Span, which is the order in which a Store returns them.
func (b *Bucket) Compare(o *Bucket) int {
	return cmp.Or(b.Start.Compare(o.Start), b.Key.Compare(o.Key), cmp.Compare(b.Span, o.Span))
}

// Merge adds the tallies of o to b. It changes neither o nor what o shares memory with.
func (b *Bucket) Merge(o *Bucket) {
	b.Accepted.Add(o.Accepted)
	if len(o.Other) == 0 {
		return
	}
	b.Other = slices.Clone(b.Other)
	for _, t := range o.Other {
		b.Other = addTally(b.Other, t.Verdict, t.Tally)
	}
}

// A Total is what is known of a Key apart from its buckets. It is absolute: a newer one takes the place of an older.
// A worker's counts begin anew when it comes back after an hour of silence; those of users and the pool never do.
type Total struct {
	Key Key

	// AcceptCount counts accepted shares since the object behind the Key was made, BTCPool's acceptCount.
	AcceptCount uint64
	Accepted    Tally          // all there ever were
	Other       []VerdictTally // as in a Bucket

	First        time.Time // first share, accepted or not
	LastShare    time.Time // newest share, accepted or not
	LastAccepted time.Time // newest accepted share
	LastIP       netip.Addr

	// LastDifficulty is that of the worker's last accepted share, 0 before there was one.
	LastDifficulty difficulty.Difficulty

	// RoundShares is the accepted difficulty since round number Round began. It counts for nothing when the pool's
	// Round is another.
	RoundShares difficulty.Difficulty
	Round       uint64
	BlocksFound uint64
	LastBlock   time.Time // zero before the first
}

// A Name tells what people call a Key: a user's account name or a worker's machine name.
type Name struct {
	Key  Key
	Name string
}

// A Round is all that was accepted between two blocks, the share that solved the second one included.
type Round struct {
	Number uint64 // 1 is the first; the running round has the next number
	JobID  job.ID
	Height int32
	Nonce  uint32
	Bits   uint32 // compact network target
	Time   time.Time
	Finder Key

	Shares difficulty.Difficulty // sum over all users

	// Users are the parts of Shares, in order of UserID. They are written to a Store once and not kept in memory.
	// Shares of users beyond [Options.MaxUsers] are in Shares only.
	Users []UserShares
}

// UserShares is a user's part of a Round.
type UserShares struct {
	UserID int32
	Shares difficulty.Difficulty
}
