// Package rpcjob takes block templates from a bitcoind or btcd node over JSON-RPC.
//
//	source, err := rpcjob.New(rpcjob.Node{URL: "http://127.0.0.1:8332", CookieFile: cookie}, &rpcjob.Options{
//		ZMQ: []string{"tcp://127.0.0.1:28332"},
//	})
//	…
//	if err := source.Check(ctx, &chaincfg.MainNetParams); err != nil {
//		return err // one sentence that says what is wrong with the node
//	}
//	return source.Watch(ctx, maker.Put)
//
// A new tip is noticed by whichever of three ways is first:
//
//	long poll (BIP 22) ──┐
//	ZMQ hashblock ───────┼──▶ one template request at a time ──▶ once per tip ──▶ put
//	polling, every 5 s ──┘
//
// None of them is needed: a node without long polling or without a ZMQ publisher is polled. None is trusted alone
// either, for publishers lose messages and long polls hang.
package rpcjob
