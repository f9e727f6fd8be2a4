package sv1

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCapabilities(t *testing.T) {
	var many []string
	for i := range MaxCapabilities + 1 {
		many = append(many, "c"+strconv.Itoa(i))
	}
	both := []string{"verrol", "subres"}
	for _, tt := range []struct {
		name, line string
		want       []string
	}{
		{"the probe of BTCAgent", `{"id":"conn_test","method":"agent.get_capabilities","params":[["verrol"]]}`, []string{"verrol"}},
		{"BTCAgent", `{"id":"caps","method":"agent.get_capabilities","params":[["verrol","subres"]]}`, both},
		{"the line that crashed BTCPool", `{"id":1,"method":"agent.get_capabilities","params":[]}`, nil},
		{"no params", `{"id":1,"method":"agent.get_capabilities"}`, nil},
		{"params null", `{"id":1,"method":"agent.get_capabilities","params":null}`, nil},
		{"an empty list", `{"id":1,"method":"agent.get_capabilities","params":[[]]}`, nil},
		{"null in the list", `{"id":1,"method":"agent.get_capabilities","params":[null]}`, nil},
		{"names not nested", `{"id":1,"method":"agent.get_capabilities","params":["verrol","subres"]}`, both},
		{"one of each", `{"id":1,"method":"agent.get_capabilities","params":[["verrol"],"subres"]}`, both},
		{"two lists", `{"id":1,"method":"agent.get_capabilities","params":[["verrol"],["subres"]]}`, both},
		{"lists too deep", `{"id":1,"method":"agent.get_capabilities","params":[[["verrol"]]]}`, nil},
		{"what is no name", `{"id":1,"method":"agent.get_capabilities","params":[[1,null,{"verrol":true},"subres",true]]}`, []string{"subres"}},
		{"an object", `{"id":1,"method":"agent.get_capabilities","params":[{"capabilities":["verrol"]}]}`, nil},
		{"repeated names", `{"id":1,"method":"agent.get_capabilities","params":[["verrol","subres","verrol"],"subres"]}`, both},
		{"escapes", `{"id":1,"method":"agent.get_capabilities","params":[["\u0076errol","sub\u0072es"]]}`, both},
		{"an empty name", `{"id":1,"method":"agent.get_capabilities","params":[[""]]}`, []string{""}},
		{"too many", `{"id":1,"method":"agent.get_capabilities","params":[["` + strings.Join(many, `","`) + `"]]}`, many[:MaxCapabilities]},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var r Request
			require.NoError(t, r.Decode([]byte(tt.line)))
			require.Equal(t, MethodAgentGetCapabilities, r.Method)
			c := Capabilities{Names: []string{"stale"}}
			require.NoError(t, c.Decode(r.Params))
			require.Equal(t, tt.want, c.Names)
			require.Equal(t, slices.Contains(tt.want, "subres"), c.Has(CapabilitySubmitResponse))
			require.Equal(t, slices.Contains(tt.want, "verrol"), c.Has(CapabilityVersionRolling))
		})
	}
	for _, params := range []string{`{}`, `"verrol"`, `1`, `["verrol"`, `["verrol"]]`, `["verrol",x]`, `[["verrol" "subres"]]`} {
		c := Capabilities{Names: []string{"stale"}}
		require.ErrorIs(t, c.Decode([]byte(params)), ErrParams, params)
		require.Empty(t, c.Names)
	}
	require.NoError(t, new(Capabilities).Decode(nil))
}

func TestCapabilitiesResult(t *testing.T) {
	line := AppendCapabilitiesResult([]byte("x"), []byte(`"caps"`), CapabilityVersionRolling, CapabilitySubmitResponse)
	require.Equal(t, `x{"id":"caps","result":{"capabilities":["verrol","subres"]},"error":null}`+"\n", string(line))
	require.Equal(t, `{"id":null,"result":{"capabilities":[]},"error":null}`+"\n", string(AppendCapabilitiesResult(nil, nil)))

	for _, tt := range []struct {
		name, line string
		want       []string
		err        error
	}{
		{"ours", string(line[1:]), []string{"verrol", "subres"}, nil},
		{"of BTCPool, without an error", `{"id":"conn_test","result":{"capabilities":["verrol","subres"]}}`, []string{"verrol", "subres"}, nil},
		{"with more in it", `{"id":1,"result":{"x":["y"],"capabilities":["verrol",1,"verrol"]}}`, []string{"verrol"}, nil},
		{"an empty object", `{"id":1,"result":{}}`, nil, nil},
		{"a list of null", `{"id":1,"result":{"capabilities":null}}`, nil, nil},
		{"a list of nothing", `{"id":1,"result":{"capabilities":[]}}`, nil, nil},
		{"no list", `{"id":1,"result":{"capabilities":"verrol"}}`, nil, ErrParams},
		{"no object", `{"id":1,"result":["verrol"]}`, nil, ErrParams},
		{"true", `{"id":1,"result":true}`, nil, ErrParams},
		{"an old pool", `{"id":1,"result":null,"error":[26,"Illegal method",null]}`, nil, ErrParams},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var m Message
			require.NoError(t, m.Decode([]byte(strings.TrimSpace(tt.line))))
			c := CapabilitiesResult{Names: []string{"stale"}}
			require.ErrorIs(t, c.Decode(m.Result), tt.err)
			require.Equal(t, tt.want, c.Names)
			require.Equal(t, slices.Contains(tt.want, "subres"), c.Has(CapabilitySubmitResponse))
		})
	}
}

func TestAppendCapabilitiesRequest(t *testing.T) {
	require.Equal(t, `{"id":3,"method":"agent.get_capabilities","params":[["verrol","subres"]]}`+"\n",
		string(AppendCapabilitiesRequest(nil, 3, CapabilityVersionRolling, CapabilitySubmitResponse)))
	require.Equal(t, `{"id":3,"method":"agent.get_capabilities","params":[[]]}`+"\n", string(AppendCapabilitiesRequest(nil, 3)))
}

func FuzzCapabilities(f *testing.F) {
	for _, params := range []string{`[["verrol","subres"]]`, `[]`, ``, `["verrol",["subres","\u0076errol"],null,{"a":[]}]`,
		`[[["x"]]]`, `{"capabilities":["verrol",1]}`, `{"capabilities":null,"capabilities":[]}`, `["\ud800"]`} {
		f.Add([]byte(params))
	}
	f.Fuzz(func(t *testing.T, params []byte) {
		var c Capabilities
		err := c.Decode(params)
		list, ok := jsonList(params)
		if !ok {
			require.ErrorIs(t, err, ErrParams)
			require.Empty(t, c.Names)
		} else {
			require.NoError(t, err)
			var want []string
			for _, tok := range list {
				inner, isList := jsonList(tok)
				if !isList {
					inner = []json.RawMessage{tok}
				}
				want = append(want, texts(inner)...)
			}
			checkNames(t, want, c.Names)
		}

		var r CapabilitiesResult
		var object map[string]json.RawMessage
		if r.Decode(params) == nil {
			require.NoError(t, json.Unmarshal(params, &object))
			if tok := object["capabilities"]; string(tok) != "null" {
				inner, isList := jsonList(tok)
				require.True(t, isList)
				checkNames(t, texts(inner), r.Names)
			}
		}

		// What was decoded can be sent, and comes back as it was.
		for i, name := range c.Names {
			c.Names[i] = asJSON(name)
		}
		c.Names = slices.Compact(c.Names)
		var m Message
		line := AppendCapabilitiesResult(nil, []byte("1"), c.Names...)
		require.NoError(t, m.Decode(line[:len(line)-1]))
		require.NoError(t, r.Decode(m.Result))
		checkNames(t, c.Names, r.Names)
		var req Request
		var again Capabilities
		line = AppendCapabilitiesRequest(nil, 1, c.Names...)
		require.NoError(t, req.Decode(line[:len(line)-1]))
		require.NoError(t, again.Decode(req.Params))
		checkNames(t, c.Names, again.Names)
	})
}

func texts(list []json.RawMessage) (names []string) {
	for _, tok := range list {
		if s, ok := jsonText(tok); ok {
			names = append(names, s)
		}
	}
	return names
}

// checkNames compares what Decode kept with all names there were. Where bytes that are not UTF-8 were replaced, names
// that differed may be the same.
func checkNames(t *testing.T, all, got []string) {
	require.LessOrEqual(t, len(got), MaxCapabilities)
	var want []string
	for _, s := range all {
		if !slices.Contains(want, s) {
			want = append(want, s)
		}
	}
	var have []string
	for _, s := range got {
		if s = asJSON(s); !slices.Contains(have, s) {
			have = append(have, s)
		}
	}
	if len(got) < MaxCapabilities {
		require.Equal(t, want, have)
		return
	}
	require.Equal(t, want[:len(have)], have)
}
