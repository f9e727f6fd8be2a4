package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"reflect"
	"sort"
	"strings"

	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
)

// A config is what the flags and the configuration file say. The JSON keys are the names of the flags.
type config struct {
	Listen   string   `json:"listen"`
	HTTP     string   `json:"http"`
	Data     string   `json:"data"`
	Network  string   `json:"network"`
	Nodes    []string `json:"node"`
	NodeUser string   `json:"node-user"`
	NodePass string   `json:"node-pass"`
	Cookie   string   `json:"node-cookie"`
	Cert     string   `json:"node-cert"`
	ZMQ      []string `json:"zmq"`
	Address  string   `json:"address"`
	Text     string   `json:"coinbase-text"`
	Diff     number   `json:"diff"`
	MinDiff  number   `json:"min-diff"`
	MaxDiff  number   `json:"max-diff"`
	Vardiff  bool     `json:"vardiff"`
	Mine     int      `json:"mine"`
	LogLevel string   `json:"log-level"`
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
	fs.StringVar(&c.Listen, "listen", c.Listen, "`address` that miners connect to")
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
	fs.Var(&c.Diff, "diff", "`difficulty` that miners start at (default 16384, on regtest 1/1024)")
	fs.Var(&c.MinDiff, "min-diff", "lowest `difficulty` (default 64, on regtest 1/65536, or -diff where that is lower)")
	fs.Var(&c.MaxDiff, "max-diff", "highest `difficulty` (default 2^62)")
	fs.BoolVar(&c.Vardiff, "vardiff", c.Vardiff, "follow each miner's hashrate")
	fs.IntVar(&c.Mine, "mine", c.Mine, "CPU miner `goroutines`; -1 means 1 on the embedded chain, else none")
	fs.StringVar(&c.LogLevel, "log-level", c.LogLevel, "`level`: debug, info, warn or error")
}

// parse reads the command line, and the file that it names before it counts.
func parse(args []string, out io.Writer) (*config, error) {
	c := &config{
		Listen:   "127.0.0.1:3333",
		HTTP:     "127.0.0.1:8080",
		Data:     "./pooldata",
		Network:  "regtest",
		Text:     "/poolkit/",
		Vardiff:  true,
		Mine:     -1,
		LogLevel: "info",
	}
	// The first pass finds the file, the second puts the command line over it.
	var file string
	first := *c
	fs := flag.NewFlagSet("fullpool", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // the error that Parse returns says it all
	first.flags(fs, &file)
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(out, "fullpool runs a whole mining pool. Without flags it brings a chain and a miner of its own.")
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
	for _, f := range []struct{ name, addr string }{{"listen", c.Listen}, {"http", c.HTTP}} {
		if _, _, err := net.SplitHostPort(f.addr); err != nil {
			return fmt.Errorf("-%s %q is not host:port: %w", f.name, f.addr, err)
		}
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
	// Difficulties that pools assign add up exactly, which 0.001 and 2.5 do not.
	for _, d := range []struct {
		name string
		*number
	}{{"diff", &c.Diff}, {"min-diff", &c.MinDiff}, {"max-diff", &c.MaxDiff}} {
		v := difficulty.Difficulty(*d.number)
		if v < difficulty.Min || v > difficulty.Max {
			return fmt.Errorf("-%s %v is not between 2^-32 and 2^62", d.name, v)
		}
		if !v.Assignable() {
			*d.number = number(v.CeilPow2())
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
	return nil
}

func (c *config) level() (slog.Level, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return l, fmt.Errorf("-log-level %q is not debug, info, warn or error", c.LogLevel)
	}
	return l, nil
}
