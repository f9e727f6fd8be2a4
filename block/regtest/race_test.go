//go:build race

package regtest

const raceEnabled = true
