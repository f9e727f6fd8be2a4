package job_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/poolkit/poolkit/job"
	"github.com/stretchr/testify/require"
)

// A follower that is slow loses none of the chains.
func TestFeedsKeepChainsApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := job.NewHub(nil), job.NewHub(nil)
		ctx, stop := context.WithCancel(t.Context())
		got := make(chan *job.Job)
		done := make(chan error, 1)
		go func() {
			done <- job.Feeds{one, two}.Follow(ctx, 1, func(j *job.Job) { got <- j })
		}()
		synctest.Wait()
		mk := func(chain job.Chain, id job.ID) *job.Job {
			j := *workedJob(t)
			j.Chain, j.ID = chain, id
			return &j
		}
		for id := range job.ID(5) {
			require.NoError(t, one.Broadcast(ctx, mk("one", id+1)))
			require.NoError(t, two.Broadcast(ctx, mk("two", id+1)))
		}
		newest := make(map[job.Chain]job.ID)
		for newest["one"] < 5 || newest["two"] < 5 {
			j := <-got
			require.Greater(t, j.ID, newest[j.Chain])
			newest[j.Chain] = j.ID
		}
		stop()
		require.NoError(t, <-done)
	})
}

type brokenFeed struct{ err error }

func (f brokenFeed) Follow(context.Context, int, func(*job.Job)) error { return f.err }

func TestFeedsEndTogether(t *testing.T) {
	broken := errors.New("broken")
	err := job.Feeds{job.NewHub(nil), brokenFeed{broken}}.Follow(t.Context(), 1, func(*job.Job) {})
	require.ErrorIs(t, err, broken)
	require.NoError(t, job.Feeds{job.NewHub(nil), brokenFeed{}}.Follow(t.Context(), 1, func(*job.Job) {}))
	require.Error(t, job.Feeds{}.Follow(t.Context(), 1, func(*job.Job) {}))
	require.Error(t, job.Feeds{job.NewHub(nil)}.Follow(t.Context(), 1, nil))
}
