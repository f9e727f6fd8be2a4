package handover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Options tune a handover. The zero value starts this program again.
type Options struct {
	Path string   // the program; "" means the file that this process was started from, as it is now
	Args []string // without the program's name; nil means this process's
	Env  []string // "KEY=value"; nil means this process's

	ReadyTimeout time.Duration // what Child.Ready waits; 0 means 1m

	// GiveTimeout is how long the new process may take in the state without any progress, and then to confirm it; 0
	// means 30s.
	GiveTimeout time.Duration

	// MaxState is the longest state in bytes; 0 means 1 GiB. The new process keeps all of it in memory.
	MaxState int64
}

func (o *Options) complete() error {
	if o.ReadyTimeout == 0 {
		o.ReadyTimeout = time.Minute
	}
	if o.GiveTimeout == 0 {
		o.GiveTimeout = 30 * time.Second
	}
	if o.MaxState == 0 {
		o.MaxState = 1 << 30
	}
	if o.Args == nil {
		o.Args = os.Args[1:]
	}
	if o.Env == nil {
		o.Env = os.Environ()
	}
	var errs []error
	if o.ReadyTimeout < 0 || o.GiveTimeout < 0 {
		errs = append(errs, errors.New("a negative timeout"))
	}
	if o.MaxState < 0 {
		errs = append(errs, fmt.Errorf("a state of at most %d bytes", o.MaxState))
	}
	if o.Path == "" {
		var err error
		if o.Path, err = os.Executable(); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// The new process learns from this variable that it is one. Descriptor 3 is where it reads the state, 4 where it
// answers, and the listening sockets follow in the order of their names.
const envName = "POOLKIT_HANDOVER"

type invitation struct {
	Version   int      `json:"version"`
	MaxState  int64    `json:"max_state"`
	Listeners []string `json:"listeners"`
}

const (
	version = 1

	firstDescriptor = 3 // after the standard streams
	pipes           = 2

	saidReady = 'R'
	saidTaken = 'T'
)

// A Child is the process that is to take over.
type Child struct {
	cmd    *exec.Cmd
	opts   Options
	state  *os.File // written here
	report *os.File // read here
	exited chan struct{}
	exit   error // once exited is closed

	mu   sync.Mutex
	over bool // it has been given everything, or was ended
}

// Start starts the new process with copies of the listeners, which stay open here and go on serving. They must be
// listeners of package net or from [Inherited.Listen], not what wraps them. nil options mean all defaults. An end of ctx stops a start that
// has not happened yet; it does not end the new process, for that is to outlive this one: every Child must be given
// the state or aborted.
//
// The file of a Unix socket stays when its listener is closed here from now on, since the new process serves it.
func Start(ctx context.Context, listeners []net.Listener, opts *Options) (*Child, error) {
	bad := func(err error) (*Child, error) { return nil, fmt.Errorf("handover: start: %w", err) }
	c := &Child{exited: make(chan struct{})}
	if opts != nil {
		c.opts = *opts
	}
	if err := c.opts.complete(); err != nil {
		return bad(err)
	}
	if err := ctx.Err(); err != nil {
		return bad(err)
	}
	var theirs []*os.File // what the new process gets; this one needs no copies once it has started
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
	}()
	stateR, stateW, err := os.Pipe()
	if err != nil {
		return bad(err)
	}
	theirs = append(theirs, stateR)
	reportR, reportW, err := os.Pipe()
	if err != nil {
		stateW.Close()
		return bad(err)
	}
	theirs = append(theirs, reportW)
	c.state, c.report = stateW, reportR

	inv := invitation{Version: version, MaxState: c.opts.MaxState, Listeners: []string{}}
	for _, ln := range listeners {
		f, name, err := copyListener(ln)
		if err != nil {
			c.closePipes()
			return bad(err)
		}
		theirs = append(theirs, f)
		inv.Listeners = append(inv.Listeners, name)
	}
	text, err := json.Marshal(&inv)
	if err != nil {
		c.closePipes()
		return bad(err)
	}
	c.cmd = exec.Command(c.opts.Path, c.opts.Args...)
	c.cmd.Env = append(withoutInvitations(c.opts.Env), envName+"="+string(text))
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.cmd.ExtraFiles = theirs
	if err := c.cmd.Start(); err != nil {
		c.closePipes()
		return bad(err)
	}
	for _, ln := range listeners {
		keepFile(ln)
	}
	go func() {
		c.exit = c.cmd.Wait()
		close(c.exited)
	}()
	return c, nil
}

// withoutInvitations returns env without the variables that say what descriptors a process was passed.
func withoutInvitations(env []string) []string {
	var kept []string
	for _, v := range env {
		switch name, _, _ := strings.Cut(v, "="); name {
		case envName, "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID":
		default:
			kept = append(kept, v)
		}
	}
	return kept
}

// copyListener returns a descriptor of the same socket, and the name that the new process claims it by.
func copyListener(ln net.Listener) (f *os.File, name string, err error) {
	name = requested(ln)
	sc, ok := ln.(syscall.Conn)
	if !ok {
		return nil, "", fmt.Errorf("a %T has no descriptor to pass on: pass the listener that it wraps", ln)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, "", fmt.Errorf("listener %s: %w", name, err)
	}
	// Not through the listener's File method: what that returns makes the socket block when it is passed on, for this
	// process too, and closing the listener would then wait for a connection.
	ctl := raw.Control(func(fd uintptr) { f, err = duplicate(fd, name) })
	if err = errors.Join(ctl, err); err != nil {
		return nil, "", fmt.Errorf("listener %s: %w", name, err)
	}
	return f, name, nil
}

func requested(ln net.Listener) string {
	if l, ok := ln.(*listener); ok {
		return l.requested
	}
	if a := ln.Addr(); a != nil {
		return a.Network() + " " + a.String()
	}
	return ""
}

// keepFile makes closing a listener leave the file of a Unix socket where it is.
func keepFile(ln net.Listener) {
	if l, ok := ln.(*listener); ok {
		ln = l.socket
	}
	if l, ok := ln.(interface{ SetUnlinkOnClose(bool) }); ok {
		l.SetUnlinkOnClose(false)
	}
}

// Pid returns the number of the new process.
func (c *Child) Pid() int { return c.cmd.Process.Pid }

// Ready waits until the new process has looked at its configuration and waits for the state. After an error it is
// gone, and this process goes on as if nothing had been: an error of ctx, of the timeout, or that the new process ended,
// for a reason that stands in its log.
func (c *Child) Ready(ctx context.Context) error {
	if err := c.hear(ctx, saidReady, c.opts.ReadyTimeout); err != nil {
		return fmt.Errorf("handover: the new process is not ready: %w", c.giveUp(err))
	}
	return nil
}

// Give hands over what state yields up to io.EOF, nil for nothing, and returns once the new process has all of it and
// knows that everything is its own. The caller has stopped accepting and closed its data before, and exits after. An
// error means that the new process is gone, whatever it was; this one may go on.
func (c *Child) Give(ctx context.Context, state io.Reader) error {
	bad := func(err error) error { return fmt.Errorf("handover: give: %w", c.giveUp(err)) }
	c.mu.Lock()
	over := c.over
	c.mu.Unlock()
	if over {
		return errors.New("handover: give: the handover is over")
	}
	if state == nil {
		state = strings.NewReader("")
	}
	stop := context.AfterFunc(ctx, func() { _ = c.state.SetWriteDeadline(time.Unix(1, 0)) })
	err := writeState(&deadlineWriter{ctx: ctx, f: c.state, timeout: c.opts.GiveTimeout}, state, c.opts.MaxState)
	if !stop() {
		err = ctx.Err()
	}
	if err == nil {
		err = c.hear(ctx, saidTaken, c.opts.GiveTimeout)
	}
	if err == nil {
		err = notifyMainPid(c.Pid())
	}
	if err != nil {
		return bad(err)
	}
	c.mu.Lock()
	c.over = true
	c.mu.Unlock()
	c.closePipes()
	return nil
}

// A deadlineWriter allows each write its own time.
type deadlineWriter struct {
	ctx     context.Context // of the one call of Give that this is made for
	f       *os.File
	timeout time.Duration
}

func (w *deadlineWriter) Write(b []byte) (int, error) {
	if err := w.f.SetWriteDeadline(time.Now().Add(w.timeout)); err != nil {
		return 0, err
	}
	// An end of ctx in between would have its deadline in the past overwritten.
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := w.f.Write(b)
	switch {
	case isBrokenPipe(err):
		err = errGone
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = fmt.Errorf("it took nothing for %v", w.timeout)
	}
	return n, err
}

// hear waits for one word of the new process.
func (c *Child) hear(ctx context.Context, want byte, timeout time.Duration) error {
	if err := c.report.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.report.SetReadDeadline(time.Unix(1, 0)) })
	var word [1]byte
	_, err := io.ReadFull(c.report, word[:])
	switch {
	case !stop():
		return ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("it said nothing for %v", timeout)
	case errors.Is(err, io.EOF):
		return errGone
	case err != nil:
		return err
	case word[0] != want:
		return fmt.Errorf("it said %q instead of %q", word[0], want)
	}
	return nil
}

var errGone = errors.New("it closed its side")

// giveUp ends the new process and returns the reason, which is its own end where it had ended.
func (c *Child) giveUp(err error) error {
	if errors.Is(err, errGone) {
		// Most likely by ending, and then how it ended says more.
		timer := time.NewTimer(5 * time.Second)
		defer timer.Stop()
		select {
		case <-c.exited:
			if c.exit != nil {
				err = fmt.Errorf("it ended: %w", c.exit)
			} else {
				err = errors.New("it ended without an error")
			}
		case <-timer.C:
		}
	}
	c.Abort()
	return err
}

// Abort ends the new process, waits until it is gone, and leaves everything to this one. After Give has succeeded, or
// another Abort, it does nothing.
func (c *Child) Abort() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return
	}
	c.over = true
	_ = c.cmd.Process.Kill()
	<-c.exited
	c.closePipes() // not before it is gone: it would take the end of the pipe for the death of this process
}

func (c *Child) closePipes() {
	c.state.Close()
	c.report.Close()
}

// notifyMainPid tells systemd, if it wants to know, which process it is to watch from now on. The message is described
// in sd_notify(3).
func notifyMainPid(pid int) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("tell systemd of the new process: %w", err)
	}
	defer conn.Close()
	if _, err = fmt.Fprintf(conn, "MAINPID=%d\n", pid); err != nil {
		return fmt.Errorf("tell systemd of the new process: %w", err)
	}
	return nil
}
