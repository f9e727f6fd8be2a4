// Package promstratum shows a stratum.Server to Prometheus, under the names that BTCPool's sserver uses and with more
// than it has.
//
//	registry := prometheus.NewRegistry()
//	registry.MustRegister(promstratum.New(server, nil))
//	http.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
//
// BTCPool's own, which dashboards may know:
//
//	sserver_identity                                      number of the server
//	sserver_sessions_total{chain,status}                  sessions now; status is connected, subscribed, registering
//	                                                      or authenticated
//	sserver_idle_since_last_job_broadcast_seconds{chain}  since a job was last sent to everybody
//	sserver_last_job_broadcast_height{chain}              of that job
//	sserver_shares_per_second_since_last_scrape{status}   see [Options.OmitRates]
//
// A server without a Router has one chain, which is called default. The status of shares is what the miner is told, in
// lower case with underscores: share_accepted, job_not_found, stale_share, low_difficulty. Shares are counted for the
// server as a whole, so they have no chain where there are several; where there is one they have its label.
//
// Rates are better made by the reader of counters that never lose anything between two scrapes, however many readers
// there are: rate(sserver_shares_total[1m]). The other names say what they count; see [stratum.Stats] and
// [stratum.LimitStats].
package promstratum

import (
	"strings"
	"sync"
	"time"

	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum"
	"github.com/prometheus/client_golang/prometheus"
)

// Options tune a Collector.
type Options struct {
	// ServerID is what stratum.Options.ServerID is, for sserver_identity. 0 means 1.
	ServerID uint8

	// OmitRates leaves out sserver_shares_per_second_since_last_scrape. Each scrape begins a new measurement, so a second
	// reader spoils it for the first.
	OmitRates bool
}

// A Collector is a prometheus.Collector of one server. It asks the server at each scrape, which looks at every session,
// and costs nothing in between. Its methods may be called at any time, by anyone.
type Collector struct {
	stats func() stratum.Stats
	opts  Options

	mu    sync.Mutex
	since time.Time // when the measurement under way began
	then  map[share.Verdict]int64
	rates map[share.Verdict]float64 // of the one before
}

var _ prometheus.Collector = (*Collector)(nil)

// New returns a Collector of a server. nil options mean all defaults.
func New(s *stratum.Server, opts *Options) *Collector { return newCollector(s.Stats, opts, time.Now()) }

func newCollector(stats func() stratum.Stats, opts *Options, now time.Time) *Collector {
	c := &Collector{stats: stats, since: now}
	if opts != nil {
		c.opts = *opts
	}
	if c.opts.ServerID == 0 {
		c.opts.ServerID = 1
	}
	return c
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("sserver_"+name, help, labels, nil)
}

var (
	identity    = desc("identity", "Number of the server.")
	sessions    = desc("sessions_total", "Sessions now.", "chain", "status")
	idle        = desc("idle_since_last_job_broadcast_seconds", "Time since a job was last sent to every miner.", "chain")
	height      = desc("last_job_broadcast_height", "Height of the latest job.", "chain")
	sharesTotal = desc("shares_total", "Judged shares.", "chain", "status")
	shareRate   = desc("shares_per_second_since_last_scrape", "Judged shares a second.", "chain", "status")

	agentWorkers = desc("agent_workers", "Machines behind agents now.")
	parked       = desc("sessions_parked", "Sessions now that a miner can come back to.")
	connections  = desc("connections_total", "Connections accepted.")
	refused      = desc("connections_refused_total", "Connections refused: the server or the address has too many, too fast, or is banned.", "reason")
	resumed      = desc("sessions_resumed_total", "Sessions that went on after their connection was lost.")
	hurried      = desc("jobs_out_of_turn_total", "Jobs sent to one miner for its difficulty, which could not wait.")
	malformed    = desc("malformed_total", "Lines and frames that meant nothing.")
	unregistered = desc("agent_workers_refused_total", "Machines behind agents beyond the limit.")
	solutions    = desc("solutions_total", "Headers that met the target of the network.")
	notRecorded  = desc("shares_not_recorded_total", "Shares that could not be recorded, which the miners were told.")
	logins       = desc("logins_refused_total", "Logins refused without asking the authorizer: the worker is banned, or failed before.", "reason")
	throttled    = desc("throttled_total", "Times that a session began to send requests too fast.")
	tooFast      = desc("closed_too_fast_total", "Sessions closed for sending requests too fast for too long.")
	penalties    = desc("penalties_total", "What was done about invalid shares.", "grade")
	banned       = desc("banned", "Workers and addresses that are banned now.", "what")
	remembered   = desc("limits_remembered", "Addresses and workers in memory for the limits, connected ones included.")
)

// all are described to the registry, which then finds two collectors of the same metrics.
var all = []*prometheus.Desc{
	identity, sessions, idle, height, sharesTotal, shareRate, agentWorkers, parked, connections, refused, resumed,
	hurried, malformed, unregistered, solutions, notRecorded, logins, throttled, tooFast, penalties, banned, remembered,
}

// verdicts are those there are. All are shown from the beginning, so that a reader's rate sees the first of each kind.
var verdicts = func() (vs []share.Verdict) {
	unknown := share.Verdict(255).String()
	for v := share.Verdict(0); v.String() != unknown; v++ {
		vs = append(vs, v)
	}
	return vs
}()

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range all {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(ch chan<- prometheus.Metric) { c.collect(ch, c.stats(), time.Now()) }

func (c *Collector) collect(ch chan<- prometheus.Metric, s stratum.Stats, now time.Time) {
	send := func(kind prometheus.ValueType) func(d *prometheus.Desc, v float64, labels ...string) {
		return func(d *prometheus.Desc, v float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(d, kind, v, labels...)
		}
	}
	gauge, counter := send(prometheus.GaugeValue), send(prometheus.CounterValue)

	gauge(identity, float64(c.opts.ServerID))
	for name, chain := range s.Chains {
		for state := stratum.Connected; state <= stratum.Authorized; state++ {
			gauge(sessions, float64(chain.Sessions[state]), label(name), state.String())
		}
		if !chain.LastJobSent.IsZero() {
			gauge(idle, now.Sub(chain.LastJobSent).Seconds(), label(name))
		}
		if chain.LastJob != nil {
			gauge(height, float64(chain.LastJob.Height), label(name))
		}
	}
	chain := onlyChain(s.Chains)
	rates := c.measure(s.Verdicts, now)
	for _, v := range verdicts {
		counter(sharesTotal, float64(s.Verdicts[v]), chain, status(v))
		if !c.opts.OmitRates {
			gauge(shareRate, rates[v], chain, status(v))
		}
	}

	gauge(agentWorkers, float64(s.AgentWorkers))
	gauge(parked, float64(s.Parked))
	counter(connections, float64(s.Connections))
	counter(refused, float64(s.Refused), "full")
	counter(refused, float64(s.Limits.RefusedFull), "address_full")
	counter(refused, float64(s.Limits.RefusedRate), "address_rate")
	counter(refused, float64(s.Limits.RefusedBanned), "address_banned")
	counter(resumed, float64(s.Resumed))
	counter(hurried, float64(s.Hurried))
	counter(malformed, float64(s.Malformed))
	counter(unregistered, float64(s.Unregistered))
	counter(solutions, float64(s.Solutions))
	counter(notRecorded, float64(s.NotRecorded))
	counter(logins, float64(s.Limits.LoginsBanned), "banned")
	counter(logins, float64(s.Limits.LoginsDelayed), "failed_before")
	counter(throttled, float64(s.Limits.Throttled))
	counter(tooFast, float64(s.Limits.TooFast))
	counter(penalties, float64(s.Limits.Warned), "warned")
	counter(penalties, float64(s.Limits.Disconnected), "disconnected")
	counter(penalties, float64(s.Limits.WorkerBans), "worker_banned")
	counter(penalties, float64(s.Limits.AddressBans), "address_banned")
	gauge(banned, float64(s.Limits.BannedWorkers), "worker")
	gauge(banned, float64(s.Limits.BannedAddresses), "address")
	gauge(remembered, float64(s.Limits.Remembered))
}

// measure returns the shares a second since the last scrape. BTCPool divides by whole seconds, and by zero when two
// scrapes fall into one; here a scrape within a second of the last is told the same again, and the measurement goes on.
func (c *Collector) measure(counts map[share.Verdict]int64, now time.Time) map[share.Verdict]float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if took := now.Sub(c.since).Seconds(); took >= 1 {
		c.rates = make(map[share.Verdict]float64, len(counts))
		for v, n := range counts {
			c.rates[v] = float64(max(0, n-c.then[v])) / took // overlapping scrapes may come in another order
		}
		c.since, c.then = now, counts
	}
	return c.rates
}

// label returns how a chain is called.
func label(name job.Chain) string {
	if name == "" {
		return "default"
	}
	return string(name)
}

// onlyChain returns the label of what is counted for the server as a whole.
func onlyChain(chains map[job.Chain]stratum.ChainStats) string {
	if len(chains) > 1 {
		return "" // which is as good as no label
	}
	for name := range chains {
		return label(name)
	}
	return label("")
}

// status returns a verdict as BTCPool's metrics spell it.
func status(v share.Verdict) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '_'
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '_':
			return r
		}
		return -1
	}, v.String())
}
