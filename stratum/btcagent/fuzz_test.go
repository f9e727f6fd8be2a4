package btcagent

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

// totals are the sizes of frames that have but one, header included.
var totals = map[Command]int{CommandUnregister: 6, CommandSubmitResponse: 10, CommandSubmit: 15, CommandSubmitTime: 19,
	CommandSubmitVersion: 19, CommandSubmitTimeVersion: 23}

func FuzzNext(f *testing.F) {
	for _, tt := range golden {
		f.Add(unhex(f, tt.frame))
	}
	for _, s := range []string{"7f 01 0000", "7f 05 0900 0d ffff 2211", "7f 04 0600 ffff 7f", "7b7d0a", "7f 22 0a00 2211 dd000000"} {
		f.Add(unhex(f, s))
	}
	f.Fuzz(func(t *testing.T, buf []byte) {
		given := bytes.Clone(buf)
		frame, n, err := Next(buf)
		if len(buf) > 0 && buf[0] != Magic {
			require.ErrorIs(t, err, ErrMagic)
			return
		}
		var head struct {
			Magic, Command uint8
			Length         uint16
		}
		if binary.Read(bytes.NewReader(buf), binary.LittleEndian, &head) != nil {
			require.NoError(t, err)
			require.Zero(t, n)
			return
		}
		if head.Length < HeaderSize {
			require.ErrorIs(t, err, ErrLength)
			return
		}
		require.NoError(t, err)
		if len(buf) < int(head.Length) {
			require.Zero(t, n)
			return
		}
		require.Equal(t, int(head.Length), n)
		require.Equal(t, Frame{Command(head.Command), buf[4:n:n]}, frame)

		got, err := decode(frame)
		require.Equal(t, given, buf, "the buffer was modified")
		if total := totals[frame.Command]; total != 0 && total != n {
			require.ErrorIs(t, err, ErrBody)
			return
		}
		if err != nil && !errors.Is(err, ErrSessionID) {
			require.ErrorIs(t, err, ErrBody)
			require.Zero(t, totals[frame.Command], "refused in its right size")
			return
		}
		// What was decoded encodes to what was there.
		var out []byte
		switch d := got.(type) {
		case *Unregister:
			out = AppendUnregister(nil, d.SessionID)
		case *Submit:
			out = AppendSubmitAs(nil, frame.Command, d)
		case *SubmitResponse:
			out = AppendSubmitResponse(nil, d.Index, d.Status)
		case *SetDifficulty:
			if out = AppendSetDifficulty(nil, d.Exponent, d.SessionIDs...); len(d.SessionIDs) == 0 {
				require.Empty(t, out)
				return
			}
		case *Register:
			require.NotContains(t, d.Software, byte(0))
			require.NotContains(t, d.Worker, byte(0))
			var same Register
			require.Equal(t, err, same.Decode(one(t, AppendRegister(nil, d.SessionID, string(d.Software), string(d.Worker)))))
			require.Equal(t, d.SessionID, same.SessionID)
			require.Equal(t, string(d.Software), string(same.Software))
			require.Equal(t, string(d.Worker), string(same.Worker))
			return
		default:
			return
		}
		require.Equal(t, buf[:n], out)
	})
}

// FuzzSubmit encodes with this package and reads with encoding/binary.
func FuzzSubmit(f *testing.F) {
	f.Add(uint8(0xa9), uint16(0x1122), uint32(0x11223344), uint32(0xaabbccdd), uint32(0x57bd2ad0), uint32(0x00120000))
	f.Add(uint8(5), uint16(0), uint32(1234), uint32(0x12f444d0), uint32(0), uint32(0))
	f.Add(uint8(255), uint16(0xffff), uint32(0), uint32(0), uint32(0), uint32(1))
	f.Fuzz(func(t *testing.T, job uint8, id uint16, en2, nonce, ntime, version uint32) {
		s := Submit{job, id, en2, nonce, ntime, version}
		var got Submit
		err := got.Decode(one(t, AppendSubmit(nil, &s)))
		require.Equal(t, s, got)
		require.Equal(t, id == 0xffff, errors.Is(err, ErrSessionID))

		b := AppendSubmitAs(nil, CommandSubmitTimeVersion, &s)
		var slow Submit
		require.NoError(t, binary.Read(bytes.NewReader(b[HeaderSize:]), binary.LittleEndian, &slow))
		require.Equal(t, s, slow)
	})
}

// However a stream is cut, a Reader finds the same messages and the same end.
func FuzzReader(f *testing.F) {
	stream, _ := mixed(f)
	f.Add(stream, 10)
	f.Add([]byte("{}\r\n\x7f\x04\x06\x00\x22"), 1)
	f.Add([]byte("\n\n\x7f\x04\x03\x00"), 2)
	f.Fuzz(func(t *testing.T, stream []byte, at int) {
		const maxLine = 64
		whole, err := readAll(NewReader(bytes.NewReader(stream), maxLine))
		bytewise, bytewiseErr := readAll(NewReader(iotest.OneByteReader(bytes.NewReader(stream)), maxLine))
		require.Equal(t, whole, bytewise)
		require.Equal(t, err, bytewiseErr)
		at = min(max(at, 0), len(stream))
		cut, cutErr := readAll(NewReader(io.MultiReader(bytes.NewReader(stream[:at]), bytes.NewReader(stream[at:])), maxLine))
		require.Equal(t, whole, cut)
		require.Equal(t, err, cutErr)
		for _, m := range whole {
			require.NotEmpty(t, m)
			if m[0] != Magic {
				require.LessOrEqual(t, len(m), maxLine)
				require.NotContains(t, m, "\n")
			}
		}
	})
}
