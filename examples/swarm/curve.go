package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"
)

// curve runs once with each number of connections and prints the cost of each as a row of a Markdown table. Memory is
// counted from before the first run, since a pool may keep what an earlier run made it take.
func curve(ctx context.Context, cfg *config, stdout, stderr io.Writer) error {
	var rows []string
	var first *sample
	var fault error
	for i, n := range cfg.curve {
		if i > 0 {
			// The pool clears away what the last run left.
			select {
			case <-ctx.Done():
			case <-time.After(2 * time.Second):
			}
		}
		if ctx.Err() != nil {
			break
		}
		step := *cfg
		step.conns, step.curve = n, nil
		s, err := newSwarm(ctx, &step)
		if err != nil {
			return err
		}
		if cfg.every > 0 {
			fmt.Fprintf(stderr, "step %d of %d: %s connections\n", i+1, len(cfg.curve), num(n))
		}
		r, err := s.run(ctx, stderr)
		if r == nil {
			return err
		}
		if err != nil {
			fault = fmt.Errorf("with %s connections: %w", num(n), err)
			break
		}
		if first == nil {
			first = &r.before
		}
		r.before.pool.rss = first.pool.rss
		rows = append(rows, r.row())
		if text := r.strictFault(); text != "" && cfg.strict && fault == nil {
			fault = fmt.Errorf("with %s connections: %s", num(n), text)
		}
	}
	fmt.Fprintln(stdout, "| connections | submits/s | server CPU per submit | server RSS | RSS per connection | fan-out p50 | fan-out last | latency p50 | latency p99 | lost |")
	fmt.Fprintln(stdout, "|"+strings.Repeat("---:|", 10))
	for _, row := range rows {
		fmt.Fprintln(stdout, row)
	}
	return fault
}

// row returns what a run cost. What was not measured is a dash.
func (r *result) row() string {
	const unknown = "–"
	cells := []string{num(r.atLogin.live)}
	cell := func(known bool, format string, args ...any) {
		if !known {
			cells = append(cells, unknown)
			return
		}
		cells = append(cells, fmt.Sprintf(format, args...))
	}
	s := r.counts
	watched := len(r.cfg.pids) > 0 && r.died == ""
	pool, _ := r.perSubmit()
	mem, _ := r.perConn()
	p50, _, last, blocks := r.fanOut()
	cell(s.submits > 0 && r.loading > 0, "%s", num(int64(float64(s.submits)/max(r.loading.Seconds(), 1e-9))))
	cell(watched && pool > 0, "%.1f µs", us(pool))
	cell(watched, "%s", size(r.idle.pool.rss))
	cell(watched && r.atLogin.live >= fewConns, "%.1f KB", mem/1024)
	cell(blocks, "%s", short(p50))
	cell(blocks, "%s", short(last))
	cell(s.latency.count > 0, "%s", short(s.latency.quantile(0.5)))
	cell(s.latency.count > 0, "%s", short(s.latency.quantile(0.99)))
	cell(true, "%s", num(s.lost))
	return "| " + strings.Join(cells, " | ") + " |"
}
