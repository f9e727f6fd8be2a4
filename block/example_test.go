package block_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/btcsuite/btcd/chainhash/v2"

	"github.com/poolkit/poolkit/block"
	"github.com/poolkit/poolkit/block/blocktest"
)

func Example() {
	dir, err := os.MkdirTemp("", "pool")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	// What a pool keeps: blocks that nodes have not ruled on, and the list of all blocks found.
	spool, err := block.OpenSpool(filepath.Join(dir, "pending"), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer spool.Close()
	found, err := block.OpenFile(filepath.Join(dir, "found.jsonl"), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer found.Close()

	// Two nodes; real ones are made with package rpcblock or regtest.
	var main, backup blocktest.Node
	nodes, err := block.NewNodes([]block.Node{{Name: "main", Submitter: &main}, {Name: "backup", Submitter: &backup}}, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer nodes.Close()

	ruled := make(chan block.Found, 1)
	maker, err := block.NewMaker(spool, nodes, found, &block.MakerOptions{
		Hooks: block.MakerHooks{Ruled: func(f block.Found) { ruled <- f }},
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- maker.Run(ctx) }()

	// A share that meets the network target.
	_, solution := blocktest.Solve(blocktest.NewTemplate(chainhash.Hash{}, 1, 20), 7)
	if err := maker.PutSolution(ctx, solution); err != nil {
		log.Fatal(err)
	}
	f := <-ruled
	fmt.Printf("block %d by %s: %v, %d satoshi\n", f.Height, f.WorkerName, f.Outcome, f.Rewards)
	cancel()
	if err := <-done; err != nil {
		log.Fatal(err)
	}

	list, err := found.Found(context.Background(), block.Query{States: []block.State{block.Candidate}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("candidates on record:", len(list))
	// Output:
	// block 1 by alice.rig1: accepted, 5000000000 satoshi
	// candidates on record: 1
}

func ExampleAssemble() {
	template := blocktest.NewTemplate(chainhash.Hash{}, 1, 3)
	_, solution := blocktest.Solve(template, 7)
	raw, err := block.Assemble(solution, template.Transactions)
	fmt.Println(err, chainhash.DoubleHashH(raw[:80]) == solution.Hash)

	// A transaction too few: the block is made all the same, with a warning.
	raw, err = block.Assemble(solution, template.Transactions[:2])
	fmt.Println(err != nil, len(raw) > 80)
	// Output:
	// <nil> true
	// true true
}

func ExampleWatcher() {
	var chain blocktest.Node
	var found block.Memory
	watcher, err := block.NewWatcher(&found, &chain, &block.WatcherOptions{
		ConfirmDepth: 1,
		Changed: func(f block.Found, from block.State) {
			fmt.Printf("block %d: %v, was %v\n", f.Height, f.State, from)
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	template := blocktest.NewTemplate(chainhash.Hash{}, 1, 3)
	_, solution := blocktest.Solve(template, 7)
	raw, err := block.Assemble(solution, template.Transactions)
	if err != nil {
		log.Fatal(err)
	}
	if err := chain.Submit(ctx, raw); err != nil {
		log.Fatal(err)
	}
	if err := found.Record(ctx, &block.Found{Hash: solution.Hash, Height: 1}); err != nil {
		log.Fatal(err)
	}
	if err := watcher.Check(ctx); err != nil { // Run does this at every interval
		log.Fatal(err)
	}
	// Output: block 1: immature, was candidate
}
