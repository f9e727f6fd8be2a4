package admissiontest_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/poolkit/poolkit/stratum"
	"github.com/poolkit/poolkit/stratum/admissiontest"
)

// open is all that a suite needs to know of what it checks.
func open(*testing.T) stratum.Extranonces { return stratum.NewPrefixes(1, 0) }

func TestPrefixes(t *testing.T) { admissiontest.TestExtranonces(t, open) }

// The allocator that TestPrefixes checks.
func Example() {
	prefixes := open(nil)
	for range 2 {
		prefix, err := prefixes.Lease(time.Now())
		fmt.Printf("%08x %v\n", prefix, err)
	}
	// Output:
	// 01000000 <nil>
	// 01000001 <nil>
}
