package main

import (
	"os"
	"strings"
	"testing"

	"github.com/poolkit/poolkit/stratum/sv1"
	"github.com/stretchr/testify/require"
)

// Replies as pools write them.
var replyLines = []struct {
	name, line string
	want       message // without the slices that borrow
	text       string
	bad        bool
}{
	{name: "ours", line: `{"id":16,"result":true,"error":null}`, want: message{reply: true, id: 16, hasID: true, accepted: true}},
	{name: "result first and spaces", line: `{ "result" : true , "error" : null , "id" : 20 }`,
		want: message{reply: true, id: 20, hasID: true, accepted: true}},
	{name: "without an error", line: `{"id":7,"result":true}`, want: message{reply: true, id: 7, hasID: true, accepted: true}},
	{name: "JSON-RPC 2", line: `{"jsonrpc":"2.0","id":7,"result":true,"error":null}`,
		want: message{reply: true, id: 7, hasID: true, accepted: true}},
	{name: "false is a refusal", line: `{"id":7,"result":false,"error":null}`, want: message{reply: true, id: 7, hasID: true}},
	{name: "rejected as BTCPool does", line: `{"id":9,"result":null,"error":[23,"Low difficulty",null]}`,
		want: message{reply: true, id: 9, hasID: true, code: 23}, text: "Low difficulty"},
	{name: "rejected with a false", line: `{"error": [21, "Stale", []], "id": 9, "result": false}`,
		want: message{reply: true, id: 9, hasID: true, code: 21}, text: "Stale"},
	{name: "rejected with an object", line: `{"id":9,"result":null,"error":{"code":23,"message":"low"}}`,
		want: message{reply: true, id: 9, hasID: true, code: 23}, text: "low"},
	{name: "rejected with a text alone", line: `{"id":9,"result":null,"error":"nope"}`,
		want: message{reply: true, id: 9, hasID: true, code: 20}, text: "nope"},
	{name: "rejected with an escape", line: `{"id":9,"result":null,"error":[23,"a \"b\"",null]}`,
		want: message{reply: true, id: 9, hasID: true, code: 23}, text: `a "b"`},
	{name: "a negative code", line: `{"id":9,"result":null,"error":[-2,"x",null]}`,
		want: message{reply: true, id: 9, hasID: true, code: -2}, text: "x"},
	{name: "a code that is no number", line: `{"id":9,"result":null,"error":["x"]}`,
		want: message{reply: true, id: 9, hasID: true, code: 20}, text: "x"},
	{name: "an id in quotes", line: `{"id":"17","result":true,"error":null}`,
		want: message{reply: true, id: 17, hasID: true, accepted: true}},
	{name: "a word as id", line: `{"id":"auth","result":true,"error":null}`, want: message{reply: true, accepted: true}},
	{name: "no id", line: `{"id":null,"result":true,"error":null}`, want: message{reply: true, accepted: true}},
	{name: "a null method", line: `{"id":3,"method":null,"result":true}`, want: message{reply: true, id: 3, hasID: true, accepted: true}},
	{name: "escaped key", line: `{"\u0069d":3,"result":true}`, want: message{reply: true, id: 3, hasID: true, accepted: true}},
	{name: "a notification", line: `{"id":null,"method":"mining.set_difficulty","params":[1]}`},

	{name: "empty object", line: `{}`, bad: true},
	{name: "an array", line: `[]`, bad: true},
	{name: "cut off", line: `{"id":16,"result":tr`, bad: true},
	{name: "no end", line: `{"id":16,"result":true`, bad: true},
	{name: "more after the end", line: `{"id":16,"result":true}}`, bad: true},
	{name: "not JSON", line: `HTTP/1.1 400 Bad Request`, bad: true},
	{name: "nothing", line: ``, bad: true},
	{name: "an open string", line: `{"id":16,"result":"\`, bad: true},
	{name: "a method that is a number", line: `{"id":1,"method":5}`, bad: true},
}

func TestScan(t *testing.T) {
	for _, test := range replyLines {
		t.Run(test.name, func(t *testing.T) {
			var m message
			ok := m.scan([]byte(test.line))
			require.Equal(t, !test.bad, ok)
			if test.bad {
				return
			}
			require.Equal(t, test.text, string(m.text))
			got := message{reply: m.reply, id: m.id, hasID: m.hasID, accepted: m.accepted, code: m.code}
			require.Equal(t, test.want, got)
		})
	}
}

func notifyLine(t testing.TB) string {
	text, err := os.ReadFile("../../stratum/sv1/testdata/worked-example.txt")
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "notify "); ok {
			return strings.TrimSpace(v)
		}
	}
	t.Fatal("no notify in the worked example")
	return ""
}

func TestScanNotify(t *testing.T) {
	var m message
	require.True(t, m.scan([]byte(notifyLine(t))))
	require.Equal(t, "mining.notify", string(m.method))
	var n notify
	require.True(t, n.scan(m.params))
	require.Equal(t, "5", string(n.jobID))
	require.EqualValues(t, 0x66669991, n.ntime)
	require.False(t, n.clean)
	require.Equal(t, "00112233c6d7e8f98293a4b52d4f6071c7e9081b0001a3f50000000000000000", string(n.prevHash))

	for _, bad := range []string{
		``, `{}`, `[]`, `["5"]`, `["5","p","a","b",[],"1","2","3"]`, `["","p","a","b",[],"1","2","3",true]`,
		`["5","p","a","b",[],"1","2","xyz",true]`, `["5","p","a","b",[],"1","2","123456789",true]`,
		`["` + strings.Repeat("5", maxJobID+1) + `","p","a","b",[],"1","2","3",true]`, `["5","p","a","b",[`,
	} {
		require.False(t, n.scan([]byte(bad)), bad)
	}
	require.True(t, n.scan([]byte(`[5, "p" , "a","b",[],"1","2","3", true]`)), "BTCPool's job proxy sends bare numbers")
	require.Equal(t, "5", string(n.jobID))
	require.True(t, n.clean)
}

func TestScanAllocatesNothing(t *testing.T) {
	lines := [][]byte{
		[]byte(`{"id":16,"result":true,"error":null}`),
		[]byte(`{"id":16,"result":null,"error":[23,"Low difficulty",null]}`),
		[]byte(notifyLine(t)),
	}
	var m message
	var n notify
	if a := testing.AllocsPerRun(100, func() {
		for _, line := range lines {
			m.scan(line)
			n.scan(m.params)
		}
	}); a != 0 {
		t.Errorf("scan allocates %v times, want 0", a)
	}
}

// What the full decoder reads the scanner reads too, and the same from it.
func FuzzScan(f *testing.F) {
	for _, test := range replyLines {
		f.Add([]byte(test.line))
	}
	f.Add([]byte(notifyLine(f)))
	f.Fuzz(func(t *testing.T, line []byte) {
		if strings.ContainsAny(string(line), "\n") {
			return
		}
		var m message
		ok := m.scan(line)
		var n notify
		n.scan(m.params)
		var want sv1.Message
		if want.Decode(line) != nil {
			return
		}
		if want.IsReply || len(want.Name) > 0 {
			require.True(t, ok, "%q", line)
		}
		if !ok {
			return
		}
		require.Equal(t, want.IsReply, m.reply, "%q", line)
		if !m.reply {
			require.Equal(t, string(want.Name), string(m.method), "%q", line)
			return
		}
		require.Equal(t, want.Accepted(), m.accepted, "%q", line)
		if id, isNumber := want.IDNumber(); isNumber && len(want.ID) <= 19 {
			require.True(t, m.hasID, "%q", line)
			require.Equal(t, id, m.id, "%q", line)
		}
		if want.Err != nil {
			require.Equal(t, want.Err.Code, m.code, "%q", line)
			require.Equal(t, want.Err.Message, string(m.text), "%q", line)
		} else {
			require.Zero(t, m.code, "%q", line)
		}
	})
}

func BenchmarkScanReply(b *testing.B) {
	line := []byte(`{"id":123456,"result":null,"error":[23,"Low difficulty",null]}`)
	var m message
	b.ReportAllocs()
	for b.Loop() {
		m.scan(line)
	}
}

func BenchmarkScanNotify(b *testing.B) {
	line := []byte(notifyLine(b))
	var m message
	var n notify
	b.ReportAllocs()
	for b.Loop() {
		m.scan(line)
		n.scan(m.params)
	}
}
