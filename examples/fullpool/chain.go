package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/poolkit/poolkit/block"
	"github.com/poolkit/poolkit/block/regtest"
	"github.com/poolkit/poolkit/block/rpcblock"
	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/job/rpcjob"
)

// A backend is what the pool knows of the network: nodes, or a chain of its own.
type backend struct {
	name    string
	source  job.TemplateSource
	submit  block.Submitter
	confirm block.Confirmer
	address string // that blocks pay to
	payout  []byte
	// confirmDepth is how many confirmations make a block more than a candidate; 0 means the library's choice.
	confirmDepth int64
	closers      []io.Closer
}

func (b *backend) Close() error {
	var errs []error
	for _, c := range b.closers {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// embeddedDifficulty makes one CPU core find a block every few seconds. It is a variable for the tests, whose CPU miner
// the race detector slows down.
var embeddedDifficulty difficulty.Difficulty = 0.005

func openEmbedded(c *config, log *slog.Logger) (*backend, error) {
	chain, err := regtest.Open(filepath.Join(c.Data, "chain"), &regtest.Options{
		Bits:   embeddedDifficulty.Target().Bits(),
		Logger: log,
	})
	if err != nil {
		return nil, err
	}
	addr := c.Address
	if addr == "" {
		addr = chain.ThrowawayAddress().String()
	}
	payout, err := job.PayoutScript(addr, chain.Params())
	if err != nil {
		return nil, errors.Join(err, chain.Close())
	}
	return &backend{
		name: "embedded chain", source: chain, submit: chain, confirm: chain,
		address: addr, payout: payout, confirmDepth: 1, closers: []io.Closer{chain},
	}, nil
}

func openNodes(ctx context.Context, c *config, log *slog.Logger) (*backend, error) {
	params := networks[c.Network]
	payout, err := job.PayoutScript(c.Address, params)
	if err != nil {
		return nil, err
	}
	b := &backend{address: c.Address, payout: payout}
	var sources []job.TemplateSource
	var submitters []block.Node
	var confirmers []block.Confirmer
	for i, url := range c.Nodes {
		node := rpcjob.Node{
			URL: url, User: c.NodeUser, Pass: c.NodePass, CookieFile: c.Cookie, CertFile: c.Cert,
		}
		zmq := c.ZMQ
		if len(c.Nodes) > 1 && len(zmq) > 0 {
			zmq = zmq[i : i+1]
		}
		source, err := rpcjob.New(node, &rpcjob.Options{ZMQ: zmq, Logger: log})
		if err != nil {
			return nil, err
		}
		check, cancel := context.WithTimeout(ctx, 15*time.Second)
		err = source.Check(check, params)
		cancel()
		var untrusted x509.UnknownAuthorityError
		if errors.As(err, &untrusted) {
			return nil, fmt.Errorf("%s: its certificate is not trusted (%w): name the node's rpc.cert with -node-cert",
				source.Name(), untrusted)
		}
		if err != nil {
			return nil, err
		}
		submitter, err := rpcblock.New(node, nil)
		if err != nil {
			return nil, err
		}
		sources = append(sources, source)
		submitters = append(submitters, block.Node{Name: source.Name(), Submitter: submitter})
		confirmers = append(confirmers, submitter)
	}
	nodes, err := block.NewNodes(submitters, &block.NodesOptions{CloseTimeout: stopWithin, Logger: log})
	if err != nil {
		return nil, err
	}
	// The name is published, so it must not be the URL, which may hold a password.
	b.name = "node " + submitters[0].Name
	if len(submitters) > 1 {
		b.name = fmt.Sprintf("%d nodes", len(submitters))
	}
	b.source, b.submit, b.confirm = job.Sources(sources...), nodes, block.Confirmers(confirmers...)
	b.closers = append(b.closers, nodes)
	return b, nil
}
