package sv1

import (
	"bytes"
	"encoding/hex"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// example returns a value of testdata/worked-example.txt.
func example(t testing.TB, name string) string {
	text, err := os.ReadFile("testdata/worked-example.txt")
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(v)
		}
	}
	t.Fatalf("no %s in the worked example", name)
	return ""
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

func hash(s string) [32]byte { return [32]byte(unhex(s)) }

// exampleNotify is the worked example, its hashes written as they stand in the header and in the merkle tree.
func exampleNotify() *Notify {
	return &Notify{
		JobID:    "5",
		PrevHash: hash("33221100f9e8d7c6b5a4938271604f2d1b08e9c7f5a301000000000000000000"),
		Coinb1: unhex("02000000010000000000000000000000000000000000000000000000000000000000000000ffffffff1f03bbd10c0480" +
			"9966662f53444b20706f6f6c2f"),
		Coinb2: unhex("ffffffff01205fa012000000001600140102030405060708090a0b0c0d0e0f101112131400000000"),
		Branch: [][32]byte{
			hash("a646769b477491d98705e4aafb01e08fea366cad0bd3260d43e279f057102304"),
			hash("9c312fd9d0cb6d6e88d7c1016b75ec93bf23ad9b781affb57d4604edd445b446"),
		},
		Version: 0x20000000,
		Bits:    0x17034219,
		NTime:   0x66669991,
	}
}

func TestWorkedExample(t *testing.T) {
	n := exampleNotify()
	line := example(t, "notify") + "\n"
	require.Equal(t, line, string(AppendNotify(nil, n)))
	require.Equal(t, line, string(AppendNotifyFrom(nil, 5, AppendNotifyBody(nil, n), false)))

	var m Message
	var got Notify
	require.NoError(t, m.Decode([]byte(line)))
	require.Equal(t, MethodNotify, m.Method)
	require.Nil(t, m.ID)
	require.NoError(t, got.Decode(m.Params))
	require.Equal(t, *n, got)

	var r Request
	var s Submit
	submit := example(t, "submit")
	require.NoError(t, r.Decode([]byte(submit)))
	require.NoError(t, s.Decode(r.Params, 8))
	require.Equal(t, Submit{Worker: []byte("alice.rig01"), JobID: 5, Extranonce2: [8]byte{6: 0x04, 7: 0xd2},
		NTime: n.NTime, Nonce: 0x12f444d0, VersionBits: 0x00c00000, HasVersionBits: true}, s)
	require.Equal(t, submit+"\n", string(AppendSubmitRequest(nil, 7, &SubmitRequest{
		Worker: "alice.rig01", JobID: "5", Extranonce2: s.Extranonce2[:], NTime: s.NTime, Nonce: s.Nonce,
		VersionBits: s.VersionBits, HasVersionBits: true})))
}

func TestNotifyOfAnEmptyBlockThatIsClean(t *testing.T) {
	n := exampleNotify()
	n.Branch, n.Clean, n.JobID = nil, true, "18446744073709551615"
	line := AppendNotify(nil, n)
	require.Contains(t, string(line), `,[],"20000000","17034219","66669991",true]}`)
	require.Equal(t, string(line), string(AppendNotifyFrom(nil, 1<<64-1, AppendNotifyBody(nil, n), true)))
	var m Message
	var got Notify
	require.NoError(t, m.Decode(line))
	require.NoError(t, got.Decode(m.Params))
	require.Equal(t, *n, got)
}

func TestNotifyDecodeRefuses(t *testing.T) {
	good := `["5","` + strings.Repeat("00", 32) + `","aa","bb",["` + strings.Repeat("11", 32) + `"],"20000000","17034219","66669991",false]`
	var n Notify
	require.NoError(t, n.Decode([]byte(good)))
	for _, tt := range []struct{ name, old, new string }{
		{"no job id", `"5"`, `null`},
		{"a short previous hash", strings.Repeat("00", 32), strings.Repeat("00", 31)},
		{"a previous hash that is not hex", strings.Repeat("00", 32), strings.Repeat("0x", 32)},
		{"odd hex in coinb1", `"aa"`, `"aaa"`},
		{"coinb1 a number", `"aa"`, `1`},
		{"coinb2 not hex", `"bb"`, `"gg"`},
		{"a branch of null", `["` + strings.Repeat("11", 32) + `"]`, `null`},
		{"a branch of text", `["` + strings.Repeat("11", 32) + `"]`, `"x"`},
		{"a branch with a short hash", strings.Repeat("11", 32), strings.Repeat("11", 31)},
		{"a branch of 33", `["` + strings.Repeat("11", 32) + `"]`, `[` + strings.Repeat(`"`+strings.Repeat("11", 32)+`",`, 32) + `"` + strings.Repeat("11", 32) + `"]`},
		{"a version of 9 digits", `"20000000"`, `"200000000"`},
		{"bits a number", `"17034219"`, `17034219`},
		{"an ntime that is empty", `"66669991"`, `""`},
		{"clean not a boolean", `false`, `0`},
		{"8 params", `,false`, ``},
		{"an object", good, `{}`},
		{"an array that does not end", `false]`, `false`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bad := strings.Replace(good, tt.old, tt.new, 1)
			require.NotEqual(t, good, bad)
			n := exampleNotify()
			require.ErrorIs(t, n.Decode([]byte(bad)), ErrParams)
			require.Equal(t, Notify{}, *n)
		})
	}
}

// Every line of a CPU miner's conversation with BTCPool decodes, and each line of the server comes out of our encoders
// byte for byte.
func TestCPUMinerTranscript(t *testing.T) {
	text, err := os.ReadFile("testdata/cpuminer-transcript.txt")
	require.NoError(t, err)
	seen := map[Method]int{}
	replies := 0
	for line := range strings.Lines(string(text)) {
		fields := strings.SplitN(strings.TrimRight(line, "\n"), " ", 2)
		rest := strings.TrimLeft(fields[1], " ")
		_, rest, _ = strings.Cut(rest, " ")
		direction, wire, ok := strings.Cut(rest, " ")
		require.True(t, ok)
		if wire == "<closed>" {
			continue
		}
		switch direction {
		case "C->S":
			var r Request
			require.NoError(t, r.Decode([]byte(wire)))
			require.False(t, r.IsReply)
			seen[r.Method]++
			clientLine(t, &r)
		case "S->C":
			var m Message
			require.NoError(t, m.Decode([]byte(wire)))
			seen[m.Method]++
			if m.IsReply {
				replies++
			}
			require.Equal(t, wire+"\n", string(encodeAgain(t, &m)))
		default:
			t.Fatalf("direction %q", direction)
		}
	}
	require.Equal(t, map[Method]int{MethodSubscribe: 2, MethodAuthorize: 2, MethodSubmit: 1, MethodSetDifficulty: 2,
		MethodNotify: 42, MethodUnknown: replies}, seen)
	require.Equal(t, 5, replies)
}

func clientLine(t *testing.T, r *Request) {
	switch r.Method {
	case MethodSubscribe:
		var s Subscribe
		require.NoError(t, s.Decode(r.Params))
		require.Equal(t, "1", string(r.ID))
		require.Equal(t, Subscribe{Agent: "cpuminer/2.5.1"}, s)
	case MethodAuthorize:
		var a Authorize
		require.NoError(t, a.Decode(r.Params))
		require.Equal(t, Authorize{"minerd.w1", "x"}, a)
	case MethodSubmit:
		var s Submit
		require.NoError(t, s.Decode(r.Params, 8))
		require.Equal(t, "4", string(r.ID))
		require.Equal(t, Submit{Worker: []byte("minerd.w1"), JobID: 8, NTime: 0x6b0106b1, Nonce: 0xa542c614}, s)
	default:
		t.Fatalf("method %q", r.Name)
	}
}

func encodeAgain(t *testing.T, m *Message) []byte {
	switch {
	case m.IsReply && bytes.Equal(m.Result, []byte("true")):
		require.True(t, m.Accepted())
		return AppendTrue(nil, m.ID)
	case m.IsReply:
		var s SubscribeResult
		require.NoError(t, s.Decode(m.Result))
		require.Equal(t, "02000000", s.SubscriptionID)
		return AppendSubscribeResult(nil, m.ID, s.Extranonce1, s.Extranonce2Size)
	case m.Method == MethodSetDifficulty:
		var d SetDifficulty
		require.NoError(t, d.Decode(m.Params))
		return AppendSetDifficulty(nil, d.Difficulty)
	case m.Method == MethodNotify:
		var n Notify
		require.NoError(t, n.Decode(m.Params))
		id, err := strconv.ParseUint(n.JobID, 10, 64)
		require.NoError(t, err)
		whole := AppendNotify(nil, &n)
		require.Equal(t, string(whole), string(AppendNotifyFrom(nil, id, AppendNotifyBody(nil, &n), n.Clean)))
		return whole
	}
	t.Fatalf("method %q", m.Name)
	return nil
}
