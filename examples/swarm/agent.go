package main

import (
	"strconv"

	"github.com/poolkit/poolkit/stratum/btcagent"
	"github.com/poolkit/poolkit/stratum/sv1"
)

// An agent is what a connection that speaks BTCAgent has besides: many miners, told apart by their numbers.
type agent struct {
	workers  int
	next     int   // the worker that submits next
	subres   bool  // the pool sends SUBMIT_RESPONSE
	jobID    uint8 // of the current job
	hasJob   bool  // its id fits a frame
	changes  btcagent.SetDifficulty
	exps     []int16 // by worker, the exponent of its difficulty; -1 before the first MINING_SET_DIFF
	counters []uint32
}

func newAgent(workers int) *agent {
	a := &agent{workers: workers, exps: make([]int16, workers), counters: make([]uint32, workers)}
	a.reset()
	return a
}

// reset forgets what a connection had agreed.
func (a *agent) reset() {
	a.subres, a.hasJob = false, false
	for i := range a.exps {
		a.exps[i] = -1
	}
}

// setDifficulty reads a MINING_SET_DIFF frame.
func (a *agent) setDifficulty(f btcagent.Frame) bool {
	if a.changes.Decode(f) != nil {
		return false
	}
	for _, sid := range a.changes.SessionIDs {
		if int(sid) < len(a.exps) {
			a.exps[sid] = int16(a.changes.Exponent)
		}
	}
	return true
}

// setJob takes the id of a job, which a frame has one byte for.
func (a *agent) setJob(id string) {
	n, err := strconv.ParseUint(id, 10, 8)
	a.jobID, a.hasJob = uint8(n), err == nil
}

// The lines that a BTCAgent begins with. Its first is a probe, and it waits for the answer.
const (
	agentProbe = `{"id":"conn_test","method":"agent.get_capabilities","params":[["verrol"]]}` + "\n"
	agentCaps  = `{"id":"caps","method":"agent.get_capabilities","params":[["verrol","subres"]]}` + "\n" +
		`{"id":"conf","method":"mining.configure","params":[["version-rolling"],` +
		`{"version-rolling.mask":"ffffffff","version-rolling.min-bit-count":0}]}` + "\n" +
		`{"id":"sub","method":"mining.subscribe","params":["btccom-agent/swarm"]}` + "\n"
	agentCapsAgain = `{"id":"caps_again","method":"agent.get_capabilities","params":[["verrol","subres"]]}` + "\n"
)

// register names an agent's miners to the pool.
func (c *conn) register() {
	for i := range c.agent.workers {
		c.lane.out = btcagent.AppendRegister(c.lane.out, uint16(i), "swarm/1", "w"+strconv.Itoa(i))
	}
}

// appendFrame appends a share of an agent's miner.
func (c *conn) appendFrame(dst []byte, sid uint16, f *flight) []byte {
	return btcagent.AppendSubmit(dst, &btcagent.Submit{
		JobID: c.agent.jobID, SessionID: sid, Extranonce2: uint32(f.en2),
		Nonce: f.nonce, NTime: f.ntime, VersionBits: f.version,
	})
}

// agentReply handles the answers that an agent's login gets, whose ids are words.
func (c *conn) agentReply(m *message, now int64) {
	l := c.lane
	if c.phase == phaseProbing {
		// Any answer will do. Everything else goes out at once, as the agents in use do it.
		c.phase = phaseAuthorizing
		l.out = append(l.out, agentCaps...)
		l.out = append(l.out, `{"id":"auth","method":"mining.authorize","params":[`...)
		l.out = append(l.out, c.user...)
		l.out = append(l.out, `,""]}`+"\n"+agentCapsAgain...)
	}
	switch string(m.textID) {
	case "conn_test", "conf":
	case "caps", "caps_again":
		var r sv1.CapabilitiesResult
		if m.accepted && r.Decode(m.result) == nil && r.Has(sv1.CapabilitySubmitResponse) {
			c.agent.subres = true
		}
	case "sub":
		if !c.subscribed(m) {
			c.end(endFault, refusal("mining.subscribe", m), now)
		}
	case "auth":
		if c.phase != phaseAuthorizing || c.en1 == "" {
			l.stats.strange++
		} else if !m.accepted {
			c.end(endFault, refusal("mining.authorize", m), now)
		} else {
			c.loggedIn(now)
		}
	default:
		l.stats.strange++
	}
}

// frame handles what a pool sends to agents only.
func (c *conn) frame(f btcagent.Frame, now int64) {
	l := c.lane
	switch f.Command {
	case btcagent.CommandSubmitResponse:
		var r btcagent.SubmitResponse
		if r.Decode(f) != nil {
			l.stats.malformed++
			return
		}
		fl := c.flights.takeIndex(r.Index)
		if fl == nil {
			l.stats.strange++
			return
		}
		l.open--
		c.answered(fl, r.Accepted(), int(r.Status), nil, now)
	case btcagent.CommandSetDifficulty:
		if !c.agent.setDifficulty(f) {
			l.stats.malformed++
		}
	default:
		l.stats.malformed++
	}
}
