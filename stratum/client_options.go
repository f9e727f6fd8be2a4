package stratum

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/poolkit/poolkit/difficulty"
)

// ClientOptions tune a Client. The zero value, with a user, watches or mines without version rolling.
type ClientOptions struct {
	User     string // such as "alice.rig01"; needed unless every pool's URL names one
	Password string // "" means "x"
	Agent    string // name and version of the software; "" means "poolkit/1"

	// Fallbacks are the pools to go to while the first one fails, in order of preference, written as the first one is.
	Fallbacks []string

	// TLS configures the connections of the schemes stratum+ssl, stratum+tls and stratum+tcps. nil means the system's
	// roots; an empty ServerName means the host of the pool.
	TLS *tls.Config

	// Dial connects to a pool, through a proxy for example; nil dials directly. TLS comes on top of what it returns.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)

	VersionMask         uint32                // version bits to ask for, BIP 310; 0 means no version rolling
	MinimumDifficulty   difficulty.Difficulty // lower bound to ask for, BIP 310; 0 means none
	SuggestDifficulty   difficulty.Difficulty // wish to tell after login; 0 means none
	SubscribeExtranonce bool                  // take mining.set_extranonce

	// AllowReconnect decides whether client.reconnect may lead from the host of a pool, as configured, to another
	// one. Whoever can write on a connection without TLS can send it, and would own the hashrate from then on. nil
	// allows the hosts of all configured pools, hosts below the pool's own, and those with the same parent domain, as
	// us.pool.example and eu.pool.example have. Without a list of the world's registries it takes what looks like one
	// ("co.uk") for one, but cannot know that strangers share a dyndns.example.
	AllowReconnect func(from, to string) bool

	LoginTimeout     time.Duration // from dialing to being authorized; 0 means 30s
	ReadTimeout      time.Duration // a pool without a whole line for so long is dead; 0 means 90s, negative never
	WriteTimeout     time.Duration // a pool that takes nothing for so long is dead; 0 means 30s, negative never
	ReplyTimeout     time.Duration // what Submit waits for a reply; 0 means 60s, negative forever
	DrainTimeout     time.Duration // what a session that is given up waits for replies to shares; 0 means 2s, negative nothing
	KeepAlive        time.Duration // a mining.ping is sent after so long without a request; 0 means 4m, negative never
	ReconnectMin     time.Duration // wait before the first new attempt, doubled for each that follows; 0 means 1s
	ReconnectMax     time.Duration // bound of that, and what a session must last to start at the minimum again; 0 means 1m
	MaxReconnectWait time.Duration // bound of the wait that client.reconnect may ask for; 0 means 1m, negative no wait
	FailbackInterval time.Duration // how often a better pool is tried from a fallback; 0 means 5m, negative never

	MaxInFlight int // shares without a reply, beyond which Submit waits; 0 means 256
	MaxLine     int // longest line from the pool in bytes; 0 means 64 KiB

	Logger *slog.Logger // nil discards
	Hooks  ClientHooks
}

// ClientHooks are called on the goroutine of Run, one at a time, and must return quickly. They must not wait for a
// Submit, whose reply is read by that goroutine. Any may be nil. Pools are named by their URL without credentials.
type ClientHooks struct {
	Connected    func(pool string)            // logged in
	Disconnected func(pool string, err error) // the end of a session, and an attempt that failed
	Job          func(j *ClientJob)           // every job, also those that NextJob skips
	Message      func(pool, text string)      // client.show_message: at most 256 bytes of printable text
}

func (o *ClientOptions) complete() error {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&o.LoginTimeout, 30*time.Second)
	def(&o.ReadTimeout, 90*time.Second)
	def(&o.WriteTimeout, 30*time.Second)
	def(&o.ReplyTimeout, time.Minute)
	def(&o.DrainTimeout, 2*time.Second)
	def(&o.KeepAlive, 4*time.Minute)
	def(&o.ReconnectMin, time.Second)
	def(&o.ReconnectMax, max(time.Minute, o.ReconnectMin))
	def(&o.MaxReconnectWait, time.Minute)
	def(&o.FailbackInterval, 5*time.Minute)
	if o.Password == "" {
		o.Password = "x"
	}
	if o.Agent == "" {
		o.Agent = "poolkit/1"
	}
	if o.MaxInFlight == 0 {
		o.MaxInFlight = 256
	}
	if o.MaxLine == 0 {
		o.MaxLine = 64 << 10
	}
	if o.Dial == nil {
		o.Dial = new(net.Dialer).DialContext
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}

	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("stratum: client options: "+format, args...))
	}
	for _, d := range []struct {
		name string
		d    difficulty.Difficulty
	}{{"minimum", o.MinimumDifficulty}, {"suggested", o.SuggestDifficulty}} {
		if d.d != 0 && !d.d.Valid() {
			bad("%s difficulty %v is not positive and finite", d.name, d.d)
		}
	}
	if o.LoginTimeout < 0 || o.ReconnectMin < 0 || o.ReconnectMax < o.ReconnectMin {
		bad("login timeout %v, reconnect waits %v to %v: want positive ones in this order",
			o.LoginTimeout, o.ReconnectMin, o.ReconnectMax)
	}
	if o.MaxInFlight < 0 || o.MaxLine < 1<<10 {
		bad("%d shares in flight or lines of %d bytes are too few to work with", o.MaxInFlight, o.MaxLine)
	}
	return errors.Join(errs...)
}
