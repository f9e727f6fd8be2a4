package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// asPool makes the test binary a pool: a process that can be killed.
const asPool = "FULLPOOL_TEST_ARGS"

func TestMain(m *testing.M) {
	embeddedDifficulty = 0.0005
	keepInterval = 200 * time.Millisecond
	if args := os.Getenv(asPool); args != "" {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		os.Exit(Main(ctx, strings.Split(args, "\n"), os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// easy is a difficulty that makes a share a matter of milliseconds.
const easy = "0.000003814697265625"

// patience is how long anything may take on a machine that is busy with other tests.
const patience = 90 * time.Second

// A logBuffer collects what a pool writes and lets a test wait for it.
type logBuffer struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{}
}

func newLog() *logBuffer { return &logBuffer{changed: make(chan struct{}, 1)} }

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case b.changed <- struct{}{}:
	default:
	}
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// await waits until the log matches and returns the match with its groups. ended, when closed, ends the wait.
func (b *logBuffer) await(t testing.TB, pattern string, ended <-chan struct{}) []string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	timeout := time.After(patience)
	for {
		if m := re.FindStringSubmatch(b.String()); m != nil {
			return m
		}
		select {
		case <-b.changed:
		case <-ended:
			if m := re.FindStringSubmatch(b.String()); m != nil {
				return m
			}
			t.Fatalf("the pool ended without %q:\n%s", pattern, b)
		case <-timeout:
			t.Fatalf("no %q in the log:\n%s", pattern, b)
		}
	}
}

// findAll returns the first group of every match so far.
func (b *logBuffer) findAll(pattern string) []string {
	var found []string
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(b.String(), -1) {
		found = append(found, m[1])
	}
	return found
}

// A running pool.
type running struct {
	t      testing.TB
	log    *logBuffer
	miners string // host:port
	web    string // URL without a path
	stop   func() int
	ended  chan struct{}

	process *os.Process // nil in process
}

func ports() []string { return []string{"-listen", "127.0.0.1:0", "-http", "127.0.0.1:0"} }

// start runs a pool in this process.
func start(t testing.TB, args ...string) *running {
	t.Helper()
	p := launch(t, append(ports(), args...)...)
	p.open()
	return p
}

// launch is start for a pool whose ports are among args.
func launch(t testing.TB, args ...string) *running {
	t.Helper()
	p := &running{t: t, log: newLog(), ended: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	code := 0
	go func() {
		defer close(p.ended)
		code = Main(ctx, args, p.log, p.log)
	}()
	p.stop = sync.OnceValue(func() int { cancel(); <-p.ended; return code })
	t.Cleanup(func() { p.stop() })
	return p
}

// spawn runs a pool in a process of its own.
func spawn(t testing.TB, args ...string) *running {
	t.Helper()
	p := &running{t: t, log: newLog(), ended: make(chan struct{})}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asPool+"="+strings.Join(append(ports(), args...), "\n"))
	cmd.Stdout, cmd.Stderr = p.log, p.log
	require.NoError(t, cmd.Start())
	p.process = cmd.Process
	code := 0
	go func() {
		defer close(p.ended)
		cmd.Wait()
		code = cmd.ProcessState.ExitCode()
	}()
	p.stop = sync.OnceValue(func() int { cmd.Process.Signal(os.Interrupt); <-p.ended; return code })
	t.Cleanup(func() { cmd.Process.Kill(); <-p.ended })
	p.open()
	return p
}

func (p *running) open() {
	p.t.Helper()
	m := p.log.await(p.t, `msg="the pool is open" miners=stratum\+tcp://([^ ,]+)\S* statistics=(http://\S+)/ `, p.ended)
	p.miners, p.web = m[1], m[2]
}

// get reads a document of the statistics.
func (p *running) get(path string) map[string]any {
	p.t.Helper()
	doc, code := p.tryGet(path)
	require.Equal(p.t, http.StatusOK, code, path)
	return doc
}

func (p *running) tryGet(path string) (map[string]any, int) {
	p.t.Helper()
	resp, err := http.Get(p.web + path)
	require.NoError(p.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(p.t, err)
	if resp.StatusCode != http.StatusOK {
		return nil, resp.StatusCode
	}
	var doc map[string]any
	require.NoError(p.t, json.Unmarshal(body, &doc), "%s", body)
	return doc, resp.StatusCode
}

// metrics reads what Prometheus would.
func metrics(t testing.TB, p *running) string {
	t.Helper()
	resp, err := http.Get(p.web + "/metrics")
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, resp.StatusCode, "%s", body)
	return string(body)
}

// eventually polls a condition on the statistics, which lag the shares by some seconds.
func (p *running) eventually(what string, ok func() bool) {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			p.t.Fatalf("%s did not come to be; the log:\n%s", what, p.log)
		}
		select {
		case <-p.ended:
			p.t.Fatalf("the pool ended before %s:\n%s", what, p.log)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (p *running) number(path string, keys ...string) float64 {
	p.t.Helper()
	var v any = p.get(path)
	for _, k := range keys {
		v = v.(map[string]any)[k]
	}
	n, ok := v.(float64)
	if !ok {
		p.t.Fatalf("%s has no number at %s: %v", path, fmt.Sprint(keys), v)
	}
	return n
}
