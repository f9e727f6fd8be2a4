package stats

import (
	"context"
	"errors"
	"iter"
	"time"
)

// A Store keeps what an Aggregator counted. Every Store
//   - CommitsAtomically: all of a Batch is there afterwards or nothing of it, also when the process dies in between;
//   - CommitsOnce: committing a Batch with the number of the last one again changes nothing and returns nil, so a
//     caller that does not know whether a Commit got through repeats it;
//   - RefusesGaps: a Batch with any other number than the next is refused with [ErrConflict], which tells two
//     processes that write to one Store apart;
//   - AddsBuckets: buckets of equal Start, Key and Span are added up, within a Batch and across batches;
//   - ReplacesTotals: a Total or Name takes the place of the one its Key had;
//   - ForgetsFirst: keys in Forget lose their Total and Name before those of the same Batch are written;
//   - Prunes: buckets that began and rounds that ended before the given times are gone for good;
//   - KeepsOrder: Buckets returns them by Start, Key and Span, and State returns rounds by number;
//   - ReturnsLastRounds: State returns the last [StateRounds] rounds at least, and rounds without Users;
//   - RetainsNothing: it neither modifies a Batch nor uses its memory after Commit has returned;
//   - HonorsContext: it returns ctx.Err() when ctx has ended before anything was changed;
//   - AllowsConcurrentCalls.
//
// It does not retry. Times in a Batch are whole seconds from 1970 to 2106, or zero where a field allows it, and a span
// is less than a day; addresses lose their zone.
type Store interface {
	Commit(ctx context.Context, b *Batch) error

	// State returns everything but the buckets. The caller owns the result.
	State(ctx context.Context) (*State, error)

	// Buckets returns the buckets that q asks for. After an error, which is the last pair, nothing more comes. The
	// caller owns the buckets.
	Buckets(ctx context.Context, q Query) iter.Seq2[Bucket, error]
}

// StateRounds is how many closed rounds State returns.
const StateRounds = 10_000

// A RoundReader is a Store that also gives back how a round divides among users. RoundUsers returns nil for a round
// that is not there.
type RoundReader interface {
	RoundUsers(ctx context.Context, number uint64) ([]UserShares, error)
}

// ErrConflict is returned for a Batch that does not follow the last one: another process writes to the same Store, or
// an Aggregator was not restored from it.
var ErrConflict = errors.New("stats: batch does not follow the last one in the store")

// A Batch is what goes to a Store in one piece.
type Batch struct {
	// Seq numbers the batches of a Store without gaps; 1 is the first.
	Seq uint64

	// Position is where the source of shares goes on after this Batch. Only the source understands it. It is nil
	// when shares come from nowhere that could be read again.
	Position []byte

	Forget  []Key
	Totals  []Total
	Names   []Name
	Rounds  []Round
	Buckets []Bucket

	// PruneBuckets and PruneRounds remove what began before these times; zero removes nothing.
	PruneBuckets time.Time
	PruneRounds  time.Time
}

// State is what a Store holds besides buckets.
type State struct {
	Seq      uint64 // of the last Batch, 0 when there was none
	Position []byte // of the last Batch
	Totals   []Total
	Names    []Name
	Rounds   []Round // the last ones, without Users
}

// A Query selects buckets. The zero Query selects all.
type Query struct {
	UserID   int32 // 0 selects all users and the pool's own buckets
	WorkerID int64 // 0 selects all workers and what belongs to none

	From, To time.Time // Start is not before From and before To; zero is no bound
}

// Matches reports whether q selects b.
func (q *Query) Matches(b *Bucket) bool {
	return (q.UserID == 0 || q.UserID == b.Key.UserID) && (q.WorkerID == 0 || q.WorkerID == b.Key.WorkerID) &&
		(q.From.IsZero() || !b.Start.Before(q.From)) && (q.To.IsZero() || b.Start.Before(q.To))
}
