package stratum_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum"
	"github.com/stretchr/testify/require"
)

func TestSilentAndSlowMinersAreDropped(t *testing.T) {
	for _, test := range []struct {
		name  string
		after time.Duration
		act   func(p *pool, c *client)
	}{
		{"says nothing", 15 * time.Second, func(*pool, *client) {}},
		{"subscribes and stops", 15 * time.Second, func(_ *pool, c *client) {
			c.send(`{"id":1,"method":"mining.subscribe","params":[]}`)
			c.line()
		}},
		{"sends a byte a second", time.Minute, func(_ *pool, c *client) {
			done := make(chan struct{})
			c.t.Cleanup(func() { <-done })
			go func() {
				defer close(done)
				for {
					if _, err := c.conn.Write([]byte(" ")); err != nil {
						return
					}
					time.Sleep(time.Second)
				}
			}()
		}},
		{"authorizes and stops", 10 * time.Minute, func(p *pool, c *client) { c.login("alice.rig") }},
	} {
		t.Run(test.name, func(t *testing.T) {
			in(t, stratum.Options{}, func(t *testing.T, p *pool) {
				c := p.dial()
				start := time.Now()
				test.act(p, c)
				c.ended()
				require.InDelta(t, test.after.Seconds(), time.Since(start).Seconds(), test.after.Seconds()/10)
				synctest.Wait()
				require.Zero(t, p.server.Stats().Sessions)
			})
		})
	}
}

func TestAMinerThatSpeaksIsNotDropped(t *testing.T) {
	in(t, stratum.Options{}, func(t *testing.T, p *pool) {
		c := p.dial()
		c.login("alice.rig")
		for range 20 {
			time.Sleep(9 * time.Minute)
			c.send(`{"id":1,"method":"mining.ping"}`)
			require.Contains(t, c.line(), "pong")
		}
	})
}

func TestJunk(t *testing.T) {
	long := strings.Repeat("a", 5000)
	for _, test := range []struct {
		name, login, junk string
		ends              bool
	}{
		{"an agent frame", "", "\x7f\x01\x04\x00\x00", true},
		{"binary before login", "", "\x00\x01\x02\n", true},
		{"JSON that is not a request", "", "{\"a\"\n", true},
		{"a batch", "", "[{\"id\":1,\"method\":\"mining.subscribe\",\"params\":[]}]\n", true},
		{"a line above 4 KiB before login", "", `{"id":1,"method":"mining.subscribe","params":["` + long + "\"]}\n", true},
		{"a line without end before login", "", `{"id":1,"method":"` + long, true},
		{"a line above 4 KiB after login", "alice", `{"id":1,"method":"mining.ping","params":["` + long + "\"]}\n", false},
		{"a line above 16 KiB after login", "alice", `{"id":1,"method":"mining.ping","params":["` + long + long + long + long + "\"]}\n", true},
		{"a line without end after login", "alice", `{"id":1,"method":"` + long + long + long + long, true},
		{"one bad line after login", "alice", "{{{\n", false},
		{"three bad lines after login", "alice", "{{{\n\x00\n[]]\n", true},
		{"nesting without end", "alice", strings.Repeat("[", 10000) + "\n" + strings.Repeat(`{"a":`, 2000) + "\n{\n", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			in(t, stratum.Options{}, func(t *testing.T, p *pool) {
				c := p.dial()
				if test.login != "" {
					c.login(test.login)
				}
				go c.conn.Write([]byte(test.junk))
				if test.ends {
					start := time.Now()
					c.ended()
					require.Less(t, time.Since(start), 15*time.Second, "at once, and not by a timeout")
					return
				}
				synctest.Wait()
				for strings.Contains(test.junk, "mining.ping") {
					require.Contains(t, c.line(), "pong")
					break
				}
				c.send(`{"id":7,"method":"mining.ping"}`)
				require.Contains(t, c.line(), `"id":7`)
			})
		})
	}
}

func TestRequestsInPieces(t *testing.T) {
	in(t, stratum.Options{}, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dial()
		id, n := c.start("alice.rig")
		w := c.solve(id, n, easy, 0, false)
		line := `{"id":9,"method":"mining.submit","params":` + w.params() + "}\n"
		for i := range len(line) {
			_, err := c.conn.Write([]byte(line[i : i+1]))
			require.NoError(t, err)
		}
		require.Equal(t, `{"id":9,"result":true,"error":null}`, c.line())
	})
}

// A miner that does not read is dropped when its queue is full. It never holds up the others.
func TestAMinerThatDoesNotReadHoldsUpNobody(t *testing.T) {
	in(t, stratum.Options{MaxQueue: 16 << 10}, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		slow, quick := p.dial(), p.dial()
		slow.start("slow.rig")
		quick.start("quick.rig")
		for h := int32(101); h < 160; h++ {
			time.Sleep(100 * time.Millisecond)
			before := time.Now()
			p.broadcast(h, hardBits)
			_, n := quick.notify()
			require.True(t, n.Clean)
			require.Equal(t, before, time.Now())
		}
		synctest.Wait()
		require.Equal(t, 1, p.server.Stats().Sessions, "the slow one is gone")
	})
}

func TestAStuckMinerIsDroppedByTheWriteTimeout(t *testing.T) {
	in(t, stratum.Options{WriteTimeout: 5 * time.Second}, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dial()
		c.start("slow.rig")
		p.broadcast(101, hardBits)
		time.Sleep(4 * time.Second)
		synctest.Wait()
		require.Equal(t, 1, p.server.Stats().Sessions)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.Zero(t, p.server.Stats().Sessions)
	})
}

func TestThreeFailedLoginsEndTheConnection(t *testing.T) {
	in(t, stratum.Options{}, func(t *testing.T, p *pool) {
		c := p.dial()
		for i := range 3 {
			c.send(fmt.Sprintf(`{"id":%d,"method":"mining.authorize","params":["",""]}`, i))
			require.Equal(t, fmt.Sprintf(`{"id":%d,"result":null,"error":[29,"Invalid username",null]}`, i), c.line())
		}
		c.ended()
	})
}

func TestMaxSessions(t *testing.T) {
	in(t, stratum.Options{MaxSessions: 2}, func(t *testing.T, p *pool) {
		a, b := p.dial(), p.dial()
		a.login("a.x")
		b.login("b.x")
		p.dial().ended()
		require.Equal(t, int64(1), p.server.Stats().Refused)
		a.conn.Close()
		synctest.Wait()
		p.dial().login("c.x")
	})
}

// What a session has read when the server stops is recorded and answered.
func TestServeDrains(t *testing.T) {
	in(t, stratum.Options{}, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dial()
		id, n := c.start("alice.rig")
		w := c.solve(id, n, easy, 0, false)
		idle := p.dial()
		idle.start("bob.rig")
		synctest.Wait()

		p.mu.Lock() // the sink is busy while the server stops
		c.send(`{"id":9,"method":"mining.submit","params":` + w.params() + `}`)
		stopped := make(chan error)
		go func() { stopped <- p.stop() }()
		idle.ended()
		p.mu.Unlock()
		require.Equal(t, `{"id":9,"result":true,"error":null}`, c.line())
		c.ended()
		require.NoError(t, <-stopped)
		require.Len(t, p.recorded(), 1)
		_, err := p.ln.Dial(t.Context())
		require.Error(t, err)
	})
}

func TestServeCutsOffWhatDoesNotEnd(t *testing.T) {
	in(t, stratum.Options{DrainTimeout: time.Second}, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dial()
		id, n := c.start("alice.rig")
		c.send(`{"id":9,"method":"mining.submit","params":` + c.solve(id, n, easy, 0, false).params() + `}`)
		synctest.Wait() // the reply is not read
		start := time.Now()
		require.NoError(t, p.stop())
		require.LessOrEqual(t, time.Since(start), 2*time.Second)
	})
}

type brokenListener struct{ net.Listener }

func (brokenListener) Accept() (net.Conn, error) { return nil, net.ErrClosed }

func TestServeFailsWhenAListenerDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := open(t, stratum.Options{})
		users, err := stratum.OpenUsers("")
		require.NoError(t, err)
		server, err := stratum.New(p.hub, users, p, p, nil)
		require.NoError(t, err)
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		require.ErrorIs(t, server.Serve(t.Context(), brokenListener{ln}), net.ErrClosed)
	})
}

func TestOptionsAreChecked(t *testing.T) {
	users, err := stratum.OpenUsers("")
	require.NoError(t, err)
	sink := share.SinkFunc(func(context.Context, []share.Share) error { return nil })
	hub := job.NewHub(nil)
	_, err = stratum.New(hub, users, sink, &pool{}, &stratum.Options{
		Extranonce2Size: 3, StartDifficulty: 0.3, MinDifficulty: 1 << 20, MaxDifficulty: 1024, MaxLine: 10,
	})
	for _, want := range []string{"extranonce2 of 3 bytes", "start difficulty 0.3", "above the maximum", "line limit 10"} {
		require.ErrorContains(t, err, want)
	}
	_, err = stratum.New(nil, users, sink, &pool{}, nil)
	require.Error(t, err)
	_, err = stratum.New(hub, users, sink, &pool{}, nil)
	require.NoError(t, err)
}

func TestPrefixesAreNeverShared(t *testing.T) {
	p := stratum.NewPrefixes(7, time.Minute)
	now := time.Unix(1e9, 0)
	held := make(map[uint32]bool)
	for range 1000 {
		prefix, err := p.Lease(now)
		require.NoError(t, err)
		require.Equal(t, uint32(7), prefix>>24)
		require.False(t, held[prefix])
		held[prefix] = true
	}
	p.Release(0x07000005, now)
	for range 1000 {
		prefix, err := p.Lease(now.Add(time.Second))
		require.NoError(t, err)
		require.False(t, held[prefix], "%08x is held or in quarantine", prefix)
		held[prefix] = true
	}
}

func TestUsersKeepTheirNumbers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	u, err := stratum.OpenUsers(path)
	require.NoError(t, err)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for _, name := range []string{"alice", "bob", "carol"} {
				_, err := u.Authorize(t.Context(), share.Worker{User: name, Name: "x"}, "")
				require.NoError(t, err)
			}
		})
	}
	wg.Wait()
	ids := make(map[string]int32)
	for name, id := range u.Names {
		ids[name] = id
	}
	require.Len(t, ids, 3)
	require.NoError(t, u.Close())

	// A process that was killed in the middle of a line has told nobody the number in it.
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteString("4 dav")
	require.NoError(t, err)
	require.NoError(t, f.Close())

	u, err = stratum.OpenUsers(path)
	require.NoError(t, err)
	defer u.Close()
	for name, want := range ids {
		id, err := u.Authorize(t.Context(), share.Worker{User: name}, "")
		require.NoError(t, err)
		require.Equal(t, want, id)
	}
	id, err := u.Authorize(t.Context(), share.Worker{User: "dave"}, "")
	require.NoError(t, err)
	require.Equal(t, int32(4), id)
	_, err = u.Authorize(t.Context(), share.Worker{User: "a b\n5 eve"}, "")
	require.ErrorIs(t, err, stratum.ErrUnknownUser)
}

func TestUsersRefuseAForeignFile(t *testing.T) {
	for name, content := range map[string]string{
		"no number":     "alice\n",
		"zero":          "0 alice\n",
		"not a number":  "x alice\n",
		"no name":       "1 \n",
		"a name twice":  "1 alice\n2 alice\n",
		"above 2^31":    "2147483648 alice\n",
		"binary":        "\x00\x01\x02\n",
		"a folder's id": "{\"users\":[]}\n",
	} {
		path := filepath.Join(t.TempDir(), "users")
		require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
		_, err := stratum.OpenUsers(path)
		require.Error(t, err, name)
	}
	_, err := stratum.OpenUsers(t.TempDir())
	require.Error(t, err)
	require.False(t, errors.Is(err, stratum.ErrUnknownUser))
}
