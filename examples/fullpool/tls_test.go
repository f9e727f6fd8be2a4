package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum"
	"github.com/poolkit/poolkit/stratum/stratumtest"
	"github.com/stretchr/testify/require"
)

// dialTLS connects as a miner does that knows the pool's certificate, and returns the certificate it was shown.
func dialTLS(t testing.TB, addr, certFile string) (*tls.Conn, *x509.Certificate) {
	t.Helper()
	pem, err := os.ReadFile(certFile)
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(pem))
	conn, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: roots, ServerName: "localhost"})
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn, conn.ConnectionState().PeerCertificates[0]
}

// requireWork lets a miner log in on a connection and mine one share.
func requireWork(t testing.TB, conn net.Conn) *stratumtest.Miner {
	t.Helper()
	m := stratumtest.NewMiner(conn, nil)
	t.Cleanup(func() { m.Close() })
	require.NoError(t, m.Handshake(t.Context()))
	requireShare(t, m)
	return m
}

// requireShare has a miner mine one share. The pool may find a block meanwhile, which makes another one necessary.
func requireShare(t testing.TB, m *stratumtest.Miner) {
	t.Helper()
	for {
		j, err := m.NextJob(t.Context())
		require.NoError(t, err)
		s, err := m.Solve(t.Context(), j)
		require.NoError(t, err)
		r, err := m.Submit(t.Context(), s)
		require.NoError(t, err)
		if r.Code != share.JobNotFoundOrStale.Code() {
			require.NoError(t, r.Err())
			return
		}
	}
}

// greeting returns what the pool says to somebody who does not encrypt, and first sends what comes before.
func greeting(t testing.TB, addr string, before ...string) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, strings.Join(before, "")+`{"id":1,"method":"mining.subscribe","params":[]}`+"\n")
	require.NoError(t, err)
	line, _ := bufio.NewReader(conn).ReadString('\n')
	return line
}

// Without any flag a pool has a certificate of its own and serves miners with and without TLS on one port. Another port
// may be for one kind only.
func TestTLS(t *testing.T) {
	data := t.TempDir()
	p := start(t, "-data", data, "-mine", "0", "-tls-listen", "127.0.0.1:0", "-listen", "127.0.0.1:0,tls=off",
		"-diff", easy, "-notify-interval", "1s")
	m := p.log.await(t, `miners=stratum\+tcp://(\S+),stratum\+tcp://(\S+) statistics=\S+ tls=stratum\+ssl://(\S+),stratum\+ssl://(\S+)`, p.ended)
	both, off, only := m[1], m[2], m[4]
	require.Equal(t, both, m[3])
	cert := filepath.Join(data, "tls.crt")

	plain, err := net.Dial("tcp", both)
	require.NoError(t, err)
	requireWork(t, plain)
	for _, addr := range []string{both, only} {
		conn, _ := dialTLS(t, addr, cert)
		requireWork(t, conn)
	}
	require.Contains(t, greeting(t, both), `"result":[`)
	require.NotContains(t, greeting(t, only), `"result":[`)
	_, err = tls.Dial("tcp", off, &tls.Config{InsecureSkipVerify: true})
	require.Error(t, err)
	require.Contains(t, greeting(t, off), `"result":[`)
	require.Equal(t, 0, p.stop())

	// The next start shows the same certificate, for miners that hold on to it.
	before, err := os.ReadFile(cert)
	require.NoError(t, err)
	p = start(t, "-data", data, "-mine", "0")
	_, shown := dialTLS(t, p.miners, cert)
	require.Equal(t, 0, p.stop())
	after, err := os.ReadFile(cert)
	require.NoError(t, err)
	require.Equal(t, before, after)
	require.Contains(t, shown.DNSNames, "localhost")
}

// The CPU miner mines where its pool serves only those who encrypt, too.
func TestTheCPUMinerEncryptsWhereItHasTo(t *testing.T) {
	p := launch(t, "-listen", "127.0.0.1:0,tls=only", "-http", "127.0.0.1:0", "-data", t.TempDir())
	p.log.await(t, `msg="block accepted"`, p.ended)
	require.NotContains(t, p.log.String(), "level=WARN")
	require.Equal(t, 0, p.stop())
}

func TestWithoutTLSThereIsNone(t *testing.T) {
	data := t.TempDir()
	p := start(t, "-data", data, "-mine", "0", "-tls=false")
	_, err := tls.Dial("tcp", p.miners, &tls.Config{InsecureSkipVerify: true})
	require.Error(t, err)
	require.Contains(t, greeting(t, p.miners), `"result":[`)
	require.NoFileExists(t, filepath.Join(data, "tls.crt"))
	require.Equal(t, 0, p.stop())
}

// newCertificate replaces a certificate as certbot does.
func newCertificate(t testing.TB, cert, key string) {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, stratum.SelfSigned(filepath.Join(dir, "crt"), filepath.Join(dir, "key")))
	require.NoError(t, os.Rename(filepath.Join(dir, "key"), key))
	require.NoError(t, os.Rename(filepath.Join(dir, "crt"), cert))
}

// The difficulties of a port hold for those who come by it.
func TestPortsHaveDifficulties(t *testing.T) {
	p := launch(t, "-http", "127.0.0.1:0", "-data", t.TempDir(), "-mine", "0",
		"-listen", "127.0.0.1:0", "-listen", "127.0.0.1:0,diff=8,min-diff=2", "-diff", "4", "-min-diff", "4")
	m := p.log.await(t, `miners=stratum\+tcp://(\S+),stratum\+tcp://(\S+) `, p.ended)
	for i, test := range []struct {
		addr, password string
		want           float64
	}{{m[1], "x", 4}, {m[1], "d=2", 4}, {m[2], "x", 8}, {m[2], "d=2", 2}, {m[2], "d=1", 2}} {
		conn, err := stratumtest.Dial(t.Context(), test.addr, &stratumtest.MinerOptions{
			User: fmt.Sprintf("alice.rig%d", i), Password: test.password, // another machine, or it goes on where it was
		})
		require.NoError(t, err)
		require.NoError(t, conn.Handshake(t.Context()))
		j, err := conn.NextJob(t.Context())
		require.NoError(t, err)
		require.Equal(t, test.want, float64(j.Difficulty), fmt.Sprint(test))
		require.NoError(t, conn.Close())
	}
	require.Equal(t, 0, p.stop())
}
