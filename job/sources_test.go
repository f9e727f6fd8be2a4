package job_test

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/job/jobtest"
)

// A brokenSource gives up at once.
type brokenSource struct{ err error }

func (s brokenSource) Watch(context.Context, func(*job.Template)) error { return s.err }

func TestSourcesGoOnWithoutTheOneThatGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var one, two jobtest.Manual
		r := newRig(t, job.MakerOptions{}, job.Sources(&one, brokenSource{errors.New("wrong network")}, &two))
		require.Len(t, r.errs, 1)
		require.EqualError(t, r.errs[0], "job: template source 2 of 3: wrong network")
		require.EqualValues(t, 1, r.maker.Stats().DeadSource)
		one.Put(tip(100, 2))
		require.EqualValues(t, 100, r.next(t).Height)
		two.Put(tip(101, 2))
		require.EqualValues(t, 101, r.next(t).Height)
		r.end(t)
	})
}

// A burst is a source that puts many templates at once.
type burst int

func (n burst) Watch(ctx context.Context, put func(*job.Template)) error {
	for range n {
		put(&job.Template{})
	}
	<-ctx.Done()
	return nil
}

func TestSourcesPutOneAfterTheOther(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	calls := 0 // the race detector sees calls that overlap, and so does the sum
	err := job.Sources(burst(2000), burst(2000), burst(2000)).Watch(ctx, func(*job.Template) {
		if calls++; calls == 6000 {
			cancel()
		}
		seen := calls
		runtime.Gosched()
		if calls != seen {
			t.Error("calls to put overlap")
		}
	})
	require.NoError(t, err)
	require.Equal(t, 6000, calls)
}

func TestSourcesEndWhenAllGaveUp(t *testing.T) {
	for _, tt := range []struct {
		name   string
		source job.TemplateSource
		want   []string
	}{
		{"all broken", job.Sources(brokenSource{errors.New("wrong network")}, brokenSource{nil}),
			[]string{"source 1 of 2: wrong network", "source 2 of 2: it ended by itself"}},
		{"none at all", job.Sources(), []string{"no template source"}},
		{"one that is nil", job.Sources(new(jobtest.Manual), nil), []string{"source 2 of 2 is nil"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.source.Watch(t.Context(), func(*job.Template) {})
			for _, want := range tt.want {
				require.ErrorContains(t, err, want)
			}
		})
	}
}

// Two nodes on one bus keep the promises of one, while a third is broken.
func TestSourcesKeepThePromises(t *testing.T) {
	jobtest.TestSource(t, func(t *testing.T) jobtest.Node {
		var one, two jobtest.Manual
		height, transactions := int32(99), 0
		put := func() {
			tmpl := tip(height, transactions)
			tmpl.Bits, tmpl.CurTime = 0x207fffff, 1
			tmpl.Target = [4]uint64{3: 0x7fffff0000000000}
			if height%2 == 0 {
				one.Put(tmpl)
			} else {
				two.Put(tmpl)
			}
		}
		put()
		return jobtest.Node{
			Source:          job.Sources(&one, brokenSource{errors.New("wrong network")}, &two),
			NewBlock:        func(*testing.T) { height++; put() },
			NewTransactions: func(*testing.T) { transactions++; put() },
		}
	})
}
