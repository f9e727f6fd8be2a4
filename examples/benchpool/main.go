// Command benchpool is a Stratum server with nothing behind it: no node, no disk, shares judged and thrown away. It is
// what examples/swarm is pointed at to see what the server of this library costs by itself.
//
//	benchpool &
//	swarm -curve 10,1000,10000,18000 -total-rate 2000 -pid $!
//
// Its jobs are as large as mainnet's, a merkle branch of 12 steps, and every -block-every there is a new block.
package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum"
	"golang.org/x/sync/errgroup"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "benchpool:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, args []string, out io.Writer) error {
	fs := flag.NewFlagSet("benchpool", flag.ContinueOnError)
	listen := fs.String("listen", "127.0.0.1:3333", "`address` that miners connect to")
	diff := fs.String("diff", "1048576", "`difficulty` of every job; a millionth or less for miners that really hash")
	every := fs.Duration("block-every", 5*time.Second, "`time` between blocks; 0 has only the first")
	limits := fs.Bool("limits", false, "limit and ban miners as a public pool does")
	if err := fs.Parse(args); err != nil {
		return err
	}
	d, err := difficulty.Parse(*diff)
	if err != nil {
		return fmt.Errorf("-diff %q: %w", *diff, err)
	}
	d = d.CeilPow2()

	hub := job.NewHub(nil)
	users, err := stratum.OpenUsers("")
	if err != nil {
		return err
	}
	opts := &stratum.Options{
		StartDifficulty: d,
		MinDifficulty:   d,
		MaxSessions:     -1,
		NewPolicy:       func(*stratum.Session) difficulty.Policy { return difficulty.Fixed(d) },
		Logger:          slog.New(slog.NewTextHandler(out, nil)),
	}
	if !*limits {
		opts.Limits = stratum.NoLimits()
	}
	server, err := stratum.New(hub, users, nowhere{}, nowhere{}, opts)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "open on stratum+tcp://%v, process %d\n", ln.Addr(), os.Getpid())
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return server.Serve(ctx, ln) })
	group.Go(func() error { return findBlocks(ctx, hub, *every) })
	return group.Wait()
}

// nowhere takes everything.
type nowhere struct{}

func (nowhere) Put(context.Context, []share.Share) error           { return nil }
func (nowhere) PutSolution(context.Context, *share.Solution) error { return nil }

// findBlocks broadcasts the first job of a new block every so often.
func findBlocks(ctx context.Context, hub *job.Hub, every time.Duration) error {
	var ids job.IDs
	for height := int32(900_000); ; height++ {
		j, err := newJob(ids.Next(time.Now()), height)
		if err != nil {
			return err
		}
		if err := hub.Broadcast(ctx, j); err != nil {
			return err
		}
		if every <= 0 {
			<-ctx.Done()
			return nil
		}
		select {
		case <-time.After(every):
		case <-ctx.Done():
			return nil
		}
	}
}

// newJob makes up a job: everything but its size is made of hashes of its height.
func newJob(id job.ID, height int32) (*job.Job, error) {
	seed := sha256.Sum256(fmt.Append(nil, height))
	coinb1 := append(make([]byte, 48), seed[:]...)
	branch := make([]job.Hash, 12)
	for i := range branch {
		branch[i] = sha256.Sum256(append(seed[:], byte(i)))
	}
	now := uint32(id.Time().Unix())
	return job.New(job.Job{
		ID: id, Height: height, PrevHash: seed, Version: 0x20000000, Bits: 0x17034219,
		Time: now, MinTime: now - 3600,
		Coinb1: coinb1, Coinb2: make([]byte, 120), Branch: branch, Clean: true,
	})
}
