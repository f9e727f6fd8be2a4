package difficulty

import (
	"strconv"
	"time"
)

// A Hashrate is a number of hashes per second.
type Hashrate float64

// HashrateOf returns the hashrate that finds shares whose difficulties add up to sum in span: sum * 2^32 / span. It is
// an estimate whose relative error is about 1/sqrt(number of shares). A span of zero or less gives 0.
func HashrateOf(sum Difficulty, span time.Duration) Hashrate {
	if span <= 0 {
		return 0
	}
	return Hashrate(float64(sum) * HashesPerDifficulty / span.Seconds())
}

// Difficulty returns the difficulty at which hashrate h finds one share every interval on average. It need not be
// [Difficulty.Assignable].
func (h Hashrate) Difficulty(interval time.Duration) Difficulty {
	return Difficulty(float64(h) * interval.Seconds() / HashesPerDifficulty)
}

// String returns h with three significant digits and an SI unit, such as "14.1 TH/s".
func (h Hashrate) String() string {
	units := [...]string{"H/s", "kH/s", "MH/s", "GH/s", "TH/s", "PH/s", "EH/s", "ZH/s"}
	f, i := float64(h), 0
	for i < len(units)-1 && f >= 999.5 {
		f /= 1000
		i++
	}
	prec := 2
	switch {
	case f >= 99.95 || i == 0 && f == float64(int64(f)):
		prec = 0
	case f >= 9.995:
		prec = 1
	}
	return strconv.FormatFloat(f, 'f', prec, 64) + " " + units[i]
}
