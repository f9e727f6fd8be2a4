package stratum

import (
	"strings"

	"github.com/poolkit/poolkit/share"
)

// NameRules say which spellings of a user name are the same user. They are BTCPool's case_insensitive,
// strip_user_suffix and user_suffix_separator. The zero value folds case and strips nothing, as BTCPool does by default.
// Whatever knows users by name, such as a list, must be under the same rules as the server.
type NameRules struct {
	// KeepCase tells "Alice" from "alice". Pools whose users are base58 addresses need it.
	KeepCase bool

	// StripSuffix cuts a name at its last separator: of "alice_bch" it leaves "alice", which lets a user name the chain
	// it mines, and of "aaa_bbb_ccc" it leaves "aaa_bbb".
	StripSuffix bool

	// SuffixSeparator is what StripSuffix cuts at; "" means "_". One with bytes that [share.FilterName] drops, or with a
	// dot, which ends the user name, never cuts anything.
	SuffixSeparator string
}

// User returns the name that all spellings of a user share, "" when nothing is left of it. Only A to Z are folded: no
// other letter may turn into one that a name can hold. Cutting a name that was cut before cuts it again, so a name must
// go through User once.
func (r NameRules) User(name string) string {
	sep := r.SuffixSeparator
	if sep == "" {
		sep = "_"
	}
	if !r.KeepCase {
		name, sep = lowerASCII(name), lowerASCII(sep)
	}
	if i := strings.LastIndex(name, sep); r.StripSuffix && i >= 0 {
		name = name[:i]
	}
	return name
}

// Worker splits what a miner authorizes as with [share.ParseWorker] and puts the user name under the rules. The error is
// share.ErrNoUser when no user name is left.
func (r NameRules) Worker(full string) (share.Worker, error) {
	w, err := share.ParseWorker(full)
	if err != nil {
		return share.Worker{}, err
	}
	if w.User = r.User(w.User); w.User == "" {
		return share.Worker{}, share.ErrNoUser
	}
	return w, nil
}

func lowerASCII(s string) string {
	for i := 0; i < len(s); i++ {
		if s[i]-'A' < 26 {
			b := []byte(s)
			for ; i < len(b); i++ {
				if b[i]-'A' < 26 {
					b[i] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}
