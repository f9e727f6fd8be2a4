package switcher

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/poolkit/poolkit/job"
)

// ErrUnknownUser is returned for a user that the directory holds nothing about.
var ErrUnknownUser = errors.New("switcher: unknown user")

// ErrUnknownChain is returned for a chain that the pool does not mine.
var ErrUnknownChain = errors.New("switcher: unknown chain")

// A Directory knows which chain each user mines. Every Directory
//   - KnowsNobodyElse: Chain returns an error that wraps ErrUnknownUser for a user it holds nothing about, and no
//     guess;
//   - ReportsChanges: Watch calls changed with every user whose chain is set after Watch was called, with the latest
//     chain at least, one call at a time;
//   - StopsWithContext: Watch returns nil soon after ctx ends, and calls changed no more; any other return means that
//     changes may have been missed and it has to be called again;
//   - AllowsConcurrentCalls.
type Directory interface {
	Chain(ctx context.Context, user string) (job.Chain, error)
	Watch(ctx context.Context, changed func(user string, chain job.Chain)) error
}

// Memory is a Directory that lasts as long as the process.
type Memory struct {
	chains []job.Chain

	mu       sync.Mutex
	users    map[string]job.Chain
	watchers map[*watcher]struct{}
}

// A watcher collects changes that have not been reported; a user that changes twice in between is reported once.
type watcher struct {
	changes map[string]job.Chain
	wake    chan struct{} // holds one token while there are changes
}

// NewMemory returns an empty directory of users who may mine the given chains.
func NewMemory(chains ...job.Chain) *Memory {
	return &Memory{
		chains:   slices.Clone(chains),
		users:    make(map[string]job.Chain),
		watchers: make(map[*watcher]struct{}),
	}
}

// Set lets user mine chain from now on. It returns an error that wraps ErrUnknownChain when the directory was not made
// with that chain.
func (m *Memory) Set(user string, chain job.Chain) error {
	if user == "" {
		return fmt.Errorf("switcher: set chain %q: %w: the name is empty", chain, ErrUnknownUser)
	}
	if !slices.Contains(m.chains, chain) {
		return fmt.Errorf("switcher: set chain of %q: %w %q", user, ErrUnknownChain, chain)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.users[user] == chain {
		return nil
	}
	m.users[user] = chain
	for w := range m.watchers {
		w.changes[user] = chain
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
	return nil
}

// Chain implements [Directory].
func (m *Memory) Chain(_ context.Context, user string) (job.Chain, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	chain, ok := m.users[user]
	if !ok {
		return "", fmt.Errorf("%w: %q", ErrUnknownUser, user)
	}
	return chain, nil
}

// Watch implements [Directory].
func (m *Memory) Watch(ctx context.Context, changed func(user string, chain job.Chain)) error {
	w := &watcher{changes: make(map[string]job.Chain), wake: make(chan struct{}, 1)}
	m.mu.Lock()
	m.watchers[w] = struct{}{}
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.watchers, w)
		m.mu.Unlock()
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.wake:
		}
		m.mu.Lock()
		changes := maps.Clone(w.changes)
		clear(w.changes)
		m.mu.Unlock()
		for _, user := range slices.Sorted(maps.Keys(changes)) {
			if ctx.Err() != nil {
				return nil
			}
			changed(user, changes[user])
		}
	}
}
