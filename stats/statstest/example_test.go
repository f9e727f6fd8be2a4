package statstest_test

import (
	"context"
	"fmt"

	"github.com/poolkit/poolkit/stats"
	"github.com/poolkit/poolkit/stats/statstest"
)

// A Flaky stands in for a store that cannot be reached for a while.
func ExampleFlaky() {
	store := &statstest.Flaky{Store: new(stats.Memory)}
	store.Fail(statstest.Before)
	batch := &stats.Batch{Seq: 1, Position: []byte("here")}
	fmt.Println(store.Commit(context.Background(), batch) != nil)
	fmt.Println(store.Commit(context.Background(), batch))
	state, err := store.State(context.Background())
	fmt.Println(string(state.Position), err)
	// Output:
	// true
	// <nil>
	// here <nil>
}
