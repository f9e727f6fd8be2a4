package share

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"strings"
)

// DefaultWorker is the name of a machine that gave none.
const DefaultWorker = "__default__"

// MaxWorkerName is how many bytes of a machine's name are kept, as in BTCPool.
const MaxWorkerName = 20

// MaxUserName is how many bytes a user name may have. Addresses of every type fit.
const MaxUserName = 128

// A Worker is one machine of one user, named as the pool's records name it.
type Worker struct {
	User string // account; what shares are credited to
	Name string // machine
}

// ErrNoUser is returned for a worker name without a user, or with one that is too long.
var ErrNoUser = errors.New("share: no usable user name")

// ParseWorker splits what a miner authorizes as, "user.machine", at the first dot. Bytes other than letters, digits
// and "-._:|^/" are dropped from both parts, a machine name is cut to [MaxWorkerName] bytes, and one that is empty
// becomes [DefaultWorker]. The case of the user name is kept; pools that ignore it fold it themselves.
func ParseWorker(full string) (Worker, error) {
	user, name, _ := strings.Cut(full, ".")
	w := Worker{User: FilterName(user), Name: FilterName(name)}
	if w.User == "" || len(w.User) > MaxUserName {
		return Worker{}, ErrNoUser
	}
	if len(w.Name) > MaxWorkerName {
		w.Name = w.Name[:MaxWorkerName]
	}
	if w.Name == "" {
		w.Name = DefaultWorker
	}
	return w, nil
}

// FilterName drops the bytes that names in records, URLs and SQL must not hold, and keeps letters, digits and
// "-._:|^/".
func FilterName(s string) string {
	ok := func(c byte) bool {
		return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._:|^/", c) >= 0
	}
	for i := 0; i < len(s); i++ {
		if !ok(s[i]) {
			b := append(make([]byte, 0, len(s)), s[:i]...)
			for ; i < len(s); i++ {
				if ok(s[i]) {
					b = append(b, s[i])
				}
			}
			return string(b)
		}
	}
	return s
}

// String returns "user.machine".
func (w Worker) String() string { return w.User + "." + w.Name }

// ID returns the machine's number in records: the last 8 bytes of the SHA-256d of its name, read little-endian, with 0
// replaced by 1. The user is not part of it.
func (w Worker) ID() int64 {
	first := sha256.Sum256([]byte(w.Name))
	second := sha256.Sum256(first[:])
	if id := int64(binary.LittleEndian.Uint64(second[24:])); id != 0 {
		return id
	}
	return 1
}
