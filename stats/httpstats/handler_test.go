package httpstats

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stats"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "rewrite golden files")

const t0 = 1713597568

type pool struct {
	agg    *stats.Aggregator
	now    time.Time
	blocks []Block
	err    error
	h      *Handler
	asked  int
}

func newPool(t testing.TB, opts Options) *pool {
	p := &pool{now: time.Unix(t0, 0)}
	clock := func() time.Time { return p.now }
	var err error
	p.agg, err = stats.New(&stats.Options{Now: clock})
	require.NoError(t, err)
	opts.Now = clock
	p.h, err = NewHandler(p.agg, BlockSourceFunc(func(context.Context) ([]Block, error) {
		p.asked++
		return p.blocks, p.err
	}), &opts)
	require.NoError(t, err)
	return p
}

func (p *pool) put(t testing.TB, user, worker string, id int32, ago int64, v share.Verdict, d difficulty.Difficulty) {
	w := share.Worker{User: user, Name: worker}
	require.NoError(t, p.agg.Put(context.Background(), []share.Share{{
		Worker: w, UserID: id, WorkerID: w.ID(), Verdict: v, Time: time.Unix(t0-ago, 0), Difficulty: d,
		JobID: 7, Height: 840000, Nonce: 99, Bits: 0x17034219,
	}}))
}

func (p *pool) do(method, path string) *http.Response {
	w := httptest.NewRecorder()
	p.h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w.Result()
}

func body(t testing.TB, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	return string(b)
}

func hash(b byte) (h chainhash.Hash) {
	h[0], h[31] = b, 0
	return h
}

// busy is a pool with something in every field.
func busy(t testing.TB, opts Options) *pool {
	if opts.Nodes == nil {
		opts.Nodes = NodeSourceFunc(func(context.Context) ([]Node, error) {
			return []Node{{
				Name: "main", Chain: "main", Height: 840002, Difficulty: 86388558925171.02, LastBeat: time.Unix(t0-2, 0),
			}}, nil
		})
	}
	p := newPool(t, opts)
	p.put(t, "alice", "rig1", 42, 7000, share.Accepted, 65536)
	p.put(t, "bob/x", "__default__", 7, 1500, share.Accepted, 1<<40)
	p.put(t, "alice", "rig2", 42, 1000, share.Solved, 16384)
	p.put(t, "alice", "rig1", 42, 60, share.Accepted, 32768)
	p.put(t, "alice", "rig1", 42, 30, share.LowDifficulty, 32768)
	p.put(t, "carol", "cpu", 9, 10, share.Accepted, 0.0009765625)
	p.put(t, "mallory", "x", 10, 5, share.LowDifficulty, 1)
	p.blocks = []Block{
		{Height: 839990, Hash: hash(1), Time: time.Unix(t0-9000, 0), Difficulty: 100, Shares: 200, State: Immature,
			Confirmations: 11, RewardSats: 312512345, FeesSats: 12345, SubsidySats: 312500000, Finder: "alice.rig1"},
		{Height: 840000, Hash: hash(2), Time: time.Unix(t0-1000, 0), Difficulty: 86388558925171.02, JobID: 7, Nonce: 99,
			Confirmations: 1, RewardSats: 312500000, SubsidySats: 312500000, Finder: "alice.rig2"},
		{Height: 839995, Hash: hash(3), Time: time.Unix(t0-8000, 0), Difficulty: 100, Shares: 50, State: Immature,
			Orphan: true, RewardSats: 1},
		{Height: 839000, Hash: hash(4), Time: time.Unix(t0-90000, 0), Difficulty: 200, Shares: 100, State: Matured,
			Confirmations: 1001, RewardSats: 312500000, SubsidySats: 312500000},
	}
	return p
}

func TestDocuments(t *testing.T) {
	p := busy(t, Options{LuckWindows: []int{2, 1, 64}})
	for name, path := range map[string]string{
		"stats":          "/api/stats",
		"miners":         "/api/miners",
		"miners-second":  "/api/miners?limit=1&offset=1",
		"blocks":         "/api/blocks",
		"payments":       "/api/payments",
		"account":        "/api/accounts/alice",
		"account-slash":  "/api/accounts/bob%2Fx",
		"account-silent": "/api/accounts/mallory",
	} {
		t.Run(name, func(t *testing.T) { golden(t, name, p.do("GET", path)) })
	}
	empty := newPool(t, Options{})
	for _, name := range []string{"stats", "miners", "blocks"} {
		t.Run("empty "+name, func(t *testing.T) { golden(t, "empty-"+name, empty.do("GET", "/api/"+name)) })
	}
	ether := busy(t, Options{EthereumFields: true, LuckWindows: []int{2}})
	t.Run("blocks with ethereum's fields", func(t *testing.T) {
		golden(t, "blocks-ethereum", ether.do("GET", "/api/blocks"))
	})
}

func golden(t *testing.T, name string, r *http.Response) {
	t.Helper()
	require.Equal(t, 200, r.StatusCode)
	require.Equal(t, "application/json; charset=UTF-8", r.Header.Get("Content-Type"))
	require.Equal(t, "*", r.Header.Get("Access-Control-Allow-Origin"))
	require.Equal(t, "no-cache", r.Header.Get("Cache-Control"))
	got := body(t, r)
	require.True(t, json.Valid([]byte(got)))
	require.True(t, strings.HasSuffix(got, "}\n"))
	require.NotContains(t, got, "e+", "numbers have no exponent")
	require.NotContains(t, got, ":null")
	file := filepath.Join("testdata", name+".json")
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

func TestStatusAndHeaders(t *testing.T) {
	p := busy(t, Options{})
	for _, c := range []struct {
		name, method, path string
		status             int
		empty              bool
	}{
		{"GET", "GET", "/api/stats", 200, false},
		{"HEAD", "HEAD", "/api/stats", 200, true},
		{"OPTIONS", "OPTIONS", "/api/stats", 204, true},
		{"OPTIONS of an account", "OPTIONS", "/api/accounts/alice", 204, true},
		{"POST", "POST", "/api/stats", 405, true},
		{"DELETE of an account", "DELETE", "/api/accounts/alice", 405, true},
		{"unknown path", "GET", "/api/nothing", 404, true},
		{"below a document", "GET", "/api/stats/", 404, true},
		{"unknown account", "GET", "/api/accounts/dave", 404, true},
		{"other case", "GET", "/api/accounts/Alice", 404, true},
		{"no account", "GET", "/api/accounts/", 404, true},
		{"slash escaped", "GET", "/api/accounts/bob%2Fx", 200, false},
		{"slash as it is", "GET", "/api/accounts/bob/x", 200, false},
		{"escaped twice", "GET", "/api/accounts/bob%252Fx", 404, true},
		{"broken name", "GET", "/api/accounts/al%00ice", 404, true},
		{"markup", "GET", "/api/accounts/%3Cscript%3E", 404, true},
		{"letters escaped", "GET", "/api/accounts/%61lice", 200, false},
		{"very long", "GET", "/api/accounts/" + strings.Repeat("a", 5000), 404, true},
		{"up and out", "GET", "/api/accounts/../stats", 404, true},
		{"page's parts", "GET", "/page.js/../handler.go", 404, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := p.do(c.method, c.path)
			require.Equal(t, c.status, r.StatusCode)
			require.Equal(t, "application/json; charset=UTF-8", r.Header.Get("Content-Type"))
			require.Equal(t, "*", r.Header.Get("Access-Control-Allow-Origin"))
			require.Equal(t, "no-cache", r.Header.Get("Cache-Control"))
			require.Equal(t, c.empty, body(t, r) == "")
			switch c.status {
			case 204:
				require.Equal(t, methods, r.Header.Get("Access-Control-Allow-Methods"))
			case 405:
				require.Equal(t, methods, r.Header.Get("Allow"))
			}
		})
	}
	t.Run("HEAD tells the length", func(t *testing.T) {
		get, head := p.do("GET", "/api/payments"), p.do("HEAD", "/api/payments")
		require.NotEmpty(t, get.Header.Get("Content-Length"))
		require.Equal(t, get.Header.Get("Content-Length"), head.Header.Get("Content-Length"))
	})
	t.Run("a body ends the connection", func(t *testing.T) {
		w := httptest.NewRecorder()
		p.h.ServeHTTP(w, httptest.NewRequest("POST", "/api/stats", strings.NewReader("x")))
		require.Equal(t, "close", w.Result().Header.Get("Connection"))
	})
}

// TestOverTheWire checks what a server makes of paths and methods before the handler sees them.
func TestOverTheWire(t *testing.T) {
	p := busy(t, Options{})
	s := httptest.NewServer(p.h)
	defer s.Close()
	for path, status := range map[string]int{
		"/": 200, "/api/stats": 200, "/api/accounts/bob%2Fx": 200, "/api/accounts/bob/x": 200, "/favicon.ico": 404,
	} {
		r, err := http.Get(s.URL + path)
		require.NoError(t, err)
		require.Equal(t, status, r.StatusCode, path)
		require.NoError(t, r.Body.Close())
	}
}

func TestSnapshotIsKept(t *testing.T) {
	p := busy(t, Options{})
	first := body(t, p.do("GET", "/api/miners"))
	p.put(t, "dave", "r", 77, 0, share.Accepted, 1024)
	p.now = p.now.Add(4 * time.Second)
	require.NotContains(t, body(t, p.do("GET", "/api/miners")), "dave", "it is not five seconds old")
	require.Contains(t, body(t, p.do("GET", "/api/miners")), `"now":1713597572000,"updatedAt":1713597568000`)
	require.Equal(t, 1, p.asked)
	p.now = p.now.Add(time.Second)
	require.Contains(t, body(t, p.do("GET", "/api/miners")), "dave")
	require.Equal(t, 2, p.asked)

	require.Contains(t, body(t, p.do("GET", "/api/accounts/dave")), `"roundShares":1024`)
	p.put(t, "dave", "r", 77, -5, share.Accepted, 1024)
	require.Contains(t, body(t, p.do("GET", "/api/accounts/dave")), `"roundShares":1024`)
	p.now = p.now.Add(5 * time.Second)
	require.Contains(t, body(t, p.do("GET", "/api/accounts/dave")), `"roundShares":2048`)
	require.NotEmpty(t, first)
}

func TestFailingSources(t *testing.T) {
	t.Run("blocks that were never read", func(t *testing.T) {
		p := newPool(t, Options{})
		p.err = errors.New("disk on fire")
		r := p.do("GET", "/api/blocks")
		require.Equal(t, 200, r.StatusCode)
		require.Equal(t, "{}\n", body(t, r))
		require.Contains(t, body(t, p.do("GET", "/api/stats")), `"candidatesTotal":0`)
		require.Equal(t, 200, p.do("GET", "/").StatusCode)
	})
	t.Run("blocks that were read before", func(t *testing.T) {
		p := busy(t, Options{})
		before := body(t, p.do("GET", "/api/blocks"))
		p.err = errors.New("disk on fire")
		p.now = p.now.Add(time.Minute)
		require.Equal(t, before, body(t, p.do("GET", "/api/blocks")), "the last list stays, with its own time")
		require.Contains(t, body(t, p.do("GET", "/api/stats")), `"updatedAt":1713597628000`, "the rest goes on")
	})
	t.Run("nodes", func(t *testing.T) {
		p := busy(t, Options{Nodes: NodeSourceFunc(func(context.Context) ([]Node, error) { return nil, errors.New("x") })})
		require.Contains(t, body(t, p.do("GET", "/api/stats")), `"nodes":[]`)
	})
	t.Run("a client that goes away", func(t *testing.T) {
		p := busy(t, Options{})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		w := httptest.NewRecorder()
		p.h.source = BlockSourceFunc(func(ctx context.Context) ([]Block, error) { return p.blocks, ctx.Err() })
		p.h.ServeHTTP(w, httptest.NewRequest("GET", "/api/blocks", nil).WithContext(ctx))
		require.Contains(t, w.Body.String(), `"maturedTotal":1`)
	})
}

func TestLimits(t *testing.T) {
	p := newPool(t, Options{Blocks: 2})
	for i := range 10 {
		p.put(t, fmt.Sprint("user", i), "w", int32(i)+1, 1, share.Accepted, difficulty.Difficulty(i+1))
	}
	names := func(query string) (list []string) {
		var d minersDoc
		require.NoError(t, json.Unmarshal([]byte(body(t, p.do("GET", "/api/miners"+query))), &d))
		require.Equal(t, 10, d.MinersTotal)
		for i := range 10 {
			if n := fmt.Sprint("user", i); d.Miners[n] != (minerDoc{}) {
				list = append(list, n)
			}
		}
		require.Len(t, d.Miners, len(list))
		return list
	}
	require.Len(t, names(""), 10)
	require.Equal(t, []string{"user8", "user9"}, names("?limit=2"))
	require.Equal(t, []string{"user0", "user1"}, names("?offset=8"))
	require.Empty(t, names("?offset=11&limit=3"))
	require.Empty(t, names("?limit=0"))
	for _, q := range []string{"?limit=-1", "?limit=x", "?offset=-5", "?limit=99999999999999999999", "?%zz",
		"?" + strings.Repeat("limit=1&", 100),
	} {
		require.Len(t, names(q), 10, q)
	}
	for i := range 5 {
		p.blocks = append(p.blocks, Block{Height: int32(i), State: Matured, Time: time.Unix(t0, 0)})
	}
	p.now = p.now.Add(time.Minute)
	var d blocksDoc
	require.NoError(t, json.Unmarshal([]byte(body(t, p.do("GET", "/api/blocks"))), &d))
	require.Equal(t, 5, d.MaturedTotal)
	require.Len(t, d.Matured, 2)
	require.EqualValues(t, 4, d.Matured[0].Height)

	for i := range 3000 { // documents of accounts are kept for so many only
		p.put(t, fmt.Sprint("u", i), "w", int32(i)+100, 1, share.Accepted, 1)
		require.Equal(t, 200, p.do("GET", fmt.Sprint("/api/accounts/u", i)).StatusCode)
	}
	require.LessOrEqual(t, len(p.h.accounts), maxAccounts)
}

func TestLuck(t *testing.T) {
	b := func(shares, diff difficulty.Difficulty, orphan bool) Block {
		return Block{Shares: shares, Difficulty: diff, Orphan: orphan}
	}
	four := []Block{b(100, 100, false), b(100, 200, false), b(100, 100, true), b(100, 50, false)}
	many := make([]Block, 57)
	for i := range many {
		many[i] = b(104, 100, false)
	}
	for _, c := range []struct {
		name    string
		blocks  []Block
		windows []int
		want    map[string]luckDoc
	}{
		{"windows up to all there are", four, []int{1, 2, 5, 10},
			map[string]luckDoc{"1": {Luck: 1}, "2": {Luck: 0.75}, "4": {Luck: 1.125, OrphanRate: 0.25}}},
		{"no block", nil, []int{64, 128}, map[string]luckDoc{"0": {}}},
		{"fewer than the smallest window", many, []int{64, 128, 256}, map[string]luckDoc{"57": {Luck: 1.04}}},
		{"blocks that are not fully known", []Block{b(1, 0, false), b(0, 1, false), b(3, 2, false)}, []int{5},
			map[string]luckDoc{"1": {Luck: 1.5}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := luck(c.blocks, c.windows, false)
			require.Len(t, got, len(c.want))
			for k, w := range c.want {
				require.InDelta(t, float64(w.Luck), float64(got[k].Luck), 1e-12, k)
				require.Equal(t, w.OrphanRate, got[k].OrphanRate, k)
			}
		})
	}
	t.Run("no window", func(t *testing.T) {
		p := newPool(t, Options{LuckWindows: []int{}})
		require.Contains(t, body(t, p.do("GET", "/api/blocks")), `"luck":null`)
	})
}

func TestOptions(t *testing.T) {
	_, err := NewHandler(nil, nil, &Options{Interval: -1, Blocks: -1, Payments: -1, LuckWindows: []int{0}})
	for _, name := range []string{"Interval", "Blocks", "Payments", "LuckWindows"} {
		require.ErrorContains(t, err, "httpstats: "+name)
	}
}

func TestPage(t *testing.T) {
	p := busy(t, Options{Title: `<b>Pool & "friends"</b>`})
	p.blocks[0].Finder = "<script>alert(1)</script>"
	r := p.do("GET", "/")
	require.Equal(t, 200, r.StatusCode)
	require.Equal(t, "text/html; charset=UTF-8", r.Header.Get("Content-Type"))
	require.Contains(t, r.Header.Get("Content-Security-Policy"), "default-src 'none'")
	page := body(t, r)
	for _, want := range []string{
		"&lt;b&gt;Pool &amp;", `lang="en"`, `name="viewport"`, "840000", "candidate", "orphan", ">alice<", "GH/s",
		`href="api/accounts/bob%2Fx"`, "<dd id=\"miners\">3</dd>", "<td>11</td>", "2024-04-20",
	} {
		require.Contains(t, page, want)
	}
	require.NotContains(t, page, "<b>")
	require.NotContains(t, page, "http://", "nothing comes from elsewhere")
	require.NotContains(t, page, "https://")
	for _, path := range []string{"/page.css", "/page.js"} {
		r := p.do("GET", path)
		require.Equal(t, 200, r.StatusCode)
		require.NotContains(t, body(t, r), "http")
	}
	require.Equal(t, 405, p.do("POST", "/").StatusCode)
	require.Equal(t, 204, p.do("OPTIONS", "/").StatusCode)
	require.Empty(t, body(t, p.do("HEAD", "/")))
	require.Contains(t, body(t, newPool(t, Options{}).do("GET", "/")), "Nobody is mining.")
}

// TestPageScriptFindsItsElements holds the script to the page it works on.
func TestPageScriptFindsItsElements(t *testing.T) {
	script, err := files.ReadFile("page/page.js")
	require.NoError(t, err)
	page, err := files.ReadFile("page/page.html")
	require.NoError(t, err)
	n := 0
	for _, part := range strings.Split(string(script), `byId("`)[1:] {
		id, _, _ := strings.Cut(part, `"`)
		require.Contains(t, string(page), ` id="`+id+`"`)
		n++
	}
	require.Greater(t, n, 5)
	require.NotContains(t, string(script), "innerHTML")
}

func TestConcurrentRequests(t *testing.T) {
	p := busy(t, Options{Interval: 1})
	var clock sync.Mutex
	at := p.now
	p.h.opts.Now = func() time.Time {
		clock.Lock()
		defer clock.Unlock()
		at = at.Add(time.Second)
		return at
	}
	var wg sync.WaitGroup
	for range 4 {
		for _, path := range []string{
			"/", "/api/stats", "/api/miners", "/api/blocks", "/api/accounts/alice", "/api/accounts/carol",
		} {
			wg.Go(func() {
				for range 20 {
					if r := p.do("GET", path); r.StatusCode != 200 {
						t.Errorf("%s answers %d", path, r.StatusCode)
					}
				}
			})
		}
	}
	wg.Wait()
}

func FuzzLogin(f *testing.F) {
	for _, s := range []string{
		"/api/accounts/alice", "/api/accounts/bob%2Fx", "/api/accounts/%2523", "/api/accounts/%zz", "/x", "/api/accounts/#1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		login, ok := loginOf(path)
		bare := strings.TrimPrefix(login, "#")
		if ok && (share.FilterName(bare) != bare || len(login) > share.MaxUserName) {
			t.Errorf("%q gives %q", path, login)
		}
	})
}

func ExampleNewHandler() {
	agg, err := stats.New(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	handler, err := NewHandler(agg, nil, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest("GET", "/api/accounts/nobody", nil))
	fmt.Println(w.Code, w.Header().Get("Content-Type"))
	// Output:
	// 404 application/json; charset=UTF-8
}

func BenchmarkStats(b *testing.B) {
	p := busy(b, Options{})
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		p.h.ServeHTTP(w, httptest.NewRequest("GET", "/api/stats", nil))
	}
}

func BenchmarkMiners(b *testing.B) {
	p := newPool(b, Options{})
	for i := range 10_000 {
		p.put(b, fmt.Sprint("user", i), "w", int32(i)+1, 1, share.Accepted, difficulty.Difficulty(i+1))
	}
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		p.h.ServeHTTP(w, httptest.NewRequest("GET", "/api/miners", nil))
	}
}
