package stratum_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum"
	"github.com/poolkit/poolkit/stratum/stratumtest"
	"github.com/poolkit/poolkit/stratum/sv1"
	"github.com/stretchr/testify/require"
)

// POOL_TEST_SWARM is the size of the swarm: how many connections, for how long, and, when a third field says so, how many
// shares a second all of them together send, such as 2000,5m or 2000,5m,300.
const swarmVariable = "POOL_TEST_SWARM"

// Miners that really hash, on real sockets, some with TLS and some agents with machines behind them, come and go,
// politely and not, through new jobs, new blocks and changes of difficulty, and what is true of each share is checked:
// it is answered unless its connection was cut; what was acknowledged is recorded once, at the difficulty and for the
// worker that it was found by; nothing else is recorded as work; and nothing is refused but for a block in between. In
// the end nothing is left behind.
func TestASwarmOnRealSockets(t *testing.T) {
	miners, lasts, rate := 60, 4*time.Second, 400.
	if size := os.Getenv(swarmVariable); size != "" {
		miners, lasts, rate = swarmSize(t, size)
	}
	warm, err := net.Listen("tcp", "127.0.0.1:0") // what the first socket of a process opens stays
	require.NoError(t, err)
	require.NoError(t, warm.Close())
	goroutines, descriptors := runtime.NumGoroutine(), openDescriptors()

	s := newSwarm(t, miners, rate)
	began := time.Now()
	ctx, stop := context.WithTimeout(t.Context(), lasts)
	defer stop()
	s.broadcast(true)
	var wg sync.WaitGroup
	for i := range miners {
		wg.Go(func() {
			// Not all at once, for agents give up a pool that takes 15 seconds to answer, as this one may while it shares
			// two processors with 2,000 miners and the race detector.
			select {
			case <-time.After(lasts / 10 * time.Duration(i) / time.Duration(miners)):
			case <-ctx.Done():
				return
			}
			if i%40 == 7 {
				s.agent(ctx, i)
			} else {
				s.miner(ctx, i)
			}
		})
	}
	wg.Go(func() { s.events(ctx) })
	wg.Wait()
	took := time.Since(began)
	require.Eventually(t, func() bool { return s.p.server.Stats().Sessions == 0 }, time.Minute, 10*time.Millisecond)
	st := s.p.server.Stats()
	s.stop()
	s.tally(st)
	t.Logf("%d connections at a time for %v: %s", miners, took.Round(time.Millisecond), s)

	require.Greater(t, st.Connections, int64(miners), "nobody came back")
	require.NotZero(t, st.Resumed, "no session was resumed")
	require.NotZero(t, s.moved.Load(), "no session was given another extranonce")
	back := func(count func() int, before int) bool {
		for deadline := time.Now().Add(time.Minute); count() > before; <-time.After(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				return false
			}
		}
		return true
	}
	if !back(runtime.NumGoroutine, goroutines) {
		var stacks strings.Builder
		_ = pprof.Lookup("goroutine").WriteTo(&stacks, 1)
		t.Errorf("%d goroutines, %d at the beginning:\n%s", runtime.NumGoroutine(), goroutines, stacks.String())
	}
	require.True(t, back(openDescriptors, descriptors), "%d descriptors, %d at the beginning", openDescriptors(), descriptors)
}

func swarmSize(t *testing.T, size string) (miners int, lasts time.Duration, rate float64) {
	fields := strings.Split(size, ",")
	rate = 400
	var err, rateErr error
	miners, err = strconv.Atoi(fields[0])
	if len(fields) > 1 {
		var timeErr error
		lasts, timeErr = time.ParseDuration(fields[1])
		err = errors.Join(err, timeErr)
	}
	if len(fields) > 2 {
		rate, rateErr = strconv.ParseFloat(fields[2], 64)
	}
	if err != nil || rateErr != nil || miners < 1 || lasts <= 0 || rate <= 0 || len(fields) > 3 {
		t.Fatalf("%s=%q is not of the form 2000,5m or 2000,5m,300", swarmVariable, size)
	}
	return miners, lasts, rate
}

// openDescriptors counts the descriptors of this process, where that can be told.
func openDescriptors() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries)
}

// What a swarm's shares are worth: 32 to 1,024 hashes.
const (
	swarmLowest  difficulty.Difficulty = 1. / (1 << 27)
	swarmMiddle                        = swarmLowest * 4
	swarmHighest                       = swarmLowest * 32
)

// swarmPatience is how long a reply may take on a machine that is busy with other tests.
const swarmPatience = 2 * time.Minute

// A swarm is many miners, and the books that are kept of what they were told.
type swarm struct {
	t       *testing.T
	p       *pool
	addr    string
	tls     *tls.Config
	pace    time.Duration // between two shares of a miner, on average
	refresh time.Duration // between two jobs, on average
	stop    func()
	extra   chan struct{} // holds an element for each goroutine that is not a miner's own: the race detector bounds them

	height  int32
	jobs    atomic.Int64
	wishes  atomic.Int64
	moved   atomic.Int64
	slowest atomic.Int64 // reply

	mu       sync.Mutex
	claims   map[claimKey]*claim
	tips     map[[32]byte]tip
	faults   int
	accepted int
	stale    int
	cut      int
	late     int
}

// A claimKey tells shares apart. Two that a swarm finds have the same nonce, of four billion, and the same hash, of
// sixteen million, as good as never.
type claimKey struct {
	prefix, nonce, bits uint32
}

// A claim is what a miner knows of a share it has submitted.
type claim struct {
	worker     string
	difficulty difficulty.Difficulty
	late       bool // the server knew of a newer block before it was submitted
	fate       fate
}

type fate string

const (
	waiting  fate = "waiting for its reply"
	accepted fate = "accepted"
	refused  fate = "refused as stale"
	cutOff   fate = "cut off"
)

// A tip is a block that jobs build on.
type tip struct {
	height int32 // of the jobs
	ending bool  // the job on the next one is about to be broadcast: shares may be stale
	ended  bool  // a job on a later one was sent: shares must be stale
}

func newSwarm(t *testing.T, miners int, rate float64) *swarm {
	s := &swarm{
		t: t, p: &pool{t: t, hub: job.NewHub(nil)}, height: 100,
		pace:    time.Duration(float64(miners) / rate * float64(time.Second)),
		refresh: max(150*time.Millisecond, time.Duration(miners)*2*time.Millisecond),
		extra:   make(chan struct{}, 300),
		claims:  make(map[claimKey]*claim), tips: make(map[[32]byte]tip),
	}
	users, err := stratum.OpenUsers("")
	require.NoError(t, err)
	var policies atomic.Uint64
	s.p.server, err = stratum.New(s.p.hub, users, s.p, s.p, &stratum.Options{
		StartDifficulty: swarmMiddle, MinDifficulty: swarmLowest, MaxDifficulty: swarmHighest, NotifyInterval: s.refresh, AboveNetwork: true,
		HandshakeTimeout: swarmPatience, LoginTimeout: swarmPatience,
		NewPolicy: func(sess *stratum.Session) difficulty.Policy {
			n := policies.Add(1)
			switch {
			case strings.HasPrefix(sess.Agent(), "btccom-agent"):
				return difficulty.Fixed(swarmMiddle) // no frame names a difficulty below 1
			case n%3 == 0:
				return restless{rand.New(rand.NewPCG(1, n))}
			}
			interval := max(time.Second, s.pace)
			v, err := difficulty.NewVardiff(&difficulty.VardiffOptions{
				Start: swarmMiddle, Min: swarmLowest, Max: swarmHighest, Interval: interval, Window: 2 * interval, Improved: n%2 == 0,
			})
			if err != nil {
				s.fault("vardiff: %v", err)
			}
			return v
		},
		Hooks: stratum.Hooks{JobSent: s.jobSent},
	})
	require.NoError(t, err)
	cert, roots := certificate(t, "localhost")
	s.tls = &tls.Config{ServerName: "localhost", RootCAs: roots}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s.addr = ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() {
		served <- s.p.server.Serve(ctx, &stratum.Port{Listener: ln, TLS: &tls.Config{Certificates: []tls.Certificate{cert}}})
	}()
	s.stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-served)
	})
	t.Cleanup(s.stop)
	return s
}

// restless is a policy that changes its mind with each job.
type restless struct{ rng *rand.Rand }

func (restless) Observe(time.Time, difficulty.Difficulty) {}

func (r restless) Next(time.Time) difficulty.Difficulty { return randomDifficulty(r.rng) }

// hashes is how many of them a share takes on average.
func hashes(d difficulty.Difficulty) float64 { return float64(d) * (1 << 32) }

func randomDifficulty(rng *rand.Rand) difficulty.Difficulty {
	return swarmLowest * difficulty.Difficulty(int(1)<<rng.IntN(6))
}

// fault fails the test, and says why for the first ones.
func (s *swarm) fault(format string, args ...any) {
	s.mu.Lock()
	s.faults++
	n := s.faults
	s.mu.Unlock()
	if n <= 20 {
		s.t.Errorf(format, args...)
	} else {
		s.t.Fail()
	}
}

// broadcast sends a job, on a new block or on the same as before.
func (s *swarm) broadcast(block bool) {
	if block {
		s.mu.Lock()
		for hash, tip := range s.tips {
			tip.ending = true
			s.tips[hash] = tip
		}
		s.height++
		s.tips[prevHash(s.height)] = tip{height: s.height}
		s.mu.Unlock()
	}
	j := makeJob(s.t, s.p.ids.Next(time.Now()), s.height, hardBits)
	if err := s.p.hub.Broadcast(context.Background(), j); err != nil {
		s.fault("broadcast: %v", err)
	}
	s.jobs.Add(1)
}

func (s *swarm) jobSent(j *job.Job, _ int, _ time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for hash, tip := range s.tips {
		if tip.height < j.Height {
			tip.ended = true
			s.tips[hash] = tip
		}
	}
}

// prevHash is that of the jobs that makeJob makes.
func prevHash(height int32) [32]byte { return sha256.Sum256(fmt.Append(nil, height)) }

// events are what befalls all miners, until ctx ends.
func (s *swarm) events(ctx context.Context) {
	rng := rand.New(rand.NewPCG(2, 0))
	report := time.Now()
	for wait(ctx, rng, s.refresh) {
		s.broadcast(rng.IntN(3) == 0)
		for sess := range s.p.server.Sessions { // in no order
			if err := sess.Move(); err == nil {
				s.moved.Add(1)
				break
			}
		}
		if time.Since(report) > 15*time.Second {
			report = time.Now()
			st := s.p.server.Stats()
			s.t.Logf("%d sessions, %d goroutines; %s", st.Sessions, runtime.NumGoroutine(), s)
		}
	}
}

func (s *swarm) String() string {
	st := s.p.server.Stats()
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprintf("%d connections, %d resumed, %d jobs on %d blocks, %d wishes, %d moves, %d shares accepted, %d stale "+
		"(%d of them sent on purpose), %d cut off, slowest reply %v", st.Connections, st.Resumed, s.jobs.Load(), len(s.tips),
		s.wishes.Load(), s.moved.Load(), s.accepted, s.stale, s.late, s.cut, time.Duration(s.slowest.Load()).Round(time.Millisecond))
}

// wait returns after a random time, or with false when ctx has ended.
func wait(ctx context.Context, rng *rand.Rand, average time.Duration) bool {
	timer := time.NewTimer(time.Duration(min(rng.ExpFloat64(), 5) * float64(average)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// found searches for a share where nobody has searched.
func found(rng *rand.Rand, j *stratumtest.Job) stratumtest.Share {
	en2 := binary.BigEndian.AppendUint64(nil, rng.Uint64())[:j.Extranonce2Size]
	version := rng.Uint32() & j.VersionMask
	nonce := rng.Uint32()
	header := j.Header(en2, j.NTime, nonce, version)
	for {
		binary.LittleEndian.PutUint32(header[76:], nonce)
		if hash := double(header[:]); j.Target.MetBy(&hash) {
			return j.Share(en2, j.NTime, nonce, version)
		}
		nonce++
	}
}

// submit submits a share by send and writes down what comes of it. cut is set before its connection is ended by this
// side.
func (s *swarm) submit(worker string, j *stratumtest.Job, sh stratumtest.Share, cut *atomic.Bool, send func(context.Context) (ok bool, code int, err error)) {
	key := claimKey{binary.BigEndian.Uint32(j.Extranonce1), sh.Nonce, difficulty.FromHash(&sh.Hash).Bits()}
	c := &claim{worker: worker, difficulty: j.Difficulty, fate: waiting}
	s.mu.Lock()
	if s.claims[key] != nil {
		s.t.Error("two shares are alike: the test cannot tell")
	}
	s.claims[key] = c
	c.late = s.tips[j.PrevHash].ended
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), swarmPatience)
	defer cancel()
	began := time.Now()
	ok, code, err := send(ctx)
	took := int64(time.Since(began))
	for old := s.slowest.Load(); err == nil && took > old && !s.slowest.CompareAndSwap(old, took); old = s.slowest.Load() {
	}
	s.mu.Lock()
	explained := s.tips[j.PrevHash].ending
	switch {
	case err != nil:
		c.fate = cutOff
		s.cut++
	case ok:
		c.fate = accepted
		s.accepted++
	default:
		c.fate = refused
		s.stale++
		if c.late {
			s.late++
		}
	}
	s.mu.Unlock()
	switch {
	case err != nil && !cut.Load():
		s.fault("%s: no reply: %v", worker, err)
	case err != nil:
	case ok && c.late:
		s.fault("%s: a share for a block of the past was accepted", worker)
	case !ok && code != 21:
		s.fault("%s: refused with code %d", worker, code)
	case !ok && !explained:
		s.fault("%s: refused as stale without a new block", worker)
	}
}

// dial opens a connection, some of them with TLS.
func (s *swarm) dial(ctx context.Context, secure bool) (conn net.Conn, tcp *net.TCPConn, err error) {
	plain, err := new(net.Dialer).DialContext(ctx, "tcp", s.addr)
	if err != nil {
		return nil, nil, err
	}
	tcp = plain.(*net.TCPConn)
	if secure {
		return tls.Client(tcp, s.tls), tcp, nil
	}
	return tcp, tcp, nil
}

// miner is one miner, through all its connections.
func (s *swarm) miner(ctx context.Context, i int) {
	rng := rand.New(rand.NewPCG(3, uint64(i)))
	session := ""
	for ctx.Err() == nil {
		session = s.connection(ctx, rng, i, session)
		if rng.IntN(4) == 0 {
			session = "" // it was switched off
		}
		if !wait(ctx, rng, s.pace/4) {
			return
		}
	}
}

// connection is one connection of a miner, which ends with ctx or when the miner feels like it. It returns the id of
// the session.
func (s *swarm) connection(ctx context.Context, rng *rand.Rand, i int, resume string) (session string) {
	patient, cancel := context.WithTimeout(context.Background(), swarmPatience)
	defer cancel()
	conn, tcp, err := s.dial(patient, i%10 == 3)
	if err != nil {
		s.fault("miner %d: %v", i, err)
		return ""
	}
	worker := fmt.Sprintf("user%d.rig%d", i%17, i)
	var jobs [2]atomic.Pointer[stratumtest.Job] // the latest, and the one before
	m := stratumtest.NewMiner(conn, &stratumtest.MinerOptions{
		User: worker, ResumeID: resume, VersionMask: 0x1fffe000 * uint32(i%2), SubscribeExtranonce: i%4 == 1,
		Hooks: stratumtest.Hooks{OnJob: func(j *stratumtest.Job) { jobs[1].Store(jobs[0].Swap(j)) }},
	})
	defer m.Close()
	if err := m.Handshake(patient); err != nil {
		s.fault("miner %d: handshake: %v", i, err)
		return ""
	}
	if _, err := m.NextJob(patient); err != nil {
		s.fault("miner %d: no job: %v", i, err)
		return ""
	}

	// The hashrate is such that shares come at the pace at one difficulty or another.
	hashrate := hashes(randomDifficulty(rng)) / s.pace.Seconds()
	var cutting, broken atomic.Bool
	var flying sync.WaitGroup
	submit := func() {
		j := jobs[0].Load()
		if old := jobs[1].Load(); old != nil && rng.IntN(20) == 0 {
			j = old // a slow board
		}
		sh := found(rng, j)
		send := func() {
			s.submit(worker, j, sh, &cutting, func(ctx context.Context) (bool, int, error) {
				r, err := m.Submit(ctx, sh)
				if err != nil {
					broken.Store(true)
				}
				return r.Accepted, r.Code, err
			})
		}
		if !cutting.Load() && rng.IntN(3) != 0 {
			send()
			return
		}
		select {
		case s.extra <- struct{}{}: // not waited for: more follow it, or the end
			flying.Go(func() { send(); <-s.extra })
		default:
		}
	}
	for wait(ctx, rng, min(time.Duration(hashes(jobs[0].Load().Difficulty)/hashrate*float64(time.Second)), 4*s.pace)) {
		switch n := rng.IntN(100); {
		case n < 2:
			hashrate = hashes(randomDifficulty(rng)) / s.pace.Seconds()
		case n < 4:
			s.wishes.Add(1)
			wish := float64(randomDifficulty(rng))
			ctx, cancel := context.WithTimeout(context.Background(), swarmPatience)
			_, err := m.Call(ctx, func(dst []byte, id uint64) []byte { return sv1.AppendSuggestDifficultyRequest(dst, id, wish) })
			cancel()
			if err != nil {
				s.fault("miner %d: no reply to a wish: %v", i, err)
				return ""
			}
		case n < 6:
			flying.Wait()
			return hex.EncodeToString(jobs[0].Load().Extranonce1)
		case n < 9:
			cutting.Store(true)
			for range 1 + rng.IntN(4) {
				submit()
			}
			if rng.IntN(2) == 0 {
				_ = tcp.SetLinger(0) // a reset, which takes what is on its way along
			}
			if rng.IntN(2) == 0 {
				runtime.Gosched()
			}
			_ = tcp.Close()
			flying.Wait()
			return hex.EncodeToString(jobs[0].Load().Extranonce1)
		default:
			submit()
		}
		if broken.Load() {
			flying.Wait()
			return ""
		}
	}
	flying.Wait()
	return hex.EncodeToString(jobs[0].Load().Extranonce1)
}

// agent is one agent, through all its connections.
func (s *swarm) agent(ctx context.Context, i int) {
	rng := rand.New(rand.NewPCG(4, uint64(i)))
	for ctx.Err() == nil {
		s.farm(ctx, rng, i)
		if !wait(ctx, rng, s.pace) {
			return
		}
	}
}

// farm is one connection of an agent with machines that come and go.
func (s *swarm) farm(ctx context.Context, rng *rand.Rand, i int) {
	patient, cancel := context.WithTimeout(context.Background(), swarmPatience)
	defer cancel()
	conn, tcp, err := s.dial(patient, i%80 == 7)
	if err != nil {
		s.fault("agent %d: %v", i, err)
		return
	}
	user := fmt.Sprintf("farm%d", i)
	a := stratumtest.NewAgent(conn, &stratumtest.AgentOptions{User: user, ReadTimeout: -1})
	if err := a.Handshake(patient); err != nil {
		a.Close()
		s.fault("agent %d: handshake: %v", i, err)
		return
	}
	var latest atomic.Pointer[stratumtest.AgentJob]
	first, read := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(read)
		for {
			j, err := a.NextJob(context.Background())
			if err != nil {
				return
			}
			if latest.Swap(j) == nil {
				close(first)
			}
		}
	}()
	defer func() { a.Close(); <-read }()
	select {
	case <-first:
	case <-patient.Done():
		s.fault("agent %d: no job", i)
		return
	}
	machines := make([]uint16, 1+rng.IntN(20))
	for n := range machines {
		machines[n] = uint16(n)
		if err := a.Register(patient, uint16(n), "cgminer", fmt.Sprintf("m%d", n)); err != nil {
			s.fault("agent %d: register: %v", i, err)
			return
		}
	}
	var cutting, broken atomic.Bool
	var flying sync.WaitGroup
	submit := func() {
		id := machines[rng.IntN(len(machines))]
		work := a.Work(latest.Load(), id)
		sh := found(rng, work)
		send := func() {
			s.submit(fmt.Sprintf("%s.m%d", user, id), work, sh, &cutting, func(ctx context.Context) (bool, int, error) {
				r, err := a.Submit(ctx, id, sh)
				if err != nil {
					broken.Store(true)
				} else if !r.Answered {
					s.fault("agent %d: responses are off", i)
				}
				code := int(r.Status)
				if code == int(share.JobNotFound.Status()) || code == int(share.Stale.Status()) {
					code = 21
				}
				return r.Accepted, code, err
			})
		}
		select {
		case s.extra <- struct{}{}:
			flying.Go(func() { send(); <-s.extra })
		default:
		}
	}
	for wait(ctx, rng, s.pace) && !broken.Load() {
		switch n := rng.IntN(100); {
		case n < 10: // a machine is replaced by another
			flying.Wait()
			n := rng.IntN(len(machines))
			if err := a.Unregister(context.Background(), machines[n]); err != nil {
				s.fault("agent %d: unregister: %v", i, err)
				return
			}
			machines[n] += uint16(100)
			if err := a.Register(context.Background(), machines[n], "cgminer", fmt.Sprintf("m%d", machines[n])); err != nil {
				s.fault("agent %d: register: %v", i, err)
				return
			}
		case n < 12:
			flying.Wait()
			return
		case n < 14:
			cutting.Store(true)
			for range 1 + rng.IntN(4) {
				submit()
			}
			if rng.IntN(2) == 0 {
				_ = tcp.SetLinger(0)
			}
			_ = tcp.Close()
			flying.Wait()
			return
		default:
			for range 1 + rng.IntN(3) {
				submit()
			}
		}
	}
	flying.Wait()
	if n := a.Stats().Unexpected; n != 0 {
		s.fault("agent %d: %d responses to nothing", i, n)
	}
}

// tally compares what miners were told with what was recorded and counted.
func (s *swarm) tally(st stratum.Stats) {
	t := s.t
	s.mu.Lock()
	defer s.mu.Unlock()
	recorded := make(map[claimKey]share.Share)
	difficulties := make(map[difficulty.Difficulty]int)
	paid := int64(0)
	for _, r := range s.p.recorded() {
		key := claimKey{r.SessionID, r.Nonce, r.BitsReached}
		c := s.claims[key]
		if c == nil {
			t.Errorf("nobody submitted %v, which is recorded as %q", key, r.Verdict)
			continue
		}
		switch {
		case r.Verdict == share.Stale:
			if c.fate != refused && c.fate != cutOff {
				t.Errorf("a share of %s was %s, and recorded as stale", c.worker, c.fate)
			}
		case r.Verdict != share.Accepted:
			t.Errorf("a share of %s was %s, and recorded as %q", c.worker, c.fate, r.Verdict)
		case c.fate != accepted && c.fate != cutOff:
			t.Errorf("a share of %s was %s, and recorded as accepted", c.worker, c.fate)
		case recorded[key].Verdict == share.Accepted:
			t.Errorf("a share of %s was recorded twice", c.worker)
		case c.late:
			t.Errorf("a share of %s for a block of the past was recorded as accepted", c.worker)
		case r.Difficulty != c.difficulty || r.Worker.String() != c.worker:
			t.Errorf("a share of %s at %v was recorded for %s at %v", c.worker, c.difficulty, r.Worker, r.Difficulty)
		}
		if r.Verdict == share.Accepted {
			recorded[key] = r
			difficulties[r.Difficulty]++
			paid++
		}
	}
	for key, c := range s.claims {
		switch {
		case c.fate == waiting:
			t.Errorf("a share of %s is still waiting for its reply", c.worker)
		case c.fate == accepted && recorded[key].Verdict != share.Accepted:
			t.Errorf("a share of %s was accepted, and is not recorded", c.worker)
		}
	}
	require.Equal(t, paid, st.Verdicts[share.Accepted])
	for v, n := range st.Verdicts {
		require.Contains(t, []share.Verdict{share.Accepted, share.Stale}, v, "%d shares", n)
	}
	require.GreaterOrEqual(t, int(st.Verdicts[share.Stale]), s.stale)
	require.Zero(t, st.NotRecorded)
	require.Zero(t, st.Malformed)
	require.Zero(t, st.Refused)
	require.Zero(t, st.AgentWorkers)
	limits := st.Limits
	limits.Remembered = 0
	require.Zero(t, limits, "somebody was limited")
	require.NotZero(t, s.accepted)
	require.NotZero(t, s.late, "no share was stale for certain")
	require.Greater(t, len(difficulties), 3, "the difficulty hardly changed")
	t.Logf("%d shares are recorded as accepted, of difficulties %v", paid, difficulties)
}

// Real sockets wait without a buffer; this is about what such a session does when its miner goes away, sends half a
// line, or sends much at once.
func TestRealSockets(t *testing.T) {
	addr, server, hub := tcpPool(t, 1024)
	require.NoError(t, hub.Broadcast(t.Context(), benchJob(t)))
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	c := newClient(t, conn)
	c.start("alice.rig")
	for i := range 3 {
		_, err := conn.Write([]byte(`{"id":7,"method":"mini`))
		require.NoError(t, err)
		_, err = conn.Write([]byte(`ng.ping"}` + "\n"))
		require.NoError(t, err)
		require.Equal(t, `{"id":7,"result":"pong","error":null}`, c.line(), "round %d", i)
	}
	many := make([]byte, 0, 1<<20)
	const pings = 20000
	for i := range pings {
		many = fmt.Appendf(many, `{"id":%d,"method":"mining.ping"}`+"\n", i)
	}
	go conn.Write(many)
	for i := range pings {
		require.Equal(t, fmt.Sprintf(`{"id":%d,"result":"pong","error":null}`, i), c.line())
	}
	require.NoError(t, conn.Close())
	require.Eventually(t, func() bool { return server.Stats().Sessions == 0 }, 10*time.Second, time.Millisecond)
}
