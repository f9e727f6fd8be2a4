package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum"
	"github.com/poolkit/poolkit/stratum/stratumtest"
	"github.com/stretchr/testify/require"
)

func login(t testing.TB, addr string, opts *stratumtest.MinerOptions) (*stratumtest.Miner, error) {
	t.Helper()
	m, err := stratumtest.Dial(t.Context(), addr, opts)
	require.NoError(t, err)
	t.Cleanup(func() { m.Close() })
	return m, m.Handshake(t.Context())
}

// What Prometheus reads is what has happened.
func TestMetrics(t *testing.T) {
	p := start(t, "-data", t.TempDir(), "-mine", "0", "-diff", easy, "-server-id", "9")
	m, err := login(t, p.miners, nil)
	require.NoError(t, err)
	j, err := m.NextJob(t.Context())
	require.NoError(t, err)
	s, err := m.Solve(t.Context(), j)
	require.NoError(t, err)
	for _, ok := range []bool{true, false} { // the same share twice
		r, err := m.Submit(t.Context(), s)
		require.NoError(t, err)
		require.Equal(t, ok, r.Accepted)
	}
	text := metrics(t, p)
	for _, line := range []string{
		"sserver_identity 9",
		`sserver_sessions_total{chain="default",status="authenticated"} 1`,
		`sserver_shares_total{chain="default",status="duplicate_share"} 1`,
		fmt.Sprintf(`sserver_last_job_broadcast_height{chain="default"} %v`, p.get("/api/stats")["nodes"].([]any)[0].(map[string]any)["height"]),
		"sserver_connections_total 1",
	} {
		require.Contains(t, text, "\n"+line+"\n")
	}
	require.Contains(t, text, "\ngo_goroutines ")
	require.Contains(t, text, "\nprocess_open_fds ")
	require.Regexp(t, `(?m)^sserver_shares_total\{chain="default",status="share_accepted(_and_solved)?"\} 1$`, text)
	_, code := p.tryGet("/api/stats")
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, 0, p.stop())
}

// Who may mine stands in a list on the web, and what they mine is credited as the names say.
func TestUsersOfAList(t *testing.T) {
	list := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("last_id") == "0" {
			io.WriteString(w, `{"err_no":0,"err_msg":null,"data":{"Alice":7}}`)
		} else {
			io.WriteString(w, `{"err_no":0,"err_msg":null,"data":{}}`)
		}
	}))
	defer list.Close()
	data := t.TempDir()
	p := start(t, "-data", data, "-mine", "0", "-diff", easy, "-users-url", list.URL, "-user-suffix", "_", "-single-user", "pool:77")
	_, err := login(t, p.miners, &stratumtest.MinerOptions{User: "mallory.rig"})
	require.ErrorContains(t, err, share.InvalidUsername.String())
	m, err := login(t, p.miners, &stratumtest.MinerOptions{User: "alice_bch.rig"})
	require.NoError(t, err)
	requireShare(t, m)
	require.Equal(t, 0, p.stop())
	shares := readShares(t, data)
	require.Len(t, shares, 1)
	require.Equal(t, int32(77), shares[0].UserID)
	require.Equal(t, int32(7), shares[0].ExtUserID)
	require.FileExists(t, filepath.Join(data, "users.json"))
}

// Balancers say whom they speak for, and nobody else may.
func TestBalancersSpeakForMiners(t *testing.T) {
	data := t.TempDir()
	events := filepath.Join(data, "events")
	p := start(t, "-data", data, "-mine", "0", "-diff", easy, "-proxies", "127.0.0.1", "-events", events)
	conn, err := net.Dial("tcp", p.miners)
	require.NoError(t, err)
	_, err = io.WriteString(conn, "PROXY TCP4 192.0.2.7 192.0.2.1 4000 3333\r\n")
	require.NoError(t, err)
	requireWork(t, conn)
	_, err = login(t, p.miners, nil)
	require.Error(t, err, "without a header")
	require.Equal(t, 0, p.stop())
	b, err := os.ReadFile(events)
	require.NoError(t, err)
	require.Contains(t, string(b), `"ip":"192.0.2.7"`)

	p = start(t, "-data", t.TempDir(), "-mine", "0", "-proxies", "192.0.2.0/24")
	_, err = login(t, p.miners, nil)
	require.NoError(t, err)
	require.NotContains(t, greeting(t, p.miners, "PROXY TCP4 192.0.2.7 192.0.2.1 4000 3333\r\n"), `"result":[`)
	require.Equal(t, 0, p.stop())
}

// The wider mask holds for the jobs, for what miners are told, and for what they may submit.
func TestMinersRollTheBitsThatTheMaskSays(t *testing.T) {
	for _, test := range []struct {
		arg  string
		mask uint32
	}{{"bip320", job.DefaultVersionMask}, {"bip323", stratum.BIP323VersionMask}, {"00ffe000", 0x00ffe000}} {
		p := start(t, "-data", t.TempDir(), "-mine", "0", "-diff", easy, "-version-mask", test.arg, "-extranonce2-size", "4")
		m, err := login(t, p.miners, &stratumtest.MinerOptions{VersionMask: 0xffffffff})
		require.NoError(t, err)
		j, err := m.NextJob(t.Context())
		require.NoError(t, err)
		require.Equal(t, test.mask, j.VersionMask, test.arg)
		require.Zero(t, j.Version&test.mask, test.arg)
		require.Equal(t, 4, j.Extranonce2Size)
		s, err := m.Solve(t.Context(), j)
		require.NoError(t, err)
		r, err := m.Submit(t.Context(), s)
		require.NoError(t, err)
		require.NoError(t, r.Err())
		require.Equal(t, 0, p.stop())
	}
}

// Who sends nothing but rubbish is cut off, unless nobody is to be.
func TestBansCanBeTurnedOff(t *testing.T) {
	for _, test := range []struct {
		args []string
		cut  bool
	}{
		{nil, true},
		{[]string{"-ban=false"}, false},
		{[]string{"-ban=false", "-ban-percent", "40"}, true},
	} {
		p := start(t, append([]string{"-data", t.TempDir(), "-mine", "0", "-diff", easy}, test.args...)...)
		m, err := login(t, p.miners, nil)
		require.NoError(t, err)
		j, err := m.NextJob(t.Context())
		require.NoError(t, err)
		s, err := m.Solve(t.Context(), j)
		require.NoError(t, err)
		for range 1100 { // two windows of the same share
			if _, err = m.Submit(t.Context(), s); err != nil {
				break
			}
		}
		require.Equal(t, test.cut, err != nil, "%q: %v", test.args, err)
		require.Equal(t, 0, p.stop())
	}
}

func TestAffordable(t *testing.T) {
	for _, tt := range []struct {
		name                  string
		sessions, descriptors int
		want                  int
		fewer                 bool
	}{
		{"the default fits", 0, 16256, 0, false},
		{"the default does not", 0, 16255, 15999, true},
		{"no limit but that of the descriptors", -1, 1 << 20, 1<<20 - 256, true},
		{"a number that fits", 100, 1024, 100, false},
		{"a number that does not", 1000, 1024, 768, true},
		{"hardly any descriptors", 1000, 64, 32, true},
		{"descriptors that nobody counts", -1, 0, -1, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, fewer := affordable(tt.sessions, tt.descriptors)
			require.Equal(t, tt.want, got)
			require.Equal(t, tt.fewer, fewer)
		})
	}
}
