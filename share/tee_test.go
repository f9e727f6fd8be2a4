package share_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/share/sharetest"
)

func TestTeeIsASink(t *testing.T) {
	for i, name := range []string{"seen by the first", "seen by the last"} {
		t.Run(name, func(t *testing.T) {
			sharetest.TestSink(t, func(*testing.T) sharetest.Backend {
				m := [2]sharetest.Memory{}
				return sharetest.Backend{Sink: share.Tee(&m[0], nil, &m[1]),
					Shares: func() ([]share.Share, error) { return m[i].Shares(), nil }}
			})
		})
	}
}

func TestMemoryIsASink(t *testing.T) {
	sharetest.TestSink(t, func(*testing.T) sharetest.Backend {
		m := new(sharetest.Memory)
		return sharetest.Backend{Sink: m, Shares: func() ([]share.Share, error) { return m.Shares(), nil }}
	})
}

func TestFlakyIsASink(t *testing.T) {
	sharetest.TestSink(t, func(*testing.T) sharetest.Backend {
		m := new(sharetest.Memory)
		f := sharetest.NewFlaky(m)
		return sharetest.Backend{Sink: f, Shares: func() ([]share.Share, error) { return m.Shares(), nil },
			Stall: func() func() { f.Block(); return f.Heal }}
	})
}

func TestTeeSkipsNoSinkWhenOthersFail(t *testing.T) {
	errFirst, errLast := errors.New("disk full"), errors.New("no route to host")
	a, b, c := new(sharetest.Memory), new(sharetest.Memory), new(sharetest.Memory)
	first, last := sharetest.NewFlaky(a), sharetest.NewFlaky(c)
	tee := share.Tee(first, b, last)

	first.FailNext(2, errFirst)
	last.LoseReplies(1, errLast)
	err := tee.Put(t.Context(), sharetest.Numbers(0, 3))
	require.ErrorIs(t, err, errFirst)
	require.ErrorIs(t, err, errLast)
	require.ErrorContains(t, err, "sink 0 (*sharetest.Flaky): disk full")
	require.ErrorContains(t, err, "sink 2 (*sharetest.Flaky): no route")
	require.Len(t, a.Shares(), 0)
	require.Len(t, b.Shares(), 3)
	require.Len(t, c.Shares(), 3)

	err = tee.Put(t.Context(), sharetest.Numbers(3, 4))
	require.ErrorIs(t, err, errFirst)
	require.NotErrorIs(t, err, errLast)
	require.NoError(t, tee.Put(t.Context(), sharetest.Numbers(4, 5)))
	require.Len(t, b.Shares(), 5)
}

func TestTeeOfNothingAcceptsAll(t *testing.T) {
	require.NoError(t, share.Tee().Put(t.Context(), sharetest.Numbers(0, 3)))
	require.NoError(t, share.Tee(nil).Put(t.Context(), sharetest.Numbers(0, 3)))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, share.Tee().Put(ctx, nil), context.Canceled)
}

func TestTeeAllocatesNothing(t *testing.T) {
	discard := share.SinkFunc(func(context.Context, []share.Share) error { return nil })
	tee, shares := share.Tee(discard, discard), sharetest.Numbers(0, 4)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if err := tee.Put(context.Background(), shares); err != nil {
			t.Fatal(err)
		}
	}))
}
