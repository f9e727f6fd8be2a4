package job

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var storeStart = time.Unix(1713597568, 0)

func newStore(change func(s *store)) *store {
	s := &store{interval: DefaultInterval, lifetime: DefaultLifetime, emptyLifetime: DefaultEmptyLifetime}
	if change != nil {
		change(s)
	}
	return s
}

// tmplSeq gives every test template an ID of its own.
var tmplSeq uint32

func storeTemplate(height int32, full bool, received time.Time) *Template {
	tmplSeq++
	t := &Template{Height: height, Received: received, ID: Hash{0: 1, 4: byte(tmplSeq), 5: byte(tmplSeq >> 8)}}
	t.PrevHash = Hash{0: byte(height), 1: byte(height >> 8)}
	if full {
		t.Transactions = make([]Transaction, 3)
	}
	return t
}

// storeJob stands for the job that Build would make.
func storeJob(t *Template) *Job {
	j := &Job{Height: t.Height, PrevHash: t.PrevHash, TemplateID: t.ID}
	if !t.Empty() {
		j.Branch = make([]Hash, 2)
	}
	return j
}

// A step happens some seconds after the start.
type step struct {
	at   float64
	do   func(s *store, now time.Time) string
	want string
}

func seconds(at float64) time.Duration { return time.Duration(at * float64(time.Second)) }

// put offers a template that arrived age seconds ago.
func put(height int32, full bool, age float64) func(*store, time.Time) string {
	return func(s *store, now time.Time) string {
		return s.accept(storeTemplate(height, full, now.Add(-seconds(age))), now).String()
	}
}

// send makes a job if one is due, and says which.
func send(s *store, now time.Time) string {
	t, why := s.due(now)
	if t == nil {
		return why.String()
	}
	j := storeJob(t)
	text := fmt.Sprintf("%d", t.Height)
	if j.Empty() {
		text += " empty"
	}
	if s.clean(j) {
		text += " clean"
	}
	s.sent(t, j, now)
	return text + ": " + why.String()
}

// kept lists what is left, worst first.
func kept(s *store, now time.Time) string {
	s.expire(now)
	var list []string
	for _, e := range s.entries {
		list = append(list, fmt.Sprintf("%d:%d", e.t.Height, len(e.t.Transactions)))
	}
	return fmt.Sprint(list)
}

func TestStoreDecisions(t *testing.T) {
	protect := func(s *store) { s.protectEmptyBest = true }
	byHeight := func(s *store) { s.order = KeyOrderHeight }
	for _, tt := range []struct {
		name  string
		opts  func(s *store)
		steps []step
	}{
		{"freshness ends at 60 s, in both directions", nil, []step{
			{0, put(100, true, 59.999), "not dropped"},
			{0, put(100, true, 60), "old"},
			{0, put(100, true, -59.999), "not dropped"},
			{0, put(100, true, -60), "old"},
		}},
		{"the first job goes out at once and is clean", nil, []step{
			{0, send, "not sent"},
			{0, put(100, true, 0), "not dropped"},
			{0, send, "100 clean: first"},
			{0, send, "not sent"},
		}},
		{"a new height goes out at once and is clean", nil, []step{
			{0, put(100, true, 0), "not dropped"},
			{0, send, "100 clean: first"},
			{1, put(101, true, 0), "not dropped"},
			{1, send, "101 clean: new height"},
		}},
		{"a fuller template waits for the interval", nil, []step{
			{0, put(100, true, 0), "not dropped"},
			{0, send, "100 clean: first"},
			{5, put(100, true, 0), "not dropped"},
			{5, send, "not sent"},
			{19.999, send, "not sent"},
			{20, send, "100: interval"},
			{39.999, send, "not sent"},
			{40, send, "100: interval"},
		}},
		{"the same template goes out again and again", nil, []step{
			{0, put(100, true, 0), "not dropped"},
			{0, send, "100 clean: first"},
			{20, send, "100: interval"},
			{3600, send, "100: interval"},
		}},
		{"transactions for an empty job go out at once", nil, []step{
			{0, put(100, false, 0), "not dropped"},
			{0, send, "100 empty clean: first"},
			{1, put(100, false, 0), "not dropped"},
			{1, send, "not sent"},
			{2, put(100, true, 0), "not dropped"},
			{2, send, "100: transactions"},
			{3, put(100, true, 0), "not dropped"},
			{3, send, "not sent"},
		}},
		{"an empty template does not displace a full one of its height", nil, []step{
			{0, put(100, true, 0), "not dropped"},
			{1, put(100, false, 0), "not dropped"},
			{1, send, "100 clean: first"},
			{20, put(100, false, 0), "not dropped"},
			{21, send, "100: interval"},
		}},
		{"an empty template of the next height does", nil, []step{
			{0, put(100, true, 0), "not dropped"},
			{0, send, "100 clean: first"},
			{1, put(101, false, 0), "not dropped"},
			{1, send, "101 empty clean: new height"},
		}},
		{"a lower height is dropped for two intervals after a full best", nil, []step{
			{0, put(101, true, 0), "not dropped"},
			{39, put(100, true, 0), "lower height"},
			{39.999, put(100, true, 0), "lower height"},
			{40, put(100, true, 0), "not dropped"},
		}},
		{"a lower height is taken at once after an empty best", nil, []step{
			{0, put(101, false, 0), "not dropped"},
			{0, send, "101 empty clean: first"},
			{1, put(100, true, 0), "not dropped"},
			{1, send, "not sent"}, // and not sent before the interval is over
			{20, send, "100: interval"},
		}},
		{"unless empty ones are protected too", protect, []step{
			{0, put(101, false, 0), "not dropped"},
			{14, put(100, true, 0), "lower height"},
			{39.999, put(100, true, 0), "lower height"}, // past its life, but the last one there is
			{40, put(100, true, 0), "not dropped"},
		}},
		{"a lower template from a clock that is behind is dropped too", nil, []step{
			{0, put(101, true, 0), "not dropped"},
			{0, put(100, true, 5), "lower height"}, // 5 s before the best: negative, not huge
		}},
		{"a lower job is not clean, and the way back is", nil, []step{
			{0, put(101, true, 0), "not dropped"},
			{0, send, "101 clean: first"},
			{40, put(100, true, 0), "not dropped"},
			{40, send, "100: interval"},
			{41, put(101, true, 0), "not dropped"},
			{41, send, "101 clean: new height"},
		}},
		{"full templates live 90 s and empty ones 15 s", nil, []step{
			{0, put(100, true, 0), "not dropped"},
			{0, put(101, false, 0), "not dropped"},
			{14.999, kept, "[100:3 101:0]"},
			{15, kept, "[100:3]"},
			{89, put(102, false, 0), "not dropped"},
			{89.999, kept, "[100:3 102:0]"},
			{90, kept, "[102:0]"},
			{3600, kept, "[102:0]"},
		}},
		{"the last one stays when all have expired", nil, []step{
			{0, put(100, true, 0), "not dropped"},
			{1, put(101, true, 0), "not dropped"},
			{3600, kept, "[101:3]"},
		}},
		{"a wrong empty template gives way when it expires", nil, []step{
			{0, put(100, true, 0), "not dropped"},
			{0, send, "100 clean: first"},
			{2, put(101, false, 0), "not dropped"},
			{2, send, "101 empty clean: new height"},
			{16, send, "not sent"},
			{22, send, "100: interval"},
		}},
		{"an expired full template does not stand in for an empty one", nil, []step{
			{0, put(100, true, 0), "not dropped"},
			{89, put(100, false, 0), "not dropped"},
			{89, send, "100 clean: first"},
			{109, send, "100 empty: interval"},
		}},
		{"of two templates of one height and second the later one counts", nil, []step{
			{0, put(100, true, 0.2), "not dropped"},
			{0, put(100, true, 0.1), "not dropped"},
			{0, kept, "[100:3]"},
			{0, func(s *store, now time.Time) string { return now.Sub(s.entries[0].t.Received).String() }, "100ms"},
		}},
		{"a template that comes late does not displace a newer one", nil, []step{
			{0, put(100, true, 1), "not dropped"},
			{0, put(100, true, 10), "not dropped"},
			{0, func(s *store, now time.Time) string { return now.Sub(s.entries[0].t.Received).String() }, "1s"},
		}},
		{"by time, the newest leads whatever its height", nil, []step{
			{0, put(101, true, 50), "not dropped"},
			{0, put(100, true, 0), "not dropped"},
			{0, send, "100 clean: first"},
		}},
		{"by height, the highest leads until it expires", byHeight, []step{
			{0, put(101, true, 50), "not dropped"},
			{0, put(100, true, 0), "not dropped"},
			{0, send, "101 clean: first"},
			{20, send, "101: interval"},
			{40, send, "100: interval"},
		}},
		{"by height, transactions lead whatever their time", byHeight, []step{
			{0, put(100, true, 50), "not dropped"},
			{0, put(100, false, 0), "not dropped"},
			{0, send, "100 clean: first"},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStore(tt.opts)
			for i, st := range tt.steps {
				require.Equal(t, st.want, st.do(s, storeStart.Add(seconds(st.at))), "step %d, at %v s", i+1, st.at)
			}
		})
	}
}

func TestStoreRefusesDuplicatesAmongTheLast20(t *testing.T) {
	s := newStore(nil)
	first := storeTemplate(100, true, storeStart)
	require.Equal(t, NotDropped, s.accept(first, storeStart))
	for i := range 19 {
		require.Equal(t, DroppedDuplicate, s.accept(first, storeStart), "after %d others", i)
		require.Equal(t, NotDropped, s.accept(storeTemplate(100, true, storeStart), storeStart))
	}
	require.Equal(t, DroppedDuplicate, s.accept(first, storeStart), "still one of the last 20")
	require.Equal(t, NotDropped, s.accept(storeTemplate(100, true, storeStart), storeStart))
	require.Equal(t, NotDropped, s.accept(first, storeStart), "the 21st made room for it")

	// What was dropped is not remembered: it may come again when it is good.
	low := storeTemplate(99, true, storeStart)
	require.Equal(t, DroppedLower, s.accept(low, storeStart))
	require.Equal(t, DroppedLower, s.accept(low, storeStart))
}

func TestStoreRefusesInvalidTemplates(t *testing.T) {
	for name, change := range map[string]func(t *Template){
		"no ID":              func(t *Template) { t.ID = Hash{} },
		"no time of arrival": func(t *Template) { t.Received = time.Time{} },
		"negative height":    func(t *Template) { t.Height = -1 },
		"highest height":     func(t *Template) { t.Height = math.MaxInt32 },
	} {
		tmpl := storeTemplate(100, true, storeStart)
		change(tmpl)
		require.Equal(t, DroppedInvalid, newStore(nil).accept(tmpl, storeStart), name)
	}
	require.Equal(t, DroppedInvalid, newStore(nil).accept(nil, storeStart))
}

func TestKeys(t *testing.T) {
	rows := []struct {
		t            *Template
		time, height uint64
	}{
		{storeTemplate(840000, true, time.Unix(1713597568, 0)), 0x66236c800019a281, 0x0019a28166236c80},
		{storeTemplate(840000, false, time.Unix(1713597571, 0)), 0x66236c830019a280, 0x0019a28066236c83},
		{storeTemplate(839999, true, time.Unix(1713597573, 0)), 0x66236c850019a27f, 0x0019a27f66236c85},
	}
	var byTime, byHeight []uint64
	for _, row := range rows {
		require.Equal(t, row.time, KeyOrderTime.key(row.t))
		require.Equal(t, row.height, KeyOrderHeight.key(row.t))
		byTime, byHeight = append(byTime, row.time), append(byHeight, row.height)
	}
	require.Equal(t, rows[2].time, slices.Max(byTime))
	require.Equal(t, rows[0].height, slices.Max(byHeight))
}

func TestStoreIsBounded(t *testing.T) {
	s := newStore(nil)
	for i := range int32(1000) {
		require.Equal(t, NotDropped, s.accept(storeTemplate(100+i, true, storeStart), storeStart))
	}
	require.Len(t, s.entries, maxTemplates)
	require.Len(t, s.seen, seenTemplates)
	best, _ := s.due(storeStart)
	require.EqualValues(t, 1099, best.Height, "the best is not what makes room")
}

func TestRejectedTemplateGivesWayToTheLastThatWorked(t *testing.T) {
	s := newStore(nil)
	good := storeTemplate(100, true, storeStart)
	s.accept(good, storeStart)
	require.Equal(t, "100 clean: first", send(s, storeStart))

	bad := storeTemplate(100, true, storeStart.Add(5*time.Second)) // displaces good
	s.accept(bad, bad.Received)
	s.reject(bad)
	tmpl, why := s.due(storeStart.Add(20 * time.Second))
	require.Same(t, good, tmpl)
	require.Equal(t, SentInterval, why)

	s.reject(good) // nothing is left, and nothing comes back for ever
	tmpl, why = s.due(storeStart.Add(20 * time.Second))
	require.Nil(t, tmpl)
	require.Equal(t, NotSent, why)
}

func TestKeyOrderText(t *testing.T) {
	var o KeyOrder
	require.NoError(t, json.Unmarshal([]byte(`"height"`), &o))
	require.Equal(t, KeyOrderHeight, o)
	b, err := json.Marshal(o)
	require.NoError(t, err)
	require.Equal(t, `"height"`, string(b))
	require.NoError(t, o.UnmarshalText([]byte("time")))
	require.Equal(t, KeyOrderTime, o)
	require.ErrorContains(t, o.UnmarshalText([]byte("size")), `"size"`)
	_, err = KeyOrder(7).MarshalText()
	require.Error(t, err)
}

func TestNamesOfReasonsDiffer(t *testing.T) {
	seen := map[string]bool{}
	for d := range DroppedLower + 1 {
		seen[d.String()] = true
	}
	for r := range SentInterval + 1 {
		seen[r.String()] = true
	}
	for s := range Stale + 1 {
		seen[s.String()] = true
	}
	require.Len(t, seen, int(DroppedLower)+1+int(SentInterval)+1+int(Stale)+1)
	require.Equal(t, "Drop(99) SendReason(99) State(99) KeyOrder(99)",
		fmt.Sprint(Drop(99), SendReason(99), State(99), KeyOrder(99)))
}
