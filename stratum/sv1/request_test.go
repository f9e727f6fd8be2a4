package sv1

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRequestDecode(t *testing.T) {
	nested := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for _, tt := range []struct {
		name, line string
		want       Request // Name is that of Method unless set
		err        error
	}{
		{"integer id", `{"id":4,"method":"mining.subscribe","params":["a"]}`,
			Request{ID: []byte(`4`), Method: MethodSubscribe, Params: []byte(`["a"]`)}, nil},
		{"id zero", `{"id":0,"method":"mining.ping","params":[]}`, Request{ID: []byte(`0`), Method: MethodPing}, nil},
		{"id above 64 bits", `{"id":123456789012345678901234567890,"method":"mining.ping"}`,
			Request{ID: []byte(`123456789012345678901234567890`), Method: MethodPing}, nil},
		{"negative id", `{"id":-1,"method":"mining.ping"}`, Request{ID: []byte(`-1`), Method: MethodPing}, nil},
		{"float id", `{"id":1.50e+3,"method":"mining.ping"}`, Request{ID: []byte(`1.50e+3`), Method: MethodPing}, nil},
		{"string id", `{"id":"caps","method":"agent.get_capabilities"}`,
			Request{ID: []byte(`"caps"`), Method: MethodAgentGetCapabilities}, nil},
		{"string id with escapes", `{"id":"a\"\u00e9\ud83d\ude00","method":"mining.ping"}`,
			Request{ID: []byte(`"a\"\u00e9\ud83d\ude00"`), Method: MethodPing}, nil},
		{"empty string id", `{"id":"","method":"mining.ping"}`, Request{ID: []byte(`""`), Method: MethodPing}, nil},
		{"string id that is not UTF-8", "{\"id\":\"a\xff\",\"method\":\"mining.ping\"}", Request{Method: MethodPing}, nil},
		{"string id with a DEL", "{\"id\":\"a\x7f\",\"method\":\"mining.ping\"}", Request{Method: MethodPing}, nil},
		{"string id with an escaped control character", `{"id":"a\u0007","method":"mining.ping"}`, Request{Method: MethodPing}, nil},
		{"string id with half a surrogate pair", `{"id":"\ud800","method":"mining.ping"}`, Request{Method: MethodPing}, nil},
		{"null id", `{"id":null,"method":"mining.ping"}`, Request{Method: MethodPing}, nil},
		{"boolean id", `{"id":true,"method":"mining.ping"}`, Request{Method: MethodPing}, nil},
		{"object id", `{"id":{"a":1},"method":"mining.ping"}`, Request{Method: MethodPing}, nil},
		{"array id", `{"id":[1],"method":"mining.ping"}`, Request{Method: MethodPing}, nil},
		{"no id", `{"method":"mining.ping"}`, Request{Method: MethodPing}, nil},

		{"keys in another order", `{"params":[1],"method":"mining.submit","id":3}`,
			Request{ID: []byte(`3`), Method: MethodSubmit, Params: []byte(`[1]`)}, nil},
		{"jsonrpc and unknown keys", `{"jsonrpc":"2.0","x":{"method":"no"},"id":3,"method":"mining.ping"}`,
			Request{ID: []byte(`3`), Method: MethodPing}, nil},
		{"the last of two keys", `{"id":1,"method":"mining.ping","id":2,"method":"mining.submit"}`,
			Request{ID: []byte(`2`), Method: MethodSubmit}, nil},
		{"escapes in a key and a method", `{"i\u0064":1,"method":"mining\u002eping"}`,
			Request{ID: []byte(`1`), Method: MethodPing}, nil},
		{"space everywhere and a CR", " {\t\"id\" : 1 , \"method\" :\"mining.ping\" , \"params\" : [ ] }\r",
			Request{ID: []byte(`1`), Method: MethodPing, Params: []byte(`[ ]`)}, nil},
		{"params null", `{"id":1,"method":"mining.subscribe","params":null}`,
			Request{ID: []byte(`1`), Method: MethodSubscribe}, nil},
		{"params missing", `{"id":1,"method":"mining.subscribe"}`,
			Request{ID: []byte(`1`), Method: MethodSubscribe}, nil},
		{"unknown method", `{"id":1,"method":"eth_submitWork","params":[]}`,
			Request{ID: []byte(`1`), Name: []byte("eth_submitWork")}, nil},
		{"method in another case", `{"id":1,"method":"Mining.Submit","params":[]}`,
			Request{ID: []byte(`1`), Name: []byte("Mining.Submit")}, nil},

		{"params an object", `{"id":1,"method":"mining.submit","params":{"a":1}}`,
			Request{ID: []byte(`1`), Method: MethodSubmit}, ErrParams},
		{"params a string", `{"id":1,"method":"mining.submit","params":"x"}`,
			Request{ID: []byte(`1`), Method: MethodSubmit}, ErrParams},
		{"method a number", `{"id":1,"method":7,"params":[]}`, Request{ID: []byte(`1`)}, ErrParams},
		{"method empty", `{"id":"x","method":"","params":[]}`, Request{ID: []byte(`"x"`)}, ErrParams},
		{"method missing", `{"id":1,"params":[]}`, Request{ID: []byte(`1`)}, ErrParams},
		{"empty object", `{}`, Request{}, ErrParams},
		{"method a number beside a result", `{"id":1,"method":7,"result":true}`, Request{ID: []byte(`1`)}, ErrParams},

		{"pong", `{"id":10,"result":"pong","error":null}`,
			Request{ID: []byte(`10`), IsReply: true, Result: []byte(`"pong"`)}, nil},
		{"reply with a method of null", `{"id":10,"result":null,"method":null}`,
			Request{ID: []byte(`10`), IsReply: true, Result: []byte(`null`)}, nil},
		{"reply with only an error", `{"id":10,"error":[20,"x",null]}`, Request{ID: []byte(`10`), IsReply: true}, nil},
		{"a method beside a result", `{"id":10,"result":1,"method":"mining.ping"}`,
			Request{ID: []byte(`10`), Method: MethodPing}, nil},

		{"suggested difficulty in the method", `{"id":1,"method":"mining.suggest_difficulty(2048)","params":[]}`,
			Request{ID: []byte(`1`), Method: MethodSuggestDifficulty, Name: []byte("mining.suggest_difficulty(2048)"),
				Params: []byte(`[2048]`)}, nil},
		{"suggested difficulty in both", `{"id":1,"method":"mining.suggest_difficulty(2048)","params":[16]}`,
			Request{ID: []byte(`1`), Method: MethodSuggestDifficulty, Name: []byte("mining.suggest_difficulty(2048)"),
				Params: []byte(`[16]`)}, nil},
		{"no number in the method", `{"id":1,"method":"mining.suggest_difficulty(],[)","params":[]}`,
			Request{ID: []byte(`1`), Method: MethodSuggestDifficulty, Name: []byte("mining.suggest_difficulty(],[)")}, nil},
		{"parenthesis left open", `{"id":1,"method":"mining.suggest_difficulty(5","params":[]}`,
			Request{ID: []byte(`1`), Name: []byte("mining.suggest_difficulty(5")}, nil},

		{"62 arrays in params", `{"id":1,"method":"mining.ping","params":[` + nested(62) + `]}`,
			Request{ID: []byte(`1`), Method: MethodPing, Params: []byte(`[` + nested(62) + `]`)}, nil},
		{"65 levels", `{"id":1,"method":"mining.ping","params":[` + nested(63) + `]}`, Request{}, ErrSyntax},
		{"65 levels of objects", `{"x":` + strings.Repeat(`{"x":`, 64) + `1` + strings.Repeat("}", 65), Request{}, ErrSyntax},
		{"batch", `[{"id":1,"method":"mining.ping","params":[]}]`, Request{}, ErrBatch},
		{"empty batch", ` []`, Request{}, ErrBatch},
		{"broken batch", `[{]`, Request{}, ErrSyntax},
		{"batch of 65 levels", nested(65), Request{}, ErrSyntax},
		{"empty line", ``, Request{}, ErrSyntax},
		{"space only", ` `, Request{}, ErrSyntax},
		{"a number", `5`, Request{}, ErrSyntax},
		{"HTTP", `GET / HTTP/1.1`, Request{}, ErrSyntax},
		{"TLS hello", "\x16\x03\x01\x02\x00", Request{}, ErrSyntax},
		{"two objects", `{"id":1,"method":"mining.ping"}{}`, Request{}, ErrSyntax},
		{"text after an empty object", `{}x`, Request{}, ErrSyntax},
		{"trailing comma", `{"id":1,"method":"mining.ping",}`, Request{}, ErrSyntax},
		{"single quotes", `{'id':1}`, Request{}, ErrSyntax},
		{"key without quotes", `{id:1}`, Request{}, ErrSyntax},
		{"missing colon", `{"id" 1}`, Request{}, ErrSyntax},
		{"comment", `{"id":1/**/}`, Request{}, ErrSyntax},
		{"NaN", `{"id":NaN}`, Request{}, ErrSyntax},
		{"leading zero", `{"id":01}`, Request{}, ErrSyntax},
		{"plus sign", `{"id":+1}`, Request{}, ErrSyntax},
		{"number ends in a point", `{"id":1.}`, Request{}, ErrSyntax},
		{"number ends in an exponent", `{"id":1e}`, Request{}, ErrSyntax},
		{"word cut short", `{"id":nul}`, Request{}, ErrSyntax},
		{"escape of x", `{"id":"\x41"}`, Request{}, ErrSyntax},
		{"escape cut short", `{"id":"\u00g1"}`, Request{}, ErrSyntax},
		{"NUL in a string", "{\"id\":\"\x00\"}", Request{}, ErrSyntax},
		{"NUL after the object", "{\"id\":1}\x00", Request{}, ErrSyntax},
		{"tab in a long string", "{\"id\":\"0123456789abcdef\tx\"}", Request{}, ErrSyntax},
		{"no end", `{"id":1,"method":"mining.submit","params":["a`, Request{}, ErrSyntax},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.want.Params == nil {
				tt.want.Params = []byte("[]")
			}
			if tt.want.Name == nil && tt.want.Method != MethodUnknown {
				tt.want.Name = []byte(tt.want.Method.String())
			}
			r := Request{ID: []byte("stale"), Result: []byte("stale"), IsReply: true}
			require.ErrorIs(t, r.Decode([]byte(tt.line)), tt.err)
			require.Equal(t, tt.want, r)
		})
	}
}

func TestRequestBorrowsWithoutRoomToGrow(t *testing.T) {
	line := []byte(`{"id":4,"method":"mining.ping","params":[1]}`)
	want := string(line)
	var r Request
	require.NoError(t, r.Decode(line))
	_ = append(r.ID, 'x')
	_ = append(r.Name, 'x')
	_ = append(r.Params, 'x')
	require.Equal(t, want, string(line))
}

func TestMethodNames(t *testing.T) {
	seen := map[string]bool{}
	for m := MethodUnknown + 1; m < methodCount; m++ {
		require.NotEqual(t, "unknown", m.String(), "method %d has no name", m)
		require.Equal(t, m, methodOf([]byte(m.String())))
		require.False(t, seen[m.String()], "%s twice", m)
		seen[m.String()] = true
	}
	require.Equal(t, "unknown", MethodUnknown.String())
	require.Equal(t, "unknown", methodCount.String())
	require.Equal(t, MethodUnknown, methodOf([]byte("unknown")))
}

func TestCodeTexts(t *testing.T) {
	seen := map[string]bool{}
	for code := CodeOther; code <= CodeVersionMask; code++ {
		require.False(t, seen[CodeText(code)], "%q twice", CodeText(code))
		seen[CodeText(code)] = true
	}
	require.Equal(t, "Unknown", CodeText(CodeOther))
	require.Equal(t, "Unknown", CodeText(-1))
	require.Equal(t, "Job not found (=stale)", CodeText(21))
}

func TestParamErrorsAreErrParams(t *testing.T) {
	require.ErrorIs(t, errSubmitCount, ErrParams)
	require.False(t, errors.Is(ErrJobID, ErrParams), "a wrong job id has a code of its own")
}
