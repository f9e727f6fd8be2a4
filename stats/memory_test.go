package stats_test

import (
	"testing"

	"github.com/poolkit/poolkit/stats"
	"github.com/poolkit/poolkit/stats/statstest"
)

func TestMemory(t *testing.T) {
	statstest.TestStore(t, func(*testing.T) statstest.Backend { return statstest.Backend{Store: new(stats.Memory)} })
}

func TestFlakyIsStillAStore(t *testing.T) {
	statstest.TestStore(t, func(*testing.T) statstest.Backend {
		return statstest.Backend{Store: &statstest.Flaky{Store: new(stats.Memory)}}
	})
}
