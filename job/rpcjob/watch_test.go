package rpcjob_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/go-zeromq/zmq4"
	"github.com/go-zeromq/zmq4/security/null"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/job/rpcjob"
	"github.com/stretchr/testify/require"
)

// Intervals that make one way the only one in a test.
const (
	never = time.Hour
	soon  = 5 * time.Millisecond
)

func (n *fakeNode) node() rpcjob.Node { return rpcjob.Node{URL: n.URL, User: "u", Pass: "p"} }

func TestFirstTemplateComesAtOnce(t *testing.T) {
	n := newFakeNode(t)
	w := watch(t, n.node(), rpcjob.Options{Interval: never})
	tpl := get(t, w.templates, "the first template")
	require.Equal(t, chainhash.Hash{1}, tpl.PrevHash)
	require.Equal(t, int32(100), tpl.Height)
	require.Equal(t, n.URL, tpl.Source)
	n.mu.Lock()
	body, params := n.render(), n.requests["poll"][0]
	n.mu.Unlock()
	require.Equal(t, chainhash.DoubleHashH([]byte(body)), tpl.ID, "the hash of every byte of the reply")
	require.True(t, contains(params["rules"], "segwit"))
	require.False(t, contains(params["rules"], "signet"))
	require.True(t, contains(params["capabilities"], "coinbasevalue"))
	require.Equal(t, rpcjob.Poll, get(t, w.tips, "the notice").Way)
}

func TestLongPollNoticesNewTips(t *testing.T) {
	n := newFakeNode(t)
	w := watch(t, n.node(), rpcjob.Options{Interval: never})
	w.tip(chainhash.Hash{1})
	for i := byte(2); i < 6; i++ {
		until(t, "a long poll is out", func() bool { return w.Stats().LongPolls == uint64(i-1) && n.count("longpoll") == int(i-1) })
		n.mine(chainhash.Hash{i})
		notice := w.tip(chainhash.Hash{i})
		require.Equal(t, rpcjob.LongPoll, notice.Way)
		require.Equal(t, int32(99)+int32(i), notice.Height)
		require.Greater(t, notice.Took, time.Duration(0))
		require.Less(t, notice.Took, time.Minute)
	}
	w.stop()
	st := w.Stats()
	require.Equal(t, uint64(5), st.Tips)
	require.Equal(t, uint64(1), st.ByPoll)
	require.Equal(t, uint64(4), st.ByLongPoll)
	require.Equal(t, uint64(1), st.Requests, "the long poll's own reply is used")
	require.Zero(t, st.Failures+st.LongPollFailures)
}

func TestPollingAloneNoticesNewTipsAndTransactions(t *testing.T) {
	n := newFakeNode(t)
	w := watch(t, n.node(), rpcjob.Options{Interval: soon, LongPollTimeout: -1})
	first := get(t, w.templates, "a template")
	second := get(t, w.templates, "another template on the same tip")
	require.Equal(t, first.PrevHash, second.PrevHash)
	require.NotEqual(t, first.ID, second.ID)
	n.mine(chainhash.Hash{2})
	require.Equal(t, rpcjob.Poll, w.tip(chainhash.Hash{2}).Way)
	require.Zero(t, n.count("longpoll"))
}

func TestSameBytesArePutOnce(t *testing.T) {
	n := newFakeNode(t)
	n.frozen = true
	w := watch(t, n.node(), rpcjob.Options{Interval: soon, LongPollTimeout: -1})
	until(t, "the node was asked ten times", func() bool { return w.Stats().Duplicates >= 10 })
	w.stop()
	require.Len(t, w.templates, 1)
	require.Equal(t, uint64(1), w.Stats().Templates)
}

// With a block every 50 ms or so, noticed by long poll, a poll every 300 ms would fall into each run of eight. A machine
// that stalls for as long makes a run say nothing; there are others.
func TestIntervalCountsFromTheLastTemplate(t *testing.T) {
	const interval = 300 * time.Millisecond
	run := func() (requests uint64, undisturbed bool) {
		n := newFakeNode(t)
		w := watch(t, n.node(), rpcjob.Options{Interval: interval})
		defer w.stop()
		w.tip(chainhash.Hash{1})
		undisturbed = true
		last := time.Now()
		for i := byte(2); i < 12; i++ {
			until(t, "the next long poll is out", func() bool { return n.count("longpoll") >= int(i)-1 })
			pause := time.NewTimer(50 * time.Millisecond)
			<-pause.C
			n.mine(chainhash.Hash{i})
			w.tip(chainhash.Hash{i})
			undisturbed = undisturbed && time.Since(last) < interval/2
			last = time.Now()
		}
		return w.Stats().Requests, undisturbed
	}
	for range 20 {
		requests, undisturbed := run()
		if undisturbed {
			require.Equal(t, uint64(1), requests)
			return
		}
	}
	t.Fatal("this machine stalls all the time")
}

func TestPollFollowsTheInterval(t *testing.T) {
	n := newFakeNode(t)
	w := watch(t, n.node(), rpcjob.Options{Interval: 20 * time.Millisecond})
	start := time.Now()
	until(t, "the node was polled", func() bool { return w.Stats().Requests >= 4 })
	require.GreaterOrEqual(t, time.Since(start), 50*time.Millisecond)
}

// A node whose templates carry a long poll id and which does not hold the answer must not be called in a loop.
func TestNodeThatDoesNotHoldLongPolls(t *testing.T) {
	n := newFakeNode(t)
	n.noLong = true
	w := watch(t, n.node(), rpcjob.Options{Interval: never, RetryInterval: never})
	w.tip(chainhash.Hash{1})
	until(t, "the long poll has been answered", func() bool { return w.Stats().Templates >= 2 })
	n.mine(chainhash.Hash{2})
	w.stop()
	require.Equal(t, 1, n.count("longpoll"))
}

func TestLongPollThatReachesItsLimitIsNoFailure(t *testing.T) {
	n := newFakeNode(t)
	w := watch(t, n.node(), rpcjob.Options{Interval: never, LongPollTimeout: 20 * time.Millisecond})
	until(t, "it was started again", func() bool { return w.Stats().LongPolls >= 5 })
	w.stop()
	require.Zero(t, w.Stats().LongPollFailures)
	require.Empty(t, w.failures)
}

// Whatever the order in which the ways bring a tip, it is put once, and never an older one after it.
func TestTipSeenByAllWaysIsPutOnce(t *testing.T) {
	n := newFakeNode(t)
	pub, endpoint := publisher(t)
	w := watch(t, n.node(), rpcjob.Options{Interval: 3 * time.Millisecond, ZMQ: []string{endpoint}, RetryInterval: time.Millisecond})
	w.tip(chainhash.Hash{1})
	pub.awaitSubscriber(t)

	const blocks = 60
	for i := byte(2); i < 2+blocks; i++ {
		tip := chainhash.Hash{i}
		var both sync.WaitGroup
		both.Go(func() { n.mine(tip) })
		both.Go(func() { pub.block(tip) })
		both.Wait()
		for get(t, w.templates, "the tip").PrevHash != tip {
		}
	}
	w.stop()
	seen := map[chainhash.Hash]int{}
	for len(w.tips) > 0 {
		seen[(<-w.tips).Tip]++
	}
	require.Len(t, seen, blocks) // and the first, which w.tip took
	for tip, times := range seen {
		require.Equal(t, 1, times, "%v", tip)
	}
	st := w.Stats()
	require.Equal(t, uint64(blocks+1), st.Tips)
	require.Equal(t, st.Tips, st.ByPoll+st.ByLongPoll+st.ByZMQ)
	n.mu.Lock()
	defer n.mu.Unlock()
	require.Equal(t, 1, n.maxPlain, "one template request at a time")
}

// A reply that was made before a block and arrives after the block was put by another way.
func TestOlderReplyNeverFollowsANewerTip(t *testing.T) {
	n := newFakeNode(t)
	w := watch(t, n.node(), rpcjob.Options{Interval: 50 * time.Millisecond})
	w.tip(chainhash.Hash{1})
	until(t, "a long poll is out", func() bool { return n.count("longpoll") == 1 })

	held, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	n.mu.Lock()
	n.hook = func(id string) {
		if id != "" {
			return
		}
		once.Do(func() {
			n.mu.Lock()
			old := n.render()
			n.mu.Unlock()
			close(held)
			<-release
			n.mu.Lock()
			n.late = old
			n.mu.Unlock()
		})
	}
	n.mu.Unlock()
	get(t, held, "the poll that is held")
	n.mine(chainhash.Hash{2})
	require.Equal(t, rpcjob.LongPoll, w.tip(chainhash.Hash{2}).Way)
	before := w.Stats().Requests
	close(release)
	until(t, "the node was asked again", func() bool { return w.Stats().Requests > before })
	next := get(t, w.templates, "the next template")
	require.Equal(t, chainhash.Hash{2}, next.PrevHash)
	w.stop()
	for tpl := range w.templates {
		require.Equal(t, chainhash.Hash{2}, tpl.PrevHash)
	}
	require.Equal(t, uint64(2), w.Stats().Tips)
}

func TestZMQNoticesNewTips(t *testing.T) {
	n := newFakeNode(t)
	pub, endpoint := publisher(t)
	w := watch(t, n.node(), rpcjob.Options{Interval: never, LongPollTimeout: -1, ZMQ: []string{endpoint}})
	w.tip(chainhash.Hash{1})
	pub.awaitSubscriber(t)

	pub.send("hashtx", make([]byte, 32))               // another topic
	pub.send("hashblock", []byte("short"))             // no hash
	pub.send("hashblockx", make([]byte, 32))           // begins like the topic
	pub.send("hashblock")                              // no body
	pub.send("hashblock", reversed(chainhash.Hash{1})) // the tip that is known
	n.mine(chainhash.Hash{2})
	pub.block(chainhash.Hash{2})
	notice := w.tip(chainhash.Hash{2})
	require.Equal(t, rpcjob.ZMQ, notice.Way)
	for i := range uint64(20) {
		pub.block(chainhash.Hash{2})
		until(t, "the message is heard", func() bool { return w.Stats().ZMQMessages == i+3 })
	}
	n.mine(chainhash.Hash{3})
	pub.block(chainhash.Hash{3})
	require.Equal(t, rpcjob.ZMQ, w.tip(chainhash.Hash{3}).Way)
	w.stop()
	st := w.Stats()
	require.Equal(t, uint64(23), st.ZMQMessages)
	require.Equal(t, uint64(3), st.Requests, "a known tip is not asked for again")
	require.Equal(t, uint64(2), st.ByZMQ)
}

// The publisher may belong to a faster node, or the node may need a moment.
func TestZMQAheadOfTheNode(t *testing.T) {
	n := newFakeNode(t)
	pub, endpoint := publisher(t)
	w := watch(t, n.node(), rpcjob.Options{Interval: never, RetryInterval: soon, LongPollTimeout: -1, ZMQ: []string{endpoint}})
	w.tip(chainhash.Hash{1})
	pub.awaitSubscriber(t)
	pub.block(chainhash.Hash{2})
	until(t, "the node was asked in vain", func() bool { return w.Stats().Templates >= 2 })
	n.mine(chainhash.Hash{2})
	pub.block(chainhash.Hash{2})
	w.tip(chainhash.Hash{2})
}

func TestPublisherThatComesBack(t *testing.T) {
	n := newFakeNode(t)
	pub, endpoint := publisher(t)
	w := watch(t, n.node(), rpcjob.Options{Interval: never, RetryInterval: soon, LongPollTimeout: -1, ZMQ: []string{endpoint}})
	w.tip(chainhash.Hash{1})
	pub.awaitSubscriber(t)
	pub.close()
	get(t, w.failures, "the failure of the connection")
	pub = listen(t, endpoint)
	pub.awaitSubscriber(t)
	n.mine(chainhash.Hash{2})
	pub.block(chainhash.Hash{2})
	require.Equal(t, rpcjob.ZMQ, w.tip(chainhash.Hash{2}).Way)
	require.NotZero(t, w.Stats().ZMQFailures)
}

func TestSilentPublisherIsConnectedToAnew(t *testing.T) {
	n := newFakeNode(t)
	conns := make(chan net.Conn, 100)
	endpoint := tcpServer(t, func(c net.Conn) {
		if _, err := zmq4.Open(c, null.Security(), zmq4.Pub, nil, true, nil); err == nil {
			conns <- c
		}
	})
	w := watch(t, n.node(), rpcjob.Options{Interval: never, ZMQ: []string{endpoint}, ZMQTimeout: 30 * time.Millisecond})
	for range 3 {
		get(t, conns, "another connection")
	}
	w.stop()
	require.Empty(t, w.failures, "silence is no failure")
}

// What is no publisher costs nothing but a warning: the first template and polling do not wait for it.
func TestBadPublishersDegradeToPolling(t *testing.T) {
	greeting := append([]byte{0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0, 'N', 'U', 'L', 'L'}, make([]byte, 48)...)
	ready := append([]byte{4, 25, 5}, "READY\x0bSocket-Type\x00\x00\x00\x03PUB"...)
	ready[1] = byte(len(ready) - 2)
	for name, serve := range map[string]func(net.Conn){
		"closes at once":  func(c net.Conn) { c.Close() },
		"web server":      func(c net.Conn) { io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n"+strings.Repeat("x", 200)) },
		"half a greeting": func(c net.Conn) { c.Write(greeting[:20]); c.Close() },
		"frame of 2^62 bytes": func(c net.Conn) {
			c.Write(greeting)
			c.Write(ready)
			c.Write(binary.BigEndian.AppendUint64([]byte{2}, 1<<62))
		},
		"frame beyond 2^63 bytes in the handshake": func(c net.Conn) {
			c.Write(greeting)
			c.Write(binary.BigEndian.AppendUint64([]byte{6}, 1<<63+1))
		},
		"endless message": func(c net.Conn) {
			c.Write(greeting)
			c.Write(ready)
			for {
				if _, err := c.Write([]byte{1, 1, 'x'}); err != nil {
					return
				}
			}
		},
		"command without a name":   func(c net.Conn) { c.Write(greeting); c.Write([]byte{4, 0}) },
		"command with a long name": func(c net.Conn) { c.Write(greeting); c.Write([]byte{4, 2, 200, 'x'}) },
	} {
		t.Run(name, func(t *testing.T) {
			n := newFakeNode(t)
			endpoint := tcpServer(t, serve)
			var warned syncBuffer
			w := watch(t, n.node(), rpcjob.Options{
				Interval: soon, RetryInterval: soon, LongPollTimeout: -1, ZMQ: []string{endpoint},
				Logger: slog.New(slog.NewTextHandler(&warned, nil)),
			})
			w.tip(chainhash.Hash{1})
			require.Error(t, get(t, w.failures, "the failure"))
			n.mine(chainhash.Hash{2})
			require.Equal(t, rpcjob.Poll, w.tip(chainhash.Hash{2}).Way)
			w.stop()
			require.Contains(t, warned.String(), "level=WARN")
			require.Contains(t, warned.String(), "way=zmq")
		})
	}
	t.Run("accepts and stays silent", func(t *testing.T) {
		n := newFakeNode(t)
		endpoint := tcpServer(t, func(c net.Conn) {})
		w := watch(t, n.node(), rpcjob.Options{Interval: soon, LongPollTimeout: -1, ZMQ: []string{endpoint}})
		w.tip(chainhash.Hash{1})
		n.mine(chainhash.Hash{2})
		w.tip(chainhash.Hash{2})
		start := time.Now()
		w.stop()
		require.Less(t, time.Since(start), 4*time.Second, "before the handshake's own limit")
	})
}

func TestPublisherWithoutHashblockIsWarnedAbout(t *testing.T) {
	n := newFakeNode(t)
	pub, endpoint := publisher(t)
	var warned syncBuffer
	w := watch(t, n.node(), rpcjob.Options{
		Interval: never, ZMQ: []string{endpoint}, Logger: slog.New(slog.NewTextHandler(&warned, nil)),
	})
	w.tip(chainhash.Hash{1})
	pub.awaitSubscriber(t)
	for i := byte(2); i < 5; i++ {
		require.NotContains(t, warned.String(), "does the node publish hashblock there?")
		n.mine(chainhash.Hash{i})
		w.tip(chainhash.Hash{i})
	}
	w.stop()
	require.Contains(t, warned.String(), "does the node publish hashblock there?")
}

func TestFailuresAreRetriedUntilTheNodeIsWell(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		status     int
		want       string
	}{
		{"starting", `{"result":null,"error":{"code":-28,"message":"Loading"},"id":"1"}`, 500, "error -28: Loading"},
		{"web page", `<html></html>`, 200, "a web page"},
		{"refused", ``, 401, "refused the user and password"},
		{"cut short", `{"result":{"height":1`, 200, "broken JSON"},
		{"template without a field", `{"result":{"height":1},"error":null}`, 200, "previousblockhash: missing"},
		{"unknown rule", `{"result":{"rules":["!newthing"]},"error":null}`, 200, `unknown mandatory rule "newthing"`},
		{"hanging", "hang", 0, "no answer in time"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newFakeNode(t)
			n.answers["getblocktemplate"], n.statuses["getblocktemplate"] = tt.body, tt.status
			w := watch(t, n.node(), rpcjob.Options{Interval: never, RetryInterval: soon, Timeout: 50 * time.Millisecond})
			for range 3 {
				require.ErrorContains(t, get(t, w.failures, "a failure"), tt.want)
			}
			require.Empty(t, w.templates)
			n.set(func() { delete(n.answers, "getblocktemplate") })
			w.tip(chainhash.Hash{1})
			require.GreaterOrEqual(t, w.Stats().Failures, uint64(3))

			// The same while long polling.
			until(t, "a long poll is out", func() bool { return n.count("longpoll") > 0 })
			before := n.count("longpoll")
			n.CloseClientConnections()
			until(t, "the long poll was sent again", func() bool { return n.count("longpoll") > before })
			n.mine(chainhash.Hash{2})
			require.Equal(t, rpcjob.LongPoll, w.tip(chainhash.Hash{2}).Way)
		})
	}
}

func TestFailureIsLoggedOnceAndItsEndToo(t *testing.T) {
	n := newFakeNode(t)
	n.answers["getblocktemplate"] = "junk"
	var out syncBuffer
	w := watch(t, n.node(), rpcjob.Options{
		Interval: never, RetryInterval: time.Millisecond, LongPollTimeout: -1, Logger: slog.New(slog.NewTextHandler(&out, nil)),
	})
	until(t, "it failed ten times", func() bool { return w.Stats().Failures >= 10 })
	n.set(func() { delete(n.answers, "getblocktemplate") })
	w.tip(chainhash.Hash{1})
	w.stop()
	require.Equal(t, 1, strings.Count(out.String(), "level=WARN"), out.String())
	require.Equal(t, 1, strings.Count(out.String(), "works again"), out.String())
	require.Contains(t, out.String(), "node="+n.URL)
}

func TestWatchEndsWhileTheNodeHangs(t *testing.T) {
	n := newFakeNode(t)
	n.answers["getblocktemplate"] = "hang"
	w := watch(t, n.node(), rpcjob.Options{Timeout: never})
	until(t, "a request is out", func() bool { return w.Stats().Requests == 1 })
	w.stop()
	require.Empty(t, w.failures)
}

func TestWatchWithEndedContextPutsNothing(t *testing.T) {
	n := newFakeNode(t)
	s, err := rpcjob.New(n.node(), nil)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, s.Watch(ctx, func(*job.Template) { t.Error("put") }))
}

// bitcoind on signet answers with an error until the rule is named.
func TestSignetRuleIsLearnt(t *testing.T) {
	n := newFakeNode(t)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if !bytes.Contains(body, []byte(`"signet"`)) {
			w.WriteHeader(500)
			io.WriteString(w, `{"result":null,"error":{"code":-8,"message":"getblocktemplate must be called with the signet rule set `+
				`(call with {\"rules\": [\"segwit\", \"signet\"]})"},"id":"1"}`)
			return
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		io.WriteString(w, n.render())
	}))
	defer srv.Close()
	w := watch(t, rpcjob.Node{URL: srv.URL}, rpcjob.Options{Interval: never, LongPollTimeout: -1})
	w.tip(chainhash.Hash{1})
	require.Zero(t, w.Stats().Failures)
}

func TestNewRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		url  string
		opts rpcjob.Options
		want []string
	}{
		{"everything at once", "ftp://x", rpcjob.Options{Interval: -1, ZMQ: []string{"127.0.0.1:1"}},
			[]string{`"ftp"`, "negative Interval", "it looks like tcp://127.0.0.1:28332"}},
		{"zmq transport", "http://x", rpcjob.Options{ZMQ: []string{"udp://127.0.0.1:1"}}, []string{"tcp or ipc"}},
		{"zmq port", "http://x", rpcjob.Options{ZMQ: []string{"tcp://127.0.0.1:0"}}, []string{"not a port"}},
		{"zmq without port", "http://x", rpcjob.Options{ZMQ: []string{"tcp://127.0.0.1"}}, []string{"missing port"}},
		{"zmq bind address", "http://x", rpcjob.Options{ZMQ: []string{"tcp://*:28332"}}, []string{"names no host"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := rpcjob.New(rpcjob.Node{URL: tt.url}, &tt.opts)
			for _, want := range tt.want {
				require.ErrorContains(t, err, want)
			}
		})
	}
	endpoints := []string{"tcp://127.0.0.1:28332", "tcp://[::1]:28332", "ipc:///run/hashblock"}
	_, err := rpcjob.New(rpcjob.Node{URL: "http://127.0.0.1:8332"}, &rpcjob.Options{ZMQ: endpoints})
	require.NoError(t, err)
}

func TestWayNames(t *testing.T) {
	require.Equal(t, "poll longpoll zmq way(3)", fmt.Sprint(rpcjob.Poll, rpcjob.LongPoll, rpcjob.ZMQ, rpcjob.Way(3)))
}

// A zmqPub is the hashblock publisher of a node.
type zmqPub struct {
	zmq4.Socket
	cancel func()
}

func publisher(t *testing.T) (*zmqPub, string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	endpoint := "tcp://" + ln.Addr().String()
	require.NoError(t, ln.Close())
	return listen(t, endpoint), endpoint
}

func listen(t *testing.T, endpoint string) *zmqPub {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &zmqPub{zmq4.NewPub(ctx, zmq4.WithLogger(log.New(io.Discard, "", 0))), cancel}
	require.NoError(t, p.Listen(endpoint))
	t.Cleanup(p.close)
	return p
}

func (p *zmqPub) close() { p.Close(); p.cancel() }

func (p *zmqPub) awaitSubscriber(t *testing.T) {
	t.Helper()
	until(t, "the source subscribes", func() bool {
		return slices.Contains(p.Socket.(zmq4.Topics).Topics(), "hashblock")
	})
}

func (p *zmqPub) send(topic string, frames ...[]byte) {
	p.SendMulti(zmq4.NewMsgFrom(append([][]byte{[]byte(topic)}, frames...)...))
}

func (p *zmqPub) block(hash chainhash.Hash) { p.send("hashblock", reversed(hash), []byte{1, 0, 0, 0}) }

func reversed(hash chainhash.Hash) []byte {
	slices.Reverse(hash[:])
	return hash[:]
}

// tcpServer accepts connections on 127.0.0.1, hands each to serve, and closes all at the end of the test.
func tcpServer(t *testing.T, serve func(net.Conn)) (endpoint string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			wg.Go(func() { serve(c) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return "tcp://" + ln.Addr().String()
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
