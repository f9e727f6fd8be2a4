package sv1

import (
	"bytes"
	"strconv"
)

// MaxBranch is how many hashes of a merkle branch [Notify.Decode] takes: enough for 2^32 transactions, and where miners
// stop reading.
const MaxBranch = 32

// A Notify holds the parameters of mining.notify: the work. All hashes are in memory order, as SHA-256d returns them
// and as they stand in headers; the one swap of the wire format is the encoder's and the decoder's business.
type Notify struct {
	JobID    string     // decimal on servers of ours; other pools send any text
	PrevHash [32]byte   // hash of the block to build on
	Coinb1   []byte     // the coinbase transaction up to extranonce1
	Coinb2   []byte     // the coinbase transaction after extranonce2
	Branch   [][32]byte // what to hash the coinbase's hash with, from the leaf to the root; none in an empty block
	Version  uint32     // of the header, before version rolling
	Bits     uint32     // network target in compact form
	NTime    uint32     // block time in Unix seconds
	Clean    bool       // drop all earlier work
}

// AppendNotify appends a mining.notify notification.
func AppendNotify(dst []byte, n *Notify) []byte {
	dst = append(dst, notifyHead...)
	dst = appendText(dst, n.JobID)
	dst = append(dst, ',')
	dst = AppendNotifyBody(dst, n)
	return appendClean(dst, n.Clean)
}

// AppendNotifyBody appends what all miners of a job share, the params of mining.notify between the job id and the clean
// flag, for [AppendNotifyFrom]. It is no message of its own and does not look at n.JobID and n.Clean.
func AppendNotifyBody(dst []byte, n *Notify) []byte {
	dst = append(dst, '"')
	for i := 0; i < len(n.PrevHash); i += 4 {
		// Each 4-byte word is reversed; the words keep their order.
		p := n.PrevHash[i : i+4]
		dst = appendHex32(dst, uint32(p[0])|uint32(p[1])<<8|uint32(p[2])<<16|uint32(p[3])<<24)
	}
	dst = append(dst, `","`...)
	dst = appendHex(dst, n.Coinb1)
	dst = append(dst, `","`...)
	dst = appendHex(dst, n.Coinb2)
	dst = append(dst, `",[`...)
	for i := range n.Branch {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, '"')
		dst = appendHex(dst, n.Branch[i][:])
		dst = append(dst, '"')
	}
	dst = append(dst, `],"`...)
	dst = appendHex32(dst, n.Version)
	dst = append(dst, `","`...)
	dst = appendHex32(dst, n.Bits)
	dst = append(dst, `","`...)
	dst = appendHex32(dst, n.NTime)
	return append(dst, '"')
}

// AppendNotifyFrom appends a mining.notify notification with a body that [AppendNotifyBody] encoded. It costs little
// more than copying the body.
func AppendNotifyFrom(dst []byte, jobID uint64, body []byte, clean bool) []byte {
	dst = append(dst, notifyHead...)
	dst = append(dst, '"')
	dst = strconv.AppendUint(dst, jobID, 10)
	dst = append(dst, `",`...)
	dst = append(dst, body...)
	return appendClean(dst, clean)
}

const notifyHead = `{"id":null,"method":"mining.notify","params":[`

func appendClean(dst []byte, clean bool) []byte {
	if clean {
		return append(dst, ",true]}\n"...)
	}
	return append(dst, ",false]}\n"...)
}

// Decode reads the params of a mining.notify. All fields are copies. Numbers may have fewer than 8 digits; params after
// the ninth are ignored.
func (n *Notify) Decode(params []byte) error {
	*n = Notify{}
	e := over(params)
	var p [9][]byte
	for i := range p {
		p[i] = e.next()
	}
	switch {
	case !e.finish():
		return errNotArray
	case p[8] == nil:
		return errNotifyCount
	}
	var d Notify
	if d.JobID = textOrNumber(p[0]); d.JobID == "" {
		return errJob
	}
	digits, _ := text(p[1])
	if !decodeHex(d.PrevHash[:], digits) {
		return errNotifyPrevHash
	}
	for i := 0; i < len(d.PrevHash); i += 4 {
		w := d.PrevHash[i : i+4]
		w[0], w[1], w[2], w[3] = w[3], w[2], w[1], w[0]
	}
	var ok [3]bool
	d.Coinb1, ok[0] = hexBytes(p[2], len(params))
	d.Coinb2, ok[1] = hexBytes(p[3], len(params))
	if !ok[0] || !ok[1] {
		return errNotifyCoinbase
	}
	if isNull(p[4]) {
		return errNotifyBranch
	}
	branch := over(p[4])
	for tok := branch.next(); tok != nil; tok = branch.next() {
		var hash [32]byte
		if digits, _ := text(tok); !decodeHex(hash[:], digits) || len(d.Branch) == MaxBranch {
			return errNotifyBranch
		}
		d.Branch = append(d.Branch, hash)
	}
	if branch.bad {
		return errNotifyBranch
	}
	d.Version, ok[0] = hexToken(p[5])
	d.Bits, ok[1] = hexToken(p[6])
	d.NTime, ok[2] = hexToken(p[7])
	if !ok[0] || !ok[1] || !ok[2] {
		return errNotifyNumber
	}
	switch {
	case bytes.Equal(p[8], []byte("true")):
		d.Clean = true
	case !bytes.Equal(p[8], []byte("false")):
		return errNotifyClean
	}
	*n = d
	return nil
}
