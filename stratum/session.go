package stratum

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum/sv1"
)

// Why a session ended, where it is not a matter of the network.
var (
	errStopping   = errors.New("the server is stopping")
	errSilent     = errors.New("silent for too long")
	errSlowLogin  = errors.New("not authorized in time")
	errLongLine   = errors.New("line too long")
	errNotStratum = errors.New("not Stratum")
	errManyLogins = errors.New("too many failed logins")
	errTooEasy    = errors.New("the network's difficulty is below what an agent can be told on this connection")
)

const (
	maxFailedLogins = 3
	maxMalformed    = 3 // lines within malformedWindow
	malformedWindow = time.Minute
	maxSentJobs     = 256
	maxPending      = 64
	maxCoWorkers    = 256 // on one connection, with MultiWorker
	longTimeout     = 7 * 24 * time.Hour
)

// A State says how far a session has come.
type State uint8

// The states of a session, in order.
const (
	Connected   State = iota // nothing yet
	Subscribed               // mining.subscribe was answered
	Registering              // the Authorizer is being asked
	Authorized               // a worker was let in
)

// String returns the state in lower case, as BTCPool's metrics name it.
func (s State) String() string {
	switch s {
	case Connected:
		return "connected"
	case Subscribed:
		return "subscribed"
	case Registering:
		return "registering"
	case Authorized:
		return "authenticated"
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// A Session is one connection: a miner, or an agent with many behind it. Its methods may be called at any time, by
// anyone.
type Session struct {
	srv    *Server
	port   *Port
	done   func() // tells Serve that the session has ended
	out    outbox
	polled polledSession

	since    int64         // Server.clock
	kept     int64         // Server.clock of when the difficulty was saved last, for lookAfter alone
	deadline atomic.Int64  // Server.clock until when it may be silent; 0 is for ever
	state    atomic.Uint32 // a State
	expired  atomic.Bool   // deadline has passed
	hurries  atomic.Bool   // the policy of the miner, or of a machine behind the agent, may ask for a job out of turn
	gone     chan struct{} // closed when the session has ended; made, under Server.mu, when somebody waits for that

	// What follows belongs to whoever works for the session: its goroutine, or one of the poller's.
	held          *scratch          // taken from the pool for the read under way
	partial       []byte            // the beginning of a line
	login         *share.Worker     // as the Authorizer knows it, which SingleUser may credit otherwise; written under mu
	coworkers     map[string]credit // the others that a proxy authorized, by the name it gave
	agents        *agentState       // nil for all but agents
	validator     share.Validator
	guard         sessionGuard
	pause         time.Duration // before the next read, of a miner that sends too much
	suggested     difficulty.Difficulty
	resumeFrom    *difficulty.State     // what was known of the miner in the session that it resumes
	resumeWish    difficulty.Difficulty // what the miner had asked for in it
	malformedFrom int64                 // Server.clock
	userID        int32                 // of login; written under mu
	mask          uint32                // the version bits agreed on
	maskTold      uint32                // those that the miner was last told
	stage         stage
	malformed     uint8
	failedLogins  uint8
	greeted       bool // the guard knows of it
	secured       bool // TLS
	subres        bool // an agent that wants SUBMIT_RESPONSE frames
	subscribed    bool
	reconnectSent bool
	patient       bool // may be silent for longTimeout
	cleanChanges  bool // jobs with a new difficulty are sent as clean

	// mu guards what jobs are pushed by, for the goroutines that push and the session's own.
	mu        sync.Mutex
	ready     bool // subscribed and authorized: jobs may be sent
	ended     bool
	learned   bool // something about difficulties that was not saved yet
	canMove   bool // takes mining.set_extranonce
	ids       idForm
	prefix    uint32   // extranonce1
	jobs      uint32   // sent in all
	refreshed uint32   // the last ntime that a job was sent again with
	moved     []uint32 // prefixes it had before on this connection
	remote    netip.AddrPort
	version   string // its answer to client.get_version
	chain     *chain
	miner     miner
	sent      []sentJob             // ascending by age
	last      *job.Job              // the last job sent
	sentDiff  difficulty.Difficulty // last set_difficulty; 0 before the first
	before    difficulty.Difficulty // what it was before the last change; 0 when it never changed
	changed   int64                 // Server.clock of that
	hurried   int64                 // Server.clock of the last job out of turn
}

// A sentJob is a job with the difficulty and the extranonce1 that held when it went out.
type sentJob struct {
	*encodedJob
	difficulty difficulty.Difficulty // of an agent it is each machine's own
	prefix     uint32
	seq        uint32 // counts the session's jobs
}

// scratch is what a session needs while it has something to do.
type scratch struct {
	op      *socketOp
	buf     []byte // a read, behind the beginning of its first line
	out     []byte // replies
	pending []submit
	shares  []share.Share
	now     time.Time // when buf was read

	observed []*miner // whose policies heard of shares and may want to hurry
}

// A submit is a judged share that has not been answered.
type submit struct {
	id      []byte // JSON token; borrows from the read buffer
	index   uint16 // of an agent's frame, which has no id
	frame   bool
	verdict share.Verdict
}

// readSize is how much is read at a time. It holds some dozens of submits, and the beginning of a line of any length.
const readSize = maxLineBeforeLogin + 2

func newScratch() any { return &scratch{op: newSocketOp(), buf: make([]byte, readSize)} }

func newSession(srv *Server, port *Port, conn net.Conn, prefix uint32, now time.Time) *Session {
	s := &Session{srv: srv, port: port, prefix: prefix, remote: remoteAddr(conn), since: srv.clock(now), stage: stageSniff}
	s.kept = s.since
	if port.trustedPeer(s.remote) {
		s.stage = stageProxy
	}
	s.miner.low = srv.opts.MinDifficulty
	if port.MinDifficulty != 0 {
		s.miner.low = port.MinDifficulty
	}
	s.hurried = math.MinInt64 / 2
	s.out.init(s, conn)
	s.validator.Init(&srv.opts.Validation)
	return s
}

// Prefix returns the session's extranonce1, which is its id in share records too. It changes when the miner resumes an
// earlier session, and by [Session.Move].
func (s *Session) Prefix() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.prefix
}

// Remote returns the miner's address, which behind a trusted proxy is the proxy's until its header has come.
func (s *Session) Remote() netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.remote
}

// Since returns when the miner connected.
func (s *Session) Since() time.Time { return s.srv.made.Add(time.Duration(s.since)) }

// State returns how far the session has come.
func (s *Session) State() State { return State(s.state.Load()) }

// Agent returns the name and version that the miner's software gave, at most 30 bytes of it, with the characters that
// names may have.
func (s *Session) Agent() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.miner.agent
}

// Worker returns who mines here and the user's number, and 0 as long as nobody was let in.
func (s *Session) Worker() (share.Worker, int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.miner.worker, s.miner.userID
}

// Chain returns the chain that the session mines, "" where the server has no Router.
func (s *Session) Chain() job.Chain {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.chain == nil {
		return ""
	}
	return s.chain.name
}

// Difficulty returns the difficulty of the last job sent, 0 before the first. Of an agent it is the one that its
// machines start at.
func (s *Session) Difficulty() difficulty.Difficulty {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sentDiff
}

// Version returns what the miner answered to [Session.AskVersion], "" before it did.
func (s *Session) Version() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.version
}

// authorized is for the session's own goroutine, which alone changes it.
func (s *Session) authorized() bool { return s.miner.userID != 0 }

// ShowMessage sends a text for the people who look after the miner. Many miners ignore it. Like all methods that send it
// does not wait for the miner; an error says that the connection has ended.
func (s *Session) ShowMessage(text string) error {
	return s.out.push(sv1.AppendShowMessage(nil, text))
}

// Reconnect asks the miner to connect again, to r.Host and r.Port where these are set. Miners follow to another host
// only within the same domain, and some not at all.
func (s *Session) Reconnect(r sv1.Reconnect) error {
	return s.out.push(sv1.AppendReconnect(nil, r))
}

// AskVersion sends client.get_version; what the miner answers is returned by [Session.Version].
func (s *Session) AskVersion() error { return s.out.push(sv1.AppendGetVersion(nil, versionRequest)) }

// Ping sends mining.ping. Some miners answer and others do not, which changes nothing.
func (s *Session) Ping() error { return s.out.push(sv1.AppendPing(nil, pingRequest)) }

// The ids of the server's own requests.
const (
	versionRequest = 1
	pingRequest    = 2
)

// ErrFixedExtranonce is returned by [Session.Move] for a miner that has not said that it can change its extranonce, or
// cannot change it now.
var ErrFixedExtranonce = errors.New("stratum: the miner does not take another extranonce")

// Move gives the session another extranonce1, which holds from the next job on; shares for earlier jobs are judged with
// the one they were sent with. The error is ErrFixedExtranonce for a miner that has not asked for
// mining.extranonce.subscribe, has no job yet or is an agent, and ErrNoExtranonce when there is none.
func (s *Session) Move() error {
	now := time.Now()
	s.mu.Lock()
	ok := s.ready && s.canMove && s.agents == nil
	s.mu.Unlock()
	if !ok {
		return ErrFixedExtranonce
	}
	prefix, err := s.srv.prefixes.Lease(now)
	if err != nil {
		return err
	}
	if err := s.srv.rename(s, prefix); err != nil {
		s.srv.prefixes.Release(prefix, now)
		return err
	}
	return nil
}

// run reads and answers until the connection ends, for a session with a goroutine of its own.
func (s *Session) run(ctx context.Context) {
	s.end(ctx, s.loop(ctx))
}

func (s *Session) loop(ctx context.Context) error {
	var first [1]byte
	if s.stage == stageSniff && !s.greeted { // otherwise the address is not known yet
		if err := s.meet(); err != nil {
			return err
		}
	}
	for {
		if err := s.mayRead(); err != nil {
			return err
		}
		if err := s.out.conn.SetReadDeadline(s.readDeadline()); err != nil {
			return err
		}
		if s.srv.draining.Load() { // drain may have set its own deadline just before
			return errStopping
		}
		// No buffer is held while nothing comes: one byte is waited for, and what came with it is read then. A byte
		// that ends a line or a frame is not made to wait.
		n, err := s.out.stream.Read(first[:])
		if n > 0 {
			sc := s.take()
			space := sc.buf[len(s.partial):]
			space[0] = first[0]
			if !s.completes(first[0]) {
				var more int
				more, err = s.out.stream.Read(space[1:])
				n += more
			}
			if failed := s.process(ctx, len(s.partial)+n); failed != nil {
				err = failed // which says more than how the read ended
			}
			s.release()
			s.extendDeadline()
			if err == nil && s.pause > 0 {
				s.rest(ctx)
			}
		}
		switch {
		case err == nil:
		case s.srv.draining.Load():
			return errStopping
		case errors.Is(err, os.ErrDeadlineExceeded):
			return s.silent()
		default:
			return err
		}
	}
}

// completes reports whether c is certainly the last byte of a line or of an agent's frame.
func (s *Session) completes(c byte) bool {
	n := len(s.partial)
	switch {
	case s.agents == nil:
	case s.agents.skip > 0:
		return s.agents.skip == 1
	case n == frameHeader-1 && s.partial[0] == frameMagic:
		return int(s.partial[2])|int(c)<<8 <= frameHeader
	case n >= frameHeader && s.partial[0] == frameMagic:
		return n+1 == int(binary.LittleEndian.Uint16(s.partial[2:]))
	}
	return c == '\n'
}

// mayRead returns why the session is to end, if it is.
func (s *Session) mayRead() error {
	if s.srv.draining.Load() {
		return errStopping
	}
	if s.expired.Load() {
		if d := s.deadline.Load(); d != 0 && s.srv.clock(time.Now()) >= d {
			return s.silent()
		}
		s.expired.Store(false)
	}
	return s.out.failure()
}

// silent says what a session has been too slow with.
func (s *Session) silent() error {
	limit := s.srv.opts.LoginTimeout
	if !s.authorized() && limit > 0 && s.srv.clock(time.Now())-s.since >= int64(limit) {
		return errSlowLogin
	}
	return errSilent
}

// take takes buffers for a read and puts the beginning of a line from before at the front.
func (s *Session) take() *scratch {
	sc := s.srv.scratch.Get().(*scratch)
	if need := len(s.partial) + readSize/2; need > len(sc.buf) {
		sc.buf = make([]byte, max(need, s.srv.opts.MaxLine+readSize))
	}
	copy(sc.buf, s.partial)
	sc.now = time.Now()
	s.held = sc
	return sc
}

// release gives the buffers back.
func (s *Session) release() {
	s.srv.scratch.Put(s.held)
	s.held = nil
}

// rest does not read for a while, which is all that a miner which sends too much notices at first.
func (s *Session) rest(ctx context.Context) {
	s.mayBlock()
	timer := time.NewTimer(s.pause)
	defer timer.Stop()
	s.pause = 0
	select {
	case <-timer.C:
	case <-s.srv.stopping():
	case <-ctx.Done():
	}
}

// end takes the session apart.
func (s *Session) end(ctx context.Context, reason error) {
	s.mu.Lock()
	s.ready, s.ended = false, true
	s.mu.Unlock()
	abrupt := errors.Is(reason, errSilent) || errors.Is(reason, errSlowReader)
	if !abrupt {
		s.out.flush()
	}
	if err := s.out.failure(); err != nil && !errors.Is(reason, errStopping) {
		reason = err
	}
	if s.polled.by != nil {
		s.polled.by.remove(s)
	}
	s.out.close(abrupt || errors.Is(reason, errSlowReader))
	if !errors.Is(reason, errSilent) {
		// Before the miner can resume the session. Of one that has been silent for long the policy knows less than it did,
		// and the miner may have been at work on another connection since.
		s.keepDifficulties(time.Now(), true)
	}
	s.srv.leave(s, time.Now())

	worker, user := s.Worker()
	s.srv.opts.Logger.LogAttrs(ctx, slog.LevelDebug, "miner left",
		slog.String("remote", s.Remote().String()), slog.String("worker", worker.String()), slog.Any("reason", reason))
	if user == 0 && (errors.Is(reason, errNotStratum) || errors.Is(reason, errLongLine)) {
		s.srv.guard.junk(&s.guard, s.srv.clock(time.Now()))
		s.srv.warn(&s.srv.junkLog, "connection does not speak Stratum", "remote", s.Remote().String(), "reason", reason)
	}
	s.srv.guard.disconnect(&s.guard, s.login, s.srv.clock(time.Now()))
	if user != 0 {
		s.allDead()
	}
	if s.agents != nil {
		s.srv.machines.Add(-int64(len(s.agents.workers)))
	}
	if hook := s.srv.opts.Hooks.Disconnected; hook != nil {
		hook(s, reason)
	}
	s.done()
}

// extendDeadline gives the miner its full time again.
func (s *Session) extendDeadline() {
	o := &s.srv.opts
	now := s.srv.clock(time.Now())
	silence := o.IdleTimeout
	switch {
	case !s.authorized():
		silence = o.HandshakeTimeout
	case s.patient && silence > 0:
		silence = max(silence, longTimeout)
	}
	end := int64(math.MaxInt64)
	if silence > 0 {
		end = now + int64(silence)
	}
	if !s.authorized() && o.LoginTimeout > 0 {
		end = min(end, s.since+int64(o.LoginTimeout))
	}
	if end == math.MaxInt64 {
		end = 0
	}
	s.deadline.Store(end)
}

// readDeadline returns the deadline for a connection's own timer; the poller's sessions are looked through instead.
func (s *Session) readDeadline() time.Time {
	end := s.deadline.Load()
	if end == 0 {
		return time.Time{}
	}
	return s.srv.made.Add(time.Duration(end))
}

// lookAfter does what is done for every session once a second. It ends those of the poller that have been silent for too
// long, and sends jobs to those whose policies are in a hurry. It returns sessions, which is scratch.
func (s *Server) lookAfter(sessions []*Session, now time.Time) []*Session {
	clock := s.clock(now)
	sessions = s.snapshot(sessions)
	for _, sess := range sessions {
		if d := sess.deadline.Load(); d != 0 && clock >= d && sess.polled.state.Load() != pollOff {
			sess.expired.Store(true)
			sess.kick()
			continue
		}
		sess.hurryInSilence(now)
		if clock-sess.kept >= int64(keepEvery) {
			sess.kept = clock
			sess.keepDifficulties(now, false)
		}
	}
	clear(sessions)
	return sessions
}

// process handles the complete lines and frames among the first n bytes of held.buf and keeps the rest.
func (s *Session) process(ctx context.Context, n int) error {
	sc := s.held
	data := sc.buf[:n]
	sc.out = sc.out[:0]
	var err error
	if s.stage != stageOpen {
		var more bool
		if data, more, err = s.preface(sc, data); more {
			s.keep(data)
			return nil
		}
	}
	for err == nil && len(data) > 0 {
		if s.agents != nil && (data[0] == frameMagic || s.agents.skip > 0) {
			var used int
			if used, err = s.handleFrame(ctx, sc, data); used == 0 {
				break
			}
			data = data[used:]
			continue
		}
		if !startsRequest(data[0]) && (!s.authorized() || data[0] == frameMagic) {
			s.srv.counters.malformed.Add(1)
			err = errNotStratum // a frame of somebody who is no agent, or junk
			break
		}
		line, used := sv1.NextLine(data)
		if used == 0 {
			break
		}
		data = data[used:]
		if limit := s.lineLimit(); len(line) > limit {
			err = errLongLine
		} else if len(line) > 0 {
			err = s.handle(ctx, sc, line)
		} else {
			err = s.admitRequest(sc) // it means nothing, and is no way around the limit
		}
	}
	if settleErr := s.settle(ctx, sc); err == nil {
		err = settleErr
	}
	if len(sc.observed) > 0 {
		if err == nil {
			s.hurryAfterShares(sc)
		}
		clear(sc.observed)
		sc.observed = sc.observed[:0]
	}
	if writeErr := s.out.write(sc.out); err == nil {
		err = writeErr
	}
	if err != nil {
		return err
	}
	if len(data) > 0 && data[0] != frameMagic && len(data) >= s.lineLimit() {
		return errLongLine
	}
	s.keep(data)
	return nil
}

// keep holds on to the beginning of a line until the rest has come. It grows like any slice, so that a line which comes
// in single bytes costs no more than one that does not.
func (s *Session) keep(data []byte) {
	if len(data) == 0 {
		s.partial = nil
		return
	}
	s.partial = append(s.partial[:0], data...)
}

func (s *Session) lineLimit() int {
	if s.authorized() {
		return s.srv.opts.MaxLine
	}
	return maxLineBeforeLogin
}

// startsRequest reports whether a JSON object can begin with c: anything else is a TLS hello, an HTTP client or a
// binary frame.
func startsRequest(c byte) bool {
	switch c {
	case '{', ' ', '\t', '\r', '\n':
		return true
	}
	return false
}

// push sends a job that everybody gets, and reports whether this session did. buf is scratch.
func (s *Session) push(buf *[]byte, enc *encodedJob, clean bool, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ready || s.chain != enc.chain {
		return false
	}
	if n := len(s.sent); n > 0 && s.sent[n-1].job == enc.job && s.sent[n-1].prefix != s.prefix {
		// The miner has moved since it was sent this job. Sent again it would have one id for work under two
		// extranonces, and shares on their way would be judged by the wrong one.
		return false
	}
	before, line := s.nextJob((*buf)[:0], enc, clean, now)
	if len(before) > 0 {
		*buf = append(before, line...)
		line = *buf
	}
	// The lock is held so that jobs reach the miner in the order they were made; push does not block.
	return s.out.push(line) == nil
}

// appendJob appends what nextJob says. mu is held.
func (s *Session) appendJob(dst []byte, enc *encodedJob, clean bool, now time.Time) []byte {
	dst, line := s.nextJob(dst, enc, clean, now)
	return append(dst, line...)
}

// nextJob returns the line that tells of a job and appends to dst what goes before it: the difficulty, where that
// changes. mu is held.
func (s *Session) nextJob(dst []byte, enc *encodedJob, clean bool, now time.Time) (before, line []byte) {
	j := enc.job
	if n := len(s.sent); n > 0 && s.sent[n-1].job == j && s.sent[n-1].prefix == s.prefix {
		// Nothing newer exists. The same work under a new id would make the miner do it again, so the job keeps its
		// id; what matters is that the line shows the connection to be alive. A session that was resumed has it from
		// before, and is told what it is worth.
		if d := s.sent[n-1].difficulty; s.sentDiff != d {
			dst = sv1.AppendSetDifficulty(dst, float64(d))
			s.sentDiff = d
			return dst, s.refresh(s.sent[n-1].encodedJob, now)
		}
		return dst, s.lineOf(s.sent[n-1].encodedJob, false)
	}
	clean = clean || j.Clean || s.last == nil || j.PrevHash != s.last.PrevHash
	hadOne := s.sentDiff != 0
	dst, d, changed := s.appendDifficulty(dst, enc, now)
	if changed && s.agents == nil {
		clean = clean || s.cleanChanges && hadOne
	}
	s.remember(enc, d, now)
	return dst, enc.line(s.ids, clean)
}

// appendDifficulty asks for the difficulty of a job that is about to be sent, returns it, and appends what tells of it
// where it is new to the miner, or to some machines of an agent. mu is held.
func (s *Session) appendDifficulty(dst []byte, enc *encodedJob, now time.Time) (_ []byte, d difficulty.Difficulty, changed bool) {
	if s.agents != nil {
		before := len(dst)
		dst = s.appendAgentDifficulties(dst, enc, now)
		return dst, s.sentDiff, len(dst) > before
	}
	if d = s.srv.nextDifficulty(&s.miner, enc, now); d == s.sentDiff {
		return dst, d, false
	}
	dst = sv1.AppendSetDifficulty(dst, float64(d))
	s.before, s.changed, s.sentDiff = s.sentDiff, s.srv.clock(now), d
	return dst, d, true
}

// remember notes a job that is about to be sent. mu is held.
func (s *Session) remember(enc *encodedJob, d difficulty.Difficulty, now time.Time) {
	s.forgetJobs(now)
	if s.sent == nil {
		s.sent = make([]sentJob, 0, 12) // as many as there are within a job's life, mostly
	}
	s.sent = append(s.sent, sentJob{encodedJob: enc, difficulty: d, prefix: s.prefix, seq: s.jobs})
	s.jobs++
	s.last = enc.job
}

// refresh returns the line that has a miner begin a job anew which it had before: at another time, or it would find its
// shares of before again, which are duplicates. mu is held.
func (s *Session) refresh(enc *encodedJob, now time.Time) []byte {
	ntime := s.laterTime(enc.job, now)
	if latest := enc.job.MaxTime; latest != 0 {
		ntime = min(ntime, latest)
	}
	s.refreshed = ntime
	return s.ownLine(enc, ntime, true)
}

// forgetJobs makes room for one more. Stale jobs are kept as long as others: a block on one is still handed on. mu is
// held.
func (s *Session) forgetJobs(now time.Time) {
	drop := 0
	for drop < len(s.sent) && s.sent[drop].state(now) == job.Expired {
		drop++
	}
	drop = max(drop, len(s.sent)-maxSentJobs+1)
	if drop > 0 {
		n := copy(s.sent, s.sent[drop:])
		clear(s.sent[n:])
		s.sent = s.sent[:n]
	}
}

func (e *encodedJob) state(now time.Time) job.State { return e.chain.recent.State(e.job, now) }

// lookup finds a job by the id that the miner knows it by.
func (s *Session) lookup(id uint64) (sentJob, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.sent) - 1; i >= 0; i-- {
		if s.sent[i].lines[s.ids].id == id {
			return s.sent[i], true
		}
	}
	return sentJob{}, false
}

// extranonce1 returns a prefix as it stands in the coinbase and, in hexadecimal, in messages.
func extranonce1(prefix uint32) (b [job.Extranonce1Size]byte) {
	binary.BigEndian.PutUint32(b[:], prefix)
	return b
}

// switchTo moves a session to another chain and reports whether that is a change. Its work on the old chain stays
// valid.
func (s *Session) switchTo(c *chain) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.chain == nil || s.chain == c {
		return false
	}
	s.chain = c
	s.events(SwitchedChain, false)
	s.events(SwitchedChain, true)
	if enc := c.latest.Load(); enc != nil && s.ready {
		_ = s.out.push(s.appendJob(nil, enc, true, time.Now())) // a failure shows at the next write
	}
	return true
}

// malformedLine counts a line that is no request and decides whether the miner may go on. What no miner's mistake can
// look like ends the session at once.
func (s *Session) malformedLine(now time.Time, line []byte, err error) error {
	s.srv.counters.malformed.Add(1)
	if !s.authorized() || bytes.IndexByte(line, 0) >= 0 || bytes.Count(line, []byte{'['})+bytes.Count(line, []byte{'{'}) > 64 {
		return fmt.Errorf("%w: %w", errNotStratum, err)
	}
	if clock := s.srv.clock(now); s.malformed == 0 || clock-s.malformedFrom > int64(malformedWindow) {
		s.malformed, s.malformedFrom = 0, clock
	}
	if s.malformed++; s.malformed >= maxMalformed {
		return fmt.Errorf("%w: %w", errNotStratum, err)
	}
	return nil
}
