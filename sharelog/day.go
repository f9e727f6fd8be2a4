package sharelog

import (
	"fmt"
	"time"
)

// A Day is a calendar day in UTC, as the number of days since 1970-01-01. The zero Day is before all shares there are.
type Day int32

const secondsPerDay = 24 * 60 * 60

// maxDay is 9999-12-31, the last day with a date of ten characters.
const maxDay Day = 2932896

// DayOf returns the day of t, which must be within the years 1970 to 9999 as in all valid shares.
func DayOf(t time.Time) Day { return Day(t.Unix() / secondsPerDay) }

// ParseDay reads a date such as "2026-11-21".
func ParseDay(s string) (Day, error) {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil || t.Unix() < 0 {
		return 0, fmt.Errorf("sharelog: parse day %q: not a date such as 2026-11-21", s)
	}
	return DayOf(t), nil
}

// Start returns the first moment of d.
func (d Day) Start() time.Time { return time.Unix(int64(d)*secondsPerDay, 0).UTC() }

// String returns the date, such as "2026-11-21".
func (d Day) String() string { return d.Start().Format(time.DateOnly) }
