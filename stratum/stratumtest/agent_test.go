package stratumtest

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/stratum/btcagent"
	"github.com/poolkit/poolkit/stratum/sv1"
	"github.com/stretchr/testify/require"
)

// What BTCAgent 2.0 sends, line by line.
const (
	probeLine     = `{"id":"conn_test","method":"agent.get_capabilities","params":[["verrol"]]}`
	capsLine      = `{"id":"caps","method":"agent.get_capabilities","params":[["verrol","subres"]]}`
	configureLine = `{"id":"conf","method":"mining.configure","params":[["version-rolling"],{"version-rolling.mask":"ffffffff","version-rolling.min-bit-count":0}]}`
	subscribeLine = `{"id":"sub","method":"mining.subscribe","params":["btccom-agent/2.0.0-mu"]}`
	authorizeLine = `{"id":"auth","method":"mining.authorize","params":["alice",""]}`
	capsAgainLine = `{"id":"caps_again","method":"agent.get_capabilities","params":[["verrol","subres"]]}`
)

// An agentPool is the server's end of an agent's connection, scripted by a test. It reads on a goroutine of its own.
type agentPool struct {
	t       testing.TB
	conn    net.Conn
	inbox   chan string // lines as they are, and whole frames
	reading sync.WaitGroup
}

func newAgentPool(t testing.TB, opts *AgentOptions) (*Agent, *agentPool) {
	client, server := net.Pipe()
	a := NewAgent(client, opts)
	return a, serveAgent(t, a, server)
}

// serveAgent closes both ends when the test, or the bubble, ends.
func serveAgent(t testing.TB, a *Agent, server net.Conn) *agentPool {
	p := &agentPool{t: t, conn: server, inbox: make(chan string, 100_000)}
	p.reading.Go(func() {
		defer close(p.inbox)
		r := btcagent.NewReader(server, 0)
		for {
			line, f, err := r.Read()
			if err != nil {
				return
			}
			if line == nil {
				line, _ = btcagent.AppendFrame(nil, f.Command, f.Body)
			}
			p.inbox <- string(line)
		}
	})
	t.Cleanup(func() {
		_ = a.Close()
		_ = server.Close()
		p.reading.Wait()
	})
	return p
}

func (p *agentPool) send(messages ...[]byte) {
	for _, b := range messages {
		if _, err := p.conn.Write(b); err != nil {
			p.t.Errorf("the pool writes %q: %v", b, err)
		}
	}
}

func (p *agentPool) expect(want string) {
	p.t.Helper()
	got, ok := <-p.inbox
	if !ok {
		p.t.Error("the agent hung up, want", want)
	}
	require.Equal(p.t, want, got)
}

func (p *agentPool) expectSubmit() (s btcagent.Submit) {
	p.t.Helper()
	f, _, err := btcagent.Next([]byte(<-p.inbox))
	require.NoError(p.t, err)
	require.NoError(p.t, s.Decode(f))
	return s
}

func (p *agentPool) hungUp() {
	p.t.Helper()
	for range p.inbox {
	}
}

// login answers everything as BTCPool does, with an easy default difficulty.
func (p *agentPool) login() {
	p.t.Helper()
	p.expect(probeLine)
	p.send([]byte(`{"id":"conn_test","result":{"capabilities":["verrol","subres"]}}` + "\n"))
	for _, line := range []string{capsLine, configureLine, subscribeLine, authorizeLine, capsAgainLine} {
		p.expect(line)
	}
	p.send(
		[]byte(`{"id":"caps","result":{"capabilities":["verrol","subres"]}}`+"\n"),
		[]byte(`{"id":"conf","result":{"version-rolling":true,"version-rolling.mask":"1fffe000"},"error":null}`+"\n"),
		sv1.AppendSetVersionMask(nil, 0x1fffe000),
		sv1.AppendSubscribeResult(nil, []byte(`"sub"`), extranonce1, 8),
		sv1.AppendTrue(nil, []byte(`"auth"`)),
		sv1.AppendSetDifficulty(nil, float64(easy)),
		[]byte(`{"id":"caps_again","result":{"capabilities":["verrol","subres"]}}`+"\n"))
}

// newAgent returns an agent that is logged in.
func newAgent(t testing.TB) (*Agent, *agentPool) {
	a, p := newAgentPool(t, &AgentOptions{User: "alice"})
	done := make(chan error, 1)
	go func() { done <- a.Handshake(t.Context()) }()
	p.login()
	require.NoError(t, <-done)
	return a, p
}

func TestAgentHandshake(t *testing.T) {
	a, p := newAgent(t)
	require.True(t, a.Responses())
	require.NoError(t, a.Handshake(t.Context()), "a second handshake does nothing")
	p.send(sv1.AppendNotify(nil, exampleNotify(t)))
	j, err := a.NextJob(t.Context())
	require.NoError(t, err)
	require.Equal(t, extranonce1, j.Extranonce1)
	require.Equal(t, 8, j.Extranonce2Size)
	require.Equal(t, uint32(0x1fffe000), j.VersionMask)
	require.Equal(t, easy, j.Difficulty)
	require.Empty(t, p.inbox)

	want := []string{`"conn_test"`, `"caps"`, `"conf"`, "mining.set_version_mask", `"sub"`, `"auth"`, "mining.set_difficulty",
		`"caps_again"`, "mining.notify"}
	for _, w := range want {
		msg, err := a.Receive(t.Context())
		require.NoError(t, err)
		require.Equal(t, w, string(msg.Line.ID)+string(msg.Line.Name))
	}
}

// The worked example of a share, by worker 0: the header is that of a miner that mines without an agent.
func TestAgentWorkedExample(t *testing.T) {
	a, p := newAgent(t)
	require.NoError(t, a.Register(t.Context(), 0, "cgminer", "s1099"))
	p.expect("\x7f\x01\x14\x00\x00\x00cgminer\x00s1099\x00")
	p.send(btcagent.AppendSetDifficulty(nil, 0, 0), sv1.AppendNotify(nil, exampleNotify(t)))
	j, err := a.NextJob(t.Context())
	require.NoError(t, err)
	work := a.Work(j, 0)
	require.Equal(t, []byte{0x1a, 0, 0, 0x2b, 0, 0, 0, 0}, work.Extranonce1)
	require.Equal(t, 4, work.Extranonce2Size)
	require.Equal(t, difficulty.Difficulty(1), work.Difficulty)

	s := work.Share([]byte{0, 0, 0x04, 0xd2}, 0x66669991, 0x12f444d0, 0x00c00000)
	require.Equal(t, example(t, "hash"), s.BlockHash())
	require.True(t, work.Target.MetBy(&s.Hash))
	replies := make(chan AgentReply, 1)
	go func() {
		r, err := a.Submit(t.Context(), 0, s)
		if err != nil {
			t.Error(err)
		}
		replies <- r
	}()
	p.expect("\x7f\x13\x17\x00\x05\x00\x00\xd2\x04\x00\x00\xd0\x44\xf4\x12\x91\x99\x66\x66\x00\x00\xc0\x00")
	p.send(btcagent.AppendSubmitResponse(nil, 0, btcagent.StatusAccept))
	r := <-replies
	r.Latency = 0
	require.Equal(t, AgentReply{Answered: true, Accepted: true, Status: btcagent.StatusAccept}, r)
}

func TestAgentSolves(t *testing.T) {
	a, p := newAgent(t)
	require.NoError(t, a.Register(t.Context(), 0x1122, "x", "y"))
	<-p.inbox
	p.send(sv1.AppendNotify(nil, exampleNotify(t)))
	j, err := a.NextJob(t.Context())
	require.NoError(t, err)
	seen := map[[32]byte]bool{}
	for i := range 20 {
		id := uint16(0x1122 + i%2) // one of them is not registered
		s, err := a.Solve(t.Context(), j, id)
		require.NoError(t, err)
		require.False(t, seen[s.Hash], "the same share again")
		seen[s.Hash] = true
		got := make(chan AgentReply, 1)
		go func() {
			r, err := a.Submit(t.Context(), id, s)
			if err != nil {
				t.Error(err)
			}
			got <- r
		}()

		// What the pool makes of the frame, as a session with an extranonce2 of 8 bytes.
		sent := p.expectSubmit()
		require.Equal(t, id, sent.SessionID)
		en2 := btcagent.Extranonce2(sent.SessionID, sent.Extranonce2)
		share := j.Share(en2[:], sent.NTime, sent.Nonce, sent.VersionBits)
		require.Equal(t, s.Header, share.Header)
		target := easy.Target()
		require.True(t, target.MetBy(&share.Hash))
		require.Equal(t, i > 0, sent.VersionBits != 0)

		p.send(btcagent.AppendSubmitResponse(nil, uint16(i), int32(20+i)))
		r := <-got
		require.Equal(t, AgentReply{Answered: true, Index: uint16(i), Status: int32(20 + i), Latency: r.Latency}, r)
	}
	stats := a.Stats()
	require.NotZero(t, stats.Hashes)
	stats.Hashes = 0
	require.Equal(t, AgentStats{Jobs: 1, Submitted: 20, Rejected: 20}, stats)

	s, err := a.SolveTarget(t.Context(), j, 7, (easy * 8).Target())
	require.NoError(t, err)
	target := (easy * 8).Target()
	require.True(t, target.MetBy(&s.Hash))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = a.Solve(ctx, j, 7)
	require.ErrorIs(t, err, context.Canceled)
}

// Submits are answered by their index, in any order, beyond the one that wraps.
func TestAgentIndex(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, p := newAgent(t)
		frame := btcagent.AppendSubmit(nil, &btcagent.Submit{JobID: 5, SessionID: 7})
		type result struct {
			i     int
			reply AgentReply
			err   error
		}
		results := make(chan result, 10)
		submit := func(i int) {
			go func() {
				r, err := a.SubmitFrame(t.Context(), frame)
				results <- result{i, r, err}
			}()
			synctest.Wait() // they are written in the order of i
		}
		submit(0)
		p.send(btcagent.AppendSubmitResponse(nil, 0, btcagent.StatusAccept))
		r := <-results
		require.NoError(t, r.err)
		require.Zero(t, r.reply.Index)
		a.index = 65534    // as if there had been that many
		for i := range 4 { // 65534, 65535, 0, 1
			submit(i)
		}
		for _, i := range []int{3, 1, 2, 0} {
			p.send(btcagent.AppendSubmitResponse(nil, uint16(65534+i), int32(100+i)))
			r := <-results
			require.NoError(t, r.err)
			require.Equal(t, i, r.i, "the answer reached another miner")
			require.Equal(t, int32(100+i), r.reply.Status)
		}
		require.Equal(t, AgentStats{Submitted: 5, Accepted: 1, Rejected: 4}, a.Stats())
		require.Len(t, p.inbox, 5)
	})
}

func TestAgentWithTheWholeIndexInFlight(t *testing.T) {
	a, p := newAgent(t)
	go func() {
		if _, err := a.SubmitFrame(t.Context(), btcagent.AppendSubmit(nil, &btcagent.Submit{})); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	}()
	p.expectSubmit()
	a.mu.Lock()
	a.index = 0 // as if 65,535 more had been sent
	a.mu.Unlock()
	for range 2 {
		_, err := a.SubmitFrame(t.Context(), btcagent.AppendSubmit(nil, &btcagent.Submit{}))
		require.ErrorContains(t, err, "the submit 65,536 before has no response yet")
	}
	require.Empty(t, p.inbox)
	require.NoError(t, a.Close())
}

// A broken submit takes an index, a response to nothing is seen, and one that nobody waits for any more is one to nothing.
func TestAgentUnexpectedResponses(t *testing.T) {
	a, p := newAgent(t)
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := a.SubmitFrame(ctx, []byte("\x7f\x02\x05\x00x"))
		failed <- err
	}()
	p.expect("\x7f\x02\x05\x00x")
	cancel()
	require.ErrorIs(t, <-failed, context.Canceled)

	replies := make(chan AgentReply, 1)
	go func() {
		r, err := a.SubmitFrame(t.Context(), []byte("\x7f\x02\x04\x00"))
		if err != nil {
			t.Error(err)
		}
		replies <- r
	}()
	p.expect("\x7f\x02\x04\x00")
	p.send(btcagent.AppendSubmitResponse(nil, 0, 27), btcagent.AppendSubmitResponse(nil, 2, 24), btcagent.AppendSubmitResponse(nil, 1, 27))
	require.Equal(t, uint16(1), (<-replies).Index)
	p.send(btcagent.AppendSubmitResponse(nil, 1, btcagent.StatusAccept))
	for _, want := range []btcagent.SubmitResponse{{Index: 0, Status: 27}, {Index: 2, Status: 24}, {Index: 1, Status: btcagent.StatusAccept}} {
		var got btcagent.SubmitResponse
		for {
			msg, err := a.Receive(t.Context())
			require.NoError(t, err)
			if msg.Line == nil {
				require.NoError(t, got.Decode(msg.Frame))
				break
			}
		}
		require.Equal(t, want, got)
	}
	require.Equal(t, AgentStats{Submitted: 2, Rejected: 1, Unexpected: 3}, a.Stats())
}

// A share is judged by the difficulty of its worker when its job was sent.
func TestAgentDifficulties(t *testing.T) {
	a, p := newAgent(t)
	job := func() *AgentJob {
		p.send(sv1.AppendNotify(nil, exampleNotify(t)))
		j, err := a.NextJob(t.Context())
		require.NoError(t, err)
		return j
	}
	register := func(id uint16) {
		require.NoError(t, a.Register(t.Context(), id, "", ""))
		<-p.inbox
	}
	is := func(want difficulty.Difficulty, j *AgentJob, id uint16) {
		t.Helper()
		work := a.Work(j, id)
		require.Equal(t, want, work.Difficulty)
		require.Equal(t, want.Target(), work.Target)
	}
	register(1)
	register(2)
	first := job()
	p.send(btcagent.AppendSetDifficulty(nil, 4, 2, 9), btcagent.AppendSetDifficulty(nil, 3, 1), btcagent.AppendSetDifficulty(nil, 5, 1))
	second := job()
	is(easy, first, 1)
	is(easy, first, 2)
	is(32, second, 1)
	is(16, second, 2)
	is(easy, second, 9) // which was not registered

	// The default is announced once: BTCAgent takes the first for good.
	p.send(sv1.AppendSetDifficulty(nil, 1024))
	third := job()
	require.Equal(t, easy, third.Difficulty)
	is(32, third, 1)
	register(3)
	is(easy, third, 3)

	// A new worker may be told a difficulty for the jobs there are, harder than the default.
	register(4)
	p.send(btcagent.AppendSetDifficulty(nil, 10, 4))
	fourth := job()
	is(1024, first, 4)
	is(1024, third, 4)
	is(1024, fourth, 4)
	is(easy, fourth, 3)

	// Registered again it begins anew.
	register(1)
	is(easy, fourth, 1)
	d, ok := a.Difficulty(2)
	require.True(t, ok)
	require.Equal(t, difficulty.Difficulty(16), d)
	require.NoError(t, a.Unregister(t.Context(), 2))
	p.expect("\x7f\x04\x06\x00\x02\x00")
	d, ok = a.Difficulty(2)
	require.False(t, ok)
	require.Equal(t, easy, d)

	// What is long gone is forgotten.
	for i := range 100 {
		p.send(btcagent.AppendSetDifficulty(nil, uint8(i%2), 1))
		job()
	}
	require.LessOrEqual(t, len(a.workers[1].changes), maxChanges)
	is(a.workers[1].changes[0].difficulty, first, 1)
}

// What a new worker is told may also be about the next job alone, when it is easier than the default.
func TestAgentOfAnEasierDifficulty(t *testing.T) {
	a, p := newAgentPool(t, nil)
	notify := sv1.AppendNotify(nil, exampleNotify(t))
	require.NoError(t, a.Send(t.Context(), []byte("{}\n"))) // it reads from now on
	p.send(sv1.AppendSubscribeResult(nil, []byte(`"sub"`), extranonce1, 8), sv1.AppendSetDifficulty(nil, 1024), notify)
	first, err := a.NextJob(t.Context())
	require.NoError(t, err)
	require.NoError(t, a.Register(t.Context(), 1, "", ""))
	p.send(btcagent.AppendSetDifficulty(nil, 3, 1), notify)
	second, err := a.NextJob(t.Context())
	require.NoError(t, err)
	require.Equal(t, difficulty.Difficulty(1024), a.Work(first, 1).Difficulty)
	require.Equal(t, difficulty.Difficulty(8), a.Work(second, 1).Difficulty)
}

// The difficulty of a whole farm comes in three frames, before the job.
func TestAgentWithAFullFarm(t *testing.T) {
	a, p := newAgent(t)
	ids := make([]uint16, btcagent.MaxSessionID+1)
	for i := range ids {
		ids[i] = uint16(i)
	}
	some := []uint16{0, 32763, 32764, 65527, 65528, btcagent.MaxSessionID}
	for _, id := range some {
		require.NoError(t, a.Register(t.Context(), id, "", ""))
		<-p.inbox
	}
	p.send(btcagent.AppendSetDifficulty(nil, 20, ids...), sv1.AppendNotify(nil, exampleNotify(t)))
	j, err := a.NextJob(t.Context())
	require.NoError(t, err)
	for _, id := range some {
		require.Equal(t, difficulty.Difficulty(1<<20), a.Work(j, id).Difficulty, id)
	}
	require.Len(t, a.workers, len(some))
}

// A default that comes after a worker is the worker's.
func TestAgentRegistersEarly(t *testing.T) {
	a, p := newAgentPool(t, nil)
	require.NoError(t, a.Register(t.Context(), 1, "", ""))
	d, ok := a.Difficulty(1)
	require.True(t, ok)
	require.Equal(t, difficulty.Difficulty(1), d)
	p.send(sv1.AppendSetDifficulty(nil, 0.25))
	_, err := a.Receive(t.Context())
	require.NoError(t, err)
	d, _ = a.Difficulty(1)
	require.Equal(t, difficulty.Difficulty(0.25), d)
}

func TestAgentWithoutResponses(t *testing.T) {
	for _, tt := range []struct {
		name         string
		capabilities []string
		reply        string
	}{
		{"not asked for", []string{"verrol"}, `{"capabilities":["verrol","subres"]}`},
		{"nothing asked for", []string{}, `{"capabilities":["verrol","subres"]}`},
		{"offered to the probe, which does not ask for it", nil, `{"capabilities":["verrol"]}`},
		{"an old pool", nil, `null`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, p := newAgentPool(t, &AgentOptions{Capabilities: tt.capabilities})
			done := make(chan error, 1)
			go func() { done <- a.Handshake(t.Context()) }()
			<-p.inbox
			if strings.Contains(tt.reply, "verrol") {
				p.send(sv1.AppendCapabilitiesResult(nil, []byte(`"conn_test"`), "verrol", "subres"))
			} else {
				p.send(sv1.AppendShowMessage(nil, "hi")) // any line will do
			}
			for range 5 {
				<-p.inbox
			}
			p.send([]byte(`{"id":"caps","result":`+tt.reply+",\"error\":null}\n"), sv1.AppendError(nil, []byte(`"conf"`), 26, "?"),
				sv1.AppendSetVersionMask(nil, 0x1fffe000), sv1.AppendSubscribeResult(nil, []byte(`"sub"`), extranonce1, 8),
				sv1.AppendTrue(nil, []byte(`"auth"`)), []byte(`{"id":"caps_again","result":`+tt.reply+",\"error\":null}\n"),
				sv1.AppendNotify(nil, exampleNotify(t)))
			require.NoError(t, <-done)
			require.False(t, a.Responses())
			j, err := a.NextJob(t.Context())
			require.NoError(t, err)
			verrol := strings.Contains(tt.reply, "verrol") && (tt.capabilities == nil || len(tt.capabilities) > 0)
			require.Equal(t, verrol, j.VersionMask != 0, "the mask needs the capability first")
			for i := range 3 {
				r, err := a.Submit(t.Context(), 1, j.Share([]byte{1, 2, 3, 4}, 0, 9, 0))
				require.NoError(t, err)
				require.Equal(t, AgentReply{Index: uint16(i)}, r)
				p.expect("\x7f\x02\x0f\x00\x05\x01\x00\x04\x03\x02\x01\x09\x00\x00\x00")
			}
		})
	}
}

// Responses that are negotiated late begin with the index of what was sent by then.
func TestAgentAsksForResponsesLate(t *testing.T) {
	a, p := newAgentPool(t, nil)
	frame := btcagent.AppendSubmit(nil, &btcagent.Submit{})
	_, err := a.SubmitFrame(t.Context(), frame)
	require.NoError(t, err)
	require.NoError(t, a.Send(t.Context(), []byte(capsAgainLine+"\n")))
	p.expect(string(frame))
	p.expect(capsAgainLine)
	p.send(sv1.AppendCapabilitiesResult(nil, []byte(`"caps_again"`), "verrol", "subres"))
	_, err = a.Receive(t.Context())
	require.NoError(t, err)
	got := make(chan AgentReply, 1)
	go func() {
		r, err := a.SubmitFrame(t.Context(), frame)
		if err != nil {
			t.Error(err)
		}
		got <- r
	}()
	p.expect(string(frame))
	p.send(btcagent.AppendSubmitResponse(nil, 1, 36))
	require.Equal(t, btcagent.StatusJobNotFound, (<-got).Status)

	// There is no way to take it back.
	p.send(sv1.AppendCapabilitiesResult(nil, []byte(`"caps_again"`)))
	_, err = a.Receive(t.Context())
	require.NoError(t, err)
	require.True(t, a.Responses())
}

func TestAgentHandshakeRefused(t *testing.T) {
	for _, tt := range []struct {
		name      string
		sub, auth []byte
		err       string
	}{
		{"at subscribe", sv1.AppendError(nil, []byte(`"sub"`), 20, "full"), nil, `subscribe: sv1: error 20 from the server: "full"`},
		{"at authorize", sv1.AppendSubscribeResult(nil, []byte(`"sub"`), extranonce1, 8),
			sv1.AppendError(nil, []byte(`"auth"`), 29, "Invalid username"), `authorize stratumtest: sv1: error 29`},
		{"with false", sv1.AppendSubscribeResult(nil, []byte(`"sub"`), extranonce1, 8),
			sv1.AppendResult(nil, []byte(`"auth"`), []byte("false")), `authorize stratumtest: refused without an error`},
		{"with an extranonce2 of 4 bytes", sv1.AppendSubscribeResult(nil, []byte(`"sub"`), extranonce1, 4), nil, `extranonce2 has 4 bytes, want 8`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, p := newAgentPool(t, nil)
			done := make(chan error, 1)
			go func() { done <- a.Handshake(t.Context()) }()
			<-p.inbox
			p.send(sv1.AppendShowMessage(nil, "hi"))
			for range 5 {
				<-p.inbox
			}
			p.send(sv1.AppendCapabilitiesResult(nil, []byte(`"caps"`)), sv1.AppendTrue(nil, []byte(`"conf"`)), tt.sub)
			if tt.auth != nil {
				p.send(tt.auth)
			}
			require.ErrorContains(t, <-done, tt.err)
			p.hungUp()
		})
	}
}

// BTCAgent takes a pool that does not answer its first line for dead, and one that falls silent as well.
func TestAgentTimeouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, p := newAgentPool(t, nil)
		start := time.Now()
		require.ErrorContains(t, a.Handshake(t.Context()), "did not answer the agent's first line within 15s")
		require.Equal(t, 15*time.Second, time.Since(start))
		require.Len(t, p.inbox, 1, "it sends one line and waits")
	})
	synctest.Test(t, func(t *testing.T) {
		a, p := newAgent(t)
		start := time.Now()
		for range 3 {
			time.Sleep(55 * time.Second) // of the bubble's time
			p.send(sv1.AppendNotify(nil, exampleNotify(t)))
			_, err := a.NextJob(t.Context())
			require.NoError(t, err)
		}
		_, err := a.NextJob(t.Context())
		require.ErrorContains(t, err, "the pool was silent for 1m0s")
		require.Equal(t, (3*55+60)*time.Second, time.Since(start))
		p.hungUp()
	})
	synctest.Test(t, func(t *testing.T) {
		a, p := newAgentPool(t, &AgentOptions{ReadTimeout: -1})
		require.NoError(t, a.Send(t.Context(), []byte("{}\n")))
		time.Sleep(time.Hour)
		p.send(sv1.AppendShowMessage(nil, "hi"))
		_, err := a.Receive(t.Context())
		require.NoError(t, err)
	})
}

func TestAgentDemandsTheProtocol(t *testing.T) {
	notify := example(t, "notify") + "\n"
	for _, tt := range []struct{ name, sent, err string }{
		{"not JSON", "hello\n", "not a JSON object"},
		{"a difficulty of zero", `{"id":null,"method":"mining.set_difficulty","params":[0]}` + "\n", "difficulty is not a positive number"},
		{"a mask of text", `{"id":null,"method":"mining.set_version_mask","params":["x"]}` + "\n", "version mask"},
		{"a job id in hex", strings.Replace(notify, `["5"`, `["f5"`, 1), `job id "f5" is not a decimal number up to 255`},
		{"a job id of BTCAgent's own", strings.Replace(notify, `["5"`, `["f"`, 1), "not a decimal number"},
		{"no job id", strings.Replace(notify, `["5"`, `[""`, 1), "not a decimal number"},
		{"a large job id", strings.Replace(notify, `["5"`, `["256"`, 1), "not a decimal number"},
		{"a job id with a zero", strings.Replace(notify, `["5"`, `["05"`, 1), "not a decimal number"},
		{"a job without a clean flag", strings.Replace(notify, ",false", "", 1), "8 params, want 9"},
		{"capabilities of text", `{"id":"caps","result":"verrol"}` + "\n", "result has the wrong form"},
		{"a subscription without an extranonce", `{"id":"sub","result":[[],"x",8]}` + "\n", "extranonce1"},
		{"a line without end", strings.Repeat("x", 66<<10), "line too long"},
		{"a frame without a length", "\x7f\x10\x00\x00", "frame length out of range"},
		{"a response of 9 bytes", "\x7f\x10\x09\x00\x00\x00\x87\x96\x2c", "wrong size"},
		{"a difficulty for one worker too many", "\x7f\x05\x07\x00\x0d\x01\x00", "wrong size"},
		{"a difficulty for nobody that can be", "\x7f\x05\x09\x00\x0d\x01\x00\xff\xff", "session id 0xffff"},
		{"an Ethereum frame", "\x7f\x22\x0a\x00\x00\x00\x00\x00\x00\x00", "SET_EXTRA_NONCE of 10 bytes: no Bitcoin pool sends it"},
		{"a frame of its own kind", "\x7f\x04\x06\x00\x00\x00", "no Bitcoin pool sends it"},
		{"a frame of no kind", "\x7f\x99\x04\x00", "unknown command 0x99"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, p := newAgent(t)
			go func() { _, _ = p.conn.Write([]byte(tt.sent)) }() // may be cut off
			_, err := a.NextJob(t.Context())
			require.ErrorContains(t, err, tt.err)
			require.ErrorContains(t, a.Register(t.Context(), 1, "", ""), tt.err, "later calls say the same")
			p.hungUp()
		})
	}
	t.Run("a job before the subscription", func(t *testing.T) {
		a, p := newAgentPool(t, nil)
		go func() { _, _ = p.conn.Write([]byte(notify)) }()
		_, err := a.NextJob(t.Context())
		require.ErrorContains(t, err, "before the reply to mining.subscribe")
	})
}

func TestAgentEnds(t *testing.T) {
	t.Run("the pool hangs up", func(t *testing.T) {
		a, p := newAgent(t)
		failed := make(chan error, 1)
		go func() {
			_, err := a.SubmitFrame(t.Context(), btcagent.AppendSubmit(nil, &btcagent.Submit{}))
			failed <- err
		}()
		p.expectSubmit()
		p.send(sv1.AppendNotify(nil, exampleNotify(t)))
		p.conn.Close()
		require.ErrorIs(t, <-failed, io.EOF)
		_, err := a.NextJob(t.Context())
		require.NoError(t, err, "what came before is still there")
		_, err = a.NextJob(t.Context())
		require.ErrorIs(t, err, io.EOF)
		require.ErrorIs(t, a.Send(t.Context(), []byte("{}\n")), io.EOF)
		_, err = a.SubmitFrame(t.Context(), []byte("x"))
		require.ErrorIs(t, err, io.EOF)
	})
	t.Run("the test hangs up", func(t *testing.T) {
		a, p := newAgent(t)
		require.NoError(t, a.Close())
		_, err := a.NextJob(t.Context())
		require.ErrorIs(t, err, net.ErrClosed)
		p.hungUp()
	})
	t.Run("closed before use", func(t *testing.T) {
		a, _ := newAgentPool(t, nil)
		require.NoError(t, a.Close())
		require.ErrorIs(t, a.Handshake(t.Context()), net.ErrClosed)
	})
}

// A write that its context ends before a byte left did not happen: the index, and the workers, are as before.
func TestAgentContextEndsAWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe() // nobody reads
		a := NewAgent(client, &AgentOptions{ReadTimeout: -1})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := a.SubmitFrame(ctx, []byte("\x7f\x02\x04\x00"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, a.Register(ctx, 1, "", ""), context.DeadlineExceeded)
		require.ErrorIs(t, a.Register(ctx, 1, "", ""), context.DeadlineExceeded)
		_, ok := a.Difficulty(1)
		require.False(t, ok)
		require.Zero(t, a.Stats().Submitted)

		p := serveAgent(t, a, server)
		r, err := a.SubmitFrame(t.Context(), []byte("\x7f\x02\x04\x00"))
		require.NoError(t, err)
		require.Zero(t, r.Index)
		p.expect("\x7f\x02\x04\x00")
		require.NoError(t, a.Register(t.Context(), 1, "", ""))
		<-p.inbox
		_, ok = a.Difficulty(1)
		require.True(t, ok)
	})
}

func TestAgentContextEndsAnUnregister(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		a := NewAgent(client, &AgentOptions{ReadTimeout: -1})
		registered := make(chan error, 1)
		go func() { registered <- a.Register(t.Context(), 1, "", "") }()
		_, err := io.ReadFull(server, make([]byte, btcagent.MinRegister))
		require.NoError(t, err)
		require.NoError(t, <-registered)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, a.Unregister(ctx, 1), context.DeadlineExceeded)
		_, ok := a.Difficulty(1)
		require.True(t, ok)

		// Half a frame cannot be taken back.
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go func() { _, _ = io.ReadFull(server, make([]byte, 3)) }()
		require.ErrorIs(t, a.Unregister(ctx, 1), context.DeadlineExceeded)
		_, err = server.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
		require.NoError(t, a.Close())
		server.Close()
	})
}

// deafConn cannot be written to.
type deafConn struct{ net.Conn }

func (deafConn) Write([]byte) (int, error) { return 0, errors.New("deaf") }

// When writing fails the pool's last words are still read, for a second.
func TestAgentWriteFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		a := NewAgent(deafConn{client}, nil)
		failed := make(chan error, 1)
		start := time.Now()
		go func() { failed <- a.Register(t.Context(), 1, "", "") }()
		synctest.Wait()
		_, err := server.Write(sv1.AppendShowMessage(nil, "bye"))
		require.NoError(t, err)
		require.ErrorContains(t, <-failed, "deaf")
		require.Equal(t, lastWords, time.Since(start))
		msg, err := a.Receive(t.Context())
		require.NoError(t, err)
		require.Equal(t, sv1.MethodShowMessage, msg.Line.Method)
		require.NoError(t, a.Close())
		server.Close()
	})
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		a := NewAgent(deafConn{client}, nil)
		failed := make(chan error, 1)
		go func() { failed <- a.Register(t.Context(), 1, "", "") }()
		synctest.Wait()
		server.Close()
		require.ErrorIs(t, <-failed, io.EOF, "the pool hung up, which is why")
		require.NoError(t, a.Close())
	})
}

// Whatever a pool sends, the agent ends with an error and in time.
func FuzzAgent(f *testing.F) {
	f.Add([]byte(`{"id":"sub","result":[[],"1a00002b",8]}` + "\n" + example(f, "notify") + "\n\x7f\x05\x09\x00\x0d\x01\x00\x01\x00"))
	f.Add([]byte(`{"id":"caps","result":{"capabilities":["subres"]}}` + "\n\x7f\x10\x0a\x00\x00\x00\x87\x96\x2c\x6b"))
	f.Add([]byte("\x7f\x22\x0a\x00\x00\x00\x00\x00\x00\x00"))
	f.Add([]byte(`{"id":null,"method":"mining.set_difficulty","params":[0.5]}` + "\n" + `{"id":null,"method":"mining.set_version_mask","params":["1fffe000"]}` + "\n"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		client, server := net.Pipe()
		a := NewAgent(client, nil)
		go func() {
			_, _ = io.CopyN(io.Discard, server, int64(len(btcagent.AppendRegister(nil, 1, "", ""))))
			_, _ = server.Write(stream)
			server.Close()
		}()
		require.NoError(t, a.Register(t.Context(), 1, "", ""))
		for {
			j, err := a.NextJob(t.Context())
			if err != nil {
				require.NotErrorIs(t, err, net.ErrClosed)
				break
			}
			require.Equal(t, 4, a.Work(j, 1).Extranonce2Size)
			require.True(t, a.Work(j, 1).Difficulty.Valid())
		}
		require.NoError(t, a.Close())
	})
}

func TestAgentFrame(t *testing.T) {
	_, err := AgentFrame(1, Share{JobID: "256", Extranonce2: make([]byte, 4)})
	require.ErrorContains(t, err, `job id "256"`)
	_, err = AgentFrame(1, Share{JobID: "", Extranonce2: make([]byte, 4)})
	require.ErrorContains(t, err, `job id ""`)
	_, err = AgentFrame(1, Share{JobID: "5", Extranonce2: make([]byte, 8)})
	require.ErrorContains(t, err, "extranonce2 has 8 bytes, want 4")
	a, _ := newAgentPool(t, nil)
	_, err = a.Submit(t.Context(), 1, Share{JobID: "x"})
	require.ErrorContains(t, err, `job id "x"`)
}

func TestAgentOverTCP(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	conns := make(chan net.Conn, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			t.Error(err)
		}
		conns <- c
	}()
	a, err := DialAgent(t.Context(), ln.Addr().String(), &AgentOptions{User: "alice"})
	require.NoError(t, err)
	p := serveAgent(t, a, <-conns)
	done := make(chan error, 1)
	go func() { done <- a.Handshake(t.Context()) }()
	p.login()
	require.NoError(t, <-done)
	p.send(sv1.AppendNotify(nil, exampleNotify(t)))
	j, err := a.NextJob(t.Context())
	require.NoError(t, err)

	const workers, shares = 50, 4
	for id := range uint16(workers) {
		require.NoError(t, a.Register(t.Context(), id, "cgminer", "w"))
		<-p.inbox
	}
	var miners sync.WaitGroup
	for id := range uint16(workers) {
		miners.Go(func() {
			for range shares {
				s, err := a.Solve(t.Context(), j, id)
				if err != nil {
					t.Error(err)
					return
				}
				r, err := a.Submit(t.Context(), id, s)
				if err != nil || r.Status != int32(1000+int(id)) {
					t.Errorf("worker %d: %+v, %v", id, r, err)
				}
			}
		})
	}
	seen := map[btcagent.Submit]bool{}
	for i := range workers * shares {
		s := p.expectSubmit()
		require.False(t, seen[s])
		seen[s] = true
		p.send(btcagent.AppendSubmitResponse(nil, uint16(i), int32(1000+int(s.SessionID))))
	}
	miners.Wait()
	require.EqualValues(t, workers*shares, a.Stats().Rejected)

	ln.Close()
	_, err = DialAgent(t.Context(), ln.Addr().String(), nil)
	require.Error(t, err)
}
