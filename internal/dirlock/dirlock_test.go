package dirlock_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/poolkit/poolkit/internal/dirlock"
	"github.com/stretchr/testify/require"
)

func TestTheSecondHolderIsRefusedUntilTheFirstLetsGo(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	first, err := dirlock.Lock(name)
	require.NoError(t, err)
	_, err = dirlock.Lock(name)
	require.ErrorIs(t, err, dirlock.ErrLocked)
	require.NoError(t, first.Close())
	second, err := dirlock.Lock(name)
	require.NoError(t, err)
	require.NoError(t, second.Close())
}

func TestAMissingFolderIsAnError(t *testing.T) {
	_, err := dirlock.Lock(filepath.Join(t.TempDir(), "missing", "lock"))
	require.ErrorIs(t, err, os.ErrNotExist)
	require.Error(t, dirlock.SyncDir(filepath.Join(t.TempDir(), "missing")))
}
