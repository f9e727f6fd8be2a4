package main

import (
	"bytes"
	"context"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/poolkit/poolkit/internal/testnode"
	"github.com/poolkit/poolkit/stratum/stratumtest"
	"github.com/stretchr/testify/require"
)

// nodeDiff is 2^-16: a share takes 65536 hashes, and on regtest, where every second hash is a block, is always one.
const nodeDiff = "0.0000152587890625"

const (
	nodeText     = "/node test/"
	nodePatience = 60 * time.Second // for what is not measured, on a machine that is busy with other tests
	nodeStopTime = 5 * time.Second  // what an operator may wait for after Ctrl-C
)

// A nodeLog is what a pool has written.
type nodeLog struct {
	mu    sync.Mutex
	text  bytes.Buffer
	grown chan struct{} // closed and replaced by each Write
}

func (l *nodeLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.grown)
	l.grown = make(chan struct{})
	return l.text.Write(b)
}

func (l *nodeLog) read() (string, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String(), l.grown
}

func (l *nodeLog) String() string {
	text, _ := l.read()
	return text
}

// A nodePool is a pool that runs in this process.
type nodePool struct {
	t      *testing.T
	out    *nodeLog // what came to stdout
	errs   *nodeLog // what came to stderr
	miners string   // host:port
	web    string   // URL without a path
	cancel context.CancelFunc
	ended  chan struct{} // closed when code is known
	code   int
}

// nodeRun runs a pool and returns when it is open. It ends with the test.
func nodeRun(t *testing.T, args ...string) *nodePool {
	t.Helper()
	p := &nodePool{
		t: t, out: &nodeLog{grown: make(chan struct{})}, errs: &nodeLog{grown: make(chan struct{})}, ended: make(chan struct{}),
	}
	args = append([]string{"-listen", "127.0.0.1:0", "-http", "127.0.0.1:0"}, args...)
	var ctx context.Context
	ctx, p.cancel = context.WithCancel(context.Background())
	go func() {
		defer close(p.ended)
		p.code = Main(ctx, args, p.out, p.errs)
	}()
	t.Cleanup(func() {
		p.cancel()
		<-p.ended
		if t.Failed() {
			t.Logf("the pool said:\n%s%s", p.out, p.errs)
		}
	})
	open := p.await(`msg="the pool is open" miners=stratum\+tcp://(\S+) statistics=(http://[^/\s]+)/`)
	p.miners, p.web = open[1], open[2]
	return p
}

// await waits until the log matches and returns the match with its groups.
func (p *nodePool) await(pattern string) []string {
	p.t.Helper()
	re := regexp.MustCompile(pattern)
	limit := time.After(nodePatience)
	for {
		text, grown := p.out.read()
		if m := re.FindStringSubmatch(text); m != nil {
			return m
		}
		select {
		case <-grown:
		case <-p.ended:
			// It may have been among the last words.
			if m := re.FindStringSubmatch(p.out.String()); m != nil {
				return m
			}
			p.t.Fatalf("the pool ended with code %d and without %q", p.code, pattern)
		case <-limit:
			p.t.Fatalf("no %q in the log", pattern)
		}
	}
}

// stop stops the pool as Ctrl-C does and checks that it ends well and in time.
func (p *nodePool) stop() {
	p.t.Helper()
	began := time.Now()
	p.cancel()
	select {
	case <-p.ended:
	case <-time.After(nodePatience):
		p.t.Fatal("the pool does not stop")
	}
	took := time.Since(began)
	p.t.Logf("the pool stopped in %v", took.Round(time.Millisecond))
	require.Zero(p.t, p.code, "exit code; stderr: %s", p.errs)
	require.Less(p.t, took, nodeStopTime)
	require.Empty(p.t, p.errs.String(), "stderr")
}

// nodeAddress returns the P2WPKH address of a key that nobody has, and the script that pays to it.
func nodeAddress(t *testing.T, params *chaincfg.Params) (addr string, script []byte) {
	t.Helper()
	a, err := address.NewAddressWitnessPubKeyHash(bytes.Repeat([]byte{0x5a}, 20), params)
	require.NoError(t, err)
	script, err = txscript.PayToAddrScript(a)
	require.NoError(t, err)
	return a.EncodeAddress(), script
}

// nodeArgs are the flags of a pool on a node.
func nodeArgs(n *testnode.Node, addr, data string) []string {
	rpc := n.Node()
	return []string{
		"-node", rpc.URL, "-node-user", rpc.User, "-node-pass", rpc.Pass, "-node-cert", rpc.CertFile,
		"-address", addr, "-coinbase-text", nodeText, "-data", data,
		"-diff", nodeDiff, "-min-diff", nodeDiff, "-vardiff=false",
	}
}

// A nodeMiner is a miner whose steps the test takes.
type nodeMiner struct {
	*stratumtest.Miner
	t *testing.T
}

func nodeDial(t *testing.T, p *nodePool) *nodeMiner {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), nodePatience)
	defer cancel()
	m, err := stratumtest.Dial(ctx, p.miners, &stratumtest.MinerOptions{User: "alice.steps", VersionMask: 0x1fffe000})
	require.NoError(t, err)
	t.Cleanup(func() { m.Close() })
	require.NoError(t, m.Handshake(ctx))
	return &nodeMiner{m, t}
}

// jobOn waits for the first job on prev that is still to come.
func (m *nodeMiner) jobOn(prev chainhash.Hash) *stratumtest.Job {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), nodePatience)
	defer cancel()
	for {
		j, err := m.NextJob(ctx)
		require.NoError(m.t, err, "wait for a job on %v", prev)
		if j.PrevHash == prev {
			return j
		}
	}
}

// find hashes until it has a block on the job, submits it, and returns its hash.
func (m *nodeMiner) find(j *stratumtest.Job) chainhash.Hash {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), nodePatience)
	defer cancel()
	s, err := m.Solve(ctx, j)
	require.NoError(m.t, err)
	network, err := j.NetworkTarget()
	require.NoError(m.t, err)
	require.True(m.t, network.MetBy(&s.Hash), "a share of this difficulty is a block on regtest")
	reply, err := m.Submit(ctx, s)
	require.NoError(m.t, err)
	require.NoError(m.t, reply.Err())
	return s.Hash
}

// nodeBlocks reads the blocks of the best chain that build upon a block of it, the lowest first. The chain may grow
// meanwhile.
func nodeBlocks(n *testnode.Node, upon chainhash.Hash) []*wire.MsgBlock {
	var blocks []*wire.MsgBlock
	for hash := n.Tip(); hash != upon; {
		b := n.Block(hash)
		blocks = append(blocks, b)
		hash = b.Header.PrevBlock
	}
	slices.Reverse(blocks)
	return blocks
}

// requireOurs checks that a block of the node at that height was made as the pool should make it. The fees are what its
// transactions pay, in satoshi.
func requireOurs(t *testing.T, b *wire.MsgBlock, height int32, fees int64, script []byte) {
	t.Helper()
	coinbase := b.Transactions[0]
	require.Contains(t, string(coinbase.TxIn[0].SignatureScript), nodeText)

	block := btcutil.NewBlock(b)
	got, err := blockchain.ExtractCoinbaseHeight(block.Transactions()[0])
	require.NoError(t, err)
	require.Equal(t, height, got, "BIP 34 height")

	// One output has the whole value and the other, the commitment, none.
	var paid int64
	for _, out := range coinbase.TxOut {
		if bytes.Equal(out.PkScript, script) {
			paid += out.Value
			continue
		}
		require.Zero(t, out.Value, "an output that pays %x", out.PkScript)
	}
	require.Equal(t, blockchain.CalcBlockSubsidy(height, testnode.Params())+fees, paid)

	// A block without transactions needs no commitment, and btcd's templates then name none (BIP 141).
	_, committed := blockchain.ExtractWitnessCommitment(block.Transactions()[0])
	if len(b.Transactions) > 1 {
		require.True(t, committed, "the coinbase commits to no witnesses")
	}
	if committed {
		require.Equal(t, wire.TxWitness{make([]byte, 32)}, coinbase.TxIn[0].Witness)
	}
	require.NoError(t, blockchain.ValidateWitnessCommitment(block))
}

// The pool on a real btcd: blocks that a miner finds are the node's, blocks of others reach the miner at once, and a
// node that is started anew is mined on again.
func TestThePoolOnARealNode(t *testing.T) {
	node := testnode.Start(t, nil)
	generated := node.Generate(103)

	// Three transactions with witnesses wait for the pool's first block.
	var fees int64
	spends := map[chainhash.Hash]bool{}
	for i, hash := range generated[:3] {
		fee := int64(10_000 * (i + 1))
		spend := node.Spend(node.Block(hash).Transactions[0], fee)
		require.True(t, spend.HasWitness())
		node.Send(spend)
		spends[spend.TxHash()] = true
		fees += fee
	}

	addr, script := nodeAddress(t, testnode.Params())
	before := node.Height()
	p := nodeRun(t, nodeArgs(node, addr, t.TempDir())...)
	require.Contains(t, p.out.String(), "pays="+addr)

	// A miner hashes at its own pace until the chain has grown by three blocks.
	var mu sync.Mutex
	var submitted []chainhash.Hash
	answered := make(chan struct{}, 1)
	ctx, stopMiner := context.WithTimeout(t.Context(), nodePatience)
	defer stopMiner()
	rig, err := stratumtest.Dial(ctx, p.miners, &stratumtest.MinerOptions{
		User: "alice.rig", VersionMask: 0x1fffe000, Hashrate: 600_000,
		Hooks: stratumtest.Hooks{
			OnSubmit: func(s stratumtest.Share) {
				mu.Lock()
				defer mu.Unlock()
				submitted = append(submitted, s.Hash)
			},
			OnReply: func(stratumtest.Share, stratumtest.Reply) {
				select {
				case answered <- struct{}{}:
				default:
				}
			},
		},
	})
	require.NoError(t, err)
	mined := make(chan error, 1)
	go func() { mined <- rig.Run(ctx) }()
	for node.Height() < before+3 {
		select {
		case <-answered:
		case err := <-mined:
			t.Fatalf("the miner ended at height %d: %v", node.Height(), err)
		}
	}
	stopMiner()
	require.NoError(t, <-mined)
	require.GreaterOrEqual(t, rig.Stats().Accepted, uint64(3))

	blocks := nodeBlocks(node, generated[len(generated)-1])
	require.GreaterOrEqual(t, len(blocks), 3)
	first := blocks[0]
	require.Len(t, first.Transactions, 1+len(spends))
	for _, tx := range first.Transactions[1:] {
		require.True(t, tx.HasWitness())
		require.True(t, spends[tx.TxHash()], "%v was not sent", tx.TxHash())
	}
	for i, b := range blocks {
		mu.Lock()
		require.Contains(t, submitted, b.BlockHash())
		mu.Unlock()
		paid := int64(0)
		if i == 0 {
			paid = fees
		} else {
			require.Len(t, b.Transactions, 1)
		}
		requireOurs(t, b, before+1+int32(i), paid, script)
	}
	p.await(`msg="block accepted".*hash=` + first.BlockHash().String())
	require.NotContains(t, p.out.String(), "level=ERROR")

	// A block that arrives from elsewhere.
	m := nodeDial(t, p)
	began := time.Now()
	foreign := node.Generate(1)[0]
	j := m.jobOn(foreign)
	latency := j.Received.Sub(began)
	t.Logf("a foreign block was a job at the miner after %v, the node's own work of making it included",
		latency.Round(time.Microsecond))
	require.True(t, j.Clean, "the first job on a new tip tells miners to drop what they have")
	require.Less(t, latency, nodeStopTime)

	hash := m.find(j)
	node.AwaitTip(hash)
	requireOurs(t, node.Block(hash), node.Height(), 0, script)
	require.Equal(t, foreign, node.Block(hash).Header.PrevBlock)
	j = m.jobOn(hash)

	// A block that is found while the node is away is the node's as soon as it is back.
	node.Stop()
	hash = m.find(j)
	p.await(`msg="block found".*hash=` + hash.String())
	began = time.Now()
	node.Start()
	node.AwaitTip(hash)
	t.Logf("a block found while the node was away was its tip %v after the start", time.Since(began).Round(time.Millisecond))
	requireOurs(t, node.Block(hash), node.Height(), 0, script)

	// Mining goes on upon what the restarted node says, with its transactions.
	spend := node.Spend(node.Block(generated[3]).Transactions[0], 50_000)
	node.Send(spend)
	for found := false; !found; {
		j = m.jobOn(hash)
		found = len(j.Branch) > 0
	}
	hash = m.find(j)
	node.AwaitTip(hash)
	b := node.Block(hash)
	requireOurs(t, b, node.Height(), 50_000, script)
	require.Len(t, b.Transactions, 2)
	require.Equal(t, spend.TxHash(), b.Transactions[1].TxHash())

	p.stop()
}

// A pool is stopped while the node hangs, neither answering nor hanging up, and a block has not reached it.
func TestABlockTheNodeDidNotTakeOutlivesThePool(t *testing.T) {
	node := testnode.Start(t, nil)
	tip := node.Generate(1)[0]
	node.Stop() // which writes the block to disk: the node will be killed
	node.Start()
	addr, script := nodeAddress(t, testnode.Params())
	args := nodeArgs(node, addr, t.TempDir())

	p := nodeRun(t, args...)
	m := nodeDial(t, p)
	j := m.jobOn(tip)
	node.Freeze()
	hash := m.find(j)
	p.await(`msg="block found".*hash=` + hash.String())
	p.stop()
	// The frozen node may have the request in its socket; a node that is killed has nothing.
	node.Kill()
	node.Start()
	require.Equal(t, tip, node.Tip())

	p = nodeRun(t, args...)
	node.AwaitTip(hash)
	requireOurs(t, node.Block(hash), 2, 0, script)
	p.stop()
}
