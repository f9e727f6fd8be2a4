package rpcjob

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/poolkit/poolkit/internal/noderpc"
)

// A Node says how to reach a bitcoind or btcd: URL, user and password or cookie file, and certificate.
type Node = noderpc.Node

// An RPCError is an error that the node itself reported, with its code and message.
type RPCError = noderpc.RPCError

// ErrUnauthorized matches errors about a node that refused the user and password or this machine's address.
var ErrUnauthorized = noderpc.ErrUnauthorized

// Options tune a Source. The zero value long-polls and polls every 5 s.
type Options struct {
	// Interval is the time from one template to the request for the next when nothing is noticed earlier, and with it
	// the longest that new transactions wait; 0 means 5 s.
	Interval time.Duration

	// RetryInterval is the time from a failure to the next attempt; 0 means 1 s.
	RetryInterval time.Duration

	// Timeout bounds one template request and each call of Check, long polls excepted; 0 means 5 s.
	Timeout time.Duration

	// LongPollTimeout bounds one long poll, after which the next one starts; 0 means 10 min, negative turns long
	// polling off.
	LongPollTimeout time.Duration

	// ZMQ are the endpoints of the node's hashblock publisher, zmqpubhashblock in bitcoin.conf, such as
	// "tcp://127.0.0.1:28332". A publisher that is missing or silent is warned about and tried again; nothing waits
	// for it.
	ZMQ []string

	// ZMQTimeout is how long a publisher may be silent before it is connected to anew; 0 means 20 min.
	ZMQTimeout time.Duration

	// AllowNoPeers lets Check pass a node without peers. On regtest that is always allowed.
	AllowNoPeers bool

	// Rules are the consensus rules that the template request names (BIP 9); nil means "segwit". On signet, "signet"
	// joins them by itself.
	Rules []string

	// MaxReply is the largest reply taken, in bytes; 0 means 64 MiB.
	MaxReply int64

	// Logger is told about failures and about their end; nil discards.
	Logger *slog.Logger

	Hooks Hooks
}

// Hooks are called on the goroutine of Watch, so they return quickly.
type Hooks struct {
	// Tip is called after the first template on a new tip has been put.
	Tip func(Notice)

	// Failed is called after each request that failed and each ZMQ connection that ended or could not be made.
	Failed func(way Way, err error)
}

// A Way is one of the ways in which a new tip is noticed.
type Way uint8

// The ways.
const (
	Poll     Way = iota // the template request that is due each Interval
	LongPoll            // a getblocktemplate that the node held until something changed (BIP 22)
	ZMQ                 // a hashblock message of the node's publisher
	numWays
)

// String returns the way as logs spell it.
func (w Way) String() string {
	switch w {
	case Poll:
		return "poll"
	case LongPoll:
		return "longpoll"
	case ZMQ:
		return "zmq"
	}
	return fmt.Sprintf("way(%d)", uint8(w))
}

// A Notice says how a new tip was noticed.
type Notice struct {
	Tip    chainhash.Hash // the block that the next one builds on
	Height int32          // of the next block
	Way    Way            // which way was first

	// Took is the time from the notice until the template was parsed and put. The notice is the ZMQ message, or the
	// first byte of the long poll's or poll's reply.
	Took time.Duration
}

// Stats are counters since New.
type Stats struct {
	Templates  uint64 // put
	Tips       uint64 // tips put; Templates on a tip that was put before make up the rest
	Duplicates uint64 // replies dropped since their tip or their very bytes had been put by another way

	// ByPoll, ByLongPoll and ByZMQ are the tips that each way noticed first. The first template of all is a poll's.
	ByPoll, ByLongPoll, ByZMQ uint64

	Requests         uint64 // template requests sent, long polls not among them
	Failures         uint64 // of them, those that brought no template
	LongPolls        uint64 // long polls sent
	LongPollFailures uint64 // of them, those that ended in an error other than their timeout
	ZMQMessages      uint64 // hashblock messages received
	ZMQFailures      uint64 // ZMQ connections that ended or could not be made

	LastTemplate time.Time     // when the last template was put; zero when none was
	LastTook     time.Duration // Notice.Took of the last tip
}

func (o *Options) fill() error {
	var errs []error
	positive := func(name string, d *time.Duration, def time.Duration) {
		switch {
		case *d < 0:
			errs = append(errs, fmt.Errorf("rpcjob: options: negative %s %v", name, *d))
		case *d == 0:
			*d = def
		}
	}
	positive("Interval", &o.Interval, 5*time.Second)
	positive("RetryInterval", &o.RetryInterval, time.Second)
	positive("Timeout", &o.Timeout, 5*time.Second)
	positive("ZMQTimeout", &o.ZMQTimeout, 20*time.Minute)
	if o.LongPollTimeout == 0 {
		o.LongPollTimeout = 10 * time.Minute
	}
	o.ZMQ = slices.Clone(o.ZMQ)
	for _, ep := range o.ZMQ {
		if _, _, err := splitEndpoint(ep); err != nil {
			errs = append(errs, fmt.Errorf("rpcjob: options: ZMQ: %w", err))
		}
	}
	o.Rules = slices.Clone(o.Rules)
	if o.Rules == nil {
		o.Rules = []string{"segwit"}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return errors.Join(errs...)
}
