package pebblestats_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stats"
	"github.com/poolkit/poolkit/stats/pebblestats"
	"github.com/poolkit/poolkit/stats/statstest"
	"github.com/stretchr/testify/require"
)

type silent struct{}

func (silent) Infof(string, ...any)         {}
func (silent) Errorf(string, ...any)        {}
func (silent) Fatalf(f string, args ...any) { panic(fmt.Sprintf(f, args...)) }

func openDB(t testing.TB, fs vfs.FS) *pebble.DB {
	db, err := pebble.Open("db", &pebble.Options{FS: fs, Logger: silent{}})
	require.NoError(t, err)
	return db
}

func TestStore(t *testing.T) {
	statstest.TestStore(t, func(t *testing.T) statstest.Backend {
		fs := vfs.NewCrashableMem()
		db := openDB(t, fs)
		s, err := pebblestats.New(db, nil)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, db.Close()) })
		return statstest.Backend{Store: s, Reopen: func(t *testing.T) stats.Store {
			// The clone holds only what was synced, which is what a power failure leaves.
			db := openDB(t, fs.CrashClone(vfs.CrashCloneCfg{}))
			t.Cleanup(func() { require.NoError(t, db.Close()) })
			s, err := pebblestats.New(db, nil)
			require.NoError(t, err)
			return s
		}}
	})
}

func TestOpen(t *testing.T) {
	dir := t.TempDir() + "/a/b"
	s, err := pebblestats.Open(dir, nil)
	require.NoError(t, err)
	require.NoError(t, s.Commit(t.Context(), &stats.Batch{Seq: 1, Position: []byte("here")}))
	_, err = pebblestats.Open(dir, nil)
	require.Error(t, err, "the folder is in use")
	require.NoError(t, s.Close())
	s, err = pebblestats.Open(dir, &pebblestats.Options{NoSync: true})
	require.NoError(t, err)
	st, err := s.State(t.Context())
	require.NoError(t, err)
	require.Equal(t, "here", string(st.Position))
	require.NoError(t, s.Close())
	_, err = pebblestats.Open("/dev/null/x", nil)
	require.ErrorContains(t, err, "pebblestats: open /dev/null/x")
}

func TestSchema(t *testing.T) {
	for name, c := range map[string]struct {
		key, val, msg string
	}{
		"a later layout":         {"stats/v", "poolkit stats 2", `"poolkit stats 2" and this program reads "poolkit stats 1"`},
		"something else's keys":  {"stats/zebra", "1", "no schema"},
		"other keys are no harm": {"sharelog/v", "1", ""},
	} {
		t.Run(name, func(t *testing.T) {
			db := openDB(t, vfs.NewMem())
			defer db.Close()
			require.NoError(t, db.Set([]byte(c.key), []byte(c.val), pebble.Sync))
			_, err := pebblestats.New(db, nil)
			if c.msg == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, pebblestats.ErrSchema)
			require.ErrorContains(t, err, c.msg)
		})
	}
}

func TestPrefixesAreApart(t *testing.T) {
	db := openDB(t, vfs.NewMem())
	defer db.Close()
	a, err := pebblestats.New(db, &pebblestats.Options{Prefix: "a/"})
	require.NoError(t, err)
	b, err := pebblestats.New(db, &pebblestats.Options{Prefix: "b/"})
	require.NoError(t, err)
	bucket := stats.Bucket{Key: stats.Key{UserID: 1}, Start: time.Unix(1e9, 0), Span: time.Second,
		Accepted: stats.Tally{Count: 1, Sum: 1}}
	require.NoError(t, a.Commit(t.Context(), &stats.Batch{
		Seq: 1, Buckets: []stats.Bucket{bucket}, Names: []stats.Name{{Name: "x"}},
	}))
	for range b.Buckets(t.Context(), stats.Query{}) {
		t.Fatal("b has a's bucket")
	}
	st, err := b.State(t.Context())
	require.NoError(t, err)
	require.Empty(t, st.Names)
	require.NoError(t, b.Close(), "Close leaves a database alone that New was given")
	require.NoError(t, a.Commit(t.Context(), &stats.Batch{Seq: 2, PruneBuckets: time.Unix(2e9, 0)}))
}

func TestRefusesWhatItCannotKeep(t *testing.T) {
	good := stats.Bucket{Start: time.Unix(1e9, 0), Span: time.Second}
	for name, change := range map[string]func(b *stats.Batch){
		"a span of a day":         func(b *stats.Batch) { b.Buckets[0].Span = 24 * time.Hour },
		"a span below a second":   func(b *stats.Batch) { b.Buckets[0].Span = time.Millisecond },
		"a start before 1970":     func(b *stats.Batch) { b.Buckets[0].Start = time.Unix(-1, 0) },
		"a start after 2106":      func(b *stats.Batch) { b.Buckets[0].Start = time.Unix(1<<32, 0) },
		"a total after 2106":      func(b *stats.Batch) { b.Totals = []stats.Total{{First: time.Unix(1<<32, 0)}} },
		"a round with a fraction": func(b *stats.Batch) { b.Rounds = []stats.Round{{Time: time.Unix(1e9, 5)}} },
	} {
		t.Run(name, func(t *testing.T) {
			db := openDB(t, vfs.NewMem())
			defer db.Close()
			s, err := pebblestats.New(db, nil)
			require.NoError(t, err)
			b := &stats.Batch{Seq: 1, Buckets: []stats.Bucket{good}}
			change(b)
			require.ErrorContains(t, s.Commit(t.Context(), b), "pebblestats: ")
			st, err := s.State(t.Context())
			require.NoError(t, err)
			require.Zero(t, st.Seq)
		})
	}
}

func TestCorruptRecordsAreNamed(t *testing.T) {
	for name, kv := range map[string][2]string{
		"total":      {"stats/t123412345678", "\xff"},
		"total key":  {"stats/t1", ""},
		"name key":   {"stats/n1", "x"},
		"round":      {"stats/r123412345678", "\xff"},
		"round key":  {"stats/r1", ""},
		"bucket":     {"stats/b12341234123456781212345678", "\x01"},
		"bucket key": {"stats/b1", "\x00\x00\x00"},
	} {
		t.Run(name, func(t *testing.T) {
			db := openDB(t, vfs.NewMem())
			defer db.Close()
			s, err := pebblestats.New(db, nil)
			require.NoError(t, err)
			require.NoError(t, db.Set([]byte(kv[0]), []byte(kv[1]), pebble.Sync))
			_, err = s.State(t.Context())
			for _, e := range s.Buckets(t.Context(), stats.Query{}) {
				err = e
			}
			require.ErrorIs(t, err, pebblestats.ErrCorrupt)
		})
	}
}

func Example() {
	dir, err := os.MkdirTemp("", "stats")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	store, err := pebblestats.Open(dir, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	agg, _ := stats.New(nil)
	position, err := agg.Restore(context.Background(), store)
	fmt.Printf("going on from %q, %v\n", position, err)

	flusher := stats.NewFlusher(agg, store, nil)
	shares := []share.Share{{UserID: 42, WorkerID: 1, Verdict: share.Accepted, Time: time.Now(), Difficulty: 16384}}
	agg.Apply(context.Background(), shares, []byte("byte 85"))
	fmt.Println(flusher.Flush(context.Background()))
	store.Close()

	store, _ = pebblestats.Open(dir, nil)
	defer store.Close()
	agg, _ = stats.New(nil)
	position, err = agg.Restore(context.Background(), store)
	fmt.Printf("going on from %q, %v\n", position, err)
	fmt.Println(agg.Snapshot(time.Now()).Pool.Accepted.Sum)
	// Output:
	// going on from "", <nil>
	// <nil>
	// going on from "byte 85", <nil>
	// 16384
}

func BenchmarkCommit(b *testing.B) {
	s, err := pebblestats.Open(b.TempDir(), nil)
	require.NoError(b, err)
	defer s.Close()
	const workers = 10_000
	batch := &stats.Batch{}
	for i := range workers {
		k := stats.Key{UserID: int32(i/10 + 1), WorkerID: int64(i + 1)}
		batch.Buckets = append(batch.Buckets, stats.Bucket{
			Key: k, Span: 10 * time.Second, Accepted: stats.Tally{Count: 2, Sum: 32768},
		})
		batch.Totals = append(batch.Totals, stats.Total{Key: k, AcceptCount: 100, LastShare: time.Unix(1713597568, 0)})
	}
	b.ReportAllocs()
	for b.Loop() {
		batch.Seq++
		for i := range batch.Buckets {
			batch.Buckets[i].Start = time.Unix(1713597560+10*int64(batch.Seq), 0)
		}
		require.NoError(b, s.Commit(b.Context(), batch))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/workers, "ns/worker")
}

func BenchmarkBuckets(b *testing.B) {
	s, err := pebblestats.Open(b.TempDir(), &pebblestats.Options{NoSync: true})
	require.NoError(b, err)
	defer s.Close()
	const batches, workers = 30, 10_000
	for seq := range batches {
		batch := &stats.Batch{Seq: uint64(seq + 1)}
		for i := range workers {
			k := stats.Key{UserID: int32(i/10 + 1), WorkerID: int64(i + 1)}
			start := time.Unix(1713597560+10*int64(seq), 0)
			batch.Buckets = append(batch.Buckets, stats.Bucket{
				Key: k, Start: start, Span: 10 * time.Second, Accepted: stats.Tally{Count: 2, Sum: 32768},
			})
		}
		require.NoError(b, s.Commit(b.Context(), batch))
	}
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for _, err := range s.Buckets(b.Context(), stats.Query{}) {
			require.NoError(b, err)
			n++
		}
		require.Equal(b, batches*workers, n)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/batches/workers, "ns/bucket")
}
