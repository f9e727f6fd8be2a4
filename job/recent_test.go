package job_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/poolkit/poolkit/job"
)

var recentStart = time.Unix(1713597568, 0)

// recentJob is a job made at the given second after the start, on a tip of a name of one letter.
func recentJob(second int, height int32, tip byte) *job.Job {
	return &job.Job{ID: job.ID(uint64(recentStart.Unix()+int64(second))<<32 | 1), Height: height, PrevHash: job.Hash{tip}}
}

func after(d time.Duration) time.Time { return recentStart.Add(d) }

func TestRecentCleanAndStale(t *testing.T) {
	type added struct {
		height int32
		tip    byte
		clean  bool
	}
	for _, tt := range []struct {
		name   string
		jobs   []added // one a second
		states string  // of each at the end: c current, s stale
	}{
		{"the first job is clean", []added{{100, 'a', true}}, "c"},
		{"jobs of one tip", []added{{100, 'a', true}, {100, 'a', false}, {100, 'a', false}}, "ccc"},
		{"a block is found", []added{{100, 'a', true}, {100, 'a', false}, {101, 'b', true}, {101, 'b', false}}, "sscc"},
		{"two blocks", []added{{100, 'a', true}, {101, 'b', true}, {102, 'c', true}}, "ssc"},
		{"another block of the same height", []added{{100, 'a', true}, {100, 'b', true}}, "sc"},
		{"a lower height from a node that lags", []added{{101, 'b', true}, {100, 'a', false}}, "cc"},
		{"and the way back", []added{{101, 'b', true}, {100, 'a', false}, {101, 'b', true}}, "csc"},
		{"a tip that comes back", []added{{100, 'a', true}, {100, 'b', true}, {100, 'a', true}}, "csc"},
		{"a block after a lower height", []added{{101, 'b', true}, {100, 'a', false}, {102, 'c', true}}, "ssc"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := job.NewRecent(nil)
			var jobs []*job.Job
			for i, a := range tt.jobs {
				j := recentJob(i, a.height, a.tip)
				j.Clean = !a.clean // the mark of the job itself is not asked
				clean, err := r.Add(j, after(time.Duration(i)*time.Second))
				require.NoError(t, err)
				require.Equal(t, a.clean, clean, "job %d", i)
				require.Same(t, j, r.Latest())
				jobs = append(jobs, j)
			}
			now := after(time.Minute)
			for i, j := range jobs {
				got, stale, err := r.Get(j.ID, now)
				require.NoError(t, err)
				require.Same(t, j, got)
				require.Equal(t, tt.states[i] == 's', stale, "job %d", i)
				want := job.Current
				if stale {
					want = job.Stale
				}
				require.Equal(t, want, r.State(j, now), "job %d", i)
				marked := *j
				marked.Clean = true
				require.Equal(t, want, r.State(&marked, now), "a copy is the same job")
			}
		})
	}
}

func TestRecentLifetime(t *testing.T) {
	r := job.NewRecent(nil)
	old, last := recentJob(0, 100, 'a'), recentJob(10, 100, 'a')
	for _, j := range []*job.Job{old, last} {
		_, err := r.Add(j, j.ID.Time())
		require.NoError(t, err)
	}
	require.Equal(t, job.Current, r.State(old, after(299999*time.Millisecond)))
	require.Equal(t, job.Expired, r.State(old, after(300*time.Second)))
	_, _, err := r.Get(old.ID, after(299999*time.Millisecond))
	require.NoError(t, err)
	_, _, err = r.Get(old.ID, after(300*time.Second))
	require.ErrorIs(t, err, job.ErrUnknownJob)

	// The last one stays, whatever its age, until there is another.
	require.Equal(t, job.Current, r.State(last, after(time.Hour)))
	require.Same(t, last, r.Latest())
	next := recentJob(3600, 100, 'a')
	_, err = r.Add(next, after(time.Hour))
	require.NoError(t, err)
	require.Equal(t, job.Expired, r.State(last, after(time.Hour)))
	require.Equal(t, job.Expired, r.State(old, recentStart), "forgotten, not only out of time")
}

func TestRecentRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		j    *job.Job
		now  time.Duration
		want error
	}{
		{"a job of a minute ago is in time", recentJob(1, 101, 'b'), 61*time.Second + 999*time.Millisecond, nil},
		{"a job of more than a minute ago", recentJob(1, 101, 'b'), 62 * time.Second, job.ErrLateJob},
		{"an id that is known", recentJob(0, 101, 'b'), time.Second, job.ErrDuplicateJob},
		{"a job from before the last one", recentJob(-5, 101, 'b'), time.Second, nil},
		{"a job from a clock that is ahead", recentJob(30, 101, 'b'), time.Second, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := job.NewRecent(nil)
			first := recentJob(0, 100, 'a')
			_, err := r.Add(first, recentStart)
			require.NoError(t, err)
			clean, err := r.Add(tt.j, after(tt.now))
			require.ErrorIs(t, err, tt.want)
			if tt.want == nil {
				require.True(t, clean)
				require.Same(t, tt.j, r.Latest())
				require.Equal(t, job.Stale, r.State(first, after(tt.now)))
				return
			}
			require.False(t, clean)
			require.Same(t, first, r.Latest(), "nothing has changed")
			require.Equal(t, job.Current, r.State(first, after(tt.now)))
		})
	}
	r := job.NewRecent(nil)
	_, err := r.Add(nil, recentStart)
	require.ErrorContains(t, err, "no job")
	require.Nil(t, r.Latest())
	_, _, err = r.Get(1, recentStart)
	require.ErrorIs(t, err, job.ErrUnknownJob)
	require.Equal(t, job.Expired, r.State(recentJob(0, 1, 'a'), recentStart))
}

func TestRecentOptions(t *testing.T) {
	r := job.NewRecent(&job.RecentOptions{Lifetime: 10 * time.Second, MaxDelay: 5 * time.Second, MaxJobs: 3})
	for i := range 8 {
		_, err := r.Add(recentJob(i, 100, 'a'), after(time.Duration(i)*time.Second))
		require.NoError(t, err)
	}
	now := after(7 * time.Second)
	for i := range 8 {
		want := job.Expired
		if i >= 5 {
			want = job.Current
		}
		require.Equal(t, want, r.State(recentJob(i, 100, 'a'), now), "job %d of 3 that are kept", i)
	}
	require.Equal(t, job.Expired, r.State(recentJob(5, 100, 'a'), after(15*time.Second)))
	_, err := r.Add(recentJob(9, 100, 'a'), after(15*time.Second))
	require.ErrorIs(t, err, job.ErrLateJob)

	// The last job stays even where its ID is the lowest.
	low := recentJob(8, 101, 'b')
	low.ID -= 4 << 32
	r = job.NewRecent(&job.RecentOptions{MaxJobs: 1})
	for _, j := range []*job.Job{recentJob(6, 100, 'a'), low} {
		_, err := r.Add(j, after(7*time.Second))
		require.NoError(t, err)
	}
	require.Equal(t, job.Current, r.State(low, now))
	require.Equal(t, job.Expired, r.State(recentJob(6, 100, 'a'), now))
}

// Shares ask while jobs come.
func TestRecentUnderLoad(t *testing.T) {
	r := job.NewRecent(nil)
	_, err := r.Add(recentJob(0, 0, 0), recentStart)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				j := r.Latest()
				// Between the two calls a newer job may have come, so that this one is stale, but it is never unknown.
				if r.State(j, j.ID.Time()) == job.Expired {
					t.Errorf("job %d is the latest, and unknown", j.ID)
				}
				if _, _, err := r.Get(j.ID, j.ID.Time()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := 1; i < 2000; i++ {
		_, err := r.Add(recentJob(i/20, int32(i/5), byte(i/5)), after(time.Duration(i/20)*time.Second))
		if i%20 == 0 {
			require.NoError(t, err)
		} else {
			require.ErrorIs(t, err, job.ErrDuplicateJob)
		}
	}
	cancel()
	wg.Wait()
}

// fullRecent holds jobs as a pool that runs for a day does, one in 20 s.
func fullRecent(t testing.TB) (*job.Recent, []*job.Job, time.Time) {
	r := job.NewRecent(nil)
	var jobs []*job.Job
	for i := range 15 {
		j := recentJob(20*i, int32(100+i/10), byte(i/10))
		_, err := r.Add(j, j.ID.Time())
		require.NoError(t, err)
		jobs = append(jobs, j)
	}
	return r, jobs, jobs[14].ID.Time()
}

func TestRecentAllocatesNothing(t *testing.T) {
	r, jobs, now := fullRecent(t)
	i := 0
	if n := testing.AllocsPerRun(100, func() {
		r.State(jobs[i%15], now)
		_, _, _ = r.Get(jobs[i%15].ID, now)
		_, _, _ = r.Get(1, now)
		i++
	}); n != 0 {
		t.Errorf("State and Get allocate %v times, want 0", n)
	}
}

func ExampleRecent() {
	r := job.NewRecent(nil)
	now := time.Unix(1713597568, 0)
	ids := job.IDs{Maker: 1}
	for _, tip := range []byte{'a', 'a', 'b'} {
		j := &job.Job{ID: ids.Next(now), Height: int32(tip), PrevHash: job.Hash{tip}}
		clean, err := r.Add(j, now)
		fmt.Println("clean:", clean, err)
		now = now.Add(time.Second)
	}
	_, stale, err := r.Get(7359845513065136129, now)
	fmt.Println("the first one is stale:", stale, err)
	_, _, err = r.Get(7359845513065136129, now.Add(5*time.Minute))
	fmt.Println("five minutes later:", err)
	// Output:
	// clean: true <nil>
	// clean: false <nil>
	// clean: true <nil>
	// the first one is stale: true <nil>
	// five minutes later: job: unknown job
}

func BenchmarkRecentState(b *testing.B) {
	r, jobs, now := fullRecent(b)
	for _, bench := range []struct {
		name string
		j    *job.Job
		want job.State
	}{
		{"newest", jobs[14], job.Current},
		{"stale", jobs[0], job.Stale},
		{"unknown", recentJob(999, 1, 'x'), job.Expired},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if r.State(bench.j, now) != bench.want {
					b.Fatal("wrong state")
				}
			}
		})
	}
}

func BenchmarkRecentAdd(b *testing.B) {
	r := job.NewRecent(nil)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		j := recentJob(i*20, 100, 'a')
		if _, err := r.Add(j, j.ID.Time()); err != nil {
			b.Fatal(err)
		}
	}
}
