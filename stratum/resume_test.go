package stratum_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum"
	"github.com/stretchr/testify/require"
)

// A settable is a policy that goes on from where it is set, and stays there.
type settable struct{ d difficulty.Difficulty }

func (s *settable) Observe(time.Time, difficulty.Difficulty) {}
func (s *settable) Next(time.Time) difficulty.Difficulty     { return s.d }
func (s *settable) Reset(d difficulty.Difficulty)            { s.d = d }
func startAt(d difficulty.Difficulty) func(*stratum.Session) difficulty.Policy {
	return func(*stratum.Session) difficulty.Policy { return &settable{d} }
}

// subscribe names a session to go on from and returns the extranonce1 that the server gives it.
func (c *client) subscribe(agent, resumeID string) (en1 string) {
	c.t.Helper()
	c.send(fmt.Sprintf(`{"id":1,"method":"mining.subscribe","params":[%q,%q]}`, agent, resumeID))
	var reply struct{ Result []any }
	line := c.line()
	require.NoError(c.t, json.Unmarshal([]byte(line), &reply), line)
	require.Len(c.t, reply.Result, 3, line)
	en1 = reply.Result[1].(string)
	var err error
	c.en1, err = hex.DecodeString(en1)
	require.NoError(c.t, err)
	c.size = int(reply.Result[2].(float64))
	return en1
}

func (c *client) letIn(user, password string) {
	c.t.Helper()
	c.send(fmt.Sprintf(`{"id":2,"method":"mining.authorize","params":[%q,%q]}`, user, password))
	require.Equal(c.t, `{"id":2,"result":true,"error":null}`, c.line())
}

// told reads a mining.set_difficulty.
func (c *client) told() (d difficulty.Difficulty) {
	c.t.Helper()
	var m struct {
		Method string
		Params []difficulty.Difficulty
	}
	line := c.line()
	require.NoError(c.t, json.Unmarshal([]byte(line), &m), line)
	require.Equal(c.t, "mining.set_difficulty", m.Method, line)
	return m.Params[0]
}

// lost closes the connection and lets the server see it.
func (c *client) lost() {
	c.t.Helper()
	require.NoError(c.t, c.conn.Close())
	synctest.Wait()
}

const resumer = "cgminer/4.12.1"

// was leaves a session behind that had the address, and returns its id.
func (p *pool) was(ip, user string) (id string) {
	p.t.Helper()
	c := p.dialFrom(ip)
	id = c.subscribe(resumer, "")
	c.letIn(user, "x")
	c.told()
	c.notify()
	c.lost()
	return id
}

func TestASessionThatIsResumedGoesOnWhereItWas(t *testing.T) {
	in(t, stratum.Options{NewPolicy: startAt(easy)}, func(t *testing.T, p *pool) {
		p.give(100, hardBits)
		c := p.dial()
		en1 := c.subscribe(resumer, "")
		c.letIn("alice.rig", fmt.Sprint("d=", float64(easy/2), ",md=", float64(easy/2)))
		d := c.told()
		old, oldWork := c.notify()
		time.Sleep(time.Second)
		p.give(100, hardBits)
		id, n := c.notify()
		require.NotEqual(t, old, id)
		credited := c.solve(id, n, d, 0, false)
		require.Equal(t, "true", c.submit(credited))
		refused := c.solve(id, n, d, 0, true)
		require.Equal(t, "23", c.submit(refused))
		c.lost()
		require.Equal(t, 1, p.server.Stats().Parked)
		time.Sleep(9 * time.Second)

		other := p.dial()
		require.NotEqual(t, en1, other.subscribe(resumer, ""), "the prefix waits for its miner")

		c = p.dial()
		require.Equal(t, en1, c.subscribe(resumer, en1))
		c.letIn("alice.rig", "x")
		require.Equal(t, d, c.told())
		again, n := c.notify()
		require.Equal(t, id, again, "the work it had, under the id that it knows")
		require.True(t, n.Clean)
		require.Equal(t, "22", c.submit(credited), "what was paid once")
		require.Equal(t, "22", c.submit(refused))
		require.Equal(t, "true", c.submit(c.solve(id, n, d, hexNumber(credited.nonce)+1, false)))
		require.Equal(t, "true", c.submit(c.solve(old, oldWork, d, 0, false)), "a job from before")
		for _, s := range p.recorded() {
			require.Equal(t, d, s.Difficulty)
			require.Equal(t, en1, fmt.Sprintf("%08x", s.SessionID))
		}
		st := p.server.Stats()
		require.EqualValues(t, 1, st.Resumed)
		require.Zero(t, st.Parked)
		p.give(101, hardBits)
		_, n = c.notify() // the difficulty stays
		require.True(t, n.Clean)

		// And once more, from what was resumed.
		c.lost()
		c = p.dial()
		require.Equal(t, en1, c.subscribe(resumer, en1))
		c.letIn("alice.rig", "x")
		require.Equal(t, d, c.told())
		c.notify()
		require.Equal(t, "22", c.submit(credited))
	})
}

func TestWishesCountBeforeAResumedDifficulty(t *testing.T) {
	in(t, stratum.Options{NewPolicy: startAt(1024), StartDifficulty: 1024, MinDifficulty: 64}, func(t *testing.T, p *pool) {
		p.give(100, hardBits)
		c := p.dial()
		en1 := c.subscribe(resumer, "")
		c.letIn("alice.rig", "d=4096")
		require.EqualValues(t, 4096, c.told())
		c.notify()
		c.lost()
		p.give(101, hardBits)

		c = p.dial()
		require.Equal(t, en1, c.subscribe(resumer, en1))
		c.letIn("alice.rig", "d=256")
		require.EqualValues(t, 256, c.told(), "work that is new is at the wish")
		c.notify()
		c.lost()

		c = p.dial()
		require.Equal(t, en1, c.subscribe(resumer, en1))
		c.letIn("alice.rig", "d=512")
		require.EqualValues(t, 256, c.told(), "work from before is worth what it was")
		c.notify()
		p.give(102, hardBits)
		require.EqualValues(t, 512, c.told())
	})
}

func TestWhoCannotResume(t *testing.T) {
	type attempt struct {
		name   string
		ip     string
		agent  string
		id     func(id string) string
		wait   time.Duration
		resume time.Duration // Options.ResumeTime
		want   bool
	}
	same := func(id string) string { return id }
	const home = "10.0.0.1"
	for _, a := range []attempt{
		{"the miner itself", home, resumer, same, 0, 0, true},
		{"just in time", home, resumer, same, 10*time.Minute - 2*time.Second, 0, true},
		{"in capital letters", home, resumer, strings.ToUpper, 0, 0, true},
		{"another address", "10.0.0.2", resumer, same, 0, 0, false},
		{"another port of the address", home, resumer, same, 0, 0, true},
		{"other software", home, "cgminer/4.12.2", same, 0, 0, false},
		{"no software", home, "", same, 0, 0, false},
		{"too late", home, resumer, same, 10*time.Minute + 2*time.Second, 0, false},
		{"later than the server's time", home, resumer, same, 7 * time.Second, 5 * time.Second, false},
		{"a server without", home, resumer, same, 0, -1, false},
		{"no id", home, resumer, func(string) string { return "" }, 0, 0, false},
		{"an id that was never given", home, resumer, func(string) string { return "01fffff0" }, 0, 0, false},
		{"an id of another server", home, resumer, func(id string) string { return "02" + id[2:] }, 0, 0, false},
		{"too short", home, resumer, func(id string) string { return id[:7] }, 0, 0, false},
		{"too long", home, resumer, func(id string) string { return id + "0" }, 0, 0, false},
		{"a long one", home, resumer, func(id string) string { return strings.Repeat(id, 300) }, 0, 0, false},
		{"no number", home, resumer, func(string) string { return "0100000g" }, 0, 0, false},
		{"a sign", home, resumer, func(id string) string { return "+" + id[1:] }, 0, 0, false},
		{"junk", home, resumer, func(string) string { return "\x00\"\\\xff\n\t€x" }, 0, 0, false},
	} {
		t.Run(a.name, func(t *testing.T) {
			in(t, stratum.Options{ResumeTime: a.resume}, func(t *testing.T, p *pool) {
				p.give(100, hardBits)
				p.dial().subscribe("x", "") // so that the id is not the first
				id := p.was(home, "alice.rig")
				time.Sleep(a.wait)
				synctest.Wait()
				c := p.dialFrom(a.ip)
				quoted, err := json.Marshal(a.id(id))
				require.NoError(t, err)
				c.send(fmt.Sprintf(`{"id":1,"method":"mining.subscribe","params":[%q,%s]}`, a.agent, quoted))
				line := c.line()
				require.Equal(t, a.want, strings.Contains(line, `"`+id+`",8]`), line)
				want := int64(0)
				if a.want {
					want = 1
				}
				require.Equal(t, want, p.server.Stats().Resumed)
				c.letIn("alice.rig", "x")
				c.told()
				c.notify()
			})
		})
	}
}

func TestWhatLeavesNothingToResume(t *testing.T) {
	tests := []struct {
		name string
		live func(c *client) string
	}{
		{"a miner that never authorized", func(c *client) string { return c.subscribe(resumer, "") }},
		{"one that never subscribed", func(c *client) string {
			c.letIn("alice.rig", "x")
			return "01000000"
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			in(t, stratum.Options{}, func(t *testing.T, p *pool) {
				p.give(100, hardBits)
				c := p.dial()
				id := test.live(c)
				c.lost()
				require.Zero(t, p.server.Stats().Parked)
				require.NotEqual(t, id, p.dial().subscribe(resumer, id))
			})
		})
	}
	t.Run("before the first job", func(t *testing.T) {
		in(t, stratum.Options{}, func(t *testing.T, p *pool) {
			c := p.dial()
			id := c.subscribe(resumer, "")
			c.letIn("alice.rig", "x")
			c.lost()
			require.Zero(t, p.server.Stats().Parked)
			require.NotEqual(t, id, p.dial().subscribe(resumer, id))
		})
	})
}

func TestALiveSessionIsNeverTakenOver(t *testing.T) {
	tests := []struct {
		name, ip, agent string
		wait            time.Duration
	}{
		{"by one that could be the same miner, which is waited for", "10.0.0.1", resumer, 250 * time.Millisecond},
		{"by another address", "10.0.0.2", resumer, 0},
		{"by other software", "10.0.0.1", "other", 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			in(t, stratum.Options{}, func(t *testing.T, p *pool) {
				p.give(100, hardBits)
				live := p.dialFrom("10.0.0.1")
				id := live.subscribe(resumer, "")
				live.letIn("alice.rig", "x")
				live.told()
				jobID, n := live.notify()
				began := time.Now()
				thief := p.dialFrom(test.ip)
				require.NotEqual(t, id, thief.subscribe(test.agent, id))
				require.Equal(t, test.wait, time.Since(began))
				require.Equal(t, "true", live.submit(live.solve(jobID, n, easy, 0, false)))
				require.Zero(t, p.server.Stats().Resumed)
				require.Equal(t, 2, p.server.Stats().Sessions)
			})
		})
	}
	t.Run("by itself", func(t *testing.T) {
		in(t, stratum.Options{}, func(t *testing.T, p *pool) {
			c := p.dial()
			began := time.Now()
			id := c.subscribe(resumer, "01000000")
			require.Equal(t, "01000000", id, "the first that the server gives")
			require.Equal(t, id, c.subscribe(resumer, id))
			require.Zero(t, time.Since(began))
			require.Zero(t, p.server.Stats().Resumed)
		})
	})
}

// A miner often connects again before the server knows that it has left.
func TestASessionThatIsAboutToEndIsWaitedFor(t *testing.T) {
	in(t, stratum.Options{}, func(t *testing.T, p *pool) {
		p.give(100, hardBits)
		old := p.dial()
		id := old.subscribe(resumer, "")
		old.letIn("alice.rig", "x")
		old.told()
		jobID, n := old.notify()
		w := old.solve(jobID, n, easy, 0, false)
		require.Equal(t, "true", old.submit(w))
		// Two claim it; one of them gets it.
		var claims [2]string
		var conns [2]*client
		var wg sync.WaitGroup
		began := time.Now()
		for i := range claims {
			conns[i] = p.dial()
			wg.Go(func() { claims[i] = conns[i].subscribe(resumer, id) })
		}
		time.Sleep(100 * time.Millisecond)
		require.Empty(t, claims[0]+claims[1])
		require.NoError(t, old.conn.Close())
		wg.Wait()
		require.Less(t, time.Since(began), 250*time.Millisecond)
		require.NotEqual(t, claims[0], claims[1])
		require.Contains(t, claims, id)
		require.EqualValues(t, 1, p.server.Stats().Resumed)
		c := conns[0]
		if claims[1] == id {
			c = conns[1]
		}
		c.letIn("alice.rig", "x")
		c.told()
		c.notify()
		require.Equal(t, "22", c.submit(w))
	})
}

// A second subscribe is answered as the first was, whatever it names.
func TestAMinerThatHasItsExtranonceKeepsIt(t *testing.T) {
	in(t, stratum.Options{}, func(t *testing.T, p *pool) {
		p.give(100, hardBits)
		parked := p.was("127.0.0.1", "alice.rig")
		c := p.dial()
		id := c.subscribe(resumer, "")
		require.NotEqual(t, parked, id)
		require.Equal(t, id, c.subscribe(resumer, parked))
		c.letIn("alice.rig", "x")
		c.told()
		jobID, n := c.notify()
		require.Equal(t, id, c.subscribe(resumer, parked))
		require.Equal(t, "true", c.submit(c.solve(jobID, n, easy, 0, false)))
		require.Equal(t, 1, p.server.Stats().Parked)
	})
}

func TestTheOldestOfTooManyLostSessionsIsGivenUp(t *testing.T) {
	in(t, stratum.Options{MaxParked: 2}, func(t *testing.T, p *pool) {
		p.give(100, hardBits)
		var ids []string
		for i := range 3 {
			ids = append(ids, p.was("127.0.0.1", fmt.Sprintf("alice.rig%d", i)))
			time.Sleep(time.Second)
		}
		require.Equal(t, 2, p.server.Stats().Parked)
		for i, id := range ids {
			require.Equal(t, i > 0, p.dial().subscribe(resumer, id) == id, "session %d", i)
		}
		require.Zero(t, p.server.Stats().Parked)
	})
}

// A ledger is an allocator that writes down what it is asked.
type ledger struct {
	*stratum.Prefixes
	mu       sync.Mutex
	released map[string]time.Duration // since it began
	twice    bool
	began    time.Time
}

func newLedger() *ledger {
	return &ledger{Prefixes: stratum.NewPrefixes(1, time.Hour), released: make(map[string]time.Duration)}
}

func (l *ledger) Release(prefix uint32, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	id := fmt.Sprintf("%08x", prefix)
	_, l.twice = l.released[id]
	l.released[id] = now.Sub(l.began).Truncate(time.Minute)
	l.Prefixes.Release(prefix, now)
}

func (l *ledger) at(id string) (after time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	after, ok = l.released[id]
	return after, ok
}

// A prefix that waits for its miner goes back to the allocator, and into quarantine, only when nobody came for it.
func TestThePrefixOfALostSessionIsHeld(t *testing.T) {
	l := newLedger()
	in(t, stratum.Options{Extranonces: l}, func(t *testing.T, p *pool) {
		l.began = time.Now()
		p.give(100, hardBits)
		never := p.was("127.0.0.1", "alice.never")
		again := p.was("127.0.0.1", "alice.again")
		time.Sleep(5 * time.Minute)
		for _, id := range []string{never, again} {
			_, ok := l.at(id)
			require.False(t, ok)
		}
		c := p.dial()
		require.Equal(t, again, c.subscribe(resumer, again))
		c.letIn("alice.again", "x")
		require.Len(t, l.released, 1, "the prefix that it had not been told of")
		go c.discard()
		time.Sleep(5*time.Minute + 2*time.Second)
		after, ok := l.at(never)
		require.True(t, ok)
		require.Equal(t, 10*time.Minute, after)
		_, ok = l.at(again)
		require.False(t, ok, "it is in use")
		require.Zero(t, p.server.Stats().Parked)
		c.lost()
		time.Sleep(10*time.Minute + 2*time.Second)
		after, ok = l.at(again)
		require.True(t, ok)
		require.Equal(t, 20*time.Minute, after)
		require.False(t, l.twice)
	})
}

// A miner that was moved holds both prefixes, and gives both back in the end.
func TestAMovedSessionIsResumedWithAllItHad(t *testing.T) {
	l := newLedger()
	in(t, stratum.Options{Extranonces: l}, func(t *testing.T, p *pool) {
		l.began = time.Now()
		p.give(100, hardBits)
		c := p.dial()
		first := c.subscribe(resumer, "")
		c.send(`{"id":5,"method":"mining.extranonce.subscribe","params":[]}`)
		c.line()
		c.letIn("alice.rig", "x")
		c.told()
		old, oldWork := c.notify()
		before := c.en1
		p.server.Sessions(func(s *stratum.Session) bool {
			moved := make(chan error, 1)
			go func() { moved <- s.Move() }()
			line := c.line()
			require.Contains(t, line, "mining.set_extranonce")
			require.NoError(t, <-moved)
			second := fmt.Sprintf("%08x", s.Prefix())
			require.Contains(t, line, second)
			c.en1, _ = hex.DecodeString(second)
			return true
		})
		second := hex.EncodeToString(c.en1)
		p.give(101, hardBits)
		id, n := c.notify()
		w := c.solve(id, n, easy, 0, false)
		require.Equal(t, "true", c.submit(w))
		c.lost()

		c = p.dial()
		require.NotEqual(t, first, c.subscribe(resumer, first), "it is nobody's session any more")
		c.lost()
		c = p.dial()
		require.Equal(t, second, c.subscribe(resumer, second))
		c.letIn("alice.rig", "x")
		c.told()
		c.notify()
		require.Equal(t, "22", c.submit(w))
		c.en1 = before
		require.Equal(t, "21", c.submit(c.solve(old, oldWork, easy, 0, false)), "stale, and with the prefix it was sent with")
		require.EqualValues(t, 1, p.server.Stats().Verdicts[share.Stale])
		for _, id := range []string{first, second} {
			_, ok := l.at(id)
			require.False(t, ok)
		}
		c.lost()
		time.Sleep(10*time.Minute + 2*time.Second)
		for _, id := range []string{first, second} {
			_, ok := l.at(id)
			require.True(t, ok)
		}
		require.False(t, l.twice)
	})
}

func TestAWorkerThatComesBackHasItsDifficulty(t *testing.T) {
	tests := []struct {
		name, user, password string
		wait                 time.Duration
		want                 difficulty.Difficulty
	}{
		{"the same worker", "alice.rig", "x", time.Minute, 4096},
		{"with a wish of its own", "alice.rig", "d=256", time.Minute, 256},
		{"another worker", "alice.rig2", "x", time.Minute, 1024},
		{"another user", "bob.rig", "x", time.Minute, 1024},
		{"when the session cannot be resumed", "alice.rig", "x", 23 * time.Hour, 4096},
		{"when it is too late", "alice.rig", "x", 25 * time.Hour, 1024},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			in(t, stratum.Options{NewPolicy: startAt(1024), StartDifficulty: 1024, MinDifficulty: 64}, func(t *testing.T, p *pool) {
				p.give(100, hardBits)
				c := p.dial()
				c.subscribe("one/1", "")
				c.letIn("alice.rig", "d=4096")
				require.EqualValues(t, 4096, c.told())
				c.notify()
				c.lost()
				time.Sleep(test.wait)
				c = p.dialFrom("10.9.8.7")
				c.subscribe("two/2", "") // without the id, from elsewhere
				c.letIn(test.user, test.password)
				require.Equal(t, test.want, c.told())
				require.Zero(t, p.server.Stats().Resumed)
			})
		})
	}
}

// Real sockets are waited for by a poller, which must not wait for a session that is about to end.
func TestResumingOverTCP(t *testing.T) {
	p, addr := onTCP(t, stratum.Options{NewPolicy: startAt(easy)})
	p.give(100, hardBits)
	t.Run("miners", func(t *testing.T) {
		for i := range 8 {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				dial := func() *client {
					conn, err := net.Dial("tcp", addr)
					require.NoError(t, err)
					return newClient(t, conn)
				}
				user := fmt.Sprintf("alice.rig%d", i)
				c := dial()
				id := c.subscribe(resumer, "")
				c.letIn(user, "x")
				d := c.told()
				jobID, n := c.notify()
				var paid []work
				for round := range 5 {
					w := c.solve(jobID, n, d, uint32(round)<<24, false)
					require.Equal(t, "true", c.submit(w))
					paid = append(paid, w)
					if round%2 == 0 {
						require.NoError(t, c.conn.(*net.TCPConn).SetLinger(0)) // a reset
					}
					require.NoError(t, c.conn.Close())
					c = dial()
					require.Equal(t, id, c.subscribe(resumer, id))
					c.letIn(user, "x")
					require.Equal(t, d, c.told())
					again, _ := c.notify()
					require.Equal(t, jobID, again)
					for _, w := range paid {
						require.Equal(t, "22", c.submit(w))
					}
				}
			})
		}
	})
	require.EqualValues(t, 40, p.server.Stats().Resumed)
	require.Equal(t, 40, p.credited())
}

// What a miner asked for once holds in the session it comes back to, also under a policy that nobody can tell of it.
func TestAWishSurvivesTheConnection(t *testing.T) {
	for name, password := range map[string]string{"d= under a fixed policy": "d=4096", "fd= under any": "fd=4096"} {
		opts := stratum.Options{StartDifficulty: 1024, MinDifficulty: 1}
		if strings.HasPrefix(password, "fd") {
			opts.NewPolicy = startAt(1024)
		}
		t.Run(name, func(t *testing.T) {
			in(t, opts, func(t *testing.T, p *pool) {
				p.broadcast(100, hardBits)
				synctest.Wait()
				c := p.dialFrom("10.1.2.3")
				session := c.subscribe("miner/1", "")
				c.letIn("alice.rig", password)
				require.Equal(t, `{"id":null,"method":"mining.set_difficulty","params":[4096]}`, c.line())
				c.conn.Close()
				synctest.Wait()
				again := p.dialFrom("10.1.2.3")
				require.Equal(t, session, again.subscribe("miner/1", session))
				again.letIn("alice.rig", "x")
				require.Equal(t, `{"id":null,"method":"mining.set_difficulty","params":[4096]}`, again.line())
				again.notify()
				p.broadcast(101, hardBits)
				_, n := again.notify() // and no other difficulty before it
				require.True(t, n.Clean)
			})
		})
	}
}
