package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/poolkit/poolkit/stratum/sv1"
)

// A result is what came out of a run.
type result struct {
	cfg  *config
	pool string

	before, idle, after sample // of before the first connection, of before the first submit, of after the last reply
	atLogin, atEnd      tally
	atIdle, counts      *stats
	connecting, loading time.Duration
	spreads             []*spread
	blocks              int
	cmdError            string
	died                string // why the pool's process could not be looked at in the end
}

// strictFault says what -strict objects to, "" when nothing.
func (r *result) strictFault() string {
	s := r.counts
	unexpected := s.rejected() - s.staleRaces
	if low := s.rejects[sv1.CodeLowDifficulty]; low != nil && !r.cfg.real {
		unexpected -= low.count // what an unhashed share is to be told
	}
	switch {
	case s.failures.total() > 0:
		return fmt.Sprintf("%d connections failed", s.failures.total())
	case unexpected > 0:
		return fmt.Sprintf("%d rejects were not to be expected", unexpected)
	case s.lost > 0:
		return fmt.Sprintf("%d submits were never answered", s.lost)
	case s.malformed+s.strange > 0:
		return fmt.Sprintf("%d messages of the pool made no sense", s.malformed+s.strange)
	case r.missing() > 0:
		return fmt.Sprintf("a new block did not reach %d connections", r.missing())
	}
	return ""
}

// missing is how many connections never had the last block.
func (r *result) missing() int {
	if len(r.spreads) == 0 {
		return 0
	}
	return r.spreads[len(r.spreads)-1].missing
}

// perSubmit is the CPU time of the pool and of this program for each submit, 0 when it is not known.
func (r *result) perSubmit() (pool, own time.Duration) {
	n := r.answered()
	if n == 0 {
		return 0, 0
	}
	return (r.after.pool.cpu - r.idle.pool.cpu) / time.Duration(n), (r.after.own.cpu - r.idle.own.cpu) / time.Duration(n)
}

// answered is how many submits the pool has dealt with, as far as is known.
func (r *result) answered() uint64 { return r.counts.replies + r.counts.untold }

// fewConns is below what the memory of single connections is lost in that of a process.
const fewConns = 100

// cpuFor says what each of n took of a time that is counted in hundredths of a second, if that is enough to tell.
func cpuFor(d time.Duration, n uint64, of string) string {
	if n == 0 || d < 50*time.Millisecond {
		return ""
	}
	return fmt.Sprintf(", %s for each %s", short(d/time.Duration(n)), of)
}

// perConn is the memory of the pool for each connection that waits, in bytes.
func (r *result) perConn() (pool, own float64) {
	n := float64(max(r.atLogin.live, 1))
	return float64(r.idle.pool.rss-r.before.pool.rss) / n, float64(r.idle.own.rss-r.before.own.rss) / n
}

// fanOut returns how long new blocks took: the median of the spreads' medians, and the slowest of their ends.
func (r *result) fanOut() (p50, p99, last time.Duration, ok bool) {
	var medians, tails, ends []time.Duration
	for _, s := range r.spreads {
		if s.times.count > 0 {
			medians = append(medians, s.times.quantile(0.5))
			tails = append(tails, s.times.quantile(0.99))
			ends = append(ends, s.times.max)
		}
	}
	if len(ends) == 0 {
		return 0, 0, 0, false
	}
	for _, d := range [][]time.Duration{medians, tails, ends} {
		slices.Sort(d)
	}
	return medians[len(medians)/2], tails[len(tails)/2], ends[len(ends)/2], true
}

// maxShown is how many blocks a report shows one by one.
const maxShown = 8

// text writes the report for people.
func (r *result) text(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	s, cfg := r.counts, r.cfg
	line("pool", "%s", r.pool)
	load := "idle connections"
	kind := "unhashed"
	if cfg.real {
		kind = "hashed"
	}
	switch {
	case cfg.inflight > 0:
		load = fmt.Sprintf("%d %s shares in flight on each connection", cfg.inflight, kind)
	case cfg.rate > 0:
		load = fmt.Sprintf("%v %s shares a second from each miner", cfg.rate, kind)
	}
	if r.loading > 0 {
		line("load", "%s, for %s", load, short(r.loading))
	}

	line("connections", "%s of %s logged in within %s; %s at the end", num(r.atLogin.live), num(cfg.conns+cfg.agents),
		short(r.connecting), num(r.atEnd.live))
	if cfg.agents > 0 {
		line("  agents", "%s, with %s miners each", num(cfg.agents), num(cfg.workers))
	}
	line("  connected", "%s", quantiles(&s.connect))
	line("  logged in", "%s", quantiles(&s.login))
	line("  first job", "%s", quantiles(&s.work))
	list(line, "  failed", s.failures)
	list(line, "  closed", s.closes)
	if s.resumed+s.fresh > 0 {
		line("  reconnected", "%s resumed their session, %s got a new one; %s submits sent again, %s of them known to the pool",
			num(s.resumed), num(s.fresh), num(s.resent), num(s.resentDup))
	}
	if s.orders > 0 {
		line("  client.reconnect", "%s, %s of them to another place, which was not gone to", num(s.orders), num(s.redirects))
	}

	if s.submits > 0 {
		rate := 0.0
		if sec := r.loading.Seconds(); sec > 0 {
			rate = float64(s.submits) / sec
		}
		line("submits", "%s, %s a second", num(s.submits), num(int64(rate)))
		line("  answered", "%s", num(s.replies))
		line("  accepted", "%s", portion(s.accepted, s.replies))
		for _, code := range r.codes() {
			line("  rejected "+codeName(code), "%s: %s", portion(s.rejects[code].count, s.replies), r.texts(code))
		}
		if s.staleRaces > 0 {
			line("", "%s of the stale ones were for work that a new block had just ended", num(s.staleRaces))
		}
		if s.lost > 0 {
			line("  lost", "%s were never answered", num(s.lost))
		}
		if s.abandoned > 0 {
			line("  abandoned", "%s without a reply when their connection was churned", num(s.abandoned))
		}
		if s.untold > 0 {
			line("  not told", "%s of agents whose pool offers no SUBMIT_RESPONSE", num(s.untold))
		}
		if s.heldBack+s.missed+s.discarded > 0 {
			line("  not sent", "%s for too many unanswered or unhashed, %s because this program was too slow, %s found too late",
				num(s.heldBack), num(s.missed), num(s.discarded))
		}
		line("  latency", "%s", quantiles(&s.latency))
	}

	line("jobs", "%s, %s of them clean", num(s.jobs), num(s.clean))
	if r.blocks > 0 {
		from := "after the first connection"
		if r.spreads[0].block.from {
			from = "after -block-cmd began"
		}
		line("new blocks", "%s; times are those %s", num(r.blocks), from)
		for i, b := range r.spreads {
			if i == maxShown {
				line("", "and %s more", num(len(r.spreads)-maxShown))
				break
			}
			missing := ""
			if b.missing > 0 {
				missing = fmt.Sprintf(", never %s", num(b.missing))
			}
			line(fmt.Sprintf("  block %d", i+1), "%s connections: %slast %s%s", num(b.times.count), r.firstOf(b), tail(&b.times), missing)
		}
	}
	if s.malformed+s.strange > 0 {
		line("odd messages", "%s that mean nothing, %s replies to nothing", num(s.malformed), num(s.strange))
	}
	list(line, "messages", s.messages)
	if r.cmdError != "" {
		line("-block-cmd", "failed: %s", r.cmdError)
	}

	line("traffic", "%s received, %s sent", size(int64(s.received)), size(int64(s.sent)))
	pool, own := r.perSubmit()
	poolMem, ownMem := r.perConn()
	if len(cfg.pids) > 0 {
		each := ""
		if r.atLogin.live >= fewConns {
			each = fmt.Sprintf(", %.1f KB for each connection", poolMem/1024)
		}
		line("pool memory", "%s at first, %s with all idle%s", size(r.before.pool.rss), size(r.idle.pool.rss), each)
		if r.died != "" {
			line("pool CPU", "unknown, because the process has ended: %s", r.died)
		} else {
			line("", "%s at the end", size(r.after.pool.rss))
			line("pool CPU", "%s%s%s", short(r.after.pool.cpu-r.before.pool.cpu),
				cpuFor(r.idle.pool.cpu-r.before.pool.cpu, r.atIdle.loggedIn, "login"), cpuFor(pool*time.Duration(r.answered()), r.answered(), "submit"))
		}
	}
	if r.after.own.cpu > 0 {
		each := ""
		if r.atLogin.live >= fewConns {
			each = fmt.Sprintf(", %.1f KB for each connection", ownMem/1024)
		}
		line("this program", "%s CPU%s%s", short(r.after.own.cpu-r.before.own.cpu),
			cpuFor(own*time.Duration(r.answered()), r.answered(), "submit"), each)
	}
	w.Flush()
}

func (r *result) firstOf(b *spread) string {
	if !b.block.from {
		return ""
	}
	return fmt.Sprintf("first %s, ", short(time.Duration(b.block.seen-b.block.first)))
}

func tail(h *hist) string {
	return fmt.Sprintf("%s (p50 %s, p99 %s)", short(h.max), short(h.quantile(0.5)), short(h.quantile(0.99)))
}

// codes returns the codes of the rejects, the most frequent first.
func (r *result) codes() []int {
	var codes []int
	for code := range r.counts.rejects {
		codes = append(codes, code)
	}
	slices.SortFunc(codes, func(a, b int) int {
		x, y := r.counts.rejects[a].count, r.counts.rejects[b].count
		if x != y {
			if x > y {
				return -1
			}
			return 1
		}
		return a - b
	})
	return codes
}

func codeName(code int) string {
	switch code {
	case 0:
		return "without a code"
	case -1:
		return "with other codes"
	}
	return strconv.Itoa(code)
}

// texts returns what a pool said with a code.
func (r *result) texts(code int) string {
	var out []string
	for _, e := range sorted(r.counts.rejects[code].texts) {
		if e.text != "" {
			out = append(out, printable(e.text))
		}
		if len(out) == 3 {
			break
		}
	}
	if len(out) == 0 {
		return "no text"
	}
	return strings.Join(out, "; ")
}

// printable is what a pool said, on one line.
func printable(s string) string {
	q := strconv.Quote(s)
	if q[1:len(q)-1] == s {
		return s
	}
	return q
}

type entry struct {
	text string
	n    uint64
}

// sorted returns texts, the most frequent first.
func sorted(r reasons) []entry {
	var out []entry
	for text, n := range r {
		out = append(out, entry{text, n})
	}
	slices.SortFunc(out, func(a, b entry) int {
		if a.n != b.n {
			if a.n > b.n {
				return -1
			}
			return 1
		}
		return strings.Compare(a.text, b.text)
	})
	return out
}

func list(line func(name, format string, args ...any), name string, r reasons) {
	for _, e := range sorted(r) {
		line(name, "%s: %s", num(e.n), printable(e.text))
		name = ""
	}
}

func quantiles(h *hist) string {
	if h.count == 0 {
		return "none"
	}
	return fmt.Sprintf("p50 %s, p90 %s, p99 %s, max %s", short(h.quantile(0.5)), short(h.quantile(0.9)),
		short(h.quantile(0.99)), short(h.max))
}

func portion(n, of uint64) string {
	if of == 0 {
		return num(n)
	}
	return fmt.Sprintf("%s (%.2f %%)", num(n), 100*float64(n)/float64(of))
}

// num writes a number with commas.
func num[T int | int64 | uint64](n T) string {
	s := strconv.FormatInt(int64(n), 10)
	var b bytes.Buffer
	for i, c := range []byte(s) {
		if i > 0 && (len(s)-i)%3 == 0 && s[i-1] != '-' {
			b.WriteByte(',')
		}
		b.WriteByte(c)
	}
	return b.String()
}

// short writes a duration with three digits.
func short(d time.Duration) string {
	f := float64(d)
	switch {
	case d < 0:
		return "-" + short(-d)
	case d < time.Microsecond:
		return strconv.Itoa(int(d)) + " ns"
	case d < time.Millisecond:
		return digits3(f/1e3) + " µs"
	case d < time.Second:
		return digits3(f/1e6) + " ms"
	case d < 100*time.Second:
		return digits3(f/1e9) + " s"
	}
	return d.Round(time.Second).String()
}

func digits3(f float64) string {
	switch {
	case f < 9.995:
		return strconv.FormatFloat(f, 'f', 2, 64)
	case f < 99.95:
		return strconv.FormatFloat(f, 'f', 1, 64)
	}
	return strconv.FormatFloat(f, 'f', 0, 64)
}

func size(bytes int64) string { return digits3(float64(bytes)/(1<<20)) + " MB" }

// A jsonReport is the report for programs. Times are in milliseconds unless the name says otherwise.
type jsonReport struct {
	Pool        string  `json:"pool"`
	Connections int     `json:"connections"`
	LoggedIn    int     `json:"logged_in"`
	LiveAtEnd   int     `json:"live_at_end"`
	ConnectSec  float64 `json:"connect_phase_seconds"`
	LoadSec     float64 `json:"load_seconds"`

	Connect  jsonTimes `json:"connect_ms"`
	Login    jsonTimes `json:"login_ms"`
	FirstJob jsonTimes `json:"first_job_ms"`
	Latency  jsonTimes `json:"latency_ms"`

	Dialed      uint64            `json:"dialed"`
	Failures    map[string]uint64 `json:"failures"`
	Disconnects map[string]uint64 `json:"disconnects"`

	Submits          uint64            `json:"submits"`
	SubmitsPerSecond float64           `json:"submits_per_second"`
	Replies          uint64            `json:"replies"`
	Accepted         uint64            `json:"accepted"`
	Rejected         map[string]uint64 `json:"rejected_by_code"`
	RejectTexts      map[string]uint64 `json:"reject_texts"`
	StaleRaces       uint64            `json:"stale_at_a_new_block"`
	Lost             uint64            `json:"lost"`
	Abandoned        uint64            `json:"abandoned_by_churn"`
	Untold           uint64            `json:"without_agreed_reply"`
	HeldBack         uint64            `json:"held_back"`
	Missed           uint64            `json:"missed_by_swarm"`
	Discarded        uint64            `json:"found_too_late"`
	Resumed          uint64            `json:"resumed"`
	Fresh            uint64            `json:"not_resumed"`
	Resent           uint64            `json:"resent"`
	ResentKnown      uint64            `json:"resent_duplicates"`
	Churned          uint64            `json:"churned"`
	Reconnects       uint64            `json:"client_reconnects"`

	Jobs      uint64            `json:"jobs"`
	CleanJobs uint64            `json:"clean_jobs"`
	NewBlocks int               `json:"new_blocks"`
	Blocks    []jsonBlock       `json:"blocks"`
	Malformed uint64            `json:"malformed"`
	Strange   uint64            `json:"replies_to_nothing"`
	Requests  uint64            `json:"requests_of_the_pool"`
	Messages  map[string]uint64 `json:"messages"`
	Received  uint64            `json:"bytes_received"`
	Sent      uint64            `json:"bytes_sent"`

	Server *jsonServer `json:"server,omitempty"`
	Own    jsonServer  `json:"swarm"`
	Fault  string      `json:"strict_fault,omitempty"`
}

type jsonTimes struct {
	Count uint64  `json:"count"`
	Mean  float64 `json:"mean"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	Max   float64 `json:"max"`
}

type jsonBlock struct {
	Reached uint64  `json:"reached"`
	Missing int     `json:"missing"`
	From    string  `json:"from"`
	FirstMS float64 `json:"first_ms"`
	P50MS   float64 `json:"p50_ms"`
	P99MS   float64 `json:"p99_ms"`
	LastMS  float64 `json:"last_ms"`
}

type jsonServer struct {
	CPULoginMicros  float64 `json:"cpu_us_per_login"`
	CPUSubmitMicros float64 `json:"cpu_us_per_submit"`
	CPUSec          float64 `json:"cpu_seconds"`
	RSSBefore       int64   `json:"rss_bytes_before"`
	RSSIdle         int64   `json:"rss_bytes_idle"`
	RSSAfter        int64   `json:"rss_bytes_after"`
	RSSPerConn      float64 `json:"rss_bytes_per_connection"`
	Ended           string  `json:"ended,omitempty"`
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
func us(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func timesOf(h *hist) jsonTimes {
	return jsonTimes{h.count, ms(h.mean()), ms(h.quantile(0.5)), ms(h.quantile(0.9)), ms(h.quantile(0.99)), ms(h.max)}
}

// json writes the report for programs.
func (r *result) json(out io.Writer) error {
	s := r.counts
	j := jsonReport{
		Pool: r.pool, Connections: r.cfg.conns + r.cfg.agents, LoggedIn: r.atLogin.live, LiveAtEnd: r.atEnd.live,
		ConnectSec: r.connecting.Seconds(), LoadSec: r.loading.Seconds(),
		Connect: timesOf(&s.connect), Login: timesOf(&s.login), FirstJob: timesOf(&s.work), Latency: timesOf(&s.latency),
		Dialed: s.dialed, Failures: s.failures, Disconnects: s.closes,
		Submits: s.submits, Replies: s.replies, Accepted: s.accepted, Rejected: map[string]uint64{}, RejectTexts: map[string]uint64{},
		StaleRaces: s.staleRaces, Lost: s.lost, Abandoned: s.abandoned, Untold: s.untold, HeldBack: s.heldBack,
		Missed: s.missed, Discarded: s.discarded, Resumed: s.resumed, Fresh: s.fresh, Resent: s.resent,
		ResentKnown: s.resentDup, Churned: s.churned, Reconnects: s.orders,
		Jobs: s.jobs, CleanJobs: s.clean, NewBlocks: r.blocks, Blocks: []jsonBlock{},
		Malformed: s.malformed, Strange: s.strange, Messages: s.messages,
		Requests: s.requests, Received: s.received, Sent: s.sent, Fault: r.strictFault(),
	}
	if sec := r.loading.Seconds(); sec > 0 {
		j.SubmitsPerSecond = float64(s.submits) / sec
	}
	for code, reject := range s.rejects {
		j.Rejected[strconv.Itoa(code)] = reject.count
		for text, n := range reject.texts {
			j.RejectTexts[text] += n
		}
	}
	for _, b := range r.spreads {
		from := "first connection"
		if b.block.from {
			from = "block-cmd"
		}
		j.Blocks = append(j.Blocks, jsonBlock{
			Reached: b.times.count, Missing: b.missing, From: from, FirstMS: ms(time.Duration(b.block.seen - b.block.first)),
			P50MS: ms(b.times.quantile(0.5)), P99MS: ms(b.times.quantile(0.99)), LastMS: ms(b.times.max),
		})
	}
	logins := float64(max(r.atIdle.loggedIn, 1))
	pool, own := r.perSubmit()
	poolMem, ownMem := r.perConn()
	server := func(before, idle, after usage, submit time.Duration, mem float64) jsonServer {
		return jsonServer{
			CPULoginMicros: us(idle.cpu-before.cpu) / logins, CPUSubmitMicros: us(submit), CPUSec: (after.cpu - before.cpu).Seconds(),
			RSSBefore: before.rss, RSSIdle: idle.rss, RSSAfter: after.rss, RSSPerConn: mem,
		}
	}
	j.Own = server(r.before.own, r.idle.own, r.after.own, own, ownMem)
	if len(r.cfg.pids) > 0 {
		p := server(r.before.pool, r.idle.pool, r.after.pool, pool, poolMem)
		p.Ended = r.died
		j.Server = &p
	}
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	return enc.Encode(&j)
}
