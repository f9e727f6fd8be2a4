package main

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/difficulty/difftest"
	"github.com/stretchr/testify/require"
)

func TestTableAndPictures(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "folder")
	args := []string{"-trials", "3", "-scenarios", "drop, steady,cold-start,tiny", "-o", dir}
	var out, progress bytes.Buffer
	require.NoError(t, run(t.Context(), args, &out, &progress))
	for _, k := range kinds {
		require.Equal(t, 5, strings.Count(out.String(), "\n"+k.name+" "), "%s is in four tables and the summary", k.name)
	}
	require.Contains(t, out.String(), "3 trials of each scenario, seed 1, a share every 10s aimed at")
	require.Contains(t, out.String(), "\nSummary: ")
	require.Regexp(t, `(?s)^ 25 %.* steady\n 50 %.* cold-start\n 75 %.* drop\n100 %.* tiny\n10 pictures are in `, progress.String())

	for _, name := range []string{"steady", "cold-start", "drop", "tiny", "policies"} {
		b, err := os.ReadFile(filepath.Join(dir, name+".svg"))
		require.NoError(t, err)
		texts, paths := readSVG(t, b)
		for _, k := range kinds {
			require.Contains(t, texts, k.name, name)
		}
		require.Greater(t, paths, 60, name)
		require.Less(t, len(b), 150_000, name)

		f, err := os.Open(filepath.Join(dir, name+".png"))
		require.NoError(t, err)
		img, err := png.Decode(f)
		f.Close()
		require.NoError(t, err)
		inked := 0
		seen := map[[3]uint32]bool{}
		for y := 0; y < img.Bounds().Dy(); y += 3 {
			for x := 0; x < img.Bounds().Dx(); x += 3 {
				r, g, b, _ := img.At(x, y).RGBA()
				seen[[3]uint32{r, g, b}] = true
				if r+g+b < 3*0x8000 {
					inked++
				}
			}
		}
		require.Greater(t, img.Bounds().Dx(), 1000)
		require.Greater(t, len(seen), 30, name)
		require.Greater(t, inked, img.Bounds().Dx()*img.Bounds().Dy()/9/100, "%s is nearly empty", name)
	}

	var again bytes.Buffer
	require.NoError(t, run(t.Context(), append(args[:4:4], "-o", ""), &again, io.Discard))
	require.Equal(t, out.String(), again.String())
	again.Reset()
	require.NoError(t, run(t.Context(), append(args[:4:4], "-o", "", "-seed", "2"), &again, io.Discard))
	require.NotEqual(t, strings.ReplaceAll(out.String(), "seed 1", ""), strings.ReplaceAll(again.String(), "seed 2", ""))
}

// readSVG returns the text and the number of paths of a picture.
func readSVG(t *testing.T, b []byte) (texts []string, paths int) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(b))
	inText := false
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			return texts, paths
		}
		require.NoError(t, err)
		switch tok := tok.(type) {
		case xml.StartElement:
			inText = tok.Name.Local == "text"
			if tok.Name.Local == "path" {
				paths++
			}
		case xml.CharData:
			if inText {
				texts = append(texts, string(tok))
			}
		case xml.EndElement:
			inText = false
		}
	}
}

// The trials are those of difftest.Compare, however they are divided.
func TestComparesAsDifftestDoes(t *testing.T) {
	c, err := parse([]string{"-trials", "4", "-seed", "7", "-scenarios", "drop,doubling", "-policies", "sv2,batches", "-interval", "5s"}, io.Discard)
	require.NoError(t, err)
	got, err := compare(t.Context(), c, newProgress(io.Discard))
	require.NoError(t, err)
	want, err := difftest.Compare(&difftest.CompareOptions{
		Trials: 4, Seed: 7, Scenarios: c.scenarios, Measure: difftest.MeasureOptions{Interval: 5 * time.Second},
	}, c.policies...)
	require.NoError(t, err)
	require.Equal(t, want.String(), got.String())
}

// All policies aim at what is asked for, but for the one that does not care.
func TestPoliciesAimAtTheInterval(t *testing.T) {
	for _, interval := range []time.Duration{5 * time.Second, 20 * time.Second} {
		for _, k := range kinds {
			t.Run(k.name+" "+interval.String(), func(t *testing.T) {
				p, err := k.make(fixedFor.Difficulty(interval), interval)
				require.NoError(t, err)
				tr := difftest.Run(p, difftest.Steady(fixedFor), &difftest.Options{Duration: 12 * time.Hour})
				got := tr.Interval(2*time.Hour, 12*time.Hour)
				require.InDelta(t, 0, math.Log2(got.Seconds()/interval.Seconds()), 1.1, got)
			})
		}
	}
}

func TestMistakes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for _, c := range []struct {
		name string
		args []string
		want []string
	}{
		{"no trials", []string{"-trials", "0"}, []string{"-trials is 0"}},
		{"too many trials", []string{"-trials", "2000000"}, []string{"-trials is 2000000"}},
		{"trials that are no number", []string{"-trials", "many"}, []string{"many", "-trials"}},
		{"negative seed", []string{"-seed", "-1"}, []string{"-seed"}},
		{"short interval", []string{"-interval", "10ms"}, []string{"-interval is 10ms"}},
		{"odd interval", []string{"-interval", "1.0000001s"}, []string{"-interval is 1.0000001s, not whole milliseconds"}},
		{"long interval", []string{"-interval", "2h"}, []string{"-interval is 2h0m0s"}},
		{"format", []string{"-format", "html"}, []string{`-format is "html", neither text nor markdown`}},
		{"policy", []string{"-policies", "sv2,best"}, []string{`-policies has "best", which is none of sequential, `}},
		{"no policy", []string{"-policies", ","}, []string{`-policies has ""`}},
		{"scenario", []string{"-scenarios", "storm"}, []string{`-scenarios has "storm", which is none of steady, `}},
		{"argument", []string{"sv2"}, []string{`"sv2" is no flag`}},
		{"flag", []string{"-miners", "3"}, []string{"-miners"}},
		{"folder", []string{"-o", filepath.Join(file, "below")}, []string{"-o: "}},
		{"summary of nothing", []string{"-summary", "-scenarios", "timed", "-trials", "1", "-policies", "fixed"}, []string{"-summary has nothing"}},
		{"all at once", []string{"-trials", "0", "-interval", "0s", "-policies", "x", "-scenarios", "y", "-format", "z"},
			[]string{"-trials", "-interval", "-policies", "-scenarios", "-format"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			if c.name != "folder" {
				c.args = append([]string{"-o", ""}, c.args...)
			}
			err := run(t.Context(), c.args, &out, io.Discard)
			for _, w := range c.want {
				require.ErrorContains(t, err, w)
			}
			require.Empty(t, out.String())
		})
	}
}

func TestHelpNamesAllThatCanBeChosen(t *testing.T) {
	var out bytes.Buffer
	require.ErrorIs(t, run(t.Context(), []string{"-h"}, &out, io.Discard), flag.ErrHelp)
	for _, k := range kinds {
		require.Contains(t, out.String(), "\n  "+k.name+" ")
	}
	for _, sc := range difftest.Scenarios() {
		require.Contains(t, out.String(), "\n  "+sc.Name+" ")
		require.Contains(t, out.String(), sc.Doc)
	}
}

// stopping ends a context with what is written to it.
type stopping struct {
	bytes.Buffer
	stop func()
}

func (s *stopping) Write(b []byte) (int, error) {
	s.stop()
	return s.Buffer.Write(b)
}

func TestStops(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	dir := t.TempDir()
	var out bytes.Buffer
	progress := &stopping{stop: stop} // after the first scenario
	err := run(ctx, []string{"-trials", "20", "-scenarios", "drop,proxy,rented", "-policies", "sv2,btcpool", "-o", dir}, &out, progress)
	require.EqualError(t, err, "stopped in proxy of btcpool")
	require.Empty(t, out.String())
	require.Equal(t, 1, strings.Count(progress.String(), "\n"))
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, files)

	c, err := parse([]string{"-trials", "2", "-scenarios", "drop", "-policies", "sv2", "-o", dir}, io.Discard)
	require.NoError(t, err)
	table, err := compare(t.Context(), c, newProgress(io.Discard))
	require.NoError(t, err)
	require.ErrorContains(t, draw(ctx, c, table, io.Discard), "stopped before the picture of drop")
	_, err = reactTimes(ctx, c)
	require.ErrorContains(t, err, "stopped")
}

// On a terminal there is one line, which is gone in the end.
func TestProgressOnATerminal(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out)
	require.False(t, p.terminal)
	p.terminal = true
	p.step(1, 4, "proxy", "a long name")
	p.step(2, 4, "proxy", "soon after") // not drawn
	p.passed("proxy")
	p.step(4, 4, "drop", "b")
	p.end()
	require.Equal(t, "\r[#######.......................]  25 %  0s  proxy: a long name"+
		"\r[##############################] 100 %  0s  drop: b           "+
		"\r"+strings.Repeat(" ", 51)+"\r", out.String())
}

func TestTexts(t *testing.T) {
	for n, want := range map[int]string{0: "1", 9: "512", 10: "1 Ki", 16: "64 Ki", 21: "2 Mi", 62: "4 Ei", -3: "1/8", -10: "1/1024", -20: "1/1 Mi", -32: "1/4 Gi"} {
		require.Equal(t, want, power(n))
	}
	for secs, want := range map[float64]string{0: "0 s", 0.4: "0 s", 99: "99 s", 100: "1.7 min", 750: "12.5 min", 1800: "30 min", 7200: "2 h", math.NaN(): "-"} {
		require.Equal(t, want, shortTime(secs))
	}
	for f, want := range map[float64]string{0.1: "0.1", 1: "1", 100: "100", 1e4: "10 k", 1e6: "1 M"} {
		require.Equal(t, want, count(f))
	}
}

func TestTicks(t *testing.T) {
	names := func(ts ticks) (s string) {
		for _, x := range ts {
			s += x.Label + ","
		}
		return s
	}
	require.Equal(t, "0,10,20,30,40,", names(timeTicks(40*time.Minute)))
	require.Equal(t, "0 h,2 h,4 h,6 h,8 h,10 h,12 h,", names(timeTicks(12*time.Hour)))
	require.Equal(t, "16,32,64,128,256,", names(log2Ticks(4, 8)))
	require.Equal(t, "1/1024,1,1 Ki,1 Mi,", names(log2Ticks(-19, 21)))
	require.Equal(t, "1,10,100,1 k,", names(log10Ticks(-0.2, 3.1)))
	require.Equal(t, "1,100,10 k,", names(log10Ticks(-0.2, 5)))
}

func TestAverages(t *testing.T) {
	for least, want := range map[time.Duration]time.Duration{
		time.Second: time.Minute, time.Minute: time.Minute, 4 * time.Minute: 5 * time.Minute, 90 * time.Minute: 2 * time.Hour,
	} {
		require.Equal(t, want, average(least))
	}
}

// A scenario whose connection is not that of difftest says so wherever it is shown.
func TestNarrowScenariosSaySo(t *testing.T) {
	theirs := difftest.Scenarios()
	for i, sc := range scenarios() {
		if sc.Options.MaxShareRate != theirs[i].Options.MaxShareRate {
			require.Contains(t, sc.Doc, fmt.Sprintf("carries %d shares a second", sc.Options.MaxShareRate))
			require.Contains(t, narrow, sc.Name)
		} else {
			require.Equal(t, theirs[i].Doc, sc.Doc)
		}
	}
}

func TestLabelsDoNotOverlap(t *testing.T) {
	require.Equal(t, []float64{10, 20, 30}, apart([]float64{10, 20, 30}, 5, 0, 100))
	require.Equal(t, []float64{100, 95, 90, 40}, apart([]float64{100, 100, 100, 40}, 5, 0, 100))
	require.Equal(t, []float64{5, 0}, apart([]float64{0, 0}, 5, 0, 100))
}

// What a picture shows of a trial, with numbers worked out by hand.
func TestCurves(t *testing.T) {
	tr := difftest.Trace{
		Points:  []difftest.Point{{At: 0, Difficulty: 4}, {At: 90 * time.Second, Difficulty: 16}, {At: 5 * time.Minute, Difficulty: 1}},
		Seconds: make([]difftest.Second, 360),
		Truth:   make([]difficulty.Hashrate, 360),
	}
	for i := range tr.Truth {
		if i < 60 || i >= 120 {
			tr.Truth[i] = 8 * difficulty.HashesPerDifficulty // 8 at a share every second
		}
	}
	tr.Seconds[10].Shares = 10
	c := curvesOf("name", &tr, time.Second, 4*time.Minute, 2*time.Minute)
	require.Equal(t, []xy{{0, 2}, {1.5, 2}, {1.5, 4}, {4, 4}}, c.difficulty)
	require.Len(t, c.ideal, 6)
	require.Equal(t, []xy{{0, 3}, {1, 3}}, c.ideal[:2])
	require.True(t, math.IsNaN(c.ideal[2].y) && math.IsNaN(c.ideal[3].y))
	require.Equal(t, []xy{{2, 3}, {4, 3}}, c.ideal[4:])
	require.Equal(t, []xy{{1, math.Log10(5)}, {3, math.Inf(-1)}}, c.rate)
}

var update = flag.Bool("update", false, "write the README's table and pictures")

// The README's table and pictures are what its command makes.
func TestReadmeShowsWhatIsPrinted(t *testing.T) {
	switch {
	case raceEnabled || testing.Short():
		t.Skip("takes minutes with the race detector")
	case runtime.GOARCH != "amd64":
		t.Skip("other processors round otherwise, and a share more or less makes another trial")
	}
	const file = "../../README.md"
	readme, err := os.ReadFile(file)
	require.NoError(t, err)
	command := regexp.MustCompile(`(?m)^    go run ./examples/vardiff (-summary .*) -o examples/vardiff/testdata$`).FindSubmatch(readme)
	require.NotNil(t, command, "the README has no command")
	dir := t.TempDir()
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), append(strings.Fields(string(command[1])), "-o", dir), &out, io.Discard))
	_, table, ok := strings.Cut(out.String(), "\n\n")
	require.True(t, ok)
	require.True(t, strings.HasPrefix(table, "| policy |"))
	if *update {
		rows := regexp.MustCompile(`(?m)^\| policy \|.*\n(\|.*\n)+`)
		require.True(t, rows.Match(readme))
		readme = rows.ReplaceAllLiteral(readme, []byte(table))
		require.NoError(t, os.WriteFile(file, readme, 0o666))
	}
	require.Contains(t, string(readme), "\n"+table, "-update writes what is printed")

	pictures := regexp.MustCompile(`\(examples/vardiff/testdata/([a-z-]+\.svg)\)`).FindAllSubmatch(readme, -1)
	require.Len(t, pictures, 2)
	for _, p := range pictures {
		shown := filepath.Join("testdata", string(p[1]))
		got, err := os.ReadFile(filepath.Join(dir, string(p[1])))
		require.NoError(t, err)
		if *update {
			require.NoError(t, os.MkdirAll("testdata", 0o777))
			require.NoError(t, os.WriteFile(shown, got, 0o666))
		}
		want, err := os.ReadFile(shown)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got), "%s is not what is drawn; -update writes it", shown)
	}
}
