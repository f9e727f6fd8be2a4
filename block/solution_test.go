package block_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/poolkit/poolkit/block"
	"github.com/poolkit/poolkit/share"
)

func TestSolutionVectors(t *testing.T) {
	for _, v := range solvedShares(t) {
		s, err := block.DecodeSolution(v.raw)
		require.NoError(t, err)
		require.Equal(t, v.jobID, s.JobID)
		require.Equal(t, v.workerID, s.WorkerID)
		require.Equal(t, v.userID, s.UserID)
		require.Equal(t, v.height, s.Height)
		require.Equal(t, v.header, s.Header[:])
		require.Equal(t, v.name, s.Worker.String())
		require.Equal(t, s.WorkerID, s.Worker.ID())
		require.Equal(t, v.coinbase, s.Coinbase)
		require.Equal(t, v.hash, s.Hash.String())
		require.Equal(t, v.raw, block.AppendSolution(nil, s))
		require.Equal(t, append([]byte("before"), v.raw...), block.AppendSolution([]byte("before"), s))
	}
}

// The worked example of the format: a job at height 840000.
func TestSolutionWorkedExample(t *testing.T) {
	raw := unhex(t, "01000000806c2366"+"f862dca96d0d58f3"+"2a000000"+"40d10c00"+
		"00000020ab948491071265ad552351d0ad625745668da54b0172010000000000000000001a00484683950345c384d3ff8fc96c1773ec3bf2"+
		"1a362e6c39a18714ac2270a4806c23661942031778563412"+"616c6963652e72696731")
	raw = append(raw, make([]byte, 30)...)
	coinbase := unhex(t, "02000000010000000000000000000000000000000000000000000000000000000000000000ffffffff"+
		"240340d10c04806c2366726567696f6e312f476f506f6f6c2f"+"010000020000000000000007"+
		"ffffffff02a735b312000000001976a914111111111111111111111111111111111111111188ac"+
		"0000000000000000266a24aa21a9ed333333333333333333333333333333333333333333333333333333333333333300000000")
	raw = append(raw, coinbase...)
	require.Len(t, raw, 312)
	s, err := block.DecodeSolution(raw)
	require.NoError(t, err)
	require.EqualValues(t, 7359845513065136129, s.JobID)
	require.EqualValues(t, -911964159890136328, s.WorkerID)
	require.Equal(t, s.WorkerID, s.Worker.ID())
	require.EqualValues(t, 42, s.UserID)
	require.EqualValues(t, 840000, s.Height)
	require.Equal(t, share.Worker{User: "alice", Name: "rig1"}, s.Worker)
	require.Equal(t, "fe8163827fe81cdf0306224fedc9376869c397cde3c820f4d65e2ba044cba03a", s.Hash.String())
	require.Equal(t, raw, block.AppendSolution(nil, s))
}

func TestDecodeSolutionLengths(t *testing.T) {
	raw := solvedShares(t)[0].raw
	for _, n := range []int{0, 1, 143, 144} {
		_, err := block.DecodeSolution(raw[:n])
		require.ErrorContains(t, err, "want more than 144", "%d bytes", n)
	}
	s, err := block.DecodeSolution(raw[:145])
	require.NoError(t, err)
	require.Len(t, s.Coinbase, 1)
	_, err = block.DecodeSolution(make([]byte, 4_000_145))
	require.ErrorContains(t, err, "fits no block")

	in := bytes.Clone(raw)
	s, err = block.DecodeSolution(in)
	require.NoError(t, err)
	clear(in)
	require.Equal(t, raw, block.AppendSolution(nil, s), "the message is not kept")
}

func TestSolutionNames(t *testing.T) {
	const address = "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq" // 42 characters
	tests := []struct {
		name   string
		worker share.Worker
		wire   string
		want   share.Worker
	}{
		{"short", share.Worker{User: "a", Name: "b"}, "a.b", share.Worker{User: "a", Name: "b"}},
		{"no machine", share.Worker{User: "alice"}, "alice", share.Worker{User: "alice"}},
		{"39 bytes stay", share.Worker{User: address[:34], Name: "rig1"}, address[:34] + ".rig1",
			share.Worker{User: address[:34], Name: "rig1"}},
		{"40 bytes are cut", share.Worker{User: address[:34], Name: "rig12"}, address[:34] + ".rig1",
			share.Worker{User: address[:34], Name: "rig1"}},
		{"the machine falls off", share.Worker{User: address, Name: "rig1"}, address[:39], share.Worker{User: address[:39]}},
		{"second dot", share.Worker{User: "a", Name: "b.c"}, "a.b.c", share.Worker{User: "a", Name: "b.c"}},
		{"bytes that names do not have", share.Worker{User: "a'b", Name: "c\"d"}, "a'b.c\"d", share.Worker{User: "ab", Name: "cd"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			raw := block.AppendSolution(nil, &share.Solution{Worker: tt.worker, Coinbase: []byte{1}})
			require.Len(t, raw, 145)
			require.Equal(t, append([]byte(tt.wire), make([]byte, 40-len(tt.wire))...), raw[104:144])
			s, err := block.DecodeSolution(raw)
			require.NoError(t, err)
			require.Equal(t, tt.want, s.Worker)
		})
	}
	t.Run("a name without a zero byte", func(t *testing.T) {
		raw := append(make([]byte, 104), bytes.Repeat([]byte("x"), 40)...)
		s, err := block.DecodeSolution(append(raw, 1))
		require.NoError(t, err)
		require.Len(t, s.Worker.User, 40)
	})
}

func FuzzDecodeSolution(f *testing.F) {
	for _, v := range solvedShares(f) {
		f.Add(v.raw)
		f.Add(v.raw[:145])
		f.Add(v.raw[:144])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := block.DecodeSolution(b)
		if err != nil {
			return
		}
		once := block.AppendSolution(nil, s)
		if len(once) != len(b) || !bytes.Equal(once[:104], b[:104]) || !bytes.Equal(once[144:], b[144:]) {
			t.Fatalf("fields changed:\n%x\n%x", b, once)
		}
		again, err := block.DecodeSolution(once)
		if err != nil {
			t.Fatal(err)
		}
		if twice := block.AppendSolution(nil, again); !bytes.Equal(once, twice) {
			t.Fatalf("not stable:\n%x\n%x", once, twice)
		}
	})
}

func BenchmarkDecodeSolution(b *testing.B) {
	raw := solvedShares(b)[0].raw
	b.ReportAllocs()
	for b.Loop() {
		_, _ = block.DecodeSolution(raw)
	}
}

func BenchmarkAppendSolution(b *testing.B) {
	s, err := block.DecodeSolution(solvedShares(b)[0].raw)
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		buf = block.AppendSolution(buf[:0], s)
	}
}
