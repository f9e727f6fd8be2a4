package stratum_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum"
	"github.com/poolkit/poolkit/stratum/stratumtest"
	"github.com/poolkit/poolkit/stratum/sv1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A routing is a Router from a map, which a test changes.
type routing struct {
	mu     sync.Mutex
	chains map[string]job.Chain // by user; those that are missing cannot be routed
	asked  []string
	hook   func() // before an answer that was read from the map already
}

func (r *routing) Route(_ context.Context, w share.Worker, userID int32) (job.Chain, error) {
	r.mu.Lock()
	r.asked = append(r.asked, fmt.Sprintf("%v %d", w, userID))
	c, ok := r.chains[w.User]
	hook := r.hook
	r.hook = nil
	r.mu.Unlock()
	if hook != nil {
		hook()
	}
	if !ok {
		return "", errors.New("nobody knows what it mines")
	}
	return c, nil
}

func (r *routing) set(user string, c job.Chain) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.chains[user] = c
}

// broadcastOn is broadcast for one of several chains. The server has the job when it returns.
func (p *pool) broadcastOn(c job.Chain, height int32) *job.Job {
	p.t.Helper()
	j := *makeJob(p.t, p.ids.Next(time.Now()), height, hardBits)
	j.Chain = c
	require.NoError(p.t, p.hub.Broadcast(p.t.Context(), &j))
	synctest.Wait()
	return &j
}

// quiet checks that nothing has been sent.
func (c *client) quiet() {
	c.t.Helper()
	synctest.Wait()
	require.Empty(c.t, c.lineOrNone())
}

// events is an EventSink that keeps what a test compares.
type events struct {
	mu   sync.Mutex
	list []stratum.Event
}

func (e *events) PutEvent(ev stratum.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, ev)
}

// take returns the events since the last call, in short.
func (e *events) take() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []string
	for _, ev := range e.list {
		out = append(out, fmt.Sprintf("%s %s %s.%s", ev.Action, ev.Desc, ev.UserName, ev.WorkerName))
	}
	e.list = nil
	return out
}

// TestUsersOfTwoChains has users of two chains on one server: each hears of the jobs of its own and is credited there.
// Reroute moves those of a user at once, without anything else being different for them, and what they had begun is
// credited to the chain it belongs to.
func TestUsersOfTwoChains(t *testing.T) {
	router := &routing{chains: map[string]job.Chain{"alice": "btc", "bob": "bch"}}
	var told events
	in(t, stratum.Options{Router: router, Events: &told}, func(t *testing.T, p *pool) {
		p.broadcastOn("btc", 800)
		p.broadcastOn("bch", 900)
		alice, bob, twin := p.dial(), p.dial(), p.dial()
		aid, an := alice.start("alice.rig")
		bid, bn := bob.start("bob.rig")
		twin.start("alice.twin")
		require.NotEqual(t, aid, bid, "ids are of the server, not of a chain")
		require.NotEqual(t, an.PrevHash, bn.PrevHash)
		require.Equal(t, []string{"miner_connect new_conn alice.rig", "miner_connect new_conn bob.rig", "miner_connect new_conn alice.twin"}, told.take())

		time.Sleep(time.Second)
		p.broadcastOn("bch", 901)
		bob.notify()
		alice.quiet()
		require.Equal(t, "true", alice.submit(alice.solve(aid, an, easy, 0, false)), "a block of the other chain makes nothing stale")
		require.Equal(t, "21", bob.submit(bob.solve(bid, bn, easy, 0, false)))

		kept := alice.solve(aid, an, easy, 1<<20, false)
		en1 := hex.EncodeToString(alice.en1)
		require.Zero(t, p.server.Reroute(t.Context(), "alice"), "nothing has changed")
		router.set("alice", "bch")
		require.Zero(t, p.server.Reroute(t.Context(), "bob"))
		require.Equal(t, 2, p.server.Reroute(t.Context(), "alice"))
		id, n := alice.notify()
		require.True(t, n.Clean)
		require.NotEqual(t, aid, id)
		twin.notify()
		require.Equal(t, []string{
			"miner_connect switch_chain alice.rig", "miner_connect switch_chain alice.twin",
			"miner_dead switch_chain alice.rig", "miner_dead switch_chain alice.twin",
		}, sorted(told.take()))
		bob.quiet()

		require.Equal(t, "true", alice.submit(kept), "the work in hand is good")
		require.Equal(t, "true", alice.submit(alice.solve(id, n, easy, 0, false)))
		p.broadcastOn("btc", 801)
		alice.quiet()
		p.broadcastOn("bch", 902)
		_, n = alice.notify()
		require.True(t, n.Clean)
		bob.notify()
		require.Equal(t, en1, hex.EncodeToString(alice.en1))
		chains := ""
		for _, s := range p.recorded() {
			chains += fmt.Sprintf("%s %s %d, ", s.Worker.User, s.Chain, s.Height)
		}
		require.Equal(t, "alice btc 800, bob bch 900, alice btc 800, alice bch 901, ", chains)
		for s := range p.server.Sessions {
			require.Equal(t, job.Chain("bch"), s.Chain())
			require.Equal(t, easy, s.Difficulty())
		}
		st := p.server.Stats().Chains
		require.Equal(t, 3, st["bch"].Sessions[stratum.Authorized])
		require.Equal(t, int32(902), st["bch"].LastJob.Height)
		require.Equal(t, int32(801), st["btc"].LastJob.Height)
		require.Zero(t, st["btc"].Sessions[stratum.Authorized])
		require.Equal(t, int32(902), p.server.LatestJob().Height)

		alice.conn.Close()
		synctest.Wait()
		require.Equal(t, []string{"miner_dead del_conn alice.rig"}, told.take())
	})
}

func sorted(s []string) []string {
	for i := range s {
		for k := i; k > 0 && s[k] < s[k-1]; k-- {
			s[k], s[k-1] = s[k-1], s[k]
		}
	}
	return s
}

// TestWhereNobodyIsRouted: a worker that cannot be routed is refused at login, and kept where it is later on.
func TestWhereNobodyIsRouted(t *testing.T) {
	router := &routing{chains: map[string]job.Chain{"alice": "btc"}}
	in(t, stratum.Options{Router: router}, func(t *testing.T, p *pool) {
		p.broadcastOn("btc", 800)
		p.broadcastOn("bch", 900)
		c := p.dial()
		require.Equal(t, `{"id":2,"result":null,"error":[31,"Internal error",null]}`, strings.ReplaceAll(c.authorize("carol.rig"), `[`+fmt.Sprint(sv1.CodeInternal)+`,"`+sv1.CodeText(sv1.CodeInternal)+`"`, `[31,"Internal error"`))
		id, n := c.start("alice.rig")
		delete(router.chains, "alice")
		require.Zero(t, p.server.Reroute(t.Context(), ""))
		require.Equal(t, "true", c.submit(c.solve(id, n, easy, 0, false)))
		require.Equal(t, []string{"carol.rig 1", "alice.rig 2", "alice.rig 2"}, router.asked)
	})
	in(t, stratum.Options{}, func(t *testing.T, p *pool) {
		p.broadcastOn("btc", 800) // without a Router chains are only names
		c := p.dial()
		c.start("alice.rig")
		p.broadcastOn("bch", 801)
		c.notify()
		require.Zero(t, p.server.Reroute(t.Context(), ""))
	})
}

// TestAChainWithoutAJob: who is moved to a chain that has no job yet gets its first one.
func TestAChainWithoutAJob(t *testing.T) {
	router := &routing{chains: map[string]job.Chain{"alice": "btc"}}
	in(t, stratum.Options{Router: router}, func(t *testing.T, p *pool) {
		p.broadcastOn("btc", 800)
		c := p.dial()
		id, n := c.start("alice.rig")
		router.set("alice", "bch")
		require.Equal(t, 1, p.server.Reroute(t.Context(), ""))
		c.quiet()
		require.Equal(t, "true", c.submit(c.solve(id, n, easy, 0, false)))
		p.broadcastOn("bch", 900)
		id, n = c.notify()
		require.True(t, n.Clean)
		require.Equal(t, "true", c.submit(c.solve(id, n, easy, 0, false)))
		router.set("alice", "btc")
		require.Equal(t, 1, p.server.Reroute(t.Context(), ""))
		again, n := c.notify()
		require.Equal(t, "0", again, "the job it had before")
		require.True(t, n.Clean)
		require.Equal(t, "22", c.submit(c.solve(again, n, easy, 0, false)), "and what it did for it")
	})
}

// TestRerouteReachesWhoIsAboutToMine: neither a miner that has not subscribed yet nor one whose login is under way stays
// where its user no longer mines.
func TestRerouteReachesWhoIsAboutToMine(t *testing.T) {
	router := &routing{chains: map[string]job.Chain{"alice": "btc"}}
	in(t, stratum.Options{Router: router}, func(t *testing.T, p *pool) {
		p.broadcastOn("btc", 800)
		bch := p.broadcastOn("bch", 900)
		early := p.dial()
		require.Contains(t, early.authorize("alice.rig"), `"result":true`)
		router.set("alice", "bch")
		require.Equal(t, 1, p.server.Reroute(t.Context(), "alice"))
		early.send(`{"id":1,"method":"mining.subscribe","params":[]}`)
		require.Contains(t, early.line(), `"id":1`)
		require.Contains(t, early.line(), "mining.set_difficulty")
		_, n := early.notify()
		require.Equal(t, bch.PrevHash, job.Hash(n.PrevHash))

		router.set("alice", "btc")
		router.hook = func() { // its answer is on the way when the user moves
			router.set("alice", "bch")
			p.server.Reroute(t.Context(), "alice")
		}
		late := p.dial()
		_, n = late.start("alice.rig")
		require.Equal(t, bch.PrevHash, job.Hash(n.PrevHash))
	})
}

// TestRerouteOfAgentsAndAccounts goes by who is known to the Authorizer, also where one account is credited for all, and
// moves an agent with all its machines.
func TestRerouteOfAgentsAndAccounts(t *testing.T) {
	router := &routing{chains: map[string]job.Chain{"alice": "btc", "bob": "btc"}}
	var told events
	opts := stratum.Options{Router: router, Events: &told, SingleUser: stratum.SingleUser{Name: "house", UserID: 77}}
	in(t, opts, func(t *testing.T, p *pool) {
		p.broadcastOn("btc", 800)
		p.broadcastOn("bch", 900)
		bob := p.dial()
		bob.start("bob.rig")
		conn, err := p.ln.Dial(t.Context())
		require.NoError(t, err)
		a := stratumtest.NewAgent(conn, &stratumtest.AgentOptions{User: "alice"})
		defer a.Close()
		require.NoError(t, a.Handshake(t.Context()))
		require.NoError(t, a.Register(t.Context(), 5, "cgminer/4.12.1", "rig5"))
		j, err := a.NextJob(t.Context())
		require.NoError(t, err)
		synctest.Wait()
		told.take()
		s, err := a.Solve(t.Context(), j, 5)
		require.NoError(t, err)

		router.set("alice", "bch")
		require.Zero(t, p.server.Reroute(t.Context(), "house"))
		require.Equal(t, 1, p.server.Reroute(t.Context(), "alice"))
		require.Equal(t, []string{
			"miner_connect from_btcagent house.alice.rig5", "miner_connect switch_chain house.alice.__default__",
			"miner_dead from_btcagent house.alice.rig5", "miner_dead switch_chain house.alice.__default__",
		}, sorted(told.take()))
		next, err := a.NextJob(t.Context())
		require.NoError(t, err)
		require.NotEqual(t, j.ID, next.ID)
		reply, err := a.Submit(t.Context(), 5, s)
		require.NoError(t, err)
		require.True(t, reply.Accepted)
		s, err = a.Solve(t.Context(), next, 5)
		require.NoError(t, err)
		reply, err = a.Submit(t.Context(), 5, s)
		require.NoError(t, err)
		require.True(t, reply.Accepted)
		shares := p.recorded()
		require.Len(t, shares, 2)
		for i, chain := range []job.Chain{"btc", "bch"} {
			require.Equal(t, chain, shares[i].Chain)
			require.Equal(t, share.Worker{User: "house", Name: "alice.rig5"}, shares[i].Worker)
			require.Equal(t, int32(77), shares[i].UserID)
			require.Equal(t, int32(2), shares[i].ExtUserID)
		}
		require.Contains(t, router.asked, "alice.__default__ 2")
		require.NotContains(t, strings.Join(router.asked, ","), "house")
	})
}

// TestJobIDsOfNiceHash are the job's time and its short id, so that they do not come again; the short id alone is another
// job's.
func TestJobIDsOfNiceHash(t *testing.T) {
	opts := stratum.Options{NiceHash: stratum.NiceHashOptions{MinDifficulty: easy * 2}}
	in(t, opts, func(t *testing.T, p *pool) {
		j := p.broadcast(100, hardBits)
		synctest.Wait()
		plain := p.dial()
		short, _ := plain.start("bob.rig")
		require.Equal(t, "0", short)

		c := p.dial()
		c.send(`{"id":1,"method":"mining.subscribe","params":["NiceHash/1.0.0"]}`)
		var err error
		c.en1, err = hex.DecodeString(strings.Split(c.line(), `"`)[7])
		require.NoError(t, err)
		c.size = 8
		require.Contains(t, c.authorize("alice.rig"), "true")
		require.Contains(t, c.line(), fmt.Sprintf("[%v]", difficulty.Difficulty(easy*2)))
		id, n := c.notify()
		require.Equal(t, strconv.FormatInt(j.ID.Time().Unix()*256, 10), id)
		w := c.solve(id, n, easy*2, 0, false)
		for _, wrong := range []string{"0", strconv.FormatInt(j.ID.Time().Unix()*256+1, 10), "0" + id, " " + id} {
			bad := w
			bad.job = wrong
			require.NotEqual(t, "true", c.submit(bad), wrong)
		}
		require.Equal(t, "true", c.submit(w))
		seen := map[string]bool{id: true}
		for i := range 300 {
			time.Sleep(time.Second)
			p.broadcast(101+int32(i), hardBits)
			id, _ := c.notify()
			require.False(t, seen[id])
			seen[id] = true
			plain.notify()
		}
		time.Sleep(24 * time.Hour) // the marketplace need not speak for days
		synctest.Wait()
		for s := range p.server.Sessions {
			require.True(t, strings.HasPrefix(s.Agent(), "NiceHash/"), s.Agent())
		}
	})
}

// only returns the only session there is.
func (p *pool) only() *stratum.Session {
	p.t.Helper()
	var only *stratum.Session
	for s := range p.server.Sessions {
		require.Nil(p.t, only)
		only = s
	}
	require.NotNil(p.t, only)
	return only
}

// TestMove gives a miner another extranonce1. It holds from the next job on; what is in hand counts with the old one, and
// nobody else gets either as long as the session lives, or soon after.
func TestMove(t *testing.T) {
	opts := anyHash(stratum.Limits{})
	opts.StartDifficulty, opts.MinDifficulty, opts.NewPolicy = easy, easy, nil
	opts.NewPolicy = func(*stratum.Session) difficulty.Policy { return difficulty.Fixed(easy) }
	opts.Extranonces = stratum.NewPrefixes(1, time.Hour)
	opts.ResumeTime = -1
	in(t, opts, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dial()
		require.Contains(t, c.authorize("alice.rig"), "true")
		require.ErrorIs(t, p.only().Move(), stratum.ErrFixedExtranonce, "not yet subscribed")
		id, n := c.startAgain()
		require.ErrorIs(t, p.only().Move(), stratum.ErrFixedExtranonce, "it has not said that it can")
		c.send(`{"id":3,"method":"mining.extranonce.subscribe","params":[]}`)
		require.Equal(t, `{"id":3,"result":true,"error":null}`, c.line())

		old := c.en1
		require.NoError(t, p.only().Move())
		require.Equal(t, `{"id":null,"method":"mining.set_extranonce","params":["01000001",8]}`, c.line())
		require.Equal(t, uint32(0x01000001), p.only().Prefix())
		require.Equal(t, "true", c.submit(c.solve(id, n, easy, 0, false)), "the job it has is mined with the old one")
		p.broadcast(100, hardBits)
		synctest.Wait()
		time.Sleep(time.Second)
		p.broadcast(101, hardBits)
		next, n2 := c.notify()
		before := c.solve(id, n, easy, 1<<20, false)
		c.en1 = []byte{1, 0, 0, 1}
		require.Equal(t, "true", c.submit(c.solve(next, n2, easy, 0, false)))
		c.en1 = old
		require.Equal(t, "23", c.submit(c.solve(next, n2, easy, 0, false)), "the new job with the old one")
		require.Equal(t, "21", c.submit(before), "the old job is judged with the old one still: it is stale, and no more")
		sessions := ""
		for _, s := range p.recorded() {
			sessions += fmt.Sprintf("%08x ", s.SessionID)
		}
		require.Equal(t, "01000000 01000001 01000001 01000000 ", sessions)

		for range 3 { // each is held until the end
			require.NoError(t, p.only().Move())
			c.line()
		}
		newcomer := p.dial()
		newcomer.start("bob.rig")
		require.Equal(t, []byte{1, 0, 0, 5}, newcomer.en1)
		c.conn.Close()
		newcomer.conn.Close()
		synctest.Wait()
		require.NoError(t, opts.Extranonces.(stratum.Reserver).Reserve(0x01000006, time.Now()), "which nobody has had")
		for held := uint32(0x01000000); held <= 0x01000005; held++ {
			require.Error(t, opts.Extranonces.(stratum.Reserver).Reserve(held, time.Now()), "%08x is in quarantine", held)
		}
		time.Sleep(time.Hour)
		for held := uint32(0x01000000); held <= 0x01000005; held++ {
			require.NoError(t, opts.Extranonces.(stratum.Reserver).Reserve(held, time.Now()), "%08x was given back", held)
		}
	})
}

// startAgain is start for a client that is authorized already.
func (c *client) startAgain() (id string, n sv1.Notify) {
	c.t.Helper()
	c.send(`{"id":1,"method":"mining.subscribe","params":["test/1.0"]}`)
	var err error
	c.en1, err = hex.DecodeString(strings.Split(c.line(), `"`)[7])
	require.NoError(c.t, err)
	c.size = 8
	require.Contains(c.t, c.line(), "mining.set_difficulty")
	return c.notify()
}

// TestJobsAndMovesAtOnce: a job that is sent while a session moves must be judged with the extranonce1 that the miner
// knows of when it comes, whichever of the two messages is first.
func TestJobsAndMovesAtOnce(t *testing.T) {
	opts := anyHash(stratum.NoLimits())
	opts.StaleGrace = time.Hour
	p, addr := listen(t, opts, stratum.Port{})
	c := connect(t, addr)
	c.start("alice.rig")
	c.send(`{"id":3,"method":"mining.extranonce.subscribe","params":[]}`)
	c.line()
	sess := p.only()
	prefix, wrong := hex.EncodeToString(c.en1), 0
	const rounds = 500
	for round := range rounds {
		var moving sync.WaitGroup
		moving.Go(func() { assert.NoError(t, sess.Move()) })
		p.broadcast(101+int32(round), hardBits)
		var n sv1.Notify
		mined := "" // with which extranonce1
		for range 2 {
			line := c.line()
			if strings.Contains(line, "mining.set_extranonce") {
				prefix = strings.Split(line, `"`)[9]
				continue
			}
			var m sv1.Message
			require.NoError(t, m.Decode([]byte(line)))
			require.Equal(t, sv1.MethodNotify, m.Method)
			require.NoError(t, n.Decode(m.Params))
			mined = prefix
		}
		moving.Wait()
		w := fmt.Sprintf(`["a",%q,"0000000000000000","%08x","00000000"]`, n.JobID, n.NTime)
		require.Equal(t, "true", c.submitRaw(w))
		if s := p.recorded()[round]; fmt.Sprintf("%08x", s.SessionID) != mined {
			wrong++
		}
	}
	require.Zero(t, wrong, "of %d shares", rounds)
}

// TestWhatTheServerAsksAndTells are the requests and messages of a session's methods.
func TestWhatTheServerAsksAndTells(t *testing.T) {
	in(t, stratum.Options{}, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dial()
		c.start("alice.rig")
		s := p.only()
		for _, test := range []struct {
			do   func() error
			want string
		}{
			{func() error { return s.ShowMessage(`maintenance at "noon"`) }, `{"id":null,"method":"client.show_message","params":["maintenance at \"noon\""]}`},
			{func() error { return s.Reconnect(sv1.Reconnect{}) }, `{"id":null,"method":"client.reconnect","params":[]}`},
			{func() error { return s.Reconnect(sv1.Reconnect{Host: "eu.pool.example", Port: 3333, WaitSeconds: 5}) },
				`{"id":null,"method":"client.reconnect","params":["eu.pool.example",3333,5]}`},
			{s.Ping, `{"id":2,"method":"mining.ping","params":[]}`},
			{s.AskVersion, `{"id":1,"method":"client.get_version","params":[]}`},
		} {
			done := make(chan error, 1)
			go func() { done <- test.do() }()
			require.Equal(t, test.want, c.line())
			require.NoError(t, <-done)
		}
		require.Empty(t, s.Version())
		c.send(`{"id":2,"result":"pong","error":null}`)
		synctest.Wait()
		require.Empty(t, s.Version(), "the answer to the ping")
		c.send(`{"id":1,"result":null,"error":[20,"Unknown method",null]}`)
		synctest.Wait()
		require.Empty(t, s.Version())
		c.send(`{"id":1,"result":"cgminer\/4.12.1 <b>` + strings.Repeat("y", 100) + `","error":null}`)
		synctest.Wait()
		require.Equal(t, ("cgminer/4.12.1b" + strings.Repeat("y", 100))[:64], s.Version())
		c.send(`{"id":3,"method":"mining.ping"}`)
		require.Contains(t, c.line(), "pong")
		c.conn.Close()
		synctest.Wait()
		require.Error(t, s.ShowMessage("anybody there?"))
		require.Error(t, s.Move())
	})
}

// TestManyWorkersOnOneConnection is a proxy with users of its own behind it: each is credited by the name in the submit,
// and whoever is not known by it is the first.
func TestManyWorkersOnOneConnection(t *testing.T) {
	var hooked []string
	opts := anyHash(stratum.Limits{})
	opts.MultiWorker = true
	opts.Hooks.Registered = func(_ *stratum.Session, w share.Worker, userID int32) { hooked = append(hooked, fmt.Sprint(w, userID)) }
	in(t, opts, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dial()
		id, n := c.start("proxy.main")
		require.Contains(t, c.authorize("Alice.rig1"), `"result":true`)
		require.Contains(t, c.authorize("alice.rig2"), `"result":true`)
		require.Contains(t, c.authorize("bob.rig"), `"result":true`)
		require.Contains(t, c.authorize("bob.rig"), `"result":true`, "once more")
		require.Contains(t, c.authorize("."), `[29,`)
		names := []string{"proxy.main", "Alice.rig1", "alice.rig2", "bob.rig", "mallory.rig", "", "bob.rig"}
		for i, name := range names {
			require.Equal(t, "true", c.submitRaw(fmt.Sprintf(`[%q,%q,"0000000000000000","%08x","%08x"]`, name, id, n.NTime, i)), name)
		}
		got := ""
		for _, s := range p.recorded() {
			require.Equal(t, s.Worker.ID(), s.WorkerID)
			got += fmt.Sprintf("%v %d, ", s.Worker, s.UserID)
		}
		require.Equal(t, "proxy.main 1, alice.rig1 2, alice.rig2 2, bob.rig 3, proxy.main 1, proxy.main 1, bob.rig 3, ", got)
		require.Equal(t, []string{"alice.rig1 2", "alice.rig2 2", "bob.rig 3", "bob.rig 3"}, hooked)
		w, user := p.only().Worker()
		require.Equal(t, "proxy.main 1", fmt.Sprintf("%v %d", w, user), "the session remains the first one's")

		for i := 3; ; i++ {
			reply := c.authorize(fmt.Sprintf("user%d.rig", i))
			if i%150 == 0 {
				time.Sleep(time.Second)
			}
			if strings.Contains(reply, "[24,") {
				require.Equal(t, 256, i)
				break
			}
		}
		require.Equal(t, "true", c.submitRaw(fmt.Sprintf(`["user255.rig",%q,"0000000000000000","%08x","00000099"]`, id, n.NTime)))
		require.Equal(t, "user255", p.recorded()[len(names)].Worker.User)
	})
}

// TestSingleUser credits one account for everybody who is let in.
func TestSingleUser(t *testing.T) {
	var told events
	opts := stratum.Options{SingleUser: stratum.SingleUser{Name: "house", UserID: 77}, Events: &told}
	in(t, opts, func(t *testing.T, p *pool) {
		p.broadcast(100, regtestBits)
		synctest.Wait()
		c := p.dial()
		id, n := c.start("Alice.rig01-with-a-long-name")
		target, err := difficulty.FromBits(regtestBits)
		require.NoError(t, err)
		require.Equal(t, "true", c.submit(c.solveTarget(id, n, target, 0, false)))
		want := share.Worker{User: "house", Name: "alice.rig01-with-a-long-na"}
		require.Len(t, p.recorded(), 1)
		s := p.recorded()[0]
		require.Equal(t, want, s.Worker)
		require.Equal(t, want.ID(), s.WorkerID)
		require.Equal(t, int32(77), s.UserID)
		require.Equal(t, int32(1), s.ExtUserID)
		require.Len(t, p.solved(), 1)
		require.Equal(t, want, p.solved()[0].Worker)
		require.Equal(t, int32(77), p.solved()[0].UserID)
		w, user := p.only().Worker()
		require.Equal(t, want, w)
		require.Equal(t, int32(77), user)
		require.Len(t, told.list, 1)
		require.Equal(t, "house", told.list[0].UserName)
		require.Equal(t, want.Name, told.list[0].WorkerName)
		require.Equal(t, int32(1), told.list[0].ExtUserID)
	})
}

// TestLongTimeoutAgents may be silent for seven days, whoever else is dropped after ten minutes.
func TestLongTimeoutAgents(t *testing.T) {
	opts := stratum.Options{LongTimeoutAgents: regexp.MustCompile(`(?i)^farmproxy/`), NotifyInterval: time.Hour}
	in(t, opts, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		ended := map[string]<-chan struct{}{}
		for _, agent := range []string{"FarmProxy/2", "cgminer/4.12.1 farmproxy/2"} {
			c := p.dial()
			c.send(fmt.Sprintf(`{"id":1,"method":"mining.subscribe","params":[%q]}`, agent))
			c.line()
			c.authorize("alice.rig")
			ended[agent] = c.discard()
		}
		start := time.Now()
		<-ended["cgminer/4.12.1 farmproxy/2"]
		require.InDelta(t, (10 * time.Minute).Seconds(), time.Since(start).Seconds(), 5)
		<-ended["FarmProxy/2"]
		require.InDelta(t, (7 * 24 * time.Hour).Seconds(), time.Since(start).Seconds(), 5)
	})
}

// TestCleanChangeAgents get each new difficulty with a clean job, the first one included; others with whatever job it
// comes with.
func TestCleanChangeAgents(t *testing.T) {
	opts := stratum.Options{
		StartDifficulty: 1024, MinDifficulty: 64, CleanChangeAgents: regexp.MustCompile(`antminer`),
		NewPolicy: func(*stratum.Session) difficulty.Policy { return &steps{1024, 2048, 2048, 4096} },
	}
	in(t, opts, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		dirty := map[string]string{}
		for i, agent := range []string{"antminer/1", "cgminer/4"} {
			c := p.dial()
			require.Contains(t, c.authorize(fmt.Sprintf("alice.rig%d", i)), "true")
			c.send(fmt.Sprintf(`{"id":1,"method":"mining.subscribe","params":[%q]}`, agent))
			c.line()
			for range 4 {
				p.broadcast(100, hardBits) // which waits for the interval
				line := c.line()
				changed := strings.Contains(line, "mining.set_difficulty")
				if changed {
					line = c.line()
				}
				if strings.HasSuffix(line, "true]}") {
					dirty[agent] += fmt.Sprintf("%v clean, ", changed)
				} else {
					dirty[agent] += fmt.Sprintf("%v, ", changed)
				}
			}
			c.conn.Close()
		}
		require.Equal(t, "true clean, true clean, false, true clean, ", dirty["antminer/1"])
		require.Equal(t, "true clean, true, false, true, ", dirty["cgminer/4"])
	})
}

// TestAPolicyHasItsSayAfterAReconnect: what a worker had before it lost its connection is where a policy that can be told
// goes on. One that cannot decides as for a newcomer, and is not overruled for good.
func TestAPolicyHasItsSayAfterAReconnect(t *testing.T) {
	opts := stratum.Options{StartDifficulty: 1024, MinDifficulty: 64, NewPolicy: func(*stratum.Session) difficulty.Policy {
		return &steps{1024, 2048, 4096}
	}}
	in(t, opts, func(t *testing.T, p *pool) {
		for range 2 {
			p.broadcast(100, hardBits)
			synctest.Wait()
			c := p.dial()
			require.Contains(t, c.authorize("alice.rig"), "true")
			c.send(`{"id":1,"method":"mining.subscribe","params":["test/1.0"]}`)
			c.line()
			for _, want := range []string{"[1024]", "[2048]", "[4096]"} {
				require.Contains(t, c.line(), "mining.set_difficulty\",\"params\":"+want)
				c.notify()
				p.broadcast(100, hardBits) // which waits for the interval
			}
			c.conn.Close()
			synctest.Wait()
		}
	})
}

// A slowAuthorizer lets everybody in once it is told to.
type slowAuthorizer struct{ let chan struct{} }

func (a slowAuthorizer) Authorize(ctx context.Context, _ share.Worker, _ string) (int32, error) {
	select {
	case <-a.let:
		return 1, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// TestStatesOfASession follows one through all of them; registering is as long as the Authorizer takes.
func TestStatesOfASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		auth := slowAuthorizer{make(chan struct{})}
		p := openWith(t, auth, stratum.Options{LoginTimeout: time.Hour})
		p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dial()
		state := func(want stratum.State) {
			t.Helper()
			synctest.Wait()
			require.Equal(t, want, p.only().State())
			require.Equal(t, map[stratum.State]int{want: 1}, p.server.Stats().States)
		}
		state(stratum.Connected)
		c.send(`{"id":1,"method":"mining.subscribe","params":[]}`)
		c.line()
		state(stratum.Subscribed)
		c.send(`{"id":2,"method":"mining.authorize","params":["alice.rig","x"]}`)
		state(stratum.Registering)
		time.Sleep(30 * time.Second)
		state(stratum.Registering)
		time.Sleep(30 * time.Second)
		require.Contains(t, c.line(), `"id":2,"result":null`, "nobody knows in time")
		state(stratum.Subscribed)
		c.conn.Close()

		c = p.dial()
		c.send(`{"id":2,"method":"mining.authorize","params":["alice.rig","x"]}`)
		synctest.Wait()
		require.Equal(t, 1, p.server.Stats().States[stratum.Registering])
		close(auth.let)
		require.Contains(t, c.line(), `"id":2,"result":true`)
		synctest.Wait()
		require.Equal(t, 1, p.server.Stats().States[stratum.Authorized])
		c.send(`{"id":2,"method":"mining.authorize","params":["alice.rig2","x"]}`)
		c.line()
		synctest.Wait()
		require.Equal(t, 1, p.server.Stats().States[stratum.Authorized], "and remains so")
	})
}

// TestAMinerThatLeavesWhileItIsRegistered: its session ends, and nobody is let in.
func TestAMinerThatLeavesWhileItIsRegistered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told events
		auth := slowAuthorizer{make(chan struct{})}
		p := openWith(t, auth, stratum.Options{Events: &told})
		c := p.dial()
		c.send(`{"id":2,"method":"mining.authorize","params":["alice.rig","x"]}`)
		synctest.Wait()
		c.conn.Close()
		close(auth.let)
		synctest.Wait()
		require.Zero(t, p.server.Stats().Sessions)
		taken := told.take()
		require.Equal(t, 0, len(taken)%2, "whoever comes also goes: %v", taken)
	})
}

// The job that a miner has when it is moved is not sent again under its id, which would not tell which of two
// extranonces a share was found with.
func TestAMoveDoesNotSendTheSameJobAgain(t *testing.T) {
	in(t, stratum.Options{NotifyInterval: 10 * time.Second}, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dial()
		id, n := c.start("alice.rig")
		c.send(`{"id":3,"method":"mining.extranonce.subscribe","params":[]}`)
		require.Equal(t, `{"id":3,"result":true,"error":null}`, c.line())
		require.NoError(t, p.only().Move())
		require.Equal(t, `{"id":null,"method":"mining.set_extranonce","params":["01000001",8]}`, c.line())
		time.Sleep(35 * time.Second) // in which others are sent the job three times
		require.Equal(t, "true", c.submit(c.solve(id, n, easy, 0, false)), "found with the old extranonce")
		p.broadcast(100, hardBits)
		next, n2 := c.notify()
		require.NotEqual(t, id, next)
		require.Equal(t, "true", c.submit(c.solve(id, n, easy, 1<<20, false)))
		c.en1 = []byte{1, 0, 0, 1}
		require.Equal(t, "true", c.submit(c.solve(next, n2, easy, 0, false)))
	})
}
