// Package statstest checks implementations of [stats.Store], and has one that fails on command.
//
//	func TestStore(t *testing.T) {
//		statstest.TestStore(t, func(t *testing.T) statstest.Backend {
//			return statstest.Backend{Store: mystore.New(t.TempDir())}
//		})
//	}
package statstest
