package stratumtest

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/poolkit/poolkit/difficulty"
)

// A Job is the work of one mining.notify, with everything that held for the connection when it came in. It does not
// change and may be used from any goroutine.
type Job struct {
	ID       string     // as the pool sent it
	PrevHash [32]byte   // in memory order, as it stands in the header
	Coinb1   []byte     // the coinbase up to extranonce1
	Coinb2   []byte     // the coinbase after extranonce2
	Branch   [][32]byte // the merkle branch from the leaf to the root
	Version  uint32     // of the header, before version rolling
	Bits     uint32     // network target in compact form
	NTime    uint32     // block time in Unix seconds
	Clean    bool       // the pool wants earlier work dropped

	Extranonce1     []byte
	Extranonce2Size int                   // in bytes
	Difficulty      difficulty.Difficulty // of the last mining.set_difficulty before the job; 1 when there was none
	Target          difficulty.Target     // of that difficulty
	VersionMask     uint32                // the bits the miner may roll; 0 when not agreed
	Received        time.Time
}

// parseNotify reads the params of mining.notify.
func parseNotify(params []byte) (*Job, error) {
	var p []any
	if err := json.Unmarshal(params, &p); err != nil {
		return nil, err
	}
	if len(p) < 9 {
		return nil, fmt.Errorf("%d params, want 9", len(p))
	}
	var err error
	text := func(i int, v any) string {
		s, ok := v.(string)
		if !ok && err == nil {
			err = fmt.Errorf("param %d is not a string", i)
		}
		return s
	}
	decode := func(i int, v any, size int) []byte {
		b, e := hex.DecodeString(text(i, v))
		if err == nil && e != nil {
			err = fmt.Errorf("param %d: %w", i, e)
		}
		if err == nil && size >= 0 && len(b) != size {
			err = fmt.Errorf("param %d has %d bytes, want %d", i, len(b), size)
		}
		return b
	}
	word := func(i int) uint32 {
		b := decode(i, p[i], 4)
		if err != nil {
			return 0
		}
		return binary.BigEndian.Uint32(b)
	}

	j := &Job{ID: text(0, p[0])}
	prev := decode(1, p[1], 32)
	j.Coinb1, j.Coinb2 = decode(2, p[2], -1), decode(3, p[3], -1)
	branch, isList := p[4].([]any)
	clean, isBool := p[8].(bool)
	j.Version, j.Bits, j.NTime, j.Clean = word(5), word(6), word(7), clean
	switch {
	case err != nil:
		return nil, err
	case !isList:
		return nil, fmt.Errorf("param 4 is not a list")
	case !isBool:
		return nil, fmt.Errorf("param 8 is not a boolean")
	}
	for word := range slices.Chunk(prev, 4) {
		slices.Reverse(word)
	}
	j.PrevHash = [32]byte(prev)
	for _, v := range branch {
		b := decode(4, v, 32)
		if err != nil {
			return nil, err
		}
		j.Branch = append(j.Branch, [32]byte(b))
	}
	return j, nil
}

// Coinbase returns the coinbase transaction that extranonce2 completes, without its witness.
func (j *Job) Coinbase(extranonce2 []byte) []byte {
	return slices.Concat(j.Coinb1, j.Extranonce1, extranonce2, j.Coinb2)
}

// Header returns the 80 bytes that are hashed. The version bits inside the mask replace those of the job, BIP 310.
func (j *Job) Header(extranonce2 []byte, ntime, nonce, versionBits uint32) [80]byte {
	root := sha256d(j.Coinbase(extranonce2))
	for _, b := range j.Branch {
		root = sha256d(slices.Concat(root[:], b[:]))
	}
	var h [80]byte
	binary.LittleEndian.PutUint32(h[0:], j.Version&^j.VersionMask|versionBits&j.VersionMask)
	copy(h[4:], j.PrevHash[:])
	copy(h[36:], root[:])
	binary.LittleEndian.PutUint32(h[68:], ntime)
	binary.LittleEndian.PutUint32(h[72:], j.Bits)
	binary.LittleEndian.PutUint32(h[76:], nonce)
	return h
}

// NetworkTarget returns the target of a block.
func (j *Job) NetworkTarget() (difficulty.Target, error) { return difficulty.FromBits(j.Bits) }

// Share returns the share of any solution, good or bad.
func (j *Job) Share(extranonce2 []byte, ntime, nonce, versionBits uint32) Share {
	s := Share{
		JobID:          j.ID,
		Extranonce2:    slices.Clone(extranonce2),
		NTime:          ntime,
		Nonce:          nonce,
		VersionBits:    versionBits,
		HasVersionBits: j.VersionMask != 0,
		Difficulty:     j.Difficulty,
		Header:         j.Header(extranonce2, ntime, nonce, versionBits),
	}
	s.Hash = sha256d(s.Header[:])
	return s
}

func sha256d(b []byte) [32]byte {
	first := sha256.Sum256(b)
	return sha256.Sum256(first[:])
}

// A Share is what a miner submits, and what it hashed. Changing a field changes what is submitted, not the header.
type Share struct {
	JobID          string
	Extranonce2    []byte
	NTime          uint32
	Nonce          uint32
	VersionBits    uint32
	HasVersionBits bool // submit VersionBits as the sixth param

	Difficulty difficulty.Difficulty // of the job
	Header     [80]byte
	Hash       [32]byte // of the header, in memory order: the last byte is the most significant
}

// BlockHash returns the hash as nodes and explorers write it, most significant digit first.
func (s *Share) BlockHash() string {
	h := s.Hash
	slices.Reverse(h[:])
	return hex.EncodeToString(h[:])
}

// A Reply is the pool's answer to a request.
type Reply struct {
	Accepted bool          // no error, and a result that is neither false nor null
	Code     int           // of the error; 0 when accepted, 20 when refused without a code
	Message  string        // of the error
	Result   []byte        // the raw JSON of the result; nil when null
	Latency  time.Duration // from before the request was written to when the reply was read
}

// Err returns nil when the request was accepted.
func (r *Reply) Err() error {
	if r.Accepted {
		return nil
	}
	return fmt.Errorf("refused with code %d: %s", r.Code, strconv.Quote(r.Message))
}
