package btcagent

import (
	"encoding/hex"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRegisterNames(t *testing.T) {
	for _, tt := range []struct{ name, body, software, worker string }{
		{"both", "63676d696e657200 733130393900", "cgminer", "s1099"},
		{"neither", "00 00", "", ""},
		{"no 00 at all", "61 6e", "a", ""},
		{"a worker alone", "00 6e 00", "", "n"},
		{"a worker after two 00", "00 00 6e", "", ""},
		{"a worker without its 00 loses a byte", "61 00 6e 6e", "a", "n"},
		{"more after the worker", "61 00 6e 00 78 78 00", "a", "n"},
		{"bytes that are no text", "ff0a 00 7f22 00", "\xff\n", "\x7f\""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			body := unhex(t, "2211"+tt.body)
			var r Register
			require.NoError(t, r.Decode(Frame{CommandRegister, body}))
			require.Equal(t, uint16(0x1122), r.SessionID)
			require.Equal(t, tt.software, string(r.Software))
			require.Equal(t, tt.worker, string(r.Worker))
			require.Equal(t, len(r.Software), cap(r.Software), "appending to a name must not write into the frame")
			require.Equal(t, len(r.Worker), cap(r.Worker), "appending to a name must not write into the frame")
		})
	}
}

func TestRegisterSizes(t *testing.T) {
	frame := func(size int) []byte { // with a worker of 3 bytes
		return AppendRegister(nil, 1, strings.Repeat("x", size-4-2-1-4), "abc")
	}
	var r Register
	for _, size := range []int{BTCPoolMaxRegister, BTCPoolMaxRegister + 1, MaxRegister} {
		b := frame(size)
		require.Len(t, b, size)
		require.NoError(t, r.Decode(one(t, b)), size)
		require.Len(t, r.Software, size-11)
		require.Equal(t, "abc", string(r.Worker))
	}
	require.ErrorIs(t, r.Decode(one(t, frame(MaxRegister+1))), ErrBody)
	require.Zero(t, r)
}

func TestAppendRegisterBounds(t *testing.T) {
	long := strings.Repeat("x", 1<<17)
	for _, tt := range []struct {
		name, software, worker string
		want                   string // the body after the session id
	}{
		{"a name that holds 00", "a\x00b", "c\x00d", "a\x00c\x00"},
		{"software beyond the frame", long, "abc", long[:MaxBody-4] + "\x00\x00"},
		{"a worker beyond the frame", "abc", long, "abc\x00" + long[:MaxBody-4-3] + "\x00"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := one(t, AppendRegister(nil, 1, tt.software, tt.worker))
			require.Equal(t, "\x01\x00"+tt.want, string(f.Body))
		})
	}
}

// ErrSessionID comes with the rest, so that a share can be answered like any other of an unknown worker.
func TestSessionIDs(t *testing.T) {
	b := AppendSubmit(nil, &Submit{1, 0xffff, 2, 3, 4, 5})
	var s Submit
	require.ErrorIs(t, s.Decode(one(t, b)), ErrSessionID)
	require.Equal(t, Submit{1, 0xffff, 2, 3, 4, 5}, s)
	var r Register
	require.ErrorIs(t, r.Decode(one(t, AppendRegister(nil, 0xffff, "a", "b"))), ErrSessionID)
	require.Equal(t, Register{0xffff, []byte("a"), []byte("b")}, r)

	for _, id := range []uint16{0, 1, 0x00ff, 0xff00, 0x7fff, 0x8000, MaxSessionID} {
		require.NoError(t, s.Decode(one(t, AppendSubmit(nil, &Submit{SessionID: id}))))
		require.Equal(t, id, s.SessionID)
		require.NoError(t, r.Decode(one(t, AppendRegister(nil, id, "", ""))))
		require.Equal(t, id, r.SessionID)
	}
}

func TestAppendSubmitAs(t *testing.T) {
	full := Submit{1, 2, 3, 4, 5, 6}
	for cmd, want := range map[Command]Submit{
		CommandSubmit:            {1, 2, 3, 4, 0, 0},
		CommandSubmitTime:        {1, 2, 3, 4, 5, 0},
		CommandSubmitVersion:     {1, 2, 3, 4, 0, 6},
		CommandSubmitTimeVersion: full,
	} {
		f := one(t, AppendSubmitAs(nil, cmd, &full))
		require.Equal(t, cmd, f.Command)
		var s Submit
		require.NoError(t, s.Decode(f))
		require.Equal(t, want, s)
		require.Equal(t, cmd, s.Command(), "and no shorter one would do")
	}
	for _, cmd := range []Command{0, CommandRegister, CommandSubmitMixHash, 0xff} {
		require.Equal(t, "x", string(AppendSubmitAs([]byte("x"), cmd, &full)))
	}
}

func TestExtranonce2(t *testing.T) {
	for _, tt := range []struct {
		id   uint16
		en2  uint32
		want string
	}{
		{0x1122, 0x11223344, "0000112211223344"},
		{0, 1234, "00000000000004d2"}, // of the worked example
		{0, 0, "0000000000000000"},
		{MaxSessionID, math.MaxUint32, "0000fffeffffffff"},
	} {
		got := Extranonce2(tt.id, tt.en2)
		require.Equal(t, tt.want, hex.EncodeToString(got[:]))
	}
}

func TestAccepted(t *testing.T) {
	for _, status := range []int32{1798084231, 950395421, 1422486894, 1713984938} {
		require.True(t, (&SubmitResponse{Status: status}).Accepted(), status)
	}
	for _, status := range []int32{0, 1, -1, 20, 21, 22, 23, 24, 27, 33, 36, 37, 400, 1835617709, math.MaxInt32, math.MinInt32} {
		require.False(t, (&SubmitResponse{Status: status}).Accepted(), status)
	}
}

func TestSetDifficultyOfAFullAgent(t *testing.T) {
	ids := make([]uint16, MaxSessionID+1)
	for i := range ids {
		ids[i] = uint16(i)
	}
	buf := AppendSetDifficulty(nil, 14, ids...)
	var got []uint16
	var lengths, counts []int
	var s SetDifficulty
	for len(buf) > 0 {
		f, n, err := Next(buf)
		require.NoError(t, err)
		require.NotZero(t, n)
		require.NoError(t, s.Decode(f))
		require.Equal(t, uint8(14), s.Exponent)
		lengths, counts = append(lengths, n), append(counts, len(s.SessionIDs))
		got = append(got, s.SessionIDs...)
		buf = buf[n:]
	}
	require.Equal(t, []int{65535, 65535, 21}, lengths)
	require.Equal(t, []int{32764, 32764, 7}, counts)
	require.Equal(t, ids, got)

	require.Len(t, AppendSetDifficulty(nil, 14, ids[:MaxSetDifficulty]...), MaxFrame)
	require.Len(t, AppendSetDifficulty(nil, 14, ids[:MaxSetDifficulty+1]...), MaxFrame+9)
	require.Empty(t, AppendSetDifficulty(nil, 14))
}

func TestSetDifficultyCounts(t *testing.T) {
	for _, tt := range []struct {
		name, frame string
		want        []uint16
		err         error
	}{
		{"nobody", "7f 05 0700 0d 0000", nil, nil},
		{"one more than there is", "7f 05 0900 0d 0200 2211", nil, ErrBody},
		{"one less than there is", "7f 05 0b00 0d 0100 2211 4433", nil, ErrBody},
		{"half an id", "7f 05 0a00 0d 0100 2211 44", nil, ErrBody},
		{"half a count", "7f 05 0600 0d 00", nil, ErrBody},
		{"the largest count", "7f 05 0900 0d ffff 2211", nil, ErrBody},
		{"the invalid id is the caller's business", "7f 05 0900 0d 0100 ffff", []uint16{0xffff}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var s SetDifficulty
			require.ErrorIs(t, s.Decode(one(t, unhex(t, tt.frame))), tt.err)
			require.Equal(t, tt.want, s.SessionIDs)
		})
	}

	// The slice is the caller's, and is used again.
	ids := make([]uint16, 5, 10)
	s := SetDifficulty{SessionIDs: ids}
	require.NoError(t, s.Decode(one(t, unhex(t, "7f 05 0b00 0d 0200 2211 4433"))))
	require.Equal(t, []uint16{0x1122, 0x3344}, s.SessionIDs)
	require.Same(t, &ids[0], &s.SessionIDs[0])
}

func TestExponent(t *testing.T) {
	for _, tt := range []struct {
		difficulty float64
		want       uint8
		ok         bool
	}{
		{1, 0, true}, {1.99, 0, true}, {2, 1, true}, {16383, 13, true}, {16384, 14, true}, {20000, 14, true},
		{1 << 62, 62, true}, {math.Ldexp(1, 255), 255, true}, {math.Nextafter(math.Ldexp(1, 256), 0), 255, true},
		{math.Ldexp(1, 256), 0, false}, {math.Nextafter(1, 0), 0, false}, {0, 0, false}, {-4, 0, false},
		{math.Inf(1), 0, false}, {math.NaN(), 0, false},
	} {
		got, ok := Exponent(tt.difficulty)
		require.Equal(t, tt.ok, ok, tt.difficulty)
		require.Equal(t, tt.want, got, tt.difficulty)
		if ok {
			d := (&SetDifficulty{Exponent: got}).Difficulty()
			require.LessOrEqual(t, d, tt.difficulty)
			require.Greater(t, 2*d, tt.difficulty)
		}
	}
}
