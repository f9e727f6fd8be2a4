package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/poolkit/poolkit/difficulty/difftest"
)

// A fact is a column of the summary: one metric in one scenario.
type fact struct {
	scenario string
	head     string
	cell     func(difftest.Result) string
}

var facts = []fact{
	{"cold-start", "cold start: converged", share(difftest.Converged)},
	{"cold-start", "p50 / p90", times(difftest.ConvergeTime)},
	{"cold-start", "flood p90", func(r difftest.Result) string { return shortTime(r[difftest.LongestFlood].P90) }},
	{"cold-start-down", "down: converged", share(difftest.Converged)},
	{"cold-start-down", "p50 / p90", times(difftest.ConvergeTime)},
	{"drop", "-50 % seen in 5 min", share(difftest.Reacted)},
	{"steady", "at rest: retargets/h", func(r difftest.Result) string { return number("%.2f", r[difftest.Retargets].Mean) }},
	{"steady", "shares/min", func(r difftest.Result) string { return number("%.1f", r[difftest.ShareRate].Mean*60) }},
	{"steady", "hashrate error 10m", func(r difftest.Result) string { return percent(r[difftest.HashrateError10m].Mean, 1) }},
}

func share(m difftest.Metric) func(difftest.Result) string {
	return func(r difftest.Result) string {
		s := r[m]
		if s.N == 0 {
			return "-"
		}
		return fmt.Sprintf("%s [%.0f, %.0f]", percent(s.Mean, 1), 100*s.Low, 100*s.High)
	}
}

func times(m difftest.Metric) func(difftest.Result) string {
	return func(r difftest.Result) string {
		if r[m].N == 0 {
			return "-"
		}
		return shortTime(r[m].P50) + " / " + shortTime(r[m].P90)
	}
}

func number(format string, f float64) string {
	if math.IsNaN(f) {
		return "-"
	}
	return fmt.Sprintf(format, f)
}

func percent(f float64, digits int) string { return number(fmt.Sprintf("%%.%df %%%%", digits), 100*f) }

// shortTime is a time in whole seconds: 0 s, 95 s, 12.5 min, 2 h.
func shortTime(secs float64) string {
	switch d := time.Duration(math.Round(secs)) * time.Second; {
	case math.IsNaN(secs):
		return "-"
	case d < 100*time.Second:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 100*time.Minute:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", d.Minutes()), ".0") + " min"
	default:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", d.Hours()), ".0") + " h"
	}
}

// summaryScenarios are those that facts are about.
func summaryScenarios() []string {
	var names []string
	for _, f := range facts {
		if !slices.Contains(names, f.scenario) {
			names = append(names, f.scenario)
		}
	}
	return names
}

// A summary is one line for each policy.
type summary struct {
	title string
	rows  [][]string
}

func newSummary(t *difftest.Table) *summary {
	s := &summary{title: fmt.Sprintf("%d trials of each scenario, seed %d, a share every %v aimed at; [..] are 95 %% bounds",
		t.Trials, t.Seed, t.Interval)}
	head := []string{"policy"}
	for _, f := range facts {
		if _, ok := t.Result(f.scenario, t.Policies[0]); ok {
			head = append(head, f.head)
		}
	}
	s.rows = append(s.rows, head)
	for _, p := range t.Policies {
		row := []string{p}
		for _, f := range facts {
			if r, ok := t.Result(f.scenario, p); ok {
				row = append(row, f.cell(r))
			}
		}
		s.rows = append(s.rows, row)
	}
	return s
}

func (s *summary) empty() bool { return len(s.rows[0]) < 2 }

func (s *summary) write(b *strings.Builder, markdown bool) {
	widths := make([]int, len(s.rows[0]))
	for _, row := range s.rows {
		for i, c := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	b.WriteString("Summary: " + s.title + "\n\n")
	for n, row := range s.rows {
		if markdown {
			b.WriteString("| " + strings.Join(row, " | ") + " |\n")
			if n == 0 {
				b.WriteString("|---|" + strings.Repeat("---:|", len(row)-1) + "\n")
			}
			continue
		}
		for i, c := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c))
			if i == 0 {
				b.WriteString(c + pad)
			} else {
				b.WriteString("  " + pad + c)
			}
		}
		b.WriteByte('\n')
	}
}
