// Command swarm puts load on a Stratum V1 pool, whosever it is, and reports what the pool made of it: how fast miners
// get in, how long a share waits for its answer, what is accepted and what is rejected and why, and how long a new
// block takes to reach everybody. It is made to run beside the pool on a small machine: a connection takes less than a
// kilobyte of it, and a submit two to three microseconds where many are in flight.
//
//	swarm -pool 127.0.0.1:3333 -conns 10000 -rate 0.2 -for 30s
//
// That is 10,000 miners who submit a share every five seconds each. The shares were never hashed: a pool has to look
// at each as closely as at any other and then answers "low difficulty", so with a pool of any difficulty -fast measures
// what judging costs. With -real they are hashed until they meet the difficulty of their job, for which that has to be
// tiny, about a millionth.
//
//	swarm -conns 50 -inflight 16 -for 10s            as many submits as the pool can take
//	swarm -conns 10000 -for 1m                        idle miners, to see memory and new blocks
//	swarm -conns 1000 -rate 5 -pid $(pidof fullpool)  with the CPU time and memory of the pool
//	swarm -conns 200 -rate 1 -real -reconnect         real shares, sent again after a disconnect
//	swarm -conns 500 -rate 1 -churn 50                50 miners a second leave, and as many come
//	swarm -conns 0 -agents 5 -workers 2000 -rate 0.1  farms behind BTCAgent, binary frames
//	swarm -curve 10,1000,10000,18000 -total-rate 2000 -pid N   what a share costs as miners multiply
//
// # What the numbers mean
//
// Latency runs from right before a submit is written to when its reply has been read. New blocks are recognised by
// their previous hash; their times run from the first connection that had it, or, with -block-cmd, from when the
// command that makes the node find one began. Reading 10,000 jobs takes this program some time of its own, which is
// part of these times, and so is everything else that competes for the same processors.
//
// The pool's CPU time for a submit is what its process took from the first submit to the last reply, jobs and new
// connections in the meantime included. Its memory for a connection is the growth from before the first connection to
// when all have logged in and none has submitted, so it tells something of a pool that has just been started. A share
// that travels alone costs the pool several times what one in a batch does, a wake-up and two system calls, which is
// why -rate and -inflight give so different numbers.
//
// A stale reject is set apart when a new block came between the submit and the reply, or right after: no miner can help
// it. A reply is lost when the connection ends before it comes, or it has not come when -drain is over.
//
// The exit code is 0, or 1 when nothing connected or, with -strict, when a reject was not to be expected, a reply was
// lost, a login failed, or a block did not reach everybody. 2 means that the command line was wrong. An interrupt ends
// the run early, with the report; a second one ends the program.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(Main(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// Main runs the program until it is done or ctx ends, and returns the exit code.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	fail := func(code int, err error) int {
		fmt.Fprintf(stderr, "swarm: %s\n", strings.ReplaceAll(err.Error(), "\n", "; "))
		return code
	}
	cfg, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return fail(2, err)
	}
	if cfg.curve != nil {
		if err := curve(ctx, cfg, stdout, stderr); err != nil {
			return fail(1, err)
		}
		return 0
	}
	s, err := newSwarm(ctx, cfg)
	if err != nil {
		return fail(1, err)
	}
	r, err := s.run(ctx, stderr)
	if r != nil {
		if cfg.json {
			if err := r.json(stdout); err != nil {
				return fail(1, err)
			}
		} else {
			r.text(stdout)
		}
	}
	if err != nil {
		return fail(1, err)
	}
	if text := r.strictFault(); text != "" && cfg.strict {
		return fail(1, errors.New(text))
	}
	return 0
}
