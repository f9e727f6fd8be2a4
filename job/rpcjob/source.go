package rpcjob

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/poolkit/poolkit/internal/noderpc"
	"github.com/poolkit/poolkit/job"
)

var _ job.TemplateSource = (*Source)(nil)

// A Source takes templates from one node. Its methods may be called concurrently.
type Source struct {
	rpc  *noderpc.Client
	opts Options

	// signet says that the node wants to hear the rule of that name.
	signet atomic.Bool

	mu    sync.Mutex // guards stats
	stats Stats
}

// New returns a Source for node, or everything that is wrong with its description and opts. It opens no connection;
// see [Source.Check].
func New(node Node, opts *Options) (*Source, error) {
	s := &Source{}
	if opts != nil {
		s.opts = *opts
	}
	err := s.opts.fill()
	rpc, rpcErr := noderpc.New(node, &noderpc.Options{Timeout: s.opts.Timeout, MaxReply: s.opts.MaxReply})
	if rpcErr != nil {
		err = errors.Join(err, fmt.Errorf("rpcjob: %w", rpcErr))
	}
	if err != nil {
		return nil, err
	}
	s.rpc = rpc
	s.opts.Logger = s.opts.Logger.With("node", rpc.Name())
	return s, nil
}

// Name returns the scheme and host of the node, which is also the Source of its templates.
func (s *Source) Name() string { return s.rpc.Name() }

// Stats returns the counters since New.
func (s *Source) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

func (s *Source) count(f func(*Stats)) {
	s.mu.Lock()
	f(&s.stats)
	s.mu.Unlock()
}

// templateRequest is the parameter of getblocktemplate (BIP 22, BIP 9). The capability "coinbasevalue" tells btcd that
// the coinbase is made here, so that it needs no mining address of its own.
type templateRequest struct {
	Capabilities []string `json:"capabilities"`
	Rules        []string `json:"rules"`
	LongPollID   string   `json:"longpollid,omitempty"`
}

// template requests one template; with a pollID, the node holds the answer until the template of that id is outdated.
func (s *Source) template(ctx context.Context, pollID string) (*job.Template, error) {
	body, err := s.call(ctx, pollID)
	var rpcErr *RPCError
	if errors.As(err, &rpcErr) && strings.Contains(rpcErr.Message, "signet rule") && s.signet.CompareAndSwap(false, true) {
		// bitcoind on signet insists that the caller names the rule (BIP 325).
		body, err = s.call(ctx, pollID)
	}
	if err != nil {
		return nil, err
	}
	t, err := job.ParseTemplate(body, time.Now())
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", s.rpc.Name(), err)
	}
	t.Source = s.rpc.Name()
	return t, nil
}

func (s *Source) call(ctx context.Context, pollID string) ([]byte, error) {
	rules := s.opts.Rules
	if s.signet.Load() && !slices.Contains(rules, "signet") {
		rules = append(slices.Clone(rules), "signet")
	}
	return s.rpc.CallRaw(ctx, "getblocktemplate", []templateRequest{{
		Capabilities: []string{"coinbasevalue", "longpoll"},
		Rules:        rules,
		LongPollID:   pollID,
	}})
}
