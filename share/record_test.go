package share_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
)

// handmade is the share of the worked example, and handmadeRecord its bytes, field by field.
var handmade = share.Share{
	JobID:       0x66236c8000000001,
	WorkerID:    -911964159890136328,
	UserID:      42,
	Verdict:     share.Accepted,
	Time:        time.Unix(1713597568, 0).UTC(),
	IP:          netip.MustParseAddr("10.1.2.3"),
	Difficulty:  16384,
	Bits:        0x17034219,
	Height:      840000,
	Nonce:       0x12345678,
	SessionID:   0x01000002,
	BitsReached: 0x1903ffff,
}

const handmadeRecord = "08888008" + "108ff49ce2caa4f9a719" + "1854" + "208edae4b20d" + "2880b29be20c" +
	"320831302e312e322e33" + "38818080808090db9166" + "40808001" + "4899848db801" + "50c0a233" + "58f8acd19101" +
	"6082808008" + "6800" + "78ffff8fc801"

type recordVector struct {
	Value   string `json:"value_hex"`
	Decoded struct {
		WorkerID    int64  `json:"workerhashid"`
		UserID      int32  `json:"userid"`
		Status      int32  `json:"status"`
		Time        int64  `json:"timestamp"`
		IP          string `json:"ip"`
		JobID       uint64 `json:"jobid"`
		Difficulty  uint64 `json:"sharediff"`
		Bits        string `json:"blkbits"`
		Height      int32  `json:"height"`
		Nonce       string `json:"nonce"`
		SessionID   string `json:"sessionid"`
		VersionBits string `json:"versionmask"`
		BitsReached string `json:"bitsreached"`
	} `json:"decoded"`
}

func (g *recordVector) record(t testing.TB) []byte {
	b, err := hex.DecodeString(g.Value)
	require.NoError(t, err)
	require.Equal(t, uint32(share.RecordVersion), binary.LittleEndian.Uint32(b))
	return b[4:]
}

func (g *recordVector) share(t testing.TB) share.Share {
	u32 := func(s string) uint32 {
		v, err := strconv.ParseUint(s, 16, 32)
		require.NoError(t, err)
		return uint32(v)
	}
	verdict, ok := share.VerdictOf(g.Decoded.Status)
	require.True(t, ok)
	return share.Share{
		JobID: job.ID(g.Decoded.JobID), WorkerID: g.Decoded.WorkerID, UserID: g.Decoded.UserID, Verdict: verdict,
		Time: time.Unix(g.Decoded.Time, 0).UTC(), IP: netip.MustParseAddr(g.Decoded.IP),
		Difficulty: difficulty.Difficulty(g.Decoded.Difficulty), Bits: u32(g.Decoded.Bits), Height: g.Decoded.Height,
		Nonce: u32(g.Decoded.Nonce), SessionID: u32(g.Decoded.SessionID), VersionBits: u32(g.Decoded.VersionBits),
		BitsReached: u32(g.Decoded.BitsReached),
	}
}

func recordVectors(t testing.TB) []recordVector {
	b, err := os.ReadFile("testdata/shares-v3.json")
	require.NoError(t, err)
	var all []recordVector
	require.NoError(t, json.Unmarshal(b, &all))
	require.Len(t, all, 11)
	return all
}

func TestRecordMatchesBTCPool(t *testing.T) {
	for i, g := range recordVectors(t) {
		want := g.share(t)
		var got share.Share
		require.NoError(t, got.UnmarshalBinary(g.record(t)), i)
		require.Equal(t, want, got, i)

		b, err := want.AppendBinary([]byte("before"))
		require.NoError(t, err)
		require.Equal(t, "before"+string(g.record(t)), string(b), i)
	}
}

func TestRecordByHand(t *testing.T) {
	b, err := handmade.AppendBinary(nil)
	require.NoError(t, err)
	require.Equal(t, handmadeRecord, hex.EncodeToString(b))
	require.Len(t, b, 81)

	ext := handmade
	ext.ExtUserID, ext.BitsReached = -7, 0
	b, err = ext.AppendBinary(nil)
	require.NoError(t, err)
	require.Equal(t, handmadeRecord[:len(handmadeRecord)-12]+"700d", hex.EncodeToString(b), "-7 is 13 in zig-zag")
	var got share.Share
	require.NoError(t, got.UnmarshalBinary(b))
	require.Equal(t, ext, got)
}

// roundTrips are shares whose record has something particular; want says what comes back where that differs.
var roundTrips = []struct {
	name   string
	change func(s *share.Share)
	want   func(s *share.Share)
}{
	{"plain", func(*share.Share) {}, nil},
	{"difficulty below 1", func(s *share.Share) { s.Difficulty = 1.0 / 1024 }, nil},
	{"smallest difficulty", func(s *share.Share) { s.Difficulty = difficulty.Min }, nil},
	{"difficulty that is not whole", func(s *share.Share) { s.Difficulty = 1.5 }, nil},
	{"largest difficulty", func(s *share.Share) { s.Difficulty = difficulty.Max }, nil},
	{"difficulty above 64 bits", func(s *share.Share) { s.Difficulty = 1 << 70 }, nil},
	{"negative ids", func(s *share.Share) { s.UserID, s.ExtUserID, s.WorkerID = -1, math.MinInt32, math.MinInt64 }, nil},
	{"largest numbers", func(s *share.Share) {
		s.UserID, s.ExtUserID, s.WorkerID = math.MaxInt32, math.MaxInt32, math.MaxInt64
		s.JobID, s.Height = math.MaxUint64, math.MaxInt32
		s.Bits, s.Nonce, s.SessionID = math.MaxUint32, math.MaxUint32, math.MaxUint32
		s.VersionBits, s.BitsReached = math.MaxUint32, math.MaxUint32
		s.IP = netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")
		s.Time = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	}, nil},
	{"first second of 1970", func(s *share.Share) { s.Time = time.Unix(0, 0).UTC() }, nil},
	{"IPv6", func(s *share.Share) { s.IP = netip.MustParseAddr("2001:db8::1") }, nil},
	{"unspecified IPv6", func(s *share.Share) { s.IP = netip.IPv6Unspecified() }, nil},
	{"no address", func(s *share.Share) { s.IP = netip.Addr{} }, nil},
	{"unspecified IPv4 is none",
		func(s *share.Share) { s.IP = netip.IPv4Unspecified() }, func(s *share.Share) { s.IP = netip.Addr{} }},
	{"IPv4 in IPv6", func(s *share.Share) { s.IP = netip.MustParseAddr("::ffff:10.1.2.3") },
		func(s *share.Share) { s.IP = netip.MustParseAddr("10.1.2.3") }},
	{"IPv6 with a zone", func(s *share.Share) { s.IP = netip.MustParseAddr("fe80::1%a-very-long-interface-name-0123456789") },
		func(s *share.Share) { s.IP = netip.MustParseAddr("fe80::1") }},
	{"fraction of a second in another time zone",
		func(s *share.Share) {
			s.Time = s.Time.Add(999999999).In(time.FixedZone("", 3600))
		},
		func(s *share.Share) { s.Time = time.Unix(1713597568, 0).UTC() }},
	{"names", func(s *share.Share) { s.Chain, s.Worker = "btc", share.Worker{User: "a", Name: "b"} },
		func(s *share.Share) { s.Chain, s.Worker = "", share.Worker{} }},
}

func TestRecordRoundTrips(t *testing.T) {
	for _, tt := range roundTrips {
		t.Run(tt.name, func(t *testing.T) {
			s := handmade
			tt.change(&s)
			want := s
			if tt.want != nil {
				tt.want(&want)
			}
			b, err := s.AppendBinary(nil)
			require.NoError(t, err)
			require.LessOrEqual(t, len(b), 140, "the room that AppendBinary promises to need")
			got := share.Share{Chain: "rest of another share", ExtUserID: 1}
			require.NoError(t, got.UnmarshalBinary(b))
			require.Equal(t, want, got)
			require.Equal(t, s.ID(), got.ID(), "the ID must survive the record")

		})
	}
}

// A reader that knows nothing of field 16 must see difficulty 0, and one that does must not let it override field 8.
func TestFractionalDifficultyIsNotOverCredited(t *testing.T) {
	s := handmade
	s.Difficulty = 0.25
	b, err := s.AppendBinary(nil)
	require.NoError(t, err)
	require.Contains(t, hex.EncodeToString(b), "38818080808090db9166"+"4000"+"4899848db801")
	require.Equal(t, "8101"+"000000000000d03f", hex.EncodeToString(b[len(b)-10:]), "the IEEE bits of 0.25, little-endian")

	var old share.Share // what is left without the field
	require.ErrorIs(t, old.UnmarshalBinary(b[:len(b)-10]), share.ErrInvalid)

	whole := fromHex(t, handmadeRecord+"8101"+"000000000000d03f")
	require.NoError(t, old.UnmarshalBinary(whole))
	require.Equal(t, handmade, old)
}

func TestEveryVerdictSurvivesARecord(t *testing.T) {
	n := 0
	for v := range share.Verdict(255) {
		if back, ok := share.VerdictOf(v.Status()); !ok || back != v {
			continue
		}
		n++
		s := handmade
		s.Verdict = v
		b, err := s.AppendBinary(nil)
		require.NoError(t, err)
		var got share.Share
		require.NoError(t, got.UnmarshalBinary(b))
		require.Equal(t, v, got.Verdict)
	}
	require.GreaterOrEqual(t, n, 22)
}

func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(s *share.Share)
		says   string
	}{
		{"no job", func(s *share.Share) { s.JobID = 0 }, "job id"},
		{"no worker", func(s *share.Share) { s.WorkerID = 0 }, "worker id"},
		{"no user", func(s *share.Share) { s.UserID = 0 }, "user id"},
		{"no height", func(s *share.Share) { s.Height = 0 }, "height"},
		{"negative height", func(s *share.Share) { s.Height = -1 }, "height"},
		{"no bits", func(s *share.Share) { s.Bits = 0 }, "network target"},
		{"difficulty 0", func(s *share.Share) { s.Difficulty = 0 }, "difficulty"},
		{"negative difficulty", func(s *share.Share) { s.Difficulty = -1 }, "difficulty"},
		{"infinite difficulty", func(s *share.Share) { s.Difficulty = difficulty.Difficulty(math.Inf(1)) }, "difficulty"},
		{"difficulty that is no number", func(s *share.Share) { s.Difficulty = difficulty.Difficulty(math.NaN()) }, "difficulty"},
		{"zero time", func(s *share.Share) { s.Time = time.Time{} }, "time"},
		{"time before 1970", func(s *share.Share) { s.Time = time.Unix(-1, 0) }, "time"},
		{"year 10000", func(s *share.Share) { s.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }, "time"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := handmade
			require.NoError(t, s.Check())
			tt.change(&s)
			dst := []byte("before")
			b, err := s.AppendBinary(dst)
			require.ErrorIs(t, err, share.ErrInvalid)
			require.ErrorContains(t, err, tt.says)
			require.Equal(t, "before", string(b))
			s.ID() // must not panic
		})
	}
}

func fromHex(t testing.TB, s string) []byte {
	b, err := hex.DecodeString(s)
	require.NoError(t, err)
	return b
}

func TestUnmarshalLeniently(t *testing.T) {
	fields := []string{"08888008", "108ff49ce2caa4f9a719", "1854", "208edae4b20d", "2880b29be20c",
		"320831302e312e322e33", "38818080808090db9166", "40808001", "4899848db801", "50c0a233", "58f8acd19101",
		"6082808008", "6800", "78ffff8fc801"}
	reversed := ""
	for _, f := range fields {
		reversed = f + reversed
	}
	bare := handmade
	bare.IP, bare.Nonce, bare.SessionID, bare.BitsReached, bare.Verdict = netip.Addr{}, 0, 0, 0, share.Rejected
	bare.Time = time.Unix(0, 0).UTC()
	noIP, noVerdict := handmade, handmade
	noIP.IP = netip.Addr{}
	noVerdict.Verdict = share.Rejected
	for _, tt := range []struct {
		name   string
		record string
		want   share.Share
	}{
		{"fields in reverse order", reversed, handmade},
		{"a field twice: the last one counts", "1802" + handmadeRecord, handmade},
		{"only what a valid share needs", fields[0] + fields[1] + fields[2] + fields[6] + fields[7] + fields[8] + fields[9], bare},
		{"unknown number", handmadeRecord + "a00601", handmade},
		{"unknown 64 bits", handmadeRecord + "a1060102030405060708", handmade},
		{"unknown bytes", handmadeRecord + "a20603616263", handmade},
		{"unknown 32 bits", handmadeRecord + "a50601020304", handmade},
		{"unknown group with another in it", "a306" + "0801" + "ab0612026162ac06" + "a406" + handmadeRecord, handmade},
		{"known number with another wire type", "0d01020304" + handmadeRecord, handmade},
		{"external user 0 is none", handmadeRecord + "7000", handmade},
		{"numbers longer than they need be", handmadeRecord + "68808000", handmade},
		{"address that is none", handmadeRecord + "3206" + "9a00ff01feff", noIP},
		{"address with a leading zero", handmadeRecord + "3209" + hex.EncodeToString([]byte("10.1.02.3")), noIP},
		{"empty address", handmadeRecord + "3200", noIP},
		{"long text as the address", handmadeRecord + "323c" + hex.EncodeToString(bytes.Repeat([]byte("1:"), 30)), noIP},
		{"status without a verdict", handmadeRecord + "20a006", noVerdict}, // 400
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got share.Share
			require.NoError(t, got.UnmarshalBinary(fromHex(t, tt.record)))
			require.Equal(t, tt.want, got)
		})
	}
}

func TestUnmarshalRefuses(t *testing.T) {
	deep := ""
	for range 20 {
		deep += "a306"
	}
	for range 20 {
		deep += "a406"
	}
	for _, tt := range []struct{ name, record string }{
		{"nothing", ""},
		{"another version", "08868006" + handmadeRecord[8:]},
		{"no version", handmadeRecord[8:]},
		{"version of more than 32 bits", handmadeRecord + "08" + "888080808002"},
		{"user id of more than 32 bits", handmadeRecord + "18" + "8080808010"},
		{"nonce of more than 32 bits", handmadeRecord + "58" + "8080808010"},
		{"height of more than 31 bits", handmadeRecord + "50" + "8080808008"},
		{"number of 65 bits", handmadeRecord + "38" + "ffffffffffffffffff02"},
		{"number of 11 bytes", handmadeRecord + "38" + "8080808080808080808000"},
		{"number cut off", handmadeRecord + "38ff"},
		{"tag cut off", handmadeRecord + "ff"},
		{"tag of more than 32 bits", handmadeRecord + "f8ffffffff7f" + "00"},
		{"field number 0", handmadeRecord + "0001"},
		{"wire type 6", handmadeRecord + "0e01"},
		{"address longer than the record", handmadeRecord + "320a" + "31"},
		{"address of 2^63 bytes", handmadeRecord + "32" + "80808080808080808001"},
		{"64 bits cut off", handmadeRecord + "a10601020304050607"},
		{"32 bits cut off", handmadeRecord + "a506010203"},
		{"group cut off", handmadeRecord + "a3060801"},
		{"group ended by another", handmadeRecord + "a306ac06"},
		{"end of no group", handmadeRecord + "a406"},
		{"groups nested without end", handmadeRecord + deep},
		{"user 0", handmadeRecord + "1800"},
		{"difficulty 0", handmadeRecord + "4000"},
		{"difficulty that is no number", handmadeRecord + "4000" + "8101" + "010000000000f87f"},
		{"negative time", handmadeRecord + "2801"},
		{"time of 2^62", handmadeRecord + "28" + "ffffffffffffffffff01"},
		{"more than the largest record", handmadeRecord + "a206" + "f0ff03" + hex.EncodeToString(make([]byte, 65520))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got share.Share
			require.ErrorIs(t, got.UnmarshalBinary(fromHex(t, tt.record)), share.ErrInvalid)
		})
	}
	for i := range len(handmadeRecord)/2 - 6 { // any cut before bits reached, which is optional
		var got share.Share
		if err := got.UnmarshalBinary(fromHex(t, handmadeRecord[:2*i])); err == nil {
			// What is missing is optional: everything from the nonce on.
			require.GreaterOrEqual(t, i, 58)
		}
	}
}

func TestIDDependsOnEveryRecordedField(t *testing.T) {
	id := handmade.ID()
	seen := map[share.ID]string{id: "the share itself"}
	for name, change := range map[string]func(s *share.Share){
		"job": func(s *share.Share) { s.JobID++ }, "worker": func(s *share.Share) { s.WorkerID++ },
		"user": func(s *share.Share) { s.UserID++ }, "verdict": func(s *share.Share) { s.Verdict = share.Stale },
		"time": func(s *share.Share) { s.Time = s.Time.Add(time.Second) }, "ip": func(s *share.Share) { s.IP = s.IP.Next() },
		"difficulty": func(s *share.Share) { s.Difficulty++ }, "fraction": func(s *share.Share) { s.Difficulty += 0.5 },
		"bits": func(s *share.Share) { s.Bits++ }, "height": func(s *share.Share) { s.Height++ },
		"nonce": func(s *share.Share) { s.Nonce++ }, "session": func(s *share.Share) { s.SessionID++ },
		"version": func(s *share.Share) { s.VersionBits++ }, "reached": func(s *share.Share) { s.BitsReached++ },
		"external user": func(s *share.Share) { s.ExtUserID++ },
	} {
		s := handmade
		change(&s)
		other, dup := seen[s.ID()]
		require.False(t, dup, "%s gives the ID of %s", name, other)
		seen[s.ID()] = name
	}
	s := handmade
	s.Chain, s.Worker, s.Time = "btc", share.Worker{User: "u", Name: "w"}, s.Time.Add(time.Millisecond)
	require.Equal(t, id, s.ID(), "what a record does not carry plays no part")
	require.Len(t, id.String(), 32)
}

func TestRecordAllocations(t *testing.T) {
	s, buf := handmade, make([]byte, 0, 140)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		b, err := s.AppendBinary(buf)
		if err != nil || len(b) == 0 {
			t.Fatal(err)
		}
	}))
	rec, _ := s.AppendBinary(nil)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if err := s.UnmarshalBinary(rec); err != nil {
			t.Fatal(err)
		}
	}))
	require.Zero(t, testing.AllocsPerRun(100, func() { _ = s.ID() }))
}

func FuzzUnmarshalBinary(f *testing.F) {
	for _, g := range recordVectors(f) {
		f.Add(g.record(f))
	}
	f.Add(fromHex(f, handmadeRecord+"7000"))
	for _, tt := range roundTrips {
		s := handmade
		tt.change(&s)
		b, err := s.AppendBinary(nil)
		require.NoError(f, err)
		f.Add(b)
	}
	f.Add(fromHex(f, "a306"+"0801"+"ab0612026162ac06"+"a406"+handmadeRecord))
	f.Fuzz(func(t *testing.T, data []byte) {
		var s, again share.Share
		if err := s.UnmarshalBinary(data); err != nil {
			require.ErrorIs(t, err, share.ErrInvalid)
			return
		}
		// What can be read can be written, reads back the same, and is then a fixed point.
		b, err := s.AppendBinary(nil)
		require.NoError(t, err)
		require.LessOrEqual(t, len(b), 140)
		require.NoError(t, again.UnmarshalBinary(b))
		require.Equal(t, s, again)
		require.Equal(t, s.ID(), again.ID())
	})
}

func ExampleShare_AppendBinary() {
	s := share.Share{
		JobID: 0x66236c8000000001, WorkerID: share.Worker{User: "alice", Name: "rig1"}.ID(), UserID: 42,
		Verdict: share.Accepted, Time: time.Unix(1713597568, 0), IP: netip.MustParseAddr("10.1.2.3"),
		Difficulty: 16384, Bits: 0x17034219, Height: 840000, Nonce: 0x12345678, SessionID: 0x01000002,
	}
	record, err := s.AppendBinary(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	var back share.Share
	if err := back.UnmarshalBinary(record); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(len(record), "bytes:", back.Verdict, "at difficulty", back.Difficulty, "from", back.IP)
	fmt.Println(s.ID() == back.ID())
	// Output:
	// 75 bytes: Share accepted at difficulty 16384 from 10.1.2.3
	// true
}

func BenchmarkAppendBinary(b *testing.B) {
	s, buf := handmade, make([]byte, 0, 140)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.AppendBinary(buf); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkUnmarshalBinary(b *testing.B) {
	rec := fromHex(b, handmadeRecord)
	var s share.Share
	b.ReportAllocs()
	for b.Loop() {
		if err := s.UnmarshalBinary(rec); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkID(b *testing.B) {
	s := handmade
	b.ReportAllocs()
	for b.Loop() {
		_ = s.ID()
	}
}
