// Package block turns a solved share into a block on the chain, and keeps book of it until it is mature.
//
// A [Maker] is the share.SolutionSink of a pool. It assembles the block with [Assemble], writes it to a [Spool] on
// disk, submits it through a [Submitter] until a node has ruled on it, and has a [Recorder] keep the [Found] block. A
// process that is killed at any moment submits what it still owes when it starts again:
//
//	solution ─▶ Maker.PutSolution ─▶ Spool (on disk) ─▶ Submitter, most often Nodes ─▶ every node at once
//	                                      │                     │ verdict
//	                                      └── removed when ──▶ Recorder ◀── Watcher ◀── Confirmer
//	                                          ruled on and recorded         (candidate, immature, matured, orphaned)
//
// Nothing in this package refuses a block: what its own checks find wrong is reported as an [AdvisoryError] beside the
// bytes, and the nodes decide. A refusal by mistake loses a block for certain; a submission by mistake costs nothing.
//
// [Nodes] submits to several nodes at once. [Memory] and [File] are the Recorders that need no server. [Watcher]
// follows the confirmations. Package blocktest holds the conformance suites for Submitters, Recorders and Confirmers.
package block
