package main

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/poolkit/poolkit/internal/testnode"
	"github.com/stretchr/testify/require"
)

// A node's password may stand in its URL. Neither the log nor the statistics, which everybody can read, may repeat it.
func TestThePasswordOfANodeIsNotPublished(t *testing.T) {
	node := testnode.Start(t, nil)
	access := node.Node()
	u, err := url.Parse(access.URL)
	require.NoError(t, err)
	u.User = url.UserPassword(access.User, access.Pass)
	p := start(t, "-data", t.TempDir(), "-node", u.String(), "-node-cert", access.CertFile,
		"-address", testnode.Address().String(), "-log-level", "debug")
	p.log.await(t, `msg="job sent"`, p.ended)

	published := map[string]string{}
	for _, path := range []string{"/", "/api/stats"} {
		resp, err := http.Get(p.web + path)
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, http.StatusOK, resp.StatusCode, path)
		published[path] = string(body)
	}
	require.Contains(t, published["/api/stats"], `"name":"node https://`+u.Host+`"`)
	require.Equal(t, 0, p.stop())
	published["log"] = p.log.String()
	secret := strings.TrimPrefix(u.User.String(), access.User+":")
	for where, text := range published {
		require.NotContains(t, text, secret, where)
		require.NotContains(t, text, access.Pass, where)
	}
}
