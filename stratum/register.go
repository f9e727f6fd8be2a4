package stratum

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/poolkit/poolkit/share"
)

// A Registrar opens an account for a user that mines before anybody has signed up for it. Every Registrar
//   - RemembersTheUser: nil means that the account is open or will be without further calls, though whatever an
//     [Authorizer] learns it from may lag behind;
//   - IsIdempotent: registering a user that has an account, or has been registered, succeeds and opens no second one;
//   - RefusesTheUnfit: for a user that will never get an account the error wraps [ErrUnknownUser]; any other error means
//     that a later call may succeed;
//   - HonorsContext: it returns soon after ctx ends;
//   - AllowsConcurrentCalls.
//
// It does not retry. w.Name is the machine that asked first, for the record only.
type Registrar interface {
	Register(ctx context.Context, w share.Worker) error
}

// RegistrarFunc is a function as a Registrar.
type RegistrarFunc func(ctx context.Context, w share.Worker) error

// Register calls f.
func (f RegistrarFunc) Register(ctx context.Context, w share.Worker) error { return f(ctx, w) }

// AutoRegisterOptions tune an AutoRegistrar. The zero value holds BTCPool's numbers.
type AutoRegisterOptions struct {
	// MaxPending is how many users may be in registration at a time; for more the answer is ErrUnknownUser. 0 or less
	// means 50.
	MaxPending int

	// Deadline is how long a registration may take until the Authorizer knows the user; 0 or less means 60s.
	Deadline time.Duration

	// PollInterval is the time between the questions whether the Authorizer knows the user by now; 0 or less means 1s.
	PollInterval time.Duration
}

// An AutoRegistrar is an Authorizer that registers users which another one does not know.
type AutoRegistrar struct {
	auth      Authorizer
	registrar Registrar
	opts      AutoRegisterOptions

	mu      sync.Mutex
	pending map[string]*registration // by user
}

// A registration is one user on the way to an account.
type registration struct {
	ctx     context.Context // ends with the deadline, or when nobody waits any more
	cancel  context.CancelFunc
	done    chan struct{} // closed when Register has returned
	err     error         // of Register, readable when done is closed
	waiting int           // callers of Authorize; guarded by AutoRegistrar.mu
	over    bool          // Register has returned; guarded by AutoRegistrar.mu
}

// AutoRegister returns an Authorizer that asks auth, and for a user that auth does not know has r open an account. It
// registers a user once however many of its machines wait, and lets all of them in as soon as auth knows the user. When
// the last of them gives up, because its context ended, the registration is cancelled.
//
// Authorize then takes up to AutoRegisterOptions.Deadline, so a server's [Options.AuthorizeTimeout] should not be
// shorter; by default both are a minute. Names that are not user names, those that [share.FilterName] would change, are
// not registered.
func AutoRegister(auth Authorizer, r Registrar, opts *AutoRegisterOptions) *AutoRegistrar {
	a := &AutoRegistrar{auth: auth, registrar: r, pending: make(map[string]*registration)}
	if opts != nil {
		a.opts = *opts
	}
	if a.opts.MaxPending <= 0 {
		a.opts.MaxPending = 50
	}
	if a.opts.Deadline <= 0 {
		a.opts.Deadline = time.Minute
	}
	if a.opts.PollInterval <= 0 {
		a.opts.PollInterval = time.Second
	}
	return a
}

// Pending returns how many users are in registration.
func (a *AutoRegistrar) Pending() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.pending)
}

// Authorize implements [Authorizer].
func (a *AutoRegistrar) Authorize(ctx context.Context, w share.Worker, password string) (int32, error) {
	id, err := a.auth.Authorize(ctx, w, password)
	if err == nil || !errors.Is(err, ErrUnknownUser) {
		return id, err
	}
	if w.User == "" || len(w.User) > share.MaxUserName || share.FilterName(w.User) != w.User {
		return 0, err
	}
	p, err := a.join(ctx, w)
	if err != nil {
		return 0, err
	}
	defer a.leave(w.User, p)

	select {
	case <-p.done:
		if p.err != nil {
			return 0, fmt.Errorf("stratum: register user %q: %w", w.User, p.err)
		}
	case <-p.ctx.Done():
		return 0, fmt.Errorf("stratum: register user %q: %w", w.User, p.ctx.Err())
	case <-ctx.Done():
		return 0, fmt.Errorf("stratum: register user %q: %w", w.User, ctx.Err())
	}
	// Everybody asks for themselves: auth may let in one password of a user and refuse another.
	poll := time.NewTicker(a.opts.PollInterval)
	defer poll.Stop()
	for {
		id, err = a.auth.Authorize(ctx, w, password)
		if err == nil || !errors.Is(err, ErrUnknownUser) {
			return id, err
		}
		select {
		case <-poll.C:
		case <-p.ctx.Done():
			return 0, fmt.Errorf("%w: %q was registered but is still not known %v later", ErrUnknownUser, w.User, a.opts.Deadline)
		case <-ctx.Done():
			return 0, fmt.Errorf("stratum: register user %q: %w", w.User, ctx.Err())
		}
	}
}

// join makes the caller one of those who wait for the registration of w.User, which it starts when there is none.
func (a *AutoRegistrar) join(ctx context.Context, w share.Worker) (*registration, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p, ok := a.pending[w.User]; ok {
		if p.ctx.Err() != nil {
			// What remains of it holds its place, or a Registrar that hangs could be called without limit.
			return nil, fmt.Errorf("stratum: register user %q: the last attempt is still being given up", w.User)
		}
		p.waiting++
		return p, nil
	}
	if len(a.pending) >= a.opts.MaxPending {
		return nil, fmt.Errorf("%w: %q, and %d users are in registration already", ErrUnknownUser, w.User, len(a.pending))
	}
	p := &registration{done: make(chan struct{}), waiting: 1}
	// The caller that comes first may leave while others wait on.
	p.ctx, p.cancel = context.WithTimeout(context.WithoutCancel(ctx), a.opts.Deadline)
	a.pending[w.User] = p
	go func() {
		err := a.registrar.Register(p.ctx, w)
		a.mu.Lock()
		defer a.mu.Unlock()
		p.err, p.over = err, true
		close(p.done)
		a.forget(w.User, p)
	}()
	return p, nil
}

func (a *AutoRegistrar) leave(user string, p *registration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p.waiting--; p.waiting == 0 {
		p.cancel()
	}
	a.forget(user, p)
}

// forget frees the place of a registration that nobody waits for and nothing works on. The lock is held.
func (a *AutoRegistrar) forget(user string, p *registration) {
	if p.waiting == 0 && p.over {
		delete(a.pending, user)
	}
}
