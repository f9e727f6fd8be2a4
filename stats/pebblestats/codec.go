package pebblestats

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stats"
)

// ErrCorrupt is returned for a record that cannot be read.
var ErrCorrupt = errors.New("pebblestats: record is corrupt")

// Letters that keys begin with.
const (
	kindSchema = 'v'
	kindState  = 's'
	kindBucket = 'b'
	kindTotal  = 't'
	kindName   = 'n'
	kindRound  = 'r'
	kindUsers  = 'u'
)

const (
	maxTime = 1<<32 - 1
	maxSpan = 1<<16 - 1
)

// seconds returns t as keys and values hold it, 0 for the zero time.
func seconds(t time.Time) (uint64, error) {
	if t.IsZero() {
		return 0, nil
	}
	if s := t.Unix(); s > 0 && s <= maxTime && t.Nanosecond() == 0 {
		return uint64(s), nil
	}
	return 0, fmt.Errorf("pebblestats: time %v is not a whole second from 1970 to 2106", t)
}

func fromSeconds(s uint64) time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.Unix(int64(s), 0).UTC()
}

func appendKey(dst []byte, k stats.Key) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(k.UserID))
	return binary.BigEndian.AppendUint64(dst, uint64(k.WorkerID))
}

func appendAmount(dst []byte, d difficulty.Difficulty) []byte {
	if f := float64(d); f >= 0 && f < 1<<53 && f == math.Trunc(f) && !math.Signbit(f) {
		return binary.AppendUvarint(dst, uint64(f)<<1)
	}
	dst = append(dst, 1)
	return binary.BigEndian.AppendUint64(dst, math.Float64bits(float64(d)))
}

func appendTally(dst []byte, t stats.Tally) []byte {
	return appendAmount(binary.AppendUvarint(dst, t.Count), t.Sum)
}

func appendTallies(dst []byte, list []stats.VerdictTally) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(list)))
	for _, t := range list {
		dst = appendTally(binary.AppendVarint(dst, int64(t.Verdict.Status())), t.Tally)
	}
	return dst
}

func appendBucket(dst []byte, b *stats.Bucket) []byte {
	return appendTallies(appendTally(dst, b.Accepted), b.Other)
}

func appendTotal(dst []byte, t *stats.Total) ([]byte, error) {
	dst = binary.AppendUvarint(dst, t.AcceptCount)
	dst = appendTally(dst, t.Accepted)
	dst = appendTallies(dst, t.Other)
	for _, at := range []time.Time{t.First, t.LastShare, t.LastAccepted, t.LastBlock} {
		s, err := seconds(at)
		if err != nil {
			return nil, err
		}
		dst = binary.AppendUvarint(dst, s)
	}
	ip := t.LastIP.AsSlice()
	dst = append(append(dst, byte(len(ip))), ip...)
	dst = appendAmount(dst, t.LastDifficulty)
	dst = appendAmount(dst, t.RoundShares)
	dst = binary.AppendUvarint(dst, t.Round)
	return binary.AppendUvarint(dst, t.BlocksFound), nil
}

func appendRound(dst []byte, r *stats.Round) []byte {
	dst = binary.AppendUvarint(dst, uint64(r.JobID))
	dst = binary.AppendVarint(dst, int64(r.Height))
	dst = binary.AppendUvarint(dst, uint64(r.Nonce))
	dst = binary.AppendUvarint(dst, uint64(r.Bits))
	dst = appendKey(dst, r.Finder)
	return appendAmount(dst, r.Shares)
}

func appendUsers(dst []byte, users []stats.UserShares) []byte {
	for _, u := range users {
		dst = appendAmount(binary.AppendVarint(dst, int64(u.UserID)), u.Shares)
	}
	return dst
}

// A decoder reads values. The first thing that is wrong sticks.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) fail() { d.b, d.bad = nil, true }

// done returns ErrCorrupt unless everything was read and nothing else was there.
func (d *decoder) done(what string) error {
	if d.bad || len(d.b) != 0 {
		return fmt.Errorf("%w: %s", ErrCorrupt, what)
	}
	return nil
}

func (d *decoder) bytes(n int) []byte {
	if n > len(d.b) {
		d.fail()
		return make([]byte, n)
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) uvarint(limit uint64) uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || v > limit {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint32() int32 {
	v, n := binary.Varint(d.b)
	if n <= 0 || v != int64(int32(v)) {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return int32(v)
}

func (d *decoder) time() time.Time { return fromSeconds(d.uvarint(maxTime)) }

func (d *decoder) key() stats.Key {
	b := d.bytes(12)
	return stats.Key{
		UserID:   int32(binary.BigEndian.Uint32(b)),
		WorkerID: int64(binary.BigEndian.Uint64(b[4:])),
	}
}

func (d *decoder) amount() difficulty.Difficulty {
	v := d.uvarint(1 << 54)
	switch {
	case v&1 == 0:
		return difficulty.Difficulty(v >> 1)
	case v == 1:
		f := math.Float64frombits(binary.BigEndian.Uint64(d.bytes(8)))
		if math.IsNaN(f) || math.IsInf(f, 0) {
			d.fail()
			return 0
		}
		return difficulty.Difficulty(f)
	}
	d.fail()
	return 0
}

func (d *decoder) tally() stats.Tally {
	n := d.uvarint(math.MaxUint64)
	return stats.Tally{Count: n, Sum: d.amount()}
}

func (d *decoder) tallies() []stats.VerdictTally {
	n := d.uvarint(256)
	if n == 0 {
		return nil
	}
	var list []stats.VerdictTally
	for range n {
		v, ok := share.VerdictOf(d.varint32())
		if !ok || d.bad || len(list) > 0 && list[len(list)-1].Verdict >= v {
			d.fail()
			return nil
		}
		list = append(list, stats.VerdictTally{Verdict: v, Tally: d.tally()})
	}
	return list
}

// decodeBucket reads the tallies of a bucket.
func decodeBucket(v []byte, b *stats.Bucket) error {
	d := decoder{b: v}
	b.Accepted = d.tally()
	b.Other = d.tallies()
	return d.done("bucket")
}

// decodeBucketKey reads what comes after the letter in a bucket's key.
func decodeBucketKey(k []byte, b *stats.Bucket) (batch uint64, err error) {
	d := decoder{b: k}
	b.Start = time.Unix(int64(binary.BigEndian.Uint32(d.bytes(4))), 0).UTC()
	b.Key = d.key()
	b.Span = time.Duration(binary.BigEndian.Uint16(d.bytes(2))) * time.Second
	batch = binary.BigEndian.Uint64(d.bytes(8))
	return batch, d.done("key of a bucket")
}

func decodeTotal(v []byte, t *stats.Total) error {
	d := decoder{b: v}
	t.AcceptCount = d.uvarint(math.MaxUint64)
	t.Accepted = d.tally()
	t.Other = d.tallies()
	for _, at := range []*time.Time{&t.First, &t.LastShare, &t.LastAccepted, &t.LastBlock} {
		*at = d.time()
	}
	if n := d.bytes(1)[0]; n == 4 || n == 16 {
		t.LastIP, _ = netip.AddrFromSlice(d.bytes(int(n)))
	} else if n != 0 {
		d.fail()
	}
	t.LastDifficulty = d.amount()
	t.RoundShares = d.amount()
	t.Round = d.uvarint(math.MaxUint64)
	t.BlocksFound = d.uvarint(math.MaxUint64)
	return d.done("total")
}

func decodeRound(v []byte, r *stats.Round) error {
	d := decoder{b: v}
	r.JobID = job.ID(d.uvarint(math.MaxUint64))
	r.Height = d.varint32()
	r.Nonce = uint32(d.uvarint(math.MaxUint32))
	r.Bits = uint32(d.uvarint(math.MaxUint32))
	r.Finder = d.key()
	r.Shares = d.amount()
	return d.done("round")
}

func decodeUsers(v []byte) ([]stats.UserShares, error) {
	d := decoder{b: v}
	var users []stats.UserShares
	for len(d.b) > 0 && !d.bad {
		id := d.varint32()
		users = append(users, stats.UserShares{UserID: id, Shares: d.amount()})
	}
	if err := d.done("shares of users in a round"); err != nil {
		return nil, err
	}
	return users, nil
}
