package sharelog

import (
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestDiskFull lets the kernel refuse to let the file grow, halfway through a write, as a full disk does.
func TestDiskFull(t *testing.T) {
	d := openTestDir(t, t.TempDir(), DirOptions{})
	require.NoError(t, d.Append(t.Context(), mks(day0, 0, 100)))
	good := size(t, d)

	var old syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old))
	limit := old
	limit.Cur = uint64(good) + 50
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit))
	err := d.Append(t.Context(), mks(day0, 100, 200))
	n := size(t, d)
	again := d.Append(t.Context(), mks(day0, 100, 200))
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old))

	require.ErrorIs(t, err, syscall.EFBIG)
	require.ErrorIs(t, again, syscall.EFBIG)
	require.Equal(t, good, n, "the half that fitted is gone")
	require.NoError(t, d.Append(t.Context(), mks(day0, 100, 200)))
	got, damage, _ := readAll(t, d, Position{}, day0)
	require.Empty(t, damage)
	require.Equal(t, mks(day0, 0, 200), got)
}

// TestReadOnlyFolder takes from this thread the right to write, which root has everywhere.
func TestReadOnlyFolder(t *testing.T) {
	path := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(path), 0o755)) // the test's own
	if os.Geteuid() == 0 {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		const nobody = 65534
		_, _, errno := syscall.RawSyscall(syscall.SYS_SETFSUID, nobody, 0, 0)
		require.Zero(t, errno)
		defer syscall.RawSyscall(syscall.SYS_SETFSUID, 0, 0, 0)
	} else {
		require.NoError(t, os.Chmod(path, 0o555))
		defer os.Chmod(path, 0o755)
	}
	_, err := OpenDir(path, nil)
	require.ErrorIs(t, err, os.ErrPermission)
	require.ErrorContains(t, err, path)
	_, err = OpenDir(path+"/new", nil)
	require.ErrorIs(t, err, os.ErrPermission)
	d, err := OpenDir(path, &DirOptions{ReadOnly: true})
	require.NoError(t, err)
	days, err := d.Days()
	require.NoError(t, err)
	require.Empty(t, days)
}
