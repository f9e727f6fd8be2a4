package stratumtest

import (
	"encoding/hex"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/stratum/sv1"
	"github.com/stretchr/testify/require"
)

func TestWorkedExample(t *testing.T) {
	j := exampleJob(t)
	var r sv1.Request
	var sent sv1.Submit
	require.NoError(t, r.Decode([]byte(example(t, "submit"))))
	require.NoError(t, sent.Decode(r.Params, 8))
	s := j.Share(sent.Extranonce2[:], sent.NTime, sent.Nonce, sent.VersionBits)
	require.Equal(t, example(t, "header"), hex.EncodeToString(s.Header[:]))
	require.Equal(t, example(t, "hash"), s.BlockHash())
	require.True(t, difficulty.Difficulty(1).Target().MetBy(&s.Hash))
	require.False(t, difficulty.Difficulty(2).Target().MetBy(&s.Hash))
	require.True(t, s.HasVersionBits)
	network, err := j.NetworkTarget()
	require.NoError(t, err)
	require.False(t, network.MetBy(&s.Hash))

	// A hash search finds the nonce where it is and not where it is not.
	u := &unit{job: j, extranonce2: sent.Extranonce2[:], versionBits: sent.VersionBits}
	u.header = j.Header(u.extranonce2, j.NTime, 0, u.versionBits)
	nonce, found := u.search(sent.Nonce-100, 1000, j.Target)
	require.True(t, found)
	require.Equal(t, sent.Nonce, nonce)
	_, found = u.search(sent.Nonce-100, 100, j.Target)
	require.False(t, found)
	require.Equal(t, s, u.share(nonce))
}

// The bits outside the mask are the job's, those inside the miner's: BIP 310.
func TestVersionRolling(t *testing.T) {
	for _, tt := range []struct {
		name                     string
		job, mask, bits, version uint32
	}{
		{"bits in the mask", 0x20000000, 0x1fffe000, 0x00c00000, 0x20c00000},
		{"job with a bit in the mask", 0x20002000, 0x1fffe000, 0x00c00000, 0x20c00000},
		{"bits outside the mask", 0x20000000, 0x1fffe000, 0xffffffff, 0x3fffe000},
		{"no mask", 0x20000000, 0, 0x00c00000, 0x20000000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := (&Job{Version: tt.job, VersionMask: tt.mask}).Header(nil, 0, 0, tt.bits)
			require.Equal(t, []byte{byte(tt.version), byte(tt.version >> 8), byte(tt.version >> 16), byte(tt.version >> 24)}, h[:4])
		})
	}
}

// The block that a CPU miner found on BTCPool: its hash is the previous hash of the job that came next.
func TestBlockOfTheTranscript(t *testing.T) {
	text, err := os.ReadFile("../sv1/testdata/cpuminer-transcript.txt")
	require.NoError(t, err)
	jobs := map[string]*Job{}
	var found *Share
	var last *Job
	for line := range strings.Lines(string(text)) {
		start := strings.IndexByte(line, '{')
		if start < 0 || !strings.HasPrefix(line, "conn2") {
			continue
		}
		var m sv1.Message
		require.NoError(t, m.Decode([]byte(strings.TrimSpace(line[start:]))))
		switch m.Method {
		case sv1.MethodNotify:
			j, err := parseNotify(m.Params)
			require.NoError(t, err)
			j.Extranonce1 = []byte{2, 0, 0, 0}
			jobs[j.ID], last = j, j
			if found != nil {
				require.Equal(t, found.Hash, j.PrevHash)
				require.Equal(t, "ac90cd20", hex.EncodeToString(reverse(found.Hash[:4])))
			}
			same := new(sv1.Notify)
			require.NoError(t, same.Decode(m.Params))
			require.Equal(t, &sv1.Notify{JobID: j.ID, PrevHash: j.PrevHash, Coinb1: j.Coinb1, Coinb2: j.Coinb2,
				Branch: j.Branch, Version: j.Version, Bits: j.Bits, NTime: j.NTime, Clean: j.Clean}, same)
		case sv1.MethodSubmit:
			var s sv1.Submit
			require.NoError(t, s.Decode(m.Params, 8))
			j := jobs[strconv.FormatUint(s.JobID, 10)]
			share := j.Share(s.Extranonce2[:], s.NTime, s.Nonce, s.VersionBits)
			target, err := j.NetworkTarget()
			require.NoError(t, err)
			require.True(t, target.MetBy(&share.Hash))
			require.False(t, share.HasVersionBits)
			found = &share
		}
	}
	require.NotNil(t, found)
	require.Equal(t, "16", last.ID)
}

func reverse(b []byte) []byte {
	r := make([]byte, len(b))
	for i := range b {
		r[len(b)-1-i] = b[i]
	}
	return r
}

func TestParseNotifyRefuses(t *testing.T) {
	good := string(exampleParams(t))
	for _, tt := range []struct{ name, old, new, err string }{
		{"an object", good, `{}`, "cannot unmarshal"},
		{"eight params", `,false`, ``, "8 params, want 9"},
		{"a job id that is a number", `"5"`, `5`, "param 0 is not a string"},
		{"a short previous hash", `"00112233`, `"112233`, "param 1 has 31 bytes, want 32"},
		{"a coinbase that is not hex", `"02000000`, `"0200000x`, "param 2: encoding/hex"},
		{"a branch of null", `["a646769b477491d98705e4aafb01e08fea366cad0bd3260d43e279f057102304","9c312fd9d0cb6d6e88d7c1016b75ec93bf23ad9b781affb57d4604edd445b446"]`, `null`, "param 4 is not a list"},
		{"a branch of numbers", `"a646769b477491d98705e4aafb01e08fea366cad0bd3260d43e279f057102304"`, `1`, "param 4 is not a string"},
		{"a short branch", `"a64676`, `"64676`, "param 4: encoding/hex"},
		{"a version of 3 bytes", `"20000000"`, `"200000"`, "param 5 has 3 bytes, want 4"},
		{"a clean flag that is a number", `false`, `0`, "param 8 is not a boolean"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bad := strings.Replace(good, tt.old, tt.new, 1)
			require.NotEqual(t, good, bad)
			_, err := parseNotify([]byte(bad))
			require.ErrorContains(t, err, tt.err)
		})
	}
}

func FuzzParseNotify(f *testing.F) {
	f.Add(exampleParams(f))
	f.Add([]byte(`["x","` + strings.Repeat("00", 32) + `","","",[],"00000000","00000000","00000000",true]`))
	f.Fuzz(func(t *testing.T, params []byte) {
		j, err := parseNotify(params)
		if err != nil {
			return
		}
		// What the strict reader takes, the one that pools are built on takes, and reads the same.
		var n sv1.Notify
		if n.Decode(params) != nil {
			return
		}
		require.Equal(t, sv1.Notify{JobID: n.JobID, PrevHash: j.PrevHash, Coinb1: j.Coinb1, Coinb2: j.Coinb2,
			Branch: j.Branch, Version: j.Version, Bits: j.Bits, NTime: j.NTime, Clean: j.Clean}, n)
	})
}

func TestSpread(t *testing.T) {
	for _, tt := range []struct{ n, mask, want uint32 }{
		{0, 0x1fffe000, 0},
		{1, 0x1fffe000, 0x2000},
		{5, 0x1fffe000, 0xa000},
		{0xffff, 0x1fffe000, 0x1fffe000},
		{0x10001, 0x1fffe000, 0x2000},
		{3, 0x80000001, 0x80000001},
		{2, 0x80000001, 0x80000000},
		{7, 0, 0},
	} {
		require.Equal(t, tt.want, spread(tt.n, tt.mask), "spread(%x, %x)", tt.n, tt.mask)
	}
}

func TestUnitsDiffer(t *testing.T) {
	for _, size := range []int{2, 4, 8, 12} {
		m, _ := newPool(t, nil)
		j := exampleJob(t)
		j.Extranonce2Size = size
		seen := map[[80]byte]bool{}
		for i := range 300 {
			u := m.newUnit(j)
			require.Len(t, u.extranonce2, size)
			require.False(t, seen[u.header], "unit %d of size %d again", i, size)
			seen[u.header] = true
			require.Equal(t, j.Header(u.extranonce2, j.NTime, 0, u.versionBits), u.header)
		}
	}
}

func TestReplyErr(t *testing.T) {
	require.NoError(t, (&Reply{Accepted: true}).Err())
	require.EqualError(t, (&Reply{Code: 23, Message: "Low difficulty"}).Err(), `refused with code 23: "Low difficulty"`)
}
