package stratumtest

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/poolkit/poolkit/stratum/sv1"
)

// SwarmOptions tune a Swarm.
type SwarmOptions struct {
	// Miner holds for every miner. In User, "%d" stands for the miner's number, from 0; without it all have one name.
	// Its hooks are called for all miners, from several goroutines at once.
	Miner MinerOptions

	// Reconnect has miners connect again when the pool closes a connection or sends client.reconnect, and name the
	// session that they had. Without it the first connection that ends early ends the swarm.
	Reconnect bool

	// Backoff is how long a miner waits before it connects again after an error, though not after client.reconnect; 0
	// means 100ms.
	Backoff time.Duration
}

// SwarmStats count what the miners of a Swarm did, all together.
type SwarmStats struct {
	MinerStats
	Mining      int    // connections that have a job now
	Connections uint64 // that got a job
	Resumed     uint64 // of these, with the extranonce1 of the one before
	Unanswered  uint64 // shares on connections that have ended
}

// A Swarm is many miners at work on one pool, each with a connection of its own.
type Swarm struct {
	dial func(context.Context) (net.Conn, error)
	n    int
	opts SwarmOptions

	connections, resumed, unanswered atomic.Uint64

	mu    sync.Mutex
	live  map[*Miner]bool // whether it has a job
	ended MinerStats      // of connections that have ended
}

// NewSwarm returns a swarm of n miners, whose connections dial makes; [Listener.Dial] is such a function.
func NewSwarm(dial func(context.Context) (net.Conn, error), n int, opts *SwarmOptions) *Swarm {
	s := &Swarm{dial: dial, n: n, live: make(map[*Miner]bool)}
	if opts != nil {
		s.opts = *opts
	}
	if s.opts.Backoff <= 0 {
		s.opts.Backoff = 100 * time.Millisecond
	}
	return s
}

// Run mines until ctx ends, then waits for the replies still due, as [Miner.Run] does, and returns nil. Without
// [SwarmOptions.Reconnect] it returns the first error of a miner, and ends the others.
func (s *Swarm) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var miners sync.WaitGroup
	for i := range s.n {
		miners.Go(func() {
			if err := s.mine(ctx, i); err != nil {
				cancel(fmt.Errorf("stratumtest: miner %d: %w", i, err))
			}
		})
	}
	miners.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// mine is the life of one miner, over all its connections.
func (s *Swarm) mine(ctx context.Context, number int) error {
	opts := s.opts.Miner
	opts.User = strings.ReplaceAll(opts.User, "%d", fmt.Sprint(number))
	for ctx.Err() == nil {
		session, asked, err := s.connection(ctx, opts)
		if session != "" {
			opts.ResumeID = session
		}
		switch {
		case ctx.Err() != nil || asked:
			continue
		case !s.opts.Reconnect:
			return err
		}
		select {
		case <-time.After(s.opts.Backoff):
		case <-ctx.Done():
		}
	}
	return nil
}

// connection mines over one connection, until ctx ends, the connection does, or the pool asks for another. It returns
// the session's id once it had a job.
func (s *Swarm) connection(ctx context.Context, opts MinerOptions) (session string, asked bool, err error) {
	conn, err := s.dial(ctx)
	if err != nil {
		return "", false, err
	}
	var m *Miner
	first := sync.OnceFunc(func() { s.connections.Add(1) })
	onJob := opts.Hooks.OnJob
	var mu sync.Mutex // guards session
	opts.Hooks.OnJob = func(j *Job) {
		mu.Lock()
		if session == "" {
			if session = hex.EncodeToString(j.Extranonce1); session == opts.ResumeID {
				s.resumed.Add(1)
			}
		}
		mu.Unlock()
		first()
		s.mu.Lock()
		s.live[m] = true
		s.mu.Unlock()
		if onJob != nil {
			onJob(j)
		}
	}
	m = NewMiner(conn, &opts)
	s.mu.Lock()
	s.live[m] = false
	s.mu.Unlock()

	mining, stop := context.WithCancel(ctx)
	defer stop()
	var listening sync.WaitGroup
	listening.Go(func() {
		for {
			msg, err := m.Receive(mining)
			if err != nil {
				return
			}
			if msg.Method == sv1.MethodReconnect && s.opts.Reconnect {
				asked = true
				stop()
				return
			}
		}
	})
	err = m.Run(mining)
	stop()
	listening.Wait()

	st := m.Stats()
	s.unanswered.Add(st.Submitted - st.Accepted - st.Rejected)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.live, m)
	s.ended.add(st)
	mu.Lock()
	defer mu.Unlock()
	return session, asked, err
}

// Stats returns the counters of all miners.
func (s *Swarm) Stats() SwarmStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := SwarmStats{
		MinerStats:  s.ended,
		Connections: s.connections.Load(),
		Resumed:     s.resumed.Load(),
		Unanswered:  s.unanswered.Load(),
	}
	for m, mining := range s.live {
		st.add(m.Stats())
		if mining {
			st.Mining++
		}
	}
	return st
}

func (st *MinerStats) add(other MinerStats) {
	st.Hashes += other.Hashes
	st.Jobs += other.Jobs
	st.Submitted += other.Submitted
	st.Accepted += other.Accepted
	st.Rejected += other.Rejected
}
