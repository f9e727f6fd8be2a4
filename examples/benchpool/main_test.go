package main

import (
	"bufio"
	"context"
	"io"
	"regexp"
	"testing"

	"github.com/poolkit/poolkit/stratum/stratumtest"
	"github.com/stretchr/testify/require"
)

func TestAMinerFindsWork(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, []string{"-listen", "127.0.0.1:0", "-diff", "0.0000001", "-block-every", "1s"}, w)
		w.Close()
	}()
	line, err := bufio.NewReader(r).ReadString('\n')
	require.NoError(t, err)
	go io.Copy(io.Discard, r)
	addr := regexp.MustCompile(`tcp://(\S+),`).FindStringSubmatch(line)
	require.Len(t, addr, 2, line)

	m, err := stratumtest.Dial(ctx, addr[1], nil)
	require.NoError(t, err)
	defer m.Close()
	require.NoError(t, m.Handshake(ctx))
	first, err := m.NextJob(ctx)
	require.NoError(t, err)
	require.Len(t, first.Branch, 12)
	found, err := m.Solve(ctx, first)
	require.NoError(t, err)
	reply, err := m.Submit(ctx, found)
	require.NoError(t, err)
	require.NoError(t, reply.Err())
	next, err := m.NextJob(ctx)
	require.NoError(t, err)
	require.True(t, next.Clean)
	require.NotEqual(t, first.PrevHash, next.PrevHash)

	stop()
	require.NoError(t, <-done)
}

func TestMistakes(t *testing.T) {
	require.ErrorContains(t, run(t.Context(), []string{"-diff", "none"}, io.Discard), "-diff")
	require.Error(t, run(t.Context(), []string{"-listen", "nowhere"}, io.Discard))
}
