package sv1

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestServerLines(t *testing.T) {
	id := []byte("1")
	all := []string{"version-rolling", "minimum-difficulty", "subscribe-extranonce", "info"}
	for _, tt := range []struct {
		name string
		line []byte
		want string
	}{
		{"true", AppendTrue(nil, []byte("4")), `{"id":4,"result":true,"error":null}`},
		{"true to a string id", AppendTrue(nil, []byte(`"auth"`)), `{"id":"auth","result":true,"error":null}`},
		{"true to no id", AppendTrue(nil, nil), `{"id":null,"result":true,"error":null}`},
		{"error", AppendError(nil, []byte("4"), CodeJobNotFound, CodeText(CodeJobNotFound)),
			`{"id":4,"result":null,"error":[21,"Job not found (=stale)",null]}`},
		{"error with quotes", AppendError(nil, nil, -7, "a\"\\\n\x7fé\xff"),
			`{"id":null,"result":null,"error":[-7,"a\"\\\u000a\u007fé` + "\uFFFD" + `",null]}`},
		{"any result", AppendResult(nil, id, []byte(`{"a":[]}`)), `{"id":1,"result":{"a":[]},"error":null}`},
		{"version of a miner", AppendTextResult(nil, []byte("9"), "cpuminer/2.5.1"), `{"id":9,"result":"cpuminer/2.5.1","error":null}`},
		{"no transactions", AppendNoTransactions(nil, id), `{"id":1,"result":[],"error":[20,"Not supported",null]}`},

		{"subscribe", AppendSubscribeResult(nil, []byte("2"), []byte{0x1a, 0, 0, 0x2b}, 8),
			`{"id":2,"result":[[["mining.set_difficulty","1a00002b"],["mining.notify","1a00002b"]],"1a00002b",8],"error":null}`},

		{"configure, all granted", AppendConfigureResult(nil, id, all, ConfigureResult{true, true, 0x1fffe000, true, true}),
			`{"id":1,"result":{"minimum-difficulty":true,"version-rolling":true,"version-rolling.mask":"1fffe000","subscribe-extranonce":true,"info":true},"error":null}`},
		{"configure, none granted", AppendConfigureResult(nil, id, all, ConfigureResult{VersionMask: 5}),
			`{"id":1,"result":{"minimum-difficulty":false,"version-rolling":false,"subscribe-extranonce":false,"info":false},"error":null}`},
		{"configure, others asked", AppendConfigureResult(nil, []byte(`"conf"`), []string{`x"y`, "info", "z"}, ConfigureResult{VersionRolling: true, Info: true}),
			`{"id":"conf","result":{"info":true,"x\"y":false,"z":false},"error":null}`},
		{"configure, nothing asked", AppendConfigureResult(nil, id, nil, ConfigureResult{true, true, 1, true, true}),
			`{"id":1,"result":{},"error":null}`},

		{"difficulty", AppendSetDifficulty(nil, 65536), `{"id":null,"method":"mining.set_difficulty","params":[65536]}`},
		{"version mask", AppendSetVersionMask(nil, 0xe000), `{"id":null,"method":"mining.set_version_mask","params":["0000e000"]}`},
		{"extranonce", AppendSetExtranonce(nil, []byte{0x1a, 0, 0, 0x2c}, 8),
			`{"id":null,"method":"mining.set_extranonce","params":["1a00002c",8]}`},
		{"reconnect", AppendReconnect(nil, Reconnect{}), `{"id":null,"method":"client.reconnect","params":[]}`},
		{"reconnect elsewhere", AppendReconnect(nil, Reconnect{"host", 3333, 10}),
			`{"id":null,"method":"client.reconnect","params":["host",3333,10]}`},
		{"message", AppendShowMessage(nil, "text"), `{"id":null,"method":"client.show_message","params":["text"]}`},
		{"get version", AppendGetVersion(nil, 9), `{"id":9,"method":"client.get_version","params":[]}`},
		{"ping", AppendPing(nil, 10), `{"id":10,"method":"mining.ping","params":[]}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			require.Equal(t, tt.want+"\n", string(tt.line))
			require.True(t, json.Valid(tt.line))
		})
	}
}

func TestDifficultyOnTheWire(t *testing.T) {
	for _, tt := range []struct {
		d    float64
		want string
	}{
		{1, "1"},
		{16384, "16384"},
		{1 << 53, "9007199254740992"},
		{1 << 62, "4611686018427387904"},
		{1 << 63, "9223372036854775808"},
		{1 << 64, "18446744073709551616"},
		{1e23, "99999999999999991611392"},
		{0.001, "0.001"},
		{1.5, "1.5"},
		{1.0 / (1 << 32), "0.00000000023283064365386963"},
		{0, "1"},
		{-5, "1"},
		{math.NaN(), "1"},
		{math.Inf(1), "1"},
	} {
		line := AppendSetDifficulty(nil, tt.d)
		require.Equal(t, `{"id":null,"method":"mining.set_difficulty","params":[`+tt.want+"]}\n", string(line))
		if tt.want == "1" {
			continue
		}
		var m Message
		var s SetDifficulty
		require.NoError(t, m.Decode(line))
		require.NoError(t, s.Decode(m.Params))
		require.Equal(t, tt.d, s.Difficulty)
	}
}

func TestEncodersAppend(t *testing.T) {
	line := AppendPing(AppendTrue([]byte("x"), []byte("1")), 2)
	require.Equal(t, "x{\"id\":1,\"result\":true,\"error\":null}\n{\"id\":2,\"method\":\"mining.ping\",\"params\":[]}\n", string(line))
}

func TestServerLinesAllocateNothing(t *testing.T) {
	buf := make([]byte, 0, 4096)
	id, n := []byte("7"), exampleNotify()
	body := AppendNotifyBody(nil, n)
	for name, f := range map[string]func(){
		"AppendTrue":          func() { AppendTrue(buf, id) },
		"AppendError":         func() { AppendError(buf, id, CodeLowDifficulty, CodeText(CodeLowDifficulty)) },
		"AppendSetDifficulty": func() { AppendSetDifficulty(buf, 65536) },
		"AppendNotify":        func() { AppendNotify(buf, n) },
		"AppendNotifyFrom":    func() { AppendNotifyFrom(buf, 5, body, true) },
		"AppendSubscribe":     func() { AppendSubscribeResult(buf, id, []byte{1, 2, 3, 4}, 8) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s allocates %v times, want 0", name, n)
		}
	}
}
