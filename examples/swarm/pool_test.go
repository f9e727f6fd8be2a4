package main

import (
	"bytes"
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
	"github.com/poolkit/poolkit/stratum/sv1"
	"github.com/stretchr/testify/require"
)

// A testPool is a real server with what it was given.
type testPool struct {
	t      *testing.T
	addr   string
	server *stratum.Server
	hub    *job.Hub
	ids    job.IDs

	mu       sync.Mutex
	verdicts map[share.Verdict]uint64
	workers  map[string]bool
}

func (p *testPool) Put(_ context.Context, shares []share.Share) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range shares {
		p.verdicts[shares[i].Verdict]++
		p.workers[shares[i].Worker.String()] = true
	}
	return nil
}

func (p *testPool) PutSolution(context.Context, *share.Solution) error { return nil }

func (p *testPool) recorded(v share.Verdict) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.verdicts[v]
}

// easy is a difficulty that takes 1,024 hashes a share.
const easy difficulty.Difficulty = 1.0 / (1 << 22)

// openPool starts a server with one job on a TCP socket, which wrap may change.
func openPool(t *testing.T, d difficulty.Difficulty, wrap func(net.Listener) net.Listener) *testPool {
	p := &testPool{t: t, hub: job.NewHub(nil), verdicts: map[share.Verdict]uint64{}, workers: map[string]bool{}}
	users, err := stratum.OpenUsers("")
	require.NoError(t, err)
	p.server, err = stratum.New(p.hub, users, p, p, &stratum.Options{
		StartDifficulty: d, MinDifficulty: d, AboveNetwork: true, MaxSessions: -1,
		Limits:    stratum.NoLimits(), // a thousand shares that are too low are soon sent here
		NewPolicy: func(*stratum.Session) difficulty.Policy { return difficulty.Fixed(d) },
	})
	require.NoError(t, err)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p.addr = ln.Addr().String()
	if wrap != nil {
		ln = wrap(ln)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.server.Serve(ctx, ln) }()
	t.Cleanup(func() { cancel(); require.NoError(t, <-done) })
	p.broadcast(100)
	return p
}

// broadcast sends the first job of a height.
func (p *testPool) broadcast(height int32) {
	id := p.ids.Next(time.Now())
	coinb1, err := hex.DecodeString("02000000010000000000000000000000000000000000000000000000000000000000000000ffffffff" +
		"1904" + hex.EncodeToString(binary.LittleEndian.AppendUint32(nil, uint32(height))) + "08" +
		hex.EncodeToString(binary.LittleEndian.AppendUint64(nil, uint64(id)))[:14])
	require.NoError(p.t, err)
	coinb2, err := hex.DecodeString("ffffffff0100f2052a010000001600140102030405060708090a0b0c0d0e0f101112131400000000")
	require.NoError(p.t, err)
	j, err := job.New(job.Job{
		ID: id, Height: height, Version: 0x20000000, Bits: 0x1c7fffff,
		PrevHash: sha256.Sum256(fmt.Append(nil, height)),
		Time:     uint32(id.Time().Unix()), MinTime: uint32(id.Time().Unix()) - 600,
		Coinb1: coinb1, Coinb2: coinb2, Branch: []job.Hash{sha256.Sum256([]byte("one transaction"))},
	})
	require.NoError(p.t, err)
	require.NoError(p.t, p.hub.Broadcast(p.t.Context(), j))
}

// load runs the program and returns its report.
func load(t *testing.T, addr, args string) (r jsonReport, code int, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = Main(t.Context(), append([]string{"-pool", addr, "-json", "-progress", "0", "-settle", "10ms"}, strings.Fields(args)...), &out, &errs)
	if out.Len() > 0 {
		require.NoError(t, json.Unmarshal(out.Bytes(), &r), out.String())
	}
	return r, code, errs.String()
}

// A script is a pool that does what a test wants, for what no well-behaved server does.
type script struct {
	t    *testing.T
	addr string
}

// openScript runs one function for each connection, with its number from 0.
func openScript(t *testing.T, serve func(n int, p *peer)) *script {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; ; n++ {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				// A swarm that has gone ends every script.
				_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
				serve(n, &peer{conn: conn, r: sv1.NewReader(conn, 1<<16)})
			})
		}
	})
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	return &script{t: t, addr: ln.Addr().String()}
}

// A peer is a miner as a script has it. Its functions report whether the miner is still there.
type peer struct {
	conn net.Conn
	r    *sv1.Reader
	req  sv1.Request
}

func (p *peer) next() bool {
	line, err := p.r.ReadLine()
	return err == nil && p.req.Decode(line) == nil
}

func (p *peer) send(lines ...string) bool {
	_, err := p.conn.Write([]byte(strings.Join(lines, "\n") + "\n"))
	return err == nil
}

func (p *peer) reply(result string) bool {
	return p.send(`{"id":` + string(p.req.ID) + `,"result":` + result + `,"error":null}`)
}

func (p *peer) refuse(code int, text string) bool {
	return p.send(fmt.Sprintf(`{"id":%s,"result":null,"error":[%d,%q,null]}`, p.req.ID, code, text))
}

// login answers everything up to the authorization, with the given extranonce1 and session id, and returns the session
// that the miner asked for.
func (p *peer) login(en1, session string) (asked string, ok bool) {
	for p.next() {
		switch p.req.Method {
		case sv1.MethodConfigure:
			p.reply(`{"version-rolling":true,"version-rolling.mask":"1fffe000"}`)
		case sv1.MethodSubscribe:
			var s sv1.Subscribe
			if s.Decode(p.req.Params) != nil {
				return "", false
			}
			asked = s.ResumeID
			p.reply(fmt.Sprintf(`[[["mining.notify",%q]],%q,4]`, session, en1))
		case sv1.MethodAuthorize:
			return asked, p.reply("true")
		}
	}
	return "", false
}

// notify sends a job whose previous hash is of the letter given.
func (p *peer) notify(id, letter string, clean bool) bool {
	return p.send(fmt.Sprintf(`{"id":null,"method":"mining.notify","params":[%q,%q,"01","02",[],"20000000","1c7fffff","66669991",%v]}`,
		id, strings.Repeat(letter, 64), clean))
}
