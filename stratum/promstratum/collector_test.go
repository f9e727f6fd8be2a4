package promstratum

import (
	"flag"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the golden files")

// scraped collects what a Collector shows at a given time.
type scraped struct {
	*Collector
	stats stratum.Stats
	now   time.Time
}

func (s *scraped) Collect(ch chan<- prometheus.Metric) { s.collect(ch, s.stats, s.now) }

// scrape returns what Prometheus reads. A registry checks that names, labels and types fit.
func scrape(t testing.TB, c prometheus.Collector) string {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	require.NoError(t, registry.Register(c))
	w := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	require.Equal(t, 200, w.Code, w.Body.String())
	return w.Body.String()
}

// Each figure differs from the others, so that none can stand in another's place.
func sample(now time.Time) stratum.Stats {
	return stratum.Stats{
		Sessions: 10, AgentWorkers: 101, Parked: 102,
		Connections: 201, Refused: 202, Resumed: 203, Hurried: 208, Malformed: 204, Unregistered: 205, Solutions: 206, NotRecorded: 207,
		Verdicts: map[share.Verdict]int64{share.Accepted: 3000, share.Solved: 2, share.Stale: 30, share.JobNotFoundOrStale: 40},
		Limits: stratum.LimitStats{
			RefusedBanned: 401, RefusedFull: 402, RefusedRate: 403, LoginsBanned: 404, LoginsDelayed: 405, Throttled: 406, TooFast: 407,
			Warned: 501, Disconnected: 502, WorkerBans: 503, AddressBans: 504, BannedWorkers: 505, BannedAddresses: 506, Remembered: 507,
		},
		Chains: map[job.Chain]stratum.ChainStats{"": {
			LastJob:     &job.Job{Height: 850000},
			LastJobSent: now.Add(-12500 * time.Millisecond),
			Sessions: map[stratum.State]int{
				stratum.Connected: 1, stratum.Subscribed: 2, stratum.Registering: 3, stratum.Authorized: 4,
			},
		}},
	}
}

func TestGolden(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	several := sample(start.Add(10 * time.Second))
	several.Chains["btc"] = several.Chains[""]
	delete(several.Chains, "")
	several.Chains["bch"] = stratum.ChainStats{Sessions: map[stratum.State]int{stratum.Authorized: 7}} // no job yet
	for _, test := range []struct {
		name  string
		opts  *Options
		stats stratum.Stats
	}{
		{"one chain", &Options{ServerID: 9}, sample(start.Add(10 * time.Second))},
		{"several chains", &Options{OmitRates: true}, several},
		{"nothing yet", nil, stratum.Stats{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := &scraped{newCollector(nil, test.opts, start), test.stats, start.Add(10 * time.Second)}
			got := scrape(t, c)
			golden := filepath.Join("testdata", strings.ReplaceAll(test.name, " ", "_")+".txt")
			if *update {
				require.NoError(t, os.WriteFile(golden, []byte(got), 0o644))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			require.Equal(t, string(want), got)
		})
	}
}

func TestRatesAreOfTheTimeBetweenScrapes(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	c := &scraped{Collector: newCollector(nil, nil, start)}
	for _, step := range []struct {
		name  string
		at    time.Duration
		count int64
		want  string
	}{
		{"at once, where nothing can be said", 0, 7, "0"},
		{"since the beginning", 10 * time.Second, 20, "2"},
		{"in the same instant", 10 * time.Second, 20, "2"},
		{"within the same second", 10*time.Second + 900*time.Millisecond, 500, "2"},
		{"a clock that was set back", 5 * time.Second, 500, "2"},
		{"of all since the last measurement", 14 * time.Second, 520, "125"},
		{"of half seconds too", 16500 * time.Millisecond, 525, "2"},
		{"an older count that came later", 20 * time.Second, 500, "0"},
	} {
		c.stats.Verdicts = map[share.Verdict]int64{share.Accepted: step.count}
		c.now = start.Add(step.at)
		got := scrape(t, c)
		require.Contains(t, got,
			`sserver_shares_per_second_since_last_scrape{chain="default",status="share_accepted"} `+step.want+"\n", step.name)
		require.NotContains(t, got, "NaN")
		require.NotContains(t, got, "Inf")
	}
}

// The names of BTCPool's dashboards.
func TestStatusIsSpelledAsByBTCPool(t *testing.T) {
	names := make(map[string]share.Verdict)
	for _, v := range verdicts {
		other, taken := names[status(v)]
		require.False(t, taken, "%v and %v have the same name", v, other)
		names[status(v)] = v
	}
	for name, v := range map[string]share.Verdict{
		"share_accepted": share.Accepted, "job_not_found_stale": share.JobNotFoundOrStale, "stale_share": share.Stale,
		"low_difficulty": share.LowDifficulty, "share_accepted_and_solved_stale": share.SolvedStale,
	} {
		require.Equal(t, v, names[name], name)
		require.Contains(t, names, name)
	}
	require.Len(t, verdicts, int(share.Stale)+1)
}

func TestScrapesMayOverlap(t *testing.T) {
	c := newCollector(func() stratum.Stats { return sample(time.Now()) }, nil, time.Now().Add(-time.Minute))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { scrape(t, c) })
	}
	wg.Wait()
}
