package rpcjob_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/poolkit/poolkit/job/rpcjob"
	"github.com/stretchr/testify/require"
)

func rpcError(code int, message string) string {
	return fmt.Sprintf(`{"result":null,"error":{"code":%d,"message":%q},"id":"1"}`, code, message)
}

func result(v string) string { return `{"result":` + v + `,"error":null,"id":"1"}` }

func TestCheck(t *testing.T) {
	main := chaincfg.MainNetParams
	main.Checkpoints = nil
	mainInfo := result(`{"chain":"main","blocks":900000,"headers":900000,"initialblockdownload":false}`)
	mainGenesis := result(`"` + main.GenesisHash.String() + `"`)
	custom := chaincfg.RegressionNetParams
	custom.Checkpoints = []chaincfg.Checkpoint{{Height: 50, Hash: &chainhash.Hash{5}}, {Height: 1000, Hash: &chainhash.Hash{6}}}
	btcdMethods := map[string]string{ // what btcd says where bitcoind answers
		"getnetworkinfo": rpcError(-1, "Command unimplemented"),
	}
	for _, tt := range []struct {
		name    string
		params  *chaincfg.Params
		opts    rpcjob.Options
		answers map[string]string
		is      error
		want    string // part of the error, empty for none
	}{
		{name: "regtest without peers or a block of today", params: &chaincfg.RegressionNetParams,
			answers: map[string]string{"getnetworkinfo": result(`{"connections":0}`)}},
		{name: "main network", params: &main, answers: map[string]string{"getblockchaininfo": mainInfo, "getblockhash": mainGenesis}},
		{name: "regtest instead of mainnet", params: &main, is: rpcjob.ErrWrongNetwork, want: `"regtest", the pool on mainnet`},
		{name: "mainnet instead of regtest", params: &chaincfg.RegressionNetParams, is: rpcjob.ErrWrongNetwork,
			answers: map[string]string{"getblockchaininfo": mainInfo}, want: `"main", the pool on regtest`},
		{name: "testnet3 instead of testnet4", params: &chaincfg.TestNet4Params, is: rpcjob.ErrWrongNetwork,
			answers: map[string]string{"getblockchaininfo": result(`{"chain":"test","blocks":1,"headers":1}`)}, want: `"test"`},
		{name: "right name and another genesis block", params: &main, is: rpcjob.ErrWrongNetwork,
			answers: map[string]string{"getblockchaininfo": mainInfo}, want: "genesis block of"},
		{name: "another chain at a checkpoint", params: &custom, is: rpcjob.ErrWrongChain, want: "block 50 of"},
		{name: "initial block download", params: &main, is: rpcjob.ErrSyncing, want: "initial block download, at block 5",
			answers: map[string]string{"getblockhash": mainGenesis,
				"getblockchaininfo": result(`{"chain":"main","blocks":5,"headers":5,"initialblockdownload":true}`)}},
		{name: "blocks behind headers", params: &main, is: rpcjob.ErrSyncing, want: "has 899990 of 900000 blocks",
			answers: map[string]string{"getblockhash": mainGenesis,
				"getblockchaininfo": result(`{"chain":"main","blocks":899990,"headers":900000,"initialblockdownload":false}`)}},
		{name: "a block is just arriving", params: &main, answers: map[string]string{"getblockhash": mainGenesis,
			"getblockchaininfo": result(`{"chain":"main","blocks":899999,"headers":900000,"initialblockdownload":false}`)}},
		{name: "btcd at the genesis block", params: &main, is: rpcjob.ErrSyncing, want: "no block but the genesis",
			answers: map[string]string{"getblockhash": mainGenesis,
				"getblockchaininfo": result(`{"chain":"mainnet","blocks":0,"headers":0}`)}},
		{name: "btcd that syncs and tells only in the template", params: &main, is: rpcjob.ErrSyncing, want: "downloading blocks",
			answers: map[string]string{"getblockhash": mainGenesis, "getnetworkinfo": btcdMethods["getnetworkinfo"],
				"getconnectioncount": result("8"),
				"getblockchaininfo":  result(`{"chain":"mainnet","blocks":7000,"headers":7000}`),
				"getblocktemplate":   rpcError(-10, "Bitcoin is downloading blocks...")}},
		{name: "starting", params: &main, is: rpcjob.ErrSyncing, want: "Loading block index",
			answers: map[string]string{"getblockchaininfo": rpcError(-28, "Loading block index")}},
		{name: "no peers", params: &main, is: rpcjob.ErrNoPeers, want: "nobody would hear",
			answers: map[string]string{"getblockchaininfo": mainInfo, "getblockhash": mainGenesis,
				"getnetworkinfo": result(`{"connections":0}`)}},
		{name: "no peers at btcd", params: &main, is: rpcjob.ErrNoPeers, want: "nobody would hear",
			answers: map[string]string{"getblockchaininfo": mainInfo, "getblockhash": mainGenesis,
				"getnetworkinfo": btcdMethods["getnetworkinfo"], "getconnectioncount": result("0")}},
		{name: "no peers, which is allowed", params: &main, opts: rpcjob.Options{AllowNoPeers: true},
			answers: map[string]string{"getblockchaininfo": mainInfo, "getblockhash": mainGenesis,
				"getnetworkinfo": result(`{"connections":0}`)}},
		{name: "no peers, which the node does not allow", params: &main, opts: rpcjob.Options{AllowNoPeers: true},
			is: rpcjob.ErrNoPeers, want: "not connected",
			answers: map[string]string{"getblockchaininfo": mainInfo, "getblockhash": mainGenesis,
				"getblocktemplate": rpcError(-9, "Bitcoin Core is not connected!")}},
		{name: "peers that are no number", params: &main, want: "no number",
			answers: map[string]string{"getblockchaininfo": mainInfo, "getblockhash": mainGenesis,
				"getnetworkinfo": result(`{}`), "getconnectioncount": result("null")}},
		{name: "web page", params: &main, want: "a web page instead of JSON", answers: map[string]string{"getblockchaininfo": "<html>"}},
		{name: "something else with JSON-RPC", params: &main, want: "is this a Bitcoin node?",
			answers: map[string]string{"getblockchaininfo": result(`{}`)}},
		{name: "wrong types", params: &main, want: "unexpected result",
			answers: map[string]string{"getblockchaininfo": result(`{"chain":1,"blocks":"x"}`)}},
		{name: "template that cannot be used", params: &chaincfg.RegressionNetParams, want: `unknown mandatory rule "x"`,
			answers: map[string]string{"getblocktemplate": result(`{"rules":["!x"]}`)}},
		{name: "hanging", params: &main, opts: rpcjob.Options{Timeout: 50 * time.Millisecond}, want: "no answer in time",
			answers: map[string]string{"getblockchaininfo": "hang"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newFakeNode(t)
			for method, answer := range tt.answers {
				n.answers[method] = answer
			}
			s, err := rpcjob.New(n.node(), &tt.opts)
			require.NoError(t, err)
			err = s.Check(t.Context(), tt.params)
			if tt.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tt.want)
			require.ErrorContains(t, err, "rpcjob: check: ")
			require.Equal(t, 1, strings.Count(err.Error(), "rpcjob"), "%v", err)
			require.NotContains(t, err.Error(), "\n")
			require.ErrorContains(t, err, n.URL)
			for _, sentinel := range []error{rpcjob.ErrWrongNetwork, rpcjob.ErrWrongChain, rpcjob.ErrSyncing, rpcjob.ErrNoPeers} {
				require.Equal(t, sentinel == tt.is, errors.Is(err, sentinel), "%v", err)
			}
		})
	}
}

func TestCheckOfSignetNamesItsRule(t *testing.T) {
	n := newFakeNode(t)
	n.answers["getblockchaininfo"] = result(`{"chain":"signet","blocks":100,"headers":100,"initialblockdownload":false}`)
	n.answers["getblockhash"] = result(`"` + chaincfg.SigNetParams.GenesisHash.String() + `"`)
	s, err := rpcjob.New(n.node(), nil)
	require.NoError(t, err)
	require.NoError(t, s.Check(t.Context(), &chaincfg.SigNetParams))
	require.True(t, contains(n.requests["poll"][0]["rules"], "signet"))
	require.True(t, contains(n.requests["poll"][0]["rules"], "segwit"))
}

func TestCheckOfNobody(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	srv.Close()
	s, err := rpcjob.New(rpcjob.Node{URL: srv.URL}, nil)
	require.NoError(t, err)
	require.ErrorContains(t, s.Check(t.Context(), &chaincfg.MainNetParams), "connection refused")
}
