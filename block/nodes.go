package block

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/poolkit/poolkit/job"
)

// A Node is one destination of [Nodes].
type Node struct {
	Name      string // for logs, hooks and RejectedError; not empty, and unique
	Submitter Submitter
}

// NodesOptions tune [Nodes]. The zero value suits bitcoind.
type NodesOptions struct {
	// Attempts is how often a block is offered to a node that gives no verdict; 0 means 3, negative means until there
	// is one or Close is called.
	Attempts int

	// AttemptTimeout bounds one attempt; 0 means 30s.
	AttemptTimeout time.Duration

	// RetryMin and RetryMax bound the pause between two attempts, which doubles from one to the next; 0 means 100ms
	// and 10s.
	RetryMin, RetryMax time.Duration

	// MaxPending is how many blocks may be under way to one node at a time; 0 means 64. A node that hangs gets no
	// further blocks until it has answered, or timed out, for one of them: they fail at this node without a verdict.
	MaxPending int

	// CloseTimeout is how long Close lets deliveries go on; 0 means 2s, negative not at all.
	CloseTimeout time.Duration

	// Result is called for every attempt, also for those that end after Submit has returned. Calls may overlap. It may
	// be nil.
	Result func(NodeResult)

	Logger *slog.Logger // nil discards
}

// A NodeResult is the end of one attempt to submit a block to one node.
type NodeResult struct {
	Node    string
	Hash    chainhash.Hash // of the block
	Attempt int            // from 1
	Took    time.Duration
	Err     error // the node's verdict as [Submitter] defines it, or why there is none
	Last    bool  // whether no further attempt follows: a verdict, or given up
}

// NodesStats count what happened since New.
type NodesStats struct {
	Submitted int64 // calls of Submit
	Attempts  int64 // attempts, over all nodes
	Accepted  int64 // attempts that ended with nil or ErrDuplicate
	Stale     int64 // with ErrStale
	Rejected  int64 // with a RejectedError
	Failed    int64 // without a verdict
	Pending   int64 // deliveries under way now
}

// Nodes submits every block to several nodes at once, each at its own pace, and is a [Submitter] itself:
//
//   - the first node that takes the block, or has it already, decides: Submit returns nil or [ErrDuplicate] at once,
//     while delivery to the others goes on until each has given its verdict or used up its attempts;
//   - when none does, Submit returns after the last: [ErrStale] when a node holds the block without it being on its best
//     chain; an error that is no verdict when a node gave none, for it may yet take the block; and all
//     [*RejectedError] values joined when every node refused.
//
// The context of Submit bounds the waiting only. Deliveries end with Close, and their number and duration are bounded.
type Nodes struct {
	nodes []*nodeQueue
	opts  NodesOptions

	mu     sync.Mutex // guards the next three, and adding to wg
	closed bool
	ends   map[int64]context.CancelFunc // of the blocks under way
	lastID int64
	wg     sync.WaitGroup // deliveries

	submitted, attempts, accepted, stale, rejected, failed, pending atomic.Int64
}

type nodeQueue struct {
	Node
	slots chan struct{}
}

var _ Submitter = (*Nodes)(nil)

var errNodeBusy = errors.New("too many blocks under way to the node")

// NewNodes returns a Nodes that submits to all nodes. It reports everything wrong with its arguments at once.
func NewNodes(nodes []Node, opts *NodesOptions) (*Nodes, error) {
	n := &Nodes{ends: make(map[int64]context.CancelFunc)}
	if opts != nil {
		n.opts = *opts
	}
	o := &n.opts
	var errs []error
	if len(nodes) == 0 {
		errs = append(errs, errors.New("no nodes"))
	}
	if o.Attempts == 0 {
		o.Attempts = 3
	}
	errs = append(errs,
		defaultDuration(&o.AttemptTimeout, 30*time.Second, "AttemptTimeout"),
		defaultDuration(&o.RetryMin, 100*time.Millisecond, "RetryMin"),
		defaultDuration(&o.RetryMax, max(10*time.Second, o.RetryMin), "RetryMax"),
		defaultCount(&o.MaxPending, 64, "MaxPending"))
	if o.RetryMax < o.RetryMin {
		errs = append(errs, fmt.Errorf("RetryMax %v is below RetryMin %v", o.RetryMax, o.RetryMin))
	}
	if o.CloseTimeout == 0 {
		o.CloseTimeout = 2 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	seen := make(map[string]bool)
	for i, node := range nodes {
		switch {
		case node.Name == "":
			errs = append(errs, fmt.Errorf("node %d has no name", i+1))
		case seen[node.Name]:
			errs = append(errs, fmt.Errorf("two nodes are named %q", node.Name))
		}
		if node.Submitter == nil {
			errs = append(errs, fmt.Errorf("node %d, %q, has no Submitter", i+1, node.Name))
		}
		seen[node.Name] = true
		n.nodes = append(n.nodes, &nodeQueue{Node: node, slots: make(chan struct{}, max(1, o.MaxPending))})
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("block: new nodes: %w", err)
	}
	return n, nil
}

func defaultDuration(d *time.Duration, value time.Duration, name string) error {
	if *d < 0 {
		return fmt.Errorf("%s is negative", name)
	}
	if *d == 0 {
		*d = value
	}
	return nil
}

func defaultCount(n *int, value int, name string) error {
	if *n < 0 {
		return fmt.Errorf("%s is negative", name)
	}
	if *n == 0 {
		*n = value
	}
	return nil
}

// Submit implements [Submitter] as described at [Nodes].
func (n *Nodes) Submit(ctx context.Context, block []byte) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("block: submit: %w", err)
	}
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return fmt.Errorf("block: submit: nodes are %w", errClosed)
	}
	// The deliveries go on when ctx has ended, until Close ends them.
	work, end := context.WithCancel(context.WithoutCancel(ctx))
	n.lastID++
	id := n.lastID
	n.ends[id] = end
	n.wg.Add(len(n.nodes))
	n.mu.Unlock()

	n.submitted.Add(1)
	n.pending.Add(int64(len(n.nodes)))
	hash := blockHash(block)
	block = bytes.Clone(block) // deliveries outlive the call
	results := make(chan error, len(n.nodes))
	left := atomic.Int64{}
	left.Store(int64(len(n.nodes)))
	for _, node := range n.nodes {
		go func() {
			defer n.wg.Done()
			results <- n.deliver(work, node, hash, block)
			if left.Add(-1) == 0 {
				n.mu.Lock()
				delete(n.ends, id)
				n.mu.Unlock()
				end()
			}
		}()
	}

	var rejections, failures []error
	stale := error(nil)
	for range n.nodes {
		select {
		case <-ctx.Done():
			return fmt.Errorf("block: submit %v: %w", hash, ctx.Err())
		case err := <-results:
			switch outcome, _ := outcomeOf(err); outcome {
			case Accepted:
				return err
			case Stale:
				stale = err
			case Rejected:
				rejections = append(rejections, err)
			default:
				failures = append(failures, err)
			}
		}
	}
	switch {
	case stale != nil:
		return stale
	case len(failures) > 0:
		// Refusals are part of the text only: they must not be taken for the verdict of all.
		return fmt.Errorf("block: submit %v: no verdict: %w%s", hash, errors.Join(failures...), also(rejections))
	}
	return errors.Join(rejections...)
}

func also(errs []error) string {
	if len(errs) == 0 {
		return ""
	}
	return fmt.Sprintf(" (and %v)", errors.Join(errs...))
}

// deliver offers the block to one node until it has given a verdict, which it returns.
func (n *Nodes) deliver(ctx context.Context, node *nodeQueue, hash chainhash.Hash, block []byte) error {
	defer n.pending.Add(-1)
	select {
	case node.slots <- struct{}{}:
		defer func() { <-node.slots }()
	default:
		err := fmt.Errorf("node %s: %w", node.Name, errNodeBusy)
		n.report(ctx, NodeResult{Node: node.Name, Hash: hash, Attempt: 1, Err: err, Last: true})
		return err
	}
	retry := backoff{n.opts.RetryMin, n.opts.RetryMax}
	for attempt := 1; ; attempt++ {
		started := time.Now()
		attemptCtx, cancel := context.WithTimeout(ctx, n.opts.AttemptTimeout)
		err := node.Submitter.Submit(attemptCtx, block)
		cancel()
		n.attempts.Add(1)
		err = named(err, node.Name)
		_, final := outcomeOf(err)
		last := final || attempt == n.opts.Attempts || ctx.Err() != nil
		n.report(ctx, NodeResult{
			Node: node.Name, Hash: hash, Attempt: attempt, Took: time.Since(started), Err: err, Last: last,
		})
		if last {
			return err
		}
		if !retry.wait(ctx) {
			return err
		}
	}
}

// named puts the node's name into an error that does not have it.
func named(err error, node string) error {
	var r *RejectedError
	switch outcome, _ := outcomeOf(err); {
	case outcome == Accepted:
		return err
	case outcome == Rejected && errors.As(err, &r) && r.Node != "":
		return err
	case outcome == Rejected && err == error(r):
		return &RejectedError{Node: node, Reason: r.Reason}
	}
	return fmt.Errorf("node %s: %w", node, err)
}

func (n *Nodes) report(ctx context.Context, r NodeResult) {
	level, text := slog.LevelInfo, "accepted"
	switch outcome, _ := outcomeOf(r.Err); outcome {
	case Accepted:
		n.accepted.Add(1)
		if r.Err != nil {
			text = "has it already"
		}
	case Stale:
		n.stale.Add(1)
		level, text = slog.LevelWarn, "not on the best chain"
	case Rejected:
		n.rejected.Add(1)
		level, text = slog.LevelError, "rejected"
	default:
		n.failed.Add(1)
		level, text = slog.LevelWarn, "no verdict"
	}
	attrs := []slog.Attr{slog.String("node", r.Node), slog.String("hash", r.Hash.String()),
		slog.String("verdict", text), slog.Int("attempt", r.Attempt), slog.Duration("took", r.Took)}
	if r.Err != nil {
		attrs = append(attrs, slog.Any("error", r.Err))
	}
	n.opts.Logger.LogAttrs(ctx, level, "block submitted", attrs...)
	if n.opts.Result != nil {
		n.opts.Result(r)
	}
}

// Close refuses further blocks, lets deliveries under way go on for CloseTimeout, ends them and returns when the last
// has ended.
func (n *Nodes) Close() error {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	if n.opts.CloseTimeout > 0 {
		defer time.AfterFunc(n.opts.CloseTimeout, n.endAll).Stop()
	} else {
		n.endAll()
	}
	n.wg.Wait()
	return nil
}

func (n *Nodes) endAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, end := range n.ends {
		end()
	}
}

// Stats returns the counters.
func (n *Nodes) Stats() NodesStats {
	return NodesStats{
		Submitted: n.submitted.Load(), Attempts: n.attempts.Load(), Accepted: n.accepted.Load(), Stale: n.stale.Load(),
		Rejected: n.rejected.Load(), Failed: n.failed.Load(), Pending: n.pending.Load(),
	}
}

// outcomeOf reads the error of a Submitter, and whether it is a verdict. Where an error matches several, the best for
// the block counts.
func outcomeOf(err error) (Outcome, bool) {
	var rejected *RejectedError
	switch {
	case err == nil, errors.Is(err, ErrDuplicate):
		return Accepted, true
	case errors.Is(err, ErrStale):
		return Stale, true
	case errors.As(err, &rejected):
		return Rejected, true
	}
	return Unsubmitted, false
}

// blockHash returns the hash of a serialised block's header, or of all of it when it is too short to have one.
func blockHash(block []byte) chainhash.Hash {
	return chainhash.DoubleHashH(block[:min(len(block), job.HeaderSize)])
}
