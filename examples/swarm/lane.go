package main

import (
	"math/rand/v2"
	"sync"
	"time"
)

// A lane does the work of a part of all connections on one goroutine. Few lanes with many connections each cost the
// machine much less than a goroutine for each connection, and leave it to the pool under load.
type lane struct {
	swarm *swarm
	poll  *poller // nil where this system has none

	mu       sync.Mutex // guards what follows, and all connections of the lane
	conns    []*conn
	timers   timers
	stats    stats
	spreads  spreadTable
	block    *block // the last one that came
	rng      *rand.Rand
	buf      []byte // for reading
	out      []byte // what the connection at hand is going to write
	ids      map[string]string
	loading  bool
	stopping bool

	live    int // connections that have logged in
	joining int // connections that are going to
	open    int // submits without a reply

	nextChurn int64
}

const (
	// maxSleep bounds how long a lane waits, so that what others schedule on it is not late by more.
	maxSleep = 20 * time.Millisecond

	// maxTimers is how many connections are woken between two looks at the sockets.
	maxTimers = 128

	// readSize is what is read at once, enough for the replies to everything that a connection has in flight.
	readSize = 64 << 10
)

func newLane(s *swarm, n int) *lane {
	return &lane{
		swarm: s,
		rng:   rand.New(rand.NewPCG(s.cfg.seed, uint64(n))),
		ids:   make(map[string]string),
	}
}

// run works until the swarm is over.
func (l *lane) run() {
	for {
		l.mu.Lock()
		if l.stopping {
			l.mu.Unlock()
			if l.poll != nil {
				l.poll.close()
			}
			return
		}
		sleep := l.runTimers()
		l.mu.Unlock()
		if l.poll != nil {
			l.poll.wait(l, sleep)
		} else {
			time.Sleep(sleep)
		}
	}
}

// runTimers does what is due and returns how long nothing else will be.
func (l *lane) runTimers() time.Duration {
	now := l.swarm.now()
	if l.loading && l.swarm.cfg.churn > 0 {
		l.churn(now)
	}
	// What is due beyond that waits until the replies have been read, or those would seem to be late.
	for range maxTimers {
		if l.timers.len() == 0 || l.timers.first().wake > now {
			break
		}
		c := l.timers.first()
		l.unschedule(c)
		c.tick(now)
	}
	if l.timers.len() == 0 {
		return maxSleep
	}
	return min(max(time.Duration(l.timers.first().wake-l.swarm.now()), 0), maxSleep)
}

// churn closes as many connections as are due, each of them any one, and has new ones opened.
func (l *lane) churn(now int64) {
	interval := int64(float64(time.Second) / (l.swarm.cfg.churn / float64(len(l.swarm.lanes))))
	if l.nextChurn == 0 {
		l.nextChurn = now + interval
	}
	l.nextChurn = max(l.nextChurn, now-int64(time.Second))
	for ; l.nextChurn <= now && len(l.conns) > 0; l.nextChurn += max(interval, 1) {
		c := l.conns[l.rng.IntN(len(l.conns))]
		if c.phase == phaseLive {
			l.stats.churned++
			c.end(endChurn, "churn", now)
		}
	}
}

// startLoad begins to submit.
func (l *lane) startLoad() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.loading = true
	now := l.swarm.now()
	for _, c := range l.conns {
		if c.phase == phaseLive {
			c.startLoad(now)
			c.flush(now)
		}
	}
}

// stopLoad ends submitting.
func (l *lane) stopLoad() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.loading = false
	for _, c := range l.conns {
		if c.phase == phaseLive {
			l.unschedule(c)
		}
	}
}

// stop closes everything, and counts what is still open as lost.
func (l *lane) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopping = true
	now := l.swarm.now()
	list := l.swarm.blocks.recent()
	judged := l.swarm.judged.Load()
	for _, c := range l.conns {
		if c.phase == phaseLive && c.job != "" {
			for _, b := range list {
				if s := l.spreads[b]; c.blockSeen < b.seen && (judged == 0 || b.seen <= judged) {
					if s == nil {
						s = &spread{block: b}
						if l.spreads == nil {
							l.spreads = make(spreadTable)
						}
						l.spreads[b] = s
					}
					s.missing++
				}
			}
		}
		c.lose(&l.stats.lost)
		c.end(endStop, "", now)
	}
}

// intern returns the same string for the same job id, which a pool may send to all connections.
func (l *lane) intern(id []byte) string {
	if s, ok := l.ids[string(id)]; ok {
		return s
	}
	if len(l.ids) >= 4096 {
		clear(l.ids)
	}
	s := string(id)
	l.ids[s] = s
	return s
}

func (l *lane) schedule(c *conn, at int64) {
	c.wake = at
	l.timers.put(c)
}

func (l *lane) unschedule(c *conn) { l.timers.remove(c) }

// timers is a heap of connections by the time they want to be woken at.
type timers struct{ heap []*conn }

func (t *timers) len() int     { return len(t.heap) }
func (t *timers) first() *conn { return t.heap[0] }

// put adds c, or moves it to where its new time belongs.
func (t *timers) put(c *conn) {
	if c.slot < 0 {
		c.slot = int32(len(t.heap))
		t.heap = append(t.heap, c)
	}
	t.down(t.up(int(c.slot)))
}

func (t *timers) remove(c *conn) {
	i := int(c.slot)
	if i < 0 {
		return
	}
	last := len(t.heap) - 1
	t.heap[i] = t.heap[last]
	t.heap[i].slot = int32(i)
	t.heap[last] = nil
	t.heap = t.heap[:last]
	c.slot = -1
	if i < last {
		t.down(t.up(i))
	}
}

func (t *timers) up(i int) int {
	for i > 0 {
		p := (i - 1) / 2
		if t.heap[p].wake <= t.heap[i].wake {
			break
		}
		t.swap(i, p)
		i = p
	}
	return i
}

func (t *timers) down(i int) {
	for {
		k := 2*i + 1
		if k >= len(t.heap) {
			return
		}
		if k+1 < len(t.heap) && t.heap[k+1].wake < t.heap[k].wake {
			k++
		}
		if t.heap[i].wake <= t.heap[k].wake {
			return
		}
		t.swap(i, k)
		i = k
	}
}

func (t *timers) swap(i, k int) {
	t.heap[i], t.heap[k] = t.heap[k], t.heap[i]
	t.heap[i].slot, t.heap[k].slot = int32(i), int32(k)
}
