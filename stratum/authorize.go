package stratum

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/poolkit/poolkit/share"
)

// An Authorizer lets a worker in, whose name is under the server's [NameRules] already. Authorize returns the user's
// number, which is above 0 and the same for the same user for ever, since shares are credited to it. It returns an error
// that wraps ErrUnknownUser when the user may not mine, which the miner is told with code 29; any other error means that
// nobody can tell: the miner is told of an internal error and may ask again at once. Three failures of either kind end a
// connection that nobody was let in on.
//
// It is called for each mining.authorize, again on one connection too, unless [Limits] refuse that first. Calls may
// overlap. It may take its time, up to [Options.AuthorizeTimeout], when ctx ends: nobody waits but the connection that
// asks. It returns soon after ctx ends.
type Authorizer interface {
	Authorize(ctx context.Context, w share.Worker, password string) (userID int32, err error)
}

// ErrUnknownUser is returned for a user that may not mine.
var ErrUnknownUser = errors.New("stratum: unknown user")

// Users is an Authorizer for open pools: everybody may mine, and a name gets its number when it is first seen. The
// numbers are kept in a file, one line "number name" each, which is only ever appended to, by one process at a time. A
// number is on disk before anything is credited to it. How many names strangers make up is bounded by how often [Limits]
// let them connect, and by nothing else.
type Users struct {
	mu   sync.RWMutex
	ids  map[string]int32
	last int32
	file *os.File // nil keeps nothing
	end  int64    // of the complete lines
}

// OpenUsers reads the numbers given so far from the file at path, which is created when it is missing. With an empty
// path the numbers last as long as the process.
func OpenUsers(path string) (*Users, error) {
	u := &Users{ids: make(map[string]int32)}
	if path == "" {
		return u, nil
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("stratum: open users: %w", err)
	}
	if err := u.load(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("stratum: open users %s: %w", path, err)
	}
	u.file = f
	return u, nil
}

func (u *Users) load(f *os.File) error {
	r := bufio.NewReader(f)
	taken := make(map[int32]bool)
	for n := 1; ; n++ {
		line, err := r.ReadString('\n')
		if errors.Is(err, io.EOF) {
			// A line without an end was being written when the process was killed; nobody has seen its number.
			if line != "" {
				return f.Truncate(u.end)
			}
			return nil
		}
		if err != nil {
			return err
		}
		u.end += int64(len(line))
		number, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		id, err := strconv.ParseInt(number, 10, 32)
		if !ok || err != nil || id <= 0 || name == "" {
			return fmt.Errorf("line %d is not a number and a name: %q", n, line)
		}
		if _, ok := u.ids[name]; ok {
			return fmt.Errorf("line %d: user %q has a number already", n, name)
		}
		if taken[int32(id)] {
			return fmt.Errorf("line %d: number %d is another user's", n, id)
		}
		taken[int32(id)] = true
		u.ids[name] = int32(id)
		u.last = max(u.last, int32(id))
	}
}

// Authorize implements [Authorizer]. It accepts any password.
func (u *Users) Authorize(_ context.Context, w share.Worker, _ string) (int32, error) {
	u.mu.RLock()
	id, ok := u.ids[w.User]
	u.mu.RUnlock()
	if ok {
		return id, nil
	}
	if w.User == "" || share.FilterName(w.User) != w.User {
		return 0, fmt.Errorf("%w: %q is not a user name", ErrUnknownUser, w.User)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if id, ok := u.ids[w.User]; ok {
		return id, nil
	}
	if u.last == math.MaxInt32 {
		return 0, fmt.Errorf("stratum: number user %q: all numbers are given", w.User)
	}
	id = u.last + 1
	if u.file != nil {
		if err := u.keep(fmt.Sprintf("%d %s\n", id, w.User)); err != nil {
			return 0, fmt.Errorf("stratum: number user %q: %w", w.User, err)
		}
	}
	u.ids[w.User], u.last = id, id
	return id, nil
}

// keep appends a line, whole or not at all. The lock is held.
func (u *Users) keep(line string) error {
	_, err := u.file.WriteString(line)
	if err == nil {
		err = u.file.Sync()
	}
	if err != nil {
		return errors.Join(err, u.file.Truncate(u.end))
	}
	u.end += int64(len(line))
	return nil
}

// Names calls yield with every user and its number until it returns false, in no order.
func (u *Users) Names(yield func(name string, userID int32) bool) {
	u.mu.RLock()
	defer u.mu.RUnlock()
	for name, id := range u.ids {
		if !yield(name, id) {
			return
		}
	}
}

// Close closes the file. Users that are new afterwards are refused.
func (u *Users) Close() error {
	if u.file == nil {
		return nil
	}
	return u.file.Close()
}
