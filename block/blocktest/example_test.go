package blocktest_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/poolkit/poolkit/block/blocktest"
)

// A FlakySubmitter stands in for a node that is down for a while.
func ExampleFlakySubmitter() {
	node := new(blocktest.FlakySubmitter)
	node.FailNext(errors.New("connection refused"))
	fmt.Println(node.Submit(context.Background(), nil))
	fmt.Println(node.Submit(context.Background(), nil))
	fmt.Println(node.Calls())
	// Output:
	// connection refused
	// <nil>
	// 2
}
