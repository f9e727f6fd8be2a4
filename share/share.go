package share

import (
	"context"
	"net/netip"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
)

// A Share is one judged submission: the fact that is logged, counted and paid for. The zero value of a field that a
// record does not carry is its absence.
type Share struct {
	Chain  job.Chain // not in records, which are kept apart by chain
	Worker Worker    // names; not in records, which carry WorkerID and UserID

	JobID      job.ID
	WorkerID   int64 // [Worker.ID]
	UserID     int32 // above 0
	Verdict    Verdict
	Time       time.Time // when it arrived; records keep whole seconds
	IP         netip.Addr
	Difficulty difficulty.Difficulty // assigned with the job to this session, not what the hash reached
	Bits       uint32                // compact network target of the job
	Height     int32
	Nonce      uint32
	SessionID  uint32 // extranonce1 read big-endian
	// VersionBits are the bits the miner sent with the share, 0 when none.
	VersionBits uint32

	// BitsReached is the share's hash as a compact target, 0 when it was not hashed.
	BitsReached uint32

	// ExtUserID is the real account where UserID names an umbrella account, or a negative number that an operator
	// gave to a sub-pool; 0 when there is none.
	ExtUserID int32
}

// A Solution is a header that meets the network target, with all that is needed to make the block of it.
type Solution struct {
	Chain job.Chain

	// Job is the job it solves where that is known; it is nil when the solution came over a bus, and a block maker
	// then looks JobID up.
	Job   *job.Job
	JobID job.ID

	Height   int32
	Hash     chainhash.Hash // of Header
	Header   [job.HeaderSize]byte
	Coinbase []byte // serialised without witness

	Worker   Worker
	WorkerID int64
	UserID   int32
	Found    time.Time
}

// A Sink takes judged shares, to store or forward them. Every Sink
//   - KeepsOrder within a call and between successive calls;
//   - RetainsNothing: it neither modifies the slice nor uses it after returning;
//   - IsDurable: nil means the shares are as safe as this Sink ever makes them;
//   - HonorsContext: it returns ctx.Err() soon after ctx ends;
//   - AllowsConcurrentCalls.
//
// It does not retry. After an error the caller may Put the same shares again: equal IDs are the same share. A Sink that
// finds invalid shares in a batch takes the others and returns an error about those, see [OnlyInvalid].
type Sink interface {
	Put(ctx context.Context, shares []Share) error
}

// SinkFunc makes a Sink of a function.
type SinkFunc func(ctx context.Context, shares []Share) error

// Put calls f.
func (f SinkFunc) Put(ctx context.Context, shares []Share) error { return f(ctx, shares) }

// A SolutionSink takes solutions, to make blocks of them. PutSolution returns as soon as the solution cannot be lost
// any more; making and submitting the block goes on afterwards. Calls may overlap. The same solution may be put more
// than once. After an error the caller tells the operator, loudly, and has nobody else to turn to.
type SolutionSink interface {
	PutSolution(ctx context.Context, s *Solution) error
}
