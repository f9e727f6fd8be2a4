package stratum_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum"
	"github.com/poolkit/poolkit/stratum/stratumtest"
	"github.com/stretchr/testify/require"
)

// The tests in this file are about bans and limits as a miner sees them. The rules themselves are tested beside guard.

// window is how many submits are judged at a time.
const window = 500

// dialFrom connects from an address. Those of this machine have no limits.
func (p *pool) dialFrom(ip string) *client {
	p.t.Helper()
	conn, err := p.ln.DialFrom(p.t.Context(), &net.TCPAddr{IP: net.ParseIP(ip), Port: 4444})
	require.NoError(p.t, err)
	return newClient(p.t, conn)
}

// authorize logs a worker in and returns the reply.
func (c *client) authorize(worker string) string {
	c.t.Helper()
	c.send(fmt.Sprintf(`{"id":2,"method":"mining.authorize","params":[%q,"x"]}`, worker))
	return c.line()
}

// misbehave sends malformed submits, as many as a window has, without going over the request rate.
func (c *client) misbehave(n int) {
	c.t.Helper()
	for i := range n {
		if i%100 == 0 {
			time.Sleep(time.Second)
		}
		require.Equal(c.t, "27", c.submitRaw(`["alice.rig","0","0000000000000000","00000000","xyz"]`), "submit %d", i)
	}
}

// mineWell submits good shares. Each is another one.
func (c *client) mineWell(id string, ntime uint32, from, n int) {
	c.t.Helper()
	for i := range n {
		if i%100 == 0 {
			time.Sleep(time.Second)
		}
		require.Equal(c.t, "true", c.submitRaw(fmt.Sprintf(`["alice.rig",%q,"0000000000000000","%08x","%08x"]`, id, ntime, from+i)))
	}
}

// anyHash is a difficulty that every hash meets, so that a share is a number.
func anyHash(limits stratum.Limits) stratum.Options {
	return stratum.Options{
		StartDifficulty: difficulty.Min, MinDifficulty: difficulty.Min, Limits: limits,
		NotifyInterval: 1000 * time.Hour,
		NewPolicy:      func(*stratum.Session) difficulty.Policy { return difficulty.Fixed(difficulty.Min) },
	}
}

const (
	farm  = "203.0.113.7"
	other = "198.51.100.9"
)

// disgrace takes a worker through the first two grades, on two connections.
func (p *pool) disgrace(ip, worker string) {
	p.t.Helper()
	c := p.dialFrom(ip)
	c.start(worker)
	c.misbehave(window)
	require.Contains(p.t, c.line(), "client.show_message")
	require.Contains(p.t, c.line(), "mining.set_difficulty")
	c.notify()
	c.misbehave(window)
	require.Contains(p.t, c.line(), "client.show_message")
	require.Contains(p.t, c.line(), "[28,")
	c.ended()
}

// TestBansByTheGrades goes through all grades of one worker: it is warned, with its difficulty and a clean job; then
// disconnected; then banned, and told each time why and for how long. All the while others at its address mine.
func TestBansByTheGrades(t *testing.T) {
	reasons := make(chan error, 100)
	opts := anyHash(stratum.Limits{})
	opts.Hooks.Disconnected = func(_ *stratum.Session, reason error) { reasons <- reason }
	in(t, opts, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		neighbour := p.dialFrom(farm)
		nid, nn := neighbour.start("bob.rig")
		neighbour.mineWell(nid, nn.NTime, 0, 10)

		c := p.dialFrom(farm)
		id, n := c.start("alice.rig")
		c.misbehave(window)
		require.Equal(t, `{"id":null,"method":"client.show_message","params":["100% of 500 submits were invalid; here are your difficulty `+
			`and a new job, please start afresh. If it goes on, you are disconnected"]}`, c.line())
		require.Contains(t, c.line(), "mining.set_difficulty")
		again, clean := c.notify()
		require.Equal(t, id, again)
		require.True(t, clean.Clean)
		c.misbehave(window)
		const second = "disconnected: 100% of 500 submits were invalid. You may connect again; if it goes on, this worker is banned for 10 minutes"
		require.Equal(t, `{"id":null,"method":"client.show_message","params":["`+second+`"]}`, c.line())
		require.Equal(t, `{"id":null,"result":null,"error":[28,"`+second+`",null]}`, c.line())
		c.ended()

		c = p.dialFrom(farm)
		c.start("alice.rig")
		require.Empty(t, p.server.Bans())
		c.misbehave(window)
		const third = "banned for 10 minutes: 100% of 500 submits were invalid, after a warning and a disconnect"
		require.Equal(t, `{"id":null,"method":"client.show_message","params":["`+third+`"]}`, c.line())
		require.Equal(t, `{"id":null,"result":null,"error":[28,"`+third+`",null]}`, c.line())
		c.ended()

		time.Sleep(time.Minute)
		c = p.dialFrom(farm)
		const banned = `{"id":2,"result":null,"error":[28,"banned for 9 more minutes: 100% of 500 submits were invalid",null]}`
		require.Equal(t, banned, c.authorize("alice.rig"))
		require.Equal(t, banned, c.authorize("ALICE.rig"), "however it is written")
		require.Contains(t, c.authorize("alice.other"), `"result":true`, "another rig of the farm")
		require.Equal(t, []stratum.BanInfo{{
			Address: netip.MustParsePrefix(farm + "/32"), Worker: share.Worker{User: "alice", Name: "rig"},
			Left: 9 * time.Minute, Times: 1, Reason: "100% of 500 submits were invalid",
		}}, p.server.Bans())
		p.dialFrom(other).start("alice.rig") // nobody can ban a name from elsewhere
		neighbour.mineWell(nid, nn.NTime, 100, 10)

		thrice := p.dialFrom(farm)
		for range 3 {
			require.Contains(t, thrice.authorize("alice.rig"), "[28,")
		}
		thrice.ended()

		time.Sleep(9 * time.Minute)
		c = p.dialFrom(farm)
		c.start("alice.rig")
		require.Empty(t, p.server.Bans())
		c.misbehave(window) // its record has not been forgotten
		require.Contains(t, c.line(), "banned for 20 minutes")
		require.Contains(t, c.line(), "[28,")
		c.ended()
		st := p.server.Stats().Limits
		require.Equal(t, int64(1), st.Warned)
		require.Equal(t, int64(1), st.Disconnected)
		require.Equal(t, int64(2), st.WorkerBans)
		require.Equal(t, 1, st.BannedWorkers)
		require.Zero(t, st.AddressBans)
		require.Equal(t, int64(5), st.LoginsBanned)

		require.Zero(t, p.server.Unban(netip.MustParseAddr(other), share.Worker{User: "alice", Name: "rig"}))
		require.Equal(t, 1, p.server.Unban(netip.MustParseAddr(farm), share.Worker{User: "alice", Name: "rig"}))
		require.Empty(t, p.server.Bans())
		c = p.dialFrom(farm)
		id, n = c.start("alice.rig")
		c.mineWell(id, n.NTime, 1<<20, 1)
		synctest.Wait()
		bans := 0
		for len(reasons) > 0 {
			if errors.Is(<-reasons, stratum.ErrBanned) {
				bans++
			}
		}
		require.Equal(t, 4, bans, "a disconnect, two bans, three refused logins and no more")
	})
}

// TestAMinerThatMendsIsNotBanned is warned and starts afresh, which takes it back.
func TestAMinerThatMendsIsNotBanned(t *testing.T) {
	in(t, anyHash(stratum.Limits{}), func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dialFrom(farm)
		id, n := c.start("alice.rig")
		for round := range 5 {
			c.misbehave(window)
			require.Contains(t, c.line(), "If it goes on, you are disconnected", "round %d", round)
			require.Contains(t, c.line(), "mining.set_difficulty")
			c.notify()
			c.mineWell(id, n.NTime, round*window, window)
		}
		require.Equal(t, int64(5), p.server.Stats().Limits.Warned)
	})
}

// TestAnAddressOfBadWorkersOnly is banned as a whole, when connecting. With one rig that mines well it never is.
func TestAnAddressOfBadWorkersOnly(t *testing.T) {
	for _, good := range []bool{false, true} {
		t.Run(fmt.Sprintf("good neighbour %v", good), func(t *testing.T) {
			in(t, anyHash(stratum.Limits{BadWorkers: 3}), func(t *testing.T, p *pool) {
				p.broadcast(100, hardBits)
				synctest.Wait()
				if good {
					c := p.dialFrom(farm)
					id, n := c.start("good.rig")
					c.mineWell(id, n.NTime, 0, 10)
				}
				for i := range 3 {
					p.disgrace(farm, fmt.Sprintf("bad.rig%d", i))
				}
				synctest.Wait()
				c := p.dialFrom(farm)
				if good {
					c.start("alice.rig")
					require.Zero(t, p.server.Stats().Limits.BannedAddresses)
					return
				}
				require.Equal(t, `{"id":null,"result":null,"error":[28,"your address is banned for 10 more minutes: `+
					`100% of 500 submits were invalid, as of other workers there",null]}`, c.line())
				c.ended()
				p.dialFrom(other).start("bad.rig1")
				bans := p.server.Bans()
				require.Len(t, bans, 1)
				require.Equal(t, netip.MustParsePrefix(farm+"/32"), bans[0].Address)
				require.Zero(t, bans[0].Worker)
				require.Equal(t, int64(1), p.server.Stats().Limits.AddressBans)
				require.Equal(t, int64(1), p.server.Stats().Limits.RefusedBanned)

				require.Equal(t, 1, p.server.Unban(netip.MustParseAddr(farm), share.Worker{}))
				p.dialFrom(farm).start("alice.rig")
			})
		})
	}
}

// TestAFarmBehindNATWithOneBadRig has hundreds of rigs behind one address, of which one sends nothing but nonsense for
// an hour. It alone is told, and nobody else notices.
func TestAFarmBehindNATWithOneBadRig(t *testing.T) {
	opts := anyHash(stratum.Limits{})
	opts.StaleGrace = time.Minute
	in(t, opts, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		type rig struct {
			*client
			id    string
			ntime uint32
		}
		var rigs []rig
		for i := range 200 {
			c := p.dialFrom(farm)
			id, n := c.start(fmt.Sprintf("alice.rig%d", i))
			rigs = append(rigs, rig{c, id, n.NTime})
		}
		refused := 0
		for hour := range 12 {
			bad := p.dialFrom(farm)
			if strings.Contains(bad.authorize("alice.bad"), "[28,") {
				refused++
			} else {
				for i := range window {
					if i%100 == 0 {
						time.Sleep(time.Second)
					}
					bad.submitRaw(`["alice.bad","0","0","0","0"]`)
				}
			}
			bad.conn.Close()
			for _, r := range rigs {
				r.send(fmt.Sprintf(`{"id":9,"method":"mining.submit","params":["a",%q,"0000000000000000","%08x","%08x"]}`, r.id, r.ntime, hour))
				require.Contains(t, r.line(), `"id":9,"result":true`)
			}
			time.Sleep(5 * time.Minute / 12)
		}
		require.Positive(t, refused, "the bad one is banned in the end")
		require.Zero(t, p.server.Stats().Limits.AddressBans)
		require.Equal(t, 1, p.server.Stats().Limits.BannedWorkers)
		require.Equal(t, 200, p.server.Stats().States[stratum.Authorized])
	})
}

// TestTheAllowList tells and disconnects its miners as all others, but bans nobody.
func TestTheAllowList(t *testing.T) {
	limits := stratum.Limits{AllowList: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}, MaxPerAddress: 1, BadWorkers: 1}
	in(t, anyHash(limits), func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		for range 3 {
			c := p.dialFrom(farm)
			c.start("alice.rig")
			c.misbehave(window)
			for line := c.line(); !strings.Contains(line, "mining.notify"); line = c.line() {
				require.NotContains(t, line, "banned")
			}
			c.misbehave(window)
			require.Contains(t, c.line(), "disconnected: 100% of 500 submits were invalid. You may connect again")
			require.Contains(t, c.line(), "[28,")
			c.ended()
		}
		p.dialFrom(farm).start("alice.rig")
		p.dialFrom(farm).start("bob.rig")
		require.Empty(t, p.server.Bans())
		require.Zero(t, p.server.Stats().Limits.WorkerBans)

		p.dialFrom(other).start("carol.rig")
		c := p.dialFrom(other)
		require.Contains(t, c.line(), "1 connections from your address are open")
		c.ended()
	})
}

// TestRequestsAboveTheRateAreHeldBack sends more than a session may. All of it is answered, at the rate; who goes on for
// longer than the server's patience is told and closed, and others are not slowed.
func TestRequestsAboveTheRateAreHeldBack(t *testing.T) {
	in(t, anyHash(stratum.Limits{RequestRate: 100, RequestBurst: 200}), func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dial() // of this machine: the rate is the session's, not the address's
		c.start("alice.rig")
		const requests = 3200
		start := time.Now()
		go func() {
			for i := range requests {
				if _, err := fmt.Fprintf(c.conn, `{"id":%d,"method":"mining.ping"}`+"\n", i); err != nil {
					return
				}
			}
		}()
		for i := range requests {
			require.Equal(t, fmt.Sprintf(`{"id":%d,"result":"pong","error":null}`, i), c.line())
			if i == 1600 {
				quick := p.dial()
				before := time.Now()
				quick.start("bob.rig")
				require.Equal(t, before, time.Now())
			}
		}
		require.InDelta(t, (requests-200)/100, time.Since(start).Seconds(), 3)
		st := p.server.Stats().Limits
		require.Equal(t, int64(1), st.Throttled)
		require.Zero(t, st.TooFast)
	})
}

func TestAFloodOfRequestsIsClosedInTheEnd(t *testing.T) {
	for _, good := range []bool{false, true} {
		t.Run(fmt.Sprintf("mines well %v", good), func(t *testing.T) {
			why := make(chan error, 1)
			opts := anyHash(stratum.Limits{})
			opts.Hooks.Disconnected = func(_ *stratum.Session, reason error) { why <- reason }
			in(t, opts, func(t *testing.T, p *pool) {
				p.broadcast(100, hardBits)
				synctest.Wait()
				c := p.dial()
				id, n := c.start("alice.rig")
				if good {
					c.mineWell(id, n.NTime, 0, 1)
				}
				start := time.Now()
				stop := make(chan struct{})
				go func() {
					pings := []byte(strings.Repeat(`{"id":3,"method":"mining.ping"}`+"\n", 50))
					for {
						select {
						case <-stop:
							return
						default:
						}
						if _, err := c.conn.Write(pings); err != nil {
							return
						}
					}
				}()
				defer close(stop)
				for time.Since(start) < 3*time.Minute {
					line, err := c.r.ReadLine()
					require.NoError(t, err)
					if !strings.Contains(string(line), "pong") {
						require.False(t, good)
						require.Equal(t, `{"id":null,"result":null,"error":[20,"too many requests for too long",null]}`, string(line))
						c.ended()
						synctest.Wait()
						require.ErrorIs(t, <-why, stratum.ErrTooMany)
						require.GreaterOrEqual(t, time.Since(start), time.Minute)
						require.Equal(t, int64(1), p.server.Stats().Limits.TooFast)
						return
					}
				}
				require.True(t, good, "three minutes are too long")
				c.conn.Close()
			})
		})
	}
}

// A countingAuthorizer knows nobody and counts how often it was asked.
type countingAuthorizer struct{ asked, known atomic.Int64 }

func (a *countingAuthorizer) Authorize(_ context.Context, w share.Worker, _ string) (int32, error) {
	a.asked.Add(1)
	if a.known.Load() == 0 && w.User != "bob" {
		return 0, fmt.Errorf("%w: %s", stratum.ErrUnknownUser, w.User)
	}
	return 1, nil
}

// openWith is open with another Authorizer.
func openWith(t testing.TB, auth stratum.Authorizer, opts stratum.Options) *pool {
	t.Helper()
	p := newPool(t, opts) // for its hub and its sinks
	p.ln = stratumtest.Listen()
	opts.StartDifficulty, opts.MinDifficulty = easy, easy
	if opts.NewPolicy == nil {
		opts.NewPolicy = func(*stratum.Session) difficulty.Policy { return difficulty.Fixed(easy) }
	}
	var err error
	opts.AboveNetwork = true
	p.server, err = stratum.New(p.hub, auth, p, p, &opts)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.server.Serve(ctx, p.ln) }()
	t.Cleanup(func() { cancel(); require.NoError(t, <-done) })
	return p
}

// TestFailedLoginsAreNotLookedUpEachTime is a farm with a typing error in its user name, which comes back and back. The
// Authorizer is asked ever more rarely; another worker at the address is let in, and so is this one once it is known.
func TestFailedLoginsAreNotLookedUpEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		auth := new(countingAuthorizer)
		p := openWith(t, auth, stratum.Options{})
		p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dialFrom(farm)
		require.Equal(t, `{"id":2,"result":null,"error":[29,"Invalid username",null]}`, c.authorize("alice.rig"))
		require.Equal(t, int64(1), auth.asked.Load())
		require.Equal(t, `{"id":2,"result":null,"error":[29,"unknown user, refused 1 times; not looked up again for 1 second",null]}`,
			c.authorize("alice.rig"))
		require.Equal(t, int64(1), auth.asked.Load())
		p.dialFrom(farm).start("bob.rig")
		require.Equal(t, int64(2), auth.asked.Load())
		c.authorize("alice.rig")
		c.ended()

		tries := 0
		for start := time.Now(); time.Since(start) < 2*time.Hour; tries++ {
			c := p.dialFrom(farm)
			require.Contains(t, c.authorize("alice.rig"), "[29,")
			c.conn.Close()
			time.Sleep(10 * time.Second)
		}
		asked := auth.asked.Load() - 2
		require.Greater(t, tries, 700)
		require.Less(t, asked, int64(30))
		require.Greater(t, asked, int64(10), "every ten minutes all the same")
		require.Equal(t, int64(tries), p.server.Stats().Limits.LoginsDelayed+asked-2)
		c = p.dialFrom(other)
		require.Contains(t, c.authorize("alice.rig"), "Invalid username", "elsewhere it is asked at once")

		auth.known.Store(1)
		time.Sleep(10 * time.Minute)
		c = p.dialFrom(farm)
		c.start("alice.rig")
	})
}

// TestAStormOfStaleSharesBansNobody is what a pool once banned its miners for: after a block each of them sends
// thousands of shares of the old one.
func TestAStormOfStaleSharesBansNobody(t *testing.T) {
	in(t, anyHash(stratum.Limits{}), func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dialFrom(farm)
		old, n := c.start("alice.rig")
		p.broadcast(101, hardBits)
		id, now := c.notify()
		for i := range 6 * window {
			if i%100 == 0 {
				time.Sleep(time.Second)
			}
			require.Equal(t, "21", c.submitRaw(fmt.Sprintf(`["a",%q,"0000000000000000","%08x","%08x"]`, old, n.NTime, i)))
		}
		for i := range 3 * window {
			if i%100 == 0 {
				time.Sleep(time.Second)
			}
			require.Equal(t, "21", c.submitRaw(fmt.Sprintf(`["a","77","0000000000000000","%08x","%08x"]`, n.NTime, i)), "an unknown job")
		}
		require.Equal(t, "true", c.submitRaw(fmt.Sprintf(`["a",%q,"0000000000000000","%08x","00000000"]`, id, now.NTime)))
		st := p.server.Stats().Limits
		require.Zero(t, st.Warned)
		require.Empty(t, p.server.Bans())
	})
}

// TestBansOfAgents judges a farm behind an agent as a whole: one machine of many that sends nonsense ends nothing, and a
// farm that sends nothing else is disconnected, then banned.
func TestBansOfAgents(t *testing.T) {
	for _, test := range []struct {
		name string
		bad  int // of ten machines
		ends bool
	}{{"one machine of ten", 1, false}, {"nine machines of ten", 9, true}} {
		t.Run(test.name, func(t *testing.T) {
			opts := anyHash(stratum.Limits{})
			opts.StartDifficulty, opts.MinDifficulty = easy, easy
			opts.NewPolicy = func(*stratum.Session) difficulty.Policy { return difficulty.Fixed(easy) }
			in(t, opts, func(t *testing.T, p *pool) {
				p.broadcast(100, hardBits)
				synctest.Wait()
				login := func() (*stratumtest.Agent, *stratumtest.AgentJob, error) {
					conn, err := p.ln.DialFrom(t.Context(), &net.TCPAddr{IP: net.ParseIP(farm), Port: 4444})
					require.NoError(t, err)
					a := stratumtest.NewAgent(conn, &stratumtest.AgentOptions{User: "alice", ReadTimeout: -1})
					t.Cleanup(func() { a.Close() })
					if err := a.Handshake(t.Context()); err != nil {
						return a, nil, err
					}
					for i := range uint16(10) {
						require.NoError(t, a.Register(t.Context(), i, "cgminer/4.12.1", fmt.Sprintf("rig%d", i)))
					}
					j, err := a.NextJob(t.Context())
					return a, j, err
				}
				// mine submits a window's worth and returns the error that ended it.
				mine := func(a *stratumtest.Agent, j *stratumtest.AgentJob) error {
					for i := range window {
						if i%100 == 0 {
							time.Sleep(time.Second)
						}
						id := uint16(i % 10)
						s, err := a.SolveTarget(t.Context(), j, id, difficulty.Min.Target())
						require.NoError(t, err)
						if int(id) >= test.bad {
							s, err = a.Solve(t.Context(), j, id)
							require.NoError(t, err)
						}
						if _, err := a.Submit(t.Context(), id, s); err != nil {
							return err
						}
					}
					return nil
				}
				a, j, err := login()
				require.NoError(t, err)
				for range 1 + 2*test.bad/9 {
					if err = mine(a, j); err != nil {
						break
					}
				}
				synctest.Wait()
				if !test.ends {
					require.NoError(t, err)
					require.Equal(t, 1, p.server.Stats().Sessions)
					require.Zero(t, p.server.Stats().Limits.Warned)
					return
				}
				require.Zero(t, p.server.Stats().Sessions, "disconnected")
				require.Equal(t, int64(1), p.server.Stats().Limits.Disconnected)
				a, j, err = login()
				require.NoError(t, err)
				_ = mine(a, j)
				synctest.Wait()
				require.Equal(t, int64(1), p.server.Stats().Limits.WorkerBans)
				_, _, err = login()
				require.ErrorContains(t, err, "banned for 10 more minutes")
			})
		})
	}
}

// TestBansOfAProxy has many users on one connection, of which the first is whom the guard knows it by: who logs in
// later does not take its place, nor the blame.
func TestBansOfAProxy(t *testing.T) {
	opts := anyHash(stratum.Limits{})
	opts.MultiWorker = true
	in(t, opts, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		for _, end := range []bool{false, true} {
			c := p.dialFrom(farm)
			c.start("proxy.all")
			require.Contains(t, c.authorize("bob.rig"), `"result":true`)
			c.misbehave(window)
			require.Contains(t, c.line(), "client.show_message")
			if !end {
				c.line()
				c.line()
				c.misbehave(window)
				c.line()
			}
			require.Contains(t, c.line(), "[28,")
			c.ended()
		}
		bans := p.server.Bans()
		require.Len(t, bans, 1)
		require.Equal(t, share.Worker{User: "proxy", Name: "all"}, bans[0].Worker)
		c := p.dialFrom(farm)
		require.Contains(t, c.authorize("proxy.all"), "[28,")
		require.Contains(t, c.authorize("bob.rig"), `"result":true`)
	})
}

// TestAWarningBeforeTheSubscription: a miner that has not subscribed yet has no use for a job, also when it is warned.
func TestAWarningBeforeTheSubscription(t *testing.T) {
	in(t, anyHash(stratum.Limits{}), func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dialFrom(farm)
		require.Contains(t, c.authorize("alice.rig"), `"result":true`)
		c.misbehave(window)
		require.Contains(t, c.line(), "client.show_message")
		c.send(`{"id":3,"method":"mining.ping"}`)
		require.Contains(t, c.line(), "pong", "and nothing else")
		c.send(`{"id":1,"method":"mining.subscribe","params":[]}`)
		require.Contains(t, c.line(), `"id":1`)
		require.Contains(t, c.line(), "mining.set_difficulty")
		c.notify()
	})
}
