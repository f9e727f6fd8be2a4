// Package sharelog keeps every share on disk, in the files of BTCPool's sharelogger, and reads them back.
//
// A [Dir] is a folder with one file for each day. A [Writer] is the share.Sink in front of it: it collects shares and
// writes them before the oldest is two seconds old. [Replay] feeds a log, or part of it, to any share.Sink, a [Tail]
// goes on with what is written from then on, and a [Reader] is for loops:
//
//	for s, err := range sharelog.NewReader(dir, sharelog.Position{Day: day}, day).All(ctx) {
//
// Whoever reads knows a [Position] after each batch. A program that stores it together with what it made of the
// shares, in one transaction, counts each share exactly once, however often it is killed.
//
// # Files
//
// A file is named sharelog, a tag for the chain, and a day in UTC: sharelogBTC-2026-11-21.bin. A share belongs to the
// day of its own time, so one that comes late goes to the file of yesterday. The file is a sequence of gzip members.
// Each holds whole records, and is written at once:
//
//	gzip member          gzip member
//	├─ record, record … ─┼─ record, record … ─┼─ …
//	   │
//	   └─ length uint32 little-endian │ share in protobuf, see share.Share.AppendBinary
//
// A member that was cut off, by a crash or a full disk, is removed before the file is written to again. Readers skip
// what they cannot read and say so with a [DamageError]; all other members stay readable.
package sharelog
