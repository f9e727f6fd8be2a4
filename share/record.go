package share

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"net/netip"
	"slices"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
)

// RecordVersion is the version number in every record, 65540: the third generation of BTCPool's share records, the
// first one in protobuf.
const RecordVersion = 0x00010004

// MaxRecordSize is the largest record that is read, in bytes. Those that this package writes stay below 140; the rest
// is room for fields of later versions.
const MaxRecordSize = 1 << 16

// maxRecordTime is the last second of the year 9999, after which dates stop having ten characters.
const maxRecordTime = 253402300799

// ErrInvalid is returned for a share that no record can hold, and for bytes that are not a record of a valid share.
// Doing the same again cannot help. A [Sink] that is given an invalid share takes all others of the batch and then
// returns an error that wraps ErrInvalid; see [OnlyInvalid].
var ErrInvalid = errors.New("share: invalid share")

// The fields of a record: protobuf field number and wire type, as one tag. Everything called sint is zig-zag encoded.
//
//	 1 version      sint32   always 65540
//	 2 workerhashid sint64   WorkerID
//	 3 userid       sint32   UserID
//	 4 status       sint32   Verdict.Status
//	 5 timestamp    sint64   Time, Unix seconds
//	 6 ip           string   IP in text form, "0.0.0.0" for none
//	 7 jobid        uint64   JobID
//	 8 sharediff    uint64   Difficulty; 0 when field 16 holds it
//	 9 blkbits      uint32   Bits
//	10 height       uint32   Height
//	11 nonce        uint32   Nonce
//	12 sessionid    uint32   SessionID
//	13 versionmask  uint32   VersionBits
//	14 extuserid    sint32   ExtUserID, only if not 0
//	15 bitsreached  uint32   BitsReached, only if not 0
//	16              fixed64  IEEE 754 bits of Difficulty, only if it is not a whole number; unknown to BTCPool
const (
	wireVarint, wireFixed64, wireBytes, wireGroup, wireGroupEnd, wireFixed32 = 0, 1, 2, 3, 4, 5

	tagVersion     = 1<<3 | wireVarint
	tagWorkerID    = 2<<3 | wireVarint
	tagUserID      = 3<<3 | wireVarint
	tagStatus      = 4<<3 | wireVarint
	tagTime        = 5<<3 | wireVarint
	tagIP          = 6<<3 | wireBytes
	tagJobID       = 7<<3 | wireVarint
	tagDifficulty  = 8<<3 | wireVarint
	tagBits        = 9<<3 | wireVarint
	tagHeight      = 10<<3 | wireVarint
	tagNonce       = 11<<3 | wireVarint
	tagSessionID   = 12<<3 | wireVarint
	tagVersionBits = 13<<3 | wireVarint
	tagExtUserID   = 14<<3 | wireVarint
	tagBitsReached = 15<<3 | wireVarint
	tagExactDiff   = 16<<3 | wireFixed64
)

// acceptedStatus is the status of nearly all shares, as field 4 holds it.
const acceptedStatus = 2 * 1798084231

// Check reports what keeps s from being recorded, as an error that wraps [ErrInvalid], or nil. BTCPool's readers drop
// records whose job id, user id, worker id, height, bits or difficulty is 0; a negative height, a difficulty that is
// not a positive finite number and a time outside 1970 to 9999, such as the zero Time, cannot be written at all.
func (s *Share) Check() error {
	what := ""
	switch unix := s.Time.Unix(); {
	case s.JobID == 0:
		what = "the job id is 0"
	case s.WorkerID == 0:
		what = "the worker id is 0"
	case s.UserID == 0:
		what = "the user id is 0"
	case s.Height <= 0:
		what = "the height is not above 0"
	case s.Bits == 0:
		what = "the network target is 0"
	case !s.Difficulty.Valid():
		what = "the difficulty is not a positive finite number"
	case unix < 0 || unix > maxRecordTime:
		what = "the time is outside 1970 to 9999"
	default:
		return nil
	}
	return fmt.Errorf("%w: %s", ErrInvalid, what)
}

// AppendBinary appends the record of s in BTCPool's format V3, a protobuf message without any prefix, and returns the
// extended slice. The bytes are those that BTCPool writes: fields 1 to 13 in number order and always present, external
// user and bits reached only where they are not 0. It does not allocate when dst has 140 bytes of room, which
// no record exceeds.
//
// A record carries a difficulty as a whole number. One that is not, which below 1 none is, is written as 0, with the
// exact value in a field of its own: readers that do not know that field drop the share instead of crediting it with
// more than it is worth.
//
// Times are cut to whole seconds, addresses lose their zone, IPv4 in IPv6 becomes IPv4, and no address is "0.0.0.0".
// Chain and Worker are not written. The error is that of [Share.Check]; dst is then returned as it was.
func (s *Share) AppendBinary(dst []byte) ([]byte, error) {
	if err := s.Check(); err != nil {
		return dst, err
	}
	return s.appendRecord(dst), nil
}

// maxRecord is the room of the largest record that appendRecord writes.
const maxRecord = 140

// appendRecord is AppendBinary for shares of any content. It makes room once and then writes by index, in half the
// time that a chain of appends takes.
func (s *Share) appendRecord(dst []byte) []byte {
	dst = slices.Grow(dst, maxRecord)
	b, i := dst[len(dst):len(dst)+maxRecord], 4
	copy(b, "\x08\x88\x80\x08")
	i = putUvarint(b, i, tagWorkerID, zigzag(s.WorkerID))
	i = putUvarint(b, i, tagUserID, zigzag(int64(s.UserID)))
	i = putUvarint(b, i, tagStatus, zigzag(int64(s.Verdict.Status())))
	i = putUvarint(b, i, tagTime, zigzag(s.Time.Unix()))
	i = putAddr(b, i, s.IP)

	whole, exact := uint64(0), isWhole(s.Difficulty)
	if exact {
		whole = uint64(s.Difficulty)
	}
	i = putUvarint(b, i, tagJobID, uint64(s.JobID))
	i = putUvarint(b, i, tagDifficulty, whole)
	i = putUvarint(b, i, tagBits, uint64(s.Bits))
	i = putUvarint(b, i, tagHeight, uint64(uint32(s.Height)))
	i = putUvarint(b, i, tagNonce, uint64(s.Nonce))
	i = putUvarint(b, i, tagSessionID, uint64(s.SessionID))
	i = putUvarint(b, i, tagVersionBits, uint64(s.VersionBits))
	if s.ExtUserID != 0 {
		i = putUvarint(b, i, tagExtUserID, zigzag(int64(s.ExtUserID)))
	}
	if s.BitsReached != 0 {
		i = putUvarint(b, i, tagBitsReached, uint64(s.BitsReached))
	}
	if !exact {
		b[i], b[i+1] = tagExactDiff&0x7f|0x80, tagExactDiff>>7
		binary.LittleEndian.PutUint64(b[i+2:], math.Float64bits(float64(s.Difficulty)))
		i += 10
	}
	return dst[:len(dst)+i]
}

func zigzag(v int64) uint64 { return uint64(v)<<1 ^ uint64(v>>63) }

// putUvarint writes a tag and a number at b[i:] and returns the index behind them.
func putUvarint(b []byte, i int, tag byte, v uint64) int {
	b[i] = tag
	for i++; v >= 0x80; i++ {
		b[i] = byte(v) | 0x80
		v >>= 7
	}
	b[i] = byte(v)
	return i + 1
}

// putAddr writes the field of ip, 41 bytes at most, at b[i:] and returns the index behind it.
func putAddr(b []byte, i int, ip netip.Addr) int {
	b[i] = tagIP
	start := i + 2
	i = start
	if ip = canonicalAddr(ip); !ip.IsValid() {
		i += copy(b[i:], "0.0.0.0")
	} else if ip.Is4() {
		for _, v := range ip.As4() {
			if v >= 100 {
				b[i] = '0' + v/100
				i++
			}
			if v >= 10 {
				b[i] = '0' + v/10%10
				i++
			}
			b[i], b[i+1] = '0'+v%10, '.'
			i += 2
		}
		i-- // the last dot
	} else {
		i += len(ip.AppendTo(b[i:i]))
	}
	b[start-1] = byte(i - start)
	return i
}

// isWhole reports whether field 8 can hold d.
func isWhole(d difficulty.Difficulty) bool {
	return d >= 1 && d < 1<<64 && float64(d) == math.Trunc(float64(d))
}

// canonicalAddr gives each address one form. The unspecified IPv4 address is how records say that there is none.
func canonicalAddr(ip netip.Addr) netip.Addr {
	ip = ip.Unmap()
	if ip.Zone() != "" {
		ip = ip.WithZone("")
	}
	if ip == netip.IPv4Unspecified() {
		return netip.Addr{}
	}
	return ip
}

// UnmarshalBinary sets *s to the share of a record in BTCPool's format V3. It takes fields in any order, the last one
// counting where one is repeated, skips fields that it does not know, and retains nothing of data. Fields that are
// missing stay zero, and so do Chain and Worker, which records do not carry.
//
// The error wraps [ErrInvalid]: for data that is not protobuf, for a number that its field cannot hold, for a version
// other than [RecordVersion], for a share that fails [Share.Check], and for more than [MaxRecordSize] bytes. *s then
// is unspecified. A status without a [Verdict] is read as [Rejected], which does not pay, and an address that is none
// as no address: BTCPool servers of some builds wrote rubbish there, which is no reason to lose the share.
func (s *Share) UnmarshalBinary(data []byte) error {
	if err := s.unmarshal(data); err != nil {
		return err
	}
	return s.Check()
}

func (s *Share) unmarshal(data []byte) error {
	*s = Share{}
	if len(data) > MaxRecordSize {
		return fmt.Errorf("%w: record of %d bytes, at most %d are read", ErrInvalid, len(data), MaxRecordSize)
	}
	var version, unix int64
	var exact difficulty.Difficulty
	for i := 0; i < len(data); {
		var tag, v uint64
		if tag = uint64(data[i]); tag < 0x80 {
			i++
		} else if tag, i = uvarint(data, i); i < 0 || tag > math.MaxUint32 {
			return malformed("field tag")
		}
		if tag>>3 == 0 {
			return malformed("field number 0")
		}
		if tag&7 == wireVarint {
			if i < len(data) && data[i] < 0x80 {
				v = uint64(data[i])
				i++
			} else if len(data)-i < 10 {
				if v, i = uvarint(data, i); i < 0 {
					return malformed("number")
				}
			} else {
				// uvarint without its loop, which would take a quarter of the time spent here: the bits of up to eight
				// bytes are moved together in three steps.
				x := binary.LittleEndian.Uint64(data[i:])
				ends := ^x & 0x8080808080808080
				v = x & (ends ^ (ends - 1)) & 0x7f7f7f7f7f7f7f7f // up to the last byte, which has its top bit clear
				v = v&0x007f007f007f007f | v&0x7f007f007f007f00>>1
				v = v&0x00003fff00003fff | v&0x3fff00003fff0000>>2
				v = v&0x000000000fffffff | v&0x0fffffff00000000>>4
				switch {
				case ends != 0:
					i += bits.TrailingZeros64(ends)/8 + 1
				case data[i+8] < 0x80:
					v |= uint64(data[i+8]) << 56
					i += 9
				case data[i+9] <= 1:
					v |= uint64(data[i+8]&0x7f)<<56 | uint64(data[i+9])<<63
					i += 10
				default:
					return malformed("number")
				}
			}
			max32 := true     // all but these are 32-bit fields
			switch tag >> 3 { // dense, so that it becomes a jump
			case tagWorkerID >> 3:
				s.WorkerID, max32 = unzigzag(v), false
			case tagTime >> 3:
				unix, max32 = unzigzag(v), false
			case tagJobID >> 3:
				s.JobID, max32 = job.ID(v), false
			case tagDifficulty >> 3:
				s.Difficulty, max32 = difficulty.Difficulty(v), false
			case tagVersion >> 3:
				version = unzigzag(v)
			case tagUserID >> 3:
				s.UserID = int32(unzigzag(v))
			case tagStatus >> 3:
				if v == acceptedStatus {
					s.Verdict = Accepted
				} else {
					s.Verdict, _ = VerdictOf(int32(unzigzag(v)))
				}
			case tagBits >> 3:
				s.Bits = uint32(v)
			case tagHeight >> 3:
				s.Height = int32(v)
			case tagNonce >> 3:
				s.Nonce = uint32(v)
			case tagSessionID >> 3:
				s.SessionID = uint32(v)
			case tagVersionBits >> 3:
				s.VersionBits = uint32(v)
			case tagExtUserID >> 3:
				s.ExtUserID = int32(unzigzag(v))
			case tagBitsReached >> 3:
				s.BitsReached = uint32(v)
			default:
				max32 = false
			}
			if max32 && v > math.MaxUint32 {
				return fmt.Errorf("%w: record field %d holds %d, more than 32 bits", ErrInvalid, tag>>3, v)
			}
			continue
		}
		start := i
		if i = skipField(data, i, tag, maxGroupDepth); i < 0 {
			return malformed("field")
		}
		switch tag {
		case tagIP:
			_, n := uvarint(data, start)
			s.IP = parseAddr(data[n:i])
		case tagExactDiff:
			exact = difficulty.Difficulty(math.Float64frombits(binary.LittleEndian.Uint64(data[start:])))
		}
	}
	if version != RecordVersion {
		return fmt.Errorf("%w: record of version %d, not %d", ErrInvalid, version, RecordVersion)
	}
	if unix < 0 || unix > maxRecordTime {
		return fmt.Errorf("%w: the time %d is outside 1970 to 9999", ErrInvalid, unix)
	}
	s.Time = time.Unix(unix, 0).UTC()
	if s.Difficulty == 0 {
		s.Difficulty = exact
	}
	return nil
}

func malformed(what string) error {
	return fmt.Errorf("%w: malformed or cut %s in the record", ErrInvalid, what)
}

func unzigzag(v uint64) int64 { return int64(v>>1) ^ -int64(v&1) }

// uvarint reads a number at b[i:] and returns the index behind it, or -1 when it is cut off or exceeds 64 bits.
func uvarint(b []byte, i int) (uint64, int) {
	var v uint64
	for shift := uint(0); i < len(b); shift += 7 {
		c := b[i]
		i++
		if c < 0x80 {
			if shift == 63 && c > 1 {
				return 0, -1
			}
			return v | uint64(c)<<shift, i
		}
		if shift == 63 {
			return 0, -1
		}
		v |= uint64(c&0x7f) << shift
	}
	return 0, -1
}

// maxGroupDepth bounds how deep protobuf groups, which the format knows but records do not use, may nest.
const maxGroupDepth = 16

// skipField returns the index behind the value at b[i:] of a field with the given tag, or -1.
func skipField(b []byte, i int, tag uint64, depth int) int {
	switch tag & 7 {
	case wireVarint:
		_, i = uvarint(b, i)
		return i
	case wireFixed64:
		i += 8
	case wireFixed32:
		i += 4
	case wireBytes:
		var n uint64
		if n, i = uvarint(b, i); i < 0 || n > uint64(len(b)-i) {
			return -1
		}
		i += int(n)
	case wireGroup:
		if depth == 0 {
			return -1
		}
		for {
			var t uint64
			if t, i = uvarint(b, i); i < 0 || t > math.MaxUint32 || t>>3 == 0 {
				return -1
			}
			if t&7 == wireGroupEnd {
				if t>>3 != tag>>3 {
					return -1
				}
				return i
			}
			if i = skipField(b, i, t, depth-1); i < 0 {
				return -1
			}
		}
	default: // the end of a group that did not begin, or a type that does not exist
		return -1
	}
	if i > len(b) {
		return -1
	}
	return i
}

// parseAddr reads the text form of an address; the zero Addr stands for anything else.
func parseAddr(b []byte) netip.Addr {
	if ip, ok := parseIPv4(b); ok {
		return canonicalAddr(ip)
	}
	if len(b) > 45 { // the longest text of an IPv6 address
		return netip.Addr{}
	}
	ip, err := netip.ParseAddr(string(b))
	if err != nil {
		return netip.Addr{}
	}
	return canonicalAddr(ip)
}

// parseIPv4 is netip.ParseAddr for nearly every record there is, without making a string of b.
func parseIPv4(b []byte) (ip netip.Addr, ok bool) {
	var a [4]byte
	part, digits, v := 0, 0, 0
	for _, c := range b {
		switch {
		case c == '.' && digits > 0 && part < 3:
			a[part] = byte(v)
			part++
			digits, v = 0, 0
		case '0' <= c && c <= '9' && (digits == 0 || v > 0):
			digits++
			if v = 10*v + int(c-'0'); v > 255 {
				return ip, false
			}
		default:
			return ip, false
		}
	}
	if part != 3 || digits == 0 {
		return ip, false
	}
	a[3] = byte(v)
	return netip.AddrFrom4(a), true
}

// An ID names a share across processes, restarts and retries: shares with equal IDs are the same share, and whoever
// counts must count them once.
type ID [16]byte

// ID returns the first 16 bytes of the SHA-256 of the share's record, so that a share has the same ID before it is
// written and after it was read back, and whatever has the same record has the same ID. Chain, Worker and fractions of
// a second play no part, as they are not in records.
//
// Different records do not have the same ID: that would be a collision in 128 bits of SHA-256. Two different
// submissions have the same record only if one session sends them for the same job, within the same second, with the
// same nonce and version bits and the same ruling, although something outside the record differs (extranonce2 or
// ntime); their hashes then differ, too, and with them the 23 bits or so that BitsReached keeps. For submissions that
// were hashed that is a chance below 2^-50 a pair. It is only rejected submissions that a miner can repeat within a
// second, such as one duplicate sent three times, that share an ID, and those pay nothing.
//
// ID works on invalid shares as well. It does not allocate.
func (s *Share) ID() ID {
	var buf [192]byte
	sum := sha256.Sum256(s.appendRecord(buf[:0]))
	return ID(sum[:16])
}

// String returns id as 32 hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }
