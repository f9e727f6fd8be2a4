package sv1

import "testing"

var submitLine = []byte(`{"id":7,"method":"mining.submit","params":["alice.rig01","5","00000000000004d2","66669991","12f444d0","00c00000"]}`)

func BenchmarkDecodeSubmit(b *testing.B) {
	lines := []struct{ name, line string }{
		{"version bits", string(submitLine)},
		{"cpuminer, with spaces", `{"method": "mining.submit", "params": ["minerd.w1", "8", "0000000000000000", "6b0106b1", "a542c614"], "id":4}`},
		{"jsonrpc and a long worker", `{"id":9966,"jsonrpc":"2.0","method":"mining.submit","params":["bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq.bitaxe-601-garage","255","00000000000004d2","66669991","12f444d0","00c00000"]}`},
		{"refused", `{"id":7,"method":"mining.submit","params":["alice.rig01","5","00000000000004d2","66669991","12f444dx","00c00000"]}`},
	}
	for _, l := range lines {
		b.Run(l.name, func(b *testing.B) {
			line := []byte(l.line)
			b.ReportAllocs()
			var r Request
			var s Submit
			for b.Loop() {
				if err := r.Decode(line); err != nil {
					b.Fatal(err)
				}
				if err := s.Decode(r.Params, 8); err != nil && l.name != "refused" {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkAppendNotify encodes a job of 12 merkle branches and a coinbase of 300 bytes, to one miner whole and to one
// of many.
func BenchmarkAppendNotify(b *testing.B) {
	n := &Notify{JobID: "5", Coinb1: make([]byte, 60), Coinb2: make([]byte, 240), Branch: make([][32]byte, 12)}
	body := AppendNotifyBody(nil, n)
	buf := make([]byte, 0, 4096)
	b.Run("whole", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			buf = AppendNotify(buf[:0], n)
		}
	})
	b.Run("from body", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			buf = AppendNotifyFrom(buf[:0], 5, body, false)
		}
	})
}

func BenchmarkReply(b *testing.B) {
	buf, id := make([]byte, 0, 4096), []byte("9966")
	b.Run("true", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			buf = AppendTrue(buf[:0], id)
		}
	})
	b.Run("error", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			buf = AppendError(buf[:0], id, CodeLowDifficulty, CodeText(CodeLowDifficulty))
		}
	})
}

// BenchmarkDecodeReply is what a load generator or a client pays for each share's reply.
func BenchmarkDecodeReply(b *testing.B) {
	line := []byte(`{"id":4,"result":true,"error":null}`)
	var m Message
	b.ReportAllocs()
	for b.Loop() {
		if err := m.Decode(line); err != nil || !m.Accepted() {
			b.Fatal(err)
		}
	}
}
