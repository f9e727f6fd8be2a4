package main

import (
	"bytes"
	"encoding/hex"
	"math"
	"strconv"
	"time"

	"github.com/poolkit/poolkit/stratum/btcagent"
	"github.com/poolkit/poolkit/stratum/sv1"
)

// A phase is how far a connection has come.
type phase uint8

const (
	phaseWaiting     phase = iota // for its time to connect
	phaseConnecting               // until the socket is open, and the TLS session
	phaseProbing                  // agents only: until the first answer
	phaseConfiguring              // until the reply to mining.configure
	phaseSubscribing
	phaseAuthorizing
	phaseLive
	phaseGone // it will not connect again
)

// A conn is one miner, or one agent with many, and the socket it has at the moment. The lane's lock guards it. While
// nothing happens it holds no buffer and no goroutine, so that tens of thousands take little more than their sockets.
type conn struct {
	lane  *lane
	index int
	user  string // as a JSON string
	agent *agent // nil for a miner
	phase phase
	slot  int32 // in lane.timers; -1 when there is nothing to wake for
	wake  int64
	gen   uint32 // counts the sockets, so that what was meant for an earlier one is known

	fd      int     // -1 without a socket of our own
	stream  *stream // instead of fd: TLS, or no poller on this system
	blocked bool    // waits until unsent can be written
	unsent  []byte
	partial []byte // the beginning of a line

	began   int64 // to connect
	backoff time.Duration

	resumeID string // names the old session; empty when there is none to resume
	en1      string // raw bytes
	en2Size  int
	change   *sv1.SetExtranonce // for the next job; nil unless the pool sent one
	mask     uint32             // version bits agreed

	job       string // id; empty without work
	ntime     uint32
	epoch     uint32 // counts clean jobs
	prevKey   uint64 // of the previous hash
	blockSeen int64  // when the block of prevKey was first seen by anybody; 0 before the first new one
	target    work   // with -real

	counter uint64 // of shares ever made
	due     int64  // the next submit
	flights flights
	solving int // shares that are being hashed
	late    int // stale replies that no new block explains yet
	lateAt  int64
}

// Ids of requests. Submits count up from firstSubmit.
const (
	idConfigure = 1
	idSubscribe = 2
	idAuthorize = 3
	firstSubmit = 16
)

const (
	// maxLine is the longest line of a pool in bytes.
	maxLine = 256 << 10

	// maxExtranonce2 is the largest extranonce2 in bytes that a share of ours fills.
	maxExtranonce2 = 16

	// maxUnsent is what may wait for a pool that does not read.
	maxUnsent = 1 << 20

	// staleWindow is how long after a stale reply the new block may come that explains it: pools answer and push on
	// different ways.
	staleWindow = int64(5 * time.Second)

	// maxReconnectWait bounds what client.reconnect can ask for.
	maxReconnectWait = time.Minute
)

// opened goes on when the socket is open.
func (c *conn) opened(now int64) {
	l := c.lane
	l.stats.connected++
	l.stats.connect.add(time.Duration(now - c.began))
	switch cfg := l.swarm.cfg; {
	case c.agent != nil:
		c.phase = phaseProbing
		l.out = append(l.out, agentProbe...)
	case cfg.rolling:
		c.phase = phaseConfiguring
		l.out = sv1.AppendConfigureRequest(l.out, idConfigure, &sv1.Configure{
			VersionRolling: true, VersionRollingMask: cfg.versionMask, VersionRollingMinBits: 2,
		})
	default:
		c.subscribe()
	}
	c.flush(now)
}

func (c *conn) subscribe() {
	c.phase = phaseSubscribing
	c.lane.out = sv1.AppendSubscribeRequest(c.lane.out, idSubscribe, &sv1.Subscribe{
		Agent: c.lane.swarm.cfg.agent, ResumeID: c.resumeID,
	})
}

// receive takes what the pool sent. It borrows data.
func (c *conn) receive(data []byte, now int64) {
	c.lane.stats.received += uint64(len(data))
	gen := c.gen
	if len(c.partial) > 0 {
		c.partial = append(c.partial, data...)
		data = c.partial
	}
	for len(data) > 0 {
		if data[0] == btcagent.Magic && c.agent != nil {
			f, n, err := btcagent.Next(data)
			if err != nil {
				c.end(endFault, "a frame shorter than its header", now)
				return
			}
			if n == 0 {
				break
			}
			c.frame(f, now)
			data = data[n:]
			continue
		}
		line, n := sv1.NextLine(data)
		if n == 0 {
			if len(data) > maxLine {
				c.end(endFault, "a line without end", now)
				return
			}
			break
		}
		if len(line) > 0 {
			c.line(line, now)
		}
		if c.gen != gen {
			return
		}
		data = data[n:]
	}
	if len(data) == 0 {
		c.partial = nil
	} else if len(data) != len(c.partial) {
		c.partial = bytes.Clone(data)
	}
	c.fill()
	c.flush(now)
}

// line handles one line, whose replies wait in lane.out.
func (c *conn) line(line []byte, now int64) {
	l := c.lane
	var m message
	if !m.scan(line) {
		l.stats.malformed++
		return
	}
	if m.reply {
		if m.hasID && m.id >= firstSubmit && c.agent == nil {
			n := m.id - firstSubmit
			if n > math.MaxUint32 {
				l.stats.strange++
			} else if f := c.flights.take(uint32(n)); f == nil {
				l.stats.strange++
			} else {
				l.open--
				c.answered(f, m.accepted, m.code, m.text, now)
			}
			return
		}
		if c.agent != nil {
			c.agentReply(&m, now)
		} else {
			c.reply(&m, now)
		}
		return
	}
	switch string(m.method) {
	case "mining.notify":
		c.notify(m.params, now)
	case "mining.set_difficulty":
		var d sv1.SetDifficulty
		if m.params == nil || d.Decode(m.params) != nil {
			l.stats.malformed++
			return
		}
		c.target.difficulty = d.Difficulty
	case "mining.set_version_mask":
		var v sv1.SetVersionMask
		if m.params == nil || v.Decode(m.params) != nil {
			l.stats.malformed++
			return
		}
		c.setMask(v.Mask)
	case "mining.set_extranonce":
		var e sv1.SetExtranonce
		if m.params == nil || e.Decode(m.params) != nil || !c.fits(e.Extranonce2Size) {
			l.stats.malformed++
			return
		}
		c.change = &e
	case "client.reconnect":
		c.reconnectOrder(m.params, now)
	case "client.show_message":
		var s sv1.ShowMessage
		if m.params != nil && s.Decode(m.params) == nil {
			l.stats.messages.add([]byte(s.Text))
		}
	case "mining.ping", "client.get_version":
		l.stats.requests++
		id := m.rawID(line)
		if id == nil {
			return
		}
		text := "pong"
		if m.method[0] == 'c' {
			text = l.swarm.cfg.agent
		}
		l.out = sv1.AppendTextResult(l.out, id, text)
	}
}

// rawID reads a request's id again, as a token to answer with.
func (m *message) rawID(line []byte) []byte {
	var d sv1.Message
	if d.Decode(line) != nil {
		return nil
	}
	return d.ID
}

func (c *conn) setMask(mask uint32) {
	if c.agent != nil || c.lane.swarm.cfg.rolling {
		c.mask = mask & c.lane.swarm.cfg.versionMask
		if !c.lane.swarm.cfg.rolling {
			c.mask = 0
		}
	}
}

// fits reports whether an extranonce2 of that size is of use.
func (c *conn) fits(size int) bool {
	if c.agent != nil {
		return size == btcagent.Extranonce2Size
	}
	return size <= maxExtranonce2
}

// reply handles the answer to a request of the login.
func (c *conn) reply(m *message, now int64) {
	l := c.lane
	switch {
	case !m.hasID:
		l.stats.strange++
	case m.id == idConfigure && c.phase == phaseConfiguring:
		var r sv1.ConfigureResult
		if m.accepted && r.Decode(m.result) == nil {
			c.setMask(r.VersionMask)
		}
		c.subscribe() // also when it was refused: the pool is old
	case m.id == idSubscribe && c.phase == phaseSubscribing:
		if !c.subscribed(m) {
			c.end(endFault, refusal("mining.subscribe", m), now)
			return
		}
		c.phase = phaseAuthorizing
		l.out = append(append(l.out, `{"id":3,"method":"mining.authorize","params":[`...), c.user...)
		l.out = append(append(append(l.out, ','), l.swarm.password...), "]}\n"...)
	case m.id == idAuthorize && c.phase == phaseAuthorizing:
		if !m.accepted {
			c.end(endFault, refusal("mining.authorize", m), now)
			return
		}
		c.loggedIn(now)
	default:
		l.stats.strange++
	}
}

// subscribed reads the result of mining.subscribe.
func (c *conn) subscribed(m *message) bool {
	var r sv1.SubscribeResult
	if !m.accepted || r.Decode(m.result) != nil {
		return false
	}
	old, asked := c.en1, c.resumeID != ""
	if !c.fits(r.Extranonce2Size) {
		return false
	}
	c.en1, c.en2Size = string(r.Extranonce1), r.Extranonce2Size
	if asked {
		if c.en1 == old {
			c.lane.stats.resumed++
		} else {
			c.lane.stats.fresh++
			c.lose(&c.lane.stats.lost) // its work belongs to an extranonce that is gone
		}
	}
	if c.agent == nil {
		c.resumeID = r.SubscriptionID
		if c.resumeID == "" {
			c.resumeID = hex.EncodeToString(r.Extranonce1)
		}
	}
	return true
}

// refusal says what a pool had against a login.
func refusal(method string, m *message) string {
	if m.accepted {
		return method + " was answered with a result of another form"
	}
	if m.code == 0 && len(m.text) == 0 {
		return method + " was refused without a reason"
	}
	return method + " was refused: " + strconv.Itoa(m.code) + " " + string(m.text)
}

// loggedIn begins to mine.
func (c *conn) loggedIn(now int64) {
	l := c.lane
	c.phase, c.backoff = phaseLive, 0
	l.live++
	l.joining--
	l.stats.loggedIn++
	l.stats.login.add(time.Duration(now - c.began))
	c.flights.each(func(n uint32, f *flight) {
		f.at, f.resent = now, true
		l.stats.resent++
		l.out = c.appendSubmit(l.out, n, f)
	})
	if c.agent != nil {
		c.register()
	}
	l.unschedule(c)
	if l.loading {
		c.startLoad(now)
	}
}

// notify takes new work.
func (c *conn) notify(params []byte, now int64) {
	l := c.lane
	var n notify
	if !n.scan(params) {
		l.stats.malformed++
		return
	}
	l.stats.jobs++
	key := l.swarm.blocks.keyOf(n.prevHash)
	switch {
	case c.job == "":
		l.stats.work.add(time.Duration(now - c.began))
		c.blockSeen = l.swarm.blocks.seenAt(key)
	case key != c.prevKey:
		if l.block == nil || l.block.key != key {
			l.block = l.swarm.blocks.get(key, now)
		}
		// To a connection that began later the block is not new, even if the pool shows it an older one first.
		if l.block.seen >= c.began && now-l.block.seen < blockAge {
			l.spreads.add(l.block, now)
		}
		c.blockSeen = l.block.seen
	}
	c.prevKey = key
	if n.clean {
		l.stats.clean++
		c.epoch++
		if c.late > 0 && now-c.lateAt < staleWindow {
			l.stats.staleRaces += uint64(c.late)
		}
		c.late = 0
	}
	if e := c.change; e != nil {
		c.en1, c.en2Size, c.change = string(e.Extranonce1), e.Extranonce2Size, nil
	}
	if string(n.jobID) != c.job {
		c.job = l.intern(n.jobID)
	}
	c.ntime = n.ntime
	if c.agent != nil {
		c.agent.setJob(c.job)
	}
	if l.swarm.cfg.real {
		c.setWork(params)
	}
}

// reconnectOrder obeys client.reconnect, though never to another place: that is not the pool under load.
func (c *conn) reconnectOrder(params []byte, now int64) {
	c.lane.stats.orders++
	var r sv1.Reconnect
	if params != nil && r.Decode(params) == nil {
		if r.Host != "" || r.Port != 0 {
			c.lane.stats.redirects++
		}
		c.backoff = min(time.Duration(r.WaitSeconds)*time.Second, maxReconnectWait)
	}
	if c.lane.swarm.cfg.reconnect && c.agent == nil {
		c.end(endOrder, "client.reconnect", now)
	}
}

// answered counts the reply to a submit.
func (c *conn) answered(f *flight, accepted bool, code int, text []byte, now int64) {
	s := &c.lane.stats
	s.replies++
	if !f.resent {
		s.latency.add(time.Duration(now - f.at))
	}
	switch {
	case accepted:
		s.accepted++
		return
	case f.resent && code == sv1.CodeDuplicate:
		s.resentDup++
		return
	}
	s.refuse(code, text)
	switch code {
	case sv1.CodeJobNotFound, int(btcagent.StatusJobNotFound), int(btcagent.StatusStale):
		if f.epoch != c.epoch {
			s.staleRaces++
		} else {
			c.late++
			c.lateAt = now
		}
	}
}

// flush writes what waits in lane.out.
func (c *conn) flush(now int64) {
	l := c.lane
	if len(l.out) == 0 {
		return
	}
	b := l.out
	l.out = l.out[:0]
	if c.phase == phaseWaiting || c.phase == phaseGone {
		return
	}
	l.stats.sent += uint64(len(b))
	if err := c.write(b); err != nil {
		c.end(endFault, ioReason(err), now)
	}
}

// An endKind tells why a connection ends.
type endKind uint8

const (
	endFault endKind = iota // the pool closed it, or something went wrong
	endOrder                // client.reconnect
	endChurn
	endStop
)

// end closes the connection and decides whether there is another one after it.
func (c *conn) end(kind endKind, reason string, now int64) {
	l := c.lane
	if c.phase == phaseGone || c.phase == phaseWaiting {
		return
	}
	wasLive := c.phase == phaseLive
	if wasLive {
		l.live--
	} else {
		l.joining--
	}
	switch {
	case kind == endStop:
	case wasLive:
		l.stats.closes.add([]byte(reason))
	default:
		l.stats.failures.add([]byte(reason))
	}
	c.closeSocket(kind == endStop)
	c.gen++
	c.solving = 0
	c.partial, c.unsent, c.blocked = nil, nil, false
	l.out = l.out[:0]
	c.job, c.mask, c.late, c.target, c.change = "", 0, 0, work{}, nil

	again := l.swarm.cfg.reconnect && (kind == endFault || kind == endOrder)
	switch {
	case kind == endStop || kind == endChurn:
		c.lose(&l.stats.abandoned)
	case !again || c.agent != nil:
		c.lose(&l.stats.lost)
	}
	if c.agent != nil {
		c.agent.reset()
		c.flights.first, c.flights.next = 0, 0 // the pool counts from 0 on each connection
	}
	c.phase = phaseGone
	l.unschedule(c)
	switch {
	case l.stopping || kind == endStop:
	case kind == endChurn:
		c.resumeID, c.en1 = "", ""
		c.wait(now, 0)
	case again:
		wait := c.backoff
		if kind == endFault {
			// As miners do: soon at first, then ever slower, and not all at the same moment.
			c.backoff = min(max(2*c.backoff, 500*time.Millisecond), 30*time.Second)
			wait = c.backoff/2 + time.Duration(l.rng.Int64N(int64(c.backoff)/2+1))
		}
		c.wait(now, wait)
	}
}

// wait connects after a time.
func (c *conn) wait(now int64, d time.Duration) {
	c.phase = phaseWaiting
	c.lane.joining++
	c.lane.schedule(c, now+int64(d))
}

// lose forgets the submits in flight.
func (c *conn) lose(counter *uint64) {
	n := c.flights.drop()
	c.lane.open -= n
	*counter += uint64(n)
}

// tick does what is due.
func (c *conn) tick(now int64) {
	switch c.phase {
	case phaseWaiting:
		c.began = now
		c.phase = phaseConnecting
		c.lane.stats.dialed++
		c.lane.schedule(c, now+int64(c.lane.swarm.cfg.timeout))
		if err := c.connect(); err != nil {
			c.end(endFault, ioReason(err), now)
		}
	case phaseLive:
		c.submitDue(now)
		c.flush(now)
	case phaseGone:
	default:
		c.end(endFault, "no "+c.phase.awaits()+" within the time allowed", now)
	}
}

// awaits names what a phase waits for.
func (p phase) awaits() string {
	switch p {
	case phaseConnecting:
		return "connection"
	case phaseProbing:
		return "answer to the agent's probe"
	case phaseConfiguring:
		return "reply to mining.configure (see -version-rolling)"
	case phaseSubscribing:
		return "reply to mining.subscribe"
	case phaseAuthorizing:
		return "reply to mining.authorize"
	}
	return "work"
}
