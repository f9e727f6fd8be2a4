//go:build race

package stratum_test

const raceEnabled = true
