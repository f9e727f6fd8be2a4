package btcagent

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// unhex reads hex with spaces.
func unhex(t testing.TB, s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	require.NoError(t, err)
	return b
}

// one splits off the only frame there is.
func one(t testing.TB, b []byte) Frame {
	f, n, err := Next(b)
	require.NoError(t, err)
	require.Equal(t, len(b), n)
	return f
}

// The frames are from the design of the protocol, or follow from its layout.
var golden = []struct {
	name, frame string
	command     Command
	decoded     any // a pointer to the struct
	encoded     func() []byte
}{
	{"register", "7f 01 1400 2211 63676d696e657200 733130393900", CommandRegister,
		&Register{0x1122, []byte("cgminer"), []byte("s1099")},
		func() []byte { return AppendRegister(nil, 0x1122, "cgminer", "s1099") }},
	{"register a Bitaxe", "7f 01 2000 0700 6269746178652f424d313337302f76322e3900 6465736b2e3300", CommandRegister,
		&Register{7, []byte("bitaxe/BM1370/v2.9"), []byte("desk.3")},
		func() []byte { return AppendRegister(nil, 7, "bitaxe/BM1370/v2.9", "desk.3") }},
	{"register without names", "7f 01 0800 0100 00 00", CommandRegister,
		&Register{1, []byte{}, []byte{}},
		func() []byte { return AppendRegister(nil, 1, "", "") }},
	{"unregister", "7f 04 0600 2211", CommandUnregister,
		&Unregister{0x1122}, func() []byte { return AppendUnregister(nil, 0x1122) }},
	{"unregister the last id", "7f 04 0600 feff", CommandUnregister,
		&Unregister{MaxSessionID}, func() []byte { return AppendUnregister(nil, MaxSessionID) }},

	{"submit", "7f 02 0f00 a9 2211 44332211 ddccbbaa", CommandSubmit,
		&Submit{0xa9, 0x1122, 0x11223344, 0xaabbccdd, 0, 0},
		func() []byte { return AppendSubmit(nil, &Submit{0xa9, 0x1122, 0x11223344, 0xaabbccdd, 0, 0}) }},
	{"submit with time", "7f 03 1300 a9 2211 44332211 ddccbbaa d02abd57", CommandSubmitTime,
		&Submit{0xa9, 0x1122, 0x11223344, 0xaabbccdd, 0x57bd2ad0, 0},
		func() []byte { return AppendSubmit(nil, &Submit{0xa9, 0x1122, 0x11223344, 0xaabbccdd, 0x57bd2ad0, 0}) }},
	{"submit with version", "7f 12 1300 a9 2211 44332211 ddccbbaa 00001200", CommandSubmitVersion,
		&Submit{0xa9, 0x1122, 0x11223344, 0xaabbccdd, 0, 0x00120000},
		func() []byte { return AppendSubmit(nil, &Submit{0xa9, 0x1122, 0x11223344, 0xaabbccdd, 0, 0x00120000}) }},
	{"submit with both", "7f 13 1700 a9 2211 44332211 ddccbbaa d02abd57 00001200", CommandSubmitTimeVersion,
		&Submit{0xa9, 0x1122, 0x11223344, 0xaabbccdd, 0x57bd2ad0, 0x00120000},
		func() []byte {
			return AppendSubmit(nil, &Submit{0xa9, 0x1122, 0x11223344, 0xaabbccdd, 0x57bd2ad0, 0x00120000})
		}},
	{"submit of the worked example", "7f 13 1700 05 0000 d2040000 d044f412 91996666 0000c000", CommandSubmitTimeVersion,
		&Submit{5, 0, 1234, 0x12f444d0, 0x66669991, 0x00c00000},
		func() []byte { return AppendSubmit(nil, &Submit{5, 0, 1234, 0x12f444d0, 0x66669991, 0x00c00000}) }},
	{"submit with a time of zero", "7f 03 1300 a9 2211 44332211 ddccbbaa 00000000", CommandSubmitTime,
		&Submit{0xa9, 0x1122, 0x11223344, 0xaabbccdd, 0, 0},
		func() []byte {
			return AppendSubmitAs(nil, CommandSubmitTime, &Submit{0xa9, 0x1122, 0x11223344, 0xaabbccdd, 0, 0})
		}},

	{"accepted", "7f 10 0a00 0000 87962c6b", CommandSubmitResponse,
		&SubmitResponse{0, StatusAccept}, func() []byte { return AppendSubmitResponse(nil, 0, StatusAccept) }},
	{"job not found", "7f 10 0a00 0100 24000000", CommandSubmitResponse,
		&SubmitResponse{1, StatusJobNotFound}, func() []byte { return AppendSubmitResponse(nil, 1, 36) }},
	{"duplicate", "7f 10 0a00 0200 16000000", CommandSubmitResponse,
		&SubmitResponse{2, 22}, func() []byte { return AppendSubmitResponse(nil, 2, 22) }},
	{"low difficulty", "7f 10 0a00 0300 17000000", CommandSubmitResponse,
		&SubmitResponse{3, 23}, func() []byte { return AppendSubmitResponse(nil, 3, 23) }},
	{"stale", "7f 10 0a00 0400 25000000", CommandSubmitResponse,
		&SubmitResponse{4, StatusStale}, func() []byte { return AppendSubmitResponse(nil, 4, 37) }},
	{"version mask, at the last index", "7f 10 0a00 ffff 21000000", CommandSubmitResponse,
		&SubmitResponse{65535, 33}, func() []byte { return AppendSubmitResponse(nil, 65535, 33) }},
	{"a negative status", "7f 10 0a00 0500 ffffffff", CommandSubmitResponse,
		&SubmitResponse{5, -1}, func() []byte { return AppendSubmitResponse(nil, 5, -1) }},

	{"difficulty 8192", "7f 05 0b00 0d 0200 2211 4433", CommandSetDifficulty,
		&SetDifficulty{13, []uint16{0x1122, 0x3344}},
		func() []byte { return AppendSetDifficulty(nil, 13, 0x1122, 0x3344) }},
	{"difficulty 65536", "7f 05 0d00 10 0300 0000 0700 feff", CommandSetDifficulty,
		&SetDifficulty{16, []uint16{0, 7, 0xfffe}},
		func() []byte { return AppendSetDifficulty(nil, 16, 0, 7, 0xfffe) }},
}

// decode reads a frame with the struct of its command, or returns nil when it has none.
func decode(f Frame) (decoded any, err error) {
	switch {
	case f.Command == CommandRegister:
		d := new(Register)
		return d, d.Decode(f)
	case f.Command == CommandUnregister:
		d := new(Unregister)
		return d, d.Decode(f)
	case f.Command == CommandSetDifficulty:
		d := new(SetDifficulty)
		return d, d.Decode(f)
	case f.Command == CommandSubmitResponse:
		d := new(SubmitResponse)
		return d, d.Decode(f)
	case f.Command.IsSubmit():
		d := new(Submit)
		return d, d.Decode(f)
	}
	return nil, nil
}

func TestGolden(t *testing.T) {
	for _, tt := range golden {
		t.Run(tt.name, func(t *testing.T) {
			b := unhex(t, tt.frame)
			f := one(t, b)
			require.Equal(t, tt.command, f.Command)
			got, err := decode(f)
			require.NoError(t, err)
			require.Equal(t, tt.decoded, got)
			require.Equal(t, hex.EncodeToString(b), hex.EncodeToString(tt.encoded()))
		})
	}
}

// An encoder leaves what is in the buffer alone.
func TestEncodersAppend(t *testing.T) {
	before := []byte("before")
	for _, b := range [][]byte{
		AppendRegister(before, 1, "a", "b"), AppendUnregister(before, 1), AppendSubmit(before, &Submit{}),
		AppendSubmitResponse(before, 1, 2), AppendSetDifficulty(before, 3, 4),
	} {
		require.Equal(t, "before\x7f", string(b[:len(before)+1]))
		one(t, b[len(before):])
	}
}

// The examples of BTCPool's docs/AGENT.md that contradict its text and its programs.
func TestErrorsOfThePublishedDocument(t *testing.T) {
	t.Run("a register whose length is 20 in hexadecimal", func(t *testing.T) {
		_, n, err := Next(unhex(t, "7f 01 2000 2211 63676d696e657200 733130393900"))
		require.NoError(t, err)
		require.Zero(t, n, "12 more bytes are due, which would be of the next message")
	})
	for _, tt := range []struct{ name, frame string }{
		{"a share with a version, 4 bytes short", "7f 12 0f00 a9 2211 44332211 ddccbbaa 00001200"},
		{"a share with time and version, 4 bytes short", "7f 13 1300 a9 2211 44332211 ddccbbaa d02abd57 00001200"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := unhex(t, tt.frame)
			f, n, err := Next(b)
			require.NoError(t, err)
			require.Equal(t, len(b)-4, n)
			require.True(t, f.Command.IsSubmit())
			require.ErrorIs(t, new(Submit).Decode(f), ErrBody)
			_, _, err = Next(b[n:])
			require.ErrorIs(t, err, ErrMagic, "the rest is no message")
		})
	}
	for _, tt := range []struct{ name, frame string }{
		{"a big-endian version", "7f 12 1300 a9 2211 44332211 ddccbbaa 00120000"},
		{"a big-endian version after a time", "7f 13 1700 a9 2211 44332211 ddccbbaa d02abd57 00120000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var s Submit
			require.NoError(t, s.Decode(one(t, unhex(t, tt.frame))))
			require.Equal(t, uint32(0x00001200), s.VersionBits)
			const mask = 0x1fffe000 // BIP 320
			require.NotZero(t, s.VersionBits&^mask, "which pools refuse")
		})
	}
	t.Run("65,536 workers", func(t *testing.T) {
		for name, b := range map[string][]byte{
			"register":   AppendRegister(nil, 0xffff, "a", "b"),
			"unregister": AppendUnregister(nil, 0xffff),
			"submit":     AppendSubmit(nil, &Submit{SessionID: 0xffff}),
		} {
			_, err := decode(one(t, b))
			require.ErrorIs(t, err, ErrSessionID, name)
		}
	})
}

func TestNextWaitsForTheWholeFrame(t *testing.T) {
	for _, tt := range golden {
		b := unhex(t, tt.frame)
		for i := range b {
			f, n, err := Next(b[:i])
			require.NoError(t, err)
			require.Zero(t, n, "%s, %d of %d bytes", tt.name, i, len(b))
			require.Zero(t, f)
		}
		// What follows is not looked at.
		f, n, err := Next(append(bytes.Clone(b), "{}\n"...))
		require.NoError(t, err)
		require.Equal(t, len(b), n)
		require.Equal(t, b[HeaderSize:], f.Body)
		require.Equal(t, len(f.Body), cap(f.Body), "appending to the body must not write into the buffer")
	}
}

func TestNext(t *testing.T) {
	for _, tt := range []struct {
		name, buf string
		n         int
		err       error
	}{
		{"nothing", "", 0, nil},
		{"a line", `{"id":1}`, 0, ErrMagic},
		{"a zero byte", "\x00", 0, ErrMagic},
		{"length 0", "\x7f\x01\x00\x00", 0, ErrLength},
		{"length 1", "\x7f\x01\x01\x00", 0, ErrLength},
		{"length 2", "\x7f\x02\x02\x00", 0, ErrLength},
		{"length 3, with bytes after it", "\x7f\x99\x03\x00\x00\x00", 0, ErrLength},
		{"half a length", "\x7f\x01\x00", 0, nil},
		{"length 4: no body", "\x7f\x99\x04\x00", 4, nil},
		{"a big-endian length", "\x7f\x04\x00\x06\x22\x11", 0, nil},
		{"the largest frame", "\x7f\x99\xff\xff" + strings.Repeat("x", MaxBody) + "\x7f", MaxFrame, nil},
		{"a byte less than the largest frame", "\x7f\x99\xff\xff" + strings.Repeat("x", MaxBody-1), 0, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, n, err := Next([]byte(tt.buf))
			require.ErrorIs(t, err, tt.err)
			require.Equal(t, tt.n, n)
			if n > 0 {
				require.Equal(t, tt.buf[HeaderSize:n], string(f.Body))
				require.Equal(t, Command(0x99), f.Command)
			}
		})
	}
}

// A server can skip what is too large to keep.
func TestHeaderSaysWhatIsComing(t *testing.T) {
	cmd, size, err := Header(unhex(t, "7f 13 ffff"))
	require.NoError(t, err)
	require.Equal(t, CommandSubmitTimeVersion, cmd)
	require.Equal(t, MaxFrame, size)
	for i, want := range []int{0, 0, 0, 0, 6, 6} {
		_, size, err := Header(unhex(t, "7f 04 0600 2211")[:i])
		require.NoError(t, err)
		require.Equal(t, want, size)
	}
}

func TestCommands(t *testing.T) {
	names := map[string]Command{}
	for c := range 256 {
		c := Command(c)
		if name := c.String(); strings.HasPrefix(name, "unknown") {
			require.Equal(t, "unknown command 0x"+hex.EncodeToString([]byte{byte(c)}), name)
		} else {
			names[name] = c
		}
		require.Equal(t, c == 0x02 || c == 0x03 || c == 0x12 || c == 0x13, c.IsSubmit(), c)
	}
	require.Equal(t, map[string]Command{
		"REGISTER_WORKER": 0x01, "SUBMIT_SHARE": 0x02, "SUBMIT_SHARE_WITH_TIME": 0x03, "UNREGISTER_WORKER": 0x04,
		"MINING_SET_DIFF": 0x05, "SUBMIT_RESPONSE": 0x10, "SUBMIT_SHARE_WITH_VER": 0x12,
		"SUBMIT_SHARE_WITH_TIME_VER": 0x13, "SUBMIT_SHARE_WITH_MIX_HASH": 0x14, "SET_EXTRA_NONCE": 0x22,
	}, names)
}

// Each decoder takes the frames of its command, in their size, and no others; what it refuses leaves nothing behind.
func TestDecodersRefuse(t *testing.T) {
	sizes := map[Command]func(n int) bool{
		CommandRegister:          func(n int) bool { return n >= 8 && n <= 512 },
		CommandUnregister:        func(n int) bool { return n == 6 },
		CommandSetDifficulty:     func(n int) bool { return n == 7 }, // a count of 0: see TestSetDifficultyCounts
		CommandSubmitResponse:    func(n int) bool { return n == 10 },
		CommandSubmit:            func(n int) bool { return n == 15 },
		CommandSubmitTime:        func(n int) bool { return n == 19 },
		CommandSubmitVersion:     func(n int) bool { return n == 19 },
		CommandSubmitTimeVersion: func(n int) bool { return n == 23 },
	}
	for c := range 256 {
		for _, n := range []int{4, 5, 6, 7, 8, 9, 10, 11, 14, 15, 16, 18, 19, 20, 22, 23, 24, 100, 101, 512, 513, MaxFrame} {
			f := Frame{Command(c), make([]byte, n-HeaderSize)}
			fits := sizes[f.Command]
			for _, d := range []interface{ Decode(Frame) error }{
				&Register{9, []byte("x"), []byte("x")}, &Unregister{9}, &SetDifficulty{9, []uint16{9}},
				&SubmitResponse{9, 9}, &Submit{9, 9, 9, 9, 9, 9},
			} {
				err := d.Decode(f)
				want, _ := decode(Frame{Command: f.Command})
				switch {
				case fits == nil || !sameType(d, want):
					require.ErrorIs(t, err, ErrCommand, "%T, command %v", d, f.Command)
				case !fits(n):
					require.ErrorIs(t, err, ErrBody, "%T, %d bytes", d, n)
				default:
					require.NoError(t, err, "%T, %d bytes", d, n)
				}
				if s, ok := d.(*SetDifficulty); ok {
					require.Empty(t, s.SessionIDs)
					s.SessionIDs = nil
				}
				if r, ok := d.(*Register); ok {
					require.Empty(t, r.Software)
					require.Empty(t, r.Worker)
					r.Software, r.Worker = nil, nil
				}
				require.Contains(t, []any{&Register{}, &Unregister{}, &SetDifficulty{}, &SubmitResponse{}, &Submit{}}, d)
			}
		}
	}
}

func sameType(a, b any) bool {
	switch a.(type) {
	case *Register:
		_, ok := b.(*Register)
		return ok
	case *Unregister:
		_, ok := b.(*Unregister)
		return ok
	case *SetDifficulty:
		_, ok := b.(*SetDifficulty)
		return ok
	case *SubmitResponse:
		_, ok := b.(*SubmitResponse)
		return ok
	case *Submit:
		_, ok := b.(*Submit)
		return ok
	}
	return false
}

func TestAppendFrame(t *testing.T) {
	b, err := AppendFrame([]byte("x"), CommandSetExtranonce, unhex(t, "2211 dd000000"))
	require.NoError(t, err)
	require.Equal(t, "x\x7f\x22\x0a\x00\x22\x11\xdd\x00\x00\x00", string(b))

	b, err = AppendFrame(nil, CommandSubmitMixHash, make([]byte, MaxBody))
	require.NoError(t, err)
	require.Len(t, one(t, b).Body, MaxBody)
	b, err = AppendFrame([]byte("x"), CommandSubmitMixHash, make([]byte, MaxBody+1))
	require.ErrorIs(t, err, ErrLength)
	require.Equal(t, "x", string(b))
}

func TestHotPathAllocatesNothing(t *testing.T) {
	var frames [][]byte
	for _, tt := range golden {
		frames = append(frames, unhex(t, tt.frame))
	}
	for _, s := range []string{"7f 01 0000", "7f 13 1300 a9 2211 44332211 ddccbbaa d02abd57", "7f 04 0600 ffff", "7b"} {
		frames = append(frames, unhex(t, s))
	}
	var (
		register   Register
		unregister Unregister
		submit     Submit
		response   SubmitResponse
		set        = SetDifficulty{SessionIDs: make([]uint16, 0, 8)}
		out        = make([]byte, 0, 1024)
		ids        = []uint16{1, 2, 3}
	)
	for _, b := range frames {
		if n := testing.AllocsPerRun(100, func() {
			f, _, _ := Next(b)
			_, _, _, _, _ = register.Decode(f), unregister.Decode(f), submit.Decode(f), response.Decode(f), set.Decode(f)
		}); n != 0 {
			t.Errorf("decoding %x allocates %v times, want 0", b, n)
		}
	}
	if n := testing.AllocsPerRun(100, func() {
		out = AppendSubmit(out[:0], &submit)
		out = AppendSubmitResponse(out, 1, StatusAccept)
		out = AppendSetDifficulty(out, 14, ids...)
		out = AppendRegister(out, 1, "cgminer", "s1099")
		out = AppendUnregister(out, 1)
	}); n != 0 {
		t.Errorf("encoding allocates %v times, want 0", n)
	}
}
