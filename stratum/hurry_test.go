package stratum_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum"
	"github.com/poolkit/poolkit/stratum/sv1"
	"github.com/stretchr/testify/require"
)

// A hasty policy doubles its difficulty with every few shares, and cannot wait to say so. It halves it after a time
// without any.
type hasty struct {
	d      difficulty.Difficulty
	every  int           // shares
	after  time.Duration // of silence; 0 for never
	shares int
	last   time.Time
}

func (h *hasty) Observe(now time.Time, _ difficulty.Difficulty) { h.shares, h.last = h.shares+1, now }

func (h *hasty) Hurry(now time.Time) bool {
	return h.shares >= h.every || h.after > 0 && !h.last.IsZero() && now.Sub(h.last) >= h.after
}

func (h *hasty) Next(now time.Time) difficulty.Difficulty {
	switch {
	case h.last.IsZero():
		h.last = now
	case h.shares >= h.every:
		h.d, h.shares, h.last = 2*h.d, 0, now
	case h.after > 0 && now.Sub(h.last) >= h.after:
		h.d, h.last = h.d/2, now
	}
	return h.d
}

// wrapped hides what it wraps from all but difficulty.As.
type wrapped struct{ difficulty.Policy }

func (w wrapped) Unwrap() difficulty.Policy { return w.Policy }

func hasten(every int, after time.Duration) func(*stratum.Session) difficulty.Policy {
	return func(*stratum.Session) difficulty.Policy {
		return wrapped{&hasty{d: easy, every: every, after: after}}
	}
}

func TestAPolicyInAHurryGetsTheJobSentAgain(t *testing.T) {
	opts := stratum.Options{NewPolicy: hasten(2, 0), StartDifficulty: easy, MinDifficulty: easy, MaxDifficulty: 2 * easy}
	in(t, opts, func(t *testing.T, p *pool) {
		p.give(100, hardBits)
		c := p.dial()
		id, n := c.start("alice.rig")
		time.Sleep(5500 * time.Millisecond)
		first, second, third := c.solve(id, n, easy, 0, false), c.solve(id, n, easy, 1<<20, false), c.solve(id, n, easy, 1<<21, false)
		require.Equal(t, "true", c.submit(first))
		require.Equal(t, "true", c.submit(second))

		// At once, behind the reply: the same work from another time on, and what the miner is at counts on.
		require.Equal(t, 2*easy, c.told())
		again, m := c.notify()
		require.NotEqual(t, id, again)
		require.False(t, m.Clean)
		require.EqualValues(t, n.NTime+5, m.NTime)
		same := m
		same.NTime, same.JobID, same.Clean = n.NTime, n.JobID, n.Clean
		require.Equal(t, n, same)

		require.Equal(t, "true", c.submit(third), "on its way")
		require.Equal(t, "23", c.submit(c.solveBetween(again, m, easy, 2*easy)), "the difficulty of the job is the new one")
		require.Equal(t, "true", c.submit(c.solve(again, m, 2*easy, 0, false)))
		var credited []difficulty.Difficulty
		for _, s := range p.recorded() {
			if s.Verdict == share.Accepted {
				credited = append(credited, s.Difficulty)
			}
		}
		require.Equal(t, []difficulty.Difficulty{easy, easy, easy, 2 * easy}, credited)
		require.EqualValues(t, 1, p.server.Stats().Hurried)

		// What was paid for as one job is not paid for again as the other.
		first.job = again
		require.Equal(t, "22", c.submit(first))

		// A connection that is quiet is told the job that it has, not the one of before.
		time.Sleep(31 * time.Second)
		kept, o := c.notify()
		require.Equal(t, []any{again, m.NTime, false}, []any{kept, o.NTime, o.Clean})
	})
}

// solveBetween is solve for a share that meets d and not more.
func (c *client) solveBetween(id string, n sv1.Notify, d, more difficulty.Difficulty) work {
	for start := uint32(0); ; {
		w := c.solve(id, n, d, start, false)
		nonce, err := strconv.ParseUint(w.nonce, 16, 32)
		require.NoError(c.t, err)
		if again := c.solve(id, n, more, uint32(nonce), false); again.nonce != w.nonce {
			return w
		}
		start = uint32(nonce) + 1
	}
}

// In silence a policy is asked about once a second.
func TestAPolicyInAHurryInSilence(t *testing.T) {
	in(t, stratum.Options{NewPolicy: hasten(1<<20, 5*time.Second), MinDifficulty: difficulty.Min, StartDifficulty: easy}, func(t *testing.T, p *pool) {
		p.give(100, hardBits)
		c := p.dial()
		ids := map[string]bool{}
		id, n := c.start("alice.rig")
		ids[id] = true
		start, ntime := time.Now(), n.NTime
		for i := range 5 {
			require.Equal(t, easy/difficulty.Difficulty(int(2)<<i), c.told())
			id, n := c.notify()
			require.False(t, ids[id])
			require.Greater(t, n.NTime, ntime)
			ids[id], ntime = true, n.NTime
			require.InDelta(t, float64(i+1)*5, time.Since(start).Seconds(), float64(i)+1)
		}
	})
}

func TestNobodyIsHurriedMoreThanOnceASecond(t *testing.T) {
	in(t, stratum.Options{NewPolicy: hasten(1, 0)}, func(t *testing.T, p *pool) {
		p.give(100, hardBits)
		c := p.dial()
		id, n := c.start("alice.rig")
		time.Sleep(1100 * time.Millisecond) // between two of the server's looks
		require.Equal(t, "true", c.submit(c.solve(id, n, easy, 0, false)))
		require.Equal(t, 2*easy, c.told())
		c.notify()
		for i := range 5 {
			time.Sleep(100 * time.Millisecond)
			require.Equal(t, "true", c.submit(c.solve(id, n, easy, uint32(i+1)<<20, false)), "with nothing between")
		}
		// One look comes too early, the next does it.
		asked := time.Now()
		require.Equal(t, 4*easy, c.told())
		c.notify()
		require.Equal(t, 1400*time.Millisecond, time.Since(asked))
	})
}

// Where the bounds leave the difficulty as it is, the miner keeps what it has, however much the policy would like more.
func TestAJobIsNotSentAgainForTheSameDifficulty(t *testing.T) {
	in(t, stratum.Options{NewPolicy: hasten(1, 0), StartDifficulty: easy, MinDifficulty: easy, MaxDifficulty: easy}, func(t *testing.T, p *pool) {
		p.give(100, hardBits)
		c := p.dial()
		id, n := c.start("alice.rig")
		for i := range 10 {
			time.Sleep(time.Second)
			require.Equal(t, "true", c.submit(c.solve(id, n, easy, uint32(i)<<16, false)))
		}
		require.Zero(t, p.server.Stats().Hurried)
	})
}

// A job that has not been sent to anybody, because the last one was a moment ago, is sent instead.
func TestAPolicyInAHurryGetsTheLatestJob(t *testing.T) {
	in(t, stratum.Options{NewPolicy: hasten(1, 0)}, func(t *testing.T, p *pool) {
		p.give(100, hardBits)
		c := p.dial()
		id, n := c.start("alice.rig")
		time.Sleep(time.Second)
		p.broadcast(100, hardBits)
		synctest.Wait()
		require.Equal(t, "true", c.submit(c.solve(id, n, easy, 0, false)))
		require.Equal(t, 2*easy, c.told())
		again, m := c.notify()
		require.Equal(t, "1", again)
		require.NotEqual(t, n.Coinb1, m.Coinb1)
		require.Equal(t, "true", c.submit(c.solve(again, m, 2*easy, 0, false)))
	})
}

// A difficulty that changes without end makes a session remember no more jobs than there is room for, no two of them
// under one name, and none is forgotten for it that is still mined.
func TestHurryIsBounded(t *testing.T) {
	up := func(*stratum.Session) difficulty.Policy { return &nervous{} }
	for _, software := range []string{"test", "NiceHash/1.0"} {
		in(t, stratum.Options{NewPolicy: up, NiceHash: stratum.NiceHashOptions{MinDifficulty: difficulty.Min},
			NotifyInterval: time.Hour}, func(t *testing.T, p *pool) {
			p.give(100, hardBits)
			c := p.dial()
			c.subscribe(software, "")
			c.letIn("alice.rig", "x")
			c.told()
			id, _ := c.notify()
			ids := map[string]bool{id: true}
			for range 127 {
				c.told()
				again, _ := c.notify()
				require.False(t, ids[again], "%s names two jobs", again)
				ids[again] = true
			}
			time.Sleep(5 * time.Minute)
			c.send(`{"id":9,"method":"mining.ping"}`)
			require.Contains(t, c.line(), "pong", "and nothing since")
			require.Equal(t, "23", c.submitRaw(fmt.Sprintf(`["alice.rig",%q,"0000000000000001","%08x","00000000"]`, id, time.Now().Unix())))
			for i := range 20 {
				p.give(int32(101+i), hardBits)
				c.told()
				next, _ := c.notify()
				require.False(t, ids[next], "%s names two jobs", next)
				ids[next] = true
			}
		})
	}
}

// A nervous policy is never content.
type nervous struct{ n int }

func (*nervous) Observe(time.Time, difficulty.Difficulty) {}
func (*nervous) Hurry(time.Time) bool                     { return true }
func (p *nervous) Next(time.Time) difficulty.Difficulty {
	p.n++
	return easy * difficulty.Difficulty(1+p.n%2)
}

// The machines of an agent hurry one by one, and each keeps the difficulty that its job went out with.
func TestAMachineInAHurry(t *testing.T) {
	machines := 0
	opts := stratum.Options{StartDifficulty: 16, MinDifficulty: 1, NewPolicy: func(s *stratum.Session) difficulty.Policy {
		if machines++; machines == 1 { // that of the agent itself
			return difficulty.Fixed(16)
		}
		return &hasty{d: 16, every: 3}
	}}
	in(t, opts, func(t *testing.T, p *pool) {
		p.give(100, hardBits)
		w := p.agentWire()
		require.EqualValues(t, 16, w.login("x", true))
		old := w.id
		w.send(registerFrame(1, "cgminer/4", "a") + registerFrame(2, "cgminer/4", "b"))
		w.nothingBut()
		time.Sleep(2 * time.Second)
		for i := range uint32(3) {
			w.send(submitFrame(2, w.id, i))
			w.response()
		}
		s := w.difficulties()
		require.EqualValues(t, 5, s.Exponent)
		require.Equal(t, []uint16{2}, s.SessionIDs)
		n := w.job()
		require.NotEqual(t, old, w.id)
		require.False(t, n.Clean)
		w.send(submitFrame(2, old, 10) + submitFrame(2, w.id, 10) + submitFrame(1, w.id, 11))
		for range 3 {
			w.response()
		}
		var got []difficulty.Difficulty
		for _, s := range p.recorded()[3:] {
			got = append(got, s.Difficulty)
		}
		require.Equal(t, []difficulty.Difficulty{16, 32, 16}, got)
		require.EqualValues(t, 1, p.server.Stats().Hurried)
	})
}

// A miner that comes back is sent the job that it was sent last, under the name it had.
func TestAHurriedSessionIsResumed(t *testing.T) {
	in(t, stratum.Options{NewPolicy: hasten(1, 0)}, func(t *testing.T, p *pool) {
		p.give(100, hardBits)
		c := p.dial()
		en1 := c.subscribe("test", "")
		c.letIn("alice.rig", "x")
		c.told()
		id, n := c.notify()
		time.Sleep(time.Second)
		require.Equal(t, "true", c.submit(c.solve(id, n, easy, 0, false)))
		require.Equal(t, 2*easy, c.told())
		again, m := c.notify()
		c.lost()
		c = p.dial()
		require.Equal(t, en1, c.subscribe("test", en1))
		c.letIn("alice.rig", "x")
		require.Equal(t, 2*easy, c.told())
		back, o := c.notify()
		require.Equal(t, again, back)
		require.Greater(t, o.NTime, m.NTime)
		require.Equal(t, "true", c.submit(c.solve(back, o, 2*easy, 0, false)))
		require.Equal(t, "true", c.submit(c.solve(id, n, easy, 1<<20, false)), "on its way when the connection broke")
	})
}

// Nobody hurries at a time of the header that the job does not have.
func TestHurryKeepsToTheTimesOfTheJob(t *testing.T) {
	in(t, stratum.Options{NewPolicy: hasten(1, 0)}, func(t *testing.T, p *pool) {
		fields := *makeJob(t, p.ids.Next(time.Now()), 100, hardBits)
		fields.MaxTime = fields.Time + 1
		j, err := job.New(fields)
		require.NoError(t, err)
		require.NoError(t, p.hub.Broadcast(t.Context(), j))
		synctest.Wait()
		c := p.dial()
		id, n := c.start("alice.rig")
		time.Sleep(time.Second)
		require.Equal(t, "true", c.submit(c.solve(id, n, easy, 0, false)))
		require.Equal(t, 2*easy, c.told())
		id, n = c.notify()
		require.Equal(t, fields.MaxTime, n.NTime)
		time.Sleep(2 * time.Second)
		require.Equal(t, "true", c.submit(c.solve(id, n, 2*easy, 0, false)))
		c.send(`{"id":9,"method":"mining.ping"}`)
		require.True(t, strings.Contains(c.line(), "pong"))
	})
}
