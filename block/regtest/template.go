package regtest

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
)

// nodeName is what templates and rejections call the chain.
const nodeName = "regtest"

var _ job.TemplateSource = (*Chain)(nil)

// Watch puts a template at once and then for every new tip as soon as the chain has it, for new transactions every
// Options.TxInterval, and at least every 30 seconds for the time in it. A put that takes longer than that skips what
// was outdated meanwhile. Any number of Watch calls may run at once and see the same templates. Watch returns nil
// after ctx ends and an error that matches [ErrClosed] after Close.
func (c *Chain) Watch(ctx context.Context, put func(*job.Template)) error {
	var last *job.Template
	timer := time.NewTimer(math.MaxInt64)
	defer timer.Stop()
	for ctx.Err() == nil {
		t, changed, wait, err := c.template(time.Now())
		if err != nil {
			return fmt.Errorf("regtest: watch: %w", err)
		}
		if t != last {
			put(t)
			last = t
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-timer.C:
		}
	}
	return nil
}

// Template returns the block that the chain wants next. It is the one that Watch would put now, and shared with all
// others who ask.
func (c *Chain) Template() (*job.Template, error) {
	t, _, _, err := c.template(time.Now())
	if err != nil {
		return nil, fmt.Errorf("regtest: template: %w", err)
	}
	return t, nil
}

// template returns the current template, a channel that is closed when there is another one, and how long it stays
// the current one if nothing happens.
func (c *Chain) template(now time.Time) (*job.Template, <-chan struct{}, time.Duration, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.usable(); err != nil {
		return nil, nil, 0, err
	}
	if err := c.refresh(now); err != nil {
		return nil, nil, 0, err
	}
	next := c.tmpl.Received.Add(refreshInterval)
	if c.opts.TxInterval > 0 && len(c.waiting) < c.opts.MaxTxs && c.nextTx.Before(next) {
		next = c.nextTx
	}
	return c.tmpl, c.changed, max(next.Sub(now), time.Millisecond), nil
}

// refresh makes new transactions if it is time and a new template if there is a reason. c.mu is held.
func (c *Chain) refresh(now time.Time) error {
	best := c.chain.BestSnapshot()
	fresh := 0
	switch {
	case c.tmpl == nil || c.tmpl.PrevHash != best.Hash:
		c.waiting = c.wallet.keep(c.waiting, best.Height+1)
		c.batches = 0
		fresh = c.opts.TxsPerBlock
	case c.opts.TxInterval > 0 && !now.Before(c.nextTx) && len(c.waiting) < c.opts.MaxTxs:
		fresh = 1 + c.wallet.rand(&best.Hash, -1-c.batches).IntN(2)
	case now.Sub(c.tmpl.Received) < refreshInterval && !now.Before(c.tmpl.Received):
		return nil
	}
	if fresh > 0 {
		rnd := c.wallet.rand(&best.Hash, c.batches)
		made, err := c.wallet.makeTxs(rnd, min(fresh, c.opts.MaxTxs-len(c.waiting)), best.Height+1, c.waiting)
		if err != nil {
			return err
		}
		c.waiting = append(c.waiting, made...)
		c.batches++
	}
	if c.tmpl == nil || c.tmpl.PrevHash != best.Hash || fresh > 0 {
		c.nextTx = now.Add(c.opts.TxInterval)
	}

	t, err := c.makeTemplate(best, now)
	if err == nil {
		err = c.checkTemplate(t)
	}
	if err != nil && len(c.waiting) > 0 {
		// It would be a defect in this package. Going on with other transactions beats stopping every miner.
		c.opts.Logger.Error("regtest: dropping transactions that no block can hold", "count", len(c.waiting), "error", err)
		c.waiting = nil
		if t, err = c.makeTemplate(best, now); err == nil {
			err = c.checkTemplate(t)
		}
	}
	if err != nil {
		return err
	}
	c.tmpl = t
	c.announce()
	return nil
}

// announce wakes all who watch. c.mu is held.
func (c *Chain) announce() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// makeTemplate returns the template of a block with all waiting transactions. c.mu is held.
func (c *Chain) makeTemplate(best *blockchain.BestState, now time.Time) (*job.Template, error) {
	minTime := best.MedianTime.Unix() + 1
	curTime := max(now.Unix(), minTime)
	if curTime > math.MaxUint32 {
		return nil, fmt.Errorf("time %d does not fit into a header", curTime)
	}
	bits, err := c.chain.CalcNextRequiredDifficulty(time.Unix(curTime, 0))
	if err != nil {
		return nil, err
	}
	target, err := difficulty.FromBits(bits)
	if err != nil {
		return nil, err
	}
	version, err := c.chain.CalcNextBlockVersion()
	if err != nil {
		return nil, err
	}
	t := &job.Template{
		Received:      now,
		Source:        nodeName,
		PrevHash:      best.Hash,
		Height:        best.Height + 1,
		Version:       version,
		Bits:          bits,
		Target:        target,
		CurTime:       uint32(curTime),
		MinTime:       uint32(minTime),
		CoinbaseValue: blockchain.CalcBlockSubsidy(best.Height+1, c.params),
		Transactions:  make([]job.Transaction, len(c.waiting)),
		Rules:         []string{"csv", "!segwit", "taproot"}, // in force from the first block on
		Mutable:       []string{"time", "transactions", "prevblock"},
		SubmitOld:     true,
		NonceRange:    [2]uint32{0, math.MaxUint32},
		SigOpLimit:    blockchain.MaxBlockSigOpsCost,
		SizeLimit:     blockchain.MaxBlockWeight,
		WeightLimit:   blockchain.MaxBlockWeight,
	}
	for id, name := range map[uint32]string{
		chaincfg.DeploymentTestDummy:              "testdummy",
		chaincfg.DeploymentTestDummyMinActivation: "testdummy-min-activation",
	} {
		state, err := c.chain.ThresholdState(id)
		if err != nil {
			return nil, err
		}
		if state == blockchain.ThresholdStarted || state == blockchain.ThresholdLockedIn {
			if t.VBAvailable == nil {
				t.VBAvailable = make(map[string]int)
			}
			t.VBAvailable[name] = int(c.params.Deployments[id].BitNumber)
		}
	}

	position := make(map[chainhash.Hash]int, len(c.waiting)) // counted from 1
	for i, p := range c.waiting {
		e := p.entry
		for _, in := range p.msg.TxIn {
			if n, ok := position[in.PreviousOutPoint.Hash]; ok {
				e.Depends = append(e.Depends, n)
			}
		}
		position[e.TxID] = i + 1
		t.Transactions[i] = e
		t.CoinbaseValue += e.Fee
	}
	t.WitnessCommitment = job.WitnessCommitment(t.Transactions)
	t.ID = templateID(t)
	t.LongPollID = t.ID.String()
	return t, nil
}

// templateID hashes everything that tells one template from another.
func templateID(t *job.Template) chainhash.Hash {
	size := 256
	for i := range t.Transactions {
		size += 8 + len(t.Transactions[i].Data)
	}
	b := make([]byte, 0, size)
	b = append(b, "poolkit regtest template"...)
	b = append(b, t.PrevHash[:]...)
	b = binary.LittleEndian.AppendUint32(b, uint32(t.Height))
	b = binary.LittleEndian.AppendUint32(b, uint32(t.Version))
	b = binary.LittleEndian.AppendUint32(b, t.Bits)
	b = binary.LittleEndian.AppendUint32(b, t.CurTime)
	b = binary.LittleEndian.AppendUint32(b, t.MinTime)
	b = binary.LittleEndian.AppendUint64(b, uint64(t.CoinbaseValue))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(t.Transactions)))
	for i := range t.Transactions {
		b = binary.LittleEndian.AppendUint64(b, uint64(len(t.Transactions[i].Data)))
		b = append(b, t.Transactions[i].Data...)
	}
	return chainhash.DoubleHashH(b)
}

// checkTemplate asks the chain whether a block of the template would be good, its proof of work apart. c.mu is held.
func (c *Chain) checkTemplate(t *job.Template) error {
	msg, err := c.assemble(t, c.wallet.scripts[p2wpkh], 0)
	if err != nil {
		return err
	}
	return c.chain.CheckConnectBlockTemplate(btcutil.NewBlock(msg))
}
