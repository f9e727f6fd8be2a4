package poolkit_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"

	"os"

	"github.com/stretchr/testify/require"
)

const module = "github.com/poolkit/poolkit"

// The house. A package may import the floors below it and the rooms it is part of, never a neighbour. What stands here
// goes for the package of that name and all below it; the longest name counts.
//
//	examples ─ every room
//	stratum  block  sharelog  stats  switcher      rooms
//	share                                          verdicts, Sink
//	job                                            templates, jobs
//	difficulty                                     standard library only
var house = map[string]rule{
	"":           {}, // the package comment
	"difficulty": {ours: []string{"difficulty"}},
	"job":        {ours: []string{"job", "difficulty"}, theirs: btcd},
	"share":      {ours: []string{"share", "job", "difficulty"}, theirs: btcd},

	"stratum":  {ours: []string{"stratum", "share", "job", "difficulty"}, theirs: btcd},
	"block":    {ours: []string{"block", "share", "job", "difficulty", "internal/dirlock"}, theirs: btcd},
	"sharelog": {ours: []string{"sharelog", "share", "job", "difficulty", "internal/dirlock"}, theirs: deflate},
	"stats":    {ours: []string{"stats", "share", "job", "difficulty"}, theirs: btcd},
	"switcher": {ours: []string{"switcher", "job"}},

	// What has a rule of its own inside a room.
	"stratum/sv1":         {},
	"stratum/btcagent":    {},
	"stratum/handover":    {},
	"stratum/promstratum": {ours: []string{"stratum", "share", "job"}, theirs: []string{"github.com/prometheus/client_golang"}},
	"stratum/stratumtest": {ours: []string{"stratum/sv1", "stratum/btcagent", "difficulty"}},
	"stratum/httpauth":    {ours: []string{"stratum", "share"}},
	"job/rpcjob":          {ours: []string{"job", "difficulty", "internal/noderpc"}, theirs: append([]string{"github.com/go-zeromq/zmq4"}, btcd...)},
	"block/rpcblock":      {ours: []string{"block", "internal/noderpc"}, theirs: btcd},
	"block/regtest":       {ours: []string{"block", "job", "difficulty", "internal/dirlock"}, theirs: append([]string{"github.com/btcsuite/btcd", "github.com/btcsuite/btclog"}, btcd...)},
	"stats/pebblestats":   {ours: []string{"stats", "share", "job", "difficulty"}, theirs: []string{"github.com/cockroachdb/pebble/v2"}},

	"internal/testnode": {ours: []string{"internal/noderpc"}, theirs: append([]string{"github.com/btcsuite/btcd"}, btcd...)},

	"internal": {theirs: append([]string{"github.com/btcsuite/btcd"}, btcd...)},
	"examples": {ours: []string{""}, theirs: []string{""}},

	// A policy as somebody outside would write it.
	"examples/vardiff/batches": {ours: []string{"difficulty"}},
}

type rule struct {
	ours   []string // packages of this module, with all below them
	theirs []string // modules; "" is any
}

// btcd is the family that the chain's words come from: one set of versions, all with a version suffix.
var btcd = []string{
	"github.com/btcsuite/btcd/address/v2",
	"github.com/btcsuite/btcd/btcec/v2",
	"github.com/btcsuite/btcd/btcutil/v2",
	"github.com/btcsuite/btcd/chaincfg/v2",
	"github.com/btcsuite/btcd/chainhash/v2",
	"github.com/btcsuite/btcd/txscript/v2",
	"github.com/btcsuite/btcd/wire/v2",
}

var deflate = []string{"github.com/klauspost/compress"}

// backends need a server, a driver or a chain. Only main programs import them, besides tests.
var backends = []string{
	"stratum/httpauth", "stratum/promstratum", "job/rpcjob", "block/rpcblock", "block/regtest", "stats/pebblestats",
}

// conformance suites are for tests alone, and so is the standard library's testing package.
func isSuite(pkg string) bool { return strings.HasSuffix(pkg, "test") && pkg != "block/regtest" }

func below(pkg, parent string) bool {
	return parent == "" || pkg == parent || strings.HasPrefix(pkg, parent+"/")
}

func ruleFor(pkg string) (rule, bool) {
	for p := pkg; ; p = path.Dir(p) {
		if p == "." {
			p = ""
		}
		if r, ok := house[p]; ok && (p != "" || pkg == "") {
			return r, true
		}
		if p == "" {
			return rule{}, false
		}
	}
}

// judge returns why package pkg may not import imp, or "" when it may.
func judge(pkg, imp string) string {
	r, ok := ruleFor(pkg)
	if !ok {
		return "the package has no place in the drawing"
	}
	own, isOurs := strings.CutPrefix(imp, module)
	own = strings.TrimPrefix(own, "/")
	switch {
	case isOurs:
		if !slices.ContainsFunc(r.ours, func(p string) bool { return below(own, p) }) {
			return "it may import only the floors below it, never a neighbour"
		}
		if slices.ContainsFunc(backends, func(b string) bool { return below(own, b) && !below(pkg, b) }) && !below(pkg, "examples") {
			return "a backend is for main programs"
		}
		if isSuite(own) && !isSuite(pkg) && !below(pkg, "examples") {
			return "a conformance suite is for tests"
		}
	case imp == "testing":
		if !isSuite(pkg) && !below(pkg, "internal/testnode") {
			return "package testing is for tests"
		}
	case strings.Contains(strings.SplitN(imp, "/", 2)[0], "."):
		if !slices.ContainsFunc(r.theirs, func(m string) bool { return below(imp, m) }) {
			return "its clients would have to build that module too"
		}
	}
	return ""
}

func TestNoRoomImportsANeighbour(t *testing.T) {
	files := 0
	err := fs.WalkDir(os.DirFS("."), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || name != "." && strings.HasPrefix(d.Name(), ".")) {
			return fs.SkipDir
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		files++
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		pkg := path.Dir(name)
		if pkg == "." {
			pkg = ""
		}
		for _, spec := range f.Imports {
			imp, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if why := judge(pkg, imp); why != "" {
				t.Errorf("%s: %q must not import %q: %s", name, pkg, imp, why)
			}
		}
		return nil
	})
	require.NoError(t, err)
	require.Greater(t, files, 30, "the walk did not find the tree")
}

// The rule itself is tested, or a slip in it would let everything pass.
func TestTheDrawingForbidsWhatItShould(t *testing.T) {
	for _, edge := range [][2]string{
		{"stratum", module + "/block"},
		{"stats/httpstats", module + "/block"},
		{"sharelog", module + "/stats"},
		{"job", module + "/share"},
		{"difficulty", module + "/job"},
		{"difficulty", "github.com/btcsuite/btcd/chainhash/v2"},
		{"stratum/sv1", module + "/difficulty"},
		{"stratum/btcagent", module + "/stratum/sv1"},
		{"stratum/handover", module + "/stratum"},
		{"stratum/handover", "golang.org/x/sys/unix"},
		{"stratum", "github.com/cockroachdb/pebble/v2"},
		{"stats", module + "/stats/pebblestats"},
		{"share", module + "/share/sharetest"},
		{"share", "testing"},
		{"job", "github.com/btcsuite/btcd/chaincfg/chainhash"},
		{"elsewhere", module + "/job"},
		{"stratum", module + "/stratum/httpauth"},
		{"stratum/httpauth", "github.com/btcsuite/btcd/chainhash/v2"},
		{"stratum", module + "/stratum/promstratum"},
		{"stratum", "github.com/prometheus/client_golang/prometheus"},
		{"difficulty", "gonum.org/v1/plot"},
		{"examples/vardiff/batches", module + "/internal/noderpc"},
	} {
		require.NotEmpty(t, judge(edge[0], edge[1]), "%s -> %s", edge[0], edge[1])
	}
	for _, edge := range [][2]string{
		{"stratum", module + "/share"},
		{"stratum", module + "/stratum/sv1"},
		{"share", module + "/job"},
		{"job", "github.com/btcsuite/btcd/chainhash/v2"},
		{"stats/pebblestats", "github.com/cockroachdb/pebble/v2"},
		{"examples/fullpool", module + "/block/regtest"},
		{"share/sharetest", "testing"},
		{"stratum", "net"},
		{"stratum/httpauth", module + "/stratum"},
		{"stratum/promstratum", "github.com/prometheus/client_golang/prometheus"},
	} {
		require.Empty(t, judge(edge[0], edge[1]), "%s -> %s", edge[0], edge[1])
	}
}
