package btcagent

import "encoding/binary"

// A Submit holds a share of one of an agent's workers: a frame of any of the four commands that [Command.IsSubmit]
// knows. The numbers are those that a miner writes as hex text.
type Submit struct {
	JobID       uint8  // the number that mining.notify carried as the job's id
	SessionID   uint16 // of the worker, at most MaxSessionID
	Extranonce2 uint32 // the miner's own part: see Extranonce2 for the pool's
	Nonce       uint32
	NTime       uint32 // block time in Unix seconds; 0, or not sent, means that of the job
	VersionBits uint32 // BIP 310: the bits of the header's version that the miner rolled; 0 when not sent
}

// The layout of a submit's body. An ntime and then version bits follow, each where the command has it.
const (
	submitSize = 11
	wordSize   = 4
)

func (c Command) hasTime() bool    { return c == CommandSubmitTime || c == CommandSubmitTimeVersion }
func (c Command) hasVersion() bool { return c == CommandSubmitVersion || c == CommandSubmitTimeVersion }

// bodySize is how many bytes the body of a submit has.
func (c Command) bodySize() int {
	size := submitSize
	if c.hasTime() {
		size += wordSize
	}
	if c.hasVersion() {
		size += wordSize
	}
	return size
}

// Decode reads a frame whose command [Command.IsSubmit]. It returns [ErrBody] unless the frame has exactly the size of
// its command, and [ErrSessionID] for an id above [MaxSessionID], with everything decoded. It allocates nothing.
func (s *Submit) Decode(f Frame) error {
	*s = Submit{}
	if !f.Command.IsSubmit() {
		return ErrCommand
	}
	b := f.Body
	if len(b) != f.Command.bodySize() {
		return ErrBody
	}
	s.JobID = b[0]
	s.SessionID = binary.LittleEndian.Uint16(b[1:])
	s.Extranonce2 = binary.LittleEndian.Uint32(b[3:])
	s.Nonce = binary.LittleEndian.Uint32(b[7:])
	b = b[submitSize:]
	if f.Command.hasTime() {
		s.NTime = binary.LittleEndian.Uint32(b)
		b = b[wordSize:]
	}
	if f.Command.hasVersion() {
		s.VersionBits = binary.LittleEndian.Uint32(b)
	}
	return checkID(s.SessionID)
}

// Command returns the shortest command that carries the share, and that BTCAgent sends: an ntime and version bits that
// are 0 are left out.
func (s *Submit) Command() Command {
	switch {
	case s.NTime != 0 && s.VersionBits != 0:
		return CommandSubmitTimeVersion
	case s.NTime != 0:
		return CommandSubmitTime
	case s.VersionBits != 0:
		return CommandSubmitVersion
	}
	return CommandSubmit
}

// AppendSubmit appends a share as the shortest frame that carries it.
func AppendSubmit(dst []byte, s *Submit) []byte { return AppendSubmitAs(dst, s.Command(), s) }

// AppendSubmitAs appends a share as a frame of one of the four commands that [Command.IsSubmit] knows; what the command
// has no field for is not sent. For any other command it appends nothing.
func AppendSubmitAs(dst []byte, cmd Command, s *Submit) []byte {
	if !cmd.IsSubmit() {
		return dst
	}
	dst = appendHeader(dst, cmd, cmd.bodySize())
	dst = append(dst, s.JobID)
	dst = binary.LittleEndian.AppendUint16(dst, s.SessionID)
	dst = binary.LittleEndian.AppendUint32(dst, s.Extranonce2)
	dst = binary.LittleEndian.AppendUint32(dst, s.Nonce)
	if cmd.hasTime() {
		dst = binary.LittleEndian.AppendUint32(dst, s.NTime)
	}
	if cmd.hasVersion() {
		dst = binary.LittleEndian.AppendUint32(dst, s.VersionBits)
	}
	return dst
}

// Extranonce2Size is the size in bytes of the extranonce2 that a pool grants an agent; BTCAgent leaves at any other.
const Extranonce2Size = 8

// Extranonce2 returns what goes into the coinbase after the pool's extranonce1, in that order, as in sv1.Submit: the
// worker's session id and then its own extranonce2, big-endian of 4 bytes each. To the miner the former is the
// extranonce1, so that no two workers of an agent ever hash the same header.
//
//	coinb1 | extranonce1 of the pool | 00 00 session id | extranonce2 of the miner | coinb2
func Extranonce2(id uint16, extranonce2 uint32) (b [Extranonce2Size]byte) {
	binary.BigEndian.PutUint64(b[:], uint64(id)<<32|uint64(extranonce2))
	return b
}

// A SubmitResponse holds a SUBMIT_RESPONSE frame, the verdict on one submit. Only agents that named the capability
// "subres" get them; the others tell their miners that every share was accepted.
type SubmitResponse struct {
	// Index says which submit is meant: how many the agent had sent before it on this connection, from 0 and after
	// 65,535 from 0 again. It stands in no submit; both sides count. Responses may come in any order.
	Index uint16

	// Status is the verdict as BTCPool's share log records it: one of the Status constants, or why the share was refused.
	// Other than in the reply to mining.submit, an unknown job is 36 and a stale share 37; the rest is numbered alike.
	Status int32
}

// The verdicts that accept a share. BTCPool's Bitcoin pool uses the first alone.
const (
	StatusAccept      int32 = 1798084231
	StatusAcceptStale int32 = 950395421
	StatusSolved      int32 = 1422486894
	StatusSolvedStale int32 = 1713984938
)

// Reasons why a share was refused that the reply to mining.submit does not tell apart: it says 21 for both.
const (
	StatusJobNotFound int32 = 36
	StatusStale       int32 = 37
)

// Accepted reports whether the share counts.
func (r *SubmitResponse) Accepted() bool {
	switch r.Status {
	case StatusAccept, StatusAcceptStale, StatusSolved, StatusSolvedStale:
		return true
	}
	return false
}

// Decode reads a SUBMIT_RESPONSE frame. It returns [ErrBody] unless it has exactly 10 bytes, header included.
func (r *SubmitResponse) Decode(f Frame) error {
	*r = SubmitResponse{}
	if f.Command != CommandSubmitResponse {
		return ErrCommand
	}
	if len(f.Body) != 6 {
		return ErrBody
	}
	r.Index = binary.LittleEndian.Uint16(f.Body)
	r.Status = int32(binary.LittleEndian.Uint32(f.Body[2:]))
	return nil
}

// AppendSubmitResponse appends a SUBMIT_RESPONSE frame.
func AppendSubmitResponse(dst []byte, index uint16, status int32) []byte {
	dst = appendHeader(dst, CommandSubmitResponse, 6)
	dst = binary.LittleEndian.AppendUint16(dst, index)
	return binary.LittleEndian.AppendUint32(dst, uint32(status))
}
