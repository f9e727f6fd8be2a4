package difftest

import (
	"fmt"
	"math"
	"time"
)

// A Metric is one number that says how well a Policy served a miner in one [Trace]. The ideal difficulty is the one at
// which the miner's true hashrate finds a share every target interval: hashrate x interval / 2^32. A retarget is a
// change of the difficulty that the pool sends; times are those of the sending.
//
// A Metric that does not apply to a Trace is NaN, and counts in no [Summary].
type Metric uint8

// The metrics. Those that begin with Reference are what the simulation of the Stratum V2 reference measures, as far as
// its description and its code say, so that its published figures and those of this package can be compared. They ask
// only whether the difficulty rests, not whether it is right.
const (
	// Converged is 1 when the difficulty came to rest where it belongs, else 0: there were 5 minutes in a row, all
	// within the first 30, without a retarget and with the difficulty within a factor of 1.5 of the ideal one. A
	// retarget in the very moment that they end is none within them. The time from a Change on does not count.
	Converged Metric = iota

	// ConvergeTime is the time in seconds from the start to the last retarget before the first such 5 minutes, and 0
	// when there was none before. It applies when Converged is 1.
	ConvergeTime

	// Resettled is Converged with the time counted from the Change, and applies when there is one.
	Resettled

	// ResettleTime is ConvergeTime with the time counted from the Change: 0 when the difficulty that the miner had suits
	// it still. It applies when Resettled is 1.
	ResettleTime

	// Error is how far the shares per second in the settled time are from the target, |rate x interval - 1|. The settled
	// time begins 2 minutes after ConvergeTime, or after ResettleTime when there is a Change, and lasts to the end; the
	// seconds in which the miner stood still are left out. It applies when at least 10 minutes of it are left.
	Error

	// Jitter is the number of retargets per hour in the settled time, which is that of Error. It applies when that
	// lasts at least 10 minutes.
	Jitter

	// Spread is the standard deviation over the settled time of the base-2 logarithm of the difficulty: 1 is a factor of
	// 2. It applies when Jitter does.
	Spread

	// Reacted is 1 when within 5 minutes after the Change a retarget went in its direction, else 0: up when the mean
	// hashrate of the minute after the Change is above that of the minute before, down when it is below. It applies when
	// there is a Change, the two differ and the first is not 0, and the Trace goes on for 5 minutes.
	Reacted

	// ReactTime is the time in seconds from the Change to the first retarget in its direction. It applies when that came
	// within 10 minutes.
	ReactTime

	// HashrateError10m is how far a pool errs that estimates the hashrate from the work of 10 minutes: the mean of
	// |estimate / truth - 1| over the whole 10 minutes from the start on, one after the other, in which the miner did not
	// stand still all the time. Truth is the mean over the same time. It applies when there are any.
	HashrateError10m

	// HashrateError1h is the same for hours.
	HashrateError1h

	// ShareRate is the number of shares per second that arrived, from the start to the end.
	ShareRate

	// ByteRate is the bytes per second in both directions, from the start to the end: [BytesPerShare] for each share that
	// arrived, [BytesPerJob] for each job and [BytesPerDifficulty] for each retarget and the first of each session.
	ByteRate

	// LongestFlood is the most seconds in a row at the end of which the 10 seconds before had more than 3 times the
	// shares that they should have. With few shares in 10 seconds that happens by chance too.
	LongestFlood

	// LongestEasy is the most seconds in a row at the beginning of which the difficulty sent last was less than a third
	// of the ideal one: a flood as it is to be expected, without chance.
	LongestEasy

	// Retargets is the number of retargets per hour, from the start to the end.
	Retargets

	// ReferenceConverged is 1 when a retarget was followed by more than 5 minutes without one, both within the first
	// 30 minutes, or when there was none at all, else 0.
	ReferenceConverged

	// ReferenceConvergeTime is the time in seconds of the first such retarget, 0 when there was none at all. It applies
	// when ReferenceConverged is 1.
	ReferenceConvergeTime

	// ReferenceError is how far the difficulty at the end is from the ideal one, |difficulty / ideal - 1|. It applies
	// when ReferenceConverged is 1 and the miner does not stand still at the end.
	ReferenceError

	// ReferenceJitter is the number of retargets per minute from 2 minutes after ReferenceConvergeTime to the end. It
	// applies when that lasts at least 10 minutes.
	ReferenceJitter

	// ReferenceReacted is 1 when there was a retarget in any direction within 5 minutes after the Change, else 0. It
	// applies when there is a Change and the Trace goes on for 5 minutes.
	ReferenceReacted

	// ReferenceReactTime is the time in seconds from the Change to the first retarget in any direction. It applies when
	// that came within 10 minutes.
	ReferenceReactTime

	metricCount
)

// Metrics returns all metrics.
func Metrics() []Metric {
	all := make([]Metric, metricCount)
	for i := range all {
		all[i] = Metric(i)
	}
	return all
}

type unit uint8

const (
	rate unit = iota // of trials
	seconds
	relative
	perHour
	perMinute
	perSecond1
	bytesPerSecond
	log2
)

var metricInfo = [metricCount]struct {
	name string
	unit unit
}{
	Converged:             {"converged", rate},
	ConvergeTime:          {"converge time", seconds},
	Resettled:             {"resettled", rate},
	ResettleTime:          {"resettle time", seconds},
	Error:                 {"error", relative},
	Jitter:                {"jitter", perHour},
	Spread:                {"spread", log2},
	Reacted:               {"reacted", rate},
	ReactTime:             {"react time", seconds},
	HashrateError10m:      {"hashrate error 10m", relative},
	HashrateError1h:       {"hashrate error 1h", relative},
	ShareRate:             {"shares", perSecond1},
	ByteRate:              {"bytes", bytesPerSecond},
	LongestFlood:          {"longest flood", seconds},
	LongestEasy:           {"longest easy", seconds},
	Retargets:             {"retargets", perHour},
	ReferenceConverged:    {"reference converged", rate},
	ReferenceConvergeTime: {"reference converge time", seconds},
	ReferenceError:        {"reference error", relative},
	ReferenceJitter:       {"reference jitter", perMinute},
	ReferenceReacted:      {"reference reacted", rate},
	ReferenceReactTime:    {"reference react time", seconds},
}

// String returns the name of m, such as "converge time".
func (m Metric) String() string {
	if m >= metricCount {
		return fmt.Sprintf("Metric(%d)", uint8(m))
	}
	return metricInfo[m].name
}

// Unit returns the unit of m: "" for a proportion of trials, "s" for seconds, "ratio" for a relative error, "1/h",
// "1/min", "1/s", "B/s", and "log2" for a base-2 logarithm.
func (m Metric) Unit() string {
	if m >= metricCount {
		return ""
	}
	return [...]string{"", "s", "ratio", "1/h", "1/min", "1/s", "B/s", "log2"}[metricInfo[m].unit]
}

// IsRate reports whether m is 0 or 1 in one Trace, so that its mean over many is a proportion of them.
func (m Metric) IsRate() bool { return m < metricCount && metricInfo[m].unit == rate }

// Messages as they are on the wire, for ByteRate.
const (
	exampleSubmit = `{"id":1234,"method":"mining.submit","params":["account.worker1","3f2a","0100000000000000","665f1c2e","9b3d07a1"]}` + "\n"
	exampleReply  = `{"id":1234,"result":true,"error":null}` + "\n"
	exampleSet    = `{"id":null,"method":"mining.set_difficulty","params":[262144]}` + "\n"
)

// What messages cost on the wire, without the headers of TCP and IP.
const (
	// BytesPerShare is a mining.submit and its reply: 153 bytes.
	BytesPerShare = len(exampleSubmit) + len(exampleReply)

	// BytesPerJob is a mining.notify with the twelve branches that a full block has and a coinbase transaction of 250
	// bytes without the extranonces: 13 x 67 for the hashes, 500 for the transaction, and 130 around them.
	BytesPerJob = 13*67 + 500 + 130

	// BytesPerDifficulty is a mining.set_difficulty: 63 bytes.
	BytesPerDifficulty = len(exampleSet)
)

// Values are those of every [Metric], by Metric.
type Values [metricCount]float64

// MeasureOptions tune [Measure]. The zero value measures as the comments of the metrics say, for a pool that wants six
// shares a minute.
type MeasureOptions struct {
	// Interval is the time between shares that the Policy should aim at; 0 or less means 10 s.
	Interval time.Duration

	// Change is when the hashrate changed; 0 or less means that it did not, and so does one that is not within the
	// Trace. It is rounded up to a whole second.
	Change time.Duration

	// Within is the factor of the ideal difficulty that is near enough; what is not above 1 means 1.5.
	Within float64

	// Quiet is the time without a retarget that shows that the difficulty has come to rest, in whole seconds; below 1 s
	// means 5m. The reference's has another name for the same.
	Quiet time.Duration

	// Deadline is the time within which the difficulty must have come to rest; below 1 s means 30m.
	Deadline time.Duration
}

func (o *MeasureOptions) orDefaults() MeasureOptions {
	var r MeasureOptions
	if o != nil {
		r = *o
	}
	if r.Interval <= 0 {
		r.Interval = 10 * time.Second
	}
	if !(r.Within > 1) || math.IsInf(r.Within, 1) {
		r.Within = 1.5
	}
	if r.Quiet < time.Second {
		r.Quiet = 5 * time.Minute
	}
	if r.Deadline < time.Second {
		r.Deadline = 30 * time.Minute
	}
	return r
}

// What the metrics have fixed.
const (
	buffer     = 2 * time.Minute  // between having converged and being settled
	leastSpan  = 10 * time.Minute // that says something about the settled time
	soon       = 5 * time.Minute  // to react in
	late       = 10 * time.Minute // to react at all
	floodSpan  = 10               // seconds that the share rate is averaged over
	floodTimes = 3                // of the target, is a flood
)

// Measure returns every Metric of tr. Nil options mean the defaults.
func Measure(tr *Trace, opts *MeasureOptions) Values {
	m := measurement{tr: tr, o: opts.orDefaults(), end: tr.Duration()}
	for i := range m.v {
		m.v[i] = math.NaN()
	}
	if m.end <= 0 {
		return m.v
	}
	change := (m.o.Change + time.Second - 1).Truncate(time.Second)
	if m.o.Change <= 0 || change >= m.end {
		change = 0
	}
	m.settling(change)
	m.reaction(change)
	m.rates()
	m.floods()
	m.reference(change)
	return m.v
}

type measurement struct {
	tr  *Trace
	o   MeasureOptions
	end time.Duration
	v   Values
}

// truth returns the hashrate in second i.
func (m *measurement) truth(i int) float64 {
	if i < 0 || i >= len(m.tr.Truth) {
		return 0
	}
	return float64(m.tr.Truth[i])
}

// ideal returns the ideal difficulty in second i.
func (m *measurement) ideal(i int) float64 {
	if i < 0 || i >= len(m.tr.Truth) {
		return 0
	}
	return float64(m.tr.Truth[i].Difficulty(m.o.Interval))
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func ceilSecond(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

// stretches calls f with each time of one difficulty from from to to, until it returns false. The first begins at from,
// the others with a retarget.
func (m *measurement) stretches(from, to time.Duration, f func(begin, end time.Duration, d float64) bool) {
	begin, d := from, 0.0
	for _, p := range m.tr.Points {
		if p.At >= to {
			break
		}
		if p.At > begin {
			if !f(begin, p.At, d) {
				return
			}
			begin = p.At
		}
		d = float64(p.Difficulty)
	}
	if begin < to {
		f(begin, to, d)
	}
}

// converged returns when the difficulty came to rest where it belongs, between from and to.
func (m *measurement) converged(from, to time.Duration) (at time.Duration, ok bool) {
	quiet := int(m.o.Quiet / time.Second)
	m.stretches(from, min(to, from+m.o.Deadline), func(begin, end time.Duration, d float64) bool {
		good := 0
		for i := ceilSecond(begin); i < int(end/time.Second); i++ {
			ideal := m.ideal(i)
			if !(d <= ideal*m.o.Within && d >= ideal/m.o.Within && d > 0) {
				good = 0
				continue
			}
			if good++; good >= quiet {
				at, ok = begin, true
				return false
			}
		}
		return true
	})
	return at, ok
}

func (m *measurement) settling(change time.Duration) {
	before := m.end
	if change > 0 {
		before = change
	}
	at, ok := m.converged(0, before)
	m.v[Converged] = flag(ok)
	if ok {
		m.v[ConvergeTime] = at.Seconds()
	}
	if change > 0 {
		at, ok = m.converged(change, m.end)
		m.v[Resettled] = flag(ok)
		if ok {
			m.v[ResettleTime] = (at - change).Seconds()
		}
	}
	from := at + buffer
	if !ok || m.end-from < leastSpan {
		return
	}

	span := (m.end - from).Seconds()
	m.v[Jitter] = float64(m.retargets(from, m.end)) / span * 3600
	var mean, square float64
	m.stretches(from, m.end, func(begin, end time.Duration, d float64) bool {
		weight, l := (end-begin).Seconds()/span, math.Log2(d)
		mean += weight * l
		square += weight * l * l
		return true
	})
	m.v[Spread] = math.Sqrt(max(square-mean*mean, 0))

	var shares, mined int
	for i := ceilSecond(from); i < len(m.tr.Seconds); i++ {
		if m.truth(i) > 0 {
			mined++
			shares += m.tr.Seconds[i].Shares
		}
	}
	if time.Duration(mined)*time.Second >= leastSpan-time.Second {
		m.v[Error] = math.Abs(float64(shares)/float64(mined)*m.o.Interval.Seconds() - 1)
	}
}

func (m *measurement) retargets(from, to time.Duration) int {
	n := 0
	for i, p := range m.tr.Points {
		if i > 0 && p.At >= from && p.At < to {
			n++
		}
	}
	return n
}

// firstRetarget returns the first retarget after a time that goes in a direction: below 0 is down, above up, 0 either.
func (m *measurement) firstRetarget(after time.Duration, direction float64) (wait time.Duration, ok bool) {
	for i, p := range m.tr.Points {
		if i > 0 && p.At > after && float64(p.Difficulty-m.tr.Points[i-1].Difficulty)*direction >= 0 {
			return p.At - after, true
		}
	}
	return 0, false
}

func (m *measurement) reaction(change time.Duration) {
	if change == 0 {
		return
	}
	var before, after float64
	for i := range 60 {
		before += m.truth(int(change/time.Second) - 1 - i)
		after += m.truth(int(change/time.Second) + i)
	}
	if before == 0 || before == after {
		return
	}
	wait, ok := m.firstRetarget(change, math.Copysign(1, after-before))
	if m.end-change >= soon {
		m.v[Reacted] = flag(ok && wait <= soon)
	}
	if ok && wait <= late {
		m.v[ReactTime] = wait.Seconds()
	}
}

func (m *measurement) rates() {
	m.v[HashrateError10m] = m.hashrateError(10 * 60)
	m.v[HashrateError1h] = m.hashrateError(60 * 60)
	shares := float64(m.tr.Shares(0, m.end))
	retargets := m.retargets(0, m.end)
	span := m.end.Seconds()
	m.v[ShareRate] = shares / span
	m.v[Retargets] = float64(retargets) / span * 3600
	m.v[ByteRate] = (shares*float64(BytesPerShare) + float64(m.tr.Jobs)*BytesPerJob +
		float64(retargets+max(m.tr.Sessions, 1))*float64(BytesPerDifficulty)) / span
}

// hashrateError is the mean over windows of so many seconds.
func (m *measurement) hashrateError(window int) float64 {
	var sum float64
	n := 0
	for from := 0; from+window <= len(m.tr.Seconds); from += window {
		var truth, work float64
		for i := from; i < from+window; i++ {
			truth += m.truth(i)
			work += float64(m.tr.Seconds[i].Work)
		}
		if truth > 0 {
			n++
			// Both are sums over the window: hashes that were done, and hashes that the shares stand for.
			sum += math.Abs(work*hashesPerDifficulty/truth - 1)
		}
	}
	if n == 0 {
		return math.NaN()
	}
	return sum / float64(n)
}

func (m *measurement) floods() {
	var flood, easy, longestFlood, longestEasy, sum, next int
	var d float64
	limit := floodTimes * floodSpan / m.o.Interval.Seconds()
	for i, s := range m.tr.Seconds {
		for next < len(m.tr.Points) && m.tr.Points[next].At <= time.Duration(i)*time.Second {
			d = float64(m.tr.Points[next].Difficulty)
			next++
		}
		sum += s.Shares
		if i >= floodSpan {
			sum -= m.tr.Seconds[i-floodSpan].Shares
		}
		if flood++; i < floodSpan-1 || float64(sum) <= limit {
			flood = 0
		}
		if easy++; d == 0 || floodTimes*d >= m.ideal(i) {
			easy = 0
		}
		longestFlood, longestEasy = max(longestFlood, flood), max(longestEasy, easy)
	}
	m.v[LongestFlood], m.v[LongestEasy] = float64(longestFlood), float64(longestEasy)
}

func (m *measurement) reference(change time.Duration) {
	at, ok := m.restful()
	m.v[ReferenceConverged] = flag(ok)
	if ok {
		m.v[ReferenceConvergeTime] = at.Seconds()
		if ideal := m.ideal(len(m.tr.Seconds) - 1); ideal > 0 {
			m.v[ReferenceError] = math.Abs(float64(m.tr.DifficultyAt(m.end))/ideal - 1)
		}
		if from := at + buffer; m.end-from >= leastSpan {
			m.v[ReferenceJitter] = float64(m.retargets(from, m.end)) / (m.end - from).Minutes()
		}
	}
	if change == 0 {
		return
	}
	wait, ok := m.firstRetarget(change, 0)
	if m.end-change >= soon {
		m.v[ReferenceReacted] = flag(ok && wait <= soon)
	}
	if ok && wait <= late {
		m.v[ReferenceReactTime] = wait.Seconds()
	}
}

// restful returns the first retarget with a quiet time after it.
func (m *measurement) restful() (time.Duration, bool) {
	to := min(m.end, m.o.Deadline)
	points := m.tr.Points
	if m.retargets(0, to) == 0 {
		return 0, true
	}
	for i := 1; i < len(points); i++ {
		quietEnd := points[i].At + m.o.Quiet
		if quietEnd > to {
			break
		}
		if i == len(points)-1 || points[i+1].At > quietEnd {
			return points[i].At, true
		}
	}
	return 0, false
}
