package job_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/job/jobtest"
)

func TestHub(t *testing.T) {
	jobtest.TestBroadcaster(t, func(*testing.T) jobtest.Bus {
		h := job.NewHub(nil)
		return jobtest.Bus{Broadcaster: h, Feed: h}
	})
}

// hubJob numbers jobs by height.
func hubJob(height int32, clean bool) *job.Job { return &job.Job{Height: height, Clean: clean} }

func TestHubSkipsToTheNewest(t *testing.T) {
	for _, tt := range []struct {
		name   string
		missed []bool // clean marks of jobs 1, 2, ... while the follower is busy with job 0
		clean  bool   // of the one it gets
		copied bool
	}{
		{"one job", []bool{false}, false, false},
		{"one clean job", []bool{true}, true, false},
		{"none clean", []bool{false, false, false}, false, false},
		{"a clean one skipped", []bool{true, false}, true, true},
		{"a clean one in the middle", []bool{false, true, false}, true, true},
		{"the newest clean", []bool{false, false, true}, true, false},
		{"all clean", []bool{true, true}, true, false},
		{"a clean one more jobs ago than are kept", append([]bool{true}, make([]bool, 200)...), true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := job.NewHub(nil)
				jobs, gate := make(chan *job.Job, 1), make(chan struct{})
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				require.NoError(t, h.Broadcast(ctx, hubJob(0, true)))
				go func() {
					ended <- h.Follow(ctx, 1, func(j *job.Job) { jobs <- j; <-gate })
				}()
				require.Zero(t, (<-jobs).Height)

				var newest *job.Job
				for i, clean := range tt.missed {
					newest = hubJob(int32(i+1), clean)
					require.NoError(t, h.Broadcast(ctx, newest))
				}
				marks := newest.Clean
				gate <- struct{}{}
				got := <-jobs
				require.EqualValues(t, len(tt.missed), got.Height)
				require.Equal(t, tt.clean, got.Clean)
				require.Equal(t, tt.copied, got != newest, "a job is copied to be marked, and only then")
				require.Equal(t, marks, newest.Clean, "the job itself is not touched")
				n := uint64(len(tt.missed))
				require.Equal(t, job.HubStats{Jobs: 1 + n, Skipped: n - 1, Followers: 1}, h.Stats())

				// What was skipped is made up for once.
				require.NoError(t, h.Broadcast(ctx, hubJob(1000, false)))
				gate <- struct{}{}
				require.False(t, (<-jobs).Clean)
				cancel()
				gate <- struct{}{}
				require.NoError(t, <-ended)
				require.Zero(t, h.Stats().Followers)
			})
		})
	}
}

func TestHubRemembers(t *testing.T) {
	for _, tt := range []struct {
		remember, sent, last, want int
	}{
		{0, 0, 5, 0},
		{0, 3, 5, 3},
		{0, 3, 0, 0},
		{0, 3, -1, 0},
		{0, 500, 500, 120},
		{-7, 500, 500, 120},
		{5, 500, 500, 120}, // a Hub keeps what the interface promises
		{200, 500, 500, 200},
		{200, 500, 1, 1},
	} {
		t.Run(fmt.Sprintf("%d of %d with room for %d", tt.last, tt.sent, tt.remember), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := job.NewHub(&job.HubOptions{Remember: tt.remember})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				for i := range tt.sent {
					require.NoError(t, h.Broadcast(ctx, hubJob(int32(i), false)))
				}
				var got []int32
				go func() { _ = h.Follow(ctx, tt.last, func(j *job.Job) { got = append(got, j.Height) }) }()
				synctest.Wait()
				require.Len(t, got, tt.want)
				for i, height := range got {
					require.EqualValues(t, tt.sent-tt.want+i, height)
				}
			})
		})
	}
}

func TestHubRefuses(t *testing.T) {
	h := job.NewHub(nil)
	require.ErrorContains(t, h.Broadcast(t.Context(), nil), "no job")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, h.Broadcast(ctx, hubJob(1, true)), context.Canceled)
	require.Zero(t, h.Stats().Jobs)
	require.ErrorContains(t, h.Follow(t.Context(), 1, nil), "no function")
}

// Followers come and go while jobs are sent.
func TestHubUnderLoad(t *testing.T) {
	h := job.NewHub(nil)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for ctx.Err() == nil {
				once, stop := context.WithCancel(ctx)
				last := int32(-1)
				err := h.Follow(once, 3, func(j *job.Job) {
					if j.Height <= last {
						t.Errorf("job %d came after %d", j.Height, last)
					}
					if last = j.Height; last%7 == 0 {
						stop()
					}
				})
				if err != nil {
					t.Error(err)
				}
				stop()
			}
		})
	}
	for i := range int32(5000) {
		require.NoError(t, h.Broadcast(ctx, hubJob(i, i%10 == 0)))
	}
	cancel()
	wg.Wait()
	require.Zero(t, h.Stats().Followers)
}

func ExampleHub() {
	hub := job.NewHub(nil)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	for height := int32(1); height <= 3; height++ {
		if err := hub.Broadcast(ctx, &job.Job{Height: height}); err != nil {
			fmt.Println(err)
		}
	}
	err := hub.Follow(ctx, 2, func(j *job.Job) {
		fmt.Println("job for height", j.Height)
		if j.Height == 3 {
			stop()
		}
	})
	fmt.Println("ended:", err, errors.Is(ctx.Err(), context.Canceled))
	// Output:
	// job for height 2
	// job for height 3
	// ended: <nil> true
}

// From one Broadcast until all followers have the job.
func BenchmarkHub(b *testing.B) {
	for _, followers := range []int{1, 10, 100} {
		b.Run(fmt.Sprintf("followers=%d", followers), func(b *testing.B) {
			h := job.NewHub(nil)
			ctx, cancel := context.WithCancel(b.Context())
			var running sync.WaitGroup
			got := make(chan struct{}, followers)
			require.NoError(b, h.Broadcast(ctx, hubJob(0, true)))
			for range followers {
				running.Go(func() { _ = h.Follow(ctx, 1, func(*job.Job) { got <- struct{}{} }) })
			}
			all := func() {
				for range followers {
					<-got
				}
			}
			all()
			j := hubJob(1, false)
			b.ReportAllocs()
			for b.Loop() {
				if err := h.Broadcast(ctx, j); err != nil {
					b.Fatal(err)
				}
				all()
			}
			cancel()
			running.Wait()
		})
	}
}
