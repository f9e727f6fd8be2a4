package stratum_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum"
	"github.com/stretchr/testify/require"
)

func eventLines(t testing.TB) [][]byte {
	text, err := os.ReadFile("testdata/common-events.jsonl")
	require.NoError(t, err)
	return bytes.Split(bytes.TrimSpace(text), []byte("\n"))
}

func TestEventsOfBTCPool(t *testing.T) {
	lines := eventLines(t)
	require.Len(t, lines, 8)
	for _, line := range lines {
		var e stratum.Event
		require.NoError(t, json.Unmarshal(line, &e))
		require.Equal(t, string(line), string(e.AppendJSON(nil)), "every byte comes back")
		require.Equal(t, share.Worker{Name: e.WorkerName}.ID(), e.WorkerID)
	}
	var e stratum.Event
	require.NoError(t, json.Unmarshal(lines[7], &e))
	require.Equal(t, stratum.Event{
		Created: time.Date(2026, 11, 21, 2, 47, 6, 0, time.UTC),
		Action:  stratum.MinerDead, Desc: stratum.ClosedConnection,
		UserID: 3, UserName: "alice", WorkerID: -2842540590582736943, WorkerName: "verylongworkernameve",
		Agent: "cap/1", IP: netip.MustParseAddr("127.0.0.1"), SessionID: 0x05000005,
	}, e)
}

func aliceConnects() stratum.Event {
	return stratum.Event{
		Created: time.Date(2024, 6, 10, 8, 13, 40, 999, time.FixedZone("", 2*3600)),
		Action:  stratum.MinerConnect, Desc: stratum.NewConnection,
		UserID: 7, UserName: "alice", WorkerID: 7069884523060589083, WorkerName: "rig01",
		Agent: "cgminer/4.12.1", IP: netip.MustParseAddr("10.1.2.3"), SessionID: 0x1a00002b,
	}
}

func TestEventsAreWrittenAsBTCPoolWritesThem(t *testing.T) {
	const head = `{"created_at":"2024-06-10 06:13:40","type":"worker_update","action":"miner_connect","content":{"user_id":7,"user_name":"alice",`
	for _, c := range []struct {
		name   string
		change func(e *stratum.Event)
		want   string
	}{
		{"the time in UTC", func(*stratum.Event) {}, head + `"worker_id":7069884523060589083,"worker_name":"rig01",` +
			`"miner_agent":"cgminer/4.12.1","ip":"10.1.2.3","session_id":"1a00002b","desc":"new_conn"}}`},
		{"one account for all", func(e *stratum.Event) { e.WorkerName, e.ExtUserID, e.WorkerID = "bob.rig", -9, -1 }, head +
			`"worker_id":-1,"worker_name":"bob.rig","miner_agent":"cgminer/4.12.1","ip":"10.1.2.3","session_id":"1a00002b","desc":"new_conn","ext_user_id":-9}}`},
		{"text that nobody filtered", func(e *stratum.Event) { e.WorkerName, e.Agent, e.Desc = "a\"b\\c\n", "\xff\u2028é", "x\"" }, head +
			`"worker_id":7069884523060589083,"worker_name":"a\"b\\c\n","miner_agent":"\ufffd\u2028é","ip":"10.1.2.3","session_id":"1a00002b","desc":"x\""}}`},
		{"a low session and IPv4 within IPv6", func(e *stratum.Event) { e.SessionID, e.IP = 5, netip.MustParseAddr("::ffff:10.1.2.3") }, head +
			`"worker_id":7069884523060589083,"worker_name":"rig01","miner_agent":"cgminer/4.12.1","ip":"10.1.2.3","session_id":"00000005","desc":"new_conn"}}`},
		{"IPv6 with a zone", func(e *stratum.Event) { e.IP = netip.MustParseAddr("fe80::1%\"") }, head +
			`"worker_id":7069884523060589083,"worker_name":"rig01","miner_agent":"cgminer/4.12.1","ip":"fe80::1","session_id":"1a00002b","desc":"new_conn"}}`},
		{"no address", func(e *stratum.Event) { e.IP = netip.Addr{} }, head +
			`"worker_id":7069884523060589083,"worker_name":"rig01","miner_agent":"cgminer/4.12.1","ip":"","session_id":"1a00002b","desc":"new_conn"}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := aliceConnects()
			c.change(&e)
			require.Equal(t, "before "+c.want, string(e.AppendJSON([]byte("before "))))
			byPackage, err := json.Marshal(e)
			require.NoError(t, err)
			require.JSONEq(t, c.want, string(byPackage))
		})
	}
}

func TestEventsOfEarlierVersions(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       stratum.Event
	}{
		{
			"a connect", `{"created_at":"2017-01-05 10:00:00","type":"miner_connect","content":{"user_id":7,"user_name":"alice","worker_name":"rig01",` +
				`"client_agent":"cgminer/4.9","ip":"10.1.2.3","session_id":"0100002b"}}`,
			stratum.Event{
				Created: time.Date(2017, 1, 5, 10, 0, 0, 0, time.UTC), Action: stratum.MinerConnect,
				UserID: 7, UserName: "alice", WorkerID: 7069884523060589083, WorkerName: "rig01",
				Agent: "cgminer/4.9", IP: netip.MustParseAddr("10.1.2.3"), SessionID: 0x0100002b,
			},
		},
		{
			"a disconnect without a session, and a version mask", `{"created_at":"2017-01-05 10:00:00","type":"miner_dead","content":{"user_id":7,"user_name":"alice",` +
				`"worker_name":"rig01","client_agent":"x","ip":"","version_mask":"1fffe000"}}`,
			stratum.Event{
				Created: time.Date(2017, 1, 5, 10, 0, 0, 0, time.UTC), Action: stratum.MinerDead,
				UserID: 7, UserName: "alice", WorkerID: 7069884523060589083, WorkerName: "rig01", Agent: "x",
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var e stratum.Event
			require.NoError(t, json.Unmarshal([]byte(c.text), &e))
			require.Equal(t, c.want, e)
		})
	}
}

func TestWhatIsNoEvent(t *testing.T) {
	line := string(aliceLine())
	swap := func(old, with string) string {
		require.Contains(t, line, old)
		return strings.Replace(line, old, with, 1)
	}
	for _, c := range []struct{ name, text, want string }{
		{"nothing", ``, "unexpected end"},
		{"null", `null`, "no content"},
		{"no content", `{"created_at":"2024-06-10 06:13:40","type":"miner_dead"}`, "no content"},
		{"another action", swap("miner_connect", "miner_sleeps"), "action"},
		{"another type", swap("worker_update", "user_update"), "type"},
		{"another type without an action", swap(`"action":"miner_connect",`, ""), "action"},
		{"a time of another form", swap("2024-06-10 06:13:40", "2024-06-10T06:13:40Z"), "created_at"},
		{"a month that is none", swap("2024-06-10", "2024-13-10"), "created_at"},
		{"a user number that is too large", swap(`"user_id":7`, `"user_id":2147483648`), "user_id"},
		{"a user number that is text", swap(`"user_id":7`, `"user_id":"7"`), "user_id"},
		{"a session that is not hex", swap("1a00002b", "1a00002g"), "session_id"},
		{"a session that is too long", swap("1a00002b", "11a00002b"), "session_id"},
		{"no address", swap("10.1.2.3", "10.1.2.300"), "ip"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := stratum.Event{UserName: "before"}
			e := before
			err := e.UnmarshalJSON([]byte(c.text))
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, err, "stratum: read event: ")
			require.Equal(t, before, e)
		})
	}
}

func aliceLine() []byte {
	e := aliceConnects()
	return e.AppendJSON(nil)
}

func FuzzEventUnmarshalJSON(f *testing.F) {
	for _, line := range eventLines(f) {
		f.Add(line)
	}
	f.Add([]byte(`{"created_at":"2017-01-05 10:00:00","type":"miner_dead","content":{"user_id":7,"worker_name":"a\"\u0000\ud800","client_agent":"x","ip":"fe80::1%x"}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var e, again stratum.Event
		if e.UnmarshalJSON(text) != nil {
			require.Zero(t, e)
			return
		}
		written := e.AppendJSON(nil)
		require.True(t, json.Valid(written), "%s", written)
		require.NoError(t, again.UnmarshalJSON(written), "%s", written)
		require.Equal(t, e, again)
	})
}

// pipe is a writer that a test lets through call by call.
type pipe struct {
	mu    sync.Mutex
	out   bytes.Buffer
	calls int
	fail  func(p []byte) (int, error) // nil takes everything
	gate  chan struct{}               // nil is open
}

func (p *pipe) Write(b []byte) (int, error) {
	if p.gate != nil {
		<-p.gate
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls++
	if p.fail != nil {
		n, err := p.fail(b)
		p.out.Write(b[:n])
		return n, err
	}
	return p.out.Write(b)
}

func (p *pipe) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

func numbered(n int) stratum.Event {
	e := aliceConnects()
	e.UserID = int32(n)
	return e
}

func userIDs(t *testing.T, text string) []int {
	var ids []int
	for line := range strings.Lines(text) {
		var e stratum.Event
		if e.UnmarshalJSON([]byte(line)) != nil {
			ids = append(ids, -1)
			continue
		}
		ids = append(ids, int(e.UserID))
	}
	return ids
}

func upTo(first, end int) (ids []int) {
	for n := first; n < end; n++ {
		ids = append(ids, n)
	}
	return ids
}

// follow runs w within a bubble and returns what stops it.
func follow(t *testing.T, w *stratum.EventWriter) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	return func() {
		cancel()
		require.NoError(t, <-done)
	}
}

func TestEventWriterDropsTheOldest(t *testing.T) {
	for _, max := range []int{1, 10, 100, 1000} {
		t.Run(fmt.Sprint(max), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &pipe{gate: make(chan struct{})}
				w, err := stratum.NewEventWriter(p, &stratum.EventWriterOptions{MaxQueue: max})
				require.NoError(t, err)
				stop := follow(t, w)
				w.PutEvent(numbered(0))
				synctest.Wait() // it is being written, and that hangs
				for n := 1; n <= max+7; n++ {
					w.PutEvent(numbered(n))
				}
				require.Equal(t, stratum.EventStats{Put: uint64(max + 8), Dropped: 7, Queued: max + 1}, w.Stats())
				close(p.gate)
				synctest.Wait()
				require.Equal(t, stratum.EventStats{Put: uint64(max + 8), Dropped: 7, Written: uint64(max + 1)}, w.Stats())
				require.Equal(t, append([]int{0}, upTo(8, max+8)...), userIDs(t, p.out.String()))
				stop()
			})
		})
	}
}

// Rings that wrap, grow while they are wrapped, and are given up after a burst.
func TestEventWriterKeepsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := new(pipe)
		w, err := stratum.NewEventWriter(p, nil)
		require.NoError(t, err)
		stop := follow(t, w)
		put := 0
		for _, burst := range []int{1, 63, 64, 65, 100, 1, 5000, 3, 200, 9000, 1} {
			for range burst {
				w.PutEvent(numbered(put))
				put++
			}
			if burst%2 == 1 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		require.Equal(t, upTo(0, put), userIDs(t, p.out.String()))
		require.Less(t, p.calls, put/50, "many events go in one write")
		stop()
	})
}

func TestEventWriterWritesTheRestWhenItStops(t *testing.T) {
	p := new(pipe)
	w, err := stratum.NewEventWriter(p, nil)
	require.NoError(t, err)
	for n := range 1000 {
		w.PutEvent(numbered(n))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, w.Run(ctx))
	require.Equal(t, upTo(0, 1000), userIDs(t, p.out.String()))
	require.Equal(t, stratum.EventStats{Put: 1000, Written: 1000}, w.Stats())
}

func TestEventWriterGoesOnAfterAFailedWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		p := &pipe{fail: func(b []byte) (int, error) { return 10, errors.New("disk full") }}
		w, err := stratum.NewEventWriter(p, &stratum.EventWriterOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		require.NoError(t, err)
		stop := follow(t, w)
		for n := range 3 {
			w.PutEvent(numbered(n))
			synctest.Wait()
		}
		require.Equal(t, stratum.EventStats{Put: 3, Dropped: 3}, w.Stats())
		require.Equal(t, 1, strings.Count(log.String(), "disk full"))
		p.set(func() { p.fail = func(b []byte) (int, error) { return len(b) - 5, nil } }) // short, without an error
		w.PutEvent(numbered(3))
		synctest.Wait()
		p.set(func() { p.fail = nil })
		w.PutEvent(numbered(4))
		w.PutEvent(numbered(5))
		synctest.Wait()
		stop()
		ids := userIDs(t, p.out.String())
		require.Equal(t, []int{-1, -1, -1, -1, 4, 5}, ids, "a line that was cut short spoils no other")
		require.Equal(t, stratum.EventStats{Put: 6, Dropped: 4, Written: 2}, w.Stats())
		require.Equal(t, 2, strings.Count(log.String(), "\n"), log.String())
		require.Contains(t, log.String(), "written again")
	})
}

func TestNewEventWriterRefuses(t *testing.T) {
	_, err := stratum.NewEventWriter(nil, nil)
	require.ErrorContains(t, err, "writer is needed")
	_, err = stratum.NewEventWriter(new(pipe), &stratum.EventWriterOptions{MaxQueue: -1})
	require.ErrorContains(t, err, "-1 events")
}

func ExampleEventWriter() {
	w, err := stratum.NewEventWriter(os.Stdout, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	w.PutEvent(stratum.Event{
		Created: time.Date(2024, 6, 10, 6, 13, 40, 0, time.UTC), Action: stratum.MinerDead, Desc: stratum.ClosedConnection,
		UserID: 7, UserName: "alice", WorkerID: share.Worker{Name: "rig01"}.ID(), WorkerName: "rig01",
		Agent: "cgminer/4.12.1", IP: netip.MustParseAddr("10.1.2.3"), SessionID: 0x1a00002b,
	})
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // a pool cancels when it stops; what waits is still written
	if err := w.Run(ctx); err != nil {
		fmt.Println(err)
	}
	// Output:
	// {"created_at":"2024-06-10 06:13:40","type":"worker_update","action":"miner_dead","content":{"user_id":7,"user_name":"alice","worker_id":7069884523060589083,"worker_name":"rig01","miner_agent":"cgminer/4.12.1","ip":"10.1.2.3","session_id":"1a00002b","desc":"del_conn"}}
}

func BenchmarkPutEvent(b *testing.B) {
	w, err := stratum.NewEventWriter(new(pipe), nil)
	require.NoError(b, err)
	e := aliceConnects()
	b.ReportAllocs()
	for b.Loop() {
		w.PutEvent(e)
	}
}

func BenchmarkEventAppendJSON(b *testing.B) {
	e := aliceConnects()
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = e.AppendJSON(buf[:0])
	}
}
