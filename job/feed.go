package job

import "context"

// A TemplateSource watches one node, or anything else that knows the next block. Every TemplateSource
//   - PutsAtOnce: the first template is put as soon as the source has one, without waiting for a change;
//   - PutsChanges: a new tip is put as soon as the source learns of it, and new transactions on the same tip within
//     the interval it documents;
//   - NeverOverlaps: calls to put do not overlap, and none happens after Watch has returned;
//   - SurvivesFailures: a node that is down or answers rubbish is retried until ctx ends, not an error;
//   - StopsWithContext: Watch returns nil soon after ctx ends. Any other return means that it can never work.
//
// put does not block for long and keeps the template, which nobody changes afterwards.
type TemplateSource interface {
	Watch(ctx context.Context, put func(*Template)) error
}

// A Broadcaster hands jobs to everyone who follows. Every Broadcaster
//   - KeepsOrder: followers see jobs in the order of Broadcast calls, which do not overlap;
//   - NeverWaits for a slow follower: one that is behind may skip to the newest job, which is then marked clean if any
//     job it missed was, for a miner must never work on through a new block because a clean flag was merged away;
//   - RemembersRecent: jobs are kept for followers that come later, at least the last 120.
//
// An error means that the job may have reached nobody; the caller sends a newer one when it has it.
type Broadcaster interface {
	Broadcast(ctx context.Context, j *Job) error
}

// A Feed is the receiving side of a Broadcaster. Follow calls put with up to last of the most recent jobs, oldest
// first, and then with every new one, until ctx ends; then it returns nil. Calls to put do not overlap. Any other
// return means that the feed has ended and can be followed anew.
type Feed interface {
	Follow(ctx context.Context, last int, put func(*Job)) error
}
