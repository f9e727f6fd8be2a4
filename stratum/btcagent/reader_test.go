package btcagent

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

// readAll returns what a Reader makes of a stream, lines as they are and frames in hex, and how it ended.
func readAll(r *Reader) (messages []string, err error) {
	for {
		line, f, err := r.Read()
		if err != nil {
			return messages, err
		}
		if line != nil {
			messages = append(messages, string(line))
			continue
		}
		b, err := AppendFrame(nil, f.Command, f.Body)
		if err != nil {
			return messages, err
		}
		messages = append(messages, string(b))
	}
}

// mixed is all golden frames between lines, one of them with frame bytes inside.
func mixed(t testing.TB) (stream []byte, messages []string) {
	for i, tt := range golden {
		b := unhex(t, tt.frame)
		stream, messages = append(stream, b...), append(messages, string(b))
		switch i % 3 {
		case 0:
			stream, messages = append(stream, "{\"id\":\"\x7f\x04\x06\"}\n"...), append(messages, "{\"id\":\"\x7f\x04\x06\"}")
		case 1:
			stream, messages = append(stream, "\n\r\n{}\r\n"...), append(messages, "{}")
		}
	}
	return stream, messages
}

func TestReaderMixesLinesAndFrames(t *testing.T) {
	stream, want := mixed(t)
	for i := range len(stream) + 1 {
		got, err := readAll(NewReader(io.MultiReader(bytes.NewReader(stream[:i]), bytes.NewReader(stream[i:])), 0))
		require.ErrorIs(t, err, io.EOF)
		require.Equal(t, want, got, "split at %d", i)
	}
	got, err := readAll(NewReader(iotest.OneByteReader(bytes.NewReader(stream)), 0))
	require.ErrorIs(t, err, io.EOF)
	require.Equal(t, want, got)
	got, err = readAll(NewReader(iotest.DataErrReader(bytes.NewReader(stream)), 0))
	require.ErrorIs(t, err, io.EOF)
	require.Equal(t, want, got)
}

func TestReaderEnds(t *testing.T) {
	for _, tt := range []struct {
		name, stream string
		messages     int
		err          error
	}{
		{"in a frame", "{}\n\x7f\x04\x06\x00\x22", 1, io.ErrUnexpectedEOF},
		{"in a line", "\x7f\x99\x04\x00{}", 1, io.ErrUnexpectedEOF},
		{"with a frame that cannot be", "{}\n\x7f\x04\x03\x00{}\n", 1, ErrLength},
		{"with a line too long, whole", "{}\n" + strings.Repeat("x", 101) + "\n{}\n", 1, ErrLineTooLong},
		{"with a line too long, unfinished", "{}\n" + strings.Repeat("x", 1000), 1, ErrLineTooLong},
		{"after a line just short enough", strings.Repeat("x", 100) + "\r\n", 1, io.EOF},
		{"after the largest frame", "{}\n\x7f\x99\xff\xff" + strings.Repeat("x", MaxBody) + "{}\n", 3, io.EOF},
		{"after one that is empty", "\x7f\x99\x04\x00", 1, io.EOF},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, src := range []io.Reader{strings.NewReader(tt.stream), iotest.OneByteReader(strings.NewReader(tt.stream))} {
				r := NewReader(src, 100)
				messages, err := readAll(r)
				require.ErrorIs(t, err, tt.err)
				require.Len(t, messages, tt.messages)
				_, _, err = r.Read()
				require.ErrorIs(t, err, tt.err, "later calls fail in the same way")
				require.LessOrEqual(t, len(r.buf), MaxFrame)
			}
		})
	}
}

// A deadline in the middle of a message costs nothing.
func TestReaderGoesOnAfterAnError(t *testing.T) {
	stream, want := mixed(t)
	r := NewReader(&faulty{stream: stream}, 0)
	var got []string
	for faults := 0; ; faults++ {
		messages, err := readAll(r)
		got = append(got, messages...)
		if errors.Is(err, io.EOF) {
			require.Equal(t, len(stream), faults)
			break
		}
		require.ErrorIs(t, err, iotest.ErrTimeout)
	}
	require.Equal(t, want, got)

	_, _, err := NewReader(iotest.ErrReader(iotest.ErrTimeout), 0).Read()
	require.EqualError(t, err, "btcagent: read: timeout")
	_, _, err = NewReader(lying{}, 0).Read()
	require.ErrorContains(t, err, "count of -1")
	_, _, err = NewReader(silent{}, 0).Read()
	require.ErrorIs(t, err, io.ErrNoProgress)
}

// faulty fails before every byte.
type faulty struct {
	stream []byte
	failed bool
}

func (f *faulty) Read(b []byte) (int, error) {
	if len(f.stream) == 0 {
		return 0, io.EOF
	}
	if f.failed = !f.failed; f.failed {
		return 0, iotest.ErrTimeout
	}
	n := copy(b[:1], f.stream)
	f.stream = f.stream[n:]
	return n, nil
}

type lying struct{}

func (lying) Read([]byte) (int, error) { return -1, nil }

type silent struct{}

func (silent) Read([]byte) (int, error) { return 0, nil }
