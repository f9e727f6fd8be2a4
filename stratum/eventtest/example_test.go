package eventtest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/poolkit/poolkit/stratum"
	"github.com/poolkit/poolkit/stratum/eventtest"
	"github.com/stretchr/testify/require"
)

// memory is an EventSink of one's own.
type memory struct {
	mu     sync.Mutex
	events []stratum.Event
}

func (m *memory) PutEvent(e stratum.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.events = append(m.events, e)
}

func (m *memory) all(*testing.T) []stratum.Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]stratum.Event(nil), m.events...)
}

func TestMemory(t *testing.T) {
	eventtest.TestEventSink(t, func(*testing.T) eventtest.Backend {
		m := new(memory)
		return eventtest.Backend{Sink: m, Events: m.all}
	})
}

// gate is a writer that can be shut.
type gate struct {
	bytes.Buffer
	shut chan struct{} // nil lets everything through
}

func (g *gate) Write(p []byte) (int, error) {
	if g.shut != nil {
		<-g.shut
	}
	return g.Buffer.Write(p)
}

func TestEventWriter(t *testing.T) {
	eventtest.TestEventSink(t, func(t *testing.T) eventtest.Backend {
		out := new(gate)
		w, err := stratum.NewEventWriter(out, nil)
		require.NoError(t, err)
		var stop func()
		start := func() {
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- w.Run(ctx) }()
			stop = sync.OnceFunc(func() {
				cancel()
				require.NoError(t, <-done)
			})
		}
		t.Cleanup(func() { stop() })
		shut := make(chan struct{})
		b := eventtest.Backend{
			Sink: w,
			Stall: func() {
				stop()
				out.shut = shut
				start()
				t.Cleanup(func() { close(shut) }) // before the stop above
			},
			Events: func(t *testing.T) []stratum.Event {
				stop()
				var all []stratum.Event
				for d := json.NewDecoder(&out.Buffer); d.More(); {
					var e stratum.Event
					require.NoError(t, d.Decode(&e))
					all = append(all, e)
				}
				return all
			},
		}
		start()
		return b
	})
}

// A sink that prints what happens. The suite is run on one's own sink as in TestMemory.
func Example() {
	var sink stratum.EventSink = stratum.EventSinkFunc(func(e stratum.Event) {
		_, _ = fmt.Fprintln(os.Stdout, e.Action, e.UserName, e.WorkerName, e.IP)
	})
	sink.PutEvent(stratum.Event{
		Created: time.Now(), Action: stratum.MinerConnect, Desc: stratum.NewConnection,
		UserID: 7, UserName: "alice", WorkerName: "rig01", IP: netip.MustParseAddr("10.1.2.3"),
	})
	// Output: miner_connect alice rig01 10.1.2.3
}
