package pebblestats

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/poolkit/poolkit/stats"
)

// Schema names the layout that this package reads and writes. A Store refuses a database with another.
const Schema = "poolkit stats 1"

// ErrSchema is returned for a database whose layout is another than [Schema], or that is not one of statistics.
var ErrSchema = errors.New("pebblestats: not the expected layout")

// Options tune a Store.
type Options struct {
	Prefix string // begins every key, so that several users share a database; empty means "stats/"
	NoSync bool   // do not wait for the disk in Commit: a power failure, not a killed process, loses batches whole
}

// A Store is a [stats.Store] in a Pebble database.
type Store struct {
	db     *pebble.DB
	owned  bool
	prefix []byte
	write  *pebble.WriteOptions

	mu  sync.Mutex // one Commit at a time
	seq uint64
}

var (
	_ stats.Store       = (*Store)(nil)
	_ stats.RoundReader = (*Store)(nil)
)

// Open opens the database in a folder, which is made if need be. Close closes it.
func Open(dir string, opts *Options) (*Store, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("pebblestats: open %s: %w", dir, err)
	}
	db, err := pebble.Open(dir, &pebble.Options{Logger: quiet{}})
	if err != nil {
		return nil, fmt.Errorf("pebblestats: open %s: %w", dir, err)
	}
	s, err := New(db, opts)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	s.owned = true
	return s, nil
}

// quiet keeps Pebble's notes about its own housekeeping off the terminal.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}

// Fatalf is called when Pebble cannot go on without risking what is on disk; it must not return.
func (quiet) Fatalf(format string, args ...any) { panic(fmt.Sprintf("pebblestats: "+format, args...)) }

// New returns a Store in db, which stays open when the Store is closed. One Store at a time may write under a prefix.
func New(db *pebble.DB, opts *Options) (*Store, error) {
	s := &Store{db: db, prefix: []byte("stats/"), write: pebble.Sync}
	if opts != nil {
		if opts.Prefix != "" {
			s.prefix = []byte(opts.Prefix)
		}
		if opts.NoSync {
			s.write = pebble.NoSync
		}
	}
	if err := s.checkSchema(); err != nil {
		return nil, err
	}
	state, err := s.get(s.key(kindState))
	if err != nil {
		return nil, fmt.Errorf("pebblestats: read state: %w", err)
	}
	if state != nil {
		if len(state) < 8 {
			return nil, fmt.Errorf("%w: state", ErrCorrupt)
		}
		s.seq = binary.BigEndian.Uint64(state)
	}
	return s, nil
}

func (s *Store) checkSchema() error {
	schema, err := s.get(s.key(kindSchema))
	if err != nil {
		return fmt.Errorf("pebblestats: read schema: %w", err)
	}
	if schema == nil {
		it, err := s.db.NewIter(s.bounds(nil))
		if err != nil {
			return fmt.Errorf("pebblestats: read schema: %w", err)
		}
		foreign := it.First()
		if err := errors.Join(it.Error(), it.Close()); err != nil {
			return fmt.Errorf("pebblestats: read schema: %w", err)
		}
		if foreign {
			return fmt.Errorf("%w: keys that begin with %q are there already, and no schema", ErrSchema, s.prefix)
		}
		if err := s.db.Set(s.key(kindSchema), []byte(Schema), pebble.Sync); err != nil {
			return fmt.Errorf("pebblestats: write schema: %w", err)
		}
		return nil
	}
	if string(schema) != Schema {
		return fmt.Errorf("%w: it is %q and this program reads %q", ErrSchema, schema, Schema)
	}
	return nil
}

// Close closes the database if Open opened it.
func (s *Store) Close() error {
	if !s.owned {
		return nil
	}
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("pebblestats: close: %w", err)
	}
	return nil
}

// get returns a copy of a value, nil when there is none.
func (s *Store) get(key []byte) ([]byte, error) {
	v, closer, err := s.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	v = append([]byte{}, v...)
	return v, closer.Close()
}

// key returns the beginning of all keys of a kind.
func (s *Store) key(kind byte) []byte {
	return append(append(make([]byte, 0, len(s.prefix)+32), s.prefix...), kind)
}

// keyOf returns the key of a total or name.
func (s *Store) keyOf(kind byte, k stats.Key) []byte { return appendKey(s.key(kind), k) }

func (s *Store) usersKey(number uint64) []byte {
	return binary.BigEndian.AppendUint64(s.key(kindUsers), number)
}

// bounds covers all keys of the given kind, or all of the store's when kind is nil.
func (s *Store) bounds(kind []byte) *pebble.IterOptions {
	from := append(append([]byte{}, s.prefix...), kind...)
	return &pebble.IterOptions{LowerBound: from, UpperBound: after(from)}
}

// after returns the smallest key above all that begin with prefix, nil when there is none.
func after(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

// Commit is [stats.Store]'s. The disk has the batch when it returns, unless [Options.NoSync] is set.
func (s *Store) Commit(ctx context.Context, b *stats.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if b.Seq == s.seq && b.Seq != 0 {
		return nil
	}
	if b.Seq != s.seq+1 {
		return fmt.Errorf("pebblestats: commit batch %d after %d: %w", b.Seq, s.seq, stats.ErrConflict)
	}
	w := s.db.NewBatch()
	if err := s.fill(w, b); err != nil {
		return errors.Join(err, w.Close())
	}
	if err := s.db.Apply(w, s.write); err != nil {
		return errors.Join(fmt.Errorf("pebblestats: commit batch %d: %w", b.Seq, err), w.Close())
	}
	s.seq = b.Seq
	if err := w.Close(); err != nil {
		return fmt.Errorf("pebblestats: commit batch %d: %w", b.Seq, err)
	}
	return nil
}

func (s *Store) fill(w *pebble.Batch, b *stats.Batch) error {
	// A batch in memory refuses nothing, so one error stands for all.
	var first error
	check := func(err error) {
		if err != nil && first == nil {
			first = fmt.Errorf("pebblestats: fill batch %d: %w", b.Seq, err)
		}
	}
	check(w.Set(s.key(kindState), append(binary.BigEndian.AppendUint64(nil, b.Seq), b.Position...), nil))
	for _, k := range b.Forget {
		check(w.Delete(s.keyOf(kindTotal, k), nil))
		check(w.Delete(s.keyOf(kindName, k), nil))
	}
	var key, val []byte
	for i := range b.Totals {
		t := &b.Totals[i]
		v, err := appendTotal(val[:0], t)
		if err != nil {
			return err
		}
		val = v
		check(w.Set(s.keyOf(kindTotal, t.Key), val, nil))
	}
	for _, n := range b.Names {
		check(w.Set(s.keyOf(kindName, n.Key), []byte(n.Name), nil))
	}
	for i := range b.Rounds {
		r := &b.Rounds[i]
		at, err := seconds(r.Time)
		if err != nil {
			return err
		}
		key = binary.BigEndian.AppendUint32(s.key(kindRound), uint32(at))
		key = binary.BigEndian.AppendUint64(key, r.Number)
		val = appendRound(val[:0], r)
		check(w.Set(key, val, nil))
		val = appendUsers(val[:0], r.Users)
		check(w.Set(s.usersKey(r.Number), val, nil))
	}
	// Parts of one bucket in one batch would overwrite each other.
	list := b.Buckets
	if !slices.IsSortedFunc(list, func(a, b stats.Bucket) int { return a.Compare(&b) }) {
		list = slices.Clone(list)
		slices.SortStableFunc(list, func(a, b stats.Bucket) int { return a.Compare(&b) })
	}
	for i := 0; i < len(list); {
		sum := list[i]
		for i++; i < len(list) && list[i].Compare(&sum) == 0; i++ {
			sum.Merge(&list[i])
		}
		start, span := sum.Start.Unix(), sum.Span/time.Second
		if start < 0 || start > maxTime || sum.Start.Nanosecond() != 0 ||
			sum.Span <= 0 || span > maxSpan || sum.Span%time.Second != 0 {
			return fmt.Errorf("pebblestats: bucket of %v from %v cannot be kept", sum.Span, sum.Start)
		}
		key = append(append(key[:0], s.prefix...), kindBucket)
		key = appendKey(binary.BigEndian.AppendUint32(key, uint32(start)), sum.Key)
		key = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint16(key, uint16(span)), b.Seq)
		val = appendBucket(val[:0], &sum)
		check(w.Set(key, val, nil))
	}
	if t := b.PruneBuckets; !t.IsZero() {
		check(w.DeleteRange(s.key(kindBucket), s.from(kindBucket, t), nil))
	}
	if t := b.PruneRounds; !t.IsZero() {
		check(s.pruneRounds(w, b, t))
	}
	return first
}

// from returns the first key of a kind that begins with a time, not before t.
func (s *Store) from(kind byte, t time.Time) []byte {
	sec := t.Unix()
	if t.Nanosecond() > 0 {
		sec++
	}
	if sec > maxTime {
		return after(s.key(kind))
	}
	return binary.BigEndian.AppendUint32(s.key(kind), uint32(max(sec, 0)))
}

func (s *Store) pruneRounds(w *pebble.Batch, b *stats.Batch, t time.Time) error {
	to := s.from(kindRound, t)
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: s.key(kindRound), UpperBound: to})
	if err != nil {
		return err
	}
	skip := len(s.prefix) + 1 + 4
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		if k := it.Key(); len(k) == skip+8 {
			err = w.Delete(s.usersKey(binary.BigEndian.Uint64(k[skip:])), nil)
		}
	}
	for i := range b.Rounds {
		if b.Rounds[i].Time.Before(t) {
			err = errors.Join(err, w.Delete(s.usersKey(b.Rounds[i].Number), nil))
		}
	}
	return errors.Join(err, it.Error(), it.Close(), w.DeleteRange(s.key(kindRound), to, nil))
}

// State is [stats.Store]'s.
func (s *Store) State(ctx context.Context) (*stats.State, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	snap := s.db.NewSnapshot()
	st, err := s.state(ctx, snap)
	if err := errors.Join(err, snap.Close()); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("pebblestats: read state: %w", err)
	}
	return st, nil
}

func (s *Store) state(ctx context.Context, snap *pebble.Snapshot) (*stats.State, error) {
	st := new(stats.State)
	v, closer, err := snap.Get(s.key(kindState))
	switch {
	case errors.Is(err, pebble.ErrNotFound):
	case err != nil:
		return nil, err
	case len(v) < 8:
		return nil, errors.Join(fmt.Errorf("%w: state", ErrCorrupt), closer.Close())
	default:
		st.Seq = binary.BigEndian.Uint64(v)
		st.Position = append([]byte(nil), v[8:]...)
		if err := closer.Close(); err != nil {
			return nil, err
		}
	}
	err = s.each(ctx, snap, kindTotal, func(k, v []byte) error {
		d := decoder{b: k}
		t := stats.Total{Key: d.key()}
		if err := d.done("key of a total"); err != nil {
			return err
		}
		if err := decodeTotal(v, &t); err != nil {
			return err
		}
		st.Totals = append(st.Totals, t)
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = s.each(ctx, snap, kindName, func(k, v []byte) error {
		d := decoder{b: k}
		st.Names = append(st.Names, stats.Name{Key: d.key(), Name: string(v)})
		return d.done("key of a name")
	})
	if err != nil {
		return nil, err
	}
	it, err := snap.NewIter(s.bounds([]byte{kindRound}))
	if err != nil {
		return nil, err
	}
	for ok := it.Last(); ok && len(st.Rounds) < stats.StateRounds && err == nil; ok = it.Prev() {
		var r stats.Round
		k := it.Key()[len(s.prefix)+1:]
		if len(k) != 12 {
			err = fmt.Errorf("%w: key of a round", ErrCorrupt)
			break
		}
		r.Time = fromSeconds(uint64(binary.BigEndian.Uint32(k)))
		r.Number = binary.BigEndian.Uint64(k[4:])
		err = decodeRound(it.Value(), &r)
		st.Rounds = append(st.Rounds, r)
	}
	if err := errors.Join(err, it.Error(), it.Close()); err != nil {
		return nil, err
	}
	slices.SortFunc(st.Rounds, func(a, b stats.Round) int { return cmp.Compare(a.Number, b.Number) })
	return st, nil
}

// each calls f with every key of a kind, without what all have in common, and its value.
func (s *Store) each(ctx context.Context, snap *pebble.Snapshot, kind byte, f func(k, v []byte) error) error {
	it, err := snap.NewIter(s.bounds([]byte{kind}))
	if err != nil {
		return err
	}
	n := 0
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		if n++; n%1024 == 0 && ctx.Err() != nil {
			err = ctx.Err()
			break
		}
		err = f(it.Key()[len(s.prefix)+1:], it.Value())
	}
	return errors.Join(err, it.Error(), it.Close())
}

// RoundUsers is [stats.RoundReader]'s.
func (s *Store) RoundUsers(ctx context.Context, number uint64) ([]stats.UserShares, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	v, err := s.get(s.usersKey(number))
	if err != nil {
		return nil, fmt.Errorf("pebblestats: read round %d: %w", number, err)
	}
	users, err := decodeUsers(v)
	if err != nil {
		return nil, fmt.Errorf("pebblestats: read round %d: %w", number, err)
	}
	return users, nil
}

// Buckets is [stats.Store]'s. It returns what was there when the loop over it began, and holds on to files of the
// database until the loop ends. A query for one worker reads the buckets of all in its time.
func (s *Store) Buckets(ctx context.Context, q stats.Query) iter.Seq2[stats.Bucket, error] {
	return func(yield func(stats.Bucket, error) bool) {
		more := true
		err := s.buckets(ctx, &q, func(b stats.Bucket) bool {
			more = yield(b, nil)
			return more
		})
		if err != nil && more {
			if ctx.Err() == nil {
				err = fmt.Errorf("pebblestats: read buckets: %w", err)
			} else {
				err = ctx.Err()
			}
			yield(stats.Bucket{}, err)
		}
	}
}

func (s *Store) buckets(ctx context.Context, q *stats.Query, yield func(stats.Bucket) bool) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	bounds := s.bounds([]byte{kindBucket})
	if !q.From.IsZero() {
		bounds.LowerBound = s.from(kindBucket, q.From)
	}
	if !q.To.IsZero() {
		bounds.UpperBound = s.from(kindBucket, q.To)
	}
	if bytes.Compare(bounds.LowerBound, bounds.UpperBound) >= 0 {
		return nil
	}
	it, err := s.db.NewIter(bounds)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Error(), it.Close()) }()
	var sum stats.Bucket
	have, n := false, 0
	for ok := it.First(); ok; ok = it.Next() {
		if n++; n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		var b stats.Bucket
		if _, err := decodeBucketKey(it.Key()[len(s.prefix)+1:], &b); err != nil {
			return err
		}
		if !q.Matches(&b) {
			continue
		}
		if err := decodeBucket(it.Value(), &b); err != nil {
			return err
		}
		if have && sum.Compare(&b) == 0 {
			sum.Merge(&b)
			continue
		}
		if have && !yield(sum) {
			return nil
		}
		sum, have = b, true
	}
	if have && it.Error() == nil {
		yield(sum)
	}
	return nil
}
