package stratum

import (
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
)

// Options tune a Server. The zero value runs a sound public pool.
type Options struct {
	Names      NameRules  // which spellings of a user are one user
	SingleUser SingleUser // credits all work to one account
	Limits     Limits     // against miners that are broken, too many or hostile
	Router     Router     // nil where the feed has the jobs of one chain
	Events     EventSink  // who comes and goes; nil for nobody who wants to know

	// ServerID is the instance prefix of every extranonce1, 1 to 255; servers that share jobs must differ in it. 0
	// means 1.
	ServerID uint8

	// Extranonces replaces the server's own allocator, a Prefixes of ServerID. For sessions to outlive the process it has
	// to be a Reserver.
	Extranonces Extranonces

	// Extranonce2Size is how many bytes the miner counts through, 4 to 8; 0 means 8.
	Extranonce2Size int

	// VersionMask holds the version bits that miners may roll (BIP 310); 0 means job.DefaultVersionMask, the bits of
	// BIP 320. [BIP323VersionMask] is wider. It must be the one that jobs are built with.
	VersionMask uint32

	// The difficulties are whole numbers or powers of two; a Port may have its own. Which one counts when a miner asks
	// for another stands in the package comment.
	StartDifficulty difficulty.Difficulty // of a session that asks for none and had none before; 0 means 16384
	MinDifficulty   difficulty.Difficulty // 0 means 64, or StartDifficulty where that is lower
	MaxDifficulty   difficulty.Difficulty // 0 means difficulty.Max

	// AboveNetwork lets difficulties be above the network's own, as on a regtest, whose blocks are easier than one wants
	// shares to be. Otherwise no job goes out with a higher one than the network has for it, whatever miners ask for and
	// minima, ports and policies say: miners send their shares, and keep a block to themselves that is none.
	AboveNetwork bool

	// NewPolicy makes the policy of a session that is being authorized, and of each machine that registers behind an
	// agent; nil, and a nil policy, mean a difficulty.Sequential with the bounds above. What a policy decides is bounded and
	// made assignable in any case. The session has its address and software, but no worker yet, unless it is an agent
	// whose machine is meant.
	NewPolicy func(s *Session) difficulty.Policy

	// Difficulties remembers what is known of workers, so that one that comes back starts where it was: the State of a
	// policy that is a difficulty.Keeper, and the last difficulty of any other. It is told when a session or a machine
	// behind an agent ends, but for one that was silent, and every five minutes while there are shares. Of several machines of one name the last one told of counts. Nil
	// means a DifficultyMemory, which ends with the process; [OpenDifficulties] keeps a file. What is older than
	// KeepDifficulty does not count: a machine that was away for longer may well be another one, or tuned otherwise. 0
	// means 24h, negative remembers nothing.
	Difficulties   DifficultyStore
	KeepDifficulty time.Duration

	// Validation tunes the judging of shares. VersionMask above takes precedence. Of an agent, whose machines share one
	// memory, MaxShares is at least 4,194,304.
	Validation share.ValidatorOptions

	// NiceHash says how miners rented from that marketplace are treated.
	NiceHash NiceHashOptions

	// MultiWorker lets one connection authorize several users, as some proxies do: a share is then credited to the
	// worker that mining.submit names, where that one was authorized on the connection, and else to the first. They have
	// one difficulty. Without it a connection mines for one user, whose machine may change its name, and the name in
	// mining.submit is not looked at.
	MultiWorker bool

	// MaxAgentWorkers bounds the machines behind one BTCAgent connection, 1 to 65,535; 0 means 65,535. Further ones
	// are not registered, and their shares are refused with code 24.
	MaxAgentWorkers int

	// MaxMachines bounds the machines behind all agents together, each of which costs somewhat more than a kilobyte. 0
	// means 262,144.
	MaxMachines int

	// ResumeTime is how long a miner that lost its connection can have its session back: its extranonce1, its
	// difficulty as it was, the jobs it was sent and the shares that are remembered. 0 means 10m, negative never. A session that
	// nobody comes back for costs about a kilobyte until then, and what its shares of the last ten minutes take: some 10 KB
	// at one share in ten seconds, 50 to 80 bytes each where there are many. The jobs are kept from the garbage collector
	// as long. The oldest beyond MaxParked are given up.
	ResumeTime time.Duration
	MaxParked  int // 0 means as many as MaxSessions, at most 65,536

	// LongTimeoutAgents are matched against the software that miners name, as Session.Agent returns it, without regard
	// to case. Those that match may be silent for seven days, like BTCAgent, NiceHash and pool watchers. Nil matches none.
	LongTimeoutAgents *regexp.Regexp

	// CleanChangeAgents are matched like LongTimeoutAgents. Jobs that come with a new difficulty are sent to those as
	// clean: some firmware otherwise sends its last shares again. It is of no effect on agents.
	CleanChangeAgents *regexp.Regexp

	NotifyInterval   time.Duration // a job is sent at least this often; 0 means 30s
	HandshakeTimeout time.Duration // silence before authorize; 0 means 15s, negative never
	LoginTimeout     time.Duration // from accept to authorize; 0 means 60s, negative never
	AuthorizeTimeout time.Duration // what the Authorizer may take, registration included, and the Router; 0 means 60s
	IdleTimeout      time.Duration // silence after authorize; 0 means 10m, negative never
	WriteTimeout     time.Duration // a miner that does not take what is written is dropped; 0 means 2m, negative never
	DrainTimeout     time.Duration // what Serve waits for sessions to finish when it stops; 0 means 3s
	StaleGrace       time.Duration // shares for the last block that arrive this late are accepted; 0 means none

	// MaxSessions is how many connections may be open; further ones are closed. An agent is one. 0 means as many as the process may have
	// file descriptors, less 256 for files of its own, or 65,536 where the system names no limit. Negative is no limit.
	MaxSessions int

	MaxLine  int // longest request line after authorize in bytes, 4 KiB before; 0 means 16 KiB
	MaxQueue int // bytes that may wait for one miner, which is dropped when more would; 0 means 256 KiB

	Logger *slog.Logger // nil discards
	Hooks  Hooks
}

// NiceHashOptions tune how sessions of the NiceHash marketplace are treated: they have a minimum difficulty of their
// own, job ids that are not used again for years, and may be silent for seven days.
type NiceHashOptions struct {
	// MinDifficulty is the lowest difficulty that the marketplace accepts work at, rounded up to a power of two. 0
	// means 524,288; [difficulty.Min] leaves it to the server's own minimum.
	MinDifficulty difficulty.Difficulty

	// Forced takes every miner for one of NiceHash, for a server that serves nobody else. Otherwise they are known by
	// their user agent, which begins with "NiceHash/" in any case.
	Forced bool
}

// NoLimits returns Limits that are all turned off, for measurements and for servers that only friends can reach.
func NoLimits() Limits {
	return Limits{MaxPerAddress: -1, ConnectRate: -1, RequestRate: -1, RequestPatience: -1, InvalidPercent: -1,
		BanTime: -1, BadWorkers: -1, LoginBackoff: -1}
}

// BIP323VersionMask holds the 24 version bits that BIP 323 gives to miners, for [Options.VersionMask] and
// job.BuilderOptions.
const BIP323VersionMask uint32 = 0x1fffffe0

// Hooks are called by whoever works for the session, which may be the poller with thousands of others to serve, and must
// return quickly. Those of one session do not overlap, those of several do. Any may be nil.
type Hooks struct {
	Connected    func(s *Session)               // its address is known, and not banned
	Authorized   func(s *Session)               // again when the worker changes
	Disconnected func(s *Session, reason error) // also of sessions that never authorized, or never Connected

	// Registered tells of a machine behind an agent, or of one more worker of a connection with MultiWorker.
	Registered func(s *Session, worker share.Worker, userID int32)

	// Shares tells of shares that the sink has taken, accepted and refused. The slice is used again afterwards.
	Shares func(s *Session, shares []share.Share)

	Solved func(s *Session, solution *share.Solution, err error) // err is that of the SolutionSink

	// JobSent tells of a job that was pushed to so many sessions. It is called by the goroutine that pushes.
	JobSent func(j *job.Job, sessions int, took time.Duration)
}

const maxLineBeforeLogin = 4 << 10

func (o *Options) complete() error {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&o.NotifyInterval, 30*time.Second)
	def(&o.HandshakeTimeout, 15*time.Second)
	def(&o.LoginTimeout, time.Minute)
	def(&o.AuthorizeTimeout, time.Minute)
	def(&o.IdleTimeout, 10*time.Minute)
	def(&o.WriteTimeout, 2*time.Minute)
	def(&o.DrainTimeout, 3*time.Second)
	def(&o.ResumeTime, 10*time.Minute)
	def(&o.KeepDifficulty, 24*time.Hour)
	if o.MaxAgentWorkers == 0 {
		o.MaxAgentWorkers = maxAgentWorkers
	}
	if o.MaxMachines == 0 {
		o.MaxMachines = 1 << 18
	}
	if o.NiceHash.MinDifficulty == 0 {
		o.NiceHash.MinDifficulty = 524288
	}
	if o.ServerID == 0 {
		o.ServerID = 1
	}
	if o.Extranonce2Size == 0 {
		o.Extranonce2Size = job.Extranonce2Size
	}
	if o.VersionMask == 0 {
		o.VersionMask = job.DefaultVersionMask
	}
	if o.StartDifficulty == 0 {
		o.StartDifficulty = 16384
	}
	if o.MinDifficulty == 0 {
		o.MinDifficulty = min(64, o.StartDifficulty)
	}
	if o.MaxDifficulty == 0 {
		o.MaxDifficulty = difficulty.Max
	}
	if o.MaxSessions == 0 {
		o.MaxSessions = 1 << 16
		if n := maxDescriptors(); n > 0 {
			o.MaxSessions = max(n-256, n/2)
		}
	}
	if o.MaxParked == 0 {
		o.MaxParked = 1 << 16
		if o.MaxSessions > 0 {
			o.MaxParked = min(o.MaxParked, o.MaxSessions)
		}
	}
	if o.MaxLine == 0 {
		o.MaxLine = 16 << 10
	}
	if o.MaxQueue == 0 {
		o.MaxQueue = 256 << 10
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Validation.VersionMask = o.VersionMask

	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("stratum: options: "+format, args...))
	}
	if o.Extranonce2Size < 4 || o.Extranonce2Size > job.Extranonce2Size {
		bad("extranonce2 of %d bytes, want 4 to %d", o.Extranonce2Size, job.Extranonce2Size)
	}
	if err := o.Limits.complete(); err != nil {
		errs = append(errs, err)
	}
	if (o.SingleUser.Name == "") != (o.SingleUser.UserID == 0) || o.SingleUser.UserID < 0 {
		bad("single user %q with number %d: both are needed", o.SingleUser.Name, o.SingleUser.UserID)
	}
	if o.MaxMachines < 0 {
		bad("%d machines behind agents", o.MaxMachines)
	}
	if o.MaxAgentWorkers < 1 || o.MaxAgentWorkers > maxAgentWorkers {
		bad("%d workers behind an agent, want 1 to %d", o.MaxAgentWorkers, maxAgentWorkers)
	}
	if d := o.NiceHash.MinDifficulty; d < difficulty.Min || d > difficulty.Max {
		bad("NiceHash minimum difficulty %v is not between 2^-32 and 2^62", d)
	}
	for _, d := range []struct {
		name string
		d    difficulty.Difficulty
	}{{"start", o.StartDifficulty}, {"minimum", o.MinDifficulty}, {"maximum", o.MaxDifficulty}} {
		if d.d < difficulty.Min || d.d > difficulty.Max || !d.d.Assignable() {
			bad("%s difficulty %v is neither whole nor a power of two between 2^-32 and 2^62", d.name, d.d)
		}
	}
	if o.MinDifficulty > o.MaxDifficulty {
		bad("minimum difficulty %v is above the maximum %v", o.MinDifficulty, o.MaxDifficulty)
	} else if o.StartDifficulty < o.MinDifficulty || o.StartDifficulty > o.MaxDifficulty {
		bad("start difficulty %v is outside [%v, %v]", o.StartDifficulty, o.MinDifficulty, o.MaxDifficulty)
	}
	for _, re := range []**regexp.Regexp{&o.LongTimeoutAgents, &o.CleanChangeAgents} {
		if *re == nil {
			continue
		}
		folded, err := regexp.Compile("(?i)" + (*re).String())
		if err != nil {
			bad("agents matched without regard to case: %w", err)
			continue
		}
		*re = folded
	}
	if o.NotifyInterval < 0 || o.DrainTimeout < 0 || o.StaleGrace < 0 {
		bad("a negative interval")
	}
	if o.MaxLine < maxLineBeforeLogin || o.MaxQueue < 16<<10 {
		bad("line limit %d or queue limit %d is too small to work with", o.MaxLine, o.MaxQueue)
	}
	return errors.Join(errs...)
}
