package sharelog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/poolkit/poolkit/share"
)

// switchDelay is how long after midnight a cursor stays with the old day, whose last shares are then still to come.
const switchDelay = 5 * time.Second

// clockSkew bounds how early shares of a new day may come.
const clockSkew = 2 * time.Minute

// Scan returns a Cursor at from that goes on to the end of day to, or follows what is written when to is 0.
//
// It reads each day to its end and goes on with the next one that has a file; around midnight, five seconds after it.
// Until it leaves that day, too, it looks again at the day before whenever it has nothing to read, for shares that came
// late. Shares that come a day and more late it does not see; reading their day again does.
//
// A member that is incomplete is taken for one that is being written for as long as its day is the last one, and
// reported as [ErrTruncated] when the Cursor leaves the day, or, when to is given, at the end.
func (d *Dir) Scan(from Position, to Day) (Cursor, error) {
	c := &dirCursor{dir: d, to: to, pos: from}
	if to == 0 {
		c.to = maxDay
	} else if day, err := c.nextDay(from.Day - 1); err != nil {
		return nil, err
	} else if day == 0 {
		return nil, fmt.Errorf("sharelog: scan %s from %v to %v: no share log of these days: %w", d.path, from.Day, to,
			fs.ErrNotExist)
	}
	return c, nil
}

type dirCursor struct {
	dir     *Dir
	to      Day
	pos     Position // where to go on; what cur and late stand at is newer
	cur     *dayReader
	late    *dayReader
	pending []*DamageError
	closed  bool
}

func (c *dirCursor) Position() Position {
	p := c.pos
	if c.cur != nil {
		m := c.cur.mark()
		p.Day, p.Offset, p.Index = m.Day, m.Offset, m.Index
	}
	if c.late != nil {
		p.Late = c.late.mark()
	}
	return p
}

func (c *dirCursor) Close() error {
	c.closed = true
	c.pos = c.Position()
	return c.dropReaders()
}

func (c *dirCursor) dropReaders() error {
	var errs []error
	for _, r := range []**dayReader{&c.cur, &c.late} {
		if *r != nil {
			errs = append(errs, (*r).close())
			*r = nil
		}
	}
	return errors.Join(errs...)
}

func (c *dirCursor) Read(ctx context.Context, dst []share.Share) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if c.closed {
		return 0, errors.New("sharelog: read: the cursor is closed")
	}
	if len(dst) == 0 {
		return 0, nil
	}
	for {
		if len(c.pending) > 0 {
			d := c.pending[0]
			c.pending = c.pending[1:]
			return 0, d
		}
		if c.cur == nil {
			opened, err := c.open()
			if err != nil {
				return 0, err
			}
			if !opened {
				return 0, io.EOF
			}
			continue
		}
		// The common case first; then the day before, and the next one.
		for _, r := range [...]*dayReader{c.cur, c.late} {
			if r == nil {
				continue
			}
			if n, err := r.read(dst); n > 0 || err != io.EOF {
				return n, c.locate(err)
			}
		}
		switched, err := c.advance()
		if err != nil {
			return 0, err
		}
		if !switched && len(c.pending) == 0 {
			return 0, io.EOF
		}
	}
}

// locate completes the position of a DamageError.
func (c *dirCursor) locate(err error) error {
	if err == nil {
		return nil
	}
	var d *DamageError
	if errors.As(err, &d) && c.cur != nil {
		if d.Position.Day != c.cur.day { // it is in the late file
			late := Mark{d.Position.Day, d.Position.Offset, d.Position.Index}
			d.Position = c.Position()
			d.Position.Late = late
		} else if c.late != nil {
			d.Position.Late = c.late.mark()
		}
	}
	return err
}

// open opens what c.pos names, or the first file behind it.
func (c *dirCursor) open() (bool, error) {
	day := c.pos.Day
	cur, damage, err := openDay(c.dir.Path(day), Mark{day, c.pos.Offset, c.pos.Index}, c.dir.opts.Chain)
	if errors.Is(err, fs.ErrNotExist) {
		if day, err = c.nextDay(day); err != nil || day == 0 {
			return false, err
		}
		cur, damage, err = openDay(c.dir.Path(day), Mark{Day: day}, c.dir.opts.Chain)
		if err == nil && (c.pos.Offset > 0 || c.pos.Index > 0) {
			c.pending = append(c.pending, &DamageError{Kind: ErrTruncated, File: c.dir.name(c.pos.Day), Position: c.pos,
				Bytes: c.pos.Offset, Cause: errors.New("the file of the position to go on from is gone")})
		}
	}
	if err != nil {
		return false, fmt.Errorf("sharelog: open: %w", err)
	}
	if damage != nil {
		c.pending = append(c.pending, damage)
	}
	if m := c.pos.Late; m.Day > 0 {
		late, damage, err := openDay(c.dir.Path(m.Day), m, c.dir.opts.Chain)
		switch {
		case err == nil:
			c.late = late
		case !errors.Is(err, fs.ErrNotExist): // a file that is gone gets no late shares
			return false, errors.Join(fmt.Errorf("sharelog: open: %w", err), cur.close())
		}
		if damage != nil {
			c.pending = append(c.pending, damage)
		}
	}
	c.cur = cur
	for _, d := range c.pending {
		_ = c.locate(d)
	}
	return true, nil
}

// nextDay returns the first day behind after that has a file, up to c.to, or 0.
func (c *dirCursor) nextDay(after Day) (Day, error) {
	days, err := c.dir.Days()
	if err != nil {
		return 0, err
	}
	for _, day := range days {
		if day > after && day <= c.to {
			return day, nil
		}
	}
	return 0, nil
}

// advance goes on with the next day, now that there is nothing left to read in this one, or reports that there is none
// or that it is too early.
func (c *dirCursor) advance() (switched bool, err error) {
	now := time.Now()
	day := Day(0)
	if c.cur.day < c.to && c.cur.day != DayOf(now.Add(clockSkew)) { // saves looking, all day long
		if day, err = c.nextDay(c.cur.day); err != nil {
			return false, err
		}
	}
	if day == 0 {
		if c.to < maxDay {
			c.tail(c.cur)
		}
		return false, nil
	}
	if early := day.Start().Sub(now); early > -switchDelay && early < clockSkew {
		return false, nil
	}
	next, _, err := openDay(c.dir.Path(day), Mark{Day: day}, c.dir.opts.Chain)
	if err != nil {
		return false, fmt.Errorf("sharelog: open: %w", err)
	}
	if info, err := next.f.Stat(); err != nil || info.Size() == 0 {
		return false, errors.Join(err, next.close())
	}
	c.tail(c.cur)
	if c.late != nil {
		if err := c.late.close(); err != nil {
			return false, errors.Join(err, next.close())
		}
	}
	c.late, c.cur = c.cur, next
	return true, nil
}

// tail makes the next Read report what r leaves unread.
func (c *dirCursor) tail(r *dayReader) {
	if d := r.tail(); d != nil {
		_ = c.locate(d)
		c.pending = append(c.pending, d)
	}
}
