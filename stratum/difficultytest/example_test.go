package difficultytest_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum"
	"github.com/poolkit/poolkit/stratum/difficultytest"
)

// open is all that the suite needs to know of what it checks.
func open(*testing.T) difficultytest.Backend {
	return difficultytest.Backend{Store: stratum.NewDifficultyMemory(nil)}
}

func TestDifficultyMemory(t *testing.T) { difficultytest.TestDifficultyStore(t, open) }

// The store that TestDifficultyMemory checks.
func Example() {
	store := open(nil).Store
	rig := share.Worker{User: "alice", Name: "rig"}
	store.Save(rig, difficulty.State{At: time.Now(), Difficulty: 4096})
	s, ok := store.Load(rig)
	fmt.Println(s.Difficulty, ok)
	// Output: 4096 true
}
