package stratumtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/stratum/sv1"
)

// MinerOptions tune a Miner. The zero value is a miner without version rolling that hashes on one goroutine as fast as
// it can.
type MinerOptions struct {
	User     string // "" means "stratumtest.miner"
	Password string // "" means "x"
	Agent    string // "" means "stratumtest/1"
	ResumeID string // sent in mining.subscribe; "" means none

	VersionMask         uint32                // version bits to ask for; 0 means no version rolling
	MinimumDifficulty   difficulty.Difficulty // to ask for in mining.configure; 0 means none
	SuggestDifficulty   difficulty.Difficulty // to suggest after login; 0 means none
	SubscribeExtranonce bool                  // ask for mining.set_extranonce, both ways there are

	Threads     int                 // goroutines that hash in Run; 0 means 1
	Hashrate    difficulty.Hashrate // of all threads in Run; 0 means no limit
	MaxInFlight int                 // submits of Run without a reply, beyond which it waits; 0 means 64
	MaxLine     int                 // longest line from the pool in bytes; 0 means 64 KiB
	Hooks       Hooks
}

// Hooks see what a Miner does. They are called on its own goroutines and should return quickly; OnSubmit may be called
// from several at once.
type Hooks struct {
	OnJob    func(*Job)         // a job came in
	OnSubmit func(Share)        // a share is about to be written
	OnReply  func(Share, Reply) // a share was answered
}

// MinerStats count what a Miner did.
type MinerStats struct {
	Hashes    uint64 // of Run and Solve
	Jobs      uint64 // mining.notify read
	Submitted uint64 // shares
	Accepted  uint64 // shares
	Rejected  uint64 // shares
}

// How many jobs and messages wait for NextJob and Receive; when there are more, the oldest are forgotten.
const queueSize = 256

// drainTimeout is how long Run waits at its end for the replies to what it submitted.
const drainTimeout = 2 * time.Second

// lastWords is how long a miner goes on reading after it could not write.
const lastWords = time.Second

// A Miner is one connection to a pool. Its methods may be called from any goroutine, also while Run runs. It reads from
// the first call that needs the connection until Close, so that a pool is never held up by a test that does not look.
//
// A Miner demands what the protocol does: it fails, and closes, on a line that is not JSON, on a notification it knows
// with params it cannot read, and on a mining.notify before the reply to mining.subscribe. That error is returned by
// every waiting and later call.
type Miner struct {
	conn net.Conn
	opts MinerOptions

	jobs    chan *Job         // for NextJob
	inbox   chan *sv1.Message // for Receive
	answers chan []byte       // to the pool's own requests; when it is full they are dropped
	writing chan struct{}     // holds one element while somebody writes
	slots   chan struct{}     // holds one element for each submit of Run without a reply
	done    chan struct{}     // closed when reading has ended; err is set before
	ready   atomic.Bool       // logged in
	current atomic.Pointer[work]
	units   atomic.Uint64 // search units handed out; each has its own extranonce2

	hashes, received, submitted, accepted, rejected atomic.Uint64

	mu              sync.Mutex
	started, closed bool
	err             error
	writeErr        error // why a write failed, other than by its context
	lastID          uint64
	pending         map[uint64]*call
	subscribed      bool
	extranonce1     []byte // for the next job, like the following
	extranonce2Size int
	difficulty      difficulty.Difficulty
	versionMask     uint32
}

// A call is a request without a reply.
type call struct {
	apply func(*sv1.Message) error // runs before any later line is read; nil means nothing
	reply chan Reply               // takes the reply without waiting; nil means nobody wants it
	share *Share                   // what was submitted, if anything
	slot  bool                     // it holds one of Miner.slots
	sent  time.Time
}

// NewMiner returns a Miner on a connection, which Close closes. It does nothing yet.
func NewMiner(conn net.Conn, opts *MinerOptions) *Miner {
	var o MinerOptions
	if opts != nil {
		o = *opts
	}
	setDefault(&o.User, "stratumtest.miner")
	setDefault(&o.Password, "x")
	setDefault(&o.Agent, "stratumtest/1")
	o.Threads = max(o.Threads, 1)
	if o.MaxInFlight <= 0 {
		o.MaxInFlight = 64
	}
	if o.MaxLine <= 0 {
		o.MaxLine = 64 << 10
	}
	m := &Miner{
		conn:       conn,
		opts:       o,
		jobs:       make(chan *Job, queueSize),
		inbox:      make(chan *sv1.Message, queueSize),
		answers:    make(chan []byte, 16),
		writing:    make(chan struct{}, 1),
		slots:      make(chan struct{}, o.MaxInFlight),
		done:       make(chan struct{}),
		pending:    map[uint64]*call{},
		difficulty: 1,
	}
	m.current.Store(&work{replaced: make(chan struct{})})
	return m
}

func setDefault(s *string, v string) {
	if *s == "" {
		*s = v
	}
}

// Dial connects to a pool over TCP.
func Dial(ctx context.Context, addr string, opts *MinerOptions) (*Miner, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("stratumtest: %w", err)
	}
	return NewMiner(conn, opts), nil
}

// Close closes the connection and waits until the miner has stopped reading. Waiting calls return an error that is
// net.ErrClosed.
func (m *Miner) Close() error {
	m.mu.Lock()
	m.closed = true
	started := m.started
	m.mu.Unlock()
	err := m.conn.Close()
	if started {
		<-m.done
	}
	return err
}

// Stats returns what was done so far.
func (m *Miner) Stats() MinerStats {
	return MinerStats{
		Hashes:    m.hashes.Load(),
		Jobs:      m.received.Load(),
		Submitted: m.submitted.Load(),
		Accepted:  m.accepted.Load(),
		Rejected:  m.rejected.Load(),
	}
}

// start begins to read unless it has begun.
func (m *Miner) start() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		if m.err != nil {
			return m.err
		}
		return fmt.Errorf("stratumtest: %w", net.ErrClosed)
	}
	if !m.started {
		m.started = true
		go m.read()
	}
	return nil
}

// read runs until the connection ends.
func (m *Miner) read() {
	var answering sync.WaitGroup
	stop, cancel := context.WithCancel(context.Background())
	answering.Go(func() {
		for {
			select {
			case line := <-m.answers:
				_ = m.write(stop, line) // a failure ends reading, too
			case <-stop.Done():
				return
			}
		}
	})
	r := sv1.NewReader(m.conn, m.opts.MaxLine)
	err := m.readLine(r)
	for err == nil {
		err = m.readLine(r)
	}
	m.conn.Close()
	cancel()
	answering.Wait()

	m.mu.Lock()
	if m.writeErr != nil && !errors.Is(err, io.EOF) {
		err = m.writeErr
	}
	switch {
	case m.closed:
		m.err = fmt.Errorf("stratumtest: %w", net.ErrClosed)
	case errors.Is(err, io.EOF):
		m.err = fmt.Errorf("stratumtest: the pool closed the connection: %w", err)
	default:
		m.err = fmt.Errorf("stratumtest: %w", err)
	}
	m.closed = true
	m.pending = nil
	m.mu.Unlock()
	close(m.done)
}

func (m *Miner) readLine(r *sv1.Reader) error {
	line, err := r.ReadLine()
	if err != nil {
		return err
	}
	var msg sv1.Message
	if err := msg.Decode(line); err != nil {
		return fmt.Errorf("the pool sent %q: %w", line, err)
	}
	claimed, err := m.handle(&msg)
	if err != nil {
		return fmt.Errorf("the pool sent %q: %w", line, err)
	}
	if !claimed {
		kept := new(sv1.Message)
		if err := kept.Decode(bytes.Clone(line)); err != nil {
			return err
		}
		push(m.inbox, kept)
	}
	return nil
}

// push never waits: it forgets the oldest element instead. It is for a single sender.
func push[T any](queue chan T, v T) {
	for {
		select {
		case queue <- v:
			return
		default:
		}
		select {
		case <-queue:
		default:
		}
	}
}

// handle reports whether a call was waiting for the message.
func (m *Miner) handle(msg *sv1.Message) (claimed bool, err error) {
	if msg.IsReply {
		return m.handleReply(msg)
	}
	switch msg.Method {
	case sv1.MethodSetDifficulty:
		var s sv1.SetDifficulty
		if err := s.Decode(msg.Params); err != nil {
			return false, err
		}
		m.mu.Lock()
		m.difficulty = difficulty.Difficulty(s.Difficulty)
		m.mu.Unlock()
	case sv1.MethodSetExtranonce:
		var s sv1.SetExtranonce
		if err := s.Decode(msg.Params); err != nil {
			return false, err
		}
		m.mu.Lock()
		m.extranonce1, m.extranonce2Size = s.Extranonce1, s.Extranonce2Size
		m.mu.Unlock()
	case sv1.MethodSetVersionMask:
		var s sv1.SetVersionMask
		if err := s.Decode(msg.Params); err != nil {
			return false, err
		}
		m.setVersionMask(s.Mask)
	case sv1.MethodNotify:
		return false, m.handleNotify(msg.Params)
	case sv1.MethodPing:
		m.answer(sv1.AppendTextResult(nil, msg.ID, "pong"))
	case sv1.MethodGetVersion:
		m.answer(sv1.AppendTextResult(nil, msg.ID, m.opts.Agent))
	}
	return false, nil
}

func (m *Miner) answer(line []byte) {
	select {
	case m.answers <- line:
	default:
	}
}

func (m *Miner) handleReply(msg *sv1.Message) (claimed bool, err error) {
	id, ok := msg.IDNumber()
	if !ok {
		return false, nil
	}
	m.mu.Lock()
	c := m.pending[id]
	delete(m.pending, id)
	m.mu.Unlock()
	if c == nil {
		return false, nil
	}
	if c.apply != nil {
		if err := c.apply(msg); err != nil {
			return true, err
		}
	}
	reply := Reply{Accepted: msg.Accepted(), Result: bytes.Clone(msg.Result), Latency: time.Since(c.sent)}
	switch {
	case msg.Err != nil:
		reply.Code, reply.Message = msg.Err.Code, msg.Err.Message
	case !reply.Accepted:
		reply.Code = sv1.CodeOther
	}
	if c.share != nil {
		if reply.Accepted {
			m.accepted.Add(1)
		} else {
			m.rejected.Add(1)
		}
		if f := m.opts.Hooks.OnReply; f != nil {
			f(*c.share, reply)
		}
	}
	if c.slot {
		<-m.slots
	}
	if c.reply != nil {
		c.reply <- reply
	}
	return true, nil
}

// setVersionMask takes effect at once, BIP 310, so the work at hand goes on under the new mask.
func (m *Miner) setVersionMask(mask uint32) {
	m.mu.Lock()
	m.versionMask = mask & m.opts.VersionMask
	mask = m.versionMask
	m.mu.Unlock()
	if w := m.current.Load(); w.job != nil && w.job.VersionMask != mask {
		job := *w.job
		job.VersionMask = mask
		m.setWork(&job, w.epoch)
	}
}

func (m *Miner) handleNotify(params []byte) error {
	job, err := parseNotify(params)
	if err != nil {
		return err
	}
	job.Received = time.Now()
	m.mu.Lock()
	subscribed := m.subscribed
	job.Extranonce1, job.Extranonce2Size = m.extranonce1, m.extranonce2Size
	job.Difficulty, job.VersionMask = m.difficulty, m.versionMask
	m.mu.Unlock()
	if !subscribed {
		return errors.New("mining.notify before the reply to mining.subscribe")
	}
	job.Target = job.Difficulty.Target()
	epoch := m.current.Load().epoch
	if job.Clean {
		epoch++
	}
	m.setWork(job, epoch)
	m.received.Add(1)
	if f := m.opts.Hooks.OnJob; f != nil {
		f(job)
	}
	push(m.jobs, job)
	return nil
}

// setWork is called by the reading goroutine only.
func (m *Miner) setWork(job *Job, epoch uint64) {
	old := m.current.Swap(&work{job: job, epoch: epoch, replaced: make(chan struct{})})
	close(old.replaced)
}

// write writes whole lines. When ctx ends in the middle of one the connection is of no more use and is closed.
func (m *Miner) write(ctx context.Context, b []byte) error {
	select {
	case m.writing <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-m.done:
		return m.err
	}
	defer func() { <-m.writing }()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	cut := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = m.conn.SetWriteDeadline(time.Unix(1, 0))
		close(cut)
	})
	n, err := m.conn.Write(b)
	if !stop() {
		<-cut
		_ = m.conn.SetWriteDeadline(time.Time{})
	}
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		if n > 0 {
			m.conn.Close()
		}
		return context.Cause(ctx)
	}
	// The pool is gone, or as good as. What it said last may still be read, and says why better than err.
	m.mu.Lock()
	m.writeErr = err
	m.mu.Unlock()
	_ = m.conn.SetReadDeadline(time.Now().Add(lastWords))
	select {
	case <-m.done:
		return m.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// send registers c and writes the request that encode appends for its id.
func (m *Miner) send(ctx context.Context, c *call, encode func(dst []byte, id uint64) []byte) (id uint64, err error) {
	if err := m.start(); err != nil {
		return 0, err
	}
	c.sent = time.Now()
	m.mu.Lock()
	if m.pending == nil {
		err := m.err
		m.mu.Unlock()
		return 0, err
	}
	m.lastID++
	id = m.lastID
	m.pending[id] = c
	m.mu.Unlock()
	if err := m.write(ctx, encode(nil, id)); err != nil {
		m.forget(id)
		return 0, err
	}
	return id, nil
}

// forget gives up waiting for a reply, which goes to Receive if it still comes.
func (m *Miner) forget(id uint64) {
	m.mu.Lock()
	c := m.pending[id]
	delete(m.pending, id)
	m.mu.Unlock()
	if c != nil && c.slot {
		<-m.slots
	}
}

// Call sends the request that encode appends for a fresh id, such as sv1.AppendSuggestDifficultyRequest does, and
// returns the reply. The error is about the connection only: a refusal is a reply.
func (m *Miner) Call(ctx context.Context, encode func(dst []byte, id uint64) []byte) (Reply, error) {
	return m.call(ctx, &call{}, encode)
}

func (m *Miner) call(ctx context.Context, c *call, encode func(dst []byte, id uint64) []byte) (Reply, error) {
	c.reply = make(chan Reply, 1)
	id, err := m.send(ctx, c, encode)
	if err != nil {
		return Reply{}, err
	}
	select {
	case r := <-c.reply:
		return r, nil
	case <-ctx.Done():
		m.forget(id)
		return Reply{}, context.Cause(ctx)
	case <-m.done:
		select {
		case r := <-c.reply:
			return r, nil
		default:
			return Reply{}, m.err
		}
	}
}

// Handshake configures the connection if there is anything to ask for, subscribes and authorizes, each after the reply
// to the one before. It fails when the pool refuses one of the latter two, and may then be called again. After it has
// succeeded it does nothing. What comes last, mining.suggest_difficulty and mining.extranonce.subscribe, is not waited
// for, because some pools never answer it.
func (m *Miner) Handshake(ctx context.Context) error {
	if m.ready.Load() {
		return nil
	}
	o := &m.opts
	configure := sv1.Configure{
		VersionRolling:         o.VersionMask != 0,
		VersionRollingMask:     o.VersionMask,
		MinimumDifficulty:      o.MinimumDifficulty != 0,
		MinimumDifficultyValue: float64(o.MinimumDifficulty),
		SubscribeExtranonce:    o.SubscribeExtranonce,
	}
	if configure.VersionRolling || configure.MinimumDifficulty || configure.SubscribeExtranonce {
		_, err := m.call(ctx, &call{apply: m.configured}, func(dst []byte, id uint64) []byte {
			return sv1.AppendConfigureRequest(dst, id, &configure)
		})
		if err != nil {
			return err
		}
	}
	r, err := m.call(ctx, &call{apply: m.subscribe}, func(dst []byte, id uint64) []byte {
		return sv1.AppendSubscribeRequest(dst, id, &sv1.Subscribe{Agent: o.Agent, ResumeID: o.ResumeID})
	})
	if err != nil {
		return err
	}
	if err := r.Err(); err != nil {
		return fmt.Errorf("stratumtest: subscribe: %w", err)
	}
	r, err = m.Call(ctx, func(dst []byte, id uint64) []byte {
		return sv1.AppendAuthorizeRequest(dst, id, &sv1.Authorize{User: o.User, Password: o.Password})
	})
	if err != nil {
		return err
	}
	if err := r.Err(); err != nil {
		return fmt.Errorf("stratumtest: authorize %s: %w", o.User, err)
	}
	m.ready.Store(true)
	if o.SuggestDifficulty != 0 {
		if _, err := m.send(ctx, &call{}, func(dst []byte, id uint64) []byte {
			return sv1.AppendSuggestDifficultyRequest(dst, id, float64(o.SuggestDifficulty))
		}); err != nil {
			return err
		}
	}
	if o.SubscribeExtranonce {
		_, err = m.send(ctx, &call{}, sv1.AppendExtranonceSubscribeRequest)
	}
	return err
}

func (m *Miner) configured(msg *sv1.Message) error {
	if !msg.Accepted() {
		return nil // an old pool
	}
	var r sv1.ConfigureResult
	if err := r.Decode(msg.Result); err != nil {
		return err
	}
	m.setVersionMask(r.VersionMask)
	return nil
}

func (m *Miner) subscribe(msg *sv1.Message) error {
	if !msg.Accepted() {
		return nil
	}
	var r sv1.SubscribeResult
	if err := r.Decode(msg.Result); err != nil {
		return err
	}
	m.mu.Lock()
	m.subscribed = true
	m.extranonce1, m.extranonce2Size = r.Extranonce1, r.Extranonce2Size
	m.mu.Unlock()
	return nil
}

// NextJob returns the jobs in the order they came in, each once, and waits for the next. Of those that nobody took the
// latest 256 are kept.
func (m *Miner) NextJob(ctx context.Context) (*Job, error) { return next(ctx, m, m.jobs) }

// Receive returns, in order, what came in that no other call had asked for: notifications of every kind, and replies to
// what Send sent. Of those that nobody took the latest 256 are kept.
func (m *Miner) Receive(ctx context.Context) (*sv1.Message, error) { return next(ctx, m, m.inbox) }

func next[T any](ctx context.Context, m *Miner, queue <-chan T) (v T, err error) {
	startErr := m.start()
	select {
	case v = <-queue: // also what came before the end
		return v, nil
	default:
	}
	if startErr != nil {
		return v, startErr
	}
	select {
	case v = <-queue:
		return v, nil
	case <-ctx.Done():
		return v, context.Cause(ctx)
	case <-m.done:
	}
	select {
	case v = <-queue:
		return v, nil
	default:
		return v, m.err
	}
}

// Send writes raw bytes as they are: a test adds the "\n" itself, or not. Replies go to Receive, unless their id is
// that of a waiting call; those count up from 1.
func (m *Miner) Send(ctx context.Context, raw []byte) error {
	if err := m.start(); err != nil {
		return err
	}
	return m.write(ctx, raw)
}

// Submit submits a share, whatever it is, and returns the reply. The error is about the connection only.
func (m *Miner) Submit(ctx context.Context, s Share) (Reply, error) {
	return m.call(ctx, m.submission(&s), m.submitRequest(&s))
}

func (m *Miner) submission(s *Share) *call {
	m.submitted.Add(1)
	if f := m.opts.Hooks.OnSubmit; f != nil {
		f(*s)
	}
	return &call{share: s}
}

func (m *Miner) submitRequest(s *Share) func(dst []byte, id uint64) []byte {
	return func(dst []byte, id uint64) []byte {
		return sv1.AppendSubmitRequest(dst, id, &sv1.SubmitRequest{
			Worker:         m.opts.User,
			JobID:          s.JobID,
			Extranonce2:    s.Extranonce2,
			NTime:          s.NTime,
			Nonce:          s.Nonce,
			VersionBits:    s.VersionBits,
			HasVersionBits: s.HasVersionBits,
		})
	}
}

// Solve searches a share that meets the job's target. Each call searches in an extranonce2, and where version rolling
// is agreed in version bits, of its own, so it never returns the same share twice. It hashes on the calling goroutine
// without a limit: about 2^32 hashes times the job's difficulty.
func (m *Miner) Solve(ctx context.Context, j *Job) (Share, error) {
	return m.SolveTarget(ctx, j, j.Target)
}

// SolveTarget is Solve for another target, such as that of [Job.NetworkTarget] for a block.
func (m *Miner) SolveTarget(ctx context.Context, j *Job, target difficulty.Target) (Share, error) {
	for {
		u := m.newUnit(j)
		for nonce := uint64(0); nonce <= math.MaxUint32; nonce += chunk {
			if ctx.Err() != nil {
				return Share{}, context.Cause(ctx)
			}
			n, found := u.search(uint32(nonce), chunk, target)
			if !found {
				m.hashes.Add(chunk)
				continue
			}
			m.hashes.Add(uint64(n) - nonce + 1)
			return u.share(n), nil
		}
	}
}
