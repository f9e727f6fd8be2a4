package main

import (
	"bytes"
	"context"
	"fmt"
	"image/color"
	"io"
	"math"
	"os"
	"path/filepath"

	"github.com/poolkit/poolkit/difficulty/difftest"
	xfont "golang.org/x/image/font"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	vgdraw "gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

// draw writes the pictures that c and t give, and says which.
func draw(ctx context.Context, c *config, t *difftest.Table, progress io.Writer) error {
	n := 0
	save := func(name string, p picture) error {
		n += 2
		return p.save(filepath.Join(c.dir, name))
	}
	for _, sc := range c.scenarios {
		if ctx.Err() != nil {
			return fmt.Errorf("stopped before the picture of %s", sc.Name)
		}
		p, err := tracePicture(c, sc)
		if err != nil {
			return err
		}
		if err := save(sc.Name, p); err != nil {
			return err
		}
	}
	p, ok, err := sheet(ctx, c, t)
	if err != nil {
		return err
	}
	if ok {
		if err := save("policies", p); err != nil {
			return err
		}
	}
	fmt.Fprintf(progress, "%d pictures are in %s\n", n, c.dir)
	return nil
}

// A picture is drawn twice, as SVG and as PNG.
type picture struct {
	width, height vg.Length
	draw          func(vgdraw.Canvas)
}

// save writes name.svg and name.png.
func (p picture) save(name string) error {
	svg := vgsvg.New(p.width, p.height)
	p.on(svg)
	var b bytes.Buffer
	if _, err := svg.WriteTo(&b); err != nil {
		return fmt.Errorf("drawing %s.svg: %w", name, err)
	}
	// Where the fonts are missing that lengths were measured with, one that is as wide has to do.
	fonts := bytes.ReplaceAll(b.Bytes(), []byte("font-family:Liberation Sans"),
		[]byte("font-family:'Liberation Sans',Arial,Helvetica,sans-serif"))
	if err := os.WriteFile(name+".svg", fonts, 0o666); err != nil {
		return err
	}

	png := vgimg.PngCanvas{Canvas: vgimg.NewWith(vgimg.UseWH(p.width, p.height), vgimg.UseDPI(110))}
	p.on(png)
	b.Reset()
	if _, err := png.WriteTo(&b); err != nil {
		return fmt.Errorf("drawing %s.png: %w", name, err)
	}
	return os.WriteFile(name+".png", b.Bytes(), 0o666)
}

func (p picture) on(c vg.Canvas) {
	dc := vgdraw.NewCanvas(c, p.width, p.height)
	dc.FillPolygon(color.White, []vg.Point{{}, {X: p.width}, {X: p.width, Y: p.height}, {Y: p.height}})
	p.draw(dc)
}

// Colours that are as different in grey as they are in colour.
var (
	ink    = color.NRGBA{0x1a, 0x1a, 0x1a, 0xff}
	pale   = color.NRGBA{0xe2, 0xe2, 0xe2, 0xff}
	muted  = color.NRGBA{0x66, 0x66, 0x66, 0xff}
	blue   = color.NRGBA{0x10, 0x3a, 0x82, 0xff} // what a policy does
	orange = color.NRGBA{0xe8, 0x83, 0x00, 0xff} // what it should do
)

func face(size float64, bold bool) font.Font {
	f := font.Font{Typeface: "Liberation", Variant: "Sans", Size: vg.Length(size)}
	if bold {
		f.Weight = xfont.WeightBold
	}
	return f
}

// label is the style of text, where x and y say which side of it is at the point.
func label(size float64, bold bool, c color.Color, x text.XAlignment, y text.YAlignment) text.Style {
	return text.Style{Color: c, Font: face(size, bold), XAlign: x, YAlign: y, Handler: plot.DefaultTextHandler}
}

func line(c color.Color, width float64, dashes ...vg.Length) vgdraw.LineStyle {
	return vgdraw.LineStyle{Color: c, Width: vg.Length(width), Dashes: dashes}
}

// newPlot returns an empty plot in the style of all.
func newPlot(title, x, y string) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = nil
	p.Title.Text = title
	p.Title.TextStyle = label(11, true, ink, text.XCenter, text.YTop)
	p.Title.Padding = 4
	p.X.Label.Text, p.Y.Label.Text = x, y
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.Label.TextStyle.Font, a.Label.TextStyle.Color = face(9, false), muted
		a.Label.Padding = 2
		a.Tick.Label.Font, a.Tick.Label.Color = face(9, false), ink
		a.Tick.LineStyle, a.LineStyle = line(muted, 0.5), line(muted, 0.5)
		a.Tick.Length = 3
		a.Padding = 0
	}
	return p
}

// ticks are where an axis has a mark with text, and a line across.
type ticks []plot.Tick

func (t ticks) Ticks(_, _ float64) []plot.Tick { return t }

// lines draws those of ticks, thin.
type lines struct{ x, y ticks }

func (l lines) Plot(c vgdraw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	for _, t := range l.x {
		if t.Value >= p.X.Min && t.Value <= p.X.Max {
			c.StrokeLine2(line(pale, 0.5), x(t.Value), c.Min.Y, x(t.Value), c.Max.Y)
		}
	}
	for _, t := range l.y {
		if t.Value >= p.Y.Min && t.Value <= p.Y.Max {
			c.StrokeLine2(line(pale, 0.5), c.Min.X, y(t.Value), c.Max.X, y(t.Value))
		}
	}
}

// A drawing is a plot.Plotter.
type drawing func(c vgdraw.Canvas, p *plot.Plot)

func (d drawing) Plot(c vgdraw.Canvas, p *plot.Plot) { d(c, p) }

// A xy is a point in the numbers of a plot.
type xy struct{ x, y float64 }

// curve draws straight lines through points, cut off where the plot ends; a gap in them is where y is NaN.
func curve(style vgdraw.LineStyle, pts []xy) drawing {
	return func(c vgdraw.Canvas, p *plot.Plot) {
		x, y := p.Transforms(&c)
		var part []vg.Point
		flush := func() {
			if len(part) > 1 {
				c.StrokeLines(style, c.ClipLinesXY(part)...)
			}
			part = nil
		}
		for _, pt := range pts {
			if math.IsNaN(pt.y) {
				flush()
				continue
			}
			part = append(part, vg.Point{X: x(pt.x), Y: y(min(max(pt.y, p.Y.Min), p.Y.Max))})
		}
		flush()
	}
}

// unrisen takes the risers out of stairs that are higher than most, so that what jumps to and fro leaves the plot
// legible.
func unrisen(pts []xy, most float64) []xy {
	var s []xy
	for i, p := range pts {
		if i > 0 && pts[i-1].x == p.x && math.Abs(pts[i-1].y-p.y) > most {
			s = append(s, xy{p.x, math.NaN()})
		}
		s = append(s, p)
	}
	return s
}

// steps makes stairs of points: each holds until the next, the last until end.
func steps(pts []xy, end float64) []xy {
	var s []xy
	for i, p := range pts {
		until := end
		if i+1 < len(pts) {
			until = pts[i+1].x
		}
		s = append(s, p, xy{until, p.y})
	}
	return s
}
