package sv1

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSubmitDecode(t *testing.T) {
	// full is the example of testdata/worked-example.txt.
	full := Submit{Worker: []byte("alice.rig01"), JobID: 5, Extranonce2: [8]byte{6: 0x04, 7: 0xd2},
		NTime: 0x66669991, Nonce: 0x12f444d0, VersionBits: 0x00c00000, HasVersionBits: true}
	without := func(change func(s *Submit)) Submit {
		s := full
		change(&s)
		return s
	}
	five := without(func(s *Submit) { s.VersionBits, s.HasVersionBits = 0, false })
	for _, tt := range []struct {
		name, params string
		size         int
		want         Submit
		err          error
	}{
		{"six params", `["alice.rig01","5","00000000000004d2","66669991","12f444d0","00c00000"]`, 8, full, nil},
		{"five params", `["alice.rig01","5","00000000000004d2","66669991","12f444d0"]`, 8, five, nil},
		{"version bits null", `["alice.rig01","5","00000000000004d2","66669991","12f444d0",null]`, 8, five, nil},
		{"spaces", ` [ "alice.rig01" , "5","00000000000004d2", "66669991",  "12f444d0"	] `, 8, five, nil},
		{"eight params", `["alice.rig01","5","00000000000004d2","66669991","12f444d0","00c00000",1,{"x":[]}]`, 8, full, nil},
		{"upper case", `["alice.rig01","5","00000000000004D2","66669991","12F444D0","00C00000"]`, 8, full, nil},
		{"0x before ntime and nonce", `["alice.rig01","5","00000000000004d2","0x66669991","0X12f444d0","00c00000"]`, 8, full, nil},
		{"short version bits", `["alice.rig01","5","00000000000004d2","66669991","12f444d0","c00000"]`, 8, full, nil},
		{"one digit of version bits", `["alice.rig01","5","00000000000004d2","66669991","12f444d0","0"]`, 8,
			without(func(s *Submit) { s.VersionBits = 0 }), nil},
		{"escapes in hex", `["alice.rig01","\u0035","\u00300000000000004d2","66669991","12f444d0","00c00000"]`, 8, full, nil},
		{"escapes in the worker", `["alice\u002erig01","5","00000000000004d2","66669991","12f444d0","00c00000"]`, 8, full, nil},
		{"worker of a proxy", `["x\ny","5","00000000000004d2","66669991","12f444d0","00c00000"]`, 8,
			without(func(s *Submit) { s.Worker = []byte("x\ny") }), nil},
		{"worker that is not UTF-8", "[\"\xff\",\"5\",\"00000000000004d2\",\"66669991\",\"12f444d0\",\"00c00000\"]", 8,
			without(func(s *Submit) { s.Worker = []byte("\xff") }), nil},
		{"worker empty", `["","5","00000000000004d2","66669991","12f444d0","00c00000"]`, 8,
			without(func(s *Submit) { s.Worker = []byte{} }), nil},
		{"worker null", `[null,"5","00000000000004d2","66669991","12f444d0","00c00000"]`, 8,
			without(func(s *Submit) { s.Worker = nil }), nil},
		{"worker an array", `[["5"],"5","00000000000004d2","66669991","12f444d0","00c00000"]`, 8,
			without(func(s *Submit) { s.Worker = nil }), nil},
		{"job id a number", `["alice.rig01",5,"00000000000004d2","66669991","12f444d0","00c00000"]`, 8, full, nil},
		{"job id zero", `["alice.rig01","0","00000000000004d2","66669991","12f444d0","00c00000"]`, 8,
			without(func(s *Submit) { s.JobID = 0 }), nil},
		{"job id of NiceHash", `["alice.rig01","457395404805","00000000000004d2","66669991","12f444d0","00c00000"]`, 8,
			without(func(s *Submit) { s.JobID = 457395404805 }), nil},
		{"largest job id", `["alice.rig01","18446744073709551615","00000000000004d2","66669991","12f444d0","00c00000"]`, 8,
			without(func(s *Submit) { s.JobID = 1<<64 - 1 }), nil},
		{"ntime zero", `["alice.rig01","5","00000000000004d2","00000000","12f444d0","00c00000"]`, 8,
			without(func(s *Submit) { s.NTime = 0 }), nil},
		{"extranonce2 of 4 bytes", `["alice.rig01","5","000004d2","66669991","12f444d0","00c00000"]`, 4,
			without(func(s *Submit) { s.Extranonce2 = [8]byte{2: 0x04, 3: 0xd2} }), nil},

		{"no params", `[]`, 8, Submit{}, ErrParams},
		{"nothing", ``, 8, Submit{}, ErrParams},
		{"four params", `["alice.rig01","5","00000000000004d2","66669991"]`, 8, Submit{}, ErrParams},
		{"not an array", `{"a":1}`, 8, Submit{}, ErrParams},
		{"array not closed", `["alice.rig01","5","00000000000004d2","66669991","12f444d0"`, 8, Submit{}, ErrParams},
		{"text after the array", `["alice.rig01","5","00000000000004d2","66669991","12f444d0"]]`, 8, Submit{}, ErrParams},
		{"broken seventh param", `["alice.rig01","5","00000000000004d2","66669991","12f444d0","00c00000",tru]`, 8, Submit{}, ErrParams},
		{"short extranonce2", `["alice.rig01","5","4d2","66669991","12f444d0"]`, 8, Submit{}, ErrParams},
		{"long extranonce2", `["alice.rig01","5","0000000000000004d2","66669991","12f444d0"]`, 8, Submit{}, ErrParams},
		{"extranonce2 with 0x", `["alice.rig01","5","0x000000000004d2","66669991","12f444d0"]`, 8, Submit{}, ErrParams},
		{"extranonce2 with a tail", `["alice.rig01","5","00000000000004d2zz","66669991","12f444d0"]`, 8, Submit{}, ErrParams},
		{"extranonce2 not hex", `["alice.rig01","5","00000000000004dg","66669991","12f444d0"]`, 8, Submit{}, ErrParams},
		{"extranonce2 a number", `["alice.rig01","5",1234,"66669991","12f444d0"]`, 8, Submit{}, ErrParams},
		{"extranonce2 of 8 bytes where 4 are agreed", `["alice.rig01","5","00000000000004d2","66669991","12f444d0"]`, 4, Submit{}, ErrParams},
		{"ntime of 7 digits", `["alice.rig01","5","00000000000004d2","6666999","12f444d0"]`, 8, Submit{}, ErrParams},
		{"ntime of 9 digits", `["alice.rig01","5","00000000000004d2","066669991","12f444d0"]`, 8, Submit{}, ErrParams},
		{"ntime a number", `["alice.rig01","5","00000000000004d2",66669991,"12f444d0"]`, 8, Submit{}, ErrParams},
		{"nonce of 10 digits", `["alice.rig01","5","00000000000004d2","66669991","0012f444d0"]`, 8, Submit{}, ErrParams},
		{"nonce of 6 digits after 0x", `["alice.rig01","5","00000000000004d2","66669991","0x12f444"]`, 8, Submit{}, ErrParams},
		{"nonce not hex", `["alice.rig01","5","00000000000004d2","66669991","12f444 0"]`, 8, Submit{}, ErrParams},
		{"nonce with a sign", `["alice.rig01","5","00000000000004d2","66669991","-12f444d"]`, 8, Submit{}, ErrParams},
		{"nonce empty", `["alice.rig01","5","00000000000004d2","66669991",""]`, 8, Submit{}, ErrParams},
		{"nonce null", `["alice.rig01","5","00000000000004d2","66669991",null]`, 8, Submit{}, ErrParams},
		{"version bits empty", `["alice.rig01","5","00000000000004d2","66669991","12f444d0",""]`, 8, Submit{}, ErrParams},
		{"version bits of 9 digits", `["alice.rig01","5","00000000000004d2","66669991","12f444d0","000c00000"]`, 8, Submit{}, ErrParams},
		{"version bits not hex", `["alice.rig01","5","00000000000004d2","66669991","12f444d0","00c0000x"]`, 8, Submit{}, ErrParams},
		{"version bits a number", `["alice.rig01","5","00000000000004d2","66669991","12f444d0",12]`, 8, Submit{}, ErrParams},
		{"extranonce2 size 0", `["alice.rig01","5","","66669991","12f444d0"]`, 0, Submit{}, ErrParams},
		{"extranonce2 size 9", `["alice.rig01","5","000000000000000000","66669991","12f444d0"]`, 9, Submit{}, ErrParams},
		{"a job id as wrong as the nonce", `["alice.rig01","x","00000000000004d2","66669991","x"]`, 8, Submit{}, ErrParams},

		{"job id empty", `["alice.rig01","","00000000000004d2","66669991","12f444d0"]`, 8, Submit{}, ErrJobID},
		{"job id with a leading zero", `["alice.rig01","05","00000000000004d2","66669991","12f444d0"]`, 8, Submit{}, ErrJobID},
		{"job id with a plus", `["alice.rig01","+5","00000000000004d2","66669991","12f444d0"]`, 8, Submit{}, ErrJobID},
		{"job id with a minus", `["alice.rig01","-5","00000000000004d2","66669991","12f444d0"]`, 8, Submit{}, ErrJobID},
		{"job id with a space", `["alice.rig01"," 5","00000000000004d2","66669991","12f444d0"]`, 8, Submit{}, ErrJobID},
		{"job id with a tail", `["alice.rig01","5x","00000000000004d2","66669991","12f444d0"]`, 8, Submit{}, ErrJobID},
		{"job id in hex", `["alice.rig01","ff","00000000000004d2","66669991","12f444d0"]`, 8, Submit{}, ErrJobID},
		{"job id one above 64 bits", `["alice.rig01","18446744073709551616","00000000000004d2","66669991","12f444d0"]`, 8, Submit{}, ErrJobID},
		{"job id far above 64 bits", `["alice.rig01","99999999999999999999","00000000000004d2","66669991","12f444d0"]`, 8, Submit{}, ErrJobID},
		{"job id that wraps to a larger one", `["alice.rig01","30000000000000000000","00000000000004d2","66669991","12f444d0"]`, 8, Submit{}, ErrJobID},
		{"job id of 21 digits", `["alice.rig01","100000000000000000000","00000000000004d2","66669991","12f444d0"]`, 8, Submit{}, ErrJobID},
		{"job id a fraction", `["alice.rig01",5.0,"00000000000004d2","66669991","12f444d0"]`, 8, Submit{}, ErrJobID},
		{"job id with an exponent", `["alice.rig01",5e0,"00000000000004d2","66669991","12f444d0"]`, 8, Submit{}, ErrJobID},
		{"job id a negative number", `["alice.rig01",-5,"00000000000004d2","66669991","12f444d0"]`, 8, Submit{}, ErrJobID},
		{"job id null", `["alice.rig01",null,"00000000000004d2","66669991","12f444d0"]`, 8, Submit{}, ErrJobID},
		{"job id true", `["alice.rig01",true,"00000000000004d2","66669991","12f444d0"]`, 8, Submit{}, ErrJobID},
		{"job id an array", `["alice.rig01",[5],"00000000000004d2","66669991","12f444d0"]`, 8, Submit{}, ErrJobID},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := Submit{Worker: []byte("stale"), HasVersionBits: true, VersionBits: 7, JobID: 9, Extranonce2: [8]byte{1, 2, 3, 4, 5, 6, 7, 8}}
			err := s.Decode([]byte(tt.params), tt.size)
			require.ErrorIs(t, err, tt.err)
			if tt.err == nil {
				require.Equal(t, tt.want, s)
			}
		})
	}
}

// What is wrong with a share whose job id is unknown does not depend on its spelling.
func TestSubmitKeepsTheRestOfAShareWithABadJobID(t *testing.T) {
	var s Submit
	require.ErrorIs(t, s.Decode([]byte(`["w","x","0000000000000001","66669991","12f444d0","00c00000"]`), 8), ErrJobID)
	require.Equal(t, Submit{Worker: []byte("w"), Extranonce2: [8]byte{7: 1}, NTime: 0x66669991, Nonce: 0x12f444d0,
		VersionBits: 0x00c00000, HasVersionBits: true}, s)
}

// Pools paid twice for one share whose hex was sent in two cases.
func TestSubmitSpellingsAreOneShare(t *testing.T) {
	var first Submit
	require.NoError(t, first.Decode([]byte(`["w","5","00000000000000ab","6666999a","12f444d0","00c00000"]`), 8))
	for _, params := range []string{
		`["w","5","00000000000000AB","6666999A","12F444D0","00C00000"]`,
		`["w",5,"00000000000000aB","0x6666999a","0X12f444D0","c00000"]`,
		`["w","\u0035","00000000000000\u0061b","6666999a","12f444d0","0c00000",""]`,
	} {
		var s Submit
		require.NoError(t, s.Decode([]byte(params), 8), params)
		require.Equal(t, first, s, params)
	}
}

func TestDecodeSubmitAllocatesNothing(t *testing.T) {
	for _, line := range []string{
		string(submitLine),
		`{"method": "mining.submit", "params": ["minerd.w1", "8", "0000000000000000", "6b0106b1", "a542c614"], "id":4}`,
		`{"id":7,"jsonrpc":"2.0","method":"mining.submit","params":[null,5,"00000000000004D2","0x66669991","12f444d0","c00000",1]}`,
		`{"id":"x","method":"mining.submit","params":["alice.rig01","05","00000000000004d2","66669991","12f444d0"]}`,
		`{"id":"x","method":"mining.submit","params":["alice.rig01","5","00000000000004d","66669991","12f444d0"]}`,
		`{"id":1,"method":"mining.submit","params":{}}`,
		`{"id":1,"method":`,
	} {
		b := []byte(line)
		var r Request
		var s Submit
		if n := testing.AllocsPerRun(100, func() {
			if r.Decode(b) == nil {
				_ = s.Decode(r.Params, 8)
			}
		}); n != 0 {
			t.Errorf("decoding %s allocates %v times, want 0", line, n)
		}
	}
}
