package sharelog

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/poolkit/poolkit/share"
)

func TestCorruptMemberInTheMiddle(t *testing.T) {
	a, b, c := mks(day0, 0, 20), mks(day0, 20, 25), mks(day0, 25, 50)
	ma, mb, mc := member(t, a...), member(t, b...), member(t, c...)
	d := openTestDir(t, t.TempDir(), DirOptions{})
	harmless := 0
	for i := range mb {
		for _, flip := range []byte{0x01, 0x80, 0xff} {
			broken := slices.Clone(mb)
			broken[i] ^= flip
			writeDay(t, d, day0, ma, broken, mc)
			got, damage, end := readAll(t, d, Position{}, day0)
			require.Equal(t, int64(len(ma)+len(mb)+len(mc)), end.Offset)
			if i >= 3 && i < memberHeader { // flags, time and the like: some values do no harm
				got = slices.DeleteFunc(got, func(s share.Share) bool { return slices.Contains(b, s) })
			} else if len(damage) == 0 { // bits that fill up the last byte of the compressed data mean nothing
				require.Equal(t, slices.Concat(a, b, c), got, "byte %d ^ %x", i, flip)
				harmless++
				continue
			}
			require.Equal(t, append(slices.Clone(a), c...), got, "byte %d ^ %x", i, flip)
			if len(damage) > 0 {
				require.Len(t, damage, 1)
				require.ErrorIs(t, damage[0], ErrCorrupt)
				require.Equal(t, Position{Day: day0, Offset: int64(len(ma))}, damage[0].Position)
				require.Equal(t, int64(len(mb)), damage[0].Bytes)
				require.Contains(t, damage[0].Error(), "sharelog-2024-04-20.bin")
			}
		}
	}
	require.LessOrEqual(t, harmless, 2)
}

// BTCPool writes on behind a torn member.
func TestMembersBehindATornOne(t *testing.T) {
	a, b, c := mks(day0, 0, 20), mks(day0, 20, 45), mks(day0, 45, 50)
	ma, mb, mc := member(t, a...), member(t, b...), member(t, c...)
	d := openTestDir(t, t.TempDir(), DirOptions{})
	for cut := 1; cut < len(mb); cut++ {
		writeDay(t, d, day0, ma, mb[:cut], mc)
		got, damage, _ := readAll(t, d, Position{}, 0) // as a tail would
		require.Equal(t, append(slices.Clone(a), c...), got, "cut at %d", cut)
		require.Len(t, damage, 1)
		require.ErrorIs(t, damage[0], ErrCorrupt)
		require.Equal(t, int64(cut), damage[0].Bytes)

		// And again with the last member torn, too.
		writeDay(t, d, day0, ma, mb[:cut], mc[:len(mc)-1])
		got, _, pos := readAll(t, d, Position{}, 0)
		require.Equal(t, a, got, "cut at %d", cut)
		writeDay(t, d, day0, ma, mb[:cut], mc)
		got, _, _ = readAll(t, d, pos, 0)
		require.Equal(t, c, got, "cut at %d", cut)
	}
}

func TestDamageWithinMembers(t *testing.T) {
	rec := func(i int) []byte { b, _ := AppendRecord(nil, ptr(mk(day0, i))); return b }
	invalid := rec(1)
	invalid[4+1] ^= 1 // the version
	length := func(n uint32) []byte { return binary.LittleEndian.AppendUint32(nil, n) }
	join := func(b ...[]byte) []byte { return bytes.Join(b, nil) }
	ok := gz(t, rec(9))
	for _, tt := range []struct {
		name    string
		members [][]byte
		want    []int
		kinds   []error
	}{
		{"invalid record", [][]byte{gz(t, join(rec(0), invalid, rec(2))), ok}, []int{0, 2, 9}, []error{ErrCorrupt}},
		{"length 0", [][]byte{gz(t, join(rec(0), length(0), rec(2))), ok}, []int{0, 9}, []error{ErrCorrupt}},
		{"length of 65537", [][]byte{gz(t, join(rec(0), length(65537), rec(2))), ok}, []int{0, 9}, []error{ErrCorrupt}},
		{"length of 4 GB", [][]byte{gz(t, join(rec(0), length(1<<32-1), rec(2))), ok}, []int{0, 9}, []error{ErrCorrupt}},
		{"length beyond the member", [][]byte{gz(t, join(rec(0), length(90), rec(2)[:60])), ok}, []int{0, 9}, []error{ErrCorrupt}},
		{"length beyond the file", [][]byte{gz(t, join(rec(0), length(60000), rec(2))), ok}, []int{0}, []error{ErrTruncated}},
		{"record across members", [][]byte{gz(t, join(rec(0), rec(1)[:30])), gz(t, join(rec(1)[30:], rec(2))), ok},
			[]int{0, 1, 2, 9}, nil},
		{"record across three members, one empty", [][]byte{gz(t, rec(0)[:2]), gz(t, nil), gz(t, rec(0)[2:50]),
			gz(t, join(rec(0)[50:], rec(1))), ok}, []int{0, 1, 9}, nil},
		{"members without records", [][]byte{gz(t, nil), gz(t, rec(0)), gz(t, nil), gz(t, nil), ok}, []int{0, 9}, nil},
		{"incomplete record at the end", [][]byte{ok, gz(t, rec(0)[:50])}, []int{9}, []error{ErrTruncated}},
		{"incomplete length at the end", [][]byte{ok, gz(t, rec(0)[:3])}, []int{9}, []error{ErrTruncated}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := openTestDir(t, t.TempDir(), DirOptions{})
			writeDay(t, d, day0, tt.members...)
			var want []share.Share
			for _, i := range tt.want {
				want = append(want, mk(day0, i))
			}
			got, damage, _ := readAll(t, d, Position{}, day0)
			require.Equal(t, want, got)
			var kinds []error
			for _, d := range damage {
				kinds = append(kinds, d.Kind)
				require.NotZero(t, d.Bytes)
			}
			require.Equal(t, tt.kinds, kinds)
			requireResumable(t, d, want)
		})
	}
}

func ptr[T any](v T) *T { return &v }

// requireResumable breaks off after each number of shares and goes on from the position there.
func requireResumable(t *testing.T, d *Dir, want []share.Share) {
	t.Helper()
	for stop := range len(want) + 1 {
		r := NewReader(d, Position{}, 0)
		var got []share.Share
		for s, err := range r.All(t.Context()) {
			if len(got) == stop {
				break
			}
			if err == nil {
				got = append(got, s)
			}
			if len(got) == stop {
				break
			}
		}
		var pos Position
		require.NoError(t, pos.UnmarshalText([]byte(r.Position().String())))
		rest, _, _ := readAll(t, d, pos, 0)
		if stop == 0 {
			require.LessOrEqual(t, len(rest), len(want))
			got = nil
			if len(rest) < len(want) { // the loop above was given the first share, and broke off
				got = want[:len(want)-len(rest)]
			}
		}
		require.Equal(t, want, append(got, rest...), "broken off after %d", stop)
	}
}

// A member too large to hold is given out in pieces, and positions within it hold.
func TestMemberLargerThanTheBuffer(t *testing.T) {
	d := openTestDir(t, t.TempDir(), DirOptions{})
	want := mks(day0, 0, 5000)
	big := member(t, want...)
	writeDay(t, d, day0, big, member(t, mk(day0, 5000)))
	want = append(want, mk(day0, 5000))
	for _, whole := range []int{100, 5000, 100_000} {
		for _, stop := range []int{1, 2500, 4999, 5000} {
			c, err := d.Scan(Position{}, 0)
			require.NoError(t, err)
			cur, _, err := openDay(d.Path(day0), Mark{Day: day0}, "")
			require.NoError(t, err)
			cur.whole = whole
			c.(*dirCursor).cur = cur
			got := make([]share.Share, stop)
			for n := 0; n < stop; {
				k, err := c.Read(t.Context(), got[n:])
				require.NoError(t, err)
				n += k
			}
			rest, damage, _ := readAll(t, d, c.Position(), 0)
			require.Empty(t, damage)
			require.Equal(t, want, append(got, rest...))
			require.NoError(t, c.Close())
		}
	}

	// Cut off, it is delivered as far as it goes and then waits; with the rest there it goes on.
	cut := len(big) - 20
	writeDay(t, d, day0, big[:cut])
	cur, _, err := openDay(d.Path(day0), Mark{Day: day0}, "")
	require.NoError(t, err)
	defer cur.close()
	cur.whole = 100_000
	var got []share.Share
	buf := make([]share.Share, 100)
	read := func() {
		for {
			n, err := cur.read(buf)
			if err == io.EOF {
				return
			}
			require.NoError(t, err)
			got = append(got, buf[:n]...)
		}
	}
	read()
	require.NotEmpty(t, got)
	require.Less(t, len(got), 5000)
	f, err := os.OpenFile(d.Path(day0), os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.Write(big[cut:])
	require.NoError(t, errors.Join(err, f.Close()))
	read()
	require.Equal(t, want[:5000], got)
}

func TestPositionBeyondTheEndOfTheFile(t *testing.T) {
	d := openTestDir(t, t.TempDir(), DirOptions{})
	require.NoError(t, d.Append(t.Context(), mks(day0, 0, 10)))
	_, _, before := readAll(t, d, Position{}, 0)
	require.NoError(t, d.Append(t.Context(), mks(day0, 10, 20)))
	_, _, after := readAll(t, d, Position{}, 0)
	require.NoError(t, os.Truncate(d.Path(day0), before.Offset+5)) // the machine has crashed
	c, err := d.Scan(after, 0)
	require.NoError(t, err)
	defer c.Close()
	got, damage := drainCursor(t, c)
	require.Empty(t, got)
	require.Len(t, damage, 1)
	require.ErrorIs(t, damage[0], ErrTruncated)
	require.Equal(t, after.Offset-before.Offset, damage[0].Bytes)
	require.NoError(t, d.Append(t.Context(), mks(day0, 20, 23)))
	got, damage = drainCursor(t, c)
	require.Empty(t, damage)
	require.Equal(t, mks(day0, 20, 23), got, "what was read before is not read again")

	_, damage, _ = readAll(t, d, Position{Day: day0, Index: 100}, 0)
	require.Len(t, damage, 1)
	require.ErrorContains(t, damage[0], "fewer than the position")
	_, err = d.Scan(Position{Day: day0 + 5}, day0+9)
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, damage, pos := readAll(t, d, Position{Day: day0 - 1, Offset: 77}, 0)
	require.Len(t, damage, 1)
	require.ErrorContains(t, damage[0], "is gone")
	require.Equal(t, day0, pos.Day)
}

func TestPositionText(t *testing.T) {
	for text, p := range map[string]Position{
		"1970-01-01/0/0":     {},
		"2024-04-20/0/0":     {Day: day0},
		"2024-04-20/4096/17": {Day: day0, Offset: 4096, Index: 17},
		"2024-04-21/9223372036854775807/5+2024-04-20/1/2": {Day: day0 + 1, Offset: 1<<63 - 1, Index: 5, Late: Mark{day0, 1, 2}},
	} {
		require.Equal(t, text, p.String())
		b, err := p.MarshalText()
		require.NoError(t, err)
		var back Position
		require.NoError(t, back.UnmarshalText(b))
		require.Equal(t, p, back)
	}
	back := Position{Day: 1}
	require.NoError(t, back.UnmarshalText(nil))
	require.Zero(t, back)
	for _, bad := range []string{"x", "2024-04-20", "2024-04-20/1", "2024-04-20/-1/0", "2024-04-20/1/-1", "2024-04-20/1/2/3",
		"2024-13-20/1/2", "1969-12-31/1/2", "2024-04-20/9223372036854775808/0", "2024-04-20/1/2147483648",
		"2024-04-20/1/2+", "2024-04-20/1/2+2024-04-20/1/2", "2024-04-20/1/2+2024-04-19/1/2+2024-04-18/1/2"} {
		require.Error(t, back.UnmarshalText([]byte(bad)), bad)
		require.Zero(t, back)
	}
}

func FuzzPosition(f *testing.F) {
	f.Add("2024-04-20/4096/17")
	f.Add("2024-04-21/1/5+2024-04-20/1/2")
	f.Fuzz(func(t *testing.T, s string) {
		var p, again Position
		if p.UnmarshalText([]byte(s)) == nil {
			require.NoError(t, again.UnmarshalText([]byte(p.String())))
			require.Equal(t, p, again)
		}
	})
}

// TestFollowsAcrossMidnight runs on a clock of its own: five seconds are left to the old day, late shares are picked
// up from it, and the position keeps both places.
func TestFollowsAcrossMidnight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, err := OpenDir(t.TempDir(), &DirOptions{NoSync: true})
		require.NoError(t, err)
		defer d.Close()
		today := DayOf(time.Now())
		time.Sleep(time.Until((today + 1).Start().Add(-3 * time.Second)))
		c, err := d.Scan(Position{}, 0)
		require.NoError(t, err)
		next := func(want ...share.Share) {
			t.Helper()
			got, damage := drainCursor(t, c)
			require.Empty(t, damage)
			require.Equal(t, want, got)
		}
		put := func(s ...share.Share) { t.Helper(); require.NoError(t, d.Append(t.Context(), s)) }
		next()
		put(mk(today, 0))
		next(mk(today, 0))
		put(mk(today+1, 1)) // a clock that is fast
		next()
		time.Sleep(7 * time.Second) // 00:00:04
		put(mk(today+1, 2))
		next()
		put(mk(today, 3))
		next(mk(today, 3))
		time.Sleep(time.Second)
		next(mk(today+1, 1), mk(today+1, 2))
		put(mk(today, 4), mk(today+1, 5))
		next(mk(today+1, 5), mk(today, 4))
		pos := c.Position()
		require.Equal(t, today, pos.Late.Day)
		put(mk(today, 6), mk(today, 7))
		buf := make([]share.Share, 1)
		_, err = c.Read(t.Context(), buf)
		require.NoError(t, err)
		require.Equal(t, mk(today, 6), buf[0])
		pos = c.Position() // within a member of the late file
		require.NoError(t, c.Close())
		c, err = d.Scan(pos, 0)
		require.NoError(t, err)
		next(mk(today, 7))
		put(mk(today+1, 8))
		next(mk(today+1, 8))
		require.NoError(t, c.Close())
		_, err = c.Read(t.Context(), buf)
		require.ErrorContains(t, err, "closed")
	})
}

// A torn end is reported when its day is left, and no sooner.
func TestTornEndOfYesterday(t *testing.T) {
	d := openTestDir(t, t.TempDir(), DirOptions{})
	m := member(t, mks(day0, 5, 9)...)
	writeDay(t, d, day0, member(t, mks(day0, 0, 5)...), m[:20])
	c, err := d.Scan(Position{}, 0)
	require.NoError(t, err)
	defer c.Close()
	got, damage := drainCursor(t, c)
	require.Equal(t, mks(day0, 0, 5), got)
	require.Empty(t, damage)
	require.NoError(t, d.Append(t.Context(), mks(day0+1, 0, 2)))
	got, damage = drainCursor(t, c)
	require.Equal(t, mks(day0+1, 0, 2), got)
	require.Len(t, damage, 1)
	require.ErrorIs(t, damage[0], ErrTruncated)
	require.Equal(t, int64(20), damage[0].Bytes)
	require.NoError(t, d.Append(t.Context(), mks(day0, 9, 12))) // cuts the torn member off and goes on there
	got, damage = drainCursor(t, c)
	require.Empty(t, damage)
	require.Equal(t, mks(day0, 9, 12), got)
}

// TestExactlyOnceInAnyInterleaving appends, reads, saves positions and goes back to them at random.
func TestExactlyOnceInAnyInterleaving(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		d := openTestDir(t, t.TempDir(), DirOptions{})
		var put, counted int
		seen := map[uint32]int{}
		pos, day := Position{}, day0
		var c Cursor
		read := func(limit int) bool {
			if c == nil {
				var err error
				c, err = d.Scan(pos, 0)
				require.NoError(t, err)
			}
			buf := make([]share.Share, limit)
			n, err := c.Read(t.Context(), buf)
			if err == io.EOF {
				return false
			}
			require.NoError(t, err)
			if r.IntN(4) == 0 { // the program is killed before it has stored what it read
				require.NoError(t, c.Close())
				c = nil
				return true
			}
			for _, s := range buf[:n] {
				seen[s.Nonce]++
			}
			counted += n
			require.NoError(t, pos.UnmarshalText([]byte(c.Position().String())))
			return true
		}
		for range 200 {
			switch r.IntN(5) {
			case 0, 1:
				n := r.IntN(30)
				batch := mks(day, put, put+n)
				for i := range batch {
					if day > day0 && r.IntN(5) == 0 { // late
						batch[i].Time = batch[i].Time.AddDate(0, 0, -1)
					}
				}
				require.NoError(t, d.Append(t.Context(), batch))
				put += n
			case 2, 3:
				read(1 + r.IntN(20))
			case 4:
				if r.IntN(10) == 0 {
					for read(64) { // no more than a day behind, or late shares are missed
					}
					day++
				}
			}
		}
		for read(50) {
		}
		require.Equal(t, put, counted, "seed %d", seed)
		for nonce, n := range seen {
			require.Equal(t, 1, n, "seed %d, share %x", seed, nonce)
		}
		if c != nil {
			require.NoError(t, c.Close())
		}
	}
}

func TestReaderAndReplayStopAtDamageUnlessToldOtherwise(t *testing.T) {
	d := openTestDir(t, t.TempDir(), DirOptions{})
	broken := member(t, mks(day0, 5, 9)...)
	broken[30] ^= 0xff
	writeDay(t, d, day0, member(t, mks(day0, 0, 5)...), broken, member(t, mks(day0, 9, 12)...))
	want := append(mks(day0, 0, 5), mks(day0, 9, 12)...)

	var got []share.Share
	var errs int
	for s, err := range NewReader(d, Position{}, day0).All(t.Context()) {
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			errs++
			continue
		}
		got = append(got, s)
	}
	require.Equal(t, want, got)
	require.Equal(t, 1, errs)

	got = nil
	sink := share.SinkFunc(func(_ context.Context, s []share.Share) error { got = append(got, s...); return nil })
	pos, err := Replay(t.Context(), d, Position{}, sink, &ReplayOptions{Batch: 3})
	require.ErrorIs(t, err, ErrCorrupt)
	require.Equal(t, want[:5], got)
	pos, err = Replay(t.Context(), d, pos, sink, nil)
	require.NoError(t, err)
	require.Equal(t, want, got)
	again, err := Replay(t.Context(), d, pos, sink, nil)
	require.NoError(t, err)
	require.Equal(t, pos, again)

	got = nil
	var seen []*DamageError
	var marks []Position
	end, err := Replay(t.Context(), d, Position{}, sink, &ReplayOptions{To: day0, Batch: 3,
		OnDamage: func(e *DamageError) { seen = append(seen, e) },
		OnBatch:  func(next Position) error { marks = append(marks, next); return nil }})
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.Len(t, seen, 1)
	require.Equal(t, end, marks[len(marks)-1])

	// A sink that fails leaves the position before its batch.
	errSink := errors.New("no more")
	n := 0
	failing := share.SinkFunc(func(_ context.Context, s []share.Share) error {
		if n++; n == 2 {
			return errSink
		}
		return nil
	})
	at, err := Replay(t.Context(), d, Position{}, failing, &ReplayOptions{Batch: 3})
	require.ErrorIs(t, err, errSink)
	require.Equal(t, marks[0], at)
	at, err = Replay(t.Context(), d, Position{}, sink, &ReplayOptions{Batch: 3, OnBatch: func(Position) error { return errSink }})
	require.ErrorIs(t, err, errSink)
	require.Equal(t, Position{}, at)
	for _, err := range NewReader(d, Position{Day: day0 + 1}, day0+1).All(t.Context()) {
		require.ErrorIs(t, err, fs.ErrNotExist)
	}
}

func FuzzDecodeRecord(f *testing.F) {
	b, err := AppendRecord(nil, ptr(exampleShare(f)))
	require.NoError(f, err)
	f.Add(b)
	f.Add(append(b, 1, 2, 3))
	f.Add([]byte{3, 0, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var s share.Share
		n, err := DecodeRecord(b, &s)
		require.LessOrEqual(t, n, len(b))
		if err != nil {
			require.True(t, errors.Is(err, ErrCorrupt) != errors.Is(err, ErrTruncated))
			return
		}
		back, err := AppendRecord(nil, &s)
		require.NoError(t, err)
		var again share.Share
		_, err = DecodeRecord(back, &again)
		require.NoError(t, err)
		require.Equal(t, s, again)
	})
}

// FuzzFile reads any file to its end, from the beginning and from anywhere, and writes on if it will have it.
func FuzzFile(f *testing.F) {
	captured, err := os.ReadFile("testdata/sharelogBTC-2026-11-21.bin")
	require.NoError(f, err)
	a, b := member(f, mks(day0, 0, 3)...), member(f, mks(day0, 3, 6)...)
	f.Add(captured, int64(0), 0)
	f.Add(slices.Concat(captured, captured[:60], captured), int64(100), 1)
	f.Add(slices.Concat(a, b), int64(0), 2)
	f.Add(slices.Concat(a, b[:50]), int64(len(a)), 0)
	f.Add(slices.Concat(a[:40], b, gz(f, nil), make([]byte, 100)), int64(5), 1)
	f.Add(gz(f, append([]byte{0x51, 0, 0, 0}, make([]byte, 30)...)), int64(0), 0)
	f.Add([]byte("plain"), int64(2), 0)
	f.Add([]byte("0"), int64(85), 0) // a position beyond the end of what is no share log
	f.Fuzz(func(t *testing.T, file []byte, offset int64, index int) {
		if offset < 0 || index < 0 {
			return
		}
		d := openTestDir(t, t.TempDir(), DirOptions{})
		writeDay(t, d, day0, file)
		_, _, end := readAll(t, d, Position{}, day0)
		require.LessOrEqual(t, end.Offset, int64(len(file)))
		again, _, _ := readAll(t, d, end, 0)
		require.Empty(t, again, "nothing is read twice")
		readAll(t, d, Position{Day: day0, Offset: offset, Index: index}, 0)

		if err := d.Append(t.Context(), mks(day0, 90, 91)); err != nil {
			now, err := os.ReadFile(d.Path(day0))
			require.NoError(t, err)
			require.True(t, bytes.Equal(file, now), "what is refused is left alone")
			return
		}
		more, _, _ := readAll(t, d, Position{}, day0)
		require.GreaterOrEqual(t, len(more), 1)
		require.Equal(t, mk(day0, 90), more[len(more)-1])
	})
}

func ExampleReader_All() {
	dir, err := OpenDir("testdata", &DirOptions{ChainTag: "BTC", ReadOnly: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer dir.Close()
	r := NewReader(dir, Position{}, 0)
	for s, err := range r.All(context.Background()) {
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(s.Time.Format(time.DateTime), "user", s.UserID, "height", s.Height, s.Verdict)
	}
	fmt.Println("next:", r.Position())
	// Output:
	// 2026-11-21 02:50:24 user 2 height 106 Share accepted
	// next: 2026-11-21/100/0
}
