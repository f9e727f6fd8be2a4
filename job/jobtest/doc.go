// Package jobtest holds what tests of mining code need from package job: templates by name, and suites that check the
// promises of its interfaces.
//
// [TestSource] and [TestBroadcaster] run against any implementation, with a subtest for each promise:
//
//	func TestBus(t *testing.T) {
//		jobtest.TestBroadcaster(t, func(t *testing.T) jobtest.Bus {
//			bus := openMyBus(t) // cleans up with t.Cleanup
//			return jobtest.Bus{Broadcaster: bus, Feed: bus}
//		})
//	}
//
// [Manual] is a source that tests feed by hand, and [Flaky] a broadcaster that fails on command. [Template] and [Reply]
// return real and realistic block templates.
package jobtest
