package admissiontest_test

import (
	"fmt"
	"testing"

	"github.com/poolkit/poolkit/stratum"
	"github.com/poolkit/poolkit/stratum/admissiontest"
)

// An allocator is checked in a few lines.
func Example() {
	open := func(*testing.T) stratum.Extranonces { return stratum.NewPrefixes(1, 0) }
	passed := testing.RunTests(func(string, string) (bool, error) { return true, nil }, []testing.InternalTest{
		{Name: "TestPrefixes", F: func(t *testing.T) { admissiontest.TestExtranonces(t, open) }},
	})
	fmt.Println(passed)
	// Output: true
}
