package stratum_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
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
	"github.com/stretchr/testify/require"
)

// A clientNet is a network of pools in memory, by address. What is not in it refuses connections.
type clientNet struct {
	mu     sync.Mutex
	pools  map[string]*stratumtest.Listener
	dialed []string
}

func (n *clientNet) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	n.mu.Lock()
	n.dialed = append(n.dialed, addr)
	ln := n.pools[addr]
	n.mu.Unlock()
	if ln == nil {
		return nil, errors.New("connection refused")
	}
	return ln.Dial(ctx)
}

func (n *clientNet) attempts() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string(nil), n.dialed...)
}

// listen puts a pool on the network.
func (n *clientNet) listen(addr string) *stratumtest.Listener {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.pools == nil {
		n.pools = map[string]*stratumtest.Listener{}
	}
	ln := stratumtest.Listen()
	n.pools[addr] = ln
	return ln
}

const somePool = "eu.pool.example:3333"

// A clientRun is a client that runs until the end of its test.
type clientRun struct {
	*stratum.Client
	t     *testing.T
	ended chan error // of every session and attempt
	stop  func()
}

// runClient runs a client of somePool and, with opts.Fallbacks, others. It fails the test when Run fails or does not
// end.
func runClient(t *testing.T, n *clientNet, opts stratum.ClientOptions) *clientRun {
	t.Helper()
	r := &clientRun{t: t, ended: make(chan error, 1000)}
	if opts.User == "" {
		opts.User = "alice.rig"
	}
	if n != nil {
		opts.Dial = n.dial
	}
	hook := opts.Hooks.Disconnected
	opts.Hooks.Disconnected = func(pool string, err error) {
		r.ended <- err
		if hook != nil {
			hook(pool, err)
		}
	}
	var err error
	r.Client, err = stratum.NewClient(somePool, &opts)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-done)
	})
	t.Cleanup(r.stop)
	return r
}

func (r *clientRun) nextJob() *stratum.ClientJob {
	r.t.Helper()
	j, err := r.NextJob(r.t.Context())
	require.NoError(r.t, err)
	return j
}

// A result is what Submit returned.
type clientResult struct {
	v   stratum.ClientVerdict
	err error
}

func (r *clientRun) submit(ctx context.Context, s stratum.ClientShare) chan clientResult {
	out := make(chan clientResult, 1)
	go func() {
		v, err := r.Submit(ctx, s)
		out <- clientResult{v, err}
	}()
	return out
}

// A scripted is a pool's end of a connection.
type scripted struct {
	t    *testing.T
	conn net.Conn
	r    *sv1.Reader
}

func accept(t *testing.T, ln *stratumtest.Listener) *scripted {
	t.Helper()
	conn, err := ln.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return &scripted{t, conn, sv1.NewReader(conn, 0)}
}

func (p *scripted) line() string {
	p.t.Helper()
	line, err := p.r.ReadLine()
	require.NoError(p.t, err)
	return string(line)
}

// request reads a request of a method and returns its id and params.
func (p *scripted) request(m sv1.Method) (id, params string) {
	p.t.Helper()
	line := p.line()
	var req sv1.Request
	require.NoError(p.t, req.Decode([]byte(line)))
	require.Equal(p.t, m.String(), string(req.Name), line)
	return string(req.ID), string(req.Params)
}

func (p *scripted) send(format string, args ...any) {
	p.t.Helper()
	_, err := fmt.Fprintf(p.conn, format+"\n", args...)
	require.NoError(p.t, err)
}

// login lets the client in and returns the params it subscribed with.
func (p *scripted) login(extranonce1 string, size int) (subscribed string) {
	p.t.Helper()
	id, subscribed := p.request(sv1.MethodSubscribe)
	p.send(`{"id":%s,"result":[[["mining.set_difficulty","d1"],["mining.notify","session-%s"]],"%s",%d],"error":null}`,
		id, extranonce1, extranonce1, size)
	id, _ = p.request(sv1.MethodAuthorize)
	p.send(`{"id":%s,"result":true,"error":null}`, id)
	return subscribed
}

// ended reads until the client has gone.
func (p *scripted) ended() {
	p.t.Helper()
	for {
		if _, err := p.r.ReadLine(); err != nil {
			return
		}
	}
}

// notifyFields is the job of a worked example: a block's coinbase with height 840123 and two merkle steps.
const notifyFields = `"00112233c6d7e8f98293a4b52d4f6071c7e9081b0001a3f50000000000000000",` +
	`"02000000010000000000000000000000000000000000000000000000000000000000000000ffffffff1f03bbd10c04809966662f53444b20706f6f6c2f",` +
	`"ffffffff01205fa012000000001600140102030405060708090a0b0c0d0e0f101112131400000000",` +
	`["a646769b477491d98705e4aafb01e08fea366cad0bd3260d43e279f057102304","9c312fd9d0cb6d6e88d7c1016b75ec93bf23ad9b781affb57d4604edd445b446"],` +
	`"20000000","17034219","66669991"`

func notifyLine(id string, clean bool) string {
	return fmt.Sprintf(`{"id":null,"method":"mining.notify","params":["%s",%s,%v]}`, id, notifyFields, clean)
}

// someShare is a share of the right form.
func someShare(j *stratum.ClientJob) stratum.ClientShare {
	return stratum.ClientShare{Job: j, Extranonce2: make([]byte, j.Extranonce2Size), NTime: j.NTime, Nonce: 7}
}

// bubble runs a test in a synctest bubble, which also fails when a goroutine of it does not end.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

// The header, byte by byte, of a share that was hashed by hand.
func TestClientWorkedExample(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := &clientNet{}
		ln := n.listen(somePool)
		c := runClient(t, n, stratum.ClientOptions{VersionMask: 0x1fffe000, User: "alice.rig01", Password: "d=1"})
		p := accept(t, ln)
		id, params := p.request(sv1.MethodConfigure)
		require.JSONEq(t, `[["version-rolling"],{"version-rolling.mask":"1fffe000"}]`, params)
		p.send(`{"id":%s,"result":{"version-rolling":true,"version-rolling.mask":"1fffe000"},"error":null}`, id)
		id, params = p.request(sv1.MethodSubscribe)
		require.JSONEq(t, `["poolkit/1"]`, params)
		p.send(`{"id":%s,"result":[["mining.notify","1a00002b"],"1a00002b",8],"error":null}`, id)
		id, params = p.request(sv1.MethodAuthorize)
		require.JSONEq(t, `["alice.rig01","d=1"]`, params)
		p.send(`{"id":%s,"result":true,"error":null}`, id)
		p.send(`{"id":null,"method":"mining.set_difficulty","params":[1]}`)
		p.send("%s", notifyLine("5", false))

		j := c.nextJob()
		require.True(t, j.Clean, "the first job of a connection")
		require.Equal(t, "5", j.JobID)
		require.Equal(t, uint32(0x1fffe000), j.VersionMask)
		en2, _ := hex.DecodeString("00000000000004d2")
		header := j.AppendHeader(nil, en2, 0x66669991, 0x12f444d0, 0x00c00000)
		require.Equal(t, "0000c02033221100f9e8d7c6b5a4938271604f2d1b08e9c7f5a301000000000000000000"+
			"1c0b427af5afcb6e293f2f60d414d4b089c725c97d0f4b0984d885ca8bcf23d49199666619420317d044f412",
			hex.EncodeToString(header))
		hash := double(header)
		require.True(t, j.Target().MetBy(&hash))
		network, err := j.NetworkTarget()
		require.NoError(t, err)
		require.False(t, network.MetBy(&hash))
		height, err := j.Height()
		require.NoError(t, err)
		require.Equal(t, int32(840123), height)

		got := c.submit(t.Context(), stratum.ClientShare{
			Job: j, Extranonce2: en2, NTime: 0x66669991, Nonce: 0x12f444d0, VersionBits: 0x00c00000,
		})
		id, params = p.request(sv1.MethodSubmit)
		require.JSONEq(t, `["alice.rig01","5","00000000000004d2","66669991","12f444d0","00c00000"]`, params)
		time.Sleep(40 * time.Millisecond)
		p.send(`{"id":%s,"result":true,"error":null}`, id)
		r := <-got
		require.NoError(t, r.err)
		require.NoError(t, r.v.Err())
		require.Equal(t, 40*time.Millisecond, r.v.Latency)
		require.Equal(t, int64(1), c.Stats().Accepted)
	})
}

// Everything the client asks for, in the order that miners ask for it, and nothing it is not asked for.
func TestClientLogin(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := &clientNet{}
		ln := n.listen(somePool)
		runClient(t, n, stratum.ClientOptions{
			Agent: "mine/2", VersionMask: 0xe000, MinimumDifficulty: 0.5, SuggestDifficulty: 4096, SubscribeExtranonce: true,
		})
		p := accept(t, ln)
		id, params := p.request(sv1.MethodConfigure)
		require.JSONEq(t, `[["version-rolling","minimum-difficulty","subscribe-extranonce"],
			{"version-rolling.mask":"0000e000","minimum-difficulty.value":0.5}]`, params)
		p.send(`{"id":%s,"result":null,"error":[26,"Illegal method",null]}`, id) // an old pool
		require.JSONEq(t, `["mine/2"]`, p.login("aa", 4))
		_, params = p.request(sv1.MethodSuggestDifficulty)
		require.JSONEq(t, `[4096]`, params)
		p.request(sv1.MethodExtranonceSubscribe) // configure did not grant it
	})
}

// A pool that refuses to subscribe anything with params still gets its client, as it would cgminer.
func TestClientSubscribesAgainWithoutParams(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := &clientNet{}
		ln := n.listen(somePool)
		c := runClient(t, n, stratum.ClientOptions{})
		p := accept(t, ln)
		id, _ := p.request(sv1.MethodSubscribe)
		p.send(`{"id":%s,"result":null,"error":[20,"Unknown",null]}`, id)
		require.Equal(t, "[]", p.login("aa", 4))
		p.send("%s", notifyLine("1", true))
		c.nextJob()
	})
}

func TestClientDifficultyBelongsToTheNextJob(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := &clientNet{}
		ln := n.listen(somePool)
		c := runClient(t, n, stratum.ClientOptions{})
		p := accept(t, ln)
		p.login("aa", 4)
		p.send("%s", notifyLine("1", true))
		first := c.nextJob()
		p.send(`{"id":null,"method":"mining.set_difficulty","params":[4096]}`)
		synctest.Wait()
		require.Equal(t, difficulty.Difficulty(1), c.Stats().Difficulty)
		p.send("%s", notifyLine("2", false))
		second := c.nextJob()
		require.Equal(t, difficulty.Difficulty(1), first.Difficulty, "a pool that says nothing means 1")
		require.Equal(t, difficulty.Difficulty(4096), second.Difficulty)
		require.Equal(t, difficulty.Difficulty(4096).Target(), second.Target())
	})
}

func TestClientExtranonceFromTheNextJob(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := &clientNet{}
		ln := n.listen(somePool)
		c := runClient(t, n, stratum.ClientOptions{})
		p := accept(t, ln)
		p.login("aabb", 4)
		p.send("%s", notifyLine("1", true))
		first := c.nextJob()
		p.send(`{"id":null,"method":"mining.set_extranonce","params":["ccddee",6]}`)
		p.send("%s", notifyLine("2", false))
		second := c.nextJob()
		require.Equal(t, []byte{0xaa, 0xbb}, first.Extranonce1)
		require.Equal(t, 4, first.Extranonce2Size)
		require.Equal(t, []byte{0xcc, 0xdd, 0xee}, second.Extranonce1)
		require.Equal(t, 6, second.Extranonce2Size)

		for _, j := range []*stratum.ClientJob{first, second} { // either can still be submitted
			got := c.submit(t.Context(), someShare(j))
			id, params := p.request(sv1.MethodSubmit)
			require.Contains(t, params, fmt.Sprintf(`"%s","%s"`, j.JobID, strings.Repeat("00", j.Extranonce2Size)))
			p.send(`{"id":%s,"result":true,"error":null}`, id)
			require.NoError(t, (<-got).err)
		}
	})
}

// BIP 310: the mask applies at once, and never holds bits that were not asked for.
func TestClientVersionMaskAppliesAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := &clientNet{}
		ln := n.listen(somePool)
		c := runClient(t, n, stratum.ClientOptions{VersionMask: 0x00ffe000})
		p := accept(t, ln)
		id, _ := p.request(sv1.MethodConfigure)
		p.send(`{"id":%s,"result":{"version-rolling":true,"version-rolling.mask":"ffffffff"},"error":null}`, id)
		p.login("aa", 4)
		p.send("%s", notifyLine("1", true))
		first := c.nextJob()
		require.Equal(t, uint32(0x00ffe000), first.VersionMask)
		p.send(`{"id":null,"method":"mining.set_version_mask","params":["1000e000"]}`)
		again := c.nextJob()
		require.Equal(t, uint32(0x0000e000), again.VersionMask)
		require.Equal(t, "1", again.JobID)
		require.False(t, again.Clean)
		require.Equal(t, uint32(0x00ffe000), first.VersionMask, "a job that was handed out never changes")
		require.Equal(t, int64(1), c.Stats().Jobs)

		_, err := c.Submit(t.Context(), stratum.ClientShare{Job: again, Extranonce2: make([]byte, 4), VersionBits: 0x10000})
		require.ErrorContains(t, err, "outside the mask")
		_, err = c.Submit(t.Context(), stratum.ClientShare{Job: again, Extranonce2: make([]byte, 5)})
		require.ErrorContains(t, err, "extranonce2 of 5 bytes")
		_, err = c.Submit(t.Context(), stratum.ClientShare{})
		require.ErrorContains(t, err, "without a job")
	})
}

// The clean flag of a job that nobody took goes on to the next.
func TestClientCleanIsNeverLost(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var hooked []string
		n := &clientNet{}
		ln := n.listen(somePool)
		c := runClient(t, n, stratum.ClientOptions{Hooks: stratum.ClientHooks{
			Job: func(j *stratum.ClientJob) { hooked = append(hooked, fmt.Sprint(j.JobID, j.Clean)) },
		}})
		p := accept(t, ln)
		p.login("aa", 4)
		p.send("%s", notifyLine("1", false))
		require.Equal(t, "1", c.nextJob().JobID)
		for i, clean := range []bool{false, true, false, false} {
			p.send("%s", notifyLine(fmt.Sprint(i+2), clean))
		}
		synctest.Wait()
		j := c.nextJob()
		require.Equal(t, "5", j.JobID)
		require.True(t, j.Clean)
		p.send("%s", notifyLine("6", false))
		require.False(t, c.nextJob().Clean)
		c.stop()
		require.Equal(t, []string{"1true", "2false", "3true", "4false", "5false", "6false"}, hooked)
		_, err := c.NextJob(context.Background())
		require.ErrorIs(t, err, stratum.ErrClientStopped)
		_, err = c.Submit(context.Background(), someShare(j))
		require.ErrorIs(t, err, stratum.ErrClientStopped)
		require.ErrorContains(t, c.Run(t.Context()), "before")
	})
}

// Jobs that come before the reply to authorize are of use only after it.
func TestClientJobBeforeAuthorize(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := &clientNet{}
		ln := n.listen(somePool)
		c := runClient(t, n, stratum.ClientOptions{})
		p := accept(t, ln)
		id, _ := p.request(sv1.MethodSubscribe)
		p.send(`{"id":%s,"result":[[],"aa",4],"error":null}`, id)
		p.send(`{"id":null,"method":"mining.set_difficulty","params":[8]}`)
		p.send("%s", notifyLine("1", true))
		p.send("%s", notifyLine("2", false))
		id, _ = p.request(sv1.MethodAuthorize)
		synctest.Wait()
		require.False(t, c.Stats().Connected)
		p.send(`{"id":%s,"result":true,"error":null}`, id)
		j := c.nextJob()
		require.Equal(t, "2", j.JobID)
		require.True(t, j.Clean)
		require.Equal(t, difficulty.Difficulty(8), j.Difficulty)
	})
}

func TestClientAnswersThePool(t *testing.T) {
	bubble(t, func(t *testing.T) {
		shown := make(chan string, 9)
		n := &clientNet{}
		ln := n.listen(somePool)
		c := runClient(t, n, stratum.ClientOptions{Agent: "mine/2", Hooks: stratum.ClientHooks{
			Message: func(pool, text string) { shown <- pool + " " + text },
		}})
		p := accept(t, ln)
		id, _ := p.request(sv1.MethodSubscribe)
		p.send(`{"id":null,"method":"client.show_message","params":["early"]}`)
		p.send(`{"id":%s,"result":[[],"aa",4],"error":null}`, id)
		id, _ = p.request(sv1.MethodAuthorize)
		p.send(`{"id":%s,"result":true,"error":null}`, id)
		p.send(`{"id":9,"method":"mining.ping","params":[]}`)
		require.JSONEq(t, `{"id":9,"result":"pong","error":null}`, p.line())
		p.send(`{"id":"v","method":"client.get_version","params":[]}`)
		require.JSONEq(t, `{"id":"v","result":"mine/2","error":null}`, p.line())
		p.send(`{"id":10,"method":"mining.dance"}`)
		require.JSONEq(t, `{"id":10,"result":null,"error":[26,"Illegal method",null]}`, p.line())
		p.send(`{"id":null,"method":"mining.dance"}`)
		p.send(`{"id":77,"result":true,"error":null}`)
		p.send(`{"id":null,"method":"client.show_message","params":["go\u001b[2Jod \u00e4 %s"]}`, strings.Repeat("\xff", 500))
		require.Equal(t, "stratum+tcp://eu.pool.example:3333 early", <-shown)
		text := <-shown
		require.Contains(t, text, " go?[2Jod ä ")
		require.LessOrEqual(t, len(text), 256+len("stratum+tcp://eu.pool.example:3333 "))
		p.send(`{"id":11,"method":"mining.ping"}`)
		p.line()
		require.Equal(t, int64(3), c.Stats().UnknownMessages)
	})
}

// A pool that asks and never reads holds up neither the jobs nor the client's memory, and is dead after a while.
func TestClientPoolThatDoesNotRead(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := &clientNet{}
		ln := n.listen(somePool)
		c := runClient(t, n, stratum.ClientOptions{})
		p := accept(t, ln)
		p.login("aa", 4)
		for i := range 1000 {
			p.send(`{"id":%d,"method":"mining.ping","params":[]}`, i)
		}
		p.send("%s", notifyLine("1", true))
		c.nextJob()
		from := time.Now()
		require.ErrorContains(t, <-c.ended, "the pool took nothing for 30s")
		require.LessOrEqual(t, time.Since(from), 31*time.Second)
	})
}

func TestClientDeadlines(t *testing.T) {
	tests := []struct {
		name  string
		pool  func(p *scripted)
		after time.Duration
		err   string
	}{
		{"silent from the start", func(p *scripted) { p.ended() }, 30 * time.Second, "not logged in within 30s"},
		{"lines but no login", func(p *scripted) {
			go p.ended()
			for {
				if _, err := p.conn.Write([]byte(`{"id":null,"method":"mining.set_difficulty","params":[1]}` + "\n")); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}, 30 * time.Second, "not logged in within 30s"},
		{"silent after login", func(p *scripted) { p.login("aa", 4); p.ended() }, 90 * time.Second, "no line from the pool for 1m30s"},
		{"one byte a second", func(p *scripted) {
			p.login("aa", 4)
			go p.ended()
			for {
				if _, err := p.conn.Write([]byte(" ")); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}, 90 * time.Second, "no line from the pool for 1m30s"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				n := &clientNet{}
				ln := n.listen(somePool)
				from, lasted := time.Now(), make(chan time.Duration, 1)
				c := runClient(t, n, stratum.ClientOptions{ReconnectMin: time.Hour, Hooks: stratum.ClientHooks{
					Disconnected: func(string, error) { lasted <- time.Since(from) },
				}})
				tt.pool(accept(t, ln))
				require.ErrorContains(t, <-c.ended, tt.err)
				require.Equal(t, tt.after, <-lasted)
			})
		})
	}
}

// What a pool must not send: each line ends the session with a reason that quotes it, and the client logs in anew.
func TestClientJunk(t *testing.T) {
	notify := func(old, new string) string {
		line := notifyLine("1", true)
		changed := strings.Replace(line, old, new, 1)
		if changed == line {
			panic("nothing to replace: " + old)
		}
		return changed
	}
	step := `"a646769b477491d98705e4aafb01e08fea366cad0bd3260d43e279f057102304"`
	tests := []struct{ name, line, err string }{
		{"no JSON", `hello`, "not a JSON object"},
		{"an agent frame", "\x7f\x01\x04\x00", "not a JSON object"},
		{"a batch", `[{"id":1,"result":true,"error":null}]`, "batch"},
		{"neither method nor result", `{"id":1}`, "method"},
		{"nested without end", strings.Repeat(`{"a":`, 1000), "not a JSON object"},
		{"a line without end", strings.Repeat("x", 70_000), "too long"},
		{"difficulty NaN", `{"id":null,"method":"mining.set_difficulty","params":["nan"]}`, "difficulty"},
		{"difficulty zero", `{"id":null,"method":"mining.set_difficulty","params":[0]}`, "difficulty"},
		{"difficulty negative", `{"id":null,"method":"mining.set_difficulty","params":[-1]}`, "difficulty"},
		{"difficulty huge", `{"id":null,"method":"mining.set_difficulty","params":[1e300]}`, "outside"},
		{"difficulty infinite", `{"id":null,"method":"mining.set_difficulty","params":[1e999]}`, "difficulty"},
		{"difficulty next to nothing", `{"id":null,"method":"mining.set_difficulty","params":[1e-300]}`, "outside"},
		{"difficulty missing", `{"id":null,"method":"mining.set_difficulty","params":[]}`, "difficulty"},
		{"extranonce2 of 17 bytes", `{"id":null,"method":"mining.set_extranonce","params":["aa",17]}`, "want 1 to 16"},
		{"extranonce2 of 0 bytes", `{"id":null,"method":"mining.set_extranonce","params":["aa",0]}`, "size"},
		{"extranonce1 not hex", `{"id":null,"method":"mining.set_extranonce","params":["zz",4]}`, "extranonce1"},
		{"version mask not hex", `{"id":null,"method":"mining.set_version_mask","params":["zz"]}`, "mask"},
		{"job without id", notify(`["1",`, `["",`), "no job id"},
		{"job with 33 merkle steps", notify(step, strings.Repeat(step+",", 31)+step), "branch"},
		{"job with half a hash", notify("00112233", ""), "previous hash"},
		{"job with odd coinbase", notify(`"ffffffff01205f`, `"fffffff01205f`), "coinbase"},
		{"job without clean flag", notify(`"66669991",true`, `"66669991"`), "fewer than 9"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				n := &clientNet{}
				ln := n.listen(somePool)
				c := runClient(t, n, stratum.ClientOptions{})
				p := accept(t, ln)
				p.login("aa", 4)
				go func() { _, _ = p.conn.Write([]byte(tt.line + "\n")); p.ended() }()
				err := <-c.ended
				require.ErrorContains(t, err, tt.err)
				require.Less(t, len(err.Error()), 1000)
				require.False(t, c.Stats().Connected)
				require.Equal(t, err, c.Stats().LastError)
				p = accept(t, ln)
				p.login("aa", 4)
				p.send("%s", notifyLine("1", true))
				c.nextJob()
				require.Equal(t, int64(1), c.Stats().Reconnects)
			})
		})
	}
}

func TestClientJunkAtLogin(t *testing.T) {
	tests := []struct{ name, reply, err string }{
		{"subscribe refused", `{"id":%s,"result":null,"error":[28,"Ip banned",null]}`, `error 28 from the server: "Ip banned"`},
		{"extranonce2 of 17 bytes", `{"id":%s,"result":[[],"aa",17],"error":null}`, "want 1 to 16"},
		{"extranonce2 of -1 bytes", `{"id":%s,"result":[[],"aa",-1],"error":null}`, "size"},
		{"extranonce1 of 33 bytes", `{"id":%s,"result":[[],"` + strings.Repeat("aa", 33) + `",4],"error":null}`, "extranonce1"},
		{"subscribed to nothing", `{"id":%s,"result":true,"error":null}`, "result"},
		{"a job first", strings.ReplaceAll(notifyLine("1", true), "null", "%s"), "before the reply to mining.subscribe"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				n := &clientNet{}
				ln := n.listen(somePool)
				c := runClient(t, n, stratum.ClientOptions{ReconnectMin: time.Hour})
				p := accept(t, ln)
				go func() {
					for {
						line, err := p.r.ReadLine()
						var req sv1.Request
						if err != nil || req.Decode(line) != nil {
							return
						}
						_, _ = fmt.Fprintf(p.conn, tt.reply+"\n", req.ID)
					}
				}()
				require.ErrorContains(t, <-c.ended, tt.err)
			})
		})
	}
}

// A login that is refused is tried again, ever more rarely, and the reason can be read.
func TestClientRefusedLoginBacksOff(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := &clientNet{}
		ln := n.listen(somePool)
		c := runClient(t, n, stratum.ClientOptions{User: "mallory"})
		go func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				p := &scripted{t, conn, sv1.NewReader(conn, 0)}
				id, _ := p.request(sv1.MethodSubscribe)
				p.send(`{"id":%s,"result":[[],"aa",4],"error":null}`, id)
				id, _ = p.request(sv1.MethodAuthorize)
				p.send(`{"id":%s,"result":null,"error":[29,"Invalid username",null]}`, id)
				p.ended()
				conn.Close()
			}
		}()
		err := <-c.ended
		var refused *sv1.ReplyError
		require.ErrorAs(t, err, &refused)
		require.Equal(t, sv1.CodeInvalidUser, refused.Code)
		require.ErrorContains(t, err, "authorize mallory")
		time.Sleep(time.Hour)
		c.stop()
		require.NoError(t, ln.Close())
		// Between one a minute, which is the most rarely, and one in half a minute, after the first few.
		attempts := len(n.attempts())
		require.Greater(t, attempts, 60)
		require.Less(t, attempts, 130)
		require.Equal(t, int64(attempts), c.Stats().FailedAttempts)
		_, err = c.Submit(t.Context(), stratum.ClientShare{Job: &stratum.ClientJob{}})
		require.ErrorIs(t, err, stratum.ErrClientStopped)
	})
}

// A pool that lets everybody in and sends them away is not asked again at once for ever.
func TestClientShortSessionsBackOff(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := &clientNet{}
		ln := n.listen(somePool)
		c := runClient(t, n, stratum.ClientOptions{})
		go func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				(&scripted{t, conn, sv1.NewReader(conn, 0)}).login("aa", 4)
				conn.Close()
			}
		}()
		time.Sleep(time.Hour)
		c.stop()
		require.NoError(t, ln.Close())
		require.Less(t, len(n.attempts()), 130)
	})
}

// After a session that lasted, the client is back within a second, however long it had waited before.
func TestClientBackSoonAfterALongSession(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := &clientNet{}
		c := runClient(t, n, stratum.ClientOptions{ReadTimeout: -1, KeepAlive: -1, FailbackInterval: -1, Fallbacks: []string{"b.example:1"}})
		time.Sleep(10 * time.Minute)
		ln := n.listen("b.example:1")
		p := accept(t, ln)
		p.login("aa", 4)
		attempts := len(n.attempts())
		time.Sleep(time.Hour)
		require.True(t, c.Stats().Connected)
		require.Len(t, n.attempts(), attempts, "no better pool is looked for unless wanted")
		p.conn.Close()
		from := time.Now()
		accept(t, ln)
		require.LessOrEqual(t, time.Since(from), time.Second)
	})
}

// What one connection was told does not hold for the next.
func TestClientStartsAnew(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := &clientNet{}
		ln := n.listen(somePool)
		c := runClient(t, n, stratum.ClientOptions{VersionMask: 0xe000, SubscribeExtranonce: true})
		p := accept(t, ln)
		id, _ := p.request(sv1.MethodConfigure)
		p.send(`{"id":%s,"result":{"version-rolling":true,"version-rolling.mask":"0000e000","subscribe-extranonce":true},"error":null}`, id)
		p.login("aa", 4)
		p.send(`{"id":null,"method":"mining.set_difficulty","params":[4096]}`)
		p.send("%s", notifyLine("1", true))
		j := c.nextJob()
		require.Equal(t, difficulty.Difficulty(4096), j.Difficulty)
		got := c.submit(t.Context(), someShare(j))
		p.request(sv1.MethodSubmit) // and not mining.extranonce.subscribe, which configure granted
		p.conn.Close()
		require.ErrorIs(t, (<-got).err, stratum.ErrUnanswered)

		p = accept(t, ln)
		id, _ = p.request(sv1.MethodConfigure)
		p.send(`{"id":%s,"result":{"version-rolling":false},"error":null}`, id)
		p.login("bb", 5)
		p.send("%s", notifyLine("1", false))
		j = c.nextJob()
		require.True(t, j.Clean)
		require.Equal(t, difficulty.Difficulty(1), j.Difficulty)
		require.Zero(t, j.VersionMask)
		require.Equal(t, 5, j.Extranonce2Size)
	})
}

// The log names pools, not passwords, and a pool cannot fill it.
func TestClientLog(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var log strings.Builder
		n := &clientNet{}
		ln := n.listen("b.example:1")
		c := runClient(t, n, stratum.ClientOptions{
			Password: "sesame", Fallbacks: []string{"stratum+tcp://bob:sesame2@b.example:1"},
			Logger: slog.New(slog.NewTextHandler(&log, nil)),
		})
		p := accept(t, ln)
		p.login("aa", 4)
		for range 1000 {
			p.send(`{"id":null,"method":"client.reconnect","params":["evil.example",1]}`)
			p.send(`{"id":null,"method":"client.show_message","params":["hello"]}`)
		}
		p.conn.Close()
		accept(t, ln).ended()
		c.stop()
		require.Contains(t, log.String(), "stratum+tcp://b.example:1")
		require.Contains(t, log.String(), "evil.example")
		require.NotContains(t, log.String(), "sesame")
		require.Less(t, strings.Count(log.String(), "\n"), 30)
	})
}

// A miner that comes back names its old session. Shares of earlier jobs count only if it gets it.
func TestClientResumes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := &clientNet{}
		ln := n.listen(somePool)
		c := runClient(t, n, stratum.ClientOptions{})
		p := accept(t, ln)
		require.JSONEq(t, `["poolkit/1"]`, p.login("aabb", 4))
		p.send("%s", notifyLine("1", true))
		old := c.nextJob()
		p.conn.Close()
		require.ErrorContains(t, <-c.ended, "the pool closed the connection")
		_, err := c.Submit(t.Context(), someShare(old))
		require.ErrorIs(t, err, stratum.ErrNotConnected)

		p = accept(t, ln)
		require.JSONEq(t, `["poolkit/1","session-aabb"]`, p.login("aabb", 4))
		synctest.Wait()
		got := c.submit(t.Context(), someShare(old))
		id, _ := p.request(sv1.MethodSubmit)
		p.send(`{"id":%s,"result":null,"error":[21,"Job not found (=stale)",null]}`, id)
		r := <-got
		require.NoError(t, r.err)
		require.False(t, r.v.Accepted)
		var refused *sv1.ReplyError
		require.ErrorAs(t, r.v.Err(), &refused)
		require.Equal(t, &sv1.ReplyError{Code: 21, Message: "Job not found (=stale)"}, refused)
		p.conn.Close()
		<-c.ended

		p = accept(t, ln)
		p.login("aacc", 4)
		synctest.Wait()
		_, err = c.Submit(t.Context(), someShare(old))
		require.ErrorIs(t, err, stratum.ErrJobGone)
		require.Equal(t, map[int]int64{21: 1}, c.Stats().RejectedBy)
		require.Equal(t, int64(2), c.Stats().Reconnects)
	})
}

// Verdicts go by the id, in whatever order they come; a lost connection leaves the rest unanswered.
func TestClientManyInFlight(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := &clientNet{}
		ln := n.listen(somePool)
		c := runClient(t, n, stratum.ClientOptions{MaxInFlight: 100})
		p := accept(t, ln)
		p.login("aa", 4)
		p.send("%s", notifyLine("1", true))
		j := c.nextJob()
		got := make([]chan clientResult, 120)
		for i := range got {
			s := someShare(j)
			s.Nonce = uint32(i)
			got[i] = c.submit(t.Context(), s)
		}
		ids := map[int]string{} // by nonce
		read := func(n int) {
			for range n {
				id, params := p.request(sv1.MethodSubmit)
				var nonce int
				_, err := fmt.Sscanf(params[len(params)-10:], `%08x`, &nonce)
				require.NoError(t, err)
				ids[nonce] = id
			}
		}
		read(100)
		synctest.Wait()
		require.Len(t, ids, 100)
		answered := 0
		for nonce, id := range ids { // in random order
			switch {
			case nonce%3 == 0:
				p.send(`{"id":%s,"result":true,"error":null}`, id)
			case nonce%3 == 1:
				p.send(`{"id":%s,"result":false,"error":null}`, id)
			default:
				continue
			}
			answered++
			if answered == 10 {
				break
			}
		}
		read(10) // as many as have been answered
		synctest.Wait()
		p.conn.Close()
		var accepted, rejected, unanswered, unsent int
		for nonce, ch := range got {
			switch r := <-ch; {
			case r.err == nil && r.v.Accepted:
				require.Zero(t, nonce%3)
				accepted++
			case r.err == nil:
				require.Equal(t, 1, nonce%3)
				require.Equal(t, sv1.CodeOther, r.v.Code)
				rejected++
			case errors.Is(r.err, stratum.ErrUnanswered):
				unanswered++
			default:
				require.ErrorIs(t, r.err, stratum.ErrNotConnected)
				unsent++
			}
		}
		require.Equal(t, []int{10, 100, 10}, []int{accepted + rejected, unanswered, unsent})
		stats := c.Stats()
		require.Equal(t, int64(accepted), stats.Accepted)
		require.Equal(t, int64(rejected), stats.Rejected)
		require.Equal(t, int64(unanswered), stats.Unanswered)
	})
}

func TestClientSubmitGivesUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := &clientNet{}
		ln := n.listen(somePool)
		c := runClient(t, n, stratum.ClientOptions{ReadTimeout: -1})
		p := accept(t, ln)
		p.login("aa", 4)
		p.send("%s", notifyLine("1", true))
		j := c.nextJob()

		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		got := c.submit(ctx, someShare(j))
		late, _ := p.request(sv1.MethodSubmit)
		r := <-got
		require.ErrorIs(t, r.err, context.DeadlineExceeded)
		require.ErrorIs(t, r.err, stratum.ErrUnanswered)
		_, err := c.Submit(ctx, someShare(j))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, err, stratum.ErrUnanswered, "it was not sent")

		from := time.Now()
		got = c.submit(t.Context(), someShare(j))
		p.request(sv1.MethodSubmit)
		p.send(`{"id":%s,"result":true,"error":null}`, late) // nobody waits for it, and it is no reply to the second
		r = <-got
		require.ErrorIs(t, r.err, stratum.ErrUnanswered)
		require.Equal(t, time.Minute, time.Since(from))
		require.Equal(t, int64(2), c.Stats().Unanswered)
		require.Zero(t, c.Stats().Accepted)
	})
}

// A client that stops takes the verdicts on what it sent, but does not wait for them for ever.
func TestClientStopDrains(t *testing.T) {
	for _, answers := range []bool{true, false} {
		t.Run(fmt.Sprintf("the pool answers: %v", answers), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				n := &clientNet{}
				ln := n.listen(somePool)
				c := runClient(t, n, stratum.ClientOptions{})
				p := accept(t, ln)
				p.login("aa", 4)
				p.send("%s", notifyLine("1", true))
				j := c.nextJob()
				got := c.submit(context.Background(), someShare(j))
				id, _ := p.request(sv1.MethodSubmit)
				stopped := make(chan time.Duration)
				from := time.Now()
				go func() { c.stop(); stopped <- time.Since(from) }()
				synctest.Wait()
				_, err := c.Submit(context.Background(), someShare(j))
				require.ErrorIs(t, err, stratum.ErrNotConnected)
				time.Sleep(time.Second)
				if answers {
					p.send(`{"id":%s,"result":true,"error":null}`, id)
					require.NoError(t, (<-got).err)
					require.Equal(t, time.Second, <-stopped)
				} else {
					require.ErrorIs(t, (<-got).err, stratum.ErrUnanswered)
					require.Equal(t, 2*time.Second, <-stopped)
				}
			})
		})
	}
}

func TestClientStopsAtOnceWithNothingToWaitFor(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := &clientNet{}
		ln := n.listen(somePool)
		c := runClient(t, n, stratum.ClientOptions{})
		p := accept(t, ln)
		p.login("aa", 4)
		p.send("%s", notifyLine("1", true))
		j := c.nextJob()
		got := c.submit(t.Context(), someShare(j))
		id, _ := p.request(sv1.MethodSubmit)
		p.send(`{"id":%s,"result":true,"error":null}`, id)
		require.NoError(t, (<-got).err)
		from := time.Now()
		c.stop()
		require.Zero(t, time.Since(from))
		p.ended()
	})
}

// A subscription id is sent back, so its length is the pool's to choose only within reason.
func TestClientForgetsALongSubscriptionID(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := &clientNet{}
		ln := n.listen(somePool)
		runClient(t, n, stratum.ClientOptions{})
		for _, size := range []int{256, 257, 1} {
			p := accept(t, ln)
			id, params := p.request(sv1.MethodSubscribe)
			require.Equal(t, size == 257, strings.Contains(params, "xxx"), params)
			p.send(`{"id":%s,"result":[["mining.notify","%s"],"aa",4],"error":null}`, id, strings.Repeat("x", size))
			p.request(sv1.MethodAuthorize)
			p.conn.Close()
		}
	})
}

// An attacker who can write on a connection sends client.reconnect to a host of his own. The client stays.
func TestClientReconnectHijack(t *testing.T) {
	for _, host := range []string{
		"evil.example", "eu.pool.example.evil.example", "evilpool.example", "pool.evil", "example", "10.0.0.1", "::1",
		"eu.pool.example@evil.example", "evil.example/eu.pool.example", "EVIL.example.", "",
	} {
		t.Run(host, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				n := &clientNet{}
				ln := n.listen(somePool)
				c := runClient(t, n, stratum.ClientOptions{})
				p := accept(t, ln)
				p.login("aa", 4)
				p.send(`{"id":null,"method":"client.reconnect","params":["%s",3333,0]}`, host)
				p.send("%s", notifyLine("1", true))
				got := c.submit(t.Context(), someShare(c.nextJob()))
				id, _ := p.request(sv1.MethodSubmit)
				p.send(`{"id":%s,"result":true,"error":null}`, id)
				require.NoError(t, (<-got).err)
				require.Equal(t, int64(1), c.Stats().ReconnectsRefused)
				require.Equal(t, []string{somePool}, n.attempts())
			})
		})
	}
}

// Several steps lead no further than one: what is allowed depends on the configured host.
func TestClientReconnectHijackInSteps(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := &clientNet{}
		ln := n.listen(somePool)
		deep := n.listen("a.b.pool.example:4444")
		c := runClient(t, n, stratum.ClientOptions{AllowReconnect: func(from, to string) bool {
			require.Equal(t, "eu.pool.example", from)
			return strings.HasSuffix(to, ".pool.example")
		}})
		p := accept(t, ln)
		p.login("aa", 4)
		p.send(`{"id":null,"method":"client.reconnect","params":["A.b.pool.example.","4444"]}`)
		p = accept(t, deep)
		p.login("aa", 4)
		p.send(`{"id":null,"method":"client.reconnect","params":["evil.b.example",4444]}`)
		p.send(`{"id":null,"method":"client.reconnect","params":[]}`) // the host it is at
		p = accept(t, deep)
		p.login("aa", 4)
		p.conn.Close()
		accept(t, ln) // the configured one, once it is lost
		require.Equal(t, []string{somePool, "a.b.pool.example:4444", "a.b.pool.example:4444", somePool}, n.attempts())
		require.Equal(t, int64(1), c.Stats().ReconnectsRefused)
	})
}

func TestClientReconnectWait(t *testing.T) {
	tests := []struct {
		name     string
		params   string
		min, max time.Duration
	}{
		{"at once", `["us.pool.example",3333]`, 500 * time.Millisecond, time.Second},
		{"in 20 seconds", `["us.pool.example",3333,20]`, 20 * time.Second, 20 * time.Second},
		{"in ten days", `["us.pool.example",3333,864000]`, time.Minute, time.Minute},
		{"in negative time", `["us.pool.example",3333,-5]`, 500 * time.Millisecond, time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				n := &clientNet{}
				ln := n.listen(somePool)
				us := n.listen("us.pool.example:3333")
				c := runClient(t, n, stratum.ClientOptions{})
				p := accept(t, ln)
				p.login("aa", 4)
				p.send("%s", notifyLine("1", true))
				got := c.submit(t.Context(), someShare(c.nextJob()))
				id, _ := p.request(sv1.MethodSubmit)
				p.send(`{"id":null,"method":"client.reconnect","params":%s}`, tt.params)
				p.send(`{"id":%s,"result":true,"error":null}`, id)
				require.NoError(t, (<-got).err, "a share that the pool has is not given up for a reconnect")
				from := time.Now()
				p = accept(t, us)
				require.GreaterOrEqual(t, time.Since(from), tt.min)
				require.LessOrEqual(t, time.Since(from), tt.max)
				require.JSONEq(t, `["poolkit/1","session-aa"]`, p.login("bb", 4))
			})
		})
	}
}

// Some pools send everybody on instead of letting them in, and some send them round in circles.
func TestClientReconnectBeforeLogin(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := &clientNet{}
		ln := n.listen(somePool)
		us := n.listen("us.pool.example:3333")
		c := runClient(t, n, stratum.ClientOptions{})
		for range 2 {
			p := accept(t, ln)
			p.send(`{"id":null,"method":"client.reconnect","params":["us.pool.example",3333]}`)
			p = accept(t, us)
			p.send(`{"id":null,"method":"client.reconnect","params":["eu.pool.example",3333]}`)
		}
		from := time.Now()
		p := accept(t, ln)
		require.GreaterOrEqual(t, time.Since(from), 500*time.Millisecond, "after four attempts it draws breath")
		p.login("aa", 4)
		synctest.Wait()
		require.True(t, c.Stats().Connected)
		require.Equal(t, int64(4), c.Stats().FailedAttempts)
	})
}

// The first pool that works is taken, and left again for a better one without losing a share.
func TestClientFailoverAndBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := &clientNet{}
		second := n.listen("second.example:1")
		c := runClient(t, n, stratum.ClientOptions{
			Fallbacks:   []string{"first.example:1", "stratum+tcp://bob:pw@second.example:1", "third.example:1"},
			ReadTimeout: -1, KeepAlive: -1,
		})
		p := accept(t, second)
		id, _ := p.request(sv1.MethodSubscribe)
		p.send(`{"id":%s,"result":[[],"aa",4],"error":null}`, id)
		id, params := p.request(sv1.MethodAuthorize)
		require.JSONEq(t, `["bob","pw"]`, params)
		p.send(`{"id":%s,"result":true,"error":null}`, id)
		p.send("%s", notifyLine("1", true))
		j := c.nextJob()
		require.Equal(t, "stratum+tcp://second.example:1", j.Pool)
		require.Equal(t, []string{somePool, "first.example:1", "second.example:1"}, n.attempts())

		first := n.listen("first.example:1")
		from := time.Now()
		q := accept(t, first)
		require.Equal(t, 5*time.Minute, time.Since(from))
		require.True(t, c.Stats().Connected, "the fallback stays until the better pool has let the client in")
		got := c.submit(t.Context(), someShare(j))
		sid, _ := p.request(sv1.MethodSubmit)
		q.login("bb", 4)
		synctest.Wait()
		p.send(`{"id":%s,"result":true,"error":null}`, sid)
		require.NoError(t, (<-got).err)
		p.ended()
		q.send("%s", notifyLine("9", false))
		j = c.nextJob()
		require.Equal(t, "stratum+tcp://first.example:1", j.Pool)
		require.True(t, j.Clean)

		// The better pool lets in and sends away: the next one has its turn.
		q.conn.Close()
		attempts := len(n.attempts())
		accept(t, second)
		require.Equal(t, []string{"second.example:1"}, n.attempts()[attempts:])
		require.Equal(t, int64(1), c.Stats().Reconnects)
	})
}

// The other side is the real server: shares are mined, counted, and refused with its codes.
func TestClientOnServer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		pool := open(t, stratum.Options{})
		pool.broadcast(100, hardBits)
		synctest.Wait()
		c := runClient(t, &clientNet{pools: map[string]*stratumtest.Listener{somePool: pool.ln}}, stratum.ClientOptions{
			VersionMask: 0x00006000, SuggestDifficulty: 2 * easy, SubscribeExtranonce: true,
		})
		j := c.nextJob()
		require.Equal(t, easy, j.Difficulty)
		require.Equal(t, uint32(0x6000), j.VersionMask)
		var shares []stratum.ClientShare
		for _, bits := range []uint32{0, 0x2000, 0x4000, 0x6000} {
			s := mineClientJob(t, j, bits)
			shares = append(shares, s)
			v, err := c.Submit(t.Context(), s)
			require.NoError(t, err)
			require.NoError(t, v.Err())
		}
		require.Equal(t, "Share accepted, Share accepted, Share accepted, Share accepted", verdicts(pool.recorded()))
		v, err := c.Submit(t.Context(), shares[0])
		require.NoError(t, err)
		require.Equal(t, sv1.CodeDuplicate, v.Code)

		pool.broadcast(101, hardBits)
		next := c.nextJob()
		require.True(t, next.Clean)
		require.Equal(t, 2*easy, next.Difficulty, "as suggested")
		height, err := next.Height()
		require.NoError(t, err)
		require.Equal(t, int32(101), height)
		v, err = c.Submit(t.Context(), mineClientJob(t, j, 0))
		require.NoError(t, err)
		require.Equal(t, sv1.CodeDuplicate, v.Code)
		s := shares[1]
		s.NTime++
		v, err = c.Submit(t.Context(), s)
		require.NoError(t, err)
		require.Equal(t, sv1.CodeJobNotFound, v.Code)
		require.Equal(t, map[int]int64{21: 1, 22: 2}, c.Stats().RejectedBy)

		// The server stops, as in an upgrade.
		require.NoError(t, pool.stop())
		require.Error(t, <-c.ended)
		require.False(t, c.Stats().Connected)
	})
}

// A watcher submits nothing, which a server takes for a miner that has died unless it hears something.
func TestClientKeepsASilentSessionAlive(t *testing.T) {
	bubble(t, func(t *testing.T) {
		pool := open(t, stratum.Options{})
		c := runClient(t, &clientNet{pools: map[string]*stratumtest.Listener{somePool: pool.ln}}, stratum.ClientOptions{})
		time.Sleep(time.Second)
		since := c.Stats().Since
		pool.broadcast(100, hardBits)
		time.Sleep(time.Hour)
		stats := c.Stats()
		require.True(t, stats.Connected)
		require.Equal(t, since, stats.Since)
		require.Zero(t, stats.UnknownMessages)
	})
}

// mineClientJob hashes until a share is found.
func mineClientJob(t testing.TB, j *stratum.ClientJob, versionBits uint32) stratum.ClientShare {
	t.Helper()
	s := stratum.ClientShare{Job: j, Extranonce2: make([]byte, j.Extranonce2Size), NTime: j.NTime, VersionBits: versionBits}
	header := j.AppendHeader(nil, s.Extranonce2, s.NTime, 0, versionBits)
	target := j.Target()
	for ; s.Nonce < 1<<22; s.Nonce++ {
		header[76], header[77], header[78], header[79] = byte(s.Nonce), byte(s.Nonce>>8), byte(s.Nonce>>16), 0
		if hash := double(header); target.MetBy(&hash) {
			return s
		}
	}
	t.Fatal("no share in four million hashes")
	return s
}

// A proxy hands upstream work to a server of its own and takes shares back: both sides hash the same header.
func TestClientJobHandedOn(t *testing.T) {
	for _, size := range []int{12, 16} {
		t.Run(fmt.Sprintf("extranonce2 of %d bytes", size), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				n := &clientNet{}
				ln := n.listen(somePool)
				c := runClient(t, n, stratum.ClientOptions{})
				p := accept(t, ln)
				p.login("c0ffee", size)
				// The script is 0x1f bytes long with an extranonce of 12.
				p.send("%s", strings.Replace(notifyLine("5", true), "ffffffff1f03", fmt.Sprintf("ffffffff%02x03", 19+3+size), 1))
				j := c.nextJob()
				made, err := j.Job(77, "btc")
				require.NoError(t, err)
				require.Equal(t, job.ID(77), made.ID)
				require.Equal(t, int32(840123), made.Height)
				require.Equal(t, int64(312_500_000), made.CoinbaseValue)
				require.True(t, made.Clean)

				extranonce := [job.ExtranonceSize]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
				s := j.Share(&extranonce, 0x66669992, 0x01020304, 0)
				require.Len(t, s.Extranonce2, size)
				require.Equal(t, made.AppendHeader(nil, &extranonce, made.Version, s.NTime, s.Nonce),
					j.AppendHeader(nil, s.Extranonce2, s.NTime, s.Nonce, 0))
				val := new(share.Validator)
				val.Init(nil)
				work := share.Work{Job: made, Difficulty: difficulty.Min, Target: difficulty.Min.Target()}
				ruling := val.Validate(&work, &share.Submission{Extranonce: extranonce, NTime: s.NTime, Nonce: s.Nonce}, time.Unix(0x66669992, 0))
				require.Equal(t, share.Accepted, ruling.Verdict)
			})
		})
	}
}

func TestNewClientErrors(t *testing.T) {
	tests := []struct {
		name string
		pool string
		opts stratum.ClientOptions
		err  string
	}{
		{"no pool", "", stratum.ClientOptions{}, "no host"},
		{"no port", "pool.example", stratum.ClientOptions{}, "no port"},
		{"port zero", "pool.example:0", stratum.ClientOptions{}, "no port"},
		{"port too high", "pool.example:65536", stratum.ClientOptions{}, "no port"},
		{"unknown scheme", "http://pool.example:80", stratum.ClientOptions{}, `unknown scheme "http"`},
		{"path", "stratum+tcp://pool.example:80/x", stratum.ClientOptions{}, "text after the port"},
		{"not a URL", "bob:sesame@pool.example:%zz", stratum.ClientOptions{}, "not a URL"},
		{"bad host", "stratum+tcp://bob:sesame@pool_.exa!mple:80", stratum.ClientOptions{}, "no host"},
		{"bad fallback", "pool.example:1", stratum.ClientOptions{Fallbacks: []string{"bob:sesame@x"}}, "no port"},
		{"suggestion", "pool.example:1", stratum.ClientOptions{SuggestDifficulty: -1}, "suggested difficulty -1"},
		{"waits", "pool.example:1", stratum.ClientOptions{ReconnectMax: 1}, "reconnect waits"},
		{"line limit", "pool.example:1", stratum.ClientOptions{MaxLine: 10}, "too few"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.opts.User = "alice"
			_, err := stratum.NewClient(tt.pool, &tt.opts)
			require.ErrorContains(t, err, tt.err)
			require.NotContains(t, err.Error(), "sesame")
		})
	}
	_, err := stratum.NewClient("pool.example:1", nil)
	require.ErrorContains(t, err, "no user")
	_, err = stratum.NewClient("stratum+tls://bob@[::1]:1", nil)
	require.NoError(t, err)
}

// certificate returns a certificate for a name and the pool of roots that trusts it.
func certificate(t *testing.T, name string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

// On real sockets, with a certificate for the host: the right name is let in and a wrong one is not.
func TestClientTLS(t *testing.T) {
	cert, roots := certificate(t, "localhost")
	for _, scheme := range []string{"stratum+ssl", "stratum+tls", "stratum+tcps"} {
		for _, host := range []string{"localhost", "127.0.0.1"} {
			t.Run(scheme+" "+host, func(t *testing.T) {
				pool := open(t, stratum.Options{})
				plain, err := net.Listen("tcp", "127.0.0.1:0")
				require.NoError(t, err)
				ln := tls.NewListener(plain, &tls.Config{Certificates: []tls.Certificate{cert}})
				ctx, cancel := context.WithCancel(t.Context())
				served := make(chan error, 1)
				server, err := stratum.New(pool.hub, openUsers(t), pool, pool, &stratum.Options{StartDifficulty: easy, MinDifficulty: easy, AboveNetwork: true})
				require.NoError(t, err)
				go func() { served <- server.Serve(ctx, ln) }()
				pool.broadcast(100, hardBits)

				ended := make(chan error, 99)
				_, port, _ := net.SplitHostPort(plain.Addr().String())
				c, err := stratum.NewClient(scheme+"://alice.rig@"+host+":"+port, &stratum.ClientOptions{
					TLS: &tls.Config{RootCAs: roots}, ReconnectMin: time.Hour,
					Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
						return new(net.Dialer).DialContext(ctx, network, plain.Addr().String())
					},
					Hooks: stratum.ClientHooks{Disconnected: func(_ string, err error) { ended <- err }},
				})
				require.NoError(t, err)
				clientCtx, stop := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- c.Run(clientCtx) }()
				if host == "localhost" {
					j, err := c.NextJob(t.Context())
					require.NoError(t, err)
					v, err := c.Submit(t.Context(), mineClientJob(t, j, 0))
					require.NoError(t, err)
					require.NoError(t, v.Err())
				} else {
					require.ErrorContains(t, <-ended, "x509")
				}
				stop()
				require.NoError(t, <-done)
				cancel()
				require.NoError(t, <-served)
			})
		}
	}
}

func openUsers(t testing.TB) *stratum.Users {
	t.Helper()
	users, err := stratum.OpenUsers("")
	require.NoError(t, err)
	return users
}

// On a real socket, with many shares at once and jobs coming in between.
func TestClientTCP(t *testing.T) {
	pool := open(t, stratum.Options{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	server, err := stratum.New(pool.hub, openUsers(t), pool, pool, &stratum.Options{StartDifficulty: easy, MinDifficulty: easy, AboveNetwork: true})
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, ln) }()
	pool.broadcast(100, hardBits)
	c, err := stratum.NewClient(ln.Addr().String(), &stratum.ClientOptions{User: "alice.rig"})
	require.NoError(t, err)
	clientCtx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(clientCtx) }()
	j, err := c.NextJob(t.Context())
	require.NoError(t, err)

	// Each nonce is judged once: most are refused for their difficulty, none goes without a verdict.
	var wg sync.WaitGroup
	failures := make(chan error, 400)
	for worker := range 8 {
		wg.Go(func() {
			for i := range 50 {
				s := someShare(j)
				s.Nonce = uint32(worker*50 + i)
				if v, err := c.Submit(t.Context(), s); err != nil || !v.Accepted && v.Code != sv1.CodeLowDifficulty {
					failures <- fmt.Errorf("%v, %w", v, err)
				}
			}
		})
	}
	for range 5 {
		pool.broadcast(100, hardBits)
	}
	wg.Wait()
	require.Empty(t, failures)
	stats := c.Stats()
	require.Equal(t, int64(400), stats.Accepted+stats.Rejected)
	stop()
	require.NoError(t, <-done)
	cancel()
	require.NoError(t, <-served)
}
