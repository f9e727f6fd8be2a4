package rpcjob_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/job/rpcjob"
	"github.com/stretchr/testify/require"
)

// A fakeNode answers over HTTP as bitcoind does.
type fakeNode struct {
	*httptest.Server

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced when the tip or longPollID changes
	tip      chainhash.Hash
	height   int32
	curTime  int64 // advances with each template unless frozen
	frozen   bool
	version  int      // of the mempool, for the long poll id
	txs      []string // hexadecimal
	noLong   bool
	answers  map[string]string           // by method: whole bodies in place of the real ones
	statuses map[string]int              // by method: HTTP status
	hook     func(longPollID string)     // runs before a template is made, unlocked
	requests map[string][]map[string]any // params of getblocktemplate, by "poll" and "longpoll"
	late     string                      // sent in place of the next template: one that was made earlier
	inFlight int                         // plain template requests
	maxPlain int
}

func newFakeNode(t *testing.T) *fakeNode {
	n := &fakeNode{
		changed: make(chan struct{}), height: 100, curTime: 1_700_000_000, tip: chainhash.Hash{1},
		answers: map[string]string{}, statuses: map[string]int{}, requests: map[string][]map[string]any{},
	}
	n.Server = httptest.NewServer(n)
	t.Cleanup(func() {
		n.Server.CloseClientConnections()
		n.Server.Close()
	})
	return n
}

// set changes the node's state under its lock and wakes the long polls.
func (n *fakeNode) set(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
	close(n.changed)
	n.changed = make(chan struct{})
}

// mine puts a new block on the chain.
func (n *fakeNode) mine(tip chainhash.Hash) { n.set(func() { n.tip = tip; n.height++ }) }

func (n *fakeNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var req struct {
		Method string            `json:"method"`
		Params []json.RawMessage `json:"params"`
	}
	body, _ := io.ReadAll(r.Body)
	if err := json.Unmarshal(body, &req); err != nil {
		w.WriteHeader(400)
		return
	}
	n.mu.Lock()
	answer, forced := n.answers[req.Method]
	if forced {
		if s := n.statuses[req.Method]; s != 0 {
			w.WriteHeader(s)
		}
		n.mu.Unlock()
		if answer == "hang" {
			<-r.Context().Done()
			return
		}
		io.WriteString(w, answer)
		return
	}
	n.mu.Unlock()
	reply := func(v any) { json.NewEncoder(w).Encode(map[string]any{"result": v, "error": nil, "id": "1"}) }
	switch req.Method {
	case "getblocktemplate":
		n.template(w, r, req.Params)
	case "getblockchaininfo":
		reply(map[string]any{"chain": "regtest", "blocks": 100, "headers": 100, "initialblockdownload": true})
	case "getblockhash":
		reply(chaincfg.RegressionNetParams.GenesisHash.String())
	case "getnetworkinfo":
		reply(map[string]any{"connections": 8})
	default:
		w.WriteHeader(404)
		io.WriteString(w, `{"result":null,"error":{"code":-32601,"message":"Method not found"},"id":"1"}`)
	}
}

func (n *fakeNode) template(w http.ResponseWriter, r *http.Request, params []json.RawMessage) {
	var p map[string]any
	if len(params) == 1 {
		json.Unmarshal(params[0], &p)
	}
	id, long := p["longpollid"].(string)
	n.mu.Lock()
	kind := "poll"
	if long {
		kind = "longpoll"
	} else {
		n.inFlight++
		n.maxPlain = max(n.maxPlain, n.inFlight)
		defer func() { n.mu.Lock(); n.inFlight--; n.mu.Unlock() }()
	}
	n.requests[kind] = append(n.requests[kind], p)
	for long && id == n.id() && !n.noLong {
		changed := n.changed
		n.mu.Unlock()
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
		n.mu.Lock()
	}
	hook := n.hook
	n.mu.Unlock()
	if hook != nil {
		hook(id)
	}
	n.mu.Lock()
	if !n.frozen {
		n.curTime++
	}
	text := n.render()
	if n.late != "" {
		text, n.late = n.late, ""
	}
	n.mu.Unlock()
	io.WriteString(w, text)
}

func (n *fakeNode) id() string { return fmt.Sprintf("%v%d", n.tip, n.version) }

func (n *fakeNode) render() string {
	return fmt.Sprintf(`{"result":{"version":536870912,"rules":["csv","!segwit","taproot"],"previousblockhash":"%v",`+
		`"transactions":[%s],"coinbasevalue":5000000000,"longpollid":"%s","mintime":1600000000,"curtime":%d,`+
		`"bits":"207fffff","height":%d},"error":null,"id":"1"}`+"\n", n.tip, strings.Join(n.txs, ","), n.id(), n.curTime, n.height)
}

// addTransaction puts a transaction into the mempool.
func (n *fakeNode) addTransaction(t *testing.T) {
	tx := wire.NewMsgTx(2)
	tx.AddTxIn(wire.NewTxIn(&wire.OutPoint{Hash: chainhash.Hash{9}, Index: uint32(len(n.txs))}, nil, nil))
	tx.AddTxOut(wire.NewTxOut(1000, []byte{0x51}))
	var raw bytes.Buffer
	require.NoError(t, tx.Serialize(&raw))
	n.set(func() {
		n.txs = append(n.txs, fmt.Sprintf(`{"data":"%x","txid":"%v","fee":10}`, raw.Bytes(), tx.TxHash()))
		n.version++
	})
}

func (n *fakeNode) count(kind string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.requests[kind])
}

// A watched is a Watch that is running, and what came of it.
type watched struct {
	*rpcjob.Source
	t         *testing.T
	templates chan *job.Template
	tips      chan rpcjob.Notice
	failures  chan error
	stop      func()
}

// watch runs a Source until the test ends.
func watch(t *testing.T, node rpcjob.Node, opts rpcjob.Options) *watched {
	t.Helper()
	w := &watched{
		t: t, templates: make(chan *job.Template, 1000), tips: make(chan rpcjob.Notice, 1000), failures: make(chan error, 1000),
	}
	opts.Hooks = rpcjob.Hooks{
		Tip: func(n rpcjob.Notice) { w.tips <- n },
		Failed: func(_ rpcjob.Way, err error) {
			select {
			case w.failures <- err:
			default:
			}
		},
	}
	var err error
	w.Source, err = rpcjob.New(node, &opts)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	var busy sync.Mutex
	go func() {
		done <- w.Watch(ctx, func(tpl *job.Template) {
			if !busy.TryLock() {
				t.Error("calls to put overlap")
			}
			defer busy.Unlock()
			w.templates <- tpl
		})
	}()
	w.stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, get(t, done, "the end of Watch"))
		close(w.templates) // a put after Watch's return would panic
	})
	t.Cleanup(w.stop)
	return w
}

// get receives from ch.
func get[T any](t testing.TB, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(30 * time.Second):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

// tip waits for the template on the given tip and for its notice.
func (w *watched) tip(hash chainhash.Hash) rpcjob.Notice {
	w.t.Helper()
	for {
		if get(w.t, w.templates, "a template on "+hash.String()).PrevHash == hash {
			break
		}
	}
	for {
		if n := get(w.t, w.tips, "the notice of "+hash.String()); n.Tip == hash {
			return n
		}
	}
}

// until waits for a condition that a Source brings about without a put.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func contains(list any, s string) bool {
	items, _ := list.([]any)
	return slices.ContainsFunc(items, func(v any) bool { return strings.EqualFold(fmt.Sprint(v), s) })
}
