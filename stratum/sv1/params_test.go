package sv1

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSubscribeDecode(t *testing.T) {
	for _, tt := range []struct {
		name, params string
		want         Subscribe
		err          error
	}{
		{"cgminer that resumes", `["cgminer/4.12.1","1a00002b"]`, Subscribe{"cgminer/4.12.1", "1a00002b"}, nil},
		{"agent only", `["cpuminer/2.5.1"]`, Subscribe{Agent: "cpuminer/2.5.1"}, nil},
		{"nothing", `[]`, Subscribe{}, nil},
		{"host and port", `["a/1",null,"pool.example",3333]`, Subscribe{Agent: "a/1"}, nil},
		{"agent with a space and escapes", `["Antminer S21\/\u0031\" \ud83d\ude00"]`, Subscribe{Agent: "Antminer S21/1\" 😀"}, nil},
		{"half surrogate pairs", `["\ud800x\udc00\ud800\u0041"]`, Subscribe{Agent: "\uFFFDx\uFFFD\uFFFDA"}, nil},
		{"all short escapes", `["\b\f\n\r\t\/\\\""]`, Subscribe{Agent: "\b\f\n\r\t/\\\""}, nil},
		{"agent that is not UTF-8", "[\"a\xffb\"]", Subscribe{Agent: "a\xffb"}, nil},
		{"agent a number", `[5,"id"]`, Subscribe{ResumeID: "id"}, nil},
		{"params an object", `{}`, Subscribe{}, ErrParams},
		{"array not closed", `["a"`, Subscribe{}, ErrParams},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := Subscribe{"stale", "stale"}
			require.ErrorIs(t, s.Decode([]byte(tt.params)), tt.err)
			require.Equal(t, tt.want, s)
		})
	}
}

func TestAuthorizeDecode(t *testing.T) {
	for _, tt := range []struct {
		name, params string
		want         Authorize
		err          error
	}{
		{"user and password", `["alice.rig01","d=65536,md=1024"]`, Authorize{"alice.rig01", "d=65536,md=1024"}, nil},
		{"no password", `["alice.rig01"]`, Authorize{User: "alice.rig01"}, nil},
		{"password null", `["alice.rig01",null]`, Authorize{User: "alice.rig01"}, nil},
		{"password a number", `["alice.rig01",123]`, Authorize{"alice.rig01", "123"}, nil},
		{"nothing", `[]`, Authorize{}, nil},
		{"user empty", `["","x"]`, Authorize{Password: "x"}, nil},
		{"user an array", `[["x"],"x"]`, Authorize{Password: "x"}, nil},
		{"user with escapes", `["al\u0069ce","x"]`, Authorize{"alice", "x"}, nil},
		{"params a string", `"x"`, Authorize{}, ErrParams},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := Authorize{"stale", "stale"}
			require.ErrorIs(t, a.Decode([]byte(tt.params)), tt.err)
			require.Equal(t, tt.want, a)
		})
	}
}

func TestConfigureDecode(t *testing.T) {
	rolling := []string{"version-rolling"}
	for _, tt := range []struct {
		name, params string
		want         Configure
		err          error
	}{
		{"all of BIP 310", `[["version-rolling","minimum-difficulty","subscribe-extranonce","info"],
			{"version-rolling.mask":"1fffe000","version-rolling.min-bit-count":2,"minimum-difficulty.value":2048,
			"info.connection-url":"stratum+tcp://p:1","info.hw-version":"S21","info.sw-version":"x","info.hw-id":"7"}]`,
			Configure{Extensions: []string{"version-rolling", "minimum-difficulty", "subscribe-extranonce", "info"},
				VersionRolling: true, VersionRollingMask: 0x1fffe000, VersionRollingMinBits: 2,
				MinimumDifficulty: true, MinimumDifficultyValue: 2048, SubscribeExtranonce: true,
				Info: true, ConnectionURL: "stratum+tcp://p:1", HWVersion: "S21", SWVersion: "x", HWID: "7"}, nil},
		{"cgminer", `[["version-rolling"],{"version-rolling.mask":"ffffffff"}]`,
			Configure{Extensions: rolling, VersionRolling: true, VersionRollingMask: math.MaxUint32}, nil},
		{"Antminer", `[["version-rolling"],{"version-rolling.min-bit-count":16,"version-rolling.mask":"00C00000"}]`,
			Configure{Extensions: rolling, VersionRolling: true, VersionRollingMask: 0xc00000, VersionRollingMinBits: 16}, nil},
		{"no map", `[["version-rolling"]]`,
			Configure{Extensions: rolling, VersionRolling: true, VersionRollingMask: math.MaxUint32}, nil},
		{"map null", `[["version-rolling"],null]`,
			Configure{Extensions: rolling, VersionRolling: true, VersionRollingMask: math.MaxUint32}, nil},
		{"mask missing", `[["version-rolling"],{}]`,
			Configure{Extensions: rolling, VersionRolling: true, VersionRollingMask: math.MaxUint32}, nil},
		{"mask null", `[["version-rolling"],{"version-rolling.mask":null}]`,
			Configure{Extensions: rolling, VersionRolling: true, VersionRollingMask: math.MaxUint32}, nil},
		{"mask not hex", `[["version-rolling"],{"version-rolling.mask":"xyz"}]`, Configure{Extensions: rolling}, nil},
		{"mask a number", `[["version-rolling"],{"version-rolling.mask":5}]`, Configure{Extensions: rolling}, nil},
		{"mask of 9 digits", `[["version-rolling"],{"version-rolling.mask":"01fffe000"}]`, Configure{Extensions: rolling}, nil},
		{"mask of an extension not asked for", `[["info"],{"version-rolling.mask":"1fffe000"}]`,
			Configure{Extensions: []string{"info"}, Info: true}, nil},
		{"min-bit-count absurd", `[["version-rolling"],{"version-rolling.min-bit-count":-3}]`,
			Configure{Extensions: rolling, VersionRolling: true, VersionRollingMask: math.MaxUint32}, nil},
		{"difficulty a fraction", `[["minimum-difficulty"],{"minimum-difficulty.value":0.001}]`,
			Configure{Extensions: []string{"minimum-difficulty"}, MinimumDifficulty: true, MinimumDifficultyValue: 0.001}, nil},
		{"difficulty zero", `[["minimum-difficulty"],{"minimum-difficulty.value":-0}]`,
			Configure{Extensions: []string{"minimum-difficulty"}, MinimumDifficulty: true}, nil},
		{"difficulty negative", `[["minimum-difficulty"],{"minimum-difficulty.value":-1}]`,
			Configure{Extensions: []string{"minimum-difficulty"}}, nil},
		{"difficulty infinite", `[["minimum-difficulty"],{"minimum-difficulty.value":1e999}]`,
			Configure{Extensions: []string{"minimum-difficulty"}}, nil},
		{"difficulty missing", `[["minimum-difficulty"],{}]`, Configure{Extensions: []string{"minimum-difficulty"}}, nil},
		{"unknown and repeated names", `[["x\"y","info","x\"y"],{"x.a":[1]}]`,
			Configure{Extensions: []string{`x"y`, "info"}, Info: true}, nil},
		{"no names", `[[],{}]`, Configure{}, nil},
		{"no params", `[]`, Configure{}, ErrParams},
		{"list null", `[null,{}]`, Configure{}, ErrParams},
		{"list a string", `["version-rolling",{}]`, Configure{}, ErrParams},
		{"name a number", `[[5],{}]`, Configure{}, ErrParams},
		{"map an array", `[["info"],[]]`, Configure{}, ErrParams},
		{"array not closed", `[["info"],{}`, Configure{}, ErrParams},
		{"32 names", `[["` + strings.Join(numbers(32), `","`) + `"]]`, Configure{Extensions: numbers(32)}, nil},
		{"33 names", `[["` + strings.Join(numbers(33), `","`) + `"]]`, Configure{}, ErrParams},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := Configure{Extensions: []string{"stale"}, Info: true}
			err := c.Decode([]byte(tt.params))
			require.ErrorIs(t, err, tt.err)
			if tt.err == nil {
				require.Equal(t, tt.want, c)
				require.False(t, math.Signbit(c.MinimumDifficultyValue))
			}
		})
	}
}

func numbers(n int) []string {
	s := make([]string, n)
	for i := range s {
		s[i] = strconv.Itoa(i)
	}
	return s
}

func TestDifficultyDecode(t *testing.T) {
	for _, tt := range []struct {
		name, params string
		want         float64 // 0: refused
	}{
		{"integer", `[2048]`, 2048},
		{"fraction", `[0.001]`, 0.001},
		{"exponent", `[1e6]`, 1e6},
		{"string", `["65536"]`, 65536},
		{"string with space", `[" 65536.5 "]`, 65536.5},
		{"extra params", `[2048,"x",{}]`, 2048},
		{"2^62", `[4611686018427387904]`, 1 << 62},
		{"the smallest float", `[5e-324]`, 5e-324},
		{"nothing", `[]`, 0},
		{"zero", `[0]`, 0},
		{"below every float", `[1e-400]`, 0},
		{"negative", `[-1]`, 0},
		{"above every float", `[1e999]`, 0},
		{"a string of an infinity", `["inf"]`, 0},
		{"a string of no number", `["nan"]`, 0},
		{"hexadecimal", `["0x10p0"]`, 0},
		{"underscores", `["1_000"]`, 0},
		{"empty string", `[""]`, 0},
		{"null", `[null]`, 0},
		{"array", `[[5]]`, 0},
		{"not an array", `5`, 0},
		{"array not closed", `[5`, 0},
		{"text after the array", `[5]x`, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, d := SuggestDifficulty{9}, SetDifficulty{9}
			errS, errD := s.Decode([]byte(tt.params)), d.Decode([]byte(tt.params))
			if tt.want == 0 {
				require.ErrorIs(t, errS, ErrParams)
				require.ErrorIs(t, errD, ErrParams)
			} else {
				require.NoError(t, errS)
				require.NoError(t, errD)
			}
			require.Equal(t, tt.want, s.Difficulty)
			require.Equal(t, tt.want, d.Difficulty)
		})
	}
}

func TestSuggestTargetDecode(t *testing.T) {
	one := "00000000ffff" + strings.Repeat("0", 52)
	want := [32]byte{4: 0xff, 5: 0xff}
	for _, tt := range []struct {
		name, params string
		want         [32]byte
	}{
		{"difficulty 1", `["` + one + `"]`, want},
		{"upper case and an extra param", `["` + strings.ToUpper(one) + `",1]`, want},
		{"zero", `["` + strings.Repeat("0", 64) + `"]`, [32]byte{}},
		{"the digit zero", `["0"]`, [32]byte{}},
		{"63 digits", `["` + one[1:] + `"]`, [32]byte{}},
		{"65 digits", `["0` + one + `"]`, [32]byte{}},
		{"not hex at the end", `["` + one[1:] + `x"]`, [32]byte{}},
		{"a number", `[1]`, [32]byte{}},
		{"nothing", `[]`, [32]byte{}},
		{"not an array", `"` + one + `"`, [32]byte{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := SuggestTarget{[32]byte{9}}
			err := s.Decode([]byte(tt.params))
			require.Equal(t, tt.want, s.Target)
			if tt.want == [32]byte{} {
				require.ErrorIs(t, err, ErrParams)
				return
			}
			require.NoError(t, err)
			var r Request
			require.NoError(t, r.Decode(AppendSuggestTargetRequest(nil, 1, &s.Target)))
			require.Equal(t, MethodSuggestTarget, r.Method)
			require.Equal(t, `["`+one+`"]`, string(r.Params))
		})
	}
}

func TestSmallDecoders(t *testing.T) {
	type decoder interface{ Decode([]byte) error }
	for _, tt := range []struct {
		name, params string
		into, want   decoder // want nil: ErrParams
	}{
		{"transactions of a job", `["5"]`, &GetTransactions{}, &GetTransactions{"5"}},
		{"transactions of a bare number", `[5]`, &GetTransactions{}, &GetTransactions{"5"}},
		{"transactions of nothing", `[]`, &GetTransactions{}, nil},
		{"transactions of null", `[null]`, &GetTransactions{}, nil},
		{"transactions of an object", `{}`, &GetTransactions{}, nil},

		{"mask", `["1fffe000"]`, &SetVersionMask{}, &SetVersionMask{0x1fffe000}},
		{"short mask", `["0"]`, &SetVersionMask{7}, &SetVersionMask{0}},
		{"mask a number", `[5]`, &SetVersionMask{}, nil},
		{"mask too long", `["011111111"]`, &SetVersionMask{}, nil},
		{"no mask", `[]`, &SetVersionMask{}, nil},
		{"mask not closed", `["0"`, &SetVersionMask{}, nil},

		{"extranonce", `["1a00002c",8]`, &SetExtranonce{}, &SetExtranonce{[]byte{0x1a, 0, 0, 0x2c}, 8}},
		{"empty extranonce", `["",100,null]`, &SetExtranonce{}, &SetExtranonce{[]byte{}, 100}},
		{"odd extranonce", `["1a0",8]`, &SetExtranonce{}, nil},
		{"extranonce of 33 bytes", `["` + strings.Repeat("00", 33) + `",8]`, &SetExtranonce{}, nil},
		{"extranonce2 size zero", `["1a00002c",0]`, &SetExtranonce{}, nil},
		{"extranonce2 size 101", `["1a00002c",101]`, &SetExtranonce{}, nil},
		{"extranonce2 size a fraction", `["1a00002c",8.5]`, &SetExtranonce{}, nil},
		{"extranonce2 size missing", `["1a00002c"]`, &SetExtranonce{}, nil},
		{"extranonce not closed", `["1a00002c",8`, &SetExtranonce{}, nil},

		{"reconnect here", `[]`, &Reconnect{"x", 1, 1}, &Reconnect{}},
		{"reconnect there", `["pool.example",3333,10]`, &Reconnect{}, &Reconnect{"pool.example", 3333, 10}},
		{"reconnect to a port in quotes", `["pool.example","3333"]`, &Reconnect{}, &Reconnect{"pool.example", 3333, 0}},
		{"reconnect after an absurd wait", `["pool.example",3333,99999999]`, &Reconnect{}, &Reconnect{"pool.example", 3333, 86400}},
		{"reconnect after a negative wait", `["pool.example",3333,-1]`, &Reconnect{}, &Reconnect{"pool.example", 3333, 0}},
		{"reconnect without port", `["pool.example"]`, &Reconnect{}, nil},
		{"reconnect to port 65536", `["pool.example",65536]`, &Reconnect{}, nil},
		{"reconnect to a number", `[5,3333]`, &Reconnect{}, nil},
		{"reconnect to an empty name", `["",3333]`, &Reconnect{}, nil},
		{"reconnect not an array", `"x"`, &Reconnect{}, nil},

		{"message", `["h\u00e9llo\n"]`, &ShowMessage{}, &ShowMessage{"héllo\n"}},
		{"message a number", `[5]`, &ShowMessage{}, nil},
		{"message missing", `[]`, &ShowMessage{}, nil},
		{"message not closed", `["x"`, &ShowMessage{}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.into.Decode([]byte(tt.params))
			if tt.want == nil {
				require.ErrorIs(t, err, ErrParams)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.want, tt.into)
		})
	}
}

// The decoders of params and results, when called without an envelope, judge JSON as encoding/json does.
func TestDecodersRefuseWhatIsNotJSON(t *testing.T) {
	for _, params := range []string{`[,]`, `[1,]`, `[1 2]`, `[1`, `[`, `[1]]`, `[1]1`, `["\x"]`, `[{"a"}]`, `[tru]`, `[1}`, ` `, `nul`} {
		require.False(t, json.Valid([]byte(params)))
		b := []byte(params)
		for name, err := range map[string]error{
			"Subscribe":         new(Subscribe).Decode(b),
			"Authorize":         new(Authorize).Decode(b),
			"Configure":         new(Configure).Decode(b),
			"Submit":            new(Submit).Decode(b, 8),
			"SuggestDifficulty": new(SuggestDifficulty).Decode(b),
			"SuggestTarget":     new(SuggestTarget).Decode(b),
			"GetTransactions":   new(GetTransactions).Decode(b),
			"Notify":            new(Notify).Decode(b),
			"SetVersionMask":    new(SetVersionMask).Decode(b),
			"SetExtranonce":     new(SetExtranonce).Decode(b),
			"Reconnect":         new(Reconnect).Decode(b),
			"ShowMessage":       new(ShowMessage).Decode(b),
			"SubscribeResult":   new(SubscribeResult).Decode(b),
			"ConfigureResult":   new(ConfigureResult).Decode(b),
		} {
			require.ErrorIs(t, err, ErrParams, "%s of %s", name, params)
		}
	}
}
