package switcher_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/switcher"
	"github.com/poolkit/poolkit/switcher/switchertest"
	"github.com/stretchr/testify/require"
)

func TestMemory(t *testing.T) {
	switchertest.TestDirectory(t, func(t *testing.T) switchertest.Backend {
		m := switcher.NewMemory("a", "b")
		return switchertest.Backend{Directory: m, Set: m.Set}
	})
}

func TestMemoryRefusesWhatItCannotKeep(t *testing.T) {
	m := switcher.NewMemory("btc")
	require.ErrorIs(t, m.Set("alice", "doge"), switcher.ErrUnknownChain)
	require.ErrorIs(t, m.Set("", "btc"), switcher.ErrUnknownUser)
	_, err := m.Chain(t.Context(), "alice")
	require.ErrorIs(t, err, switcher.ErrUnknownUser)
}

func TestMemoryReportsTheLatestOfSeveralChanges(t *testing.T) {
	m := switcher.NewMemory("a", "b", "c")
	ctx, cancel := context.WithCancel(t.Context())
	entered, resume := make(chan struct{}), make(chan struct{})
	got := make(chan job.Chain, 8)
	done := make(chan error)
	first := true
	go func() {
		done <- m.Watch(ctx, func(user string, chain job.Chain) {
			if user == "probe" {
				if first {
					first = false
					close(entered)
					<-resume
				}
				return
			}
			got <- chain
		})
	}()
	// Watch holds on to the first report while alice changes three times.
	for i := 0; ; i++ {
		require.NoError(t, m.Set("probe", []job.Chain{"a", "b"}[i%2]))
		select {
		case <-entered:
		default:
			continue
		}
		break
	}
	for _, c := range []job.Chain{"a", "b", "c"} {
		require.NoError(t, m.Set("alice", c))
	}
	close(resume)
	require.Equal(t, job.Chain("c"), <-got)
	cancel()
	require.NoError(t, <-done)
	require.Empty(t, got)
}

func ExampleMemory() {
	users := switcher.NewMemory("btc", "bch")
	if err := users.Set("alice", "bch"); err != nil {
		fmt.Println(err)
	}
	chain, _ := users.Chain(context.Background(), "alice")
	fmt.Println(chain)
	_, err := users.Chain(context.Background(), "bob")
	fmt.Println(errors.Is(err, switcher.ErrUnknownUser))
	// Output:
	// bch
	// true
}
