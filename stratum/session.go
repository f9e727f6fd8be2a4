package stratum

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
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
)

const (
	maxFailedLogins  = 3
	maxMalformed     = 3 // lines within malformedWindow
	malformedWindow  = time.Minute
	maxSentJobs      = 256
	maxPending       = 64
	authorizeTimeout = 10 * time.Second
)

// A Session is one connected miner. Its methods may be called at any time, by anyone.
type Session struct {
	srv    *Server
	prefix uint32 // extranonce1
	remote netip.AddrPort
	since  time.Time
	out    outbox
	reader idleReader

	// What follows belongs to the session's own goroutine.
	held          *scratch // taken from the pool for the read under way
	partial       []byte   // the beginning of a line
	validator     share.Validator
	deadline      time.Time // the read deadline that is set
	subscribed    bool
	suggested     difficulty.Difficulty // before there is a policy; 0 when none
	failedLogins  int
	malformed     int
	malformedFrom time.Time
	reconnectSent bool
	rejects       rejectRing
	target        difficulty.Target // of targetOf, the difficulty judged by last
	targetOf      difficulty.Difficulty

	// mu guards what jobs are pushed by, for the goroutines that push and the session's own.
	mu          sync.Mutex
	agent       string
	worker      share.Worker
	workerID    int64
	userID      int32
	policy      difficulty.Policy
	fixed       difficulty.Difficulty // the miner's own wish where the policy cannot take it; 0 when none
	floorOption difficulty.Difficulty // md= in the password
	floorBIP310 difficulty.Difficulty // minimum-difficulty
	ready       bool                  // subscribed and authorized: jobs may be sent
	sent        []sentJob             // ascending by age
	nextShort   uint8
	sentDiff    difficulty.Difficulty // last set_difficulty; 0 before the first
	lastPrev    job.Hash              // of the last job sent
}

// A sentJob is a job under the short id that the miner knows it by, with the difficulty that went out with it.
type sentJob struct {
	job        *job.Job
	difficulty difficulty.Difficulty
	short      uint8
}

// scratch is what a session needs while it has something to do.
type scratch struct {
	buf     []byte // a read, behind the beginning of its first line
	out     []byte // replies
	pending []submit
	shares  []share.Share
}

// A submit is a judged share that has not been answered.
type submit struct {
	id      []byte // JSON token; borrows from the read buffer
	verdict share.Verdict
}

func newScratch(maxLine int) *scratch {
	return &scratch{
		buf:     make([]byte, maxLine+2),
		out:     make([]byte, 0, 4<<10),
		pending: make([]submit, 0, maxPending),
		shares:  make([]share.Share, 0, maxPending),
	}
}

func newSession(srv *Server, conn net.Conn, prefix uint32, now time.Time) *Session {
	s := &Session{srv: srv, prefix: prefix, remote: remoteAddr(conn), since: now}
	s.out.init(conn, srv.opts.WriteTimeout, srv.opts.MaxQueue)
	s.validator.Init(&srv.opts.Validation)
	if sc, ok := conn.(syscall.Conn); ok && canWaitRead {
		if raw, err := sc.SyscallConn(); err == nil {
			s.reader.init(raw, s)
		}
	}
	return s
}

// Prefix returns the session's extranonce1, which is its id in share records too.
func (s *Session) Prefix() uint32 { return s.prefix }

// Remote returns the miner's address.
func (s *Session) Remote() netip.AddrPort { return s.remote }

// Since returns when the miner connected.
func (s *Session) Since() time.Time { return s.since }

// Agent returns the name and version that the miner's software gave, at most 30 bytes of it, with the characters that
// names may have.
func (s *Session) Agent() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.agent
}

// Worker returns who mines here and the user's number, and 0 as long as nobody was let in.
func (s *Session) Worker() (share.Worker, int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.worker, s.userID
}

// Difficulty returns the difficulty of the last job sent, 0 before the first.
func (s *Session) Difficulty() difficulty.Difficulty {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sentDiff
}

func (s *Session) isAuthorized() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.userID != 0
}

// authorized is isAuthorized for the session's own goroutine, which alone changes it.
func (s *Session) authorized() bool { return s.userID != 0 }

// serve reads and answers until the connection ends.
func (s *Session) serve(ctx context.Context) {
	if hook := s.srv.opts.Hooks.Connected; hook != nil {
		hook(s)
	}
	reason := s.loop(ctx)
	s.mu.Lock()
	s.ready = false
	s.mu.Unlock()
	s.out.conn.Close()
	s.srv.forget(s)

	if err := s.out.failure(); err != nil && !errors.Is(reason, errStopping) {
		reason = err
	}
	worker, user := s.Worker()
	s.srv.opts.Logger.LogAttrs(ctx, slog.LevelDebug, "miner left",
		slog.String("remote", s.remote.String()), slog.String("worker", worker.String()), slog.Any("reason", reason))
	if user == 0 && (errors.Is(reason, errNotStratum) || errors.Is(reason, errLongLine)) {
		s.srv.opts.Logger.Warn("connection does not speak Stratum", "remote", s.remote.String(), "reason", reason)
	}
	if hook := s.srv.opts.Hooks.Disconnected; hook != nil {
		hook(s, reason)
	}
}

func (s *Session) loop(ctx context.Context) error {
	for {
		if s.srv.draining.Load() {
			return errStopping
		}
		if err := s.extendDeadline(); err != nil {
			return err
		}
		n, err := s.read()
		if n > 0 {
			err = errors.Join(s.process(ctx, n), err)
		}
		s.release()
		switch {
		case err == nil:
		case s.srv.draining.Load():
			return errStopping
		case errors.Is(err, os.ErrDeadlineExceeded):
			if !s.authorized() && time.Since(s.since) >= s.srv.opts.LoginTimeout && s.srv.opts.LoginTimeout > 0 {
				return errSlowLogin
			}
			return errSilent
		default:
			return err
		}
	}
}

// extendDeadline gives the miner its full time again. A deadline that has most of its time left is kept, which saves a
// timer operation a read.
func (s *Session) extendDeadline() error {
	o := &s.srv.opts
	silence := o.IdleTimeout
	now := time.Now()
	var want time.Time
	if !s.authorized() {
		silence = o.HandshakeTimeout
	}
	if silence > 0 {
		want = now.Add(silence)
	}
	if !s.authorized() && o.LoginTimeout > 0 {
		if limit := s.since.Add(o.LoginTimeout); want.IsZero() || limit.Before(want) {
			want = limit
		}
	}
	if !want.IsZero() && !s.deadline.IsZero() && !want.Before(s.deadline) && want.Sub(s.deadline) < silence/16 {
		return nil
	}
	if want.Equal(s.deadline) {
		return nil
	}
	s.deadline = want
	if err := s.out.conn.SetReadDeadline(want); err != nil {
		return err
	}
	if s.srv.draining.Load() { // drain may have set its own deadline just before
		return errStopping
	}
	return nil
}

// read waits for data and leaves it in held.buf, behind the beginning of a line from before. It returns where the data
// ends.
func (s *Session) read() (int, error) {
	var n int
	var err error
	if s.reader.raw != nil {
		n, err = s.reader.read()
	} else {
		n, err = s.out.conn.Read(s.readBuffer())
	}
	if n > 0 {
		n += len(s.partial)
	}
	return n, err
}

// readBuffer implements the taking of a buffer for idleReader.
func (s *Session) readBuffer() []byte {
	if s.held == nil {
		s.held = s.srv.scratch.Get().(*scratch)
	}
	copy(s.held.buf, s.partial)
	return s.held.buf[len(s.partial):]
}

// release gives the buffers back.
func (s *Session) release() {
	if s.held != nil {
		s.srv.scratch.Put(s.held)
		s.held = nil
	}
}

// process handles the complete lines among the first n bytes of held.buf and keeps the rest.
func (s *Session) process(ctx context.Context, n int) error {
	sc := s.held
	data := sc.buf[:n]
	sc.out = sc.out[:0]
	var err error
	for err == nil {
		line, used := sv1.NextLine(data)
		if used == 0 {
			break
		}
		data = data[used:]
		if limit := s.lineLimit(); len(line) > limit {
			err = errLongLine
		} else if len(line) > 0 {
			err = s.handle(ctx, sc, line)
		}
	}
	if settleErr := s.settle(ctx, sc); err == nil {
		err = settleErr
	}
	if writeErr := s.out.write(sc.out); err == nil {
		err = writeErr
	}
	if err != nil {
		return err
	}
	if len(data) >= s.lineLimit() {
		return errLongLine
	}
	if len(data) > 0 && !s.authorized() && !startsRequest(data[0]) {
		return errNotStratum
	}
	if len(data) == 0 {
		s.partial = nil
	} else {
		// A fresh slice: partial may be the old beginning of this very line.
		s.partial = bytes.Clone(data)
	}
	return nil
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

// push sends a job that everybody gets, and reports whether this session did. dst is scratch.
func (s *Session) push(dst []byte, enc *encodedJob, clean bool, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ready {
		return false
	}
	dst = s.appendJob(dst[:0], enc, clean, now)
	// The lock is held so that jobs reach the miner in the order of their ids; push does not block.
	return s.out.push(dst) == nil
}

// appendJob appends a job as this session is to see it, with its difficulty where that changes. mu is held.
func (s *Session) appendJob(dst []byte, enc *encodedJob, clean bool, now time.Time) []byte {
	j := enc.job
	if n := len(s.sent); n > 0 && s.sent[n-1].job == j {
		// Nothing newer exists. The same work under a new id would make the miner do it again, so the job keeps its
		// id; what matters is that the line shows the connection to be alive.
		return sv1.AppendNotifyFrom(dst, uint64(s.sent[n-1].short), enc.body, false)
	}
	clean = clean || j.Clean || len(s.sent) == 0 || j.PrevHash != s.lastPrev
	d := s.nextDifficulty(now)
	if d != s.sentDiff {
		dst = sv1.AppendSetDifficulty(dst, float64(d))
		s.sentDiff = d
	}
	s.forgetJobs(now)
	s.sent = append(s.sent, sentJob{job: j, difficulty: d, short: s.nextShort})
	s.lastPrev = j.PrevHash
	dst = sv1.AppendNotifyFrom(dst, uint64(s.nextShort), enc.body, clean)
	s.nextShort++
	return dst
}

// forgetJobs makes room for one more. Stale jobs are kept as long as others: a block on one is still handed on. mu is
// held.
func (s *Session) forgetJobs(now time.Time) {
	drop := 0
	for drop < len(s.sent) && s.srv.recent.State(s.sent[drop].job, now) == job.Expired {
		drop++
	}
	drop = max(drop, len(s.sent)-maxSentJobs+1)
	if drop > 0 {
		n := copy(s.sent, s.sent[drop:])
		clear(s.sent[n:])
		s.sent = s.sent[:n]
	}
}

// nextDifficulty asks the policy. mu is held.
func (s *Session) nextDifficulty(now time.Time) difficulty.Difficulty {
	d := s.fixed
	if d == 0 {
		d = s.policy.Next(now)
	}
	return s.srv.assignable(d, max(s.floorOption, s.floorBIP310))
}

// lookup finds a job by the id that the miner knows it by.
func (s *Session) lookup(id uint64) (sentJob, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.sent) - 1; i >= 0; i-- {
		if uint64(s.sent[i].short) == id {
			return s.sent[i], true
		}
	}
	return sentJob{}, false
}

// extranonce1 returns the prefix as it stands in the coinbase and, in hexadecimal, in messages.
func (s *Session) extranonce1() (b [job.Extranonce1Size]byte) {
	binary.BigEndian.PutUint32(b[:], s.prefix)
	return b
}

// malformedLine counts a line that is no request and decides whether the miner may go on.
func (s *Session) malformedLine(err error) error {
	s.srv.counters.malformed.Add(1)
	if !s.authorized() {
		return fmt.Errorf("%w: %w", errNotStratum, err)
	}
	if now := time.Now(); s.malformed == 0 || now.Sub(s.malformedFrom) > malformedWindow {
		s.malformed, s.malformedFrom = 0, now
	}
	if s.malformed++; s.malformed >= maxMalformed {
		return fmt.Errorf("%w: %w", errNotStratum, err)
	}
	return nil
}

// A rejectRing tells when a miner sends so many bad shares that further ones are answered but no longer recorded: the
// twentieth within a minute, as in BTCPool.
type rejectRing struct {
	at   []int64 // Unix seconds of the last ones
	next int
}

const (
	rejectsRecorded = 19
	rejectWindow    = 60
)

func (r *rejectRing) record(now int64) bool {
	if len(r.at) < rejectsRecorded {
		r.at = append(r.at, now)
		return true
	}
	oldest := r.at[r.next]
	r.at[r.next] = now
	r.next = (r.next + 1) % rejectsRecorded
	return now-oldest >= rejectWindow
}

// idleReader reads from a socket without holding a buffer while it waits.
type idleReader struct {
	raw  syscall.RawConn
	sess *Session
	n    int
	err  error
	step func(fd uintptr) bool // made once: a closure for each read would be garbage for each read
}

func (r *idleReader) init(raw syscall.RawConn, sess *Session) {
	r.raw, r.sess = raw, sess
	r.step = func(fd uintptr) bool {
		n, again, err := readSocket(fd, sess.readBuffer())
		if again {
			sess.release()
			return false
		}
		r.n, r.err = n, err
		return true
	}
}

func (r *idleReader) read() (int, error) {
	r.n, r.err = 0, nil
	if err := r.raw.Read(r.step); err != nil {
		return 0, err
	}
	if r.n == 0 && r.err == nil {
		return 0, io.EOF
	}
	return r.n, r.err
}
