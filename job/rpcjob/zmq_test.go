package rpcjob

import (
	"strings"
	"testing"
)

func FuzzFrameGuard(f *testing.F) {
	greeting := strings.Repeat("g", greetingSize)
	f.Add([]byte(greeting+"\x04\x05hello\x01\x03abc\x00\x02xy"), 3)
	f.Add([]byte(greeting+"\x02\x00\x00\x00\x00\x00\x10\x00\x01"), 1)
	f.Add([]byte(greeting+strings.Repeat("\x01\x00", 20)), 2)
	f.Fuzz(func(t *testing.T, p []byte, step int) {
		whole := frameGuard{}
		want := whole.follow(p)
		// The verdict must not depend on how the bytes are cut into reads.
		step = max(1, step%64)
		parts, got := frameGuard{}, true
		for rest := p; len(rest) > 0 && got; {
			n := min(step, len(rest))
			got = parts.follow(rest[:n])
			rest = rest[n:]
		}
		if got != want {
			t.Fatalf("whole %v, in parts of %d bytes %v", want, step, got)
		}
		if whole.body > maxFrame && want {
			t.Fatal("a frame that is too large passed")
		}
	})
}
