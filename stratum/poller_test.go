package stratum_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum"
	"github.com/poolkit/poolkit/stratum/stratumtest"
	"github.com/stretchr/testify/require"
)

// The tests in this file are about real sockets: who waits for them, what becomes of those that end in every way, and
// what is left afterwards.

// patience is how long a test on real sockets waits for what should come at once.
const patience = 10 * time.Second

// newPool makes a pool that does not serve yet.
func newPool(t testing.TB, opts stratum.Options) *pool {
	t.Helper()
	if opts.StartDifficulty == 0 {
		opts.StartDifficulty, opts.MinDifficulty = easy, easy
	}
	if opts.NewPolicy == nil {
		opts.NewPolicy = func(*stratum.Session) difficulty.Policy { return difficulty.Fixed(opts.StartDifficulty) }
	}
	p := &pool{t: t, hub: job.NewHub(nil)}
	var err error
	opts.AboveNetwork = true
	p.server, err = stratum.New(p.hub, openUsers(t), p, p, &opts)
	require.NoError(t, err)
	return p
}

// serve serves a port of this machine until stop, which returns what Serve did. Calls of stop after the first do nothing.
func (p *pool) serve(port stratum.Port) (addr string, stop func() error) {
	p.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(p.t, err)
	port.Listener = ln
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.server.Serve(ctx, &port) }()
	stop = sync.OnceValue(func() error { cancel(); return <-done })
	p.t.Cleanup(func() { require.NoError(p.t, stop()) })
	return ln.Addr().String(), stop
}

// listen starts a server with the rules of port on a TCP socket, and gives it a job.
func listen(t testing.TB, opts stratum.Options, port stratum.Port) (p *pool, addr string) {
	t.Helper()
	p = newPool(t, opts)
	addr, p.stop = p.serve(port)
	p.broadcast(100, hardBits)
	p.ready()
	return p, addr
}

// ready waits until the first job has been sent to everybody, so that who connects now gets it once.
func (p *pool) ready() {
	p.t.Helper()
	require.Eventually(p.t, func() bool {
		return !p.server.Stats().Chains[""].LastJobSent.IsZero()
	}, patience, time.Millisecond)
}

// connect connects over TCP. Whatever is read or written must be so within the test's patience.
func connect(t testing.TB, addr string) *client {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	return newClient(t, conn)
}

// reset closes the connection with an RST.
func (c *client) reset() {
	c.t.Helper()
	require.NoError(c.t, c.conn.(*net.TCPConn).SetLinger(0))
	require.NoError(c.t, c.conn.Close())
}

// empty waits until no session is left.
func (p *pool) empty() {
	p.t.Helper()
	require.Eventually(p.t, func() bool { return p.server.Stats().Sessions == 0 }, patience, time.Millisecond)
}

// descriptors returns how many files are open, -1 where that cannot be known.
func descriptors() int {
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return -1
	}
	return len(files)
}

// leavesNothing checks that f leaves no goroutine and no descriptor behind.
func leavesNothing(t *testing.T, f func()) {
	t.Helper()
	if ln, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		ln.Close() // so that the runtime's own poller is open already
	}
	goroutines, files := runtime.NumGoroutine(), descriptors()
	f()
	require.Eventually(t, func() bool { // which is called on a goroutine of its own
		return runtime.NumGoroutine() <= goroutines+1 && descriptors() <= files
	}, patience, time.Millisecond, "%d goroutines and %d files before", goroutines, files)
}

const loginLines = `{"id":1,"method":"mining.subscribe","params":["test/1.0"]}` + "\n" +
	`{"id":2,"method":"mining.authorize","params":["alice.rig","x"]}` + "\n"

// TestConnectionsThatEndInEveryWay connects hundreds at a time, which send their lines in pieces and then hang up, break
// off, or only say that they are done, some while jobs are being pushed at them. Those that wait for their replies get
// them, and nothing is left in the end.
func TestConnectionsThatEndInEveryWay(t *testing.T) {
	const conns, pings = 400, 7
	leavesNothing(t, func() {
		p, addr := listen(t, stratum.Options{}, stratum.Port{})
		var text strings.Builder
		text.WriteString(loginLines)
		for i := range pings {
			fmt.Fprintf(&text, `{"id":%d,"method":"mining.ping"}`+"\n", 10+i)
		}
		visit := func(i int) error {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				return err
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
				return err
			}
			random := rand.New(rand.NewPCG(1, uint64(i)))
			for rest := text.String(); rest != ""; {
				n := min(1+random.IntN(60), len(rest))
				if _, err := io.WriteString(conn, rest[:n]); err != nil {
					return err
				}
				rest = rest[n:]
			}
			switch i % 5 {
			case 0: // breaks off with replies unread
				return conn.(*net.TCPConn).SetLinger(0)
			case 1: // hangs up with replies unread
				return nil
			case 2: // is done, and waits for the replies
				if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
					return err
				}
				all, err := io.ReadAll(conn)
				if got := strings.Count(string(all), `"pong"`); got != pings {
					return fmt.Errorf("%d replies to %d pings before the end, %v", got, pings, err)
				}
				return err
			}
			// Reads all its replies and hangs up or breaks off.
			r := bufio.NewReader(conn)
			for got := 0; got < pings; {
				line, err := r.ReadString('\n')
				if err != nil {
					return fmt.Errorf("after %d replies: %w", got, err)
				}
				if strings.Contains(line, "pong") {
					got++
				}
			}
			if i%5 == 3 {
				return conn.(*net.TCPConn).SetLinger(0)
			}
			return nil
		}
		errs := make(chan error, conns)
		gate := make(chan struct{}, 100)
		for i := range conns {
			gate <- struct{}{}
			go func() { errs <- visit(i); <-gate }()
			if i%20 == 0 {
				p.broadcast(101+int32(i), hardBits)
			}
		}
		for range conns {
			require.NoError(t, <-errs)
		}
		p.empty()
		require.Equal(t, int64(conns), p.server.Stats().Connections)
		require.NoError(t, p.stop())
	})
}

// TestHalfCloseRightBehindTheData is a miner that sends its shares and the end of the connection in one go. Each share
// is judged, recorded and answered.
func TestHalfCloseRightBehindTheData(t *testing.T) {
	p, addr := listen(t, stratum.Options{StartDifficulty: difficulty.Min, MinDifficulty: difficulty.Min}, stratum.Port{})
	recorded := 0
	// Around what is read at a time, where the end comes with the last bytes, before them, or after another round.
	for i, shares := range []int{1, 2, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 64, 65, 300, 1, 2, 35, 40} {
		c := connect(t, addr)
		id, n := c.start(fmt.Sprintf("alice.rig%d", i))
		var lines strings.Builder
		for nonce := range shares {
			fmt.Fprintf(&lines, `{"id":4,"method":"mining.submit","params":["alice.rig","%s","0000000000000000","%08x","%08x"]}`+"\n",
				id, n.NTime, nonce)
		}
		_, err := io.WriteString(c.conn, lines.String())
		require.NoError(t, err)
		require.NoError(t, c.conn.(*net.TCPConn).CloseWrite())
		for k := range shares {
			require.Equal(t, `{"id":4,"result":true,"error":null}`, c.line(), "reply %d of %d", k, shares)
		}
		c.ended()
		recorded += shares
		require.Equal(t, recorded, p.credited())
	}
	p.empty()
}

// TestRepliesToAHalfClosedConnectionBehindASlowPush has more waiting for the miner than its socket takes when the end of
// what it sends comes in.
func TestRepliesToAHalfClosedConnectionBehindASlowPush(t *testing.T) {
	p, addr := listen(t, stratum.Options{MaxQueue: 16 << 20, Limits: stratum.NoLimits(), MaxLine: 64 << 10}, stratum.Port{})
	c := connect(t, addr)
	require.NoError(t, c.conn.(*net.TCPConn).SetReadBuffer(64<<10))
	c.start("alice.rig")
	var sess *stratum.Session
	for s := range p.server.Sessions {
		sess = s
	}
	message := strings.Repeat("a long story ", 4000)
	const messages, pings = 200, 50
	for range messages { // 10 MB, which no socket takes at once
		require.NoError(t, sess.ShowMessage(message))
	}
	for i := range pings {
		c.send(fmt.Sprintf(`{"id":%d,"method":"mining.ping"}`, i))
	}
	require.NoError(t, c.conn.(*net.TCPConn).CloseWrite())
	var told, replies int
	scanner := bufio.NewScanner(c.conn)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		switch {
		case strings.Contains(scanner.Text(), "a long story"):
			told++
		case scanner.Text() == fmt.Sprintf(`{"id":%d,"result":"pong","error":null}`, replies):
			replies++
		}
	}
	require.NoError(t, scanner.Err())
	require.Equal(t, messages, told)
	require.Equal(t, pings, replies)
	p.empty()
}

// TestTimeoutsOfSockets has miners that stop speaking at every stage, on sockets that a poller waits for.
func TestTimeoutsOfSockets(t *testing.T) {
	const limit = 100 * time.Millisecond
	for _, test := range []struct {
		name string
		opts stratum.Options
		port stratum.Port
		act  func(c *client)
		why  string
	}{
		{"says nothing", stratum.Options{HandshakeTimeout: limit}, stratum.Port{}, func(*client) {}, "silent"},
		{"half a line", stratum.Options{HandshakeTimeout: limit}, stratum.Port{}, func(c *client) {
			_, err := io.WriteString(c.conn, `{"id":1,"method":"mining.sub`)
			require.NoError(c.t, err)
		}, "silent"},
		{"subscribes and stops", stratum.Options{HandshakeTimeout: limit}, stratum.Port{}, func(c *client) {
			c.send(`{"id":1,"method":"mining.subscribe","params":[]}`)
			c.line()
		}, "silent"},
		{"keeps on asking and never logs in", stratum.Options{LoginTimeout: limit}, stratum.Port{}, func(c *client) {
			for {
				if _, err := io.WriteString(c.conn, `{"id":1,"method":"mining.ping"}`+"\n"); err != nil {
					return
				}
				if _, err := c.r.ReadLine(); err != nil {
					return
				}
			}
		}, "not authorized in time"},
		{"half of the TLS hello", stratum.Options{HandshakeTimeout: limit}, stratum.Port{TLS: newTLS(t).config}, func(c *client) {
			_, err := io.WriteString(c.conn, "\x16\x03\x01\x02\x00\x01")
			require.NoError(c.t, err)
		}, "silent"},
		{"half of a PROXY header", stratum.Options{HandshakeTimeout: limit}, stratum.Port{TrustedProxies: loopback}, func(c *client) {
			_, err := io.WriteString(c.conn, "PROXY TCP4 10.")
			require.NoError(c.t, err)
		}, "silent"},
		{"logs in and stops", stratum.Options{IdleTimeout: limit}, stratum.Port{}, func(c *client) { c.start("alice.rig") }, "silent"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			why := make(chan error, 1)
			test.opts.Limits = stratum.NoLimits()
			test.opts.NotifyInterval = 10 * time.Millisecond // which is also how often silence is looked for
			test.opts.Hooks.Disconnected = func(_ *stratum.Session, reason error) { why <- reason }
			p, addr := listen(t, test.opts, test.port)
			c := connect(t, addr)
			start := time.Now()
			test.act(c)
			<-c.discard()
			require.GreaterOrEqual(t, time.Since(start), limit/2)
			require.ErrorContains(t, <-why, test.why)
			p.empty()
		})
	}
}

// TestAMinerThatSpeaksOutlivesTheIdleTimeout asks before each timeout is over.
func TestAMinerThatSpeaksOutlivesTheIdleTimeout(t *testing.T) {
	const idle = 400 * time.Millisecond
	_, addr := listen(t, stratum.Options{IdleTimeout: idle, NotifyInterval: 20 * time.Millisecond}, stratum.Port{})
	c := connect(t, addr)
	c.start("alice.rig")
	for start := time.Now(); time.Since(start) < 3*idle; {
		c.notify() // which paces it
		c.send(`{"id":7,"method":"mining.ping"}`)
		for !strings.Contains(c.line(), "pong") {
		}
	}
}

// TestPushesGoOnAfterTheWriteDeadline: a reply sets a deadline for writing, and everything that is pushed long after it
// has passed must go out all the same.
func TestPushesGoOnAfterTheWriteDeadline(t *testing.T) {
	const timeout = 50 * time.Millisecond
	for _, port := range []struct {
		name string
		port stratum.Port
	}{{"plain", stratum.Port{}}, {"TLS", stratum.Port{TLS: newTLS(t).config}}} {
		t.Run(port.name, func(t *testing.T) {
			p, addr := listen(t, stratum.Options{WriteTimeout: timeout, NotifyInterval: 20 * time.Millisecond}, port.port)
			c := connect(t, addr)
			if port.port.TLS != nil {
				c = overTLS(t, c.conn)
			}
			id, n := c.start("alice.rig")
			accepted := func(w work) {
				c.send(`{"id":9,"method":"mining.submit","params":` + w.params() + `}`)
				line := c.line()
				for strings.Contains(line, "mining.notify") {
					line = c.line()
				}
				require.Equal(t, `{"id":9,"result":true,"error":null}`, line)
			}
			accepted(c.solve(id, n, easy, 0, false))
			for replied := time.Now(); time.Since(replied) < 4*timeout; {
				c.notify() // the same job again, to show that the connection lives
			}
			p.broadcast(101, hardBits)
			for first := id; id == first; {
				id, n = c.notify()
			}
			accepted(c.solve(id, n, easy, 0, false))
		})
	}
}

// TestAMinerThatStopsReadingItsSocket is dropped, by the limit of its queue when jobs come and by the write timeout when
// it sends requests; others notice nothing.
func TestAMinerThatStopsReadingItsSocket(t *testing.T) {
	why := make(chan error, 9)
	p, addr := listen(t, stratum.Options{
		MaxQueue: 16 << 10, WriteTimeout: 200 * time.Millisecond, Limits: stratum.NoLimits(),
		Hooks: stratum.Hooks{Disconnected: func(s *stratum.Session, reason error) {
			if w, _ := s.Worker(); w.User != "quick" {
				why <- reason
			}
		}},
	}, stratum.Port{})
	quick := connect(t, addr)
	quick.start("quick.rig")
	small := func() *client { // a connection that holds little
		conn, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		require.NoError(t, conn.(*net.TCPConn).SetReadBuffer(2048))
		c := newClient(t, conn)
		c.start("slow.rig")
		return c
	}
	asking := small()
	go func() {
		pings := []byte(strings.Repeat(`{"id":7,"method":"mining.ping"}`+"\n", 1000))
		for {
			if _, err := asking.conn.Write(pings); err != nil {
				return
			}
		}
	}()
	require.Error(t, <-why)

	small()
	var slow *stratum.Session
	for s := range p.server.Sessions {
		if w, _ := s.Worker(); w.User == "slow" {
			slow = s
		}
	}
	message := strings.Repeat("x", 10<<10)
	for range 10000 {
		if err := slow.ShowMessage(message); err != nil {
			break
		}
	}
	require.ErrorContains(t, <-why, "does not read")
	require.Eventually(t, func() bool { return p.server.Stats().Sessions == 1 }, patience, time.Millisecond)
	quick.send(`{"id":7,"method":"mining.ping"}`)
	require.Contains(t, quick.line(), "pong")
}

// TestServeTwice serves, stops and serves again with the same server: sessions, jobs and counters go on, and each time
// everything it opened is closed.
func TestServeTwice(t *testing.T) {
	p := newPool(t, stratum.Options{})
	var en1 []byte
	for round := range 3 {
		leavesNothing(t, func() {
			addr, stop := p.serve(stratum.Port{})
			if round == 0 {
				p.broadcast(100, hardBits)
			}
			p.ready()
			c := connect(t, addr)
			id, n := c.start("alice.rig")
			require.NotEqual(t, en1, c.en1)
			en1 = c.en1
			require.Equal(t, "true", c.submit(c.solve(id, n, easy, 0, false)))
			idle, silent := connect(t, addr), connect(t, addr)
			idle.start("bob.rig")
			require.Eventually(t, func() bool { return p.server.Stats().Sessions == 3 }, patience, time.Millisecond)
			require.NoError(t, stop())
			c.ended()
			idle.ended()
			silent.ended()
			require.Zero(t, p.server.Stats().Sessions)
			_, err := net.Dial("tcp", addr)
			require.Error(t, err)
			for _, c := range []*client{c, idle, silent} {
				c.conn.Close()
			}
		})
		require.Equal(t, int64(3*(round+1)), p.server.Stats().Connections)
		require.Equal(t, round+1, p.credited())
	}
}

// TestStopWhileConnectionsCome stops a server that is being connected to. Whoever gets in is closed, and Serve ends.
func TestStopWhileConnectionsCome(t *testing.T) {
	leavesNothing(t, func() {
		for range 10 {
			p, addr := listen(t, stratum.Options{}, stratum.Port{})
			var wg sync.WaitGroup
			var came atomic.Int64
			for worker := range 8 {
				wg.Go(func() {
					for {
						conn, err := net.Dial("tcp", addr)
						if err != nil {
							return // nobody listens any more
						}
						came.Add(1)
						conn.SetDeadline(time.Now().Add(patience))
						io.WriteString(conn, loginLines)
						if worker == 0 {
							if _, err = io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
								t.Error("a connection was left open")
							}
						}
						conn.Close()
					}
				})
			}
			require.Eventually(t, func() bool { return came.Load() > 20 }, patience, time.Millisecond)
			require.NoError(t, p.stop())
			wg.Wait()
			require.Zero(t, p.server.Stats().Sessions)
		}
	})
}

// TestShutdown asks miners to go elsewhere and lets them finish. Nobody new gets in meanwhile.
func TestShutdown(t *testing.T) {
	p, addr := listen(t, stratum.Options{}, stratum.Port{})
	c, other := connect(t, addr), connect(t, addr)
	id, n := c.start("alice.rig")
	other.start("bob.rig")
	served := make(chan error, 1)
	go func() { served <- p.stopped(addr) }()
	down := make(chan struct{})
	go func() { p.server.Shutdown(context.Background()); close(down) }()

	const reconnect = `{"id":null,"method":"client.reconnect","params":[]}`
	require.Equal(t, reconnect, c.line())
	require.Equal(t, reconnect, other.line())
	require.NoError(t, <-served)
	require.Equal(t, "true", c.submit(c.solve(id, n, easy, 0, false)), "shares are taken until the miner goes")
	p.broadcast(101, hardBits)
	_, n = c.notify()
	require.True(t, n.Clean, "and new blocks are told")
	require.NoError(t, c.conn.Close())
	select {
	case <-down:
		t.Fatal("one miner is still there")
	default:
	}
	require.Equal(t, p.credited(), 1)
	require.NoError(t, other.conn.Close())
	<-down
	require.NoError(t, p.stop())
	p.server.Shutdown(context.Background()) // of a server that does not serve
}

// stopped waits until nobody listens on addr.
func (p *pool) stopped(addr string) error {
	for range 10000 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return nil
		}
		conn.Close()
	}
	return errors.New("somebody still listens")
}

// TestShutdownHasAnEnd cuts off who does not follow when the context ends, and two calls at once both end when all have
// gone.
func TestShutdownHasAnEnd(t *testing.T) {
	in(t, stratum.Options{}, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dial()
		c.start("alice.rig")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		go p.server.Shutdown(ctx)
		require.Contains(t, c.line(), "client.reconnect")
		for range 2 {
			c.notify()
		}
		c.ended()
		require.Equal(t, time.Minute, time.Since(start))
		require.NoError(t, p.stop())
	})
	in(t, stratum.Options{}, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dial()
		c.start("alice.rig")
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() { p.server.Shutdown(t.Context()) })
			synctest.Wait()
		}
		require.Contains(t, c.line(), "client.reconnect")
		require.Contains(t, c.line(), "client.reconnect")
		require.NoError(t, c.conn.Close())
		wg.Wait()
		require.NoError(t, p.stop())
	})
}

// TestShutdownWithAnAgent: an agent knows no client.reconnect and stays; its shares are judged to the end.
func TestShutdownWithAnAgent(t *testing.T) {
	p, addr := listen(t, stratum.Options{}, stratum.Port{})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	a, err := stratumtest.DialAgent(ctx, addr, nil)
	require.NoError(t, err)
	require.NoError(t, a.Handshake(ctx))
	require.NoError(t, a.Register(ctx, 1, "cgminer/4.12.1", "rig1"))
	j, err := a.NextJob(ctx)
	require.NoError(t, err)
	down := make(chan struct{})
	go func() { p.server.Shutdown(context.Background()); close(down) }()
	require.NoError(t, p.stopped(addr))
	for range 3 {
		s, err := a.Solve(ctx, j, 1)
		require.NoError(t, err)
		reply, err := a.Submit(ctx, 1, s)
		require.NoError(t, err)
		require.True(t, reply.Accepted)
	}
	require.NoError(t, a.Close())
	<-down
	require.NoError(t, p.stop())
	require.Equal(t, 3, p.credited())
}

// A gate is an Authorizer that has everybody but "quick" wait.
type gate struct {
	waiting atomic.Int64
	open    chan struct{}
}

func (g *gate) Authorize(ctx context.Context, w share.Worker, _ string) (int32, error) {
	if w.User != "quick" {
		g.waiting.Add(1)
		select {
		case <-g.open:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	return 1, nil
}

// TestManyWaitForTheAuthorizer has many miners log in at the same moment, more than the poller and its helpers are, each
// of whom the Authorizer keeps waiting. Those who mine already go on, others log in, and then so do all.
func TestManyWaitForTheAuthorizer(t *testing.T) {
	const waiting = 100
	leavesNothing(t, func() {
		g := &gate{open: make(chan struct{})}
		p := &pool{t: t, hub: job.NewHub(nil)}
		var err error
		p.server, err = stratum.New(p.hub, g, p, p, &stratum.Options{StartDifficulty: difficulty.Min, MinDifficulty: difficulty.Min, AboveNetwork: true})
		require.NoError(t, err)
		addr, stop := p.serve(stratum.Port{})
		p.broadcast(100, hardBits)
		p.ready()
		first := connect(t, addr)
		id, n := first.start("quick.rig1")
		all := make([]*client, waiting)
		for i := range all {
			all[i] = connect(t, addr)
		}
		for i, c := range all {
			_, err := io.WriteString(c.conn, strings.ReplaceAll(loginLines, "alice.rig", fmt.Sprintf("slow.rig%d", i)))
			require.NoError(t, err)
		}
		require.Eventually(t, func() bool { return g.waiting.Load() == waiting }, patience, time.Millisecond)
		require.Equal(t, "true", first.submit(first.solve(id, n, difficulty.Min, 0, false)))
		second := connect(t, addr)
		id, n = second.start("quick.rig2")
		require.Equal(t, "true", second.submit(second.solve(id, n, difficulty.Min, 0, false)))
		close(g.open)
		for _, c := range all {
			c.line() // subscribe
			require.Equal(t, `{"id":2,"result":true,"error":null}`, c.line())
		}
		for _, c := range append(all, first, second) {
			require.NoError(t, c.conn.Close())
		}
		require.NoError(t, stop())
	})
}

// TestMinersThatBreakOffWhileJobsArePushed closes sockets from both sides at the same moment: their descriptors go to
// new connections at once, which must not be taken for the old ones.
func TestMinersThatBreakOffWhileJobsArePushed(t *testing.T) {
	leavesNothing(t, func() {
		p, addr := listen(t, stratum.Options{}, stratum.Port{})
		stop := make(chan struct{})
		var pushing, mining sync.WaitGroup
		pushing.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				for s := range p.server.Sessions {
					_ = s.Ping()
				}
			}
		})
		failed := make(chan error, 4)
		for worker := range 4 {
			mining.Go(func() {
				for i := range 100 {
					conn, err := net.Dial("tcp", addr)
					if err == nil {
						err = conn.SetDeadline(time.Now().Add(patience))
					}
					if err == nil {
						_, err = io.WriteString(conn, loginLines+`{"id":3,"method":"mining.ping"}`+"\n")
					}
					if err != nil {
						failed <- err
						return
					}
					r := bufio.NewReader(conn)
					for line := ""; !strings.Contains(line, "pong"); {
						if line, err = r.ReadString('\n'); err != nil {
							failed <- fmt.Errorf("worker %d, connection %d: %w", worker, i, err)
							return
						}
					}
					if i%2 == 0 {
						conn.(*net.TCPConn).SetLinger(0)
					}
					conn.Close()
				}
			})
		}
		mining.Wait()
		close(stop)
		pushing.Wait()
		require.Empty(t, failed)
		p.empty()
		require.NoError(t, p.stop())
	})
}
