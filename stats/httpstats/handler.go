package httpstats

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stats"
)

// Options tune a Handler.
type Options struct {
	Title string // of the page; empty means "Mining pool"

	// Interval is how old what is served may be; 0 means 5s. It is collected when somebody asks.
	Interval time.Duration

	Blocks      int   // matured blocks that are listed; 0 means 50. All others are listed always
	Payments    int   // payments a page; 0 means 30
	LuckWindows []int // numbers of blocks that luck is told for; nil means 64, 128 and 256, an empty list none

	// EthereumFields adds uncle, uncleHeight and uncleRate, always false or 0, for front ends that ask for them.
	EthereumFields bool

	Nodes  NodeSource       // nil means that none are shown
	Logger *slog.Logger     // nil discards
	Now    func() time.Time // the clock; nil means time.Now
}

// Bounds of what a client can make us do.
const (
	maxPath       = 4 * share.MaxUserName // every byte of a login may be escaped
	maxQuery      = 256
	maxAccounts   = 1000 // documents kept
	collectBudget = 5 * time.Second
)

// A Handler serves the documents and the page. Paths are those below where it is mounted; use [http.StripPrefix] for
// another place than the root. A ServeMux in front of it redirects logins with "//" in them unless they are escaped.
type Handler struct {
	agg    *stats.Aggregator
	source BlockSource
	opts   Options

	current atomic.Pointer[collected]
	collect sync.Mutex // one collection at a time

	mu       sync.Mutex
	accounts map[string]*account
}

// collected is what the list documents are made of. It does not change.
type collected struct {
	at     time.Time
	stats  *stats.Snapshot
	miners []miner
	blocks *blocksDoc // nil when they could never be read
}

type account struct {
	mu   sync.Mutex
	at   time.Time
	body []byte // nil when the account is not known
}

// NewHandler returns a Handler for the shares agg counted and the blocks of a source, which may be nil.
func NewHandler(agg *stats.Aggregator, blocks BlockSource, opts *Options) (*Handler, error) {
	h := &Handler{agg: agg, source: blocks, accounts: make(map[string]*account)}
	if opts != nil {
		h.opts = *opts
	}
	o := &h.opts
	var errs []error
	if o.Interval < 0 {
		errs = append(errs, fmt.Errorf("httpstats: Interval is %v, want 0 or more", o.Interval))
	}
	if o.Blocks < 0 {
		errs = append(errs, fmt.Errorf("httpstats: Blocks is %d, want 0 or more", o.Blocks))
	}
	if o.Payments < 0 {
		errs = append(errs, fmt.Errorf("httpstats: Payments is %d, want 0 or more", o.Payments))
	}
	for _, n := range o.LuckWindows {
		if n < 1 {
			errs = append(errs, fmt.Errorf("httpstats: LuckWindows has %d, want 1 or more", n))
		}
	}
	o.Title = cmp.Or(o.Title, "Mining pool")
	o.Interval = cmp.Or(o.Interval, 5*time.Second)
	o.Blocks = cmp.Or(o.Blocks, 50)
	o.Payments = cmp.Or(o.Payments, 30)
	if o.LuckWindows == nil {
		o.LuckWindows = []int{64, 128, 256}
	}
	o.LuckWindows = slices.Sorted(slices.Values(o.LuckWindows))
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return h, errors.Join(errs...)
}

// ServeHTTP answers GET and HEAD, and OPTIONS for scripts of other origins.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.EscapedPath()
	header := w.Header()
	if r.ContentLength != 0 {
		header.Set("Connection", "close") // nobody reads a body here
	}
	if page, ok := pages[path]; ok {
		h.servePage(w, r, page)
		return
	}
	header.Set("Content-Type", "application/json; charset=UTF-8")
	header.Set("Access-Control-Allow-Origin", "*")
	header.Set("Cache-Control", "no-cache")
	header.Set("X-Content-Type-Options", "nosniff")
	switch r.Method {
	case http.MethodGet, http.MethodHead:
	case http.MethodOptions:
		header.Set("Access-Control-Allow-Methods", methods)
		header.Set("Access-Control-Allow-Headers", "*")
		header.Set("Access-Control-Max-Age", "86400")
		w.WriteHeader(http.StatusNoContent)
		return
	default:
		header.Set("Allow", methods)
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	if len(path) > maxPath {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	ctx := r.Context()
	switch path {
	case "/api/stats":
		h.send(w, r, h.statsDoc(ctx))
	case "/api/miners":
		h.send(w, r, h.minersDoc(ctx, r.URL))
	case "/api/blocks":
		if d := h.get(ctx).blocks; d != nil {
			h.send(w, r, d)
		} else {
			h.send(w, r, struct{}{})
		}
	case "/api/payments":
		h.send(w, r, paymentsDoc{Payments: []struct{}{}, UpdatedAt: h.get(ctx).at.UnixMilli()})
	default:
		login, ok := loginOf(path)
		var body []byte
		if ok {
			body = h.accountBody(login)
		}
		if body == nil {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		write(w, r, body)
	}
}

const methods = "GET, HEAD, OPTIONS"

// loginOf reads the login from an escaped path. It is decoded once and must be a name that the pool gives out: see
// [share.FilterName]. Users whose name nobody told are shown as "#" and a number.
func loginOf(path string) (string, bool) {
	rest, ok := strings.CutPrefix(path, "/api/accounts/")
	if !ok {
		return "", false
	}
	login, err := url.PathUnescape(rest)
	if err != nil || login == "" || len(login) > share.MaxUserName {
		return "", false
	}
	return login, share.FilterName(login) == strings.TrimPrefix(login, "#")
}

// send writes v as one JSON object and a newline. It is encoded before anything is written.
func (h *Handler) send(w http.ResponseWriter, r *http.Request, v any) {
	body, err := encode(v)
	if err != nil {
		h.opts.Logger.Error("statistics could not be encoded", "path", r.URL.Path, "error", err)
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	write(w, r, body)
}

func encode(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false) // names keep "<" out in any case, and the type is not HTML
	err := enc.Encode(v)
	return buf.Bytes(), err
}

func write(w http.ResponseWriter, r *http.Request, body []byte) {
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		w.Write(body) // a client that is gone needs no answer
	}
}

// get returns what was collected last, anew when that is too old. While one request collects, others are served what
// is there.
func (h *Handler) get(ctx context.Context) *collected {
	old := h.current.Load()
	now := h.opts.Now()
	if old != nil && now.Sub(old.at) < h.opts.Interval && !now.Before(old.at) {
		return old
	}
	if old == nil {
		h.collect.Lock()
	} else if !h.collect.TryLock() {
		return old
	}
	defer h.collect.Unlock()
	if c := h.current.Load(); c != old {
		return c // somebody was faster
	}
	c := &collected{at: now, stats: h.agg.Snapshot(now)}
	small, _ := h.agg.Windows()
	c.miners = miners(c.stats, small)
	if h.source == nil {
		c.blocks = h.blocks(nil, now)
	} else {
		// A client that goes away must not take the document from the others.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), collectBudget)
		defer cancel()
		list, err := h.source.Blocks(ctx)
		if err == nil {
			c.blocks = h.blocks(list, now)
		} else {
			if old != nil {
				c.blocks = old.blocks // with its own updatedAt
			}
			h.opts.Logger.Error("found blocks could not be read; the last list is served", "error", err)
		}
	}
	h.current.Store(c)
	return c
}

func (h *Handler) statsDoc(ctx context.Context) statsDoc {
	c := h.get(ctx)
	d := statsDoc{
		Hashrate: whole(c.stats.Hashrate), MinersTotal: len(c.miners), WorkersTotal: c.stats.TotalWorkers,
		Nodes: []nodeDoc{}, Now: h.opts.Now().UnixMilli(), UpdatedAt: c.at.UnixMilli(),
		Stats: poolDoc{RoundShares: exact(c.stats.RoundShares)},
	}
	if !c.stats.LastBlock.IsZero() {
		d.Stats.LastBlockFound = c.stats.LastBlock.Unix()
	}
	if b := c.blocks; b != nil {
		d.CandidatesTotal, d.ImmatureTotal, d.MaturedTotal = b.CandidatesTotal, b.ImmatureTotal, b.MaturedTotal
	}
	if h.opts.Nodes == nil {
		return d
	}
	nodes, err := h.opts.Nodes.Nodes(ctx)
	if err != nil {
		h.opts.Logger.Error("state of the nodes could not be read", "error", err)
		return d
	}
	for _, n := range nodes {
		d.Nodes = append(d.Nodes, nodeDoc{
			Name: n.Name, Chain: n.Chain, BlocksBehind: n.BlocksBehind, Difficulty: n.Difficulty.String(),
			Height: strconv.Itoa(int(n.Height)), LastBeat: strconv.FormatInt(n.LastBeat.Unix(), 10),
		})
	}
	return d
}

func (h *Handler) minersDoc(ctx context.Context, u *url.URL) minersDoc {
	c := h.get(ctx)
	list := c.miners
	if u.RawQuery != "" && len(u.RawQuery) <= maxQuery {
		q := u.Query()
		// The document never fails, so what is no number is as if it were not there.
		if n, err := strconv.Atoi(q.Get("offset")); err == nil && n > 0 {
			list = list[min(n, len(list)):]
		}
		if n, err := strconv.Atoi(q.Get("limit")); err == nil && n >= 0 {
			list = list[:min(n, len(list))]
		}
	}
	d := minersDoc{
		Hashrate: whole(c.stats.Hashrate), Miners: make(map[string]minerDoc, len(list)), MinersTotal: len(c.miners),
		Now: h.opts.Now().UnixMilli(), UpdatedAt: c.at.UnixMilli(),
	}
	for _, m := range list {
		d.Miners[m.login] = m.doc
	}
	return d
}

// accountBody returns the document of an account, nil when it is not known. A document is made once in an Interval,
// however many ask for it, and making one holds up no other.
func (h *Handler) accountBody(login string) []byte {
	id, ok := h.agg.UserID(login)
	if !ok {
		return nil
	}
	h.mu.Lock()
	a := h.accounts[login]
	if a == nil {
		for old := range h.accounts {
			if len(h.accounts) < maxAccounts {
				break
			}
			delete(h.accounts, old) // any; whoever asks for it has it made again
		}
		a = new(account)
		h.accounts[login] = a
	}
	h.mu.Unlock()

	a.mu.Lock()
	defer a.mu.Unlock()
	now := h.opts.Now()
	if a.body != nil && now.Sub(a.at) < h.opts.Interval && !now.Before(a.at) {
		return a.body
	}
	u, ok := h.agg.User(now, id)
	if !ok {
		return nil
	}
	body, err := encode(h.account(&u, h.agg.Workers(now, id), now))
	if err != nil {
		h.opts.Logger.Error("account could not be encoded", "login", login, "error", err)
		return nil
	}
	a.at, a.body = now, body
	return body
}
