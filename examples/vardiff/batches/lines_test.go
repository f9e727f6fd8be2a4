package batches_test

import (
	"os"
	"strings"
	"testing"
)

// The README says forty lines.
func TestFortyLines(t *testing.T) {
	source, err := os.ReadFile("batches.go")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(source)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "//") {
			n++
		}
	}
	if n > 40 || n < 20 {
		t.Errorf("the policy has %d lines", n)
	}
}
