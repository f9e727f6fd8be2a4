package stratum_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum"
	"github.com/stretchr/testify/require"
)

// The tests in this file are about what comes before the first request: TLS, PROXY protocol headers, and the rules of
// the port.

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// A tlsPair is what both ends of a TLS connection need.
type tlsPair struct {
	config *tls.Config // of the server
	roots  *x509.CertPool
}

func newTLS(t *testing.T) tlsPair {
	t.Helper()
	cert, roots := certificate(t, "pool.example")
	return tlsPair{&tls.Config{Certificates: []tls.Certificate{cert}}, roots}
}

// overTLS speaks TLS on a connection, whoever the server is.
func overTLS(t testing.TB, conn net.Conn) *client {
	t.Helper()
	return newClient(t, tls.Client(conn, &tls.Config{InsecureSkipVerify: true}))
}

// verified speaks TLS with a server that roots trusts.
func (p tlsPair) verified(t testing.TB, conn net.Conn) *client {
	t.Helper()
	return newClient(t, tls.Client(conn, &tls.Config{RootCAs: p.roots, ServerName: "pool.example"}))
}

// pieces is a connection on which every byte is written by itself.
type pieces struct{ net.Conn }

func (p pieces) Write(b []byte) (int, error) {
	for i := range b {
		if _, err := p.Conn.Write(b[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}

// mines logs in, submits a share, and sees a new block.
func (c *client) mines(p *pool, height int32) {
	c.t.Helper()
	before := p.credited()
	id, n := c.start("alice.rig")
	require.Equal(c.t, "true", c.submit(c.solve(id, n, easy, 0, false)))
	require.Equal(c.t, before+1, p.credited())
	p.broadcast(height, hardBits)
	id, n = c.notify()
	require.True(c.t, n.Clean)
	require.Equal(c.t, "true", c.submit(c.solve(id, n, easy, 0, false)))
}

func TestOnePortSpeaksTLSAndPlain(t *testing.T) {
	pair := newTLS(t)
	p, addr := listen(t, stratum.Options{}, stratum.Port{TLS: pair.config})
	plain, secret := connect(t, addr), pair.verified(t, connect(t, addr).conn)
	plain.start("bob.rig")
	secret.mines(p, 101)
	_, n := plain.notify()
	require.True(t, n.Clean)
	inPieces := pair.verified(t, pieces{connect(t, addr).conn})
	inPieces.mines(p, 102)

	slowly := newClient(t, pieces{connect(t, addr).conn})
	slowly.mines(p, 103)

	old := tls.Client(connect(t, addr).conn, &tls.Config{RootCAs: pair.roots, ServerName: "pool.example", MaxVersion: tls.VersionTLS12})
	newClient(t, old).mines(p, 104)
	for _, c := range []*client{plain, secret, inPieces, slowly} {
		require.NoError(t, c.conn.Close())
	}
	require.NoError(t, old.Close())
	p.empty()
}

// TestTLSMinersLeaveNothing connects over TLS and ends in every way, some in the middle of the handshake.
func TestTLSMinersLeaveNothing(t *testing.T) {
	pair := newTLS(t)
	leavesNothing(t, func() {
		p, addr := listen(t, stratum.Options{}, stratum.Port{TLS: pair.config})
		for i := range 40 {
			c := connect(t, addr)
			switch i % 4 {
			case 0:
				pair.verified(t, c.conn).start("alice.rig")
			case 1: // says goodbye
				secret := pair.verified(t, c.conn)
				secret.start("alice.rig")
				require.NoError(t, secret.conn.Close())
				continue
			case 2: // does not trust the pool
				require.Error(t, tls.Client(c.conn, &tls.Config{ServerName: "other.example"}).HandshakeContext(t.Context()))
			case 3: // half a hello
				_, err := io.WriteString(c.conn, "\x16\x03\x01\x02\x00\x01\x00")
				require.NoError(t, err)
			}
			if i%8 < 4 {
				c.reset()
			} else {
				require.NoError(t, c.conn.Close())
			}
		}
		p.empty()
		require.NoError(t, p.stop())
	})
}

func TestAPortThatRequiresTLS(t *testing.T) {
	pair := newTLS(t)
	p, addr := listen(t, stratum.Options{}, stratum.Port{TLS: pair.config, RequireTLS: true})
	for _, first := range []string{loginLines, "{", "\n"} {
		c := connect(t, addr)
		_, err := io.WriteString(c.conn, first)
		require.NoError(t, err)
		require.Equal(t, `{"id":null,"result":null,"error":[20,"this port speaks TLS only: use stratum+ssl://",null]}`, c.line(), "%q", first)
		c.ended()
	}
	pair.verified(t, connect(t, addr).conn).mines(p, 101)
	require.Equal(t, int64(0), p.server.Stats().Verdicts[share.Unauthorized])
}

// TestAListenerOfTLSItself is package tls's own listener, whose connections have no descriptor to wait for.
func TestAListenerOfTLSItself(t *testing.T) {
	pair := newTLS(t)
	p := newPool(t, stratum.Options{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- p.server.Serve(ctx, tls.NewListener(ln, pair.config)) }()
	p.broadcast(100, hardBits)
	p.ready()
	c := pair.verified(t, connect(t, ln.Addr().String()).conn)
	c.mines(p, 101)
	for s := range p.server.Sessions {
		require.Equal(t, "127.0.0.1", s.Remote().Addr().String())
	}
	plain := connect(t, ln.Addr().String())
	plain.send(`{"id":1,"method":"mining.subscribe","params":[]}`)
	<-plain.discard()
	cancel()
	require.NoError(t, <-served)
}

func TestACertificateIsReloadedUnderOpenConnections(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	// issue puts a new pair in place and returns who trusts it.
	issue := func() tlsPair {
		require.NoError(t, os.RemoveAll(certFile))
		require.NoError(t, os.RemoveAll(keyFile))
		require.NoError(t, stratum.SelfSigned(certFile, keyFile, "pool.example"))
		text, err := os.ReadFile(certFile)
		require.NoError(t, err)
		roots := x509.NewCertPool()
		require.True(t, roots.AppendCertsFromPEM(text))
		return tlsPair{roots: roots}
	}
	first := issue()
	cert, err := stratum.OpenCertificate(certFile, keyFile, nil)
	require.NoError(t, err)
	p, addr := listen(t, stratum.Options{}, stratum.Port{TLS: cert.TLSConfig()})
	old := first.verified(t, connect(t, addr).conn)
	old.mines(p, 101)

	second := issue()
	require.NoError(t, cert.Reload())
	second.verified(t, connect(t, addr).conn).mines(p, 102)
	_, n := old.notify()
	require.True(t, n.Clean, "the open connection is still there")
	old.send(`{"id":3,"method":"mining.ping"}`)
	require.Contains(t, old.line(), "pong")
	require.ErrorContains(t, first.verified(t, connect(t, addr).conn).conn.(*tls.Conn).HandshakeContext(t.Context()), "x509")

	require.NoError(t, os.WriteFile(certFile, []byte("nonsense"), 0o600))
	require.Error(t, cert.Reload())
	second.verified(t, connect(t, addr).conn).mines(p, 103)
}

// proxyV2 is a header of version 2 for TCP over IPv4 with a TLV that nobody knows.
func proxyV2(src netip.AddrPort) string {
	b := []byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x10")
	addr := src.Addr().As4()
	b = append(append(b, addr[:]...), 192, 0, 2, 1)
	b = binary.BigEndian.AppendUint16(b, src.Port())
	b = binary.BigEndian.AppendUint16(b, 3333)
	return string(append(b, 0xe0, 0, 1, 'x'))
}

func TestProxyHeadersOfTrustedPeers(t *testing.T) {
	src := netip.MustParseAddrPort("203.0.113.7:56324")
	pair := newTLS(t)
	for _, test := range []struct {
		name, header string
		want         string // "" is the peer itself
	}{
		{"version 1", "PROXY TCP4 203.0.113.7 192.0.2.1 56324 3333\r\n", src.String()},
		{"version 1, IPv6", "PROXY TCP6 2001:db8::7 2001:db8::1 56324 3333\r\n", "[2001:db8::7]:56324"},
		{"version 1 of unknown origin", "PROXY UNKNOWN\r\n", ""},
		{"version 2", proxyV2(src), src.String()},
		{"version 2 of the balancer itself", "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00", ""},
	} {
		for _, way := range []struct {
			name string
			tls  bool
			slow bool
		}{{name: "plain"}, {name: "plain in single bytes", slow: true}, {name: "TLS", tls: true}, {name: "TLS in single bytes", tls: true, slow: true}} {
			t.Run(test.name+", "+way.name, func(t *testing.T) {
				met := make(chan string, 1)
				p, addr := listen(t, stratum.Options{Hooks: stratum.Hooks{
					Connected: func(s *stratum.Session) { met <- s.Remote().String() },
				}}, stratum.Port{TLS: pair.config, TrustedProxies: loopback})
				tcp := connect(t, addr).conn
				conn, want := tcp, test.want
				if want == "" {
					want = tcp.LocalAddr().String()
				}
				if way.slow {
					conn = pieces{conn}
				}
				_, err := io.WriteString(conn, test.header)
				require.NoError(t, err)
				c := newClient(t, conn)
				if way.tls {
					c = pair.verified(t, conn)
				}
				c.mines(p, 101)
				require.Equal(t, want, <-met, "the hook is called with the miner's address")
				for s := range p.server.Sessions {
					require.Equal(t, want, s.Remote().String())
				}
				for _, s := range p.recorded() {
					require.Equal(t, netip.MustParseAddrPort(want).Addr(), s.IP)
				}
			})
		}
	}
}

// TestAProxyHeaderAndRequestsInOneSegment is a balancer that writes the header together with the miner's first bytes.
func TestAProxyHeaderAndRequestsInOneSegment(t *testing.T) {
	_, addr := listen(t, stratum.Options{}, stratum.Port{TrustedProxies: loopback})
	c := connect(t, addr)
	_, err := io.WriteString(c.conn, "PROXY TCP4 203.0.113.7 192.0.2.1 56324 3333\r\n"+loginLines)
	require.NoError(t, err)
	require.Contains(t, c.line(), `"id":1`)
	require.Contains(t, c.line(), `"id":2`)
}

// TestProxyHeadersThatAreNotTaken: a header from somebody who is not trusted is no Stratum, a trusted balancer must send
// one, and only one; nobody chooses an address of his own.
func TestProxyHeadersThatAreNotTaken(t *testing.T) {
	const header = "PROXY TCP4 203.0.113.7 192.0.2.1 56324 3333\r\n"
	elsewhere := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	for _, test := range []struct {
		name    string
		trusted []netip.Prefix
		first   string
	}{
		{"version 1 from a stranger", elsewhere, header + loginLines},
		{"version 2 from a stranger", elsewhere, proxyV2(netip.MustParseAddrPort("203.0.113.7:1")) + loginLines},
		{"version 1 where nobody is trusted", nil, header + loginLines},
		{"none from a balancer", loopback, loginLines},
		{"two from a balancer", loopback, header + header + loginLines},
		{"one after a request", loopback, loginLines + header},
		{"one that is broken", loopback, "PROXY TCP4 203.0.113.7 192.0.2.1 56324\r\n" + loginLines},
		{"one without end", loopback, "PROXY TCP4 " + strings.Repeat("1", 200)},
	} {
		t.Run(test.name, func(t *testing.T) {
			var remotes lockedBuffer
			_, addr := listen(t, stratum.Options{Hooks: stratum.Hooks{
				Authorized: func(s *stratum.Session) { fmt.Fprintln(&remotes, s.Remote()) },
			}}, stratum.Port{TrustedProxies: test.trusted})
			c := connect(t, addr)
			_, err := io.WriteString(c.conn, test.first)
			require.NoError(t, err)
			<-c.discard()
			require.Empty(t, remotes.String())
		})
	}
}

// TestMinersBehindABalancerAreToldApart limits connections by the miner's own address. The balancer is this machine,
// which would have no limits.
func TestMinersBehindABalancerAreToldApart(t *testing.T) {
	var log lockedBuffer
	p, addr := listen(t, stratum.Options{
		Limits: stratum.Limits{MaxPerAddress: 2},
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
	}, stratum.Port{TrustedProxies: loopback})
	through := func(from string) *client {
		c := connect(t, addr)
		_, err := fmt.Fprintf(c.conn, "PROXY TCP4 %s 192.0.2.1 56324 3333\r\n", from)
		require.NoError(t, err)
		return c
	}
	one, two := through("203.0.113.7"), through("203.0.113.7")
	one.start("alice.rig1")
	two.start("alice.rig2")
	third := through("203.0.113.7")
	require.Equal(t, `{"id":null,"result":null,"error":[20,"2 connections from your address are open, the most allowed",null]}`, third.line())
	third.ended()
	through("203.0.113.8").start("bob.rig")
	require.Equal(t, int64(1), p.server.Stats().Limits.RefusedFull)
	require.NoError(t, one.conn.Close())
	require.Eventually(t, func() bool { return p.server.Stats().Sessions == 2 }, patience, time.Millisecond)
	through("203.0.113.7").start("alice.rig1")
}

func TestPortsHaveDifficultiesOfTheirOwn(t *testing.T) {
	p := newPool(t, stratum.Options{
		StartDifficulty: 1024, MinDifficulty: 64,
		NewPolicy: func(*stratum.Session) difficulty.Policy { return nil }, // vardiff
	})
	p.broadcast(100, hardBits)
	ports := []struct {
		port              stratum.Port
		start, low, login string // what a miner is given: as it comes, who asks for 0.001, who asks for "d=128"
	}{
		{stratum.Port{}, "1024", "64", "128"},
		{stratum.Port{StartDifficulty: 0.5, MinDifficulty: 0.25}, "0.5", "0.25", "128"},
		{stratum.Port{StartDifficulty: 65536}, "65536", "64", "128"},
		{stratum.Port{StartDifficulty: 524288, MinDifficulty: 524288}, "524288", "524288", "524288"},
		{stratum.Port{MinDifficulty: 4096}, "4096", "4096", "4096"},
	}
	listeners := make([]net.Listener, len(ports))
	for i := range ports {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		ports[i].port.Listener = ln
		listeners[i] = &ports[i].port
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- p.server.Serve(ctx, listeners...) }()
	p.ready()
	for i, port := range ports {
		for password, want := range map[string]string{"x": port.start, "d=0.001": port.low, "d=128": port.login} {
			c := connect(t, port.port.Addr().String())
			c.send(`{"id":1,"method":"mining.subscribe","params":[]}`)
			c.line()
			c.send(`{"id":2,"method":"mining.authorize","params":["alice.rig","` + password + `"]}`)
			c.line()
			require.Equal(t, `{"id":null,"method":"mining.set_difficulty","params":[`+want+`]}`, c.line(), "port %d, password %q", i, password)
		}
		p.server.Unban(netip.Addr{}, share.Worker{})
	}
	cancel()
	require.NoError(t, <-served)
}

// TestForeignersOnAPlainPort are miners with the wrong URL and browsers: they are told what this is, in one write, and
// the log has one readable line for each.
func TestForeignersOnAPlainPort(t *testing.T) {
	hello := captureHello(t)
	const http400 = "HTTP/1.1 400 Bad Request\r\n"
	for _, test := range []struct {
		name, first, reply, logged string
	}{
		{"a TLS hello", hello, `{"id":null,"result":null,"error":[20,"this port does not speak TLS: use stratum+tcp://",null]}` + "\n", "TLS"},
		{"a browser", "GET / HTTP/1.1\r\nHost: pool.example\r\n\r\n", http400, "HTTP"},
		{"a health check", "HEAD /health HTTP/1.0\r\n\r\n", http400, "HTTP"},
		{"somebody who posts", "POST / HTTP/1.1\r\nContent-Length: 60\r\n\r\n" + `{"id":1,"method":"mining.subscribe","params":[]}`, http400, "HTTP"},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", http400, "HTTP"},
		{"junk", "\x00\x01\x02\x03", "", "junk"},
		{"an agent's frame", "\x7f\x01\x05\x00\x00", "", "frame"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var log lockedBuffer
			gone := make(chan error, 1)
			p, addr := listen(t, stratum.Options{
				Logger: slog.New(slog.NewTextHandler(&log, nil)),
				Hooks:  stratum.Hooks{Disconnected: func(_ *stratum.Session, reason error) { gone <- reason }},
			}, stratum.Port{})
			c := connect(t, addr)
			_, err := io.WriteString(c.conn, test.first)
			require.NoError(t, err)
			said, err := io.ReadAll(c.conn)
			require.NoError(t, err, "it is closed with a FIN")
			require.Error(t, <-gone)
			if test.reply == http400 {
				require.True(t, strings.HasPrefix(string(said), http400), "%q", said)
				require.Contains(t, string(said), "Stratum")
			} else {
				require.Equal(t, test.reply, string(said))
			}
			require.Equal(t, 1, strings.Count(log.String(), "\n"), log.String())
			require.Contains(t, log.String(), test.logged)
			require.NotContains(t, log.String(), "pool.example")
			require.Equal(t, int64(1), p.server.Stats().Malformed)
		})
	}
}

// captureHello returns a ClientHello.
func captureHello(t *testing.T) string {
	t.Helper()
	here, there := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = tls.Client(here, &tls.Config{ServerName: "pool.example"}).HandshakeContext(t.Context())
	}()
	b := make([]byte, 4096)
	n, err := there.Read(b)
	require.NoError(t, err)
	there.Close()
	<-done
	here.Close()
	return string(b[:n])
}

// TestManyForeignersAreFewLogLines keeps a port scan out of the log.
func TestManyForeignersAreFewLogLines(t *testing.T) {
	var log lockedBuffer
	in(t, stratum.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}, func(t *testing.T, p *pool) {
		for i := range 100 {
			c := p.dial()
			_, err := c.conn.Write([]byte("\x00\x01"))
			require.NoError(t, err)
			c.ended()
			if i == 49 {
				time.Sleep(time.Minute)
			}
		}
		synctest.Wait()
		require.Equal(t, 2, strings.Count(log.String(), "\n"), log.String())
		require.Contains(t, log.String(), "others_since_last=49")
	})
}

// TestOneByteOfJunk is known for what it is, although the rest of it is waited for in vain.
func TestOneByteOfJunk(t *testing.T) {
	var log lockedBuffer
	in(t, stratum.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}, func(t *testing.T, p *pool) {
		c := p.dial()
		_, err := c.conn.Write([]byte("\x00"))
		require.NoError(t, err)
		c.ended()
		synctest.Wait()
		require.Contains(t, log.String(), "does not speak Stratum")
	})
}

// TestServeRefusesPortsThatMakeNoSense says all that is wrong at once, and listens nowhere.
func TestServeRefusesPortsThatMakeNoSense(t *testing.T) {
	p := newPool(t, stratum.Options{})
	one, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	two, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	err = p.server.Serve(t.Context(), &stratum.Port{Listener: one, RequireTLS: true}, &stratum.Port{Listener: two, StartDifficulty: 0.3})
	require.ErrorContains(t, err, "TLS is required")
	require.ErrorContains(t, err, "0.3")
	for _, ln := range []net.Listener{one, two} {
		_, err := net.Dial("tcp", ln.Addr().String())
		require.Error(t, err)
	}
}
