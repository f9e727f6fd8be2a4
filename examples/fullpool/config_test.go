package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/poolkit/poolkit/block"
	"github.com/poolkit/poolkit/internal/testnode"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum"
	"github.com/stretchr/testify/require"
)

const (
	regtestAddress = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080" // the example key of BIP 173 on the networks
	mainnetAddress = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"
)

// A configSample gives a flag two values that differ from its default and from each other.
type configSample struct {
	a, b []string       // on the command line; more than one for flags that may be repeated
	json string         // a, as it stands in a file
	with map[string]any // settings without which the flag is refused
}

// onNode are the settings that the flags about nodes need.
var onNode = map[string]any{"node": []string{"http://127.0.0.1:1"}, "address": regtestAddress}

var configSamples = map[string]configSample{
	"listen": {
		a: []string{"127.0.0.1:1", "127.0.0.1:2,diff=2,min-diff=1,tls=only"}, b: []string{"127.0.0.1:2"},
		json: `["127.0.0.1:1", "127.0.0.1:2,diff=2,min-diff=1,tls=only"]`,
	},
	"http": {a: []string{"127.0.0.1:1"}, b: []string{"127.0.0.1:2"}, json: `"127.0.0.1:1"`},
	"data": {a: []string{"a"}, b: []string{"b"}, json: `"a"`},
	// The same addresses are good on both test networks.
	"network": {
		a: []string{"signet"}, b: []string{"testnet4"}, json: `"signet"`,
		with: map[string]any{"node": []string{"http://127.0.0.1:1"}, "address": "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx"},
	},
	"node": {
		a: []string{"http://127.0.0.1:1", "http://127.0.0.1:2"}, b: []string{"http://127.0.0.1:3", "http://127.0.0.1:4"},
		json: `["http://127.0.0.1:1", "http://127.0.0.1:2"]`,
		with: map[string]any{"address": regtestAddress},
	},
	"node-user":   {a: []string{"alice"}, b: []string{"bob"}, json: `"alice"`, with: onNode},
	"node-pass":   {a: []string{"a"}, b: []string{"b"}, json: `"a"`, with: onNode},
	"node-cookie": {a: []string{"a"}, b: []string{"b"}, json: `"a"`, with: onNode},
	"node-cert":   {a: []string{"a"}, b: []string{"b"}, json: `"a"`, with: onNode},
	"zmq": {
		a: []string{"tcp://127.0.0.1:1", "tcp://127.0.0.1:2"}, b: []string{"tcp://127.0.0.1:3"},
		json: `["tcp://127.0.0.1:1", "tcp://127.0.0.1:2"]`, with: onNode,
	},
	"address": {
		a:    []string{regtestAddress},
		b:    []string{"bcrt1qr3ckhgqpthads0qtcm8cwwkhmcx7jxtddcqwzk"},
		json: `"bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"`,
	},
	"coinbase-text":   {a: []string{"/a/"}, b: []string{""}, json: `"/a/"`},
	"diff":            {a: []string{"2"}, b: []string{"0.25"}, json: `2`},
	"min-diff":        {a: []string{"0.000244140625"}, b: []string{"0.00048828125"}, json: `0.000244140625`},
	"max-diff":        {a: []string{"1024"}, b: []string{"2048"}, json: `1024`},
	"vardiff":         {a: []string{"fixed"}, b: []string{"btcpool"}, json: `"fixed"`}, // b is the default: the file changed it
	"keep-difficulty": {a: []string{"1h"}, b: []string{"-1"}, json: `"1h"`},
	"above-network":   {a: []string{"false"}, b: []string{"true"}, json: `false`},
	"mine":            {a: []string{"2"}, b: []string{"0"}, json: `2`},
	"log-level":       {a: []string{"debug"}, b: []string{"warn"}, json: `"debug"`},
	"events":          {a: []string{"a"}, b: []string{"b"}, json: `"a"`},

	"nicehash":          {a: []string{"true"}, b: []string{"false"}, json: `true`},
	"nicehash-min-diff": {a: []string{"1024"}, b: []string{"2048"}, json: `1024`},
	"server-id":         {a: []string{"2"}, b: []string{"255"}, json: `2`},
	"extranonce2-size":  {a: []string{"4"}, b: []string{"7"}, json: `4`},
	"version-mask":      {a: []string{"bip323"}, b: []string{"00ffe000"}, json: `"bip323"`},
	"notify-interval":   {a: []string{"20s"}, b: []string{"1m"}, json: `"20s"`},
	"stale-grace":       {a: []string{"2s"}, b: []string{"3s"}, json: `"2s"`},

	"users-url":      {a: []string{"http://a/list"}, b: []string{"https://b/list?key=1"}, json: `"http://a/list"`},
	"user-suffix":    {a: []string{"_"}, b: []string{"-"}, json: `"_"`},
	"keep-user-case": {a: []string{"true"}, b: []string{"false"}, json: `true`},
	"single-user":    {a: []string{"alice:1"}, b: []string{"bob:2"}, json: `"alice:1"`},
	"multi-worker":   {a: []string{"true"}, b: []string{"false"}, json: `true`},

	"tls":           {a: []string{"false"}, b: []string{"true"}, json: `false`},
	"tls-cert":      {a: []string{"a"}, b: []string{"b"}, json: `"a"`, with: map[string]any{"tls-key": "key"}},
	"tls-key":       {a: []string{"a"}, b: []string{"b"}, json: `"a"`, with: map[string]any{"tls-cert": "cert"}},
	"tls-listen":    {a: []string{"127.0.0.1:1"}, b: []string{"127.0.0.1:2", "127.0.0.1:3"}, json: `"127.0.0.1:1"`},
	"proxies":       {a: []string{"10.0.0.0/8", "192.0.2.1"}, b: []string{"::1"}, json: `["10.0.0.0/8", "192.0.2.1"]`, with: map[string]any{"mine": 0}},
	"idle-timeout":  {a: []string{"1h"}, b: []string{"-1"}, json: `"1h"`},
	"login-timeout": {a: []string{"-1"}, b: []string{"30s"}, json: `-1`},
	"resume-time":   {a: []string{"1h"}, b: []string{"-1s"}, json: `"60m"`},
	"drain":         {a: []string{"1s"}, b: []string{"2s"}, json: `"1s"`},
	"max-sessions":  {a: []string{"100"}, b: []string{"-1"}, json: `100`},
	"max-queue":     {a: []string{"65536"}, b: []string{"131072"}, json: `65536`},

	"ban":             {a: []string{"false"}, b: []string{"true"}, json: `false`},
	"ban-time":        {a: []string{"1h"}, b: []string{"-1"}, json: `"1h"`},
	"ban-percent":     {a: []string{"20"}, b: []string{"-1"}, json: `20`},
	"allow-list":      {a: []string{"10.0.0.0/8,::1"}, b: []string{"192.0.2.1"}, json: `["10.0.0.0/8,::1"]`},
	"max-per-address": {a: []string{"100"}, b: []string{"200"}, json: `100`},
	"connect-rate":    {a: []string{"5"}, b: []string{"-1"}, json: `5`},
	"request-rate":    {a: []string{"50"}, b: []string{"-1"}, json: `50`},
}

// walkFlags calls f for every flag that the program has, but for -config.
func walkFlags(f func(*flag.Flag)) {
	var file string
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	new(config).flags(fs, &file)
	fs.VisitAll(func(fl *flag.Flag) {
		if fl.Name != "config" {
			f(fl)
		}
	})
}

// configFile writes settings to a file.
func configFile(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "pool.json")
	require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
	return name
}

// asArgs gives a flag the values.
func asArgs(name string, values []string) []string {
	var args []string
	for _, v := range values {
		args = append(args, "-"+name+"="+v)
	}
	return args
}

// settings returns what a configuration holds by its JSON keys.
func settings(t *testing.T, c *config) map[string]any {
	t.Helper()
	b, err := json.Marshal(c)
	require.NoError(t, err)
	var m map[string]any
	require.NoError(t, json.Unmarshal(b, &m))
	return m
}

func mustParse(t *testing.T, args ...string) map[string]any {
	t.Helper()
	var out bytes.Buffer
	c, err := parse(args, &out)
	require.NoError(t, err, "%q", args)
	require.Empty(t, out.String())
	return settings(t, c)
}

func TestEveryFlagCanStandInTheFile(t *testing.T) {
	names, initial := map[string]bool{}, mustParse(t)
	walkFlags(func(f *flag.Flag) {
		names[f.Name] = true
		t.Run(f.Name, func(t *testing.T) {
			s, ok := configSamples[f.Name]
			require.True(t, ok, "-%s is new: give it values in configSamples", f.Name)

			// The other settings stand in the file in all cases.
			others, err := json.Marshal(s.with)
			require.NoError(t, err)
			if s.with == nil {
				others = []byte("{}")
			}
			var file map[string]json.RawMessage
			require.NoError(t, json.Unmarshal(others, &file))
			file[f.Name] = json.RawMessage(s.json)
			both, err := json.Marshal(file)
			require.NoError(t, err)
			withOthers, withBoth := configFile(t, string(others)), configFile(t, string(both))

			a := mustParse(t, append(asArgs(f.Name, s.a), "-config", withOthers)...)
			b := mustParse(t, append(asArgs(f.Name, s.b), "-config", withOthers)...)
			require.Contains(t, a, f.Name, "the JSON key is not the name of the flag")
			require.NotEqual(t, a[f.Name], b[f.Name])
			require.NotEqual(t, a[f.Name], initial[f.Name], "a is the default")

			require.Equal(t, a, mustParse(t, "-config", withBoth), "from the file")
			require.Equal(t, b, mustParse(t, append(asArgs(f.Name, s.b), "-config", withBoth)...),
				"the command line counts before the file")
			require.Equal(t, b, mustParse(t, append([]string{"-config", withBoth}, asArgs(f.Name, s.b)...)...),
				"wherever the file is named")
		})
	})
	for key := range settings(t, new(config)) {
		require.True(t, names[key], "the file may hold %q, which is no flag", key)
	}
	for name := range configSamples {
		require.True(t, names[name], "there is no flag -%s any more", name)
	}
}

func TestARepeatedNodeReplacesTheFilesList(t *testing.T) {
	file := configFile(t, `{"node": ["http://a:1", "http://b:1", "http://c:1"], "zmq": ["tcp://a:2", "tcp://b:2", "tcp://c:2"],
		"address": "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"}`)
	c, err := parse([]string{
		"-node", "http://d:1", "-config", file, "-node", "http://e:1", "-zmq", "tcp://d:2", "-zmq", "tcp://e:2",
	}, io.Discard)
	require.NoError(t, err)
	require.Equal(t, []string{"http://d:1", "http://e:1"}, c.Nodes)
	require.Equal(t, []string{"tcp://d:2", "tcp://e:2"}, c.ZMQ)
}

func TestDefaultsFollowTheNetwork(t *testing.T) {
	node := func(args ...string) []string {
		return append([]string{"-node", "http://127.0.0.1:1", "-network", "mainnet", "-address", mainnetAddress}, args...)
	}
	for _, test := range []struct {
		name           string
		args           []string
		diff, min, max float64
		mine           int
	}{
		{"nothing said", nil, 1.0 / 1024, 1.0 / 65536, 1 << 62, 1},
		{"no miner wanted", []string{"-mine", "0"}, 1.0 / 1024, 1.0 / 65536, 1 << 62, 0},
		{"on a node", node(), 16384, 64, 1 << 62, 0},
		{"on a node, with a miner", node("-mine", "3"), 16384, 64, 1 << 62, 3},
		{"a low start pulls the minimum down", node("-diff", "8"), 8, 8, 1 << 62, 0},
		{"a low maximum pulls both down", node("-max-diff", "32"), 32, 32, 32, 0},
		{"a high minimum pulls the start up", node("-min-diff", "65536"), 65536, 65536, 1 << 62, 0},
		{"fractions become powers of two", node("-diff", "100.5", "-min-diff", "0.3"), 128, 0.5, 1 << 62, 0},
		{"whole numbers stay", node("-diff", "100"), 100, 64, 1 << 62, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := parse(test.args, io.Discard)
			require.NoError(t, err)
			require.Equal(t, number(test.diff), c.Diff)
			require.Equal(t, number(test.min), c.MinDiff)
			require.Equal(t, number(test.max), c.MaxDiff)
			require.Equal(t, test.mine, c.Mine)
		})
	}
}

func TestPortsHaveOptions(t *testing.T) {
	c, err := parse([]string{
		"-listen", "127.0.0.1:1", "-listen", ":2,diff=100.5,min-diff=0.3", "-listen", "[::1]:3,tls=off", "-tls-listen", "127.0.0.1:4,min-diff=8",
		"-diff", "64", "-min-diff", "4",
	}, io.Discard)
	require.NoError(t, err)
	require.Equal(t, []portConfig{
		{flag: "listen", addr: "127.0.0.1:1"},
		{flag: "listen", addr: ":2", diff: 128, minDiff: 0.5},
		{flag: "listen", addr: "[::1]:3", tls: tlsOff},
		{flag: "tls-listen", addr: "127.0.0.1:4", minDiff: 8, tls: tlsOnly},
	}, c.ports)
	require.True(t, c.anyTLS())
	c, err = parse([]string{"-tls=false"}, io.Discard)
	require.NoError(t, err)
	require.False(t, c.anyTLS())
	_, err = parse([]string{"-config", configFile(t, `{"listen": []}`)}, io.Discard)
	require.ErrorContains(t, err, "-listen names no address")
}

func TestLimits(t *testing.T) {
	none := func(change func(*stratum.Limits)) stratum.Limits {
		l := stratum.NoLimits()
		change(&l)
		return l
	}
	for _, test := range []struct {
		name string
		args []string
		want stratum.Limits
	}{
		{"nothing said", nil, stratum.Limits{}},
		{"no bans", []string{"-ban=false"}, stratum.NoLimits()},
		{"each by itself", []string{
			"-ban-time", "1h", "-ban-percent", "20", "-allow-list", "10.0.0.0/8", "-max-per-address", "7", "-connect-rate", "5", "-request-rate", "6",
		}, stratum.Limits{
			BanTime: time.Hour, InvalidPercent: 20, AllowList: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
			MaxPerAddress: 7, ConnectRate: 5, RequestRate: 6,
		}},
		{"turned off", []string{"-ban-time", "-1", "-ban-percent", "-1", "-connect-rate", "-1", "-request-rate", "-1"},
			stratum.Limits{BanTime: -1, InvalidPercent: -1, ConnectRate: -1, RequestRate: -1}},
		{"no bans, but a rate of connects", []string{"-ban=false", "-connect-rate", "5"},
			none(func(l *stratum.Limits) { l.ConnectRate = 5 })},
		{"no bans, but a rate of requests", []string{"-ban=false", "-request-rate", "6"},
			none(func(l *stratum.Limits) { l.RequestRate, l.RequestPatience = 6, 0 })},
		{"no bans, but a number of connections", []string{"-ban=false", "-max-per-address", "7"},
			none(func(l *stratum.Limits) { l.MaxPerAddress = 7 })},
		{"no bans, but disconnects", []string{"-ban=false", "-ban-percent", "20"},
			none(func(l *stratum.Limits) { l.InvalidPercent = 20 })},
		{"no bans, but a time for them", []string{"-ban=false", "-ban-time", "1m"},
			none(func(l *stratum.Limits) { l.BanTime, l.InvalidPercent, l.BadWorkers = time.Minute, 0, 0 })},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := parse(test.args, io.Discard)
			require.NoError(t, err)
			require.Equal(t, test.want, c.limits())
			_, err = stratum.New(job.NewHub(nil), new(stratum.Users), share.SinkFunc(nil), new(block.Maker), c.serverOptions())
			require.NoError(t, err)
		})
	}
}

func TestServerOptions(t *testing.T) {
	c, err := parse([]string{
		"-diff", "64", "-min-diff", "4", "-max-diff", "1024", "-nicehash", "-nicehash-min-diff", "500", "-server-id", "9", "-extranonce2-size", "4",
		"-version-mask", "BIP323", "-notify-interval", "20s", "-stale-grace", "2s", "-user-suffix", "_", "-keep-user-case",
		"-single-user", "Pool:77", "-multi-worker", "-idle-timeout", "1h", "-login-timeout", "5s", "-resume-time", "-1", "-keep-difficulty", "2h",
		"-max-sessions", "-1", "-max-queue", "65536",
	}, io.Discard)
	require.NoError(t, err)
	got := c.serverOptions()
	require.NotNil(t, got.NewPolicy)
	got.NewPolicy = nil
	require.Equal(t, &stratum.Options{
		Names:           stratum.NameRules{KeepCase: true, StripSuffix: true, SuffixSeparator: "_"},
		SingleUser:      stratum.SingleUser{Name: "Pool", UserID: 77},
		ServerID:        9,
		Extranonce2Size: 4,
		VersionMask:     stratum.BIP323VersionMask,
		StartDifficulty: 64,
		MinDifficulty:   4,
		MaxDifficulty:   1024,
		AboveNetwork:    true,
		NiceHash:        stratum.NiceHashOptions{MinDifficulty: 500, Forced: true},
		MultiWorker:     true,
		ResumeTime:      -1,
		KeepDifficulty:  2 * time.Hour,
		NotifyInterval:  20 * time.Second,
		LoginTimeout:    5 * time.Second,
		IdleTimeout:     time.Hour,
		DrainTimeout:    stopWithin,
		StaleGrace:      2 * time.Second,
		MaxSessions:     -1,
		MaxQueue:        65536,
	}, got)
	for text, want := range map[string]vardiff{"true": defaultVardiff, "false": "fixed", "fixed": "fixed", "btcpool": "btcpool"} {
		c, err := parse([]string{"-vardiff=" + text}, io.Discard)
		require.NoError(t, err)
		require.Equal(t, want, c.Vardiff, "once it was a switch")
		require.NoError(t, json.Unmarshal([]byte(`{"vardiff":`+strconv.Quote(text)+`}`), c))
		require.Equal(t, want, c.Vardiff)
	}
	for _, on := range []bool{true, false} {
		require.NoError(t, json.Unmarshal(fmt.Appendf(nil, `{"vardiff":%v}`, on), c))
		require.Equal(t, !on, c.Vardiff == "fixed")
	}
	c.Vardiff = defaultVardiff
	for args, above := range map[string]bool{"": true, "-above-network=false": false, "-network mainnet -node http://127.0.0.1:1 -address " + mainnetAddress: false,
		"-above-network -network mainnet -node http://127.0.0.1:1 -address " + mainnetAddress: true} {
		c, err := parse(strings.Fields(args), io.Discard)
		require.NoError(t, err)
		require.Equal(t, above, c.serverOptions().AboveNetwork, args)
	}
	for text, mask := range map[string]uint32{
		"": job.DefaultVersionMask, "bip320": job.DefaultVersionMask, "1fffe000": 0x1fffe000, "0x00FFE000": 0x00ffe000,
	} {
		c, err := parse([]string{"-version-mask", text}, io.Discard)
		require.NoError(t, err)
		require.Equal(t, mask, c.mask, text)
	}
}

func TestHelpListsEveryFlag(t *testing.T) {
	for _, arg := range []string{"-h", "-help", "--help"} {
		var out, errs bytes.Buffer
		require.Zero(t, Main(t.Context(), []string{arg}, &out, &errs))
		text := out.String() + errs.String()
		require.NotContains(t, text, "fullpool: ")
		require.Contains(t, text, "\n  -config ")
		walkFlags(func(f *flag.Flag) { require.Regexp(t, `(?m)^  -`+f.Name+`( |$)`, text, arg) })
	}
}

// requireMistake runs the pool and checks that it refuses: exit code 1, one line that begins with the program's name and
// holds every part of says, and no pool that was open in between. It returns the line.
func requireMistake(t *testing.T, args []string, says ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var errs bytes.Buffer
	opened := false
	out := writerFunc(func(b []byte) (int, error) {
		if bytes.Contains(b, []byte("the pool is open")) {
			opened = true
			cancel()
		}
		return len(b), nil
	})
	code := Main(ctx, args, out, &errs)
	line := errs.String()
	t.Log(strings.TrimSpace(line))
	require.False(t, opened, "the pool was open")
	require.NoError(t, ctx.Err(), "not refused in time; stderr: %s", line)
	require.Equal(t, 1, code, "exit code; stderr: %s", line)
	require.True(t, strings.HasPrefix(line, "fullpool: "), "%q", line)
	require.True(t, strings.HasSuffix(line, "\n"), "%q", line)
	require.Equal(t, 1, strings.Count(line, "\n"), "lines in %q", line)
	require.NotContains(t, line, "main.", "a name of Go's")
	require.NotContains(t, line, "goroutine ")
	for _, s := range says {
		require.Contains(t, line, s)
	}
	return line
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// elsewhere are ports that are free and a folder that goes away, for mistakes that are found only when these are open.
func elsewhere(t *testing.T, args ...string) []string {
	return append([]string{"-listen", "127.0.0.1:0", "-http", "127.0.0.1:0", "-data", t.TempDir()}, args...)
}

func TestMistakesOnTheCommandLine(t *testing.T) {
	node := func(args ...string) []string { return append([]string{"-node", "http://127.0.0.1:1"}, args...) }
	for _, test := range []struct {
		name string
		args []string
		says []string
	}{
		{"a flag that does not exist", []string{"-lisen", "127.0.0.1:0"}, []string{"-lisen"}},
		{"a flag without its value", []string{"-data"}, []string{"-data"}},
		{"a word that is no flag", []string{"start"}, []string{`"start"`, "not a flag"}},
		{"an unknown network", []string{"-network", "bitcoin"},
			[]string{`"bitcoin"`, "mainnet", "regtest", "signet", "testnet4"}},
		{"a network that the embedded chain is not", []string{"-network", "signet"},
			[]string{"embedded", "-node", "signet"}},
		{"a node's password without a node", []string{"-node-pass", "x"}, []string{"-node-pass", "-node"}},
		{"a publisher without a node", []string{"-zmq", "tcp://127.0.0.1:1"}, []string{"-zmq", "-node"}},
		{"no address on a node", node(), []string{"-address"}},
		{"an address that is none", []string{"-address", "1notAnAddress"}, []string{`"1notAnAddress"`}},
		{"an address with a typing error", []string{"-address", regtestAddress[:len(regtestAddress)-1] + "q"},
			[]string{"address", "q\""}},
		{"an address of another network", node("-address", mainnetAddress),
			[]string{mainnetAddress, "mainnet", "regtest"}},
		{"an address of another network, the embedded chain", []string{"-address", mainnetAddress},
			[]string{"mainnet", "regtest"}},
		{"a regtest address on mainnet", node("-network", "mainnet", "-address", regtestAddress),
			[]string{"regtest", "mainnet"}},
		{"a node's URL without http", []string{"-node", "127.0.0.1:8332", "-address", regtestAddress},
			[]string{"http://"}},
		{"an empty node", []string{"-node", "", "-address", regtestAddress}, []string{"URL", "http://"}},
		{"fewer publishers than nodes", node("-node", "http://127.0.0.1:2", "-zmq", "tcp://a:1", "-address", regtestAddress),
			[]string{"1 -zmq", "2 nodes"}},
		{"a publisher that is no endpoint", node("-zmq", "nonsense", "-address", regtestAddress), []string{"nonsense"}},
		{"a password without a user", node("-node-pass", "hunter2", "-address", regtestAddress),
			[]string{"password without a user"}},
		{"two things wrong with a node at once", node("-node-pass", "hunter2", "-node-cert", "x", "-address", regtestAddress),
			[]string{"password without a user", "certificate"}},
		{"both a cookie and a password", node("-node-user", "a", "-node-pass", "b", "-node-cookie", "c", "-address", regtestAddress),
			[]string{"cookie"}},
		{"a cookie file that is not there", node("-node-cookie", "/nonexistent/.cookie", "-address", regtestAddress),
			[]string{"/nonexistent/.cookie"}},
		{"a certificate that is not there", []string{
			"-node", "https://127.0.0.1:1", "-node-cert", "/nonexistent.cert", "-address", regtestAddress},
			[]string{"/nonexistent.cert"}},
		{"an address to listen on without a port", []string{"-listen", "127.0.0.1"},
			[]string{"-listen", `"127.0.0.1"`}},
		{"an address of the statistics without a port", []string{"-http", "localhost"},
			[]string{"-http", `"localhost"`}},
		{"a port that is none", []string{"-listen", "127.0.0.1:65536"}, []string{"-listen", "65536"}},
		{"an address of another machine", []string{"-listen", "192.0.2.1:0"}, []string{"-listen", "192.0.2.1"}},
		{"no data folder", []string{"-data", ""}, []string{"-data"}},
		{"a text that does not fit", []string{"-coinbase-text", strings.Repeat("x", job.MaxCoinbaseText+1)},
			[]string{"-coinbase-text", fmt.Sprint(job.MaxCoinbaseText + 1), fmt.Sprint(job.MaxCoinbaseText)}},
		{"a minimum above the maximum", []string{"-min-diff", "1024", "-max-diff", "512"},
			[]string{"-min-diff 1024 is above -max-diff 512"}},
		{"a start below the minimum", []string{"-diff", "4", "-min-diff", "8"}, []string{"-diff 4", "-min-diff 8"}},
		{"a start above the maximum", []string{"-diff", "16", "-max-diff", "8"}, []string{"-diff 16", "-max-diff 8"}},
		{"more goroutines than make sense", []string{"-mine", "1000000000"}, []string{"-mine 1000000000"}},
		{"a negative start", []string{"-diff", "-1"}, []string{"-diff", `"-1"`, "above 0"}},
		{"a negative minimum", []string{"-min-diff=-0.5"}, []string{"-min-diff", `"-0.5"`, "above 0"}},
		{"a negative maximum", []string{"-max-diff", "-64"}, []string{"-max-diff", `"-64"`, "above 0"}},
		{"a start of zero", []string{"-diff", "0"}, []string{"-diff", "above 0"}},
		{"a start that is not a number", []string{"-diff", "NaN"}, []string{"-diff", "NaN", "above 0"}},
		{"an infinite start", []string{"-diff", "+Inf"}, []string{"-diff", "Inf"}},
		{"a start easier than any", []string{"-diff", "1e-300"}, []string{"1e-300", "2^-32"}},
		{"a maximum harder than any", []string{"-max-diff", "1e300"}, []string{"1e+300", "2^62"}},
		{"a maximum beyond all numbers", []string{"-max-diff", "1e400"}, []string{"-max-diff", "1e400"}},
		{"a start in words", []string{"-diff", "hard"}, []string{"-diff", `"hard"`, "number"}},
		{"a hexadecimal minimum", []string{"-min-diff", "0x10"}, []string{"-min-diff", "0x10"}},
		{"fewer miners than none", []string{"-mine", "-2"}, []string{"-mine -2", "number"}},
		{"miners in words", []string{"-mine", "all"}, []string{"-mine", `"all"`}},
		{"half a miner", []string{"-mine", "0.5"}, []string{"-mine", `"0.5"`}},
		{"a vardiff that nobody knows", []string{"-vardiff=maybe"}, []string{"-vardiff", `"maybe"`, "btcpool", "fixed"}},
		{"above the network neither or not", []string{"-above-network=maybe"}, []string{"-above-network", `"maybe"`}},
		{"an unknown log level", []string{"-log-level", "loud"}, []string{"-log-level", `"loud"`, "debug"}},
		{"a port option that does not exist", []string{"-listen", "127.0.0.1:0,dif=8"},
			[]string{"-listen 127.0.0.1:0", `"dif=8"`, "diff=", "tls="}},
		{"an empty port option", []string{"-listen", "127.0.0.1:0,"}, []string{"-listen 127.0.0.1:0", `""`, "diff="}},
		{"a port with a difficulty in words", []string{"-listen", "127.0.0.1:0,diff=hard"}, []string{`"diff=hard"`, "above 0"}},
		{"a port with a difficulty easier than any", []string{"-listen", "127.0.0.1:0,min-diff=1e-30"},
			[]string{"-listen 127.0.0.1:0", "min-diff", "2^-32"}},
		{"a port with TLS neither only nor off", []string{"-listen", "127.0.0.1:0,tls=yes"}, []string{`"tls=yes"`, "only or off"}},
		{"a port that starts below the minimum", []string{"-min-diff", "8", "-diff", "8", "-listen", "127.0.0.1:0,diff=4"},
			[]string{"-listen 127.0.0.1:0", "diff=4", "8", "min-diff"}},
		{"a port that starts below its own minimum", []string{"-listen", "127.0.0.1:0,diff=1,min-diff=2"}, []string{"diff=1", "2"}},
		{"a port that starts above the maximum", []string{"-max-diff", "16", "-listen", "127.0.0.1:0,diff=32"},
			[]string{"-listen 127.0.0.1:0", "-max-diff 16"}},
		{"a port for TLS without TLS", []string{"-tls=false", "-listen", "127.0.0.1:0,tls=only"}, []string{"-listen", "-tls=false"}},
		{"a TLS port without TLS", []string{"-tls=false", "-tls-listen", "127.0.0.1:0"}, []string{"-tls-listen", "-tls=false"}},
		{"a TLS port that forbids it", []string{"-tls-listen", "127.0.0.1:0,tls=off"}, []string{"-tls-listen", "tls=off"}},
		{"a TLS port without a port", []string{"-tls-listen", "localhost"}, []string{"-tls-listen", `"localhost"`}},
		{"a certificate without its key", []string{"-tls-cert", "pool.crt"}, []string{"-tls-key", "missing"}},
		{"a key without its certificate", []string{"-tls-key", "pool.key"}, []string{"-tls-cert", "missing"}},
		{"a certificate and no TLS", []string{"-tls=false", "-tls-cert", "a", "-tls-key", "b"}, []string{"-tls-cert", "-tls=false"}},
		{"a pool's certificate that is not there", []string{"-tls-cert", "/nonexistent.crt", "-tls-key", "/nonexistent.key"},
			[]string{"certificate", "/nonexistent.crt"}},
		{"a pool's certificate that is none", []string{"-tls-cert", "config_test.go", "-tls-key", "config_test.go"},
			[]string{"certificate", "config_test.go"}},
		{"an events file in no folder", []string{"-events", "/nonexistent/events"}, []string{"-events", "/nonexistent/events"}},
		{"balancers that are no network", []string{"-proxies", "balancer"}, []string{"-proxies", `"balancer"`}},
		{"balancers with bits too many", []string{"-proxies", "10.1.2.3/8"}, []string{"-proxies", "10.0.0.0/8"}},
		{"a balancer in front of the CPU miner", []string{"-proxies", "127.0.0.0/8"}, []string{"-proxies 127.0.0.0/8", "-mine 0"}},
		{"an allow-list that is no network", []string{"-allow-list", "::1", "-allow-list", "everybody"},
			[]string{"-allow-list", `"everybody"`}},
		{"a server number of zero", []string{"-server-id", "0"}, []string{"-server-id 0", "1 and 255"}},
		{"a server number beyond a byte", []string{"-server-id", "256"}, []string{"-server-id 256"}},
		{"an extranonce2 too short", []string{"-extranonce2-size", "3"}, []string{"-extranonce2-size 3", "4 and 8"}},
		{"an extranonce2 too long", []string{"-extranonce2-size", "9"}, []string{"-extranonce2-size 9"}},
		{"version bits of no BIP", []string{"-version-mask", "bip9"}, []string{"-version-mask", `"bip9"`, "bip320"}},
		{"no version bits", []string{"-version-mask", "00000000"}, []string{"-version-mask"}},
		{"version bits beyond 32", []string{"-version-mask", "1ffffffff"}, []string{"-version-mask"}},
		{"a NiceHash minimum harder than any", []string{"-nicehash-min-diff", "1e30"}, []string{"-nicehash-min-diff", "2^62"}},
		{"a time without a unit", []string{"-idle-timeout", "90"}, []string{"-idle-timeout", `"90"`, "90s"}},
		{"a notify interval below 0", []string{"-notify-interval", "-1s"}, []string{"-notify-interval -1s", "below 0"}},
		{"a grace below 0", []string{"-stale-grace", "-1"}, []string{"-stale-grace -1", "below 0"}},
		{"a drain below 0", []string{"-drain", "-5s"}, []string{"-drain -5s", "below 0"}},
		{"a ban of centuries", []string{"-ban-time", "1000000h"}, []string{"-ban-time", "year"}},
		{"more invalid submits than submits", []string{"-ban-percent", "101"}, []string{"-ban-percent 101"}},
		{"connects faster than light", []string{"-connect-rate", "2000000000"}, []string{"-connect-rate 2000000000"}},
		{"requests faster than light", []string{"-request-rate", "2000000000"}, []string{"-request-rate 2000000000"}},
		{"fewer connections than none", []string{"-max-per-address", "-2"}, []string{"-max-per-address -2", "-1"}},
		{"fewer sessions than none", []string{"-max-sessions", "-7"}, []string{"-max-sessions -7", "-1"}},
		{"a queue that holds no job", []string{"-max-queue", "1000"}, []string{"-max-queue 1000", "16384"}},
		{"a list of users without http", []string{"-users-url", "hunter2.example"}, []string{"-users-url", "http://"}},
		{"a list of users nowhere", []string{"-users-url", "https:///list?key=hunter2"}, []string{"-users-url", "http://"}},
		{"a list of users that nobody serves", []string{"-users-url", "http://127.0.0.1:1/list?key=hunter2"},
			[]string{"http://127.0.0.1:1/list", "refused"}},
		{"a suffix that names do not have", []string{"-user-suffix", "%"}, []string{"-user-suffix", `"%"`}},
		{"a suffix that ends user names", []string{"-user-suffix", "."}, []string{"-user-suffix", `"."`}},
		{"an account without a number", []string{"-single-user", "alice"}, []string{"-single-user", `"alice"`, "name:number"}},
		{"an account with number zero", []string{"-single-user", "alice:0"}, []string{"-single-user", "above 0"}},
		{"an account with a number beyond 31 bits", []string{"-single-user", "alice:2147483648"}, []string{"-single-user"}},
		{"an account without a name", []string{"-single-user", ":7"}, []string{"-single-user", "user name"}},
		{"an account with a worker", []string{"-single-user", "alice.rig:7"}, []string{"-single-user", "user name"}},
		{"bans neither true nor false", []string{"-ban=maybe"}, []string{"-ban", `"maybe"`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			line := requireMistake(t, elsewhere(t, test.args...), test.says...)
			require.NotContains(t, line, "hunter2", "a password is shown")
		})
	}
}

func TestMistakesInTheFile(t *testing.T) {
	for _, test := range []struct {
		name string
		text string
		says []string
	}{
		{"nothing in it", "", []string{"empty"}},
		{"no JSON", "listen = 127.0.0.1:3333\n", []string{"invalid character"}},
		{"cut off", `{"listen": "127.0.0.1:0"`, []string{"ends in the middle"}},
		{"something behind", `{"mine": 0} {"mine": 1}`, []string{"more after"}},
		{"rubbish behind", `{"mine": 0} }`, []string{"more after"}},
		{"a list of settings", `["mine"]`, []string{"object", "array"}},
		{"an unknown key", `{"mine": 0, "lisen": "127.0.0.1:0"}`, []string{`"lisen"`}},
		{"a dash in front of the key", `{"-mine": 0}`, []string{`"-mine"`}},
		{"a file in the file", `{"config": "other.json"}`, []string{`"config"`}},
		{"text where a whole number belongs", `{"mine": "2"}`, []string{`"mine"`, "whole number"}},
		{"half a miner", `{"mine": 0.5}`, []string{`"mine"`, "whole number", "0.5"}},
		{"fewer miners than none", `{"mine": -2}`, []string{"-mine -2"}},
		{"a negative difficulty", `{"diff": -1}`, []string{`"diff"`, "above 0", "-1"}},
		{"a difficulty of zero", `{"max-diff": 0}`, []string{`"max-diff"`, "above 0"}},
		{"a difficulty in words", `{"min-diff": "hard"}`, []string{`"min-diff"`, "above 0", "hard"}},
		{"a difficulty that is not a number", `{"min-diff": NaN}`, []string{"invalid character 'N'"}},
		{"a difficulty that is not a number, quoted", `{"min-diff": "NaN"}`, []string{`"min-diff"`, "NaN"}},
		{"a list of difficulties", `{"diff": [1]}`, []string{`"diff"`, "above 0"}},
		{"one node without brackets", `{"node": "http://127.0.0.1:1"}`, []string{`"node"`, "list of strings"}},
		{"a number among the nodes", `{"node": ["http://127.0.0.1:1", 8332]}`, []string{`"node"`, "string"}},
		{"a number for text", `{"listen": 3333}`, []string{`"listen"`, "a string"}},
		{"a number among the ports", `{"listen": ["127.0.0.1:0", 3333]}`, []string{`"listen"`, "a list of strings"}},
		{"an empty port", `{"tls-listen": [""]}`, []string{"-tls-listen", `""`}},
		{"a time in numbers", `{"idle-timeout": 600}`, []string{`"idle-timeout"`, "10m", "600"}},
		{"a time in words", `{"ban-time": "long"}`, []string{`"ban-time"`, "10m", "long"}},
		{"a rate in words", `{"connect-rate": "10/s"}`, []string{`"connect-rate"`, "whole number"}},
		{"one network without brackets", `{"proxies": "10.0.0.0/8"}`, []string{`"proxies"`, "list of strings"}},
		{"text for vardiff", `{"vardiff": "yes"}`, []string{`"vardiff"`, "btcpool", "fixed"}},
		{"text for a switch", `{"nicehash": "yes"}`, []string{`"nicehash"`, "true or false"}},
		{"a bad address", `{"address": "nobody"}`, []string{`"nobody"`}},
		{"an unknown network", `{"network": "bitcoin"}`, []string{`"bitcoin"`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			requireMistake(t, elsewhere(t, "-config", configFile(t, test.text)), test.says...)
		})
	}
	t.Run("which is not there", func(t *testing.T) {
		requireMistake(t, elsewhere(t, "-config", "/nonexistent/pool.json"), "/nonexistent/pool.json", "configuration")
	})
	t.Run("which is a folder", func(t *testing.T) {
		dir := t.TempDir()
		requireMistake(t, elsewhere(t, "-config", dir), dir, "configuration")
	})
}

// null stands for a setting that is not set, as is usual in JSON.
func TestNullInTheFileIsTheDefault(t *testing.T) {
	all := map[string]any{}
	walkFlags(func(f *flag.Flag) { all[f.Name] = nil })
	text, err := json.Marshal(all)
	require.NoError(t, err)
	require.Equal(t, mustParse(t), mustParse(t, "-config", configFile(t, string(text))))
}

func TestAPortThatIsTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	addr := taken.Addr().String()
	for _, name := range []string{"-listen", "-http"} {
		t.Run(name, func(t *testing.T) {
			args := elsewhere(t, name, addr)
			requireMistake(t, args, name, addr, "in use")
			left, err := os.ReadDir(args[5])
			require.NoError(t, err)
			require.Empty(t, left, "files of a pool that never ran")
		})
	}
	t.Run("by the other of the two", func(t *testing.T) {
		free, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		addr := free.Addr().String()
		require.NoError(t, free.Close())
		requireMistake(t, elsewhere(t, "-listen", addr, "-http", addr), "-http", addr, "in use")
	})
}

func TestADataFolderThatCannotBeUsed(t *testing.T) {
	t.Run("a file", func(t *testing.T) {
		file := configFile(t, "{}")
		requireMistake(t, elsewhere(t, "-data", file), "data folder", file)
	})
	t.Run("below a file", func(t *testing.T) {
		file := filepath.Join(configFile(t, "{}"), "pooldata")
		requireMistake(t, elsewhere(t, "-data", file), "data folder", filepath.Dir(file))
	})
	t.Run("in use by another fullpool", func(t *testing.T) {
		data := t.TempDir()
		p := nodeRun(t, "-data", data, "-mine", "0")
		requireMistake(t, elsewhere(t, "-data", data), data, "another process")
		// The first one does not notice.
		resp, err := http.Get(p.web + "/api/stats")
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, http.StatusOK, resp.StatusCode)
		p.stop()
		// The folder is free again.
		nodeRun(t, "-data", data, "-mine", "0").stop()
	})
}

// A fakeNode answers methods with what its map says: a result, or an error where it begins with "error ".
func fakeNode(t *testing.T, status int, answers map[string]string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var req struct {
			Method string `json:"method"`
		}
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			t.Errorf("the pool sent no JSON: %v", err)
		}
		answer, ok := answers[req.Method]
		if !ok {
			answer = answers[""]
		}
		w.WriteHeader(status)
		if text, bad := strings.CutPrefix(answer, "error "); bad {
			fmt.Fprintf(w, `{"result":null,"error":%s,"id":"1"}`, text)
			return
		}
		fmt.Fprintf(w, `{"result":%s,"error":null,"id":"1"}`, answer)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestANodeThatCannotBeMinedOn(t *testing.T) {
	mainGenesis := `"` + chaincfg.MainNetParams.GenesisHash.String() + `"`
	regGenesis := `"` + chaincfg.RegressionNetParams.GenesisHash.String() + `"`
	noMethod := `error {"code":-32601,"message":"Method not found"}`
	for _, test := range []struct {
		name    string
		network string
		status  int
		answers map[string]string
		says    []string
	}{
		{"headers far ahead of the blocks", "mainnet", 200, map[string]string{
			"getblockchaininfo": `{"chain":"main","blocks":1000,"headers":880000,"initialblockdownload":true}`,
			"getblockhash":      mainGenesis, "": noMethod,
		}, []string{"still syncing", "1000 of 880000"}},
		{"initial block download", "mainnet", 200, map[string]string{
			"getblockchaininfo": `{"chain":"main","blocks":1000,"headers":1000,"initialblockdownload":true}`,
			"getblockhash":      mainGenesis, "": noMethod,
		}, []string{"still syncing", "initial block download"}},
		{"warming up", "mainnet", 500, map[string]string{
			"": `error {"code":-28,"message":"Verifying blocks…"}`,
		}, []string{"still syncing", "Verifying blocks"}},
		{"no templates yet", "regtest", 200, map[string]string{
			"getblockchaininfo": `{"chain":"regtest","blocks":7,"headers":7}`,
			"getblockhash":      regGenesis,
			"getblocktemplate":  `error {"code":-10,"message":"Bitcoin is downloading blocks..."}`, "": noMethod,
		}, []string{"still syncing", "downloading blocks"}},
		{"another network", "mainnet", 200, map[string]string{
			"getblockchaininfo": `{"chain":"regtest","blocks":7,"headers":7}`,
			"getblockhash":      regGenesis, "": noMethod,
		}, []string{"another network", "regtest", "mainnet"}},
		{"mainnet where regtest is wanted", "regtest", 200, map[string]string{
			"getblockchaininfo": `{"chain":"main","blocks":7,"headers":7}`,
			"getblockhash":      mainGenesis, "": noMethod,
		}, []string{"another network", "main", "regtest"}},
		{"another chain's genesis block", "mainnet", 200, map[string]string{
			"getblockchaininfo": `{"chain":"main","blocks":7,"headers":7}`,
			"getblockhash":      regGenesis, "": noMethod,
		}, []string{"another network", "genesis"}},
		{"a name of its network that breaks lines", "mainnet", 200, map[string]string{
			"getblockchaininfo": `{"chain":"a\nb","blocks":7,"headers":7}`, "": noMethod,
		}, []string{"another network", `a\nb`}},
		{"an error message that breaks lines", "mainnet", 200, map[string]string{
			"": `error {"code":-1,"message":"one\ntwo\n"}`,
		}, []string{"one"}},
		{"something else than a node", "mainnet", 200, map[string]string{"": `{}`}, []string{"Bitcoin node"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			addr := regtestAddress
			if test.network == "mainnet" {
				addr = mainnetAddress
			}
			url := fakeNode(t, test.status, test.answers)
			requireMistake(t, elsewhere(t, "-network", test.network, "-address", addr, "-node", url),
				append(test.says, strings.TrimPrefix(url, "http://"))...)
		})
	}
	t.Run("a web server", func(t *testing.T) {
		s := httptest.NewServer(http.NotFoundHandler())
		defer s.Close()
		requireMistake(t, elsewhere(t, "-address", regtestAddress, "-node", s.URL), s.URL, "404")
	})
	t.Run("nobody there", func(t *testing.T) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		url := "http://" + ln.Addr().String()
		require.NoError(t, ln.Close())
		requireMistake(t, elsewhere(t, "-address", regtestAddress, "-node", url), url, "refused")
	})
	t.Run("the second of two", func(t *testing.T) {
		good := fakeNode(t, 200, map[string]string{
			"getblockchaininfo": `{"chain":"regtest","blocks":7,"headers":7}`,
			"getblockhash":      regGenesis,
			"getblocktemplate": `{"version":536870912,"rules":["csv","!segwit"],"previousblockhash":"` + strings.Repeat("1", 64) +
				`","transactions":[],"coinbasevalue":5000000000,"mintime":1600000000,"curtime":1700000000,"bits":"207fffff","height":8}`,
			"": noMethod,
		})
		bad := fakeNode(t, 401, map[string]string{"": "null"})
		requireMistake(t, elsewhere(t, "-address", regtestAddress, "-node", good, "-node", bad), bad, "refused the user and password")
	})
}

func TestMistakesWithARealNode(t *testing.T) {
	node := testnode.Start(t, nil)
	rpc := node.Node()
	const wrong = "not the password"
	for _, test := range []struct {
		name string
		args []string
		says []string
	}{
		{"a certificate that nobody vouches for", []string{"-node-user", rpc.User, "-node-pass", rpc.Pass},
			[]string{rpc.URL, "not trusted", "-node-cert"}},
		{"a wrong password", []string{"-node-user", rpc.User, "-node-pass", wrong, "-node-cert", rpc.CertFile},
			[]string{rpc.URL, "refused the user and password"}},
		{"no password", []string{"-node-cert", rpc.CertFile}, []string{rpc.URL, "refused the user and password"}},
		{"another network", []string{"-node-user", rpc.User, "-node-pass", rpc.Pass, "-node-cert", rpc.CertFile, "-network", "mainnet",
			"-address", mainnetAddress}, []string{rpc.URL, "another network", "regtest", "mainnet"}},
		{"http where the node answers https", []string{"-node-user", rpc.User, "-node-pass", rpc.Pass,
			"-node", "http" + strings.TrimPrefix(rpc.URL, "https")}, []string{"HTTPS"}},
		{"a file that is no certificate", []string{"-node-user", rpc.User, "-node-pass", rpc.Pass, "-node-cert", "config_test.go"},
			[]string{"config_test.go"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			args := elsewhere(t, "-address", regtestAddress)
			if !strings.Contains(strings.Join(test.args, " "), "-node http") {
				args = append(args, "-node", rpc.URL)
			}
			line := requireMistake(t, append(args, test.args...), test.says...)
			require.NotContains(t, line, rpc.Pass)
			require.NotContains(t, line, wrong)
		})
	}
	require.Zero(t, node.Height())
}

// What an operator types and what stands in his file must not end the program otherwise than by a sentence.
func FuzzConfigurationFile(f *testing.F) {
	for name, s := range configSamples {
		f.Add(fmt.Sprintf(`{"%s": %s}`, name, s.json))
	}
	for _, s := range []string{
		"", "null", "{", "[]", `{"diff":null}`, `{"diff":""}`, `{"min-diff":5e-324,"max-diff":1e308}`, `{"mine":1e9} x`,
	} {
		f.Add(s)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		name := filepath.Join(dir, "pool.json")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := parse([]string{"-config", name}, io.Discard)
		if err != nil {
			return
		}
		ordered := 0 < c.MinDiff && c.MinDiff <= c.Diff && c.Diff <= c.MaxDiff
		if !ordered || c.Mine < 0 || len(c.ports) == 0 || networks[c.Network] == nil {
			t.Fatalf("%q was taken as %+v", text, *c)
		}
	})
}
