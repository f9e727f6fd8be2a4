//go:build !unix

package handover

import (
	"errors"
	"fmt"
	"os"
)

var errNoUnix = fmt.Errorf("passing sockets to another process: %w on this system", errors.ErrUnsupported)

func duplicate(uintptr, string) (*os.File, error) { return nil, errNoUnix }

func openInherited(uintptr) (*os.File, error) { return nil, errNoUnix }

func openPipe(uintptr) (*os.File, error) { return nil, errNoUnix }

func isBrokenPipe(error) bool { return false }
