package sharelog

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/poolkit/poolkit/share"
)

const day0 Day = 19833 // 2024-04-20

// mk returns the i-th of a sequence of shares that all differ, at noon of day.
func mk(day Day, i int) share.Share {
	return share.Share{
		JobID: 0x66236c8000000001, WorkerID: int64(i%13) + 1, UserID: 42, Verdict: share.Accepted,
		Time: day.Start().Add(12*time.Hour + time.Duration(i/50)*time.Second), IP: netip.MustParseAddr("10.1.2.3"),
		Difficulty: 16384, Bits: 0x17034219, Height: 840000, Nonce: uint32(i) * 2654435761, SessionID: 1,
		BitsReached: 0x1903ffff,
	}
}

func mks(day Day, from, to int) []share.Share {
	var s []share.Share
	for i := from; i < to; i++ {
		s = append(s, mk(day, i))
	}
	return s
}

// openTestDir opens a folder with NoSync, which saves seconds, and closes it at the end of the test.
func openTestDir(t testing.TB, path string, opts DirOptions) *Dir {
	t.Helper()
	opts.NoSync = true
	d, err := OpenDir(path, &opts)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

// readAll reads what there is from pos on, and the damage met.
func readAll(t testing.TB, log Log, pos Position, to Day) (shares []share.Share, damage []*DamageError, end Position) {
	t.Helper()
	c, err := log.Scan(pos, to)
	require.NoError(t, err)
	defer c.Close()
	shares, damage = drainCursor(t, c)
	return shares, damage, c.Position()
}

func drainCursor(t testing.TB, c Cursor) (shares []share.Share, damage []*DamageError) {
	t.Helper()
	buf := make([]share.Share, 7)
	for {
		n, err := c.Read(context.Background(), buf)
		var d *DamageError
		if err == io.EOF {
			return shares, damage
		} else if errors.As(err, &d) {
			damage = append(damage, d)
			require.Less(t, len(damage), 10_000, "damage without end")
			continue
		}
		require.NoError(t, err)
		shares = append(shares, buf[:n]...)
	}
}

// member returns a gzip member with shares, made by the standard library.
func member(t testing.TB, shares ...share.Share) []byte {
	var raw []byte
	for i := range shares {
		var err error
		raw, err = AppendRecord(raw, &shares[i])
		require.NoError(t, err)
	}
	return gz(t, raw)
}

func gz(t testing.TB, raw []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(raw)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}

func writeDay(t testing.TB, d *Dir, day Day, content ...[]byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(d.Path(day), bytes.Join(content, nil), 0o644))
}

func TestReadsTheFileOfARunningBTCPool(t *testing.T) {
	d, err := OpenDir("testdata", &DirOptions{ChainTag: "BTC", Chain: "btc", ReadOnly: true})
	require.NoError(t, err)
	day, err := ParseDay("2026-11-21")
	require.NoError(t, err)
	days, err := d.Days()
	require.NoError(t, err)
	require.Equal(t, []Day{day}, days)

	got, damage, end := readAll(t, d, Position{}, 0)
	require.Empty(t, damage)
	want := share.Share{ // as slparser printed it
		Chain: "btc", JobID: 7710451424378748929, WorkerID: 110815961356274161, UserID: 2, Verdict: share.Accepted,
		Time: time.Unix(1795229424, 0).UTC(), IP: netip.MustParseAddr("127.0.0.1"), Difficulty: 1, Bits: 0x207fffff,
		Height: 106, Nonce: 0xa542c614, SessionID: 0x02000000, BitsReached: got[0].BitsReached,
	}
	require.Equal(t, []share.Share{want}, got)
	require.NotZero(t, want.BitsReached)
	require.Equal(t, Position{Day: day, Offset: 100}, end)
	require.ErrorIs(t, d.Append(t.Context(), got), ErrReadOnly)
}

func TestAppendsToTheFileOfBTCPool(t *testing.T) {
	path := t.TempDir()
	b, err := os.ReadFile("testdata/sharelogBTC-2026-11-21.bin")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(path, "sharelogBTC-2026-11-21.bin"), b, 0o644))
	d := openTestDir(t, path, DirOptions{ChainTag: "BTC"})
	day, _ := ParseDay("2026-11-21")
	require.NoError(t, d.Append(t.Context(), mks(day, 0, 3)))
	after, err := os.ReadFile(d.Path(day))
	require.NoError(t, err)
	require.True(t, bytes.HasPrefix(after, b), "what was there is untouched")
	got, damage, _ := readAll(t, d, Position{}, 0)
	require.Empty(t, damage)
	require.Equal(t, mks(day, 0, 3), got[1:])
	require.Zero(t, d.Stats().Cut)

	// The standard library sees one stream of records, as any other reader would.
	zr, err := gzip.NewReader(bytes.NewReader(after))
	require.NoError(t, err)
	raw, err := io.ReadAll(zr)
	require.NoError(t, err)
	var s share.Share
	for i := range 4 {
		n, err := DecodeRecord(raw, &s)
		require.NoError(t, err)
		require.Equal(t, got[i], s)
		raw = raw[n:]
	}
	require.Empty(t, raw)
}

const exampleRecord = "51000000" + "08888008" + "108ff49ce2caa4f9a719" + "1854" + "208edae4b20d" + "2880b29be20c" +
	"320831302e312e322e33" + "38818080808090db9166" + "40808001" + "4899848db801" + "50c0a233" + "58f8acd19101" +
	"6082808008" + "6800" + "78ffff8fc801"

func exampleShare(t testing.TB) share.Share {
	var s share.Share
	b, err := hex.DecodeString(exampleRecord)
	require.NoError(t, err)
	n, err := DecodeRecord(b, &s)
	require.NoError(t, err)
	require.Equal(t, 85, n)
	return s
}

func TestMembersOfTheWorkedExample(t *testing.T) {
	s := exampleShare(t)
	require.Equal(t, int64(1713597568), s.Time.Unix())
	for _, level := range []int{0, -1, 1, 6, 9, NoCompression} {
		d := openTestDir(t, t.TempDir(), DirOptions{Level: level})
		require.NoError(t, d.Append(t.Context(), []share.Share{s}))
		one, err := os.ReadFile(filepath.Join(d.path, "sharelog-2024-04-20.bin"))
		require.NoError(t, err)
		require.True(t, isMemberStart(one), "salvage must find it: % x", one[:10])
		if level == 6 {
			require.Equal(t, "1f8b08000000000000ff", hex.EncodeToString(one[:10]))
		}
		require.Equal(t, "eeeb83f055000000", hex.EncodeToString(one[len(one)-8:]), "checksum and length 85")
		require.NoError(t, d.Append(t.Context(), []share.Share{s}))
		two, err := os.ReadFile(d.Path(day0))
		require.NoError(t, err)
		require.Equal(t, append(slices.Clone(one), one...), two)
		got, damage, end := readAll(t, d, Position{}, day0)
		require.Empty(t, damage)
		require.Equal(t, []share.Share{s, s}, got)
		require.Equal(t, int64(len(two)), end.Offset)
	}
}

func TestDecodeRecord(t *testing.T) {
	good, err := hex.DecodeString(exampleRecord)
	require.NoError(t, err)
	bad := slices.Clone(good)
	bad[4] = 0xff
	for _, tt := range []struct {
		name string
		b    []byte
		n    int
		err  error
	}{
		{"whole", good, 85, nil},
		{"with more behind it", append(slices.Clone(good), 1, 2, 3), 85, nil},
		{"nothing", nil, 0, ErrTruncated},
		{"half a length", good[:3], 0, ErrTruncated},
		{"all but a byte", good[:84], 0, ErrTruncated},
		{"length 0", make([]byte, 10), 0, ErrCorrupt},
		{"length of 65537", append([]byte{1, 0, 1, 0}, make([]byte, 70000)...), 0, ErrCorrupt},
		{"format V2", []byte{3, 0, 1, 0, 0xf8, 0x8a}, 0, ErrCorrupt},
		{"not a record", bad, 85, ErrCorrupt},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var s share.Share
			n, err := DecodeRecord(tt.b, &s)
			require.Equal(t, tt.n, n)
			require.ErrorIs(t, err, tt.err)
		})
	}
	dst, err := AppendRecord([]byte("x"), &share.Share{})
	require.ErrorIs(t, err, share.ErrInvalid)
	require.Equal(t, "x", string(dst))
}

// A file that ends anywhere within its last member reads as far as the member before, and can be written on.
func TestTornAtEveryByteOfTheLastMember(t *testing.T) {
	first, last := mks(day0, 0, 40), mks(day0, 40, 45)
	for _, level := range []int{1, NoCompression} {
		whole := openTestDir(t, t.TempDir(), DirOptions{Level: level})
		require.NoError(t, whole.Append(t.Context(), first))
		end := size(t, whole)
		require.NoError(t, whole.Append(t.Context(), last))
		all, err := os.ReadFile(whole.Path(day0))
		require.NoError(t, err)

		path := t.TempDir()
		for cut := end; cut <= int64(len(all)); cut++ {
			d := openTestDir(t, path, DirOptions{Level: level})
			writeDay(t, d, day0, all[:cut])
			want, torn := first, cut-end
			if cut == int64(len(all)) {
				want, torn = append(slices.Clone(first), last...), 0
			}
			live, damage, pos := readAll(t, d, Position{}, 0)
			require.Equal(t, want, live)
			require.Empty(t, damage, "the day is not over")
			done, damage, _ := readAll(t, d, Position{}, day0)
			require.Equal(t, want, done)
			if torn > 0 {
				require.Len(t, damage, 1)
				require.ErrorIs(t, damage[0], ErrTruncated)
				require.Equal(t, torn, damage[0].Bytes)
				require.Equal(t, Position{Day: day0, Offset: end}, damage[0].Position)
			} else {
				require.Empty(t, damage)
			}

			more := mks(day0, 50, 53)
			require.NoError(t, d.Append(t.Context(), more))
			require.Equal(t, torn, d.Stats().Cut)
			require.NoError(t, d.Close())
			got, damage, _ := readAll(t, d, Position{}, day0)
			require.Empty(t, damage)
			require.Equal(t, append(slices.Clone(want), more...), got)
			got, _, _ = readAll(t, d, pos, 0)
			require.Equal(t, more, got, "whoever had read up to the cut goes on behind it")
			if torn > 0 {
				aside := fmt.Sprintf("%s.cut-%d", d.Path(day0), end)
				kept, err := os.ReadFile(aside)
				require.NoError(t, err)
				require.Equal(t, all[end:cut], kept)
				require.NoError(t, os.Remove(aside))
			}
		}
	}
}

func size(t testing.TB, d *Dir) int64 {
	info, err := os.Stat(d.Path(day0))
	require.NoError(t, err)
	return info.Size()
}

// What a crash of the machine leaves at the end is not always the beginning of a member.
func TestRepairsOtherEnds(t *testing.T) {
	a, b := member(t, mks(day0, 0, 30)...), member(t, mks(day0, 30, 60)...)
	broken := slices.Clone(b)
	copy(broken[len(broken)/2:], make([]byte, 20))
	for _, tt := range []struct {
		name  string
		file  [][]byte
		sound int
	}{
		{"empty file", nil, 0},
		{"first member torn", [][]byte{a[:50]}, 0},
		{"a single byte", [][]byte{a[:1]}, 0},
		{"zeros", [][]byte{a, make([]byte, 5000)}, len(a)},
		{"last member partly zero", [][]byte{a, broken}, len(a)},
		{"torn member between sound ones", [][]byte{a[:50], b}, 50 + len(b)},
		{"torn, sound, torn", [][]byte{a[:50], b, a[:70]}, 50 + len(b)},
		{"empty members at the end", [][]byte{a, gz(t, nil), gz(t, nil)}, len(a) + 2*len(gz(t, nil))},
		{"member with a name and a time, made by hand", [][]byte{a, named(t, mks(day0, 30, 60)...)},
			len(a) + len(named(t, mks(day0, 30, 60)...))},
		{"such a one and a torn one", [][]byte{named(t, mks(day0, 30, 60)...), b[:40]}, len(named(t, mks(day0, 30, 60)...))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := openTestDir(t, t.TempDir(), DirOptions{})
			writeDay(t, d, day0, tt.file...)
			file := bytes.Join(tt.file, nil)
			require.NoError(t, d.Append(t.Context(), mks(day0, 90, 91)))
			require.Equal(t, int64(len(file)-tt.sound), d.Stats().Cut)
			now, err := os.ReadFile(d.Path(day0))
			require.NoError(t, err)
			require.Equal(t, file[:tt.sound], now[:tt.sound])
			got, _, _ := readAll(t, d, Position{}, 0)
			require.Equal(t, mk(day0, 90), got[len(got)-1])
		})
	}
}

func named(t testing.TB, shares ...share.Share) []byte {
	var raw []byte
	for i := range shares {
		raw, _ = AppendRecord(raw, &shares[i])
	}
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Name, w.ModTime = "sharelog", time.Unix(1713597568, 0)
	_, err := w.Write(raw)
	require.NoError(t, errors.Join(err, w.Close()))
	return b.Bytes()
}

func TestFindsTheEndOfALargeFile(t *testing.T) {
	// The last mark of a member is further from the end than the first window reaches.
	var raw []byte
	for i := range 60_000 {
		s := mk(day0, i)
		raw, _ = AppendRecord(raw, &s)
	}
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.NoCompression)
	require.NoError(t, err)
	_, err = w.Write(raw)
	require.NoError(t, errors.Join(err, w.Close()))
	first := member(t, mks(day0, 0, 10)...)
	file := slices.Concat(first, b.Bytes())
	require.Greater(t, len(file), 4<<20)
	for _, cut := range []int{0, 1, 100, 3 << 20, b.Len() - 1} {
		want := len(first)
		if cut == 0 {
			want = len(file)
		}
		end, err := soundEnd(bytes.NewReader(file[:len(file)-cut]), int64(len(file)-cut))
		require.NoError(t, err)
		require.Equal(t, int64(want), end, cut)
	}
}

func TestRefusesToAppendToOtherFormats(t *testing.T) {
	v1, _ := hex.DecodeString("01000000806c2366f862dca96d0d58f30a0102032a0000000040000000000000806c2366194203170100000000000000")
	for name, content := range map[string][]byte{
		"fixed records, plain":           v1,
		"fixed records of 80 bytes, gz":  gz(t, append([]byte{3, 0, 1, 0}, make([]byte, 76)...)),
		"text":                           []byte("hello, operator\n"),
		"something else in gzip members": gz(t, make([]byte, 100)),
	} {
		t.Run(name, func(t *testing.T) {
			d := openTestDir(t, t.TempDir(), DirOptions{})
			writeDay(t, d, day0, content)
			require.ErrorContains(t, d.Append(t.Context(), mks(day0, 0, 1)), d.Path(day0))
			now, err := os.ReadFile(d.Path(day0))
			require.NoError(t, err)
			require.Equal(t, content, now)
			got, damage, _ := readAll(t, d, Position{}, day0)
			require.Empty(t, got)
			require.NotEmpty(t, damage)
			require.ErrorIs(t, damage[0], ErrCorrupt)
		})
	}
}

func TestLateShareGoesToItsDayAndTheFourthDayClosesTheOldest(t *testing.T) {
	d := openTestDir(t, t.TempDir(), DirOptions{})
	late := mk(day0, 0)
	late.Time = day0.Start().Add(24*time.Hour - time.Second) // 23:59:59
	early := mk(day0+1, 1)
	early.Time = late.Time.Add(6 * time.Second) // 00:00:05
	require.NoError(t, d.Append(t.Context(), []share.Share{early}))
	require.NoError(t, d.Append(t.Context(), []share.Share{late}))
	got, _, _ := readAll(t, d, Position{Day: day0}, day0)
	require.Equal(t, []share.Share{late}, got)

	open := func() (days []Day) {
		for day := range d.files {
			days = append(days, day)
		}
		slices.Sort(days)
		return days
	}
	require.NoError(t, d.Append(t.Context(), mks(day0+2, 0, 1)))
	require.Equal(t, []Day{day0, day0 + 1, day0 + 2}, open())
	require.NoError(t, d.Append(t.Context(), mks(day0+3, 0, 1)))
	require.Equal(t, []Day{day0 + 1, day0 + 2, day0 + 3}, open())
	require.NoError(t, d.Append(t.Context(), mks(day0, 5, 6)), "a closed day opens again")
	require.Equal(t, []Day{day0 + 1, day0 + 2, day0 + 3}, open(), "and is the oldest once more")
	require.Equal(t, 3, d.Stats().Open)
	got, damage, _ := readAll(t, d, Position{Day: day0}, day0)
	require.Empty(t, damage)
	require.Equal(t, []share.Share{late, mk(day0, 5)}, got)
}

func TestOneWriterAtATime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "made", "on", "the", "way")
	first, err := OpenDir(path, nil)
	require.NoError(t, err)
	_, err = OpenDir(path, nil)
	require.ErrorIs(t, err, ErrLocked)
	require.ErrorContains(t, err, path)
	reader, err := OpenDir(path, &DirOptions{ReadOnly: true})
	require.NoError(t, err, "readers need no lock")
	other := openTestDir(t, path, DirOptions{ChainTag: "BCH"})
	require.NoError(t, first.Append(t.Context(), mks(day0, 0, 2)), "with sync")
	require.NoError(t, other.Append(t.Context(), mks(day0, 5, 6)))
	got, _, _ := readAll(t, reader, Position{}, 0)
	require.Equal(t, mks(day0, 0, 2), got)
	require.NoError(t, first.Close())
	require.NoError(t, first.Close(), "twice does no harm")
	require.ErrorIs(t, first.Append(t.Context(), mks(day0, 2, 3)), ErrClosed)
	second, err := OpenDir(path, nil)
	require.NoError(t, err)
	require.NoError(t, second.Close())
}

func TestOpenDirRefuses(t *testing.T) {
	_, err := OpenDir(t.TempDir(), &DirOptions{ChainTag: "../x", Level: 10, MaxHandles: -1})
	for _, says := range []string{`"../x"`, "level 10", "MaxHandles -1"} {
		require.ErrorContains(t, err, says)
	}
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	_, err = OpenDir(file, nil)
	require.ErrorContains(t, err, file)
	_, err = OpenDir(file, &DirOptions{ReadOnly: true})
	require.ErrorContains(t, err, "not a folder")
	_, err = OpenDir(filepath.Join(t.TempDir(), "none"), &DirOptions{ReadOnly: true})
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// brokenFile fails on command; a write that fails has written half.
type brokenFile struct {
	dayFile
	write, sync, truncate error
}

func (f *brokenFile) Write(p []byte) (int, error) {
	if f.write != nil {
		n, _ := f.dayFile.Write(p[:len(p)/2])
		return n, f.write
	}
	return f.dayFile.Write(p)
}

func (f *brokenFile) Sync() error {
	if f.sync != nil {
		return f.sync
	}
	return f.dayFile.Sync()
}

func (f *brokenFile) Truncate(n int64) error {
	if f.truncate != nil {
		return f.truncate
	}
	return f.dayFile.Truncate(n)
}

func TestFailedWriteIsUndone(t *testing.T) {
	errDisk := errors.New("input/output error")
	for _, tt := range []struct {
		name   string
		broken brokenFile
	}{
		{"write fails halfway", brokenFile{write: errDisk}},
		{"write fails halfway and cannot be undone", brokenFile{write: errDisk, truncate: errDisk}},
		{"sync fails", brokenFile{sync: errDisk}},
		{"sync fails and the write cannot be undone", brokenFile{sync: errDisk, truncate: errDisk}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, err := OpenDir(t.TempDir(), nil)
			require.NoError(t, err)
			defer func() { require.NoError(t, d.Close()) }()
			require.NoError(t, d.Append(t.Context(), mks(day0, 0, 20)))
			good := size(t, d)
			b := tt.broken
			b.dayFile = d.files[day0].f
			d.files[day0].f = &b
			for range 2 { // a second failure, on the file opened anew, does not change that
				require.ErrorIs(t, d.Append(t.Context(), mks(day0, 20, 40)), errDisk)
				if tt.broken.truncate == nil {
					require.Equal(t, good, size(t, d))
				}
				realOpen := d.open
				d.open = func(name string) (dayFile, error) {
					f, err := realOpen(name)
					d.open = realOpen
					return &brokenFile{dayFile: f, write: tt.broken.write, sync: tt.broken.sync}, err
				}
			}
			_ = d.closeDay(day0)
			d.open = func(name string) (dayFile, error) { return os.OpenFile(name, os.O_RDWR|os.O_APPEND, 0) }
			require.NoError(t, d.Append(t.Context(), mks(day0, 20, 40)))
			got, damage, _ := readAll(t, d, Position{}, day0)
			require.Empty(t, damage)
			require.Equal(t, mks(day0, 0, 40), got, "each share once")
			require.GreaterOrEqual(t, d.Stats().Failures, uint64(2))
			require.Zero(t, d.Stats().Cut)
		})
	}
}

func TestPartialFailureNamesTheDaysStored(t *testing.T) {
	d := openTestDir(t, t.TempDir(), DirOptions{})
	require.NoError(t, os.Mkdir(d.Path(day0+1), 0o755)) // nothing can be written there
	batch := []share.Share{mk(day0, 0), mk(day0+1, 1), mk(day0+2, 2), mk(day0, 3), mk(day0+1, 4)}
	err := d.Append(t.Context(), batch)
	var partial *PartialError
	require.ErrorAs(t, err, &partial)
	require.Equal(t, []Day{day0, day0 + 2}, partial.Stored)
	require.ErrorContains(t, err, d.Path(day0+1))
	err = d.Append(t.Context(), batch[1:2])
	require.Error(t, err)
	require.False(t, errors.As(err, &partial), "nothing at all was stored")
	require.NoError(t, os.Remove(d.Path(day0+1)))
}

func TestFileMovedAwayOrWrittenToByOthers(t *testing.T) {
	d := openTestDir(t, t.TempDir(), DirOptions{})
	require.NoError(t, d.Append(t.Context(), mks(day0, 0, 5)))
	require.NoError(t, os.Rename(d.Path(day0), d.Path(day0-7)))
	require.NoError(t, d.Append(t.Context(), mks(day0, 5, 9)))
	got, _, _ := readAll(t, d, Position{Day: day0}, day0)
	require.Equal(t, mks(day0, 5, 9), got)

	f, err := os.OpenFile(d.Path(day0), os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(t, err)
	_, err = f.Write(member(t, mk(day0, 9))[:30])
	require.NoError(t, errors.Join(err, f.Close()))
	require.NoError(t, d.Append(t.Context(), mks(day0, 10, 12)))
	got, damage, _ := readAll(t, d, Position{Day: day0}, day0)
	require.Empty(t, damage)
	require.Equal(t, append(mks(day0, 5, 9), mks(day0, 10, 12)...), got)
	require.Equal(t, int64(30), d.Stats().Cut)
}

func TestLargeBatchesBecomeSeveralMembers(t *testing.T) {
	d := openTestDir(t, t.TempDir(), DirOptions{})
	n := memberRecords + 10
	require.NoError(t, d.Append(t.Context(), mks(day0, 0, n)))
	require.Equal(t, DirStats{Shares: uint64(n), Members: 2, Bytes: uint64(size(t, d)), Open: 1}, d.Stats())
	got, _, _ := readAll(t, d, Position{}, 0)
	require.Equal(t, mks(day0, 0, n), got)
}
