package batches_test

import (
	"testing"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/difficulty/difftest"
	"github.com/poolkit/poolkit/examples/vardiff/batches"
)

func TestPolicy(t *testing.T) {
	difftest.TestPolicy(t, func() difficulty.Policy { return batches.New(16384, 10*time.Second) })
}
