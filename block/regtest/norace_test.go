//go:build !race

package regtest

const raceEnabled = false
