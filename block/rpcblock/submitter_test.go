package rpcblock_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/poolkit/poolkit/block"
	"github.com/poolkit/poolkit/block/rpcblock"
	"github.com/stretchr/testify/require"
)

// fake answers each method with a fixed body, and records the calls.
type fake struct {
	*httptest.Server
	mu    sync.Mutex
	calls []string // method and params
}

func newFake(t *testing.T, answers map[string]string) (*fake, *rpcblock.Submitter) {
	t.Helper()
	f := &fake{}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var req struct {
			Method string          `json:"method"`
			Params json.RawMessage `json:"params"`
		}
		body, _ := io.ReadAll(r.Body)
		json.Unmarshal(body, &req)
		f.mu.Lock()
		f.calls = append(f.calls, req.Method+string(req.Params))
		f.mu.Unlock()
		answer, ok := answers[req.Method]
		switch {
		case answer == "hang":
			<-r.Context().Done()
		case !ok:
			io.WriteString(w, rpcError(-32601, "Method not found"))
		default:
			io.WriteString(w, answer)
		}
	}))
	t.Cleanup(func() { f.CloseClientConnections(); f.Close() })
	s, err := rpcblock.New(rpcblock.Node{URL: f.URL, User: "u", Pass: "p"}, nil)
	require.NoError(t, err)
	return f, s
}

func rpcError(code int, message string) string {
	return fmt.Sprintf(`{"result":null,"error":{"code":%d,"message":%q},"id":"1"}`, code, message)
}

func result(v string) string { return `{"result":` + v + `,"error":null,"id":"1"}` }

func TestVerdicts(t *testing.T) {
	const notMain = "block 00 is not in the main chain"
	raw := bytes.Repeat([]byte{0xab}, 100)
	hash := chainhash.DoubleHashH(raw[:80]).String()
	for _, tt := range []struct {
		name   string
		submit string // the answer to submitblock
		header string // the answer to getblockheader, which is not asked for when empty
		tips   string // and to getchaintips
		is     error
		reason string // of a RejectedError
		want   string // part of an error that is no verdict
	}{
		{name: "taken", submit: result("null"), header: result(`{"confirmations":1}`)},
		{name: "taken by a node that knows no headers", submit: result("null"), header: rpcError(-32601, "Method not found")},
		{name: "taken and already beside the best chain", submit: result("null"), header: result(`{"confirmations":-1}`), is: block.ErrStale},
		{name: "taken by btcd beside its best chain", submit: result("null"), header: rpcError(-32603, notMain), is: block.ErrStale},
		{name: "taken by btcd without a known parent", submit: result("null"), header: rpcError(-5, "Block not found"), is: rpcblock.ErrUnknownParent},
		{name: "duplicate", submit: result(`"duplicate"`), is: block.ErrDuplicate},
		{name: "duplicate of btcd", submit: result(`"rejected: already have block ` + hash + `"`),
			header: result(`{"confirmations":3}`), is: block.ErrDuplicate},
		{name: "duplicate of btcd that cannot be looked up", submit: result(`"rejected: already have block ` + hash + `"`),
			header: rpcError(-1, "busy"), is: block.ErrDuplicate},
		{name: "duplicate of btcd beside its best chain", submit: result(`"rejected: already have block ` + hash + `"`),
			header: rpcError(-32603, notMain), tips: result(`[{"hash":"` + hash + `","status":"valid-fork"}]`), is: block.ErrStale},
		{name: "duplicate of btcd that it found invalid", submit: result(`"rejected: already have block ` + hash + `"`),
			header: rpcError(-32603, notMain), tips: result(`[{"hash":"` + hash + `","status":"invalid"}]`), reason: "found invalid before"},
		{name: "orphan that btcd holds", submit: result(`"rejected: already have block (orphan) ` + hash + `"`), is: rpcblock.ErrUnknownParent},
		{name: "inconclusive", submit: result(`"inconclusive"`), is: block.ErrStale},
		{name: "duplicate-inconclusive", submit: result(`"duplicate-inconclusive"`), is: block.ErrStale},
		{name: "stale-prevblk", submit: result(`"stale-prevblk"`), is: block.ErrStale},
		{name: "duplicate-invalid", submit: result(`"duplicate-invalid"`), reason: "duplicate-invalid"},
		{name: "high-hash", submit: result(`"high-hash"`), reason: "high-hash"},
		{name: "bad-txnmrklroot", submit: result(`"bad-txnmrklroot"`), reason: "bad-txnmrklroot"},
		{name: "rejected by btcd", submit: result(`"rejected: block hash is too high"`), reason: "block hash is too high"},
		{name: "rejected without a reason", submit: result(`"rejected"`), reason: "rejected"},
		{name: "empty string", submit: result(`""`), reason: "rejected, without a reason"},
		{name: "very long reason", submit: result(`"` + strings.Repeat("x", 5000) + `"`), reason: strings.Repeat("x", 300) + "…"},
		{name: "parent unknown to bitcoind", submit: result(`"prev-blk-not-found"`), is: rpcblock.ErrUnknownParent},
		{name: "decode error", submit: rpcError(-22, "Block decode failed"), reason: "Block decode failed"},
		{name: "verify error", submit: rpcError(-25, "bad"), reason: "bad"},
		{name: "rejected as an error", submit: rpcError(-26, "bad"), reason: "bad"},
		{name: "in the chain as an error", submit: rpcError(-27, "known"), is: block.ErrDuplicate},
		{name: "starting", submit: rpcError(-28, "Loading"), want: "error -28: Loading"},
		{name: "syncing", submit: rpcError(-10, "Downloading"), want: "error -10"},
		{name: "internal error", submit: rpcError(-32603, "database"), want: "error -32603"},
		{name: "no such method", submit: rpcError(-32601, "Method not found"), want: "Method not found"},
		{name: "web page", submit: "<html>", want: "a web page"},
		{name: "result of another type", submit: result(`{"ok":true}`), want: "unexpected result"},
		{name: "number", submit: result(`1`), want: "unexpected result"},
		{name: "no result", submit: `{"id":"1"}`, want: "neither a result nor an error"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			answers := map[string]string{"submitblock": tt.submit}
			want := []string{"submitblock[\"" + strings.Repeat("ab", 100) + "\"]"}
			if tt.header != "" {
				answers["getblockheader"] = tt.header
				want = append(want, `getblockheader["`+hash+`",true]`)
			}
			if tt.tips != "" {
				answers["getchaintips"] = tt.tips
				want = append(want, "getchaintips[]")
			}
			f, s := newFake(t, answers)
			err := s.Submit(t.Context(), raw)
			require.Equal(t, want, f.calls)

			var rejected *block.RejectedError
			switch {
			case tt.reason != "":
				require.ErrorAs(t, err, &rejected)
				require.Equal(t, block.RejectedError{Node: f.URL, Reason: tt.reason}, *rejected)
			case tt.is == nil && tt.want == "":
				require.NoError(t, err)
			default:
				require.False(t, errors.As(err, &rejected), "%v", err)
				require.ErrorContains(t, err, tt.want)
				for _, verdict := range []error{block.ErrDuplicate, block.ErrStale, rpcblock.ErrUnknownParent} {
					require.Equal(t, verdict == tt.is, errors.Is(err, verdict), "%v", err)
				}
			}
		})
	}
}

func TestVerdictStandsWhenTheSecondQuestionHangs(t *testing.T) {
	_, s := newFake(t, map[string]string{"submitblock": result("null"), "getblockheader": "hang"})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	require.NoError(t, s.Submit(ctx, make([]byte, 80)))
}

func TestHangingSubmitIsNoVerdict(t *testing.T) {
	f, _ := newFake(t, map[string]string{"submitblock": "hang"})
	s, err := rpcblock.New(rpcblock.Node{URL: f.URL}, &rpcblock.Options{Timeout: 50 * time.Millisecond})
	require.NoError(t, err)
	err = s.Submit(context.Background(), make([]byte, 80))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.False(t, errors.Is(err, block.ErrStale) || errors.Is(err, block.ErrDuplicate))
}

func TestConfirmations(t *testing.T) {
	today := time.Now().Unix()
	unknown := rpcError(-5, "Block not found")
	for _, tt := range []struct {
		name   string
		header string
		info   string
		n      int64
		is     error
		want   string
	}{
		{name: "tip", header: result(`{"confirmations":1}`), n: 1},
		{name: "deep", header: result(`{"confirmations":101}`), n: 101},
		{name: "beside the best chain", header: result(`{"confirmations":-1}`), n: -1},
		{name: "beside btcd's best chain", header: rpcError(-32603, "block x is not in the main chain"), n: -1},
		{name: "unknown on regtest", header: unknown, is: block.ErrUnknownBlock,
			info: result(`{"chain":"regtest","blocks":5,"headers":5,"initialblockdownload":true}`)},
		{name: "unknown to a synced bitcoind", header: unknown, is: block.ErrUnknownBlock,
			info: result(`{"chain":"main","blocks":5,"headers":5,"initialblockdownload":false}`)},
		{name: "unknown to a bitcoind that syncs", header: unknown, is: rpcblock.ErrSyncing,
			info: result(`{"chain":"main","blocks":5,"headers":5,"initialblockdownload":true}`)},
		{name: "unknown to a bitcoind that lags", header: unknown, is: rpcblock.ErrSyncing,
			info: result(`{"chain":"main","blocks":5,"headers":10,"initialblockdownload":false}`)},
		{name: "unknown to a synced btcd", header: unknown, is: block.ErrUnknownBlock,
			info: result(fmt.Sprintf(`{"chain":"mainnet","blocks":5,"headers":5,"mediantime":%d}`, today-3600))},
		{name: "unknown to a btcd that syncs", header: unknown, is: rpcblock.ErrSyncing,
			info: result(fmt.Sprintf(`{"chain":"mainnet","blocks":5,"headers":5,"mediantime":%d}`, today-90000))},
		{name: "unknown to who knows nothing of its chain", header: unknown, want: "Method not found"},
		{name: "no confirmations", header: result(`{}`), want: "no confirmations"},
		{name: "starting", header: rpcError(-28, "Loading"), want: "error -28"},
		{name: "web page", header: "<html>", want: "a web page"},
		{name: "wrong type", header: result(`{"confirmations":"1"}`), want: "unexpected result"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			answers := map[string]string{"getblockheader": tt.header}
			if tt.info != "" {
				answers["getblockchaininfo"] = tt.info
			}
			_, s := newFake(t, answers)
			n, err := s.Confirmations(t.Context(), chainhash.Hash{1})
			if tt.is == nil && tt.want == "" {
				require.NoError(t, err)
				require.Equal(t, tt.n, n)
				return
			}
			require.ErrorContains(t, err, tt.want)
			for _, sentinel := range []error{block.ErrUnknownBlock, rpcblock.ErrSyncing} {
				require.Equal(t, sentinel == tt.is, errors.Is(err, sentinel), "%v", err)
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	_, err := rpcblock.New(rpcblock.Node{URL: "127.0.0.1:8332"}, &rpcblock.Options{Timeout: -1})
	require.ErrorContains(t, err, "rpcblock: ")
	require.ErrorContains(t, err, "needs http://")
	require.ErrorContains(t, err, "negative Timeout")
}

func Example() {
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `{"result":"high-hash","error":null,"id":"1"}`)
	}))
	defer node.Close()

	submitter, err := rpcblock.New(rpcblock.Node{URL: node.URL, User: "pool", Pass: "secret"}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	err = submitter.Submit(context.Background(), make([]byte, 285))
	var rejected *block.RejectedError
	if errors.As(err, &rejected) {
		fmt.Println("refused:", rejected.Reason)
	}
	// Output: refused: high-hash
}

func BenchmarkSubmit(b *testing.B) {
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, result(`"duplicate"`))
	}))
	defer node.Close()
	s, err := rpcblock.New(rpcblock.Node{URL: node.URL}, nil)
	if err != nil {
		b.Fatal(err)
	}
	raw := make([]byte, 2<<20)
	b.ReportAllocs()
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		if err := s.Submit(b.Context(), raw); !errors.Is(err, block.ErrDuplicate) {
			b.Fatal(err)
		}
	}
}
