package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// A progress says how far the trials are: a bar on a terminal, and else a line for each scenario.
type progress struct {
	out      io.Writer
	terminal bool
	begun    time.Time
	drawn    time.Time
	width    int // of what stands in the line
	done     int
	total    int
}

func newProgress(out io.Writer) *progress {
	return &progress{out: out, terminal: isTerminal(out), begun: time.Now()}
}

func isTerminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
}

const barWidth = 30

// step says that so many trials are done. The bar moves ten times a second at most.
func (p *progress) step(done, total int, scenario, policy string) {
	p.done, p.total = done, total
	now := time.Now()
	if !p.terminal || now.Sub(p.drawn) < 100*time.Millisecond && done < total {
		return
	}
	p.drawn = now
	full := barWidth * done / total
	line := fmt.Sprintf("[%s%s] %3d %%  %s  %s: %s", strings.Repeat("#", full), strings.Repeat(".", barWidth-full),
		100*done/total, now.Sub(p.begun).Round(time.Second), scenario, policy)
	fmt.Fprintf(p.out, "\r%-*s", p.width, line)
	p.width = len(line)
}

// passed says that a scenario is done.
func (p *progress) passed(scenario string) {
	if !p.terminal {
		fmt.Fprintf(p.out, "%3d %%  %4.0fs  %s\n", 100*p.done/max(p.total, 1), time.Since(p.begun).Seconds(), scenario)
	}
}

// end takes the bar away.
func (p *progress) end() {
	if p.width > 0 {
		fmt.Fprintf(p.out, "\r%*s\r", p.width, "")
	}
}
