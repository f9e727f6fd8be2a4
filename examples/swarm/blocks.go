package main

import (
	"cmp"
	"hash/maphash"
	"slices"
	"sync"
	"time"
)

// A block is a new previous hash that came to connections that had another one before.
type block struct {
	key   uint64
	first int64 // when the first connection had it, or when -block-cmd started it
	seen  int64 // when the first connection had it
	from  bool  // first is the start of -block-cmd
}

// blocks are the blocks of a run, in the order they were first seen in.
type blocks struct {
	mu      sync.Mutex
	seed    maphash.Seed
	byKey   map[uint64]*block
	list    []*block // those that are reported one by one
	started int64    // when -block-cmd last began, until its block is seen
	total   int
}

// maxBlocks bounds what is kept to report blocks one by one; later ones are counted.
const maxBlocks = 256

// blockAge is how long after its first connection a block still counts as new: a connection that comes by it later was
// switched to another chain.
const blockAge = int64(60 * time.Second)

func newBlocks() *blocks { return &blocks{seed: maphash.MakeSeed(), byKey: make(map[uint64]*block)} }

func (b *blocks) keyOf(prevHash []byte) uint64 { return maphash.Bytes(b.seed, prevHash) }

// start says that the pool's node is told now to find a block.
func (b *blocks) start(now int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.started = now
}

// get returns the block of a key, a new one when now is the first time it is seen.
func (b *blocks) get(key uint64, now int64) *block {
	b.mu.Lock()
	defer b.mu.Unlock()
	if blk := b.byKey[key]; blk != nil {
		return blk
	}
	blk := &block{key: key, first: now, seen: now}
	if b.started != 0 {
		blk.first, blk.from, b.started = b.started, true, 0
	}
	if len(b.byKey) >= 4*maxBlocks { // chains that old are over
		clear(b.byKey)
	}
	b.byKey[key] = blk
	b.total++
	if len(b.list) < maxBlocks {
		b.list = append(b.list, blk)
	}
	return blk
}

// seenAt returns when the block of a key was first seen, 0 when it was there from the beginning.
func (b *blocks) seenAt(key uint64) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	if blk := b.byKey[key]; blk != nil {
		return blk.seen
	}
	return 0
}

// recent returns the blocks that are reported one by one.
func (b *blocks) recent() []*block {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.list)
}

// A spread is how a block reached the connections of one lane, or of all merged.
type spread struct {
	block   *block
	times   hist
	missing int // connections that were there when it came, and later, and never had it
}

// A spreadTable holds the blocks of a lane.
type spreadTable map[*block]*spread

func (t *spreadTable) add(b *block, now int64) {
	if *t == nil {
		*t = make(spreadTable)
	}
	s := (*t)[b]
	if s == nil {
		if len(*t) >= maxBlocks {
			return
		}
		s = &spread{block: b}
		(*t)[b] = s
	}
	s.times.add(time.Duration(now - b.first))
}

// merged returns the spreads of all lanes, in the order of time.
func merged(tables []spreadTable) []*spread {
	all := make(spreadTable)
	for _, t := range tables {
		for b, s := range t {
			if all[b] == nil {
				all[b] = &spread{block: b}
			}
			all[b].times.merge(&s.times)
			all[b].missing += s.missing
		}
	}
	out := make([]*spread, 0, len(all))
	for _, s := range all {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b *spread) int { return cmp.Compare(a.block.seen, b.block.seen) })
	return out
}
