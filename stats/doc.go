// Package stats adds shares up: what every worker, every user and the whole pool did in the last minutes and hours,
// which round of shares led to which block, and all of it again after a restart.
//
// An [Aggregator] is a [share.Sink]. Where shares come from a log that can be read again, give them to
// [Aggregator.Apply] with the position behind them instead: a [Flusher] then writes what was counted and that position
// to a [Store] in one batch, and [Aggregator.Restore] returns the position to go on from. However the process ends, no
// share is counted twice and none is left out.
//
//	agg, err := stats.New(nil)
//	position, err := agg.Restore(ctx, store)
//	flusher := stats.NewFlusher(agg, store, nil)
//	go flusher.Run(ctx)
//	for batch := range tail(position) {
//		err = agg.Apply(ctx, batch.Shares, batch.Position)
//	}
//
// Readers ask the Aggregator: [Aggregator.Snapshot] for the pool and its users, [Aggregator.Workers] for machines.
// Everything is a sum of share difficulties; [difficulty.HashrateOf] makes a hashrate of one.
//
// An Aggregator counts one chain. Backends for Store are in the packages below this one, and package statstest checks
// any other.
package stats
