package noderpc_test

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/poolkit/poolkit/internal/noderpc"
	"github.com/stretchr/testify/require"
)

const secret = "hunter2-is-secret"

// fake serves answer at every path and returns a client for it.
func fake(t *testing.T, opts *noderpc.Options, answer http.HandlerFunc) *noderpc.Client {
	t.Helper()
	srv := httptest.NewServer(answer)
	t.Cleanup(srv.Close)
	c, err := noderpc.New(noderpc.Node{URL: srv.URL, User: "pool", Pass: secret}, opts)
	require.NoError(t, err)
	t.Cleanup(c.CloseIdle)
	return c
}

func TestCallSendsWhatNodesRead(t *testing.T) {
	var body, auth, contentType string
	c := fake(t, nil, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		body, contentType = string(b), r.Header.Get("Content-Type")
		user, pass, _ := r.BasicAuth()
		auth = user + ":" + pass
		_, leaked := r.Header["Idempotency-Key"]
		fmt.Fprintf(w, `{"result":%v,"error":null,"id":"1"}`, !leaked)
	})
	var ok bool
	require.NoError(t, c.Call(t.Context(), "getblockhash", []any{0}, &ok))
	require.True(t, ok)
	require.Equal(t, `{"jsonrpc":"1.0","id":"1","method":"getblockhash","params":[0]}`, body)
	require.Equal(t, "application/json", contentType)
	require.Equal(t, "pool:"+secret, auth)

	require.NoError(t, c.Call(t.Context(), "stop", nil, nil))
	require.Equal(t, `{"jsonrpc":"1.0","id":"1","method":"stop","params":[]}`, body)
	require.NoError(t, c.Call(t.Context(), "submitblock", json.RawMessage(`["00ff"]`), nil))
	require.Equal(t, `{"jsonrpc":"1.0","id":"1","method":"submitblock","params":["00ff"]}`, body)
}

func TestCallRawReturnsEveryByte(t *testing.T) {
	const small = "{\"result\":{\"height\":840000},\"error\":null,\"id\":\"1\"}\n"
	large := "{\"result\":\"" + strings.Repeat("ab", 100_000) + "\",\"error\":null,\"id\":\"1\"}\n"
	for name, want := range map[string]string{"small": small, "large": large} {
		t.Run(name, func(t *testing.T) {
			c := fake(t, nil, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, want) })
			got, err := c.CallRaw(t.Context(), "getblocktemplate", nil)
			require.NoError(t, err)
			require.Equal(t, want, string(got))
		})
	}
}

func TestBadAnswers(t *testing.T) {
	huge := strings.Repeat("x", 4096)
	for _, tt := range []struct {
		name   string
		status int
		body   string
		want   string // part of the error
		raw    bool   // CallRaw fails as well
	}{
		{"error object with status 500", 500, `{"result":null,"error":{"code":-28,"message":"Loading block index…"},"id":"1"}`,
			"error -28: Loading block index…", true},
		{"error object with status 200", 200, `{"jsonrpc":"1.0","result":null,"error":{"code":-5,"message":"Block not found"},"id":"1"}`,
			"error -5: Block not found", true},
		{"error object with status 404", 404, `{"result":null,"error":{"code":-32601,"message":"Method not found"},"id":"1"}`,
			"error -32601: Method not found", true},
		{"error that is a string", 200, `{"result":null,"error":"no","id":"1"}`, `error 0: ""no""`, true},
		{"error with a code of the wrong type", 500, `{"error":{"code":"x","message":[]}}`, `"code":"x"`, true},
		{"error that would move the cursor", 200, "{\"error\":{\"code\":-1,\"message\":\"a\\u001b[2Jb\\nc\"}}", "a.[2Jb c", true},
		{"refused password", 401, "", "HTTP status 401 Unauthorized, it refused the user and password: nothing", true},
		{"refused address", 403, "", "it refuses calls from this address", true},
		{"busy", 503, "Work queue depth exceeded", `HTTP status 503 Service Unavailable: "Work queue depth exceeded"`, true},
		{"status 500 with a web page", 500, "<html>oops", `HTTP status 500 Internal Server Error: "<html>oops"`, true},
		{"status 500 with a result", 500, `{"result":1,"error":null}`, "HTTP status 500", true},
		{"redirect", 302, "", "HTTP status 302 Found", true},
		{"web page", 200, "<!DOCTYPE html><html>router</html>", `a web page instead of JSON; is this the node's RPC port?; it sent "<!DOCTYPE`, true},
		{"plain text", 200, "hello", `not a JSON object; it sent "hello"`, true},
		{"list", 200, `[{"result":1}]`, "not a JSON object", true},
		{"nothing", 200, "", "an empty reply; it sent nothing", true},
		{"spaces", 200, " \n ", "an empty reply", true},
		{"cut short", 200, `{"result":{"a":1`, "broken JSON: unexpected end of JSON input", true},
		{"two objects", 200, `{"result":1}{"result":2}`, "broken JSON: invalid character", true},
		{"object without result", 200, `{"id":"1"}`, "neither a result nor an error", true},
		{"result of the wrong type", 200, `{"result":"12","error":null}`, "an unexpected result", false},
		{"result that overflows", 200, `{"result":1e400,"error":null}`, "an unexpected result", false},
		{"huge", 200, `{"result":"` + huge + `","error":null}`, "the reply is larger than 1024 bytes", true},
		{"huge error page", 500, huge, "the reply is larger than 1024 bytes", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := fake(t, &noderpc.Options{MaxReply: 1024}, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Location", "http://127.0.0.1:1/elsewhere")
				w.WriteHeader(tt.status)
				io.WriteString(w, tt.body)
			})
			var n int64
			err := c.Call(t.Context(), "getblockcount", nil, &n)
			require.ErrorContains(t, err, tt.want)
			require.ErrorContains(t, err, "node "+c.Name()+": getblockcount: ")
			require.NotContains(t, err.Error(), secret)
			require.Less(t, len(err.Error()), 800)
			require.Equal(t, tt.status == 401 || tt.status == 403, errors.Is(err, noderpc.ErrUnauthorized))

			_, err = c.CallRaw(t.Context(), "getblockcount", nil)
			require.Equal(t, tt.raw, err != nil, "%v", err)
		})
	}
}

func TestRPCErrorCarriesCodeAndNames(t *testing.T) {
	c := fake(t, nil, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(500)
		io.WriteString(w, `{"result":null,"error":{"code":-10,"message":"syncing"},"id":"1"}`)
	})
	var e *noderpc.RPCError
	require.ErrorAs(t, c.Call(t.Context(), "getblocktemplate", nil, nil), &e)
	require.Equal(t, noderpc.RPCError{Node: c.Name(), Method: "getblocktemplate", Code: -10, Message: "syncing"}, *e)
}

func TestUnknownLengthIsBounded(t *testing.T) {
	c := fake(t, &noderpc.Options{MaxReply: 1024}, func(w http.ResponseWriter, r *http.Request) {
		for range 64 {
			if _, err := w.Write(bytes.Repeat([]byte(" "), 64)); err != nil {
				return
			}
			w.(http.Flusher).Flush()
		}
	})
	_, err := c.CallRaw(t.Context(), "x", nil)
	require.ErrorContains(t, err, "larger than 1024 bytes")
}

func TestBrokenOffReply(t *testing.T) {
	c := fake(t, nil, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		io.WriteString(w, `{"result":1`)
	})
	err := c.Call(t.Context(), "x", nil, nil)
	require.ErrorContains(t, err, "the reply broke off after 11 bytes")
}

func TestHangingNode(t *testing.T) {
	hang := func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}
	t.Run("is left after the timeout", func(t *testing.T) {
		c := fake(t, &noderpc.Options{Timeout: 50 * time.Millisecond}, hang)
		err := c.Call(t.Context(), "x", nil, nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "no answer in time")
	})
	t.Run("is waited for as long as the context says", func(t *testing.T) {
		c := fake(t, &noderpc.Options{Timeout: time.Nanosecond}, func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, `{"result":1,"error":null}`)
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.NoError(t, c.Call(ctx, "x", nil, nil))
	})
	t.Run("is left when the context ends", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c := fake(t, nil, func(w http.ResponseWriter, r *http.Request) { cancel(); hang(w, r) })
		require.ErrorIs(t, c.Call(ctx, "x", nil, nil), context.Canceled)
	})
	t.Run("in the middle of its reply", func(t *testing.T) {
		c := fake(t, &noderpc.Options{Timeout: 100 * time.Millisecond}, func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, `{"result":`)
			w.(http.Flusher).Flush()
			hang(w, r)
		})
		require.ErrorIs(t, c.Call(t.Context(), "x", nil, nil), context.DeadlineExceeded)
	})
}

func TestNobodyListens(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	srv.Close()
	c, err := noderpc.New(noderpc.Node{URL: srv.URL + "/key/" + secret + "?token=" + secret}, nil)
	require.NoError(t, err)
	err = c.Call(t.Context(), "getblockcount", nil, nil)
	require.ErrorContains(t, err, "connection refused")
	require.NotContains(t, err.Error(), secret)
}

func TestConnectionIsKept(t *testing.T) {
	c := fake(t, nil, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, `{"result":1,"error":null}`) })
	reused := 0
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		if i.Reused {
			reused++
		}
	}})
	for range 5 {
		require.NoError(t, c.Call(ctx, "x", nil, nil))
	}
	require.Equal(t, 4, reused)
}

// bitcoind drops idle connections; the call that finds its connection closed must not fail.
func TestCallSurvivesAConnectionThatTheNodeClosed(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `{"result":1,"error":null}`)
	}))
	defer srv.Close()
	c, err := noderpc.New(noderpc.Node{URL: srv.URL}, nil)
	require.NoError(t, err)
	for range 50 {
		require.NoError(t, c.Call(t.Context(), "x", nil, nil))
		srv.CloseClientConnections()
	}
}

func TestCookie(t *testing.T) {
	file := filepath.Join(t.TempDir(), ".cookie")
	current := "first"
	calls := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls++
		if user, pass, _ := r.BasicAuth(); user != "__cookie__" || pass != current {
			w.WriteHeader(401)
			return
		}
		io.WriteString(w, `{"result":1,"error":null}`)
	}))
	defer srv.Close()
	c, err := noderpc.New(noderpc.Node{URL: srv.URL, CookieFile: file}, nil)
	require.NoError(t, err)
	call := func() error { return c.Call(t.Context(), "x", nil, nil) }
	write := func(s string) { require.NoError(t, os.WriteFile(file, []byte(s), 0o600)) }

	require.ErrorIs(t, call(), os.ErrNotExist, "the node has not started yet")
	for name, bad := range map[string]string{"empty": "", "no colon": "abc", "no password": "a:", "huge": strings.Repeat("a", 5000)} {
		write(bad)
		require.ErrorContains(t, call(), "cookie file", name)
	}
	require.Zero(t, calls)

	write("__cookie__:first\n")
	require.NoError(t, call())
	require.Equal(t, 1, calls)

	// The node starts anew: the old cookie is refused once and the new one read.
	current = "second"
	write("__cookie__:second")
	require.NoError(t, call())
	require.Equal(t, 3, calls)
	require.NoError(t, call())
	require.Equal(t, 4, calls, "the new cookie is remembered")

	// The file does not hold what the node wants: no second try with the same cookie.
	current = "third"
	require.ErrorIs(t, call(), noderpc.ErrUnauthorized)
	require.Equal(t, 5, calls)
	require.NoError(t, os.Remove(file))
	require.ErrorIs(t, call(), os.ErrNotExist)
}

func TestTLS(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `{"result":1,"error":null}`)
	}))
	defer srv.Close()
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	dir := t.TempDir()
	good, junk := filepath.Join(dir, "rpc.cert"), filepath.Join(dir, "junk")
	raw := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	require.NoError(t, os.WriteFile(good, append([]byte("a comment\n"), raw...), 0o600))
	require.NoError(t, os.WriteFile(junk, []byte("no certificate"), 0o600))
	call := func(n noderpc.Node) error {
		c, err := noderpc.New(n, nil)
		if err != nil {
			return err
		}
		defer c.CloseIdle()
		return c.Call(t.Context(), "x", nil, nil)
	}
	require.NoError(t, call(noderpc.Node{URL: srv.URL, CertFile: good}))
	require.NoError(t, call(noderpc.Node{URL: srv.URL, SkipVerify: true}))
	require.ErrorContains(t, call(noderpc.Node{URL: srv.URL}), "CertFile")
	require.ErrorContains(t, call(noderpc.Node{URL: srv.URL, CertFile: junk}), "no certificate in PEM form")
	require.ErrorIs(t, call(noderpc.Node{URL: srv.URL, CertFile: junk + "x"}), os.ErrNotExist)
	plain := "http" + strings.TrimPrefix(srv.URL, "https")
	require.ErrorContains(t, call(noderpc.Node{URL: plain, CertFile: good}), "does the node answer https?")
	require.ErrorContains(t, call(noderpc.Node{URL: plain}), "HTTP status 400")
}

func TestNodeValidate(t *testing.T) {
	for _, tt := range []struct {
		name string
		node noderpc.Node
		want string // part of the error, empty for none
	}{
		{"bitcoind", noderpc.Node{URL: "http://127.0.0.1:8332"}, ""},
		{"wallet path and IPv6", noderpc.Node{URL: "http://[::1]:8332/wallet/pool"}, ""},
		{"user in the URL", noderpc.Node{URL: "http://pool:" + secret + "@127.0.0.1:8332"}, ""},
		{"white space around", noderpc.Node{URL: " http://127.0.0.1:8332\n"}, ""},
		{"nothing", noderpc.Node{}, "no URL"},
		{"no scheme", noderpc.Node{URL: "127.0.0.1:8332"}, "needs http:// or https:// in front"},
		{"host only", noderpc.Node{URL: "localhost"}, "needs http:// or https:// in front"},
		{"another scheme", noderpc.Node{URL: "tcp://127.0.0.1:28332"}, `scheme is "tcp"`},
		{"no host", noderpc.Node{URL: "http://:8332"}, "names no host"},
		{"nothing after the scheme", noderpc.Node{URL: "http://"}, "names no host"},
		{"port of letters", noderpc.Node{URL: "http://u:" + secret + "@127.0.0.1:rpc"}, "cannot be parsed"},
		{"port too high", noderpc.Node{URL: "http://127.0.0.1:83320"}, `"83320" is not a port`},
		{"port 0", noderpc.Node{URL: "http://127.0.0.1:0"}, "is not a port"},
		{"empty port", noderpc.Node{URL: "http://127.0.0.1:"}, "no port after the colon"},
		{"fragment", noderpc.Node{URL: "http://127.0.0.1:8332/#x"}, "fragment"},
		{"a hash sign in the password", noderpc.Node{URL: "http://u:" + secret + "#@127.0.0.1:8332"}, "cannot be parsed"},
		{"two users", noderpc.Node{URL: "http://u:p@127.0.0.1:8332", User: "v"}, "both in the URL and beside it"},
		{"cookie and user", noderpc.Node{URL: "http://127.0.0.1:8332", User: "u", Pass: "p", CookieFile: "c"}, "give one"},
		{"password without user", noderpc.Node{URL: "http://127.0.0.1:8332", Pass: secret}, "a password without a user"},
		{"user with a colon", noderpc.Node{URL: "http://127.0.0.1:8332", User: "a:b"}, "colon"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.node.Validate()
			if tt.want == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, tt.want)
				require.NotContains(t, err.Error(), secret)
			}
		})
	}
	err := noderpc.Node{URL: "http://127.0.0.1:0", Pass: "x"}.Validate()
	require.ErrorContains(t, err, "is not a port")
	require.ErrorContains(t, err, "a password without a user")
	_, err = noderpc.New(noderpc.Node{}, &noderpc.Options{Timeout: -1, MaxReply: -1})
	for _, part := range []string{"no URL", "negative timeout", "negative reply limit"} {
		require.ErrorContains(t, err, part)
	}
}

func TestUserInURLIsSent(t *testing.T) {
	got := make(chan string, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, pass, _ := r.BasicAuth()
		got <- user + ":" + pass + "@" + r.URL.Path
		io.WriteString(w, `{"result":1,"error":null}`)
	}))
	defer srv.Close()
	c, err := noderpc.New(noderpc.Node{URL: strings.Replace(srv.URL, "http://", "http://u:p%40ss@", 1) + "/wallet/w"}, nil)
	require.NoError(t, err)
	require.NoError(t, c.Call(t.Context(), "x", nil, nil))
	require.Equal(t, "u:p@ss@/wallet/w", <-got)
}

func TestNodePrintsNoSecret(t *testing.T) {
	n := noderpc.Node{URL: "http://u:" + secret + "@127.0.0.1:8332/" + secret, Pass: secret}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "node", n)
	for _, s := range []string{
		fmt.Sprint(n), fmt.Sprintf("%v %+v %#v %s %q", n, n, n, n, n), fmt.Sprintf("%+v", struct{ N noderpc.Node }{n}), log.String(),
		noderpc.Node{URL: "u:" + secret}.String(),
	} {
		require.NotContains(t, s, secret)
	}
	require.Equal(t, "http://127.0.0.1:8332", n.String())
}

func Example() {
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		io.WriteString(w, `{"result":null,"error":{"code":-28,"message":"Verifying blocks…"},"id":"1"}`)
	}))
	defer node.Close()

	client, err := noderpc.New(noderpc.Node{URL: node.URL, User: "pool", Pass: "pass"}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	var height int64
	err = client.Call(context.Background(), "getblockcount", nil, &height)
	var rpcErr *noderpc.RPCError
	if errors.As(err, &rpcErr) {
		fmt.Println(rpcErr.Code, rpcErr.Message)
	}
	// Output: -28 Verifying blocks…
}

func BenchmarkCallRaw(b *testing.B) {
	body := []byte(`{"result":"` + strings.Repeat("ab", 1_500_000) + `","error":null,"id":"1"}` + "\n")
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		w.Write(body)
	}))
	defer srv.Close()
	c, err := noderpc.New(noderpc.Node{URL: srv.URL}, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if _, err := c.CallRaw(b.Context(), "getblocktemplate", nil); err != nil {
			b.Fatal(err)
		}
	}
}
