package stratum_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum"
	"github.com/poolkit/poolkit/stratum/stratumtest"
	"github.com/poolkit/poolkit/stratum/sv1"
	"github.com/stretchr/testify/require"
)

const (
	regtestBits = 0x207fffff // every second header is a block
	hardBits    = 0x1c7fffff // none is, in a test
)

// easy is a difficulty that a test meets in 4,096 hashes.
const easy difficulty.Difficulty = 1.0 / (1 << 20)

// A pool is a server with everything around it that a test looks at.
type pool struct {
	t      testing.TB
	server *stratum.Server
	hub    *job.Hub
	ln     *stratumtest.Listener
	ids    job.IDs
	stop   func() error

	mu        sync.Mutex
	shares    []share.Share
	solutions []*share.Solution
	sinkErr   error
}

func (p *pool) Put(_ context.Context, shares []share.Share) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sinkErr != nil {
		return p.sinkErr
	}
	p.shares = append(p.shares, shares...)
	return nil
}

func (p *pool) PutSolution(_ context.Context, s *share.Solution) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.solutions = append(p.solutions, s)
	return nil
}

func (p *pool) recorded() []share.Share {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]share.Share(nil), p.shares...)
}

func (p *pool) solved() []*share.Solution {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]*share.Solution(nil), p.solutions...)
}

// open starts a server on an in-memory listener, whose difficulties are easy unless opts say otherwise, and may be above
// the network's. It is to be called in a synctest bubble.
func open(t testing.TB, opts stratum.Options) *pool {
	t.Helper()
	opts.AboveNetwork = true
	if opts.StartDifficulty == 0 {
		opts.StartDifficulty, opts.MinDifficulty = easy, easy
	}
	if opts.NewPolicy == nil {
		opts.NewPolicy = func(*stratum.Session) difficulty.Policy { return difficulty.Fixed(opts.StartDifficulty) }
	}
	return openBelow(t, opts)
}

// openBelow is open for a server with the options as they are.
func openBelow(t testing.TB, opts stratum.Options) *pool {
	t.Helper()
	p := &pool{t: t, hub: job.NewHub(nil), ln: stratumtest.Listen()}
	users, err := stratum.OpenUsers("")
	require.NoError(t, err)
	p.server, err = stratum.New(p.hub, users, p, p, &opts)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.server.Serve(ctx, p.ln) }()
	p.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { require.NoError(t, p.stop()) })
	return p
}

// broadcast sends a new job at the given height, with one merkle step, and returns it.
func (p *pool) broadcast(height int32, bits uint32) *job.Job {
	p.t.Helper()
	j := makeJob(p.t, p.ids.Next(time.Now()), height, bits)
	require.NoError(p.t, p.hub.Broadcast(p.t.Context(), j))
	return j
}

func makeJob(t testing.TB, id job.ID, height int32, bits uint32) *job.Job {
	t.Helper()
	coinb1, err := hex.DecodeString("02000000010000000000000000000000000000000000000000000000000000000000000000ffffffff" +
		"1904" + hex.EncodeToString(binary.LittleEndian.AppendUint32(nil, uint32(height))) + "08" +
		hex.EncodeToString(binary.LittleEndian.AppendUint64(nil, uint64(id)))[:14])
	require.NoError(t, err)
	coinb2, err := hex.DecodeString("ffffffff0100f2052a010000001600140102030405060708090a0b0c0d0e0f101112131400000000")
	require.NoError(t, err)
	j, err := job.New(job.Job{
		ID: id, Height: height, Version: 0x20000000, Bits: bits,
		PrevHash: sha256.Sum256(fmt.Append(nil, height)),
		Time:     uint32(id.Time().Unix()), MinTime: uint32(id.Time().Unix()) - 600,
		Coinb1: coinb1, Coinb2: coinb2,
		Branch: []job.Hash{sha256.Sum256([]byte("one transaction"))},
	})
	require.NoError(t, err)
	return j
}

// A client speaks lines.
type client struct {
	t    testing.TB
	conn net.Conn
	r    *sv1.Reader
	en1  []byte
	size int // of extranonce2
}

func (p *pool) dial() *client {
	p.t.Helper()
	conn, err := p.ln.Dial(p.t.Context())
	require.NoError(p.t, err)
	return newClient(p.t, conn)
}

func newClient(t testing.TB, conn net.Conn) *client {
	t.Cleanup(func() { conn.Close() })
	return &client{t: t, conn: conn, r: sv1.NewReader(conn, 1<<16)}
}

func (c *client) send(line string) {
	c.t.Helper()
	_, err := c.conn.Write([]byte(line + "\n"))
	require.NoError(c.t, err)
}

func (c *client) line() string {
	c.t.Helper()
	line, err := c.r.ReadLine()
	require.NoError(c.t, err)
	return string(line)
}

// ended reads until the server closes the connection, and fails if there is more to read before.
func (c *client) ended() {
	c.t.Helper()
	line, err := c.r.ReadLine()
	require.Error(c.t, err, "the server sent %q instead of closing", line)
}

func (c *client) notify() (id string, n sv1.Notify) {
	c.t.Helper()
	var m sv1.Message
	line := c.line()
	require.NoError(c.t, m.Decode([]byte(line)), line)
	require.Equal(c.t, sv1.MethodNotify, m.Method, line)
	require.NoError(c.t, n.Decode(m.Params))
	return n.JobID, n
}

// login subscribes and authorizes and returns with everything read but what follows set_difficulty.
func (c *client) login(user string) {
	c.t.Helper()
	c.send(`{"id":1,"method":"mining.subscribe","params":["test/1.0"]}`)
	var reply struct{ Result []any }
	require.NoError(c.t, json.Unmarshal([]byte(c.line()), &reply))
	var err error
	c.en1, err = hex.DecodeString(reply.Result[1].(string))
	require.NoError(c.t, err)
	c.size = int(reply.Result[2].(float64))
	c.send(fmt.Sprintf(`{"id":2,"method":"mining.authorize","params":[%q,"x"]}`, user))
	require.Equal(c.t, `{"id":2,"result":true,"error":null}`, c.line())
}

// start logs in to a pool that has a job and returns that job as it came.
func (c *client) start(user string) (id string, n sv1.Notify) {
	c.t.Helper()
	c.login(user)
	require.Contains(c.t, c.line(), "mining.set_difficulty")
	id, n = c.notify()
	require.True(c.t, n.Clean, "the first job of a connection")
	return id, n
}

// A work is a share in the making, as the fields of mining.submit.
type work struct {
	worker, job, en2, ntime, nonce, version string
}

func (w work) params() string {
	if w.version == "" {
		return fmt.Sprintf(`[%q,%q,%q,%q,%q]`, w.worker, w.job, w.en2, w.ntime, w.nonce)
	}
	return fmt.Sprintf(`[%q,%q,%q,%q,%q,%q]`, w.worker, w.job, w.en2, w.ntime, w.nonce, w.version)
}

// solve counts nonces from start until the header meets d, or until it misses when miss is set. It assembles the
// header from the text that the miner was sent.
func (c *client) solve(id string, n sv1.Notify, d difficulty.Difficulty, start uint32, miss bool) work {
	c.t.Helper()
	return c.solveTarget(id, n, d.Target(), start, miss)
}

func (c *client) solveTarget(id string, n sv1.Notify, target difficulty.Target, start uint32, miss bool) work {
	c.t.Helper()
	en2 := make([]byte, c.size)
	coinbase := append(append(append(append([]byte(nil), n.Coinb1...), c.en1...), en2...), n.Coinb2...)
	root := double(coinbase)
	for _, step := range n.Branch {
		root = double(append(root[:], step[:]...))
	}
	header := binary.LittleEndian.AppendUint32(nil, n.Version)
	header = append(append(header, n.PrevHash[:]...), root[:]...)
	header = binary.LittleEndian.AppendUint32(header, n.NTime)
	header = binary.LittleEndian.AppendUint32(header, n.Bits)
	header = binary.LittleEndian.AppendUint32(header, 0)
	for nonce := start; nonce < start+1<<22; nonce++ {
		binary.LittleEndian.PutUint32(header[76:], nonce)
		hash := double(header)
		if target.MetBy(&hash) != miss {
			return work{"alice.rig", id, hex.EncodeToString(en2), fmt.Sprintf("%08x", n.NTime), fmt.Sprintf("%08x", nonce), ""}
		}
	}
	c.t.Fatal("no share in four million hashes")
	return work{}
}

func double(b []byte) [32]byte {
	first := sha256.Sum256(b)
	return sha256.Sum256(first[:])
}

func (c *client) submit(w work) string { c.t.Helper(); return c.submitRaw(w.params()) }

// submitRaw sends the params as they are and returns the code of the reply: "true" or the number.
func (c *client) submitRaw(params string) string {
	c.t.Helper()
	c.send(`{"id":9,"method":"mining.submit","params":` + params + `}`)
	line := c.line()
	var reply struct {
		ID     int
		Result *bool
		Error  []any
	}
	require.NoError(c.t, json.Unmarshal([]byte(line), &reply), line)
	require.Equal(c.t, 9, reply.ID, line)
	if reply.Result != nil && *reply.Result {
		require.Nil(c.t, reply.Error, line)
		return "true"
	}
	require.Len(c.t, reply.Error, 3, line)
	return fmt.Sprint(reply.Error[0])
}

func verdicts(shares []share.Share) string {
	var out []string
	for _, s := range shares {
		out = append(out, s.Verdict.String())
	}
	return strings.Join(out, ", ")
}
