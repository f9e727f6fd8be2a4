package switchertest_test

import (
	"fmt"
	"testing"

	"github.com/poolkit/poolkit/switcher"
	"github.com/poolkit/poolkit/switcher/switchertest"
)

// A backend says how to open it empty and how its operators set what a user mines; the rest is the suite's.
func Example() {
	open := func(t *testing.T) switchertest.Backend {
		m := switcher.NewMemory("a", "b")
		return switchertest.Backend{Directory: m, Set: m.Set}
	}
	passed := testing.RunTests(func(string, string) (bool, error) { return true, nil }, []testing.InternalTest{
		{Name: "TestMemory", F: func(t *testing.T) { switchertest.TestDirectory(t, open) }},
	})
	fmt.Println(passed)
	// Output: true
}
