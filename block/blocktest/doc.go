// Package blocktest tests implementations of the interfaces of package block, and the callers of such.
//
// [TestSubmitter], [TestRecorder] and [TestConfirmer] check every promise that the interfaces make, each in a subtest of
// the same name; what a backend cannot do is a nil field and skips. [FlakySubmitter] and [FlakyRecorder] fail on
// command. [Node] is a node in memory that judges blocks well enough for tests, and [Solve] makes solutions for it.
package blocktest
