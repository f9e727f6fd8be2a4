// Package rpcblock submits blocks to a bitcoind or btcd node over JSON-RPC, and asks it what became of them.
//
//	node := rpcblock.Node{URL: "https://127.0.0.1:8334", User: "pool", Pass: pass, CertFile: "rpc.cert"}
//	submitter, err := rpcblock.New(node, nil)
//	…
//	err = submitter.Submit(ctx, raw) // nil, block.ErrDuplicate, block.ErrStale, *block.RejectedError, or no verdict
//	n, err := submitter.Confirmations(ctx, hash)
package rpcblock
