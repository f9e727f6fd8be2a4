package stratum

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/stratum/sv1"
)

// A ClientJob is the work of one mining.notify, with everything that held for the connection when it came in. It is
// immutable: whoever holds one may read every field at any time and must change none.
//
// A pool may change the version mask in the middle of a job, BIP 310. The job then comes again under its old JobID,
// with the new mask and without Clean. A miner goes on in it where it was, for what it has hashed is still hashed.
type ClientJob struct {
	// Notify holds what the pool sent, hashes in memory order. Clean is also set in the first job of a connection.
	sv1.Notify

	Pool            string                // URL of the pool, without credentials
	Extranonce1     []byte                // goes into the coinbase before extranonce2
	Extranonce2Size int                   // in bytes, 1 to 16
	Difficulty      difficulty.Difficulty // of the last mining.set_difficulty before the job; 1 when there was none
	VersionMask     uint32                // version bits that may be rolled; 0 when not agreed
	Received        time.Time

	pool    int    // index of the pool
	session uint64 // serial number of the connection
}

// A ClientShare is what a Client submits.
type ClientShare struct {
	Job         *ClientJob
	Worker      string // "" means the user that the client logged in as
	Extranonce2 []byte // of the job's size, in the order it stands in the coinbase
	NTime       uint32 // block time in Unix seconds
	Nonce       uint32
	VersionBits uint32 // the rolled bits, inside the job's mask, of the header's version
}

// check returns what is wrong with the form of s.
func (s *ClientShare) check() error {
	switch {
	case s.Job == nil:
		return errors.New("a share without a job")
	case len(s.Extranonce2) != s.Job.Extranonce2Size:
		return fmt.Errorf("extranonce2 of %d bytes, the job has %d", len(s.Extranonce2), s.Job.Extranonce2Size)
	case s.VersionBits&^s.Job.VersionMask != 0:
		return fmt.Errorf("version bits %08x outside the mask %08x", s.VersionBits, s.Job.VersionMask)
	}
	return nil
}

// Target returns what a share's hash must not be above.
func (j *ClientJob) Target() difficulty.Target { return j.Difficulty.Target() }

// NetworkTarget returns what a block's hash must not be above. It fails when the pool sent bits that stand for no
// target.
func (j *ClientJob) NetworkTarget() (difficulty.Target, error) { return difficulty.FromBits(j.Bits) }

// AppendCoinbase appends the coinbase transaction that extranonce2 completes, serialised without witness.
func (j *ClientJob) AppendCoinbase(dst, extranonce2 []byte) []byte {
	dst = append(dst, j.Coinb1...)
	dst = append(dst, j.Extranonce1...)
	dst = append(dst, extranonce2...)
	return append(dst, j.Coinb2...)
}

// AppendHeader appends the 80 bytes to hash. The version bits replace those of the job inside the mask, as BIP 310 has
// it. Some pools take their exclusive or instead, which is the same where the job's own version has no bit inside the
// mask.
func (j *ClientJob) AppendHeader(dst, extranonce2 []byte, ntime, nonce, versionBits uint32) []byte {
	var buf [1024]byte // more than most firmware takes
	root := chainhash.DoubleHashH(j.AppendCoinbase(buf[:0], extranonce2))
	for i := range j.Branch {
		root = chainhash.DoubleHashH(append(append(buf[:0], root[:]...), j.Branch[i][:]...))
	}
	dst = binary.LittleEndian.AppendUint32(dst, j.Version&^j.VersionMask|versionBits&j.VersionMask)
	dst = append(dst, j.PrevHash[:]...)
	dst = append(dst, root[:]...)
	dst = binary.LittleEndian.AppendUint32(dst, ntime)
	dst = binary.LittleEndian.AppendUint32(dst, j.Bits)
	return binary.LittleEndian.AppendUint32(dst, nonce)
}

// Coinbase returns the coinbase transaction with an extranonce2 of zeros. It fails when the pool sent something else
// than a transaction with one input.
func (j *ClientJob) Coinbase() (*wire.MsgTx, error) {
	raw := bytes.NewReader(j.AppendCoinbase(nil, make([]byte, j.Extranonce2Size)))
	tx := new(wire.MsgTx)
	switch err := tx.DeserializeNoWitness(raw); {
	case err != nil:
		return nil, fmt.Errorf("stratum: client job %.40q: coinbase: %w", j.JobID, err)
	case raw.Len() != 0:
		return nil, fmt.Errorf("stratum: client job %.40q: %d bytes after the coinbase", j.JobID, raw.Len())
	case len(tx.TxIn) != 1:
		return nil, fmt.Errorf("stratum: client job %.40q: coinbase with %d inputs", j.JobID, len(tx.TxIn))
	}
	return tx, nil
}

// Height returns the height of the block, which BIP 34 puts first in the coinbase script.
func (j *ClientJob) Height() (int32, error) {
	tx, err := j.Coinbase()
	if err != nil {
		return 0, err
	}
	height, ok := scriptHeight(tx.TxIn[0].SignatureScript)
	if !ok {
		return 0, fmt.Errorf("stratum: client job %.40q: the coinbase does not begin with a height", j.JobID)
	}
	return height, nil
}

// scriptHeight reads the number that a script pushes first, if it is positive and below 2^31.
func scriptHeight(script []byte) (int32, bool) {
	if len(script) == 0 {
		return 0, false
	}
	n := int(script[0])
	switch {
	case n >= 0x51 && n <= 0x60: // OP_1 to OP_16
		return int32(n - 0x50), true
	case n < 1 || n > 4 || len(script) < 1+n || script[n] >= 0x80: // the highest bit is the sign
		return 0, false
	}
	var height int32
	for i := n; i > 0; i-- {
		height = height<<8 | int32(script[i])
	}
	return height, true
}

// Job returns the work as a job that a [Server] can hand on to miners of its own. id and chain are the caller's; the
// lowest time is that of the job, since a pool does not say what its node allows. It fails when the pool leaves less
// than [job.ExtranonceSize] bytes of extranonce2, which a server divides among its miners, and when the coinbase is
// none.
//
// The miners of such a job must roll no other bits than those of VersionMask. A share of theirs goes back with Share.
func (j *ClientJob) Job(id job.ID, chain job.Chain) (*job.Job, error) {
	if j.Extranonce2Size < job.ExtranonceSize {
		return nil, fmt.Errorf("stratum: client job %.40q: an extranonce2 of %d bytes is too short to hand on, want %d",
			j.JobID, j.Extranonce2Size, job.ExtranonceSize)
	}
	tx, err := j.Coinbase()
	if err != nil {
		return nil, err
	}
	height, err := j.Height()
	if err != nil {
		return nil, err
	}
	var value int64
	var commitment []byte
	for _, out := range tx.TxOut {
		if value += out.Value; out.Value < 0 || value < 0 || value > maxMoney {
			return nil, fmt.Errorf("stratum: client job %.40q: the coinbase pays out more than there can be", j.JobID)
		}
		// BIP 141: the last output that begins like this is the commitment.
		if bytes.HasPrefix(out.PkScript, []byte{0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed}) && len(out.PkScript) >= 38 {
			commitment = out.PkScript
		}
	}
	branch := make([]job.Hash, len(j.Branch))
	for i, h := range j.Branch {
		branch[i] = h
	}
	made, err := job.New(job.Job{
		ID: id, Chain: chain,
		Height: height, PrevHash: j.PrevHash, Version: int32(j.Version), Bits: j.Bits, Time: j.NTime, MinTime: j.NTime,
		Coinb1: slices.Concat(j.Coinb1, j.Extranonce1, make([]byte, j.padding())), Coinb2: j.Coinb2, Branch: branch,
		CoinbaseValue: value, WitnessCommitment: commitment, Clean: j.Clean,
	})
	if err != nil {
		return nil, fmt.Errorf("stratum: client job %.40q: %w", j.JobID, err)
	}
	return made, nil
}

// maxMoney is what all bitcoins ever mined come to, in satoshi.
const maxMoney = 21e6 * 1e8

// padding is how many bytes of extranonce2 a job made by Job leaves zero, in front.
func (j *ClientJob) padding() int { return j.Extranonce2Size - job.ExtranonceSize }

// Share returns what to submit for a share of the job that Job returned: its extranonce, as it stands in the coinbase,
// and the fields of its header. It is for jobs for which Job did not fail.
func (j *ClientJob) Share(extranonce *[job.ExtranonceSize]byte, ntime, nonce, versionBits uint32) ClientShare {
	return ClientShare{
		Job:         j,
		Extranonce2: append(make([]byte, max(j.padding(), 0)), extranonce[:]...),
		NTime:       ntime, Nonce: nonce, VersionBits: versionBits,
	}
}
