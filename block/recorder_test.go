package block_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/stretchr/testify/require"

	"github.com/poolkit/poolkit/block"
	"github.com/poolkit/poolkit/block/blocktest"
)

func openFile(t testing.TB, path string) *block.File {
	t.Helper()
	f, err := block.OpenFile(path, nil)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func TestRecorders(t *testing.T) {
	t.Run("Memory", func(t *testing.T) {
		blocktest.TestRecorder(t, func(t *testing.T) blocktest.RecorderBackend {
			return blocktest.RecorderBackend{Recorder: new(block.Memory)}
		})
	})
	t.Run("File", func(t *testing.T) {
		blocktest.TestRecorder(t, func(t *testing.T) blocktest.RecorderBackend {
			path := filepath.Join(t.TempDir(), "found.jsonl")
			f := openFile(t, path)
			return blocktest.RecorderBackend{
				Recorder: f,
				Reopen: func(t *testing.T) block.Recorder {
					require.NoError(t, f.Close())
					f = openFile(t, path)
					return f
				},
			}
		})
	})
}

func someFound(i int) *block.Found {
	return &block.Found{
		Chain: "btc", Hash: chainhash.DoubleHashH(fmt.Append(nil, i)), UserID: 42, WorkerName: "alice.rig1",
		Height: int32(i), Bits: 0x207fffff, Rewards: 50e8, Size: 300, CreatedAt: time.Unix(1700000000+int64(i), 0).UTC(),
	}
}

func foundList(t testing.TB, r block.Recorder, q block.Query) []block.Found {
	t.Helper()
	list, err := r.Found(context.Background(), q)
	require.NoError(t, err)
	return list
}

func TestFileSurvivesCuts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "found.jsonl")
	f := openFile(t, path)
	require.NoError(t, f.Record(t.Context(), someFound(1)))
	before, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, f.Record(t.Context(), someFound(2)))
	require.NoError(t, f.Close())
	whole, err := os.ReadFile(path)
	require.NoError(t, err)

	for n := range len(whole) + 1 {
		if near := min(max(n-len(before), len(before)-n), len(whole)-n, n); near > 3 && n%37 != 0 {
			continue
		}
		require.NoError(t, os.WriteFile(path, whole[:n], 0o644))
		f := openFile(t, path)
		want := 0
		switch {
		case n >= len(whole)-1: // a line that lacks its newline only is complete
			want = 2
		case n >= len(before)-1:
			want = 1
		}
		require.Len(t, foundList(t, f, block.Query{}), want, "cut after %d bytes", n)
		require.Zero(t, f.Damaged())
		require.NoError(t, f.Record(t.Context(), someFound(3)))
		require.NoError(t, f.Close())

		f = openFile(t, path)
		require.Len(t, foundList(t, f, block.Query{}), want+1, "cut after %d bytes", n)
		require.NoError(t, f.Close())
	}
}

func TestFileKeepsDamagedLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "found.jsonl")
	f := openFile(t, path)
	for i := range 3 {
		require.NoError(t, f.Record(t.Context(), someFound(i)))
	}
	require.NoError(t, f.Close())
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	parts := bytes.SplitAfter(b, []byte("\n"))
	parts[1][20] = 0xff
	parts[1][1] = '!'
	b = bytes.Join(parts, nil)
	require.NoError(t, os.WriteFile(path, b, 0o644))

	var log bytes.Buffer
	f, err = block.OpenFile(path, &block.FileOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	require.NoError(t, err)
	require.Len(t, foundList(t, f, block.Query{}), 2)
	require.Equal(t, 1, f.Damaged())
	require.Contains(t, log.String(), "damaged line")
	require.Contains(t, log.String(), fmt.Sprintf("offset=%d", len(parts[0])))
	require.NoError(t, f.Close())
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, b, after)
}

func TestFileCompacts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "found.jsonl")
	f := openFile(t, path)
	for i := range 2 {
		require.NoError(t, f.Record(t.Context(), someFound(i)))
	}
	require.NoError(t, f.Close())
	// As a pool that resubmits for months would leave it.
	var b bytes.Buffer
	for i := range 1200 {
		found := someFound(i % 2)
		found.Outcome, found.Reason = block.Accepted, fmt.Sprint("attempt ", i)
		line, err := json.Marshal(found)
		require.NoError(t, err)
		b.Write(append(line, '\n'))
	}
	require.NoError(t, os.WriteFile(path, b.Bytes(), 0o644))

	f = openFile(t, path)
	want := foundList(t, f, block.Query{})
	require.Len(t, want, 2)
	require.Equal(t, "attempt 1199", want[0].Reason)
	short, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, 2, bytes.Count(short, []byte("\n")))
	require.NoError(t, f.Record(t.Context(), someFound(2)))
	require.NoError(t, f.Close())
	f = openFile(t, path)
	require.Equal(t, want, foundList(t, f, block.Query{})[1:])
	require.Equal(t, []string{"found.jsonl", "found.jsonl.lock"}, ls(t, filepath.Dir(path)))
}

func TestFileWritesOnlyChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "found.jsonl")
	f := openFile(t, path)
	long := someFound(1)
	long.Outcome, long.Reason = block.Rejected, string(bytes.Repeat([]byte("é"), 5000))+"\xff"
	for range 3 {
		require.NoError(t, f.Record(t.Context(), long))
	}
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, 1, bytes.Count(b, []byte("\n")))
	require.Less(t, len(b), 3000)
	before := foundList(t, f, block.Query{})
	require.NoError(t, f.Close())
	require.Equal(t, before, foundList(t, openFile(t, path), block.Query{}))
}

func TestFileLocksAndCloses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "found.jsonl")
	f := openFile(t, path)
	_, err := block.OpenFile(path, nil)
	require.ErrorIs(t, err, block.ErrLocked)
	require.NoError(t, f.Close())
	require.NoError(t, f.Close())
	require.ErrorContains(t, f.Record(t.Context(), someFound(1)), "closed")
	_, err = f.Found(t.Context(), block.Query{})
	require.ErrorContains(t, err, "closed")
	_, err = block.OpenFile(filepath.Join(t.TempDir(), "no", "folder"), nil)
	require.ErrorContains(t, err, "block: open record file")
}

func TestFoundJSON(t *testing.T) {
	f := someFound(840000)
	f.WorkerID, f.JobID, f.Version = -911964159890136328, 7359845513065136129, 0x20000000
	f.Nonce = 4000000000
	f.State, f.Outcome, f.Reason = block.Orphaned, block.Stale, "inconclusive"
	f.FoundAt = f.CreatedAt
	b, err := json.Marshal(f)
	require.NoError(t, err)
	require.JSONEq(t, `{"chain":"btc","hash":"`+f.Hash.String()+`","puid":42,"worker_id":-911964159890136328,
		"worker_full_name":"alice.rig1","job_id":7359845513065136129,"height":840000,"is_orphaned":1,
		"prev_hash":"0000000000000000000000000000000000000000000000000000000000000000","bits":545259519,
		"version":536870912,"nonce":4000000000,"difficulty":0,"rewards":5000000000,"size":300,"state":"orphaned","outcome":"stale",
		"reason":"inconclusive","found_at":"2023-11-24T15:33:20Z","created_at":"2023-11-24T15:33:20Z"}`, string(b))
	var back block.Found
	require.NoError(t, json.Unmarshal(b, &back))
	require.Equal(t, *f, back)
	require.Error(t, json.Unmarshal([]byte(`{"state":"gone"}`), &back))
	require.Error(t, json.Unmarshal([]byte(`{"outcome":"gone"}`), &back))
}

func TestStateAndOutcomeNames(t *testing.T) {
	seen := map[string]bool{}
	for v := range 10 {
		s, o := block.State(v), block.Outcome(v)
		if b, err := s.MarshalText(); err == nil {
			var back block.State
			require.NoError(t, back.UnmarshalText(b))
			require.Equal(t, s, back)
			require.False(t, seen[string(b)])
			seen[string(b)] = true
		} else {
			require.Equal(t, fmt.Sprintf("state(%d)", v), s.String())
		}
		if b, err := o.MarshalText(); err == nil {
			var back block.Outcome
			require.NoError(t, back.UnmarshalText(b))
			require.Equal(t, o, back)
			require.False(t, seen[string(b)])
			seen[string(b)] = true
			require.Equal(t, o != block.Unsubmitted, o.Final())
		} else {
			require.Equal(t, fmt.Sprintf("outcome(%d)", v), o.String())
		}
	}
	require.Len(t, seen, 9)
}

func TestFileRefusesDevices(t *testing.T) {
	_, err := block.OpenFile(os.DevNull, nil)
	require.Error(t, err)
	_, err = block.OpenFile(t.TempDir(), nil)
	require.Error(t, err)
}

func BenchmarkFileRecord(b *testing.B) {
	f := openFile(b, filepath.Join(b.TempDir(), "found.jsonl"))
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		if err := f.Record(context.Background(), someFound(i)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMemoryFound(b *testing.B) {
	var m block.Memory
	for i := range 10_000 {
		if err := m.Record(context.Background(), someFound(i)); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		_, _ = m.Found(context.Background(), block.Query{States: []block.State{block.Candidate}, Limit: 50})
	}
}
