package stratum

import (
	"context"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/stratum/sv1"
	"github.com/stretchr/testify/require"
)

func TestSameDomain(t *testing.T) {
	tests := []struct {
		name, from, to string
		want           bool
	}{
		{"the same host", "pool.example", "pool.example", true},
		{"a sibling", "eu.pool.example", "us.pool.example", true},
		{"the parent", "eu.pool.example", "pool.example", true},
		{"below the host", "pool.example", "eu.pool.example", true},
		{"below a sibling", "eu.pool.example", "a.us.pool.example", true},
		{"a sibling of the parent", "a.eu.pool.example", "b.us.pool.example", false},
		{"another domain of the registry", "pool.example", "evil.example", false},
		{"the registry", "pool.example", "example", false},
		{"the name as a suffix", "pool.example", "evilpool.example", false},
		{"the parent as a suffix", "eu.pool.example", "evilpool.example", false},
		{"the name as a prefix", "eu.pool.example", "eu.pool.example.evil.example", false},
		{"another company of a country", "pool.co.uk", "evil.co.uk", false},
		{"another company of a country, com", "pool.com.cn", "evil.com.cn", false},
		{"a sibling below a country's company", "eu.pool.co.uk", "us.pool.co.uk", true},
		{"a sibling below a country", "eu.somepool.io", "us.somepool.io", true},
		{"a local name", "pool", "evil", false},
		{"below a local name", "pool", "evil.pool", false},
		{"the same address", "10.0.0.1", "10.0.0.1", true},
		{"another address", "10.0.0.1", "10.0.0.2", false},
		{"an address that ends alike", "1.10.0.0.1", "2.10.0.0.1", true}, // no address: five numbers are a name
		{"from a name to an address", "pool.example", "10.0.0.1", false},
		{"from an address to a name", "0.0.0.1", "a.0.0.0.1", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { require.Equal(t, tt.want, sameDomain(tt.from, tt.to)) })
	}
}

func TestClientReconnectToConfiguredPools(t *testing.T) {
	c, err := NewClient("eu.pool.example:1", &ClientOptions{User: "alice", Fallbacks: []string{"Other.example:2"}})
	require.NoError(t, err)
	p, err := c.redirected(c.pools[0], &sv1.Reconnect{Host: "other.example", Port: 3})
	require.NoError(t, err)
	require.Equal(t, "other.example:3", p.addr())
	_, err = c.redirected(c.pools[1], &sv1.Reconnect{Host: "third.example", Port: 3})
	require.ErrorIs(t, err, errReconnectHost)
	p, err = c.redirected(p, &sv1.Reconnect{})
	require.NoError(t, err)
	require.Equal(t, "other.example:3", p.addr())
}

// A redirect neither drops TLS nor the name that the certificate must have.
func TestClientReconnectKeepsTLS(t *testing.T) {
	c, err := NewClient("stratum+ssl://eu.pool.example:1", &ClientOptions{User: "alice"})
	require.NoError(t, err)
	p, err := c.redirected(c.pools[0], &sv1.Reconnect{Host: "us.pool.example", Port: 3})
	require.NoError(t, err)
	require.True(t, p.tls)
	require.Equal(t, "us.pool.example", p.host)
}

func TestClientBackoff(t *testing.T) {
	b := clientBackoff{min: time.Second, max: 10 * time.Second}
	for range 2 {
		for _, want := range []time.Duration{1, 2, 4, 8, 10, 10} {
			got := b.next()
			require.GreaterOrEqual(t, got, want*time.Second/2)
			require.LessOrEqual(t, got, want*time.Second)
		}
		b.reset()
	}
	seen := map[time.Duration]bool{}
	for range 20 {
		b.reset()
		seen[b.next()] = true
	}
	require.Greater(t, len(seen), 15, "miners must not come back in step")
}

// A pool that makes up codes does not fill the memory.
func TestClientCodesAreBounded(t *testing.T) {
	c, err := NewClient("pool.example:1", &ClientOptions{User: "alice"})
	require.NoError(t, err)
	for code := range 10_000 {
		c.count(&ClientVerdict{Code: 1000 + code})
	}
	stats := c.Stats()
	require.Len(t, stats.RejectedBy, maxRejectCodes+1)
	require.Equal(t, int64(10_000-maxRejectCodes), stats.RejectedBy[sv1.CodeOther])
	stats.RejectedBy[7] = 7
	require.NotContains(t, c.Stats().RejectedBy, 7, "a copy")
}

// fuzzSession is a session in the middle of its life whose connection leads nowhere.
func fuzzSession(tb testing.TB) *clientSession {
	c, err := NewClient("eu.pool.example:1", &ClientOptions{User: "alice", VersionMask: 0x1fffe000, SubscribeExtranonce: true})
	require.NoError(tb, err)
	conn, other := net.Pipe()
	tb.Cleanup(func() { conn.Close(); other.Close() })
	return newClientSession(c, c.pools[0], conn)
}

const fuzzNotify = `{"id":null,"method":"mining.notify","params":["5","00112233c6d7e8f98293a4b52d4f6071c7e9081b0001a3f50000000000000000",` +
	`"02000000010000000000000000000000000000000000000000000000000000000000000000ffffffff1f03bbd10c04809966662f53444b20706f6f6c2f",` +
	`"ffffffff01205fa012000000001600140102030405060708090a0b0c0d0e0f101112131400000000",` +
	`["a646769b477491d98705e4aafb01e08fea366cad0bd3260d43e279f057102304"],"20000000","17034219","66669991",true]}`

// FuzzClientLines gives a client what a pool may send, several lines at once, from the first moment on. Whatever comes,
// what it holds and hands out stays within its bounds.
func FuzzClientLines(f *testing.F) {
	login := `{"id":1,"result":{"version-rolling":true,"version-rolling.mask":"1fffe000"},"error":null}` + "\n" +
		`{"id":2,"result":[[["mining.notify","s"]],"aabb",12],"error":null}` + "\n" + `{"id":3,"result":true,"error":null}`
	for _, line := range []string{
		fuzzNotify, `{"id":null,"method":"mining.set_difficulty","params":[0.25]}`,
		`{"id":null,"method":"mining.set_extranonce","params":["cc",16]}`,
		`{"id":null,"method":"mining.set_version_mask","params":["0000e000"]}` + "\n" + fuzzNotify,
		fuzzNotify + "\n" + `{"id":null,"method":"mining.set_version_mask","params":["0000e000"]}`,
		`{"id":null,"method":"client.reconnect","params":["us.pool.example",3333,5]}`,
		`{"id":null,"method":"client.reconnect","params":["evil.example",3333,5]}`, `{"id":null,"method":"client.reconnect"}`,
		`{"id":null,"method":"client.show_message","params":["hello"]}`, `{"id":4,"method":"client.get_version"}`,
		`{"id":5,"method":"mining.ping"}`, `{"id":100,"result":true,"error":null}`, `{"id":100,"result":null,"error":[23,"Low difficulty",null]}`,
		`{"id":6,"method":"mining.dance"}`, `{}`, `[]`, "\x7f\x01",
	} {
		f.Add(line)
		f.Add(login + "\n" + line)
	}
	f.Add(`{"id":2,"result":null,"error":[20,"Unknown",null]}` + "\n" + `{"id":3,"result":[[],"aa",4],"error":null}`)
	f.Fuzz(func(t *testing.T, lines string) {
		s := fuzzSession(t)
		require.NoError(t, s.begin())
		share := &clientCall{reply: make(chan ClientVerdict, 1)}
		s.shares[100] = share
		for line := range strings.SplitSeq(lines, "\n") {
			if err := s.handle([]byte(line)); err != nil {
				require.Less(t, len(err.Error()), 4000)
				break
			}
			if s.authorized && !s.live {
				s.live = true
				if s.job != nil {
					s.c.deliver(s.job)
				}
			}
		}
		require.LessOrEqual(t, len(s.calls), 6)
		require.LessOrEqual(t, len(s.out), clientQueue)
		select {
		case v := <-share.reply:
			require.Equal(t, v.Accepted, v.Err() == nil)
			require.LessOrEqual(t, len(v.Message), maxClientText)
		default:
		}
		select {
		case j := <-s.c.jobs:
			require.True(t, s.authorized)
			require.LessOrEqual(t, len(j.Branch), sv1.MaxBranch)
			require.True(t, j.Extranonce2Size >= 1 && j.Extranonce2Size <= 16 && len(j.Extranonce1) <= 32)
			require.True(t, j.Difficulty >= difficulty.Min && j.Difficulty <= difficulty.Max)
			require.Zero(t, j.VersionMask&^0x1fffe000)
			require.Len(t, j.AppendHeader(nil, make([]byte, j.Extranonce2Size), 1, 2, 3), 80)
			_, _ = j.Height()
			_, _ = j.Job(1, "")
			_, _ = j.NetworkTarget()
		default:
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if r, ok := s.err.(*reconnectError); ok {
			require.True(t, sameDomain("eu.pool.example", r.pool.host))
			require.True(t, r.wait >= 0 && r.wait <= time.Minute)
		}
	})
}

// What a share costs from Submit to its verdict, with the pool in the same process and nothing hashed.
func BenchmarkClientSubmit(b *testing.B) {
	s := fuzzSession(b)
	peer := make(chan []byte, 1)
	s.offered = &sv1.SubscribeResult{}
	share := ClientShare{Job: &ClientJob{Extranonce2Size: 8}, Extranonce2: make([]byte, 8)}
	go func() {
		for range peer {
			line := <-s.out
			id, _, _ := strings.Cut(strings.TrimPrefix(string(line), `{"id":`), ",")
			_ = s.handle([]byte(`{"id":` + id + `,"result":true,"error":null}`))
		}
	}()
	b.ReportAllocs()
	for b.Loop() {
		peer <- nil
		if v, err := s.submit(b.Context(), &share); err != nil || !v.Accepted {
			b.Fatal(v, err)
		}
	}
	close(peer)
}

func BenchmarkClientNotify(b *testing.B) {
	s := fuzzSession(b)
	s.subscribed, s.authorized, s.live, s.extranonce2Size = true, true, true, 8
	line := []byte(fuzzNotify)
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	for b.Loop() {
		if err := s.handle(line); err != nil {
			b.Fatal(err)
		}
	}
}

// Run on a context that has ended does nothing, and leaves nothing behind.
func TestClientRunAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dials := 0
		c, err := NewClient("pool.example:1", &ClientOptions{User: "alice", Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			dials++
			return nil, ctx.Err()
		}})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.NoError(t, c.Run(ctx))
		require.LessOrEqual(t, dials, 1)
	})
}
