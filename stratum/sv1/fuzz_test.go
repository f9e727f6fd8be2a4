package sv1

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// The fuzz targets compare with encoding/json, which shares no code with this package.

// isJSON reports whether b is one JSON value that is not nested too deep.
func isJSON(b []byte) bool {
	if !json.Valid(b) {
		return false
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber() // a float64 does not hold every number of JSON
	for depth := 0; ; {
		tok, err := d.Token()
		if err != nil {
			return err == io.EOF
		}
		switch tok {
		case json.Delim('['), json.Delim('{'):
			if depth++; depth > 64 {
				return false
			}
		case json.Delim(']'), json.Delim('}'):
			depth--
		}
	}
}

func jsonList(b []byte) (list []json.RawMessage, ok bool) {
	if len(b) == 0 {
		return nil, true
	}
	b = bytes.Trim(b, " \t\r\n")
	if !isJSON(b) || b[0] != '[' {
		return nil, false
	}
	return list, json.Unmarshal(b, &list) == nil
}

func at(list []json.RawMessage, i int) json.RawMessage {
	if i < len(list) {
		return list[i]
	}
	return nil
}

func jsonText(tok json.RawMessage) (s string, ok bool) {
	if len(tok) == 0 || tok[0] != '"' {
		return "", false
	}
	return s, json.Unmarshal(tok, &s) == nil
}

// asJSON replaces what is not UTF-8 as encoding/json does.
func asJSON[T string | []byte](s T) string { return string([]rune(string(s))) }

func addLines(f *testing.F) {
	text, err := os.ReadFile("testdata/cpuminer-transcript.txt")
	require.NoError(f, err)
	seen := 0
	for line := range strings.Lines(string(text)) {
		if i := strings.IndexByte(line, '{'); i >= 0 && (strings.Contains(line, "C->S") || seen < 6) {
			f.Add([]byte(strings.TrimRight(line[i:], "\n")))
			seen++
		}
	}
	f.Add([]byte(example(f, "notify")))
	f.Add(submitLine)
	for _, line := range []string{
		`{"id":1,"method":"mining.configure","params":[["version-rolling"],{"version-rolling.mask":"1fffe000"}]}`,
		`{"id":1.5e3,"method":"mining.suggest_difficulty(2048)","params":null,"jsonrpc":"2.0"}`,
		`{"id":"a\u00e9\ud83d\ude00","method":"mining\u002eping"}`,
		`{"id":4,"result":null,"error":[21,"Job not found (=stale)",null]}`,
		`{"id":4,"result":null,"error":{"code":-1,"message":"x"}}`,
		`{"id":4,"error":"x","i\u0064":5,"method":null}`,
		`[{"id":1}]`, `{}`, `{"id":{"a":[1,true,false,null]},"method":"x","params":{}}`,
		strings.Repeat("[", 65) + strings.Repeat("]", 65),
		"{\"id\":\"\xff\x7f\",\"method\":\"m\"}",
	} {
		f.Add([]byte(line))
	}
}

func FuzzRequest(f *testing.F) {
	addLines(f)
	f.Fuzz(func(t *testing.T, line []byte) {
		given := bytes.Clone(line)
		var r Request
		err := r.Decode(line)
		require.Equal(t, given, line, "the line was modified")

		trimmed := bytes.Trim(line, " \t\r\n")
		if !isJSON(line) || trimmed[0] != '{' {
			want := ErrSyntax
			if isJSON(line) && trimmed[0] == '[' {
				want = ErrBatch
			}
			require.ErrorIs(t, err, want)
			return
		}
		var keys map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(line, &keys))
		method, isText := jsonText(keys["method"])
		null := func(key string) bool { v, ok := keys[key]; return !ok || string(v) == "null" }

		checkID(t, keys["id"], r.ID)
		_, result := keys["result"]
		_, failed := keys["error"]
		if null("method") && (result || failed) {
			require.NoError(t, err)
			require.True(t, r.IsReply)
			require.Equal(t, string(keys["result"]), string(r.Result))
			return
		}
		require.False(t, r.IsReply)
		if !isText || method == "" || !null("params") && keys["params"][0] != '[' {
			require.ErrorIs(t, err, ErrParams)
			return
		}
		require.NoError(t, err)
		require.Equal(t, method, asJSON(r.Name))
		switch {
		case strings.HasPrefix(method, "mining.suggest_difficulty("):
			require.True(t, json.Valid(r.Params))
		case null("params"):
			require.Equal(t, "[]", string(r.Params))
		default:
			require.Equal(t, string(keys["params"]), string(r.Params))
		}
		if r.Method != MethodUnknown && !strings.Contains(method, "(") {
			require.Equal(t, method, r.Method.String())
		}
		require.True(t, json.Valid(AppendTrue(nil, r.ID)))
		require.True(t, json.Valid(AppendError(nil, r.ID, 20, string(r.Name))))
		require.True(t, utf8.Valid(AppendError(nil, r.ID, 20, string(r.Name))))
	})
}

func checkID(t *testing.T, raw json.RawMessage, got []byte) {
	var want []byte
	if len(raw) != 0 && (raw[0] == '-' || raw[0] >= '0' && raw[0] <= '9') {
		want = raw
	}
	if s, ok := jsonText(raw); ok && !strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || r == utf8.RuneError }) {
		want = raw
	}
	require.Equal(t, string(want), string(got))
	require.Equal(t, want == nil, got == nil)
}

var (
	hex8      = regexp.MustCompile(`^(0[xX])?[0-9a-fA-F]{8}$`)
	hex1to8   = regexp.MustCompile(`^[0-9a-fA-F]{1,8}$`)
	decimalID = regexp.MustCompile(`^(0|[1-9][0-9]*)$`)
)

// slowSubmit reads a submit with encoding/json, regular expressions and strconv.
func slowSubmit(params []byte, size int) (s Submit, err error) {
	list, ok := jsonList(params)
	if !ok || len(list) < 5 {
		return s, ErrParams
	}
	if worker, ok := jsonText(list[0]); ok {
		s.Worker = []byte(worker)
	}
	en2, ok := jsonText(list[2])
	b, err := hex.DecodeString(en2)
	if !ok || err != nil || len(b) != size {
		return s, ErrParams
	}
	copy(s.Extranonce2[:], b)
	word := func(tok json.RawMessage, form *regexp.Regexp) (uint32, bool) {
		digits, ok := jsonText(tok)
		if !ok || !form.MatchString(digits) {
			return 0, false
		}
		v, err := strconv.ParseUint(strings.TrimPrefix(strings.ToLower(digits), "0x"), 16, 32)
		return uint32(v), err == nil
	}
	var okTime, okNonce bool
	s.NTime, okTime = word(list[3], hex8)
	s.Nonce, okNonce = word(list[4], hex8)
	if !okTime || !okNonce {
		return s, ErrParams
	}
	if len(list) > 5 && string(list[5]) != "null" {
		if s.VersionBits, s.HasVersionBits = word(list[5], hex1to8); !s.HasVersionBits {
			return s, ErrParams
		}
	}
	id, ok := jsonText(list[1])
	if !ok {
		id = string(list[1])
	}
	if s.JobID, err = strconv.ParseUint(id, 10, 64); err != nil || !decimalID.MatchString(id) {
		return s, ErrJobID
	}
	return s, nil
}

func FuzzSubmit(f *testing.F) {
	for _, params := range []string{
		`["alice.rig01","5","00000000000004d2","66669991","12f444d0","00c00000"]`,
		`["minerd.w1", "8", "0000000000000000", "6b0106b1", "a542c614"]`,
		`["w",5,"00000000000004D2","0x66669991","0X12f444d0","c00000",1,{}]`,
		`["w\"\ud800","\u0035","000004d2","66669991","12f444d0",null]`,
		`["w","05","000004d2","66669991","12f444d0"]`,
		`["w","18446744073709551616","00000000000004d2","66669991","12f444d0"]`,
		`["w","9999999999999999999","00000000000004d2","66669991","12f444d0"]`,
		`[]`, ``, `{}`,
	} {
		f.Add([]byte(params), 8)
		f.Add([]byte(params), 4)
	}
	f.Fuzz(func(t *testing.T, params []byte, size int) {
		var got Submit
		err := got.Decode(params, size)
		if size < 1 || size > 8 {
			require.ErrorIs(t, err, ErrParams)
			return
		}
		want, wantErr := slowSubmit(params, size)
		require.ErrorIs(t, err, wantErr)
		if wantErr != nil {
			return
		}
		require.Equal(t, string(want.Worker), asJSON(got.Worker))
		want.Worker, got.Worker = nil, nil
		require.Equal(t, want, got)

		// The two ways to decode agree.
		var anyway, plain Submit
		require.NoError(t, anyway.decodeAny(params, size))
		if plain.decodePlain(params, size) {
			require.Equal(t, anyway, plain)
		}

		// What was decoded can be sent again.
		line := AppendSubmitRequest(nil, 1, &SubmitRequest{Worker: "w", JobID: strconv.FormatUint(got.JobID, 10),
			Extranonce2: got.Extranonce2[:size], NTime: got.NTime, Nonce: got.Nonce,
			VersionBits: got.VersionBits, HasVersionBits: got.HasVersionBits})
		var r Request
		var again Submit
		require.NoError(t, r.Decode(line))
		require.NoError(t, again.Decode(r.Params, size))
		again.Worker = nil
		require.Equal(t, got, again)
	})
}

func FuzzMessage(f *testing.F) {
	addLines(f)
	f.Fuzz(func(t *testing.T, line []byte) {
		var m Message
		var r Request
		err := m.Decode(line)
		require.Equal(t, r.Decode(line), err, "both sides judge a line alike")
		if err != nil {
			require.False(t, m.Accepted())
			return
		}
		require.Equal(t, r.ID, m.ID)
		require.Equal(t, r.IsReply, m.IsReply)
		require.Equal(t, r.Params, m.Params)
		if !m.IsReply {
			require.False(t, m.Accepted())
			return
		}
		var keys map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(line, &keys))
		fault := string(keys["error"])
		require.Equal(t, fault != "" && fault != "null", m.Err != nil)
		result := string(keys["result"])
		require.Equal(t, m.Err == nil && result != "" && result != "null" && result != "false", m.Accepted())
		var pair []any
		if json.Unmarshal(keys["error"], &pair) == nil && len(pair) >= 2 {
			if code, ok := pair[0].(float64); ok && code == math.Trunc(code) && math.Abs(code) < 1e9 && !strings.ContainsAny(fault[:strings.IndexByte(fault, ',')], ".eE") {
				require.Equal(t, int(code), m.Err.Code)
			}
			if message, ok := pair[1].(string); ok {
				if _, first := pair[0].(string); !first {
					require.Equal(t, message, asJSON(m.Err.Message))
				}
			}
		}
		var s SubscribeResult
		if s.Decode(m.Result) == nil && m.Result != nil {
			var again SubscribeResult
			var reply Message
			require.NoError(t, reply.Decode(AppendSubscribeResult(nil, nil, s.Extranonce1, s.Extranonce2Size)))
			require.NoError(t, again.Decode(reply.Result))
			again.SubscriptionID = s.SubscriptionID
			require.Equal(t, s, again)
		}
		var c ConfigureResult
		if c.Decode(m.Result) == nil {
			var object map[string]json.RawMessage
			require.NoError(t, json.Unmarshal(m.Result, &object))
			require.Equal(t, string(object["info"]) == "true", c.Info)
			require.False(t, c.VersionRolling && string(object["version-rolling"]) != "true")
		}
	})
}

func FuzzNotify(f *testing.F) {
	var m Message
	require.NoError(f, m.Decode([]byte(example(f, "notify"))))
	f.Add(m.Params)
	for _, params := range []string{
		`["5","` + strings.Repeat("0f", 32) + `","AA","",["` + strings.Repeat("11", 32) + `"],"2","17034219","66669991",true,1]`,
		`[7,"` + strings.Repeat("0f", 32) + `","","",[],"00000002","17034219","66669991",false]`,
		`["\u0035",null,5,{},[],"","","",1]`,
	} {
		f.Add([]byte(params))
	}
	f.Fuzz(func(t *testing.T, params []byte) {
		var n Notify
		err := n.Decode(params)
		want, ok := slowNotify(params)
		if !ok {
			require.ErrorIs(t, err, ErrParams)
			return
		}
		require.NoError(t, err)
		n.JobID = asJSON(n.JobID)
		require.Equal(t, want, n)
		line := AppendNotify(nil, &n)
		var m Message
		var again Notify
		require.NoError(t, m.Decode(line))
		require.NoError(t, again.Decode(m.Params))
		require.Equal(t, n, again)
	})
}

// slowNotify reads a notify with encoding/json and encoding/hex.
func slowNotify(params []byte) (n Notify, ok bool) {
	list, ok := jsonList(params)
	if !ok || len(list) < 9 {
		return n, false
	}
	ok = true
	text := func(tok json.RawMessage) string {
		s, isText := jsonText(tok)
		ok = ok && isText
		return s
	}
	bytesOf := func(tok json.RawMessage, size int) []byte {
		b, err := hex.DecodeString(text(tok))
		ok = ok && err == nil && (size < 0 || len(b) == size)
		return b
	}
	word := func(tok json.RawMessage) uint32 {
		s := text(tok)
		v, err := strconv.ParseUint(s, 16, 32)
		ok = ok && err == nil && hex1to8.MatchString(s)
		return uint32(v)
	}
	if s, isText := jsonText(list[0]); isText {
		n.JobID = s
	} else if c := list[0][0]; c == '-' || c >= '0' && c <= '9' {
		n.JobID = string(list[0])
	}
	prev := bytesOf(list[1], 32)
	for i := range prev {
		if len(prev) == 32 {
			n.PrevHash[i] = prev[i&^3+3-i&3]
		}
	}
	n.Coinb1, n.Coinb2 = bytesOf(list[2], -1), bytesOf(list[3], -1)
	var branch []json.RawMessage
	if list[4][0] != '[' || json.Unmarshal(list[4], &branch) != nil || len(branch) > MaxBranch {
		return n, false
	}
	for _, tok := range branch {
		b := bytesOf(tok, 32)
		if !ok {
			return n, false
		}
		n.Branch = append(n.Branch, [32]byte(b))
	}
	n.Version, n.Bits, n.NTime = word(list[5]), word(list[6]), word(list[7])
	n.Clean = string(list[8]) == "true"
	return n, ok && n.JobID != "" && (n.Clean || string(list[8]) == "false")
}

// FuzzParams covers the params that are read once in a connection's life.
func FuzzParams(f *testing.F) {
	for _, params := range []string{
		`["cgminer/4.12.1","1a00002b"]`, `["alice.rig01",123]`, `[2048]`, `["0.5"]`, `["1fffe000"]`, `["1a00002c",8]`,
		`["` + strings.Repeat("0f", 32) + `"]`, `["pool.example",3333,"10"]`, `["\ud83d\ude00\n\"\\"]`, "[\"\xc3\x28\"]",
		`[["version-rolling","minimum-difficulty","info","x\u0000"],{"version-rolling.mask":"1fffe000","minimum-difficulty.value":0.5,"info.sw-version":"s"}]`,
	} {
		f.Add([]byte(params))
	}
	f.Fuzz(func(t *testing.T, params []byte) {
		list, ok := jsonList(params)
		text := func(i int) string { s, _ := jsonText(at(list, i)); return s }

		var s Subscribe
		err := s.Decode(params)
		require.Equal(t, ok, err == nil)
		require.Equal(t, []string{text(0), text(1)}, []string{asJSON(s.Agent), asJSON(s.ResumeID)})

		var a Authorize
		require.Equal(t, ok, a.Decode(params) == nil)
		if strings.HasPrefix(string(at(list, 0)), `"`) {
			require.Equal(t, text(0), asJSON(a.User))
		}

		var d SuggestDifficulty
		if d.Decode(params) == nil {
			require.True(t, ok && d.Difficulty > 0 && !math.IsInf(d.Difficulty, 0))
			var r Request
			var again SuggestDifficulty
			require.NoError(t, r.Decode(AppendSuggestDifficultyRequest(nil, 1, d.Difficulty)))
			require.NoError(t, again.Decode(r.Params))
			require.Equal(t, d, again)
		} else {
			var f float64
			require.False(t, ok && json.Unmarshal(at(list, 0), &f) == nil && f > 0 && len(list[0]) < 400)
		}

		var target SuggestTarget
		if target.Decode(params) == nil {
			require.Equal(t, strings.ToLower(text(0)), hex.EncodeToString(target.Target[:]))
		}

		var words ShowMessage
		if words.Decode(params) == nil {
			require.Equal(t, text(0), asJSON(words.Text))
			var m Message
			var again ShowMessage
			line := AppendShowMessage(nil, words.Text)
			require.True(t, json.Valid(line) && utf8.Valid(line))
			require.NoError(t, m.Decode(line))
			require.NoError(t, again.Decode(m.Params))
			require.Equal(t, text(0), again.Text)
		}

		var c Configure
		if c.Decode(params) == nil {
			var names []string
			require.NoError(t, json.Unmarshal(list[0], &names))
			for _, name := range c.Extensions {
				require.Contains(t, names, asJSON(name))
			}
			line := AppendConfigureResult(nil, nil, c.Extensions, ConfigureResult{c.MinimumDifficulty, c.VersionRolling,
				c.VersionRollingMask, c.SubscribeExtranonce, c.Info})
			var reply struct{ Result map[string]any }
			require.NoError(t, json.Unmarshal(line, &reply))
			for _, name := range names {
				require.Contains(t, reply.Result, name)
			}

			// What was decoded can be asked again. Order and what nobody can answer are not kept.
			var r Request
			var again Configure
			require.NoError(t, r.Decode(AppendConfigureRequest(nil, 1, &c)))
			require.NoError(t, again.Decode(r.Params))
			require.Equal(t, c.MinimumDifficultyValue, again.MinimumDifficultyValue)
			require.Equal(t, c.VersionRollingMask, again.VersionRollingMask)
		}

		var mask SetVersionMask
		if mask.Decode(params) == nil {
			v, err := strconv.ParseUint(text(0), 16, 32)
			require.NoError(t, err)
			require.Equal(t, uint32(v), mask.Mask)
		}
		var extranonce SetExtranonce
		if extranonce.Decode(params) == nil {
			require.Equal(t, strings.ToLower(text(0)), hex.EncodeToString(extranonce.Extranonce1))
		}
		var reconnect Reconnect
		if reconnect.Decode(params) == nil && len(list) > 0 {
			require.Equal(t, text(0), asJSON(reconnect.Host))
			require.True(t, reconnect.Port > 0 && reconnect.Port < 65536 && reconnect.WaitSeconds >= 0)
		}
		var g GetTransactions
		_ = g.Decode(params)
	})
}

func FuzzReader(f *testing.F) {
	f.Add([]byte("{}\n{\"id\":1}\r\n\n\r\nx"), 20, uint8(0))
	f.Add([]byte("0123456789\r\n01234567890\n"), 10, uint8(1))
	f.Add([]byte(strings.Repeat("x", 3000)+"\n"), 2000, uint8(2))
	f.Fuzz(func(t *testing.T, input []byte, limit int, how uint8) {
		if limit < 1 || limit > 1<<16 {
			limit = 100
		}
		var want []string
		wantErr := io.EOF
		rest := input
		for wantErr == io.EOF {
			line, after, found := bytes.Cut(rest, []byte("\n"))
			if !found {
				// A line that is too long may be found out before the input ends.
				switch {
				case len(rest) > limit+1:
					wantErr = ErrLineTooLong
				case len(rest) > 0:
					wantErr = io.ErrUnexpectedEOF
				}
				break
			}
			line = bytes.TrimSuffix(line, []byte("\r"))
			if len(line) > limit {
				wantErr = ErrLineTooLong
			} else if len(line) > 0 {
				want = append(want, string(line))
			}
			rest = after
		}
		var src io.Reader = bytes.NewReader(input)
		switch how % 4 {
		case 1:
			src = iotest.OneByteReader(src)
		case 2:
			src = iotest.HalfReader(src)
		case 3:
			src = iotest.DataErrReader(src)
		}
		r := NewReader(src, limit)
		got, err := readAll(r)
		require.Equal(t, want, got)
		require.True(t, errors.Is(err, wantErr), "%v, want %v", err, wantErr)
		require.LessOrEqual(t, len(r.buf), limit+2)

		// NextLine splits alike.
		var split []string
		for buf := input; ; {
			line, n := NextLine(buf)
			if n == 0 || len(line) > limit {
				break
			}
			if len(line) > 0 {
				split = append(split, string(line))
			}
			buf = buf[n:]
		}
		require.Equal(t, want, split)
	})
}
