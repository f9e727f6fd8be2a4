package sharelog

import (
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
)

// realistic returns shares of 2,000 machines in random order, with the nonces, version bits and hashes of real miners,
// 10,000 a second.
func realistic(n int) []share.Share {
	r := rand.New(rand.NewPCG(1, 2))
	shares := make([]share.Share, n)
	for i := range shares {
		w := r.IntN(2000)
		var ip [4]byte
		binary.BigEndian.PutUint32(ip[:], 0x0a010000+uint32(w/3))
		shares[i] = share.Share{
			JobID: job.ID(0x66236c8000000001 + uint64(i/300_000)<<32), WorkerID: int64(uint64(w+1) * 0x9e3779b97f4a7c15),
			UserID: int32(w/20 + 1), Verdict: share.Accepted, Time: time.Unix(1713597568+int64(i/10_000), 0).UTC(),
			IP: netip.AddrFrom4(ip), Difficulty: difficulty.Difficulty(uint64(16384) << (w % 5)), Bits: 0x17034219,
			Height: 840000, Nonce: r.Uint32(), SessionID: 0x01000000 + uint32(w), VersionBits: r.Uint32() & 0x1fffe000,
			BitsReached: 0x19000000 | r.Uint32()>>9,
		}
	}
	return shares
}

func perShare(b *testing.B, n int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/share")
}

// BenchmarkAppend writes a day's batches of the size that a Writer makes of 10,000 shares a second.
func BenchmarkAppend(b *testing.B) {
	for name, opts := range map[string]DirOptions{
		"level 1": {}, "level 6": {Level: 6}, "without compression": {Level: NoCompression},
	} {
		b.Run(name, func(b *testing.B) {
			d := openTestDir(b, b.TempDir(), opts)
			shares := realistic(15_000)
			b.ReportAllocs()
			for b.Loop() {
				if err := d.Append(b.Context(), shares); err != nil {
					b.Fatal(err)
				}
			}
			perShare(b, len(shares))
			s := d.Stats()
			b.ReportMetric(float64(s.Bytes)/float64(s.Shares), "B/share")
		})
	}
}

// BenchmarkWriter is the whole way of a share from Put, one at a time, to the file.
func BenchmarkWriter(b *testing.B) {
	d := openTestDir(b, b.TempDir(), DirOptions{})
	w, err := NewWriter(d, nil)
	require.NoError(b, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	shares := realistic(16_384)
	b.ReportAllocs()
	for b.Loop() {
		for i := range shares {
			if err := w.Put(ctx, shares[i:i+1]); err != nil {
				b.Fatal(err)
			}
		}
		if err := w.Flush(ctx); err != nil {
			b.Fatal(err)
		}
	}
	perShare(b, len(shares))
	cancel()
	require.NoError(b, <-done)
}

func readBench(b *testing.B, read func(d *Dir, n int)) {
	d := openTestDir(b, b.TempDir(), DirOptions{})
	shares := realistic(300_000)
	for rest := shares; len(rest) > 0; {
		n := min(15_000, len(rest))
		require.NoError(b, d.Append(b.Context(), rest[:n]))
		rest = rest[n:]
	}
	b.ReportAllocs()
	for b.Loop() {
		read(d, len(shares))
	}
	perShare(b, len(shares))
	b.ReportMetric(float64(len(shares))*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mshares/s")
}

func BenchmarkReplay(b *testing.B) {
	readBench(b, func(d *Dir, n int) {
		got := 0
		sink := share.SinkFunc(func(_ context.Context, s []share.Share) error { got += len(s); return nil })
		if _, err := Replay(b.Context(), d, Position{}, sink, nil); err != nil || got != n {
			b.Fatal(got, err)
		}
	})
}

func BenchmarkReaderAll(b *testing.B) {
	readBench(b, func(d *Dir, n int) {
		got := 0
		for _, err := range NewReader(d, Position{}, 0).All(b.Context()) {
			if err != nil {
				b.Fatal(err)
			}
			got++
		}
		if got != n {
			b.Fatal(got)
		}
	})
}

// BenchmarkInflate is the part of reading that is not ours.
func BenchmarkInflate(b *testing.B) {
	readBench(b, func(d *Dir, n int) {
		r, _, err := openDay(d.Path(day0), Mark{Day: day0}, "")
		if err != nil {
			b.Fatal(err)
		}
		defer r.close()
		buf := make([]byte, 64<<10)
		for off, err := int64(0), error(nil); err != io.EOF; {
			if off, err = r.z.skip(off, buf); err != nil {
				break
			}
		}
	})
}
