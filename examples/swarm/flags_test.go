package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBadFlagsAreOneSentenceThatNamesTheFlag(t *testing.T) {
	junk := filepath.Join(t.TempDir(), "junk.pem")
	require.NoError(t, os.WriteFile(junk, []byte("junk"), 0o600))
	for _, test := range []struct{ name, args, says string }{
		{"no port", "-pool localhost", "-pool"},
		{"port out of range", "-pool localhost:99999", "-pool"},
		{"no host", "-pool :3333", "-pool"},
		{"no connections", "-conns 0", "-conns"},
		{"negative connections", "-conns -1", "-conns"},
		{"too many connections", "-conns 2000000", "-conns"},
		{"not a number", "-conns many", "-conns"},
		{"negative rate", "-rate -1", "-rate"},
		{"a rate that is not one", "-rate NaN", "-rate"},
		{"an endless rate", "-rate Inf", "-rate"},
		{"rate and in flight", "-rate 1 -inflight 2", "-inflight"},
		{"a total and an inflight", "-total-rate 1 -inflight 2", "-total-rate"},
		{"a total that is none", "-total-rate -1", "-total-rate"},
		{"more in flight than may be", "-inflight 20 -max-pending 10", "-max-pending"},
		{"pending out of range", "-max-pending 0", "-max-pending"},
		{"no time", "-for 0s", "-for"},
		{"negative drain", "-drain -1s", "-drain"},
		{"two kinds of shares", "-fast -real", "-fast or -real"},
		{"no kind of shares", "-fast=false", "-fast or -real"},
		{"a verb that is not ours", "-user a.%s", "-user"},
		{"two numbers in a name", "-user %d.%d", "-user"},
		{"no user", "-user=", "-user"},
		{"a source that is none", "-source here", "-source"},
		{"certificates without TLS", "-ca x.pem", "-tls"},
		{"insecure without TLS", "-insecure", "-tls"},
		{"trust and no trust", "-tls -insecure -ca x.pem", "-ca"},
		{"certificates that are not there", "-tls -ca /nonexistent/x.pem", "-ca"},
		{"certificates that are none", "-tls -ca " + junk, "-ca"},
		{"workers of no agent", "-workers 5", "-agents"},
		{"too many workers", "-agents 1 -workers 65536", "-workers"},
		{"too many lanes", "-lanes 33", "-lanes"},
		{"a process that is none", "-pid x", "-pid"},
		{"a curve that is none", "-curve 10,0", "-curve"},
		{"a curve and a number", "-curve 10 -conns 5", "-curve"},
		{"a curve as JSON", "-curve 10 -json", "-curve"},
		{"blocks of nobody", "-block-every 1s", "-block-cmd"},
		{"a word that is no flag", "127.0.0.1:3333", "127.0.0.1:3333"},
		{"an unknown flag", "-nothing", "-nothing"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			require.Equal(t, 2, Main(t.Context(), strings.Fields(test.args), &stdout, &stderr))
			require.Contains(t, stderr.String(), test.says)
			require.True(t, strings.HasPrefix(stderr.String(), "swarm: "), stderr.String())
			require.Equal(t, 1, strings.Count(stderr.String(), "\n"), stderr.String())
			require.Empty(t, stdout.String())
		})
	}
}

func TestHelpExplainsEveryFlag(t *testing.T) {
	var stdout, stderr bytes.Buffer
	require.Equal(t, 0, Main(t.Context(), []string{"-h"}, &stdout, &stderr))
	require.Contains(t, stderr.String(), "swarm puts load on")
	require.Contains(t, stderr.String(), "-block-cmd command")
}

func TestDefaults(t *testing.T) {
	c, err := parse(nil, io.Discard)
	require.NoError(t, err)
	require.Equal(t, 100, c.conns)
	require.False(t, c.real)
	require.True(t, c.rolling)
	require.Positive(t, c.lanes)
	c, err = parse(strings.Fields("-real -pid 1,2 -source 127.0.0.2,127.0.0.3 -curve 1,20"), io.Discard)
	require.NoError(t, err)
	require.True(t, c.real)
	require.Equal(t, []int{1, 2}, c.pids)
	require.Equal(t, []int{1, 20}, c.curve)
	require.Len(t, c.sources, 2)
}

func TestMoreDescriptorsThanThereAre(t *testing.T) {
	err := needDescriptors(1 << 30)
	require.ErrorContains(t, err, "1073741824 connections need")
	require.NoError(t, needDescriptors(10))
}

func TestMorePortsThanThereAre(t *testing.T) {
	if err := needPorts(1<<20, 1); err != nil {
		require.ErrorContains(t, err, "-source")
	} else {
		t.Skip("this system does not tell its range of ports")
	}
	require.NoError(t, needPorts(1<<20, 1<<20))
}
