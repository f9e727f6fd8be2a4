package stratum

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Whatever a file holds is read without an error, and what was understood of it is written as something that is
// understood.
func FuzzReadDifficulties(f *testing.F) {
	line := `{"user":"alice","worker":"rig","at":"2026-01-01T00:00:00Z","difficulty":64,"hashrate":1e12,"shares":2.5}` + "\n"
	for _, seed := range []string{
		"", line, line + line, strings.TrimSpace(line), line[:40], strings.Repeat("x", 3000) + "\n" + line,
		`{"user":"a","worker":"","at":"9999-12-31T23:59:59.999999999Z","difficulty":5e-324}`,
		`{"user":"a","worker":"b","at":"0001-01-01T00:00:00+23:59","difficulty":1.7976931348623157e308,"hashrate":1e999}`,
		"null\n[]\n{}\n\x00",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "d")
		d, err := OpenDifficulties(path, nil)
		require.NoError(t, err)
		bad, err := d.read(bytes.NewReader(data))
		require.NoError(t, err)
		require.LessOrEqual(t, bad+d.Len(), bytes.Count(data, []byte{'\n'})+1)
		require.NoError(t, d.write())
		if d.Len() == 0 {
			return
		}
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		again, err := OpenDifficulties(path, nil)
		require.NoError(t, err)
		require.Equal(t, d.Len(), again.Len(), "%s", text)
		kept, _ := d.all()
		for _, k := range kept {
			s, ok := again.Load(k.worker)
			require.True(t, ok)
			require.True(t, s.At.Equal(k.state.At))
			s.At = k.state.At
			require.Equal(t, k.state, s)
		}
	})
}
