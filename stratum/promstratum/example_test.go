package promstratum_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum"
	"github.com/poolkit/poolkit/stratum/promstratum"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// A server that has just been made, as Prometheus sees it.
func Example() {
	server, err := newServer()
	if err != nil {
		fmt.Println(err)
		return
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(promstratum.New(server, &promstratum.Options{ServerID: 7}))
	web := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	defer web.Close()

	resp, err := http.Get(web.URL)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		fmt.Println(err)
		return
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "sserver_identity") || strings.Contains(line, `"stale_share"`) {
			fmt.Print(line)
		}
	}
	// Output:
	// sserver_identity 7
	// sserver_shares_per_second_since_last_scrape{chain="default",status="stale_share"} 0
	// sserver_shares_total{chain="default",status="stale_share"} 0
}

func newServer() (*stratum.Server, error) {
	users, err := stratum.OpenUsers("")
	if err != nil {
		return nil, err
	}
	shares := share.SinkFunc(func(context.Context, []share.Share) error { return nil })
	return stratum.New(job.NewHub(nil), users, shares, nobody{}, nil)
}

// nobody takes solved blocks.
type nobody struct{}

func (nobody) PutSolution(context.Context, *share.Solution) error { return nil }
