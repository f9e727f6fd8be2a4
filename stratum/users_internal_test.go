package stratum

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/poolkit/poolkit/share"
	"github.com/stretchr/testify/require"
)

// A number that could not be written is not given out, and leaves nothing behind that a later line could run into.
func TestANumberThatIsNotKeptIsNotGiven(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	u, err := OpenUsers(path)
	require.NoError(t, err)
	_, err = u.Authorize(t.Context(), share.Worker{User: "alice"}, "")
	require.NoError(t, err)

	whole := u.file
	u.file, err = os.Open(path) // for reading only
	require.NoError(t, err)
	_, err = u.Authorize(t.Context(), share.Worker{User: "bob"}, "")
	require.Error(t, err)
	require.NotErrorIs(t, err, ErrUnknownUser, "the miner may come back")
	require.NoError(t, u.file.Close())

	u.file = whole
	_, err = whole.WriteString("2 bo") // a write that the disk cut short
	require.NoError(t, err)
	require.NoError(t, whole.Truncate(u.end))
	id, err := u.Authorize(t.Context(), share.Worker{User: "bob"}, "")
	require.NoError(t, err)
	require.Equal(t, int32(2), id)
	require.NoError(t, u.Close())
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "1 alice\n2 bob\n", string(text))
}

func FuzzUsersFile(f *testing.F) {
	for _, seed := range []string{"", "1 alice\n", "1 alice\n2 bob\n3 ca", "0 x\n", "1 a\n1 b\n", "2147483647 max\n", "x\n", "1 a b\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		path := filepath.Join(t.TempDir(), "users")
		require.NoError(t, os.WriteFile(path, content, 0o600))
		u, err := OpenUsers(path)
		if err != nil {
			return
		}
		seen := make(map[int32]bool)
		for name, id := range u.ids {
			require.NotEmpty(t, name)
			require.Positive(t, id)
			require.False(t, seen[id], "two users with number %d", id)
			seen[id] = true
		}
		full := u.last == math.MaxInt32
		id, err := u.Authorize(t.Context(), share.Worker{User: "newcomer"}, "")
		if full {
			require.Error(t, err)
			require.NoError(t, u.Close())
			return
		}
		require.NoError(t, err)
		_, known := u.ids["newcomer"]
		require.True(t, known && id > 0)
		require.NoError(t, u.Close())
		again, err := OpenUsers(path)
		require.NoError(t, err)
		require.Equal(t, u.ids, again.ids)
		require.NoError(t, again.Close())
	})
}
