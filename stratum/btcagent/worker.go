package btcagent

import (
	"bytes"
	"encoding/binary"
	"strings"
)

// MaxSessionID is the largest session id that a worker can have. The id is the agent's choice and belongs to its
// connection, which thus carries up to 65,535 workers.
const MaxSessionID = 0xFFFE

// Sizes of a REGISTER_WORKER frame in bytes, header included.
const (
	MinRegister = 8

	// MaxRegister is the largest that Decode takes. BTCPool ignores those above BTCPoolMaxRegister, though BTCAgent sends
	// names of any length, and so loses every share of a miner that is proud of its version.
	MaxRegister        = 512
	BTCPoolMaxRegister = 100
)

// A Register holds a REGISTER_WORKER frame: a miner has joined the farm. It replaces a worker of the same id.
type Register struct {
	SessionID uint16 // at most MaxSessionID

	// Software is what the miner sent in mining.subscribe, and Worker the part of its login after the first dot or, when
	// there is none, all of it. Either may be empty and may hold any byte but 00. They borrow from the frame. Cutting
	// them to length, filtering them, and naming a worker without a name is the server's business, and the same as for
	// a miner of its own.
	Software, Worker []byte
}

// Decode reads a REGISTER_WORKER frame of [MinRegister] to [MaxRegister] bytes. Each name ends at the first 00, the last
// byte of the frame counts as one whatever it is, and what is missing is empty. It returns [ErrBody] for another size
// and [ErrSessionID] for an id above [MaxSessionID].
func (r *Register) Decode(f Frame) error {
	*r = Register{}
	if f.Command != CommandRegister {
		return ErrCommand
	}
	if len(f.Body) < MinRegister-HeaderSize || len(f.Body) > MaxRegister-HeaderSize {
		return ErrBody
	}
	r.SessionID = binary.LittleEndian.Uint16(f.Body)
	names := f.Body[2 : len(f.Body)-1]
	var rest []byte
	r.Software, rest, _ = bytes.Cut(names, zero)
	r.Worker, _, _ = bytes.Cut(rest, zero)
	r.Software = r.Software[:len(r.Software):len(r.Software)]
	r.Worker = r.Worker[:len(r.Worker):len(r.Worker)]
	return checkID(r.SessionID)
}

var zero = []byte{0}

func checkID(id uint16) error {
	if id > MaxSessionID {
		return ErrSessionID
	}
	return nil
}

// AppendRegister appends a REGISTER_WORKER frame. Names end before their first 00, and where they would not fit into
// [MaxFrame]. Pools ignore frames far smaller than that: see [MaxRegister].
func AppendRegister(dst []byte, id uint16, software, worker string) []byte {
	software, _, _ = strings.Cut(software, "\x00")
	worker, _, _ = strings.Cut(worker, "\x00")
	const room = MaxBody - 2 - 2 // for both names
	software = software[:min(len(software), room)]
	worker = worker[:min(len(worker), room-len(software))]

	dst = appendHeader(dst, CommandRegister, 2+len(software)+1+len(worker)+1)
	dst = binary.LittleEndian.AppendUint16(dst, id)
	dst = append(append(dst, software...), 0)
	return append(append(dst, worker...), 0)
}

// An Unregister holds an UNREGISTER_WORKER frame: a miner has left the farm. When the agent itself leaves it sends none.
type Unregister struct {
	SessionID uint16 // at most MaxSessionID
}

// Decode reads an UNREGISTER_WORKER frame. It returns [ErrBody] unless it has exactly 6 bytes, header included, and
// [ErrSessionID] for an id above [MaxSessionID].
func (u *Unregister) Decode(f Frame) error {
	*u = Unregister{}
	if f.Command != CommandUnregister {
		return ErrCommand
	}
	if len(f.Body) != 2 {
		return ErrBody
	}
	u.SessionID = binary.LittleEndian.Uint16(f.Body)
	return checkID(u.SessionID)
}

// AppendUnregister appends an UNREGISTER_WORKER frame.
func AppendUnregister(dst []byte, id uint16) []byte {
	return binary.LittleEndian.AppendUint16(appendHeader(dst, CommandUnregister, 2), id)
}
