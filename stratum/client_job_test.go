package stratum_test

import (
	"encoding/hex"
	"testing"

	"github.com/poolkit/poolkit/stratum"
	"github.com/stretchr/testify/require"
)

func TestClientJobNotHandedOn(t *testing.T) {
	valid := func() *stratum.ClientJob {
		raw := make([]byte, 60)
		copy(raw, "\x02\x00\x00\x00\x01")
		copy(raw[37:], "\xff\xff\xff\xff\x1e\x03\xbb\xd1\x0c")
		j := &stratum.ClientJob{Extranonce2Size: 12}
		j.Coinb1, j.Bits = raw, 0x1d00ffff
		j.Coinb2, _ = hex.DecodeString("ffffffff01205fa012000000001600140102030405060708090a0b0c0d0e0f101112131400000000")
		return j
	}
	_, err := valid().Job(1, "")
	require.NoError(t, err)
	tests := []struct {
		name   string
		change func(j *stratum.ClientJob)
		err    string
	}{
		{"too little extranonce", func(j *stratum.ClientJob) { j.Extranonce2Size = 8 }, "too short to hand on"},
		{"cut coinbase", func(j *stratum.ClientJob) { j.Coinb2 = j.Coinb2[:30] }, "EOF"},
		{"bytes after the coinbase", func(j *stratum.ClientJob) { j.Coinb2 = append(j.Coinb2, 0) }, "after the coinbase"},
		{"no coinbase", func(j *stratum.ClientJob) { j.Coinb1, j.Coinb2 = nil, nil }, "coinbase"},
		{"no height", func(j *stratum.ClientJob) { j.Coinb1[42] = 0x6a }, "height"},
		{"negative height", func(j *stratum.ClientJob) { j.Coinb1[45] = 0x8c }, "height"},
		{"more money than there is", func(j *stratum.ClientJob) { j.Coinb2[12] = 0x7f }, "pays out more"},
		{"negative money", func(j *stratum.ClientJob) { j.Coinb2[12] = 0xff }, "pays out more"},
		{"bits without a target", func(j *stratum.ClientJob) { j.Bits = 0 }, "job"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			j := valid()
			tt.change(j)
			_, err := j.Job(1, "")
			require.ErrorContains(t, err, tt.err)
		})
	}
}
