// Command vardiff shows how policies of difficulty serve their miners: all that are in this library and one of one's
// own, in all scenarios of package difftest, with hundreds of seeded trials of each.
//
//	go run ./examples/vardiff
//
// It prints a table for each scenario and a summary, and writes pictures to the folder vardiff: for each scenario what
// every policy does in one trial, and a sheet that compares them. The same flags give the same table and the same
// pictures. The policy of one's own is in the folder batches, with its test of one line.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/poolkit/poolkit/difficulty/difftest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "vardiff:", err)
		os.Exit(1)
	}
}

// A config is what the flags say.
type config struct {
	trials    int
	seed      uint64
	interval  time.Duration
	scenarios []difftest.Scenario
	policies  []difftest.Candidate
	dir       string // of the pictures; "" means none
	markdown  bool
	summary   bool // alone
}

const usageText = `vardiff compares policies of difficulty in simulations: a table, and pictures.

  vardiff
  vardiff -summary -format markdown -trials 1000
  vardiff -policies sequential,sv2 -scenarios cold-start,drop -o pictures

`

// parse reads the command line. All mistakes are reported, each as a sentence that names the flag.
func parse(args []string, out io.Writer) (*config, error) {
	c := &config{}
	fs := flag.NewFlagSet("vardiff", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // the error that Parse returns says it all
	fs.IntVar(&c.trials, "trials", 100, "`number` of trials of each policy in each scenario")
	fs.Uint64Var(&c.seed, "seed", 1, "`number` that all chances come from")
	fs.DurationVar(&c.interval, "interval", 10*time.Second, "`time` between shares that policies aim at, 1s to 1h")
	fs.StringVar(&c.dir, "o", "vardiff", "`folder` for the pictures; empty writes none")
	fs.BoolVar(&c.summary, "summary", false, "only what a reader wants to know first, of the few scenarios that takes")
	names := fs.String("scenarios", "", "`names`, separated by commas; empty means all")
	policies := fs.String("policies", "", "`names`, separated by commas; empty means all")
	format := fs.String("format", "text", "of the table: `text or markdown`")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprint(out, usageText)
			fs.SetOutput(out)
			fs.PrintDefaults()
			fmt.Fprintln(out, "\nPolicies:")
			for _, k := range kinds {
				fmt.Fprintf(out, "  %-17s %s\n", k.name, k.doc)
			}
			fmt.Fprintln(out, "\nScenarios:")
			for _, sc := range scenarios() {
				fmt.Fprintf(out, "  %-17s %s\n", sc.Name, sc.Doc)
			}
		}
		return nil, err
	}

	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if fs.NArg() > 0 {
		wrong("%q is no flag; names go after -scenarios or -policies", fs.Arg(0))
	}
	if c.trials < 1 || c.trials > difftest.MaxTrials {
		wrong("-trials is %d, not from 1 to %d", c.trials, difftest.MaxTrials)
	}
	switch *format {
	case "text":
	case "markdown":
		c.markdown = true
	default:
		wrong("-format is %q, neither text nor markdown", *format)
	}
	intervalOK := c.interval >= time.Second && c.interval <= time.Hour && c.interval%time.Millisecond == 0
	if !intervalOK {
		wrong("-interval is %v, not whole milliseconds from 1s to 1h", c.interval)
	}
	chosen, err := choose("policies", *policies, kinds, func(k kind) string { return k.name })
	if err != nil {
		errs = append(errs, err)
	}
	for i := range chosen {
		if !intervalOK {
			break
		}
		p, err := chosen[i].candidate(c.interval)
		if err != nil {
			wrong("-policies %s with -interval %v: %w", chosen[i].name, c.interval, err)
		}
		c.policies = append(c.policies, p)
	}
	if c.summary && *names == "" {
		*names = strings.Join(summaryScenarios(), ",")
	}
	c.scenarios, err = choose("scenarios", *names, scenarios(), func(sc difftest.Scenario) string { return sc.Name })
	if err != nil {
		errs = append(errs, err)
	}
	if errs != nil {
		return nil, errors.Join(errs...)
	}
	return c, nil
}

// narrow are scenarios in which some policies ask for next to nothing, so that minutes would be spent on shares that come
// as fast as the connection carries them, 5000 a second. There it carries only so many, which makes for fewer shares and
// for a slower way back to the right difficulty.
var narrow = map[string]int{"hoarding": 500}

// scenarios returns those of difftest, and says of narrow ones that they are.
func scenarios() []difftest.Scenario {
	all := difftest.Scenarios()
	for i := range all {
		if most, ok := narrow[all[i].Name]; ok {
			all[i].Options.MaxShareRate = most
			all[i].Doc += fmt.Sprintf(" Its connection carries %d shares a second.", most)
		}
	}
	return all
}

// choose returns those of all that are named, in the order of all; no names mean all.
func choose[T any](flag, names string, all []T, name func(T) string) ([]T, error) {
	if names == "" {
		return all, nil
	}
	wanted := map[string]bool{}
	for n := range strings.SplitSeq(names, ",") {
		wanted[strings.TrimSpace(n)] = true
	}
	var chosen []T
	var known []string
	for _, v := range all {
		if known = append(known, name(v)); wanted[name(v)] {
			chosen = append(chosen, v)
			delete(wanted, name(v))
		}
	}
	var errs []error
	for n := range wanted {
		errs = append(errs, fmt.Errorf("-%s has %q, which is none of %s", flag, n, strings.Join(known, ", ")))
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return chosen, errors.Join(errs...)
}

// run compares, prints and draws. It stops soon after ctx ends, and then prints nothing.
func run(ctx context.Context, args []string, out, progress io.Writer) error {
	c, err := parse(args, out)
	if err != nil {
		return err
	}
	if c.dir != "" {
		if err := os.MkdirAll(c.dir, 0o777); err != nil { // before minutes are spent on trials
			return fmt.Errorf("-o: %w", err)
		}
	}
	t, err := compare(ctx, c, newProgress(progress))
	if err != nil {
		return err
	}
	if err := print(out, c, t); err != nil {
		return err
	}
	if c.dir == "" {
		return nil
	}
	return draw(ctx, c, t, progress)
}

func print(out io.Writer, c *config, t *difftest.Table) error {
	s := newSummary(t)
	var b strings.Builder
	switch {
	case c.summary && s.empty():
		return errors.New("-summary has nothing to say of these -scenarios")
	case c.summary:
		s.write(&b, c.markdown)
	default:
		if c.markdown {
			t.WriteMarkdown(&b)
		} else {
			t.WriteTo(&b)
		}
		if !s.empty() {
			b.WriteByte('\n')
			s.write(&b, c.markdown)
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// compare is difftest.Compare in steps, so that it can be stopped: those of a policy in a scenario. The trials are the
// same.
func compare(ctx context.Context, c *config, p *progress) (*difftest.Table, error) {
	var all *difftest.Table
	total := c.trials * len(c.policies) * len(c.scenarios)
	before := 0
	defer p.end()
	for _, sc := range c.scenarios {
		sc := stoppable(ctx, sc)
		var row []difftest.Result
		for _, policy := range c.policies {
			t, err := difftest.Compare(&difftest.CompareOptions{
				Trials: c.trials, Seed: c.seed, Scenarios: []difftest.Scenario{sc},
				Measure:  difftest.MeasureOptions{Interval: c.interval},
				Progress: func(done, _ int) { p.step(before+done, total, sc.Name, policy.Name) },
			}, policy)
			if err != nil {
				return nil, err
			}
			if ctx.Err() != nil {
				return nil, fmt.Errorf("stopped in %s of %s", sc.Name, policy.Name)
			}
			row = append(row, t.Results[0][0])
			if all == nil {
				all = &difftest.Table{
					Trials: t.Trials, Seed: t.Seed, Interval: t.Interval, Metrics: t.Metrics, Scenarios: c.scenarios,
				}
				for _, policy := range c.policies {
					all.Policies = append(all.Policies, policy.Name)
				}
			}
			before += c.trials
		}
		all.Results = append(all.Results, row)
		p.passed(sc.Name)
	}
	return all, nil
}

// stoppable returns sc with miners that stand still when ctx has ended, so that the trials of a step are over at once.
func stoppable(ctx context.Context, sc difftest.Scenario) difftest.Scenario {
	miner := sc.Miner
	sc.Miner = func(seed uint64) difftest.Miner {
		if ctx.Err() != nil {
			return difftest.Miner{}
		}
		return miner(seed)
	}
	return sc
}
