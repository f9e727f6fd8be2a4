package sv1

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

func TestNextLine(t *testing.T) {
	for _, tt := range []struct {
		name, buf string
		line      string
		n         int
	}{
		{"nothing", "", "", 0},
		{"no end yet", `{"id":1}`, "", 0},
		{"a CR and no end yet", "{}\r", "", 0},
		{"one line", "{}\n", "{}", 3},
		{"CR LF", "{}\r\n", "{}", 4},
		{"two CRs", "{}\r\r\n", "{}\r", 5},
		{"a CR inside", "{\r}\n", "{\r}", 4},
		{"the first of two", "{}\n[]\n", "{}", 3},
		{"empty line", "\n{}\n", "", 1},
		{"empty line with a CR", "\r\n{}\n", "", 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			line, n := NextLine([]byte(tt.buf))
			require.Equal(t, tt.line, string(line))
			require.Equal(t, tt.n, n)
			require.Equal(t, len(line), cap(line), "an append would write over the buffer")
		})
	}
}

func readAll(r *Reader) (lines []string, err error) {
	for {
		line, err := r.ReadLine()
		if err != nil {
			return lines, err
		}
		lines = append(lines, string(line))
	}
}

func TestReader(t *testing.T) {
	long := strings.Repeat("x", 5000)
	for _, tt := range []struct {
		name, input string
		max         int
		lines       []string
		err         error
	}{
		{"nothing", "", 10, nil, io.EOF},
		{"lines", "a\nbc\r\n\n\r\nd\n", 10, []string{"a", "bc", "d"}, io.EOF},
		{"a line cut off", "a\nbc", 10, []string{"a"}, io.ErrUnexpectedEOF},
		{"a line at the limit", "0123456789\n0123456789\r\n", 10, []string{"0123456789", "0123456789"}, io.EOF},
		{"a line above the limit", "a\n0123456789a\nb\n", 10, []string{"a"}, ErrLineTooLong},
		{"a line above the limit, CR LF", "0123456789a\r\n", 10, nil, ErrLineTooLong},
		{"a line above the limit that never ends", long, 10, nil, ErrLineTooLong},
		{"long lines", long + "\n" + long + "y\n" + long + "\n", 0, []string{long, long + "y", long}, io.EOF},
		{"the default limit", strings.Repeat("x", DefaultMaxLine+1) + "\n", 0, nil, ErrLineTooLong},
		{"no limit to speak of", long + "\n", 1<<63 - 1, []string{long}, io.EOF},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for name, src := range map[string]io.Reader{
				"whole":      strings.NewReader(tt.input),
				"by byte":    iotest.OneByteReader(strings.NewReader(tt.input)),
				"by half":    iotest.HalfReader(strings.NewReader(tt.input)),
				"with error": iotest.DataErrReader(strings.NewReader(tt.input)),
			} {
				r := NewReader(src, tt.max)
				lines, err := readAll(r)
				require.Equal(t, tt.lines, lines, name)
				require.Equal(t, tt.err, err, name)
				if len(tt.lines) > 0 && tt.max > 0 && tt.max < 1000 {
					require.LessOrEqual(t, len(r.buf), tt.max+2, name)
				}
				_, again := r.ReadLine()
				require.Equal(t, tt.err, again, "%s, asked again", name)
			}
		})
	}
}

func TestReaderGoesOnAfterATimeout(t *testing.T) {
	r := NewReader(iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("ab\nc\n"))), 10)
	_, err := r.ReadLine()
	require.ErrorIs(t, err, iotest.ErrTimeout)
	lines, err := readAll(r)
	require.Equal(t, []string{"ab", "c"}, lines)
	require.Equal(t, io.EOF, err)
}

func TestReaderReturnsOtherErrors(t *testing.T) {
	_, err := NewReader(iotest.ErrReader(os.ErrClosed), 10).ReadLine()
	require.ErrorIs(t, err, os.ErrClosed)
	_, err = NewReader(readerFunc(func([]byte) (int, error) { return 0, nil }), 10).ReadLine()
	require.ErrorIs(t, err, io.ErrNoProgress)
	_, err = NewReader(readerFunc(func(b []byte) (int, error) { return len(b) + 1, nil }), 10).ReadLine()
	require.Error(t, err)
	require.False(t, errors.Is(err, io.EOF))
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

func TestReaderReusesItsBuffer(t *testing.T) {
	lines := strings.Repeat(string(submitLine)+"\n", 200)
	src := strings.NewReader(lines)
	r := NewReader(src, 0)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := r.ReadLine(); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("ReadLine allocates %v times, want 0", n)
	}
}
