package regtest_test

import (
	"context"
	"fmt"
	"time"

	"github.com/poolkit/poolkit/block/regtest"
	"github.com/poolkit/poolkit/job"
)

// A chain in memory, a block that arrives from elsewhere, and the templates that a pool would make jobs of.
func Example() {
	chain, err := regtest.Open("", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer chain.Close()

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err = chain.Watch(ctx, func(t *job.Template) {
		fmt.Printf("template for height %d with %d transactions\n", t.Height, len(t.Transactions))
		if t.Height == 111 {
			cancel()
			return
		}
		if _, err := chain.Generate(1); err != nil {
			fmt.Println(err)
		}
	})
	fmt.Println("tip", chain.Height(), err)
	// Output:
	// template for height 109 with 8 transactions
	// template for height 110 with 8 transactions
	// template for height 111 with 8 transactions
	// tip 110 <nil>
}

// A demo wants a block every half minute or so from one CPU core, not one for every second hash.
func ExampleOptions() {
	chain, err := regtest.Open("", &regtest.Options{Bits: 0x1e00ffff}) // 2^24 hashes a block
	if err != nil {
		fmt.Println(err)
		return
	}
	defer chain.Close()

	t, err := chain.Template()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("height %d, bits %08x, target %v\n", t.Height, t.Bits, t.Target)
	fmt.Println("a pool without an address may pay", chain.ThrowawayAddress())
	// Output:
	// height 109, bits 1e00ffff, target 000000ffff000000000000000000000000000000000000000000000000000000
	// a pool without an address may pay bcrt1qr3ckhgqpthads0qtcm8cwwkhmcx7jxtddcqwzk
}
