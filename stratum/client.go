package stratum

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/stratum/sv1"
)

// Errors of a Client, to be compared with errors.Is.
var (
	// ErrNotConnected is a share that was not sent, because the client is not logged in anywhere.
	ErrNotConnected = errors.New("stratum: client: not connected")

	// ErrJobGone is a share that was not sent, because its job came over a connection that has ended, and the one
	// that took its place has another extranonce.
	ErrJobGone = errors.New("stratum: client: the job is of a connection that has ended")

	// ErrUnanswered is a share that may have been sent and was not answered. The pool may have counted it.
	ErrUnanswered = errors.New("stratum: client: unanswered")

	// ErrClientStopped is returned once Run has returned.
	ErrClientStopped = errors.New("stratum: client: stopped")
)

// A Client is a miner's side of Stratum V1: it keeps a session with a pool, hands out its jobs and submits shares. It
// does not hash. Its methods may be called from any goroutine, also before Run.
//
// Run logs in, and logs in again whenever the session ends, at the first pool that lets it: the fallbacks come after
// the first one, and are left again when a better pool is back. It asks for the session it had, so that a pool that
// resumes sessions gives it the same extranonce and shares of earlier jobs still count.
//
// Nothing of what a pool sends is trusted. Lines, merkle branches, extranonces, difficulties and waits are bounded, and
// a notification that matters and cannot be read ends the session with an error that quotes it.
type Client struct {
	opts  ClientOptions
	pools []clientPool

	started atomic.Bool
	done    chan struct{}   // closed when Run returns
	jobs    chan *ClientJob // holds the newest job that NextJob has not returned; Run alone sends

	mu       sync.Mutex
	current  *clientSession // takes shares; nil when there is none
	sessions uint64         // so far; the next one's serial number
	resume   []string       // subscription id by pool; "" when there is none
	stats    ClientStats    // RejectedBy is not shared with anybody
}

// ClientStats say how a Client is doing.
type ClientStats struct {
	Connected  bool                  // logged in
	Pool       string                // that it is or was last logged in to, as a URL without credentials
	Since      time.Time             // when Connected changed last; zero before the first login
	Difficulty difficulty.Difficulty // of the latest job; 0 before the first one
	LastJob    time.Time             // when the latest job came in
	LastError  error                 // why the last session ended or the last attempt failed; nil when none did

	Jobs              int64         // mining.notify received
	Accepted          int64         // shares
	Rejected          int64         // shares
	RejectedBy        map[int]int64 // the same by code; codes past the first 64 count as sv1.CodeOther
	Unanswered        int64         // shares that ended in ErrUnanswered
	Reconnects        int64         // logins after the first one
	ReconnectsRefused int64         // client.reconnect to hosts it does not follow to
	FailedAttempts    int64         // to log in
	UnknownMessages   int64         // replies nobody waits for and notifications of unknown methods
}

const maxRejectCodes = 64

// NewClient returns a client of a pool: "host:port" or "stratum+tcp://host:port", or for TLS one of the schemes
// stratum+ssl, stratum+tls and stratum+tcps. "user:password@" before the host takes the place of those in opts, which
// serves fallbacks where the user has another name. It does nothing yet.
func NewClient(pool string, opts *ClientOptions) (*Client, error) {
	c := &Client{done: make(chan struct{}), jobs: make(chan *ClientJob, 1)}
	if opts != nil {
		c.opts = *opts
	}
	errs := []error{c.opts.complete()}
	for i, s := range append([]string{pool}, c.opts.Fallbacks...) {
		p, err := parsePool(s, &c.opts)
		p.index = i
		c.pools = append(c.pools, p)
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	c.resume = make([]string, len(c.pools))
	if c.opts.AllowReconnect == nil {
		c.opts.AllowReconnect = c.allowReconnect
	}
	return c, nil
}

func (c *Client) allowReconnect(from, to string) bool {
	for i := range c.pools {
		if c.pools[i].host == to {
			return true
		}
	}
	return sameDomain(from, to)
}

// Run keeps a session with a pool until ctx ends, and then returns nil; no failure of a pool ends it. It stops taking
// shares at once and waits for the replies to earlier ones as long as DrainTimeout says. Run can be called once: any
// further call fails.
func (c *Client) Run(ctx context.Context) error {
	if c.started.Swap(true) {
		return errors.New("stratum: client: Run was called before")
	}
	defer close(c.done)
	var (
		next    *clientSession
		route   clientRoute
		backoff = clientBackoff{min: c.opts.ReconnectMin, max: c.opts.ReconnectMax}
	)
	for {
		if next == nil {
			next = c.connect(ctx, &route)
		}
		var wait time.Duration
		if next != nil {
			s, from := next, time.Now()
			var err error
			next, err = c.serve(ctx, s)
			lasted := time.Since(from) >= c.opts.ReconnectMax
			if lasted {
				backoff.reset()
			}
			var r *reconnectError
			route = clientRoute{}
			switch {
			case errors.As(err, &r):
				route, wait = clientRoute{first: s.pool.index, redirect: &r.pool}, r.wait
			case !lasted:
				// A pool that lets everybody in and sends them away is not better than one that is down.
				route.first = s.pool.index + 1
			}
		} else {
			route = clientRoute{}
		}
		if ctx.Err() != nil {
			if next != nil {
				next.close()
			}
			return nil
		}
		if next != nil {
			continue
		}
		wait = max(wait, backoff.next())
		c.opts.Logger.Info("connecting to a pool again", "wait", wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
	}
}

// A clientRoute says where to connect to next: where client.reconnect led to, then all pools beginning with the first.
type clientRoute struct {
	first    int
	redirect *clientPool
}

// A clientBackoff doubles the waits between attempts. They are random by half, lest all miners of a pool that was away
// come back in one instant.
type clientBackoff struct{ min, max, last time.Duration }

func (b *clientBackoff) reset() { b.last = 0 }

func (b *clientBackoff) next() time.Duration {
	b.last = min(max(2*b.last, b.min), b.max)
	return b.last/2 + rand.N(b.last/2+1)
}

// connect tries every pool once and returns nil when none lets it in.
func (c *Client) connect(ctx context.Context, route *clientRoute) *clientSession {
	pools := make([]*clientPool, 0, len(c.pools)+1)
	if route.redirect != nil {
		pools = append(pools, route.redirect)
	}
	for i := range c.pools {
		pools = append(pools, &c.pools[(route.first+i)%len(c.pools)])
	}
	for _, p := range pools {
		s := c.loginOrFollow(ctx, p, func(p *clientPool, err error) {
			c.opts.Logger.Warn("cannot log in to a pool", "pool", p.String(), "error", err)
			c.failed(p, err)
		})
		if s != nil || ctx.Err() != nil {
			return s
		}
	}
	return nil
}

// maxRedirects is how many attempts client.reconnect can lead to without a login.
const maxRedirects = 4

// loginOrFollow logs in to a pool, or to where it sends its miners before or instead of a login. It returns nil when
// that fails, after failed has been called with each reason but the end of ctx.
func (c *Client) loginOrFollow(ctx context.Context, p *clientPool, failed func(*clientPool, error)) *clientSession {
	for range maxRedirects {
		s, err := c.login(ctx, p)
		if err == nil {
			return s
		}
		if ctx.Err() != nil {
			return nil
		}
		failed(p, err)
		var r *reconnectError
		if !errors.As(err, &r) {
			return nil
		}
		p = &r.pool
		select {
		case <-time.After(r.wait):
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

func (c *Client) failed(p *clientPool, err error) {
	c.mu.Lock()
	c.stats.FailedAttempts++
	c.stats.LastError = err
	c.mu.Unlock()
	if hook := c.opts.Hooks.Disconnected; hook != nil {
		hook(p.String(), err)
	}
}

// serve runs a session to its end. It returns the reason, and the session with a better pool if that is it.
func (c *Client) serve(ctx context.Context, s *clientSession) (next *clientSession, err error) {
	log := c.opts.Logger.With("pool", s.pool.String())
	c.mu.Lock()
	c.current = s
	if !c.stats.Since.IsZero() {
		c.stats.Reconnects++
	}
	c.stats.Connected, c.stats.Pool, c.stats.Since = true, s.pool.String(), time.Now()
	c.mu.Unlock()
	log.Info("logged in to a pool", "remote", s.conn.RemoteAddr())
	if hook := c.opts.Hooks.Connected; hook != nil {
		hook(s.pool.String())
	}

	release := onDone(ctx, func() { s.finish(ErrClientStopped, c.opts.DrainTimeout) })
	failback := c.probe(ctx, s)
	err = s.serve()
	c.mu.Lock()
	c.current = nil
	c.mu.Unlock()
	s.close()
	release()
	next = failback()

	select { // a job of a connection that has ended is nothing to begin with
	case <-c.jobs:
	default:
	}
	c.mu.Lock()
	c.stats.Connected, c.stats.Since = false, time.Now()
	c.stats.LastError = err
	c.mu.Unlock()
	if ctx.Err() == nil {
		log.Warn("the session with a pool has ended", "error", err)
	}
	if hook := c.opts.Hooks.Disconnected; hook != nil {
		hook(s.pool.String(), err)
	}
	return next, err
}

var errFailback = errors.New("a better pool is back")

// probe looks for a better pool while s runs, and ends s when one has let the client in. The function it returns ends
// the search and returns that session, or nil.
func (c *Client) probe(ctx context.Context, s *clientSession) (found func() *clientSession) {
	if s.pool.index == 0 || c.opts.FailbackInterval < 0 {
		return func() *clientSession { return nil }
	}
	ctx, cancel := context.WithCancel(ctx)
	result := make(chan *clientSession, 1)
	go func() {
		defer close(result)
		ticker := time.NewTicker(c.opts.FailbackInterval)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			for i := range c.pools[:s.pool.index] {
				better := c.loginOrFollow(ctx, &c.pools[i], func(p *clientPool, err error) {
					c.opts.Logger.Debug("a better pool is still away", "pool", p.String(), "error", err)
				})
				if better == nil {
					continue
				}
				result <- better
				s.finish(errFailback, c.opts.DrainTimeout)
				return
			}
		}
	}()
	return func() *clientSession {
		cancel()
		return <-result
	}
}

// onDone calls f in a goroutine when ctx ends. The function it returns takes that back, or waits until f has returned,
// and reports whether f was not called.
func onDone(ctx context.Context, f func()) (release func() bool) {
	called := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(called)
		f()
	})
	return func() bool {
		if stop() {
			return true
		}
		<-called
		return false
	}
}

// deliver hands a job out. It is called by the goroutine of Run alone.
func (c *Client) deliver(j *ClientJob) {
	c.mu.Lock()
	c.stats.Difficulty, c.stats.LastJob = j.Difficulty, j.Received
	c.mu.Unlock()
	if hook := c.opts.Hooks.Job; hook != nil {
		hook(j)
	}
	select {
	case missed := <-c.jobs:
		if missed.Clean && !j.Clean {
			clean := *j
			clean.Clean = true
			j = &clean
		}
	default:
	}
	c.jobs <- j // has room: nobody else sends
}

// NextJob returns the newest job, and waits for one it has not returned before. A caller that is behind misses jobs,
// and gets the newest one marked clean if any of those it missed was. It is for one caller, for a job is returned
// once; [ClientHooks] see them all. After Run has returned it fails with ErrClientStopped.
func (c *Client) NextJob(ctx context.Context) (*ClientJob, error) {
	select {
	case j := <-c.jobs:
		return j, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-c.done:
		return nil, ErrClientStopped
	}
}

// A ClientVerdict is what a pool says to a share.
type ClientVerdict struct {
	Accepted bool
	Code     int           // one of sv1's Code constants or the pool's own; 0 when accepted, 20 when refused without one
	Message  string        // for people, at most 256 bytes of printable text; may be empty
	Latency  time.Duration // from Submit to the reply
}

// Err returns nil for a share that was accepted, and a *[sv1.ReplyError] for any other.
func (v ClientVerdict) Err() error {
	if v.Accepted {
		return nil
	}
	return &sv1.ReplyError{Code: v.Code, Message: v.Message}
}

// Submit sends a share and waits for the verdict. Any number may be under way at once; beyond MaxInFlight they wait for
// one another. An error says that there is no verdict: ErrNotConnected, ErrJobGone and an error about the form of the
// share mean that nothing was sent, ErrUnanswered that the share may have been. When ctx ends first, the error is its
// cause as well, joined with ErrUnanswered if the share may have been sent.
func (c *Client) Submit(ctx context.Context, share ClientShare) (ClientVerdict, error) {
	if err := share.check(); err != nil {
		return ClientVerdict{}, fmt.Errorf("stratum: client: submit: %w", err)
	}
	c.mu.Lock()
	s := c.current
	c.mu.Unlock()
	switch {
	case s == nil:
		select {
		case <-c.done:
			return ClientVerdict{}, ErrClientStopped
		default:
			return ClientVerdict{}, ErrNotConnected
		}
	case !s.takes(share.Job):
		return ClientVerdict{}, ErrJobGone
	}
	v, err := s.submit(ctx, &share)
	if errors.Is(err, ErrUnanswered) {
		c.mu.Lock()
		c.stats.Unanswered++
		c.mu.Unlock()
	}
	return v, err
}

// count notes a verdict.
func (c *Client) count(v *ClientVerdict) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v.Accepted {
		c.stats.Accepted++
		return
	}
	c.stats.Rejected++
	code := v.Code
	if _, known := c.stats.RejectedBy[code]; !known && len(c.stats.RejectedBy) >= maxRejectCodes {
		code = sv1.CodeOther
	}
	if c.stats.RejectedBy == nil {
		c.stats.RejectedBy = map[int]int64{}
	}
	c.stats.RejectedBy[code]++
}

// Stats returns how the client is doing.
func (c *Client) Stats() ClientStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	stats := c.stats
	stats.RejectedBy = maps.Clone(stats.RejectedBy)
	return stats
}

func (c *Client) noteJob() {
	c.mu.Lock()
	c.stats.Jobs++
	c.mu.Unlock()
}

func (c *Client) noteUnknown() {
	c.mu.Lock()
	c.stats.UnknownMessages++
	c.mu.Unlock()
}
