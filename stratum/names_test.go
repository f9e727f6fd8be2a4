package stratum_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum"
	"github.com/stretchr/testify/require"
)

func TestNameRules(t *testing.T) {
	strip := stratum.NameRules{StripSuffix: true}
	for _, c := range []struct {
		name  string
		rules stratum.NameRules
		in    string
		want  string
	}{
		{"case is folded", stratum.NameRules{}, "AbC-1", "abc-1"},
		{"case is kept", stratum.NameRules{KeepCase: true}, "AbC-1", "AbC-1"},
		{"only letters of names are folded", stratum.NameRules{}, "@[`{\u212aÀ", "@[`{\u212aÀ"},
		{"a suffix stays", stratum.NameRules{}, "aaa_bbb", "aaa_bbb"},
		{"a separator alone cuts nothing", stratum.NameRules{SuffixSeparator: "_"}, "aaa_bbb", "aaa_bbb"},
		{"the last suffix is cut", strip, "aaa_bbb_ccc", "aaa_bbb"},
		{"cutting and folding", strip, "AAA_BBB", "aaa"},
		{"cutting without folding", stratum.NameRules{KeepCase: true, StripSuffix: true}, "AAA_BBB", "AAA"},
		{"an empty suffix is cut", strip, "aaa_", "aaa"},
		{"nothing is left", strip, "_aaa", ""},
		{"no suffix", strip, "aaa", "aaa"},
		{"no name", strip, "", ""},
		{"another separator", stratum.NameRules{StripSuffix: true, SuffixSeparator: "-"}, "aaa_b-c-d", "aaa_b-c"},
		{"a separator of several bytes", stratum.NameRules{StripSuffix: true, SuffixSeparator: "::"}, "aaa:b::c", "aaa:b"},
		{"a separator with a letter is folded as names are", stratum.NameRules{StripSuffix: true, SuffixSeparator: "X"}, "aaaXb", "aaa"},
		{"a separator with a letter and case kept", stratum.NameRules{KeepCase: true, StripSuffix: true, SuffixSeparator: "X"}, "axaXb", "axa"},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, c.rules.User(c.in)) })
	}
}

// The rows are those of BTCPool's own table of names, and what goes wrong.
func TestNameRulesSplitWorkers(t *testing.T) {
	strip := stratum.NameRules{StripSuffix: true}
	for _, c := range []struct {
		name, full string
		rules      stratum.NameRules
		want       share.Worker
	}{
		{"dots in the machine", "abcd.123.456", stratum.NameRules{}, share.Worker{User: "abcd", Name: "123.456"}},
		{"no machine", "abcdefg", stratum.NameRules{}, share.Worker{User: "abcdefg", Name: "__default__"}},
		{"bytes that are dropped", `abcdefg.~!@#$%^&*()+={}|[]\<>?,./`, stratum.NameRules{}, share.Worker{User: "abcdefg", Name: "^|./"}},
		{"only the user is folded", "Alice.Rig", stratum.NameRules{}, share.Worker{User: "alice", Name: "Rig"}},
		{"only the user is cut", "aaa_bch.rig_1", strip, share.Worker{User: "aaa", Name: "rig_1"}},
		{"a dropped byte before the suffix", "aaa!_bch.r", strip, share.Worker{User: "aaa", Name: "r"}},
		{"nothing is left of the user", "_bch.rig", strip, share.Worker{}},
		{"no user", ".rig", stratum.NameRules{}, share.Worker{}},
		{"a user that is too long", strings.Repeat("a", 129), stratum.NameRules{}, share.Worker{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, err := c.rules.Worker(c.full)
			require.Equal(t, c.want, w)
			if c.want == (share.Worker{}) {
				require.ErrorIs(t, err, share.ErrNoUser)
			} else {
				require.NoError(t, err)
			}
		})
	}
}

func FuzzNameRules(f *testing.F) {
	f.Add("aaa_bbb_ccc.rig", "_", false, true)
	f.Add("Alice\x00.x", "", true, false)
	f.Fuzz(func(t *testing.T, full, sep string, keep, strip bool) {
		r := stratum.NameRules{KeepCase: keep, StripSuffix: strip, SuffixSeparator: sep}
		w, err := r.Worker(full)
		if err != nil {
			require.Zero(t, w)
			return
		}
		require.NotEmpty(t, w.User)
		require.Equal(t, share.FilterName(w.User), w.User)
		if !keep {
			require.Equal(t, strings.ToLower(w.User), w.User)
			again, err := r.Worker(strings.ToUpper(full[:strings.IndexByte(full+".", '.')]) + ".rig")
			if share.FilterName(full) == full { // ToUpper makes letters of names from others
				require.NoError(t, err)
				require.Equal(t, w.User, again.User, "every spelling is the same user")
			}
		}
		require.Equal(t, w.User, stratum.NameRules{KeepCase: keep}.User(w.User), "what is folded stays as it is")
	})
}

func ExampleNameRules() {
	rules := stratum.NameRules{StripSuffix: true}
	w, err := rules.Worker("Alice_bch.Rig01")
	fmt.Println(w.User, w.Name, err)
	// Output: alice Rig01 <nil>
}
