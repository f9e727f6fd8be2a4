package job

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Defaults of [MakerOptions], BTCPool's.
const (
	DefaultInterval      = 20 * time.Second
	DefaultLifetime      = 90 * time.Second
	DefaultEmptyLifetime = 15 * time.Second
)

// A BuildFunc makes the job with the given ID from a template; the method value of [Builder.Build] is one. It is called
// by one goroutine at a time. The Clean field is set by the caller.
type BuildFunc func(t *Template, id ID, now time.Time) (*Job, error)

// MakerOptions tune a [Maker]. The zero value follows BTCPool's jobmaker.
type MakerOptions struct {
	// Interval is the longest time between two jobs; at its end the best template goes out again as a new job, even if
	// it is the same one. 0 means DefaultInterval. Below a second, two jobs could have the same search space, so that
	// is refused.
	Interval time.Duration

	// Lifetime is how long a template with transactions is mined on while there is another one to turn to, counted
	// from its arrival; EmptyLifetime is the same for one without. 0 means DefaultLifetime, DefaultEmptyLifetime.
	Lifetime, EmptyLifetime time.Duration

	KeyOrder KeyOrder // which template is the best; the zero value prefers the newest

	// ProtectEmptyBest keeps a lower template from replacing an empty one for two intervals, as it is always kept from
	// replacing one with transactions. Set it where empty templates are made from other pools' jobs: they are right
	// more often than a node that lags behind.
	ProtectEmptyBest bool

	// ServerID tells the job makers of one pool apart; it is the lowest byte of every job ID. 0 means 1.
	ServerID uint8

	// BroadcastTimeout bounds one call of Broadcast; 0 means 5 s.
	BroadcastTimeout time.Duration

	Logger *slog.Logger // nil discards
	Hooks  MakerHooks
}

// MakerHooks are called when something happens, where they are not nil. They return quickly, for the next job waits
// for them.
type MakerHooks struct {
	// OnJob reports a job that a Broadcaster has taken, never one that it has not: what watches the pool's pulse may
	// hang on it.
	OnJob func(j *Job, why SendReason)

	// OnDrop reports a template that was not taken. It is called on the goroutine of the source.
	OnDrop func(t *Template, why Drop)

	// OnError reports that no job could be made of a template, that a Broadcaster failed (the job is made anew within a
	// second), or that one of several sources can never work.
	OnError func(err error)
}

// MakerStats count what a [Maker] has done since it was made.
type MakerStats struct {
	Accepted   uint64 // templates taken
	Late       uint64 // of these, more than 3 s old when they came
	Invalid    uint64 // templates dropped, by reason
	Duplicate  uint64
	Old        uint64
	Lower      uint64
	Unbuilt    uint64 // templates of which no job could be made
	Jobs       uint64 // jobs that went out
	CleanJobs  uint64 // of these, marked clean
	Unsent     uint64 // attempts that a Broadcaster failed
	DeadSource uint64 // sources that gave up

	LastTemplate time.Time // when the last template was taken
	LastJob      time.Time // when the last job went out
	Height       int32     // of the last job
}

// A Maker turns templates into jobs: it watches a [TemplateSource], keeps the templates worth mining on, and sends a
// job at once when a block is found, when transactions come to a block that had none, and otherwise once in an
// interval.
//
// A template that no job can be made of is dropped, and the last one that worked stays in use. A job that cannot be
// sent is made anew a second later, or with the next template.
type Maker struct {
	source TemplateSource
	build  BuildFunc
	out    Broadcaster
	opts   MakerOptions
	log    *slog.Logger

	ids     IDs
	wake    chan struct{} // holds one value when a template was taken that Run has not looked at
	running atomic.Bool

	mu    sync.Mutex
	store store
	stats MakerStats
	stale *Template // the template whose old age was logged
}

// NewMaker returns a Maker that makes jobs with build from the templates of source (see [Sources] for several nodes) and
// gives them to out. It starts nothing; call [Maker.Run].
func NewMaker(source TemplateSource, build BuildFunc, out Broadcaster, opts *MakerOptions) (*Maker, error) {
	m := &Maker{source: source, build: build, out: out, wake: make(chan struct{}, 1)}
	if opts != nil {
		m.opts = *opts
	}
	var errs []error
	refuse := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("job: new maker: "+format, args...))
	}
	if source == nil {
		refuse("no template source")
	}
	if build == nil {
		refuse("no build function")
	}
	if out == nil {
		refuse("no broadcaster")
	}
	o := &m.opts
	for _, d := range []struct {
		name       string
		value      *time.Duration
		def, least time.Duration
	}{
		{"Interval", &o.Interval, DefaultInterval, time.Second},
		{"Lifetime", &o.Lifetime, DefaultLifetime, time.Second},
		{"EmptyLifetime", &o.EmptyLifetime, DefaultEmptyLifetime, time.Second},
		{"BroadcastTimeout", &o.BroadcastTimeout, 5 * time.Second, 1},
	} {
		if *d.value == 0 {
			*d.value = d.def
		}
		if *d.value < d.least {
			refuse("%s of %v, at least %v makes sense", d.name, *d.value, d.least)
		}
	}
	if o.KeyOrder > KeyOrderHeight {
		refuse("no such key order: %d", uint8(o.KeyOrder))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if o.ServerID == 0 {
		o.ServerID = 1
	}
	if m.log = o.Logger; m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	m.ids.Maker = o.ServerID
	m.store = store{
		interval:         o.Interval,
		lifetime:         o.Lifetime,
		emptyLifetime:    o.EmptyLifetime,
		order:            o.KeyOrder,
		protectEmptyBest: o.ProtectEmptyBest,
	}
	return m, nil
}

// Stats returns the counters as they stand.
func (m *Maker) Stats() MakerStats {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stats
}

// Run makes jobs until ctx ends; then it returns nil. It returns an error when the source can never work, or when the
// Maker is running already.
func (m *Maker) Run(ctx context.Context) error {
	if !m.running.CompareAndSwap(false, true) {
		return errors.New("job: maker: running already")
	}
	defer m.running.Store(false)

	watchCtx, stop := context.WithCancel(ctx)
	defer stop()
	watched := make(chan error, 1)
	go func() { watched <- m.watch(watchCtx) }()

	// The ticker serves the interval and repeats what failed; a template is looked at when it comes.
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case err := <-watched:
			if ctx.Err() != nil {
				return nil
			}
			if err == nil {
				err = errors.New("the template source ended by itself")
			}
			return fmt.Errorf("job: maker: %w", err)
		case <-ctx.Done():
			<-watched
			return nil
		case <-m.wake:
		case <-ticker.C:
		}
		m.produce(ctx)
	}
}

func (m *Maker) watch(ctx context.Context) error {
	if s, ok := m.source.(sources); ok {
		return s.watch(ctx, m.put, func(err error) {
			m.count(func(c *MakerStats) { c.DeadSource++ })
			m.fail("a template source gave up, the others go on", err)
		})
	}
	return m.source.Watch(ctx, m.put)
}

// put takes a template and wakes Run.
func (m *Maker) put(t *Template) {
	now := time.Now()
	m.mu.Lock()
	drop := m.store.accept(t, now)
	switch drop {
	case NotDropped:
		m.stats.Accepted++
		m.stats.LastTemplate = now
	case DroppedInvalid:
		m.stats.Invalid++
	case DroppedDuplicate:
		m.stats.Duplicate++
	case DroppedOld:
		m.stats.Old++
	case DroppedLower:
		m.stats.Lower++
	}
	late := drop == NotDropped && now.Sub(t.Received).Abs() >= warnAge
	if late {
		m.stats.Late++
	}
	m.mu.Unlock()

	if drop == NotDropped {
		if late {
			m.log.Warn("template is late: check the clocks and the way it comes", "node", t.Source, "height", t.Height,
				"age", now.Sub(t.Received))
		}
		select {
		case m.wake <- struct{}{}:
		default:
		}
		return
	}
	level := slog.LevelWarn
	if drop == DroppedDuplicate {
		level = slog.LevelDebug
	}
	attrs := []any{"why", drop}
	if t != nil {
		attrs = append(attrs, "node", t.Source, "height", t.Height, "age", now.Sub(t.Received))
	}
	m.log.Log(context.Background(), level, "template dropped", attrs...)
	if f := m.opts.Hooks.OnDrop; f != nil {
		f(t, drop)
	}
}

// produce sends a job if one is due. A template that no job can be made of gives way to the next best.
func (m *Maker) produce(ctx context.Context) {
	for {
		now := time.Now()
		m.mu.Lock()
		t, why := m.store.due(now)
		m.mu.Unlock()
		if t == nil {
			return
		}
		j, err := m.build(t, m.ids.Next(now), now)
		if err == nil && j == nil {
			err = errors.New("the build function made no job")
		}
		if err == nil {
			m.send(ctx, t, j, why, now)
			return
		}
		m.mu.Lock()
		m.stats.Unbuilt++
		m.store.reject(t)
		m.mu.Unlock()
		m.fail("no job can be made of a template, the last good one stays in use",
			fmt.Errorf("job: maker: build height %d from template %v of node %q: %w", t.Height, t.ID, t.Source, err))
	}
}

func (m *Maker) send(ctx context.Context, t *Template, j *Job, why SendReason, now time.Time) {
	// Only this goroutine changes what went out last, so that clean may look at it without the lock.
	if clean := m.store.clean(j); clean != j.Clean {
		marked := *j
		marked.Clean = clean
		j = &marked
	}
	callCtx, cancel := context.WithTimeout(ctx, m.opts.BroadcastTimeout)
	err := m.out.Broadcast(callCtx, j)
	cancel()
	if err != nil {
		if ctx.Err() == nil {
			m.count(func(c *MakerStats) { c.Unsent++ })
			m.fail("job not sent, next try within a second",
				fmt.Errorf("job: maker: broadcast job %d, height %d: %w", j.ID, j.Height, err))
		}
		return
	}

	m.mu.Lock()
	m.store.sent(t, j, now)
	m.stats.Jobs++
	if j.Clean {
		m.stats.CleanJobs++
	}
	m.stats.LastJob = now
	m.stats.Height = j.Height
	stale := m.store.expired(t, now) && m.stale != t
	if stale {
		m.stale = t
	}
	m.mu.Unlock()

	if stale {
		m.log.Warn("no fresh template, the old one stays in use: check the node", "chain", j.Chain, "node", t.Source,
			"height", t.Height, "age", now.Sub(t.Received))
	}
	m.log.Info("job sent", "chain", j.Chain, "job", j.ID, "height", j.Height, "transactions", len(t.Transactions),
		"clean", j.Clean, "why", why, "template", t.ID)
	if f := m.opts.Hooks.OnJob; f != nil {
		f(j, why)
	}
}

func (m *Maker) count(f func(c *MakerStats)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(&m.stats)
}

func (m *Maker) fail(msg string, err error) {
	m.log.Error(msg, "err", err)
	if f := m.opts.Hooks.OnError; f != nil {
		f(err)
	}
}
