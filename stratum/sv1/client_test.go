package sv1

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMessageDecode(t *testing.T) {
	for _, tt := range []struct {
		name, line string
		want       Message
		accepted   bool
		err        error
	}{
		{"accepted", `{"id":4,"result":true,"error":null}`, Message{ID: []byte("4"), IsReply: true, Result: []byte("true")}, true, nil},
		{"accepted without an error key", `{"id":4,"result":true}`, Message{ID: []byte("4"), IsReply: true, Result: []byte("true")}, true, nil},
		{"refused", `{"id":4,"result":null,"error":[21,"Job not found (=stale)",null]}`,
			Message{ID: []byte("4"), IsReply: true, Err: &ReplyError{21, "Job not found (=stale)"}}, false, nil},
		{"refused with an object", `{"id":4,"error":{"message":"no\u0021","code":-32601,"data":{}},"result":false}`,
			Message{ID: []byte("4"), IsReply: true, Result: []byte("false"), Err: &ReplyError{-32601, "no!"}}, false, nil},
		{"refused with a text", `{"id":"a","result":null,"error":"no"}`,
			Message{ID: []byte(`"a"`), IsReply: true, Err: &ReplyError{20, "no"}}, false, nil},
		{"refused with a list of text", `{"id":4,"result":null,"error":["no"]}`,
			Message{ID: []byte("4"), IsReply: true, Err: &ReplyError{20, "no"}}, false, nil},
		{"refused with a code", `{"id":4,"result":null,"error":23}`,
			Message{ID: []byte("4"), IsReply: true, Err: &ReplyError{23, ""}}, false, nil},
		{"refused with a code in quotes", `{"id":4,"result":null,"error":["23","low"]}`,
			Message{ID: []byte("4"), IsReply: true, Err: &ReplyError{20, "23"}}, false, nil},
		{"refused with an absurd code", `{"id":4,"result":null,"error":[1e99,5]}`,
			Message{ID: []byte("4"), IsReply: true, Err: &ReplyError{20, ""}}, false, nil},
		{"refused with an empty list", `{"id":4,"result":null,"error":[]}`,
			Message{ID: []byte("4"), IsReply: true, Err: &ReplyError{20, ""}}, false, nil},
		{"refused without a word", `{"id":4,"result":false,"error":null}`,
			Message{ID: []byte("4"), IsReply: true, Result: []byte("false")}, false, nil},
		{"neither", `{"id":4,"result":null,"error":null}`, Message{ID: []byte("4"), IsReply: true}, false, nil},
		{"notification", `{"id":null,"method":"mining.set_difficulty","params":[1]}`,
			Message{Method: MethodSetDifficulty, Name: []byte("mining.set_difficulty"), Params: []byte("[1]")}, false, nil},
		{"request", `{"id":9,"method":"client.get_version","params":[]}`,
			Message{ID: []byte("9"), Method: MethodGetVersion, Name: []byte("client.get_version")}, false, nil},
		{"neither method nor result", `{"id":9}`, Message{ID: []byte("9")}, false, ErrParams},
		{"params a number", `{"method":"mining.ping","params":5}`, Message{Method: MethodPing, Name: []byte("mining.ping")}, false, ErrParams},
		{"batch", `[]`, Message{}, false, ErrBatch},
		{"half a line", `{"id":4,"resu`, Message{}, false, ErrSyntax},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.want.Params == nil {
				tt.want.Params = []byte("[]")
			}
			m := Message{Err: &ReplyError{}, Result: []byte("true")}
			require.ErrorIs(t, m.Decode([]byte(tt.line)), tt.err)
			require.Equal(t, tt.want, m)
			require.Equal(t, tt.accepted, m.Accepted())
		})
	}
	require.EqualError(t, &ReplyError{21, "no\n"}, `sv1: error 21 from the server: "no\n"`)
}

func TestMessageIDNumber(t *testing.T) {
	for id, want := range map[string]uint64{"0": 0, "7": 7, "18446744073709551615": 1<<64 - 1} {
		n, ok := (&Message{ID: []byte(id)}).IDNumber()
		require.True(t, ok, id)
		require.Equal(t, want, n)
	}
	for _, id := range []string{"", `"7"`, "-7", "7.0", "18446744073709551616"} {
		_, ok := (&Message{ID: []byte(id)}).IDNumber()
		require.False(t, ok, id)
	}
}

func TestSubscribeResultDecode(t *testing.T) {
	en1 := []byte{0x1a, 0, 0, 0x2b}
	for _, tt := range []struct {
		name, result string
		want         SubscribeResult
		err          error
	}{
		{"BTCPool", `[[["mining.set_difficulty","1a00002b"],["mining.notify","1a00002c"]],"1a00002b",8]`, SubscribeResult{"1a00002c", en1, 8}, nil},
		{"one pair", `[["mining.notify","ae6812eb"],"1A00002B",4]`, SubscribeResult{"ae6812eb", en1, 4}, nil},
		{"no subscriptions", `[[],"1a00002b",4]`, SubscribeResult{"", en1, 4}, nil},
		{"subscriptions null", `[null,"1a00002b",4]`, SubscribeResult{"", en1, 4}, nil},
		{"empty extranonce1", `[[],"",12]`, SubscribeResult{"", []byte{}, 12}, nil},
		{"two elements", `[[],"1a00002b"]`, SubscribeResult{}, ErrParams},
		{"size zero", `[[],"1a00002b",0]`, SubscribeResult{}, ErrParams},
		{"size in quotes", `[[],"1a00002b","8"]`, SubscribeResult{}, ErrParams},
		{"extranonce1 not hex", `[[],"1a00002x",8]`, SubscribeResult{}, ErrParams},
		{"extranonce1 a number", `[[],1,8]`, SubscribeResult{}, ErrParams},
		{"true", `true`, SubscribeResult{}, ErrParams},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := SubscribeResult{SubscriptionID: "stale"}
			require.ErrorIs(t, s.Decode([]byte(tt.result)), tt.err)
			require.Equal(t, tt.want, s)
		})
	}
}

func TestConfigureResultDecode(t *testing.T) {
	for _, tt := range []struct {
		name, result string
		want         ConfigureResult
		err          error
	}{
		{"everything", `{"minimum-difficulty":true,"version-rolling":true,"version-rolling.mask":"1fffe000","subscribe-extranonce":true,"info":true,"x":{}}`,
			ConfigureResult{true, true, 0x1fffe000, true, true}, nil},
		{"nothing", `{}`, ConfigureResult{}, nil},
		{"refused in words", `{"version-rolling":"not here","version-rolling.mask":"1fffe000","info":false}`, ConfigureResult{}, nil},
		{"no mask", `{"version-rolling":true}`, ConfigureResult{}, nil},
		{"mask not hex", `{"version-rolling":true,"version-rolling.mask":"x"}`, ConfigureResult{}, nil},
		{"mask zero", `{"version-rolling":true,"version-rolling.mask":"00000000"}`, ConfigureResult{VersionRolling: true}, nil},
		{"true", `true`, ConfigureResult{}, ErrParams},
		{"list", `[]`, ConfigureResult{}, ErrParams},
		{"nothing at all", ``, ConfigureResult{}, ErrParams},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := ConfigureResult{Info: true}
			require.ErrorIs(t, r.Decode([]byte(tt.result)), tt.err)
			require.Equal(t, tt.want, r)
		})
	}
}

func TestClientLines(t *testing.T) {
	for _, tt := range []struct {
		name string
		line []byte
		want string
	}{
		{"configure of BIP 310", AppendConfigureRequest(nil, 1, &Configure{VersionRolling: true, VersionRollingMask: 0x1fffe000,
			VersionRollingMinBits: 2, MinimumDifficulty: true, MinimumDifficultyValue: 2048, SubscribeExtranonce: true, Info: true, SWVersion: "x"}),
			`{"id":1,"method":"mining.configure","params":[["version-rolling","minimum-difficulty","subscribe-extranonce","info"],` +
				`{"version-rolling.mask":"1fffe000","version-rolling.min-bit-count":2,"minimum-difficulty.value":2048,"info.sw-version":"x"}]}`},
		{"configure of nothing", AppendConfigureRequest(nil, 1, &Configure{}), `{"id":1,"method":"mining.configure","params":[[],{}]}`},
		{"configure of others", AppendConfigureRequest(nil, 1, &Configure{Extensions: []string{"info", "x"}, MinimumDifficulty: true}),
			`{"id":1,"method":"mining.configure","params":[["minimum-difficulty","x"],{"minimum-difficulty.value":0}]}`},
		{"subscribe", AppendSubscribeRequest(nil, 2, &Subscribe{"cgminer/4.12.1", "1a00002b"}),
			`{"id":2,"method":"mining.subscribe","params":["cgminer/4.12.1","1a00002b"]}`},
		{"subscribe without resuming", AppendSubscribeRequest(nil, 2, &Subscribe{Agent: "a b/\"1"}),
			`{"id":2,"method":"mining.subscribe","params":["a b/\"1"]}`},
		{"subscribe without agent", AppendSubscribeRequest(nil, 2, &Subscribe{ResumeID: "x"}), `{"id":2,"method":"mining.subscribe","params":[]}`},
		{"authorize", AppendAuthorizeRequest(nil, 3, &Authorize{"alice.rig01", "d=65536,md=1024"}),
			`{"id":3,"method":"mining.authorize","params":["alice.rig01","d=65536,md=1024"]}`},
		{"submit", AppendSubmitRequest(nil, 7, &SubmitRequest{Worker: "w", JobID: "bf", Extranonce2: []byte{0, 1}, NTime: 1, Nonce: 0xABCDEF01}),
			`{"id":7,"method":"mining.submit","params":["w","bf","0001","00000001","abcdef01"]}`},
		{"suggest difficulty", AppendSuggestDifficultyRequest(nil, 4, 0.5), `{"id":4,"method":"mining.suggest_difficulty","params":[0.5]}`},
		{"suggest target", AppendSuggestTargetRequest(nil, 4, &[32]byte{4: 0xff, 5: 0xff}),
			`{"id":4,"method":"mining.suggest_target","params":["00000000ffff` + strings.Repeat("0", 52) + `"]}`},
		{"extranonce subscribe", AppendExtranonceSubscribeRequest(nil, 5), `{"id":5,"method":"mining.extranonce.subscribe","params":[]}`},
		{"get transactions", AppendGetTransactionsRequest(nil, 6, "job"), `{"id":6,"method":"mining.get_transactions","params":["job"]}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			require.Equal(t, tt.want+"\n", string(tt.line))
		})
	}
}

func TestConfigureRoundTrip(t *testing.T) {
	asked := Configure{Extensions: []string{"version-rolling", "minimum-difficulty", "subscribe-extranonce", "info", "x"},
		VersionRolling: true, VersionRollingMask: 0xffffffff, VersionRollingMinBits: 16, MinimumDifficulty: true,
		MinimumDifficultyValue: 0.25, SubscribeExtranonce: true, Info: true, ConnectionURL: "u", HWVersion: "h", SWVersion: "s", HWID: "i"}
	var r Request
	var c Configure
	require.NoError(t, r.Decode(AppendConfigureRequest(nil, 1, &asked)))
	require.NoError(t, c.Decode(r.Params))
	require.Equal(t, asked, c)

	granted := ConfigureResult{true, true, 0x1fffe000, true, true}
	var m Message
	var got ConfigureResult
	require.NoError(t, m.Decode(AppendConfigureResult(nil, r.ID, c.Extensions, granted)))
	require.NoError(t, got.Decode(m.Result))
	require.Equal(t, granted, got)
}
