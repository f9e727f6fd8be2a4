package block

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
)

// A State says how far the chain has gone with a found block. [Watcher] moves it.
type State uint8

// The states of a block. Orphaned can turn into Immature again; Matured is final.
const (
	Candidate State = iota // not confirmed yet
	Immature               // on the best chain, its reward cannot be spent yet
	Matured                // its reward can be spent
	Orphaned               // not on the best chain
	numStates
)

// String returns "candidate", "immature", "matured" or "orphaned".
func (s State) String() string {
	switch s {
	case Candidate:
		return "candidate"
	case Immature:
		return "immature"
	case Matured:
		return "matured"
	case Orphaned:
		return "orphaned"
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// MarshalText implements [encoding.TextMarshaler] with the text of String.
func (s State) MarshalText() ([]byte, error) {
	if s >= numStates {
		return nil, fmt.Errorf("block: unknown state %d", uint8(s))
	}
	return []byte(s.String()), nil
}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (s *State) UnmarshalText(b []byte) error {
	for v := range numStates {
		if v.String() == string(b) {
			*s = v
			return nil
		}
	}
	return fmt.Errorf("block: unknown state %.40q", b)
}

// An Outcome is what became of submitting a block. A later one never gives way to an earlier one: that a single node
// took the block outweighs every refusal.
type Outcome uint8

// The outcomes, in the order of their weight.
const (
	Unsubmitted Outcome = iota // no node has ruled on it yet
	Lost                       // its job never became known, so that it could not be assembled
	Rejected                   // every node that ruled refused it
	Stale                      // valid, but another block came first when it was submitted
	Accepted                   // a node took it, or had it already
	numOutcomes
)

// String returns "unsubmitted", "lost", "rejected", "stale" or "accepted".
func (o Outcome) String() string {
	switch o {
	case Unsubmitted:
		return "unsubmitted"
	case Lost:
		return "lost"
	case Rejected:
		return "rejected"
	case Stale:
		return "stale"
	case Accepted:
		return "accepted"
	}
	return fmt.Sprintf("outcome(%d)", uint8(o))
}

// MarshalText implements [encoding.TextMarshaler] with the text of String.
func (o Outcome) MarshalText() ([]byte, error) {
	if o >= numOutcomes {
		return nil, fmt.Errorf("block: unknown outcome %d", uint8(o))
	}
	return []byte(o.String()), nil
}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (o *Outcome) UnmarshalText(b []byte) error {
	for v := range numOutcomes {
		if v.String() == string(b) {
			*o = v
			return nil
		}
	}
	return fmt.Errorf("block: unknown outcome %.40q", b)
}

// Final reports whether o is a verdict that ends submission.
func (o Outcome) Final() bool { return o != Unsubmitted }

// A Found is the record of a block that the pool has found. The names in its JSON form are the columns of BTCPool's
// table found_blocks, and a few more.
type Found struct {
	Chain job.Chain      `json:"chain,omitempty"`
	Hash  chainhash.Hash `json:"hash"` // with Chain the key; in display order in JSON

	UserID     int32  `json:"puid"`
	WorkerID   int64  `json:"worker_id"`
	WorkerName string `json:"worker_full_name"` // "user.machine", letters, digits and "-._:|^/" only
	JobID      job.ID `json:"job_id"`

	Height   int32          `json:"height"`
	PrevHash chainhash.Hash `json:"prev_hash"`
	Bits     uint32         `json:"bits"`
	Version  int32          `json:"version"`
	Nonce    uint32         `json:"nonce"`

	// Difficulty is that of Bits, the network difficulty at which the block was found.
	Difficulty difficulty.Difficulty `json:"difficulty"`

	// Rewards is the sum of the coinbase outputs in satoshi.
	Rewards int64 `json:"rewards"`

	// Size is the size of the block as submitted in bytes, the witness of the coinbase included; 0 while it could not be
	// assembled.
	Size int `json:"size"`

	State   State   `json:"state"`
	Outcome Outcome `json:"outcome"`

	// Reason is what the nodes said, or why none has ruled yet. Warning is what looked wrong to the pool itself, an
	// [AdvisoryError]. Both are for people.
	Reason  string `json:"reason,omitempty"`
	Warning string `json:"warning,omitempty"`

	// FoundAt is when the share arrived. CreatedAt is when the record was made, which is not earlier.
	FoundAt   time.Time `json:"found_at"`
	CreatedAt time.Time `json:"created_at"`
}

// IsOrphaned reports whether the block is off the best chain: the column is_orphaned.
func (f *Found) IsOrphaned() bool { return f.State == Orphaned }

// foundJSON keeps the methods of Found away from encoding/json.
type foundJSON Found

// MarshalJSON writes is_orphaned beside the fields, as 0 or 1.
func (f Found) MarshalJSON() ([]byte, error) {
	orphaned := 0
	if f.IsOrphaned() {
		orphaned = 1
	}
	return json.Marshal(struct {
		foundJSON
		IsOrphaned int `json:"is_orphaned"`
	}{foundJSON(f), orphaned})
}

// UnmarshalJSON reads what MarshalJSON writes; is_orphaned follows from the state and is not looked at.
func (f *Found) UnmarshalJSON(b []byte) error { return json.Unmarshal(b, (*foundJSON)(f)) }

// newFound makes the record of a solution. size is 0 while there is no block.
func newFound(s *share.Solution, hash chainhash.Hash, size int) Found {
	f := Found{
		Chain: s.Chain, Hash: hash, UserID: s.UserID, WorkerID: s.WorkerID,
		WorkerName: share.FilterName(fullName(s.Worker)), JobID: s.JobID, Height: s.Height,
		PrevHash: headerPrev(&s.Header), Bits: headerBits(&s.Header), Version: headerVersion(&s.Header),
		Nonce: headerNonce(&s.Header), Size: size, FoundAt: s.Found.UTC().Round(0),
	}
	if target, err := difficulty.FromBits(f.Bits); err == nil {
		f.Difficulty = target.Difficulty()
	}
	if coinbase, err := parseCoinbase(s.Coinbase); err == nil {
		for _, out := range coinbase.TxOut {
			f.Rewards += out.Value
		}
	} else if s.Job != nil {
		f.Rewards = s.Job.CoinbaseValue
	}
	return f
}

// Merge brings what is newer in update into f, which has the same Chain and Hash, and reports whether anything changed.
// Recorders use it (or the same rules in their own language) so that Maker, Watcher and a resubmission after a restart
// can all record the same block without undoing each other's work:
//
//   - what was known when the block was found stays as it was first recorded, CreatedAt included; Size and Warning are
//     filled in when they were empty;
//   - an Outcome gives way to one of the same or greater weight, and Reason changes with it;
//   - a State gives way to any other but Candidate, and Matured to none.
func (f *Found) Merge(update *Found) bool {
	before := *f
	if f.Size == 0 {
		f.Size = update.Size
	}
	if f.Warning == "" {
		f.Warning = update.Warning
	}
	if update.Outcome > f.Outcome || update.Outcome == f.Outcome && update.Reason != "" {
		f.Outcome, f.Reason = update.Outcome, update.Reason
	}
	if f.State != Matured && update.State != Candidate {
		f.State = update.State
	}
	return *f != before
}

// A Query selects found blocks. The zero value selects all.
type Query struct {
	Chain  job.Chain // only of this chain; empty means of every chain
	States []State   // only in these states; empty means in any
	Limit  int       // at most so many; 0 or less means no limit
}

func (q *Query) selects(f *Found) bool {
	return (q.Chain == "" || q.Chain == f.Chain) && (len(q.States) == 0 || slices.Contains(q.States, f.State))
}

// A Recorder keeps found blocks. Every Recorder
//   - UpsertsByHash: Record stores a block, or merges it into the record with the same Chain and Hash, of which there
//     is never more than one, by the rules of [Found.Merge];
//   - KeepsFields: what is read back equals what was recorded, with times to the second at least;
//   - ListsHighestFirst: Found returns the records that the query selects by height, the highest first, and those of one
//     height by CreatedAt, the latest first;
//   - SelectsByQuery: by chain, by state, and up to the limit;
//   - IsDurable: what Record returned nil for survives the process, if the Recorder keeps anything at all;
//   - ReturnsCopies: nobody else changes what Found returned, nor is what was passed to Record kept;
//   - HonorsContext: it does nothing and returns the context's error when ctx has ended before the call;
//   - AllowsConcurrentCalls.
//
// It does not retry. After an error the caller may record the same block again.
type Recorder interface {
	Record(ctx context.Context, f *Found) error
	Found(ctx context.Context, q Query) ([]Found, error)
}
