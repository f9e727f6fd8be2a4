package job

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/poolkit/poolkit/difficulty"
)

// A Template is one reply to getblocktemplate: what the node would put into the next block. It carries every field of
// BIP 22, BIP 23, BIP 9 and BIP 145. A Template is immutable once it is parsed and may be shared freely.
type Template struct {
	// ID is the SHA-256d of the whole reply as it came from the node, BTCPool's gbtHash. It names the template
	// wherever a message refers to one.
	ID chainhash.Hash

	// Received is when the reply arrived, by this machine's clock. The freshness and expiry rules of Maker count
	// from here.
	Received time.Time

	// Source names the node for logs. It has no meaning of its own.
	Source string

	PrevHash      chainhash.Hash
	Height        int32
	Version       int32
	Bits          uint32            // compact network target
	Target        difficulty.Target // expanded from Bits
	CurTime       uint32            // header time the node proposes, Unix seconds
	MinTime       uint32            // lowest header time allowed; CurTime when the node names none
	MaxTime       uint32            // highest header time allowed (BIP 23); 0 when the node names none
	CoinbaseValue int64             // subsidy and fees, satoshi
	Transactions  []Transaction     // in block order, without the coinbase

	// WitnessCommitment is the output script that commits to the witnesses (BIP 141), empty when the block needs
	// none. When the node leaves it out of a template that has witnesses, it is computed.
	WitnessCommitment []byte

	Rules        []string          // active consensus rules, with their "!" marks (BIP 9)
	VBAvailable  map[string]int    // deployments that may be signalled, by bit (BIP 9)
	VBRequired   uint32            // version bits that must stay set (BIP 9)
	Capabilities []string          // BIP 22, BIP 23
	Mutable      []string          // what may be changed (BIP 23)
	CoinbaseAux  map[string][]byte // bytes the node wants in the coinbase script (BIP 22)
	CoinbaseTxn  *Transaction      // the node's own coinbase, when it insists on one (BIP 22)
	LongPollID   string            // BIP 22
	LongPollURI  string            // BIP 22
	SubmitOld    bool              // whether work on an older template is still wanted after a long poll (BIP 22); true when absent
	WorkID       string            // to be returned with the block (BIP 22)
	Expires      time.Duration     // 0 when the node names none (BIP 23)
	NonceRange   [2]uint32         // BIP 23
	SigOpLimit   int64             // BIP 22, in BIP 145 units under segwit
	SizeLimit    int64             // bytes (BIP 22)
	WeightLimit  int64             // weight units (BIP 145)

	// SignetChallenge is the script a signet block's solution must satisfy (BIP 325).
	SignetChallenge []byte
}

// A Transaction is one entry of a template.
type Transaction struct {
	Data     []byte         // serialised with witnesses, as it stands in the block
	TxID     chainhash.Hash // of the form without witnesses, computed from Data
	WTxID    chainhash.Hash // of Data
	Depends  []int          // 1-based positions of transactions this one spends from
	Fee      int64          // satoshi; -1 when the node does not tell
	SigOps   int64          // -1 when the node does not tell
	Weight   int64          // weight units; 0 when the node does not tell
	Required bool           // may not be left out (BIP 22)
}

// Empty reports whether the template has no transactions besides the coinbase.
func (t *Template) Empty() bool { return len(t.Transactions) == 0 }

// A FieldError reports a template that cannot be used and the field that is to blame.
type FieldError struct {
	Field  string // JSON name, such as "bits" or "transactions[3].data"
	Reason string
}

// Error names the field.
func (e *FieldError) Error() string { return "job: template: " + e.Field + ": " + e.Reason }

// ErrUnknownRule matches errors about a template that demands a consensus rule this package does not know. Mining it
// could produce an invalid block, so it is refused.
var ErrUnknownRule = errors.New("unknown mandatory rule")

// An UnknownRuleError names the rule; it matches [ErrUnknownRule].
type UnknownRuleError struct{ Rule string }

// Error names the rule.
func (e *UnknownRuleError) Error() string {
	return fmt.Sprintf("job: template: rules: %v %q", ErrUnknownRule, e.Rule)
}

// Is reports whether target is [ErrUnknownRule].
func (e *UnknownRuleError) Is(target error) bool { return target == ErrUnknownRule }

// KnownRules are the consensus rules that jobs are built by. A node marks a rule with "!" when a miner that does not
// know it must not use the template (BIP 9).
var KnownRules = []string{"csv", "segwit", "taproot", "signet", "testdummy", "testdummy-min-activation"}

func checkRules(rules []string) error {
	for _, r := range rules {
		if name, mandatory := strings.CutPrefix(r, "!"); mandatory && !slices.Contains(KnownRules, name) {
			return &UnknownRuleError{Rule: name}
		}
	}
	return nil
}

// An RPCError is the error object that a node answered with instead of a template.
type RPCError struct {
	Code    int
	Message string
}

// Error says what the node said.
func (e *RPCError) Error() string {
	return fmt.Sprintf("job: template: node answered %d: %s", e.Code, e.Message)
}

// templateJSON mirrors the reply; pointers tell an absent field from a zero one.
type templateJSON struct {
	Version                  *int32             `json:"version"`
	Rules                    []string           `json:"rules"`
	VBAvailable              map[string]int     `json:"vbavailable"`
	VBRequired               uint32             `json:"vbrequired"`
	Capabilities             []string           `json:"capabilities"`
	PreviousBlockHash        *string            `json:"previousblockhash"`
	Transactions             *[]transactionJSON `json:"transactions"`
	CoinbaseAux              map[string]string  `json:"coinbaseaux"`
	CoinbaseValue            *int64             `json:"coinbasevalue"`
	CoinbaseTxn              *transactionJSON   `json:"coinbasetxn"`
	LongPollID               string             `json:"longpollid"`
	LongPollURI              string             `json:"longpolluri"`
	SubmitOld                *bool              `json:"submitold"`
	Target                   string             `json:"target"`
	MinTime                  *int64             `json:"mintime"`
	MaxTime                  *int64             `json:"maxtime"`
	CurTime                  *int64             `json:"curtime"`
	Mutable                  []string           `json:"mutable"`
	NonceRange               string             `json:"noncerange"`
	SigOpLimit               int64              `json:"sigoplimit"`
	SizeLimit                int64              `json:"sizelimit"`
	WeightLimit              int64              `json:"weightlimit"`
	Bits                     *string            `json:"bits"`
	Height                   *int64             `json:"height"`
	DefaultWitnessCommitment string             `json:"default_witness_commitment"`
	WorkID                   string             `json:"workid"`
	Expires                  int64              `json:"expires"`
	SignetChallenge          string             `json:"signet_challenge"`
}

type transactionJSON struct {
	Data     hexBytes `json:"data"`
	TxID     string   `json:"txid"`
	Hash     string   `json:"hash"`
	Depends  []int    `json:"depends"`
	Fee      *int64   `json:"fee"`
	SigOps   *int64   `json:"sigops"`
	Weight   int64    `json:"weight"`
	Required bool     `json:"required"`
}

// ParseTemplate reads a getblocktemplate reply: the whole JSON-RPC object or its result alone. The template's ID is
// the hash of body, every byte of it. Errors are [*RPCError] when the node answered with one, [*UnknownRuleError] and
// [*FieldError] where a field is missing or makes no sense, and JSON errors otherwise.
func ParseTemplate(body []byte, received time.Time) (*Template, error) {
	return parseTemplate(body, received)
}
