package stratum

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
)

// Options tune a Server. The zero value runs a sound public pool.
type Options struct {
	// KeepUserCase tells "Alice" from "alice"; otherwise user names are folded to lower case. Pools whose users are
	// base58 addresses need it.
	KeepUserCase bool

	// ServerID is the instance prefix of every extranonce1, 1 to 255; servers that share jobs must differ in it. 0
	// means 1.
	ServerID uint8

	// Extranonces replaces the server's own allocator.
	Extranonces Extranonces

	// Extranonce2Size is how many bytes the miner counts through, 4 to 8; 0 means 8.
	Extranonce2Size int

	// VersionMask holds the version bits that miners may roll (BIP 310); 0 means job.DefaultVersionMask. It must be
	// the one that jobs are built with.
	VersionMask uint32

	StartDifficulty difficulty.Difficulty // of a session that asks for none; 0 means 16384
	MinDifficulty   difficulty.Difficulty // 0 means 64
	MaxDifficulty   difficulty.Difficulty // 0 means difficulty.Max

	// NewPolicy makes the policy of a session that has just been authorized; nil means a difficulty.Vardiff with the
	// bounds above. What a policy decides is bounded and made assignable in any case.
	NewPolicy func(s *Session) difficulty.Policy

	// Validation tunes the judging of shares. VersionMask above takes precedence.
	Validation share.ValidatorOptions

	NotifyInterval   time.Duration // a job is sent at least this often; 0 means 30s
	HandshakeTimeout time.Duration // silence before authorize; 0 means 15s, negative never
	LoginTimeout     time.Duration // from accept to authorize; 0 means 60s, negative never
	IdleTimeout      time.Duration // silence after authorize; 0 means 10m, negative never
	WriteTimeout     time.Duration // a miner that takes nothing for so long is dropped; 0 means 2m, negative never
	DrainTimeout     time.Duration // what Serve waits for sessions to finish when it stops; 0 means 3s
	StaleGrace       time.Duration // shares for the last block that arrive this late are accepted; 0 means none

	MaxSessions int // further connections are refused; 0 means 16,000, negative no limit
	MaxLine     int // longest request line after authorize in bytes, 4 KiB before; 0 means 16 KiB
	MaxQueue    int // bytes waiting for one miner that does not read; 0 means 256 KiB

	Logger *slog.Logger // nil discards
	Hooks  Hooks
}

// Hooks are called on the session's goroutine and must return quickly. Any may be nil.
type Hooks struct {
	Connected    func(s *Session)
	Authorized   func(s *Session)
	Disconnected func(s *Session, reason error) // also of sessions that never authorized
	Shares       func(s *Session, shares []share.Share)
	Solved       func(s *Session, solution *share.Solution, err error) // err is that of the SolutionSink
	JobSent      func(j *job.Job, sessions int, took time.Duration)    // on the goroutine that follows the feed
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
	def(&o.IdleTimeout, 10*time.Minute)
	def(&o.WriteTimeout, 2*time.Minute)
	def(&o.DrainTimeout, 3*time.Second)
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
		o.MaxSessions = 16000
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
	if o.NotifyInterval < 0 || o.DrainTimeout < 0 || o.StaleGrace < 0 {
		bad("a negative interval")
	}
	if o.MaxLine < maxLineBeforeLogin || o.MaxQueue < 16<<10 {
		bad("line limit %d or queue limit %d is too small to work with", o.MaxLine, o.MaxQueue)
	}
	return errors.Join(errs...)
}
