package sharetest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/share/sharetest"
)

// The suite runs against a sink in a few lines.
func TestMemory(t *testing.T) {
	sharetest.TestSink(t, func(t *testing.T) sharetest.Backend {
		m := new(sharetest.Memory)
		return sharetest.Backend{Sink: m, Shares: func() ([]share.Share, error) { return m.Shares(), nil }}
	})
}

// A Flaky stands in for a sink that is down for a while.
func ExampleFlaky() {
	memory := new(sharetest.Memory)
	sink := sharetest.NewFlaky(memory)
	sink.FailNext(1, errors.New("disk full"))

	batch := []share.Share{sharetest.Numbered(0)}
	fmt.Println(sink.Put(context.Background(), batch))
	fmt.Println(sink.Put(context.Background(), batch))
	fmt.Println(len(memory.Shares()))
	// Output:
	// disk full
	// <nil>
	// 1
}
