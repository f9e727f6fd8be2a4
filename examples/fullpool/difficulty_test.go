package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/stratum/stratumtest"
	"github.com/stretchr/testify/require"
)

// firstDifficulty logs in and returns what the first job comes with.
func firstDifficulty(t testing.TB, p *running, user, password string) difficulty.Difficulty {
	t.Helper()
	m, err := login(t, p.miners, &stratumtest.MinerOptions{User: user, Password: password})
	require.NoError(t, err)
	j, err := m.NextJob(t.Context())
	require.NoError(t, err)
	require.NoError(t, m.Close())
	return j.Difficulty
}

// A miner starts where it was: after a kill as after a stop.
func TestAPoolThatWasKilledKnowsItsMiners(t *testing.T) {
	data := t.TempDir()
	args := []string{"-data", data, "-mine", "0", "-diff", "64", "-min-diff", "1"}
	file := filepath.Join(data, "difficulties.jsonl")
	p := spawn(t, args...)
	require.EqualValues(t, 64, firstDifficulty(t, p, "bob.rig", "x"))
	require.EqualValues(t, 4096, firstDifficulty(t, p, "alice.rig", "d=4096"))
	p.eventually("the file", func() bool {
		b, _ := os.ReadFile(file)
		return strings.Contains(string(b), `"difficulty":4096`)
	})
	require.NoError(t, p.process.Kill())
	<-p.ended

	p = spawn(t, args...)
	require.EqualValues(t, 4096, firstDifficulty(t, p, "alice.rig", "x"))
	require.EqualValues(t, 64, firstDifficulty(t, p, "alice.rig2", "x"))
	require.EqualValues(t, 256, firstDifficulty(t, p, "dave.rig", "d=256"))
	// A stop in good order leaves nothing out, with miners that are connected to the end.
	m, err := login(t, p.miners, &stratumtest.MinerOptions{User: "bob.rig", Password: "d=8192"})
	require.NoError(t, err)
	_, err = m.NextJob(t.Context())
	require.NoError(t, err)
	require.Zero(t, p.stop())

	p = spawn(t, args...)
	require.EqualValues(t, 4096, firstDifficulty(t, p, "alice.rig", "x"))
	require.EqualValues(t, 256, firstDifficulty(t, p, "dave.rig", "x"))
	require.EqualValues(t, 8192, firstDifficulty(t, p, "bob.rig", "x"))
	require.Zero(t, p.stop())

	// Neither a file that is damaged nor one that is gone keeps a pool from its work.
	require.NoError(t, os.WriteFile(file, []byte("{\n\x00\x00"), 0o600))
	p = spawn(t, append(args, "-keep-difficulty", "1h")...)
	require.Contains(t, p.log.String(), "the file of difficulties is damaged")
	require.EqualValues(t, 64, firstDifficulty(t, p, "alice.rig", "x"))
	require.Zero(t, p.stop())
	p = spawn(t, append(args, "-keep-difficulty", "-1")...)
	require.EqualValues(t, 4096, firstDifficulty(t, p, "carol.rig", "d=4096"))
	time.Sleep(2 * keepInterval)
	require.EqualValues(t, 64, firstDifficulty(t, p, "carol.rig", "x"))
	require.Zero(t, p.stop())
}

func TestEveryVardiffMakesAPolicy(t *testing.T) {
	for _, v := range vardiffs {
		p := start(t, "-data", t.TempDir(), "-mine", "0", "-diff", "64", "-min-diff", "1", "-vardiff", string(v.name))
		require.EqualValues(t, 64, firstDifficulty(t, p, "alice.rig", "x"), v.name)
		require.NotContains(t, p.log.String(), "vardiff refuses")
		require.Zero(t, p.stop())
	}
}
