package btcagent

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Sizes in bytes.
const (
	Magic      = 0x7F  // the first byte of every frame; a line never begins with it
	HeaderSize = 4     // magic, command and length
	MaxFrame   = 65535 // header included: what the length can say
	MaxBody    = MaxFrame - HeaderSize
)

// A Command says what a frame means and how its body is laid out. There are 256; those without a constant mean nothing
// and are to be skipped.
type Command uint8

// The commands. Two of them exist only in BTCAgent for Ethereum: a Bitcoin pool ignores CommandSubmitMixHash, which is no
// submit to IsSubmit, and never sends CommandSetExtranonce.
const (
	CommandRegister          Command = 0x01 // a miner joined the farm: see Register
	CommandSubmit            Command = 0x02 // a share at the job's ntime: see Submit, also for the other three
	CommandSubmitTime        Command = 0x03 // a share with an ntime
	CommandUnregister        Command = 0x04 // a miner left: see Unregister
	CommandSetDifficulty     Command = 0x05 // see SetDifficulty
	CommandSubmitResponse    Command = 0x10 // see SubmitResponse
	CommandSubmitVersion     Command = 0x12 // a share with version bits
	CommandSubmitTimeVersion Command = 0x13 // a share with both
	CommandSubmitMixHash     Command = 0x14 // agent to pool, Ethereum only
	CommandSetExtranonce     Command = 0x22 // pool to agent, Ethereum only
)

// String returns the name that BTCAgent gives the command, or "unknown command 0x…".
func (c Command) String() string {
	switch c {
	case CommandRegister:
		return "REGISTER_WORKER"
	case CommandSubmit:
		return "SUBMIT_SHARE"
	case CommandSubmitTime:
		return "SUBMIT_SHARE_WITH_TIME"
	case CommandUnregister:
		return "UNREGISTER_WORKER"
	case CommandSetDifficulty:
		return "MINING_SET_DIFF"
	case CommandSubmitResponse:
		return "SUBMIT_RESPONSE"
	case CommandSubmitVersion:
		return "SUBMIT_SHARE_WITH_VER"
	case CommandSubmitTimeVersion:
		return "SUBMIT_SHARE_WITH_TIME_VER"
	case CommandSubmitMixHash:
		return "SUBMIT_SHARE_WITH_MIX_HASH"
	case CommandSetExtranonce:
		return "SET_EXTRA_NONCE"
	}
	return fmt.Sprintf("unknown command 0x%02x", uint8(c))
}

// IsSubmit reports whether the frame is a share for [Submit.Decode]. Every frame of such a command that comes after
// mining.authorize, also one that cannot be decoded, takes an index of [SubmitResponse].
func (c Command) IsSubmit() bool {
	switch c {
	case CommandSubmit, CommandSubmitTime, CommandSubmitVersion, CommandSubmitTimeVersion:
		return true
	}
	return false
}

var (
	// ErrMagic is a message that does not begin with Magic, and so is no frame.
	ErrMagic = errors.New("btcagent: not a frame")

	// ErrLength is a frame whose length is below HeaderSize or, for an encoder, above MaxFrame. Nobody can say where the
	// next message begins, so the connection is to be closed.
	ErrLength = errors.New("btcagent: frame length out of range")

	// ErrCommand is a frame given to the decoder of another command.
	ErrCommand = errors.New("btcagent: frame of another command")

	// ErrBody is a frame whose body has the wrong size for its command. It means nothing; a submit is answered all the
	// same.
	ErrBody = errors.New("btcagent: frame body has the wrong size for its command")

	// ErrSessionID is a frame about session id 0xFFFF, which no worker has. The rest of the frame was decoded.
	ErrSessionID = errors.New("btcagent: session id 0xffff")
)

// A Frame is one binary message.
type Frame struct {
	Command Command
	Body    []byte // what follows the header, at most MaxBody bytes; it borrows from the buffer
}

// Next splits the first frame off buf, which begins with [Magic]. n is how many bytes it took, and 0 when buf holds only
// a part of the frame, or nothing. It returns [ErrLength] as soon as the header is there, and [ErrMagic] for a buffer
// that begins with anything else. The frame's body is a part of buf.
func Next(buf []byte) (f Frame, n int, err error) {
	cmd, n, err := Header(buf)
	if n == 0 || n > len(buf) {
		return Frame{}, 0, err
	}
	return Frame{Command: cmd, Body: buf[HeaderSize:n:n]}, n, nil
}

// Header reads the beginning of the frame that buf begins with: its command and its size in bytes, header included. The
// size is 0 while fewer than [HeaderSize] bytes are there. It is for a server that will not hold 64 KiB for each agent:
// no frame that an agent may send is larger than [MaxRegister], and a larger one can be skipped without being kept, once
// it is counted if it is a submit. The errors are those of [Next].
func Header(buf []byte) (cmd Command, size int, err error) {
	if len(buf) == 0 {
		return 0, 0, nil
	}
	if buf[0] != Magic {
		return 0, 0, ErrMagic
	}
	if len(buf) < HeaderSize {
		return 0, 0, nil
	}
	size = int(binary.LittleEndian.Uint16(buf[2:]))
	if size < HeaderSize {
		return 0, 0, ErrLength
	}
	return Command(buf[1]), size, nil
}

// AppendFrame appends a frame of any command and body: what this package has no encoder for, or what no sound agent
// sends. It returns dst and [ErrLength] for a body above [MaxBody] bytes.
func AppendFrame(dst []byte, cmd Command, body []byte) ([]byte, error) {
	if len(body) > MaxBody {
		return dst, ErrLength
	}
	return append(appendHeader(dst, cmd, len(body)), body...), nil
}

// appendHeader appends the header of a frame whose body has size bytes, which the caller has bounded.
func appendHeader(dst []byte, cmd Command, size int) []byte {
	dst = append(dst, Magic, byte(cmd))
	return binary.LittleEndian.AppendUint16(dst, uint16(HeaderSize+size))
}
