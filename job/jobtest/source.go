package jobtest

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/poolkit/poolkit/job"
)

// A Node is a TemplateSource under test, and the means to make things happen at the node that it watches.
type Node struct {
	Source job.TemplateSource

	// NewBlock makes the node find or receive a block on its tip.
	NewBlock func(t *testing.T)

	// NewTransactions makes the node's next template differ in its transactions, on the same tip. nil skips the test
	// of it.
	NewTransactions func(t *testing.T)

	// SetDown makes the node fail, in whatever way the backend's nodes do, until it is called with false. nil skips
	// the test of failures.
	SetDown func(t *testing.T, down bool)

	// Patience is how long a test waits for what must happen, the interval for new transactions and the pause after
	// a failure included; 0 means 10 s.
	Patience time.Duration
}

func (n Node) patience() time.Duration {
	if n.Patience > 0 {
		return n.Patience
	}
	return 10 * time.Second
}

// TestSource checks the promises of [job.TemplateSource]. open returns a source of a node that has a template to give,
// and cleans up with t.Cleanup.
func TestSource(t *testing.T, open func(t *testing.T) Node) {
	t.Run("PutsAtOnce", func(t *testing.T) {
		w := watch(t, open(t))
		check(t, w.next("at the start"))
	})
	t.Run("PutsChanges", func(t *testing.T) { testPutsChanges(t, open(t)) })
	t.Run("NeverOverlaps", func(t *testing.T) { testNeverOverlaps(t, open(t)) })
	t.Run("SurvivesFailures", func(t *testing.T) {
		n := open(t)
		if n.SetDown == nil {
			t.Skip("this source has no node that could fail")
		}
		testSurvivesFailures(t, n)
	})
	t.Run("StopsWithContext", func(t *testing.T) { testSourceStops(t, open(t)) })
}

// A watching is a running call of Watch.
type watching struct {
	t         *testing.T
	patience  time.Duration
	stop      context.CancelFunc
	templates chan *job.Template
	returned  chan error
	calls     calls
	flooded   atomic.Bool
}

func watch(t *testing.T, n Node) *watching {
	ctx, cancel := context.WithCancel(t.Context())
	w := &watching{t: t, patience: n.patience(), stop: cancel}
	w.templates, w.returned = make(chan *job.Template, 4096), make(chan error, 1)
	go func() {
		err := n.Source.Watch(ctx, func(tmpl *job.Template) {
			w.calls.enter()
			select {
			case w.templates <- tmpl:
			default:
				w.flooded.Store(true)
			}
			w.calls.leave()
		})
		w.calls.ended.Store(true)
		w.returned <- err
	}()
	t.Cleanup(w.end)
	return w
}

// end stops the source and checks how Watch returns. It may be called again.
func (w *watching) end() {
	w.stop()
	select {
	case err := <-w.returned:
		if err != nil {
			w.t.Errorf("Watch returned %v after its context had ended, want nil", err)
		}
		w.returned <- nil
	case <-time.After(w.patience):
		w.t.Errorf("Watch did not return within %v of the end of its context", w.patience)
	}
	w.calls.report(w.t, "Watch")
	if w.flooded.Load() {
		w.t.Error("the source puts thousands of templates that nobody asked for")
	}
}

func (w *watching) next(when string) *job.Template {
	w.t.Helper()
	return w.await(when, func(*job.Template) bool { return true })
}

// await receives templates until one is as wanted.
func (w *watching) await(when string, wanted func(*job.Template) bool) *job.Template {
	w.t.Helper()
	timeout := time.After(w.patience)
	for {
		select {
		case tmpl := <-w.templates:
			if tmpl == nil {
				w.t.Fatalf("the source put nil %s", when)
			}
			if wanted(tmpl) {
				return tmpl
			}
		case err := <-w.returned:
			w.returned <- err
			w.t.Fatalf("Watch returned (%v) %s, want a template", err, when)
		case <-timeout:
			w.t.Fatalf("no such template within %v %s", w.patience, when)
		}
	}
}

// check looks for what every template needs before a Maker can use it.
func check(t *testing.T, tmpl *job.Template) {
	t.Helper()
	if tmpl.ID == (job.Hash{}) {
		t.Error("the template has no ID: a Maker drops it")
	}
	if age := time.Since(tmpl.Received).Abs(); tmpl.Received.IsZero() || age > time.Minute {
		t.Errorf("the template was received at %v, which is not now: a Maker drops it", tmpl.Received)
	}
	if tmpl.Bits == 0 || tmpl.Target.Bits() != tmpl.Bits {
		t.Errorf("target %v does not belong to bits %08x", tmpl.Target, tmpl.Bits)
	}
	if tmpl.CurTime == 0 || tmpl.MinTime > tmpl.CurTime {
		t.Errorf("curtime %d and mintime %d make no sense", tmpl.CurTime, tmpl.MinTime)
	}
}

func testPutsChanges(t *testing.T, n Node) {
	w := watch(t, n)
	tip := w.next("at the start")
	for range 3 {
		n.NewBlock(t)
		next := w.await("after a new block", func(tmpl *job.Template) bool { return tmpl.PrevHash != tip.PrevHash })
		check(t, next)
		if next.Height != tip.Height+1 {
			t.Errorf("the template after one block has height %d, want %d", next.Height, tip.Height+1)
		}
		if next.ID == tip.ID {
			t.Errorf("templates of two heights have the same ID %v", tip.ID)
		}
		tip = next
	}
	if n.NewTransactions == nil {
		t.Log("new transactions on the same tip: not tested, the backend cannot make any")
		return
	}
	n.NewTransactions(t)
	full := w.await("after new transactions", func(tmpl *job.Template) bool {
		return tmpl.PrevHash == tip.PrevHash && len(tmpl.Transactions) > len(tip.Transactions)
	})
	check(t, full)
	if full.ID == tip.ID {
		t.Errorf("the templates before and after new transactions have the same ID %v", tip.ID)
	}
}

func testNeverOverlaps(t *testing.T, n Node) {
	w := watch(t, n)
	tip := w.next("at the start")
	for range 5 { // watch looks for overlaps
		n.NewBlock(t)
		if n.NewTransactions != nil {
			n.NewTransactions(t)
		}
	}
	w.await("after five blocks", func(tmpl *job.Template) bool { return tmpl.Height == tip.Height+5 })
	w.end()
	for len(w.templates) > 0 {
		<-w.templates
	}
	n.NewBlock(t)
	select {
	case tmpl := <-w.templates:
		t.Errorf("the template for height %d was put after Watch had returned", tmpl.Height)
	case <-time.After(grace):
	}
}

func testSurvivesFailures(t *testing.T, n Node) {
	w := watch(t, n)
	tip := w.next("at the start")
	n.SetDown(t, true)
	n.SetDown(t, false)
	n.NewBlock(t)
	w.await("after the node came back", func(tmpl *job.Template) bool { return tmpl.Height == tip.Height+1 })

	w.end()
	n.SetDown(t, true)
	w = watch(t, n) // the node is down at the start
	select {
	case err := <-w.returned:
		w.returned <- err
		t.Fatalf("Watch returned (%v) while the node was down", err)
	case <-time.After(min(w.patience/10, time.Second)):
	}
	n.SetDown(t, false)
	w.await("after the node came up", func(tmpl *job.Template) bool { return tmpl.Height == tip.Height+1 })
}

func testSourceStops(t *testing.T, n Node) {
	w := watch(t, n)
	w.next("at the start")
	w.end()
	if n.SetDown != nil {
		n.SetDown(t, true)
		w = watch(t, n)
		w.end() // must not wait for the node
		n.SetDown(t, false)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	done := make(chan error, 1)
	go func() { done <- n.Source.Watch(ctx, func(*job.Template) {}) }()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("Watch with an ended context returned %v, want nil", err)
		}
	case <-time.After(n.patience()):
		t.Errorf("Watch with an ended context did not return within %v", n.patience())
	}
}
