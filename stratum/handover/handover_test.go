//go:build unix

package handover_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/poolkit/poolkit/stratum/handover"
	"github.com/stretchr/testify/require"
)

// The test binary is also the program that is upgraded: with a role it is that, else it tests.
func TestMain(m *testing.M) {
	if role := os.Getenv("HANDOVER_ROLE"); role != "" {
		time.AfterFunc(time.Minute, func() { os.Exit(9) }) // whatever fails, nobody is left behind
		if role == "example" {
			runExample()
			os.Exit(0)
		}
		os.Exit(runPool())
	}
	os.Setenv("GORACE", "atexit_sleep_ms=0") // the program ends often
	os.Exit(m.Run())
}

// A pool answers one line a connection: "who" with its name, the size of its state and its process; "leaks" with the
// descriptors that its programs get; "quit"; and "upgrade" with how the next one shall behave.
type pool struct {
	name     string
	state    int
	leaks    string
	ln       net.Listener
	serving  sync.WaitGroup
	upgrades chan upgrade
}

type upgrade struct {
	conn net.Conn
	mode string
}

func runPool() int {
	mode, isHeir := os.LookupEnv("HANDOVER_MODE")
	in, err := handover.Inherit()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if mode == "fails" {
		return 3
	}
	if mode == "hangs" {
		select {}
	}
	ln, err := in.Listen("tcp", os.Getenv("HANDOVER_ADDR"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if err := in.Ready(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	switch mode {
	case "fails when ready":
		return 4
	case "hangs when ready":
		select {}
	}
	p := &pool{name: "first", ln: ln, upgrades: make(chan upgrade)}
	if mode == "leaks" {
		const list = `for fd in 3 4 5; do (: <&$fd) 2>/dev/null && printf "%s " $fd; done; echo are open`
		out, _ := exec.Command("/bin/sh", "-c", list).Output()
		p.leaks = strings.TrimSpace(string(out))
	}
	state, err := in.Wait(context.Background())
	switch {
	case errors.Is(err, handover.ErrOrphaned):
		p.name = "orphan"
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		return 5
	case isHeir:
		name, _, _ := bytes.Cut(state, []byte("\n"))
		p.name, p.state = cmp.Or(string(name), "nameless"), len(state)
	default:
		fmt.Println(ln.Addr())
	}
	for {
		p.serving.Go(p.accept)
		up := <-p.upgrades
		if p.hand(up) {
			return 0
		}
	}
}

func (p *pool) accept() {
	for {
		conn, err := p.ln.Accept()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if err != nil {
			panic(err)
		}
		p.serving.Go(func() { p.answer(conn) })
	}
}

func (p *pool) answer(conn net.Conn) {
	line, _ := bufio.NewReader(conn).ReadString('\n')
	verb, mode, _ := strings.Cut(strings.TrimSpace(line), " ")
	switch verb {
	case "who":
		fmt.Fprintln(conn, p.name, p.state, os.Getpid())
	case "leaks":
		fmt.Fprintln(conn, p.leaks)
	case "quit":
		fmt.Fprintln(conn, "bye")
		os.Exit(0)
	case "upgrade":
		p.upgrades <- upgrade{conn, mode}
		return
	}
	conn.Close()
}

// hand starts the next pool and reports whether that has taken over. In between it accepts nothing, but its socket
// stays open: a deadline stops the accepting, and its removal lets it go on.
func (p *pool) hand(up upgrade) bool {
	defer up.conn.Close()
	opts := &handover.Options{Args: []string{}, Env: append(os.Environ(), "HANDOVER_MODE="+up.mode)}
	switch up.mode {
	case "hangs":
		opts.ReadyTimeout = 300 * time.Millisecond
	case "hangs when ready":
		opts.GiveTimeout = 300 * time.Millisecond
	case "too much":
		opts.MaxState = 100
	}
	child, err := handover.Start(context.Background(), []net.Listener{p.ln}, opts)
	if err != nil {
		panic(err)
	}
	err = child.Ready(context.Background())
	if err == nil && up.mode == "parent dies before giving" {
		fmt.Fprintln(up.conn, "ready", child.Pid())
		select {}
	}
	deadline(p.ln, time.Unix(1, 0))
	p.serving.Wait()
	if err == nil {
		err = child.Give(context.Background(), p.bequest(up, child))
	}
	if err == nil {
		fmt.Fprintln(up.conn, "given", child.Pid())
		return true
	}
	deadline(p.ln, time.Time{})
	fmt.Fprintln(up.conn, "refused", child.Pid(), err)
	return false
}

func deadline(ln net.Listener, t time.Time) {
	if err := ln.(interface{ SetDeadline(time.Time) error }).SetDeadline(t); err != nil {
		panic(err)
	}
}

func (p *pool) bequest(up upgrade, child *handover.Child) io.Reader {
	name := strings.NewReader("heir of " + p.name + "\n")
	switch up.mode {
	case "no state":
		return nil // the new one has no name then
	case "parent dies while giving":
		return io.MultiReader(name, io.LimitReader(zeros{}, 200_000), readerFunc(func([]byte) (int, error) {
			fmt.Fprintln(up.conn, "giving", child.Pid())
			select {}
		}))
	case "state that cannot be read":
		return io.MultiReader(name, readerFunc(func([]byte) (int, error) { return 0, errors.New("disk on fire") }))
	}
	return io.MultiReader(name, io.LimitReader(zeros{}, 3_000_000))
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// startPool runs the first pool and returns its address and its process.
func startPool(t *testing.T) (addr string, cmd *exec.Cmd) {
	cmd = exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "HANDOVER_ROLE=pool", "HANDOVER_ADDR=127.0.0.1:0")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	addr = strings.TrimSpace(line)
	t.Cleanup(func() {
		reply, err := ask(addr, "quit")
		if err != nil || reply != "bye" {
			t.Errorf("the last process does not end: %q, %v", reply, err)
		}
		_ = cmd.Wait()
	})
	return addr, cmd
}

func ask(addr, line string) (string, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return askOn(conn, line)
}

func askOn(conn net.Conn, line string) (string, error) {
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintln(conn, line); err != nil {
		return "", err
	}
	reply, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(reply), err
}

// A who is what a pool says of itself.
type who struct {
	name       string
	state, pid int
}

func askWho(t *testing.T, addr string) who {
	reply, err := ask(addr, "who")
	require.NoError(t, err)
	w, err := parseWho(reply)
	require.NoError(t, err)
	return w
}

func parseWho(reply string) (w who, err error) {
	f := strings.Fields(reply)
	if len(f) < 3 {
		return w, fmt.Errorf("reply %q", reply)
	}
	w.name = strings.Join(f[:len(f)-2], " ")
	w.state, _ = strconv.Atoi(f[len(f)-2])
	w.pid, err = strconv.Atoi(f[len(f)-1])
	return w, err
}

// askUpgrade returns the first word of the answer, the new process and the rest.
func askUpgrade(t *testing.T, addr, mode string) (word string, pid int, rest string) {
	reply, err := ask(addr, "upgrade "+mode)
	require.NoError(t, err)
	word, rest, _ = strings.Cut(reply, " ")
	number, rest, _ := strings.Cut(rest, " ")
	pid, err = strconv.Atoi(number)
	require.NoError(t, err, reply)
	return word, pid, rest
}

func isGone(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

func TestNobodyIsRefusedThroughTwoHandovers(t *testing.T) {
	addr, cmd := startPool(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var all sync.WaitGroup
	var answers, heirs atomic.Int64
	failed := make(chan error, 4)
	for range 4 {
		all.Go(func() {
			for ctx.Err() == nil {
				reply, err := ask(addr, "who")
				if err == nil {
					_, err = parseWho(reply)
				}
				if err != nil {
					failed <- err
					return
				}
				answers.Add(1)
				if strings.HasPrefix(reply, "heir of heir") {
					heirs.Add(1)
				}
			}
		})
	}

	before := askWho(t, addr)
	require.Equal(t, "first", before.name)
	require.Equal(t, cmd.Process.Pid, before.pid)
	word, pid, rest := askUpgrade(t, addr, "")
	require.Equal(t, "given", word, rest)
	require.NoError(t, cmd.Wait(), "the old process ends by itself")
	after := askWho(t, addr)
	require.Equal(t, who{"heir of first", 3_000_000 + len("heir of first\n"), pid}, after)
	require.NotEqual(t, before.pid, after.pid)

	// Port 0 was asked for, and still means the same socket.
	word, pid, rest = askUpgrade(t, addr, "")
	require.Equal(t, "given", word, rest)
	require.Equal(t, who{"heir of heir of first", 3_000_000 + len("heir of heir of first\n"), pid}, askWho(t, addr))

	for heirs.Load() < 20 && len(failed) == 0 {
		_ = askWho(t, addr)
	}
	stop()
	all.Wait()
	close(failed)
	for err := range failed {
		t.Error("a client was turned away:", err)
	}
	t.Logf("%d connections", answers.Load())
}

// Programs that the new process starts must not hold its sockets, or they would outlive it.
func TestWhatWasInheritedGoesNoFurther(t *testing.T) {
	addr, _ := startPool(t)
	word, _, rest := askUpgrade(t, addr, "leaks")
	require.Equal(t, "given", word, rest)
	reply, err := ask(addr, "leaks")
	require.NoError(t, err)
	require.Equal(t, "are open", reply)
}

// A connection that nobody has accepted when the old process ends is answered by the new one.
func TestAConnectionWaitsThroughTheHandover(t *testing.T) {
	addr, cmd := startPool(t)
	word, pid, _ := askUpgrade(t, addr, "parent dies before giving")
	require.Equal(t, "ready", word)
	// The old process still accepts, but it is stopped: what is dialed now waits.
	require.NoError(t, cmd.Process.Signal(syscall.SIGSTOP))
	var status syscall.WaitStatus
	_, err := syscall.Wait4(cmd.Process.Pid, &status, syscall.WUNTRACED, nil)
	require.NoError(t, err)
	require.True(t, status.Stopped())
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	reply, err := askOn(conn, "who")
	require.NoError(t, err)
	require.Equal(t, fmt.Sprint("orphan 0 ", pid), reply)
}

func TestNoStateIsFineToo(t *testing.T) {
	addr, cmd := startPool(t)
	word, pid, rest := askUpgrade(t, addr, "no state")
	require.Equal(t, "given", word, rest)
	require.NoError(t, cmd.Wait())
	require.Equal(t, who{"nameless", 0, pid}, askWho(t, addr))
}

func TestTheOldProcessGoesOnWhenTheNewOne(t *testing.T) {
	for _, test := range []struct{ name, says string }{
		{"fails", "it ended: exit status 3"},
		{"hangs", "it said nothing for 300ms"},
		{"fails when ready", "it ended: exit status 4"},
		{"hangs when ready", "it took nothing for 300ms"},
		{"too much", "more than 100 bytes"},
		{"state that cannot be read", "disk on fire"},
	} {
		t.Run(test.name, func(t *testing.T) {
			addr, cmd := startPool(t)
			word, pid, rest := askUpgrade(t, addr, test.name)
			require.Equal(t, "refused", word)
			require.Contains(t, rest, test.says)
			require.Contains(t, rest, "handover: ")
			require.True(t, isGone(pid), "the new process is still there")
			require.Equal(t, who{"first", 0, cmd.Process.Pid}, askWho(t, addr))

			// And the next attempt is as good as the first.
			word, pid, rest = askUpgrade(t, addr, "")
			require.Equal(t, "given", word, rest)
			require.Equal(t, pid, askWho(t, addr).pid)
			require.NoError(t, cmd.Wait())
		})
	}
}

func TestTheNewProcessTakesOverWhenTheOldOneIsKilled(t *testing.T) {
	for mode, says := range map[string]string{"parent dies before giving": "ready", "parent dies while giving": "giving"} {
		t.Run(mode, func(t *testing.T) {
			addr, cmd := startPool(t)
			word, pid, rest := askUpgrade(t, addr, mode)
			require.Equal(t, says, word, rest)
			require.NoError(t, cmd.Process.Kill())
			_ = cmd.Wait()
			for range 10 {
				require.Equal(t, who{"orphan", 0, pid}, askWho(t, addr), "no half of a state is ever used")
			}
		})
	}
}

// The tests below are the old process themselves; the new one hangs until it is ended.

func startHanging(t *testing.T, listeners ...net.Listener) *handover.Child {
	child, err := handover.Start(t.Context(), listeners, &handover.Options{Path: os.Args[0], Args: []string{},
		Env: append(os.Environ(), "HANDOVER_ROLE=pool", "HANDOVER_MODE=hangs")})
	require.NoError(t, err)
	t.Cleanup(child.Abort)
	return child
}

// A descriptor that is passed on the usual way makes the socket block for both processes, and Close wait for ever.
func TestAPassedListenerCanStillBeClosed(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	startHanging(t, ln)
	accepted := make(chan error)
	go func() {
		for {
			conn, err := ln.Accept()
			if err == nil {
				conn.Close()
			}
			accepted <- err
			if err != nil {
				return
			}
		}
	}()
	conn, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	conn.Close()
	require.NoError(t, <-accepted)
	require.NoError(t, ln.Close())
	select {
	case err := <-accepted:
		require.ErrorIs(t, err, net.ErrClosed)
	case <-time.After(10 * time.Second):
		t.Fatal("Accept does not notice that its listener was closed")
	}
}

func TestTheFileOfAUnixSocketStays(t *testing.T) {
	dir, err := os.MkdirTemp("", "sock") // paths of sockets are short
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "pool.sock")
	ln, err := (*handover.Inherited)(nil).Listen("unix", path)
	require.NoError(t, err)
	child := startHanging(t, ln)
	require.NoError(t, ln.Close())
	conn, err := net.Dial("unix", path)
	require.NoError(t, err, "the new process cannot be reached")
	conn.Close()
	child.Abort()
	_, err = net.Dial("unix", path)
	require.Error(t, err, "somebody still listens")
}

func TestAbortEndsTheNewProcess(t *testing.T) {
	child := startHanging(t)
	require.False(t, isGone(child.Pid()))
	child.Abort()
	require.True(t, isGone(child.Pid()))
	child.Abort()
	require.ErrorContains(t, child.Give(t.Context(), nil), "the handover is over")
}

func TestReadyAndGiveEndWithTheirContext(t *testing.T) {
	child := startHanging(t)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	require.ErrorIs(t, child.Ready(ctx), context.Canceled)
	require.True(t, isGone(child.Pid()))

	child = startHanging(t)
	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	require.ErrorIs(t, child.Give(ctx, zeros{}), context.Canceled, "it fills the pipe and waits")
	require.True(t, isGone(child.Pid()))

	child = startHanging(t)
	require.ErrorIs(t, child.Give(ctx, nil), context.Canceled)
	require.True(t, isGone(child.Pid()))
}

func TestStartSaysWhatIsWrong(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	closed.Close()
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for _, test := range []struct {
		name string
		ctx  context.Context
		ln   net.Listener
		opts *handover.Options
		says []string
	}{
		{"no such program", t.Context(), ln, &handover.Options{Path: "/nowhere/pool"}, []string{"/nowhere/pool"}},
		{"a listener that hides its descriptor", t.Context(), struct{ net.Listener }{ln}, nil, []string{"has no descriptor", "struct"}},
		{"a closed listener", t.Context(), closed, nil, []string{"closed", closed.Addr().String()}},
		{"too late", over, ln, nil, []string{"context canceled"}},
		{"options that cannot be", t.Context(), ln, &handover.Options{ReadyTimeout: -1, MaxState: -1}, []string{"negative timeout", "-1 bytes"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			child, err := handover.Start(test.ctx, []net.Listener{test.ln}, test.opts)
			require.Nil(t, child)
			require.ErrorContains(t, err, "handover: start: ")
			for _, says := range test.says {
				require.ErrorContains(t, err, says)
			}
		})
	}
}

func TestSystemdIsToldOfTheNewProcess(t *testing.T) {
	dir, err := os.MkdirTemp("", "sock")
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "notify")
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	require.NoError(t, err)
	defer notify.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	addr, _ := startPool(t)
	word, pid, rest := askUpgrade(t, addr, "")
	require.Equal(t, "given", word, rest)
	b := make([]byte, 100)
	require.NoError(t, notify.SetReadDeadline(time.Now().Add(10*time.Second)))
	n, err := notify.Read(b)
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf("MAINPID=%d\n", pid), string(b[:n]))

	// When it cannot be told it would end the new process with the old one, so nothing is handed over.
	require.NoError(t, os.Remove(path))
	word, next, rest := askUpgrade(t, addr, "")
	require.Equal(t, "refused", word)
	require.Contains(t, rest, "systemd")
	require.True(t, isGone(next))
	require.Equal(t, pid, askWho(t, addr).pid)
}

// A shell stands in for systemd: it knows its own number, which is that of what it becomes.
func asSystemd(t *testing.T, env string, files ...*os.File) *exec.Cmd {
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0"`, os.Args[0])
	cmd.Env = append(os.Environ(), "HANDOVER_ROLE=pool", fmt.Sprint("LISTEN_FDS=", len(files)))
	cmd.Env = append(cmd.Env, strings.Split(env, " ")...)
	cmd.ExtraFiles = files
	return cmd
}

func TestSocketsFromSystemdAreTaken(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := ln.Addr().String()
	f, err := ln.(*net.TCPListener).File()
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, ln.Close())
	other, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	g, err := other.(*net.TCPListener).File()
	require.NoError(t, err)
	defer g.Close()
	for _, test := range []struct{ name, env string }{
		{"by address", "HANDOVER_ADDR=" + addr},
		{"by name", "HANDOVER_ADDR=stratum LISTEN_FDNAMES=web:stratum"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cmd := asSystemd(t, test.env, g, f)
			cmd.Stderr = os.Stderr
			out, err := cmd.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			_, err = bufio.NewReader(out).ReadString('\n')
			require.NoError(t, err)
			require.Equal(t, who{"first", 0, cmd.Process.Pid}, askWho(t, addr))
			reply, err := ask(addr, "quit")
			require.NoError(t, err)
			require.Equal(t, "bye", reply)
			require.NoError(t, cmd.Wait())
		})
	}
}

func TestInheritSaysWhatIsWrong(t *testing.T) {
	file, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer file.Close()
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer packets.Close()
	udp, err := packets.(*net.UDPConn).File()
	require.NoError(t, err)
	defer udp.Close()
	for _, test := range []struct {
		name, env string
		files     []*os.File
		says      string
	}{
		{"a file", "LISTEN_FDNAMES=web", []*os.File{file}, "descriptor 3 (web) is no listening socket"},
		{"datagrams", "LISTEN_FDNAMES=web", []*os.File{udp}, "descriptor 3 (web) is no listening socket"},
		{"no number", "LISTEN_FDS=some", nil, `LISTEN_FDS is "some"`},
		{"a negative number", "LISTEN_FDS=-1", nil, `LISTEN_FDS is "-1"`},
		{"more than there are", "LISTEN_FDS=2", nil, "descriptor 3"},
		{"no invitation", "POOLKIT_HANDOVER=x", nil, `POOLKIT_HANDOVER is "x"`},
		{"an invitation of another version", `POOLKIT_HANDOVER={"version":2}`, nil, "version 2"},
		{"an invitation that was meant for another", `POOLKIT_HANDOVER={"version":1}`, []*os.File{file, file}, "descriptor 3 is no pipe"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cmd := asSystemd(t, test.env, test.files...)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit)
			require.Equal(t, 2, exit.ExitCode())
			require.Contains(t, string(out), test.says)
			require.Contains(t, string(out), "handover: inherit: ")
		})
	}
}
