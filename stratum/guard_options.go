package stratum

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/poolkit/poolkit/share"
)

// Limits protect a Server from miners that are broken, too many or hostile. The zero value suits a public pool, a
// negative number turns one limit off.
//
// # Invalid submits
//
// What counts is the share of a session's submits that are invalid, never their number: a duplicate, a hash that
// misses its target, a malformed field, an ntime or version bits out of bounds. Stale shares and unknown jobs are the
// pace of the network and no offence, nor is a hash that met the difficulty before a recent change. Each window in
// which that share is too large takes the miner one grade further, each window that is fine takes it one back:
//
//  1. It is told, and gets its difficulty and a clean job again, which is all that most confused firmware needs.
//  2. The connection is closed, with the reason. The miner may come back at once.
//  3. The worker is banned from this address, for BanTime, and twice as long each further time. Elsewhere a worker of
//     that name mines on: names are public, and a stranger could have it banned otherwise.
//  4. When that befalls several workers of one address, the address is banned.
//
// An agent is judged as a whole: one bad machine of many does not end its connection.
//
// Nobody is banned for a neighbour. A worker is not banned while another session of it at the same address mines well,
// nor is an address where any session does, nor either within ten minutes after; and a ban ends early when a session
// that is still connected turns out to mine well. Connections that only subscribe, authorize and look at a job are no
// offence.
//
// # Addresses
//
// IPv4 addresses count singly, IPv6 addresses by /64, IPv4 behind the NAT64 prefix 64:ff9b::/96 as IPv4. Connections
// from this machine (a proxy in front of the server, as a rule) or from an address that is unknown have no limits by
// address.
type Limits struct {
	// AllowList holds the addresses that have no limits by address and where neither address nor workers are banned.
	// Their miners are still told of invalid submits, slowed down, and reconnected.
	AllowList []netip.Prefix

	// MaxPerAddress is how many connections one address may hold; 0 means no limit but that of the server. A farm
	// behind one address has thousands, and a number tells it from an attacker no better than its rate does.
	MaxPerAddress int

	// ConnectRate is how many connections a second one address may open in the long run; 0 means 100. ConnectBurst is
	// how many it may open at once after it opened none for a while; 0 means 20,000, a large farm that comes back
	// after a power cut. A connection that is not Stratum counts as four, and each failed login as four more.
	ConnectRate, ConnectBurst int

	// RequestRate is how many requests a second one session may send in the long run; 0 means 200. RequestBurst is how
	// many it may send at once after a pause; 0 means what it may send in five seconds. A session that sends more is
	// not read from until it is back below. An agent may send as much for each of its machines.
	RequestRate, RequestBurst int

	// RequestPatience is how long a session may send more than RequestRate before it is closed, unless it mines well:
	// then its difficulty is too low, which is not its fault. 0 means 1m, negative never.
	RequestPatience time.Duration

	// InvalidPercent is the share of invalid submits that is too large; 0 means 50, negative turns all four grades
	// off.
	InvalidPercent int

	// A window ends after WindowSubmits submits, or with the first submit after WindowTime if there were at least 20.
	// 0 means 500 and 1m. Neither can be turned off.
	WindowSubmits int
	WindowTime    time.Duration

	BanTime    time.Duration // of the first ban; 0 means 10m, negative bans nobody and stops at grade 2
	MaxBanTime time.Duration // what doubling leads to at most; 0 means 1h, or BanTime where that is longer; at least BanTime

	// BadWorkers is how many different workers of one address must have been disconnected for invalid submits, or have
	// left after a warning without mending, before the address is banned; 0 means 4, negative never bans an address.
	BadWorkers int

	// LoginBackoff is the longest time for which a worker that was refused is refused again without the Authorizer
	// being asked. It begins with one second and doubles with each failure in a row; other workers of the address are
	// not affected. 0 means 10m, negative asks every time.
	LoginBackoff time.Duration

	// MaxRemembered bounds each of three lists of addresses and workers that outlive connections: those with nothing
	// against them, failed logins, and offenders. The oldest of a list is dropped for a new one. 0 means 32,768, which
	// takes at most 16 MB for each list. It cannot be turned off.
	MaxRemembered int
}

// minWindow is how many submits say something about a miner.
const minWindow = 20

func (l *Limits) complete() error {
	def := func(n *int, v int) {
		if *n == 0 {
			*n = v
		}
	}
	span := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&l.ConnectRate, 100)
	def(&l.ConnectBurst, 20000)
	def(&l.RequestRate, 200)
	def(&l.RequestBurst, min(l.RequestRate, maxRate)*5)
	span(&l.RequestPatience, time.Minute)
	def(&l.InvalidPercent, 50)
	def(&l.WindowSubmits, 500)
	span(&l.WindowTime, time.Minute)
	span(&l.BanTime, 10*time.Minute)
	span(&l.MaxBanTime, max(time.Hour, l.BanTime))
	def(&l.BadWorkers, 4)
	span(&l.LoginBackoff, 10*time.Minute)
	def(&l.MaxRemembered, 32768)

	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("stratum: limits: "+format, args...))
	}
	for i, p := range l.AllowList {
		if !p.IsValid() {
			bad("entry %d of the allow-list is not an address range", i+1)
		}
	}
	rate := func(what string, perSecond, burst int) {
		if perSecond > maxRate || perSecond > 0 && burst > maxBurst {
			bad("%s rate %d with burst %d, want at most %d and %d", what, perSecond, burst, maxRate, maxBurst)
		}
		if perSecond > 0 && burst < 1 {
			bad("%s burst %d, want at least 1; a negative rate turns the limit off", what, burst)
		}
	}
	rate("connect", l.ConnectRate, l.ConnectBurst)
	rate("request", l.RequestRate, l.RequestBurst)
	if l.InvalidPercent > 100 {
		bad("%d percent of submits cannot be invalid; a negative number turns the limit off", l.InvalidPercent)
	}
	if l.WindowSubmits < minWindow || l.WindowSubmits > 1<<30 {
		bad("a window of %d submits, want %d to %d", l.WindowSubmits, minWindow, 1<<30)
	}
	if l.WindowTime < 0 {
		bad("a window of %v", l.WindowTime)
	}
	if l.MaxBanTime < l.BanTime || l.MaxBanTime > maxBan {
		bad("longest ban %v, want at least the first, %v, and at most %v", l.MaxBanTime, l.BanTime, maxBan)
	}
	if l.LoginBackoff > maxBan {
		bad("login back-off %v, want at most %v", l.LoginBackoff, maxBan)
	}
	if l.MaxRemembered < 1 {
		bad("%d remembered addresses, want at least 1", l.MaxRemembered)
	}
	return errors.Join(errs...)
}

// Bounds that keep sums of nanoseconds far from overflowing.
const (
	maxRate  = 1_000_000_000
	maxBurst = 1_000_000_000
	maxBan   = 10 * 365 * 24 * time.Hour
)

// A BanInfo is one ban that is in force, for operators.
type BanInfo struct {
	// Address is the address, or the IPv6 /64, that the ban is for. It is 0.0.0.0/32 for connections whose address is
	// unknown.
	Address netip.Prefix

	Worker share.Worker  // the only worker banned there, zero when the whole address is
	Left   time.Duration // how long it still lasts
	Times  int           // how often in a row it was banned, from 1
	Reason string        // a sentence as the miner is told
}

// LimitStats count what Limits did since the server was made.
type LimitStats struct {
	RefusedBanned int64 // connections from addresses that were banned
	RefusedFull   int64 // connections beyond MaxPerAddress
	RefusedRate   int64 // connections beyond ConnectRate
	LoginsBanned  int64 // logins of workers that were banned
	LoginsDelayed int64 // logins refused without asking, after failed ones
	Throttled     int64 // times that a session began to send more than RequestRate
	TooFast       int64 // sessions closed for doing so for too long

	Warned       int64 // first grade: told so
	Disconnected int64 // second grade
	WorkerBans   int64 // third grade
	AddressBans  int64 // fourth grade

	BannedWorkers   int // now
	BannedAddresses int // now
	Remembered      int // addresses and workers in memory, connected ones included
}
