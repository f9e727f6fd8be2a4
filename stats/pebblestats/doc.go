// Package pebblestats keeps statistics in a Pebble database: a [stats.Store] in a folder, for a pool of one process.
//
//	store, err := pebblestats.Open("pooldata/stats", nil)
//	defer store.Close()
//	position, err := agg.Restore(ctx, store)
//
// # Layout
//
// Every key begins with [Options.Prefix] and one letter. Numbers in keys are big-endian, so that keys sort as
// [stats.Bucket.Compare] and [stats.Key.Compare] do.
//
//	v                                           schema, the text of [Schema]
//	s                                           number of the last batch, 8 bytes, and its position
//	b start/4 user/4 worker/8 span/2 batch/8    part of a bucket: tallies
//	t user/4 worker/8                           total
//	n user/4 worker/8                           name
//	r time/4 number/8                           closed round
//	u number/8                                  shares of users in a closed round
//
// start and time are Unix seconds, span is in seconds. Each batch adds its own part of a bucket, so that writing reads
// nothing; parts are neighbours and are added up on reading. In values, counts and times are varints, and a difficulty
// is the varint of twice its value where that is a whole number below 2^53, else a byte 1 and the eight bytes of the
// float64.
package pebblestats
