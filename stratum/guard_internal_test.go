package stratum

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/share"
	"github.com/stretchr/testify/require"
)

func guardWith(t testing.TB, l Limits) *guard {
	t.Helper()
	require.NoError(t, l.complete())
	return newGuard(&l)
}

// A rig is one miner before a guard, with a clock that all rigs of a test share.
type rig struct {
	t      testing.TB
	g      *guard
	now    *int64
	addr   netip.Addr
	worker share.Worker
	sg     sessionGuard
}

func newRig(t testing.TB, g *guard, now *int64, addr, worker string) *rig {
	user, name, _ := strings.Cut(worker, ".")
	return &rig{t: t, g: g, now: now, addr: netip.MustParseAddr(addr), worker: share.Worker{User: user, Name: name}}
}

// enter connects and logs in, or returns why it may not.
func (r *rig) enter() error {
	if refused := r.g.connect(&r.sg, r.addr, *r.now); refused != nil {
		return refused
	}
	if refused := r.g.mayLogin(&r.sg, r.worker, *r.now); refused != nil {
		r.leave()
		return refused
	}
	r.g.loggedIn(&r.sg, r.worker, *r.now)
	return nil
}

func (r *rig) leave() { r.g.disconnect(&r.sg, &r.worker, *r.now) }

// submit sends n submits of which every so many-th is invalid, 100 ms apart, and returns the first penalty.
func (r *rig) submit(n int, invalidPercent int) penalty {
	for i := range n {
		o := outcomeValid
		if i*invalidPercent%100+invalidPercent >= 100 {
			o = outcomeInvalid
		}
		*r.now += int64(100 * time.Millisecond)
		if p := r.g.submit(&r.sg, &r.worker, o, *r.now); p.grade != gradeNone {
			return p
		}
	}
	return penalty{}
}

// banned goes through the grades until the worker or its address is.
func (r *rig) banned() penalty {
	for range 3 {
		require.NoError(r.t, r.enter())
		p := r.submit(1000, 100)
		if p.grade == gradeWarn {
			p = r.submit(1000, 100)
		}
		require.True(r.t, p.closes())
		r.leave()
		if p.grade > gradeDisconnect {
			return p
		}
	}
	r.t.Fatal("never banned")
	return penalty{}
}

const second = int64(time.Second)

func TestTheGradesInTheirOrder(t *testing.T) {
	now := int64(1e15)
	g := guardWith(t, Limits{})
	r := newRig(t, g, &now, "192.0.2.1", "alice.rig")
	require.NoError(t, r.enter())

	p := r.submit(500, 60)
	require.Equal(t, gradeWarn, p.grade)
	require.False(t, p.closes())
	require.Equal(t, "60% of 500 submits were invalid; here are your difficulty and a new job, please start afresh. "+
		"If it goes on, you are disconnected", p.text())

	p = r.submit(500, 80)
	require.Equal(t, gradeDisconnect, p.grade)
	require.True(t, p.closes())
	require.Equal(t, "disconnected: 80% of 500 submits were invalid. You may connect again; if it goes on, "+
		"this worker is banned for 10 minutes", p.text())
	require.ErrorIs(t, p.err(), ErrBanned)
	r.leave()

	require.NoError(t, r.enter(), "a disconnect is no ban")
	p = r.submit(500, 100)
	require.Equal(t, gradeBanWorker, p.grade, "the grade outlives the connection")
	require.Equal(t, 10*time.Minute, p.ban)
	require.Equal(t, "banned for 10 minutes: 100% of 500 submits were invalid, after a warning and a disconnect", p.text())
	r.leave()

	now += 61 * second
	err := r.enter()
	require.ErrorIs(t, err, ErrBanned)
	var refused *refusal
	require.True(t, errors.As(err, &refused))
	require.Equal(t, 28, refused.code)
	require.Equal(t, "banned for 9 more minutes: 100% of 500 submits were invalid", refused.text)
	require.Equal(t, 539*time.Second, refused.left)

	now += 539 * second
	for _, want := range []time.Duration{20 * time.Minute, 40 * time.Minute, time.Hour, time.Hour} {
		require.NoError(t, r.enter(), "the ban is over")
		p = r.submit(500, 100)
		require.Equal(t, gradeBanWorker, p.grade)
		require.Equal(t, want, p.ban)
		r.leave()
		require.Error(t, r.enter())
		now += int64(want)
	}

	now += int64(2 * time.Hour)
	require.NoError(t, r.enter())
	require.Equal(t, gradeWarn, r.submit(500, 100).grade, "everything is forgotten an hour after the ban")
	st := g.counters(now)
	require.Equal(t, []int64{2, 1, 5, 0, 5}, []int64{st.Warned, st.Disconnected, st.WorkerBans, st.AddressBans, st.LoginsBanned})
}

func TestGoodWindowsTakeTheMinerBack(t *testing.T) {
	now := int64(0)
	g := guardWith(t, Limits{})
	r := newRig(t, g, &now, "192.0.2.1", "alice.rig")
	require.NoError(t, r.enter())
	require.Equal(t, gradeWarn, r.submit(500, 100).grade)
	require.False(t, r.sg.good)
	require.Zero(t, r.submit(499, 10))
	require.False(t, r.sg.good, "one good share is not enough after a bad window")
	require.Zero(t, r.submit(1, 0))
	require.True(t, r.sg.good)
	require.Nil(t, r.sg.worker.record, "nothing is left of it")
	require.Equal(t, gradeWarn, r.submit(500, 100).grade, "it begins anew")
	require.Equal(t, gradeDisconnect, r.submit(500, 100).grade)
	r.leave()
	require.NoError(t, r.enter())
	require.Zero(t, r.submit(500, 49))
	require.Equal(t, gradeDisconnect, r.submit(500, 100).grade, "one grade back, not all")
}

func TestWhatMakesAWindowBad(t *testing.T) {
	for _, test := range []struct {
		name           string
		limits         Limits
		submits        int
		every          time.Duration
		invalidPercent int
		want           grade
	}{
		{"half is invalid", Limits{}, 500, 0, 50, gradeWarn},
		{"a little less than half is invalid", Limits{}, 5000, 0, 49, gradeNone},
		{"everything is, but the window is open", Limits{}, 499, 0, 100, gradeNone},
		{"everything is, for almost a minute", Limits{}, 59, time.Second, 100, gradeNone},
		{"everything is, for a minute", Limits{}, 61, time.Second, 100, gradeWarn},
		{"everything is, but there is little of it", Limits{}, 19, time.Minute, 100, gradeNone},
		{"everything is, at last enough of it", Limits{}, 20, time.Minute, 100, gradeWarn},
		{"an operator who wants a tenth", Limits{InvalidPercent: 10}, 500, 0, 11, gradeWarn},
		{"an operator who wants all", Limits{InvalidPercent: 100}, 500, 0, 99, gradeNone},
		{"an operator who wants it short", Limits{WindowSubmits: 20}, 20, 0, 60, gradeWarn},
		{"an operator who wants none of it", Limits{InvalidPercent: -1}, 5000, time.Second, 100, gradeNone},
	} {
		t.Run(test.name, func(t *testing.T) {
			now := int64(5e9)
			r := newRig(t, guardWith(t, test.limits), &now, "2001:db8::1", "alice.rig")
			require.NoError(t, r.enter())
			var got grade
			for i := range test.submits {
				o := outcomeValid
				if (i+1)*test.invalidPercent/100 > i*test.invalidPercent/100 {
					o = outcomeInvalid
				}
				got = max(got, r.g.submit(&r.sg, &r.worker, o, now).grade)
				now += int64(test.every)
			}
			require.Equal(t, test.want, got)
		})
	}
}

func TestWhatVerdictsSayAboutAMiner(t *testing.T) {
	seen := 0
	for v := share.Verdict(0); v.String() != "Unknown"; v++ {
		seen++
		want := outcomeNone
		switch v.Code() {
		case 0:
			want = outcomeValid
		case 22, 23, 27, 31, 32, 33, 34, 35:
			want = outcomeInvalid
		}
		require.Equal(t, want, outcomeOf(v, 0, 0, 0), v.String())
	}
	require.Equal(t, 22, seen)

	for _, test := range []struct {
		name              string
		reached, previous difficulty.Difficulty
		changed           time.Duration
		want              outcome
	}{
		{"what it had before", 1024, 1024, 0, outcomeNone},
		{"better than before", 1500, 1024, 59 * time.Second, outcomeNone},
		{"less than before", 1023, 1024, time.Second, outcomeInvalid},
		{"what it had long before", 1024, 1024, time.Minute, outcomeInvalid},
		{"nothing before", 1024, 0, 0, outcomeInvalid},
		{"a change that is to come", 1024, 1024, -1, outcomeInvalid},
	} {
		require.Equal(t, test.want, outcomeOf(share.LowDifficulty, test.reached, test.previous, test.changed), test.name)
	}
}

// 66 miners on a chain of quick blocks sent 10,894 stale shares and not one in time, and a pool banned them in a loop.
func TestStaleSharesAreNoOffence(t *testing.T) {
	now := int64(0)
	g := guardWith(t, Limits{})
	for i := range 66 {
		r := newRig(t, g, &now, fmt.Sprintf("198.51.100.%d", i+1), "tiny.miner")
		require.NoError(t, r.enter())
		for n := range 10894 {
			v := []share.Verdict{share.Stale, share.JobNotFound, share.JobNotFoundOrStale}[n%3]
			if p := g.submit(&r.sg, &r.worker, outcomeOf(v, 0, 0, 0), now); p != (penalty{}) {
				t.Fatal(p)
			}
		}
		r.leave()
		require.NoError(t, r.enter())
	}
	require.Zero(t, g.counters(now).Warned)
}

// A rented rig out of a hundred goes wrong: that is one order, or one share in a hundred of the marketplace's.
func TestAMarketplaceWithAFewDuplicates(t *testing.T) {
	now := int64(0)
	g := guardWith(t, Limits{})
	for i := range 20 {
		r := newRig(t, g, &now, "203.0.113.7", fmt.Sprintf("buyer%d.x", i))
		require.NoError(t, r.enter())
		require.Zero(t, r.submit(20000, 1))
	}
	bad := newRig(t, g, &now, "203.0.113.7", "thief.x")
	require.Equal(t, gradeBanWorker, bad.banned().grade)
	for i := range 100 {
		r := newRig(t, g, &now, "203.0.113.7", fmt.Sprintf("newcomer%d.x", i))
		require.NoError(t, r.enter())
	}
}

func TestAFarmBehindOneAddressWithOneBadRig(t *testing.T) {
	for _, names := range []string{"farm.rig%d", "farm.__default__"} {
		t.Run(names, func(t *testing.T) {
			now := int64(0)
			g := guardWith(t, Limits{})
			rigs := make([]*rig, 1000)
			for i := range rigs {
				name := names
				if strings.Contains(names, "%") {
					name = fmt.Sprintf(names, i)
				}
				rigs[i] = newRig(t, g, &now, "203.0.113.7", name)
				require.NoError(t, rigs[i].enter())
			}
			bad := rigs[666]
			banned, disconnected := 0, 0
			for range 60 {
				for _, r := range rigs {
					if r != bad {
						require.Zero(t, r.submit(1, 0))
						require.Zero(t, r.submit(9, 20))
					}
				}
				// The bad one comes back as often as it can.
				if bad.sg.host == nil && bad.enter() != nil {
					banned++
					continue
				}
				if bad.submit(500, 100).closes() {
					disconnected++
					bad.leave()
				}
			}
			for i, r := range rigs {
				if r == bad {
					continue
				}
				r.leave()
				require.NoError(t, r.enter(), "rig %d", i)
			}
			st := g.counters(now)
			require.Zero(t, st.AddressBans)
			if bad.worker == rigs[0].worker {
				require.Zero(t, banned, "the name is that of 999 good ones")
				require.Greater(t, disconnected, 20)
			} else {
				require.Positive(t, banned)
				require.Positive(t, st.WorkerBans)
			}
		})
	}
}

// Whoever knows a name could have it banned if bans were for the name alone.
func TestAStrangerCannotHaveAWorkerBanned(t *testing.T) {
	now := int64(0)
	g := guardWith(t, Limits{})
	stranger := newRig(t, g, &now, "192.0.2.66", "victim.rig")
	require.Equal(t, gradeBanWorker, stranger.banned().grade)
	require.ErrorIs(t, stranger.enter(), ErrBanned)
	require.NoError(t, newRig(t, g, &now, "192.0.2.1", "victim.rig").enter())
	require.NoError(t, newRig(t, g, &now, "192.0.2.66", "other.rig").enter(), "nor the address for one worker")
	require.Equal(t, []BanInfo{{
		Address: netip.MustParsePrefix("192.0.2.66/32"), Worker: share.Worker{User: "victim", Name: "rig"},
		Left: 10 * time.Minute, Times: 1, Reason: "100% of 500 submits were invalid",
	}}, g.bans(now))
}

func TestAnAddressWithNothingButBadWorkersIsBanned(t *testing.T) {
	now := int64(0)
	g := guardWith(t, Limits{})
	var p penalty
	for i := range 4 {
		r := newRig(t, g, &now, fmt.Sprintf("2001:db8:1:2::%x", i+1), fmt.Sprintf("bot%d.x", i))
		idle := newRig(t, g, &now, "2001:db8:1:2::ffff", "silent.x")
		require.NoError(t, idle.enter())
		p = r.banned()
		if i < 3 {
			require.Equal(t, gradeBanWorker, p.grade)
		}
	}
	require.Equal(t, gradeBanAddress, p.grade)
	require.Equal(t, "your address is banned for 10 minutes: 100% of 500 submits were invalid, as of other workers there, "+
		"and nobody there mines well", p.text())
	err := newRig(t, g, &now, "2001:db8:1:2:ffff::", "new.x").enter()
	require.ErrorIs(t, err, ErrBanned)
	require.Contains(t, err.Error(), "your address is banned for 10 more minutes: 100% of 500 submits were invalid")
	require.NoError(t, newRig(t, g, &now, "2001:db8:1:3::1", "new.x").enter(), "another /64")
	st := g.counters(now)
	require.Equal(t, 1, st.BannedAddresses)
	require.Equal(t, 3, st.BannedWorkers)
	require.EqualValues(t, 1, st.RefusedBanned)
	require.Len(t, g.bans(now), 4)
	now += int64(10 * time.Minute)
	require.NoError(t, newRig(t, g, &now, "2001:db8:1:2:ffff::", "new.x").enter())
	require.Equal(t, 0, g.counters(now).BannedAddresses)

	again := newRig(t, g, &now, "2001:db8:1:2::99", "bot99.x")
	p = again.banned()
	require.Equal(t, gradeBanAddress, p.grade, "one more is enough now")
	require.Equal(t, 20*time.Minute, p.ban)
}

// A bot that comes under a new name each time, and goes before it is judged, gets nowhere either.
func TestNewNamesDoNotHelp(t *testing.T) {
	for _, submits := range []int{minWindow, 499, 500} {
		now := int64(0)
		g := guardWith(t, Limits{})
		for i := range 100 {
			r := newRig(t, g, &now, "192.0.2.66", fmt.Sprintf("bot.%d", i))
			if err := r.enter(); err != nil {
				require.ErrorIs(t, err, ErrBanned)
				require.Equal(t, 4, i, "refused after as many as the limit says")
				break
			}
			require.Less(t, i, 10)
			r.submit(submits, 100)
			r.leave()
		}
	}
}

func TestAnAddressWithASessionThatMinesWellIsNotBanned(t *testing.T) {
	for _, test := range []struct {
		name    string
		prepare func(good *rig)
		after   time.Duration
		banned  bool
	}{
		{"it mines", func(r *rig) { r.submit(1, 0) }, time.Hour, false},
		{"it mined until a moment ago", func(r *rig) { r.submit(1, 0); r.leave() }, time.Minute, false},
		{"it mined long ago", func(r *rig) { r.submit(1, 0); r.leave() }, 11 * time.Minute, true},
		{"it only listens", func(r *rig) {}, 0, true},
		{"it mined one share and then none", func(r *rig) { r.submit(1, 0); r.submit(499, 100) }, 0, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			now := int64(7e17)
			g := guardWith(t, Limits{WindowSubmits: 100})
			good := newRig(t, g, &now, "192.0.2.66", "good.rig")
			require.NoError(t, good.enter())
			test.prepare(good)
			now += int64(test.after)
			last := penalty{}
			for i := range 4 {
				last = newRig(t, g, &now, "192.0.2.66", fmt.Sprintf("bot%d.x", i)).banned()
				if last.grade == gradeBanAddress {
					break
				}
			}
			err := newRig(t, g, &now, "192.0.2.66", "new.rig").enter()
			if !test.banned {
				require.NoError(t, err)
				require.Zero(t, g.counters(now).AddressBans)
				return
			}
			require.Equal(t, gradeBanAddress, last.grade)
			require.ErrorIs(t, err, ErrBanned)
		})
	}
}

func TestABanEndsWhenASessionTurnsOutToMineWell(t *testing.T) {
	now := int64(0)
	g := guardWith(t, Limits{})
	slow, twin := newRig(t, g, &now, "192.0.2.66", "slow.rig"), newRig(t, g, &now, "192.0.2.66", "bot0.x")
	require.NoError(t, slow.enter())
	require.NoError(t, twin.enter())
	for i := range 4 {
		newRig(t, g, &now, "192.0.2.66", fmt.Sprintf("bot%d.x", i)).banned()
	}
	require.ErrorIs(t, newRig(t, g, &now, "192.0.2.66", "new.rig").enter(), ErrBanned)
	slow.submit(1, 0)
	require.NoError(t, newRig(t, g, &now, "192.0.2.66", "new.rig").enter())
	require.ErrorIs(t, newRig(t, g, &now, "192.0.2.66", "bot0.x").enter(), ErrBanned, "its own ban")
	twin.submit(500, 10)
	require.NoError(t, newRig(t, g, &now, "192.0.2.66", "bot0.x").enter(), "which a twin lifts")
}

func TestAddressesWithoutLimits(t *testing.T) {
	limits := Limits{
		ConnectRate: 1, ConnectBurst: 2, MaxPerAddress: 3,
		AllowList: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("::ffff:172.16.0.0/108")},
	}
	for _, test := range []struct {
		name, addr    string
		limited, bans bool // by address; workers
	}{
		{"allowed", "10.1.2.3", false, false},
		{"allowed, as IPv6", "::ffff:10.1.2.3", false, false},
		{"allowed IPv6", "2001:db8:ffff::1", false, false},
		{"allowed by a mapped prefix", "172.17.0.1", false, false},
		{"this machine", "127.0.0.1", false, true},
		{"this machine, IPv6", "::1", false, true},
		{"not on the list", "11.1.2.3", true, true},
		{"not on the list, IPv6", "2001:db9::1", true, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			now := int64(0)
			g := guardWith(t, limits)
			var err error
			for i := range 10 {
				r := newRig(t, g, &now, test.addr, fmt.Sprintf("w.%d", i))
				if err = r.enter(); err != nil {
					break
				}
			}
			if test.limited {
				require.ErrorIs(t, err, ErrTooMany)
				return
			}
			require.NoError(t, err)
			bans := 0
			for i := range 10 {
				for range 3 {
					r := newRig(t, g, &now, test.addr, fmt.Sprintf("bot.%d", i))
					require.NoError(t, r.enter())
					p := r.submit(500, 100)
					if p.grade == gradeWarn {
						p = r.submit(500, 100)
					}
					if p.grade == gradeBanWorker {
						bans++
						break
					}
					require.Equal(t, gradeDisconnect, p.grade)
					r.leave()
				}
			}
			require.Equal(t, test.bans, bans > 0)
			require.Zero(t, g.counters(now).AddressBans)
		})
	}
	now := int64(0)
	g := guardWith(t, limits)
	for range 10 {
		require.Nil(t, g.connect(new(sessionGuard), netip.Addr{}, now), "an address that is unknown")
	}
}

// An allow-list may name a part of what otherwise counts as one address.
func TestAnAllowedAddressAmongOthers(t *testing.T) {
	now := int64(0)
	g := guardWith(t, Limits{AllowList: []netip.Prefix{netip.MustParsePrefix("2001:db8::a/128")}})
	allowed, other := newRig(t, g, &now, "2001:db8::a", "alice.x"), newRig(t, g, &now, "2001:db8::b", "alice.x")
	require.NoError(t, allowed.enter())
	for _, want := range []grade{gradeWarn, gradeDisconnect, gradeDisconnect, gradeDisconnect} {
		require.Equal(t, want, allowed.submit(500, 100).grade)
	}
	require.Equal(t, "disconnected: 100% of 500 submits were invalid. You may connect again",
		penalty{grade: allowed.sg.grade, submits: 500, invalid: 500}.text())
	allowed.leave()
	require.Zero(t, g.offenders.len, "nothing is held against it")
	other.banned()
	require.ErrorIs(t, other.enter(), ErrBanned)
	require.NoError(t, allowed.enter())
}

// Where only those who mine well keep an address from being banned, newcomers get no warning.
func TestNewcomersAtAnAddressOfIllRepute(t *testing.T) {
	now := int64(0)
	g := guardWith(t, Limits{})
	good := newRig(t, g, &now, "192.0.2.66", "good.rig")
	require.NoError(t, good.enter())
	good.submit(1, 0)
	for i := range 5 {
		r := newRig(t, g, &now, "192.0.2.66", fmt.Sprintf("bot%d.x", i))
		require.NoError(t, r.enter())
		p := r.submit(500, 100)
		if i == 4 {
			require.Equal(t, gradeDisconnect, p.grade)
			break
		}
		require.Equal(t, gradeWarn, p.grade)
		r.leave()
	}
	require.Zero(t, good.submit(5000, 45))
}

func TestOneBanOfAnAddressAtATime(t *testing.T) {
	now := int64(0)
	g := guardWith(t, Limits{})
	bots := make([]*rig, 20)
	for i := range bots {
		bots[i] = newRig(t, g, &now, "192.0.2.66", fmt.Sprintf("bot%d.x", i))
		require.NoError(t, bots[i].enter())
	}
	for _, r := range bots {
		r.submit(20, 0) // takes time
		r.sg.setGood(false)
	}
	for range 2 {
		for _, r := range bots {
			for range 500 {
				g.submit(&r.sg, &r.worker, outcomeInvalid, now)
			}
		}
	}
	require.Equal(t, int64(1), g.counters(now).AddressBans)
	require.Equal(t, 1, g.bans(now)[0].Times)
	require.Equal(t, 10*time.Minute, g.bans(now)[0].Left)
}

func TestWhatIsHeldAgainstAnAddressIsForgiven(t *testing.T) {
	for _, test := range []struct {
		name   string
		mends  bool
		after  time.Duration
		banned bool
	}{
		{"nothing, soon after", false, 11 * time.Minute, true},
		{"nothing, most of an hour later", false, 57 * time.Minute, true},
		{"a worker that mended", true, 11 * time.Minute, false},
		{"what was an hour ago", false, 62 * time.Minute, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			now := int64(5e15)
			g := guardWith(t, Limits{BadWorkers: 2})
			r := newRig(t, g, &now, "192.0.2.66", "alice.x")
			require.NoError(t, r.enter())
			r.submit(500, 100)
			require.Equal(t, gradeDisconnect, r.submit(500, 100).grade)
			r.leave()
			if test.mends {
				require.NoError(t, r.enter())
				require.Zero(t, r.submit(1000, 0))
				r.leave()
			}
			now += int64(test.after)
			p := newRig(t, g, &now, "192.0.2.66", "bob.x").banned()
			require.Equal(t, test.banned, p.grade == gradeBanAddress)
		})
	}
}

// A Bitaxe that looks at its other pool connects, subscribes, authorizes, reads one line and goes.
func TestHeartbeatsAreNoOffence(t *testing.T) {
	now := int64(0)
	g := guardWith(t, Limits{})
	for range 10000 {
		r := newRig(t, g, &now, "192.0.2.1", "alice.rig")
		require.NoError(t, r.enter())
		r.leave()
		now += 60 * second
	}
	require.Equal(t, LimitStats{Remembered: 1}, g.counters(now-60*second))
	require.Zero(t, g.offenders.len+g.failing.len)
}

func TestConnectRate(t *testing.T) {
	now := int64(0)
	g := guardWith(t, Limits{ConnectRate: 10, ConnectBurst: 50})
	r := newRig(t, g, &now, "192.0.2.1", "alice.rig")
	attempt := func(n int) (taken int) {
		for range n {
			if r.g.connect(&r.sg, r.addr, now) == nil {
				taken++
				r.leave()
			}
		}
		return taken
	}
	require.Equal(t, 50, attempt(100), "a burst")
	now += second
	require.Equal(t, 10, attempt(100), "and then a rate")
	now += second / 2
	require.Equal(t, 5, attempt(100))
	now += 100 * second
	require.Equal(t, 50, attempt(100))
	refused := g.connect(&r.sg, r.addr, now)
	require.ErrorIs(t, refused, ErrTooMany)
	require.Equal(t, 100*time.Millisecond, refused.left)
	require.NoError(t, newRig(t, g, &now, "192.0.2.2", "alice.rig").enter(), "another address")
	require.EqualValues(t, 50+90+95+50+1, g.counters(now).RefusedRate)

	now += 100 * second
	for range 12 {
		require.Nil(t, g.connect(&r.sg, r.addr, now))
		g.junk(&r.sg, now)
		r.leave()
	}
	require.Equal(t, 2, attempt(100), "junk counts for four")
	now += 100 * second
	require.Equal(t, 50, attempt(100), "and is forgotten like the rest")

	now += 100 * second
	require.Nil(t, g.connect(&r.sg, r.addr, now))
	for range 100 {
		g.junk(&r.sg, now)
	}
	r.leave()
	now += second / 10 * 5
	require.LessOrEqual(t, attempt(100), 5, "what is not there cannot be taken twice")
	now += second
	require.GreaterOrEqual(t, attempt(100), 7, "so nobody is locked out for long")
}

func TestMaxPerAddress(t *testing.T) {
	now := int64(0)
	g := guardWith(t, Limits{MaxPerAddress: 2})
	a, b, c := newRig(t, g, &now, "64:ff9b::c000:201", "a.x"), newRig(t, g, &now, "192.0.2.1", "b.x"), newRig(t, g, &now, "192.0.2.1", "c.x")
	require.NoError(t, a.enter())
	require.NoError(t, b.enter())
	err := c.enter()
	require.ErrorIs(t, err, ErrTooMany)
	require.Contains(t, err.Error(), "2 connections from your address are open")
	a.leave()
	a.leave()
	require.NoError(t, c.enter())
	require.Error(t, a.enter(), "leaving twice frees one place")
	require.EqualValues(t, 2, g.counters(now).RefusedFull)
}

func TestFailedLoginsAreBackedOffFrom(t *testing.T) {
	now := int64(0)
	g := guardWith(t, Limits{})
	bad, good := newRig(t, g, &now, "192.0.2.1", "nobody.x"), newRig(t, g, &now, "192.0.2.1", "alice.x")
	asked, refusedText := 0, ""
	for range 3600 {
		require.Nil(t, g.connect(&bad.sg, bad.addr, now))
		if refused := g.mayLogin(&bad.sg, bad.worker, now); refused == nil {
			asked++
			g.loginFailed(&bad.sg, bad.worker, now)
		} else {
			require.ErrorIs(t, refused, ErrTooMany)
			require.Equal(t, 29, refused.code)
			require.LessOrEqual(t, refused.left, 10*time.Minute)
			refusedText = refused.text
		}
		bad.leave()
		require.NoError(t, good.enter(), "another worker there")
		good.leave()
		now += second
	}
	// After 0, 1, 3, 7, 15 ... 1023 seconds, and every 600 from then on.
	require.Equal(t, 15, asked)
	require.Equal(t, "unknown user, refused 15 times; not looked up again for 8 minutes", refusedText)
	require.EqualValues(t, 3600-15, g.counters(now).LoginsDelayed)

	few := guardWith(t, Limits{MaxRemembered: 2})
	require.Nil(t, few.connect(&bad.sg, bad.addr, now))
	for _, name := range []string{"a", "b", "a", "c"} {
		few.loginFailed(&bad.sg, share.Worker{User: name}, now)
	}
	require.NotNil(t, few.mayLogin(&bad.sg, share.Worker{User: "a"}, now), "the longest ago is forgotten first")
	require.Nil(t, few.mayLogin(&bad.sg, share.Worker{User: "b"}, now))
	few.disconnect(&bad.sg, &bad.worker, now)

	now += 600 * second
	require.NoError(t, bad.enter(), "somebody made the account")
	require.Nil(t, bad.sg.worker.record)
	bad.leave()
	require.NoError(t, bad.enter())

	g = guardWith(t, Limits{LoginBackoff: -1})
	require.Nil(t, g.connect(&bad.sg, bad.addr, now))
	for range 10 {
		require.Nil(t, g.mayLogin(&bad.sg, bad.worker, now))
		g.loginFailed(&bad.sg, bad.worker, now)
	}

	g = guardWith(t, Limits{ConnectRate: 1, ConnectBurst: 20})
	require.Nil(t, g.connect(&bad.sg, bad.addr, now))
	for i := range 4 {
		g.loginFailed(&bad.sg, share.Worker{User: fmt.Sprint(i)}, now)
	}
	g.loginFailed(&bad.sg, share.Worker{}, now)
	require.Equal(t, 4, g.failing.len, "a name that is no worker's is not remembered")
	require.ErrorIs(t, g.connect(new(sessionGuard), bad.addr, now), ErrTooMany, "1 + 5 times 4 connections")
}

func TestRequestRate(t *testing.T) {
	g := guardWith(t, Limits{RequestRate: 100, RequestBurst: 300})
	var sg sessionGuard
	now := int64(4e15)
	for i := range 300 {
		pause, ok := g.request(&sg, 1, now)
		require.Zero(t, pause, i)
		require.True(t, ok)
	}
	for i := range 50 {
		pause, ok := g.request(&sg, 1, now)
		require.Equal(t, time.Duration(i+1)*10*time.Millisecond, pause)
		require.True(t, ok)
	}
	require.True(t, sg.slow)
	require.False(t, sg.mayRaise(), "it has not mined")
	now += second / 2
	pause, _ := g.request(&sg, 1, now)
	require.Equal(t, 10*time.Millisecond, pause, "the pause was observed, and nothing gained")
	now += 2 * second
	pause, _ = g.request(&sg, 1, now)
	require.Zero(t, pause)
	require.False(t, sg.slow)
	for range 100000 {
		if pause, _ = g.request(&sg, 1, now); pause > 10*time.Second {
			t.Fatal(pause)
		}
	}
	require.Equal(t, 10*time.Second, pause)
	require.EqualValues(t, 2, g.counters(now).Throttled)

	// One who is now below the rate and now above, and never far from it, is too fast all the while.
	sg = sessionGuard{}
	for range 299 {
		g.request(&sg, 1, now)
	}
	ok := true
	n := 0
	for ; ok && n < 10000; n++ {
		g.request(&sg, 1, now)
		_, ok = g.request(&sg, 1, now)
		now += second / 50
	}
	require.InDelta(t, 60*50, n, 2)

	// But not one that was too fast long ago, with the smallest burst there is.
	g = guardWith(t, Limits{RequestRate: 100, RequestBurst: 1})
	sg = sessionGuard{}
	for range 10 {
		g.request(&sg, 1, now)
		_, ok = g.request(&sg, 1, now)
		require.True(t, ok)
		now += 50 * second
		g.request(&sg, 1, now)
		now += second
	}

	g = guardWith(t, Limits{RequestRate: -1})
	for range 100000 {
		pause, ok := g.request(&sg, 1, now)
		require.Zero(t, pause)
		require.True(t, ok)
	}
}

func TestAFloodIsHeldBackAndThenClosed(t *testing.T) {
	for _, test := range []struct {
		name    string
		limits  Limits
		outcome outcome
		miners  int
		closed  bool
		most    int // requests in ten minutes
	}{
		{"pings without end", Limits{}, outcomeNone, 1, true, 61*200 + 1000},
		{"shares of a difficulty far too low", Limits{}, outcomeValid, 1, false, 600*200 + 1001},
		{"shares, and an operator who grades nobody", Limits{InvalidPercent: -1}, outcomeValid, 1, false, 600*200 + 1001},
		{"pings, and an operator with patience", Limits{RequestPatience: -1}, outcomeNone, 1, false, 600*200 + 1001},
		{"an agent with ten miners", Limits{}, outcomeValid, 10, false, 6000*200 + 10010},
	} {
		t.Run(test.name, func(t *testing.T) {
			now := int64(0)
			r := newRig(t, guardWith(t, test.limits), &now, "192.0.2.1", "alice.x")
			require.NoError(t, r.enter())
			n := 0
			for now < 600*second {
				// As many as a read brings, and then the pause.
				var pause time.Duration
				ok := true
				for i := 0; i < 150 && ok; i++ {
					pause, ok = r.g.request(&r.sg, test.miners, now)
					n++
					r.g.submit(&r.sg, &r.worker, test.outcome, now)
				}
				if !ok {
					require.True(t, test.closed)
					require.InDelta(t, 60, float64(now)/float64(second), 3)
					require.EqualValues(t, 1, r.g.counters(now).TooFast)
					require.ErrorIs(t, errTooFast, ErrTooMany)
					return
				}
				now += int64(pause) + 1
				if pause > 0 && (test.outcome == outcomeValid) != r.sg.mayRaise() {
					t.Fatal("whether it may be raised depends on what it sends")
				}
			}
			require.False(t, test.closed)
			require.LessOrEqual(t, n, test.most+150)
			require.GreaterOrEqual(t, n, test.most*9/10)
		})
	}
}

func TestClockSteps(t *testing.T) {
	const day = 24 * 3600 * second
	t.Run("back, and a ban lasts no longer than it was to", func(t *testing.T) {
		now := 10 * day
		g := guardWith(t, Limits{})
		r := newRig(t, g, &now, "192.0.2.1", "alice.x")
		r.banned()
		now -= 5 * day
		require.ErrorIs(t, r.enter(), ErrBanned)
		require.Equal(t, 10*time.Minute, g.bans(now)[0].Left)
		now += 600 * second
		require.NoError(t, r.enter())
	})
	t.Run("forward, and bans end", func(t *testing.T) {
		now := 10 * day
		g := guardWith(t, Limits{})
		r := newRig(t, g, &now, "192.0.2.1", "alice.x")
		r.banned()
		now += 5 * day
		require.NoError(t, r.enter())
	})
	t.Run("back, and buckets begin anew", func(t *testing.T) {
		now := 10 * day
		g := guardWith(t, Limits{})
		r := newRig(t, g, &now, "192.0.2.1", "alice.x")
		require.NoError(t, r.enter())
		for range 2000 {
			g.request(&r.sg, 1, now)
		}
		now -= day
		pause, ok := g.request(&r.sg, 1, now)
		require.Zero(t, pause)
		require.True(t, ok)
		r.leave()
		require.NoError(t, r.enter())
	})
	t.Run("back, and a back-off begins anew", func(t *testing.T) {
		now := 10 * day
		g := guardWith(t, Limits{})
		r := newRig(t, g, &now, "192.0.2.1", "alice.x")
		require.Nil(t, g.connect(&r.sg, r.addr, now))
		g.loginFailed(&r.sg, r.worker, now)
		now -= day
		require.NotNil(t, g.mayLogin(&r.sg, r.worker, now))
		now += second
		require.Nil(t, g.mayLogin(&r.sg, r.worker, now))
	})
	t.Run("back, and the patience is what it was", func(t *testing.T) {
		now := 10 * day
		g := guardWith(t, Limits{})
		var sg sessionGuard
		for ok := true; ok; now += 4e6 {
			_, ok = g.request(&sg, 1, now)
			if ok && sg.slow && now > 10*day && now-sg.throttled > 59*second {
				now -= day
			} else if now < 10*day {
				require.LessOrEqual(t, now, 9*day+200*second)
			}
		}
		require.Less(t, now, 10*day)
	})
	t.Run("back within a window, which lasts its time again", func(t *testing.T) {
		now := 10 * day
		g := guardWith(t, Limits{})
		r := newRig(t, g, &now, "192.0.2.1", "alice.x")
		require.NoError(t, r.enter())
		require.Zero(t, r.submit(19, 100))
		now -= day
		require.Zero(t, r.submit(1, 100))
		now += 60 * second
		require.Equal(t, gradeWarn, r.submit(1, 100).grade)
	})
	t.Run("from one end to the other", func(t *testing.T) {
		now := int64(math.MaxInt64) - 2*day
		g := guardWith(t, Limits{})
		r := newRig(t, g, &now, "192.0.2.1", "alice.x")
		r.banned()
		rich := newRig(t, g, &now, "192.0.2.1", "rich.x")
		require.NoError(t, rich.enter())
		g.request(&rich.sg, 1, now)
		now = math.MinInt64
		require.ErrorIs(t, r.enter(), ErrBanned)
		for range 1000 {
			g.request(&rich.sg, 1, now)
		}
		pause, _ := g.request(&rich.sg, 1, now)
		require.Equal(t, 5*time.Millisecond, pause, "no more than a burst")
		require.EqualValues(t, math.MaxInt64, elapsed(math.MinInt64, math.MaxInt64))
		require.Zero(t, elapsed(math.MaxInt64, math.MinInt64))
		require.EqualValues(t, math.MaxInt64, later(math.MaxInt64-1, 2))
	})
	t.Run("forward within a window, which is none the shorter for it", func(t *testing.T) {
		now := 10 * day
		g := guardWith(t, Limits{})
		r := newRig(t, g, &now, "192.0.2.1", "alice.x")
		require.NoError(t, r.enter())
		require.Zero(t, r.submit(18, 100))
		now += 365 * day
		require.Zero(t, r.submit(1, 100), "too few to say")
		require.Equal(t, gradeWarn, r.submit(1, 100).grade)
	})
}

// Whatever the clock says, nothing panics, no pause is longer than ten seconds and no ban longer than the longest.
func FuzzGuardClock(f *testing.F) {
	times := func(ts ...int64) (b []byte) {
		for _, t := range ts {
			b = binary.LittleEndian.AppendUint64(b, uint64(t))
		}
		return b
	}
	f.Add(times(0, 1, 2))
	f.Add(times(math.MaxInt64, math.MinInt64, 0, math.MaxInt64-1))
	f.Add(times(-1, math.MinInt64, 1e18, -1e18))
	f.Fuzz(func(t *testing.T, data []byte) {
		g := guardWith(t, Limits{WindowSubmits: 20, MaxRemembered: 3, RequestBurst: 5, ConnectBurst: 50})
		now := int64(0)
		r := newRig(t, g, &now, "192.0.2.1", "alice.x")
		for ; len(data) >= 8; data = data[8:] {
			now = int64(binary.LittleEndian.Uint64(data))
			if err := r.enter(); err != nil {
				var refused *refusal
				require.ErrorAs(t, err, &refused)
				require.LessOrEqual(t, refused.left, time.Hour)
				require.Positive(t, refused.left)
			}
			for i := range 25 {
				pause, _ := g.request(&r.sg, 1, now)
				require.LessOrEqual(t, pause, 10*time.Second)
				require.GreaterOrEqual(t, pause, time.Duration(0))
				g.submit(&r.sg, &r.worker, outcome(i%3), now)
				g.submit(&r.sg, &r.worker, outcomeInvalid, now)
			}
			g.loginFailed(&r.sg, share.Worker{User: "u", Name: fmt.Sprint(now % 7)}, now)
			for _, b := range g.bans(now) {
				require.LessOrEqual(t, b.Left, time.Hour)
			}
			r.leave()
			checkGuard(t, g)
		}
	})
}

// checkGuard looks at what must always hold.
func checkGuard(t testing.TB, g *guard) {
	t.Helper()
	listed := 0
	for _, l := range []*entryList{&g.idle, &g.failing, &g.offenders} {
		n := 0
		for e := l.first; e != nil; e = e.next {
			require.Same(t, l, e.list)
			require.Same(t, e, g.entries[e.key])
			require.Equal(t, l != &g.idle, e.record != nil)
			n++
		}
		require.Equal(t, n, l.len)
		require.LessOrEqual(t, n, g.limits.MaxRemembered)
		listed += n
	}
	for _, e := range g.entries {
		require.GreaterOrEqual(t, e.sessions, int32(0))
		require.GreaterOrEqual(t, e.good.Load(), int32(0))
		require.LessOrEqual(t, e.good.Load(), e.sessions)
		if e.list == nil {
			require.Positive(t, e.sessions, "an entry that nothing keeps")
		}
	}
}

// Miners who do their work are never warned, disconnected or refused, whatever the others at their address do, and
// even under their name. Their worst stretch has two invalid submits in five.
func TestGoodMinersAreNeverBannedWhateverTheirNeighboursDo(t *testing.T) {
	var workers, addresses int64
	for seed := range uint64(12) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		now := rnd.Int64N(1e18)
		g := guardWith(t, Limits{WindowSubmits: 20 + rnd.IntN(100), MaxRemembered: 1 + rnd.IntN(50), BadWorkers: 1 + rnd.IntN(4)})
		var good, bad []*rig
		sent := map[*rig]int{}
		for i := range 8 {
			r := newRig(t, g, &now, fmt.Sprintf("192.0.2.%d", i%3), fmt.Sprintf("user%d.x", i%4))
			require.NoError(t, r.enter())
			good = append(good, r)
			r.submit(1, 0)
		}
		for range 12 {
			bad = append(bad, newRig(t, g, &now, "192.0.2.1", "x.x"))
		}
		for range 10000 {
			now += rnd.Int64N(2 * second)
			if r := good[rnd.IntN(len(good))]; rnd.IntN(100) == 0 {
				r.leave()
				require.NoError(t, r.enter())
				require.Zero(t, g.submit(&r.sg, &r.worker, outcomeValid, now))
			} else if rnd.IntN(2) == 0 {
				o := outcomeValid
				if n := sent[r]; n%5 == 1 || n%5 == 3 {
					o = outcomeInvalid
				}
				sent[r]++
				if p := g.submit(&r.sg, &r.worker, o, now); p != (penalty{}) {
					t.Fatal(p)
				}
			}
			r := bad[rnd.IntN(len(bad))]
			if r.sg == (sessionGuard{network: r.sg.network}) {
				r.addr = netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", rnd.IntN(4)))
				r.worker = share.Worker{User: fmt.Sprintf("user%d", rnd.IntN(8)), Name: "x"}
				if r.enter() != nil {
					require.NotZero(t, g.offenders.len)
				}
				continue
			}
			for range rnd.IntN(60) {
				if g.submit(&r.sg, &r.worker, outcome(rnd.IntN(2)*2), now).closes() {
					r.leave()
					break
				}
			}
			if rnd.IntN(20) == 0 {
				r.leave()
			}
		}
		checkGuard(t, g)
		st := g.counters(now)
		require.Positive(t, st.Warned)
		workers, addresses = workers+st.WorkerBans, addresses+st.AddressBans
		for _, r := range slices.Concat(good, bad) {
			r.leave()
		}
		now += int64(4 * time.Hour)
		for range 200 {
			g.unban(netip.Addr{}, share.Worker{User: "nobody"}, now)
			g.mayLogin(&sessionGuard{}, share.Worker{User: "nobody"}, now) // sweeps
		}
		require.Empty(t, g.entries, "nothing is kept for ever")
	}
	require.Positive(t, workers, "there must have been something to be spared from")
	require.Positive(t, addresses)
}

// fromEverywhere lets n addresses, each a /64 of its own, fail to log in once, and returns the memory that it takes.
func fromEverywhere(t testing.TB, g *guard, now *int64, n int) int64 {
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	r := &rig{t: t, g: g, now: now}
	user := strings.Repeat("u", 100)
	for i := range n {
		b := [16]byte{0: 0x20, 1: 1}
		binary.BigEndian.PutUint32(b[4:], uint32(i))
		r.addr = netip.AddrFrom16(b)
		if refused := g.connect(&r.sg, r.addr, *now); refused != nil {
			t.Fatal(refused)
		}
		g.loginFailed(&r.sg, share.Worker{User: user, Name: strconv.Itoa(i)}, *now)
		r.leave()
		*now += 1000
	}
	return heap() - before
}

func TestManyAddressesDoNotFillMemory(t *testing.T) {
	now := int64(0)
	g := guardWith(t, Limits{})
	banned := newRig(t, g, &now, "192.0.2.66", "old.offender")
	banned.banned()
	require.Less(t, fromEverywhere(t, g, &now, 200_000), int64(32<<20))
	require.LessOrEqual(t, len(g.entries), 2*g.limits.MaxRemembered+2)
	checkGuard(t, g)
	require.ErrorIs(t, banned.enter(), ErrBanned, "and nobody shakes off a ban with them")
}

// BenchmarkGuardMillionAddresses is an attack from a million addresses.
func BenchmarkGuardMillionAddresses(b *testing.B) {
	for b.Loop() {
		now := int64(0)
		g := guardWith(b, Limits{})
		b.ReportMetric(float64(fromEverywhere(b, g, &now, 1_000_000))/(1<<20), "MB")
		runtime.KeepAlive(g)
	}
}

func TestOffendersAreBoundedAndTheOldestGoes(t *testing.T) {
	now := int64(0)
	g := guardWith(t, Limits{WindowSubmits: 20, MaxRemembered: 100, BadWorkers: -1})
	rigs := make([]*rig, 101)
	for i := range rigs {
		rigs[i] = newRig(t, g, &now, fmt.Sprintf("192.0.2.%d", i), "bot.x")
		rigs[i].banned()
		if i == 99 {
			require.ErrorIs(t, rigs[0].enter(), ErrBanned)
		}
	}
	require.Equal(t, 100, g.offenders.len)
	require.NoError(t, rigs[0].enter(), "the oldest is forgotten")
	require.ErrorIs(t, rigs[1].enter(), ErrBanned)
	require.ErrorIs(t, rigs[100].enter(), ErrBanned)
	checkGuard(t, g)

	now += int64(11 * time.Minute)
	require.Equal(t, gradeBanWorker, rigs[1].banned().grade)
	for i := range 50 {
		newRig(t, g, &now, fmt.Sprintf("198.51.100.%d", i), "bot.x").banned()
	}
	require.ErrorIs(t, rigs[1].enter(), ErrBanned, "its offence is not an old one")
}

func TestUnban(t *testing.T) {
	addr := netip.MustParseAddr("192.0.2.66")
	bot := func(i int) share.Worker { return share.Worker{User: fmt.Sprintf("bot%d", i), Name: "x"} }
	for _, test := range []struct {
		name   string
		addr   netip.Addr
		worker share.Worker
		lifted int
		left   int
	}{
		{"a worker at its address", addr, bot(1), 1, 3},
		{"everything at an address", addr, share.Worker{}, 4, 0},
		{"a worker wherever it is", netip.Addr{}, bot(2), 1, 3},
		{"a worker at another address", netip.MustParseAddr("192.0.2.67"), bot(1), 0, 4},
		{"nobody in particular", netip.Addr{}, share.Worker{}, 0, 4},
	} {
		t.Run(test.name, func(t *testing.T) {
			now := int64(0)
			g := guardWith(t, Limits{})
			for i := range 4 {
				newRig(t, g, &now, addr.String(), fmt.Sprintf("bot%d.x", i)).banned()
			}
			require.Equal(t, test.lifted, g.unban(test.addr, test.worker, now))
			require.Len(t, g.bans(now), test.left)
			st := g.counters(now)
			require.Equal(t, test.left, st.BannedAddresses+st.BannedWorkers)
			checkGuard(t, g)
			if test.left == 0 {
				require.NoError(t, newRig(t, g, &now, addr.String(), "bot1.x").enter())
			}
		})
	}
}

func TestTurningBansOff(t *testing.T) {
	for _, test := range []struct {
		name   string
		limits Limits
		worst  grade
	}{
		{"all", Limits{BanTime: -1}, gradeDisconnect},
		{"of addresses", Limits{BadWorkers: -1}, gradeBanWorker},
		{"none", Limits{}, gradeBanAddress},
	} {
		t.Run(test.name, func(t *testing.T) {
			now := int64(0)
			g := guardWith(t, test.limits)
			worst := gradeNone
			for i := range 10 * 3 {
				r := newRig(t, g, &now, "192.0.2.66", fmt.Sprintf("bot%d.x", i/3))
				if r.enter() != nil {
					continue
				}
				p := r.submit(500, 100)
				p = penalty{grade: max(p.grade, r.submit(500, 100).grade)}
				worst = max(worst, p.grade)
				if p.grade == gradeDisconnect && test.limits.BanTime < 0 {
					require.NotContains(t, penalty{grade: gradeDisconnect, submits: 1}.text(), "if it goes on")
				}
				r.leave()
			}
			require.Equal(t, test.worst, worst)
		})
	}
}

func TestASessionThatChangesItsWorker(t *testing.T) {
	now := int64(0)
	g := guardWith(t, Limits{})
	r := newRig(t, g, &now, "192.0.2.1", "alice.one")
	require.NoError(t, r.enter())
	r.submit(1, 0)
	first := r.sg.worker
	require.EqualValues(t, 1, first.good.Load())
	r.worker.Name = "two"
	g.loggedIn(&r.sg, r.worker, now)
	g.loggedIn(&r.sg, r.worker, now)
	require.Zero(t, first.sessions)
	require.Zero(t, first.good.Load())
	require.EqualValues(t, 1, r.sg.worker.sessions)
	require.EqualValues(t, 1, r.sg.worker.good.Load())
	require.Len(t, g.entries, 3, "the address, the second, and the first that mined well until now")
	now += 11 * 60 * second
	require.Nil(t, g.mayLogin(&r.sg, r.worker, now))
	require.Len(t, g.entries, 2)
	checkGuard(t, g)
}

func TestNetworks(t *testing.T) {
	for _, test := range []struct {
		addr, prefix string
		local        bool
	}{
		{"192.0.2.1", "192.0.2.1/32", false},
		{"::ffff:192.0.2.1", "192.0.2.1/32", false},
		{"64:ff9b::192.0.2.1", "192.0.2.1/32", false},
		{"2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64", false},
		{"fe80::1%eth0", "fe80::/64", false},
		{"127.3.2.1", "127.0.0.1/32", true},
		{"::1", "127.0.0.1/32", true},
	} {
		network, local := networkOf(netip.MustParseAddr(test.addr))
		require.Equal(t, test.prefix, prefixOf(network).String(), test.addr)
		require.Equal(t, test.local, local, test.addr)
	}
	network, local := networkOf(netip.Addr{})
	require.Equal(t, "0.0.0.0/32", prefixOf(network).String())
	require.False(t, local)
}

func TestLimitsThatMakeNoSense(t *testing.T) {
	l := Limits{
		AllowList: make([]netip.Prefix, 1), ConnectRate: 2e9, RequestBurst: -1, InvalidPercent: 101, WindowSubmits: 19,
		WindowTime: -1, BanTime: time.Hour, MaxBanTime: time.Minute, LoginBackoff: 1 << 62, MaxRemembered: -1,
	}
	err := l.complete()
	require.Error(t, err)
	for _, want := range []string{"entry 1 of the allow-list", "connect rate", "request burst", "101 percent", "19 submits",
		"a window of -1ns", "longest ban 1m0s", "back-off", "-1 remembered"} {
		require.Contains(t, err.Error(), want)
	}
	off := Limits{MaxPerAddress: -1, ConnectRate: -1, RequestRate: -1, RequestPatience: -1, InvalidPercent: -1, BanTime: -1,
		MaxBanTime: -1, BadWorkers: -1, LoginBackoff: -1}
	require.NoError(t, off.complete())
	long := Limits{BanTime: 48 * time.Hour}
	require.NoError(t, long.complete())
	require.Equal(t, 48*time.Hour, long.MaxBanTime)
	var zero Limits
	require.NoError(t, zero.complete())
	require.Equal(t, 1000, zero.RequestBurst)
}

func TestInWords(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 seconds", 1: "1 second", time.Second: "1 second", 1500 * time.Millisecond: "2 seconds", 90 * time.Second: "90 seconds",
		91 * time.Second: "2 minutes", 10 * time.Minute: "10 minutes", 90 * time.Minute: "90 minutes", 91 * time.Minute: "2 hours",
	} {
		n, unit := inWords(d)
		require.Equal(t, want, fmt.Sprintf("%d %s", n, unit))
	}
}

// Many sessions of few addresses at once, for the race detector.
func TestGuardIsSafeForConcurrentSessions(t *testing.T) {
	g := guardWith(t, Limits{WindowSubmits: 20, MaxRemembered: 5})
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			now := int64(i) * second
			r := newRig(t, g, &now, fmt.Sprintf("192.0.2.%d", i%3), fmt.Sprintf("user%d.x", i%5))
			for n := range 300 {
				now += second
				if r.enter() != nil {
					continue
				}
				for range 50 {
					g.request(&r.sg, 1, now)
					if g.submit(&r.sg, &r.worker, outcome(1+(i+n)%2), now).closes() {
						break
					}
				}
				g.junk(&r.sg, now)
				g.loginFailed(&r.sg, share.Worker{User: fmt.Sprint(n)}, now)
				g.bans(now)
				g.counters(now)
				g.unban(r.addr, r.worker, now)
				r.leave()
			}
		})
	}
	wg.Wait()
	checkGuard(t, g)
}

func TestTheGuardOfASessionIsSmallAndAllocatesNothing(t *testing.T) {
	require.LessOrEqual(t, unsafe.Sizeof(sessionGuard{}), uintptr(64))
	require.LessOrEqual(t, unsafe.Sizeof(entry{}), uintptr(80))
	now := int64(0)
	r := newRig(t, guardWith(t, Limits{}), &now, "192.0.2.1", "alice.rig")
	require.NoError(t, r.enter())
	n := 0
	if a := testing.AllocsPerRun(5000, func() {
		now += second
		n++
		r.g.request(&r.sg, 1, now)
		r.g.submit(&r.sg, &r.worker, outcome(1+n%5/4), now)
	}); a != 0 {
		t.Errorf("a submit allocates %v times, want 0", a)
	}
	require.True(t, r.sg.good)
}

func BenchmarkGuardRequest(b *testing.B) {
	g := guardWith(b, Limits{})
	var sg sessionGuard
	now := int64(0)
	b.ReportAllocs()
	for b.Loop() {
		now += 5e6
		if pause, ok := g.request(&sg, 1, now); pause != 0 || !ok {
			b.Fatal(pause)
		}
	}
}

func BenchmarkGuardSubmit(b *testing.B) {
	now := int64(0)
	r := newRig(b, guardWith(b, Limits{}), &now, "192.0.2.1", "alice.rig")
	require.NoError(b, r.enter())
	b.ReportAllocs()
	for b.Loop() {
		now += 5e6
		if p := r.g.submit(&r.sg, &r.worker, outcomeValid, now); p.grade != 0 {
			b.Fatal(p)
		}
	}
}

// BenchmarkGuardSession is a connection from an address nobody has seen before to its end.
func BenchmarkGuardSession(b *testing.B) {
	now := int64(0)
	g := guardWith(b, Limits{})
	r := newRig(b, g, &now, "192.0.2.1", "alice.rig")
	var i uint32
	b.ReportAllocs()
	for b.Loop() {
		i++
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], 0x0b000000+i%(1<<24))
		r.addr = netip.AddrFrom4(a)
		now += 1e5
		if err := r.enter(); err != nil {
			b.Fatal(err)
		}
		r.leave()
	}
}

// BenchmarkGuardConnections reports what a connection with an address and a worker of its own takes.
func BenchmarkGuardConnections(b *testing.B) {
	var before, after runtime.MemStats
	for b.Loop() {
		now := int64(0)
		g := guardWith(b, Limits{})
		rigs := make([]sessionGuard, 18000)
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range rigs {
			var a [4]byte
			binary.BigEndian.PutUint32(a[:], 0x0b000000+uint32(i))
			if err := g.connect(&rigs[i], netip.AddrFrom4(a), now); err != nil {
				b.Fatal(err)
			}
			g.loggedIn(&rigs[i], share.Worker{User: "alice", Name: fmt.Sprint(i)}, now)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(len(rigs)), "B/conn")
		runtime.KeepAlive(g)
	}
}
