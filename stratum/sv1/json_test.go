package sv1

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Strings are scanned eight bytes at a time: every byte is tried at every place.
func TestStringsOfEveryByte(t *testing.T) {
	for size := range 18 {
		for place := range size + 1 {
			for c := range 256 {
				b := []byte(`"` + strings.Repeat("a", place) + string([]byte{byte(c)}) + strings.Repeat("\xe1", size-place) + `"`)
				end := skipString(b, 0)
				switch {
				case c == '"':
					if end != place+2 {
						t.Fatalf("%q ends at %d, want %d", b, end, place+2)
					}
				case json.Valid(b) != (end == len(b)):
					t.Fatalf("%q ends at %d of %d", b, end, len(b))
				}
			}
		}
	}
}

func TestValues(t *testing.T) {
	for _, text := range []string{
		`0`, `-0`, `-`, `00`, `01`, `1.0`, `1.`, `.1`, `1e1`, `1E+1`, `1e-1`, `1e`, `1e+`, `1.5e10`, `--1`, `+1`, `0x1`, `1a`,
		`true`, `True`, `tru`, `truex`, `false`, `fals`, `null`, `nul`, `nil`, `undefined`,
		`""`, `"`, `"\"`, `"\\"`, `"\u12"`, `"\u12G4"`, `"\uABcd"`, `"\u`, `"\`, `"\a"`, `'a'`,
		`[]`, `[`, `]`, `[ ]`, `[1,2]`, `[1,]`, `[,1]`, `[1 2]`, `[[]]`, `[[]`, `[}`, `["a",]`, `["a" "b"]`,
		`{}`, `{`, `}`, `{ }`, `{"a":1}`, `{"a":1,}`, `{"a"}`, `{"a":}`, `{:1}`, `{a:1}`, `{"a":1 "b":2}`, `{"a":1,"b":[{}]}`,
		`{"a":1]`, `{1:2}`, `{"a" : 1 , "b" : 2}`, `{,}`, `{"a":"b`, ``, ` `,
	} {
		require.Equal(t, json.Valid([]byte(text)), skipValue([]byte(text), 0, 0) == len(text) && text != "", "%s", text)
	}
}

// The plain way is what nearly every submit takes; it is three times as fast.
func TestPlainSubmits(t *testing.T) {
	for params, plain := range map[string]bool{
		`["alice.rig01","5","00000000000004d2","66669991","12f444d0","00c00000"]`:         true,
		`["minerd.w1", "8", "0000000000000000", "6B0106B1", "a542c614"]`:                  true,
		`["","457395404805","0000000000000000","6b0106b1","a542c614"]`:                    true,
		`["alice\u002e","5","00000000000004d2","66669991","12f444d0","00c00000"]`:         false,
		`["alice.rig01",5,"00000000000004d2","66669991","12f444d0","00c00000"]`:           false,
		`["alice.rig01","5","00000000000004d2","0x66669991","12f444d0","00c00000"]`:       false,
		`["alice.rig01","5","00000000000004d2","66669991","12f444d0","c00000"]`:           false,
		`["alice.rig01","5","00000000000004d2","66669991","12f444d0","00c00000",1]`:       false,
		`["alice.rig01","5","00000000000004d2","66669991","12f444d0","00c00000"]]`:        false,
		`["alice.rig01","05","00000000000004d2","66669991","12f444d0","00c00000"]`:        false,
		"[\"alice\x00rig01\",\"5\",\"00000000000004d2\",\"66669991\",\"12f444d0\"]":       false,
		`["alice.rig01","10000000000000000000","00000000000004d2","66669991","12f444d0"]`: false,
	} {
		var s Submit
		require.Equal(t, plain, s.decodePlain([]byte(params), 8), params)
		for cut := 0; plain && cut < len(params); cut++ {
			require.False(t, s.decodePlain([]byte(params[:cut]), 8), params[:cut])
		}
	}
}
