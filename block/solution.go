package block

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
)

// The layout of a solution on BTCPool's message bus. Numbers are little-endian; the coinbase, serialised without
// witness, fills the rest of the message.
//
//	  0   8  job id
//	  8   8  worker id, signed
//	 16   4  user id, signed
//	 20   4  height, signed
//	 24  80  block header
//	104  40  worker's full name, "user.machine", padded with zero bytes
//	144   …  coinbase
const (
	solutionFixed    = 144
	solutionNameAt   = 104
	maxSolutionName  = solutionFixed - solutionNameAt - 1 // one zero byte always remains
	maxSolutionBytes = 4_000_000                          // no coinbase is longer than a block
)

// AppendSolution appends s in the form that BTCPool's servers send to its block maker: 144 bytes and the coinbase. The
// worker's full name is cut to 39 bytes. The chain, the time and the pointer to the job have no place in it.
func AppendSolution(dst []byte, s *share.Solution) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, uint64(s.JobID))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(s.WorkerID))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(s.UserID))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(s.Height))
	dst = append(dst, s.Header[:]...)
	var name [maxSolutionName + 1]byte
	copy(name[:maxSolutionName], fullName(s.Worker))
	dst = append(dst, name[:]...)
	return append(dst, s.Coinbase...)
}

// DecodeSolution reads a message of BTCPool's solved-share topic. Hash is computed from the header; the worker's name
// is what precedes the first zero byte, without the bytes that [share.FilterName] drops, divided at its first dot; the
// chain and the time found are left for the caller to fill in. Nothing of b is kept.
//
// A message of 144 bytes or less has no coinbase and is refused. Nothing else is: whether it makes a block is for the
// nodes to say.
func DecodeSolution(b []byte) (*share.Solution, error) {
	switch {
	case len(b) <= solutionFixed:
		return nil, fmt.Errorf("block: decode solution: %d bytes, want more than %d", len(b), solutionFixed)
	case len(b)-solutionFixed > maxSolutionBytes:
		return nil, fmt.Errorf("block: decode solution: a coinbase of %d bytes fits no block", len(b)-solutionFixed)
	}
	s := &share.Solution{
		JobID:    job.ID(binary.LittleEndian.Uint64(b[0:])),
		WorkerID: int64(binary.LittleEndian.Uint64(b[8:])),
		UserID:   int32(binary.LittleEndian.Uint32(b[16:])),
		Height:   int32(binary.LittleEndian.Uint32(b[20:])),
		Header:   [job.HeaderSize]byte(b[24:solutionNameAt]),
		Coinbase: append([]byte(nil), b[solutionFixed:]...),
	}
	s.Hash = chainhash.DoubleHashH(s.Header[:])
	full, _, _ := strings.Cut(string(b[solutionNameAt:solutionFixed]), "\x00")
	s.Worker.User, s.Worker.Name, _ = strings.Cut(share.FilterName(full), ".")
	return s, nil
}

// fullName is [share.Worker.String] without the dot when there is no machine, so that a name read from a message is
// written back as it was.
func fullName(w share.Worker) string {
	if w.Name == "" {
		return w.User
	}
	return w.String()
}
