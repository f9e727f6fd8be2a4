package stratum

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

// clientHello returns what a TLS client of this standard library sends first.
func clientHello(t testing.TB) []byte {
	client, server := net.Pipe()
	defer server.Close()
	go func() {
		defer client.Close()
		_ = tls.Client(client, &tls.Config{ServerName: "pool.example"}).Handshake()
	}()
	hello := make([]byte, 4096)
	n, err := server.Read(hello)
	require.NoError(t, err)
	return hello[:n]
}

func TestClassify(t *testing.T) {
	for _, test := range []struct {
		name    string
		first   string
		want    kind
		decided int // bytes after which it is known
	}{
		{"nothing", "", needMore, 0},
		{"a request", `{"id":1,"method":"mining.subscribe"}` + "\n", kindLine, 1},
		{"spaces, then a request", "  {", kindLine, 1},
		{"an empty line", "\n", kindLine, 1},
		{"a CR LF, then a request", "\r\n{\"id\":1}", kindLine, 3},
		{"two CR LF, then a request", "\r\n\r\n{\"id\":1}", kindLine, 5},
		{"an agent's frame", "\x7f\x01\x06\x00", kindFrame, 1},
		{"a TLS hello", string(clientHello(t)), kindTLS, 2},
		{"a TLS hello of an old client", "\x16\x03\x00\x00\x2f\x01", kindTLS, 2},
		{"a TLS record of no version", "\x16\x7f", kindJunk, 2},
		{"an SSL 2 hello", "\x80\x2e\x01\x00\x02", kindJunk, 1},
		{"GET", "GET / HTTP/1.1\r\n", kindHTTP, 4},
		{"POST", "POST /rpc HTTP/1.1\r\n", kindHTTP, 5},
		{"HEAD", "HEAD / HTTP/1.0\r\n", kindHTTP, 5},
		{"PUT", "PUT / HTTP/1.1\r\n", kindHTTP, 4},
		{"CONNECT", "CONNECT a:443 HTTP/1.1\r\n", kindHTTP, 8},
		{"OPTIONS", "OPTIONS * HTTP/1.1\r\n", kindHTTP, 8},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", kindHTTP, 6},
		{"PROXY version 1", "PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n", kindProxy, 6},
		{"PROXY version 2", string(proxyV2Signature) + "\x21\x11", kindProxy, 12},
		{"half of a PROXY signature", "\r\n\r\n\x00\r\nQUI", needMore, 0},
		{"PROXZ", "PROXZ ", kindJunk, 5},
		{"small letters", "get / http/1.1", kindJunk, 1},
		{"SSH", "SSH-2.0-OpenSSH_9.6\r\n", kindJunk, 1},
		{"a NUL", "\x00", kindJunk, 1},
		{"an array", "[1]", kindJunk, 1},
		{"the highest byte", "\xff", kindJunk, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.Equal(t, test.want, classify([]byte(test.first)))
			for n := range len(test.first) + 1 {
				got := classify([]byte(test.first[:n]))
				if n < test.decided {
					require.Equal(t, needMore, got, "after %d bytes", n)
				} else {
					require.Equal(t, test.want, got, "after %d bytes", n)
				}
			}
		})
	}
}

func TestEveryKindHasAName(t *testing.T) {
	seen := map[string]bool{}
	for k := range numOfKinds {
		require.NotContains(t, k.String(), "kind(")
		require.False(t, seen[k.String()], "%v twice", k)
		seen[k.String()] = true
	}
	require.Equal(t, "kind(99)", kind(99).String())
}

// A line the session would read as a request must reach it, whatever else the sniffer learns to tell.
func FuzzClassify(f *testing.F) {
	for _, s := range []string{"{", "\r\n{", "\x16\x03\x01", "GET /", "PROXY ", string(proxyV2Signature), "\x7f", "\xff", "PRI"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		verdict := classify(b)
		require.Less(t, verdict, numOfKinds)
		if len(b) >= sniffMax {
			require.NotEqual(t, needMore, verdict)
			require.Equal(t, verdict, classify(b[:sniffMax]))
		}
		for n := range b {
			if got := classify(b[:n]); got != needMore {
				require.Equal(t, verdict, got, "a longer look changed the verdict")
			}
		}
		if len(b) >= sniffMax && startsRequest(b[0]) && verdict != kindProxy {
			require.Equal(t, kindLine, verdict)
		}
	})
}

func TestRefusals(t *testing.T) {
	for _, k := range []kind{kindTLS, kindLine} {
		line := refusalOf(k)
		require.Equal(t, 1, strings.Count(line, "\n"))
		require.True(t, strings.HasSuffix(line, "\n"))
		var reply struct {
			ID, Result any
			Error      [3]any
		}
		d := json.NewDecoder(strings.NewReader(line))
		d.DisallowUnknownFields()
		require.NoError(t, d.Decode(&reply))
		require.Nil(t, reply.ID)
		require.EqualValues(t, 20, reply.Error[0])
		require.Contains(t, reply.Error[1], "this port ")
	}
	require.NotEqual(t, refusalOf(kindTLS), refusalOf(kindLine))

	resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(refusalOf(kindHTTP))), nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusBadRequest, resp.StatusCode)
	require.True(t, resp.Close, "the connection ends")
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Contains(t, string(body), "Stratum")
	require.EqualValues(t, len(body), resp.ContentLength)

	for _, k := range []kind{kindJunk, kindFrame, kindProxy, needMore} {
		require.Empty(t, refusalOf(k))
	}
}

// readConn is a connection of which only reading is of interest.
type readConn struct {
	net.Conn
	io.Reader
}

func (c readConn) Read(b []byte) (int, error) { return c.Reader.Read(b) }

func TestPrefixConnReadsThePrefixFirst(t *testing.T) {
	for _, size := range []int{1, 2, 3, 5, 64} {
		c := &prefixConn{Conn: readConn{Reader: strings.NewReader(" world")}, prefix: []byte("hello")}
		var got []byte
		buf := make([]byte, size)
		for {
			n, err := c.Read(buf)
			got = append(got, buf[:n]...)
			if err != nil {
				require.ErrorIs(t, err, io.EOF)
				break
			}
		}
		require.Equal(t, "hello world", string(got), "reads of %d bytes", size)
		require.Nil(t, c.prefix, "the bytes read ahead are kept")
	}
	require.NoError(t, iotest.TestReader(&prefixConn{
		Conn: readConn{Reader: strings.NewReader("and the rest")}, prefix: []byte("the start "),
	}, []byte("the start and the rest")))

	c := &prefixConn{Conn: readConn{Reader: strings.NewReader("")}, prefix: []byte("x")}
	n, err := c.Read(nil)
	require.NoError(t, err)
	require.Zero(t, n)
	require.Equal(t, []byte("x"), c.prefix)
}

// What the sniffer read goes to the TLS server, so the handshake must succeed wherever the hello was cut.
func TestTLSAfterASniff(t *testing.T) {
	cert, pool := testCertificate(t, "pool.example")
	for _, cut := range []int{1, 2, 5, 100, 4096} {
		client, server := net.Pipe()
		defer client.Close()
		defer server.Close()
		go func() {
			c := tls.Client(client, &tls.Config{ServerName: "pool.example", RootCAs: pool})
			_, _ = c.Write([]byte("{}\n"))
		}()
		first := make([]byte, cut)
		n, err := server.Read(first)
		require.NoError(t, err)
		conn := &prefixConn{Conn: server, prefix: first[:n]}
		require.Same(t, server, conn.NetConn())
		secured := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{cert}})
		line, err := bufio.NewReader(secured).ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, "{}\n", line)
	}
}

type endless struct{ net.Conn }

func (endless) Read(b []byte) (int, error) { return len(b), nil }

// BenchmarkPrefixConn shows that a drained prefixConn costs one comparison a read.
func BenchmarkPrefixConn(b *testing.B) {
	buf := make([]byte, 512)
	drained := &prefixConn{Conn: endless{}, prefix: []byte("x")}
	_, _ = drained.Read(buf)
	for _, bench := range []struct {
		name string
		conn net.Conn
	}{{"without", endless{}}, {"drained", drained}} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = bench.conn.Read(buf)
			}
		})
	}
}

func BenchmarkClassify(b *testing.B) {
	first := bytes.Repeat([]byte(`{"id":1}`), 2)
	b.ReportAllocs()
	for b.Loop() {
		if classify(first) != kindLine {
			b.Fatal("not a line")
		}
	}
}
