package stratum

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/stratum/sv1"
)

// Bounds of what a Client takes from a pool.
const (
	maxClientExtranonce2 = 16  // bytes
	maxClientText        = 256 // bytes of what is shown to people, and of a subscription id
	maxClientLog         = 10  // lines in the log of one session
	clientQueue          = 64  // lines waiting to be written
	clientWrite          = 16 << 10
	clientLastWords      = time.Second
	pingID               = 0 // other requests count from 1
)

// A clientSession is one connection of a Client. One goroutine reads, first that of login and then that of Run; another
// one writes.
type clientSession struct {
	c    *Client
	pool clientPool
	id   uint64
	conn net.Conn
	r    *sv1.Reader

	out    chan []byte   // whole lines
	slots  chan struct{} // holds one element for each share without a reply
	gone   chan struct{} // closed when nothing is read any more
	writer sync.WaitGroup

	// What follows belongs to the reader. offered is set before shares come in and does not change.
	calls           map[uint64]func(*sv1.Message) error // requests other than shares, by id
	subscribed      bool
	authorized      bool
	live            bool // Run has taken over: jobs and messages are handed out
	pushesNonces    bool // mining.set_extranonce was granted
	extranonce1     []byte
	extranonce2Size int
	offered         *sv1.SubscribeResult
	difficulty      difficulty.Difficulty
	versionMask     uint32
	job             *ClientJob // latest
	greeting        string     // the last client.show_message before live
	logged          int        // lines that the pool had written to the log

	mu     sync.Mutex
	lastID uint64                 // of a request
	shares map[uint64]*clientCall // without a reply; nil when no more are taken
	err    error                  // why the session is to end
	until  time.Time              // when, with err
}

// A clientCall is a share without a reply.
type clientCall struct {
	sent  time.Time
	reply chan ClientVerdict // has room for the one there is
}

// A reconnectError ends a session because the pool sent client.reconnect.
type reconnectError struct {
	pool clientPool
	wait time.Duration
}

func (e *reconnectError) Error() string {
	return fmt.Sprintf("the pool sent client.reconnect to %s, in %v", e.pool.addr(), e.wait)
}

func newClientSession(c *Client, p clientPool, conn net.Conn) *clientSession {
	c.mu.Lock()
	c.sessions++
	id := c.sessions
	c.mu.Unlock()
	return &clientSession{
		c: c, pool: p, id: id, conn: conn,
		r:          sv1.NewReader(conn, c.opts.MaxLine),
		out:        make(chan []byte, clientQueue),
		slots:      make(chan struct{}, c.opts.MaxInFlight),
		gone:       make(chan struct{}),
		calls:      map[uint64]func(*sv1.Message) error{},
		difficulty: 1,
		shares:     map[uint64]*clientCall{},
	}
}

// login connects to a pool and returns a session that is logged in and that nobody reads, to be served or closed.
func (c *Client) login(ctx context.Context, p *clientPool) (*clientSession, error) {
	fail := func(doing string, err error) error {
		return fmt.Errorf("stratum: client: %s %s: %w", doing, p, err)
	}
	slow := fmt.Errorf("not logged in within %v", c.opts.LoginTimeout)
	ctx, cancel := context.WithTimeoutCause(ctx, c.opts.LoginTimeout, slow)
	defer cancel()
	conn, err := c.opts.Dial(ctx, "tcp", p.addr())
	if err != nil {
		return nil, fail("dial", err)
	}
	if p.tls {
		config := &tls.Config{}
		if c.opts.TLS != nil {
			config = c.opts.TLS.Clone()
		}
		if config.ServerName == "" {
			config.ServerName = p.host
		}
		secure := tls.Client(conn, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, fail("TLS with", err)
		}
		conn = secure
	}
	s := newClientSession(c, *p, conn)
	s.writer.Go(s.write)
	release := onDone(ctx, func() { s.finish(context.Cause(ctx), 0) })
	err = s.begin()
	for err == nil && !s.authorized {
		err = s.step()
	}
	if !release() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		s.close()
		return nil, fail("log in to", err)
	}
	return s, nil
}

// serve reads until the session ends and returns why.
func (s *clientSession) serve() error {
	s.live = true
	if s.greeting != "" {
		s.showMessage(s.greeting)
	}
	if s.job != nil {
		s.c.noteJob()
		s.c.deliver(s.job)
	}
	for {
		if err := s.step(); err != nil {
			return fmt.Errorf("stratum: client: %s: %w", &s.pool, err)
		}
	}
}

// close ends everything that the session has begun. Shares without a reply stay without one.
func (s *clientSession) close() {
	s.mu.Lock()
	s.shares = nil
	if s.err == nil {
		s.err = net.ErrClosed
	}
	s.mu.Unlock()
	close(s.gone)
	s.conn.Close()
	s.writer.Wait()
}

// finish lets the session end with err: at once, or within a time when there are shares to be answered. It takes no
// more of them.
func (s *clientSession) finish(err error, within time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	s.err, s.until = err, time.Now().Add(within)
	if within <= 0 || len(s.shares) == 0 {
		s.until = time.Unix(1, 0)
	}
	if s.conn.SetReadDeadline(s.until) != nil {
		s.conn.Close()
	}
}

// step reads and handles one line. An error ends the session.
func (s *clientSession) step() error {
	if err := s.setDeadline(); err != nil {
		return err
	}
	line, err := s.r.ReadLine()
	if err == nil {
		return s.handle(line)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil:
		return s.err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("no line from the pool for %v", s.c.opts.ReadTimeout)
	case errors.Is(err, io.EOF):
		return errors.New("the pool closed the connection")
	}
	return err
}

// setDeadline bounds the wait for the next line, or returns why there is nothing more to wait for.
func (s *clientSession) setDeadline() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var at time.Time
	switch {
	case s.err != nil && len(s.shares) == 0:
		return s.err
	case s.err != nil:
		at = s.until
	case s.c.opts.ReadTimeout > 0:
		at = time.Now().Add(s.c.opts.ReadTimeout)
	}
	// A connection that has failed may have left lines in the reader. It fails again when they are read.
	_ = s.conn.SetReadDeadline(at)
	return nil
}

// write writes what is queued, several lines at once where there are, and something to be heard when there is nothing:
// pools give up on miners that say nothing for some minutes, BTCPool after ten, and a watcher has nothing to say.
func (s *clientSession) write() {
	var buf []byte
	silent := time.NewTimer(max(s.c.opts.KeepAlive, 0))
	defer silent.Stop()
	for {
		if s.c.opts.KeepAlive > 0 {
			silent.Reset(s.c.opts.KeepAlive)
		} else {
			silent.Stop()
		}
		select {
		case line := <-s.out:
			buf = append(buf[:0], line...)
		case <-silent.C:
			buf = sv1.AppendPing(buf[:0], pingID)
		case <-s.gone:
			return
		}
		for more := true; more && len(buf) < clientWrite; {
			select {
			case line := <-s.out:
				buf = append(buf, line...)
			default:
				more = false
			}
		}
		err := error(nil)
		if s.c.opts.WriteTimeout > 0 {
			err = s.conn.SetWriteDeadline(time.Now().Add(s.c.opts.WriteTimeout))
		}
		if err == nil {
			_, err = s.conn.Write(buf)
		}
		switch {
		case err == nil:
			continue
		case errors.Is(err, os.ErrDeadlineExceeded):
			err = fmt.Errorf("the pool took nothing for %v", s.c.opts.WriteTimeout)
		}
		// What the pool said before it went away may hold replies.
		s.finish(err, clientLastWords)
		return
	}
}

var errClientQueue = errors.New("the pool does not read")

// request queues a request of the reader's own and hands the reply to apply, if that is not nil.
func (s *clientSession) request(encode func(dst []byte, id uint64) []byte, apply func(*sv1.Message) error) error {
	s.mu.Lock()
	s.lastID++
	id := s.lastID
	s.mu.Unlock()
	if apply != nil {
		s.calls[id] = apply
	}
	select {
	case s.out <- encode(nil, id):
		return nil
	default:
		return errClientQueue
	}
}

// answer queues the answer to a request of the pool. A pool that asks faster than it reads gets fewer answers.
func (s *clientSession) answer(line []byte) {
	select {
	case s.out <- line:
	default:
	}
}

// begin sends what does not depend on an answer. Some old pools never answer mining.configure.
func (s *clientSession) begin() error {
	o := &s.c.opts
	configure := sv1.Configure{
		VersionRolling:         o.VersionMask != 0,
		VersionRollingMask:     o.VersionMask,
		MinimumDifficulty:      o.MinimumDifficulty != 0,
		MinimumDifficultyValue: float64(o.MinimumDifficulty),
		SubscribeExtranonce:    o.SubscribeExtranonce,
	}
	if configure.VersionRolling || configure.MinimumDifficulty || configure.SubscribeExtranonce {
		err := s.request(func(dst []byte, id uint64) []byte {
			return sv1.AppendConfigureRequest(dst, id, &configure)
		}, s.configured)
		if err != nil {
			return err
		}
	}
	s.c.mu.Lock()
	resume := s.c.resume[s.pool.index]
	s.c.mu.Unlock()
	return s.subscribe(sv1.Subscribe{Agent: o.Agent, ResumeID: resume})
}

func (s *clientSession) configured(msg *sv1.Message) error {
	if !msg.Accepted() {
		return nil // it does not know BIP 310
	}
	var r sv1.ConfigureResult
	if err := r.Decode(msg.Result); err != nil {
		return err
	}
	s.pushesNonces = r.SubscribeExtranonce
	s.setVersionMask(r.VersionMask)
	return nil
}

// subscribe subscribes, and if that is refused once more without params, which is all that some pools take.
func (s *clientSession) subscribe(with sv1.Subscribe) error {
	return s.request(func(dst []byte, id uint64) []byte {
		return sv1.AppendSubscribeRequest(dst, id, &with)
	}, func(msg *sv1.Message) error {
		if err := replyRefusal(msg); err != nil {
			if with != (sv1.Subscribe{}) {
				return s.subscribe(sv1.Subscribe{})
			}
			return fmt.Errorf("subscribe: %w", err)
		}
		var r sv1.SubscribeResult
		if err := r.Decode(msg.Result); err != nil {
			return err
		}
		if err := s.setExtranonce(r.Extranonce1, r.Extranonce2Size); err != nil {
			return err
		}
		s.subscribed, s.offered = true, &r
		if len(r.SubscriptionID) > maxClientText {
			r.SubscriptionID = ""
		}
		s.c.mu.Lock()
		s.c.resume[s.pool.index] = r.SubscriptionID
		s.c.mu.Unlock()
		return s.authorize()
	})
}

func (s *clientSession) authorize() error {
	login := sv1.Authorize{User: s.pool.user, Password: s.pool.password}
	return s.request(func(dst []byte, id uint64) []byte {
		return sv1.AppendAuthorizeRequest(dst, id, &login)
	}, func(msg *sv1.Message) error {
		if err := replyRefusal(msg); err != nil {
			return fmt.Errorf("authorize %s: %w", login.User, err)
		}
		s.authorized = true
		if d := s.c.opts.SuggestDifficulty; d != 0 {
			err := s.request(func(dst []byte, id uint64) []byte {
				return sv1.AppendSuggestDifficultyRequest(dst, id, float64(d))
			}, ignoreReply)
			if err != nil {
				return err
			}
		}
		if s.c.opts.SubscribeExtranonce && !s.pushesNonces {
			return s.request(sv1.AppendExtranonceSubscribeRequest, ignoreReply)
		}
		return nil
	})
}

func ignoreReply(*sv1.Message) error { return nil }

// replyRefusal returns nil for a request that was granted.
func replyRefusal(msg *sv1.Message) error {
	switch {
	case msg.Accepted():
		return nil
	case msg.Err != nil:
		return &sv1.ReplyError{Code: msg.Err.Code, Message: cleanText(msg.Err.Message)}
	}
	return &sv1.ReplyError{Code: sv1.CodeOther}
}

// cleanText makes a pool's text fit to be shown: at most maxClientText bytes, printable.
func cleanText(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s[:min(len(s), maxClientText)])
	// What was cut in the middle, or was no UTF-8, came out of Map as U+FFFD, three bytes for one.
	return strings.ToValidUTF8(s[:min(len(s), maxClientText)], "")
}

// handle takes one line of the pool. An error ends the session.
func (s *clientSession) handle(line []byte) error {
	var msg sv1.Message
	err := msg.Decode(line)
	if err == nil {
		err = s.take(&msg)
	}
	var reconnect *reconnectError
	var refused *sv1.ReplyError
	if err != nil && !errors.As(err, &reconnect) && !errors.As(err, &refused) && !errors.Is(err, errClientQueue) {
		return fmt.Errorf("the pool sent %.100q: %w", line, err)
	}
	return err
}

func (s *clientSession) take(msg *sv1.Message) error {
	if msg.IsReply {
		return s.takeReply(msg)
	}
	switch msg.Method {
	case sv1.MethodNotify:
		return s.takeNotify(msg.Params)
	case sv1.MethodSetDifficulty:
		var m sv1.SetDifficulty
		if err := m.Decode(msg.Params); err != nil {
			return err
		}
		d := difficulty.Difficulty(m.Difficulty)
		if d < difficulty.Min || d > difficulty.Max {
			return fmt.Errorf("difficulty %v is outside [2^-32, 2^62]", d)
		}
		s.difficulty = d // of the next job
	case sv1.MethodSetExtranonce:
		var m sv1.SetExtranonce
		if err := m.Decode(msg.Params); err != nil {
			return err
		}
		return s.setExtranonce(m.Extranonce1, m.Extranonce2Size)
	case sv1.MethodSetVersionMask:
		var m sv1.SetVersionMask
		if err := m.Decode(msg.Params); err != nil {
			return err
		}
		s.setVersionMask(m.Mask)
	case sv1.MethodReconnect:
		return s.takeReconnect(msg.Params)
	case sv1.MethodShowMessage:
		var m sv1.ShowMessage
		if m.Decode(msg.Params) == nil {
			s.showMessage(cleanText(m.Text))
		}
	case sv1.MethodPing:
		if msg.ID != nil {
			s.answer(sv1.AppendTextResult(nil, msg.ID, "pong"))
		}
	case sv1.MethodGetVersion:
		if msg.ID != nil {
			s.answer(sv1.AppendTextResult(nil, msg.ID, s.c.opts.Agent))
		}
	default:
		s.c.noteUnknown()
		if msg.ID != nil {
			s.answer(sv1.AppendError(nil, msg.ID, sv1.CodeIllegalMethod, sv1.CodeText(sv1.CodeIllegalMethod)))
		}
	}
	return nil
}

func (s *clientSession) takeReply(msg *sv1.Message) error {
	id, ok := msg.IDNumber()
	if ok && id == pingID {
		return nil // or an error of a pool that knows no mining.ping, which is as good
	}
	if !ok {
		s.c.noteUnknown()
		return nil
	}
	if apply := s.calls[id]; apply != nil {
		delete(s.calls, id)
		return apply(msg)
	}
	s.mu.Lock()
	defer s.mu.Unlock() // so that whoever gives a share up knows whether it was answered
	call := s.shares[id]
	if call == nil {
		s.c.noteUnknown()
		return nil
	}
	delete(s.shares, id)
	v := ClientVerdict{Accepted: msg.Accepted(), Latency: time.Since(call.sent)}
	if !v.Accepted {
		v.Code = sv1.CodeOther
		if msg.Err != nil {
			v.Code, v.Message = msg.Err.Code, cleanText(msg.Err.Message)
		}
	}
	s.c.count(&v)
	call.reply <- v
	return nil
}

// setExtranonce applies from the next job on.
func (s *clientSession) setExtranonce(extranonce1 []byte, size int) error {
	if size > maxClientExtranonce2 {
		return fmt.Errorf("extranonce2 of %d bytes, want 1 to %d", size, maxClientExtranonce2)
	}
	s.extranonce1, s.extranonce2Size = extranonce1, size
	return nil
}

// setVersionMask applies at once, BIP 310. Bits that were not asked for are not granted.
func (s *clientSession) setVersionMask(mask uint32) {
	mask &= s.c.opts.VersionMask
	if mask == s.versionMask {
		return
	}
	s.versionMask = mask
	if s.job == nil {
		return
	}
	same := *s.job
	same.VersionMask = mask
	if s.live {
		same.Clean = false
		s.c.deliver(&same)
	}
	s.job = &same
}

func (s *clientSession) takeNotify(params []byte) error {
	if !s.subscribed {
		return errors.New("mining.notify before the reply to mining.subscribe")
	}
	j := &ClientJob{
		Pool:            s.pool.String(),
		Extranonce1:     s.extranonce1,
		Extranonce2Size: s.extranonce2Size,
		Difficulty:      s.difficulty,
		VersionMask:     s.versionMask,
		Received:        time.Now(),
		pool:            s.pool.index,
		session:         s.id,
	}
	if err := j.Notify.Decode(params); err != nil {
		return err
	}
	if s.job == nil || !s.live {
		j.Clean = true // what a miner has is of another connection; until live there is only the latest job
	}
	s.job = j
	if s.live {
		s.c.noteJob()
		s.c.deliver(j)
	}
	return nil
}

func (s *clientSession) takeReconnect(params []byte) error {
	var m sv1.Reconnect
	err := m.Decode(params)
	to := s.pool
	if err == nil {
		to, err = s.c.redirected(s.pool, &m)
	}
	if err != nil {
		s.c.mu.Lock()
		s.c.stats.ReconnectsRefused++
		s.c.mu.Unlock()
		s.log(slog.LevelWarn, "client.reconnect of a pool is not followed",
			"params", cleanText(string(params)), "error", err)
		return nil
	}
	wait := min(time.Duration(m.WaitSeconds)*time.Second, max(s.c.opts.MaxReconnectWait, 0))
	end := &reconnectError{pool: to, wait: wait}
	if !s.live {
		return end
	}
	// The pool may still answer what it has got.
	s.finish(end, s.c.opts.DrainTimeout)
	return nil
}

func (s *clientSession) showMessage(text string) {
	if !s.live {
		s.greeting = text
		return
	}
	s.log(slog.LevelInfo, "message of a pool", "text", text)
	if hook := s.c.opts.Hooks.Message; hook != nil {
		hook(s.pool.String(), text)
	}
}

// log logs what a pool may send as often as it likes, the first few times.
func (s *clientSession) log(level slog.Level, msg string, args ...any) {
	if s.logged++; s.logged > maxClientLog {
		level = slog.LevelDebug
	}
	s.c.opts.Logger.With("pool", s.pool.String()).Log(context.Background(), level, msg, args...)
}

// takes reports whether shares of a job can be submitted here: it came over this connection, or over an earlier one
// whose extranonce the pool has given to this one.
func (s *clientSession) takes(j *ClientJob) bool {
	return j.session == s.id ||
		j.session != 0 && j.pool == s.pool.index && j.Extranonce2Size == s.offered.Extranonce2Size &&
			bytes.Equal(j.Extranonce1, s.offered.Extranonce1)
}

// submit sends a share and waits for the reply.
func (s *clientSession) submit(ctx context.Context, share *ClientShare) (ClientVerdict, error) {
	// A context that has ended sends nothing.
	if ctx.Err() != nil {
		return ClientVerdict{}, context.Cause(ctx)
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return ClientVerdict{}, context.Cause(ctx)
	case <-s.gone:
		return ClientVerdict{}, ErrNotConnected
	}
	call := &clientCall{sent: time.Now(), reply: make(chan ClientVerdict, 1)}
	s.mu.Lock()
	if s.err != nil || s.shares == nil {
		s.mu.Unlock()
		return ClientVerdict{}, ErrNotConnected
	}
	s.lastID++
	id := s.lastID
	s.shares[id] = call
	s.mu.Unlock()

	worker := share.Worker
	if worker == "" {
		worker = s.pool.user
	}
	line := sv1.AppendSubmitRequest(nil, id, &sv1.SubmitRequest{
		Worker: worker, JobID: share.Job.JobID, Extranonce2: share.Extranonce2, NTime: share.NTime, Nonce: share.Nonce,
		VersionBits: share.VersionBits, HasVersionBits: share.Job.VersionMask != 0,
	})
	forget := func() {
		s.mu.Lock()
		delete(s.shares, id)
		s.mu.Unlock()
	}
	select {
	case s.out <- line:
	case <-ctx.Done():
		forget()
		return ClientVerdict{}, context.Cause(ctx)
	case <-s.gone:
		return ClientVerdict{}, ErrNotConnected
	}

	var timeout <-chan time.Time
	if s.c.opts.ReplyTimeout > 0 {
		timeout = time.After(s.c.opts.ReplyTimeout)
	}
	var err error
	select {
	case v := <-call.reply:
		return v, nil
	case <-ctx.Done():
		err = fmt.Errorf("%w: %w", ErrUnanswered, context.Cause(ctx))
	case <-timeout:
		err = fmt.Errorf("%w for %v", ErrUnanswered, s.c.opts.ReplyTimeout)
	case <-s.gone:
		err = fmt.Errorf("%w: the connection has ended", ErrUnanswered)
	}
	forget()
	select {
	case v := <-call.reply: // it came in the meantime
		return v, nil
	default:
		return ClientVerdict{}, err
	}
}
