package stratum_test

import (
	"path/filepath"
	"testing"

	"github.com/poolkit/poolkit/stratum"
	"github.com/poolkit/poolkit/stratum/admissiontest"
	"github.com/stretchr/testify/require"
)

func TestUsersKeepThePromisesOfAnAuthorizer(t *testing.T) {
	// Opening again within a subtest finds what the first left behind.
	path := make(map[string]string)
	open := func(t *testing.T) stratum.Authorizer {
		if path[t.Name()] == "" {
			path[t.Name()] = filepath.Join(t.TempDir(), "users")
		}
		u, err := stratum.OpenUsers(path[t.Name()])
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, u.Close()) })
		return u
	}
	admissiontest.TestAuthorizer(t, open, open, "no/\x00/name")
}

func TestPrefixesKeepThePromisesOfExtranonces(t *testing.T) {
	admissiontest.TestExtranonces(t, func(*testing.T) stratum.Extranonces { return stratum.NewPrefixes(3, 0) })
}
