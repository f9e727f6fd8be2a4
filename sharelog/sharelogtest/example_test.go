package sharelogtest_test

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/share/sharetest"
	"github.com/poolkit/poolkit/sharelog"
	"github.com/poolkit/poolkit/sharelog/sharelogtest"
)

// A Flaky stands in for a log whose disk fails.
func ExampleFlaky() {
	folder, err := os.MkdirTemp("", "sharelog")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(folder)
	dir, err := sharelog.OpenDir(folder, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer dir.Close()
	log := sharelogtest.NewFlaky(dir)
	log.FailNext(1, errors.New("no space left"))

	batch := []share.Share{sharetest.Numbered(0)}
	fmt.Println(log.Append(context.Background(), batch))
	fmt.Println(log.Append(context.Background(), batch))
	for s, err := range sharelog.NewReader(log, sharelog.Position{}, 0).All(context.Background()) {
		fmt.Println(s.ID() == batch[0].ID(), err)
	}
	// Output:
	// no space left
	// <nil>
	// true <nil>
}
