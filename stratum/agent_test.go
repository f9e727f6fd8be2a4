package stratum_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum"
	"github.com/poolkit/poolkit/stratum/btcagent"
	"github.com/poolkit/poolkit/stratum/stratumtest"
	"github.com/poolkit/poolkit/stratum/sv1"
	"github.com/stretchr/testify/require"
)

// agent logs in as BTCAgent does.
func (p *pool) agent(opts *stratumtest.AgentOptions) *stratumtest.Agent {
	p.t.Helper()
	conn, err := p.ln.Dial(p.t.Context())
	require.NoError(p.t, err)
	a := stratumtest.NewAgent(conn, opts)
	p.t.Cleanup(func() { a.Close() })
	require.NoError(p.t, a.Handshake(p.t.Context()))
	return a
}

// onTCP starts a server on a real socket.
func onTCP(t testing.TB, opts stratum.Options) (p *pool, addr string) {
	t.Helper()
	if opts.StartDifficulty == 0 {
		opts.StartDifficulty, opts.MinDifficulty = easy, easy
	}
	if opts.NewPolicy == nil {
		opts.NewPolicy = func(*stratum.Session) difficulty.Policy { return difficulty.Fixed(opts.StartDifficulty) }
	}
	p = &pool{t: t, hub: job.NewHub(nil)}
	users, err := stratum.OpenUsers("")
	require.NoError(t, err)
	opts.AboveNetwork = true
	p.server, err = stratum.New(p.hub, users, p, p, &opts)
	require.NoError(t, err)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.server.Serve(ctx, ln) }()
	p.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { require.NoError(t, p.stop()) })
	return p, ln.Addr().String()
}

// give is broadcast, and returns when the server has sent the job to whoever is there: who comes now gets it once.
func (p *pool) give(height int32, bits uint32) {
	p.t.Helper()
	j := p.broadcast(height, bits)
	if p.ln != nil {
		synctest.Wait()
		return
	}
	require.Eventually(p.t, func() bool {
		c := p.server.Stats().Chains[""]
		return c.LastJob != nil && c.LastJob.ID == j.ID && !c.LastJobSent.IsZero()
	}, 10*time.Second, time.Millisecond)
}

// An agentWire is an agent's connection by the byte.
type agentWire struct {
	t    testing.TB
	conn net.Conn
	r    *btcagent.Reader
	id   uint8 // of the latest job
}

func (p *pool) agentWire() *agentWire {
	p.t.Helper()
	conn, err := p.ln.Dial(p.t.Context())
	require.NoError(p.t, err)
	return newAgentWire(p.t, conn)
}

func newAgentWire(t testing.TB, conn net.Conn) *agentWire {
	t.Cleanup(func() { conn.Close() })
	return &agentWire{t: t, conn: conn, r: btcagent.NewReader(conn, 1<<16)}
}

const agentSubscribe = `{"id":"sub","method":"mining.subscribe","params":["btccom-agent/2.0.0-mu"]}`

// login asks for responses, subscribes, authorizes, and reads the answers, the announced difficulty and the first job
// where the pool has one.
func (w *agentWire) login(password string, hasJob bool) (announced float64) {
	w.t.Helper()
	w.send(`{"id":"caps","method":"agent.get_capabilities","params":[["verrol","subres"]]}` + "\n" + agentSubscribe + "\n" +
		fmt.Sprintf(`{"id":"auth","method":"mining.authorize","params":["farm",%q]}`, password) + "\n")
	require.Equal(w.t, `{"id":"caps","result":{"capabilities":["verrol","subres"]},"error":null}`, w.line())
	require.Contains(w.t, w.line(), `"id":"sub"`)
	require.Equal(w.t, `{"id":"auth","result":true,"error":null}`, w.line())
	if !hasJob {
		return 0
	}
	announced = w.difficulty(w.line())
	w.job()
	return announced
}

func (w *agentWire) difficulty(line string) float64 {
	w.t.Helper()
	var m sv1.Message
	require.NoError(w.t, m.Decode([]byte(line)), line)
	require.Equal(w.t, sv1.MethodSetDifficulty, m.Method, line)
	var d sv1.SetDifficulty
	require.NoError(w.t, d.Decode(m.Params))
	return d.Difficulty
}

func (w *agentWire) send(raw string) {
	w.t.Helper()
	_, err := w.conn.Write([]byte(raw))
	require.NoError(w.t, err)
}

func (w *agentWire) read() (string, btcagent.Frame) {
	w.t.Helper()
	line, f, err := w.r.Read()
	require.NoError(w.t, err)
	return string(line), f
}

func (w *agentWire) line() string {
	w.t.Helper()
	line, f := w.read()
	require.NotEmpty(w.t, line, "the server sent a frame %s of % x", f.Command, f.Body)
	return line
}

// job reads a mining.notify.
func (w *agentWire) job() (n sv1.Notify) {
	w.t.Helper()
	var m sv1.Message
	line := w.line()
	require.NoError(w.t, m.Decode([]byte(line)), line)
	require.Equal(w.t, sv1.MethodNotify, m.Method, line)
	require.NoError(w.t, n.Decode(m.Params))
	_, err := fmt.Sscan(n.JobID, &w.id)
	require.NoError(w.t, err)
	return n
}

func (w *agentWire) response() (r btcagent.SubmitResponse) {
	w.t.Helper()
	line, f := w.read()
	require.Empty(w.t, line)
	require.NoError(w.t, r.Decode(f))
	return r
}

func (w *agentWire) difficulties() (s btcagent.SetDifficulty) {
	w.t.Helper()
	line, f := w.read()
	require.Empty(w.t, line)
	require.NoError(w.t, s.Decode(f))
	slices.Sort(s.SessionIDs)
	return s
}

// nothingBut sends a ping and expects its answer next.
func (w *agentWire) nothingBut() {
	w.t.Helper()
	w.send(`{"id":"p","method":"mining.ping"}` + "\n")
	require.Equal(w.t, `{"id":"p","result":"pong","error":null}`, w.line())
}

func (w *agentWire) ended() {
	w.t.Helper()
	line, f, err := w.r.Read()
	require.Error(w.t, err, "the server sent %q or % x instead of closing", line, f.Body)
}

func registerFrame(id uint16, software, worker string) string {
	return string(btcagent.AppendRegister(nil, id, software, worker))
}

func unregisterFrame(id uint16) string { return string(btcagent.AppendUnregister(nil, id)) }

// submitFrame is a share that nobody has hashed.
func submitFrame(id uint16, jobID uint8, nonce uint32) string {
	return string(btcagent.AppendSubmit(nil, &btcagent.Submit{JobID: jobID, SessionID: id, Nonce: nonce}))
}

// badFrame is a frame of a size that its command does not have.
func badFrame(cmd btcagent.Command, size int) string {
	b, err := btcagent.AppendFrame(nil, cmd, make([]byte, size))
	if err != nil {
		panic(err)
	}
	return string(b)
}

// farmMines is what a farm lives on, whatever carries it: register, a job each, shares, credit.
func farmMines(t *testing.T, p *pool, a *stratumtest.Agent) {
	ctx := t.Context()
	require.NoError(t, a.Handshake(ctx))
	require.True(t, a.Responses())
	j, err := a.NextJob(ctx)
	require.NoError(t, err)
	require.Equal(t, easy, j.Difficulty)
	require.Len(t, j.Extranonce1, 4)
	const machines = 5
	for id := range uint16(machines) {
		require.NoError(t, a.Register(ctx, id*1000, "cgminer/4", fmt.Sprintf("rig%d", id)))
	}
	for round := range 3 {
		for id := range uint16(machines) {
			s, err := a.Solve(ctx, j, id*1000)
			require.NoError(t, err)
			r, err := a.Submit(ctx, id*1000, s)
			require.NoError(t, err)
			require.Equal(t, share.Accepted.Status(), r.Status, "%v", r)
			require.Equal(t, uint16(round*machines+int(id)), r.Index)
			recorded := p.recorded()
			got := recorded[len(recorded)-1]
			require.Equal(t, share.Worker{User: "stratumtest", Name: fmt.Sprintf("rig%d", id)}, got.Worker)
			require.Equal(t, got.Worker.ID(), got.WorkerID)
			require.Equal(t, easy, got.Difficulty)
			require.Equal(t, binary.BigEndian.Uint32(j.Extranonce1), got.SessionID)
			require.Equal(t, s.Nonce, got.Nonce)
			require.Equal(t, s.VersionBits, got.VersionBits)
		}
	}
	require.Len(t, p.recorded(), 3*machines)
	st := p.server.Stats()
	require.Equal(t, machines, st.AgentWorkers)
	require.Equal(t, 1, st.Sessions)
	require.Zero(t, a.Stats().Unexpected)
}

func TestAnAgentsFarmMines(t *testing.T) {
	in(t, stratum.Options{}, func(t *testing.T, p *pool) {
		p.give(100, hardBits)
		conn, err := p.ln.Dial(t.Context())
		require.NoError(t, err)
		a := stratumtest.NewAgent(conn, nil)
		defer a.Close()
		farmMines(t, p, a)
		require.NoError(t, a.Close())
		synctest.Wait()
		st := p.server.Stats()
		require.Zero(t, st.Sessions)
		require.Zero(t, st.AgentWorkers)
		require.Zero(t, st.Parked, "an agent's session is not one to resume")
	})
}

func TestAnAgentsFarmMinesOverTCP(t *testing.T) {
	p, addr := onTCP(t, stratum.Options{})
	p.give(100, hardBits)
	a, err := stratumtest.DialAgent(t.Context(), addr, nil)
	require.NoError(t, err)
	defer a.Close()
	farmMines(t, p, a)
	require.NoError(t, a.Close())
	require.Eventually(t, func() bool { return p.server.Stats().Sessions == 0 }, 10*time.Second, time.Millisecond)
	require.Zero(t, p.server.Stats().AgentWorkers)
}

// Many machines behind several agents at once, on real sockets, through new blocks: whatever was answered as good is
// recorded, once, for the machine that found it.
func TestAgentsOverTCPAllAtOnce(t *testing.T) {
	p, addr := onTCP(t, stratum.Options{})
	p.give(100, hardBits)
	ctx := t.Context()
	const agents, machines, each = 4, 4, 6
	var wg sync.WaitGroup
	blocks := make(chan struct{}, agents*machines*each)
	for n := range agents {
		wg.Go(func() {
			a, err := stratumtest.DialAgent(ctx, addr, &stratumtest.AgentOptions{User: fmt.Sprintf("farm%d", n)})
			if err != nil {
				t.Error(err)
				return
			}
			defer a.Close()
			if err := a.Handshake(ctx); err != nil {
				t.Error(err)
				return
			}
			j, err := a.NextJob(ctx)
			var machine sync.WaitGroup
			for id := range uint16(machines) {
				machine.Go(func() {
					if err != nil || a.Register(ctx, id, "x", fmt.Sprintf("m%d", id)) != nil {
						t.Errorf("agent %d: no job or no connection: %v", n, err)
						return
					}
					for i := range each {
						s, err := a.Solve(ctx, j, id)
						if err != nil {
							t.Error(err)
							return
						}
						r, err := a.Submit(ctx, id, s)
						if err != nil || !r.Accepted && r.Status != btcagent.StatusStale {
							t.Errorf("agent %d, machine %d, share %d: %+v, %v", n, id, i, r, err)
							return
						}
						blocks <- struct{}{}
					}
				})
			}
			machine.Wait()
			st := a.Stats()
			if st.Unexpected != 0 || st.Accepted+st.Rejected != machines*each {
				t.Errorf("agent %d: %+v", n, st)
			}
		})
	}
	for range agents * machines * each / 2 {
		<-blocks
	}
	p.give(101, hardBits)
	wg.Wait()
	good, seen := int64(0), make(map[string]bool)
	for _, s := range p.recorded() {
		if !s.Verdict.Accepted() {
			continue
		}
		good++
		seen[fmt.Sprint(s.SessionID, s.Worker, s.Nonce, s.VersionBits, s.BitsReached)] = true
	}
	st := p.server.Stats()
	require.Len(t, seen, int(good))
	require.Equal(t, good, st.Verdicts[share.Accepted])
	require.EqualValues(t, agents*machines*each, good+st.Verdicts[share.Stale])
	require.GreaterOrEqual(t, good, int64(agents*machines*each/2))
}

// mixed is a stream of frames and lines, all of which say where they end; answered is what a pool has to say to it.
func mixed(sid uint16) (stream string, answered []string) {
	ping := func(id string) string { return `{"id":"` + id + `","method":"mining.ping"}` + "\n" }
	pong := func(id string) string { return `{"id":"` + id + `","result":"pong","error":null}` }
	return registerFrame(sid, "cgminer", "m") +
			ping("one") +
			"\r\n" +
			submitFrame(sid, 0xc8, 0x0a0a7f7b) +
			ping("two") +
			submitFrame(9, 0xc8, 0x7b227f0a) +
			badFrame(btcagent.CommandSubmitTime, 1) +
			badFrame(btcagent.CommandSubmitVersion, 600) + // more than any frame of an agent
			badFrame(0x77, 10) +
			badFrame(0x77, 0) +
			ping("three") +
			submitFrame(0xffff, 0xc8, 1) +
			unregisterFrame(sid) +
			submitFrame(sid, 0xc8, 0x0a000000) +
			submitFrame(sid, 0xc8, 1),
		[]string{pong("one"), "36", pong("two"), "24", "27", "27", pong("three"), "24", "24", "24"}
}

func (w *agentWire) expectMixed(want []string, index *uint16, where string) {
	w.t.Helper()
	for _, answer := range want {
		line, f := w.read()
		if answer[0] == '{' {
			require.Equal(w.t, answer, line, where)
			continue
		}
		var r btcagent.SubmitResponse
		require.NoError(w.t, r.Decode(f), where)
		require.Equal(w.t, answer, fmt.Sprint(r.Status), where)
		require.Equal(w.t, *index, r.Index, where)
		*index++
	}
}

func TestAgentFramesInTwoPieces(t *testing.T) {
	in(t, stratum.Options{Limits: stratum.NoLimits()}, func(t *testing.T, p *pool) {
		p.give(100, hardBits)
		w := p.agentWire()
		w.login("", true)
		stream, want := mixed(3)
		var index uint16
		for i := range len(stream) + 1 {
			go func() {
				w.conn.Write([]byte(stream[:i]))
				time.Sleep(time.Millisecond) // what there is so far has been looked at
				w.conn.Write([]byte(stream[i:]))
			}()
			w.expectMixed(want, &index, fmt.Sprintf("cut before byte %d", i))
			time.Sleep(2 * time.Millisecond)
		}
		require.Zero(t, p.server.Stats().AgentWorkers)
	})
}

func TestAgentFramesInSingleBytes(t *testing.T) {
	test := func(t *testing.T, w *agentWire) {
		stream, want := mixed(3)
		sent := make(chan error, 1)
		go func() {
			for i := range stream {
				if _, err := w.conn.Write([]byte(stream[i : i+1])); err != nil {
					sent <- err
					return
				}
			}
			sent <- nil
		}()
		var index uint16
		w.expectMixed(want, &index, "in single bytes")
		require.NoError(t, <-sent)
		w.nothingBut()
	}
	t.Run("in memory", func(t *testing.T) {
		in(t, stratum.Options{}, func(t *testing.T, p *pool) {
			p.give(100, hardBits)
			w := p.agentWire()
			w.login("", true)
			test(t, w)
		})
	})
	t.Run("over TCP", func(t *testing.T) {
		p, addr := onTCP(t, stratum.Options{})
		p.give(100, hardBits)
		conn, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		w := newAgentWire(t, conn)
		w.login("", true)
		test(t, w)
	})
}

// What was a line is one to its end, whatever bytes are in it, and what is none does not move where frames begin.
func TestAgentFramesAfterHalfALine(t *testing.T) {
	in(t, stratum.Options{}, func(t *testing.T, p *pool) {
		p.give(100, hardBits)
		w := p.agentWire()
		w.login("", true)
		before := p.server.Stats().Malformed
		w.send(`{"id":1,"method":"mining.pi`)
		w.send("\x7f\x02\x0f\n" + submitFrame(1, 0xc8, 1))
		require.Equal(t, btcagent.SubmitResponse{Index: 0, Status: 24}, w.response())
		w.send(`{"id":2,"method":"mining.pi`)
		w.send(`ng"}` + "\n" + submitFrame(1, 0xc8, 2))
		require.Equal(t, `{"id":2,"result":"pong","error":null}`, w.line())
		require.Equal(t, btcagent.SubmitResponse{Index: 1, Status: 24}, w.response())
		require.Equal(t, before+1, p.server.Stats().Malformed)
	})
}

func TestAgentFramesThatCannotBe(t *testing.T) {
	for size := range 4 {
		t.Run(fmt.Sprintf("length %d closes", size), func(t *testing.T) {
			in(t, stratum.Options{}, func(t *testing.T, p *pool) {
				p.give(100, hardBits)
				w := p.agentWire()
				w.login("", true)
				w.send(string([]byte{btcagent.Magic, 2, byte(size), 0}))
				w.ended()
			})
		})
	}
	t.Run("on a connection of no agent they close", func(t *testing.T) {
		in(t, stratum.Options{}, func(t *testing.T, p *pool) {
			c := p.dial()
			c.login("alice.rig")
			_, err := c.conn.Write([]byte(submitFrame(1, 1, 1)))
			require.NoError(t, err)
			c.ended()
		})
	})
	t.Run("before anything else they close", func(t *testing.T) {
		in(t, stratum.Options{}, func(t *testing.T, p *pool) {
			c := p.dial()
			c.conn.Write([]byte(submitFrame(1, 1, 1))) // which the server may not read to the end
			for {
				if _, err := c.r.ReadLine(); err != nil { // it may say why first
					return
				}
			}
		})
	})
	t.Run("where extranonce2 is short there are no agents", func(t *testing.T) {
		in(t, stratum.Options{Extranonce2Size: 4}, func(t *testing.T, p *pool) {
			w := p.agentWire()
			w.login("", false)
			w.send(submitFrame(1, 1, 1))
			w.ended()
		})
	})
	t.Run("between subscribe and authorize they are passed over and have no index", func(t *testing.T) {
		in(t, stratum.Options{}, func(t *testing.T, p *pool) {
			p.give(100, hardBits)
			w := p.agentWire()
			w.send(agentSubscribe + "\n")
			require.Contains(t, w.line(), `"id":"sub"`)
			w.send(registerFrame(1, "x", "y") + submitFrame(1, 0, 1) + badFrame(btcagent.CommandSubmit, 900))
			w.login("", true)
			w.send(submitFrame(1, 0, 1))
			require.Equal(t, btcagent.SubmitResponse{Index: 0, Status: 24}, w.response(), "the machine never registered")
		})
	})
	t.Run("a hundred in a row close", func(t *testing.T) {
		for name, bad := range map[string]string{
			"unknown commands":    badFrame(0x77, 3),
			"registers too short": badFrame(btcagent.CommandRegister, 3),
			"registers too long":  badFrame(btcagent.CommandRegister, 509),
			"the invalid number":  registerFrame(0xffff, "a", "b"),
			"leaving too long":    badFrame(btcagent.CommandUnregister, 3),
			"of another chain":    badFrame(btcagent.CommandSubmitMixHash, 14),
		} {
			t.Run(name, func(t *testing.T) {
				in(t, stratum.Options{}, func(t *testing.T, p *pool) {
					p.give(100, hardBits)
					w := p.agentWire()
					w.login("", true)
					w.send(strings.Repeat(bad, 99) + unregisterFrame(1) + strings.Repeat(bad, 99))
					w.nothingBut() // one that means something begins a new row
					require.EqualValues(t, 198, p.server.Stats().Malformed)
					w.send(bad)
					w.ended()
				})
			})
		}
	})
	t.Run("submits of the wrong size are answered before they close", func(t *testing.T) {
		in(t, stratum.Options{Limits: stratum.NoLimits()}, func(t *testing.T, p *pool) {
			p.give(100, hardBits)
			w := p.agentWire()
			w.login("", true)
			go w.conn.Write([]byte(strings.Repeat(badFrame(btcagent.CommandSubmit, 5)+badFrame(btcagent.CommandSubmit, 700), 50)))
			for i := range uint16(100) {
				require.Equal(t, btcagent.SubmitResponse{Index: i, Status: 27}, w.response())
			}
			w.ended()
		})
	})
}

// A frame goes to each machine whose difficulty changes, as many as fit in one.
func TestAFullFarmIsToldInThreeFrames(t *testing.T) {
	opts := stratum.Options{
		StartDifficulty: 16384, MinDifficulty: 64,
		NewPolicy: func(*stratum.Session) difficulty.Policy { return &steps{8192} },
	}
	in(t, opts, func(t *testing.T, p *pool) {
		p.give(100, hardBits)
		w := p.agentWire()
		require.EqualValues(t, 16384, w.login("", true))
		var all []byte
		for id := range uint16(btcagent.MaxSessionID + 1) {
			all = btcagent.AppendRegister(all, id, "", "m")
		}
		w.send(string(all))
		w.nothingBut() // what has the announced difficulty is told nothing
		require.Equal(t, 65535, p.server.Stats().AgentWorkers)

		p.give(101, hardBits)
		seen := make(map[uint16]bool)
		for _, count := range []int{32764, 32764, 7} {
			s := w.difficulties()
			require.EqualValues(t, 13, s.Exponent)
			require.Len(t, s.SessionIDs, count)
			for _, id := range s.SessionIDs {
				seen[id] = true
			}
		}
		require.Len(t, seen, 65535)
		w.job()
		p.give(102, hardBits)
		w.job() // nothing changed
	})
}

func TestTheIndexOfAnAgentsSubmitsWrapsAndStaysAligned(t *testing.T) {
	in(t, stratum.Options{Limits: stratum.NoLimits()}, func(t *testing.T, p *pool) {
		p.give(100, hardBits)
		w := p.agentWire()
		w.login("", true)
		w.send(registerFrame(1, "x", "y"))
		kinds := []struct {
			frame  string
			status int32
		}{
			{submitFrame(2, w.id, 1), 24},                    // nobody's
			{submitFrame(1, w.id+1, 1), 36},                  // a job that never was
			{badFrame(btcagent.CommandSubmit, 12), 27},       // a byte too long
			{submitFrame(0xffff, w.id, 1), 24},               // the number that nobody has
			{badFrame(btcagent.CommandSubmitTime, 3000), 27}, // too long to be kept
		}
		const rounds = 65536/5 + 3
		go func() {
			var all bytes.Buffer
			for range rounds {
				for _, k := range kinds {
					all.WriteString(k.frame)
				}
				if all.Len() > 1<<16 {
					w.conn.Write(all.Bytes())
					all.Reset()
				}
			}
			w.conn.Write(all.Bytes())
		}()
		for i := range rounds * len(kinds) {
			require.Equal(t, btcagent.SubmitResponse{Index: uint16(i), Status: kinds[i%len(kinds)].status}, w.response(), "submit %d", i)
		}
		require.Less(t, int(uint16(rounds*len(kinds))), 100, "it wrapped")
	})
}

func TestWhenAgentsAreAnswered(t *testing.T) {
	const caps, with = `{"id":"caps","method":"agent.get_capabilities","params":[["subres"]]}`, 1
	login := func(w *agentWire) {
		w.send(agentSubscribe + "\n" + `{"id":"auth","method":"mining.authorize","params":["farm",""]}` + "\n")
		require.Contains(w.t, w.line(), `"id":"sub"`)
		require.Contains(w.t, w.line(), `"id":"auth"`)
		w.difficulty(w.line())
		w.job()
	}
	ask := func(w *agentWire) {
		w.send(caps + "\n")
		require.Equal(w.t, `{"id":"caps","result":{"capabilities":["verrol","subres"]},"error":null}`, w.line())
	}
	t.Run("asked for before all else", func(t *testing.T) {
		in(t, stratum.Options{}, func(t *testing.T, p *pool) {
			p.give(100, hardBits)
			w := p.agentWire()
			ask(w)
			login(w)
			w.send(submitFrame(1, 0, 1))
			require.Equal(t, btcagent.SubmitResponse{Index: 0, Status: 24}, w.response())
		})
	})
	t.Run("asked for with every spelling", func(t *testing.T) {
		for _, params := range []string{`,"params":["subres"]`, `,"params":[["verrol","subres"]]`} {
			in(t, stratum.Options{}, func(t *testing.T, p *pool) {
				p.give(100, hardBits)
				w := p.agentWire()
				w.send(`{"id":1,"method":"agent.get_capabilities"` + params + "}\n")
				w.line()
				login(w)
				w.send(submitFrame(1, 0, 1))
				w.response()
			})
		}
	})
	t.Run("never asked for", func(t *testing.T) {
		in(t, stratum.Options{}, func(t *testing.T, p *pool) {
			p.give(100, hardBits)
			w := p.agentWire()
			w.send(`{"id":1,"method":"agent.get_capabilities","params":[["verrol"]]}` + "\n")
			require.Equal(t, `{"id":1,"result":{"capabilities":["verrol","subres"]},"error":null}`, w.line())
			login(w)
			w.send(submitFrame(1, 0, 1) + badFrame(btcagent.CommandSubmit, 1) + badFrame(btcagent.CommandSubmit, 1000))
			w.nothingBut()
			require.EqualValues(t, 1, p.server.Stats().Verdicts[share.Unauthorized], "it was judged all the same")
			require.EqualValues(t, 2, p.server.Stats().Verdicts[share.IllegalParams])
			// Later is soon enough, and the index counts from the first submit.
			ask(w)
			w.send(submitFrame(1, 0, 1))
			require.Equal(t, btcagent.SubmitResponse{Index: 3, Status: 24}, w.response())
		})
	})
}

// record keeps events as "action desc user.worker".
type record struct {
	mu     sync.Mutex
	events []stratum.Event
}

func (r *record) PutEvent(e stratum.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

// take returns the events so far and forgets them.
func (r *record) take() (events []stratum.Event, text []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	events, r.events = r.events, nil
	for _, e := range events {
		text = append(text, fmt.Sprintf("%s %s %s.%s", e.Action, e.Desc, e.UserName, e.WorkerName))
	}
	return events, text
}

func TestMachinesBehindAnAgentComeAndGo(t *testing.T) {
	var events record
	var hook []string
	opts := stratum.Options{Events: &events, Hooks: stratum.Hooks{
		Registered: func(s *stratum.Session, w share.Worker, user int32) {
			worker, id := s.Worker()
			hook = append(hook, fmt.Sprintf("%s of %s, %t", w, worker, id == user && user > 0))
		},
	}}
	in(t, opts, func(t *testing.T, p *pool) {
		p.give(100, hardBits)
		ctx := t.Context()
		a := p.agent(&stratumtest.AgentOptions{User: "farm"})
		_, text := events.take()
		require.Equal(t, []string{"miner_connect new_conn farm.__default__"}, text)
		j, err := a.NextJob(ctx)
		require.NoError(t, err)

		require.NoError(t, a.Register(ctx, 7, "bitaxe/BM1370/v2.9, which is longer than it may be", "desk.3"))
		synctest.Wait()
		got, text := events.take()
		require.Equal(t, []string{"miner_connect from_btcagent farm.desk.3"}, text)
		require.Equal(t, "bitaxe/BM1370/v2.9whichisl", got[0].Agent, "cut to 30 bytes, then filtered, as in mining.subscribe")
		require.Equal(t, share.Worker{User: "farm", Name: "desk.3"}.ID(), got[0].WorkerID)
		require.Equal(t, binary.BigEndian.Uint32(j.Extranonce1), got[0].SessionID)
		require.Equal(t, "127.0.0.1", got[0].IP.String())

		credited := func() int64 {
			s, err := a.SolveTarget(ctx, j, 7, difficulty.Difficulty(easy).Target())
			require.NoError(t, err)
			_, err = a.Submit(ctx, 7, s)
			require.NoError(t, err)
			shares := p.recorded()
			return shares[len(shares)-1].WorkerID
		}
		require.Equal(t, share.Worker{Name: "desk.3"}.ID(), credited())

		// The same number again is another machine, and the work from now on is its.
		require.NoError(t, a.Register(ctx, 7, "x", "other"))
		synctest.Wait()
		_, text = events.take()
		require.Equal(t, []string{"miner_dead from_btcagent farm.desk.3", "miner_connect from_btcagent farm.other"}, text)
		require.Equal(t, share.Worker{Name: "other"}.ID(), credited())
		require.Equal(t, 1, p.server.Stats().AgentWorkers)

		require.NoError(t, a.Register(ctx, 8, "x", ""))
		require.NoError(t, a.Unregister(ctx, 7))
		require.NoError(t, a.Unregister(ctx, 7))
		require.NoError(t, a.Unregister(ctx, 99))
		synctest.Wait()
		_, text = events.take()
		require.Equal(t, []string{"miner_connect from_btcagent farm.__default__", "miner_dead from_btcagent farm.other"}, text)
		s, err := a.SolveTarget(ctx, j, 7, difficulty.Difficulty(easy).Target())
		require.NoError(t, err)
		r, err := a.Submit(ctx, 7, s)
		require.NoError(t, err)
		require.EqualValues(t, 24, r.Status)

		require.NoError(t, a.Register(ctx, 9, "x", "last"))
		synctest.Wait()
		events.take()
		require.NoError(t, a.Close())
		synctest.Wait()
		_, text = events.take()
		require.Equal(t, "miner_dead del_conn farm.__default__", text[0])
		slices.Sort(text)
		require.Equal(t, []string{
			"miner_dead del_conn farm.__default__",
			"miner_dead from_btcagent farm.__default__",
			"miner_dead from_btcagent farm.last",
		}, text)
		require.Equal(t, []string{
			"farm.desk.3 of farm.__default__, true", "farm.other of farm.__default__, true",
			"farm.__default__ of farm.__default__, true", "farm.last of farm.__default__, true",
		}, hook)
	})
}

// A fixedPrefix is an allocator that has but one.
type fixedPrefix uint32

func (f fixedPrefix) Lease(time.Time) (uint32, error) { return uint32(f), nil }
func (fixedPrefix) Release(uint32, time.Time)         {}

// The share of the worked example in the protocol's specification, with a difficulty of 1.2027.
const (
	goldenJob = `["5","00112233c6d7e8f98293a4b52d4f6071c7e9081b0001a3f50000000000000000",` +
		`"02000000010000000000000000000000000000000000000000000000000000000000000000ffffffff1f03bbd10c04809966662f53444b20706f6f6c2f",` +
		`"ffffffff01205fa012000000001600140102030405060708090a0b0c0d0e0f101112131400000000",` +
		`["a646769b477491d98705e4aafb01e08fea366cad0bd3260d43e279f057102304",` +
		`"9c312fd9d0cb6d6e88d7c1016b75ec93bf23ad9b781affb57d4604edd445b446"],"20000000","17034219","66669991",true]`
	goldenPrefix = 0x1a00002b
)

func goldenSubmit(sid uint16, jobID uint8) string {
	return string(btcagent.AppendSubmit(nil, &btcagent.Submit{JobID: jobID, SessionID: sid, Extranonce2: 0x4d2,
		Nonce: 0x12f444d0, NTime: 0x66669991, VersionBits: 0x00c00000}))
}

func (p *pool) broadcastGolden() {
	p.t.Helper()
	var n sv1.Notify
	require.NoError(p.t, n.Decode([]byte(goldenJob)))
	j := job.Job{ID: p.ids.Next(time.Now()), Height: 840123, Version: int32(n.Version), Bits: n.Bits, PrevHash: n.PrevHash,
		Time: n.NTime, MinTime: n.NTime - 600, Coinb1: n.Coinb1, Coinb2: n.Coinb2}
	for _, step := range n.Branch {
		j.Branch = append(j.Branch, step)
	}
	made, err := job.New(j)
	require.NoError(p.t, err)
	require.NoError(p.t, p.hub.Broadcast(p.t.Context(), made))
	synctest.Wait()
}

// inJune runs a pool at the time of the golden job.
func inJune(t *testing.T, opts stratum.Options, f func(t *testing.T, p *pool)) {
	opts.Extranonces, opts.ResumeTime = fixedPrefix(goldenPrefix), -1
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(time.Unix(0x66669991, 0).Add(28 * time.Second)))
		p := open(t, opts)
		p.broadcastGolden()
		f(t, p)
	})
}

func TestTheGoldenShareOfAnAgent(t *testing.T) {
	inJune(t, stratum.Options{StartDifficulty: 1, MinDifficulty: 1}, func(t *testing.T, p *pool) {
		w := p.agentWire()
		require.EqualValues(t, 1, w.login("", true))
		w.send(registerFrame(0, "cgminer", "rig01"))
		frame := goldenSubmit(0, w.id)
		require.Equal(t, fmt.Sprintf("7f131700%02x0000d2040000d044f412919966660000c000", w.id), hex.EncodeToString([]byte(frame)))
		w.send(frame)
		require.Equal(t, btcagent.SubmitResponse{Index: 0, Status: btcagent.StatusAccept}, w.response())
		w.send(frame)
		require.Equal(t, btcagent.SubmitResponse{Index: 1, Status: 22}, w.response())
		got := p.recorded()[0]
		require.Equal(t, "farm.rig01", got.Worker.String())
		require.EqualValues(t, 1, got.Difficulty)
		require.EqualValues(t, 0x1d00d4d8, got.BitsReached)
		require.EqualValues(t, goldenPrefix, got.SessionID)

		// The same work under another short id, and by the machine under its next name, is the same work.
		before := w.id
		time.Sleep(time.Second)
		p.broadcastGolden()
		for w.id == before { // the old one may be sent again first
			w.job()
		}
		w.send(goldenSubmit(0, w.id))
		require.Equal(t, btcagent.SubmitResponse{Index: 2, Status: 22}, w.response())
		w.send(registerFrame(0, "cgminer", "rig02") + goldenSubmit(0, w.id))
		require.Equal(t, btcagent.SubmitResponse{Index: 3, Status: 22}, w.response())
	})
}

// The share reaches difficulty 1.2: which of two difficulties it is judged by shows.
func TestDifficultyBelongsToTheMachineAndTheJob(t *testing.T) {
	tests := []struct {
		name   string
		policy steps // after the announced 1, by job from the second on
		onOld  bool
		status int32
	}{
		{"a job from before the rise", steps{1, 2}, true, btcagent.StatusAccept},
		{"a job from after the rise", steps{1, 2}, false, 23},
		{"a job that did not change it", steps{1, 1}, false, btcagent.StatusAccept},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			opts := stratum.Options{StartDifficulty: 1, MinDifficulty: 1, NewPolicy: func(*stratum.Session) difficulty.Policy {
				policy := slices.Clone(test.policy[1:])
				return &policy
			}}
			inJune(t, opts, func(t *testing.T, p *pool) {
				w := p.agentWire()
				w.login("", true)
				old := w.id
				w.send(registerFrame(0, "x", "y"))
				w.nothingBut()
				time.Sleep(time.Second)
				go func() {
					time.Sleep(30 * time.Second)
					p.broadcastGolden()
				}()
				for w.id == old {
					line, f := w.read()
					if line == "" {
						var s btcagent.SetDifficulty
						require.NoError(t, s.Decode(f))
						require.EqualValues(t, 1, s.Exponent)
						require.Equal(t, []uint16{0}, s.SessionIDs)
						require.EqualValues(t, 2, test.policy[1])
						continue
					}
					var n sv1.Notify
					var m sv1.Message
					require.NoError(t, m.Decode([]byte(line)))
					require.NoError(t, n.Decode(m.Params))
					fmt.Sscan(n.JobID, &w.id)
				}
				id := w.id
				if test.onOld {
					id = old
				}
				w.send(goldenSubmit(0, id))
				require.Equal(t, test.status, w.response().Status)
			})
		})
	}
}

// Machines of one agent go their own ways; those below 1 are never told, since no frame could.
func TestEachMachineBehindAnAgentHasItsOwnDifficulty(t *testing.T) {
	n := 0
	policies := []steps{
		{easy, 1, 1, 4096, 4096},
		{easy, easy, easy, easy, easy},
		{easy, 8, 8, 4096, 2},
		{easy, 1, 1, 1, easy}, // which would be below what a frame can say
	}
	opts := stratum.Options{NewPolicy: func(*stratum.Session) difficulty.Policy {
		if n == 0 { // the agent's own
			n++
			return difficulty.Fixed(easy)
		}
		n++
		policy := slices.Clone(policies[n-2])
		return &policy
	}}
	in(t, opts, func(t *testing.T, p *pool) {
		p.give(100, hardBits)
		ctx := t.Context()
		a := p.agent(nil)
		first, err := a.NextJob(ctx)
		require.NoError(t, err)
		for id := range uint16(4) {
			require.NoError(t, a.Register(ctx, id, "x", fmt.Sprint("m", id)))
		}
		synctest.Wait()
		var jobs []*stratumtest.AgentJob
		time.Sleep(time.Second)
		for range 5 {
			time.Sleep(20 * time.Second)
			p.give(100, hardBits) // on the same tip, so that the first job stays good
			time.Sleep(10 * time.Second)
		}
		synctest.Wait()
		var told []string
		for a.Stats().Jobs > uint64(len(jobs))+1 {
			m, err := a.Receive(ctx)
			require.NoError(t, err)
			if m.Line == nil {
				var s btcagent.SetDifficulty
				require.NoError(t, s.Decode(m.Frame))
				slices.Sort(s.SessionIDs)
				told = append(told, fmt.Sprint(s.Exponent, s.SessionIDs))
			} else if m.Line.Method == sv1.MethodNotify {
				if told = append(told, "job"); len(told) == 2 {
					continue // the first
				}
				j, err := a.NextJob(ctx)
				require.NoError(t, err)
				jobs = append(jobs, j)
			} else if m.Line.Method == sv1.MethodSetDifficulty {
				told = append(told, "announced")
			}
		}
		require.Equal(t, []string{"announced", "job", "job", "0 [0 3]", "3 [2]", "job", "job", "12 [0 2]", "job", "1 [2]", "job"}, told)

		submit := func(j *stratumtest.AgentJob, id uint16) int32 {
			s, err := a.SolveTarget(ctx, j, id, difficulty.Difficulty(easy).Target())
			require.NoError(t, err)
			r, err := a.Submit(ctx, id, s)
			require.NoError(t, err)
			return r.Status
		}
		for i, j := range append([]*stratumtest.AgentJob{first}, jobs...) {
			for id := range uint16(4) {
				want := int32(btcagent.StatusAccept)
				if i >= 2 && id != 1 {
					want = 23 // it has 1 or more by then
				}
				require.Equal(t, want, submit(j, id), "job %d, machine %d", i, id)
			}
		}
		for _, s := range p.recorded() {
			if s.Verdict.Accepted() {
				require.Equal(t, easy, s.Difficulty)
			}
		}
	})
}

// What an agent heard first holds for every machine that comes, however long the others have been there.
func TestTheAnnouncedDifficultyNeverChanges(t *testing.T) {
	opts := stratum.Options{StartDifficulty: 16384, MinDifficulty: 64,
		NewPolicy: func(*stratum.Session) difficulty.Policy { return nil }} // the server's own vardiff
	in(t, opts, func(t *testing.T, p *pool) {
		p.give(100, hardBits)
		w := p.agentWire()
		require.EqualValues(t, 16384, w.login("", true))
		w.send(registerFrame(1, "x", "idle"))
		exponent, frames := uint8(14), 0
		read := func() {
			for {
				line, f := w.read()
				if line != "" {
					require.Contains(t, line, "mining.notify", "the announced difficulty was announced again")
					return
				}
				var s btcagent.SetDifficulty
				require.NoError(t, s.Decode(f))
				require.Equal(t, []uint16{1}, s.SessionIDs)
				require.Less(t, s.Exponent, exponent, "an idle machine falls")
				exponent = s.Exponent
				frames++
			}
		}
		for range 20 {
			p.give(100, hardBits)
			read()
			time.Sleep(30 * time.Second)
		}
		require.EqualValues(t, 6, exponent, "2^6 is the server's minimum")
		require.NotZero(t, frames)
		w.send(registerFrame(2, "x", "new") + registerFrame(1, "x", "again"))
		synctest.Wait()
		p.give(101, hardBits)
		line, f := w.read()
		for strings.Contains(line, "mining.notify") && !strings.Contains(line, ",true]") {
			line, f = w.read()
		}
		require.Contains(t, line, "mining.notify", "both have 16384, as a machine does that is new: % x", f.Body)
		p.server.Sessions(func(s *stratum.Session) bool {
			require.EqualValues(t, 16384, s.Difficulty())
			return true
		})
	})
}

func TestThePasswordOfAnAgent(t *testing.T) {
	tests := []struct {
		name, password string
		announced      float64
		later          uint8 // the exponent after ten minutes without a share
	}{
		{"nothing asked for", "", 16384, 6},
		{"not an option", "x", 16384, 6},
		{"d", "d=4096", 4096, 6},
		{"d that is no power of two", "d=3000", 4096, 6},
		{"d below the minimum", "d=2", 64, 6},
		{"d above the maximum", "d=1e15", 1 << 40, 6},
		{"md above the start", "md=65536", 65536, 16},
		{"md that is no power of two", "md=50000", 65536, 16},
		{"md below the start", "md=1024", 16384, 10},
		{"md above d", "d=2048,md=8192", 8192, 13},
		{"fd", "fd=32768", 32768, 6},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			opts := stratum.Options{StartDifficulty: 16384, MinDifficulty: 64, MaxDifficulty: 1 << 40,
				NewPolicy: func(*stratum.Session) difficulty.Policy { return nil }}
			in(t, opts, func(t *testing.T, p *pool) {
				p.give(100, hardBits)
				w := p.agentWire()
				require.Equal(t, test.announced, w.login(test.password, true))
				w.send(registerFrame(1, "x", "y"))
				w.nothingBut() // it has what was announced
				last := exponentOf(test.announced)
				ended := make(chan struct{})
				go func() { // jobs come out of turn too
					defer close(ended)
					for {
						line, f, err := w.r.Read()
						if err != nil {
							return
						}
						var s btcagent.SetDifficulty
						if len(line) == 0 && s.Decode(f) == nil {
							last = s.Exponent
						}
					}
				}()
				for range 40 {
					time.Sleep(30 * time.Second)
					p.give(100, hardBits)
				}
				synctest.Wait()
				require.Equal(t, test.later, last)
				require.NoError(t, w.conn.Close())
				<-ended
			})
		})
	}
}

func exponentOf(d float64) (e uint8) {
	for d > 1 {
		d, e = d/2, e+1
	}
	return e
}

// Bounds that no frame can name are rounded the same way at every moment of a machine's life.
func TestAgentsWithBoundsThatAreNoPowersOfTwo(t *testing.T) {
	in(t, stratum.Options{StartDifficulty: 10000, MinDifficulty: 10000, MaxDifficulty: 20000}, func(t *testing.T, p *pool) {
		p.give(100, hardBits)
		w := p.agentWire()
		require.EqualValues(t, 8192, w.login("", true))
		w.send(registerFrame(1, "x", "y"))
		w.nothingBut()
		p.give(101, hardBits)
		w.job() // and no frame
	})
}

func TestANiceHashMachineBehindAnAgentIsToldAtOnce(t *testing.T) {
	opts := stratum.Options{NiceHash: stratum.NiceHashOptions{MinDifficulty: 1 << 19}}
	in(t, opts, func(t *testing.T, p *pool) {
		p.give(100, hardBits)
		ctx := t.Context()
		a := p.agent(nil)
		j, err := a.NextJob(ctx)
		require.NoError(t, err)
		require.Regexp(t, `^\d{1,3}$`, j.ID, "frames have no room for longer ids")
		require.NoError(t, a.Register(ctx, 1, "cgminer", "own"))
		require.NoError(t, a.Register(ctx, 2, "NiceHash/1.0.0", "rented"))
		synctest.Wait()
		d, _ := a.Difficulty(1)
		require.Equal(t, easy, d)
		d, _ = a.Difficulty(2)
		require.EqualValues(t, 1<<19, d)
		for id, want := range map[uint16]int32{1: btcagent.StatusAccept, 2: 23} {
			s, err := a.SolveTarget(ctx, j, id, difficulty.Difficulty(easy).Target())
			require.NoError(t, err)
			r, err := a.Submit(ctx, id, s)
			require.NoError(t, err)
			require.Equal(t, want, r.Status, "machine %d", id)
		}
		// What is answered later is told later.
		w := p.agentWire()
		w.login("", true)
		w.send(submitFrame(9, w.id, 1) + registerFrame(2, "nicehash/2", "r") + submitFrame(9, w.id, 1))
		require.Equal(t, btcagent.SubmitResponse{Index: 0, Status: 24}, w.response())
		require.Equal(t, btcagent.SetDifficulty{Exponent: 19, SessionIDs: []uint16{2}}, w.difficulties())
		require.Equal(t, btcagent.SubmitResponse{Index: 1, Status: 24}, w.response())
	})
}

// BIP 310's minimum, asked for by the agent, holds for all of its machines.
func TestTheMinimumThatAnAgentConfigures(t *testing.T) {
	opts := stratum.Options{StartDifficulty: 1024, MinDifficulty: 64,
		NewPolicy: func(*stratum.Session) difficulty.Policy { return nil }}
	in(t, opts, func(t *testing.T, p *pool) {
		p.give(100, hardBits)
		w := p.agentWire()
		w.send(`{"id":1,"method":"mining.configure","params":[["minimum-difficulty"],{"minimum-difficulty.value":4096}]}` + "\n")
		w.line()
		require.EqualValues(t, 4096, w.login("", true))
		w.send(registerFrame(1, "x", "y"))
		w.nothingBut()
		for range 10 {
			time.Sleep(30 * time.Second)
			p.give(100, hardBits)
			w.job() // an idle machine stays where it is
		}
	})
}

// A fixedFrom is a policy that only its bound moves, and that tells of it.
type fixedFrom struct {
	difficulty.Fixed
	told *difficulty.Difficulty
}

func (f fixedFrom) SetMin(d difficulty.Difficulty) { *f.told = d }

func TestThePolicyOfAMachineHearsOfItsMinimum(t *testing.T) {
	var told difficulty.Difficulty
	opts := stratum.Options{StartDifficulty: 1024, MinDifficulty: 64, NewPolicy: func(*stratum.Session) difficulty.Policy {
		return fixedFrom{1, &told}
	}}
	tests := []struct {
		name, configured, password, software string
		want                                 difficulty.Difficulty
	}{
		{"nobody asked for one", "1", "", "cgminer", 64},
		{"the agent configured one", "4096", "", "cgminer", 4096},
		{"its password names one", "1", "md=5000", "cgminer", 8192},
		{"its software needs one", "1", "", "NiceHash/1", 524288},
		{"several", "4096", "md=2048", "cgminer", 4096},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			in(t, opts, func(t *testing.T, p *pool) {
				p.give(100, hardBits)
				w := p.agentWire()
				w.send(`{"id":1,"method":"mining.configure","params":[["minimum-difficulty"],{"minimum-difficulty.value":` +
					test.configured + `}]}` + "\n")
				w.line()
				w.login(test.password, true)
				told = 0
				w.send(registerFrame(1, test.software, "y"))
				synctest.Wait()
				require.Equal(t, test.want, told)
			})
		})
	}
}

func TestMaxAgentWorkers(t *testing.T) {
	in(t, stratum.Options{MaxAgentWorkers: 2}, func(t *testing.T, p *pool) {
		p.give(100, hardBits)
		ctx := t.Context()
		a := p.agent(nil)
		j, err := a.NextJob(ctx)
		require.NoError(t, err)
		submit := func(id uint16) int32 {
			s, err := a.SolveTarget(ctx, j, id, difficulty.Difficulty(easy).Target())
			require.NoError(t, err)
			r, err := a.Submit(ctx, id, s)
			require.NoError(t, err)
			return r.Status
		}
		for id := range uint16(3) {
			require.NoError(t, a.Register(ctx, id, "x", fmt.Sprint("m", id)))
		}
		require.EqualValues(t, btcagent.StatusAccept, submit(0))
		require.EqualValues(t, btcagent.StatusAccept, submit(1))
		require.EqualValues(t, 24, submit(2))
		require.Equal(t, 2, p.server.Stats().AgentWorkers)
		require.EqualValues(t, 1, p.server.Stats().Unregistered)
		// One in place of another is none more.
		require.NoError(t, a.Register(ctx, 1, "x", "renamed"))
		require.EqualValues(t, btcagent.StatusAccept, submit(1))
		require.NoError(t, a.Unregister(ctx, 0))
		require.NoError(t, a.Register(ctx, 2, "x", "m2"))
		require.EqualValues(t, btcagent.StatusAccept, submit(2))
		require.EqualValues(t, 1, p.server.Stats().Unregistered)
	})
}

// A farm that starts is let in at once; one that never stops starting is not.
func TestAFloodOfMachinesBehindAnAgent(t *testing.T) {
	in(t, stratum.Options{Limits: stratum.NoLimits()}, func(t *testing.T, p *pool) {
		w := p.agentWire()
		w.login("", false)
		one := registerFrame(1, "x", "y") + unregisterFrame(1)
		w.send(strings.Repeat(one, 65535))
		w.nothingBut()
		require.Zero(t, p.server.Stats().Unregistered)
		w.send(strings.Repeat(one, 10))
		w.nothingBut()
		require.EqualValues(t, 10, p.server.Stats().Unregistered)
		time.Sleep(time.Second)
		w.send(strings.Repeat(one, 1010))
		w.nothingBut()
		require.EqualValues(t, 20, p.server.Stats().Unregistered)
	})
}

func TestABlockFoundByAMachineBehindAnAgent(t *testing.T) {
	in(t, stratum.Options{StartDifficulty: 1 << 20, MinDifficulty: 1 << 20}, func(t *testing.T, p *pool) {
		p.give(100, regtestBits)
		ctx := t.Context()
		a := p.agent(&stratumtest.AgentOptions{User: "farm"})
		j, err := a.NextJob(ctx)
		require.NoError(t, err)
		require.NoError(t, a.Register(ctx, 0x1122, "x", "lucky"))
		network, err := j.NetworkTarget()
		require.NoError(t, err)
		s, err := a.SolveTarget(ctx, j, 0x1122, network)
		require.NoError(t, err)
		r, err := a.Submit(ctx, 0x1122, s)
		require.NoError(t, err)
		require.Equal(t, btcagent.StatusSolved, r.Status)
		solved := p.solved()
		require.Len(t, solved, 1)
		require.Equal(t, share.Worker{User: "farm", Name: "lucky"}, solved[0].Worker)
		require.Equal(t, share.Worker{Name: "lucky"}.ID(), solved[0].WorkerID)
		en2 := append([]byte{0, 0, 0x11, 0x22}, s.Extranonce2...)
		require.True(t, bytes.Contains(solved[0].Coinbase, append(slices.Clone(j.Extranonce1), en2...)))
		require.Equal(t, solved[0].Worker, p.recorded()[0].Worker)
	})
}

// A connection that goes on from an earlier one has what that one remembers of shares. It must not become a connection
// that remembers nothing.
func TestAResumedSessionIsNoAgent(t *testing.T) {
	in(t, stratum.Options{}, func(t *testing.T, p *pool) {
		p.give(100, hardBits)
		c := p.dial()
		id, n := c.start("alice.rig")
		w := c.solve(id, n, easy, 0, false) // with an extranonce2 that a machine behind an agent could have
		require.Equal(t, "true", c.submit(w))
		en1 := hex.EncodeToString(c.en1)
		require.NoError(t, c.conn.Close())
		synctest.Wait()

		c = p.dial()
		c.send(fmt.Sprintf(`{"id":1,"method":"mining.subscribe","params":["test/1.0",%q]}`, en1))
		require.Contains(t, c.line(), en1)
		c.send(agentSubscribe)
		require.Contains(t, c.line(), en1)
		c.send(`{"id":2,"method":"mining.authorize","params":["alice.rig",""]}`)
		require.Contains(t, c.line(), "true")
		c.line()
		id, _ = c.notify()
		var jobID uint8
		fmt.Sscan(id, &jobID)
		go c.conn.Write([]byte(registerFrame(0, "x", "rig") + string(btcagent.AppendSubmit(nil, &btcagent.Submit{
			JobID: jobID, Nonce: hexNumber(w.nonce), NTime: hexNumber(w.ntime),
		}))))
		c.discard()
		synctest.Wait()
		require.Equal(t, 1, p.credited())
	})
}

// What some machine with the farm's own name had tells nothing of the farm.
func TestAnAgentDoesNotGoOnFromAMinersDifficulty(t *testing.T) {
	in(t, stratum.Options{StartDifficulty: 1024, MinDifficulty: 64,
		NewPolicy: func(*stratum.Session) difficulty.Policy { return nil }}, func(t *testing.T, p *pool) {
		p.give(100, hardBits)
		c := p.dial()
		c.send(`{"id":1,"method":"mining.subscribe","params":["test/1.0"]}`)
		c.line()
		c.send(`{"id":2,"method":"mining.authorize","params":["farm","d=1048576"]}`)
		c.line()
		require.Contains(t, c.line(), "[1048576]")
		require.NoError(t, c.conn.Close())
		synctest.Wait()
		require.EqualValues(t, 1024, p.agentWire().login("", true))
	})
}

func TestAgentsOfARoutedUserMoveTogether(t *testing.T) {
	var mu sync.Mutex
	at := job.Chain("one")
	router := stratum.RouterFunc(func(context.Context, share.Worker, int32) (job.Chain, error) {
		mu.Lock()
		defer mu.Unlock()
		return at, nil
	})
	var events record
	in(t, stratum.Options{Router: router, Events: &events}, func(t *testing.T, p *pool) {
		for i, name := range []job.Chain{"one", "two"} {
			j := *makeJob(t, p.ids.Next(time.Now()), 100+int32(i), hardBits)
			j.Chain = name
			require.NoError(t, p.hub.Broadcast(t.Context(), &j))
			synctest.Wait()
		}
		ctx := t.Context()
		a := p.agent(&stratumtest.AgentOptions{User: "farm"})
		before, err := a.NextJob(ctx)
		require.NoError(t, err)
		require.NoError(t, a.Register(ctx, 1, "x", "m"))
		synctest.Wait()
		events.take()
		mu.Lock()
		at = "two"
		mu.Unlock()
		require.Equal(t, 1, p.server.Reroute(ctx, "farm"))
		after, err := a.NextJob(ctx)
		require.NoError(t, err)
		require.True(t, after.Clean)
		require.NotEqual(t, before.PrevHash, after.PrevHash)
		_, text := events.take()
		slices.Sort(text)
		require.Equal(t, []string{
			"miner_connect from_btcagent farm.m", "miner_connect switch_chain farm.__default__",
			"miner_dead from_btcagent farm.m", "miner_dead switch_chain farm.__default__",
		}, text)
		for _, j := range []*stratumtest.AgentJob{before, after} {
			s, err := a.Solve(ctx, j, 1)
			require.NoError(t, err)
			r, err := a.Submit(ctx, 1, s)
			require.NoError(t, err)
			require.True(t, r.Accepted)
		}
		shares := p.recorded()
		require.Equal(t, []job.Chain{"one", "two"}, []job.Chain{shares[0].Chain, shares[1].Chain})
	})
}

// Whoever does not read replies is not read from, also while a job is on its way to it: replies do not pile up until
// it is dropped for that.
func TestRepliesWaitForAMinerThatIsSentAJob(t *testing.T) {
	in(t, stratum.Options{Limits: stratum.NoLimits(), NotifyInterval: time.Hour}, func(t *testing.T, p *pool) {
		p.give(100, hardBits)
		w := p.agentWire()
		w.login("", true)
		p.give(101, hardBits) // and it is not read
		const n = 50_000      // 500 KB of responses, where 256 may wait
		sent := make(chan error, 1)
		go func() {
			_, err := w.conn.Write([]byte(strings.Repeat(submitFrame(9, 1, 1), n)))
			sent <- err
		}()
		time.Sleep(time.Minute)
		w.job()
		for i := range n {
			line, _ := w.read()
			require.Empty(t, line, "response %d", i)
			if i == n/2 {
				time.Sleep(20 * time.Second)
			}
		}
		require.NoError(t, <-sent)
	})
}
