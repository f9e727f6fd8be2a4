//go:build unix

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/stratum"
	"github.com/poolkit/poolkit/stratum/stratumtest"
	"github.com/poolkit/poolkit/stratum/sv1"
	"github.com/stretchr/testify/require"
)

// pidPattern is the process that takes over.
const pidPattern = `msg="another process is to take over" pid=(\d+)`

// spawnFile runs a pool in a process of its own, from a file of its own, which may be replaced. p.ended is closed when
// that process and those that took over from it have ended, and first when that one has.
func spawnFile(t testing.TB, args ...string) (p *running, file string, first <-chan int) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "fullpool")
	copyFile(t, os.Args[0], file)
	p = &running{t: t, log: newLog(), ended: make(chan struct{})}
	r, w, err := os.Pipe()
	require.NoError(t, err)
	cmd := exec.Command(file)
	cmd.Env = append(os.Environ(), asPool+"="+strings.Join(append(ports(), args...), "\n"))
	cmd.Stdout, cmd.Stderr = w, w
	require.NoError(t, cmd.Start())
	require.NoError(t, w.Close())
	p.process = cmd.Process
	go func() { // until the last process has closed its end
		defer close(p.ended)
		defer r.Close()
		io.Copy(p.log, r)
	}()
	code := make(chan int, 1)
	go func() { cmd.Wait(); code <- cmd.ProcessState.ExitCode() }()
	t.Cleanup(func() {
		cmd.Process.Kill()
		for _, pid := range p.log.findAll(pidPattern) {
			syscall.Kill(integer(t, pid), syscall.SIGKILL)
		}
		<-p.ended
	})
	p.open()
	return p, file, code
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(to+".new", b, 0o755))
	require.NoError(t, os.Rename(to+".new", to)) // as an operator does: a program that runs cannot be written to
}

func requireExit(t testing.TB, p *running, code <-chan int) {
	t.Helper()
	select {
	case c := <-code:
		require.Zero(t, c, "%s", p.log)
	case <-time.After(patience):
		t.Fatalf("the process does not end:\n%s", p.log)
	}
}

// A loyalMiner comes back when its pool asks it to, as firmware does, and names the session it had.
type loyalMiner struct {
	user, addr string
	wish       string // password of the first login

	mu       sync.Mutex
	given    []given // by each connection
	acks     []ack
	rejected []string
	lost     uint64 // shares without an answer
}

// What a miner is given with its first job.
type given struct {
	extranonce1 string
	difficulty  difficulty.Difficulty
}

// run mines until ctx ends.
func (l *loyalMiner) run(ctx context.Context) error {
	opts := &stratumtest.MinerOptions{
		User: l.user, Password: l.wish, Hashrate: 15_000, Hooks: stratumtest.Hooks{OnReply: l.replied},
	}
	for ctx.Err() == nil {
		m, err := stratumtest.Dial(ctx, l.addr, opts)
		if err == nil {
			opts.ResumeID, err = l.mine(ctx, m)
			m.Close()
			opts.Password = ""
		}
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("%s: %w", l.user, err)
		}
	}
	return nil
}

// mine is one connection, until ctx ends or the pool asks to connect again. It returns the id of its session.
func (l *loyalMiner) mine(ctx context.Context, m *stratumtest.Miner) (session string, err error) {
	if err := m.Handshake(ctx); err != nil {
		return "", err
	}
	j, err := m.NextJob(ctx)
	if err != nil {
		return "", err
	}
	session = hex.EncodeToString(j.Extranonce1)
	l.mu.Lock()
	l.given = append(l.given, given{session, j.Difficulty})
	l.mu.Unlock()

	mining, stop := context.WithCancel(ctx)
	defer stop()
	var listening sync.WaitGroup
	listening.Go(func() {
		defer stop()
		for {
			if msg, err := m.Receive(mining); err != nil || msg.Method == sv1.MethodReconnect {
				return
			}
		}
	})
	err = m.Run(mining)
	stop()
	listening.Wait()
	st := m.Stats()
	l.mu.Lock()
	l.lost += st.Submitted - st.Accepted - st.Rejected
	l.mu.Unlock()
	return session, err
}

func (l *loyalMiner) replied(s stratumtest.Share, r stratumtest.Reply) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := r.Err(); err != nil {
		l.rejected = append(l.rejected, err.Error())
		return
	}
	l.acks = append(l.acks, ack{key: keyOf(s.Nonce, difficulty.FromHash(&s.Hash).Bits())})
}

func (l *loyalMiner) connections() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.given)
}

// knock connects again and again until ctx ends, and fails the test when a connection is refused. It returns how often
// it did.
func knock(t testing.TB, ctx context.Context, addr string) int {
	n := 0
	for ctx.Err() == nil {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err == nil {
			conn.Close()
			n++
		} else if ctx.Err() == nil {
			t.Errorf("connection %d to %s: %v", n, addr, err)
			return n
		}
		select {
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return n
}

// An upgrade under load: no connection is refused, no share is rejected or lost, every miner has its session again, and
// log, blocks and statistics go on.
func TestAnUpgradeLosesNothing(t *testing.T) {
	const miners = 30
	data := t.TempDir()
	p, file, first := spawnFile(t, "-data", data, "-mine", "0", "-diff", easy, "-vardiff=false",
		"-stale-grace", "10s", "-events", filepath.Join(data, "events"))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	crowd, errs := make([]*loyalMiner, miners), make(chan error, miners)
	var mining, knocking sync.WaitGroup
	for i := range crowd {
		crowd[i] = &loyalMiner{user: fmt.Sprintf("user%d.rig", i), addr: p.miners, wish: fmt.Sprintf("d=%v", []float64{1. / (1 << 16), 1. / (1 << 17), 1. / (1 << 18)}[i%3])}
		mining.Go(func() {
			if err := crowd[i].run(ctx); err != nil {
				errs <- err
			}
		})
	}
	connected := func(n int) func() bool {
		return func() bool {
			select {
			case err := <-errs:
				t.Fatalf("%v; the log:\n%s", err, p.log)
			default:
			}
			for _, l := range crowd {
				if l.connections() < n {
					return false
				}
			}
			return true
		}
	}
	p.eventually("all miners mining", connected(1))
	p.log.await(t, `msg="block accepted"`, p.ended)
	knocks := make([]int, 2)
	for i, addr := range []string{p.miners, strings.TrimPrefix(p.web, "http://")} {
		knocking.Go(func() { knocks[i] = knock(t, ctx, addr) })
	}

	// The program's file is replaced, as by an installation.
	copyFile(t, os.Args[0], file)
	began := time.Now()
	require.NoError(t, p.process.Signal(syscall.SIGUSR2))
	heir := integer(t, p.log.await(t, pidPattern, p.ended)[1])
	p.eventually("all miners mining again", connected(2))
	t.Logf("all %d miners mine again %v after the signal", miners, time.Since(began))
	requireExit(t, p, first)
	require.Equal(t, "30", p.log.await(t, `msg="sessions taken over" sessions=(\d+)`, p.ended)[1])
	require.Equal(t, []string{p.miners, p.miners}, p.log.findAll(`msg="the pool is open" miners=stratum\+tcp://(\S+)`))

	// The new process serves the statistics and finds blocks.
	mark := p.log.String()
	p.eventually("a block of the new process", func() bool {
		return strings.Contains(strings.TrimPrefix(p.log.String(), mark), `msg="block accepted"`)
	})
	body := metrics(t, p)
	require.Contains(t, body, fmt.Sprintf("\nsserver_sessions_resumed_total %d\n", miners))
	require.Contains(t, body, fmt.Sprintf(`sserver_sessions_total{chain="default",status="authenticated"} %d`+"\n", miners))
	stop()
	mining.Wait()
	knocking.Wait()
	t.Logf("%d and %d connections while that went on, none refused", knocks[0], knocks[1])
	want := 0.0
	for _, s := range readShares(t, data) {
		if s.Verdict.Accepted() {
			want += float64(s.Difficulty)
		}
	}
	p.eventually("the statistics having read the log", func() bool { return counted(p) >= want })
	require.NoError(t, syscall.Kill(heir, syscall.SIGINT))
	<-p.ended
	require.NotContains(t, p.log.String(), "level=ERROR")
	require.Equal(t, 2, strings.Count(p.log.String(), `msg="the pool is closed"`))

	logged := make(map[string]int)
	for _, s := range readShares(t, data) {
		logged[keyOf(s.Nonce, s.BitsReached)]++
	}
	for i, l := range crowd {
		require.Empty(t, l.rejected, l.user)
		require.Zero(t, l.lost, "%s: shares without an answer", l.user)
		require.Len(t, l.given, 2, l.user)
		require.Equal(t, l.given[0], l.given[1], "%s was given something else after the upgrade", l.user)
		require.Equal(t, 1./float64(int(1)<<(16+i%3)), float64(l.given[0].difficulty), l.user)
		for _, a := range l.acks {
			require.Equal(t, 1, logged[a.key], "%s: share %s", l.user, a.key)
		}
	}
	requireCounted(t, data)

	// Who came and went is told by one file.
	events, err := os.ReadFile(filepath.Join(data, "events"))
	require.NoError(t, err)
	actions := make(map[stratum.EventAction]int)
	for line := range bytes.Lines(events) {
		var e stratum.Event
		require.NoError(t, e.UnmarshalJSON(line), "%s", line)
		actions[e.Action]++
	}
	require.Equal(t, map[stratum.EventAction]int{stratum.MinerConnect: 2 * miners, stratum.MinerDead: 2 * miners}, actions)
}

// A new process that does not get ready changes nothing, and when what was wrong is put right the next one does.
func TestAnUpgradeThatFailsChangesNothing(t *testing.T) {
	config := configFile(t, `{"mine": 1}`)
	p, _, first := spawnFile(t, "-data", t.TempDir(), "-config", config, "-diff", easy, "-notify-interval", "1s")
	conn, err := net.Dial("tcp", p.miners)
	require.NoError(t, err)
	m := requireWork(t, conn)
	require.NoError(t, os.WriteFile(config, []byte(`{"mine": 1, "server-id": 256}`), 0o600))
	require.NoError(t, p.process.Signal(syscall.SIGUSR2))
	p.log.await(t, `fullpool: -server-id 256 is not between 1 and 255`, p.ended)
	p.log.await(t, `level=ERROR msg="no other process takes over, this one goes on" error=".*exit status 1"`, p.ended)
	requireShare(t, m) // by the same connection

	require.NoError(t, os.WriteFile(config, []byte(`{"mine": 1, "server-id": 1}`), 0o600))
	require.NoError(t, p.process.Signal(syscall.SIGUSR2))
	p.log.await(t, `msg="sessions taken over" sessions=2`, p.ended) // the CPU miner's too
	requireExit(t, p, first)
	p.eventually("a second pool being open", func() bool {
		return len(p.log.findAll(`msg="the pool is open"()`)) == 2
	})
	conn, err = net.Dial("tcp", p.miners)
	require.NoError(t, err)
	requireWork(t, conn)
	pids := p.log.findAll(pidPattern)
	require.NoError(t, syscall.Kill(integer(t, pids[len(pids)-1]), syscall.SIGTERM))
	<-p.ended
}

// A new process that dies when it has only just said that it is ready leaves the pool to the old one, which has closed
// everything by then, and opens it again.
func TestAnHeirThatDiesLeavesThePoolToTheOldProcess(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := free.Addr().String()
	require.NoError(t, free.Close())
	p, file, first := spawnFile(t, "-listen", addr, "-data", t.TempDir(), "-mine", "0", "-diff", easy, "-drain", "100ms")
	connect := func(resume string) *stratumtest.Job {
		m, err := stratumtest.Dial(t.Context(), addr, &stratumtest.MinerOptions{ResumeID: resume})
		require.NoError(t, err)
		t.Cleanup(func() { m.Close() })
		require.NoError(t, m.Handshake(t.Context()))
		j, err := m.NextJob(t.Context())
		require.NoError(t, err)
		return j
	}
	before := connect("")
	require.NoError(t, os.WriteFile(file+".new", []byte("#!/bin/sh\nprintf R >&4\nexit 7\n"), 0o755))
	require.NoError(t, os.Rename(file+".new", file))
	require.NoError(t, p.process.Signal(syscall.SIGUSR2))
	p.log.await(t, `level=ERROR msg="the new process failed, this one goes on" error=".*exit status 7"`, p.ended)
	p.eventually("the pool being open again", func() bool { return len(p.log.findAll(`msg="the pool is open"()`)) == 2 })
	after := connect(hex.EncodeToString(before.Extranonce1))
	require.Equal(t, before.Extranonce1, after.Extranonce1)
	require.NoError(t, p.process.Signal(syscall.SIGTERM))
	requireExit(t, p, first)
}

// An old process that dies while its miners leave takes their sessions with it, and nothing else.
func TestAnHeirWhoseParentDiesGoesOnAlone(t *testing.T) {
	p, _, first := spawnFile(t, "-data", t.TempDir(), "-mine", "0", "-diff", easy, "-drain", "1h")
	m, err := login(t, p.miners, nil)
	require.NoError(t, err)
	require.NoError(t, p.process.Signal(syscall.SIGUSR2))
	heir := integer(t, p.log.await(t, pidPattern, p.ended)[1])
	for method := sv1.MethodUnknown; method != sv1.MethodReconnect; { // which this miner does not do
		msg, err := m.Receive(t.Context())
		require.NoError(t, err)
		method = msg.Method
	}
	waiting, err := net.Dial("tcp", p.miners)
	require.NoError(t, err)
	require.NoError(t, p.process.Kill())
	<-first
	p.log.await(t, `level=WARN msg="the pool goes on without its sessions"`, p.ended)
	requireWork(t, waiting)
	require.NoError(t, syscall.Kill(heir, syscall.SIGTERM))
	<-p.ended
	require.NotContains(t, p.log.String(), "level=ERROR")
}

// SIGHUP is what certbot and logrotate send. Miners that are connected stay so.
func TestReload(t *testing.T) {
	data := t.TempDir()
	cert, key, events := filepath.Join(data, "crt"), filepath.Join(data, "key"), filepath.Join(data, "events")
	newCertificate(t, cert, key)
	p, _, first := spawnFile(t, "-data", data, "-mine", "0", "-diff", easy, "-notify-interval", "1s",
		"-tls-cert", cert, "-tls-key", key, "-events", events)
	conn, old := dialTLS(t, p.miners, cert)
	m := requireWork(t, conn)
	p.eventually("the event of a miner that came", func() bool { return fileHas(events, "miner_connect") })

	newCertificate(t, cert, key)
	require.NoError(t, os.Rename(events, events+".1"))
	require.NoError(t, p.process.Signal(syscall.SIGHUP))
	p.log.await(t, `msg="the certificate is read again"`, p.ended)
	p.log.await(t, `msg="the events file is opened again"`, p.ended)
	_, shown := dialTLS(t, p.miners, cert)
	require.NotEqual(t, old.SerialNumber, shown.SerialNumber)
	requireShare(t, m)
	require.NoError(t, m.Close())
	p.eventually("the event of a miner that went", func() bool { return fileHas(events, "miner_dead") })
	require.False(t, fileHas(events+".1", "miner_dead"))

	// What cannot be used is not.
	require.NoError(t, os.WriteFile(cert, []byte("none"), 0o600))
	require.NoError(t, p.process.Signal(syscall.SIGHUP))
	p.log.await(t, `level=ERROR msg="the certificate stays the old one"`, p.ended)
	still, err := tls.Dial("tcp", p.miners, &tls.Config{InsecureSkipVerify: true})
	require.NoError(t, err)
	require.Equal(t, shown.SerialNumber, still.ConnectionState().PeerCertificates[0].SerialNumber)
	require.NoError(t, still.Close())
	require.NoError(t, p.process.Signal(syscall.SIGTERM))
	requireExit(t, p, first)
}

func fileHas(name, text string) bool {
	b, err := os.ReadFile(name)
	return err == nil && bytes.Contains(b, []byte(text))
}
