package stratumtest

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/stratum/btcagent"
	"github.com/poolkit/poolkit/stratum/sv1"
)

// AgentOptions tune an Agent. The zero value is BTCAgent as it is.
type AgentOptions struct {
	User         string        // the sub-account; "" means "stratumtest"
	Password     string        // "" means none, as BTCAgent sends
	Software     string        // "" means "btccom-agent/2.0.0-mu"
	Capabilities []string      // to ask for; nil means both, and empty none
	ReadTimeout  time.Duration // how long the pool may be silent; 0 means 60 seconds, negative for ever
	MaxLine      int           // longest line from the pool in bytes; 0 means 64 KiB
}

const (
	agentReadTimeout = 60 * time.Second // BTCAgent's
	probeTimeout     = 15 * time.Second // BTCAgent's
)

// AgentStats count what an Agent did.
type AgentStats struct {
	Hashes     uint64 // of Solve
	Jobs       uint64 // mining.notify read
	Submitted  uint64 // submit frames written by Submit and SubmitFrame, decodable or not
	Accepted   uint64 // responses to them
	Rejected   uint64 // responses to them
	Unexpected uint64 // responses to nothing: a second one, a wrong index, or though none were asked for
}

// An AgentMessage is what a pool sent to an Agent: a line or a frame.
type AgentMessage struct {
	Line  *sv1.Message   // nil for a frame
	Frame btcagent.Frame // when Line is nil
}

// An AgentJob is the work of one mining.notify for all workers of an Agent: of its connection, with the pool's
// extranonce1, an extranonce2 of 8 bytes, and the difficulty of workers that have none of their own.
type AgentJob struct {
	Job
	seq uint64 // counts the jobs, from 1
}

// An AgentReply is the pool's answer to a share.
type AgentReply struct {
	Answered bool          // false when the connection has no responses, so that BTCAgent tells every miner "accepted"
	Accepted bool          // it was answered, and the share counts
	Index    uint16        // of the submit, also when not answered
	Status   int32         // the raw status: 36 and 37 are not folded to 21
	Latency  time.Duration // from before the frame was written to when the response was read
}

// An Agent is BTCAgent's connection to a pool: the miners of a farm as workers of one session, each known by a number
// that the agent chose. Its methods may be called from any goroutine. It reads from the first call that needs the
// connection until Close, so that a pool is never held up by a test that does not look.
//
// An Agent demands what BTCAgent does, and what its protocol does: it fails, and closes, on a pool that is silent for too
// long, on a line that is not JSON or a notification it cannot read, on an extranonce2 size other than 8, on a job id that
// is not a decimal number up to 255, and on a frame that is broken or that no Bitcoin pool sends. That error is returned
// by every waiting and later call. Requests of the pool go unanswered, and mining.set_extranonce, client.reconnect and
// client.show_message have no effect: BTCAgent ignores them.
type Agent struct {
	conn net.Conn
	opts AgentOptions

	jobs    chan *AgentJob    // for NextJob
	inbox   chan AgentMessage // for Receive
	writing chan struct{}     // holds one element while somebody writes
	probed  chan struct{}     // closed when the first line came
	done    chan struct{}     // closed when reading has ended; err is set before
	replies map[string]chan *sv1.Message
	logins  chan struct{} // holds one element while Handshake runs
	units   atomic.Uint64 // search units handed out; each has its own extranonce2

	hashes, received, submitted, accepted, rejected, unexpected atomic.Uint64

	mu              sync.Mutex
	started, closed bool
	ready           bool // logged in
	err             error
	writeErr        error // why a write failed, other than by its context; the read deadline is then the last
	verrol, subres  bool
	extranonce1     []byte // nil before the subscription
	versionMask     uint32
	initial         difficulty.Difficulty // of the first mining.set_difficulty; 0 before
	seq             uint64                // of the last job
	index           uint16                // of the next submit
	pending         map[uint16]*agentCall
	workers         map[uint16]*agentWorker
	set             btcagent.SetDifficulty // of the reading goroutine only
}

// The ids of BTCAgent's requests, by which it knows the replies.
const (
	idProbe     = "conn_test"
	idCaps      = "caps"
	idConfigure = "conf"
	idSubscribe = "sub"
	idAuthorize = "auth"
	idCapsAgain = "caps_again"
)

type agentCall struct {
	reply chan AgentReply // takes the reply without waiting
	sent  time.Time
}

// An agentWorker remembers the difficulties of one worker: a pool judges a share by what held when its job was sent.
type agentWorker struct {
	since   uint64 // the last job when it registered
	changes []change
}

type change struct {
	seq        uint64 // of the last job that it is not for
	difficulty difficulty.Difficulty
}

// maxChanges is how many difficulties of a worker are remembered; a job is forgotten by its pool before.
const maxChanges = 32

// NewAgent returns an Agent on a connection, which Close closes. It does nothing yet.
func NewAgent(conn net.Conn, opts *AgentOptions) *Agent {
	var o AgentOptions
	if opts != nil {
		o = *opts
	}
	setDefault(&o.User, "stratumtest")
	setDefault(&o.Software, "btccom-agent/2.0.0-mu")
	if o.Capabilities == nil {
		o.Capabilities = []string{sv1.CapabilityVersionRolling, sv1.CapabilitySubmitResponse}
	}
	o.Capabilities = slices.Clone(o.Capabilities)
	if o.ReadTimeout == 0 {
		o.ReadTimeout = agentReadTimeout
	}
	if o.MaxLine <= 0 {
		o.MaxLine = 64 << 10
	}
	a := &Agent{
		conn:    conn,
		opts:    o,
		jobs:    make(chan *AgentJob, queueSize),
		inbox:   make(chan AgentMessage, queueSize),
		writing: make(chan struct{}, 1),
		probed:  make(chan struct{}),
		done:    make(chan struct{}),
		replies: map[string]chan *sv1.Message{},
		logins:  make(chan struct{}, 1),
		pending: map[uint16]*agentCall{},
		workers: map[uint16]*agentWorker{},
	}
	for _, id := range []string{idCaps, idConfigure, idSubscribe, idAuthorize, idCapsAgain} {
		a.replies[id] = make(chan *sv1.Message, 1)
	}
	return a
}

// DialAgent connects to a pool over TCP.
func DialAgent(ctx context.Context, addr string, opts *AgentOptions) (*Agent, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("stratumtest: %w", err)
	}
	return NewAgent(conn, opts), nil
}

// Close closes the connection, which is all that BTCAgent does when it stops, and waits until the agent has stopped
// reading. Waiting calls return an error that is net.ErrClosed.
func (a *Agent) Close() error {
	a.mu.Lock()
	a.closed = true
	started := a.started
	a.mu.Unlock()
	err := a.conn.Close()
	if started {
		<-a.done
	}
	return err
}

// Stats returns what was done so far.
func (a *Agent) Stats() AgentStats {
	return AgentStats{
		Hashes:     a.hashes.Load(),
		Jobs:       a.received.Load(),
		Submitted:  a.submitted.Load(),
		Accepted:   a.accepted.Load(),
		Rejected:   a.rejected.Load(),
		Unexpected: a.unexpected.Load(),
	}
}

// Responses reports whether the pool answers shares: both sides have named the capability "subres".
func (a *Agent) Responses() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.subres
}

// start begins to read unless it has begun.
func (a *Agent) start() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		if a.err != nil {
			return a.err
		}
		return fmt.Errorf("stratumtest: %w", net.ErrClosed)
	}
	if !a.started {
		a.started = true
		go a.read()
	}
	return nil
}

// read runs until the connection ends.
func (a *Agent) read() {
	r := btcagent.NewReader(patientConn{a}, a.opts.MaxLine)
	err := a.readMessage(r)
	for err == nil {
		err = a.readMessage(r)
	}
	a.conn.Close()

	a.mu.Lock()
	if a.writeErr != nil && !errors.Is(err, io.EOF) {
		err = a.writeErr
	}
	switch {
	case a.closed:
		a.err = fmt.Errorf("stratumtest: %w", net.ErrClosed)
	case errors.Is(err, io.EOF):
		a.err = fmt.Errorf("stratumtest: the pool closed the connection: %w", err)
	case a.writeErr == nil && errors.Is(err, os.ErrDeadlineExceeded):
		a.err = fmt.Errorf("stratumtest: the pool was silent for %v: %w", a.opts.ReadTimeout, err)
	default:
		a.err = fmt.Errorf("stratumtest: %w", err)
	}
	a.closed = true
	a.pending = nil
	a.mu.Unlock()
	close(a.done)
}

// A patientConn reads from an agent's connection, no longer than its timeout at a time.
type patientConn struct{ a *Agent }

func (c patientConn) Read(b []byte) (int, error) {
	a := c.a
	if a.opts.ReadTimeout > 0 {
		a.mu.Lock()
		if a.writeErr == nil {
			_ = a.conn.SetReadDeadline(time.Now().Add(a.opts.ReadTimeout))
		}
		a.mu.Unlock()
	}
	return a.conn.Read(b)
}

func (a *Agent) readMessage(r *btcagent.Reader) error {
	line, f, err := r.Read()
	if err != nil {
		return err
	}
	if line == nil {
		claimed, err := a.handleFrame(f)
		if err != nil {
			return fmt.Errorf("the pool sent a frame %s of %d bytes: %w", f.Command, len(f.Body)+btcagent.HeaderSize, err)
		}
		if !claimed {
			f.Body = bytes.Clone(f.Body)
			push(a.inbox, AgentMessage{Frame: f})
		}
		return nil
	}
	msg := new(sv1.Message)
	if err := msg.Decode(bytes.Clone(line)); err != nil {
		return fmt.Errorf("the pool sent %q: %w", line, err)
	}
	if err := a.handleLine(msg); err != nil {
		return fmt.Errorf("the pool sent %q: %w", line, err)
	}
	push(a.inbox, AgentMessage{Line: msg})
	select {
	case <-a.probed:
	default:
		close(a.probed)
	}
	return nil
}

func (a *Agent) handleLine(msg *sv1.Message) error {
	if msg.IsReply {
		return a.handleReply(msg)
	}
	switch msg.Method {
	case sv1.MethodSetDifficulty:
		var s sv1.SetDifficulty
		if err := s.Decode(msg.Params); err != nil {
			return err
		}
		a.mu.Lock()
		if a.initial == 0 {
			a.initial = difficulty.Difficulty(s.Difficulty)
			for _, w := range a.workers {
				if len(w.changes) == 1 {
					w.changes[0].difficulty = a.initial
				}
			}
		}
		a.mu.Unlock()
	case sv1.MethodSetVersionMask:
		var s sv1.SetVersionMask
		if err := s.Decode(msg.Params); err != nil {
			return err
		}
		a.mu.Lock()
		a.versionMask = 0
		if a.verrol {
			a.versionMask = s.Mask
		}
		a.mu.Unlock()
	case sv1.MethodNotify:
		return a.handleNotify(msg.Params)
	}
	return nil
}

func (a *Agent) handleReply(msg *sv1.Message) error {
	var id string
	if json.Unmarshal(msg.ID, &id) != nil {
		return nil
	}
	switch id {
	case idProbe, idCaps, idCapsAgain:
		var c sv1.CapabilitiesResult
		if !msg.Accepted() {
			break // an old pool
		}
		if err := c.Decode(msg.Result); err != nil {
			return err
		}
		both := func(name string) bool { return c.Has(name) && slices.Contains(a.opts.Capabilities, name) }
		a.mu.Lock()
		a.verrol = a.verrol || both(sv1.CapabilityVersionRolling)
		a.subres = a.subres || id != idProbe && both(sv1.CapabilitySubmitResponse)
		a.mu.Unlock()
	case idSubscribe:
		if !msg.Accepted() {
			break
		}
		var s sv1.SubscribeResult
		if err := s.Decode(msg.Result); err != nil {
			return err
		}
		if s.Extranonce2Size != btcagent.Extranonce2Size {
			return fmt.Errorf("extranonce2 has %d bytes, want %d", s.Extranonce2Size, btcagent.Extranonce2Size)
		}
		a.mu.Lock()
		a.extranonce1 = s.Extranonce1
		a.mu.Unlock()
	}
	if c := a.replies[id]; c != nil {
		push(c, msg)
	}
	return nil
}

func (a *Agent) handleNotify(params []byte) error {
	parsed, err := parseNotify(params)
	if err != nil {
		return err
	}
	if id, ok := agentJobID(parsed.ID); !ok || strconv.Itoa(int(id)) != parsed.ID {
		return fmt.Errorf("job id %q is not a decimal number up to 255", parsed.ID)
	}
	j := &AgentJob{Job: *parsed}
	j.Received = time.Now()
	a.mu.Lock()
	subscribed := a.extranonce1 != nil
	a.seq++
	j.seq = a.seq
	j.Extranonce1, j.Extranonce2Size = a.extranonce1, btcagent.Extranonce2Size
	j.Difficulty, j.VersionMask = a.defaultDifficulty(), a.versionMask
	a.mu.Unlock()
	if !subscribed {
		return errors.New("mining.notify before the reply to mining.subscribe")
	}
	j.Target = j.Difficulty.Target()
	a.received.Add(1)
	push(a.jobs, j)
	return nil
}

func agentJobID(s string) (id uint8, ok bool) {
	n, err := strconv.ParseUint(s, 10, 8)
	return uint8(n), err == nil
}

// defaultDifficulty is called with mu held.
func (a *Agent) defaultDifficulty() difficulty.Difficulty {
	if a.initial == 0 {
		return 1
	}
	return a.initial
}

// handleFrame reports whether a call was waiting for the frame.
func (a *Agent) handleFrame(f btcagent.Frame) (claimed bool, err error) {
	switch f.Command {
	case btcagent.CommandSubmitResponse:
		var r btcagent.SubmitResponse
		if err := r.Decode(f); err != nil {
			return false, err
		}
		a.mu.Lock()
		c := a.pending[r.Index]
		delete(a.pending, r.Index)
		a.mu.Unlock()
		if c == nil {
			a.unexpected.Add(1)
			return false, nil
		}
		reply := AgentReply{Answered: true, Accepted: r.Accepted(), Index: r.Index, Status: r.Status, Latency: time.Since(c.sent)}
		if reply.Accepted {
			a.accepted.Add(1)
		} else {
			a.rejected.Add(1)
		}
		c.reply <- reply
		return true, nil
	case btcagent.CommandSetDifficulty:
		if err := a.set.Decode(f); err != nil {
			return false, err
		}
		d := difficulty.Difficulty(a.set.Difficulty())
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, id := range a.set.SessionIDs {
			if id > btcagent.MaxSessionID {
				return false, btcagent.ErrSessionID
			}
			if w := a.workers[id]; w != nil { // or it has just unregistered
				w.change(a.seq, d)
			}
		}
		return false, nil
	}
	return false, errors.New("no Bitcoin pool sends it")
}

// change notes a difficulty that holds for jobs after seq.
func (w *agentWorker) change(seq uint64, d difficulty.Difficulty) {
	if seq == w.since {
		// Either a pool gives a new worker a difficulty other than the default, also for the jobs that it holds, or its
		// next job will have another one. Shares of the harder of both are good in any case.
		w.changes[0].difficulty = max(w.changes[0].difficulty, d)
	}
	if last := &w.changes[len(w.changes)-1]; last.seq == seq && len(w.changes) > 1 {
		last.difficulty = d
		return
	}
	w.changes = append(w.changes, change{seq, d})
	if len(w.changes) > maxChanges {
		w.changes = slices.Delete(w.changes, 0, 1)
	}
}

// at returns the difficulty for a job.
func (w *agentWorker) at(seq uint64) difficulty.Difficulty {
	for _, c := range slices.Backward(w.changes) {
		if c.seq < seq {
			return c.difficulty
		}
	}
	return w.changes[0].difficulty
}

// write writes whole messages. encode returns them; it and undo, which is called when nothing was written, run while
// nobody else writes. When ctx ends in the middle the connection is of no more use and is closed.
func (a *Agent) write(ctx context.Context, encode func() ([]byte, error), undo func()) error {
	if err := a.start(); err != nil {
		return err
	}
	select {
	case a.writing <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-a.done:
		return a.err
	}
	defer func() { <-a.writing }()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	b, err := encode()
	if err != nil {
		return err
	}
	cut := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = a.conn.SetWriteDeadline(time.Unix(1, 0))
		close(cut)
	})
	n, err := a.conn.Write(b)
	if !stop() {
		<-cut
		_ = a.conn.SetWriteDeadline(time.Time{})
	}
	if err == nil {
		return nil
	}
	if n == 0 {
		undo()
	}
	if ctx.Err() != nil {
		if n > 0 {
			a.conn.Close()
		}
		return context.Cause(ctx)
	}
	// The pool is gone, or as good as. What it said last may still be read, and says why better than err.
	a.mu.Lock()
	a.writeErr = err
	_ = a.conn.SetReadDeadline(time.Now().Add(lastWords))
	a.mu.Unlock()
	select {
	case <-a.done:
		return a.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Send writes raw bytes as they are, such as lines, other frames than submits, or nonsense. Submit frames belong to
// SubmitFrame: the pool counts them, so the agent must.
func (a *Agent) Send(ctx context.Context, raw []byte) error {
	return a.write(ctx, func() ([]byte, error) { return raw, nil }, func() {})
}

// Handshake logs in with BTCAgent's very lines: a probe, of which it takes any answer within 15 seconds, and then, in one
// write and without waiting in between, the capabilities, mining.configure, mining.subscribe, mining.authorize, and the
// capabilities again, because BTCPool remembers them only then. It returns when all are answered, or closes the agent
// when the pool refuses one of the two that matter. After it has succeeded it does nothing.
//
// A test that wants another conversation holds it with Send: replies are known by the ids of BTCAgent, "caps", "conf",
// "sub", "auth" and "caps_again".
func (a *Agent) Handshake(ctx context.Context) error {
	select {
	case a.logins <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-a.logins }()
	a.mu.Lock()
	ready := a.ready
	a.mu.Unlock()
	if ready {
		return nil
	}
	if err := a.probe(ctx); err != nil {
		return err
	}
	lines := capabilitiesLine(idCaps, a.opts.Capabilities)
	lines = append(lines, `{"id":"conf","method":"mining.configure","params":[["version-rolling"],`+
		`{"version-rolling.mask":"ffffffff","version-rolling.min-bit-count":0}]}`+"\n"...)
	lines = fmt.Appendf(lines, `{"id":"sub","method":"mining.subscribe","params":%s}`+"\n", list(a.opts.Software))
	lines = fmt.Appendf(lines, `{"id":"auth","method":"mining.authorize","params":%s}`+"\n", list(a.opts.User, a.opts.Password))
	lines = append(lines, capabilitiesLine(idCapsAgain, a.opts.Capabilities)...)
	if err := a.Send(ctx, lines); err != nil {
		return err
	}
	for _, step := range []struct{ id, fails string }{ // fails is empty where a refusal does no harm
		{idCaps, ""}, {idConfigure, ""}, {idSubscribe, "subscribe"}, {idAuthorize, "authorize " + a.opts.User}, {idCapsAgain, ""},
	} {
		msg, err := wait(ctx, a, a.replies[step.id])
		if err != nil {
			return err
		}
		if step.fails != "" && !msg.Accepted() {
			_ = a.Close()
			return fmt.Errorf("stratumtest: %s: %w", step.fails, refusal(msg))
		}
	}
	a.mu.Lock()
	a.ready = true
	a.mu.Unlock()
	return nil
}

// probe sends a line and waits for any.
func (a *Agent) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, probeTimeout,
		fmt.Errorf("stratumtest: the pool did not answer the agent's first line within %v", probeTimeout))
	defer cancel()
	capabilities := slices.DeleteFunc(slices.Clone(a.opts.Capabilities), func(name string) bool {
		return name != sv1.CapabilityVersionRolling
	})
	if err := a.Send(ctx, capabilitiesLine(idProbe, capabilities)); err != nil {
		return err
	}
	_, err := wait(ctx, a, a.probed)
	return err
}

func capabilitiesLine(id string, names []string) []byte {
	return fmt.Appendf(nil, `{"id":"%s","method":"agent.get_capabilities","params":[%s]}`+"\n", id, list(names...))
}

// list returns a JSON array.
func list(texts ...string) []byte {
	b, _ := json.Marshal(texts) // which cannot fail
	return b
}

func refusal(msg *sv1.Message) error {
	if msg.Err != nil {
		return msg.Err
	}
	return errors.New("refused without an error")
}

// NextJob returns the jobs in the order they came in, each once, and waits for the next. Of those that nobody took the
// latest 256 are kept.
func (a *Agent) NextJob(ctx context.Context) (*AgentJob, error) {
	return take(ctx, a, a.jobs)
}

// Receive returns, in order, everything that came in, except the responses to submits that somebody waited for. Of what
// nobody took the latest 256 messages are kept.
func (a *Agent) Receive(ctx context.Context) (AgentMessage, error) {
	return take(ctx, a, a.inbox)
}

// take is wait for calls that may be the first.
func take[T any](ctx context.Context, a *Agent, queue <-chan T) (v T, err error) {
	select {
	case v = <-queue: // also what came before the end
		return v, nil
	default:
	}
	if err := a.start(); err != nil {
		return v, err
	}
	return wait(ctx, a, queue)
}

// wait returns what comes from a queue, also when the connection has ended after it, or a zero value once it is closed.
func wait[T any](ctx context.Context, a *Agent, queue <-chan T) (v T, err error) {
	select {
	case v = <-queue:
		return v, nil
	case <-ctx.Done():
		return v, context.Cause(ctx)
	case <-a.done:
	}
	select {
	case v = <-queue:
		return v, nil
	default:
		return v, a.err
	}
}

// Register tells the pool of a miner: the number that the agent gives it, its software, and the part of its login after
// the dot. A worker that has the number already is replaced. Number 0xffff, which is not valid, is sent like any other.
func (a *Agent) Register(ctx context.Context, id uint16, software, worker string) error {
	var before *agentWorker
	return a.write(ctx, func() ([]byte, error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		before = a.workers[id]
		a.workers[id] = &agentWorker{since: a.seq, changes: []change{{0, a.defaultDifficulty()}}}
		return btcagent.AppendRegister(nil, id, software, worker), nil
	}, func() { a.setWorker(id, before) })
}

// Unregister tells the pool that a miner has left.
func (a *Agent) Unregister(ctx context.Context, id uint16) error {
	var before *agentWorker
	return a.write(ctx, func() ([]byte, error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		before = a.workers[id]
		delete(a.workers, id)
		return btcagent.AppendUnregister(nil, id), nil
	}, func() { a.setWorker(id, before) })
}

func (a *Agent) setWorker(id uint16, w *agentWorker) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w == nil {
		delete(a.workers, id)
	} else {
		a.workers[id] = w
	}
}

// Difficulty returns that of a worker for the next job: of the last frame that named it, or else the default, which is
// that of the first mining.set_difficulty on the connection. ok is false when the worker is not registered.
func (a *Agent) Difficulty(id uint16) (d difficulty.Difficulty, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w := a.workers[id]
	if w == nil {
		return a.defaultDifficulty(), false
	}
	return w.changes[len(w.changes)-1].difficulty, true
}

// Work returns a job as the worker's miner has it: with the worker's number at the end of extranonce1, an extranonce2 of
// 4 bytes, and the difficulty that the worker had when the job came in. One that registered later is judged by the
// difficulty it began with, and for one that is not registered this is the default.
func (a *Agent) Work(j *AgentJob, id uint16) *Job {
	work := j.Job
	work.Extranonce1 = binary.BigEndian.AppendUint32(slices.Clip(j.Extranonce1), uint32(id))
	work.Extranonce2Size = j.Extranonce2Size - 4
	a.mu.Lock()
	if w := a.workers[id]; w != nil {
		work.Difficulty = w.at(j.seq)
	}
	a.mu.Unlock()
	work.Target = work.Difficulty.Target()
	return &work
}

// Solve searches a share of a worker that meets its target. Each call searches in an extranonce2, and where version
// rolling is agreed in version bits, of its own, so it never returns the same share twice. It hashes on the calling
// goroutine without a limit: about 2^32 hashes times the difficulty. No frame can tell a worker a difficulty below 1, so a
// test announces one with mining.set_difficulty, or uses SolveTarget.
func (a *Agent) Solve(ctx context.Context, j *AgentJob, id uint16) (Share, error) {
	work := a.Work(j, id)
	return a.solve(ctx, work, work.Target)
}

// SolveTarget is Solve for another target, such as that of [Job.NetworkTarget] for a block.
func (a *Agent) SolveTarget(ctx context.Context, j *AgentJob, id uint16, target difficulty.Target) (Share, error) {
	return a.solve(ctx, a.Work(j, id), target)
}

func (a *Agent) solve(ctx context.Context, work *Job, target difficulty.Target) (Share, error) {
	for {
		n := a.units.Add(1) - 1
		u := &unit{job: work, extranonce2: binary.BigEndian.AppendUint32(nil, uint32(n)), versionBits: spread(uint32(n), work.VersionMask)}
		u.header = work.Header(u.extranonce2, work.NTime, 0, u.versionBits)
		for nonce := uint64(0); nonce <= math.MaxUint32; nonce += chunk {
			if ctx.Err() != nil {
				return Share{}, context.Cause(ctx)
			}
			n, found := u.search(uint32(nonce), chunk, target)
			if !found {
				a.hashes.Add(chunk)
				continue
			}
			a.hashes.Add(uint64(n) - nonce + 1)
			return u.share(n), nil
		}
	}
}

// AgentFrame returns the frame that submits a share of a worker: the shortest one, as BTCAgent's. An NTime of 0 stands for
// the job's, and version bits of 0 are not sent. It fails when no frame can carry the share, because its job id is not a
// number up to 255 or its extranonce2 does not have 4 bytes.
func AgentFrame(id uint16, s Share) ([]byte, error) {
	job, ok := agentJobID(s.JobID)
	if !ok {
		return nil, fmt.Errorf("stratumtest: job id %q is not a decimal number up to 255", s.JobID)
	}
	if len(s.Extranonce2) != 4 {
		return nil, fmt.Errorf("stratumtest: extranonce2 has %d bytes, want 4", len(s.Extranonce2))
	}
	return btcagent.AppendSubmit(nil, &btcagent.Submit{
		JobID:       job,
		SessionID:   id,
		Extranonce2: binary.BigEndian.Uint32(s.Extranonce2),
		Nonce:       s.Nonce,
		NTime:       s.NTime,
		VersionBits: s.VersionBits,
	}), nil
}

// Submit submits a share of a worker, registered or not, and returns the response. Without [Agent.Responses] it returns
// as soon as the frame is written, and the reply says that it was not answered. The error is about the connection, and
// about a share that no frame can carry.
func (a *Agent) Submit(ctx context.Context, id uint16, s Share) (AgentReply, error) {
	frame, err := AgentFrame(id, s)
	if err != nil {
		return AgentReply{}, err
	}
	return a.SubmitFrame(ctx, frame)
}

// SubmitFrame is Submit of a raw frame, which may be broken but must be one submit to the pool: it takes an index. At most
// 65,536 may wait for their response.
func (a *Agent) SubmitFrame(ctx context.Context, frame []byte) (AgentReply, error) {
	c := &agentCall{reply: make(chan AgentReply, 1)}
	var index uint16
	waits := false
	err := a.write(ctx, func() ([]byte, error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.pending[a.index] != nil {
			return nil, errors.New("stratumtest: the submit 65,536 before has no response yet")
		}
		index = a.index
		a.index++
		if waits = a.subres && a.pending != nil; waits {
			c.sent = time.Now()
			a.pending[index] = c
		}
		a.submitted.Add(1)
		return frame, nil
	}, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.index = index
		delete(a.pending, index)
		a.submitted.Add(^uint64(0))
	})
	if err != nil {
		a.forget(index, c)
		return AgentReply{}, err
	}
	if !waits {
		return AgentReply{Index: index}, nil
	}
	reply, err := wait(ctx, a, c.reply)
	if err != nil {
		a.forget(index, c)
	}
	return reply, err
}

// forget gives up waiting for a response, which is unexpected if it still comes.
func (a *Agent) forget(index uint16, c *agentCall) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.pending[index] == c {
		delete(a.pending, index)
	}
}
