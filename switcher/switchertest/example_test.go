package switchertest_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/poolkit/poolkit/switcher"
	"github.com/poolkit/poolkit/switcher/switchertest"
)

// open says how to open a backend empty, and how its operators set what a user mines.
func open(*testing.T) switchertest.Backend {
	m := switcher.NewMemory("a", "b")
	return switchertest.Backend{Directory: m, Set: m.Set}
}

func TestMemory(t *testing.T) { switchertest.TestDirectory(t, open) }

// The backend that TestMemory checks.
func Example() {
	backend := open(nil)
	fmt.Println(backend.Set("alice", "a"))
	fmt.Println(backend.Chain(context.Background(), "alice"))
	// Output:
	// <nil>
	// a <nil>
}
