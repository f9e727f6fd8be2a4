package stratum

import (
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestScriptHeight(t *testing.T) {
	tests := []struct {
		name, script string
		want         int32
		ok           bool
	}{
		{"mainnet", "03bbd10c0480", 840123, true},
		{"OP_1", "51", 1, true},
		{"OP_16", "60ff", 16, true},
		{"17", "0111", 17, true},
		{"128 needs a byte for the sign", "028000", 128, true},
		{"the highest", "04ffffff7f", 1<<31 - 1, true},
		{"negative", "0180", 0, false},
		{"five bytes", "050000000001", 0, false},
		{"cut", "03bbd1", 0, false},
		{"empty", "", 0, false},
		{"OP_0", "00", 0, false},
		{"no push", "6a", 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			script, err := hex.DecodeString(tt.script)
			require.NoError(t, err)
			got, ok := scriptHeight(script)
			require.Equal(t, tt.ok, ok)
			require.Equal(t, tt.want, got)
		})
	}
}
