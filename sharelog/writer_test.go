package sharelog_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/share/sharetest"
	"github.com/poolkit/poolkit/sharelog"
	"github.com/poolkit/poolkit/sharelog/sharelogtest"
)

func openDir(t testing.TB, path string) *sharelog.Dir {
	t.Helper()
	d, err := sharelog.OpenDir(path, &sharelog.DirOptions{NoSync: true})
	require.NoError(t, err)
	return d
}

func TestDirIsALog(t *testing.T) {
	var open func(path string) (sharelogtest.Backend, error)
	open = func(path string) (sharelogtest.Backend, error) {
		d, err := sharelog.OpenDir(path, &sharelog.DirOptions{NoSync: true})
		return sharelogtest.Backend{Log: d, Reopen: func() (sharelogtest.Backend, error) {
			if err := d.Close(); err != nil {
				return sharelogtest.Backend{}, err
			}
			return open(path)
		}}, err
	}
	sharelogtest.TestLog(t, func(t *testing.T) sharelogtest.Backend {
		b, err := open(t.TempDir())
		require.NoError(t, err)
		return b
	})
	t.Run("behind Flaky", func(t *testing.T) {
		sharelogtest.TestLog(t, func(t *testing.T) sharelogtest.Backend {
			b, err := open(t.TempDir())
			require.NoError(t, err)
			return sharelogtest.Backend{Log: sharelogtest.NewFlaky(b.Log)}
		})
	})
}

func start(t testing.TB, run func(context.Context) error) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	return func() error { cancel(); return <-done }
}

// stallable is a Log whose Append waits while told to.
type stallable struct {
	sharelog.Log
	gate *sharetest.Flaky
}

func (s stallable) Append(ctx context.Context, shares []share.Share) error {
	return s.gate.Put(ctx, shares)
}

func TestWriterIsASink(t *testing.T) {
	var open func(t *testing.T, path string) sharetest.Backend
	open = func(t *testing.T, path string) sharetest.Backend {
		d := openDir(t, path)
		gate := sharetest.NewFlaky(share.SinkFunc(d.Append))
		w, err := sharelog.NewWriter(stallable{d, gate}, &sharelog.WriterOptions{MaxQueue: 5000, MaxBatch: 700})
		require.NoError(t, err)
		stop := start(t, w.Run)
		stopped := false
		quit := func() error {
			if stopped {
				return nil
			}
			stopped = true
			gate.Heal()
			return errors.Join(stop(), d.Close())
		}
		t.Cleanup(func() { require.NoError(t, quit()) })
		return sharetest.Backend{
			Sink: w,
			Shares: func() ([]share.Share, error) {
				if err := w.Flush(t.Context()); err != nil {
					return nil, err
				}
				return all(t, d), nil
			},
			Stall: func() func() { gate.Block(); return gate.Heal },
			Reopen: func() (sharetest.Backend, error) {
				err := quit() // without a Flush: stopping writes what is left
				return open(t, path), err
			},
		}
	}
	sharetest.TestSink(t, func(t *testing.T) sharetest.Backend { return open(t, t.TempDir()) })
}

func all(t testing.TB, log sharelog.Log) []share.Share {
	t.Helper()
	m := new(sharetest.Memory)
	_, err := sharelog.Replay(context.Background(), log, sharelog.Position{}, m, nil)
	require.NoError(t, err)
	return m.Shares()
}

// at returns share i with the time of the clock, in whole seconds as records keep it.
func at(i int, now time.Time) share.Share {
	s := sharetest.Numbered(i)
	s.Time = time.Unix(now.Unix(), 0).UTC()
	return s
}

func TestWriterWritesWithinTwoSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := openDir(t, t.TempDir())
		w, err := sharelog.NewWriter(d, &sharelog.WriterOptions{MaxBatch: 100})
		require.NoError(t, err)
		stop := start(t, w.Run)
		n := 0
		put := func(k int) {
			for range k {
				require.NoError(t, w.Put(t.Context(), []share.Share{at(n, time.Now())}))
				n++
			}
		}
		for range 50 { // one share every 300 ms, for 15 s: none is older than 2 s and not in the file
			put(1)
			time.Sleep(300 * time.Millisecond)
			synctest.Wait()
			require.GreaterOrEqual(t, len(all(t, d)), n-5)
		}
		require.LessOrEqual(t, d.Stats().Members, uint64(10), "and they are written together")
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
		require.Len(t, all(t, d), n)
		put(100)
		synctest.Wait()
		require.Len(t, all(t, d), n, "a full batch does not wait")
		put(7)
		require.NoError(t, stop())
		require.Len(t, all(t, d), n, "nor is anything left at the end")
		require.ErrorIs(t, w.Put(t.Context(), []share.Share{at(n, time.Now())}), share.ErrStopped)
		require.Equal(t, uint64(n), w.Stats().Delivered)
		require.NoError(t, d.Close())
	})
}

func TestWriterKeepsSharesWhileTheLogFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := openDir(t, t.TempDir())
		log := sharelogtest.NewFlaky(d)
		w, err := sharelog.NewWriter(log, &sharelog.WriterOptions{MaxQueue: 10, Interval: -1})
		require.NoError(t, err)
		stop := start(t, w.Run)
		log.FailNext(-1, errors.New("no space left on device"))
		var want []share.Share
		for i := range 10 {
			want = append(want, at(i, time.Now()))
			require.NoError(t, w.Put(t.Context(), want[i:]))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		require.ErrorIs(t, w.Put(ctx, want[:1]), context.DeadlineExceeded, "a full queue waits")
		cancel()
		require.Equal(t, 10, w.Stats().Queued)
		log.FailNext(0, nil)
		require.NoError(t, w.Flush(t.Context()))
		require.Equal(t, want, all(t, d))
		require.NoError(t, stop())
		require.NoError(t, d.Close())
	})
}

// A batch of several days of which only some could be written must not be written again as a whole.
func TestWriterWritesNothingTwiceAfterAPartialFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := openDir(t, t.TempDir())
		log := sharelogtest.NewFlaky(d)
		w, err := sharelog.NewWriter(log, nil)
		require.NoError(t, err)
		stop := start(t, w.Run)
		log.FailPartly(2, errors.New("no space left on device"))
		midnight := sharelog.DayOf(time.Now()).Start()
		var want []share.Share
		for i := range 30 { // three days, mixed
			want = append(want, at(i, midnight.AddDate(0, 0, -(i%3)).Add(-time.Hour)))
		}
		require.NoError(t, w.Put(t.Context(), want))
		require.NoError(t, w.Flush(t.Context()))
		require.Equal(t, 3, log.Calls())
		require.NoError(t, stop())
		seen := map[share.ID]int{}
		for _, s := range all(t, d) {
			seen[s.ID()]++
		}
		require.Len(t, seen, 30)
		for _, s := range want {
			require.Equal(t, 1, seen[s.ID()])
		}
		require.Equal(t, uint64(30), d.Stats().Shares)

		require.NoError(t, d.Close())
	})
}

func TestWriterRefusesSharesFromTheFuture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := openDir(t, t.TempDir())
		w, err := sharelog.NewWriter(d, nil)
		require.NoError(t, err)
		stop := start(t, w.Run)
		now := time.Now()
		batch := []share.Share{at(0, now), at(1, now.Add(time.Minute)), at(2, now.Add(61*time.Second)), at(3, now)}
		err = w.Put(t.Context(), batch)
		require.True(t, share.OnlyInvalid(err))
		require.ErrorContains(t, err, "share 2 of 4")
		require.NoError(t, stop())
		require.Equal(t, []share.Share{batch[0], batch[1], batch[3]}, all(t, d))
		require.NoError(t, d.Close())
	})
	_, err := sharelog.NewWriter(nil, nil)
	require.ErrorContains(t, err, "no log")
	_, err = sharelog.NewWriter(openDir(t, t.TempDir()), &sharelog.WriterOptions{MaxQueue: -1})
	require.ErrorContains(t, err, "MaxQueue")
}

func TestTailDeliversWhatIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := openDir(t, t.TempDir())
		log := sharelogtest.NewFlaky(d)
		w, err := sharelog.NewWriter(log, nil)
		require.NoError(t, err)
		stopWriter := start(t, w.Run)

		var counted []share.Share
		var saved sharelog.Position
		deliver := func(_ context.Context, shares []share.Share, next sharelog.Position) error {
			counted, saved = append(counted, shares...), next
			return nil
		}
		newTail := func() (*sharelog.Tail, func() error) {
			tail, err := sharelog.NewTail(d, saved, deliver, nil)
			require.NoError(t, err)
			return tail, start(t, tail.Run)
		}
		tail, stopTail := newTail()
		var want []share.Share
		put := func(s share.Share) {
			want = append(want, s)
			require.NoError(t, w.Put(t.Context(), []share.Share{s}))
		}
		// Over two midnights, restarting now and then, with a log that fails over the second one.
		time.Sleep(time.Until((sharelog.DayOf(time.Now()) + 1).Start().Add(-time.Minute)))
		for i := range 2 * 24 * 15 {
			put(at(i, time.Now()))
			time.Sleep(4 * time.Minute)
			if i%100 == 0 {
				synctest.Wait()
				require.NoError(t, stopTail())
				require.Equal(t, saved, tail.Position())
				tail, stopTail = newTail()
			}
			switch i {
			case 350:
				log.FailNext(-1, errors.New("no space left on device"))
			case 380:
				log.FailNext(0, nil)
			}
		}
		require.NoError(t, stopWriter())
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.NoError(t, stopTail())
		require.Equal(t, len(want), len(counted))
		seen := map[share.ID]bool{}
		for _, s := range counted {
			require.False(t, seen[s.ID()], "counted twice")
			seen[s.ID()] = true
		}
		require.NoError(t, d.Close())
	})
}

func TestTailRepeatsADeliveryThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := openDir(t, t.TempDir())
		require.NoError(t, d.Append(t.Context(), sharetest.Numbers(0, 25)))
		var calls, stored []sharelog.Position
		m := new(sharetest.Memory)
		tail, err := sharelog.NewTail(d, sharelog.Position{},
			func(ctx context.Context, shares []share.Share, next sharelog.Position) error {
				if calls = append(calls, next); len(calls)%3 != 0 {
					return errors.New("database is locked")
				}
				stored = append(stored, next)
				return m.Put(ctx, shares)
			}, &sharelog.TailOptions{Batch: 10})
		require.NoError(t, err)
		stop := start(t, tail.Run)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.NoError(t, stop())
		require.Equal(t, sharetest.Numbers(0, 25), m.Shares())
		require.Equal(t, []int{10, 10, 5}, m.Batches())
		require.Len(t, calls, 9)
		require.Equal(t, calls[0], calls[2])
		require.Equal(t, stored[2], tail.Position())
		require.ErrorContains(t, tail.Run(t.Context()), "has run")
		require.NoError(t, d.Close())
	})
}

// What is in the log when a tail is told to stop is delivered all the same, if it is given the time.
func TestTailGoesOnToTheEndWhenItStops(t *testing.T) {
	for _, tt := range []struct {
		name string
		stop time.Duration
		want int
	}{
		{"with time to stop", time.Second, 25},
		{"without", 0, 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := openDir(t, t.TempDir())
				require.NoError(t, d.Append(t.Context(), sharetest.Numbers(0, 5)))
				m := new(sharetest.Memory)
				put := func(ctx context.Context, shares []share.Share, _ sharelog.Position) error { return m.Put(ctx, shares) }
				tail, err := sharelog.NewTail(d, sharelog.Position{}, put,
					&sharelog.TailOptions{Poll: time.Hour, Batch: 4, StopTimeout: tt.stop})
				require.NoError(t, err)
				stop := start(t, tail.Run)
				time.Sleep(time.Minute)
				synctest.Wait()
				require.Len(t, m.Shares(), 5)
				require.NoError(t, d.Append(t.Context(), sharetest.Numbers(5, 25)))
				require.NoError(t, stop())
				require.Equal(t, sharetest.Numbers(0, tt.want), m.Shares())

				// The next one goes on where this one ended.
				tail, err = sharelog.NewTail(d, tail.Position(), put, nil)
				require.NoError(t, err)
				stop = start(t, tail.Run)
				time.Sleep(time.Minute)
				require.NoError(t, stop())
				require.Equal(t, sharetest.Numbers(0, 25), m.Shares())
				require.NoError(t, d.Close())
			})
		})
	}
}

type unreadable struct {
	sharelog.Log
	fails int
}

func (u *unreadable) Scan(from sharelog.Position, to sharelog.Day) (sharelog.Cursor, error) {
	if u.fails--; u.fails >= 0 {
		return nil, errors.New("stale file handle")
	}
	return u.Log.Scan(from, to)
}

func TestTailGivesUpAfterTooManyErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := openDir(t, t.TempDir())
		deliver := func(context.Context, []share.Share, sharelog.Position) error { return nil }
		tail, err := sharelog.NewTail(&unreadable{d, 5}, sharelog.Position{}, deliver, nil)
		require.NoError(t, err)
		stop := start(t, tail.Run)
		time.Sleep(time.Hour)
		require.NoError(t, stop(), "five in a row are borne")

		tail, err = sharelog.NewTail(&unreadable{d, 6}, sharelog.Position{}, deliver, nil)
		require.NoError(t, err)
		begin := time.Now()
		require.ErrorContains(t, tail.Run(t.Context()), "stale file handle")
		require.Equal(t, 25*time.Second, time.Since(begin))

		_, err = sharelog.NewTail(nil, sharelog.Position{}, nil, &sharelog.TailOptions{Batch: -1, Poll: -1})
		require.ErrorContains(t, err, "needs a log")
		require.ErrorContains(t, err, "Batch -1")
		require.ErrorContains(t, err, "Poll -1")
		require.NoError(t, d.Close())
	})
}

func TestTailPassesOverDamage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := openDir(t, t.TempDir())
		day := sharelog.DayOf(sharetest.Numbered(0).Time)
		for i := range 3 {
			require.NoError(t, d.Append(t.Context(), sharetest.Numbers(10*i, 10*i+10)))
		}
		b, err := os.ReadFile(d.Path(day))
		require.NoError(t, err)
		b[len(b)/2] ^= 0x55
		require.NoError(t, os.WriteFile(d.Path(day), b, 0o644))
		m := new(sharetest.Memory)
		var damage []*sharelog.DamageError
		tail, err := sharelog.NewTail(d, sharelog.Position{},
			func(ctx context.Context, s []share.Share, _ sharelog.Position) error { return m.Put(ctx, s) },
			&sharelog.TailOptions{OnDamage: func(e *sharelog.DamageError) { damage = append(damage, e) }})
		require.NoError(t, err)
		stop := start(t, tail.Run)
		time.Sleep(time.Minute)
		require.NoError(t, stop())
		require.Equal(t, append(sharetest.Numbers(0, 10), sharetest.Numbers(20, 30)...), m.Shares())
		require.Len(t, damage, 1)
		require.NoError(t, d.Close())
	})
}

// TestKilled runs a writer in a process of its own and kills it, again and again in the same folder. What it has said
// to be flushed must be there, everything at most once, and nothing damaged.
func TestKilled(t *testing.T) {
	if path := os.Getenv("SHARELOG_TEST_KILL"); path != "" {
		writeUntilKilled(path)
		return
	}
	path := t.TempDir()
	next := 0
	for round := range 6 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), "SHARELOG_TEST_KILL="+path, "SHARELOG_TEST_NEXT="+strconv.Itoa(next))
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		flushed := next
		lines := bufio.NewScanner(out)
		for n := 0; n < 20+7*round && lines.Scan(); n++ {
			s, ok := strings.CutPrefix(lines.Text(), "flushed ")
			require.True(t, ok, lines.Text())
			flushed, err = strconv.Atoi(s)
			require.NoError(t, err)
		}
		require.NoError(t, cmd.Process.Kill())
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()
		require.Greater(t, flushed, next)

		d := openDir(t, path)
		count := map[uint32]int{}
		for _, s := range all(t, d) {
			count[s.Nonce]++
		}
		for i := range flushed {
			require.Equal(t, 1, count[sharetest.Numbered(i).Nonce], "round %d, share %d", round, i)
		}
		for nonce, n := range count {
			require.Equal(t, 1, n, "share %x", nonce)
		}
		next = 0 // the first one that is missing: the killed process may have written more than it could say
		for count[sharetest.Numbered(next).Nonce] == 1 {
			next++
		}
		require.Equal(t, len(count), next, "no gaps")
		require.NoError(t, d.Close())
	}
}

func writeUntilKilled(path string) {
	d, err := sharelog.OpenDir(path, &sharelog.DirOptions{NoSync: true})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	w, err := sharelog.NewWriter(d, &sharelog.WriterOptions{Interval: -1, MaxBatch: 50})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	go w.Run(context.Background())
	ctx := context.Background()
	next, _ := strconv.Atoi(os.Getenv("SHARELOG_TEST_NEXT"))
	for i := next; ; i += 30 {
		if err := w.Put(ctx, sharetest.Numbers(i, i+30)); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		if i/30%3 == 0 {
			if err := w.Flush(ctx); err != nil {
				fmt.Println(err)
				os.Exit(1)
			}
			fmt.Println("flushed", i+30)
		}
	}
}

func ExampleReplay() {
	path, err := os.MkdirTemp("", "sharelog")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(path)
	dir, err := sharelog.OpenDir(filepath.Join(path, "btc"), &sharelog.DirOptions{ChainTag: "BTC"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer dir.Close()

	ctx := context.Background()
	s := share.Share{
		JobID: 0x66236c8000000001, WorkerID: share.Worker{Name: "rig1"}.ID(), UserID: 42, Verdict: share.Accepted,
		Time: time.Unix(1713597568, 0), IP: netip.MustParseAddr("10.1.2.3"), Difficulty: 16384, Bits: 0x17034219,
		Height: 840000, Nonce: 0x12345678,
	}
	if err := dir.Append(ctx, []share.Share{s}); err != nil {
		fmt.Println(err)
	}
	sums := share.SinkFunc(func(_ context.Context, shares []share.Share) error {
		for _, s := range shares {
			fmt.Println("user", s.UserID, "difficulty", s.Difficulty)
		}
		return nil
	})
	next, err := sharelog.Replay(ctx, dir, sharelog.Position{}, sums, nil)
	fmt.Println(next.Day, err)
	// Output:
	// user 42 difficulty 16384
	// 2024-04-20 <nil>
}
