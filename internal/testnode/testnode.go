// Package testnode runs a real btcd for integration tests: a regtest chain of its own, on free ports of 127.0.0.1, with
// TLS, in a folder that goes away with the test.
//
//	node := testnode.Start(t, nil)
//	node.Generate(101)
//	source, err := rpcjob.New(node.Node(), nil)
//	…
//	node.Stop() // and node.Start() again: the chain is kept
//
// The btcd is the one that go.mod names as a tool, but for one line: it keeps its regtest chain when it is started anew.
// It is built once and kept in the user's cache folder. A test whose btcd cannot be built or started fails.
//
// The methods call t.Fatal where anything goes wrong, so they belong on the test's goroutine.
package testnode

import (
	"bytes"
	"context"
	"encoding/hex"

	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/poolkit/poolkit/internal/noderpc"
)

// Options tune a Node.
type Options struct {
	TxIndex bool     // answer getrawtransaction for confirmed transactions
	Args    []string // further arguments of btcd
}

const (
	user = "pool"
	pass = "secret of the test node"

	startLimit = 60 * time.Second
	stopLimit  = 30 * time.Second
	callLimit  = 60 * time.Second
)

// A Node is a btcd on a chain of its own.
type Node struct {
	t    testing.TB
	dir  string
	opts Options
	rpc  *noderpc.Client

	rpcAddr, p2pAddr string

	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	out  *tail
}

// Params are the parameters of the chain, regtest.
func Params() *chaincfg.Params { return &chaincfg.RegressionNetParams }

// Start builds btcd if need be and starts one that answers calls when Start returns. It ends with the test.
func Start(t testing.TB, opts *Options) *Node {
	t.Helper()
	n := &Node{t: t, dir: t.TempDir()}
	if opts != nil {
		n.opts = *opts
	}
	cert, key, err := btcutil.NewTLSCertPair("poolkit test node", time.Now().Add(24*time.Hour), nil)
	n.check(err, "make a certificate")
	n.check(os.WriteFile(n.path("rpc.cert"), cert, 0o600), "write the certificate")
	n.check(os.WriteFile(n.path("rpc.key"), key, 0o600), "write the key")
	n.check(os.WriteFile(n.path("btcd.conf"), nil, 0o600), "write the configuration")

	// Somebody else may take a port between the choice and btcd's bind.
	for try := 1; ; try++ {
		n.rpcAddr, n.p2pAddr = freeAddr(t), freeAddr(t)
		n.rpc, err = noderpc.New(n.Node(), nil)
		n.check(err, "describe the node")
		if err = n.launch(); err == nil {
			break
		}
		if try == 3 {
			t.Fatalf("testnode: start btcd: %v", err)
		}
	}
	t.Cleanup(n.kill)
	return n
}

// Start starts the node anew after Stop or Kill, on the same chain and ports.
func (n *Node) Start() {
	n.t.Helper()
	if n.running() {
		n.t.Fatal("testnode: Start of a node that runs")
	}
	n.check(n.launch(), "start btcd again")
}

// Stop ends the node in good order, as an operator does. The chain is kept for the next Start.
func (n *Node) Stop() {
	n.t.Helper()
	if !n.running() {
		return
	}
	n.check(n.cmd.Process.Signal(os.Interrupt), "interrupt btcd")
	select {
	case <-n.done:
	case <-time.After(stopLimit):
		n.kill()
		n.t.Fatalf("testnode: btcd does not stop; it said last:\n%s", n.out)
	}
	n.rpc.CloseIdle()
}

// Kill ends the node at once, as a power failure does.
func (n *Node) Kill() { n.kill() }

// Freeze stops the process without ending it: connections stay open and nothing is answered. See [Node.Thaw].
func (n *Node) Freeze() { n.t.Helper(); n.signal(freezeSignal, "freeze") }

// Thaw lets a frozen node go on.
func (n *Node) Thaw() { n.t.Helper(); n.signal(thawSignal, "thaw") }

// Node describes the node for a client. It is the same before and after a restart.
func (n *Node) Node() noderpc.Node {
	return noderpc.Node{URL: n.URL(), User: user, Pass: pass, CertFile: n.path("rpc.cert")}
}

// URL returns where the node answers RPC.
func (n *Node) URL() string { return "https://" + n.rpcAddr }

// P2PAddr returns where the node takes peers, as host:port.
func (n *Node) P2PAddr() string { return n.p2pAddr }

// Call calls a method of the node and decodes what it returns into result, which may be nil.
func (n *Node) Call(result any, method string, params ...any) {
	n.t.Helper()
	n.check(n.TryCall(result, method, params...), "call")
}

// TryCall is Call for calls that may fail. Errors of the node are *noderpc.RPCError.
func (n *Node) TryCall(result any, method string, params ...any) error {
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	if params == nil {
		params = []any{}
	}
	return n.rpc.Call(ctx, method, params, result)
}

// Generate has the node mine blocks that pay to [Key] and returns their hashes.
func (n *Node) Generate(blocks int) []chainhash.Hash {
	n.t.Helper()
	var ids []string
	n.Call(&ids, "generate", blocks)
	hashes := make([]chainhash.Hash, len(ids))
	for i, id := range ids {
		n.check(chainhash.Decode(&hashes[i], id), "read a hash")
	}
	return hashes
}

// Height returns the height of the node's best chain.
func (n *Node) Height() int32 {
	n.t.Helper()
	var height int32
	n.Call(&height, "getblockcount")
	return height
}

// Tip returns the hash of the last block of the node's best chain.
func (n *Node) Tip() chainhash.Hash {
	n.t.Helper()
	var id string
	n.Call(&id, "getbestblockhash")
	var hash chainhash.Hash
	n.check(chainhash.Decode(&hash, id), "read a hash")
	return hash
}

// Block returns a block of the node, with its witnesses.
func (n *Node) Block(hash chainhash.Hash) *wire.MsgBlock {
	n.t.Helper()
	var hexBlock string
	n.Call(&hexBlock, "getblock", hash.String(), 0)
	raw, err := hex.DecodeString(hexBlock)
	n.check(err, "read a block")
	b := new(wire.MsgBlock)
	n.check(b.Deserialize(bytes.NewReader(raw)), "read a block")
	return b
}

// Send hands the node a transaction for its mempool.
func (n *Node) Send(tx *wire.MsgTx) {
	n.t.Helper()
	var raw bytes.Buffer
	n.check(tx.Serialize(&raw), "serialise a transaction")
	n.Call(nil, "sendrawtransaction", hex.EncodeToString(raw.Bytes()))
}

// Spend returns a transaction that moves output 0 of tx, which must pay to [Address] as the coinbase of every
// generated block does, back there less the fee in satoshi. It is signed with a witness, so that a block with it needs
// a witness commitment. A coinbase can be spent after 100 further blocks.
func (n *Node) Spend(tx *wire.MsgTx, fee int64) *wire.MsgTx {
	n.t.Helper()
	prev := tx.TxOut[0]
	spend := wire.NewMsgTx(2)
	id := tx.TxHash()
	spend.AddTxIn(wire.NewTxIn(wire.NewOutPoint(&id, 0), nil, nil))
	spend.AddTxOut(wire.NewTxOut(prev.Value-fee, prev.PkScript))
	fetcher := txscript.NewCannedPrevOutputFetcher(prev.PkScript, prev.Value)
	witness, err := txscript.WitnessSignature(spend, txscript.NewTxSigHashes(spend, fetcher), 0, prev.Value,
		prev.PkScript, txscript.SigHashAll, Key(), true)
	n.check(err, "sign a transaction")
	spend.TxIn[0].Witness = witness
	return spend
}

// Connect makes the node a peer of other and returns when they have shaken hands.
func (n *Node) Connect(other *Node) {
	n.t.Helper()
	n.Call(nil, "node", "connect", other.p2pAddr, "temp")
	n.await("the peers to connect", func() bool { return n.Peers() > 0 && other.Peers() > 0 })
}

// Peers returns how many peers the node has.
func (n *Node) Peers() int {
	n.t.Helper()
	var peers []struct {
		Version uint32 `json:"version"`
	}
	n.Call(&peers, "getpeerinfo")
	return len(peers)
}

// AwaitTip waits until hash is the tip of the node's best chain.
func (n *Node) AwaitTip(hash chainhash.Hash) {
	n.t.Helper()
	n.await("block "+hash.String(), func() bool { return n.Tip() == hash })
}

// Key returns the private key that generated blocks pay to, the same for all nodes.
func Key() *btcec.PrivateKey {
	key, _ := btcec.PrivKeyFromBytes(bytes.Repeat([]byte{7}, 32))
	return key
}

// Address returns the address of [Key], of type P2WPKH.
func Address() address.Address {
	a, err := address.NewAddressWitnessPubKeyHash(
		address.Hash160(Key().PubKey().SerializeCompressed()), Params())
	if err != nil {
		panic(err) // 20 bytes were given, which is all that is asked for
	}
	return a
}

// launch starts the process and waits until it answers.
func (n *Node) launch() error {
	bin, err := build()
	if err != nil {
		return err
	}
	args := []string{
		"--regtest", "--configfile=" + n.path("btcd.conf"), "--datadir=" + n.path("data"), "--logdir=" + n.path("log"),
		"--rpccert=" + n.path("rpc.cert"), "--rpckey=" + n.path("rpc.key"),
		"--rpcuser=" + user, "--rpcpass=" + pass, "--rpcmaxclients=100",
		"--rpclisten=" + n.rpcAddr, "--listen=" + n.p2pAddr,
		"--nodnsseed", "--noonion", "--nobanning", "--nostalldetect", "--trickleinterval=100ms",
		"--miningaddr=" + Address().EncodeAddress(),
	}
	if n.opts.TxIndex {
		args = append(args, "--txindex")
	}
	cmd := exec.Command(bin, append(args, n.opts.Args...)...)
	cmd.Env = append(os.Environ(), "HOME="+n.dir) // btcd makes a folder there, whatever it is told
	n.out = &tail{}
	cmd.Stdout, cmd.Stderr = n.out, n.out
	bind(cmd)

	started, done := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // see bind
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	n.cmd, n.done = cmd, done

	deadline := time.After(startLimit)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		err := n.rpc.Call(ctx, "getblockcount", nil, nil)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-done:
			return fmt.Errorf("it ended at once:\n%s", n.out)
		case <-deadline:
			n.kill()
			return fmt.Errorf("it does not answer: %w\n%s", err, n.out)
		case <-tick.C:
		}
	}
}

func (n *Node) running() bool {
	if n.done == nil {
		return false
	}
	select {
	case <-n.done:
		return false
	default:
		return true
	}
}

func (n *Node) kill() {
	if n.running() {
		n.cmd.Process.Kill()
		<-n.done
	}
	n.rpc.CloseIdle()
}

func (n *Node) signal(s os.Signal, what string) {
	n.t.Helper()
	if s == nil {
		n.t.Fatalf("testnode: %s: not on %s", what, runtime.GOOS)
	}
	if !n.running() {
		n.t.Fatalf("testnode: %s: the node does not run", what)
	}
	n.check(n.cmd.Process.Signal(s), what)
}

// await asks until ok.
func (n *Node) await(what string, ok func() bool) {
	n.t.Helper()
	deadline := time.After(callLimit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			n.t.Fatalf("testnode: waited in vain for %s; btcd said last:\n%s", what, n.out)
		case <-tick.C:
		}
	}
}

func (n *Node) path(name string) string { return filepath.Join(n.dir, name) }

func (n *Node) check(err error, what string) {
	n.t.Helper()
	if err != nil {
		n.t.Fatalf("testnode: %s: %v", what, err)
	}
}

// freeAddr returns an address of 127.0.0.1 that nobody listens on.
func freeAddr(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("testnode: find a port: %v", err)
	}
	defer ln.Close()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(ln.Addr().(*net.TCPAddr).Port))
}

// A tail keeps the last of what a process prints.
type tail struct {
	mu sync.Mutex
	b  []byte
}

// Write implements [io.Writer].
func (o *tail) Write(p []byte) (int, error) {
	const limit = 8 << 10
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.b = append(o.b, p...); len(o.b) > limit {
		o.b = append(o.b[:0], o.b[len(o.b)-limit:]...)
	}
	return len(p), nil
}

// String returns what was kept.
func (o *tail) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.b)
}
