package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"reflect"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/stratum"
)

// A config is what the flags and the configuration file say. The JSON keys are the names of the flags.
type config struct {
	// What it consists of.
	Listen   addresses `json:"listen"`
	HTTP     string    `json:"http"`
	Data     string    `json:"data"`
	Network  string    `json:"network"`
	Nodes    []string  `json:"node"`
	NodeUser string    `json:"node-user"`
	NodePass string    `json:"node-pass"`
	Cookie   string    `json:"node-cookie"`
	Cert     string    `json:"node-cert"`
	ZMQ      []string  `json:"zmq"`
	Address  string    `json:"address"`
	Text     string    `json:"coinbase-text"`
	Mine     int       `json:"mine"`
	LogLevel string    `json:"log-level"`
	Events   string    `json:"events"`

	// What miners are given.
	Diff        number  `json:"diff"`
	MinDiff     number  `json:"min-diff"`
	MaxDiff     number  `json:"max-diff"`
	AboveNet    *bool   `json:"above-network"`
	Vardiff     vardiff `json:"vardiff"`
	KeepDiff    span    `json:"keep-difficulty"`
	NiceHash    bool    `json:"nicehash"`
	NiceHashMin number  `json:"nicehash-min-diff"`
	ServerID    int     `json:"server-id"`
	En2Size     int     `json:"extranonce2-size"`
	VersionMask string  `json:"version-mask"`
	Notify      span    `json:"notify-interval"`
	StaleGrace  span    `json:"stale-grace"`

	// Who they are.
	UsersURL    string `json:"users-url"`
	UserSuffix  string `json:"user-suffix"`
	KeepCase    bool   `json:"keep-user-case"`
	SingleUser  string `json:"single-user"`
	MultiWorker bool   `json:"multi-worker"`

	// How they connect.
	TLS         bool      `json:"tls"`
	TLSCert     string    `json:"tls-cert"`
	TLSKey      string    `json:"tls-key"`
	TLSListen   addresses `json:"tls-listen"`
	Proxies     []string  `json:"proxies"`
	IdleTime    span      `json:"idle-timeout"`
	LoginTime   span      `json:"login-timeout"`
	ResumeTime  span      `json:"resume-time"`
	Drain       span      `json:"drain"`
	MaxSessions int       `json:"max-sessions"`
	MaxQueue    int       `json:"max-queue"`

	// What they may not do.
	Ban           bool     `json:"ban"`
	BanTime       span     `json:"ban-time"`
	BanPercent    int      `json:"ban-percent"`
	AllowList     []string `json:"allow-list"`
	MaxPerAddress int      `json:"max-per-address"`
	ConnectRate   int      `json:"connect-rate"`
	RequestRate   int      `json:"request-rate"`

	// What check has found the settings to mean.
	ports   []portConfig
	proxies []netip.Prefix
	allowed []netip.Prefix
	mask    uint32
	single  stratum.SingleUser
}

// A number is a difficulty: a JSON number, or text on the command line. 0 stands for the default.
type number difficulty.Difficulty

func (n *number) String() string { return difficulty.Difficulty(*n).String() }

func (n *number) Set(s string) error {
	d, err := difficulty.Parse(s)
	if err != nil {
		return errors.New("want a number above 0")
	}
	*n = number(d)
	return nil
}

func (n *number) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil // as for every other setting
	}
	if n.Set(string(bytes.Trim(b, `"`))) != nil {
		// Package json puts the key into errors of this type.
		return &json.UnmarshalTypeError{Value: string(b), Type: reflect.TypeFor[number]()}
	}
	return nil
}

// A span is a time such as 90s or 10m. 0 stands for the default, below 0 for no limit.
type span time.Duration

func (v *span) String() string {
	if *v == -1 {
		return "-1"
	}
	return time.Duration(*v).String()
}

func (v *span) Set(s string) error {
	if s == "-1" { // as of the limits that are numbers
		*v = -1
		return nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return errors.New("want a time such as 90s or 10m")
	}
	*v = span(d)
	return nil
}

func (v *span) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	if v.Set(string(bytes.Trim(b, `"`))) != nil {
		return &json.UnmarshalTypeError{Value: string(b), Type: reflect.TypeFor[span]()}
	}
	return nil
}

// addresses are those of ports: in the file one string or a list of them.
type addresses []string

func (a *addresses) UnmarshalJSON(b []byte) error {
	var several []string
	if len(b) > 0 && b[0] == '"' {
		several = make([]string, 1)
		return errors.Join(json.Unmarshal(b, &several[0]), a.replace(several))
	}
	if err := json.Unmarshal(b, &several); err != nil {
		return &json.UnmarshalTypeError{Value: string(b), Type: reflect.TypeFor[addresses]()}
	}
	return a.replace(several)
}

func (a *addresses) replace(by []string) error {
	if by != nil { // null is no setting
		*a = by
	}
	return nil
}

// A list is a flag that may be given several times. The first time on the command line replaces what the file says.
type list struct {
	values *[]string
	set    bool
}

func (l *list) String() string {
	if l.values == nil {
		return ""
	}
	return strings.Join(*l.values, ",")
}

func (l *list) Set(s string) error {
	if !l.set {
		*l.values, l.set = nil, true
	}
	*l.values = append(*l.values, s)
	return nil
}

// embedded reports whether the pool runs on a chain of its own.
func (c *config) embedded() bool { return len(c.Nodes) == 0 }

var networks = map[string]*chaincfg.Params{
	"mainnet":  &chaincfg.MainNetParams,
	"testnet4": &chaincfg.TestNet4Params,
	"signet":   &chaincfg.SigNetParams,
	"regtest":  &chaincfg.RegressionNetParams,
}

func networkNames() string {
	var names []string
	for name := range networks {
		names = append(names, name)
	}
	sort.Strings(names)
	return strings.Join(names, ", ")
}

// flags declares every flag with its default from c, so that what a file said shows through.
func (c *config) flags(fs *flag.FlagSet, file *string) {
	fs.StringVar(file, "config", "", "`file` of JSON with any of these settings; the command line counts before it")
	fs.Var(&list{values: (*[]string)(&c.Listen)}, "listen", "`address` that miners connect to, may be repeated; options may follow, "+
		"with commas: diff=, min-diff=, tls=only, tls=off")
	fs.StringVar(&c.HTTP, "http", c.HTTP, "`address` of the statistics")
	fs.StringVar(&c.Data, "data", c.Data, "`folder` for the chain, the share log, the blocks and the statistics")
	fs.StringVar(&c.Network, "network", c.Network, "`name` of the network: "+networkNames())
	fs.Var(&list{values: &c.Nodes}, "node", "`URL` of a bitcoind or btcd, may be repeated; none runs an embedded chain")
	fs.StringVar(&c.NodeUser, "node-user", c.NodeUser, "`name` for the nodes' RPC")
	fs.StringVar(&c.NodePass, "node-pass", c.NodePass, "`password` for the nodes' RPC")
	fs.StringVar(&c.Cookie, "node-cookie", c.Cookie, "cookie `file` of the node, instead of name and password")
	fs.StringVar(&c.Cert, "node-cert", c.Cert, "certificate `file` that https nodes are trusted by")
	fs.Var(&list{values: &c.ZMQ}, "zmq", "hashblock `endpoint` of a node, in the order of the nodes, may be repeated")
	fs.StringVar(&c.Address, "address", c.Address, "`address` that blocks pay to; required with a node")
	fs.StringVar(&c.Text, "coinbase-text", c.Text, "`text` that every block carries")
	fs.IntVar(&c.Mine, "mine", c.Mine, "CPU miner `goroutines`; -1 means 1 on the embedded chain, else none")
	fs.StringVar(&c.LogLevel, "log-level", c.LogLevel, "`level`: debug, info, warn or error")
	fs.StringVar(&c.Events, "events", c.Events, "`file` that is told, a line of JSON each, which miners come and go")

	fs.Var(&c.Diff, "diff", "`difficulty` that miners start at (default 16384, on regtest 1/1024)")
	fs.Var(&c.MinDiff, "min-diff", "lowest `difficulty` (default 64, on regtest 1/65536, or -diff where that is lower)")
	fs.Var(&c.MaxDiff, "max-diff", "highest `difficulty` (default 2^62)")
	fs.BoolFunc("above-network", "let difficulties be above the network's, where miners keep to themselves what is a block and no share "+
		"(default only on regtest)", func(s string) error {
		v, err := strconv.ParseBool(s)
		c.AboveNet = &v
		return err
	})
	fs.Var(&c.Vardiff, "vardiff", "`name` of what follows each miner's hashrate: "+vardiffNames())
	fs.Var(&c.KeepDiff, "keep-difficulty", "`time` for which the difficulty of a worker that left is remembered (default 24h); -1 never")
	fs.BoolVar(&c.NiceHash, "nicehash", c.NiceHash, "take every miner for one of NiceHash")
	fs.Var(&c.NiceHashMin, "nicehash-min-diff", "lowest `difficulty` of miners of NiceHash (default 524288)")
	fs.IntVar(&c.ServerID, "server-id", c.ServerID, "`number` of this server, 1 to 255; servers that share jobs must differ in it")
	fs.IntVar(&c.En2Size, "extranonce2-size", c.En2Size, "`bytes` that miners count through, 4 to 8")
	fs.StringVar(&c.VersionMask, "version-mask", c.VersionMask, "version `bits` that miners may roll: bip320, bip323 or hexadecimal")
	fs.Var(&c.Notify, "notify-interval", "`time` after which a job is sent even if nothing is new (default 30s)")
	fs.Var(&c.StaleGrace, "stale-grace", "`time` for which shares for the last block are still accepted (default none)")

	fs.StringVar(&c.UsersURL, "users-url", c.UsersURL, "`URL` of the list of users; none lets everybody mine")
	fs.StringVar(&c.UserSuffix, "user-suffix", c.UserSuffix, "`separator` at which what follows is cut off user names, such as _")
	fs.BoolVar(&c.KeepCase, "keep-user-case", c.KeepCase, "tell Alice from alice")
	fs.StringVar(&c.SingleUser, "single-user", c.SingleUser, "account that all work is credited to, as `name:number`")
	fs.BoolVar(&c.MultiWorker, "multi-worker", c.MultiWorker, "credit the worker that a share names, of those that its connection authorized")

	fs.BoolVar(&c.TLS, "tls", c.TLS, "offer TLS on the ports that miners connect to")
	fs.StringVar(&c.TLSCert, "tls-cert", c.TLSCert, "certificate `file`; without one the pool makes its own in the data folder")
	fs.StringVar(&c.TLSKey, "tls-key", c.TLSKey, "private key `file` of the certificate")
	fs.Var(&list{values: (*[]string)(&c.TLSListen)}, "tls-listen", "`address` for TLS only, otherwise like -listen")
	fs.Var(&list{values: &c.Proxies}, "proxies", "`networks` of balancers that send the PROXY protocol, may be repeated")
	fs.Var(&c.IdleTime, "idle-timeout", "`time` for which a miner may be silent (default 10m); -1 for ever")
	fs.Var(&c.LoginTime, "login-timeout", "`time` from connect to login (default 1m); -1 for ever")
	fs.Var(&c.ResumeTime, "resume-time", "`time` in which a miner that was cut off gets its session back (default 10m); -1 never")
	fs.Var(&c.Drain, "drain", "`time` that miners have to leave when another process takes over (default 3s)")
	fs.IntVar(&c.MaxSessions, "max-sessions", c.MaxSessions, "most `connections` (default what the limit of descriptors allows); -1 for no limit")
	fs.IntVar(&c.MaxQueue, "max-queue", c.MaxQueue, "most `bytes` that wait for a miner that does not read (default 262144)")

	fs.BoolVar(&c.Ban, "ban", c.Ban, "limit and ban miners that misbehave; false leaves only the limits that are given")
	fs.Var(&c.BanTime, "ban-time", "`time` of the first ban (default 10m); -1 bans nobody")
	fs.IntVar(&c.BanPercent, "ban-percent", c.BanPercent, "`percent` of submits that are too many when invalid (default 50); -1 for no limit")
	fs.Var(&list{values: &c.AllowList}, "allow-list", "`networks` that are never banned, may be repeated")
	fs.IntVar(&c.MaxPerAddress, "max-per-address", c.MaxPerAddress, "most `connections` of one address (default no limit)")
	fs.IntVar(&c.ConnectRate, "connect-rate", c.ConnectRate, "`connections` a second of one address (default 100); -1 for no limit")
	fs.IntVar(&c.RequestRate, "request-rate", c.RequestRate, "`requests` a second of one miner (default 200); -1 for no limit")
}

const usage = `fullpool runs a whole mining pool. Without flags it brings a chain and a miner of its own.
Of the limits 0 means the default.

SIGINT and SIGTERM stop it. SIGHUP reads the certificate again and opens the events file again.
SIGUSR2 starts the program anew, and when that is ready hands the ports and the miners over to it.

`

// parse reads the command line, and the file that it names before it counts.
func parse(args []string, out io.Writer) (*config, error) {
	c := &config{
		Listen:      addresses{"127.0.0.1:3333"},
		HTTP:        "127.0.0.1:8080",
		Data:        "./pooldata",
		Network:     "regtest",
		Text:        "/poolkit/",
		Vardiff:     defaultVardiff,
		Mine:        -1,
		LogLevel:    "info",
		ServerID:    1,
		En2Size:     job.Extranonce2Size,
		VersionMask: "bip320",
		TLS:         true,
		Ban:         true,
	}
	// The first pass finds the file, the second puts the command line over it.
	var file string
	first := *c
	fs := flag.NewFlagSet("fullpool", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // the error that Parse returns says it all
	first.flags(fs, &file)
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprint(out, usage)
			fs.SetOutput(out)
			fs.PrintDefaults()
		}
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("%q is not a flag", fs.Arg(0))
	}
	if file != "" {
		if err := c.readFile(file); err != nil {
			return nil, err
		}
	}
	fs = flag.NewFlagSet("fullpool", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	c.flags(fs, &file)
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	return c, c.check()
}

func (c *config) readFile(name string) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("cannot read the configuration: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(c); err != nil {
		return fmt.Errorf("configuration %s: %w", name, explainJSON(err))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("configuration %s: there is more after the first object", name)
	}
	return nil
}

// explainJSON says what package json has found in words that need no knowledge of Go.
func explainJSON(err error) error {
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.Is(err, io.EOF):
		return errors.New("the file is empty")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the file ends in the middle")
	case !errors.As(err, &wrong):
		return err
	}
	want := "a string"
	switch {
	case wrong.Type == reflect.TypeFor[number]():
		want = "a number above 0"
	case wrong.Type == reflect.TypeFor[span]():
		want = "a time such as \"10m\""
	case wrong.Type == reflect.TypeFor[vardiff]():
		want = "one of " + vardiffNames()
	case wrong.Type == reflect.TypeFor[addresses]():
		want = "a string or a list of strings"
	case wrong.Type.Kind() == reflect.Int:
		want = "a whole number"
	case wrong.Type.Kind() == reflect.Bool:
		want = "true or false"
	case wrong.Type.Kind() == reflect.Slice:
		want = "a list of strings"
	case wrong.Type.Kind() == reflect.Struct:
		return fmt.Errorf("want an object with settings, not %s", wrong.Value)
	}
	return fmt.Errorf("%q wants %s, not %s", wrong.Field, want, wrong.Value)
}

// check finds what is wrong with the settings before anything is opened.
func (c *config) check() error {
	if networks[c.Network] == nil {
		return fmt.Errorf("network %q is not one of %s", c.Network, networkNames())
	}
	if err := checkAddress("http", c.HTTP); err != nil {
		return err
	}
	switch {
	case c.embedded() && c.Network != "regtest":
		return fmt.Errorf("the embedded chain is a regtest: name a -node to mine on %s", c.Network)
	case c.embedded() && (c.NodeUser != "" || c.NodePass != "" || c.Cookie != "" || c.Cert != "" || len(c.ZMQ) > 0):
		return errors.New("-node-user, -node-pass, -node-cookie, -node-cert and -zmq are of no use without a -node")
	case !c.embedded() && c.Address == "":
		return errors.New("-address is missing: blocks found on a node have to pay somebody")
	case len(c.Nodes) > 1 && len(c.ZMQ) > 0 && len(c.ZMQ) != len(c.Nodes):
		return fmt.Errorf("%d -zmq endpoints for %d nodes: give one for each, in the same order", len(c.ZMQ), len(c.Nodes))
	case c.Mine < -1 || c.Mine > 1024:
		return fmt.Errorf("-mine %d is not a number of goroutines", c.Mine)
	case c.Data == "":
		return errors.New("-data names no folder")
	}
	if len(c.Text) > job.MaxCoinbaseText {
		return fmt.Errorf("-coinbase-text has %d bytes, at most %d fit", len(c.Text), job.MaxCoinbaseText)
	}
	if c.Address != "" {
		if _, err := job.PayoutScript(c.Address, networks[c.Network]); err != nil {
			return err
		}
	}
	if c.Diff == 0 {
		c.Diff = 16384
		if c.Network == "regtest" { // where CPUs mine
			c.Diff = 1.0 / 1024
		}
		c.Diff = max(c.Diff, c.MinDiff)
		if c.MaxDiff != 0 {
			c.Diff = min(c.Diff, c.MaxDiff)
		}
	}
	if c.MinDiff == 0 {
		c.MinDiff = min(64, c.Diff)
		if c.Network == "regtest" {
			c.MinDiff = min(1.0/65536, c.Diff)
		}
	}
	if c.MaxDiff == 0 {
		c.MaxDiff = number(difficulty.Max)
	}
	if c.AboveNet == nil {
		regtest := c.Network == "regtest" // every second hash is a block
		c.AboveNet = &regtest
	}
	for _, d := range []struct {
		name string
		*number
	}{{"-diff", &c.Diff}, {"-min-diff", &c.MinDiff}, {"-max-diff", &c.MaxDiff}, {"-nicehash-min-diff", &c.NiceHashMin}} {
		if err := d.assignable(d.name); err != nil {
			return err
		}
	}
	if c.MinDiff > c.MaxDiff {
		return fmt.Errorf("-min-diff %v is above -max-diff %v", &c.MinDiff, &c.MaxDiff)
	}
	if c.Diff < c.MinDiff || c.Diff > c.MaxDiff {
		return fmt.Errorf("-diff %v is not between -min-diff %v and -max-diff %v", &c.Diff, &c.MinDiff, &c.MaxDiff)
	}
	if c.Mine == -1 {
		c.Mine = 0
		if c.embedded() {
			c.Mine = 1
		}
	}
	if _, err := c.level(); err != nil {
		return err
	}
	for _, check := range []func() error{c.checkPorts, c.checkNumbers, c.checkUsers, c.checkNetworks} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// assignable rounds a difficulty up to one that pools assign: those add up exactly, which 0.001 and 2.5 do not.
func (n *number) assignable(name string) error {
	v := difficulty.Difficulty(*n)
	switch {
	case v == 0: // not set
	case v < difficulty.Min || v > difficulty.Max:
		return fmt.Errorf("%s %v is not between 2^-32 and 2^62", name, v)
	case !v.Assignable():
		*n = number(v.CeilPow2())
	}
	return nil
}

func (c *config) level() (slog.Level, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return l, fmt.Errorf("-log-level %q is not debug, info, warn or error", c.LogLevel)
	}
	return l, nil
}
