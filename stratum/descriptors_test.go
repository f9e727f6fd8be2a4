//go:build linux || darwin

package stratum_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum"
	"github.com/poolkit/poolkit/stratum/stratumtest"
	"github.com/stretchr/testify/require"
)

// descriptorsVariable makes the test binary a server that has as many descriptors as it says.
const descriptorsVariable = "POOL_TEST_DESCRIPTORS"

// TestServerInAProcessOfItsOwn is that server, for the tests that start it. It prints its address and its log, answers
// each line of its standard input with a line of what it holds, and stops at the end of the input.
func TestServerInAProcessOfItsOwn(t *testing.T) {
	limit, err := strconv.ParseUint(os.Getenv(descriptorsVariable), 10, 32)
	if err != nil {
		t.Skip("it is started by other tests")
	}
	var now syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &now))
	if limit > 0 {
		now.Cur = min(limit, now.Max)
		require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &now))
	}
	hub := job.NewHub(nil)
	users, err := stratum.OpenUsers("")
	require.NoError(t, err)
	sink := share.SinkFunc(func(context.Context, []share.Share) error { return nil })
	server, err := stratum.New(hub, users, sink, &pool{}, &stratum.Options{
		StartDifficulty: easy, MinDifficulty: easy, AboveNetwork: true, MaxSessions: -1, HandshakeTimeout: -1, LoginTimeout: -1,
		NotifyInterval: time.Hour, // for clients that expect replies only
		NewPolicy:      func(*stratum.Session) difficulty.Policy { return difficulty.Fixed(easy) },
		Logger:         slog.New(slog.NewTextHandler(os.Stdout, nil)),
	})
	require.NoError(t, err)
	require.NoError(t, hub.Broadcast(t.Context(), benchJob(t)))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, ln) }()
	fmt.Printf("listening on %v with %d descriptors\n", ln.Addr(), now.Cur)
	for questions := bufio.NewScanner(os.Stdin); questions.Scan(); {
		st := server.Stats()
		fmt.Printf("sessions=%d authorized=%d goroutines=%d memory=%d\n", st.Sessions, st.States[stratum.Authorized],
			runtime.NumGoroutine(), resident())
	}
	stop()
	require.NoError(t, <-served)
}

// resident returns how much memory this process holds, in bytes, and 0 where that cannot be told.
func resident() int {
	var size, pages int
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	if _, err := fmt.Sscan(string(statm), &size, &pages); err != nil {
		return 0
	}
	return pages * os.Getpagesize()
}

// A serverProcess is a server with a limit of descriptors of its own.
type serverProcess struct {
	t           *testing.T
	addr        string
	descriptors int
	ask         io.Writer
	answers     chan string // to ask

	mu    sync.Mutex
	log   []string
	lines chan struct{} // holds an element when there is more in the log
}

// startServer starts a server that has as many descriptors as given, or with 0 as many as there may be.
func startServer(t *testing.T, descriptors int) *serverProcess {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestServerInAProcessOfItsOwn$", "-test.timeout=10m")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", descriptorsVariable, descriptors))
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	cmd.Stderr = os.Stderr
	require.NoError(t, cmd.Start())
	s := &serverProcess{t: t, ask: in, answers: make(chan string, 1), lines: make(chan struct{}, 1)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for r := bufio.NewScanner(out); r.Scan(); {
			if line := r.Text(); strings.HasPrefix(line, "sessions=") {
				s.answers <- line
			} else {
				s.mu.Lock()
				s.log = append(s.log, line)
				s.mu.Unlock()
				select {
				case s.lines <- struct{}{}:
				default:
				}
			}
		}
	}()
	t.Cleanup(func() {
		in.Close()
		deadline := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
		<-ended
		if err := cmd.Wait(); err != nil {
			t.Errorf("the server ended with %v:\n%s", err, s.text())
		}
		deadline.Stop()
	})
	m := s.await(`listening on (\S+) with (\d+) descriptors`)
	s.addr = m[1]
	s.descriptors, err = strconv.Atoi(m[2])
	require.NoError(t, err)
	return s
}

func (s *serverProcess) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.log, "\n")
}

// await waits for a line of the log.
func (s *serverProcess) await(pattern string) []string {
	s.t.Helper()
	re := regexp.MustCompile(pattern)
	timeout := time.After(time.Minute)
	for {
		if m := re.FindStringSubmatch(s.text()); m != nil {
			return m
		}
		select {
		case <-s.lines:
		case <-timeout:
			s.t.Fatalf("no %q in the log:\n%s", pattern, s.text())
		}
	}
}

type serverState struct{ sessions, authorized, goroutines, memory int }

func (s *serverProcess) state() (st serverState) {
	s.t.Helper()
	_, err := io.WriteString(s.ask, "\n")
	require.NoError(s.t, err)
	select {
	case line := <-s.answers:
		_, err = fmt.Sscanf(line, "sessions=%d authorized=%d goroutines=%d memory=%d", &st.sessions, &st.authorized, &st.goroutines, &st.memory)
		require.NoError(s.t, err)
	case <-time.After(time.Minute):
		s.t.Fatalf("the server does not answer:\n%s", s.text())
	}
	return st
}

// connect opens a connection that is reset at its end, so that its port is free at once.
func (s *serverProcess) connect() *client {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	require.NoError(s.t, err)
	require.NoError(s.t, conn.(*net.TCPConn).SetLinger(0))
	require.NoError(s.t, conn.SetDeadline(time.Now().Add(2*time.Minute)))
	return newClient(s.t, conn)
}

// TestAttackDescriptorsExhausted opens more connections than the server has descriptors. It says so, whoever is in
// mines on, and who is not waits at the door and gets in as others leave.
func TestAttackDescriptorsExhausted(t *testing.T) {
	const descriptors, more = 128, 100
	s := startServer(t, descriptors)
	good := s.connect()
	id, n := good.start("alice.rig")
	clients := make([]*client, descriptors+more)
	for i := range clients {
		clients[i] = s.connect() // the kernel takes it, for some with nobody behind
		clients[i].send(fmt.Sprintf(`{"id":1,"method":"mining.authorize","params":["user%d.rig"]}`, i))
	}
	m := s.await(`level=ERROR msg="cannot accept connections, trying again" .*error="(.*)"`)
	require.Contains(t, m[1], "too many open files")
	for nonce := range uint32(5) {
		require.Equal(t, "true", good.submit(good.solve(id, n, easy, nonce<<24, false)), "who is in mines on")
	}
	st := s.state()
	require.Less(t, st.sessions, descriptors)
	require.Greater(t, st.sessions, descriptors/2)

	// They come in turn, so those that are in leave, and all others follow.
	for i, c := range clients {
		require.Equal(t, `{"id":1,"result":true,"error":null}`, c.line(), "connection %d", i)
		require.NoError(t, c.conn.Close())
	}
	late := s.connect()
	late.start("bob.rig")
	require.Equal(t, "true", good.submit(good.solve(id, n, easy, 9<<24, false)))
	require.Eventually(t, func() bool { return s.state().sessions == 2 }, time.Minute, 10*time.Millisecond)
	require.LessOrEqual(t, strings.Count(s.text(), "cannot accept connections"), 20, "it does not fill the log")
}

// An exhaustedListener has no descriptors while out is set.
type exhaustedListener struct {
	net.Listener
	mu       sync.Mutex
	out      error
	failures int
}

func (l *exhaustedListener) failed() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failures
}

func (l *exhaustedListener) set(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.out = err
}

func (l *exhaustedListener) Accept() (net.Conn, error) {
	l.mu.Lock()
	err := l.out
	if err != nil {
		l.failures++
	}
	l.mu.Unlock()
	if err != nil {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: os.NewSyscallError("accept4", err)}
	}
	return l.Listener.Accept()
}

// TestAttackDescriptorsExhaustedForLong has the operating system refuse for minutes, in each of its ways: the server
// neither ends nor spins nor fills its log, whoever is in mines on, and the next miner gets in within a second after.
func TestAttackDescriptorsExhaustedForLong(t *testing.T) {
	for _, out := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		t.Run(out.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log, memory := new(lockedBuffer), stratumtest.Listen()
				ln := &exhaustedListener{Listener: memory}
				p := &pool{t: t, hub: job.NewHub(nil), ln: memory}
				users, err := stratum.OpenUsers("")
				require.NoError(t, err)
				p.server, err = stratum.New(p.hub, users, p, p, &stratum.Options{
					StartDifficulty: easy, MinDifficulty: easy, AboveNetwork: true, IdleTimeout: -1,
					Logger: slog.New(slog.NewTextHandler(log, nil)),
				})
				require.NoError(t, err)
				ctx, stop := context.WithCancel(t.Context())
				served := make(chan error, 1)
				go func() { served <- p.server.Serve(ctx, ln) }()
				p.broadcast(100, hardBits)
				synctest.Wait()
				ln.set(out) // for the Accept after the one under way
				good := p.dial()
				id, n := good.start("alice.rig")
				good.discard()
				synctest.Wait()
				require.Contains(t, log.String(), `level=ERROR msg="cannot accept connections, trying again"`)
				require.Contains(t, log.String(), out.Error())
				time.Sleep(4 * time.Minute)
				require.Less(t, ln.failed(), 260)
				require.LessOrEqual(t, strings.Count(log.String(), "cannot accept"), 5)
				good.send(fmt.Sprintf(`{"id":9,"method":"mining.submit","params":%s}`, good.solve(id, n, easy, 0, false).params()))
				synctest.Wait()
				require.Len(t, p.recorded(), 1)

				ln.set(nil)
				back := time.Now()
				bob := p.dial()
				bob.login("bob.rig")
				bob.discard()
				require.LessOrEqual(t, time.Since(back), time.Second)
				stop()
				require.NoError(t, <-served)
			})
		})
	}
}

// TestAttackTwentyThousandAtOnce has as many miners as there may be, 20,000 if this process and the server's have the
// descriptors for them, connect and log in at the same moment: all of them are let in, each with an extranonce of its
// own, and a miner that was there before is answered meanwhile.
func TestAttackTwentyThousandAtOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes every descriptor there is")
	}
	var limit syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	s := startServer(t, 0)
	count := min(20_000, s.descriptors-100, int(limit.Cur)-openDescriptors()-100)
	if raceEnabled {
		count = min(count, 4000) // enough to race
	}
	good := s.connect()
	id, n := good.start("alice.rig")
	before := s.state()

	began := time.Now()
	conns, errs := make([]net.Conn, count), make([]error, count)
	first := make([]string, count) // what each was sent first
	var dialing, reading sync.WaitGroup
	var next atomic.Int64
	for range 128 {
		dialing.Go(func() {
			for i := int(next.Add(1)) - 1; i < count; i = int(next.Add(1)) - 1 {
				conns[i], errs[i] = dialAndLogIn(s.addr, i)
			}
		})
	}
	slowest := time.Duration(0)
	dialed := make(chan struct{})
	go func() { dialing.Wait(); close(dialed) }()
	for nonce, storm := uint32(0), true; storm; nonce++ {
		sent := time.Now()
		require.Equal(t, "true", good.submit(good.solve(id, n, easy, nonce<<20, false)))
		slowest = max(slowest, time.Since(sent))
		select {
		case <-dialed:
			storm = false
		default:
		}
	}
	t.Cleanup(func() {
		for _, conn := range conns {
			if conn != nil {
				conn.Close()
			}
		}
	})
	connected := time.Since(began)
	require.NoError(t, errors.Join(errs...))
	next.Store(0)
	for range 16 {
		reading.Go(func() {
			buf := make([]byte, 16<<10)
			for i := int(next.Add(1)) - 1; i < count; i = int(next.Add(1)) - 1 {
				first[i], errs[i] = readUntilJob(conns[i], buf)
			}
		})
	}
	reading.Wait()
	took := time.Since(began)
	require.NoError(t, errors.Join(errs...))
	prefixes := make(map[string]int, count)
	for i, text := range first {
		m := regexp.MustCompile(`^\{"id":1,"result":\[\[\[.*\]\],"([0-9a-f]{8})",8\],"error":null\}\n\{"id":2,"result":true,"error":null\}\n`).FindStringSubmatch(text)
		require.NotNil(t, m, "connection %d was sent %q", i, text)
		prefixes[m[1]]++
	}
	require.Len(t, prefixes, count, "two have the same extranonce")
	full := s.state()
	require.Equal(t, count+1, full.authorized)
	require.NotContains(t, s.text(), "level=ERROR")
	t.Logf("%d connected in %v and had a job after %v; meanwhile the slowest reply to another miner took %v; "+
		"the server has %d goroutines and %d bytes for each", count, connected.Round(time.Millisecond),
		took.Round(time.Millisecond), slowest.Round(time.Millisecond), full.goroutines, (full.memory-before.memory)/count)
	if runtime.GOOS == "linux" {
		require.Less(t, full.goroutines, 1000, "a goroutine for each")
	}
	for _, conn := range conns {
		conn.Close()
	}
	require.Eventually(t, func() bool { return s.state().sessions == 1 }, time.Minute, 50*time.Millisecond)
	require.Equal(t, "true", good.submit(good.solve(id, n, easy, 0xff000000, false)))
}

func dialAndLogIn(addr string, i int) (net.Conn, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	_ = conn.(*net.TCPConn).SetLinger(0) // its port is free at once when it is closed
	if err := conn.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		return conn, err
	}
	_, err = fmt.Fprintf(conn, `{"id":1,"method":"mining.subscribe","params":["test/1.0"]}`+"\n"+
		`{"id":2,"method":"mining.authorize","params":["user%d.rig","x"]}`+"\n", i)
	return conn, err
}

// readUntilJob returns what was sent before and with the first mining.notify.
func readUntilJob(conn net.Conn, buf []byte) (string, error) {
	for n := 0; n < len(buf); {
		more, err := conn.Read(buf[n:])
		if n += more; bytes.Contains(buf[:n], []byte("mining.notify")) && buf[n-1] == '\n' {
			return string(buf[:n]), nil
		}
		if err != nil {
			return string(buf[:n]), err
		}
	}
	return string(buf), errors.New("no job")
}
