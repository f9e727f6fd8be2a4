package difftest

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// A Candidate is a kind of Policy to be compared.
type Candidate struct {
	Name string
	New  Maker
}

// CompareOptions tune [Compare]. The zero value compares 100 trials of every scenario.
type CompareOptions struct {
	Trials    int        // of each scenario; 0 means 100
	Seed      uint64     // of all chances
	Scenarios []Scenario // nil means Scenarios()
	Metrics   []Metric   // columns that the Table shows; nil means those that suit most; all are measured
	Measure   MeasureOptions

	// Progress is called after every trial with how many of all are done, one call at a time; nil means that nobody
	// looks.
	Progress func(done, total int)
}

// A Table is what [Compare] found.
type Table struct {
	Trials    int // of each scenario
	Seed      uint64
	Interval  time.Duration // that was aimed at
	Scenarios []Scenario
	Policies  []string
	Metrics   []Metric   // columns that are shown
	Results   [][]Result // by scenario and policy
}

// shown are the columns of a Table that does not say otherwise.
var shown = []Metric{
	Converged, ConvergeTime, Resettled, ResettleTime, Reacted, ReactTime, Error, Jitter, Spread, HashrateError10m, ShareRate,
	ByteRate, LongestFlood, LongestEasy, Retargets,
}

// Compare runs the same trials for every policy and scenario, as [Trials] does; nil options mean the defaults. It fails
// when there is no policy or no scenario, when names are missing or the same, when a Metric is none, and when Trials
// does.
func Compare(opts *CompareOptions, policies ...Candidate) (*Table, error) {
	var o CompareOptions
	if opts != nil {
		o = *opts
	}
	if o.Trials == 0 {
		o.Trials = 100
	}
	if o.Scenarios == nil {
		o.Scenarios = Scenarios()
	}
	if o.Metrics == nil {
		o.Metrics = shown
	}
	var errs []error
	wrong := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("difftest: compare: "+format, args...))
	}
	if len(policies) == 0 {
		wrong("there is no policy")
	}
	if len(o.Scenarios) == 0 {
		wrong("there is no scenario")
	}
	names := map[[2]string]bool{}
	name := func(kind, name string) {
		switch key := [2]string{kind, name}; {
		case name == "":
			wrong("a %s has no name", kind)
		case names[key]:
			wrong("more than one %s is called %q", kind, name)
		default:
			names[key] = true
		}
	}
	t := &Table{
		Trials: o.Trials, Seed: o.Seed, Interval: o.Measure.orDefaults().Interval,
		Scenarios: append([]Scenario(nil), o.Scenarios...), Metrics: append([]Metric(nil), o.Metrics...),
	}
	for _, p := range policies {
		name("policy", p.Name)
		t.Policies = append(t.Policies, p.Name)
	}
	for _, sc := range o.Scenarios {
		name("scenario", sc.Name)
	}
	for _, m := range o.Metrics {
		if m >= metricCount {
			wrong("%v is not known", m)
		}
	}
	if errs != nil {
		return nil, errors.Join(errs...)
	}

	var mu sync.Mutex
	done, total := 0, o.Trials*len(policies)*len(o.Scenarios)
	progress := func() {
		if o.Progress != nil {
			mu.Lock()
			defer mu.Unlock()
			done++
			o.Progress(done, total)
		}
	}
	for _, sc := range o.Scenarios {
		row := make([]Result, len(policies))
		for i, p := range policies {
			r, err := trials(p.New, sc, o.Trials, o.Seed, &o.Measure, progress)
			if err != nil {
				return nil, fmt.Errorf("difftest: compare %s in %s: %w", p.Name, sc.Name, err)
			}
			row[i] = r
		}
		t.Results = append(t.Results, row)
	}
	return t, nil
}

// Result returns the Result of a policy in a scenario, and whether there is one.
func (t *Table) Result(scenario, policy string) (Result, bool) {
	for i, sc := range t.Scenarios {
		for j, p := range t.Policies {
			if sc.Name == scenario && p == policy && i < len(t.Results) && j < len(t.Results[i]) {
				return t.Results[i][j], true
			}
		}
	}
	return Result{}, false
}

// String returns the Table as WriteTo writes it.
func (t *Table) String() string {
	var b strings.Builder
	t.WriteTo(&b)
	return b.String()
}

// WriteTo writes the Table as text in columns, a block for each scenario. A rate is shown with the 95 % bounds of
// [Summary], a time as its median and its 90th percentile, anything else as its mean and half the width of its bounds.
// Columns that do not apply to a scenario are left out.
func (t *Table) WriteTo(w io.Writer) (int64, error) { return t.write(w, text) }

// WriteMarkdown writes what WriteTo does as Markdown.
func (t *Table) WriteMarkdown(w io.Writer) (int64, error) { return t.write(w, markdown) }

type style struct {
	title        string // of a name and what it is
	begin        string // of a line
	between, end string
	rule         bool // below the heads
	escape       *strings.Replacer
}

var (
	text     = style{title: "%s: %s\n", between: "  ", escape: strings.NewReplacer()}
	markdown = style{
		title: "**%s**: %s\n\n", begin: "| ", between: " | ", end: " |", rule: true,
		escape: strings.NewReplacer(`|`, `\|`, `*`, `\*`, `_`, `\_`, `<`, `&lt;`),
	}
)

func (t *Table) write(w io.Writer, s style) (int64, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "%d trials of each scenario, seed %d, a share every %v aimed at; [..] and ± are 95 %% bounds\n",
		t.Trials, t.Seed, t.Interval)
	for i, sc := range t.Scenarios {
		if i >= len(t.Results) {
			break
		}
		b.WriteByte('\n')
		fmt.Fprintf(&b, s.title, s.escape.Replace(sc.Name), s.escape.Replace(sc.Doc))
		rows := [][]string{{"policy"}}
		for j := range t.Results[i] {
			if j < len(t.Policies) {
				rows = append(rows, []string{s.escape.Replace(t.Policies[j])})
			}
		}
		for _, m := range t.Metrics {
			applies := false
			for j := range rows[1:] {
				applies = applies || t.Results[i][j][m].N > 0
			}
			if !applies {
				continue
			}
			rows[0] = append(rows[0], head(m))
			for j := range rows[1:] {
				rows[j+1] = append(rows[j+1], cell(m, t.Results[i][j][m]))
			}
		}
		s.lines(&b, rows)
	}
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

// lines writes rows in columns that are as wide as they must be: the first to the left, the others to the right.
func (s style) lines(b *strings.Builder, rows [][]string) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, c := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(c), 3)
		}
	}
	for i, row := range rows {
		b.WriteString(s.begin)
		for j, c := range row {
			pad := strings.Repeat(" ", widths[j]-utf8.RuneCountInString(c))
			switch {
			case j > 0:
				b.WriteString(s.between + pad + c)
			case len(row) == 1 && s.end == "":
				b.WriteString(c)
			default:
				b.WriteString(c + pad)
			}
		}
		b.WriteString(s.end + "\n")
		if i == 0 && s.rule {
			b.WriteByte('|')
			for j, w := range widths {
				if j == 0 {
					b.WriteString(strings.Repeat("-", w+2) + "|")
				} else {
					b.WriteString(strings.Repeat("-", w+1) + ":|")
				}
			}
			b.WriteByte('\n')
		}
	}
}

func head(m Metric) string {
	switch u := m.Unit(); {
	case u == "s":
		return m.String() + " p50/p90"
	case u == "" || u == "ratio" || u == "log2":
		return m.String()
	default:
		return m.String() + " " + u
	}
}

func cell(m Metric, s Summary) string {
	if s.N == 0 {
		return "-"
	}
	percent := func(f float64) string { return fmt.Sprintf("%.1f", f*100) }
	around := func(format string, scale float64) string {
		c := fmt.Sprintf(format, s.Mean*scale)
		if half := (s.High - s.Low) / 2; !math.IsNaN(half) {
			c += "±" + fmt.Sprintf(format, half*scale)
		}
		return c
	}
	switch m.Unit() {
	case "":
		return fmt.Sprintf("%s%% [%s, %s]", percent(s.Mean), percent(s.Low), percent(s.High))
	case "s":
		return shortTime(s.P50) + " / " + shortTime(s.P90)
	case "ratio":
		return around("%.1f", 100) + "%"
	}
	if s.Mean >= 100 {
		return around("%.0f", 1)
	}
	return around("%.3f", 1)
}

// shortTime leaves out the zeros that time.Duration ends with: 1h, 1m30s.
func shortTime(secs float64) string {
	d := time.Duration(math.Round(secs)) * time.Second
	s := d.String()
	if d == 0 {
		return "0"
	}
	if d%time.Minute == 0 {
		s = strings.TrimSuffix(s, "0s")
	}
	if d%time.Hour == 0 {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
