package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/poolkit/poolkit/job"
)

// A config is what the flags say.
type config struct {
	pool        string
	conns       int
	connectRate float64
	timeout     time.Duration
	user        string
	password    string
	agent       string
	sources     []netip.Addr
	tls         *tls.Config // nil without -tls

	rate        float64
	totalRate   float64
	inflight    int
	duration    time.Duration
	drain       time.Duration
	settle      time.Duration
	real        bool
	rolling     bool
	maxPending  int
	reconnect   bool
	churn       float64
	agents      int
	workers     int
	curve       []int
	pids        []int
	blockCmd    string
	blockEvery  time.Duration
	strict      bool
	json        bool
	every       time.Duration
	seed        uint64
	lanes       int
	versionMask uint32
}

// usageText is what -h prints before the flags.
const usageText = `swarm puts load on a Stratum V1 pool, whosever it is, and reports what the pool made of it.

  swarm -pool 127.0.0.1:3333 -conns 10000 -rate 0.2 -for 30s
  swarm -pool 127.0.0.1:3333 -conns 50 -inflight 16 -for 10s -pid $(pidof fullpool)

`

// parse reads the command line. Each mistake is one sentence that names the flag.
func parse(args []string, out io.Writer) (*config, error) {
	c := &config{versionMask: job.DefaultVersionMask}
	var useTLS, insecure, fast bool
	var ca, sources, curve, pids string
	fs := flag.NewFlagSet("swarm", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // the error that Parse returns says it all
	fs.StringVar(&c.pool, "pool", "127.0.0.1:3333", "`address` of the pool")
	fs.IntVar(&c.conns, "conns", 100, "`number` of miners, each with a connection of its own")
	fs.Float64Var(&c.connectRate, "connect-rate", 0, "`connections` begun a second; 0 begins all at once")
	fs.DurationVar(&c.timeout, "connect-timeout", 30*time.Second, "`time` for a connection to log in")
	fs.StringVar(&c.user, "user", "swarm.w%d", "`name` to log in with; %d is the number of the connection")
	fs.StringVar(&c.password, "password", "x", "`password` to log in with")
	fs.StringVar(&c.agent, "agent", "swarm/1", "`name` of the mining software to claim")
	fs.StringVar(&sources, "source", "", "local `addresses` to connect from in turn, such as 127.0.0.2,127.0.0.3")
	fs.BoolVar(&useTLS, "tls", false, "speak TLS")
	fs.BoolVar(&insecure, "insecure", false, "with -tls, take any certificate")
	fs.StringVar(&ca, "ca", "", "with -tls, `file` of certificates to trust instead of the system's")

	fs.Float64Var(&c.rate, "rate", 0, "`shares` a second from each connection, or from each worker of an agent")
	fs.Float64Var(&c.totalRate, "total-rate", 0, "instead of -rate: `shares` a second from all together")
	fs.IntVar(&c.inflight, "inflight", 0, "instead of -rate: `number` of submits that each connection keeps unanswered")
	fs.DurationVar(&c.duration, "for", 30*time.Second, "`time` to submit for, once all are connected")
	fs.DurationVar(&c.settle, "settle", time.Second, "`time` that all stay idle before the first submit; the pool's memory is read after it")
	fs.DurationVar(&c.drain, "drain", 5*time.Second, "`time` to wait at the end for replies still due")
	fs.BoolVar(&fast, "fast", true, "submit shares that were never hashed; a pool judges each and answers \"low difficulty\"")
	fs.BoolVar(&c.real, "real", false, "hash until a share meets its job's difficulty, which has to be tiny")
	fs.BoolVar(&c.rolling, "version-rolling", true, "ask for version rolling, and roll where it is granted")
	fs.IntVar(&c.maxPending, "max-pending", 1024, "`number` of unanswered submits at which a connection stops and waits")
	fs.BoolVar(&c.reconnect, "reconnect", false, "connect again after a close or client.reconnect, name the old session "+
		"and, where it is resumed, submit again what was not answered")
	fs.Float64Var(&c.churn, "churn", 0, "`connections` a second to close and replace by new ones")
	fs.IntVar(&c.agents, "agents", 0, "`number` of BTCAgent connections besides -conns")
	fs.IntVar(&c.workers, "workers", 100, "`miners` behind each BTCAgent connection")

	fs.StringVar(&curve, "curve", "", "`numbers` of connections, such as 10,1000,10000: run once with each, print a Markdown table")
	fs.StringVar(&pids, "pid", "", "process `number` of a pool on this machine, or several: report its CPU time and memory")
	fs.StringVar(&c.blockCmd, "block-cmd", "", "shell `command` that makes the pool's node find a block; "+
		"new blocks are then timed from its start")
	fs.DurationVar(&c.blockEvery, "block-every", 5*time.Second, "with -block-cmd, `time` between runs")
	fs.BoolVar(&c.strict, "strict", false, "exit with 1 after any reject that is not to be expected, or a lost reply")
	fs.BoolVar(&c.json, "json", false, "print the report as JSON")
	fs.DurationVar(&c.every, "progress", 2*time.Second, "`time` between progress lines; 0 prints none")
	fs.Uint64Var(&c.seed, "seed", 1, "`number` that all random choices follow from")
	fs.IntVar(&c.lanes, "lanes", 0, "`goroutines` that do the work; 0 means one a processor, at most 4")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprint(out, usageText)
			fs.SetOutput(out)
			fs.PrintDefaults()
		}
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("%q is not a flag", fs.Arg(0))
	}
	given := make(map[string]bool)
	fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if given["fast"] && fast == c.real {
		return nil, errors.New("shares are either -fast or -real")
	}
	if !useTLS && (insecure || ca != "") {
		return nil, errors.New("-insecure and -ca are of no use without -tls")
	}
	if insecure && ca != "" {
		return nil, errors.New("-insecure trusts everybody, so -ca has nothing to add")
	}
	if given["workers"] && c.agents == 0 {
		return nil, errors.New("-workers is of no use without -agents")
	}
	if given["block-every"] && c.blockCmd == "" {
		return nil, errors.New("-block-every is of no use without -block-cmd")
	}
	if curve != "" && given["conns"] {
		return nil, errors.New("-curve names the numbers of connections, so -conns has nothing to add")
	}
	var err error
	if c.sources, err = addresses(sources); err != nil {
		return nil, err
	}
	if c.curve, err = numbers("curve", curve); err != nil {
		return nil, err
	}
	if c.pids, err = numbers("pid", pids); err != nil {
		return nil, err
	}
	if useTLS {
		if c.tls, err = tlsConfig(c.pool, ca, insecure); err != nil {
			return nil, err
		}
	}
	return c, c.check()
}

// check finds what is wrong with the settings before anything is opened.
func (c *config) check() error {
	host, port, err := net.SplitHostPort(c.pool)
	if n, e := strconv.Atoi(port); err != nil || host == "" || e != nil || n < 1 || n > math.MaxUint16 {
		return fmt.Errorf("-pool %q is not host:port", c.pool)
	}
	finite := func(f float64) bool { return f >= 0 && f <= 1e9 }
	switch {
	case c.conns < 0 || c.agents < 0 || c.conns+c.agents == 0 && c.curve == nil:
		return errors.New("-conns and -agents are numbers of connections, and not both 0")
	case c.conns > maxConns || c.agents > maxConns:
		return fmt.Errorf("-conns and -agents go up to %d", maxConns)
	case c.agents > 0 && (c.workers < 1 || c.workers > maxWorkers):
		return fmt.Errorf("-workers %d is not between 1 and %d", c.workers, maxWorkers)
	case !finite(c.connectRate):
		return fmt.Errorf("-connect-rate %v is not a number of connections a second", c.connectRate)
	case !finite(c.rate):
		return fmt.Errorf("-rate %v is not a number of shares a second", c.rate)
	case !finite(c.churn):
		return fmt.Errorf("-churn %v is not a number of connections a second", c.churn)
	case !finite(c.totalRate):
		return fmt.Errorf("-total-rate %v is not a number of shares a second", c.totalRate)
	case c.rate > 0 && c.inflight > 0 || c.totalRate > 0 && c.rate+float64(c.inflight) > 0:
		return errors.New("-rate, -total-rate and -inflight are three ways to submit: give one of them")
	case c.maxPending < 1 || c.maxPending > maxPendingLimit:
		return fmt.Errorf("-max-pending %d is not between 1 and %d", c.maxPending, maxPendingLimit)
	case c.inflight < 0 || c.inflight > c.maxPending:
		return fmt.Errorf("-inflight %d is not between 0 and -max-pending %d", c.inflight, c.maxPending)
	case c.duration <= 0 || c.drain < 0 || c.timeout <= 0 || c.settle < 0 || c.every < 0 || c.blockEvery <= 0:
		return errors.New("-for, -connect-timeout and -block-every are times above 0, -settle, -drain and -progress not below")
	case strings.Count(c.user, "%") != strings.Count(c.user, "%d") || strings.Count(c.user, "%") > 1:
		return fmt.Errorf("-user %q may hold %%d once and no other %%", c.user)
	case c.user == "" || len(c.user)+len(c.password)+len(c.agent) > 1024:
		return errors.New("-user, -password and -agent hold 1 to 1024 bytes together")
	case c.lanes < 0 || c.lanes > 32:
		return fmt.Errorf("-lanes %d is not between 0 and 32", c.lanes)
	case c.json && c.curve != nil:
		return errors.New("-curve prints a table, so -json has nothing to add")
	}
	for _, n := range c.curve {
		if n > maxConns {
			return fmt.Errorf("-curve goes up to %d", maxConns)
		}
	}
	if c.lanes == 0 {
		c.lanes = min(runtime.GOMAXPROCS(0), 4)
	}
	return nil
}

// Bounds of what the flags take.
const (
	maxConns        = 1_000_000
	maxWorkers      = 65_535 // miners an agent can tell apart
	maxPendingLimit = 32_768 // half of the indexes that BTCAgent's replies count with
)

// addresses reads a list of local addresses.
func addresses(list string) (out []netip.Addr, err error) {
	for _, s := range split(list) {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("-source %q is not an IP address", s)
		}
		out = append(out, a.Unmap())
	}
	return out, nil
}

// numbers reads a list of numbers above 0.
func numbers(name, list string) (out []int, err error) {
	for _, s := range split(list) {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("-%s: %q is not a number above 0", name, s)
		}
		out = append(out, n)
	}
	return out, nil
}

// split cuts a list at commas and spaces, as pidof prints them.
func split(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}

func tlsConfig(pool, ca string, insecure bool) (*tls.Config, error) {
	host, _, err := net.SplitHostPort(pool)
	if err != nil {
		return nil, fmt.Errorf("-pool %q is not host:port", pool)
	}
	t := &tls.Config{ServerName: host, InsecureSkipVerify: insecure, MinVersion: tls.VersionTLS12}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("-ca: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("-ca: %s holds no certificate", ca)
		}
	}
	return t, nil
}
