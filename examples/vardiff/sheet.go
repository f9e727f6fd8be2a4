package main

import (
	"context"
	"fmt"
	"image/color"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/poolkit/poolkit/difficulty/difftest"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	vgdraw "gonum.org/v1/plot/vg/draw"
)

// sheet draws the picture that compares the policies: those of its four plots whose scenarios are in t. It reports
// whether there are any.
func sheet(ctx context.Context, c *config, t *difftest.Table) (picture, bool, error) {
	var plots []*plot.Plot
	if r, ok := results(t, "cold-start"); ok {
		plots = append(plots,
			spans(t.Policies, r, difftest.ConvergeTime, "Cold start, 10 GH/s to 1 PH/s: time to converge", "of trials converge",
				func(r difftest.Result) string { return percent(r[difftest.Converged].Mean, 0) }),
			spans(t.Policies, r, difftest.LongestFlood, "Cold start: longest flood above 3 x the target rate", "mean shares a second",
				func(r difftest.Result) string { return fmt.Sprintf("%.3g", r[difftest.ShareRate].Mean) }))
	}
	if drops, ok := results(t, "drop"); ok {
		reactions, err := reactTimes(ctx, c)
		if err != nil {
			return picture{}, false, err
		}
		plots = append(plots, reactionPlot(t.Policies, reactions, t.Trials))
		if rest, ok := results(t, "steady"); ok {
			plots = append(plots, restPlot(t.Policies, rest, drops))
		}
	}
	if len(plots) == 0 {
		return picture{}, false, nil
	}
	const cellWidth, cellHeight, top = 470, 330, 44
	columns := min(len(plots), 2)
	rows := (len(plots) + 1) / 2
	width, height := vg.Length(columns*cellWidth+10), vg.Length(rows*cellHeight+top)
	return picture{width: width, height: height, draw: func(dc vgdraw.Canvas) {
		head(dc, "Policies compared", fmt.Sprintf("%d trials each, seed %d, a share every %v aimed at", t.Trials, t.Seed, t.Interval))
		for i, p := range plots {
			x := vg.Length(5 + i%2*cellWidth)
			y := height - top - vg.Length((i/2+1)*cellHeight)
			p.Draw(vgdraw.Crop(dc, x+8, x+cellWidth-width-8, y+8, y+cellHeight-height-8))
		}
	}}, true, nil
}

func results(t *difftest.Table, scenario string) ([]difftest.Result, bool) {
	for i, sc := range t.Scenarios {
		if sc.Name == scenario {
			return t.Results[i], true
		}
	}
	return nil, false
}

// spans draws a metric of times for each policy: its median, and from the 10th to the 90th and to the 99th percentile. A
// column to the right has another number.
func spans(names []string, rs []difftest.Result, m difftest.Metric, title, column string, beside func(difftest.Result) string) *plot.Plot {
	p := newPlot(title, "time, logarithmic; dot: median, thick: 10 to 90 % of trials, thin: to 99 %", "")
	marks := ticks{{Value: 0, Label: "≤ 1 s"}, {Value: 1, Label: "10 s"}, {Value: math.Log10(60), Label: "1 min"},
		{Value: math.Log10(300), Label: "5 min"}, {Value: math.Log10(1800), Label: "30 min"}}
	p.X.Min, p.X.Max = -0.15, math.Log10(1800)+0.95
	p.Y.Min, p.Y.Max = -0.6, float64(len(names))
	p.X.Tick.Marker = marks
	var rows ticks
	for i := range names {
		rows = append(rows, plot.Tick{Value: float64(len(names) - 1 - i), Label: names[i]})
	}
	p.Y.Tick.Marker = rows
	p.Y.Tick.Length = 0
	p.Add(lines{x: marks}, drawing(func(c vgdraw.Canvas, p *plot.Plot) {
		x, y := p.Transforms(&c)
		at := func(secs float64) vg.Length {
			return x(math.Log10(min(max(secs, 1), 1800*1.2)))
		}
		right := label(9, false, ink, text.XRight, text.YCenter)
		c.FillText(label(9, false, muted, text.XRight, text.YCenter), vg.Point{X: c.Max.X, Y: y(float64(len(names)) - 0.35)}, column)
		for i, r := range rs {
			h := y(float64(len(names) - 1 - i))
			c.FillText(right, vg.Point{X: c.Max.X, Y: h}, beside(r))
			s := r[m]
			if s.N == 0 {
				c.FillText(label(9, false, muted, text.XLeft, text.YCenter), vg.Point{X: x(0), Y: h}, "never")
				continue
			}
			c.StrokeLine2(line(blue, 1), at(s.P10), h, at(s.P99), h)
			c.StrokeLine2(line(color.NRGBA{0x9d, 0xb4, 0xdc, 0xff}, 8), at(s.P10)-1, h, at(s.P90)+1, h)
			c.DrawGlyph(vgdraw.GlyphStyle{Color: blue, Radius: 3.6, Shape: vgdraw.CircleGlyph{}}, vg.Point{X: at(s.P50), Y: h})
		}
	}))
	return p
}

// reactTimes returns, for each policy, after how many seconds it lowered the difficulty when the hashrate halved, sorted;
// trials in which it did not within ten minutes are left out.
func reactTimes(ctx context.Context, c *config) ([][]float64, error) {
	var sc difftest.Scenario
	for _, s := range c.scenarios {
		if s.Name == "drop" {
			sc = stoppable(ctx, s)
		}
	}
	opts := difftest.MeasureOptions{Interval: c.interval, Change: sc.Change}
	all := make([][]float64, len(c.policies))
	for i, p := range c.policies {
		times := make([]float64, c.trials)
		var next atomic.Int64
		var wg sync.WaitGroup
		for range runtime.GOMAXPROCS(0) {
			wg.Go(func() {
				for n := int(next.Add(1)) - 1; n < c.trials; n = int(next.Add(1)) - 1 {
					tr := sc.Run(p.New, c.interval, difftest.TrialSeed(c.seed, n))
					times[n] = difftest.Measure(&tr, &opts)[difftest.ReactTime]
				}
			})
		}
		wg.Wait()
		if ctx.Err() != nil {
			return nil, fmt.Errorf("stopped in the picture of drop")
		}
		all[i] = slices.DeleteFunc(times, math.IsNaN)
		slices.Sort(all[i])
	}
	return all, nil
}

// looks tell policies apart, in grey too: by dashes, and by colours that are light or dark.
var looks = []vgdraw.LineStyle{
	line(blue, 2.4),
	line(orange, 1.8),
	line(orange, 1.8, 6, 3),
	line(color.NRGBA{0x00, 0x7a, 0x5e, 0xff}, 1.6),
	line(color.NRGBA{0xb0, 0x1e, 0x4b, 0xff}, 1.6),
	line(color.NRGBA{0xb0, 0x1e, 0x4b, 0xff}, 1.6, 6, 3),
	line(color.NRGBA{0x3f, 0x8a, 0xd0, 0xff}, 1.8),
	line(ink, 1.4, 2, 2),
	line(muted, 1.2, 1, 3),
}

func look(i int) vgdraw.LineStyle { return looks[i%len(looks)] }

// reactionPlot draws how many of the trials had reacted after so many minutes.
func reactionPlot(names []string, times [][]float64, trials int) *plot.Plot {
	const most = 10.0
	p := newPlot("Hashrate -50 %: trials in which the difficulty has fallen", "minutes after the drop", "% of trials")
	xs, ys := ticks{}, ticks{}
	for v := 0.0; v <= most; v += 2.5 {
		xs = append(xs, plot.Tick{Value: v, Label: fmt.Sprint(v)})
	}
	for v := 0.0; v <= 100; v += 25 {
		ys = append(ys, plot.Tick{Value: v, Label: fmt.Sprint(v)})
	}
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = 0, most*1.42, -1, 102
	p.X.Tick.Marker, p.Y.Tick.Marker = xs, ys
	p.Add(lines{x: xs, y: ys})
	ends := make([]float64, len(names))
	for i, ts := range times {
		pts := []xy{{0, 0}}
		for n, t := range ts {
			pts = append(pts, xy{t / 60, 100 * float64(n+1) / float64(trials)})
		}
		ends[i] = pts[len(pts)-1].y
		p.Add(curve(look(i), steps(pts, most)))
	}
	p.Add(drawing(func(c vgdraw.Canvas, p *plot.Plot) {
		x, y := p.Transforms(&c)
		for i, h := range apart(ends, 6.6, 0, 100) {
			from, to := x(most), x(most)+18
			c.StrokeLine2(line(muted, 0.4), from, y(ends[i]), to-4, y(h))
			c.StrokeLine2(look(i), to-2, y(h), to+16, y(h))
			c.FillText(label(9, false, ink, text.XLeft, text.YCenter), vg.Point{X: to + 20, Y: y(h)}, names[i])
		}
	}))
	return p
}

// apart moves values away from one another until none are nearer than gap, keeps their order, and stays within lo and hi
// if that is wide enough.
func apart(values []float64, gap, lo, hi float64) []float64 {
	order := make([]int, len(values))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case values[a] < values[b]:
			return -1
		case values[a] > values[b]:
			return 1
		}
		return b - a // of equal ones the first is on top
	})
	moved := slices.Clone(values)
	for i, n := range order {
		moved[n] = max(moved[n], lo)
		if i > 0 {
			moved[n] = max(moved[n], moved[order[i-1]]+gap)
		}
	}
	for i := len(order) - 1; i >= 0; i-- {
		most := hi
		if i+1 < len(order) {
			most = moved[order[i+1]] - gap
		}
		moved[order[i]] = min(moved[order[i]], most)
	}
	return moved
}

// restPlot draws what a policy notices over what it costs a miner at rest.
func restPlot(names []string, rest, drops []difftest.Result) *plot.Plot {
	p := newPlot("Vigilance and rest: better is up and to the left", "retargets per hour of a steady miner", "% of -50 % drops seen within 5 min")
	most := 1.0
	pts := make([]xy, len(names))
	for i := range names {
		pts[i] = xy{rest[i][difftest.Retargets].Mean, 100 * drops[i][difftest.Reacted].Mean}
		most = max(most, pts[i].x)
	}
	every := 0.5
	if most > 2 {
		every = 1
	}
	if most > 6 {
		every = math.Ceil(most / 5)
	}
	xs, ys := ticks{}, ticks{}
	for v := 0.0; v <= most+every/2; v += every {
		xs = append(xs, plot.Tick{Value: v, Label: fmt.Sprint(v)})
	}
	for v := 0.0; v <= 100; v += 25 {
		ys = append(ys, plot.Tick{Value: v, Label: fmt.Sprint(v)})
	}
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = -0.06*most, most*1.45, -6, 106
	p.X.Tick.Marker, p.Y.Tick.Marker = xs, ys
	p.Add(lines{x: xs, y: ys}, drawing(func(c vgdraw.Canvas, p *plot.Plot) {
		x, y := p.Transforms(&c)
		style := label(9, false, ink, text.XLeft, text.YCenter)
		beside := x(most*1.08) + 12 // where nothing is that it could cover
		for i := range pts {
			glyph := vgdraw.GlyphStyle{Color: look(i).Color, Radius: 3.8, Shape: shapes[i%len(shapes)]}
			if i%len(shapes) == len(shapes)-1 {
				glyph.Radius = 5.5 // a ring around others
			}
			c.DrawGlyph(glyph, vg.Point{X: x(pts[i].x), Y: y(pts[i].y)})
			row := c.Max.Y - 16 - vg.Length(15*i)
			c.DrawGlyph(glyph, vg.Point{X: beside, Y: row})
			c.FillText(style, vg.Point{X: beside + 11, Y: row}, names[i])
		}
	}))
	return p
}

var shapes = []vgdraw.GlyphDrawer{
	vgdraw.CircleGlyph{}, vgdraw.BoxGlyph{}, vgdraw.SquareGlyph{}, vgdraw.PyramidGlyph{}, vgdraw.TriangleGlyph{},
	vgdraw.RingGlyph{}, vgdraw.CrossGlyph{}, vgdraw.PlusGlyph{}, vgdraw.RingGlyph{},
}
