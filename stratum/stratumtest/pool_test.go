package stratumtest

import (
	"encoding/hex"
	"errors"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/stratum/sv1"
	"github.com/stretchr/testify/require"
)

// example returns a value of sv1's worked example.
func example(t testing.TB, name string) string {
	text, err := os.ReadFile("../sv1/testdata/worked-example.txt")
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(v)
		}
	}
	t.Fatalf("no %s in the worked example", name)
	return ""
}

func exampleParams(t testing.TB) []byte {
	var m sv1.Message
	require.NoError(t, m.Decode([]byte(example(t, "notify"))))
	return m.Params
}

func exampleNotify(t testing.TB) *sv1.Notify {
	n := new(sv1.Notify)
	require.NoError(t, n.Decode(exampleParams(t)))
	return n
}

// exampleJob is the worked example as a miner at difficulty 1 has it.
func exampleJob(t testing.TB) *Job {
	j, err := parseNotify(exampleParams(t))
	require.NoError(t, err)
	j.Extranonce1, err = hex.DecodeString(example(t, "extranonce1"))
	require.NoError(t, err)
	j.Extranonce2Size = 8
	mask, err := strconv.ParseUint(example(t, "versionmask"), 16, 32)
	require.NoError(t, err)
	j.VersionMask = uint32(mask)
	j.Difficulty, j.Target = 1, difficulty.One
	return j
}

// A pool is the server's end of one connection, scripted by a test. It reads on a goroutine of its own, so that a
// script may write and not read.
type pool struct {
	t        testing.TB
	conn     net.Conn
	requests chan sv1.Request
	reading  sync.WaitGroup
}

// newPool returns a miner and the pool it is connected to. Both are closed when the test, or the bubble, ends.
func newPool(t testing.TB, opts *MinerOptions) (m *Miner, p *pool) {
	client, server := net.Pipe()
	p = &pool{t: t, conn: server, requests: make(chan sv1.Request, 1000)}
	p.reading.Go(func() {
		defer close(p.requests)
		r := sv1.NewReader(server, 0)
		for {
			line, err := r.ReadLine()
			if err != nil {
				return
			}
			var req sv1.Request
			if err := req.Decode([]byte(string(line))); err != nil && !errors.Is(err, sv1.ErrParams) {
				t.Errorf("the miner sent %q: %v", line, err)
			}
			p.requests <- req
		}
	})
	m = NewMiner(client, opts)
	t.Cleanup(func() {
		_ = m.Close()
		_ = server.Close()
		p.reading.Wait()
	})
	return m, p
}

func (p *pool) send(lines ...[]byte) {
	for _, line := range lines {
		if _, err := p.conn.Write(line); err != nil {
			p.t.Errorf("the pool writes %q: %v", line, err)
		}
	}
}

// expect returns the next request, which must be of a method.
func (p *pool) expect(m sv1.Method) sv1.Request {
	r, ok := <-p.requests
	if !ok {
		p.t.Error("the miner hung up, want", m)
	} else if r.Method != m {
		p.t.Errorf("the miner sent %s %s, want %s", r.Name, r.Params, m)
	}
	return r
}

func (p *pool) expectSubmit(extranonce2Size int) (id []byte, s sv1.Submit) {
	r := p.expect(sv1.MethodSubmit)
	if err := s.Decode(r.Params, extranonce2Size); err != nil {
		p.t.Errorf("the miner submitted %s: %v", r.Params, err)
	}
	return r.ID, s
}

var extranonce1 = []byte{0x1a, 0, 0, 0x2b}

// login answers subscribe and authorize.
func (p *pool) login() {
	p.send(sv1.AppendSubscribeResult(nil, p.expect(sv1.MethodSubscribe).ID, extranonce1, 8))
	p.send(sv1.AppendTrue(nil, p.expect(sv1.MethodAuthorize).ID))
}

// easy is a difficulty that takes about 16 hashes.
const easy = difficulty.Difficulty(16.0 / (1 << 32))
