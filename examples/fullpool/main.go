// Command fullpool is a whole mining pool in one process. It reads settings, makes one value of each room of the
// library, and runs them until it is told to stop; there is nothing about mining in it.
package main

import (
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
	p, err := open(ctx, cfg, log)
	if err != nil {
		return err
	}
	return errors.Join(p.run(ctx), p.Close())
}
