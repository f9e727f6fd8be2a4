package blocktest

import (
	"context"
	"sync"

	"github.com/poolkit/poolkit/block"
)

// Faults make a wrapper fail on command. The zero value never fails.
type Faults struct {
	mu    sync.Mutex
	next  []error
	down  error
	calls int
}

// FailNext makes one coming call fail with each of errs, in order, before the wrapped value sees it. A nil among them
// lets that call pass.
func (f *Faults) FailNext(errs ...error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next = append(f.next, errs...)
}

// FailAll makes every call fail with err after those that FailNext has arranged; nil ends it.
func (f *Faults) FailAll(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = err
}

// Calls returns how many calls there were, those that failed included.
func (f *Faults) Calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

func (f *Faults) fault() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	if len(f.next) > 0 {
		err := f.next[0]
		f.next = f.next[1:]
		return err
	}
	return f.down
}

// A FlakySubmitter passes blocks on to a Submitter, or fails. It may be used concurrently.
type FlakySubmitter struct {
	Faults
	Submitter block.Submitter // nil takes every block
}

// Submit implements [block.Submitter].
func (f *FlakySubmitter) Submit(ctx context.Context, raw []byte) error {
	if err := f.fault(); err != nil {
		return err
	}
	if f.Submitter == nil {
		return nil
	}
	return f.Submitter.Submit(ctx, raw)
}

// A FlakyRecorder passes records on to a Recorder, or fails: Faults decide about Record, and FoundFaults about Found.
// It may be used concurrently.
type FlakyRecorder struct {
	Faults
	FoundFaults Faults
	Recorder    block.Recorder
}

// Record implements [block.Recorder].
func (f *FlakyRecorder) Record(ctx context.Context, b *block.Found) error {
	if err := f.fault(); err != nil {
		return err
	}
	return f.Recorder.Record(ctx, b)
}

// Found implements [block.Recorder].
func (f *FlakyRecorder) Found(ctx context.Context, q block.Query) ([]block.Found, error) {
	if err := f.FoundFaults.fault(); err != nil {
		return nil, err
	}
	return f.Recorder.Found(ctx, q)
}
