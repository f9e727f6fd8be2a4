package sharelog

import (
	"fmt"
	"strconv"
	"strings"
)

// A Position is a place between two records of a log. It stays valid for as long as the log does, across restarts and
// further writing. The zero Position is the beginning of the log, and one with nothing but a Day the beginning of that
// day.
//
// Positions are for storing and handing back. Their fields beyond Day have a meaning for the [Log] alone that returned
// them; what is said here is that of [Dir].
type Position struct {
	// Day is the day being read.
	Day Day
	// Offset is where in the day's file, in bytes, the gzip member begins that holds the next record. A record that
	// spans members belongs to the first of them.
	Offset int64
	// Index is how many records from Offset on have been read.
	Index int

	// Late is where the file of the day read before was left, which is looked at again for shares that came late.
	// It is zero when there was none.
	Late Mark
}

// A Mark is a place in the file of a day; see [Position].
type Mark struct {
	Day    Day
	Offset int64
	Index  int
}

// String returns p as text such as "2026-11-21/4096/17", to which that of Late is joined by "+".
// [Position.UnmarshalText] reads it.
func (p Position) String() string {
	b, _ := p.AppendText(nil)
	return string(b)
}

// AppendText appends the text of p to b. The error is always nil.
func (p Position) AppendText(b []byte) ([]byte, error) {
	b = Mark{p.Day, p.Offset, p.Index}.append(b)
	if p.Late != (Mark{}) {
		b = p.Late.append(append(b, '+'))
	}
	return b, nil
}

// MarshalText returns the text of p, at most 84 bytes. The error is always nil.
func (p Position) MarshalText() ([]byte, error) { return p.AppendText(nil) }

// UnmarshalText sets p to what [Position.MarshalText] wrote. Empty text is the zero Position, so that what a program
// has never stored reads as the beginning.
func (p *Position) UnmarshalText(text []byte) error {
	*p = Position{}
	if len(text) == 0 {
		return nil
	}
	here, late, hasLate := strings.Cut(string(text), "+")
	m, ok := parseMark(here)
	if ok {
		*p = Position{Day: m.Day, Offset: m.Offset, Index: m.Index}
		if hasLate {
			p.Late, ok = parseMark(late)
			ok = ok && p.Late.Day < p.Day
		}
	}
	if !ok {
		*p = Position{}
		return fmt.Errorf("sharelog: parse position %.100q: not of the form 2026-11-21/4096/17", text)
	}
	return nil
}

func (m Mark) append(b []byte) []byte {
	b = m.Day.Start().AppendFormat(b, "2006-01-02")
	b = strconv.AppendInt(append(b, '/'), m.Offset, 10)
	return strconv.AppendInt(append(b, '/'), int64(m.Index), 10)
}

func parseMark(s string) (m Mark, ok bool) {
	parts := strings.Split(s, "/")
	if len(parts) != 3 {
		return m, false
	}
	day, err1 := ParseDay(parts[0])
	offset, err2 := strconv.ParseUint(parts[1], 10, 63)
	index, err3 := strconv.ParseUint(parts[2], 10, 31)
	if err1 != nil || err2 != nil || err3 != nil {
		return m, false
	}
	return Mark{day, int64(offset), int(index)}, true
}
