package poolkit_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The pool in the README is the one in examples/solo, which compiles.
func TestReadmeShowsTheSoloPoolAsItIs(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	source, err := os.ReadFile("examples/solo/main.go")
	require.NoError(t, err)

	_, shown, ok := strings.Cut(string(readme), "```go\n")
	require.True(t, ok)
	shown, _, ok = strings.Cut(shown, "```")
	require.True(t, ok)
	require.Contains(t, string(source), shown)
	require.LessOrEqual(t, strings.Count(shown, "\n"), 30, "the README says thirty lines")
}

// Names in the README's tables exist in the source.
func TestReadmeNamesWhatExists(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	for _, place := range []struct{ file, has string }{
		{"job/builder.go", "func (b *Builder) Build("},
		{"stratum/submit.go", "func (s *Session) judge("},
		{"share/validator.go", "func (v *Validator) Validate("},
		{"stratum/submit.go", "func (s *Session) settle("},
		{"block/assemble.go", "func Assemble("},
		{"examples/fullpool/pool.go", "func open("},
	} {
		source, err := os.ReadFile(place.file)
		require.NoError(t, err)
		require.Contains(t, string(source), place.has)
		require.Contains(t, string(readme), place.file)
	}
}
