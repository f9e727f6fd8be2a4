package httpauth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum"
	"github.com/poolkit/poolkit/stratum/admissiontest"
	"github.com/stretchr/testify/require"
)

// api is a list as BTCPool's is served, a page at a time in the order of numbers.
type api struct {
	mu       sync.Mutex
	users    []listed // ascending
	pageSize int      // 0 serves all at once
	asked    []string // the queries
	answer   string   // instead of the list, if not ""
	status   int      // instead of 200, if not 0
	empty    string   // data of an empty page
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = append(a.asked, r.URL.RawQuery)
	if a.status != 0 {
		w.WriteHeader(a.status)
		return
	}
	if a.answer != "" {
		_, _ = io.WriteString(w, a.answer)
		return
	}
	last, err := strconv.Atoi(r.URL.Query().Get("last_id"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var entries []string
	for _, u := range a.users {
		if int(u.id) > last && (a.pageSize == 0 || len(entries) < a.pageSize) {
			entries = append(entries, fmt.Sprintf("%q:%d", u.name, u.id))
		}
	}
	data := "{" + strings.Join(entries, ",") + "}"
	if len(entries) == 0 && a.empty != "" {
		data = a.empty
	}
	_, _ = fmt.Fprintf(w, `{"err_no":0,"err_msg":null,"data":%s}`, data)
}

func (a *api) set(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
}

func (a *api) queries() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	q := a.asked
	a.asked = nil
	return q
}

// RoundTrip makes an api its own network, for bubbles that real sockets do not work in.
func (a *api) RoundTrip(r *http.Request) (*http.Response, error) {
	rec := httptest.NewRecorder()
	a.ServeHTTP(rec, r)
	return rec.Result(), nil
}

func aliceAndBob() *api { return &api{users: []listed{{"alice", 1}, {"bob", 7}}} }

func serve(t *testing.T, h http.Handler) string {
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

func ask(t *testing.T, u *Users, name string) int32 {
	t.Helper()
	id, err := u.Authorize(t.Context(), share.Worker{User: name, Name: "rig"}, "x")
	if err != nil {
		require.ErrorIs(t, err, stratum.ErrUnknownUser)
		require.Zero(t, id)
	}
	return id
}

func TestUsersKeepThePromisesOfAnAuthorizer(t *testing.T) {
	url := serve(t, aliceAndBob())
	open := func(t *testing.T) stratum.Authorizer {
		u, err := New(url, nil)
		require.NoError(t, err)
		require.NoError(t, u.Load(t.Context()))
		return u
	}
	admissiontest.TestAuthorizer(t, open, open, "mallory")
}

func TestLoadReadsPagesUntilAnEmptyOne(t *testing.T) {
	for _, empty := range []string{"{}", "[]"} {
		a := &api{pageSize: 2, empty: empty}
		for i := range int32(5) {
			a.users = append(a.users, listed{fmt.Sprintf("user%d", i), 10 * (i + 1)})
		}
		u, err := New(serve(t, a)+"/list?key=k%20y", nil)
		require.NoError(t, err)
		require.NoError(t, u.Load(t.Context()))
		require.Equal(t, []string{"key=k%20y&last_id=0", "key=k%20y&last_id=20", "key=k%20y&last_id=40", "key=k%20y&last_id=50"}, a.queries())
		require.Equal(t, int32(30), ask(t, u, "user2"))
		require.Equal(t, int32(50), ask(t, u, "user4"))
		require.Zero(t, ask(t, u, "user5"))
		s := u.Stats()
		require.Equal(t, []any{5, int32(50), false}, []any{s.Users, s.LastID, s.FromCache})
		require.False(t, s.Updated.IsZero())
		names := make(map[string]int32)
		u.Names(func(name string, id int32) bool { names[name] = id; return true })
		require.Equal(t, map[string]int32{"user0": 10, "user1": 20, "user2": 30, "user3": 40, "user4": 50}, names)
	}
}

func TestAListInOnePieceIsReadToItsEnd(t *testing.T) {
	a := &api{answer: `{"err_no":0,"data":{"alice":1,"bob":7}}`} // whatever last_id is
	u, err := New(serve(t, a), nil)
	require.NoError(t, err)
	require.NoError(t, u.Load(t.Context()))
	require.Equal(t, []string{"last_id=0", "last_id=7"}, a.queries())
	require.Equal(t, int32(7), ask(t, u, "bob"))
}

func TestWhatAnAnswerMeans(t *testing.T) {
	for _, c := range []struct {
		name, answer string
		rules        stratum.NameRules
		want         map[string]int32
	}{
		{"case is folded", `{"data":{"Alice":1}}`, stratum.NameRules{}, map[string]int32{"alice": 1, "Alice": 0}},
		{"case is kept", `{"data":{"Alice":1}}`, stratum.NameRules{KeepCase: true}, map[string]int32{"alice": 0, "Alice": 1}},
		{"a suffix is cut", `{"data":{"aaa_bbb_ccc":1}}`, stratum.NameRules{StripSuffix: true}, map[string]int32{"aaa_bbb": 1, "aaa_bbb_ccc": 0}},
		{"nothing is left of a name", `{"data":{"_x":1,"":2,"bob":3}}`, stratum.NameRules{StripSuffix: true}, map[string]int32{"": 0, "bob": 3}},
		{"numbers that nobody can have", `{"data":{"a":0,"b":-1,"c":2147483648,"d":1.5,"e":"7","f":null,"g":{"h":8},"i":[9],"j":1e3,"k":2147483647}}`,
			stratum.NameRules{}, map[string]int32{"a": 0, "b": 0, "c": 0, "d": 0, "e": 0, "f": 0, "g": 0, "h": 0, "i": 0, "j": 0, "k": 2147483647}},
		{"another spelling with a higher number", `{"data":{"Alice":1,"ALICE":7}}`, stratum.NameRules{}, map[string]int32{"alice": 1}},
		{"another spelling with a lower number", `{"data":{"ALICE":7,"Alice":1}}`, stratum.NameRules{}, map[string]int32{"alice": 1}},
		{"another spelling that is nobody", `{"data":{"Alice":1,"ALICE":0}}`, stratum.NameRules{}, map[string]int32{"alice": 1}},
		{"one name twice", `{"data":{"alice":7,"alice":1}}`, stratum.NameRules{}, map[string]int32{"alice": 1}},
		{"a letter that folds into one of a name", `{"data":{"\u212aim":1}}`, stratum.NameRules{}, map[string]int32{"kim": 0}},
		{"keys in another order, and others", ` {"x":[{"data":{}}],"data":{"alice":1},"err_msg":"fine","err_no":0} ` + "\n", stratum.NameRules{}, map[string]int32{"alice": 1}},
		{"spaces everywhere", "{ \"data\" : {\n\t\"alice\" : 1 ,\r\n \"bob\":2\n} }", stratum.NameRules{}, map[string]int32{"alice": 1, "bob": 2}},
		{"values with brackets and quotes in them", `{"data":{"a":"}\\\"]","b":[{"x":"]}"},[]],"c":{"y":{}},"bob":2,"d":true}}`, stratum.NameRules{},
			map[string]int32{"a": 0, "b": 0, "c": 0, "bob": 2, "x": 0, "y": 0, "d": 0}},
		{"names with quotes and escapes", `{"data":{"a\"b":1,"c\\":2,"\u0062ob":3}}`, stratum.NameRules{}, map[string]int32{"a\"b": 1, "c\\": 2, "bob": 3}},
		{"an empty array with space in it", `{"data":[ ]}`, stratum.NameRules{}, map[string]int32{"alice": 0}},
		{"err_no is null", `{"err_no":null,"data":{"alice":1}}`, stratum.NameRules{}, map[string]int32{"alice": 1}},
		{"a name longer than names are", `{"data":{"` + strings.Repeat("a", 129) + `":5,"bob":2}}`, stratum.NameRules{}, map[string]int32{strings.Repeat("a", 129): 0, "bob": 2}},
		{"an empty list", `{"err_no":0,"data":{}}`, stratum.NameRules{}, map[string]int32{"alice": 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			u, err := New("http://list.test", &Options{Names: c.rules, Client: &http.Client{Transport: &api{answer: c.answer}}})
			require.NoError(t, err)
			require.NoError(t, u.Load(t.Context()))
			for name, id := range c.want {
				require.Equal(t, id, ask(t, u, name), name)
			}
		})
	}
}

func TestAnswersThatAreRefused(t *testing.T) {
	for _, c := range []struct{ name, answer, want string }{
		{"nothing", " ", "unexpected end"},
		{"not JSON", "<html>", "invalid character"},
		{"an array", `[]`, "form of a list"},
		{"a number", `7`, "form of a list"},
		{"no data", `{"err_no":0}`, "no data"},
		{"data is null", `{"data":null}`, "no data"},
		{"data is a number", `{"data":7}`, "not an object"},
		{"data is an array with users", `{"data":["alice"]}`, "array with something"},
		{"data twice", `{"data":{},"data":{}}`, "twice"},
		{"cut short", `{"data":{"alice":1`, "unexpected end"},
		{"cut short after data", `{"data":{"alice":1}`, "unexpected end"},
		{"something after", `{"data":{}}{}`, "after top-level value"},
		{"err_no", `{"err_no":3,"err_msg":"no such key","data":{"alice":1}}`, `err_no 3, "no such key"`},
		{"err_no after data", `{"data":{"alice":1},"err_no":-1}`, "err_no -1"},
		{"err_no is text", `{"data":{"alice":1},"err_no":"0"}`, "err_no"},
		{"err_no without data", `{"err_no":3}`, "err_no 3"},
		{"deep nesting", `{"x":` + strings.Repeat("[", 100_000) + `}`, "depth"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u, err := New("http://list.test", &Options{Client: &http.Client{Transport: &api{answer: c.answer}}})
			require.NoError(t, err)
			require.ErrorContains(t, u.Load(t.Context()), c.want)
			_, err = u.Authorize(t.Context(), share.Worker{User: "alice"}, "")
			require.Error(t, err)
			require.NotErrorIs(t, err, stratum.ErrUnknownUser, "the miner may come back")
		})
	}
}

// Servers that do everything wrong get an error within bounds of time and memory, and nothing secret is in it.
func TestHostileServers(t *testing.T) {
	release := make(chan struct{})
	t.Cleanup(func() { close(release) }) // before the servers close, which wait for their handlers
	followed := false
	for _, c := range []struct {
		name, want string
		handler    http.HandlerFunc
	}{
		{"an answer without end", "too large", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"data":{`)
			for n := 1; ; n++ {
				if _, err := fmt.Fprintf(w, "%q:%d,", strings.Repeat("x", 100)+strconv.Itoa(n), n); err != nil {
					return
				}
			}
		}},
		{"one string without end", "too large", func(w http.ResponseWriter, _ *http.Request) {
			_, err := io.WriteString(w, `{"data":{"`)
			for err == nil {
				_, err = w.Write(bytes.Repeat([]byte("x"), 4096))
			}
		}},
		{"spaces after the answer", "too large", func(w http.ResponseWriter, _ *http.Request) {
			_, err := io.WriteString(w, `{"data":{}}`)
			for err == nil {
				_, err = w.Write(bytes.Repeat([]byte(" "), 4096))
			}
		}},
		{"an answer that never begins", "within 100ms", func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}},
		{"an answer that stops halfway", "within 100ms", func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, `{"data":{`)
			w.(http.Flusher).Flush()
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}},
		{"a page without end of pages", "limit", func(w http.ResponseWriter, r *http.Request) {
			last, _ := strconv.Atoi(r.URL.Query().Get("last_id"))
			_, _ = fmt.Fprintf(w, `{"data":{"user%d":%d}}`, last+1, last+1)
		}},
		{"a redirect", "sends on to", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/elsewhere" {
				followed = true
			}
			http.Redirect(w, r, "/elsewhere?key=hidden", http.StatusFound)
		}},
		{"a redirect to itself", "sends on to", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", r.URL.String())
			w.WriteHeader(http.StatusTemporaryRedirect)
		}},
		{"a redirect to nowhere", "makes no sense", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusMovedPermanently) }},
		{"a failure", "status 500", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }},
		{"a connection that is cut", "EOF", func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				c.Close()
			}
		}},
		{"junk", "malformed HTTP", func(w http.ResponseWriter, _ *http.Request) {
			if c, _, err := w.(http.Hijacker).Hijack(); err == nil {
				_, _ = c.Write([]byte("\x16\x03\x01\x02\x00\r\n\r\n"))
				c.Close()
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := &Options{MaxPage: 1 << 20, MaxUsers: 200, Timeout: time.Minute}
			if strings.Contains(c.want, "100ms") {
				o.Timeout = 100 * time.Millisecond
			}
			if c.want == "too large" {
				o.MaxUsers = 1 << 30
			}
			u, err := New(serve(t, c.handler)+"/list?key=hidden", o)
			require.NoError(t, err)
			err = u.Load(t.Context())
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "hidden")
			require.ErrorContains(t, err, "/list")
			require.False(t, followed)
		})
	}
}

func TestTooManyUsersInOnePage(t *testing.T) {
	a := aliceAndBob()
	u, err := New("http://list.test", &Options{MaxUsers: 2, Client: &http.Client{Transport: a}})
	require.NoError(t, err)
	require.NoError(t, u.Load(t.Context()))
	a.users = append(a.users, listed{"carol", 8})
	u, err = New("http://list.test", &Options{MaxUsers: 2, Client: &http.Client{Transport: a}})
	require.NoError(t, err)
	require.ErrorContains(t, u.Load(t.Context()), "more than 2 users")
}

func TestNobodyListens(t *testing.T) {
	srv := httptest.NewServer(nil)
	srv.Close()
	u, err := New(srv.URL+"?key=hidden", nil)
	require.NoError(t, err)
	err = u.Load(t.Context())
	require.ErrorContains(t, err, "dial: connect: connection refused")
	require.NotContains(t, err.Error(), "hidden")
}

func TestLoadEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	url := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	}))
	u, err := New(url, nil)
	require.NoError(t, err)
	require.ErrorIs(t, u.Load(ctx), context.Canceled)
}

// run starts Run within a bubble and returns what stops it.
func run(t *testing.T, u *Users) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- u.Run(ctx) }()
	return func() {
		cancel()
		require.NoError(t, <-done)
	}
}

func TestRunLearnsOfNewUsers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := aliceAndBob()
		u, err := New("http://list.test", &Options{Client: &http.Client{Transport: a}})
		require.NoError(t, err)
		require.NoError(t, u.Load(t.Context()))
		a.queries()
		defer run(t, u)()
		wait := func() {
			time.Sleep(10 * time.Second)
			synctest.Wait()
		}
		time.Sleep(9 * time.Second)
		synctest.Wait()
		require.Empty(t, a.queries(), "it waits the whole interval")
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, []string{"last_id=7"}, a.queries())

		a.set(func() { a.pageSize, a.users = 1, append(a.users, listed{"carol", 8}, listed{"dave", 9}) })
		wait()
		require.Equal(t, []string{"last_id=7", "last_id=8", "last_id=9"}, a.queries(), "pages follow without delay")
		require.Equal(t, int32(9), ask(t, u, "dave"))

		a.set(func() { a.answer = `{"data":{"alice":10,"bob":-1,"carol":8}}` })
		wait()
		require.Equal(t, int32(10), ask(t, u, "alice"), "an entry that changes is overwritten")
		require.Zero(t, ask(t, u, "bob"), "and taken away when its number is")
		require.Equal(t, int32(8), ask(t, u, "carol"))
		require.Equal(t, int32(9), ask(t, u, "dave"), "what is not listed again stays")

		a.set(func() { a.answer = `{"data":{"ALICE":11}}` })
		wait()
		require.Equal(t, int32(10), ask(t, u, "alice"), "another spelling takes nothing over")
		a.set(func() { a.answer = `{"data":{"ALICE":12},"err_no":1}` })
		wait()
		require.Equal(t, int32(11), u.Stats().LastID, "of a failed page nothing is taken")
	})
}

func TestAFailureIsLoggedOnceAndChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		a := aliceAndBob()
		u, err := New("http://list.test/l?key=hidden", &Options{Client: &http.Client{Transport: a}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		require.NoError(t, err)
		require.NoError(t, u.Load(t.Context()))
		defer run(t, u)()
		lines := func() string {
			time.Sleep(35 * time.Second)
			synctest.Wait()
			require.Equal(t, int32(7), ask(t, u, "bob"))
			s := log.String()
			log.Reset()
			require.NotContains(t, s, "hidden")
			return s
		}
		require.Empty(t, lines())
		a.set(func() { a.status = 503 })
		s := lines()
		require.Equal(t, 1, strings.Count(s, "\n"), s)
		require.Contains(t, s, "status 503")
		a.set(func() { a.status, a.answer = 0, `{"data":null}` })
		s = lines()
		require.Equal(t, 1, strings.Count(s, "\n"), s)
		require.Contains(t, s, "no data")
		require.Equal(t, uint64(7), u.Stats().Failures)
		a.set(func() { a.answer = "" })
		s = lines()
		require.Equal(t, 1, strings.Count(s, "\n"), s)
		require.Contains(t, s, "read again")

		a.set(func() { a.answer = `{"data":{"Bob":9,"x":0}}` })
		s = lines()
		require.Equal(t, 1, strings.Count(s, "\n"), s)
		require.Contains(t, s, "bad=1 shadowed=1")
	})
}

// Without a Load the list is read from its beginning, at once.
func TestRunAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := aliceAndBob()
		a.status = 500
		u, err := New("http://list.test", &Options{Client: &http.Client{Transport: a}})
		require.NoError(t, err)
		defer run(t, u)()
		synctest.Wait()
		require.Equal(t, []string{"last_id=0"}, a.queries())
		a.set(func() { a.status = 0 })
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.Equal(t, int32(1), ask(t, u, "alice"))
	})
}

func TestCacheFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "users.json")
		a := &api{users: []listed{{"Alice", 1}, {"bob", 7}}}
		open := func(url string) (*Users, *bytes.Buffer) {
			log := new(bytes.Buffer)
			u, err := New(url, &Options{CacheFile: path, Client: &http.Client{Transport: a}, Logger: slog.New(slog.NewTextHandler(log, nil))})
			require.NoError(t, err)
			return u, log
		}
		u, _ := open("http://list.test/?key=hidden")
		require.NoError(t, u.Load(t.Context()))
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NotContains(t, string(text), "hidden")
		require.Contains(t, string(text), "\n\"Alice\":1,\n\"bob\":7\n}}\n")
		if fi, err := os.Stat(path); runtime.GOOS != "windows" {
			require.NoError(t, err)
			require.Equal(t, os.FileMode(0o600), fi.Mode().Perm())
		}

		// A user that Run learns of is in the file within a minute, and in any case when it ends.
		stop := run(t, u)
		a.set(func() { a.users = append(a.users, listed{"carol", 8}) })
		time.Sleep(10 * time.Second)
		synctest.Wait()
		text, err = os.ReadFile(path)
		require.NoError(t, err)
		require.NotContains(t, string(text), "carol", "not at once")
		time.Sleep(time.Minute)
		synctest.Wait()
		text, err = os.ReadFile(path)
		require.NoError(t, err)
		require.Contains(t, string(text), "carol")
		a.set(func() { a.users = append(a.users, listed{"dave", 9}) })
		time.Sleep(10 * time.Second)
		synctest.Wait()
		stop()
		text, err = os.ReadFile(path)
		require.NoError(t, err)
		require.Contains(t, string(text), "dave")

		// The API is down at the next start.
		a.status = 500
		u, log := open("http://list.test/?key=hidden")
		require.NoError(t, u.Load(t.Context()))
		require.Contains(t, log.String(), "fromCache=true")
		require.Equal(t, int32(1), ask(t, u, "alice"))
		require.Equal(t, int32(9), ask(t, u, "dave"))
		require.True(t, u.Stats().FromCache)
		require.Equal(t, 4, u.Stats().Users)

		// When it is back, the whole list is read: bob is gone, and so is the doubt.
		a.set(func() { a.status, a.users = 0, []listed{{"Alice", 1}, {"erin", 12}} })
		a.queries()
		stop = run(t, u)
		synctest.Wait()
		require.Equal(t, []string{"key=hidden&last_id=0", "key=hidden&last_id=12"}, a.queries())
		require.Zero(t, ask(t, u, "bob"))
		require.Equal(t, int32(12), ask(t, u, "erin"))
		require.False(t, u.Stats().FromCache)
		stop()

		// An API that has lost its users is not believed.
		a.set(func() { a.users = nil })
		u, log = open("http://list.test/?key=hidden")
		require.NoError(t, u.Load(t.Context()))
		require.Contains(t, log.String(), "the list is empty, and had 2 users")
		require.Equal(t, int32(12), ask(t, u, "erin"))

		// Files that do not help: of another list, broken, none.
		a.status = 500
		u, _ = open("http://list.test/?key=another")
		err = u.Load(t.Context())
		require.ErrorContains(t, err, "status 500")
		require.ErrorContains(t, err, "another list")
		require.NoError(t, os.WriteFile(path, []byte(`{"data":{"al`), 0o600))
		u, _ = open("http://list.test/?key=hidden")
		require.ErrorContains(t, u.Load(t.Context()), "unexpected end")
		require.NoError(t, os.Remove(path))
		u, _ = open("http://list.test/?key=hidden")
		require.ErrorIs(t, u.Load(t.Context()), os.ErrNotExist)

		left, err := os.ReadDir(filepath.Dir(path))
		require.NoError(t, err)
		require.Empty(t, left, "nothing half-written is left behind")
	})
}

func TestACacheThatCannotBeWrittenStopsNothing(t *testing.T) {
	var log bytes.Buffer
	u, err := New("http://list.test", &Options{
		CacheFile: filepath.Join(t.TempDir(), "missing", "users.json"),
		Client:    &http.Client{Transport: aliceAndBob()}, Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	require.NoError(t, err)
	require.NoError(t, u.Load(t.Context()))
	require.Equal(t, int32(1), ask(t, u, "alice"))
	require.Contains(t, log.String(), "cannot keep the list")
}

func TestNewSaysEverythingThatIsWrong(t *testing.T) {
	for _, url := range []string{"", "list.test", "ftp://list.test", "http://", "http://\x00hidden", "/list"} {
		_, err := New(url, nil)
		require.ErrorContains(t, err, "URL of the list", url)
		require.NotContains(t, err.Error(), "hidden")
	}
	_, err := New("/list", &Options{Interval: -1, MaxPage: -1})
	require.ErrorContains(t, err, "URL of the list")
	require.ErrorContains(t, err, "interval")
	require.ErrorContains(t, err, "page limit")
}

// Miners are let in while the list is looked at.
func TestAuthorizeDuringALook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := aliceAndBob()
		u, err := New("http://list.test", &Options{Interval: time.Millisecond, Client: &http.Client{Transport: a}})
		require.NoError(t, err)
		require.NoError(t, u.Load(t.Context()))
		stop := run(t, u)
		for n := range int32(200) {
			a.set(func() { a.users = append(a.users, listed{fmt.Sprint("user", n), 100 + n}) })
			require.Equal(t, int32(7), ask(t, u, "bob"))
			u.Stats()
			time.Sleep(time.Millisecond)
		}
		stop()
		require.Equal(t, int32(250), ask(t, u, "user150"))

		// A look that hangs holds nobody up.
		entered, leave := make(chan struct{}), make(chan struct{})
		u.opts.Client = &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
			close(entered)
			<-leave
			return nil, errors.New("gone")
		})}
		stop = run(t, u)
		<-entered
		require.Equal(t, int32(7), ask(t, u, "bob"))
		close(leave)
		stop()
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func FuzzDecodePage(f *testing.F) {
	for _, seed := range []string{
		`{"err_no":0,"err_msg":null,"data":{"alice":1,"bob":7}}`, `{"err_no":0,"data":[]}`, `{"data":{}}`, `{"data":null}`, `{"err_no":3,"err_msg":"x"}`,
		`{"data":{"a":-1,"b":"7","c":1e3,"d":[{}]},"list":"x"}`, `{"data":{"a":1}}x`, `[`, `{"data":{"\u212a\ud800":2147483648}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		const maxBytes, maxUsers = 1 << 10, 16
		p, err := decodePage(bytes.NewReader(answer), maxBytes, maxUsers)
		if err != nil {
			require.Nil(t, p)
			return
		}
		require.LessOrEqual(t, len(answer), maxBytes)
		require.LessOrEqual(t, len(p.users), maxUsers)
		l := newList()
		l.add(p, stratum.NameRules{StripSuffix: true})
		for name, u := range l.users {
			require.NotEmpty(t, name)
			require.Positive(t, u.id)
			require.LessOrEqual(t, u.id, l.lastID)
		}
		// Package json finds the same names and numbers.
		var second struct{ Data json.RawMessage }
		require.NoError(t, json.Unmarshal(answer, &second))
		want := make(map[string]int32)
		if second.Data[0] == '{' {
			var members map[string]json.RawMessage
			require.NoError(t, json.Unmarshal(second.Data, &members))
			for name, number := range members {
				if name != "" && len(name) <= share.MaxUserName {
					id, err := strconv.ParseInt(string(number), 10, 32)
					if err != nil || id < 0 {
						id = 0
					}
					want[name] = int32(id)
				}
			}
		}
		got := make(map[string]int32)
		for _, u := range p.users {
			got[u.name] = u.id
		}
		require.Equal(t, want, got)
		// The same again changes nothing, unless one name stands there twice.
		seen := make(map[string]bool)
		for _, u := range p.users {
			if name := (stratum.NameRules{StripSuffix: true}).User(u.name); seen[name] {
				return
			} else {
				seen[name] = true
			}
		}
		changed, _ := l.add(p, stratum.NameRules{StripSuffix: true})
		require.Zero(t, changed)
	})
}

func BenchmarkDecodePage(b *testing.B) {
	var page bytes.Buffer
	page.WriteString(`{"err_no":0,"data":{"first":1`)
	for n := range 100_000 {
		fmt.Fprintf(&page, `,"someuser%d":%d`, n, n+2)
	}
	page.WriteString("}}")
	b.SetBytes(int64(page.Len()))
	b.ReportAllocs()
	for b.Loop() {
		p, err := decodePage(bytes.NewReader(page.Bytes()), 1<<30, 1<<30)
		if err != nil || len(p.users) != 100_001 {
			b.Fatal(err)
		}
	}
}

func BenchmarkAuthorize(b *testing.B) {
	u, err := New("http://list.test", &Options{Client: &http.Client{Transport: aliceAndBob()}})
	require.NoError(b, err)
	require.NoError(b, u.Load(b.Context()))
	w := share.Worker{User: "bob", Name: "rig"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := u.Authorize(b.Context(), w, ""); err != nil {
			b.Fatal(err)
		}
	}
}
