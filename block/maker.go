package block

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
)

// MakerOptions tune a [Maker]. The zero value is BTCPool's block maker without its ways to lose a block.
type MakerOptions struct {
	Templates int // how many templates are remembered, the oldest being forgotten first; 0 means 100
	Jobs      int // how many jobs are remembered, the lowest id being forgotten first; 0 means 120

	// ParkFor is how long a solution waits for its job or template to become known; 0 means 10m, and less than 60s is
	// an error. Then it is recorded as [Lost] and set aside in the spool.
	ParkFor time.Duration

	// AttemptTimeout bounds one submission and one write of a record; 0 means 2m.
	AttemptTimeout time.Duration

	// RetryMin and RetryMax bound the pause after a submission without verdict, and after a record that could not be
	// written. It doubles from one to the next; 0 means 1s and 30s. There is no end to the retries.
	RetryMin, RetryMax time.Duration

	// MaxSubmitting is how many blocks are submitted at the same time; 0 means 32. MaxPending is how many are kept an
	// eye on in memory; 0 means 1024. Those beyond either wait, on disk, for a place.
	MaxSubmitting, MaxPending int

	// MaxUnsaved is how many blocks that could not be written to disk are kept in memory; 0 means 64. Beyond,
	// PutSolution refuses: the disk and all the nodes are down.
	MaxUnsaved int

	// StopTimeout is how long submissions under way may go on when Run's context ends; 0 means 3s, negative not at all.
	StopTimeout time.Duration

	Logger *slog.Logger // nil discards
	Hooks  MakerHooks
}

// MakerHooks are called by a [Maker] when the name says. Calls may overlap; each function may be nil, and should return
// quickly, for the block waits meanwhile.
type MakerHooks struct {
	Taken     func(f Found)                                      // PutSolution took a solution that it had not got already
	Advisory  func(f Found, err error)                           // a block looks wrong, and is submitted nonetheless
	Parked    func(f Found)                                      // the job of a solution is not known yet
	NoVerdict func(hash chainhash.Hash, attempt int, err error)  // a submission ended without one; it is repeated
	Ruled     func(f Found)                                      // the outcome is final
	Trouble   func(hash chainhash.Hash, doing string, err error) // the spool or the recorder failed; it will be tried again
}

// MakerStats count what happened since NewMaker.
type MakerStats struct {
	Taken      int64 // solutions that PutSolution took
	Repeated   int64 // solutions that were put again while they were pending
	Resumed    int64 // pending blocks found on disk
	Advisories int64 // blocks that looked wrong
	Attempts   int64 // submissions
	NoVerdict  int64 // submissions without a verdict
	Accepted   int64
	Stale      int64
	Rejected   int64
	Lost       int64
	Troubles   int64 // failures of the spool and the recorder

	Pending int // blocks kept an eye on now
	Parked  int // of these, waiting for their job
	Unsaved int // of these, not on disk
}

// A Maker makes blocks of solutions and sees them through. It is the share.SolutionSink of a pool.
//
// PutSolution assembles the block and writes it to the spool; when it returns nil the block can no longer be lost. Run
// submits it at once and, at the same time, records it; it removes the block from the spool when the nodes have ruled
// on it and the outcome is on record. A submission without a verdict is repeated until there is one, and what is in the
// spool when Run starts is submitted again, which nodes answer with [ErrDuplicate] if they have the block.
//
// A solution that comes without its job, over a bus, needs the job and its template: give the Maker all of them with
// AddJob and AddTemplate. It does not matter which comes first. A Maker serves one chain, for its memory of jobs goes
// by their ids.
type Maker struct {
	spool  *Spool
	submit Submitter
	rec    Recorder
	opts   MakerOptions
	recall *recall

	slots chan struct{}
	wake  chan struct{}

	mu       sync.Mutex
	running  bool
	entries  map[chainhash.Hash]*entry
	waiting  []*entry // of entries: those that Run has not started yet
	left     []*entry // of entries: those in memory only that the last Run could not finish
	overflow bool     // the spool holds blocks that are not in entries
	unsaved  int
	parked   int

	taken, repeated, resumed, advisories, attempts, noVerdict atomic.Int64
	accepted, stale, rejected, lost, troubles                 atomic.Int64
}

var _ share.SolutionSink = (*Maker)(nil)

// An entry is a pending block that is kept an eye on.
type entry struct {
	hash chainhash.Hash

	// ready is closed when PutSolution is done with the entry; err is what it returned, for others that put the same.
	ready chan struct{}
	err   error

	// pending is nil when it must be read from the spool. It belongs to PutSolution until ready is closed, and to
	// Run's goroutine from then on.
	// Its Block is nil as well where that can be read again.
	pending *Pending
	size    int // of the block; 0 while there is none
	warning string
	saved   bool // on disk, with all that is known of it
}

// NewMaker returns a Maker that keeps pending blocks in spool, submits to submit and records with rec, none of which it
// closes. It reports everything wrong with its arguments at once.
func NewMaker(spool *Spool, submit Submitter, rec Recorder, opts *MakerOptions) (*Maker, error) {
	m := &Maker{
		spool: spool, submit: submit, rec: rec,
		wake: make(chan struct{}, 1), entries: make(map[chainhash.Hash]*entry),
	}
	if opts != nil {
		m.opts = *opts
	}
	o := &m.opts
	var errs []error
	if spool == nil {
		errs = append(errs, errors.New("no spool"))
	}
	if submit == nil {
		errs = append(errs, errors.New("no submitter"))
	}
	if rec == nil {
		errs = append(errs, errors.New("no recorder"))
	}
	errs = append(errs,
		defaultCount(&o.Templates, 100, "Templates"),
		defaultCount(&o.Jobs, 120, "Jobs"),
		defaultDuration(&o.ParkFor, 10*time.Minute, "ParkFor"),
		defaultDuration(&o.AttemptTimeout, 2*time.Minute, "AttemptTimeout"),
		defaultDuration(&o.RetryMin, time.Second, "RetryMin"),
		defaultDuration(&o.RetryMax, max(30*time.Second, o.RetryMin), "RetryMax"),
		defaultCount(&o.MaxSubmitting, 32, "MaxSubmitting"),
		defaultCount(&o.MaxPending, 1024, "MaxPending"),
		defaultCount(&o.MaxUnsaved, 64, "MaxUnsaved"))
	if o.ParkFor >= 0 && o.ParkFor < time.Minute {
		errs = append(errs, fmt.Errorf("ParkFor %v is less than 60s", o.ParkFor))
	}
	if o.RetryMax < o.RetryMin {
		errs = append(errs, fmt.Errorf("RetryMax %v is below RetryMin %v", o.RetryMax, o.RetryMin))
	}
	if o.StopTimeout == 0 {
		o.StopTimeout = 3 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("block: new maker: %w", err)
	}
	m.recall = newRecall(o.Templates, o.Jobs)
	m.slots = make(chan struct{}, o.MaxSubmitting)
	return m, nil
}

// AddTemplate remembers a template, which nobody changes afterwards. It fits [job.TemplateSource].
func (m *Maker) AddTemplate(t *job.Template) {
	if t != nil {
		m.recall.addTemplate(t)
	}
}

// AddJob remembers which template a job was made from, and that template if the job has it. It fits [job.Feed].
func (m *Maker) AddJob(j *job.Job) {
	if j != nil {
		m.recall.addJob(j)
	}
}

// PutSolution implements share.SolutionSink: it makes a block of s and writes it to the spool before it returns. It
// keeps nothing of s. Its context is not looked at, for a miner that hangs up must not cost a block; the call takes as
// long as a write to disk.
//
// When the block cannot be written, it is submitted from memory all the same, and the error says so. Only a solution
// without a coinbase, and one that comes when MaxUnsaved blocks are in memory already, is refused.
func (m *Maker) PutSolution(ctx context.Context, s *share.Solution) error {
	if s == nil || len(s.Coinbase) == 0 {
		return errors.New("block: put solution: no coinbase")
	}
	hash := chainhash.DoubleHashH(s.Header[:])
	m.mu.Lock()
	if e, ok := m.entries[hash]; ok {
		m.mu.Unlock()
		m.repeated.Add(1)
		m.AddJob(s.Job) // the first one may have come without
		<-e.ready
		return e.err
	}
	e := &entry{hash: hash, ready: make(chan struct{})}
	m.entries[hash] = e
	m.mu.Unlock()
	defer close(e.ready)

	e.pending = &Pending{Solution: *s}
	sol := &e.pending.Solution
	sol.Hash = hash
	sol.Coinbase = bytes.Clone(s.Coinbase)
	if y := sol.Found.Year(); sol.Found.IsZero() || y < 1970 || y > 9999 {
		sol.Found = time.Now()
	}
	m.assemble(e)
	f := e.found()
	if e.size == 0 {
		m.opts.Logger.Warn("block found, but its job is unknown", foundAttrs(&f)...)
	} else {
		m.opts.Logger.Info("block found", foundAttrs(&f)...)
	}

	err := m.spool.Put(e.pending)
	if err != nil {
		m.trouble(hash, "write block to spool", err)
	}
	m.mu.Lock()
	switch {
	case err == nil && len(m.entries) > m.opts.MaxPending:
		// It is safe on disk; Run takes it from there when others are done.
		delete(m.entries, hash)
		m.overflow = true
	case err == nil:
		e.saved = true
		if len(m.waiting) >= m.opts.MaxSubmitting {
			e.pending = nil
		}
		m.waiting = append(m.waiting, e)
	case m.unsaved < m.opts.MaxUnsaved:
		m.unsaved++
		m.waiting = append(m.waiting, e)
		e.err = fmt.Errorf("block: put solution %v: submitting it from memory only: %w", hash, err)
	default:
		delete(m.entries, hash)
		e.err = fmt.Errorf("block: put solution %v: lost, as %d others wait in memory already: %w", hash, m.unsaved, err)
		m.mu.Unlock()
		return e.err
	}
	m.mu.Unlock()
	m.taken.Add(1)
	if m.opts.Hooks.Taken != nil {
		m.opts.Hooks.Taken(f)
	}
	select {
	case m.wake <- struct{}{}:
	default:
	}
	return e.err
}

// assemble makes the block if the transactions are known.
func (m *Maker) assemble(e *entry) {
	txs, ok := m.recall.transactions(&e.pending.Solution)
	if !ok {
		return
	}
	block, err := Assemble(&e.pending.Solution, txs)
	e.pending.Block, e.size = block, len(block)
	if err == nil {
		return
	}
	e.warning = err.Error()
	m.advisories.Add(1)
	f := e.found()
	m.opts.Logger.Warn("block looks wrong, submitting it nonetheless", append(foundAttrs(&f), "reason", err)...)
	if m.opts.Hooks.Advisory != nil {
		m.opts.Hooks.Advisory(f, err)
	}
}

func (e *entry) found() Found {
	f := newFound(&e.pending.Solution, e.hash, e.size)
	f.Warning = e.warning
	return f
}

func foundAttrs(f *Found) []any {
	return []any{"chain", string(f.Chain), "height", f.Height, "hash", f.Hash.String(), "worker", f.WorkerName,
		"job", f.JobID.String(), "satoshi", f.Rewards}
}

func (m *Maker) trouble(hash chainhash.Hash, doing string, err error) {
	m.troubles.Add(1)
	m.opts.Logger.Error("block maker: cannot "+doing, "hash", hash.String(), "error", err)
	if m.opts.Hooks.Trouble != nil {
		m.opts.Hooks.Trouble(hash, doing, err)
	}
}

// Run submits and records blocks until ctx ends: those in the spool at the start, and then every one that PutSolution
// takes. Submissions under way may then go on for StopTimeout; what is not done by then remains in the spool for the
// next Run. An error means that the spool's folder cannot be read, or that Run is running already.
func (m *Maker) Run(ctx context.Context) error {
	m.mu.Lock()
	if m.running {
		m.mu.Unlock()
		return errors.New("block: maker is running already")
	}
	m.running = true
	m.waiting = append(m.waiting, m.left...)
	m.left = nil
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		m.running = false
		m.mu.Unlock()
	}()
	resumed, err := m.refill()
	if err != nil {
		return err
	}
	m.resumed.Add(int64(resumed))
	if resumed > 0 {
		m.opts.Logger.Info("submitting pending blocks from the spool", "count", resumed)
	}

	// Work outlives ctx by StopTimeout.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var wg sync.WaitGroup
	start := func() {
		m.mu.Lock()
		waiting := m.waiting
		m.waiting = nil
		m.mu.Unlock()
		for _, e := range waiting {
			wg.Go(func() { m.process(ctx, work, e) })
		}
	}
	again := time.NewTicker(m.opts.RetryMax) // in case the spool cannot be read when it should be
	defer again.Stop()
	for ctx.Err() == nil {
		start()
		select {
		case <-m.wake:
		case <-again.C:
		case <-ctx.Done():
			continue
		}
		m.mu.Lock()
		more := m.overflow && len(m.entries) <= m.opts.MaxPending/2
		m.mu.Unlock()
		if more {
			if _, err := m.refill(); err != nil {
				m.trouble(chainhash.Hash{}, "read the spool", err)
			}
		}
	}
	start() // what came last gets an attempt, too
	if m.opts.StopTimeout > 0 {
		defer time.AfterFunc(m.opts.StopTimeout, cancel).Stop()
	} else {
		cancel()
	}
	wg.Wait()
	return nil
}

// refill takes blocks from the spool that are not in memory, as many as there is room for.
func (m *Maker) refill() (int, error) {
	hashes, err := m.spool.List()
	if err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.overflow = false
	n := 0
	for _, hash := range hashes {
		if _, ok := m.entries[hash]; ok {
			continue
		}
		if len(m.entries) >= m.opts.MaxPending {
			m.overflow = true
			break
		}
		e := &entry{hash: hash, ready: make(chan struct{}), saved: true}
		close(e.ready)
		m.entries[hash] = e
		m.waiting = append(m.waiting, e)
		n++
	}
	return n, nil
}

// process sees one block through. It returns when all is done, or when ctx has ended and with it the hope that more can
// be done before work ends.
func (m *Maker) process(ctx, work context.Context, e *entry) {
	<-e.ready
	if !m.load(ctx, e) {
		m.drop(e, ctx.Err() != nil)
		return
	}
	updates := make(chan Found, 1)
	recorded := make(chan bool, 1)
	first := e.found()
	go func() { recorded <- m.record(ctx, work, first, updates) }()
	outcome := m.deliver(ctx, work, e, updates)
	close(updates)
	if !<-recorded || !outcome.Final() {
		m.drop(e, true)
		return
	}
	m.finish(ctx, e, outcome)
}

// load reads the block if it is on disk only, and returns false when there is nothing to do.
func (m *Maker) load(ctx context.Context, e *entry) bool {
	for retry := m.backoff(); e.pending == nil; {
		p, err := m.spool.Get(e.hash)
		switch {
		case err == nil:
			e.pending, e.size = p, len(p.Block)
			p.Block = nil // read again when there is a place to submit it from
		case errors.Is(err, fs.ErrNotExist):
			return false // done meanwhile
		case errors.Is(err, ErrCorrupt):
			m.trouble(e.hash, "read block from spool", err)
			return false
		default:
			m.trouble(e.hash, "read block from spool", err)
			if !retry.wait(ctx) {
				return false
			}
		}
	}
	return true
}

// drop forgets an entry that is on disk; one that is not stays for the next Run.
func (m *Maker) drop(e *entry, unfinished bool) {
	m.mu.Lock()
	if unfinished && !e.saved && e.pending != nil {
		m.left = append(m.left, e)
	} else {
		m.forget(e)
	}
	m.mu.Unlock()
	m.nudge()
}

// forget is called with mu held.
func (m *Maker) forget(e *entry) {
	if !e.saved && e.pending != nil {
		m.unsaved--
	}
	delete(m.entries, e.hash)
}

// nudge lets Run look for blocks on disk that wait for a place in memory.
func (m *Maker) nudge() {
	m.mu.Lock()
	overflow := m.overflow
	m.mu.Unlock()
	if overflow {
		select {
		case m.wake <- struct{}{}:
		default:
		}
	}
}

// finish removes a block that needs nothing more from the spool. One that was never written is no error there.
func (m *Maker) finish(ctx context.Context, e *entry, outcome Outcome) {
	for retry := m.backoff(); ; {
		var err error
		switch outcome {
		case Rejected:
			err = m.spool.setAside(e.hash, asideRejected, errors.New("every node rejected it"))
		case Lost:
			err = m.spool.setAside(e.hash, asideLost, errors.New("its job never became known"))
		default:
			err = m.spool.Remove(e.hash)
		}
		if err == nil {
			break
		}
		// If it stays, it is submitted once more after the next start, which does no harm.
		m.trouble(e.hash, "remove block from spool", err)
		if !retry.wait(ctx) {
			break
		}
	}
	m.mu.Lock()
	m.forget(e)
	m.mu.Unlock()
	m.nudge()
}

// deliver submits the block until there is a verdict and returns it, or Unsubmitted when it has to stop before. It
// sends what changes in the record to updates.
func (m *Maker) deliver(ctx, work context.Context, e *entry, updates chan Found) Outcome {
	f := e.found()
	rule := func(outcome Outcome, reason string) Outcome {
		f.Outcome, f.Reason = outcome, reason
		m.ruled(&f)
		replace(updates, f)
		return outcome
	}
	if e.size == 0 {
		found := m.await(ctx, e)
		if !found && ctx.Err() != nil {
			return Unsubmitted
		}
		if !found {
			return rule(Lost, fmt.Sprintf("neither job %v nor a template that fits became known", f.JobID))
		}
		f = e.found()
		replace(updates, f)
	}
	retry := m.backoff()
	for attempt := 1; ; attempt++ {
		err := m.attempt(work, e)
		if errors.Is(err, errStop) {
			return Unsubmitted
		}
		if outcome, final := outcomeOf(err); final {
			reason := ""
			if err != nil {
				reason = err.Error()
			}
			return rule(outcome, reason)
		}
		m.noVerdict.Add(1)
		m.opts.Logger.Warn("block submitted without a verdict", append(foundAttrs(&f), "attempt", attempt, "error", err)...)
		if m.opts.Hooks.NoVerdict != nil {
			m.opts.Hooks.NoVerdict(e.hash, attempt, err)
		}
		if attempt == 1 {
			f.Reason = "no verdict yet: " + err.Error()
			replace(updates, f)
		}
		m.resave(e)
		m.shed(e)
		if !retry.wait(ctx) {
			return Unsubmitted
		}
	}
}

// replace leaves f in a channel of capacity 1 whether or not anybody has taken what it held. It is the only sender.
func replace(ch chan Found, f Found) {
	for {
		select {
		case ch <- f:
			return
		default:
		}
		select {
		case <-ch:
		default:
		}
	}
}

// errStop ends the attempts for a block without a verdict.
var errStop = errors.New("stopped")

// attempt submits once, when there is a free place. The error matches errStop when work has ended before, or when the
// block has disappeared from the disk.
func (m *Maker) attempt(work context.Context, e *entry) error {
	select {
	case m.slots <- struct{}{}:
	default:
		m.shed(e)
		select {
		case m.slots <- struct{}{}:
		case <-work.Done():
			return errStop
		}
	}
	defer func() { <-m.slots }()
	if e.pending.Block == nil {
		p, err := m.spool.Get(e.hash)
		if err != nil {
			m.trouble(e.hash, "read block from spool", err)
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrCorrupt) {
				return errStop
			}
			return err
		}
		e.pending = p
	}
	m.attempts.Add(1)
	ctx, cancel := context.WithTimeout(work, m.opts.AttemptTimeout)
	defer cancel()
	return m.submit.Submit(ctx, e.pending.Block)
}

// shed frees the memory of a block that can be read from disk again.
func (m *Maker) shed(e *entry) {
	if e.saved {
		e.pending.Block = nil
		e.pending.Solution.Job = nil
	}
}

// await waits until the transactions of a parked solution are known, and returns false when time is up or ctx ends.
func (m *Maker) await(ctx context.Context, e *entry) bool {
	f := e.found()
	if m.opts.Hooks.Parked != nil {
		m.opts.Hooks.Parked(f)
	}
	m.mu.Lock()
	m.parked++
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		m.parked--
		m.mu.Unlock()
	}()
	deadline := time.NewTimer(m.opts.ParkFor)
	defer deadline.Stop()
	for {
		changed := m.recall.changed()
		if m.assemble(e); e.size > 0 {
			if err := m.spool.Put(e.pending); err != nil {
				// What is on disk is the solution without transactions, and memory is what there is of the block.
				m.trouble(e.hash, "write block to spool", err)
				m.mu.Lock()
				if e.saved {
					e.saved = false
					m.unsaved++
				}
				m.mu.Unlock()
			} else {
				m.markSaved(e)
			}
			return true
		}
		select {
		case <-changed:
		case <-deadline.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// resave tries again to write a block that could not be written before.
func (m *Maker) resave(e *entry) {
	if e.saved {
		return
	}
	if err := m.spool.Put(e.pending); err != nil {
		m.trouble(e.hash, "write block to spool", err)
		return
	}
	m.markSaved(e)
}

func (m *Maker) markSaved(e *entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !e.saved {
		e.saved = true
		m.unsaved--
	}
}

func (m *Maker) ruled(f *Found) {
	level := slog.LevelInfo
	switch f.Outcome {
	case Accepted:
		m.accepted.Add(1)
	case Stale:
		m.stale.Add(1)
		level = slog.LevelWarn
	case Rejected:
		m.rejected.Add(1)
		level = slog.LevelError
	case Lost:
		m.lost.Add(1)
		level = slog.LevelError
	}
	m.opts.Logger.Log(context.Background(), level, "block "+f.Outcome.String(), append(foundAttrs(f), "reason", f.Reason)...)
	if m.opts.Hooks.Ruled != nil {
		m.opts.Hooks.Ruled(*f)
	}
}

// record writes f, and then what comes through updates until that is closed. It returns true when the last of it is
// written, and false when ctx has ended and the recorder still fails.
func (m *Maker) record(ctx, work context.Context, f Found, updates <-chan Found) bool {
	dirty := true
	retry := m.backoff()
	for {
		var pause <-chan time.Time
		if dirty {
			f.CreatedAt = time.Now().UTC().Round(0)
			attempt, cancel := context.WithTimeout(work, m.opts.AttemptTimeout)
			err := m.rec.Record(attempt, &f)
			cancel()
			if err == nil {
				dirty = false
				retry = m.backoff()
			} else if work.Err() == nil { // otherwise it is the stop, after which the spool knows all there is
				m.trouble(f.Hash, "record block", err)
				pause = time.After(retry.pause())
			}
		}
		var stop <-chan struct{}
		if updates == nil {
			if !dirty {
				return true
			}
			if ctx.Err() != nil {
				return false
			}
			stop = ctx.Done()
		}
		select {
		case next, ok := <-updates:
			if ok {
				f, dirty = next, true
			} else {
				updates = nil
			}
		case <-pause:
		case <-stop:
		}
	}
}

func (m *Maker) backoff() backoff { return backoff{m.opts.RetryMin, m.opts.RetryMax} }

// Stats returns the counters.
func (m *Maker) Stats() MakerStats {
	m.mu.Lock()
	defer m.mu.Unlock()
	return MakerStats{
		Taken: m.taken.Load(), Repeated: m.repeated.Load(), Resumed: m.resumed.Load(), Advisories: m.advisories.Load(),
		Attempts: m.attempts.Load(), NoVerdict: m.noVerdict.Load(), Accepted: m.accepted.Load(), Stale: m.stale.Load(),
		Rejected: m.rejected.Load(), Lost: m.lost.Load(), Troubles: m.troubles.Load(),
		Pending: len(m.entries), Parked: m.parked, Unsaved: m.unsaved,
	}
}
