// Command fullpool is a whole mining pool in one process. It reads settings, makes one value of each room of the
// library, and runs them until it is told to stop; there is nothing about mining in it.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/poolkit/poolkit/stratum/handover"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(Main(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// Main runs the pool until ctx ends and returns the exit code.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	err := run(ctx, args, stdout, stderr)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	}
	// One sentence, also where several reasons were joined.
	fmt.Fprintf(stderr, "fullpool: %s\n", strings.ReplaceAll(err.Error(), "\n", "; "))
	return 1
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	cfg, err := parse(args, stderr)
	if err != nil {
		return err
	}
	level, err := cfg.level()
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(stdout, &slog.HandlerOptions{Level: level}))
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, reloadSignal, upgradeSignal)
	defer signal.Stop(signals)
	from, err := handover.Inherit()
	if err != nil {
		return err
	}
	var sessions bytes.Buffer
	for {
		p, err := open(ctx, cfg, from, sessions.Bytes(), log)
		if err != nil {
			return err
		}
		heir, err := p.run(ctx, signals)
		err = errors.Join(err, p.Close())
		if heir == nil {
			return err
		}
		sessions.Reset()
		failed := p.server.SaveSessions(&sessions)
		failed = errors.Join(failed, heir.Give(ctx, bytes.NewReader(sessions.Bytes())))
		if failed == nil || ctx.Err() != nil {
			return err
		}
		log.Error("the new process failed, this one goes on", "error", failed)
		from = nil // what it was passed is used up
	}
}
