package main

import (
	"testing"

	"github.com/poolkit/poolkit/stratum/btcagent"
	"github.com/stretchr/testify/require"
)

// testConn returns a connection that is about to log in and whose writes go nowhere.
func testConn(cfg *config) *conn {
	cfg.reconnect = true
	if err := cfg.check(); err != nil {
		panic(err)
	}
	s := &swarm{cfg: cfg, password: `"x"`, blocks: newBlocks(), puzzles: make(chan puzzle, 64)}
	l := newLane(s, 0)
	s.lanes = []*lane{l}
	l.loading, l.joining = true, 1
	c := &conn{lane: l, fd: -1, slot: -1, user: `"swarm.w0"`, phase: phaseConnecting}
	l.conns = []*conn{c}
	if cfg.agents > 0 {
		c.agent = newAgent(cfg.workers)
	}
	c.stream = &stream{wake: make(chan struct{}, 1), cancel: func() {}}
	return c
}

func testConfig() *config {
	c, err := parse([]string{"-inflight", "3"}, nil)
	if err != nil {
		panic(err)
	}
	return c
}

// Whatever a pool sends, however it is cut, a connection survives and its books balance.
func FuzzConversation(f *testing.F) {
	login := `{"id":1,"result":{"version-rolling":true,"version-rolling.mask":"1fffe000"},"error":null}` + "\n" +
		`{"id":2,"result":[[["mining.notify","s"]],"1a00002b",8],"error":null}` + "\n" +
		`{"id":3,"result":true,"error":null}` + "\n"
	job := `{"id":null,"method":"mining.set_difficulty","params":[0.00000001]}` + "\n" + notifyLine(f) + "\n"
	agent := `{"id":"conn_test","result":{"capabilities":["verrol","subres"]}}` + "\n" +
		`{"id":"caps","result":{"capabilities":["verrol","subres"]}}` + "\n" +
		`{"id":"sub","result":[[["mining.notify","s"]],"1a00002b",8],"error":null}` + "\n" +
		`{"id":"auth","result":true,"error":null}` + "\n"
	f.Add([]byte(login+job+`{"id":16,"result":true,"error":null}`+"\n"+`{"id":18,"result":null,"error":[21,"stale",null]}`+"\n"+
		`{"id":null,"method":"client.reconnect","params":["elsewhere",1,5]}`+"\n"), uint16(50), uint8(0))
	f.Add([]byte(login+job+`{"id":7,"method":"client.get_version"}`+"\n"+
		`{"id":null,"method":"mining.set_extranonce","params":["00",16]}`+"\n"+job), uint16(1000), uint8(1))
	f.Add(append([]byte(agent+job), btcagent.AppendSubmitResponse(btcagent.AppendSetDifficulty(nil, 3, 0, 1, 9), 0, 23)...), uint16(7), uint8(2))
	f.Add(append([]byte(agent+job), btcagent.AppendSetDifficulty(nil, 255, 0)...), uint16(4000), uint8(3))
	f.Add([]byte(login+job+"\x7f\x01\x00\x00"), uint16(300), uint8(2))
	f.Fuzz(func(t *testing.T, data []byte, cut uint16, kind uint8) {
		cfg := testConfig()
		cfg.real = kind&1 != 0
		if kind&2 != 0 {
			cfg.agents, cfg.workers = 1, 5
		}
		c := testConn(cfg)
		l := c.lane
		c.opened(1)
		for now := int64(2); len(data) > 0 && c.phase != phaseGone && c.phase != phaseWaiting; now++ {
			n := min(int(cut)+1, len(data))
			c.receive(data[:n], now)
			data = data[n:]
			require.Equal(t, c.flights.open, l.open)
			require.LessOrEqual(t, c.flights.open+c.solving, max(cfg.inflight, 3))
			require.LessOrEqual(t, len(c.partial), maxLine+1<<16)
			require.Empty(t, l.out)
			live := 0
			if c.phase == phaseLive {
				live = 1
			}
			require.Equal(t, live, l.live)
			require.Equal(t, 1, l.live+l.joining)
		}
		s := &l.stats
		require.EqualValues(t, s.submits, s.replies+s.lost+s.untold+uint64(l.open))
		require.EqualValues(t, s.replies, s.accepted+s.rejected()+s.resentDup)
		require.LessOrEqual(t, s.staleRaces, s.rejected())
		l.stop()
		require.Zero(t, l.open)
	})
}
