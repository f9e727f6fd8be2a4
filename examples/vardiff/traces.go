package main

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/poolkit/poolkit/difficulty/difftest"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	vgdraw "gonum.org/v1/plot/vg/draw"
)

// What there is to see in these is over long before the trial is.
var shownOf = map[string]time.Duration{"cold-start": 40 * time.Minute, "cold-start-down": time.Hour}

// A traceCurves is one trial of one policy.
type traceCurves struct {
	name       string
	difficulty []xy // log2 over minutes
	ideal      []xy // the same, of the difficulty that suits the miner
	rate       []xy // log10 of shares a minute
}

// tracePicture draws the first trial of a scenario for every policy: difficulty above, rate of shares below, on the same
// axes for all.
func tracePicture(c *config, sc difftest.Scenario) (picture, error) {
	var all []traceCurves
	var length, bucket time.Duration
	for _, p := range c.policies {
		tr := sc.Run(p.New, c.interval, difftest.TrialSeed(c.seed, 0))
		length = tr.Duration()
		if d, ok := shownOf[sc.Name]; ok {
			length = min(length, d)
		}
		bucket = average(max(length/60, 6*c.interval))
		all = append(all, curvesOf(p.Name, &tr, c.interval, length, bucket))
	}
	if length <= 0 {
		return picture{}, fmt.Errorf("scenario %s has no length", sc.Name)
	}

	// Common axes. Silence has no logarithm, so it is drawn at the bottom.
	wanted := math.Log10(time.Minute.Seconds() / c.interval.Seconds())
	lo, hi := math.Inf(1), math.Inf(-1)
	most := wanted + 1
	for _, t := range all {
		for _, pts := range [][]xy{t.difficulty, t.ideal} {
			for _, p := range pts {
				if p.x <= length.Minutes() && !math.IsNaN(p.y) {
					lo, hi = min(lo, p.y), max(hi, p.y)
				}
			}
		}
		for _, p := range t.rate {
			most = max(most, p.y)
		}
	}
	if lo > hi {
		lo, hi = 0, 1
	}
	if hi-lo < 6 {
		lo, hi = (lo+hi)/2-3, (lo+hi)/2+3
	}
	times := timeTicks(length)
	difficulties := log2Ticks(lo, hi)
	least := wanted - 1 - 0.13*(most-wanted+1) // far enough below the lowest power of ten for another number
	rates := append(ticks{{Value: least, Label: "0"}}, log10Ticks(least+0.4, most)...)

	const columns, cellWidth, cellHeight, top = 3, 300, 258, 70
	rows := (len(all) + columns - 1) / columns
	width := vg.Length(columns*cellWidth + 20)
	if len(all) < columns {
		width = max(vg.Length(len(all)*cellWidth+20), 2*cellWidth)
	}
	height := vg.Length(rows*cellHeight + top + 6)
	return picture{width: width, height: height, draw: func(dc vgdraw.Canvas) {
		head(dc, sc.Name, sc.Doc)
		key(dc, height-top+14, "what the policy does, in one trial", "what suits the miner",
			"shares are averages of "+minutesText(bucket))
		for i, t := range all {
			x := vg.Length(10 + i%columns*cellWidth)
			y := height - top - vg.Length((i/columns+1)*cellHeight)
			cell := vgdraw.Crop(dc, x, x+cellWidth-width, y+12, y+cellHeight-height)

			above := newPlot(t.name, "", "difficulty")
			above.X.Min, above.X.Max = 0, length.Minutes()
			above.Y.Min, above.Y.Max = lo-0.3, hi+0.3
			above.X.Tick.Marker, above.Y.Tick.Marker = ticks(nil), difficulties
			above.Add(lines{times, difficulties}, curve(line(blue, 1.5), t.difficulty), curve(line(orange, 1.3, 4, 2.5), unrisen(t.ideal, 0.6)))

			below := newPlot("", "minutes", "shares / min")
			if len(times) > 0 && strings.HasSuffix(times[len(times)-1].Label, "h") {
				below.X.Label.Text = ""
			}
			below.X.Min, below.X.Max = 0, length.Minutes()
			below.Y.Min, below.Y.Max = least, most+0.1
			below.X.Tick.Marker, below.Y.Tick.Marker = times, rates
			below.Add(lines{times, rates}, curve(line(blue, 1.2), t.rate),
				curve(line(orange, 1.3, 4, 2.5), []xy{{0, wanted}, {length.Minutes(), wanted}}))

			stack(cell, 0.56, above, below)
		}
	}}, nil
}

// stack draws one plot above the other, so that they begin and end at the same place from left to right.
func stack(c vgdraw.Canvas, share float64, above, below *plot.Plot) {
	h := c.Max.Y - c.Min.Y
	const gutter, margin = 58, 12 // on the left, for numbers, and on the right
	for i, p := range []*plot.Plot{above, below} {
		part := vgdraw.Crop(c, 0, 0, vg.Length(1-share)*h, 0)
		if i == 1 {
			part = vgdraw.Crop(c, 0, 0, 0, -vg.Length(share)*h)
		}
		// Numbers of different lengths shift a plot, and so does the last one below it; this shifts it back.
		at := p.DataCanvas(part)
		p.Draw(vgdraw.Crop(part, gutter-(at.Min.X-part.Min.X), (part.Max.X-at.Max.X)-margin, 0, 0))
	}
}

// head writes what a picture is about along its top.
func head(c vgdraw.Canvas, title, doc string) {
	c.FillText(label(14, true, ink, text.XLeft, text.YTop), vg.Point{X: 14, Y: c.Max.Y - 8}, title)
	c.FillText(label(10, false, muted, text.XLeft, text.YTop), vg.Point{X: 14, Y: c.Max.Y - 27}, doc)
}

// key says what the two kinds of lines are.
func key(c vgdraw.Canvas, y vg.Length, does, should, note string) {
	x := vg.Length(14)
	style := label(10, false, ink, text.XLeft, text.YCenter)
	for _, k := range []struct {
		style vgdraw.LineStyle
		text  string
	}{{line(blue, 1.5), does}, {line(orange, 1.3, 4, 2.5), should}} {
		c.StrokeLine2(k.style, x, y, x+26, y)
		c.FillText(style, vg.Point{X: x + 32, Y: y}, k.text)
		x += 32 + style.Width(k.text) + 24
	}
	style.Color = muted
	c.FillText(style, vg.Point{X: x, Y: y}, note)
}

// average returns the time to average shares over, a round one of at least so much.
func average(least time.Duration) time.Duration {
	for _, minutes := range []time.Duration{1, 2, 5, 10, 15, 30, 60} {
		if d := minutes * time.Minute; d >= least {
			return d
		}
	}
	return least.Round(time.Hour)
}

func minutesText(d time.Duration) string {
	if d == time.Minute {
		return "a minute"
	}
	return fmt.Sprintf("%g minutes", d.Minutes())
}

func curvesOf(name string, tr *difftest.Trace, interval, length, bucket time.Duration) traceCurves {
	t := traceCurves{name: name}
	minutes := length.Minutes()
	for _, p := range tr.Points {
		if p.At < length {
			t.difficulty = append(t.difficulty, xy{p.At.Minutes(), math.Log2(float64(p.Difficulty))})
		}
	}
	t.difficulty = steps(t.difficulty, minutes)

	seconds := int(length / time.Second)
	changes := 0
	for i := 1; i < seconds; i++ {
		if tr.Truth[i] != tr.Truth[i-1] {
			changes++
		}
	}
	every := 1
	if changes > 200 { // more than can be seen
		every = max(seconds/200, 1)
	}
	last := math.Inf(-1)
	for i := 0; i < seconds; i += every {
		y := math.NaN() // a miner that stands still has no difficulty
		if tr.Truth[i] > 0 {
			y = math.Log2(float64(tr.Truth[i].Difficulty(interval)))
		}
		if y != last && !(math.IsNaN(y) && math.IsNaN(last)) {
			t.ideal = append(t.ideal, xy{float64(i) / 60, y})
			last = y
		}
	}
	t.ideal = steps(t.ideal, minutes)

	for at := time.Duration(0); at+bucket <= length; at += bucket {
		rate := math.Inf(-1)
		if n := tr.Shares(at, at+bucket); n > 0 {
			rate = math.Log10(float64(n) / bucket.Minutes())
		}
		t.rate = append(t.rate, xy{(at + bucket/2).Minutes(), rate})
	}
	return t
}

// timeTicks marks minutes, or hours when there are many.
func timeTicks(length time.Duration) ticks {
	var t ticks
	for _, every := range []time.Duration{
		time.Minute, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 30 * time.Minute,
		time.Hour, 2 * time.Hour, 4 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour,
	} {
		if length/every > 6 && every < 24*time.Hour {
			continue
		}
		for at := time.Duration(0); at <= length; at += every {
			name := fmt.Sprint(at.Minutes())
			if length > time.Hour {
				name = fmt.Sprintf("%g h", at.Hours())
			}
			t = append(t, plot.Tick{Value: at.Minutes(), Label: name})
		}
		break
	}
	return t
}

// log2Ticks marks powers of two, five at most.
func log2Ticks(lo, hi float64) ticks {
	every := math.Ceil((hi - lo) / 5)
	if every > 5 {
		every = math.Ceil(every/5) * 5 // whole thousands are every ten
	}
	var t ticks
	for v := math.Ceil(lo/every) * every; v <= hi+0.3; v += every {
		t = append(t, plot.Tick{Value: v, Label: power(int(v))})
	}
	return t
}

// power writes a power of two as a number of at most three digits: 512, 64 Ki, 2 Mi, 1/1024.
func power(n int) string {
	if n < 0 {
		if n >= -13 {
			return fmt.Sprintf("1/%d", 1<<-n)
		}
		return "1/" + power(-n)
	}
	units := [...]string{"", " Ki", " Mi", " Gi", " Ti", " Pi", " Ei"}
	i := min(n/10, len(units)-1)
	return fmt.Sprintf("%.0f%s", math.Exp2(float64(n-10*i)), units[i])
}

// log10Ticks marks powers of ten, every second when there are many.
func log10Ticks(lo, hi float64) ticks {
	every := 1.0
	if hi-lo > 4.5 {
		every = 2
	}
	var t ticks
	for v := math.Ceil(lo); v <= hi; v++ {
		if math.Mod(v, every) == 0 {
			t = append(t, plot.Tick{Value: v, Label: count(math.Pow(10, v))})
		}
	}
	return t
}

func count(f float64) string {
	switch {
	case f >= 1e6:
		return fmt.Sprintf("%g M", f/1e6)
	case f >= 1e3:
		return fmt.Sprintf("%g k", f/1e3)
	}
	return fmt.Sprintf("%.3g", f)
}
