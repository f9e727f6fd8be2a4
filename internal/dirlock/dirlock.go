// Package dirlock keeps two processes out of one folder.
package dirlock

import "errors"

// ErrLocked is returned when somebody else holds the lock.
var ErrLocked = errors.New("in use by another process")
