package httpstats

import (
	"bytes"
	"embed"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/poolkit/poolkit/difficulty"
)

//go:embed page/page.html page/page.css page/page.js
var files embed.FS

// pages are the paths of the page and its parts.
var pages = map[string]string{
	"/": "text/html; charset=UTF-8", "/page.css": "text/css; charset=UTF-8", "/page.js": "text/javascript; charset=UTF-8",
}

var pageTemplate = template.Must(template.New("page.html").ParseFS(files, "page/page.html"))

// pageRows bounds the tables of the page.
const pageRows = 50

// pageData is what the page shows before its script takes over, and for those who have none.
type pageData struct {
	Title     string
	Hashrate  string
	Miners    int
	Workers   int
	Round     string
	LastBlock string
	Updated   string
	Accounts  []pageAccount
	Blocks    []pageBlock
}

type pageAccount struct {
	Login, URL, Hashrate, Last string
	Offline                    bool
}

type pageBlock struct {
	blockDoc
	When, State string
}

func (h *Handler) servePage(w http.ResponseWriter, r *http.Request, contentType string) {
	header := w.Header()
	switch r.Method {
	case http.MethodGet, http.MethodHead:
	case http.MethodOptions:
		header.Set("Allow", methods)
		w.WriteHeader(http.StatusNoContent)
		return
	default:
		header.Set("Allow", methods)
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	header.Set("Content-Type", contentType)
	header.Set("Cache-Control", "no-cache")
	header.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "+
		"img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("X-Content-Type-Options", "nosniff")
	if r.URL.Path != "/" {
		body, err := files.ReadFile("page" + r.URL.Path)
		if err != nil {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		write(w, r, body)
		return
	}
	var buf bytes.Buffer
	if err := pageTemplate.Execute(&buf, h.page(h.get(r.Context()))); err != nil {
		h.opts.Logger.Error("page could not be made", "error", err)
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	write(w, r, buf.Bytes())
}

func (h *Handler) page(c *collected) pageData {
	d := pageData{
		Title: h.opts.Title, Hashrate: c.stats.Hashrate.String(), Miners: len(c.miners), Workers: c.stats.TotalWorkers,
		Round: c.stats.RoundShares.String(), LastBlock: "none yet", Updated: moment(c.at),
	}
	if !c.stats.LastBlock.IsZero() {
		d.LastBlock = moment(c.stats.LastBlock)
	}
	for _, m := range c.miners[:min(pageRows, len(c.miners))] {
		d.Accounts = append(d.Accounts, pageAccount{
			Login: m.login, URL: "api/accounts/" + url.PathEscape(m.login), Hashrate: difficulty.Hashrate(m.doc.Hr).String(),
			Last: moment(time.Unix(m.doc.LastBeat, 0)), Offline: m.doc.Offline,
		})
	}
	if c.blocks == nil {
		return d
	}
	add := func(state string, list []blockDoc) {
		for _, b := range list {
			s := state
			if b.Orphan {
				s = "orphan"
			}
			d.Blocks = append(d.Blocks, pageBlock{b, moment(time.Unix(b.Timestamp, 0)), s})
		}
	}
	add("candidate", c.blocks.Candidates)
	add("immature", c.blocks.Immature)
	add("matured", c.blocks.Matured)
	slices.SortStableFunc(d.Blocks, func(a, b pageBlock) int { return int(b.Height) - int(a.Height) })
	d.Blocks = d.Blocks[:min(pageRows, len(d.Blocks))]
	return d
}

func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }
