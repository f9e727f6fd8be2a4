package stratum_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum"
	"github.com/poolkit/poolkit/stratum/stratumtest"
	"github.com/poolkit/poolkit/stratum/sv1"
	"github.com/stretchr/testify/require"
)

// TestTranscripts plays the conversations in testdata/transcripts, each case against a server of its own. The format
// is described in the README there.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/transcripts/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, path := range files {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		scenes, err := parseTranscript(path, string(text))
		require.NoError(t, err)
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			for _, sc := range scenes {
				t.Run(sc.name, func(t *testing.T) { sc.run(t) })
			}
		})
	}
}

// A scene is one case of a transcript.
type scene struct {
	file, name string
	line       int
	steps      []step
}

type step struct {
	line int
	verb string // of > >e >x < <e <~ <x !
	text string
}

func parseTranscript(file, text string) ([]scene, error) {
	var scenes []scene
	names := make(map[string]bool)
	for i, line := range strings.Split(text, "\n") {
		at := i + 1
		bad := func(format string, args ...any) error {
			return fmt.Errorf("%s:%d: %s", file, at, fmt.Sprintf(format, args...))
		}
		if name, ok := strings.CutPrefix(line, "## "); ok {
			if name == "" || names[name] {
				return nil, bad("case %q has no name of its own", name)
			}
			names[name] = true
			scenes = append(scenes, scene{file: file, name: name, line: at})
			continue
		}
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		verb, rest, _ := strings.Cut(line, " ")
		switch verb {
		case ">", ">e", ">x", "<", "<e", "<~", "<x", "!":
		default:
			return nil, bad("a line begins with #, >, >e, >x, <, <e, <~, <x or !, and this with %q", verb)
		}
		if len(scenes) == 0 {
			return nil, bad("a step before the first case, which a line \"## name\" begins")
		}
		sc := &scenes[len(scenes)-1]
		sc.steps = append(sc.steps, step{at, verb, rest})
	}
	if len(scenes) == 0 {
		return nil, fmt.Errorf("%s: no cases", file)
	}
	return scenes, nil
}

func (sc *scene) run(t *testing.T) {
	var err error
	synctest.Test(t, func(t *testing.T) { err = sc.play(t) })
	if err != nil && !t.Failed() {
		t.Error(err)
	}
}

// play goes through the steps and returns how the first one that fails does.
func (sc *scene) play(t *testing.T) error {
	st := &stage{t: t, vars: make(map[string]variable), tip: 99}
	for i, s := range sc.steps {
		if err := st.do(s); err != nil {
			return fmt.Errorf("%s:%d: %s: %w", sc.file, s.line, sc.name, err)
		}
		if i == len(sc.steps)-1 {
			for _, name := range slices.Sorted(st.names()) {
				st.at = st.peers[name]
				if err := st.quiet(); err != nil {
					return fmt.Errorf("%s:%d: %s: after the end: %w", sc.file, s.line, sc.name, err)
				}
				if f := st.at.floating; len(f) > 0 {
					return fmt.Errorf("%s:%d: %s: the server never sent\n\twant  %s", sc.file, s.line, sc.name, f[0])
				}
			}
		}
	}
	return nil
}

// A stage is where a scene is played.
type stage struct {
	t     *testing.T
	opts  stratum.Options
	users []string // who may mine; nil means everybody
	pool  *pool    // nil until something other than an option is met
	tip   int32

	peers map[string]*peer
	at    *peer // the connection that steps are about
	vars  map[string]variable
}

type variable struct {
	value string
	peer  *peer
}

func (st *stage) names() func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for name := range st.peers {
			if !yield(name) {
				return
			}
		}
	}
}

// A peer is one connection, from the miner's side.
type peer struct {
	client        // what solves shares
	hungUp   bool // by this side
	floating []string

	job    string // what came with the last mining.notify
	notify sv1.Notify
	nonce  uint32 // where to search for the next share

	mu     sync.Mutex
	got    []byte
	closed bool
}

func (p *peer) read() {
	buf := make([]byte, 4<<10)
	for {
		n, err := p.conn.Read(buf)
		p.mu.Lock()
		p.got = append(p.got, buf[:n]...)
		p.closed = err != nil
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// next takes the next line or frame that has come; ok is false when there is no whole one.
func (p *peer) next() (message []byte, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	if len(p.got) > 0 && p.got[0] == 0x7f {
		if len(p.got) >= 4 {
			n = max(4, int(binary.LittleEndian.Uint16(p.got[2:])))
		}
	} else {
		n = bytes.IndexByte(p.got, '\n') + 1
	}
	if n == 0 || n > len(p.got) {
		return nil, false
	}
	message, p.got = p.got[:n:n], p.got[n:]
	return message, true
}

// ended reports whether the server has closed the connection, and what it left behind in the middle of a line.
func (p *peer) ended() (closed bool, rest []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed, p.got
}

func (st *stage) do(s step) error {
	if s.verb == "!" {
		return st.direct(s.text)
	}
	if st.at == nil {
		return errors.New("no connection is open")
	}
	switch s.verb {
	case ">":
		text, err := st.fill(s.text)
		if err != nil {
			return err
		}
		return st.send([]byte(text + "\n"))
	case ">e":
		text, err := st.escaped(s.text)
		if err != nil {
			return err
		}
		return st.send([]byte(text))
	case ">x":
		frame, err := st.frame(s.text)
		if err != nil {
			return err
		}
		return st.send(frame)
	case "<":
		return st.expect(s.text)
	case "<~":
		if _, err := st.pattern(s.text); err != nil {
			return err
		}
		st.at.floating = append(st.at.floating, s.text)
		return nil
	case "<e":
		return st.expectBytes(s.text)
	case "<x":
		return st.expectFrame(s.text)
	}
	return fmt.Errorf("unknown step %q", s.verb)
}

func (st *stage) direct(text string) error {
	words := strings.Fields(text)
	if len(words) == 0 {
		return errors.New("an empty directive")
	}
	verb, args := words[0], words[1:]
	arg := func(i int) string {
		if i < len(args) {
			return args[i]
		}
		return ""
	}
	if verb == "option" {
		if st.pool != nil {
			return errors.New("options come first in a case")
		}
		return st.option(arg(0), strings.Join(args[min(1, len(args)):], " "))
	}
	if st.pool == nil {
		st.open()
	}
	switch verb {
	case "job":
		return st.newJob(strings.TrimSpace(strings.TrimPrefix(text, "job")))
	case "open":
		return st.connect(cmp.Or(arg(0), "miner"), cmp.Or(arg(1), "127.0.0.1"))
	case "use":
		if st.at = st.peers[arg(0)]; st.at == nil {
			return fmt.Errorf("no connection %q", arg(0))
		}
		return nil
	case "wait":
		d, err := time.ParseDuration(arg(0))
		if err != nil {
			return err
		}
		if st.at != nil {
			if err := st.quiet(); err != nil {
				return err
			}
		}
		time.Sleep(d)
		synctest.Wait()
		return nil
	}
	switch verb {
	case "credited":
		return st.credited(arg(0), arg(1))
	case "visitors":
		return st.visitors(arg(0))
	}
	if st.at == nil {
		return errors.New("no connection is open")
	}
	switch verb {
	case "close":
		synctest.Wait()
		for {
			message, ok := st.at.next()
			if !ok {
				break
			}
			if !st.takeFloating(message) {
				return fmt.Errorf("the server is expected to close\n\tgot   %q", message)
			}
		}
		closed, rest := st.at.ended()
		if !closed || len(rest) > 0 {
			return fmt.Errorf("the server is expected to close; closed: %v, half a line: %q", closed, rest)
		}
		st.at.hungUp = true
		return nil
	case "hangup":
		if err := st.quiet(); err != nil {
			return err
		}
		st.at.hungUp = true
		st.at.conn.Close()
		synctest.Wait()
		return nil
	case "ignore":
		synctest.Wait()
		for ok := true; ok; {
			_, ok = st.at.next()
		}
		return nil
	case "skip":
		return st.skip(arg(0), strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(strings.TrimPrefix(text, verb)), arg(0))))
	case "solve":
		return st.solve(args)
	}
	return fmt.Errorf("unknown directive %q", verb)
}

func parseDifficulty(s string) (difficulty.Difficulty, error) {
	if exp, ok := strings.CutPrefix(s, "2^"); ok {
		n, err := strconv.Atoi(exp)
		return difficulty.Difficulty(math.Ldexp(1, n)), err
	}
	return difficulty.Parse(s)
}

// option sets an option of the server of this case.
func (st *stage) option(name, value string) (err error) {
	o := &st.opts
	var n uint64
	switch name {
	case "difficulty":
		o.StartDifficulty, err = parseDifficulty(value)
	case "minimum":
		o.MinDifficulty, err = parseDifficulty(value)
	case "maximum":
		o.MaxDifficulty, err = parseDifficulty(value)
	case "extranonce2":
		o.Extranonce2Size, err = strconv.Atoi(value)
	case "server":
		n, err = strconv.ParseUint(value, 10, 8)
		o.ServerID = uint8(n)
	case "version-mask":
		n, err = strconv.ParseUint(value, 16, 32)
		o.VersionMask = uint32(n)
	case "names":
		err = setNames(&o.Names, value)
	case "nicehash":
		o.NiceHash.Forced = true
	case "nicehash-min":
		o.NiceHash.MinDifficulty, err = parseDifficulty(value)
	case "multi-worker":
		o.MultiWorker = true
	case "single-user":
		_, err = fmt.Sscan(value, &o.SingleUser.Name, &o.SingleUser.UserID)
	case "long-timeout-agents":
		o.LongTimeoutAgents, err = regexp.Compile(value)
	case "clean-change-agents":
		o.CleanChangeAgents, err = regexp.Compile(value)
	case "limits":
		err = setLimits(&o.Limits, value)
	case "users":
		st.users = strings.Fields(value)
	case "clock":
		// A bubble begins in the year 2000.
		var at time.Time
		at, err = time.Parse(time.RFC3339, value)
		time.Sleep(time.Until(at))
	default:
		return fmt.Errorf("the runner knows no option %q", name)
	}
	if err != nil {
		return fmt.Errorf("option %s: %w", name, err)
	}
	return nil
}

func setNames(rules *stratum.NameRules, value string) error {
	for _, rule := range strings.Fields(value) {
		key, value, _ := strings.Cut(rule, "=")
		switch key {
		case "keep-case":
			rules.KeepCase = true
		case "strip-suffix":
			rules.StripSuffix, rules.SuffixSeparator = true, value
		default:
			return fmt.Errorf("no such rule for names: %q", rule)
		}
	}
	return nil
}

func setLimits(l *stratum.Limits, value string) (err error) {
	for _, limit := range strings.Fields(value) {
		key, value, _ := strings.Cut(limit, "=")
		switch key {
		case "request-rate":
			l.RequestRate, err = strconv.Atoi(value)
		case "request-burst":
			l.RequestBurst, err = strconv.Atoi(value)
		case "request-patience":
			l.RequestPatience, err = time.ParseDuration(value)
		case "window-submits":
			l.WindowSubmits, err = strconv.Atoi(value)
		case "ban-time":
			l.BanTime, err = time.ParseDuration(value)
		default:
			err = fmt.Errorf("no such limit: %q", limit)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// knownUsers lets in whom it lists.
type knownUsers []string

func (k knownUsers) Authorize(_ context.Context, w share.Worker, _ string) (int32, error) {
	if i := slices.Index(k, w.User); i >= 0 {
		return int32(i + 1), nil
	}
	return 0, fmt.Errorf("%w: %s", stratum.ErrUnknownUser, w.User)
}

// open starts the server, with the vardiff that a pool runs with.
func (st *stage) open() {
	o := &st.opts
	if o.StartDifficulty == 0 {
		o.StartDifficulty = 16384
	}
	bounds := difficulty.VardiffOptions{
		Start: o.StartDifficulty,
		Min:   cmp.Or(o.MinDifficulty, min(64, o.StartDifficulty)),
		Max:   cmp.Or(o.MaxDifficulty, difficulty.Max),
	}
	o.NewPolicy = func(*stratum.Session) difficulty.Policy {
		v, err := difficulty.NewVardiff(&bounds)
		if err != nil {
			panic(err)
		}
		return v
	}
	st.peers = make(map[string]*peer)
	if st.users == nil {
		st.pool = open(st.t, *o)
		return
	}
	p := &pool{t: st.t, hub: job.NewHub(nil), ln: stratumtest.Listen()}
	var err error
	o.AboveNetwork = true
	p.server, err = stratum.New(p.hub, knownUsers(st.users), p, p, o)
	require.NoError(st.t, err)
	ctx, cancel := context.WithCancel(st.t.Context())
	done := make(chan error, 1)
	go func() { done <- p.server.Serve(ctx, p.ln) }()
	st.t.Cleanup(func() { cancel(); require.NoError(st.t, <-done) })
	st.pool = p
}

func (st *stage) newJob(arg string) error {
	synctest.Wait()
	switch {
	case arg == "clean" || st.tip < 100 && arg == "":
		st.tip++
		st.pool.broadcast(st.tip, hardBits)
	case arg == "":
		st.pool.broadcast(st.tip, hardBits)
	case arg == "empty":
		st.tip++
		j := *makeJob(st.t, st.pool.ids.Next(time.Now()), st.tip, hardBits)
		j.Branch = nil
		require.NoError(st.t, st.pool.hub.Broadcast(st.t.Context(), &j))
	case arg[0] == '[':
		var n sv1.Notify
		if err := n.Decode([]byte(arg)); err != nil {
			return err
		}
		if n.Clean {
			st.tip++
		}
		j := job.Job{
			ID: st.pool.ids.Next(time.Now()), Height: st.tip, Version: int32(n.Version), Bits: n.Bits, PrevHash: n.PrevHash,
			Time: n.NTime, MinTime: n.NTime - 600, Coinb1: n.Coinb1, Coinb2: n.Coinb2,
		}
		for _, step := range n.Branch {
			j.Branch = append(j.Branch, step)
		}
		made, err := job.New(j)
		if err != nil {
			return err
		}
		require.NoError(st.t, st.pool.hub.Broadcast(st.t.Context(), made))
	default:
		return fmt.Errorf("no such job %q", arg)
	}
	synctest.Wait()
	return nil
}

func (st *stage) connect(name, from string) error {
	if old := st.peers[name]; old != nil && !old.hungUp {
		return fmt.Errorf("connection %q is open already", name)
	}
	remote := &net.TCPAddr{IP: net.ParseIP(from), Port: 40000 + len(st.peers)}
	conn, err := st.pool.ln.DialFrom(st.t.Context(), remote)
	if err != nil {
		return err
	}
	st.at = &peer{client: *newClient(st.t, conn)}
	st.peers[name] = st.at
	go st.at.read()
	synctest.Wait()
	return nil
}

// visitors connect and leave, one after another, each with an extranonce of its own.
func (st *stage) visitors(count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	for range n {
		conn, err := st.pool.ln.Dial(st.t.Context())
		if err != nil {
			return err
		}
		conn.Close()
		synctest.Wait()
	}
	return nil
}

// send writes in one piece and waits until the server has done all that it does about it. What came before must have
// been expected.
func (st *stage) send(b []byte) error {
	if err := st.quiet(); err != nil {
		return err
	}
	conn := st.at.conn
	go conn.Write(b) // it fails when the server closes, which the next step tells
	synctest.Wait()
	return nil
}

// quiet fails when the server has sent something that no step has expected.
func (st *stage) quiet() error {
	synctest.Wait()
	for {
		message, ok := st.at.next()
		if !ok {
			break
		}
		if !st.takeFloating(message) {
			return fmt.Errorf("the server sent what nobody expected\n\tgot   %q", message)
		}
	}
	closed, rest := st.at.ended()
	if closed && !st.at.hungUp {
		return errors.New("the server closed the connection")
	}
	if len(rest) > 0 {
		return fmt.Errorf("the server sent half a line: %q", rest)
	}
	return nil
}

func (st *stage) takeFloating(message []byte) bool {
	for i, text := range st.at.floating {
		if st.match(text, message) == nil {
			st.at.floating = slices.Delete(st.at.floating, i, i+1)
			return true
		}
	}
	return false
}

func (st *stage) expect(text string) error {
	synctest.Wait()
	for {
		message, ok := st.at.next()
		if !ok {
			closed, rest := st.at.ended()
			return fmt.Errorf("the server sent nothing (closed: %v, half a line: %q)\n\twant  %s", closed, rest, text)
		}
		err := st.match(text, message)
		if err == nil || !st.takeFloating(message) {
			return err
		}
	}
}

// expectBytes is for what is no line, such as an answer in HTTP.
func (st *stage) expectBytes(text string) error {
	want, err := st.escaped(text)
	if err != nil {
		return err
	}
	synctest.Wait()
	p := st.at
	p.mu.Lock()
	defer p.mu.Unlock()
	if !bytes.HasPrefix(p.got, []byte(want)) {
		return fmt.Errorf("other bytes\n\twant  %q\n\tgot   %q", want, p.got)
	}
	p.got = p.got[len(want):]
	return nil
}

// skip takes as many lines as there are that are as expected: COUNT or LEAST-MOST of them.
func (st *stage) skip(count, text string) error {
	from, to, isRange := strings.Cut(count, "-")
	if !isRange {
		to = from
	}
	least, err := strconv.Atoi(from)
	if err != nil {
		return err
	}
	most, err := strconv.Atoi(to)
	if err != nil {
		return err
	}
	re, err := st.pattern(text)
	if err != nil {
		return err
	}
	synctest.Wait()
	p := st.at
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for end := bytes.IndexByte(p.got, '\n') + 1; end > 0 && re.Match(p.got[:end]); end = bytes.IndexByte(p.got, '\n') + 1 {
		p.got = p.got[end:]
		n++
	}
	if n < least || n > most {
		next, _, _ := bytes.Cut(p.got, []byte("\n"))
		return fmt.Errorf("%d lines instead of %s, and then %q\n\twant  %s", n, count, next, text)
	}
	return nil
}

func (st *stage) expectFrame(text string) error {
	want, err := st.frame(text)
	if err != nil {
		return err
	}
	synctest.Wait()
	for {
		message, ok := st.at.next()
		switch {
		case !ok:
			return fmt.Errorf("the server sent nothing\n\twant  frame %x", want)
		case bytes.Equal(message, want):
			return nil
		case !st.takeFloating(message):
			return fmt.Errorf("another frame or line\n\twant  %x\n\tgot   %x %q", want, message, message)
		}
	}
}

var placeholder = regexp.MustCompile(`<([a-z]+[0-9]?)((?:\.[a-z0-9]+)*)>`)

// kinds are the placeholders of expected lines and what they stand for.
var kinds = map[string]string{
	"en1":     `[0-9a-f]{8}`,
	"job":     `0|[1-9][0-9]*`,
	"longjob": `[1-9][0-9]{9,19}`,
	"diff":    `[0-9]+(?:\.[0-9]+)?`,
	"any":     `.*`,
	"work": `"[0-9a-f]{64}","(?:[0-9a-f]{2})*","(?:[0-9a-f]{2})*",\[(?:"[0-9a-f]{64}"(?:,"[0-9a-f]{64}")*)?\],` +
		`"[0-9a-f]{8}","[0-9a-f]{8}","[0-9a-f]{8}"`,
}

// pattern makes a regular expression of an expected line. Names that have a value stand for it.
func (st *stage) pattern(text string) (*regexp.Regexp, error) {
	var b strings.Builder
	b.WriteString(`\A`)
	end := 0
	for _, m := range placeholder.FindAllStringSubmatchIndex(text, -1) {
		b.WriteString(regexp.QuoteMeta(text[end:m[0]]))
		name, kind := text[m[0]+1:m[1]-1], text[m[2]:m[3]]
		if v, ok := st.vars[name]; ok {
			b.WriteString(regexp.QuoteMeta(v.value))
		} else if expr, ok := kinds[kind]; ok {
			fmt.Fprintf(&b, `(%s)`, expr)
		} else {
			return nil, fmt.Errorf("no value and no kind %q", name)
		}
		end = m[1]
	}
	b.WriteString(regexp.QuoteMeta(text[end:]) + `\n\z`)
	return regexp.Compile(b.String())
}

// match compares a message with an expected line and keeps what the names in it stand for.
func (st *stage) match(text string, message []byte) error {
	re, err := st.pattern(text)
	if err != nil {
		return err
	}
	found := re.FindSubmatch(message)
	if found == nil {
		return fmt.Errorf("another line\n\twant  %s\n\tgot   %s", text, bytes.TrimSuffix(message, []byte("\n")))
	}
	names := placeholder.FindAllStringSubmatch(text, -1)
	names = slices.DeleteFunc(names, func(m []string) bool { _, ok := st.vars[m[1]+m[2]]; return ok })
	for i, m := range names {
		name, kind, value := m[1]+m[2], m[1], string(found[i+1])
		if kind == "any" || kind == "work" {
			continue
		}
		if v, ok := st.vars[name]; ok { // it stands in this line twice
			if v.value != value {
				return fmt.Errorf("<%s> is both %s and %s\n\tgot   %s", name, v.value, value, message)
			}
			continue
		}
		for other, v := range st.vars {
			if same, _, _ := strings.Cut(other, "."); same == kind && v.value == value && (kind == "en1" || (kind == "job" || kind == "longjob") && v.peer == st.at) {
				return fmt.Errorf("<%s> is %s, which <%s> is already\n\twant  %s\n\tgot   %s", name, value, other, text, message)
			}
		}
		st.set(name, value)
		if n, err := strconv.ParseUint(value, 10, 64); err == nil && (kind == "job" || kind == "longjob") {
			st.set(name+".u8", fmt.Sprintf("%02x", uint8(n)))
			st.set(name+".low", fmt.Sprint(uint8(n)))
		}
	}
	st.note(message)
	return nil
}

func (st *stage) set(name, value string) { st.vars[name] = variable{value, st.at} }

// note keeps what solving takes: the extranonce and the last job.
func (st *stage) note(line []byte) {
	var m sv1.Message
	if m.Decode(bytes.TrimSuffix(line, []byte("\n"))) != nil {
		return
	}
	var r sv1.SubscribeResult
	if m.IsReply && r.Decode(m.Result) == nil {
		st.at.en1, st.at.size = r.Extranonce1, r.Extranonce2Size
	}
	var n sv1.Notify
	if m.Method == sv1.MethodNotify && n.Decode(m.Params) == nil {
		st.at.job, st.at.notify = n.JobID, n
	}
}

// fill puts in what the names in a line to send stand for.
func (st *stage) fill(text string) (string, error) {
	var err error
	text = placeholder.ReplaceAllStringFunc(text, func(m string) string {
		v, ok := st.vars[m[1:len(m)-1]]
		if !ok {
			err = fmt.Errorf("%s has no value yet", m)
		}
		return v.value
	})
	return text, err
}

func (st *stage) escaped(text string) (string, error) {
	text, err := st.fill(text)
	if err != nil {
		return "", err
	}
	return unescape(text)
}

func (st *stage) frame(text string) ([]byte, error) {
	text, err := st.fill(text)
	if err != nil {
		return nil, err
	}
	return hex.DecodeString(strings.Join(strings.Fields(text), ""))
}

var repeat = regexp.MustCompile(`\$\{([0-9]+):((?:[^}\\]|\\.)*)\}`)

var escape = regexp.MustCompile(`\\(x[0-9a-f]{2}|[^x]|x)`)

// unescape reads \r \n \t \0 \\ \} and \xNN, and ${N:text} as text N times.
func unescape(text string) (string, error) {
	text = repeat.ReplaceAllStringFunc(text, func(m string) string {
		parts := repeat.FindStringSubmatch(m)
		n, _ := strconv.Atoi(parts[1])
		return strings.Repeat(parts[2], n)
	})
	var err error
	text = escape.ReplaceAllStringFunc(text, func(m string) string {
		switch {
		case m == `\r`:
			return "\r"
		case m == `\n`:
			return "\n"
		case m == `\t`:
			return "\t"
		case m == `\0`:
			return "\x00"
		case m == `\\` || m == `\}`:
			return m[1:]
		case len(m) == 4:
			b, _ := hex.DecodeString(m[2:])
			return string(b)
		}
		err = fmt.Errorf("unknown escape %s", m)
		return m
	})
	return text, err
}

// solve finds a share for the last job: NAME DIFFICULTY, then any of miss, version=HEX, ntime=+N, en2=HEX.
func (st *stage) solve(args []string) error {
	if len(args) < 2 {
		return errors.New("solve takes a name and a difficulty")
	}
	d, err := parseDifficulty(args[1])
	if err != nil {
		return err
	}
	p := st.at
	if p.job == "" {
		return errors.New("no job has come to solve")
	}
	n, c, miss, version := p.notify, p.client, false, ""
	en2 := make([]byte, c.size)
	for _, option := range args[2:] {
		key, value, _ := strings.Cut(option, "=")
		var number uint64
		switch key {
		case "miss":
			miss = true
		case "version":
			number, err = strconv.ParseUint(value, 16, 32)
			n.Version, version = n.Version^uint32(number), value
		case "ntime":
			var seconds int
			seconds, err = strconv.Atoi(value)
			n.NTime += uint32(seconds)
		case "en2":
			en2, err = hex.DecodeString(value)
		default:
			return fmt.Errorf("solve knows no %q", option)
		}
		if err != nil {
			return err
		}
	}
	// The solver counts from an extranonce2 of zeros; another one is put in front of what comes after.
	c.size = 0
	n.Coinb2 = append(slices.Clone(en2), n.Coinb2...)
	w := c.solve(p.job, n, d, p.nonce, miss)
	w.en2 = hex.EncodeToString(en2)
	p.nonce = hexNumber(w.nonce) + 1

	name := args[0]
	le := func(s string) string {
		return hex.EncodeToString(binary.LittleEndian.AppendUint32(nil, hexNumber(s)))
	}
	st.set(name+".job", w.job)
	st.set(name+".en2", w.en2)
	st.set(name+".ntime", w.ntime)
	st.set(name+".nonce", w.nonce)
	st.set(name+".version", cmp.Or(version, "00000000"))
	st.set(name+".ntime.upper", strings.ToUpper(w.ntime))
	st.set(name+".nonce.upper", strings.ToUpper(w.nonce))
	st.set(name+".ntime.le", le(w.ntime))
	st.set(name+".nonce.le", le(w.nonce))
	st.set(name+".params", fmt.Sprintf(`%q,%q,%q,%q`, w.job, w.en2, w.ntime, w.nonce))
	return nil
}

// credited counts the shares that were accepted, of one worker or of all.
func (st *stage) credited(count, worker string) error {
	want, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	synctest.Wait()
	got := 0
	for _, s := range st.pool.recorded() {
		if s.Verdict.Accepted() && (worker == "" || worker == s.Worker.String()) {
			got++
		}
	}
	if got != want {
		return fmt.Errorf("%d shares are credited, want %d: %s", got, want, verdicts(st.pool.recorded()))
	}
	return nil
}

// The runner itself has to fail where a transcript and the server differ.
func TestTranscriptsFailWhereTheyDiffer(t *testing.T) {
	const start = "! option difficulty 1024\n! job\n! open\n> {\"id\":1,\"method\":\"mining.subscribe\",\"params\":[]}\n"
	const subscribed = `< {"id":1,"result":[[["mining.set_difficulty","<en1>"],["mining.notify","<en1>"]],"<en1>",8],"error":null}` + "\n"
	for _, test := range []struct{ name, text, want string }{
		{"nothing differs", start + subscribed, ""},
		{"another value", start + strings.Replace(subscribed, ",8]", ",4]", 1), "another line"},
		{"a line too many", start, "after the end: the server sent what nobody expected"},
		{"a line too few", start + subscribed + "< {}", "the server sent nothing"},
		{"a line before a send", start + "> {}", "the server sent what nobody expected"},
		{"it stays open", start + subscribed + "! close", "expected to close; closed: false"},
		{"it closes", start + subscribed + ">e \\x00\\n\n> x", "the server closed the connection"},
		{"it closes as expected", start + subscribed + ">e \\x00\\n\n! close", ""},
		{"a push that never comes", start + subscribed + "<~ {\"push\":<any>}", "the server never sent"},
		{"two values of one name in a line", start + "< {\"id\":1,\"result\":[[[\"mining.set_difficulty\",\"<en1>\"],[\"mining.notify\",\"<en1>\"]],\"<en1>\",<en1>],\"error\":null}", "another line"},
		{"a push that may come anywhere", start + "<~ " + subscribed[2:], ""},
		{"a name that differs from another", start + subscribed + "! open b\n" +
			"> {\"id\":1,\"method\":\"mining.subscribe\",\"params\":[]}\n" + subscribed, "another line"},
		{"names of their own", start + subscribed + "! open b\n> {\"id\":1,\"method\":\"mining.subscribe\",\"params\":[]}\n" +
			strings.ReplaceAll(subscribed, "en1", "en1.b"), ""},
		{"an unknown name", start + subscribed + "> <nobody>", "<nobody> has no value yet"},
		{"an unknown directive", "! dance", "no connection is open"},
		{"an unknown option", "! option dance on", `knows no option "dance"`},
		{"an unknown limit", "! option limits dance=1", `no such limit: "dance=1"`},
		{"an unknown rule for names", "! option names dance", `no such rule for names: "dance"`},
		{"bytes", start + strings.Replace(subscribed[:14], "<", "<e", 1) + "\n", "got   \"ult"},
		{"other bytes", start + "<e {\"id\":2,", "other bytes"},
		{"too few lines", start + "! skip 2" + subscribed[1:], "1 lines instead of 2, and then \"\""},
		{"too many lines", start + "! skip 0-0" + subscribed[1:], "1 lines instead of 0-0"},
		{"as many lines", start + "! skip 1-3" + subscribed[1:], ""},
		{"another line first", start + "! skip 1 {}", "0 lines instead of 1, and then \"{"},
		{"a frame", start + subscribed + "<x 7f", "the server sent nothing"},
		{"too little credit", start + subscribed + "! credited 1", "0 shares are credited, want 1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			scenes, err := parseTranscript("file", "## case\n"+test.text)
			require.NoError(t, err)
			synctest.Test(t, func(t *testing.T) { err = scenes[0].play(t) })
			if test.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, test.want)
			require.ErrorContains(t, err, "file:")
		})
	}
	for _, test := range []struct{ text, want string }{
		{"hello", "file:1: a line begins with"},
		{"> {}", "before the first case"},
		{"## a\n## a", "file:2: case \"a\""},
		{"# only a comment", "no cases"},
	} {
		_, err := parseTranscript("file", test.text)
		require.ErrorContains(t, err, test.want)
	}
}
