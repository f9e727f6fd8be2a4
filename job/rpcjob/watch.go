package rpcjob

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptrace"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/poolkit/poolkit/job"
)

// Watch puts the node's templates until ctx ends, as [job.TemplateSource] promises: a new tip as soon as one of the ways
// notices it and once only, and new transactions on the same tip within Options.Interval. It returns nil.
func (s *Source) Watch(ctx context.Context, put func(*job.Template)) error {
	ctx, cancel := context.WithCancel(ctx)
	w := &watch{
		Source: s,
		put:    put,
		// One request and one long poll are out at a time, so that sending never blocks.
		replies:  make(chan reply, 2),
		notices:  make(chan notice, 16),
		links:    make(chan link, 16),
		due:      time.NewTimer(0),
		longDue:  time.NewTimer(time.Hour),
		troubles: make(map[string]time.Time),
	}
	w.longDue.Stop()
	for _, ep := range s.opts.ZMQ {
		w.wg.Go(func() { w.follow(ctx, ep) })
	}
	w.run(ctx)
	cancel()
	w.due.Stop()
	w.longDue.Stop()
	w.wg.Wait()
	s.rpc.CloseIdle()
	return nil
}

// A watch is the state of one call of Watch. All but the channels belongs to the goroutine of run.
type watch struct {
	*Source
	put     func(*job.Template)
	wg      sync.WaitGroup
	replies chan reply
	notices chan notice
	links   chan link

	due     *time.Timer // runs, or a request is out
	asking  bool        // a request is out
	again   *notice     // came while a request was out, whose reply may be older than it
	unclear bool        // two ways told of different tips; the next request settles it

	longDue *time.Timer // runs while resting
	resting bool        // the last long poll failed or was not held, and the next one waits
	polling bool        // a long poll is out

	puts   int
	tip    chainhash.Hash     // of the template put last
	pollID string             // of the newest template on that tip, empty when the node knows no long polls
	recent [16]chainhash.Hash // IDs of the templates put last

	troubles map[string]time.Time // what fails at the moment, and when that was last logged
	unheard  int                  // tips in a row that no ZMQ message came for
}

// A reply is what one template request brought, long polls included.
type reply struct {
	template *job.Template // nil after a failure
	err      error
	expired  bool      // a long poll reached its time limit, which is no failure
	way      Way       // what the request was made for
	notice   *notice   // the ZMQ message that it was made for, if any
	sent     time.Time // when the request was made
	noticed  time.Time // when the ZMQ message came, else when the reply's first byte did

	// base is the tip that was put last when the request was made. A long poll asks for the end of that tip.
	base   chainhash.Hash
	long   bool
	pollID string // of a long poll
}

// A notice is a hashblock message.
type notice struct {
	tip chainhash.Hash
	at  time.Time
}

// A link tells how a ZMQ connection fares.
type link struct {
	endpoint string
	err      error // nil when it stands
}

func (w *watch) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.due.C:
			w.ask(ctx, Poll)
		case <-w.longDue.C:
			w.resting = false
			w.longPoll(ctx)
		case n := <-w.notices:
			w.heard(ctx, n)
		case l := <-w.links:
			w.linked(l)
		case r := <-w.replies:
			if ctx.Err() != nil {
				return
			}
			w.take(ctx, r)
		}
	}
}

// heard acts on a ZMQ message, unless its tip was put already.
func (w *watch) heard(ctx context.Context, n notice) {
	w.unheard = 0
	w.count(func(st *Stats) { st.ZMQMessages++ })
	if w.puts > 0 && n.tip == w.tip {
		return
	}
	w.again = &n
	if !w.asking {
		w.ask(ctx, ZMQ)
	}
}

// ask sends a template request; none may be out.
func (w *watch) ask(ctx context.Context, way Way) {
	r := reply{way: way, notice: w.again, base: w.tip}
	if r.notice != nil {
		r.way, r.noticed = ZMQ, r.notice.at
	}
	w.again, w.unclear, w.asking = nil, false, true
	w.due.Stop()
	w.count(func(st *Stats) { st.Requests++ })
	w.wg.Go(func() { w.send(ctx, r, w.opts.Timeout) })
}

// longPoll sends a long poll, if the node offers it and none is out or has to wait.
func (w *watch) longPoll(ctx context.Context) {
	if w.polling || w.resting || w.pollID == "" || w.opts.LongPollTimeout < 0 {
		return
	}
	w.polling = true
	w.count(func(st *Stats) { st.LongPolls++ })
	r := reply{way: LongPoll, base: w.tip, long: true, pollID: w.pollID}
	w.wg.Go(func() { w.send(ctx, r, w.opts.LongPollTimeout) })
}

// send makes the request that r describes and completes r with what it brings.
func (w *watch) send(ctx context.Context, r reply, timeout time.Duration) {
	callCtx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	r.sent = time.Now()
	var first atomic.Pointer[time.Time]
	callCtx = httptrace.WithClientTrace(callCtx, &httptrace.ClientTrace{
		GotFirstResponseByte: func() { now := time.Now(); first.Store(&now) },
	})
	if r.template, r.err = w.template(callCtx, r.pollID); r.err != nil {
		r.err = fmt.Errorf("rpcjob: template: %w", r.err)
	}
	r.expired = r.long && r.err != nil && errors.Is(callCtx.Err(), context.DeadlineExceeded)
	if at := first.Load(); r.noticed.IsZero() && at != nil {
		r.noticed = *at
	}
	w.replies <- r
}

// take acts on a reply.
func (w *watch) take(ctx context.Context, r reply) {
	if r.long {
		w.polling = false
	} else {
		w.asking = false
	}
	if r.err != nil {
		w.fault(ctx, r)
		return
	}
	t := r.template
	if r.long {
		w.well("longpoll")
	} else {
		w.well("request")
	}

	switch {
	case w.puts == 0 || w.tip == r.base:
		// No tip was put since the request was made, so that the reply is the newest there is.
		w.offer(t, r)
	case t.PrevHash == w.tip:
		// Another way was faster with this tip. What the node added to the template meanwhile is for the next poll.
		w.count(func(st *Stats) { st.Duplicates++ })
	default:
		// Another way has put another tip. Which of the two is older only the node can tell.
		w.unclear = true
	}
	if t.PrevHash == w.tip {
		w.pollID = t.LongPollID
		if r.long && r.base == w.tip && time.Since(r.sent) < w.opts.RetryInterval {
			// A node that does not hold the answer would be called without end.
			w.rest()
		}
	}

	if w.again != nil && w.again.tip == w.tip {
		w.again = nil
	}
	switch {
	case w.asking:
	case w.again != nil || w.unclear:
		w.ask(ctx, r.way)
	case r.way == ZMQ && t.PrevHash == r.base:
		// The publisher is ahead of this node.
		w.next(min(w.opts.RetryInterval, w.opts.Interval))
	default:
		w.next(w.opts.Interval)
	}
	w.longPoll(ctx)
}

// next sets when the next request is due; none may be out.
func (w *watch) next(d time.Duration) { w.due.Reset(d) }

// rest puts the next long poll off.
func (w *watch) rest() {
	w.resting = true
	w.longDue.Reset(w.opts.RetryInterval)
}

// offer puts a template, unless these very bytes were put before.
func (w *watch) offer(t *job.Template, r reply) {
	if slices.Contains(w.recent[:], t.ID) {
		w.count(func(st *Stats) { st.Duplicates++ })
		return
	}
	fresh := w.puts == 0 || t.PrevHash != w.tip
	w.recent[w.puts%len(w.recent)] = t.ID
	w.puts++
	w.tip = t.PrevHash
	w.put(t)

	now := time.Now()
	if !fresh {
		w.count(func(st *Stats) { st.Templates++; st.LastTemplate = now })
		return
	}
	n := Notice{Tip: t.PrevHash, Height: t.Height, Way: r.way, Took: now.Sub(r.noticed)}
	w.count(func(st *Stats) {
		st.Templates++
		st.Tips++
		st.LastTemplate, st.LastTook = now, n.Took
		switch n.Way {
		case Poll:
			st.ByPoll++
		case LongPoll:
			st.ByLongPoll++
		case ZMQ:
			st.ByZMQ++
		}
	})
	w.opts.Logger.Debug("new tip", "tip", n.Tip, "height", n.Height, "way", n.Way, "took", n.Took)
	if w.opts.Hooks.Tip != nil {
		w.opts.Hooks.Tip(n)
	}
	if len(w.opts.ZMQ) > 0 && w.puts > 1 && r.way != ZMQ {
		if w.unheard++; w.unheard == silentTips {
			w.opts.Logger.Warn("no ZMQ message for the last tips; does the node publish hashblock there?",
				"tips", w.unheard, "zmq", w.opts.ZMQ)
		}
	}
}

// silentTips is how many tips the publisher may miss in a row before the operator hears of it.
const silentTips = 3

// fault acts on a request that brought no template.
func (w *watch) fault(ctx context.Context, r reply) {
	switch {
	case r.expired:
		w.longPoll(ctx)
	case r.long:
		w.count(func(st *Stats) { st.LongPollFailures++ })
		w.failed("longpoll", LongPoll, r.err)
		w.rest()
	default:
		w.count(func(st *Stats) { st.Failures++ })
		w.failed("request", Poll, r.err)
		if w.again == nil {
			w.again = r.notice // it still waits for its template
		}
		w.next(w.opts.RetryInterval)
	}
}

// relog is how often a failure that goes on is logged.
const relog = time.Minute

func (w *watch) failed(what string, way Way, err error) {
	level := slog.LevelDebug
	now := time.Now()
	if last, ok := w.troubles[what]; !ok || now.Sub(last) >= relog {
		level = slog.LevelWarn
		w.troubles[what] = now
	}
	w.opts.Logger.Log(context.Background(), level, "cannot learn of new blocks this way; trying on",
		"way", way, "what", what, "error", err)
	if w.opts.Hooks.Failed != nil {
		w.opts.Hooks.Failed(way, err)
	}
}

func (w *watch) well(what string) {
	if _, ok := w.troubles[what]; ok {
		delete(w.troubles, what)
		w.opts.Logger.Info("works again", "what", what)
	}
}

func (w *watch) linked(l link) {
	if l.err == nil {
		w.well(l.endpoint)
		return
	}
	w.count(func(st *Stats) { st.ZMQFailures++ })
	w.failed(l.endpoint, ZMQ, l.err)
}

// follow keeps a connection to a publisher until ctx ends.
func (w *watch) follow(ctx context.Context, ep string) {
	for ctx.Err() == nil {
		err := subscribe(ctx, ep, w.opts.ZMQTimeout,
			func() { tell(ctx, w.links, link{endpoint: ep}) },
			func(tip chainhash.Hash) { tell(ctx, w.notices, notice{tip, time.Now()}) })
		if errors.Is(err, errSilent) {
			// Blocks are that far apart now and then. Connecting anew is for publishers that are gone without a word.
			continue
		}
		tell(ctx, w.links, link{ep, err})
		select {
		case <-ctx.Done():
		case <-time.After(w.opts.RetryInterval):
		}
	}
}

// tell sends v, unless ctx ends first.
func tell[T any](ctx context.Context, ch chan<- T, v T) {
	select {
	case ch <- v:
	case <-ctx.Done():
	}
}
