// Package job turns block templates into work for miners and hands it out.
//
//	TemplateSource ─▶ Maker ─▶ Broadcaster ─▶ Feed ─▶ Recent, in every server
//	   (a node)        │ Builder   (Hub)      (Hub)
//	                   ▼
//	               the coinbase that pays the pool
//
// A [TemplateSource] watches a node; [ParseTemplate] reads what it answers. A [Maker] decides which template to mine on
// and when a new [Job] goes out, a [Builder] makes the job, and a [Broadcaster] brings it to all who follow its [Feed].
// Within one process a [Hub] is both. Servers keep the jobs that miners may still send shares for in a [Recent].
//
// A Job is immutable. Its methods rebuild what a miner has hashed: the coinbase, the merkle root and the header. The
// hashes in this package are in memory order, as SHA-256d returns them; their String is in display order, as block
// explorers write them.
//
// Other sources and buses plug in from packages of their own, and package jobtest tests them.
package job
